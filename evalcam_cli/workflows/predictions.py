"""Predictions to evaluate: saved ones, or those of a checkpoint, or of the rounds of a cross-validation, made now."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from evalcam_cli.config import RunConfig
from evalcam_cli.data.identity import Identity
from evalcam_cli.data.leakage import LEAK_COLUMNS, PIXELS, Leak
from evalcam_cli.data.near_duplicates import near_duplicate_paths
from evalcam_cli.data.samples import Sample
from evalcam_cli.data.split_file import read_split
from evalcam_cli.errors import DataError, UsageError
from evalcam_cli.evaluation.analyses import FoldPart
from evalcam_cli.evaluation.predictions import Predictions
from evalcam_cli.evaluation.saved import read_predictions, stored_positive
from evalcam_cli.files import refuse_inside
from evalcam_cli.progress import Progress
from evalcam_cli.text import counted, listed, shown
from evalcam_cli.workflows.ci import refuse_junit_place
from evalcam_cli.workflows.intake import unchanged_images, write_report
from evalcam_cli.workflows.subjects import Subjects, choose_subjects

log = logging.getLogger("evalcam")


@dataclass(frozen=True)
class EvaluateRequest:
    """What an evaluation was asked for, besides the config."""

    out: Path | None = None
    ckpt: Path | None = None
    arch: str | None = None
    classes_file: Path | None = None
    split_file: Path | None = None
    data: Path | None = None
    subset: str | None = None
    """Named on the command line; else the config's, or all of `--data`."""
    predictions: Path | None = None
    map_class: tuple[str, ...] = ()
    leaks: Path | None = None
    """`near_duplicates.csv` of an audit: metrics are shown without its images as well."""
    junit: Path | None = None
    overwrite: bool = False


@dataclass(frozen=True)
class Evaluated:
    """Predictions and where they come from."""

    predictions: Predictions
    """Of all folds together when there are folds."""
    subset: str
    meta: dict[str, Any]
    """For `metrics.json`: checkpoint, data, split. JSON values."""
    positive: str | None = None
    """The positive class that the checkpoint or the saved evaluation names."""
    leaked: tuple[str, ...] = ()
    """Paths of images that are known to be no independent test of this model."""
    folds: tuple[FoldPart, ...] = ()
    validation: Predictions | None = None
    """Of the validation images, when prediction sets are asked for."""
    split_file: Path | None = None
    data_root: Path | None = None


@dataclass(frozen=True)
class _Made:
    """Predictions of one checkpoint on one set."""

    predictions: Predictions
    meta: dict[str, Any]
    subjects: Subjects
    positive: str | None
    seen: tuple[str, ...]
    """Paths of images that the model was trained on."""


def obtain(
    config: RunConfig, request: EvaluateRequest, progress: Progress, refuse: Callable[[Sequence[str]], None]
) -> Evaluated:
    """The predictions that are to be evaluated.

    Args:
        config: Of the evaluation.
        request: What to evaluate.
        progress: Told `reading images` and `predicting`.
        refuse: Called with the classes as soon as they are known, to refuse what does not fit them.

    Raises:
        EvalcamError: As the exit codes say.
    """
    if request.predictions is not None:
        return _saved(config, request, request.predictions, refuse)
    # torch is loaded from here on, so that --predictions works without it
    from evalcam_cli.workflows.checkpoints import fold_runs  # noqa: PLC0415

    runs = fold_runs(request.ckpt) if request.ckpt is not None else []
    if runs:
        return _of_folds(config, request, runs, progress, refuse)
    made = _predict(config, request, progress, refuse)
    validation = None
    if config.evaluate.conformal is not None:
        validation = _predict(config, _on_validation(request), progress, refuse).predictions
    return Evaluated(
        made.predictions,
        made.subjects.subset,
        made.meta,
        made.positive,
        _leaked(made.predictions, made.seen, request.leaks),
        validation=validation,
        split_file=made.subjects.split_file,
        data_root=made.subjects.root,
    )


def _on_validation(request: EvaluateRequest) -> EvaluateRequest:
    if request.data is not None and request.split_file is None:
        raise UsageError("--conformal needs the validation images of a split; --data alone has none")
    return replace(request, subset="val", out=None)


