"""How long `evalcam gradcam FOLDER` takes beside reading the images and asking the network, and how much memory.

    python -m tests.benchmarks.folders --photos FOLDER [--images 500] [--runs 3] [--threads N]

A folder of so many photographs is made of the ones given, copied round robin. In one process and in turn are timed

- the plain way, one after the other: decode and preprocess all images, then all through the network (inference mode,
  batches of 16, channels last), and
- the whole command: checkpoint, maps, overlays on the originals, raw maps, table and manifest.

Printed are the medians of the runs by the clock and of the processor, and their ratios; the ratio of the clock has a
target. Then, each in a fresh process, the command's peak memory at a tenth, a half and all of the images.
"""

import argparse
import itertools
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from evalcam_cli.config import RunConfig
from evalcam_cli.data.dataset import normalise
from evalcam_cli.data.images import load_image
from evalcam_cli.data.preprocessing import Preprocessing
from evalcam_cli.models.architectures import build_model
from evalcam_cli.models.checkpoint import Checkpoint, save_checkpoint
from evalcam_cli.models.inference import Classifier
from evalcam_cli.workflows.checkpoints import WeightsRequest, load_classifier
from evalcam_cli.workflows.gradcam import GradCamRequest, explain

TARGETS = {"resnet50": 1.25, "resnet18": 1.6}
"""Largest ratio of the clock."""
FLAT = 50
"""MB by which the peak of many images may exceed that of few."""
_CLASSES = tuple(f"class {index}" for index in range(10))
_BATCH = 16


@dataclass(frozen=True)
class Spent:
    """Seconds by the clock and of the processor, all threads together."""

    clock: float
    processor: float


