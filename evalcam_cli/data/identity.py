"""Which images are the same: hashes of their bytes and of their upright pixels."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from PIL import Image

from evalcam_cli.data.images import UnreadableImage, examine, open_regular
from evalcam_cli.data.parallel import map_files, read_each
from evalcam_cli.progress import Progress, silent

_STRIP = 1_000_000  # pixels hashed at a time, so that a large image needs no second copy


@dataclass(frozen=True, slots=True)
class Identity:
    """What makes two image files the same image."""

    sha256: str
    """Of the file's bytes, hexadecimal."""
    pixels: str
    """First 16 hexadecimal digits of the SHA-256 over width, height and the upright RGB bytes."""
    width: int
    """Of the upright image, in pixels."""
    height: int
    remark: str = ""
    """What of the file is not used; one of `images.REMARKS`."""


def identify(
    root: Path, paths: Sequence[str], *, max_pixels: int, progress: Progress = silent, jobs: int | None = None
) -> tuple[dict[str, Identity], dict[str, str]]:
    """Decode every file once.

    Args:
        root: The folder that the paths are relative to.
        paths: Of the images.
        max_pixels: Larger images count as unreadable.
        progress: Told `reading images`.
        jobs: Worker processes; by default one per CPU core.

    Returns:
        The identity of each readable image and the reason for each unreadable one, by path, in the order given.
    """
    return read_each(partial(identity_of, max_pixels=max_pixels, root=root), root, paths, progress=progress, jobs=jobs)


def hash_files(
    root: Path, paths: Sequence[str], *, progress: Progress = silent, jobs: int | None = None
) -> dict[str, str]:
    """The SHA-256 of each file's bytes, without decoding; a file that cannot be opened is absent from the result."""
    results = map_files(partial(_sha256_of, root=root), root, paths, task="hashing files", progress=progress, jobs=jobs)
    return {path: digest for path, digest in zip(paths, results, strict=True) if digest}


def identity_of(path: Path, *, max_pixels: int, root: Path | None = None) -> Identity | str:
    """The identity of one image file, or the reason why it cannot be read; `root` as for `open_regular`."""
    try:
        with open_regular(path, root=root) as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
            stream.seek(0)
            image, remark = examine(stream, path, max_pixels)
    except UnreadableImage as error:
        return error.reason
    except OSError as error:  # the disk failed, not the decoder
        return error.strerror or "cannot be read"
    return Identity(digest, pixel_hash(image), *image.size, remark)


def pixel_hash(image: Image.Image) -> str:
    """16 hexadecimal digits that equal images share: over width, height and the bytes of an upright RGB image."""
    digest = hashlib.sha256(f"{image.width}x{image.height}:".encode())
    rows = max(1, _STRIP // image.width)
    for top in range(0, image.height, rows):
        digest.update(image.crop((0, top, image.width, min(top + rows, image.height))).tobytes())
    return digest.hexdigest()[:16]


def _sha256_of(path: Path, *, root: Path) -> str:
    try:
        with open_regular(path, root=root) as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except (UnreadableImage, OSError):
        return ""
