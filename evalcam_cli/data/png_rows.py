"""Whether a PNG holds all the rows it declares: decoders leave the rest black without a word."""

import zlib
from typing import BinaryIO

_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type; PNG specification, section 11.2.2
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))  # Adam7
_PIECE = 1 << 20


def lacks_rows(stream: BinaryIO) -> bool:
    """Whether the compressed data ends before the last row; of a PNG whose header and data a decoder has taken."""
    stream.seek(8)
    head = stream.read(25)
    width, height = (int.from_bytes(head[place : place + 4], "big") for place in (8, 12))
    bits, colour, interlaced = head[16], head[17], head[20]
    missing = _bytes_of_rows(width, height, bits * _CHANNELS[colour], interlaced=interlaced == 1)
    inflate = zlib.decompressobj()
    stream.seek(8)
    while missing > 0 and len(start := stream.read(8)) == 8:
        left = int.from_bytes(start[:4], "big")
        if start[4:] != b"IDAT":
            stream.seek(left + 4, 1)
            continue
        while left > 0 and missing > 0 and (piece := stream.read(min(left, _PIECE))):
            left -= len(piece)
            while piece and missing > 0 and not inflate.eof:
                missing -= len(inflate.decompress(piece, _PIECE))
                piece = inflate.unconsumed_tail
            if inflate.eof:
                return missing > 0
        stream.seek(4, 1)
    return missing > 0


def _bytes_of_rows(width: int, height: int, bits: int, *, interlaced: bool) -> int:
    """Of the picture before compression: in each row, or row of a pass, a byte for the filter and its pixels."""
    sizes = [(width, height)]
    if interlaced:
        sizes = [(-(-(width - x) // dx), -(-(height - y) // dy)) for x, y, dx, dy in _PASSES]
    return sum(rows * (1 + -(-columns * bits // 8)) for columns, rows in sizes if columns > 0 and rows > 0)
