"""From a file that may be anything to an upright RGB image, or a short reason why not."""

import contextlib
import errno
import io
import logging
import os
import stat
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from evalcam_cli.data.other_kinds import what_instead
from evalcam_cli.data.png_rows import lacks_rows
from evalcam_cli.errors import DataError
from evalcam_cli.text import shown

SUFFIXES = (".jpg", ".jpeg", ".jpe", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
MAX_BYTES = 256 * 1024 * 1024
MAX_ASPECT = 100
"""Longest side over shortest."""
MAX_SCANS = 200
"""Passes of a JPEG over its pixels."""
FRAMES = "several frames or pages, of which the first is used"
DEEP = "more than 8 bits per channel, scaled to 8 bits"
REMARKS = (FRAMES, DEEP)
"""What may be said of an image that is used."""

# Pillow's own limit warns at one size and raises at another; here `max_pixels` is checked before every decode.
Image.MAX_IMAGE_PIXELS = None
# Pillow reports damaged tags through logging; without a handler of its own they would reach the terminal.
logging.getLogger("PIL").addHandler(logging.NullHandler())


def _flags(*names: str) -> int:
    """Those that this system knows."""
    return sum(getattr(os, name, 0) for name in names)


_NOT_FOLLOWED = _flags("O_NOFOLLOW")
_FILE = os.O_RDONLY | _NOT_FOLLOWED | _flags("O_NONBLOCK", "O_CLOEXEC", "O_BINARY")
_FOLDER = os.O_RDONLY | _NOT_FOLLOWED | _flags("O_DIRECTORY", "O_CLOEXEC", "O_PATH")
_BENEATH = os.open in os.supports_dir_fd

_ORIENTATION = 0x0112
_UPRIGHT = {  # EXIF 2.3, section 4.6.4 A: what undoes each orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_WHITE = (255, 255, 255, 255)
_STRIP = 4_000_000  # pixels converted at a time


class UnreadableImage(DataError):  # noqa: N818 (the file is at fault, not the program)
    """The file is not an image that can be used."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"cannot read the image {shown(path.absolute())}: {reason}")
        self.path = path
        self.reason = reason

    def __reduce__(self) -> tuple[type["UnreadableImage"], tuple[Path, str]]:
        return UnreadableImage, (self.path, self.reason)  # so that it crosses from a worker process whole


class _RefusedError(Exception):
    """The reason why a file is refused, before its path is known."""


def is_candidate(name: str) -> bool:
    """Whether a file of this name is taken for an image when a folder is searched."""
    return not name.startswith(".") and name.lower().endswith(SUFFIXES)


def load_image(path: Path, max_pixels: int, *, root: Path | None = None) -> Image.Image:
    """The first frame as an upright RGB image: 8 bits, transparency over white, deeper greys scaled by full range.

    Raises:
        UnreadableImage: The file is no such image, is damaged or exceeds a limit, or cannot be opened (`open_regular`).
    """
    with open_regular(path, root=root) as stream:
        return decode(stream, path, max_pixels)


@contextlib.contextmanager
def open_regular(path: Path, *, root: Path | None = None) -> Iterator[io.BufferedReader]:
    """The file's bytes; never waits for a pipe and never reads a device or an oversized file.

    Args:
        path: Its last component is not followed when it is a symbolic link.
        root: A folder that the path begins with and must not leave: no component below it is followed either, so that
            a folder replaced by a link since it was listed leads nowhere (not so on Windows). An absolute path that
            was joined to a relative root has none: a user named the file itself.

    Raises:
        UnreadableImage: It is no regular file, too large, or cannot be opened.
    """
    free = root is None or not _BENEATH or (path.is_absolute() and not root.is_absolute())
    try:
        descriptor = os.open(path, _FILE) if root is None or free else _open_beneath(root, path)
    except (OSError, ValueError) as error:
        raise UnreadableImage(path, _why_not_opened(error)) from error
    status = os.fstat(descriptor)  # of what was opened, which may not be what was listed
    refused = (
        "not a regular file"
        if not stat.S_ISREG(status.st_mode)
        else f"{status.st_size / 2**20:.0f} MB, more than {MAX_BYTES // 2**20} MB"
        if status.st_size > MAX_BYTES
        else ""
    )
    if refused:
        os.close(descriptor)
        raise UnreadableImage(path, refused)
    with os.fdopen(descriptor, "rb") as stream:
        yield stream


def _open_beneath(root: Path, path: Path) -> int:
    """A descriptor reached folder by folder, each opened in the one before and none of them a link."""
    *folders, name = path.relative_to(root).parts
    here = os.open(root, _FOLDER & ~_NOT_FOLLOWED)  # the root itself is the user's, and may be a link
    try:
        for folder in folders:
            inner = os.open(folder, _FOLDER, dir_fd=here)
            os.close(here)
            here = inner
        return os.open(name, _FILE, dir_fd=here)
    finally:
        os.close(here)


def _why_not_opened(error: OSError | ValueError) -> str:
    if isinstance(error, ValueError):
        return "its name holds a NUL character"
    special = {
        errno.ELOOP: "a symbolic link",
        errno.ENOTDIR: "in a folder that is none, or a symbolic link",
        errno.ENXIO: "not a regular file",
        errno.EISDIR: "not a regular file",
    }
    return special.get(error.errno or 0, error.strerror or "cannot be opened")


def decode(stream: BinaryIO, path: Path, max_pixels: int) -> Image.Image:
    """As `load_image`, from an open file whose path is only named in messages."""
    return examine(stream, path, max_pixels)[0]


def examine(stream: BinaryIO, path: Path, max_pixels: int) -> tuple[Image.Image, str]:
    """As `decode`, with one of `REMARKS` when not everything in the file was used, else an empty text."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            _refuse_bombs(stream, max_pixels)
            with Image.open(stream, formats=FORMATS) as image:
                _check_limits(*image.size, max_pixels)
                remark = _remark(image)
                _scale_transparent_colour(image)
                image.load()
                _refuse_missing_rows(image, stream)
                return _upright(_to_rgb(image), image), remark
        except _RefusedError as refused:
            raise UnreadableImage(path, str(refused)) from None
        except UnidentifiedImageError as error:
            raise UnreadableImage(path, _what_instead(stream)) from error
        except Exception as error:  # decoders answer hostile bytes with a dozen kinds of exception
            raise UnreadableImage(path, _what_is_wrong(error)) from error


def _refuse_bombs(stream: BinaryIO, max_pixels: int) -> None:
    """Refuse what would cost much before Pillow has told the size, or in spite of a size within the limits."""
    start = stream.read(30)
    stream.seek(0)
    if start.startswith(b"\xff\xd8"):
        refuse_many_scans(stream)
    if start[:4] == b"RIFF" and start[8:16] == b"WEBPVP8X":  # its canvas is set up when it is opened
        _check_limits(
            1 + int.from_bytes(start[24:27], "little"), 1 + int.from_bytes(start[27:30], "little"), max_pixels
        )


def refuse_many_scans(stream: BinaryIO) -> None:
    """Refuse a JPEG of very many scans, each a few bytes that make the decoder walk over all pixels.

    Usual progressive files have about ten; the standard allows more than a thousand.
    """
    scans, last = 0, b""
    while block := stream.read(1 << 20):
        scans += (last + block).count(b"\xff\xda")
        last = block[-1:]
    stream.seek(0)
    if scans > MAX_SCANS:
        raise _RefusedError(f"a JPEG of {scans} scans, more than {MAX_SCANS}")


def _check_limits(width: int, height: int, max_pixels: int) -> None:
    if min(width, height) < 1:
        raise _RefusedError(f"its size is {width}x{height}")
    if width * height > max_pixels:
        raise _RefusedError(f"{width}x{height} pixels, more than data.max_pixels = {max_pixels:,}")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise _RefusedError(f"{width}x{height} pixels, an aspect beyond {MAX_ASPECT}:1")


def _remark(image: Image.Image) -> str:
    """What of the file will not be used. Frames and pages are not counted: their chain may have no end."""
    if image.format in ("GIF", "PNG", "TIFF", "WEBP") and getattr(image, "is_animated", False):
        return FRAMES
    stored = {
        tile.args if isinstance(tile.args, str) else tile.args[0] for tile in getattr(image, "tile", ()) if tile.args
    }
    deep = image.mode.startswith("I") or any("16" in str(mode) for mode in stored)
    return DEEP if deep else ""


def _refuse_missing_rows(image: Image.Image, stream: BinaryIO) -> None:
    """Refuse a PNG without its last rows: Pillow says so where the file ends, not where the compressed data does."""
    if image.format != "PNG":
        return
    last = image.crop((0, image.height - 1, image.width, image.height)).tobytes()
    if (image.info.get("interlace") or not last.strip(b"\0")) and lacks_rows(stream):
        raise _RefusedError("truncated")


def _scale_transparent_colour(image: Image.Image) -> None:
    """Bring the transparent colour of a PNG to 8 bits, as Pillow brings the pixels but not that colour."""
    colour = image.info.get("transparency")
    if image.format != "PNG" or colour is None:
        return
    depth = {tile.args for tile in getattr(image, "tile", [])}
    if isinstance(colour, int) and depth & {"L;2", "L;4"}:
        image.info["transparency"] = colour * (85 if "L;2" in depth else 17)
    elif isinstance(colour, tuple) and "RGB;16B" in depth:
        image.info["transparency"] = tuple(channel >> 8 for channel in colour)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or image.mode == "I":
        if image.mode == "I" and image.format != "PNG":
            raise _RefusedError("32-bit integer pixels; save it with 8 or 16 bits per channel")
        return _by_strips(image, _from_deep_grey)
    if image.mode == "F":
        return _by_strips(image, _from_float)
    if image.has_transparency_data:
        return _by_strips(image, _over_white)
    # not copy(): a second one of the largest image would be 400 MB
    return image._new(image.im) if image.mode == "RGB" else image.convert("RGB")


def _by_strips(image: Image.Image, to_rgb: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """The image made RGB piece by piece: what is needed on the way is small, also for the largest image."""
    rows = max(1, _STRIP // image.width)
    if rows >= image.height:
        return to_rgb(image)
    whole = Image.new("RGB", image.size)
    for top in range(0, image.height, rows):
        strip = image.crop((0, top, image.width, min(top + rows, image.height)))
        whole.paste(to_rgb(strip), (0, top))
    return whole


def _from_deep_grey(image: Image.Image) -> Image.Image:
    grey = np.asarray(image).astype(np.int64)
    scaled = (grey.clip(0, 65535) + 128) // 257  # 65535 -> 255, rounded
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        scaled[grey == transparent] = 255
    return Image.fromarray(scaled.astype(np.uint8)).convert("RGB")


def _from_float(image: Image.Image) -> Image.Image:
    values = np.asarray(image)
    if not np.isfinite(values).all():
        raise _RefusedError("float pixels with NaN or infinity")
    low, high = float(values.min()), float(values.max())
    if low < 0 or high > 1:
        raise _RefusedError(f"float pixels from {low:g} to {high:g}; expected 0 to 1")
    return Image.fromarray(np.rint(values * 255).astype(np.uint8)).convert("RGB")


def _over_white(image: Image.Image) -> Image.Image:
    layer = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, _WHITE), layer).convert("RGB")


def _upright(pixels: Image.Image, source: Image.Image) -> Image.Image:
    try:
        orientation = source.getexif().get(_ORIENTATION)
    except Exception:  # unreadable EXIF says nothing about the pixels
        orientation = None
    turn = _UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    pixels.info.clear()  # nothing but pixels leaves this module
    return pixels if turn is None else pixels.transpose(turn)


def _what_instead(stream: BinaryIO) -> str:
    """What a file that is no image of the six formats seems to be."""
    stream.seek(0)
    return what_instead(stream.read(4096))


def _what_is_wrong(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return "not enough memory to decode it"
    message = shown(error).strip()[:120]
    if "truncated" in message.lower() or isinstance(error, EOFError):
        return "truncated"
    return f"damaged ({message or type(error).__name__})"
