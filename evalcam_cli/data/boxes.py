"""Where the objects are: `boxes.csv` and folders of masks, read strictly."""

import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from evalcam_cli.data.disk import FILE, DiskIndex, inside, nfc
from evalcam_cli.data.images import UnreadableImage, open_regular
from evalcam_cli.data.tables import Table, read_table
from evalcam_cli.errors import DataError, UsageError
from evalcam_cli.text import csv_text, did_you_mean, file_stem, listed, shown

COLUMNS = ("path", "label", "x0", "y0", "x1", "y1")
_SIDES = COLUMNS[2:]
_MASK_FORMATS = ("PNG",)


@dataclass(frozen=True, slots=True)
class ObjectBox:
    """One object in one image, in pixels of the upright image; x1 and y1 are exclusive."""

    label: str
    """The class of the object."""
    x0: int
    y0: int
    x1: int
    y1: int
    row: int
    """Of the file, for messages."""

    @property
    def corners(self) -> tuple[int, int, int, int]:
        """x0, y0, x1, y1."""
        return self.x0, self.y0, self.x1, self.y1


class BoxTable:
    """The boxes of a `boxes.csv`, by image."""

    def __init__(self, place: str, by_path: dict[str, tuple[ObjectBox, ...]]) -> None:
        self._place = place
        self._by_path = by_path

    @property
    def paths(self) -> tuple[str, ...]:
        """The images that have boxes, in the order of the file, in NFC form."""
        return tuple(self._by_path)

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes that have boxes, by code point."""
        return tuple(sorted({box.label for boxes in self._by_path.values() for box in boxes}))

    def require_classes(self, classes: Iterable[str]) -> None:
        """Refuse a label that is none of the classes.

        Raises:
            DataError: There is one; the message names its row.
        """
        known = set(classes)
        for boxes in self._by_path.values():
            for box in boxes:
                if box.label not in known:
                    raise DataError(
                        f"{self._place}, row {box.row}: no class {shown(box.label)!r}"
                        f"{did_you_mean(box.label, known)} (classes: {listed(sorted(known), 8)})"
                    )

    def of(self, path: str, width: int, height: int) -> tuple[ObjectBox, ...]:
        """The boxes of an image of this size, in the order of the file; none when the file does not name it.

        Raises:
            DataError: A box reaches beyond the image; the message names its row.
        """
        boxes = self._by_path.get(nfc(path), ())
        for box in boxes:
            if box.x1 > width or box.y1 > height:
                raise DataError(
                    f"{self._place}, row {box.row}: the box {_written(box.corners)} reaches beyond "
                    f"{shown(path)}, which is {width} x {height} pixels upright"
                )
        return boxes


def read_boxes(path: Path) -> BoxTable:
    """A CSV table with the columns path, label, x0, y0, x1, y1 and no others, a row per object.

    Paths are relative to the data root; one object may stand in the table once only.

    Raises:
        UsageError: The file cannot be opened.
        DataError: A row cannot be used; the message names file and row.
    """
    table = read_table(path, COLUMNS)
    for name in table.columns:
        if name not in COLUMNS:
            raise table.fault(1, f"unknown column {shown(name)[:80]!r}; expected {','.join(COLUMNS)}")
    by_path: dict[str, dict[tuple[object, ...], ObjectBox]] = {}
    for image, box in _boxes(table):
        same = by_path.setdefault(image, {}).setdefault((box.label, *box.corners), box)
        if same is not box:
            raise table.fault(box.row, f"the same object as in row {same.row}")
    return BoxTable(table.place, {image: tuple(boxes.values()) for image, boxes in by_path.items()})


def _boxes(table: Table) -> Iterator[tuple[str, ObjectBox]]:
    for number, (image, label, *sides) in table.cells(*COLUMNS):
        tidy = inside(csv_text(image))
        if not image or tidy is None:
            what = f"the path {shown(image)[:200]!r} leaves the data folder" if image else "the path is empty"
            raise table.fault(number, what)
        if not label:
            raise table.fault(number, f"{shown(image)[:200]} has no label")
        x0, y0, x1, y1 = (_pixel(table, number, *side) for side in zip(_SIDES, sides, strict=True))
        if x0 < 0 or y0 < 0:
            raise table.fault(number, f"the box {_written((x0, y0, x1, y1))} begins outside the image")
        if x1 <= x0 or y1 <= y0:
            raise table.fault(
                number, f"the box {_written((x0, y0, x1, y1))} is empty; x1 and y1 are exclusive, so above x0 and y0"
            )
        yield nfc(tidy), ObjectBox(csv_text(label), x0, y0, x1, y1, number)


def _pixel(table: Table, number: int, name: str, cell: str) -> int:
    text = csv_text(cell.strip())  # a negative number may be guarded as a formula is
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdecimal() and len(digits) < 10):
        raise table.fault(number, f"{name} is {shown(cell)[:40]!r}; expected a whole number of pixels")
    return int(text)


def _written(corners: tuple[int, int, int, int]) -> str:
    return ",".join(map(str, corners))


class MaskFolder:
    """Masks as PNG files, each in its image's relative folder under the image's stem.

    `a/b.png` shows the objects of the image `a/b.jpg`, `a/b.cat.png` those of its class cat, spelled as the class or as
    `file_stem` writes it.
    """

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise UsageError(f"no folder {shown(root.absolute())} with masks")
        self._root = root
        self._index = DiskIndex(root)

    def find(self, path: str, label: str) -> tuple[Path, bool] | None:
        """The mask of a class in an image, and whether it is of that class alone; None when there is none."""
        pure = PurePosixPath(path)
        names = {f"{pure.stem}.{part}.png": True for part in (label, file_stem(label)) if "/" not in part}
        for name, own in (names | {f"{pure.stem}.png": False}).items():
            spelled, kind = self._index.find(pure.with_name(name).as_posix())
            if kind == FILE:
                return self._root / spelled, own
        return None

    def read(self, path: str, label: str, width: int, height: int, *, only: bool) -> NDArray[np.bool_] | None:
        """Which pixels of an image show objects of a class; None where that is not known.

        Args:
            path: Of the image, relative to the data root.
            label: The class.
            width: Of the upright image, in pixels.
            height: The same.
            only: Whether the image shows no other class, so that a mask without a class in its name is of this one.

        Raises:
            DataError: The mask is damaged, of another size, or shows nothing.
        """
        found = self.find(path, label)
        if found is None or not (found[1] or only):
            return None
        return read_mask(found[0], width, height, root=self._root)


def read_mask(path: Path, width: int, height: int, *, root: Path | None = None) -> NDArray[np.bool_]:
    """(H, W): which pixels of a PNG are not zero (of a palette, not its first colour; of colours, any channel).

    Transparent pixels are no object. `root` as for `open_regular`.

    Raises:
        DataError: It is no PNG, is damaged, has another size than its image, or is zero everywhere.
    """
    with open_regular(path, root=root) as stream, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(stream, formats=_MASK_FORMATS) as image:
                size = image.size
                if size == (width, height):  # else it may be of any size, and is not decoded
                    mask = _not_zero(image)
        except Exception as error:  # decoders answer hostile bytes with a dozen kinds of exception
            raise UnreadableImage(path, "damaged, or no PNG") from error
    if size != (width, height):
        raise DataError(
            f"the mask {shown(path.absolute())} is {size[0]} x {size[1]} pixels, but its image "
            f"{width} x {height} upright"
        )
    if not mask.any():
        raise DataError(f"the mask {shown(path.absolute())} shows no object: all its pixels are 0")
    return mask


def _not_zero(image: Image.Image) -> NDArray[np.bool_]:
    opaque: NDArray[np.bool_] | bool = True
    if image.mode in ("RGBA", "LA"):
        opaque = np.asarray(image.getchannel("A")) > 0
        image = image.convert(image.mode[:-1])
    pixels = np.asarray(image) != 0
    return np.asarray((pixels.any(axis=2) if pixels.ndim == 3 else pixels) & opaque)
