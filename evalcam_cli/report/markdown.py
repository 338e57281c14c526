"""The page to read: `report.md`."""

import html
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from evalcam_cli.evaluation.definitions import define
from evalcam_cli.evaluation.gates import GateResult
from evalcam_cli.evaluation.metrics import CLASS_METRICS, FURTHER_METRICS, MAIN_METRICS, Metrics
from evalcam_cli.report.tables import CLASS_HEADER, METRICS_HEADER, class_table_rows, interval_text, metrics_table_rows
from evalcam_cli.text import counted, shown

_MATRIX_CLASSES = 12
_CLASS_ROWS = 100

_FILES = {
    "metrics.json": "all numbers in full precision, with intervals and reasons",
    "metrics.csv": "the same, one number per row",
    "per_class.csv": "one row per class",
    "confusion_matrix.csv": "rows are the truth, columns the predictions",
    "predictions.csv": "one row per image",
    "logits.npy": "raw outputs; rows as in predictions.csv, columns as `classes` in metrics.json",
    "roc.csv": "the points of the ROC curves",
}


def report_text(
    metrics: Metrics, *, meta: Mapping[str, object], subset: str, fold: int | None, gates: Sequence[GateResult]
) -> str:
    """The report of one evaluation in Markdown: headline, tables, warnings, definitions, files."""
    parts = [
        ["# Evaluation", "", *_headline(metrics, subset, fold)],
        ["## All classes together", "", *_table(METRICS_HEADER, metrics_table_rows(metrics, MAIN_METRICS))],
        ["## Each class against the rest", "", *_class_table(metrics)],
        ["## Confusion matrix", "", *_matrix(metrics)],
        [
            "## Curves",
            "",
            "![ROC](roc.png)",
            "![Precision-recall](precision_recall.png)",
            "![Calibration](calibration.png)",
        ],
        ["## Further numbers", "", *_table(METRICS_HEADER, metrics_table_rows(metrics, FURTHER_METRICS))],
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
        yield f"- `{name}`: {escaped(define(name).meaning)}"
    yield ""
    if metrics.bootstrap is not None:
        yield (
            f"Intervals are 95 %; `metrics.json` names the method of each. Bootstrap: percentiles of "
            f"{metrics.bootstrap:,} resamples of {'groups' if metrics.groups else 'images'} (seed {metrics.seed}). "
            "They hold for images like these, not for other places, cameras or class shares."
        )
    yield "Undefined numbers are `n/a` with the reason and are left out of averages, never counted as 0."
