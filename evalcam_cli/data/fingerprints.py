"""What an image looks like, in two kilobytes: a small grey picture of its structure, made without a full decode."""

import functools
import hashlib
import io
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from evalcam_cli.data.images import MAX_ASPECT, MAX_SCANS, UnreadableImage, decode, open_regular
from evalcam_cli.data.parallel import read_each
from evalcam_cli.progress import Progress, silent

SIDE = 32
"""Rows and columns of a fingerprint."""
CLOSE_SIDE = 96
"""Rows and columns of the closer look at a pair."""
PLAIN_BELOW = 0.5
"""Grey levels: structure of a smaller standard deviation is noise, and the image is called plain."""

_FINE, _COARSE = 0.5, 4.0  # standard deviations of the two blurs, in cells of the fingerprint
_ORIENTATION = 0x0112

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """One image, small enough to keep a hundred thousand of them in memory."""

    digest: bytes
    """SHA-256 of the file's bytes: half of what it takes in letters."""
    width: int
    """Of the upright image, in pixels."""
    height: int
    mean: float
    """Mean grey level, 0 to 255."""
    structure: bytes
    """(SIDE, SIDE) float16, zero mean and unit variance: what is neither very fine nor very broad; empty when plain."""

    @property
    def is_plain(self) -> bool:
        """Whether there is nothing to recognise, as in an image of one colour."""
        return not self.structure


@dataclass(frozen=True, slots=True)
class _SmallGrey:
    pixels: Floats
    """(side, side), upright, grey levels."""
    width: int
    height: int


def take_fingerprints(
    root: Path, paths: Sequence[str], *, max_pixels: int, progress: Progress = silent, jobs: int | None = None
) -> tuple[dict[str, Fingerprint], dict[str, str]]:
    """The fingerprint of each readable image and the reason for each unreadable one, by path, in the order given.

    Args:
        root: The folder that the paths are relative to.
        paths: Of the images.
        max_pixels: Larger images count as unreadable.
        progress: Told `reading images`.
        jobs: Worker processes; by default one per CPU core.
    """
    job = functools.partial(fingerprint_of, max_pixels=max_pixels, root=root)
    return read_each(job, root, paths, progress=progress, jobs=jobs)


def fingerprint_of(path: Path, *, max_pixels: int, root: Path | None = None) -> Fingerprint | str:
    """The fingerprint of one image file, or the reason why it cannot be read; `root` as for `open_regular`."""
    try:
        data = _bytes_of(path, root)
        grey = _small_grey(data, path, max_pixels, SIDE)
    except UnreadableImage as error:
        return error.reason
    except OSError as error:  # the disk failed, not the decoder
        return error.strerror or "cannot be read"
    structure = structure_of(grey.pixels)
    spread = float(structure.std())
    return Fingerprint(
        digest=hashlib.sha256(data).digest(),
        width=grey.width,
        height=grey.height,
        mean=float(grey.pixels.mean()),
        structure=b"" if spread < PLAIN_BELOW else ((structure - structure.mean()) / spread).astype("<f2").tobytes(),
    )


class Structures:
    """The structures of fingerprints, none of them plain; an array when some are asked for, not before."""

    def __init__(self, fingerprints: Iterable[Fingerprint]) -> None:
        self._kept = [fingerprint.structure for fingerprint in fingerprints]

    def __len__(self) -> int:
        return len(self._kept)

    def __getitem__(self, places: slice | NDArray[np.int64]) -> NDArray[np.float16]:
        """(N, SIDE, SIDE)."""
        chosen = self._kept[places] if isinstance(places, slice) else [self._kept[place] for place in places]
        return np.frombuffer(b"".join(chosen), dtype="<f2").reshape(-1, SIDE, SIDE).astype(np.float16, copy=False)


def close_look(path: Path, *, max_pixels: int, root: Path | None = None) -> NDArray[np.float16] | None:
    """(CLOSE_SIDE, CLOSE_SIDE) grey levels of the upright image; None when it cannot be read."""
    try:
        return _small_grey(_bytes_of(path, root), path, max_pixels, CLOSE_SIDE).pixels.astype(np.float16)
    except (UnreadableImage, OSError):
        return None


def structure_of(grey: Floats) -> Floats:
    """(..., SIDE, SIDE) grey levels without what is finer than half a cell (noise) or broader than four (light)."""
    fine, coarse = _blur(_FINE), _blur(_COARSE)
    structure: Floats = _both_sides(fine, grey) - _both_sides(coarse, grey)
    return structure


def _both_sides(blur: Floats, grey: Floats) -> Floats:
    # einsum, not a matrix product: the same digits on any number of threads
    return np.asarray(np.einsum("ij,...jk->...ik", blur, np.einsum("...jk,lk->...jl", grey, blur)), dtype=np.float32)


@functools.cache
def _blur(sigma: float) -> Floats:
    """(SIDE, SIDE) matrix that blurs a column with a Gaussian; what lies beyond the border equals the border."""
    weights = np.zeros((SIDE, SIDE))
    reach = int(4 * sigma + 0.5)
    for offset in range(-reach, reach + 1):
        columns = np.clip(np.arange(SIDE) + offset, 0, SIDE - 1)
        np.add.at(weights, (np.arange(SIDE), columns), np.exp(-(offset**2) / (2 * sigma**2)))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), dtype=np.float32)


def _bytes_of(path: Path, root: Path | None) -> bytes:
    with open_regular(path, root=root) as stream:
        return stream.read()


def _small_grey(data: bytes, path: Path, max_pixels: int, side: int) -> _SmallGrey:
    """The upright image in grey, squeezed to a square.

    Raises:
        UnreadableImage: As `load_image`.
    """
    quick = _draft(data, max_pixels, side) if data.startswith(b"\xff\xd8\xff") else None
    if quick is not None:
        return quick
    image = decode(io.BytesIO(data), path, max_pixels).convert("L")
    width, height = image.size
    factor = max(1, min(width, height) // (2 * side))
    small = image.reduce(factor) if factor > 1 else image
    return _SmallGrey(np.asarray(_squeezed(small, width / factor, height / factor, side)), width, height)


def _draft(data: bytes, max_pixels: int, side: int) -> _SmallGrey | None:
    """From the JPEG decoded at an eighth to the whole of its size; None when the careful decoder has to decide."""
    if data.count(b"\xff\xda") > MAX_SCANS:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
                width, height = image.size
                if min(width, height) < 1 or width * height > max_pixels:
                    return None
                if max(width, height) > MAX_ASPECT * min(width, height):
                    return None
                drafted = image.draft("L", (2 * side, 2 * side))
                image.load()
                _, (_, _, right, bottom) = drafted or ("", (0, 0, *image.size))
                orientation = image.getexif().get(_ORIENTATION, 1)
                square = _squeezed(image, right, bottom, side)
                if orientation in range(2, 9):
                    square.getexif()[_ORIENTATION] = orientation
                    square = ImageOps.exif_transpose(square)
                if orientation in range(5, 9):
                    width, height = height, width
                return _SmallGrey(np.asarray(square), width, height)
        except Exception:  # whatever is wrong, `decode` finds and names it
            return None


def _squeezed(image: Image.Image, right: float, bottom: float, side: int) -> Image.Image:
    """The part from the top left corner to there, as a square of float grey levels."""
    grey = image if image.mode == "L" else image.convert("L")
    return grey.convert("F").resize((side, side), Image.Resampling.BILINEAR, box=(0, 0, right, bottom))
