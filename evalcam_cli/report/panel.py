"""One image under the maps of several methods and classes, side by side at one readable size."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from PIL import Image

from evalcam_cli.data.preprocessing import Geometry
from evalcam_cli.report.captions import ALARM, FAINT, PAPER, Lettering, Paragraph, drawable, lettering
from evalcam_cli.report.colours import HATCHED, Kind, Painted, Scale, colour_bar, paint
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
    kind: Kind = "positive"
    ends: tuple[str, str, str] | None = None
    """Texts along the colour bar; None: there is none."""
    below: tuple[Paragraph, ...] = ()

    def texts(self) -> list[str]:
        return [self.title, *(paragraph.text for paragraph in self.below), *(self.ends or ())]


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
    sections = [(row.title, _slots(small, row, place)) for row in rows]
    texts = [title, *(heading for heading, _ in sections)]
    texts += [text for _, slots in sections for slot in slots for text in slot.texts()]
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


def _slots(small: Image.Image, row: Row, place: Geometry) -> list[_Slot]:
    """The plain image, on which is said what all maps share, and the maps."""
    painted = [
        None if cell.class_map is None else paint(small, cell.class_map, place, cell.scale, row.label)
        for cell in row.cells
    ]
    hatched = any(HATCHED in one.remarks for one in painted if one is not None)
    plain = _Slot("image", small, below=(Paragraph(HATCHED, FAINT, most=3),) if hatched else ())
    return [plain, *(_slot(small, cell, one) for cell, one in zip(row.cells, painted, strict=True))]


def _slot(small: Image.Image, cell: Cell, painted: Painted | None) -> _Slot:
    remarks = () if painted is None else tuple(remark for remark in painted.remarks if remark != HATCHED)
    warnings = () if cell.warning is None else (Paragraph(cell.warning, PAPER, ALARM, most=4),)
    below = (*warnings, *(Paragraph(text, FAINT, most=3) for text in (*cell.notes, *remarks)))
    if painted is None:
        return _Slot(cell.title, Image.new("RGB", small.size, _RULE), below=below)
    return _Slot(cell.title, painted.image, cell.scale.kind, painted.ends, below)


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
        grids = [(self._written(heading), _lines(slots, columns)) for heading, slots in sections]
        above = self._written(title) if title else []
        height = _GAP + self.headings.height(above, inner)
        for heading, lines in grids:
            height += 2 * _GAP + self.headings.height(heading, inner) + sum(map(self._line_height, lines))
        panel = Image.new("RGB", (inner + 2 * _GAP, height), PAPER)
        y = self.headings.write(panel, above, (_GAP, _GAP), inner)
        for place, (heading, lines) in enumerate(grids):
            if place or title:
                panel.paste(_RULE, (_GAP, y + _GAP // 2, _GAP + inner, y + _GAP // 2 + 1))
            y = self.headings.write(panel, heading, (_GAP, y + _GAP), inner) + _GAP // 2
            for line in lines:
                self._draw_line(panel, line, y)
                y += self._line_height(line)
            y += _GAP // 2
        return panel

    def _written(self, text: str) -> list[Paragraph]:
        return [Paragraph(self.drawable[text])]

    def _title_height(self, line: Sequence[_Slot]) -> int:
        return max(self.letters.height(self._written(slot.title), self.width) for slot in line)

    def _line_height(self, line: Sequence[_Slot]) -> int:
        """Of slots side by side, with the gap below them."""
        below = max(self._bar_height(slot) + self.letters.height(self._below(slot), self.width) for slot in line)
        return self._title_height(line) + self.picture_height + below + _GAP

    def _bar_height(self, slot: _Slot) -> int:
        """From the picture to the notes."""
        return self.letters.step // 4 if slot.ends is None else 2 * self.letters.step

    def _below(self, slot: _Slot) -> list[Paragraph]:
        return [replace(paragraph, text=self.drawable[paragraph.text]) for paragraph in slot.below]

    def _draw_line(self, panel: Image.Image, line: Sequence[_Slot], top: int) -> None:
        for column, slot in enumerate(line):
            left, title = _GAP + column * (self.width + _GAP), self._written(slot.title)
            bottom = top + self._title_height(line)  # titles stand on their pictures
            self.letters.write(panel, title, (left, bottom - self.letters.height(title, self.width)), self.width)
            panel.paste(slot.picture, (left, bottom))
            self._draw_below(panel, slot, left, bottom + self.picture_height)

    def _draw_below(self, panel: Image.Image, slot: _Slot, left: int, top: int) -> None:
        step = self.letters.step
        if slot.ends is not None:
            first, middle, last = (self.drawable[text] for text in slot.ends)
            panel.paste(colour_bar(self.width, step * 2 // 3, slot.kind), (left, top + step // 4))
            self.letters.write_ends(panel, (first, middle, last), (left, top + step), self.width)
        self.letters.write(panel, self._below(slot), (left, top + self._bar_height(slot)), self.width)


def _lines(slots: Sequence[_Slot], columns: int) -> list[Sequence[_Slot]]:
    return [slots[start : start + columns] for start in range(0, len(slots), columns)]


def _columns(slots: int) -> int:
    """As few as make no more lines than the most columns would."""
    return math.ceil(slots / math.ceil(slots / _COLUMNS))
