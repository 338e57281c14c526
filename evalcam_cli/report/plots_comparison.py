"""The differences between models as a forest plot."""

from typing import TYPE_CHECKING

from evalcam_cli.evaluation.comparison import Comparison, Pair
from evalcam_cli.report.drawing import COLOURS, GREY, Names, drawn_names, new_figure, own_style, png_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_ROW = 0.3  # inches


def plot_differences(comparison: Comparison) -> bytes:
    """One panel per pair: a dot per metric with its 95 % interval; right of 0 speaks for the second model.

    Metrics of which less is better are drawn with the sign turned, and their names say so.
    """
    with own_style():
        first = comparison.pairs[0].differences
        names = drawn_names([one.metric + (" (sign turned)" if one.better == "lower" else "") for one in first])
        rows = len(first)
        height = rows * _ROW + 1.1
        figure = new_figure(8.5, height * len(comparison.pairs))
        panels = figure.subplots(len(comparison.pairs), 1, squeeze=False, sharex=True)[:, 0]
        for axes, pair in zip(panels, comparison.pairs, strict=True):
            _panel(axes, pair, names)
            corrected = " after Holm" if len(comparison.pairs) > 1 else ""
            axes.set_title(f"{pair.b} against {pair.a}; coloured: p < 0.05{corrected}", fontsize=10, loc="left")
            axes.tick_params(labelbottom=True)
        edge = max(abs(value) for value in panels[0].get_xlim())
        panels[0].set_xlim(-edge, edge)
        names.explain(figure)
        return png_bytes(figure)


def _panel(axes: "Axes", pair: Pair, names: Names) -> None:
    for row, one in enumerate(pair.differences):
        sign = -1 if one.better == "lower" else 1
        estimate = one.estimate
        if estimate.estimate is None:
            axes.text(0, row, " n/a", va="center", fontsize=8, color=GREY)
            continue
        colour = COLOURS[0] if one.favours > 0 else COLOURS[1] if one.favours < 0 else GREY
        if estimate.ci_low is not None and estimate.ci_high is not None:
            axes.plot([sign * estimate.ci_low, sign * estimate.ci_high], [row, row], color=colour, linewidth=2)
        marker = "o" if one.favours >= 0 else "s"
        axes.plot(sign * estimate.estimate, row, marker, color=colour, markersize=6)
    axes.set_yticks(range(len(names.labels)), names.labels, fontsize=9)
    names.letter(axes.get_yticklabels())
    axes.set_ylim(len(names.labels) - 0.4, -0.6)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.grid(axis="x", alpha=0.25)
    axes.set_xlabel(f"← {pair.a} better        difference, 95 % interval        {pair.b} better →", fontsize=9)