def _saved(
    config: RunConfig, request: EvaluateRequest, path: Path, refuse: Callable[[Sequence[str]], None]
) -> Evaluated:
    if config.evaluate.conformal is not None:
        raise UsageError("--conformal needs a checkpoint with its validation images; --predictions have none")
    predictions = read_predictions(path)
    refuse(predictions.classes)
    names = set(predictions.subsets)
    return Evaluated(
        predictions,
        names.pop() if len(names) == 1 else "all",
        {"predictions": str(path.absolute())},
        stored_positive(path),
        _leaked(predictions, (), request.leaks),
    )


def _leaked(predictions: Predictions, seen: Sequence[str], report: Path | None) -> tuple[str, ...]:
    """Of these images, those that were trained on and those that an audit names."""
    listed_there = near_duplicate_paths(report) if report is not None else {}
    known = {*seen, *listed_there}
    found = tuple(path for path in predictions.paths if path in known)
    if report is not None and not set(listed_there) & set(found):
        log.warning("none of the images in %s is evaluated here", shown(report))
    return found


def _of_folds(
    config: RunConfig, request: EvaluateRequest, runs: Sequence[Path], progress: Progress,
    refuse: Callable[[Sequence[str]], None],
) -> Evaluated:  # fmt: skip
    subset = request.subset or config.evaluate.subset
    if request.data is not None or request.split_file is not None or subset != "test":
        raise UsageError(
            f"{shown(request.ckpt)} holds {len(runs)} rounds, and each is evaluated on its own test fold;\n"
            f"to look at other images name one round: --ckpt {shown(request.ckpt)}/{runs[0].name}"
        )
    if config.evaluate.conformal is not None:
        raise UsageError(f"--conformal takes one round, e.g. --ckpt {shown(request.ckpt)}/{runs[0].name}")
    made = [_predict(config, replace(request, ckpt=run), progress, refuse) for run in runs]
    folds = tuple(_fold_part(run, one.predictions) for run, one in zip(runs, made, strict=True))
    pooled = pool([_with_fold(fold) for fold in folds], repeats=[fold.repeat for fold in folds])
    seen = [path for one in made for path in one.seen]
    return Evaluated(
        pooled,
        subset,
        {"folds": [str(run.absolute()) for run in runs]},
        made[0].positive,
        _leaked(pooled, seen, request.leaks),
        folds,
        data_root=made[0].subjects.root,
    )


