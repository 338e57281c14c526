"""Images as tensors, in an order that depends on the seed and the epoch alone."""

import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from evalcam_cli.data.augmentation import Augmentation, keyed_generator
from evalcam_cli.data.images import load_image
from evalcam_cli.data.order import Draw
from evalcam_cli.data.preprocessing import Preprocessing


class ImageDataset(Dataset[tuple[Tensor, int]]):
    """Decodes, preprocesses and, in training, augments; items are ((3, S, S) uint8, index)."""

    def __init__(
        self,
        root: Path,
        paths: Sequence[str],
        preprocessing: Preprocessing,
        *,
        max_pixels: int,
        augmentation: Augmentation | None = None,
        seed: int = 0,
    ) -> None:
        self.root, self.paths, self.preprocessing = root, list(paths), preprocessing
        self.max_pixels, self.augmentation, self.seed = max_pixels, augmentation, seed

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, draw: Draw | int) -> tuple[Tensor, int]:
        draw = draw if isinstance(draw, Draw) else Draw(draw)
        image = load_image(self.root / self.paths[draw.index], self.max_pixels)
        pixels = torch.from_numpy(self.preprocessing.apply(image).copy()).permute(2, 0, 1)
        if self.augmentation is not None:
            pixels = self.augmentation(pixels, keyed_generator(self.seed, draw.epoch, draw.index, draw.repeat))
        return pixels.contiguous(), draw.index


def make_loader(
    dataset: ImageDataset, batches: Sampler[list[Draw]] | int, *, workers: int, device: torch.device
) -> DataLoader[tuple[Tensor, int]]:
    """Batches of ((B, 3, S, S) uint8, (B,) indices); an integer means that many images at a time, in order."""
    keep = workers > 0 and isinstance(batches, Sampler)
    order = {"batch_sampler": batches} if isinstance(batches, Sampler) else {"batch_size": batches, "shuffle": False}
    return DataLoader(
        dataset,
        num_workers=workers,
        pin_memory=device.type == "cuda",
        persistent_workers=keep,
        worker_init_fn=_leave_signals_to_the_parent,
        generator=torch.Generator().manual_seed(0),  # else starting workers would draw from the global generator
        **order,
    )


def _leave_signals_to_the_parent(worker: int) -> None:
    """Ctrl-C and SIGTERM reach the whole process group; the parent decides, and ends its workers itself."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # the thread that hands tensors over reports a parent that left in the middle; errors in reading take another way
    sys.excepthook = lambda *_: None


def normalise(images: Tensor, preprocessing: Preprocessing, device: torch.device) -> Tensor:
    """(N, 3, S, S) float32 on the device, channels last, from uint8; what the model takes."""
    mean = torch.tensor(preprocessing.mean, device=device).view(3, 1, 1)
    std = torch.tensor(preprocessing.std, device=device).view(3, 1, 1)
    images = images.to(device, non_blocking=True).float().div_(255).sub_(mean).div_(std)
    return images.contiguous(memory_format=torch.channels_last)
