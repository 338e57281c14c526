"""The page to read: `report.md`."""

import html
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from evalcam_cli.evaluation.gates import GateResult
from evalcam_cli.evaluation.metrics import CLASS_METRICS, Metrics
from evalcam_cli.report.tables import CLASS_HEADER, METRICS_HEADER, class_table_rows, interval_text, metrics_table_rows
from evalcam_cli.text import counted, shown

_MATRIX_CLASSES = 12
_CLASS_ROWS = 100

DEFINITIONS = {
    "accuracy": "share of images predicted right",
    "balanced_accuracy": "mean recall over the classes that have images",
    "precision_macro": "mean precision over the classes that were predicted",
    "recall_macro": "mean recall over the classes that have images; the same number as balanced_accuracy",
    "specificity_macro": "mean specificity over the classes where it is defined",
    "f1_macro": "mean of the F1 of the classes (not the F1 of mean precision and mean recall)",
    "roc_auc": "probability that an image of the positive class scores higher than another one; a tie counts one half",
    "roc_auc_ovr_macro": "mean over classes of the ROC AUC of the class against the rest",
    "average_precision_macro": "mean over classes of the step sum Σ (R_i - R_(i-1)) P_i, without interpolation",
    "log_loss": "mean of -log p of the true class, in nats; lower is better",
    "brier": "mean over images of the sum over classes of (p - y)², halved for two classes; lower is better",
    "ece": "Σ (n_b/n) |accuracy_b - confidence_b| over 15 bins of equal width, closed on the right, of the probability "
    "of the predicted class; lower is better; above 0 by chance even for a perfectly calibrated model",
    "mcc": "Matthews' correlation of truth and prediction for K classes (Gorodkin's R_K), from -1 to 1",
    "cohen_kappa": "agreement of truth and prediction beyond chance, at most 1",
    "precision": "tp / (tp + fp)",
    "recall": "tp / (tp + fn), also called sensitivity",
    "specificity": "tn / (tn + fp)",
    "npv": "tn / (tn + fn), the negative predictive value",
    "f1": "2 tp / (2 tp + fp + fn)",
    "average_precision": "Σ (R_i - R_(i-1)) P_i over the distinct scores of the class",
}
"""One line for every name in `metrics.json`; of a class: against all others together."""

_FILES = {
    "metrics.json": "all numbers in full precision, with intervals and reasons",
    "metrics.csv": "the same, one number per row",
    "per_class.csv": "one row per class",
    "confusion_matrix.csv": "rows are the truth, columns the predictions",
    "predictions.csv": "one row per image",
    "logits.npy": "raw outputs, float32; rows as in predictions.csv, columns as `classes` in metrics.json",
    "roc.csv": "the points of the ROC curves",
}


def report_text(
    metrics: Metrics, *, meta: Mapping[str, object], subset: str, fold: int | None, gates: Sequence[GateResult]
) -> str:
    """The report of one evaluation in Markdown: headline, tables, warnings, definitions, files."""
    parts = [
        ["# Evaluation", "", *_headline(metrics, subset, fold)],
        ["## All classes together", "", *_table(METRICS_HEADER, metrics_table_rows(metrics))],
        ["## Each class against the rest", "", *_class_table(metrics)],
        ["## Confusion matrix", "", *_matrix(metrics)],
        [
            "## Curves",
            "",
            "![ROC](roc.png)",
            "![Precision-recall](precision_recall.png)",
            "![Calibration](calibration.png)",
        ],
        ["## Warnings", "", *_warnings(metrics)] if metrics.warnings else [],
        ["## Gates", "", *_table(("", "demand", "found"), map(_gate_row, gates))] if gates else [],
        ["## Origin", "", *_table(("", ""), _meta_rows(meta))] if meta else [],
        ["## Definitions", "", *_definitions(metrics)],
        ["## Files", "", *(f"- `{name}`: {what}" for name, what in _FILES.items())],
    ]
    return "\n\n".join("\n".join(part) for part in parts if part) + "\n"


def escaped(text: object) -> str:
    """The text as Markdown that shows it literally, in tables too, whatever HTML or Markdown it contains."""
    return re.sub(r"([\\`*_\[\]|~$])", r"\\\1", html.escape(shown(text), quote=False))


def _headline(metrics: Metrics, subset: str, fold: int | None) -> list[str]:
    accuracy = metrics.overall["accuracy"]
    interval = f" (95 % interval {interval_text(accuracy)})" if accuracy.ci_low is not None else ""
    where = (f" of the set {escaped(subset)}" if subset else "") + ("" if fold is None else f", fold {fold}")
    right = int(metrics.confusion.trace())
    lines = [
        f"**Accuracy {accuracy.estimate:.3f}**{interval}: {right:,} of {counted(metrics.n, 'image')}{where} right."
    ]
    if metrics.positive is not None:
        lines += ["", f"Positive class: {escaped(metrics.positive)}."]
    return lines


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield "| " + " | ".join(header) + " |"
    yield "|" + " --- |" * len(header)
    for row in rows:
        yield "| " + " | ".join(escaped(cell) for cell in row) + " |"


def _class_table(metrics: Metrics) -> Iterator[str]:
    rows = class_table_rows(metrics)
    yield from _table(CLASS_HEADER, rows[:_CLASS_ROWS])
    if len(rows) > _CLASS_ROWS:
        yield ""
        yield f"The first {_CLASS_ROWS} of {len(rows):,} classes; all are in `per_class.csv`."


def _matrix(metrics: Metrics) -> Iterator[str]:
    if len(metrics.classes) <= _MATRIX_CLASSES:
        rows = zip(metrics.classes, metrics.confusion.tolist(), strict=True)
        header = ["true \\ predicted", *(escaped(label) for label in metrics.classes)]
        yield from _table(header, ([label, *map(str, row)] for label, row in rows))
        yield ""
    yield "![Confusion matrix](confusion_matrix.png)"


def _warnings(metrics: Metrics) -> Iterator[str]:
    for caution in metrics.warnings:
        yield f"- `{caution.code}`: {escaped(caution.message)}"


def _gate_row(result: GateResult) -> tuple[str, str, str]:
    found = f"n/a ({result.reason})" if result.value is None else f"{result.value:.4g}"
    return ("passed" if result.passed else "FAILED", result.gate.demand, found)


def _meta_rows(meta: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    for name, value in meta.items():
        if value is not None:
            yield (name, str(value))


def _definitions(metrics: Metrics) -> Iterator[str]:
    for name in (*metrics.overall, *(name for name in CLASS_METRICS if name not in metrics.overall)):
        yield f"- `{name}`: {escaped(DEFINITIONS[name])}"
    yield ""
    if metrics.bootstrap is not None:
        yield (
            "Intervals are 95 %: Wilson's for accuracy and, per class, precision, recall, specificity and npv; else "
            f"the percentiles of {metrics.bootstrap:,} bootstrap resamples within each class (seed {metrics.seed}). "
            "They hold for images like these, not for other places, cameras or class shares."
        )
    yield "Undefined numbers are `n/a` with the reason and are left out of averages, never counted as 0."
