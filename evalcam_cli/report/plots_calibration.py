"""The reliability diagram: what is right against what was promised, and what chance alone would do."""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from evalcam_cli.evaluation.calibration import ReliabilityBins
from evalcam_cli.evaluation.clustered import clustered_proportion
from evalcam_cli.evaluation.curves import consistency_bars, top_label_bins, uncalibrated
from evalcam_cli.evaluation.intervals import wilson
from evalcam_cli.evaluation.metrics import Metrics
from evalcam_cli.evaluation.predictions import Predictions
from evalcam_cli.report.drawing import COLOURS, GREY, new_figure, own_style, png_bytes
from evalcam_cli.text import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CALIBRATION_HEADER = (
    *("temperature", "bin_low", "bin_high", "images", "right", "accuracy", "ci_low", "ci_high"),
    *("confidence", "calibrated_low", "calibrated_high"),
)


def calibration_rows(predictions: Predictions) -> Iterator[tuple[object, ...]]:
    """Rows of `calibration.csv` under `CALIBRATION_HEADER`: one per bin, before and after temperature scaling."""
    before = uncalibrated(predictions)
    for one in (predictions, before):
        if one is None:
            continue
        bins = top_label_bins(one)
        columns = (bins.counts, bins.hits, *_accuracy(bins, one), bins.confidence, *_calibrated(bins, one))
        cells = [[None if math.isnan(value) else value for value in column.tolist()] for column in columns]
        edges = bins.edges.tolist()
        for row in zip(edges[:-1], edges[1:], *cells, strict=True):
            yield one.temperature, *row


def plot_calibration(predictions: Predictions, metrics: Metrics) -> bytes:
    """Accuracy over confidence in 15 bins above the number of images in each.

    With intervals (Wilson's, or by group), and with the range in which 95 % of calibrated models would lie, where
    images have one prediction each. Where a temperature is applied, the bins without it are shown as well.
    """
    with own_style():
        bins, before = top_label_bins(predictions), uncalibrated(predictions)
        figure = new_figure(6, 7.2)
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
        upper.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=(0, (4, 4)), label="perfect calibration")
        _plot_null(upper, bins, predictions)
        if before is not None:
            raw = top_label_bins(before)
            filled = raw.counts > 0
            upper.plot(
                raw.confidence[filled],
                raw.hits[filled] / raw.counts[filled],
                "s--",
                color=COLOURS[1],
                markerfacecolor="none",
                linewidth=1,
                label=f"before temperature scaling: ECE {raw.ece:.3f}",
            )
        _plot_bins(upper, bins, predictions)
        upper.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="accuracy of the most probable class")
        upper.set_title(f"Calibration of {counted(metrics.n, 'image')}\n{_summary(metrics)}", fontsize=11)
        bars = lower.bar(bins.edges[:-1], bins.counts, width=1 / len(bins.counts), align="edge", color=COLOURS[4])
        most = int(bins.counts.max())
        lower.bar_label(bars, [_short(int(count)) for count in bins.counts], fontsize=8, padding=1)
        unit = "predictions" if int(bins.counts.sum()) > metrics.n else "images"
        lower.set(xlabel="confidence (probability of the most probable class)", ylabel=unit, ylim=(0, 1.35 * most))
        lower.locator_params(axis="y", nbins=3, integer=True)
        figure.legend(loc="outside lower center", fontsize=9, ncols=1, frameon=False)
        return png_bytes(figure)


def _accuracy(bins: ReliabilityBins, predictions: Predictions) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(M,) share right with its limits: Wilson's, or by group; NaN in an empty bin, limits NaN where one group is."""
    share = np.divide(bins.hits, bins.counts, out=np.full(len(bins.counts), np.nan), where=bins.counts > 0)
    codes = predictions.group_codes
    if codes is None:
        return share, *wilson(bins.hits, bins.counts)
    right = predictions.argmax == predictions.targets
    places = np.clip(np.searchsorted(bins.edges, predictions.confidence, side="left") - 1, 0, len(bins.counts) - 1)
    limits = []
    for place in range(len(bins.counts)):
        here = places == place
        trials = np.bincount(codes[here], minlength=1).astype(np.float64)
        hits = np.bincount(codes[here], weights=right[here], minlength=1).astype(np.float64)
        found = clustered_proportion(hits, trials)
        limits.append([math.nan if limit is None else limit for limit in (found.low, found.high)])
    low, high = np.array(limits).T
    return share, low, high


def _calibrated(bins: ReliabilityBins, predictions: Predictions) -> tuple[np.ndarray, np.ndarray]:
    """(M,) limits of what calibrated models show; NaN where images have several predictions, not independent."""
    named = [path for path in predictions.paths if path]
    if len(set(named)) < len(named):
        return np.full(len(bins.counts), np.nan), np.full(len(bins.counts), np.nan)
    return consistency_bars(bins)


def _plot_null(axes: "Axes", bins: ReliabilityBins, predictions: Predictions) -> None:
    low, high = _calibrated(bins, predictions)
    if np.isnan(low).all():
        return
    width = 1 / len(bins.counts)
    axes.bar(
        bins.edges[:-1],
        high - low,
        width,
        low,
        align="edge",
        color=GREY,
        alpha=0.25,
        linewidth=0,
        label="95 % of perfectly calibrated models",
    )


def _plot_bins(axes: "Axes", bins: ReliabilityBins, predictions: Predictions) -> None:
    filled = bins.counts > 0
    accuracy, low, high = (column[filled] for column in _accuracy(bins, predictions))
    kind = "Wilson interval" if predictions.group_codes is None else "interval by group"
    axes.errorbar(
        bins.confidence[filled],
        accuracy,
        yerr=np.maximum([accuracy - low, high - accuracy], 0),
        fmt="o",
        color=COLOURS[0],
        capsize=3,
        label=f"accuracy in the bin, 95 % {kind}",
    )


def _summary(metrics: Metrics) -> str:
    """ECE, and what it would be by chance."""
    text = f"ECE {metrics.overall['ece'].estimate:.3f}"
    expected = metrics.overall.get("ece_expected_if_calibrated")
    if expected is not None and expected.estimate is not None:
        text += f", {expected.estimate:.3f} expected if calibrated"
    test = metrics.tests.get("ece_consistency")
    if test is not None and test.p_value is not None:
        text += ", p < 0.001" if test.p_value < 0.001 else f", p = {test.p_value:.3f}"
    return text


def _short(count: int) -> str:
    """A count that fits above its bar: 950, 12k, 3M."""
    if count < 10_000:
        return str(count) if count else ""
    return f"{count / 1e3:.0f}k" if count < 1_000_000 else f"{count / 1e6:.0f}M"
