"""An evaluation as files: numbers as JSON and CSV, pictures as PNG, and a page to read."""

import io
from collections.abc import Iterator
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from evalcam_cli.evaluation.analyses import BEFORE
from evalcam_cli.evaluation.curves import kept_points
from evalcam_cli.evaluation.estimates import Estimate
from evalcam_cli.evaluation.metrics import CLASS_METRICS, MACROS, Metrics
from evalcam_cli.evaluation.predictions import Predictions, row_blocks
from evalcam_cli.evaluation.ranking import roc_curve
from evalcam_cli.evaluation.saved import LOGITS_NAME, METRICS_NAME, OWN_COLUMNS, PREDICTIONS_NAME, SCHEMA_VERSION
from evalcam_cli.files import OutputFolder
from evalcam_cli.report.analyses import analyses_document, write_analyses
from evalcam_cli.report.contents import Report
from evalcam_cli.report.latex import latex_text
from evalcam_cli.report.markdown import report_text
from evalcam_cli.report.pictures import write_pictures

_COUNTS = ("support", "tp", "fp", "fn", "tn")
_TIDY_HEADER = (
    *("metric", "class", "average", "subset", "fold", "estimate", "ci_low", "ci_high", "ci_method", "n"),
    "undefined_reason",
)


def write_evaluation(folder: OutputFolder, report: Report) -> list[Path]:
    """Write everything that one evaluation is; the same input gives the same bytes.

    Returns:
        The files, in the order written; `metrics.json` is last, so whoever finds it finds the others.
    """
    predictions, metrics = report.predictions, report.metrics
    return [
        folder.write_csv(PREDICTIONS_NAME, _prediction_header(predictions), _prediction_rows(report)),
        folder.write(LOGITS_NAME, *_npy_parts(predictions)),
        folder.write_csv("metrics.csv", _TIDY_HEADER, tidy_rows(report)),
        folder.write_csv("per_class.csv", _class_header(), _class_rows(metrics)),
        folder.write_csv("confusion_matrix.csv", *_confusion_table(metrics)),
        folder.write_csv("roc.csv", ("class", "fpr", "tpr", "threshold"), _roc_rows(predictions)),
        *write_pictures(folder, report),
        *write_analyses(folder, predictions, report.analyses),
        folder.write("report.md", report_text(report).encode("utf-8", "surrogateescape")),
        folder.write("report.tex", latex_text(metrics).encode("utf-8", "surrogateescape")),
        folder.write("reproduce.py", resources.files("evalcam_cli.report").joinpath("reproduce.py").read_bytes()),
        folder.write_json(METRICS_NAME, metrics_document(report)),
    ]


def metrics_document(report: Report) -> dict[str, object]:
    """The content of `metrics.json` and of `--json`: JSON values only, full precision, None where undefined."""
    metrics = report.metrics
    return {
        "schema_version": SCHEMA_VERSION,
        "n": metrics.n,
        "classes": list(metrics.classes),
        "positive": metrics.positive,
        "subset": report.subset,
        "metrics": {name: estimate.document() for name, estimate in metrics.overall.items()},
        "per_class": {
            label: {name: getattr(entry, name) for name in _COUNTS}
            | {name: estimate.document() for name, estimate in entry.estimates.items()}
            for label, entry in metrics.per_class.items()
        },
        "tests": {
            name: {"p_value": test.p_value, "hypothesis": test.hypothesis, "undefined_reason": test.undefined_reason}
            for name, test in metrics.tests.items()
        },
        "calibration": _calibration_document(report),
        **analyses_document(report.analyses),
        "warnings": [{"code": caution.code, "message": caution.message} for caution in metrics.warnings],
        "gates": [
            {
                "gate": result.gate.text,
                "demand": result.gate.demand,
                "passed": result.passed,
                "value": result.value,
                "undefined_reason": result.reason,
                "note": result.note,
            }
            for result in report.gates
        ],
        "scores": metrics.scores,
        "bootstrap": metrics.bootstrap,
        "groups": metrics.groups,
        "seed": metrics.seed,
        "looks": report.looks or None,
        "meta": dict(report.meta),
    }


def _calibration_document(report: Report) -> dict[str, object]:
    """What was fitted on validation images and applied here, with the numbers as they would be without it."""
    predictions, before = report.predictions, report.analyses.uncalibrated
    point = predictions.operating_point
    return {
        "temperature": None if predictions.temperature == 1 else predictions.temperature,
        "operating_point": None if point is None else asdict(point),
        "before": None
        if before is None
        else {name: before.overall[name].estimate for name in BEFORE if name in before.overall},
    }


