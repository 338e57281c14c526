"""Probabilities for images without labels."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from evalcam_cli.config import RunConfig
from evalcam_cli.data.identity import identify
from evalcam_cli.distributed import joined, on_first
from evalcam_cli.errors import UsageError
from evalcam_cli.evaluation.predictions import Predictions
from evalcam_cli.files import refuse_inside, write_csv
from evalcam_cli.progress import Progress, silent
from evalcam_cli.text import shown
from evalcam_cli.workflows.checkpoints import WeightsRequest, load_classifier, logits_of
from evalcam_cli.workflows.intake import place_for, settle_unreadable, tell_remarks
from evalcam_cli.workflows.subjects import named_images

_START = b"path,predicted,confidence,"


@dataclass(frozen=True)
class PredictResult:
    """Probabilities in the order of the paths."""

    paths: tuple[str, ...]
    classes: tuple[str, ...]
    probabilities: NDArray[np.float64]
    """(N, K), after the checkpoint's temperature."""
    predicted: NDArray[np.int64]
    """(N,) index of the predicted class: by the operating point with two classes, else the most probable."""
    out: Path

    def rows(self) -> list[tuple[str | float, ...]]:
        """`path, predicted, confidence, p:<class>…`."""
        return [
            (path, self.classes[index], float(row[index]), *map(float, row))
            for path, index, row in zip(self.paths, self.predicted, self.probabilities, strict=True)
        ]

    def header(self) -> tuple[str, ...]:
        return ("path", "predicted", "confidence", *(f"p:{name}" for name in self.classes))


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
    found = {str(image.path): image for image in named_images(arguments)}
    loaded = load_classifier(weights, config)
    files = {path: str(image.file) for path, image in found.items()}
    identities, unreadable = identify(
        Path(), list(files.values()), max_pixels=config.data.max_pixels, progress=progress
    )
    settle_unreadable(unreadable, len(found), config, out)
    tell_remarks({path: identities[files[path]] for path in found if files[path] in identities})
    paths = [path for path in found if files[path] not in unreadable]
    classifier = loaded.classifier
    logits = logits_of(classifier, Path(), [files[path] for path in paths], config, progress)
    predictions = Predictions(
        classifier.classes,
        logits,
        np.zeros(len(paths), dtype=np.int64),  # unknown, and not asked for
        tuple(paths),
        temperature=classifier.checkpoint.temperature or 1.0,
        operating_point=classifier.checkpoint.operating_point,
    )
    result = PredictResult(predictions.paths, classifier.classes, predictions.probabilities, predictions.predicted, out)
    write_csv(out, result.header(), result.rows())
    return result


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
