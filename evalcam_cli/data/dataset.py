"""Images as tensors, in an order that depends on the seed and the epoch alone."""

import atexit
import functools
import gc
import multiprocessing
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate, get_worker_info

from evalcam_cli.data.augmentation import Augmentation, keyed_generator
from evalcam_cli.data.cache import ImageCache
from evalcam_cli.data.images import UnreadableImage, load_image
from evalcam_cli.data.machine import room_for_batches
from evalcam_cli.data.order import Draw, TrainingOrder
from evalcam_cli.data.parallel import die_with_parent
from evalcam_cli.data.preprocessing import Preprocessing
from evalcam_cli.errors import WorkerKilledError

_PREFETCH = 2
"""Batches that a worker is ahead: the one being made while another waits hides what differs between images."""


class Paths(Sequence[str]):
    """Many paths in two arrays.

    Worker processes that were forked share the parent's memory until one of both writes to it, and merely looking at a
    Python string writes its reference count: a list of all paths would be copied to every worker, page by page.
    """

    def __init__(self, paths: Iterable[str]) -> None:
        encoded = [path.encode("utf-8", "surrogateescape") for path in paths]
        self._text = np.frombuffer(b"".join(encoded), np.uint8)
        self._ends = np.cumsum([0, *map(len, encoded)], dtype=np.int64)

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> list[str]: ...

    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        position = range(len(self))[index]
        text = self._text[self._ends[position] : self._ends[position + 1]]
        return text.tobytes().decode("utf-8", "surrogateescape")


class ImageDataset(Dataset[tuple[Tensor, int] | UnreadableImage]):
    """Decodes, preprocesses and, in training, augments; items are ((3, S, S) uint8, index).

    A worker process returns an `UnreadableImage`, since torch cannot carry it over as raised; a loader raises it. With
    a cache each image is decoded and preprocessed once; what comes out is the same, bit for bit.
    """

    def __init__(
        self,
        root: Path,
        paths: Sequence[str],
        preprocessing: Preprocessing,
        *,
        max_pixels: int,
        augmentation: Augmentation | None = None,
        seed: int = 0,
        cache: ImageCache | None = None,
    ) -> None:
        self.root, self.paths, self.preprocessing = root, Paths(paths), preprocessing
        self.max_pixels, self.augmentation, self.seed, self.cache = max_pixels, augmentation, seed, cache

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, draw: Draw | int) -> tuple[Tensor, int] | UnreadableImage:
        try:
            return self._item(draw if isinstance(draw, Draw) else Draw(draw))
        except UnreadableImage as error:
            if get_worker_info() is None:
                raise
            return error

    def _item(self, draw: Draw) -> tuple[Tensor, int]:
        pixels = torch.from_numpy(self._preprocessed(draw.index)).permute(2, 0, 1)
        if self.augmentation is not None:
            pixels = self.augmentation(pixels, keyed_generator(self.seed, draw.epoch, draw.index, draw.repeat))
        return pixels.contiguous(), draw.index

    def _image(self, path: Path) -> Image.Image:
        return load_image(path, self.max_pixels, root=self.root)

    def _preprocessed(self, index: int) -> NDArray[np.uint8]:
        """(S, S, 3) uint8, from the cache or else from the file."""
        cached = None if self.cache is None else self.cache.get(index)
        if cached is not None:
            return cached
        pixels = self.preprocessing.apply(self._image(self.root / self.paths[index])).copy()
        if self.cache is not None:
            self.cache.put(index, pixels)
        return pixels


