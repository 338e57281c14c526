"""The pictures of an evaluation as PNG bytes: confusion matrix, ROC, precision-recall, calibration."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from evalcam_cli.evaluation.calibration import reliability_bins
from evalcam_cli.evaluation.estimates import Estimate
from evalcam_cli.evaluation.intervals import wilson
from evalcam_cli.evaluation.metrics import Metrics
from evalcam_cli.evaluation.predictions import Predictions
from evalcam_cli.evaluation.ranking import precision_recall_curve, roc_curve
from evalcam_cli.report.drawing import (
    COLOURS,
    GREY,
    STYLES,
    Names,
    columns,
    drawn_names,
    new_figure,
    own_style,
    png_bytes,
)
from evalcam_cli.text import counted

Floats = NDArray[np.float64]

MATRIX_CLASSES = 30
"""Classes up to which a confusion matrix can be read."""
_CONFUSIONS = 20
_CURVES = 10
_WORST = 5
_POINTS = 2000


def plot_confusion_matrix(confusion: NDArray[np.int64], classes: Sequence[str]) -> bytes:
    """Counts and row percentages, rows truth, columns predictions; above 30 classes the most frequent confusions."""
    with own_style():
        names = drawn_names(classes)
        draw = _matrix if len(classes) <= MATRIX_CLASSES else _top_confusions
        figure = draw(confusion, names)
        names.explain(figure)
        return png_bytes(figure)


def _matrix(confusion: NDArray[np.int64], names: Names) -> Figure:
    k = len(confusion)
    support = confusion.sum(axis=1, keepdims=True)
    shares = np.divide(confusion, support, out=np.full(confusion.shape, np.nan), where=support > 0)
    cell = 0.85 if k <= 6 else 0.62 if k <= 15 else 0.5
    room = 0.08 * max(columns(label) for label in names.labels)
    figure = new_figure(cell * k + room + 2.6, cell * k + 0.7 * room + 1.3)
    axes = figure.add_subplot()
    axes.set_facecolor("#e8e8e8")  # rows without images
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    size = 11 if k <= 6 else 9 if k <= 15 else 7
    for row, column in np.ndindex(k, k):
        share = shares[row, column]
        axes.text(
            column,
            row,
            f"{confusion[row, column]}\n{_percent(share)}",
            ha="center",
            va="center",
            fontsize=size,
            color="white" if share > 0.55 else GREY if confusion[row, column] == 0 else "black",
            in_layout=False,  # inside the axes anyway; measuring hundreds of them takes seconds
        )
    truths = [f"{label} (n={total})" for label, total in zip(names.labels, support[:, 0], strict=True)]
    if room > 0.08 * 4:
        axes.set_xticks(range(k), names.labels, rotation=45, ha="right", rotation_mode="anchor")
    else:
        axes.set_xticks(range(k), names.labels)
    axes.set_yticks(range(k), truths)
    names.letter([*axes.get_xticklabels(), *axes.get_yticklabels()])
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    axes.set_title(f"{confusion.trace():,} of {counted(int(confusion.sum()), 'image')} right", fontsize=11)
    figure.colorbar(image, ax=axes, label="share of the true class", shrink=0.8, aspect=30)
    return figure


def _percent(share: float) -> str:
    """Whole percent, never 0 or 100 for what is not."""
    if np.isnan(share):
        return "–"
    if 0 < share < 0.005:
        return "<1%"
    if 0.995 <= share < 1:
        return ">99%"
    return f"{share:.0%}"


def _top_confusions(confusion: NDArray[np.int64], names: Names) -> Figure:
    errors = confusion.copy()
    np.fill_diagonal(errors, 0)
    order = np.argsort(-errors, axis=None, kind="stable")[:_CONFUSIONS]
    pairs = [
        (row, column) for row, column in zip(*np.unravel_index(order, errors.shape), strict=True) if errors[row, column]
    ]
    figure = new_figure(9, 1.6 + 0.3 * max(len(pairs), 3))
    axes = figure.add_subplot()
    values = [int(errors[pair]) for pair in pairs]
    bars = axes.barh(range(len(pairs)), values, color=COLOURS[0])
    support = confusion.sum(axis=1)
    axes.bar_label(
        bars,
        [f"{value} of {support[row]}" for value, (row, _) in zip(values, pairs, strict=True)],
        padding=3,
        fontsize=8,
    )
    labels = [f"{names.labels[row]} → {names.labels[column]}" for row, column in pairs]
    axes.set_yticks(range(len(pairs)), labels, fontsize=9)
    names.letter(axes.get_yticklabels())
    axes.invert_yaxis()
    axes.set_xlim(0, 1.15 * max(values, default=1))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("images (of all images of the true class)")
    wrong = int(errors.sum())
    shown = f"the {len(pairs)} most frequent confusions, true → predicted" if pairs else "no confusions"
    axes.set_title(
        f"{counted(len(confusion), 'class')}, {counted(wrong, 'image')} wrong: {shown}\n"
        "(the whole matrix is in confusion_matrix.csv)",
        fontsize=10,
    )
    return figure


def plot_roc(predictions: Predictions, metrics: Metrics) -> bytes:
    """ROC curves, one class against the rest; of two classes the positive one, of many the worst and the average."""
    with own_style():
        names = drawn_names(metrics.classes)
        chosen = _chosen(metrics, "roc_auc")
        figure = new_figure(6.4, 5.9 + 0.2 * (len(chosen) + 2))
        axes = figure.add_subplot()
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=(0, (4, 4)), label="chance")
        if len(metrics.classes) > _CURVES:
            _plot_macro_roc(axes, predictions, metrics)
        for index, (colour, dashes) in zip(chosen, _line_styles(), strict=False):
            curve = roc_curve(predictions.probability_of(index), predictions.targets == index)
            if curve:
                keep = _thinned(len(curve.fpr))
                estimate = metrics.per_class[metrics.classes[index]].estimates["roc_auc"]
                axes.plot(
                    curve.fpr[keep],
                    curve.tpr[keep],
                    label=f"{names.labels[index]}: AUC {_value(estimate)}",
                    color=colour,
                    linestyle=dashes,
                )
        _note_missing(axes, metrics, "roc_auc", "ROC curve")
        axes.set(xlabel="false positive rate (1 - specificity)", ylabel="true positive rate (recall)")
        return _finish(figure, axes, names, _curve_title("ROC", metrics))


def _plot_macro_roc(axes: Axes, predictions: Predictions, metrics: Metrics) -> None:
    """The vertical average of the curves of all classes that have one."""
    grid = np.linspace(0, 1, 501)
    heights = np.zeros_like(grid)
    drawn = 0
    for index in range(len(metrics.classes)):
        curve = roc_curve(predictions.probability_of(index), predictions.targets == index)
        if curve:
            heights += np.interp(grid, curve.fpr, curve.tpr)
            drawn += 1
    if drawn:
        label = f"mean of {drawn} classes: AUC {_value(metrics.overall['roc_auc_ovr_macro'])}"
        axes.plot([0, *grid], [0, *(heights / drawn)], color="black", linewidth=2.2, label=label)


def plot_precision_recall(predictions: Predictions, metrics: Metrics) -> bytes:
    """Precision over recall as steps, without interpolation, with what guessing gives (the share of the class)."""
    with own_style():
        names = drawn_names(metrics.classes)
        chosen = _chosen(metrics, "average_precision")
        figure = new_figure(6.4, 5.9 + 0.2 * (len(chosen) + 1))
        axes = figure.add_subplot()
        n = metrics.n
        for index, (colour, dashes) in zip(chosen, _line_styles(), strict=False):
            entry = metrics.per_class[metrics.classes[index]]
            curve = precision_recall_curve(predictions.probability_of(index), predictions.targets == index)
            if curve:
                keep = _thinned(len(curve.recall))
                label = f"{names.labels[index]}: average precision {_value(entry.estimates['average_precision'])}"
                axes.step(
                    curve.recall[keep], curve.precision[keep], where="pre", label=label, color=colour, linestyle=dashes
                )
                guess = f"guessing: {entry.support / n:.3f}, the share of the class" if metrics.positive else None
                guess = guess or ("guessing: the share of each class" if index == chosen[-1] else None)
                axes.axhline(
                    entry.support / n,
                    color=GREY if guess else colour,
                    linewidth=0.8,
                    linestyle=(0, (1, 3)),
                    label=guess,
                )
        _note_missing(axes, metrics, "average_precision", "precision-recall curve")
        axes.set(xlabel="recall", ylabel="precision")
        return _finish(figure, axes, names, _curve_title("Precision-recall", metrics))


def plot_calibration(predictions: Predictions, metrics: Metrics) -> bytes:
    """Accuracy over confidence in 15 bins with Wilson intervals, above the number of images in each."""
    with own_style():
        n = metrics.n
        confidence = predictions.probabilities[np.arange(n), predictions.predicted]
        bins = reliability_bins(confidence, predictions.predicted == predictions.targets)
        filled = bins.counts > 0
        accuracy = bins.hits[filled] / bins.counts[filled]
        low, high = wilson(bins.hits[filled], bins.counts[filled])
        figure = new_figure(6.0, 6.8)
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
        upper.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=(0, (4, 4)), label="perfect calibration")
        upper.errorbar(
            bins.confidence[filled],
            accuracy,
            yerr=np.maximum([accuracy - low, high - accuracy], 0),
            fmt="o",
            color=COLOURS[0],
            capsize=3,
            label="accuracy in the bin, 95 % Wilson interval",
        )
        upper.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="accuracy")
        upper.set_title(f"Calibration of {counted(n, 'image')}: ECE {_value(metrics.overall['ece'])}", fontsize=11)
        bars = lower.bar(bins.edges[:-1], bins.counts, width=1 / len(bins.counts), align="edge", color=COLOURS[4])
        lower.bar_label(bars, [str(count) if count else "" for count in bins.counts], fontsize=7, padding=1)
        lower.set(xlabel="confidence (probability of the predicted class)", ylabel="images")
        lower.set_ylim(0, 1.3 * bins.counts.max())
        lower.yaxis.set_major_locator(MaxNLocator(nbins=3, integer=True))
        figure.legend(loc="outside lower center", fontsize=9, ncols=2, frameon=False)
        return png_bytes(figure)


def _chosen(metrics: Metrics, name: str) -> list[int]:
    """Classes worth a curve: the positive of two, all up to ten, else the worst."""
    classes = metrics.classes
    if metrics.positive is not None:
        return [classes.index(metrics.positive)]
    values = {index: metrics.per_class[label].estimates[name].estimate for index, label in enumerate(classes)}
    defined = [(value, index) for index, value in values.items() if value is not None]
    if len(classes) <= _CURVES:
        return [index for _, index in defined]
    return [index for _, index in sorted(defined)[:_WORST]]


def _line_styles() -> Iterator[tuple[str, str]]:
    return ((colour, dashes) for dashes in STYLES for colour in COLOURS)


def _thinned(points: int) -> NDArray[np.int64]:
    """Indices of at most 2,000 points, ends included: more cannot be told apart on paper."""
    return np.unique(np.linspace(0, points - 1, min(points, _POINTS)).round().astype(np.int64))


def _value(estimate: Estimate) -> str:
    if estimate.estimate is None:
        return "n/a"
    interval = "" if estimate.ci_low is None else f" [{estimate.ci_low:.3f}, {estimate.ci_high:.3f}]"
    return f"{estimate.estimate:.3f}{interval}"


def _curve_title(kind: str, metrics: Metrics) -> str:
    k = len(metrics.classes)
    if k > _CURVES:
        return f"{kind}: the {_WORST} worst of {k} classes, each against the rest"
    return kind if k == 2 else f"{kind}: each class against the rest"


def _note_missing(axes: Axes, metrics: Metrics, name: str, what: str) -> None:
    if not _chosen(metrics, name):
        axes.text(0.5, 0.5, f"no {what}: it needs images\nof the class and of others", ha="center", fontsize=11)


def _finish(figure: Figure, axes: Axes, names: Names, title: str) -> bytes:
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.02), aspect="equal")
    axes.set_title(title, fontsize=11)
    if axes.get_legend_handles_labels()[0]:
        legend = axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.11), fontsize=9, frameon=False)
        names.letter(legend.get_texts())
    names.explain(figure)
    return png_bytes(figure)


def plot_curves(rows: Sequence[Mapping[str, object]], *, best_epoch: int | None = None) -> bytes:
    """Losses, and accuracies with the learning rate, over the epochs.

    Args:
        rows: Of `history.csv`: `epoch,train_loss,val_loss,val_accuracy,val_balanced_accuracy,lr`; numbers or their
            texts, None or empty where there is none.
        best_epoch: Marked in both panels; by default the first with the lowest validation loss.
    """
    with own_style():
        columns = {name: _column(rows, name) for name in _HISTORY}
        epochs = columns["epoch"]
        figure = new_figure(10, 4.2)
        left, right = figure.subplots(1, 2)
        _line(left, epochs, columns["train_loss"], "training", COLOURS[0])
        _line(left, epochs, columns["val_loss"], "validation", COLOURS[1])
        left.set_title("Loss", fontsize=11)
        _line(right, epochs, columns["val_accuracy"], "accuracy", COLOURS[0])
        _line(right, epochs, columns["val_balanced_accuracy"], "balanced accuracy", COLOURS[2])
        right.set(ylim=(0, 1.02))
        right.set_title("Validation", fontsize=11)
        rate = right.twinx()
        _line(rate, epochs, columns["lr"], "learning rate (right axis)", GREY)
        rate.set_ylabel("learning rate", color=GREY)
        rate.set_ylim(bottom=0)
        best = _best_epoch(epochs, columns["val_loss"]) if best_epoch is None else float(best_epoch)
        for axes in (left, right):
            if len(epochs):
                axes.set_xlim(epochs[0] - 0.5, epochs[-1] + 0.5)
            if best is not None:
                axes.axvline(best, color="black", linewidth=1, linestyle=(0, (4, 4)), label=f"best epoch ({best:g})")
            axes.set_xlabel("epoch")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        for axes, others in ((left, []), (right, [rate])):
            found = [one.get_legend_handles_labels() for one in (axes, *others)]
            lines, labels = ([entry for one in found for entry in one[side]] for side in (0, 1))
            if lines:
                axes.legend(
                    lines, labels, fontsize=9, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2, frameon=False
                )
        return png_bytes(figure)


_HISTORY = ("epoch", "train_loss", "val_loss", "val_accuracy", "val_balanced_accuracy", "lr")


def _column(rows: Sequence[Mapping[str, object]], name: str) -> Floats:
    cells = [row.get(name) for row in rows]
    return np.array([np.nan if cell is None or cell == "" else float(str(cell)) for cell in cells], dtype=np.float64)


def _line(axes: Axes, epochs: Floats, values: Floats, label: str, colour: str) -> None:
    """A line with dots, so that a single epoch shows too; nothing where there are no values."""
    if np.isfinite(values).any():
        axes.plot(
            epochs,
            values,
            color=colour,
            label=label,
            marker="o",
            markersize=5 if len(epochs) < 5 else 3 if len(epochs) < 60 else 0,
        )


def _best_epoch(epochs: Floats, losses: Floats) -> float | None:
    return float(epochs[np.nanargmin(losses)]) if np.isfinite(losses).any() else None
