"""Files of the six image formats, whole or wrong on purpose, byte by byte."""

import functools
import io
import struct
import zlib
from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image

PNG_SIGN = b"\x89PNG\r\n\x1a\n"
SUFFIXES = {"PNG": "png", "JPEG": "jpg", "GIF": "gif", "BMP": "bmp", "TIFF": "tif", "WEBP": "webp"}


@functools.cache
def picture(number: int = 0, width: int = 96, height: int = 72) -> Image.Image:
    """A smooth coloured picture, another one for each number, with no symmetry."""
    x, y = np.meshgrid(np.linspace(0, 3, width), np.linspace(0, 2, height))
    waves = [np.sin(x * (1 + channel + number % 5) + y * y + channel + number) for channel in range(3)]
    pixels = 128 + 90 * np.stack(waves, axis=-1)
    pixels[: height // 3, : width // 4] = (250, 20, 20 + number % 200)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def encoded(image: Image.Image | None = None, kind: str = "PNG", **options: object) -> bytes:
    """The image in a format, as Pillow writes it."""
    buffer = io.BytesIO()
    (image or picture()).copy().save(buffer, kind, **options)  # saving leaves traces in the image
    return buffer.getvalue()


def flipped(data: bytes, position: int, mask: int = 0x10) -> bytes:
    damaged = bytearray(data)
    damaged[position] ^= mask
    return bytes(damaged)


def replaced(data: bytes, position: int, new: bytes) -> bytes:
    return data[:position] + new + data[position + len(new) :]


# PNG


def chunk(kind: bytes, content: bytes = b"", *, crc: int | None = None, length: int | None = None) -> bytes:
    size = len(content) if length is None else length
    checksum = zlib.crc32(kind + content) if crc is None else crc
    return struct.pack(">I", size) + kind + content + struct.pack(">I", checksum)


def header(width: int, height: int, *, bits: int = 8, colour: int = 2, rest: bytes = b"\0\0\0") -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBB", width, height, bits, colour) + rest)


def png(*chunks: bytes) -> bytes:
    return PNG_SIGN + b"".join(chunks) + chunk(b"IEND")


def rows(data: Iterable[bytes]) -> bytes:
    """An IDAT chunk of unfiltered rows."""
    return chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in data), 1))


def zeros(width_bytes: int, height: int) -> bytes:
    """An IDAT chunk of zeros, compressed piece by piece."""
    press = zlib.compressobj(1)
    block = bytes(width_bytes + 1)
    return chunk(b"IDAT", b"".join([*(press.compress(block) for _ in range(height)), press.flush()]))


def with_chunk(data: bytes, extra: bytes) -> bytes:
    """A PNG with a further chunk after its header."""
    return data[:33] + extra + data[33:]


def png_chunks(data: bytes) -> list[tuple[int, bytes]]:
    """Where each chunk begins and its kind."""
    found, place = [], 8
    while place < len(data):
        found.append((place, data[place + 4 : place + 8]))
        place += 12 + int.from_bytes(data[place : place + 4], "big")
    return found


def with_bad_crc(data: bytes, kind: bytes) -> bytes:
    """The first chunk of the kind with a flipped bit in its checksum."""
    place = next(place for place, name in png_chunks(data) if name == kind)
    return flipped(data, place + 8 + int.from_bytes(data[place : place + 4], "big"))


def deep_png(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint16]], colour: int) -> bytes:
    """A PNG of 16 bits per channel; `colour` is 0 grey, 2 RGB, 4 grey with alpha, 6 RGBA."""
    height, width = pixels.shape[:2]
    lines = (line.astype(">u2").tobytes() for line in pixels)
    return png(header(width, height, bits=16, colour=colour), rows(lines))


def interlaced_png(image: Image.Image) -> bytes:
    """RGB in the seven passes of Adam7 (PNG specification, section 8.2)."""
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    pixels = np.asarray(image)
    lines = [line.tobytes() for x, y, dx, dy in passes for line in pixels[y::dy, x::dx] if line.size]
    return png(header(*image.size, rest=b"\0\0\1"), rows(lines))


# JPEG


def segment(marker: int, content: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(content) + 2) + content


def after_soi(data: bytes, *segments: bytes) -> bytes:
    return data[:2] + b"".join(segments) + data[2:]


def frame_header(data: bytes) -> int:
    """Where the marker of the start of frame (SOF0, SOF2) is."""
    return min(place for place in (data.find(b"\xff\xc0"), data.find(b"\xff\xc2")) if place >= 0)


def jpeg_of_size(data: bytes, width: int, height: int) -> bytes:
    return replaced(data, frame_header(data) + 5, struct.pack(">HH", height, width))


def without_segments(data: bytes, marker: int) -> bytes:
    """The JPEG without its segments of one kind before the scan."""
    kept, place = data[:2], 2
    while data[place + 1] != 0xDA:
        end = place + 2 + int.from_bytes(data[place + 2 : place + 4], "big")
        kept += b"" if data[place + 1] == marker else data[place:end]
        place = end
    return kept + data[place:]


