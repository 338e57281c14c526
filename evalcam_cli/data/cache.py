"""Images as the model's input size asks for them, kept by whoever decodes them first."""

import contextlib
import copy
import logging
import mmap
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from evalcam_cli.data.machine import available_memory, processes_here
from evalcam_cli.errors import MachineError
from evalcam_cli.files import OutputFolder
from evalcam_cli.text import shown
from evalcam_cli.writing import temporary_of, write_error

log = logging.getLogger("evalcam")

_SHARE = 4  # `auto` takes at most one part of this many of the memory that is free
_MOST = 32 << 30  # and at most so many bytes, on machines that others use as well
_DISK_SHARE = 0.9  # of the free space, which checkpoints need too
_CLOSED = -1  # a descriptor that reads and writes nothing


class _Store(Protocol):
    """Bytes at offsets; zero, or nothing, where none were written."""

    shared: bool
    """Whether worker processes see what this process writes, and the other way round."""

    def read(self, size: int, offset: int) -> bytes: ...

    def write(self, data: bytes | memoryview, offset: int) -> bool: ...

    def close(self) -> None: ...


class ImageCache:
    """Preprocessed images by index, empty to begin with, the same for a process and the workers that it starts.

    The store holds one byte per image, 1 when the image is complete, and then the images, (S, S, 3) uint8 each. An
    image is written before its byte. What a `write` that has returned put into a file is what every later `read` of
    any process finds there (POSIX.1-2017, write(), "Description"), so a process that sees the byte sees the whole
    image; with memory mapped into both, processors that reorder stores would break this. Two processes that decode the
    same image at once write the same bytes to the same place, which a reader between them cannot tell from one.

    An image whose file is replaced during the run stays what it was.
    """

    def __init__(self, store: _Store, count: int, image_size: int) -> None:
        self._store, self._count, self._size = store, count, image_size
        self._bytes = 3 * image_size * image_size
        self._indices = np.arange(count)
        self._full = False

    def part(self, indices: Sequence[int]) -> "ImageCache":
        """The same images under other indices: the first is the one that has the first of these here."""
        one = copy.copy(self)
        one._indices, one._full = self._indices[np.asarray(indices, np.int64)], False
        return one

    @property
    def shared(self) -> bool:
        """Whether worker processes take part; those of a data set with a cache that is not shared must not be used."""
        return self._store.shared

    @property
    def full(self) -> bool:
        """Whether every image is there, so that nothing will be decoded any more."""
        if not self._full:
            marks = self._store.read(self._count, 0).ljust(self._count, b"\0")
            self._full = bool(np.frombuffer(marks, np.uint8)[self._indices].all())
        return self._full

    def get(self, index: int) -> NDArray[np.uint8] | None:
        """A copy of an image, (S, S, 3) uint8, or None when nobody has put it there yet."""
        number = self._number(index)
        if self._store.read(1, number) != b"\1":
            return None
        data = self._store.read(self._bytes, self._count + number * self._bytes)
        if len(data) != self._bytes:
            return None
        return np.frombuffer(bytearray(data), np.uint8).reshape(self._size, self._size, 3)

    def put(self, index: int, pixels: NDArray[np.uint8]) -> None:
        """Keep an image; where there is no room for it any more, it is decoded anew each time."""
        number = self._number(index)
        if pixels.shape != (self._size, self._size, 3) or pixels.dtype != np.uint8:
            raise ValueError(f"{pixels.dtype} pixels of shape {pixels.shape} do not fit images of {self._size} px")
        if self._store.write(np.ascontiguousarray(pixels).data.cast("B"), self._count + number * self._bytes):
            self._store.write(b"\1", number)

    def close(self) -> None:
        """Give the memory or the disk space back, as soon as the last worker has ended; nothing is kept any more."""
        self._store.close()

    def _number(self, index: int) -> int:
        """Which image of the store that is."""
        if not 0 <= index < len(self._indices):
            raise IndexError(f"image {index} of {len(self._indices)}")
        return int(self._indices[index])


class _Descriptor:
    """A file, or memory that is one, read and written by position: no process moves another's."""

    shared = True

    def __init__(self, descriptor: int, path: Path | None = None) -> None:
        self._descriptor, self._path = descriptor, path

    def read(self, size: int, offset: int) -> bytes:
        with contextlib.suppress(OSError):  # a disk that fails costs time: the image is decoded anew
            if hasattr(os, "pread"):
                return os.pread(self._descriptor, size, offset)
            os.lseek(self._descriptor, offset, os.SEEK_SET)  # Windows, where no two processes share a descriptor
            return os.read(self._descriptor, size)
        return b""

    def write(self, data: bytes | memoryview, offset: int) -> bool:
        """Whether all of it was written; a full disk, too, costs time only."""
        with contextlib.suppress(OSError):
            if hasattr(os, "pwrite"):
                return os.pwrite(self._descriptor, data, offset) == len(data)
            os.lseek(self._descriptor, offset, os.SEEK_SET)
            return os.write(self._descriptor, data) == len(data)
        return False

    def close(self) -> None:
        if self._descriptor == _CLOSED:
            return
        os.close(self._descriptor)
        self._descriptor = _CLOSED  # the number may soon be another file's
        if self._path is not None:
            _remove(self._path)

    def __reduce__(self) -> tuple[Any, ...]:
        """To a worker that was not forked, as it starts."""
        if os.name == "nt":
            return _opened, (self._path,)
        from multiprocessing.reduction import DupFd  # noqa: PLC0415 (not on Windows)

        return _received, (DupFd(self._descriptor),)


