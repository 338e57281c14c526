"""How much memory reading the images takes, by their number: 1,000 rows of a split against 100,000.

    python -m tests.benchmarks.loader_memory [--quick]

A process holds the rows of the split, as training does, then makes the loader and reads one epoch of small images. The
memory is the sum of the proportional set sizes (PSS: a page that several processes share counts once) of that process
and its workers without the pages of program files, at its peak, above what the process had when it held the rows.
`lists` keeps the paths as a list of strings and lets the workers' garbage collector look at everything, which is what
data sets commonly do: the workers then copy the parent's objects by looking at them. Linux only.

Measured on 2 CPU cores, MB at the peak with 1,000 and with 100,000 rows: 0 and 10 without workers, 21 and 43 with two,
21 and 55 with two and lists.
"""

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from evalcam_cli.data import dataset as module
from evalcam_cli.data.dataset import ImageDataset, make_loader
from evalcam_cli.data.order import TrainingOrder
from evalcam_cli.data.preprocessing import Preprocessing
from evalcam_cli.data.samples import Sample

FILES = 1000
LIMIT = 32
"""MB that 100,000 rows may take more than 1,000: 0.3 KB a row; one image of 224 px is 150 KB."""


def draw(folder: Path) -> None:
    generator = np.random.default_rng(0)
    for number in range(FILES):
        pixels = generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:03}.png")


def memory(process: int | str) -> float:
    """MB of a process but for files, whose pages are other programs' too."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text(encoding="ascii").splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(("Pss_Anon:", "Pss_Shmem:"))) / 1000


def family() -> float:
    """MB of this process and its children."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="ascii").split()
    return memory("self") + sum(map(memory, children))


def measure(folder: Path, rows: int, workers: int, *, lists: bool) -> float:
    """MB at the peak of one epoch, above the process that holds the rows."""
    torch.set_num_threads(1)
    samples = [Sample(f"./{number // FILES:03}/../{number % FILES:03}.png", f"{number % 3}") for number in range(rows)]
    for number in range(-(-rows // FILES)):
        (folder / f"{number:03}").mkdir(exist_ok=True)
    one_batch(folder, samples[:64])  # all code is loaded
    if lists:
        module.Paths = list  # type: ignore[assignment, misc]
        gc.freeze = lambda: None
    gc.collect()
    before = family()
    images = ImageDataset(folder, [sample.path for sample in samples], Preprocessing(32, "pad"), max_pixels=10**6)
    order = TrainingOrder([int(sample.label) for sample in samples], step_size=32, seed=0, balanced=False)
    peak = 0.0
    for step, _ in enumerate(make_loader(images, order, workers=workers, device=torch.device("cpu"))):
        if step % 100 == 0 or step == len(order) - 1 - 2 * workers:
            peak = max(peak, family())
    return peak - before


def one_batch(folder: Path, samples: list[Sample]) -> None:
    images = ImageDataset(folder, [sample.path for sample in samples], Preprocessing(32, "pad"), max_pixels=10**6)
    for workers in (0, 1):
        list(make_loader(images, 32, workers=workers, device=torch.device("cpu")))


def in_a_process(folder: Path, rows: int, workers: int, *, lists: bool) -> float:
    asked = ["--folder", str(folder), "--rows", str(rows), "--workers", str(workers), *["--lists"] * lists]
    command = [sys.executable, "-m", "tests.benchmarks.loader_memory", *asked]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="10,000 rows instead of 100,000")
    parser.add_argument("--folder", type=Path, help="measure in this process, for the images of this folder")
    parser.add_argument("--rows", type=int)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--lists", action="store_true")
    options = parser.parse_args()
    if options.folder is not None:
        print(json.dumps(measure(options.folder, options.rows, options.workers, lists=options.lists)))
        return
    few, many = 1000, 10_000 if options.quick else 100_000
    print(f"| MB at the peak | {few:,} rows | {many:,} rows | more |\n|---|--:|--:|--:|")
    held = True
    with tempfile.TemporaryDirectory() as name:
        draw(Path(name))
        for workers, lists in ((0, False), (2, False), (2, True)):
            small, large = (in_a_process(Path(name), rows, workers, lists=lists) for rows in (few, many))
            print(
                f"| {workers} workers{', lists' if lists else ''} | {small:.0f} | {large:.0f} | {large - small:.0f} |"
            )
            held = held and (lists or large - small <= LIMIT)
    print(f"\n- at most {LIMIT} MB more: {'held' if held else '**missed**'}")
    sys.exit(not held)


if __name__ == "__main__":
    main()
