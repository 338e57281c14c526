"""From a finished run and its own validation images to a temperature and an operating point in its checkpoint.

There is no way to name other images here, and none to choose anything in `evaluate`: what is chosen never sees a test
label.
"""

import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from evalcam_cli.config import RunConfig
from evalcam_cli.data.samples import Sample
from evalcam_cli.data.split_file import fingerprint, located, read_split
from evalcam_cli.errors import DataError, UsageError
from evalcam_cli.evaluation.choosing import Calibration, calibrate_on
from evalcam_cli.evaluation.operating_point import Rule, parse_rule
from evalcam_cli.evaluation.predictions import Predictions
from evalcam_cli.evaluation.temperature import MIN_IMAGES
from evalcam_cli.files import OutputFolder, output_folder
from evalcam_cli.models.checkpoint import Checkpoint, Stored, load_checkpoint, save_checkpoint
from evalcam_cli.models.device import choose_device, use_full_precision
from evalcam_cli.models.inference import to_classifier
from evalcam_cli.progress import Progress, silent
from evalcam_cli.text import counted, listed, shown
from evalcam_cli.workflows.checkpoints import BEST, checkpoint_file, fold_runs, logits_of
from evalcam_cli.workflows.intake import unchanged_images

log = logging.getLogger("evalcam")

CALIBRATION = "calibration.json"
_LAST = Path("checkpoints", "last.safetensors")


@dataclass(frozen=True)
class CalibrateRequest:
    """What a calibration was asked for, besides the config."""

    run: Path
    """A run folder, its best checkpoint, or the folder of all rounds of a cross-validation."""
    rule: str | None = None
    """How to choose the operating point; None: none."""
    temperature: bool = True
    data: Path | None = None
    """Another place of the run's images."""
    allow_few: bool = False


@dataclass(frozen=True)
class CalibratedRun:
    """One run's checkpoint after calibration."""

    folder: Path
    calibration: Calibration
    document: dict[str, Any]
    """As written to `calibration.json`."""

    @property
    def checkpoint(self) -> Path:
        return self.folder / BEST


def calibrate(config: RunConfig, request: CalibrateRequest, progress: Progress = silent) -> list[CalibratedRun]:
    """Choose on the validation images of a run, or of each round by itself, and store it in the checkpoints.

    What was stored before is replaced: the choice starts from the raw logits. The checkpoint's tensors stay as they
    are, and so does `last.safetensors`.

    Raises:
        EvalcamError: As the exit codes say; then no checkpoint of any round is changed.
    """
    rule = None if request.rule is None else parse_rule(request.rule)
    choose_device(config.device)
    rounds = fold_runs(request.run)
    runs = rounds or [run_folder(request.run)]
    with contextlib.ExitStack() as stack:
        if rounds:
            stack.enter_context(output_folder(request.run, resume=True))
        folders = [stack.enter_context(output_folder(run, resume=True)) for run in runs]
        chosen = [_chosen(config, request, run, rule, progress) for run in runs]
        return [
            CalibratedRun(folder.path, one.calibration, store(folder, one.stored, one.calibration, one.images))
            for folder, one in zip(folders, chosen, strict=True)
        ]


def run_folder(path: Path) -> Path:
    """The run folder that a path names by itself, by the folder of `evalcam run` around it, or by its best checkpoint.

    Raises:
        UsageError: It is none of these, or the run's split is not there.
    """
    place = shown(path.absolute())
    if not path.exists():
        raise UsageError(f"there is no run folder {place}; name one that `evalcam train` made")
    best = checkpoint_file(path)
    run = best.parent.parent
    if best != run / BEST:
        raise UsageError(f"{place} is not the {BEST.as_posix()} of a run folder; only that is calibrated: name the run")
    if not (run / "split.csv").is_file():
        raise UsageError(
            f"{shown(run.absolute())} has no split.csv, so its validation images are not known;\n"
            "calibrate the run folder that `evalcam train` made"
        )
    return run


def store(folder: OutputFolder, stored: Stored, calibration: Calibration, images: str) -> dict[str, Any]:
    """Write the best checkpoint of a run again with what was chosen, its tensors untouched, and `calibration.json`.

    Args:
        folder: The run folder.
        stored: Its best checkpoint.
        calibration: What was chosen.
        images: SHA-256 of the table of the validation images.

    Returns:
        The content of `calibration.json`.
    """
    point = calibration.operating_point
    checkpoint = replace(stored.checkpoint, temperature=calibration.temperature, operating_point=point)
    if point is not None and len(checkpoint.classes) == 2:
        checkpoint = replace(checkpoint, positive=point.positive)
    document = {
        "schema_version": 1,
        "checkpoint": BEST.as_posix(),
        "tensors_sha256": stored.tensors_sha256,
        "epoch": checkpoint.epoch,
        "validation_images_sha256": images,
        **calibration.document(),
    }
    folder.remove(CALIBRATION)  # a crash in between leaves none, rather than one that is wrong
    save_checkpoint(folder.path / BEST, checkpoint, stored.weights, stored.training_tensors, stored.training_document)
    folder.write_json(CALIBRATION, document)
    return document


