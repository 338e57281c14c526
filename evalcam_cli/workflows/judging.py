"""Boxes out of maps, and how well maps stand on known objects: image by image, then for the whole run."""

import itertools
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from evalcam_cli.data.boxes import BoxTable, MaskFolder, read_boxes
from evalcam_cli.errors import DataError, UsageError
from evalcam_cli.explain.boxes import binarise, label_segments
from evalcam_cli.explain.localisation import Localised, Truth, localise, truth_of_boxes, truth_of_mask
from evalcam_cli.explain.localisation_numbers import Localisation, summarise
from evalcam_cli.files import OutputFolder
from evalcam_cli.report.enlarging import Floats, enlarge
from evalcam_cli.report.localisation import (
    BOXES_HEADER,
    LOCALISATION_HEADER,
    FoundObject,
    box_rows,
    coco_annotation,
    coco_image,
    coco_pieces,
    localisation_document,
    localisation_rows,
    localisation_section,
)
from evalcam_cli.text import shown
from evalcam_cli.workflows.explained_images import Picture, Subject
from evalcam_cli.workflows.explaining import Explained
from evalcam_cli.workflows.explanations import Entry, Explanation
from evalcam_cli.workflows.map_files import Writing

_OBJECTS, _LOCALISED = "objects", "localised"  # in an entry's extra


@dataclass(frozen=True)
class Judge:
    """What is asked of the maps of each image."""

    threshold: float
    """Share of a map's maximum above which a place belongs to the object."""
    find: bool
    """Whether boxes are written."""
    truth: BoxTable | MaskFolder | None = None

    def judge(
        self, picture: Picture, found: Explained, rows: Sequence[Explanation], writing: Writing
    ) -> dict[str, Any]:
        """What is kept of one image, as plain data."""
        extra: dict[str, Any] = {}
        geometry = writing.preprocessing.geometry(*picture.size)
        for row, (method, place) in zip(rows, found.order(), strict=True):
            finds, truth = self.find and method == writing.methods[0], self._truth(picture, row)
            if not finds and truth is None:
                continue
            heat, seen = enlarge(writing.readable(method, found.maps[method][place]), geometry)
            if finds:
                extra.setdefault(_OBJECTS, []).extend(self._objects(heat, seen, row, picture))
            if truth is not None:
                peak = None if row.peak_x is None or row.peak_y is None else (row.peak_x, row.peak_y)
                record = localise(
                    heat,
                    seen,
                    truth,
                    peak=peak,
                    unit=row.path,
                    label=row.class_name,
                    rank=_rank(found, place),
                    fraction=self.threshold,
                )
                extra.setdefault(_LOCALISED, {}).setdefault(method, []).append(_plain(record))
        return extra

    def _objects(self, heat: Floats, seen: Any, row: Explanation, picture: Picture) -> list[dict[str, Any]]:
        labels, segments = label_segments(binarise(heat, self.threshold, seen))
        if not segments:
            return []
        largest = max(segments, key=lambda segment: segment.pixels)
        score = row.logit if row.probability is None else row.probability
        found = FoundObject(
            picture.subject.relative, row.class_name, largest.box, largest.pixels, score, labels == largest.number
        )
        return [{"annotation": coco_annotation(0, 0, row.class_index + 1, found), "row": box_rows([found])[0]}]

    def _truth(self, picture: Picture, row: Explanation) -> Truth | None:
        subject, (width, height) = picture.subject, picture.size
        if isinstance(self.truth, BoxTable):
            boxes = [
                box.corners for box in self.truth.of(subject.relative, width, height) if box.label == row.class_name
            ]
            return truth_of_boxes(boxes, height, width) if boxes else None
        if isinstance(self.truth, MaskFolder):
            only = row.class_name == subject.label
            mask = self.truth.read(subject.relative, row.class_name, width, height, only=only)
            return None if mask is None else truth_of_mask(mask)
        return None


def read_truth(path: Path | None) -> BoxTable | MaskFolder | None:
    """Known objects: of a `boxes.csv`, or of a folder of masks.

    Raises:
        EvalcamError: They cannot be read.
    """
    if path is None:
        return None
    return MaskFolder(path) if path.is_dir() else read_boxes(path)


def _rank(found: Explained, place: int) -> int | None:
    """How many classes the model puts before this one; 0 for the predicted class."""
    if not len(found.probabilities):
        return None
    index = found.classes[place]
    return 0 if index == found.predicted else max(1, int((found.probabilities > found.probabilities[index]).sum()))