class ImageLoader(DataLoader[Any]):
    """Batches of ((B, 3, S, S) uint8, (B,) indices)."""

    def __iter__(self) -> Any:
        batches = self._batches()
        while (batch := self._next(batches)) is not None:
            if isinstance(batch, UnreadableImage):
                raise batch
            yield batch

    def _get_iterator(self) -> Any:
        readers = super()._get_iterator()
        for process in getattr(readers, "_workers", ()):  # torch ends one that hangs by SIGTERM, which they ignore
            process.terminate = process.kill
        return readers

    def _batches(self) -> Iterator[Any]:
        yield from super().__iter__()

    def _next(self, batches: Iterator[Any]) -> Any:
        """The next batch, or None; of a killed worker torch says so here, or wherever the main thread is just then."""
        try:
            return next(batches, None)
        except (EOFError, ConnectionError) as error:
            if not self.num_workers:
                raise
            raise WorkerKilledError from error


def _collated(items: list[tuple[Tensor, int] | UnreadableImage]) -> Any:
    fault = next((item for item in items if isinstance(item, UnreadableImage)), None)
    return default_collate(items) if fault is None else fault


def make_loader(
    dataset: ImageDataset, batches: TrainingOrder | int, *, workers: int, device: torch.device
) -> "ImageLoader":
    """Batches of ((B, 3, S, S) uint8, (B,) indices); an integer means that many images at a time, in order.

    Iterating raises `UnreadableImage` for a file that cannot be read any more, and `WorkerKilledError`, unless torch
    has said so elsewhere. There are fewer workers where there is
    no memory to hand their batches over, and none where they would have nothing to do or could not use the cache.
    """
    in_order = isinstance(batches, int)
    order: dict[str, Any] = {"batch_size": batches} if in_order else {"batch_sampler": batches}
    workers = _useful_workers(dataset, batches, workers)
    if workers:
        atexit.unregister(_end_workers)  # once is enough
        atexit.register(_end_workers)
    return ImageLoader(
        dataset,
        num_workers=workers,
        prefetch_factor=_PREFETCH if workers else None,
        pin_memory=device.type == "cuda",
        persistent_workers=workers > 0 and not in_order,
        worker_init_fn=_begin_work,
        collate_fn=_collated,
        generator=torch.Generator().manual_seed(0),  # else starting workers would draw from the global generator
        **order,
    )


def _useful_workers(dataset: ImageDataset, batches: TrainingOrder | int, workers: int) -> int:
    cache = dataset.cache
    if cache is not None and (not cache.shared or (cache.full and dataset.augmentation is None)):
        return 0
    size = batches if isinstance(batches, int) else -(-batches.step_size // batches.world.size)
    under_way = (_PREFETCH + 1) * size * 3 * dataset.preprocessing.image_size**2
    return min(workers, room_for_batches() // (2 * max(1, under_way)))


def _begin_work(worker: int) -> None:
    """Ctrl-C, SIGTERM and SIGHUP reach the whole process group; the parent decides, and ends its workers itself."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    # the thread that hands tensors over reports a parent that left in the middle; errors in reading take another way
    sys.excepthook = lambda *_: None
    die_with_parent()
    gc.freeze()  # else the collector would write to all objects of the parent, and so copy them


def _end_workers() -> None:
    """End what a crash has left running: workers ignore the SIGTERM that Python sends them before it waits for them."""
    for child in multiprocessing.active_children():
        if child.daemon:
            child.kill()


def normalise(images: Tensor, preprocessing: Preprocessing, device: torch.device) -> Tensor:
    """(N, 3, S, S) float32 on the device, channels last, from uint8; what the model takes."""
    mean, std = _scale(preprocessing, device)
    images = images.to(device, non_blocking=True).float().div_(255).sub_(mean).div_(std)
    return images.contiguous(memory_format=torch.channels_last)  # last: arithmetic is slow where 3 channels lie inmost


@functools.lru_cache(maxsize=8)
def _scale(preprocessing: Preprocessing, device: torch.device) -> tuple[Tensor, Tensor]:
    """Means and deviations of the channels, (3, 1, 1) float32 on the device."""
    with torch.inference_mode(False):  # they serve training as well, whoever asks first
        mean, std = (torch.tensor(values, device=device) for values in (preprocessing.mean, preprocessing.std))
    return mean.view(3, 1, 1), std.view(3, 1, 1)
