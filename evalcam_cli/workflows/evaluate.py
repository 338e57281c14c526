"""From a classifier, or saved predictions, and images to numbers that can be defended."""

import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from evalcam_cli.config import RunConfig
from evalcam_cli.data.identity import Identity, identify
from evalcam_cli.data.samples import Sample
from evalcam_cli.errors import DataError, GateError, UsageError
from evalcam_cli.evaluation.gates import Gate, GateResult, check_gates, parse_gate, refuse_unknown
from evalcam_cli.evaluation.metrics import Metrics, compute_metrics
from evalcam_cli.evaluation.predictions import Predictions
from evalcam_cli.evaluation.saved import read_predictions, stored_positive
from evalcam_cli.files import OutputFolder, output_folder, refuse_inside
from evalcam_cli.progress import Progress, silent
from evalcam_cli.report.evaluation import metrics_document, write_evaluation
from evalcam_cli.text import counted, listed, shown
from evalcam_cli.workflows.intake import settle_unreadable
from evalcam_cli.workflows.subjects import choose_subjects

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
    overwrite: bool = False


@dataclass(frozen=True)
class Evaluation:
    """Metrics of one set of predictions, and where they were written."""

    metrics: Metrics
    predictions: Predictions
    subset: str
    gates: tuple[GateResult, ...]
    document: dict[str, Any]
    """As written to `metrics.json`."""
    folds: tuple[tuple[int, Metrics], ...] = ()
    """Metrics per fold, when several models were evaluated."""

    def require_gates(self) -> None:
        """Refuse when a gate was missed.

        Raises:
            GateError: Naming every gate that was missed.
        """
        missed = [result.line for result in self.gates if not result.passed]
        if missed:
            raise GateError("\n".join(missed[:7]))


def evaluate(config: RunConfig, request: EvaluateRequest, progress: Progress = silent) -> Evaluation:
    """Evaluate a classifier on one set of images and write everything about it to `request.out`.

    Gates are checked by the caller (`Evaluation.require_gates`), after the numbers have been shown.

    Raises:
        EvalcamError: As the exit codes say; then nothing is written.
    """
    gates = parse_gates(config)
    if request.ckpt is None and request.predictions is None:
        raise UsageError("nothing to evaluate: name --ckpt FILE or RUN, or --predictions FILE")
    inputs = [request.data] if request.data is not None and request.data.is_dir() else []
    with contextlib.ExitStack() as stack:
        folder = None
        if request.out is not None:  # first: a place that is taken is found out before the work is done
            folder = stack.enter_context(output_folder(request.out, overwrite=request.overwrite, inputs=inputs))
        if request.predictions is not None:
            parts, meta, subset = _saved(request.predictions, gates)
        else:
            parts, meta, subset = _predicted(config, request, gates, progress)
        return _report(config, folder, parts, gates, meta, subset)


_Parts = list[tuple[int | None, Predictions]]


def _saved(path: Path, gates: list[Gate]) -> tuple[_Parts, dict[str, Any], str]:
    predictions = read_predictions(path)
    refuse_unknown(gates, predictions.classes)
    meta = {"predictions": str(path.absolute()), "positive": stored_positive(path)}
    names = set(predictions.subsets)
    return [(None, predictions)], meta, names.pop() if len(names) == 1 else "all"


def _predicted(
    config: RunConfig, request: EvaluateRequest, gates: list[Gate], progress: Progress
) -> tuple[_Parts, dict[str, Any], str]:
    """Predictions of one checkpoint, or of every round of a cross-validation on its own test fold."""
    # torch is loaded here, so that --predictions works without it
    from evalcam_cli.workflows.checkpoints import fold_runs  # noqa: PLC0415

    runs = fold_runs(request.ckpt) if request.ckpt is not None else []
    if not runs:
        predictions, meta, subset = _predict(config, request, gates, progress)
        return [(None, predictions)], meta, subset
    subset = request.subset or config.evaluate.subset
    if request.data is not None or request.split_file is not None or subset != "test":
        raise UsageError(
            f"{shown(request.ckpt)} holds {len(runs)} rounds, and each is evaluated on its own test fold;\n"
            f"to look at other images name one round: --ckpt {shown(request.ckpt)}/{runs[0].name}"
        )
    parts: _Parts = []
    for run in runs:
        predictions, meta, subset = _predict(config, replace(request, ckpt=run), gates, progress)
        parts.append((int(run.name.removeprefix("fold-")), predictions))
    return parts, {"folds": [str(run.absolute()) for run in runs], "positive": meta["positive"]}, subset


def parse_gates(config: RunConfig) -> list[Gate]:
    """The gates of the config.

    Raises:
        UsageError: One cannot be read.
    """
    under = [parse_gate(text, "under") for text in config.evaluate.fail_under]
    return under + [parse_gate(text, "over") for text in config.evaluate.fail_over]


