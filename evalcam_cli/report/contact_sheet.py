"""Pairs of images side by side, to judge by eye whether they are one picture."""

import bisect
import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from evalcam_cli.report.fonts import display_names, font_file

PICTURE = 200
"""Largest width and height of an image on the sheet, in pixels."""
_COLUMNS = 3
_GAP = 10
_SIZE, _STEP = 13, 17  # of letters and lines, in pixels
_PAIR_WIDTH = 2 * PICTURE + _GAP
_WIDTH = _COLUMNS * _PAIR_WIDTH + (_COLUMNS + 1) * 2 * _GAP
_PAPER, _INK, _FAINT, _ALARM = (250, 250, 250), (20, 20, 20), (225, 225, 225), (190, 0, 0)


@dataclass(frozen=True)
class Side:
    """One image of a pair."""

    image: Image.Image | None
    """RGB, any size; None when it cannot be read any more."""
    heading: str
    """Its set and label."""
    path: str


@dataclass(frozen=True)
class SheetPair:
    """Two images and what is said about them."""

    left: Side
    right: Side
    caption: str
    alarm: bool = False
    """Whether the captions are in red, as for one picture under two labels."""


def draw_contact_sheet(title: str, sections: Sequence[tuple[str, Sequence[SheetPair]]]) -> Image.Image:
    """Sections of pairs under their headings, three in a row; sections without pairs show the heading alone.

    Args:
        title: Wrapped over as many lines as it needs.
        sections: (heading, pairs).
    """
    texts = [title, *(heading for heading, _ in sections)]
    texts += [text for _, pairs in sections for pair in pairs for text in _texts(pair)]
    font = _font(font_file(texts), _SIZE)
    paragraphs = [_wrapped(title, font), *(_wrapped(heading, font) for heading, _ in sections)]
    row_height = PICTURE + 3 * _STEP + 3 * _GAP
    rows = sum(math.ceil(len(pairs) / _COLUMNS) for _, pairs in sections)
    height = rows * row_height + sum(len(lines) * _STEP + 2 * _GAP for lines in paragraphs) + 2 * _GAP
    sheet = Image.new("RGB", (_WIDTH, height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    top = _write(draw, paragraphs[0], 2 * _GAP, font)
    for lines, (_, pairs) in zip(paragraphs[1:], sections, strict=True):
        draw.line((2 * _GAP, top, _WIDTH - 2 * _GAP, top), fill=_FAINT, width=2)
        top = _write(draw, lines, top + _GAP, font)
        for place, pair in enumerate(pairs):
            left = 2 * _GAP + (place % _COLUMNS) * (_PAIR_WIDTH + 2 * _GAP)
            _draw_pair(sheet, draw, pair, left, top + place // _COLUMNS * row_height, font)
        top += math.ceil(len(pairs) / _COLUMNS) * row_height
    return sheet


def _texts(pair: SheetPair) -> tuple[str, ...]:
    return (pair.caption, pair.left.heading, pair.left.path, pair.right.heading, pair.right.path)


def _write(draw: ImageDraw.ImageDraw, lines: Sequence[str], top: int, font: ImageFont.FreeTypeFont) -> int:
    """Where the text ends."""
    for place, line in enumerate(lines):
        draw.text((2 * _GAP, top + place * _STEP), line, fill=_INK, font=font)
    return top + len(lines) * _STEP + _GAP


def _draw_pair(
    sheet: Image.Image, draw: ImageDraw.ImageDraw, pair: SheetPair, left: int, top: int, font: ImageFont.FreeTypeFont
) -> None:
    ink = _ALARM if pair.alarm else _INK
    for side, start in ((pair.left, left), (pair.right, left + PICTURE + _GAP)):
        draw.rectangle((start, top, start + PICTURE - 1, top + PICTURE - 1), fill=_FAINT)
        if side.image is None:
            draw.text((start + _GAP, top + _GAP), "cannot be read", fill=_ALARM, font=font)
        else:
            small = _sized(side.image)
            sheet.paste(small, (start + (PICTURE - small.width) // 2, top + (PICTURE - small.height) // 2))
        for line, text in enumerate((side.heading, side.path)):
            place = (start, top + PICTURE + 4 + line * _STEP)
            draw.text(place, _fitting(text, font, PICTURE), fill=ink, font=font)
    below = top + PICTURE + 4 + 2 * _STEP
    draw.text((left, below), _fitting(pair.caption, font, _PAIR_WIDTH), fill=ink, font=font)


def _sized(image: Image.Image) -> Image.Image:
    """Made small to fit; a tiny one with each pixel enlarged to a square."""
    factor = PICTURE // max(image.size)
    if factor > 1:
        return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    small = image.copy()
    small.thumbnail((PICTURE, PICTURE))
    return small


@functools.lru_cache(maxsize=4)
def _font(path: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size)


def _drawable(text: str) -> str:
    """On one line, in ASCII escapes where no font has all its characters."""
    labels, _, legend = display_names([text])
    return text.encode("unicode_escape").decode() if legend else labels[0]


def _wrapped(text: str, font: ImageFont.FreeTypeFont) -> list[str]:
    """Lines that are as wide as the sheet, broken at spaces."""
    lines = [""]
    for word in _drawable(text).split(" "):
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= _WIDTH - 4 * _GAP:
            lines[-1] = longer
        else:
            lines.append(_fitting(word, font, _WIDTH - 4 * _GAP))
    return lines


def _fitting(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """The text, shortened in the middle to so many pixels."""
    line = _drawable(text)
    if font.getlength(line) <= width:
        return line

    def kept(count: int) -> str:
        return f"{line[: count // 2]}...{line[len(line) - (count - count // 2) :]}"

    return kept(_most(kept, len(line), lambda shorter: font.getlength(shorter) <= width))


def _most(text: Callable[[int], str], limit: int, fits: Callable[[str], bool]) -> int:
    """The largest count from 1 to the limit whose text fits."""
    return max(1, bisect.bisect_left(range(1, limit), True, key=lambda count: not fits(text(count))))
