"""The page to read: `report.md`."""

from collections.abc import Iterator, Mapping

from evalcam_cli.evaluation.analyses import BEFORE
from evalcam_cli.evaluation.definitions import define
from evalcam_cli.evaluation.gates import GateResult
from evalcam_cli.evaluation.metrics import CLASS_METRICS, FURTHER_METRICS, MAIN_METRICS, POINT_METRICS, Metrics
from evalcam_cli.report.analyses import analysis_sections, repeats_sentence
from evalcam_cli.report.contents import Report
from evalcam_cli.report.markup import escaped, table
from evalcam_cli.report.tables import (
    CLASS_HEADER,
    METRICS_HEADER,
    class_table_rows,
    estimate_text,
    interval_text,
    metrics_table_rows,
)
from evalcam_cli.text import counted

_MATRIX_CLASSES = 12
_CLASS_ROWS = 100

_CURVES = (
    *(("ROC", "roc.png"), ("Precision-recall", "precision_recall.png"), ("Calibration", "calibration.png")),
    *(("Scores", "score_histograms.png"), ("Risk and coverage", "risk_coverage.png")),
)
_FILES = {
    "metrics.json": "all numbers in full precision, with intervals and reasons",
    "metrics.csv": "the same, one number per row",
    "per_class.csv": "one row per class",
    "confusion_matrix.csv": "rows are the truth, columns the predictions",
    "predictions.csv": "one row per image",
    "logits.npy": "raw outputs; rows as in predictions.csv, columns as `classes` in metrics.json",
    "roc.csv": "the points of the ROC curves",
    "label_errors.csv": "images whose label a person should look at, the likeliest wrong first",
    "risk_coverage.csv": "errors among the images that the classifier is most confident of",
    "confusions.csv": "the most frequent confusions",
    "calibration.csv": "the bins of the calibration plot",
    "precision_recall.csv": "the precision-recall curves drawn",
    "roc_band.csv": "the band of the ROC plot",
    "score_histograms.csv": "the bars of the score histograms",
    "report.tex": "the tables for a paper, with booktabs",
    "reproduce.py": "recomputes these numbers with scikit-learn and scipy, without evalcam",
}


def report_text(report: Report) -> str:
    """The report of one evaluation in Markdown: headline, tables, analyses, warnings, definitions, files."""
    metrics = report.metrics
    parts = [
        ["# Evaluation", "", *_headline(report)],
        ["## All classes together", "", *table(METRICS_HEADER, metrics_table_rows(metrics, MAIN_METRICS))],
        _at_the_point(report),
        ["## Each class against the rest", "", *_class_table(metrics), *_of_all_folds(report)],
        ["## Confusion matrix", "", *_matrix(metrics)],
        ["## Curves", "", *(f"![{name}]({file})" for name, file in _CURVES)],
        *analysis_sections(report.predictions, report.analyses),
        ["## Warnings", "", *_warnings(metrics)] if metrics.warnings else [],
        ["## Gates", "", *table(("", "demand", "found"), map(_gate_row, report.gates))] if report.gates else [],
        [
            "## Further numbers",
            "",
            *table(METRICS_HEADER, metrics_table_rows(metrics, FURTHER_METRICS)),
            *_tests(metrics),
        ],
        ["## Origin", "", *table(("", ""), _meta_rows(report.meta))] if report.meta else [],
        ["## Definitions", "", *_definitions(metrics)],
        ["## Files", "", *(f"- `{name}`: {what}" for name, what in _FILES.items())],
    ]
    return "\n\n".join("\n".join(part) for part in parts if part) + "\n"


def _headline(report: Report) -> list[str]:
    metrics, subset = report.metrics, report.subset
    accuracy = metrics.overall["accuracy"]
    interval = f" (95 % interval {interval_text(accuracy)})" if accuracy.ci_low is not None else ""
    where = f" of the set {escaped(subset)}" if subset not in ("", "all") else ""
    right, said = int(metrics.confusion.trace()), int(metrics.confusion.sum())
    of = counted(metrics.n, "image")
    if said != metrics.n:  # a repeated cross-validation
        of = f"{counted(said, 'prediction')} of {of}"
    lines = [f"**Accuracy {accuracy.estimate:.3f}**{interval}: {right:,} of {of}{where} right."]
    if metrics.positive is not None:
        lines += ["", f"Positive class: {escaped(metrics.positive)}."]
    folds = report.analyses.folds
    if folds is not None and folds.repeats > 1:
        lines += ["", f"{folds.title}: {repeats_sentence(folds.repeats)}"]
    elif metrics.groups is not None:
        lines += ["", f"Intervals are by group: {counted(metrics.groups, 'group')}, drawn and counted as wholes."]
    if report.looks:
        lines += ["", escaped(report.looks)]
    return lines


def _at_the_point(report: Report) -> list[str]:
    """The operating point and its numbers, and what temperature and point changed."""
    point, before = report.predictions.operating_point, report.analyses.uncalibrated
    lines = []
    if point is not None:
        lines += [
            f"{escaped(point.positive)} is called at a probability of {point.threshold:.4g} or more: `{point.rule}`, "
            f"chosen on {point.positives:,} + {point.negatives:,} validation images (sensitivity "
            f"{point.sensitivity:.3f} and specificity {point.specificity:.3f} there).",
            "",
            *table(METRICS_HEADER, metrics_table_rows(report.metrics, POINT_METRICS)),
        ]
    if before is not None:
        temperature = report.predictions.temperature
        after = report.metrics.overall
        rows = [
            (name, estimate_text(before.overall[name]), estimate_text(after[name])) for name in BEFORE if name in after
        ]
        lines += ["", f"Temperature {temperature:.4g}, fitted on validation images.", ""] if temperature != 1 else [""]
        lines += table(("metric", "before calibration", "after"), rows)
    return ["## Operating point and calibration", "", *lines] if lines else []


def _tests(metrics: Metrics) -> Iterator[str]:
    for name, test in metrics.tests.items():
        value = f"n/a ({test.undefined_reason})" if test.p_value is None else f"p = {test.p_value:.3g}"
        yield ""
        yield f"`{name}`: {escaped(value)} under the hypothesis that {escaped(test.hypothesis)}."


def _of_all_folds(report: Report) -> Iterator[str]:
    if report.analyses.folds is not None:
        yield ""
        yield "Of all out-of-fold predictions together; means over folds of each class are in `folds_summary.csv`."


def _class_table(metrics: Metrics) -> Iterator[str]:
    rows = class_table_rows(metrics)
    yield from table(CLASS_HEADER, rows[:_CLASS_ROWS])
    if len(rows) > _CLASS_ROWS:
        yield ""
        yield f"The first {_CLASS_ROWS} of {len(rows):,} classes; all are in `per_class.csv`."


def _matrix(metrics: Metrics) -> Iterator[str]:
    if len(metrics.classes) <= _MATRIX_CLASSES:
        rows = zip(metrics.classes, metrics.confusion.tolist(), strict=True)
        yield from table(["true \\ predicted", *metrics.classes], ([label, *map(str, row)] for label, row in rows))
        yield ""
    yield "![Confusion matrix](confusion_matrix.png)"


def _warnings(metrics: Metrics) -> Iterator[str]:
    for caution in metrics.warnings:
        yield f"- `{caution.code}`: {escaped(caution.message)}"


def _gate_row(result: GateResult) -> tuple[str, str, str]:
    found = f"n/a ({result.reason})" if result.value is None else result.found
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
