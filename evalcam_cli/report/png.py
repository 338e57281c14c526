"""PNG files of overlays, in less than half the time that Pillow takes for its quickest."""

import struct
import zlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_BAND = 1 << 16
"""Bytes that are filtered together: few enough for the processor's cache."""
_RGB, _UP = 2, 2
"""Colour type; filter type: of each byte the one above it is subtracted."""


def png_bytes(image: Image.Image) -> bytes:
    """The image as an RGB PNG, quickly rather than tightly packed, without metadata.

    PNG specification, third edition (W3C 2025): 8 bits per sample, not interlaced, all rows filtered by "Up". Only runs
    are packed and the bytes Huffman coded (zlib's `Z_RLE`): in a photograph there is little else to find. Half of the
    time of Pillow's level 1; files from 6 % smaller to 29 % larger, the latter where a small photograph was enlarged.
    """
    pixels = np.asarray(image.convert("RGB"))
    height, width, _ = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, 8, _RGB, 0, 0, 0)
    body = b"".join(_packed(pixels.reshape(height, 3 * width)))
    chunks = ((b"IHDR", header), (b"IDAT", body), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, content) for name, content in chunks)


def _packed(rows: NDArray[np.uint8]) -> Iterator[bytes]:
    """The zlib stream of (H, 3 W) rows, filtered."""
    packer = zlib.compressobj(level=1, strategy=zlib.Z_RLE)
    height, length = rows.shape
    step = max(1, _BAND // length)
    filtered = np.full((step, 1 + length), _UP, dtype=np.uint8)
    above = np.zeros_like(rows[:1])
    for start in range(0, height, step):
        band = rows[start : start + step]
        np.subtract(band[:1], above, out=filtered[:1, 1:])
        np.subtract(band[1:], band[:-1], out=filtered[1 : len(band), 1:])
        yield packer.compress(filtered[: len(band)].data)
        above = band[-1:]
    yield packer.flush()


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(content, zlib.crc32(name)))