def _plain(record: Localised) -> dict[str, Any]:
    return {name: value.hex() if isinstance(value, bytes) else value for name, value in asdict(record).items()}


def _record(values: dict[str, Any]) -> Localised:
    box = None if values["box"] is None else tuple(values["box"])
    packed = {entry.name: bytes.fromhex(values[entry.name]) for entry in fields(Localised) if entry.type is bytes}
    return Localised(**{**values, **packed, "box": box})


def write_boxes(
    folder: OutputFolder, entries: Callable[[], Iterable[Entry]], classes: Sequence[str], model: str
) -> None:
    """Write `boxes.csv` and `coco.json`: the largest segment of each map of the first method.

    Args:
        folder: Of the run.
        entries: Gives its images, whenever it is called.
        classes: In output order.
        model: For the description.
    """

    def annotations() -> Iterator[dict[str, Any]]:
        number = itertools.count(1)
        for image, entry in enumerate(entries(), start=1):
            for found in entry.extra.get(_OBJECTS, ()):
                yield {**found["annotation"], "id": next(number), "image_id": image}

    images = (coco_image(number, entry.path, *entry.size) for number, entry in enumerate(entries(), start=1))
    rows = (found["row"] for entry in entries() for found in entry.extra.get(_OBJECTS, ()))
    folder.write_csv("boxes.csv", BOXES_HEADER, rows)
    with folder.stream("coco.json") as stream:
        stream.writelines(coco_pieces(classes, images, annotations(), f"class maps of {model}"))


def write_localisation(folder: OutputFolder, entries: Iterable[Entry], place: str) -> dict[str, Localisation]:
    """Write `localisation.json`, `.csv` and `.md`; by method.

    Raises:
        DataError: No map was of a class with a known object.
    """
    records: dict[str, list[Localised]] = {}
    for entry in entries:
        for method, found in entry.extra.get(_LOCALISED, {}).items():
            records.setdefault(method, []).extend(map(_record, found))
    if not records:
        raise DataError(
            f"{place}: none of its objects is of an explained image and class;\n"
            "its paths are relative to the data root or to the folder named; explain the objects' classes with --class"
        )
    methods = {method: summarise(found) for method, found in records.items()}
    folder.write_json("localisation.json", localisation_document(methods))
    folder.write_csv(
        "localisation.csv",
        LOCALISATION_HEADER,
        [row for method, found in records.items() for row in localisation_rows(method, methods[method], _by(found))],
    )
    folder.write("localisation.md", "\n".join([*localisation_section(methods), ""]).encode("utf-8", "surrogateescape"))
    return methods


def _by(records: Sequence[Localised]) -> dict[str, Localisation]:
    labels = sorted({record.label for record in records})
    return {label: summarise([record for record in records if record.label == label]) for label in labels}


def refuse_strange_boxes(
    truth: BoxTable | MaskFolder | None, path: Path | None, images: Iterable[str], classes: Sequence[str]
) -> None:
    """Refuse a table that knows no object of these images, before any is explained.

    Raises:
        DataError: There is none.
    """
    if isinstance(truth, BoxTable) and path is not None:
        truth.require_classes(classes)
        known = set(truth.paths)
        if not any(unicodedata.normalize("NFC", image) in known for image in images):
            raise DataError(
                f"{shown(path.absolute())}: none of its objects is of an image to be explained;\n"
                "its paths are relative to the data root or to the folder named, e.g. "
                f"{shown(truth.paths[0]) if truth.paths else 'there are none'}"
            )


def refuse_images_as_masks(truth: BoxTable | MaskFolder | None, path: Path | None, roots: Iterable[Path]) -> None:
    """Refuse a folder of masks that is a folder of images, where a PNG would be its own mask.

    Raises:
        UsageError: It is one.
    """
    if isinstance(truth, MaskFolder) and path is not None:
        for root in roots:
            if path.resolve() == root.resolve():
                raise UsageError(f"--boxes {shown(path.absolute())} is the folder of the images, not of their masks")


def has_truth(truth: BoxTable | MaskFolder | None, subjects: Sequence[Subject]) -> bool:
    """Whether every image has a label, so that its own class is what the truth is about."""
    return truth is not None and all(subject.label for subject in subjects)
