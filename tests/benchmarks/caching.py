"""How long an epoch takes when the images are kept: 12-megapixel JPEGs, the first epoch against the second.

    python -m tests.benchmarks.caching [--quick] [--train] [--size 224]

Reads the images with the augmentation of training, as `train` does, with each kind of cache; `--train` also
makes the steps of a ResNet-18, so that an epoch is a whole one. The images are gradients with noise, 4000 x 3000, about
as large on the disk as photographs; they are read once before, so that the disk does not matter.

Measured on 2 CPU cores that much else was running on (all seconds are several times too long, the ratios hold for
both), 60 images at 224 px, seconds of the first epoch and median of the next three, one worker: none 102 and 85, memory
105 and 1.7 (60 times as fast), file 113 and 0.6 (177 times); without workers: 62 and 103, 110 and 1.8 (62), 103 and 0.8
(132). MRI slices of 512 x 512 to 128 px cost 3.0 ms of one core to decode and resize, 0.1 ms from the cache, and 0.75
ms to augment.
"""

import argparse
import itertools
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from evalcam_cli.config import AugmentConfig
from evalcam_cli.data.augmentation import Augmentation
from evalcam_cli.data.cache import image_caches
from evalcam_cli.data.dataset import ImageDataset, make_loader, normalise
from evalcam_cli.data.order import TrainingOrder
from evalcam_cli.data.preprocessing import Preprocessing
from evalcam_cli.files import output_folder
from evalcam_cli.models.architectures import build_model
from evalcam_cli.models.device import worker_count

CPU = torch.device("cpu")
LIMIT = 5
"""How many times as fast the second epoch is, at least."""


def draw(folder: Path, count: int, width: int, height: int) -> list[str]:
    """Names of the JPEGs drawn."""
    generator = np.random.default_rng(0)
    noise = generator.normal(0, 6, (height, width, 3)).astype(np.float32)
    slope = np.linspace(0, 150, width, dtype=np.float32)[None, :, None]
    fall = np.linspace(0, 60, height, dtype=np.float32)[:, None, None]
    for number in range(count):
        pixels = np.roll(noise, 37 * number, axis=1) + slope + fall + generator.uniform(0, 40, 3).astype(np.float32)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{number:03}.jpg", quality=90)
    names = sorted(path.name for path in folder.glob("*.jpg"))
    size = statistics.mean(len((folder / name).read_bytes()) for name in names)  # now they are in memory
    print(f"{count} JPEGs of {width} x {height}, {size / 1e6:.1f} MB each")
    return names


class Epochs:
    """Seconds of one epoch after another."""

    def __init__(self, images: ImageDataset, *, workers: int, train: bool) -> None:
        self.images = images
        self.order = TrainingOrder([n % 2 for n in range(len(images))], step_size=16, seed=0, balanced=False)
        self.loader = make_loader(images, self.order, workers=workers, device=CPU)
        self.model = build_model("resnet18", 2).to(memory_format=torch.channels_last) if train else None

    def seconds(self, epoch: int) -> float:
        self.order.epoch = epoch
        start = time.perf_counter()
        for pixels, indices in self.loader:
            inputs = normalise(pixels, self.images.preprocessing, CPU)
            if self.model is not None:
                functional.cross_entropy(self.model(inputs), indices % 2).backward()  # type: ignore[no-untyped-call]
        return time.perf_counter() - start


def measure(
    folder: Path, names: list[str], setting: str, *, size: int, workers: int, train: bool, epochs: int
) -> list[float]:
    """Seconds of each epoch."""
    with (
        tempfile.TemporaryDirectory() as out,
        output_folder(Path(out) / "run") as output,
        image_caches(setting, {"train": len(names)}, image_size=size, folder=output) as caches,
    ):
        preprocessing = Preprocessing(size, "pad")
        augmentation = Augmentation(AugmentConfig(), preprocessing.fill)
        images = ImageDataset(
            folder, names, preprocessing, max_pixels=10**8, augmentation=augmentation, cache=caches["train"]
        )
        each = Epochs(images, workers=workers, train=train)
        return [each.seconds(epoch) for epoch in range(epochs)]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="16 images of 2000 x 1500")
    parser.add_argument("--train", action="store_true", help="with the steps of a ResNet-18")
    parser.add_argument("--size", type=int, default=224, help="side of the model's input, in pixels")
    parser.add_argument("--epochs", type=int, default=4)
    options = parser.parse_args()
    count, width, height = (16, 2000, 1500) if options.quick else (60, 4000, 3000)
    with tempfile.TemporaryDirectory() as name:
        names = draw(Path(name), count, width, height)
        print("| cache, workers | epoch 1, s | median of later ones, s | times as fast |\n|---|--:|--:|--:|")
        held = True
        for setting, workers in itertools.product(("none", "ram", "file"), (worker_count("auto"), 0)):
            first, *later = measure(
                Path(name), names, setting,
                size=options.size, workers=workers, train=options.train, epochs=options.epochs,
            )  # fmt: skip
            ratio = first / statistics.median(later)
            print(f"| {setting}, {workers} | {first:.2f} | {statistics.median(later):.2f} | {ratio:.1f} |", flush=True)
            held = held and (setting == "none" or ratio >= LIMIT)
    print(f"\n- at least {LIMIT} times as fast from a cache: {'held' if held else '**missed**'}")
    sys.exit(not held)


if __name__ == "__main__":
    main()