def tidy_rows(report: Report) -> Iterator[tuple[object, ...]]:
    """One number per row, of all images and, in a cross-validation, of each fold."""
    metrics, subset = report.metrics, report.subset
    rows = int(metrics.confusion.sum())
    for name, estimate in metrics.overall.items():
        yield (name, None, _average(name), subset, None, *_cells(estimate), estimate.n, estimate.undefined_reason)
    for label, entry in metrics.per_class.items():
        for name in _COUNTS:
            yield (name, label, None, subset, None, getattr(entry, name), None, None, None, rows, None)
        for name, estimate in entry.estimates.items():
            yield (name, label, None, subset, None, *_cells(estimate), estimate.n, estimate.undefined_reason)
    if report.analyses.folds is not None:
        for number, metric, of, value, _, tested, reason in report.analyses.folds.fold_rows():
            yield (metric, of, _average(str(metric)), subset, number, value, None, None, None, tested, reason)


def _average(name: str) -> str | None:
    """How a metric over all classes is averaged; None for one that is not."""
    if name in MACROS:
        return "macro"
    ending = name.rpartition("_")[2]
    return ending if ending in ("macro", "weighted", "micro") else None


def _cells(estimate: Estimate) -> tuple[object, ...]:
    return (estimate.estimate, estimate.ci_low, estimate.ci_high, estimate.ci_method)


def _class_header() -> list[str]:
    return ["class", *_COUNTS, *(f"{name}{end}" for name in CLASS_METRICS for end in ("", "_ci_low", "_ci_high"))]


def _class_rows(metrics: Metrics) -> Iterator[list[object]]:
    for label, entry in metrics.per_class.items():
        limits = [cell for found in entry.estimates.values() for cell in (found.estimate, found.ci_low, found.ci_high)]
        yield [label, *(getattr(entry, name) for name in _COUNTS), *limits]


def _confusion_table(metrics: Metrics) -> tuple[list[str], list[list[object]]]:
    """Rows are the truth, columns the predictions; the corner says so."""
    counts = metrics.confusion.tolist()
    return ["true\\predicted", *metrics.classes], [
        [label, *row] for label, row in zip(metrics.classes, counts, strict=True)
    ]


def _prediction_header(predictions: Predictions) -> list[str]:
    return [*OWN_COLUMNS, *predictions.extra_columns]


def _prediction_rows(report: Report) -> Iterator[list[object]]:
    predictions, subset = report.predictions, report.subset
    n = len(predictions.targets)
    confidence = np.concatenate(
        [
            predictions.rows(start, stop)[np.arange(stop - start), predictions.predicted[start:stop]]
            for start, stop in row_blocks(*predictions.logits.shape)
        ]
    ).tolist()
    targets, predicted = predictions.targets.tolist(), predictions.predicted.tolist()
    for index in range(n):
        yield [
            predictions.paths[index],
            predictions.subsets[index] if predictions.subsets else subset,
            predictions.groups[index] if predictions.groups else None,
            predictions.classes[targets[index]],
            predictions.classes[predicted[index]],
            int(targets[index] == predicted[index]),
            confidence[index],
            *(predictions.extra[index] if predictions.extra else ()),
        ]


def _npy_parts(predictions: Predictions) -> tuple[bytes, memoryview]:
    """Header and numbers of a NumPy file, without a second copy of the numbers.

    A network's logits are float32; those of a file keep its digits, on which ties depend.
    """
    logits: Any = np.ascontiguousarray(predictions.logits)
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, np.lib.format.header_data_from_array_1_0(logits))
    return buffer.getvalue(), memoryview(logits).cast("B")


def _roc_rows(predictions: Predictions) -> Iterator[tuple[object, ...]]:
    """All points of all curves; at most 1,000 of each where there are millions of scores."""
    for index, scores in predictions.each_class():
        label = predictions.classes[index]
        curve = roc_curve(scores, predictions.targets == index)
        if curve is None:
            continue
        kept = kept_points(len(curve.fpr), predictions)
        columns = (curve.fpr[kept].tolist(), curve.tpr[kept].tolist(), curve.thresholds[kept].tolist())
        for fpr, tpr, threshold in zip(*columns, strict=True):
            yield (label, fpr, tpr, threshold)