def _predict(
    config: RunConfig, request: EvaluateRequest, gates: list[Gate], progress: Progress
) -> tuple[Predictions, dict[str, Any], str]:
    from evalcam_cli.models.device import worker_count  # noqa: PLC0415
    from evalcam_cli.models.inference import compute_logits, image_dataset  # noqa: PLC0415
    from evalcam_cli.workflows.checkpoints import WeightsRequest, load_classifier, rename_classes  # noqa: PLC0415

    loaded = load_classifier(WeightsRequest(request.ckpt, request.arch, request.classes_file), config)
    subjects = choose_subjects(
        loaded.run, loaded.place, split_file=request.split_file, data=request.data, subset=request.subset,
        default=config.evaluate.subset,
    )  # fmt: skip
    if request.out is not None:
        refuse_inside(request.out, [subjects.root])
    classifier = loaded.classifier
    refuse_unknown(gates, classifier.classes)
    labels = rename_classes([sample.label for sample in subjects.samples], request.map_class, classifier.classes)
    samples = [replace(sample, label=label) for sample, label in zip(subjects.samples, labels, strict=True)]
    samples = _checked(samples, subjects.root, classifier.checkpoint.training_pixels, config, request, progress)
    logits = compute_logits(
        classifier.model,
        image_dataset(classifier, subjects.root, [sample.path for sample in samples], config.data.max_pixels),
        device=classifier.device,
        batch_size=config.evaluate.batch_size,
        workers=worker_count(config.data.workers),
        progress=progress,
    )
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
    )
    meta = {
        "checkpoint": loaded.place,
        "checkpoint_sha256": loaded.sha256,
        "epoch": classifier.checkpoint.epoch,
        "data": str(subjects.root.absolute()),
        "positive": classifier.checkpoint.positive,
    }
    return predictions, meta, subjects.subset


def _checked(
    samples: list[Sample], root: Path, trained_on: frozenset[str], config: RunConfig, request: EvaluateRequest,
    progress: Progress,
) -> list[Sample]:  # fmt: skip
    """The samples that can be read, unchanged since the split, and not learned from."""
    identities, unreadable = identify(
        root, [sample.path for sample in samples], max_pixels=config.data.max_pixels, progress=progress
    )
    if unreadable:
        settle_unreadable(unreadable, len(samples), config, request.out)
        samples = [sample for sample in samples if sample.path not in unreadable]
    changed = [s.path for s in samples if s.sha256 and s.sha256 != identities[s.path].sha256]
    if changed:
        raise DataError(
            f"{counted(len(changed), 'image')} changed since the split was made ({listed(changed)});\n"
            "restore the images, or make a new split"
        )
    return _unseen(samples, identities, trained_on, config)


def _unseen(
    samples: list[Sample], identities: dict[str, Identity], trained_on: frozenset[str], config: RunConfig
) -> list[Sample]:
    seen = {sample.path for sample in samples if identities[sample.path].pixels in trained_on}
    if not seen:
        return samples
    what = (
        f"{len(seen):,} of {counted(len(samples), 'image')} to evaluate "
        "are pixel copies of images the model was trained on"
    )
    if config.split.leaks == "allow":
        log.warning("%s; their share of the result is memory, not skill", what)
        return samples
    if config.split.leaks == "drop":
        log.warning("%s; they are left out", what)
        rest = [sample for sample in samples if sample.path not in seen]
        if not rest:
            raise DataError(f"{what}; none is left to evaluate")
        return rest
    raise DataError(
        f"{what} ({listed(sorted(seen))});\n"
        "use --drop-leaks to leave them out, or --allow-leaks to evaluate them all the same"
    )


def _report(
    config: RunConfig, folder: OutputFolder | None, parts: _Parts, gates: list[Gate], meta: dict[str, Any], subset: str
) -> Evaluation:
    stored = meta.pop("positive", None)
    positive = config.evaluate.positive or stored
    pooled = parts[0][1] if len(parts) == 1 else _pooled([predictions for _, predictions in parts])
    metrics = compute_metrics(pooled, positive=positive, bootstrap=config.evaluate.bootstrap, seed=config.seed)
    results = check_gates(gates, metrics)
    folds = tuple((fold, compute_metrics(part, positive=positive)) for fold, part in parts if fold is not None)
    document = metrics_document(metrics, meta=meta, subset=subset, gates=results)
    if folder is not None:
        write_evaluation(folder, pooled, metrics, meta=meta, subset=subset, fold=None, gates=results)
        if folds:
            folder.write_csv("folds.csv", ("fold", "metric", "estimate"), _fold_rows(folds))
    return Evaluation(metrics, pooled, subset, results, document, folds)


def _pooled(parts: Sequence[Predictions]) -> Predictions:
    """Out-of-fold predictions of several models as one set; every image stands in exactly one."""
    first = parts[0]
    if any(part.classes != first.classes for part in parts):
        raise DataError("the folds' models have different classes; they cannot be put together")
    paths = [path for part in parts for path in part.paths]
    if len(set(paths)) < len(paths):
        raise DataError(
            "an image stands in the test fold of several rounds; the rounds are not of one cross-validation"
        )
    return replace(
        first,
        logits=np.concatenate([part.logits for part in parts]),
        targets=np.concatenate([part.targets for part in parts]),
        paths=tuple(paths),
        subsets=tuple(name for part in parts for name in part.subsets),
        groups=tuple(name for part in parts for name in part.groups),
        extra=tuple(row for part in parts for row in part.extra),
    )


def _fold_rows(folds: Sequence[tuple[int, Metrics]]) -> list[tuple[str, str, float | None]]:
    """One row per fold and metric, then mean and standard deviation over the folds where it is defined."""
    table: list[tuple[str, str, float | None]] = []
    for name in folds[0][1].overall:
        values = [(fold, metrics.overall[name].estimate) for fold, metrics in folds]
        defined = [value for _, value in values if value is not None]
        table += [(str(fold), name, value) for fold, value in values]
        table.append(("mean", name, float(np.mean(defined)) if defined else None))
        table.append(("sd", name, float(np.std(defined, ddof=1)) if len(defined) > 1 else None))
    return table