def main() -> None:
    options = _options()
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.child:
        _run_command(options.photos, options.child, options.out)
        print(f"peak {_peak():.1f}")
        return
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        folder = make_folder(root / "photos", options.photos, options.images, options.size)
        fine = [_print_speed(root, folder, arch, options.runs) for arch in options.arch]
        fine += [_print_memory(root, folder, arch, options.threads) for arch in options.arch if options.memory]
    sys.exit(not all(fine))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--size", type=int, help="enlarge each photograph to so many megapixels")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0, help="of the network; default as torch chooses")
    parser.add_argument("--arch", nargs="*", default=list(TARGETS))
    parser.add_argument("--memory", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def make_folder(folder: Path, photos: Path, count: int, megapixels: int | None = None) -> Path:
    """So many JPEG files, copies of the photographs in turn, enlarged if asked for."""
    sources = sorted(path for path in photos.iterdir() if path.suffix.lower() in {".jpg", ".jpeg"})
    if not sources:
        raise SystemExit(f"no JPEG in {photos}")
    folder.mkdir()
    for number, source in enumerate(itertools.islice(itertools.cycle(sources), count)):
        file = folder / f"{number:04}-{source.stem}.jpg"
        if megapixels is None:
            shutil.copyfile(source, file)
            continue
        with Image.open(source) as image:
            factor = (1e6 * megapixels / (image.width * image.height)) ** 0.5
            image.convert("RGB").resize((round(image.width * factor), round(image.height * factor))).save(file)
    return folder


def make_checkpoint(root: Path, arch: str) -> Path:
    """A network with random weights."""
    path = root / f"{arch}.safetensors"
    if not path.exists():
        torch.manual_seed(0)
        model = build_model(arch, len(_CLASSES))
        save_checkpoint(path, Checkpoint(arch, 2, _CLASSES, Preprocessing(224, "pad")), model.state_dict())
    return path


def decode_all(folder: Path, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """(N, S, S, 3), one image after the other."""
    limit = RunConfig().data.max_pixels
    return np.stack([preprocessing.apply(load_image(path, limit)) for path in sorted(folder.iterdir())])


def forward_all(classifier: Classifier, pixels: NDArray[np.uint8]) -> None:
    with torch.inference_mode():
        for start in range(0, len(pixels), _BATCH):
            batch = torch.from_numpy(pixels[start : start + _BATCH]).permute(0, 3, 1, 2)
            classifier.model(normalise(batch, classifier.preprocessing, classifier.device))


def timed(work: Callable[[], object]) -> Spent:
    start = time.perf_counter(), time.process_time()
    work()
    return Spent(time.perf_counter() - start[0], time.process_time() - start[1])


def _run_command(folder: Path, checkpoint: Path, out: Path) -> None:
    explain(RunConfig(), GradCamRequest(out, (folder,), WeightsRequest(checkpoint)))


def _print_speed(root: Path, folder: Path, arch: str, runs: int) -> bool:
    """A line per part; whether the target was held."""
    checkpoint = make_checkpoint(root, arch)
    classifier = load_classifier(WeightsRequest(checkpoint), RunConfig()).classifier
    count = len(list(folder.iterdir()))
    forward_all(classifier, np.zeros((_BATCH, 224, 224, 3), np.uint8))  # the first pass of a process is slower
    spent: dict[str, list[Spent]] = {"decode": [], "forward": [], "command": []}
    for run in range(runs):
        pixels: NDArray[np.uint8] = np.zeros(0, np.uint8)

        def decode() -> None:
            nonlocal pixels
            pixels = decode_all(folder, classifier.preprocessing)

        spent["decode"].append(timed(decode))
        spent["forward"].append(timed(lambda: forward_all(classifier, pixels)))  # noqa: B023 (called at once)
        out = root / f"{arch}-{run}"
        spent["command"].append(timed(lambda: _run_command(folder, checkpoint, out)))  # noqa: B023 (called at once)
        shutil.rmtree(out)
    print(f"{arch}, {count} images, {torch.get_num_threads()} threads, {os.cpu_count()} cores, medians of {runs}")
    for name, each in spent.items():
        print(f"  {name:28} {_median(each, 'clock'):8.2f} s {_median(each, 'processor'):8.2f} s of the processor")
    ratios = [
        Spent(whole.clock / (one.clock + two.clock), whole.processor / (one.processor + two.processor))
        for one, two, whole in zip(spent["decode"], spent["forward"], spent["command"], strict=True)
    ]
    ratio, held = _median(ratios, "clock"), _median(ratios, "clock") <= TARGETS[arch]
    print(f"  {'command / (decode + forward)':28} {ratio:8.2f}   {_median(ratios, 'processor'):8.2f}", end="")
    print(f"   (target {TARGETS[arch]}) {'held' if held else 'MISSED'}", flush=True)
    return held


def _median(spent: list[Spent], part: str) -> float:
    return float(statistics.median(getattr(one, part) for one in spent))


def _print_memory(root: Path, folder: Path, arch: str, threads: int) -> bool:
    """Peaks at more and more images; whether they are flat. Linux only."""
    checkpoint, peaks = make_checkpoint(root, arch), []
    files = sorted(folder.iterdir())
    for count in (len(files) // 10, len(files) // 2, len(files)):
        some = root / f"{arch}-first-{count}"
        some.mkdir()
        for file in files[:count]:
            (some / file.name).hardlink_to(file)
        out = root / f"{arch}-memory-{count}"
        asked = {"--photos": some, "--child": checkpoint, "--out": out, "--threads": threads}
        command = [sys.executable, "-m", "tests.benchmarks.folders", *(str(x) for pair in asked.items() for x in pair)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        peaks.append(float(done.stdout.split()[-1]))
        print(f"{arch}, {count} images: peak {peaks[-1]:.0f} MB", flush=True)
        shutil.rmtree(out)
        shutil.rmtree(some)
    held = peaks[-1] - peaks[0] <= FLAT
    print(f"  {peaks[-1] - peaks[0]:+.0f} MB (target {FLAT}) {'held' if held else 'MISSED'}")
    return held


def _peak() -> float:
    """Largest resident memory of this process so far, in MB."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


if __name__ == "__main__":
    main()
