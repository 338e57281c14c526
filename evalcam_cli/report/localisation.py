"""Boxes, masks and the numbers of localisation as rows, as a COCO document and as a section to read."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evalcam_cli.documents import json_text
from evalcam_cli.explain.localisation_numbers import MEANINGS, Localisation
from evalcam_cli.report.markup import escaped, table
from evalcam_cli.report.tables import METRICS_HEADER, named_rows
from evalcam_cli.text import counted, json_escaped

Box = tuple[int, int, int, int]

BOXES_HEADER = ("path", "label", "x0", "y0", "x1", "y1")
LOCALISATION_HEADER = (
    *("method", "metric", "label", "estimate", "ci_low", "ci_high", "ci_method"),
    *("n", "undefined_reason", "ci_note"),
)


@dataclass(frozen=True)
class FoundObject:
    """A segment of the map of one class on one image."""

    path: str
    """Of the image, as reported."""
    label: str
    """The explained class."""
    box: Box
    """x0, y0, x1, y1 in pixels of the upright image, ends exclusive."""
    pixels: int
    """Of the segment."""
    score: float
    """How sure the model is of the class: its probability."""
    mask: NDArray[np.bool_] | None = None
    """(H, W) of the segment; a COCO annotation without one has no segmentation."""


def box_rows(found: Iterable[FoundObject]) -> list[tuple[object, ...]]:
    """Rows of `boxes.csv` with the columns of `BOXES_HEADER`, as `data.boxes.read_boxes` reads them; each once."""
    return list(dict.fromkeys((one.path, one.label, *one.box) for one in found))


def localisation_rows(
    method: str, whole: Localisation, by_label: Mapping[str, Localisation] | None = None
) -> list[tuple[object, ...]]:
    """Rows of a tidy table with the columns of `LOCALISATION_HEADER`; the label is empty for all classes together."""
    parts = {"": whole} | dict(by_label or {})
    return [
        (
            method,
            name,
            label,
            one.estimate,
            one.ci_low,
            one.ci_high,
            one.ci_method,
            one.n,
            one.undefined_reason,
            one.ci_note,
        )
        for label, part in parts.items()
        for name, one in part.numbers.items()
    ]


def localisation_document(methods: Mapping[str, Localisation]) -> dict[str, Any]:
    """The numbers of every method as JSON."""
    return {
        name: {
            "maps": one.maps,
            "units": one.units,
            "numbers": {metric: estimate.document() for metric, estimate in one.numbers.items()},
            "thresholds": dict(one.thresholds),
        }
        for name, one in methods.items()
    }


def coco_image(number: int, path: str, width: int, height: int) -> dict[str, Any]:
    """An entry of `images`, numbered from 1."""
    return {"id": number, "file_name": path, "width": width, "height": height}


def coco_annotation(number: int, image: int, category: int, found: FoundObject) -> dict[str, Any]:
    """An entry of `annotations`: bbox as x, y, width, height; area in pixels; the mask run-length encoded."""
    x0, y0, x1, y1 = found.box
    entry: dict[str, Any] = {
        "id": number, "image_id": image, "category_id": category, "bbox": [x0, y0, x1 - x0, y1 - y0],
        "area": found.pixels, "iscrowd": 0, "score": found.score,
    }  # fmt: skip
    return entry if found.mask is None else entry | {"segmentation": run_lengths(found.mask)}


def coco_pieces(
    classes: Sequence[str], images: Iterable[Mapping[str, object]], annotations: Iterable[Mapping[str, object]],
    description: str = "",
) -> Iterator[bytes]:  # fmt: skip
    """A COCO document (https://cocodataset.org/#format-data), piece by piece; category k + 1 is the class of output k.

    Images are taken first, then annotations.
    """
    categories = [{"id": index + 1, "name": label, "supercategory": ""} for index, label in enumerate(classes)]
    yield json_text({"info": {"description": description}, "categories": categories}).removesuffix("\n}\n").encode()
    for name, values in (("images", images), ("annotations", annotations)):
        yield f',\n "{name}": ['.encode()
        between = "\n  "
        for value in values:
            yield (between + json_escaped(json.dumps(value, ensure_ascii=False, allow_nan=False))).encode()
            between = ",\n  "
        yield b"\n ]"
    yield b"\n}\n"


def run_lengths(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """COCO's uncompressed RLE: lengths of the runs down the columns, left to right, the first one of pixels off."""
    column_wise = np.asarray(mask, dtype=bool).ravel(order="F")
    changes = np.flatnonzero(np.diff(column_wise, prepend=False, append=not column_wise[-1]))
    return {"size": list(mask.shape), "counts": np.diff(changes, prepend=0).tolist()}


def localisation_section(methods: Mapping[str, Localisation]) -> list[str]:
    """Lines of Markdown: a table per method, what its numbers are, and what to compare them with."""
    lines = ["## Localisation", ""]
    for name, one in methods.items():
        lines += [
            f"### {escaped(name)}",
            "",
            *_summary(one),
            "",
            *table(METRICS_HEADER, named_rows(one.numbers, tuple(MEANINGS))),
            "",
        ]
    shown = [name for name in MEANINGS if any(name in one.numbers for one in methods.values())]
    lines += [f"- `{name}`: {escaped(MEANINGS[name])}" for name in shown]
    notes = dict.fromkeys(
        estimate.ci_note for one in methods.values() for estimate in one.numbers.values() if estimate.ci_note
    )
    return [*lines, *([""] if notes else []), *(f"Note: {escaped(note)}." for note in notes)]


def _summary(one: Localisation) -> list[str]:
    told = f"{counted(one.maps, 'map')} of {counted(one.units, 'image')} whose objects are known."
    if one.maps:
        told += (
            " Best thresholds: " + ", ".join(f"{value:.3f} (`{name}`)" for name, value in one.thresholds.items()) + "."
        )
    return [told]
