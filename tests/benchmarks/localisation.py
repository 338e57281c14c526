"""Do the maps lie on the objects? Fresh scenes that no model has seen, with the box of every object known.

    python tests/benchmarks/localisation.py RUN [--seed 12345] [--method gradcam,layercam] [--flips]

RUN is a run folder trained on scenes. For each method, prints how often the strongest point lies on the object (single
objects; all images, and those classified correctly), the mean IoU of the box around the largest segment, above the
share of the maximum that is best on 100 other scenes, and for pictures with two objects how often the strongest point
lies on its own object and most of the positive mass in its own half; beside them what the centre of the image scores.
"""

import argparse
import csv
import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from evalcam_cli.data.preprocessing import Geometry
from evalcam_cli.explain.boxes import binarise, iou, largest_segment, stack_boxes
from evalcam_cli.explain.methods import METHODS
from evalcam_cli.report.enlarging import Floats, enlarge
from evalcam_cli.workflows.manifest import read_manifest

SCRIPT = Path(__file__).parents[2] / "sample_data" / "make_scenes.py"
FRACTIONS = np.arange(0.15, 0.9, 0.05)
Box = tuple[int, int, int, int]


class Seen:
    """The map of one class on one picture, on its pixels."""

    def __init__(self, record: dict[str, Any], signed: Floats, image_size: int) -> None:
        self.name = Path(record["image"]).name
        self.label, self.method = record["class"], record["method"]
        width, height = record["image_size"]
        geometry = Geometry(width, height, image_size, **record["to_input"])
        readable = signed if METHODS[self.method].signed else np.abs(signed)
        self.heat, self.seen = enlarge(readable, geometry)
        self.positive = np.where(self.seen, np.maximum(self.heat, 0), 0)

    def points_at(self, box: Box) -> bool:
        if not self.positive.any():
            return False
        y, x = np.unravel_index(int(self.positive.argmax()), self.positive.shape)
        return hits(box, int(x), int(y))

    def overlap(self, box: Box, fraction: float) -> float:
        found = largest_segment(binarise(self.heat, fraction, self.seen))
        return 0.0 if found is None else float(iou(stack_boxes([found[1].box]), stack_boxes([box]))[0, 0])

    def mass_in_own_half(self, box: Box) -> float:
        """Share of the positive mass in the half, across the longer side, that holds the box; 0 for an empty map."""
        height, width = self.positive.shape
        total = float(self.positive.sum())
        if total == 0:
            return 0.0
        if width >= height:
            half = self.positive[:, : width // 2] if box[2] <= width // 2 else self.positive[:, width - width // 2 :]
        else:
            half = self.positive[: height // 2] if box[3] <= height // 2 else self.positive[height - height // 2 :]
        return float(half.sum()) / total


def read_boxes(path: Path) -> dict[str, dict[str, Box]]:
    """Boxes by picture and label."""
    boxes: dict[str, dict[str, Box]] = defaultdict(dict)
    with path.open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            x0, y0, x1, y1 = (int(row[side]) for side in ("x0", "y0", "x1", "y1"))
            boxes[Path(row["path"]).name][row["label"]] = x0, y0, x1, y1
    return boxes


def hits(box: Box, x: float, y: float) -> bool:
    x0, y0, x1, y1 = box
    return x0 <= x < x1 and y0 <= y < y1


def draw(root: Path, seed: int, count: int, pairs: int) -> Path:
    numbers = ["--seed", seed, "--count", count, "--pairs", pairs]
    command = [sys.executable, str(SCRIPT), "--out", str(root), *map(str, numbers)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return root


def explain(images: Path, chosen: str, out: Path, options: argparse.Namespace) -> tuple[list[Seen], dict[str, str]]:
    """The maps of a folder of pictures, and the predicted class of each."""
    command = [sys.executable, "-m", "evalcam_cli", "gradcam", str(images), "--ckpt", str(options.run)]
    command += ["--class", chosen, "--method", options.method, "--out", str(out), "--quiet"]
    command += ["--flips"] if options.flips else []
    command += ["--layer", options.layer] if options.layer else []
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    size = json.loads((out / "gradcam.json").read_text(encoding="utf-8"))["preprocessing"]["image_size"]
    maps = [Seen(record, signed, size) for record, signed in read_manifest(out)]
    with (out / "explanations.csv").open(encoding="utf-8", newline="") as stream:
        predicted = {Path(row["path"]).name: row["predicted"] for row in csv.DictReader(stream)}
    return maps, predicted


def best_fraction(maps: list[Seen], boxes: dict[str, dict[str, Box]]) -> float:
    means = [np.mean([one.overlap(boxes[one.name][one.label], fraction) for one in maps]) for fraction in FRACTIONS]
    return float(FRACTIONS[int(np.argmax(means))])


def percent(found: list[bool]) -> str:
    return f"{sum(found)} of {len(found)} = {sum(found) / len(found):.3f}"


def report_singles(root: Path, other: Path, options: argparse.Namespace) -> None:
    boxes, other_boxes = (read_boxes(place / "scenes" / "boxes.csv") for place in (root, other))
    maps, predicted = explain(root / "scenes", "true", root / "maps", options)
    tuning, _ = explain(other / "scenes", "true", other / "maps", options)
    for method in options.method.split(","):
        mine = [one for one in maps if one.method == method]
        right = [one for one in mine if predicted[one.name] == one.label]
        fraction = best_fraction([one for one in tuning if one.method == method], other_boxes)
        overlaps = [one.overlap(boxes[one.name][one.label], fraction) for one in mine]
        print(f"{method}: one object")
        print(f"  accuracy                      {percent([predicted[one.name] == one.label for one in mine])}")
        for what, those in (("all", mine), ("of right ones", right)):
            pointed = percent([one.points_at(boxes[one.name][one.label]) for one in those])
            print(f"  strongest point on it, {what:14} {pointed}")
        print(f"  mean IoU of boxes above {fraction:.2f}  {np.mean(overlaps):.3f}")
        print(f"  IoU >= 0.5                    {percent([value >= 0.5 for value in overlaps])}")


def report_pairs(root: Path, options: argparse.Namespace) -> None:
    pairs = read_boxes(root / "scene_pairs" / "boxes.csv")
    maps, _ = explain(root / "scene_pairs", "all", root / "pair_maps", options)
    for method in options.method.split(","):
        own = [
            (one, pairs[one.name][one.label]) for one in maps if one.method == method and one.label in pairs[one.name]
        ]
        print(f"{method}: two objects, the map of each one's class")
        print(f"  strongest point on its own    {percent([one.points_at(box) for one, box in own])}")
        shares = [one.mass_in_own_half(box) for one, box in own]
        print(
            f"  mass mainly in its own half   {percent([share > 0.5 for share in shares])}; mean {np.mean(shares):.3f}"
        )


def report_centres(root: Path) -> None:
    for folder in ("scenes", "scene_pairs"):
        found = []
        for path in sorted((root / folder).rglob("*.jpg")):
            with Image.open(path) as image:
                boxes = read_boxes(root / folder / "boxes.csv")[path.name].values()
                found += [hits(box, image.width / 2, image.height / 2) for box in boxes]
        print(f"the centre of the image would hit in {folder}: {percent(found)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--seed", type=int, default=12345)
    parser.add_argument("--count", type=int, default=400)
    parser.add_argument("--pairs", type=int, default=48)
    parser.add_argument("--method", default="gradcam")
    parser.add_argument("--layer")
    parser.add_argument("--flips", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        root = draw(Path(scratch) / "fresh", options.seed, options.count, options.pairs)
        other = draw(Path(scratch) / "tuning", options.seed + 1, 100, 0)
        report_singles(root, other, options)
        report_pairs(root, options)
        report_centres(root)


if __name__ == "__main__":
    main()