def _received(descriptor: Any) -> _Descriptor:
    return _Descriptor(descriptor.detach())


def _opened(path: Path) -> _Descriptor:
    return _Descriptor(os.open(path, os.O_RDWR | getattr(os, "O_BINARY", 0)))


class _Private:
    """Memory of this process alone, where the system has none that workers inherit or are handed: macOS, Windows."""

    shared = False

    def __init__(self, size: int) -> None:
        self._memory = mmap.mmap(-1, size)  # taken page by page, as it is written

    def read(self, size: int, offset: int) -> bytes:
        return b"" if self._memory.closed else self._memory[offset : offset + size]

    def write(self, data: bytes | memoryview, offset: int) -> bool:
        if not self._memory.closed:
            self._memory[offset : offset + len(data)] = bytes(data)
        return not self._memory.closed

    def close(self) -> None:
        self._memory.close()


@contextlib.contextmanager
def image_caches(
    setting: str, counts: Mapping[str, int], *, image_size: int, folder: OutputFolder | None
) -> Iterator[dict[str, ImageCache | None]]:
    """A cache for each set of images, or None for each; all are gone when the block ends.

    Args:
        setting: `data.cache`.
        counts: Images in each set, by its name.
        image_size: Side of the square that the model sees, in pixels.
        folder: The run's, where the files of the cache lie; None in a process that has none.

    Raises:
        MachineError: The memory or the disk is too small for what was asked.
        UsageError: A stranger's file is where the cache's should be.
    """
    kind = _chosen(setting, _needed(counts, image_size), image_size, folder)
    with contextlib.ExitStack() as closing:
        caches: dict[str, ImageCache | None] = dict.fromkeys(counts)
        for name, count in counts.items():
            if kind != "none" and count:
                size = _needed({name: count}, image_size)
                store = _in_file(folder, name) if kind == "file" and folder is not None else _in_memory(size)
                closing.callback(store.close)
                caches[name] = ImageCache(store, count, image_size)
        yield caches


def _needed(counts: Mapping[str, int], image_size: int) -> int:
    """Bytes of all images and of a mark for each."""
    return sum(counts.values()) * (3 * image_size * image_size + 1)


def _chosen(setting: str, needed: int, image_size: int, folder: OutputFolder | None) -> str:
    """`ram`, `file` or `none`; without a folder, `file` means what `auto` does.

    Each process that torchrun started on this machine keeps images of its own.
    """
    if setting == "file" and folder is not None:
        _require_disk(needed, folder.path)
    if setting == "none" or (setting == "file" and folder is not None):
        return setting
    everyone = needed * processes_here()
    free = available_memory()
    if setting == "ram":
        if everyone > free:
            raise MachineError(
                f"data.cache ram: the images take {_gigabytes(everyone)} of memory at {image_size} px and "
                f"{_gigabytes(free)} are free; use data.cache file or none"
            )
        return "ram"
    most = min(free // _SHARE, _MOST)
    if everyone <= most:
        return "ram"
    log.info(
        "images are decoded anew in each epoch: all of them at %d px are %s, and %s of memory may be taken for them; "
        "data.cache=file keeps them on the disk",
        image_size, _gigabytes(everyone), _gigabytes(most),
    )  # fmt: skip
    return "none"


def _require_disk(needed: int, folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if needed > _DISK_SHARE * free:
        raise MachineError(
            f"data.cache file: the images take {_gigabytes(needed)} and {_gigabytes(free)} are free on the disk "
            f"of {shown(folder.absolute())}; use data.cache none, or another --out"
        )


def _in_memory(size: int) -> _Store:
    """Memory that takes what is written; it is no part of /dev/shm, which is small in containers."""
    if not hasattr(os, "memfd_create"):
        return _Private(size)
    return _Descriptor(os.memfd_create("evalcam", os.MFD_CLOEXEC))


def _in_file(folder: OutputFolder, name: str) -> _Store:
    """A new file, without a name from the start where the system allows it: then nothing outlives the processes."""
    path = temporary_of(folder.claim(f"{name}.cache"), str(os.getpid()))  # swept when the process was killed
    try:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
        descriptor = os.open(path, flags, 0o600)
    except OSError as error:
        raise write_error(path, error) from error
    if os.name != "nt":
        _remove(path)
    return _Descriptor(descriptor, path)


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):  # in use by a worker on Windows: goes with the next run
        path.unlink(missing_ok=True)


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