def _fold_part(run: Path, predictions: Predictions) -> FoldPart:
    split, _ = read_split(run / "split.csv")
    number = int(run.name.removeprefix("fold-"))
    return FoldPart(number, predictions, len(split.subset("train")), number // (split.folds or 1))


def _with_fold(part: FoldPart) -> Predictions:
    """The predictions with the number of their fold as a further column, unless there is one of that name."""
    predictions = part.predictions
    if "fold" in predictions.extra_columns:
        return predictions
    rows = predictions.extra or ((),) * len(predictions.targets)
    extra = tuple((*row, str(part.number)) for row in rows)
    return replace(predictions, extra_columns=(*predictions.extra_columns, "fold"), extra=extra)


def pool(parts: Sequence[Predictions], *, repeats: Sequence[int] | None = None) -> Predictions:
    """Out-of-fold predictions of several models as one set; every image stands in exactly one of each division.

    Each fold's own temperature is applied to its logits, which then have none; an operating point stays only when all
    folds share it. The predictions of one image by models of several divisions are no independent observations: where
    there are several, an image without a group becomes a group of its own, named by its path, so that every interval
    is clustered.

    Args:
        parts: Of the rounds.
        repeats: The division into folds that each round is of; by default one for all.

    Raises:
        DataError: The folds do not belong together.
    """
    first = parts[0]
    if any(part.classes != first.classes for part in parts):
        raise DataError("the folds' models have different classes; they cannot be put together")
    of = repeats or [0] * len(parts)
    paths = [path for part in parts for path in part.paths]
    placed = {(repeat, path) for repeat, part in zip(of, parts, strict=True) for path in part.paths}
    if len(placed) < len(paths):
        raise DataError(
            "an image stands in the test fold of several rounds; the rounds are not of one cross-validation"
        )
    groups = [name for part in parts for name in part.groups or ("",) * len(part.paths)]
    if len(set(of)) > 1:
        groups = [group or path for group, path in zip(groups, paths, strict=True)]
    scaled = [part.logits if part.temperature == 1 else part.logits / np.float32(part.temperature) for part in parts]
    return replace(
        first,
        logits=np.concatenate(scaled),
        targets=np.concatenate([part.targets for part in parts]),
        paths=tuple(paths),
        subsets=tuple(name for part in parts for name in part.subsets),
        groups=tuple(groups) if any(groups) else tuple(name for part in parts for name in part.groups),
        extra=tuple(row for part in parts for row in part.extra),
        temperature=1.0,
        operating_point=first.operating_point if len({part.operating_point for part in parts}) == 1 else None,
    )


def _predict(
    config: RunConfig, request: EvaluateRequest, progress: Progress, refuse: Callable[[Sequence[str]], None]
) -> _Made:
    from evalcam_cli.workflows.checkpoints import (  # noqa: PLC0415
        WeightsRequest,
        load_classifier,
        logits_of,
        rename_classes,
    )

    loaded = load_classifier(WeightsRequest(request.ckpt, request.arch, request.classes_file), config)
    subjects = choose_subjects(
        loaded.run, loaded.place, split_file=request.split_file, data=request.data, subset=request.subset,
        default=config.evaluate.subset,
    )  # fmt: skip
    if request.out is not None:
        refuse_inside(request.out, [subjects.root])
    refuse_junit_place(request.junit, [subjects.root])
    classifier = loaded.classifier
    checkpoint = classifier.checkpoint
    refuse(classifier.classes)
    labels = rename_classes([sample.label for sample in subjects.samples], request.map_class, classifier.classes)
    samples = [
        sample if sample.label == label else replace(sample, label=label)
        for sample, label in zip(subjects.samples, labels, strict=True)
    ]
    samples, seen = _checked(samples, subjects.root, checkpoint.training_pixels, config, request, progress)
    logits = logits_of(classifier, subjects.root, [sample.path for sample in samples], config, progress)
    index = {label: position for position, label in enumerate(classifier.classes)}
    predictions = Predictions(
        classifier.classes,
        logits,
        np.array([index[sample.label] for sample in samples], dtype=np.int64),
        tuple(sample.path for sample in samples),
        tuple(sample.set for sample in samples),
        tuple(sample.group for sample in samples),
        subjects.extra_columns,
        tuple(sample.extra for sample in samples),
        temperature=checkpoint.temperature or 1.0,
        operating_point=checkpoint.operating_point,
    )
    meta = {
        "checkpoint": loaded.place,
        "checkpoint_sha256": loaded.sha256,
        "epoch": checkpoint.epoch,
        "data": str(subjects.root.absolute()),
        "split": str(subjects.split_file.absolute()) if subjects.split_file else None,
        "split_fingerprint": subjects.split_fingerprint,
    }
    return _Made(predictions, meta, subjects, checkpoint.positive, seen)


def _checked(
    samples: list[Sample], root: Path, trained_on: frozenset[str], config: RunConfig, request: EvaluateRequest,
    progress: Progress,
) -> tuple[list[Sample], tuple[str, ...]]:  # fmt: skip
    """The samples that can be read and are unchanged since the split, and the paths of those learned from."""
    samples, identities = unchanged_images(root, samples, config, request.out, progress)
    return _unseen(samples, identities, trained_on, config, request.out)


def _unseen(
    samples: list[Sample], identities: dict[str, Identity], trained_on: frozenset[str], config: RunConfig,
    out: Path | None,
) -> tuple[list[Sample], tuple[str, ...]]:  # fmt: skip
    """The samples to evaluate, and the paths of those among them that the model was trained on."""
    seen = tuple(sample.path for sample in samples if identities[sample.path].pixels in trained_on)
    if not seen:
        return samples, ()
    what = (
        f"{len(seen):,} of {counted(len(samples), 'image')} to evaluate "
        "are pixel copies of images the model was trained on"
    )
    if config.split.leaks == "allow":
        log.warning("%s; their share of the result is memory, not skill", what)
        return samples, seen
    if config.split.leaks == "drop":
        log.warning("%s; they are left out", what)
        known = set(seen)
        rest = [sample for sample in samples if sample.path not in known]
        if not rest:
            raise DataError(f"{what}; none is left to evaluate")
        return rest, ()
    by_path = {sample.path: sample for sample in samples}
    leaks = [Leak(path, by_path[path].set, by_path[path].label, PIXELS, "", "train", "") for path in sorted(seen)]
    place = write_report(out, "leaks.csv", LEAK_COLUMNS, [leak.row() for leak in leaks])
    raise DataError(
        f"{what} ({listed(sorted(seen))});\n"
        + (f"all are listed in {place}\n" if place else "")
        + "use --drop-leaks to leave them out, or --allow-leaks to evaluate them all the same"
    )
