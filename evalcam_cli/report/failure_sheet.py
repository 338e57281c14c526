"""The worst mistakes of a failure report on one picture for slides: close to 16:9 with seven or eight of them."""

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from evalcam_cli.report.captions import FAINT, INK, PAPER, Colour, Lettering, Paragraph, drawable, lettering
from evalcam_cli.report.failure_entries import FailureEntry
from evalcam_cli.report.failures_page import Legend, number

_PICTURE, _GAP, _MARGIN, _TEXT = 176, 8, 40, 214  # pixels
_ROW = _PICTURE + 40
_BLOCK = _TEXT + 4 * _PICTURE + 3 * _GAP
_TRUE, _PREDICTED, _LINE = (176, 74, 0), (0, 87, 194), (215, 215, 215)  # as on the page, and in differences
_COLUMNS = ("original", "for the true class", "for the predicted", "difference")
_TITLE_SIZE, _SIZE = 28, 16


@dataclass(frozen=True)
class _Sheet:
    """What is drawn on, with what."""

    image: Image.Image
    letters: Lettering
    spelled: Mapping[str, str]
    """Every text from outside, as the font can draw it."""

    def write(self, paragraphs: Sequence[Paragraph], place: tuple[int, int], width: int) -> None:
        self.letters.write(self.image, paragraphs, place, width)


def draw_failure_sheet(
    title: str, entries: Sequence[FailureEntry], *, legends: Sequence[Legend] = (), most: int = 8
) -> Image.Image:
    """One row per image: classes, probabilities and loss, the original, the maps of the true and of the predicted class
    and their difference. Up to three images stand below each other, more in two columns.

    Args:
        title: What the sheet is of: model, set, method; two lines at most.
        entries: In the order in which they are drawn; a right prediction has no map of another class.
        legends: Colour bars, drawn at the foot.
        most: Entries beyond these are left out.
    """
    drawn = entries[:most]
    columns = 1 if len(drawn) <= 3 else 2
    rows = math.ceil(len(drawn) / columns)
    width = columns * _BLOCK + (columns + 1) * _MARGIN
    texts = [
        title,
        *(text for entry in drawn for text in _texts(entry)),
        *(text for one in legends for text in _ends(one)),
    ]
    spelled = dict(zip(texts, drawable(texts), strict=True))
    large, small = lettering(texts, _TITLE_SIZE), lettering(texts, _SIZE)
    heading = [Paragraph(spelled[title])]
    top = _MARGIN // 2 + large.height(heading, width - 2 * _MARGIN) + _MARGIN // 2
    foot = 2 * small.step + _GAP if legends else 0
    height = top + small.step + max(1, rows) * _ROW + foot
    sheet = _Sheet(Image.new("RGB", (width, height), PAPER), small, spelled)
    large.write(sheet.image, heading, (_MARGIN, _MARGIN // 2), width - 2 * _MARGIN)
    if not drawn:
        sheet.write([Paragraph("no mistakes")], (_MARGIN, top), width - 2 * _MARGIN)
    for column in range(columns if drawn else 0):
        _draw_headings(sheet, (_MARGIN + column * (_BLOCK + _MARGIN), top))
    for place, entry in enumerate(drawn):  # down the first column, then the second
        left = _MARGIN + place // rows * (_BLOCK + _MARGIN)
        _draw_entry(sheet, entry, (left, top + small.step + place % rows * _ROW))
    _draw_legends(sheet, legends, height - foot)
    return sheet.image


def _texts(entry: FailureEntry) -> tuple[str, ...]:
    return entry.path, entry.label, entry.predicted


def _ends(legend: Legend) -> tuple[str, str]:
    return legend.low, legend.high


def _column(left: int, column: int) -> int:
    """Where a picture begins."""
    return left + _TEXT + column * (_PICTURE + _GAP)


def _draw_headings(sheet: _Sheet, place: tuple[int, int]) -> None:
    left, top = place
    for column, heading in enumerate(_COLUMNS):
        sheet.write([Paragraph(heading, FAINT, most=1)], (_column(left, column), top - 2), _PICTURE)


def _draw_entry(sheet: _Sheet, entry: FailureEntry, place: tuple[int, int]) -> None:
    left, top = place
    ImageDraw.Draw(sheet.image).line((left, top, left + _BLOCK, top), fill=_LINE)
    top += _GAP
    sheet.write(_said(sheet, entry), (left, top), _TEXT - 2 * _GAP)
    pictures = (entry.original, entry.true_map, entry.predicted_map, entry.difference)
    largest = (None, entry.true_max, entry.predicted_max, entry.difference_max)
    for column, (data, value) in enumerate(zip(pictures, largest, strict=True)):
        if data is None:
            continue
        picture = _sized(data)
        sheet.image.paste(picture, (_column(left, column), top))
        if value is not None:
            caption = Paragraph(_caption(value, signed=column == 3), FAINT, most=1)
            sheet.write([caption], (_column(left, column), top + picture.height + 2), _PICTURE)


def _sized(data: bytes) -> Image.Image:
    """As large as fits, enlarged too."""
    with Image.open(io.BytesIO(data)) as image:
        pixels = image.convert("RGB")
    factor = _PICTURE / max(pixels.size)
    size = (max(1, round(pixels.width * factor)), max(1, round(pixels.height * factor)))
    return pixels.resize(size, Image.Resampling.LANCZOS)


def _caption(value: float, *, signed: bool) -> str:
    if value <= 0:
        return "empty map"
    return f"±{value:.3g}" if signed else f"up to {value:.3g}"


def _said(sheet: _Sheet, entry: FailureEntry) -> list[Paragraph]:
    probabilities = dict(entry.probabilities)
    path, label, predicted = (sheet.spelled[text] for text in _texts(entry))
    lines = _class_lines("true", label, probabilities.get(entry.label), _TRUE)
    if entry.is_mistake:
        lines += _class_lines("predicted", predicted, probabilities.get(entry.predicted), _PREDICTED)
    folder, slash, file = path.rpartition("/")
    lines.append(Paragraph(f"loss {number(entry.loss)}", INK, most=1))
    return [*lines, *(Paragraph(part, FAINT, most=1) for part in (folder + slash, file) if part)]


def _class_lines(what: str, label: str, probability: float | None, ink: Colour) -> list[Paragraph]:
    said = "" if probability is None else f"  p = {probability:.3f}"
    return [Paragraph(f"{what}{said}", FAINT, most=1), Paragraph(label, ink, most=2)]


def _draw_legends(sheet: _Sheet, legends: Sequence[Legend], top: int) -> None:
    width = min(440, (sheet.image.width - _MARGIN) // max(1, len(legends)) - _MARGIN)
    bar = sheet.letters.step // 2
    for column, legend in enumerate(legends):
        left = _MARGIN + column * (width + _MARGIN)
        with Image.open(io.BytesIO(legend.picture)) as image:
            sheet.image.paste(image.convert("RGB").resize((width, bar)), (left, top))
        low, high = (sheet.spelled[text] for text in _ends(legend))
        sheet.letters.write_ends(sheet.image, (low, "", high), (left, top + bar + 2), width)
