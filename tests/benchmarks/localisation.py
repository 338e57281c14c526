"""Do the maps lie on the objects? Fresh scenes that no model has seen, with the box of every object known.

    python tests/benchmarks/localisation.py RUN [--seed 12345]

RUN is a run folder trained on sample_data/scenes. Prints the share of maps whose strongest point lies in the true box,
for single objects (of correctly classified images) and for the two objects of a pair, and how often the centre of the
image would have hit.
"""

import argparse
import csv
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

from PIL import Image

SCRIPT = Path(__file__).parents[2] / "sample_data" / "make_scenes.py"
Box = tuple[int, int, int, int]


def read_boxes(path: Path) -> dict[str, dict[str, Box]]:
    """Boxes by picture and label."""
    boxes: dict[str, dict[str, Box]] = defaultdict(dict)
    with path.open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            x0, y0, x1, y1 = (int(row[side]) for side in ("x0", "y0", "x1", "y1"))
            boxes[row["path"]][row["label"]] = x0, y0, x1, y1
    return boxes


def explain(run: Path, images: Path, chosen: str, out: Path) -> list[dict[str, str]]:
    """The rows of explanations.csv for a folder of pictures."""
    command = [sys.executable, "-m", "evalcam_cli", "gradcam", str(images), "--ckpt", str(run), "--class", chosen]
    subprocess.run([*command, "--out", str(out), "--quiet"], check=True, stdout=subprocess.DEVNULL)
    with (out / "explanations.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def hits(box: Box, x: float, y: float) -> bool:
    x0, y0, x1, y1 = box
    return x0 <= x < x1 and y0 <= y < y1


def peak_hits(row: dict[str, str], box: Box) -> bool:
    return row["empty"] == "false" and hits(box, int(row["peak_x"]), int(row["peak_y"]))


def percent(found: list[bool]) -> str:
    return f"{sum(found)} of {len(found)} = {sum(found) / len(found):.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--seed", type=int, default=12345)
    parser.add_argument("--count", type=int, default=400)
    parser.add_argument("--pairs", type=int, default=48)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        numbers = ["--seed", options.seed, "--count", options.count, "--pairs", options.pairs]
        subprocess.run(
            [sys.executable, SCRIPT, "--out", root, *map(str, numbers)], check=True, stdout=subprocess.DEVNULL
        )
        singles = read_boxes(root / "scenes" / "boxes.csv")
        rows = explain(options.run, root / "scenes", "true", root / "maps")
        for row in rows:
            row["path"] = Path(row["path"]).relative_to(root / "scenes").as_posix()
        right = [row for row in rows if row["predicted"] == row["label"]]
        print(f"accuracy:                {percent([row['predicted'] == row['label'] for row in rows])}")
        print(
            f"peak in the true box:    {percent([peak_hits(row, singles[row['path']][row['label']]) for row in right])}"
        )
        centres = []
        for path, boxes in singles.items():
            with Image.open(root / "scenes" / path) as image:
                centres += [hits(box, image.width / 2, image.height / 2) for box in boxes.values()]
        print(f"centre in the true box:  {percent(centres)}")
        pairs = read_boxes(root / "scene_pairs" / "boxes.csv")
        rows = explain(options.run, root / "scene_pairs", "all", root / "pair_maps")
        mapped = {(Path(row["path"]).name, row["class"]): row for row in rows}
        own = [peak_hits(mapped[path, label], box) for path, boxes in pairs.items() for label, box in boxes.items()]
        print(f"pairs, in its own box:   {percent(own)}")
        middles = []
        for path, boxes in pairs.items():
            with Image.open(root / "scene_pairs" / path) as image:
                middles += [hits(box, image.width / 2, image.height / 2) for box in boxes.values()]
        print(f"pairs, centre in a box:  {percent(middles)}")


if __name__ == "__main__":
    main()
