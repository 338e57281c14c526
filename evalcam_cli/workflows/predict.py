"""Probabilities for images without labels."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evalcam_cli.config import RunConfig
from evalcam_cli.data.identity import identify
from evalcam_cli.distributed import joined, on_first
from evalcam_cli.documents import write_csv
from evalcam_cli.errors import UsageError
from evalcam_cli.evaluation.predictions import Predictions, row_blocks
from evalcam_cli.files import refuse_inside
from evalcam_cli.progress import Progress, silent
from evalcam_cli.text import shown
from evalcam_cli.workflows.checkpoints import WeightsRequest, load_classifier, logits_of
from evalcam_cli.workflows.intake import place_for, settle_unreadable, tell_remarks
from evalcam_cli.workflows.subjects import named_images

_START = b"path,predicted,confidence,"


@dataclass(frozen=True)
class PredictResult:
    """What was said of the images, in the order of the paths."""

    predictions: Predictions
    """Their targets are unknown, and not asked for."""
    out: Path

    def __len__(self) -> int:
        return len(self.predictions.paths)

    def rows(self) -> Iterator[tuple[str | float, ...]]:
        """`path, predicted, confidence, p:<class>…`, made as they are asked for."""
        said = self.predictions
        for start, stop in row_blocks(*said.logits.shape):
            called = (said.paths[start:stop], said.predicted[start:stop].tolist(), said.rows(start, stop))
            for path, index, row in zip(*called, strict=True):
                yield (path, said.classes[index], float(row[index]), *map(float, row))

    def header(self) -> tuple[str, ...]:
        return ("path", "predicted", "confidence", *(f"p:{name}" for name in self.predictions.classes))


def predict(
    config: RunConfig, weights: WeightsRequest, arguments: Sequence[Path], out: Path, *,
    overwrite: bool = False, progress: Progress = silent,
) -> PredictResult:  # fmt: skip
    """Classify the images and write a CSV; several processes share the images, and the first one writes.

    Raises:
        EvalcamError: As the exit codes say; then nothing is written.
    """
    with joined():
        return on_first(lambda: _predict(config, weights, arguments, out, overwrite=overwrite, progress=progress))


def _predict(
    config: RunConfig, weights: WeightsRequest, arguments: Sequence[Path], out: Path, *, overwrite: bool,
    progress: Progress,
) -> PredictResult:  # fmt: skip
    refuse_inside(out, [path for path in arguments if path.is_dir()])
    _refuse_taken(out, overwrite=overwrite)
    place_for(out)
    found = named_images(arguments)
    classifier = load_classifier(weights, config).classifier
    files = _readable({str(image.path): str(image.file) for image in found}, config, out, progress)
    logits = logits_of(classifier, Path(), list(files.values()), config, progress)
    predictions = Predictions(
        classifier.classes,
        logits,
        np.zeros(len(files), dtype=np.int64),
        tuple(files),
        temperature=classifier.checkpoint.temperature or 1.0,
        operating_point=classifier.checkpoint.operating_point,
    )
    result = PredictResult(predictions, out)
    write_csv(out, result.header(), result.rows())
    return result


def _readable(files: dict[str, str], config: RunConfig, out: Path, progress: Progress) -> dict[str, str]:
    """The images, as typed, that can be read, each with its file."""
    places = list(files.values())
    identities, unreadable = identify(Path(), places, max_pixels=config.data.max_pixels, progress=progress)
    settle_unreadable(unreadable, len(files), config, out)
    tell_remarks({path: identities[file] for path, file in files.items() if file in identities})
    return {path: file for path, file in files.items() if file not in unreadable}


def _refuse_taken(out: Path, *, overwrite: bool) -> None:
    """Refuse a path that is taken; with `overwrite` only what evalcam wrote may be replaced."""
    place = shown(out.absolute())
    if out.is_dir():
        raise UsageError(f"--out {place} is a folder; name a file such as predictions.csv")
    if not os.path.lexists(out):
        return
    if not overwrite:
        raise UsageError(f"{place} is there already; use --overwrite or another --out")
    if not out.is_file() or _start(out) != _START:
        raise UsageError(f"{place} is there and evalcam did not write it; move it away")


def _start(out: Path) -> bytes:
    with out.open("rb") as stream:
        return stream.read(len(_START))
