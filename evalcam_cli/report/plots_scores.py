"""Histograms of probabilities by true class."""

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from evalcam_cli.evaluation.curves import HistogramPanel, ScoreHistograms, score_histograms
from evalcam_cli.evaluation.metrics import Metrics
from evalcam_cli.evaluation.predictions import Predictions
from evalcam_cli.report.drawing import COLOURS, drawn_names, new_figure, own_style, png_bytes, sentence
from evalcam_cli.text import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SCORES_HEADER = ("quantity", "class", "bin_low", "bin_high", "right", "wrong")
_LABELS = {
    "true_class": "probability of the true class",
    "confidence": "confidence (probability of the most probable class)",
}


def score_rows(histograms: ScoreHistograms) -> Iterator[tuple[object, ...]]:
    """Rows of `score_histograms.csv` under `SCORES_HEADER`: images called rightly and wrongly in each bin."""
    edges = histograms.edges.tolist()
    for panel in histograms.panels:
        for row in zip(edges[:-1], edges[1:], panel.right.tolist(), panel.wrong.tolist(), strict=True):
            yield histograms.quantity, panel.label or None, *row


def plot_scores(predictions: Predictions, metrics: Metrics) -> bytes:
    """A panel per true class; of more than ten classes one of the right and one of the wrong images.

    Two classes show the threshold of the operating point, or 0.5, on the probability of the positive one.
    """
    found = score_histograms(predictions, metrics.positive)
    panels = found.panels
    if found.quantity == "confidence":
        panels = _by_outcome(panels[0])
    unit = "image" if int(metrics.confusion.sum()) == metrics.n else "prediction"
    with own_style():
        names = drawn_names([panel.label for panel in panels])
        across = 1 if len(panels) <= 2 else 2
        down = -(-len(panels) // across)
        figure = new_figure(6 if across == 1 else 8, 1 + 1.75 * down)
        grid = figure.subplots(down, across, sharex=True, squeeze=False).ravel()
        for axes, panel, label in zip(grid, panels, names.labels, strict=False):
            _plot_panel(axes, found.edges, panel)
            total = counted(int((panel.right + panel.wrong).sum()), unit)
            names.letter([axes.set_title(f"{label} ({total})", fontsize=10)])
            if found.quantity == "positive":
                _plot_threshold(axes, predictions)
        for axes in grid[len(panels) :]:
            axes.set_axis_off()
        handles = {
            label: handle for axes in grid for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        for axes in grid[max(0, len(panels) - across) : len(panels)]:
            axes.tick_params(labelbottom=True)
            _label(axes, found.quantity, metrics)
        figure.supylabel(f"{unit}s", fontsize=10)
        if handles:
            figure.legend(
                list(handles.values()), list(handles), loc="outside lower center", fontsize=9, ncols=3, frameon=False
            )
        names.explain(figure)
        return png_bytes(figure)


def _by_outcome(panel: HistogramPanel) -> tuple[HistogramPanel, HistogramPanel]:
    nothing = np.zeros_like(panel.right)
    return replace(panel, label="right", wrong=nothing), replace(panel, label="wrong", right=nothing)


def _plot_panel(axes: "Axes", edges: "np.ndarray", panel: HistogramPanel) -> None:
    width = 1 / (len(edges) - 1)
    axes.set(xlim=(0, 1))
    axes.spines[["top", "right"]].set_visible(False)
    if not (panel.right + panel.wrong).any():
        axes.set_yticks([])
        sentence(axes, "no images" if panel.label not in ("right", "wrong") else f"no image is {panel.label}")
        return
    axes.bar(edges[:-1], panel.right, width, align="edge", color=COLOURS[4], edgecolor="white", label="called rightly")
    axes.bar(
        edges[:-1],
        panel.wrong,
        width,
        panel.right,
        align="edge",
        color=COLOURS[1],
        edgecolor="white",
        hatch="////",
        label="called wrongly",
    )
    axes.locator_params(axis="y", nbins=4, integer=True)


def _plot_threshold(axes: "Axes", predictions: Predictions) -> None:
    point = predictions.operating_point
    threshold = 0.5 if point is None else point.threshold
    axes.axvline(threshold, color="black", linewidth=1.2, linestyle=(0, (4, 3)), label=f"threshold {threshold:.3g}")


def _label(axes: "Axes", quantity: str, metrics: Metrics) -> None:
    if quantity != "positive" or metrics.positive is None:
        axes.set_xlabel(_LABELS[quantity], fontsize=10)
        return
    names = drawn_names(metrics.classes, [metrics.classes.index(metrics.positive)])
    axes.set_xlabel(f"probability of {names.labels[0]}", fontsize=10)
    names.letter([axes.xaxis.label])