def fit_after_training(folder: OutputFolder, best: Stored, predictions: Predictions, samples: Sequence[Sample]) -> None:
    """Give the best checkpoint of a training that just ended a temperature, or say why it gets none.

    Args:
        folder: The run folder.
        best: Its best checkpoint.
        predictions: Of the best weights for the validation images.
        samples: The validation images.
    """
    if best.checkpoint.operating_point is not None:
        return  # calibrated on purpose before
    if len(samples) < MIN_IMAGES:
        log.info("no temperature: it needs %d validation images, there are %d", MIN_IMAGES, len(samples))
        return
    try:
        calibration = calibrate_on(predictions)
    except DataError as error:  # all images are of one class
        log.warning("no temperature: %s", error)
        return
    _warn(calibration)
    store(folder, best, calibration, fingerprint(samples))
    if calibration.temperature is not None:
        log.info(
            "temperature %.3f: validation log loss %.3f -> %.3f, ECE %.3f -> %.3f", calibration.temperature,
            calibration.before.log_loss, calibration.after.log_loss, calibration.before.ece, calibration.after.ece,
        )  # fmt: skip


def _warn(calibration: Calibration) -> None:
    for caution in calibration.warnings:
        log.warning("%s: %s", caution.code, caution.message)


@dataclass(frozen=True)
class _Chosen:
    stored: Stored
    calibration: Calibration
    images: str


def _chosen(config: RunConfig, request: CalibrateRequest, run: Path, rule: Rule | None, progress: Progress) -> _Chosen:
    if (run / _LAST).exists() and not (run / "diagnosis.json").exists():
        raise DataError(f"the training in {shown(run.absolute())} is not finished; finish it with `train --resume`")
    stored = load_checkpoint(run / BEST)
    root, samples = _validation_images(run, stored.checkpoint, request.data)
    samples = _checked(root, samples, stored.checkpoint, config, progress)
    use_full_precision()
    classifier = to_classifier(stored, choose_device(config.device), place=shown((run / BEST).absolute()))
    logits = logits_of(classifier, root, [sample.path for sample in samples], config, progress)
    classes = stored.checkpoint.classes
    targets = np.array([classes.index(sample.label) for sample in samples], dtype=np.int64)
    calibration = calibrate_on(
        Predictions(classes, logits, targets, tuple(sample.path for sample in samples)),
        temperature=request.temperature,
        rule=rule,
        positive=config.evaluate.positive or stored.checkpoint.positive,
        allow_few=request.allow_few,
    )
    _warn(calibration)
    return _Chosen(stored, calibration, fingerprint(samples))


def _validation_images(run: Path, checkpoint: Checkpoint, data: Path | None) -> tuple[Path, list[Sample]]:
    """The data root and the validation images of the split that the run was trained with, and of no other."""
    place = shown((run / "split.csv").absolute())
    split, _ = read_split(run / "split.csv", root=data)
    if fingerprint(split.samples) != checkpoint.split_fingerprint:
        raise DataError(
            f"{place} is not the split that the run was trained with; restore it:\n"
            "a calibration on images that were chosen afterwards could not be believed"
        )
    wanted = split.subset("val")
    if not wanted:
        raise DataError(f"{place} has no validation images to calibrate on; train with some (split.ratios)")
    found, missing = located(replace(split, samples=wanted))
    if missing:
        raise DataError(
            f"{len(missing):,} of {counted(len(wanted), 'validation image')} are not under "
            f"{shown(split.root.absolute())} ({listed(missing)});\nname the data folder here with --data"
        )
    return split.root, found


def _checked(
    root: Path, samples: Sequence[Sample], checkpoint: Checkpoint, config: RunConfig, progress: Progress
) -> list[Sample]:
    """The images that can be read, unchanged since the split, without copies of training images."""
    there, identities = unchanged_images(root, samples, config, None, progress, noun="validation image")
    learned = [s.path for s in there if identities[s.path].pixels in checkpoint.training_pixels]
    if learned:
        log.warning(
            "%s are pixel copies of training images and are left out: %s",
            counted(len(learned), "validation image"),
            listed(learned),
        )
    kept = [sample for sample in there if sample.path not in set(learned)]
    if not kept:
        raise DataError("all validation images are pixel copies of training images; none is left to calibrate on")
    return kept
