"""ROC and precision-recall curves as pictures."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from evalcam_cli.evaluation.curves import RocBand, kept_points, mean_roc, roc_band, thinned
from evalcam_cli.evaluation.estimates import Estimate
from evalcam_cli.evaluation.metrics import Metrics
from evalcam_cli.evaluation.predictions import Predictions
from evalcam_cli.evaluation.ranking import precision_recall_curve, roc_curve
from evalcam_cli.report.drawing import (
    GREY,
    Names,
    drawn_names,
    entry,
    line_styles,
    new_figure,
    own_style,
    png_bytes,
    sentence,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BAND_HEADER = ("class", "specificity", "sensitivity", "ci_low", "ci_high", "ci_method")
CURVE_HEADER = ("class", "recall", "precision")
_CURVES = 10
_WORST = 5
_POINTS = 2000  # more cannot be told apart on paper


def roc_bands(predictions: Predictions, metrics: Metrics) -> dict[int, RocBand]:
    """The band of one class by its index: the positive one, else that with the lowest AUC; empty without intervals."""
    index = _banded(metrics)
    if index is None or metrics.bootstrap is None:
        return {}
    found = roc_band(
        predictions.probability_of(index),
        predictions.targets == index,
        resamples=metrics.bootstrap,
        seed=metrics.seed,
        groups=predictions.group_codes,
    )
    return {} if found is None else {index: found}


def band_rows(bands: dict[int, RocBand], classes: Sequence[str]) -> Iterator[tuple[object, ...]]:
    """Rows of `roc_band.csv` under `BAND_HEADER`."""
    for index, band in bands.items():
        limits = (band.specificity.tolist(), band.sensitivity.tolist(), band.low.tolist(), band.high.tolist())
        for row in zip(*limits, strict=True):
            yield classes[index], *row, band.method


def precision_recall_rows(predictions: Predictions, metrics: Metrics) -> Iterator[tuple[object, ...]]:
    """Rows of `precision_recall.csv` under `CURVE_HEADER`: the curves drawn.

    All points of each; at most 1,000 of each where there are more than five million scores.
    """
    for index in _chosen(metrics, "average_precision"):
        curve = precision_recall_curve(predictions.probability_of(index), predictions.targets == index)
        if curve:
            kept = kept_points(len(curve.recall), predictions)
            for recall, precision in zip(curve.recall[kept].tolist(), curve.precision[kept].tolist(), strict=True):
                yield metrics.classes[index], recall, precision


def plot_roc(predictions: Predictions, metrics: Metrics, bands: dict[int, RocBand] | None = None) -> bytes:
    """ROC curves, one class against the rest; of two classes the positive one, of many the worst and the average.

    Args:
        predictions: With their operating point, which is drawn with the intervals of both rates.
        metrics: Of these predictions.
        bands: From `roc_bands`.
    """
    with own_style():
        chosen = _chosen(metrics, "roc_auc")
        names = drawn_names(metrics.classes, chosen)
        figure, axes = _square()
        if chosen:
            axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=(0, (4, 4)), label="chance")
        if len(metrics.classes) > _CURVES:
            _plot_mean(axes, predictions, metrics)
        for index, label, (colour, dashes) in zip(chosen, names.labels, line_styles(), strict=False):
            curve = roc_curve(predictions.probability_of(index), predictions.targets == index)
            if curve is None:
                continue
            keep = thinned(len(curve.fpr), _POINTS)
            text = entry(f"{label}: AUC {_value(metrics.per_class[metrics.classes[index]].estimates['roc_auc'])}")
            axes.plot(curve.fpr[keep], curve.tpr[keep], label=text, color=colour, linestyle=dashes)
            band = (bands or {}).get(index)
            if band is not None:
                _plot_band(axes, band, colour, label)
        if not chosen:
            sentence(axes, "no ROC curve: it needs images\nof the class and of others")
        _plot_point(axes, predictions, metrics)
        axes.set(xlabel="false positive rate (1 - specificity)", ylabel="true positive rate (sensitivity)")
        return _finish(figure, axes, names, _curve_title("ROC", metrics))


def plot_precision_recall(predictions: Predictions, metrics: Metrics) -> bytes:
    """Precision over recall as steps, without interpolation, with what guessing gives (the share of the class)."""
    with own_style():
        chosen = _chosen(metrics, "average_precision")
        names = drawn_names(metrics.classes, chosen)
        figure, axes = _square()
        for index, label, (colour, dashes) in zip(chosen, names.labels, line_styles(), strict=False):
            of_class = metrics.per_class[metrics.classes[index]]
            curve = precision_recall_curve(predictions.probability_of(index), predictions.targets == index)
            if curve is None:
                continue
            rising = np.flatnonzero(np.diff(curve.recall, prepend=-1) > 0)  # all that average precision sums up
            keep = rising[thinned(len(rising), _POINTS)]
            text = entry(f"{label}: average precision {_value(of_class.estimates['average_precision'])}")
            recall, precision = curve.recall[keep], curve.precision[keep]
            axes.step(recall, precision, where="pre", label=text, color=colour, linestyle=dashes)
            share = of_class.support / int(metrics.confusion.sum())
            guess = f"guessing: {share:.3f}, the share of the class" if len(chosen) == 1 else None
            if len(chosen) > 1 and index == chosen[-1]:
                guess = "guessing: the share of each class"
            axes.axhline(
                share,
                color=GREY if len(chosen) == 1 else colour,
                linewidth=1,
                linestyle=(0, (1, 3)),
                label=guess,
            )
        if not chosen:
            sentence(axes, "no precision-recall curve: it needs images\nof the class and of others")
        axes.set(xlabel="recall (sensitivity)", ylabel="precision")
        return _finish(figure, axes, names, _curve_title("Precision-recall", metrics))


def _square() -> tuple["Figure", "Axes"]:
    figure = new_figure(6, 5.9)
    return figure, figure.add_subplot()


def _plot_band(axes: "Axes", band: RocBand, colour: str, label: str) -> None:
    axes.fill_between(
        1 - band.specificity,
        band.low,
        band.high,
        color=colour,
        alpha=0.2,
        linewidth=0,
        label=entry(f"{label}: pointwise 95 % band"),
    )


def _plot_mean(axes: "Axes", predictions: Predictions, metrics: Metrics) -> None:
    """The vertical average of the curves of all classes that have one."""
    mean = mean_roc(predictions)
    if mean is not None:
        label = f"mean of {mean.classes:,} classes: AUC {_value(metrics.overall['roc_auc_ovr_macro'])}"
        axes.plot([0, *mean.fpr], [0, *mean.tpr], color="black", linewidth=2.2, label=label)


def _plot_point(axes: "Axes", predictions: Predictions, metrics: Metrics) -> None:
    """The operating point, a cross as wide and high as the intervals of its rates."""
    point = predictions.operating_point
    rates = [metrics.overall.get(name) for name in ("recall@op", "specificity@op")]
    if point is None or any(rate is None or rate.estimate is None for rate in rates):
        return
    sensitivity, specificity = (rate for rate in rates if rate is not None)
    if sensitivity.estimate is None or specificity.estimate is None:
        return
    up, left = _errors(sensitivity), _errors(specificity)
    axes.errorbar(
        [1 - specificity.estimate],
        [sensitivity.estimate],
        xerr=None if left is None else [[left[1]], [left[0]]],  # a higher specificity lies to the left
        yerr=None if up is None else [[up[0]], [up[1]]],
        fmt="D",
        color="black",
        markersize=6,
        markerfacecolor="white",
        capsize=3,
        zorder=5,
        label=f"operating point: p >= {point.threshold:.3g} ({point.rule})",
    )


def _errors(estimate: Estimate) -> tuple[float, float] | None:
    """How far the interval reaches below and above the estimate."""
    if estimate.estimate is None or estimate.ci_low is None or estimate.ci_high is None:
        return None
    return max(estimate.estimate - estimate.ci_low, 0.0), max(estimate.ci_high - estimate.estimate, 0.0)


def _auc(metrics: Metrics, label: str) -> float | None:
    return metrics.per_class[label].estimates["roc_auc"].estimate


def _banded(metrics: Metrics) -> int | None:
    """The class whose curve gets a band."""
    if metrics.positive is not None:
        return metrics.classes.index(metrics.positive)
    defined = [
        (value, index) for index, label in enumerate(metrics.classes) if (value := _auc(metrics, label)) is not None
    ]
    return min(defined)[1] if defined else None


def _chosen(metrics: Metrics, name: str) -> list[int]:
    """Classes worth a curve: the positive of two, all up to ten, else the worst and the positive one."""
    classes = metrics.classes
    values = {index: metrics.per_class[label].estimates[name].estimate for index, label in enumerate(classes)}
    defined = [(value, index) for index, value in values.items() if value is not None]
    positive = None if metrics.positive is None else classes.index(metrics.positive)
    if len(classes) == 2 and positive is not None:
        return [positive] if values[positive] is not None else []
    if len(classes) <= _CURVES:
        return [index for _, index in defined]
    worst = [index for _, index in sorted(defined)[:_WORST]]
    return worst if positive is None or positive in worst or values[positive] is None else [positive, *worst]


def _value(estimate: Estimate) -> str:
    if estimate.estimate is None:
        return "n/a"
    interval = "" if estimate.ci_low is None else f" [{estimate.ci_low:.3f}, {estimate.ci_high:.3f}]"
    return f"{estimate.estimate:.3f}{interval}"


def _curve_title(kind: str, metrics: Metrics) -> str:
    k = len(metrics.classes)
    if k > _CURVES:
        return f"{kind}: the {_WORST} worst of {k:,} classes, each against the rest"
    return kind if k == 2 else f"{kind}: each class against the rest"


def _finish(figure: "Figure", axes: "Axes", names: Names, title: str) -> bytes:
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.02), aspect="equal")
    axes.set_title(title, fontsize=11)
    entries = len(axes.get_legend_handles_labels()[0])
    figure.set_figheight(5.9 + 0.2 * entries)
    if entries:
        legend = axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.11), fontsize=9, frameon=False)
        names.letter(legend.get_texts())
    names.explain(figure)
    return png_bytes(figure)
