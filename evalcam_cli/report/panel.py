"""One image under the maps of several methods and classes, side by side at one readable size."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from PIL import Image

from evalcam_cli.data.preprocessing import Geometry
from evalcam_cli.report.captions import ALARM, FAINT, INK, PAPER, Lettering, Paragraph, drawable, lettering
from evalcam_cli.report.colours import Painted, Scale, colour_bar, paint
from evalcam_cli.report.enlarging import Floats

PICTURE = 320
"""Largest width and height of a picture in the panel, in pixels."""
_COLUMNS = 5
_SLOT = 200
"""Least width of a column, in pixels, so that its texts can be read."""
_GAP = 16
_SIZE, _HEADING = 13, 18  # of letters, in pixels
_RULE = (215, 215, 215)


@dataclass(frozen=True)
class Cell:
    """The map of one method."""

    title: str
    """Method and layer."""
    class_map: Floats | None
    """(h, w) signed; None where the method has no map, and the note says why."""
    scale: Scale
    notes: tuple[str, ...] = ()
    """Such as `identical to Grad-CAM here`."""
    warning: str | None = None
    """Such as `fails the sanity check`."""


@dataclass(frozen=True)
class Row:
    """The maps of one class."""

    title: str
    """Class and probability."""
    label: str
    """The class, for the sentence about an empty map."""
    cells: Sequence[Cell]


@dataclass(frozen=True)
class _Slot:
    """What stands in one place of the grid."""

    title: str
    picture: Image.Image
    painted: Painted | None
    cell: Cell | None

    def texts(self) -> list[str]:
        return [self.title, *(text.text for text in self.below())]

    def below(self) -> list[Paragraph]:
        """Warning, notes and remarks, in their order."""
        if self.cell is None:
            return []
        warnings = [] if self.cell.warning is None else [Paragraph(self.cell.warning, PAPER, ALARM, most=4)]
        remarks = () if self.painted is None else self.painted.remarks
        return [*warnings, *(Paragraph(text, FAINT, most=3) for text in (*self.cell.notes, *remarks))]


def draw_panel(image: Image.Image, rows: Sequence[Row], geometry: Geometry, *, title: str = "") -> Image.Image:
    """The image and, for every class, its maps, each with its own title, colour bar and notes.

    Each class has a heading and, below it, the plain image and one picture per method, at most five abreast; the same
    place in every class is the same method when the cells are. Pictures have the image's proportions and at most
    `PICTURE` pixels a side; a tiny image is enlarged by a whole factor. Maps are drawn at that size, so an image of any
    size needs no more memory than its own.

    Args:
        image: The upright RGB original, as `geometry` describes it.
        rows: One per class.
        geometry: Where the original lies in the model's input.
        title: Above everything, such as the image's path.

    Raises:
        ValueError: A map is not finite, or a scale not above 0.
    """
    small = _sized(image)
    place = _at_size(geometry, *small.size)
    sections = [
        (row.title, [_Slot("image", small, None, None), *(_slot(small, row, place, cell) for cell in row.cells)])
        for row in rows
    ]
    texts = [title, *(heading for heading, _ in sections)]
    texts += [text for _, slots in sections for slot in slots for text in (*slot.texts(), *_ends(slot))]
    layout = _Layout(
        max(small.width, _SLOT),
        small.height,
        lettering(texts, _SIZE),
        lettering(texts, _HEADING),
        dict(zip(texts, drawable(texts), strict=True)),
    )
    return layout.draw(title, sections)


def _sized(image: Image.Image) -> Image.Image:
    """At most `PICTURE` pixels a side; a tiny one with each pixel enlarged to a square."""
    factor = PICTURE // max(image.size)
    if factor >= 1:
        return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    share = PICTURE / max(image.size)
    size = max(1, round(image.width * share)), max(1, round(image.height * share))
    return image.resize(size, Image.Resampling.BICUBIC, reducing_gap=3)


def _at_size(geometry: Geometry, width: int, height: int) -> Geometry:
    """Where the image lies in the input when it has this size."""
    return replace(
        geometry,
        width=width,
        height=height,
        scale_x=geometry.scale_x * geometry.width / width,
        scale_y=geometry.scale_y * geometry.height / height,
    )


def _slot(small: Image.Image, row: Row, place: Geometry, cell: Cell) -> _Slot:
    if cell.class_map is None:
        return _Slot(cell.title, Image.new("RGB", small.size, _RULE), None, cell)
    painted = paint(small, cell.class_map, place, cell.scale, row.label)
    return _Slot(cell.title, painted.image, painted, cell)


def _ends(slot: _Slot) -> tuple[str, ...]:
    return () if slot.painted is None or slot.painted.ends is None else slot.painted.ends


@dataclass(frozen=True)
class _Layout:
    """Sizes that all slots share, and the letters."""

    width: int
    """Of a slot, in pixels."""
    picture_height: int
    letters: Lettering
    headings: Lettering
    drawable: dict[str, str]
    """What to draw for each text."""

    def draw(self, title: str, sections: Sequence[tuple[str, Sequence[_Slot]]]) -> Image.Image:
        columns = max((_columns(len(slots)) for _, slots in sections), default=1)
        inner = columns * self.width + (columns - 1) * _GAP
        lines = [
            (heading, [slots[at : at + columns] for at in range(0, len(slots), columns)]) for heading, slots in sections
        ]
        top = [Paragraph(self.drawable[title])] if title else []
        height = _GAP + self.headings.height(top, inner)
        for heading, grid in lines:
            height += _GAP + self.headings.height(self._heading(heading), inner)
            height += sum(self._line_height(line) for line in grid)
        panel = Image.new("RGB", (inner + 2 * _GAP, height), PAPER)
        y = self.headings.write(panel, top, (_GAP, _GAP), inner)
        for heading, grid in lines:
            panel.paste(_RULE, (_GAP, y + _GAP // 2, _GAP + inner, y + _GAP // 2 + 1))
            y = self.headings.write(panel, self._heading(heading), (_GAP, y + _GAP), inner)
            for line in grid:
                for column, slot in enumerate(line):
                    self._draw_slot(panel, slot, (_GAP + column * (self.width + _GAP), y), self._title_height(line))
                y += self._line_height(line)
        return panel

    def _heading(self, text: str) -> list[Paragraph]:
        return [Paragraph(self.drawable[text])]

    def _title_height(self, line: Sequence[_Slot]) -> int:
        return max(self.letters.height(self._title(slot), self.width) for slot in line)

    def _line_height(self, line: Sequence[_Slot]) -> int:
        """Of slots side by side, with the gap below them."""
        below = max(self._below_height(slot) for slot in line)
        return self._title_height(line) + self.picture_height + below + _GAP

    def _below_height(self, slot: _Slot) -> int:
        bar = 2 * self.letters.step if _ends(slot) else 0
        return bar + self.letters.height(self._below(slot), self._band_width)

    @property
    def _band_width(self) -> int:
        return self.width - 2 * (self.letters.size // 2)

    def _title(self, slot: _Slot) -> list[Paragraph]:
        return [Paragraph(self.drawable[slot.title], INK)]

    def _below(self, slot: _Slot) -> list[Paragraph]:
        return [replace(paragraph, text=self.drawable[paragraph.text]) for paragraph in slot.below()]

    def _draw_slot(self, panel: Image.Image, slot: _Slot, place: tuple[int, int], title_height: int) -> None:
        left, top = place
        title = self._title(slot)
        above = title_height - self.letters.height(title, self.width)  # titles stand on their pictures
        self.letters.write(panel, title, (left, top + above), self.width)
        panel.paste(slot.picture, (left, top + title_height))
        y, step = top + title_height + self.picture_height, self.letters.step
        if slot.painted is not None and slot.painted.ends is not None and slot.cell is not None:
            panel.paste(colour_bar(self.width, step * 2 // 3, slot.cell.scale.kind), (left, y + step // 4))
            ends = slot.painted.ends
            self.letters.write_ends(panel, (ends[0], ends[1], self.drawable[ends[2]]), (left, y + step), self.width)
            y += 2 * step
        self.letters.write(panel, self._below(slot), (left + self.letters.size // 2, y), self._band_width)


def _columns(slots: int) -> int:
    """As few as make no more lines than the most columns would."""
    return math.ceil(slots / math.ceil(slots / _COLUMNS))
