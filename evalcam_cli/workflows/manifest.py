"""`manifest.json`: what every raw map of a run is, so that it can be used elsewhere and proved to be the same."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from evalcam_cli.data.preprocessing import Preprocessing
from evalcam_cli.documents import json_text, read_json
from evalcam_cli.errors import DataError
from evalcam_cli.explain.methods import METHODS
from evalcam_cli.files import OutputFolder
from evalcam_cli.text import shown
from evalcam_cli.workflows.explanations import Entry
from evalcam_cli.workflows.map_files import Floats, Writing, read_map

MANIFEST = "manifest.json"


def write_manifest(folder: OutputFolder, settings: dict[str, Any], writing: Writing, entries: Iterable[Entry]) -> None:
    """Write `manifest.json`, map by map.

    Args:
        folder: Of the run.
        settings: Model, layer, preprocessing and choices of the run, as in `gradcam.json`.
        writing: How its maps are named.
        entries: Its images.
    """
    run = {"schema_version": 1, **settings, "classes": list(writing.names)}
    with folder.stream(MANIFEST) as stream:
        stream.write(json_text(run).removesuffix("\n}\n").encode())
        stream.write(b',\n "maps": [')
        between = b"\n"
        for record in _records(entries, writing.preprocessing, writing):
            stream.write(between + b"  " + json.dumps(record, allow_nan=False).encode())
            between = b",\n"
        stream.write(b"\n ]\n}\n")


def _records(entries: Iterable[Entry], preprocessing: Preprocessing, writing: Writing) -> Iterator[dict[str, Any]]:
    for entry in entries:
        place = preprocessing.geometry(*entry.size)
        transform = {"scale_x": place.scale_x, "scale_y": place.scale_y, "left": place.left, "top": place.top}
        for row, facts in zip(entry.rows, entry.extra["maps"], strict=True):
            yield {
                "map": row.map, **facts, "image": row.path, "image_sha256": entry.sha256, "image_size": entry.size,
                "method": row.method, "title": METHODS[row.method].title, "layer": row.layer, "class": row.class_name,
                "class_index": row.class_index, "logit": row.logit, "unit": writing.scale(row.method).unit,
                "min": row.map_min, "max": row.map_max, "to_input": transform,
            }  # fmt: skip


def map_facts(array: Floats) -> dict[str, Any]:
    """Digest over the values (little-endian float32) and shape of a map."""
    digest = hashlib.sha256(np.ascontiguousarray(array, dtype="<f4").tobytes()).hexdigest()
    return {"sha256": digest, "shape": list(array.shape)}


def read_manifest(folder: Path) -> Iterator[tuple[dict[str, Any], Floats]]:
    """Each map of an output folder with its record, proved to be as it was written.

    Raises:
        UsageError: There is no manifest.
        DataError: A map is missing or was changed.
    """
    for record in read_json(folder / MANIFEST)["maps"]:
        try:
            array = read_map(folder, record["map"])
        except (OSError, ValueError, KeyError) as error:
            raise DataError(f"{shown((folder / record['map']).absolute())}: cannot read the map") from error
        if map_facts(array) != {"sha256": record["sha256"], "shape": record["shape"]}:
            raise DataError(f"{shown((folder / record['map']).absolute())} is not the map that evalcam wrote")
        yield record, array