def jpeg_of_many_scans(width: int, height: int, scans: int) -> bytes:
    """A progressive grey JPEG of one colour, all of whose scans but the first say nothing.

    Each one makes the decoder walk over all blocks: a few hundred bytes for tens of milliseconds.
    """
    small = encoded(Image.new("L", (8, 8)), "JPEG", progressive=True)
    small = jpeg_of_size(without_segments(small, 0xC4), width, height)
    start = small[: small.index(b"\xff\xda")]
    blocks = -(-width // 8) * -(-height // 8)
    dc_table = segment(0xC4, b"\0" + b"\1" + bytes(15) + b"\0")  # the code 0 for a difference of nothing
    first = segment(0xDA, b"\1\1\0\0\0\0") + bytes(-(-blocks // 8))
    ac_table = segment(0xC4, b"\x10" + b"\1" + bytes(15) + b"\xe0")  # the code 0 for a run of 2^14 + 14 more bits
    bits = np.tile(np.r_[0, np.ones(14)].astype(np.uint8), -(-blocks // 32767))  # each a run of 32,767 blocks
    entropy = np.packbits(bits).tobytes().replace(b"\xff", b"\xff\0")
    empty = b"".join(segment(0xDA, bytes((1, 1, 0, band, band, 0))) + entropy for band in range(1, 64))
    return start + dc_table + first + ac_table + empty * (-(-scans // 63)) + b"\xff\xd9"


# GIF


def gif(*blocks: bytes, width: int = 16, height: int = 16, colours: int = 2, flags: int = 0x80) -> bytes:
    """Screen, palette of two or more greys, blocks, trailer."""
    exponent = max(1, (colours - 1).bit_length()) - 1
    palette = b"".join(bytes((level * 255 // (colours - 1),) * 3) for level in range(colours))
    screen = struct.pack("<HHBBB", width, height, flags | exponent, 0, 0)
    return b"GIF89a" + screen + (palette if flags & 0x80 else b"") + b"".join(blocks) + b";"


def gif_frame(width: int = 16, height: int = 16, x: int = 0, y: int = 0, *, code_size: int = 2) -> bytes:
    """A frame of the first colour, as codes that are never put together."""
    clear, width_in_bits = 1 << code_size, code_size + 1
    codes: list[int] = []
    for _ in range(width * height):
        codes += [clear, 0]  # a clear before each pixel keeps the codes short
    codes.append(clear + 1)
    bits = "".join(format(code, f"0{width_in_bits}b")[::-1] for code in codes)
    data = bytes(int(bits[place : place + 8][::-1], 2) for place in range(0, len(bits), 8))
    blocks = b"".join(
        bytes((len(data[place : place + 255]),)) + data[place : place + 255] for place in range(0, len(data), 255)
    )
    return b"," + struct.pack("<HHHHB", x, y, width, height, 0) + bytes((code_size,)) + blocks + b"\0"


# BMP


def bmp(
    data: bytes, width: int = 16, height: int = 16, *, bits: int = 24, compression: int = 0, palette: bytes = b"",
    colours: int = 0, header_size: int = 40, offset: int | None = None,
) -> bytes:  # fmt: skip
    information = struct.pack("<IiiHHIIiiII", header_size, width, height, 1, bits, compression, 0, 0, 0, colours, 0)
    start = 14 + len(information) + len(palette) if offset is None else offset
    whole = information + palette + data
    return b"BM" + struct.pack("<IHHI", 14 + len(whole), 0, 0, start) + whole


# TIFF

_CODES = {1: "B", 2: "B", 3: "H", 4: "I", 5: "II", 11: "f", 12: "d"}
Tag = tuple[int, int, Sequence[int]]
"""Number, type (3 short, 4 long) and values."""


def tiff(tags: Sequence[Tag], data: bytes = b"", *, following: int = 0, order: str = "<") -> bytes:
    """A TIFF of one directory, its data from byte 8 on, its directory behind; `following` is the next one's place."""
    place = 8 + len(data) + len(data) % 2
    outside, entries = b"", b""
    beyond = place + 2 + 12 * len(tags) + 4
    for number, kind, values in sorted(tags):
        count = len(values) // len(_CODES[kind])
        content = struct.pack(f"{order}{_CODES[kind] * count}", *values)
        if len(content) > 4:
            where = struct.pack(f"{order}I", beyond + len(outside))
            outside += content
        else:
            where = content.ljust(4, b"\0")
        entries += struct.pack(f"{order}HHI", number, kind, count) + where
    sign = b"II*\0" if order == "<" else b"MM\0*"
    directory = struct.pack(f"{order}H", len(tags)) + entries + struct.pack(f"{order}I", following)
    return sign + struct.pack(f"{order}I", place) + data + bytes(len(data) % 2) + directory + outside


def grey_tags(
    width: int, height: int, *, bits: int = 8, offsets: Sequence[int] = (8,), counts: Sequence[int] | None = None
) -> list[Tag]:
    """The tags of an uncompressed grey picture in strips of equal height."""
    per_strip = -(-height // len(offsets))
    sizes = [per_strip * width * bits // 8] * len(offsets) if counts is None else counts
    return [
        (256, 4, (width,)), (257, 4, (height,)), (258, 3, (bits,)), (259, 3, (1,)), (262, 3, (1,)),
        (273, 4, offsets), (277, 3, (1,)), (278, 4, (per_strip,)), (279, 4, sizes),
    ]  # fmt: skip


def with_tag(tags: Sequence[Tag], number: int, kind: int, *values: int) -> list[Tag]:
    return [*(tag for tag in tags if tag[0] != number), (number, kind, values)]


# WebP


def webp_of_size(data: bytes, width: int, height: int) -> bytes:
    """A lossy WebP whose frame claims another size."""
    place = data.index(b"\x9d\x01\x2a")
    return replaced(data, place + 3, struct.pack("<HH", width, height))


def webp_canvas(data: bytes, width: int, height: int) -> bytes:
    """An extended WebP whose canvas claims another size."""
    place = data.index(b"VP8X")
    return replaced(data, place + 12, (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little"))
