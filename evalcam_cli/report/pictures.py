"""All plots of an evaluation, each with its numbers as CSV."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from evalcam_cli.documents import csv_bytes
from evalcam_cli.evaluation.curves import score_histograms
from evalcam_cli.evaluation.decision import DecisionCurve
from evalcam_cli.evaluation.folds import FoldTable
from evalcam_cli.evaluation.metrics import MAIN_METRICS
from evalcam_cli.evaluation.selective import RiskCoverage
from evalcam_cli.files import OutputFolder
from evalcam_cli.report import (
    plots_calibration,
    plots_confusion,
    plots_decisions,
    plots_folds,
    plots_ranking,
    plots_scores,
)
from evalcam_cli.report.contents import Report

_FOLD_DOTS = ("accuracy", "balanced_accuracy", "f1_macro", "roc_auc", "roc_auc_ovr_macro", "average_precision_macro")


def write_pictures(folder: OutputFolder, report: Report) -> list[Path]:
    """Every plot as PNG, and as CSV where no other file has its numbers."""
    return [folder.write(name, data) for name, data in _pictures(report)]


def _pictures(report: Report) -> Iterator[tuple[str, bytes]]:
    predictions, metrics, analyses = report.predictions, report.metrics, report.analyses
    yield (
        "confusion_matrix.png",
        plots_confusion.plot_confusion_matrix(
            metrics.confusion,
            metrics.classes,
            unit="image" if int(metrics.confusion.sum()) == metrics.n else "prediction",
        ),
    )
    rows = plots_confusion.confusion_rows(metrics.confusion, metrics.classes)
    yield "confusions.csv", csv_bytes(plots_confusion.CONFUSIONS_HEADER, rows)
    bands = plots_ranking.roc_bands(predictions, metrics)
    yield "roc.png", plots_ranking.plot_roc(predictions, metrics, bands)
    yield "roc_band.csv", csv_bytes(plots_ranking.BAND_HEADER, plots_ranking.band_rows(bands, metrics.classes))
    yield "precision_recall.png", plots_ranking.plot_precision_recall(predictions, metrics)
    points = plots_ranking.precision_recall_rows(predictions, metrics)
    yield "precision_recall.csv", csv_bytes(plots_ranking.CURVE_HEADER, points)
    yield "calibration.png", plots_calibration.plot_calibration(predictions, metrics)
    bins = plots_calibration.calibration_rows(predictions)
    yield "calibration.csv", csv_bytes(plots_calibration.CALIBRATION_HEADER, bins)
    yield "score_histograms.png", plots_scores.plot_scores(predictions, metrics)
    histograms = plots_scores.score_rows(score_histograms(predictions, metrics.positive))
    yield "score_histograms.csv", csv_bytes(plots_scores.SCORES_HEADER, histograms)
    if analyses.selective is not None:
        yield "risk_coverage.png", _risk_coverage(analyses.selective)
    if analyses.decision is not None:
        yield "decision_curve.png", _decision_curve(analyses.decision, _threshold(report))
    if analyses.folds is not None:
        yield "folds.png", plots_folds.plot_folds(_dots(analyses.folds), title=analyses.folds.title)


def _risk_coverage(found: RiskCoverage) -> bytes:
    return plots_decisions.plot_risk_coverage(found.coverage, found.risk, area=found.aurc.estimate)


def _threshold(report: Report) -> float | None:
    point = report.predictions.operating_point
    return None if point is None else point.threshold


def _decision_curve(found: DecisionCurve, threshold: float | None) -> bytes:
    def column(part: str) -> list[float]:
        values = [getattr(point.net_benefit, part) for point in found.points]
        return [float("nan") if value is None else value for value in values]

    banded = any(point.net_benefit.ci_low is not None for point in found.points)
    return plots_decisions.plot_decision_curve(
        [point.threshold for point in found.points],
        column("estimate"),
        [float("nan") if point.treat_all.estimate is None else point.treat_all.estimate for point in found.points],
        low=column("ci_low") if banded else None,
        high=column("ci_high") if banded else None,
        positive=found.positive,
        operating_point=threshold,
    )


def _dots(table: FoldTable) -> Sequence[plots_folds.FoldDots]:
    shown = [table.summaries[name] for name in _FOLD_DOTS if name in table.summaries and name in MAIN_METRICS]
    return [
        plots_folds.FoldDots(one.metric, one.values, one.mean, one.interval.low, one.interval.high) for one in shown
    ]
