"""Lines of text on pictures: with a font that has their characters, wrapped and never clipped."""

import bisect
import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from evalcam_cli.report.fonts import display_names, font_file

Colour = tuple[int, int, int]

PAPER: Colour = (250, 250, 250)
INK: Colour = (20, 20, 20)
FAINT: Colour = (105, 105, 105)
ALARM: Colour = (176, 0, 32)


@dataclass(frozen=True)
class Paragraph:
    """A text on as many rows as it needs, up to `most`; then it is shortened in the middle."""

    text: str
    ink: Colour = INK
    ground: Colour | None = None
    """Of a band over the whole width, in which the text is set half a letter further in; None: the paper."""
    most: int = 2


@dataclass(frozen=True)
class Lettering:
    """A font at one size, in pixels."""

    font: ImageFont.FreeTypeFont
    size: int

    @property
    def step(self) -> int:
        """From row to row."""
        return self.size * 4 // 3

    def rows(self, paragraph: Paragraph, width: int) -> tuple[str, ...]:
        return _wrapped(paragraph.text, self.font, width - 2 * self._inset(paragraph), paragraph.most)

    def _inset(self, paragraph: Paragraph) -> int:
        return 0 if paragraph.ground is None else self.size // 2

    def height(self, paragraphs: Sequence[Paragraph], width: int) -> int:
        """Of the paragraphs below each other."""
        return sum(len(self.rows(paragraph, width)) * self.step for paragraph in paragraphs)

    def write(self, picture: Image.Image, paragraphs: Sequence[Paragraph], place: tuple[int, int], width: int) -> int:
        """Draw the paragraphs from their upper left corner on.

        Returns:
            Where they end, in pixels from the top of the picture.
        """
        draw = ImageDraw.Draw(picture)
        left, top = place
        for paragraph in paragraphs:
            rows = self.rows(paragraph, width)
            bottom = top + len(rows) * self.step
            if paragraph.ground is not None:
                draw.rectangle((left, top, left + width - 1, bottom - 1), fill=paragraph.ground)
            for index, row in enumerate(rows):
                at = (left + self._inset(paragraph), top + index * self.step)
                draw.text(at, row, fill=paragraph.ink, font=self.font)
            top = bottom
        return top

    def write_ends(self, picture: Image.Image, ends: tuple[str, str, str], place: tuple[int, int], width: int) -> None:
        """Draw texts at the left end, in the middle (if there is room) and at the right end of a row."""
        draw = ImageDraw.Draw(picture)
        left, top = place
        first, middle, last = ends
        begin = math.ceil(self.font.getlength(first)) + self.size
        (last,) = _wrapped(last, self.font, width - begin, 1)
        end = width - math.ceil(self.font.getlength(last)) - self.size
        half = math.ceil(self.font.getlength(middle) / 2)
        for text, at, anchor in ((first, left, "la"), (middle, left + width // 2, "ma"), (last, left + width, "ra")):
            if text and (text is not middle or begin + half <= width // 2 <= end - half):
                draw.text((at, top), text, fill=INK, font=self.font, anchor=anchor)


def lettering(texts: Sequence[str], size: int) -> Lettering:
    """With a font for all the texts, as `drawable` writes them."""
    return Lettering(_font(font_file(texts), size), size)


@functools.lru_cache(maxsize=16)
def _font(path: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size)


def drawable(texts: Sequence[str]) -> list[str]:
    """The texts on one line each, in ASCII escapes where no font has all their characters."""
    labels, _, legend = display_names(texts)
    if not legend:
        return labels
    return [
        text if text == label else text.encode("unicode_escape").decode()
        for text, label in zip(texts, labels, strict=True)
    ]


@functools.lru_cache(maxsize=256)  # rows are needed to measure and again to draw, and many pictures share lines
def _wrapped(line: str, font: ImageFont.FreeTypeFont, width: int, most: int) -> tuple[str, ...]:
    """The line on at most so many rows of this width in pixels; shortened in the middle where that is not enough."""
    if font.getlength(line) <= width:
        return (line,)
    if most == 1:
        return (_shortened(line, font, width),)
    fitting = _most_fitting(lambda count: line[:count], len(line), font, width)
    gaps = (line.rfind(gap, 0, fitting + 1) for gap in ("  ", " "))  # two spaces stand between parts of a line
    cut = next((gap for gap in gaps if gap > fitting // 2), fitting)
    return (line[:cut].rstrip(), *_wrapped(line[cut:].lstrip(), font, width, most - 1))


def _shortened(line: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    def kept(count: int) -> str:
        return f"{line[: count - count // 2]}...{line[len(line) - count // 2 :]}"

    return kept(_most_fitting(kept, len(line), font, width))


def _most_fitting(text: Callable[[int], str], limit: int, font: ImageFont.FreeTypeFont, width: int) -> int:
    """The largest count below the limit whose text is at most so wide, in pixels; 0 when none is."""
    wider = bisect.bisect_right(range(limit), width, key=lambda count: math.ceil(font.getlength(text(count))))
    return max(wider - 1, 0)
