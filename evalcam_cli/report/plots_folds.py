"""How much a metric varies from fold to fold."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evalcam_cli.report.drawing import COLOURS, GREY, new_figure, own_style, png_bytes, sentence


@dataclass(frozen=True)
class FoldDots:
    """One metric over the folds."""

    metric: str
    values: Sequence[float | None]
    """One per fold; None where undefined."""
    mean: float | None
    low: float | None = None
    """Of the Nadeau-Bengio interval of the mean."""
    high: float | None = None


def plot_folds(metrics: Sequence[FoldDots], *, title: str | None = None) -> bytes:
    """A row per metric: a dot per fold, a diamond for the mean, and its interval as a bar.

    Args:
        metrics: In the order of the rows.
        title: By default the number of folds.
    """
    with own_style():
        figure = new_figure(6, 1.5 + 0.45 * max(len(metrics), 2))
        axes = figure.add_subplot()
        shown = set()
        for row, one in enumerate(metrics):
            if one.low is not None and one.high is not None:
                label = None if "bar" in shown else "95 % interval of the mean (Nadeau-Bengio)"
                shown.add("bar")
                axes.barh(row, one.high - one.low, 0.5, one.low, color=COLOURS[0], alpha=0.2, label=label)
            values = np.array([value for value in one.values if value is not None], dtype=np.float64)
            if not len(values):
                axes.text(
                    0.02, row, "undefined in every fold", transform=axes.get_yaxis_transform(), va="center", color=GREY
                )
                continue
            label = None if "dots" in shown else "one fold"
            shown.add("dots")
            axes.plot(
                values,
                row + _spread(len(values)),
                "o",
                color=COLOURS[0],
                markersize=6,
                markerfacecolor="white",
                label=label,
            )
            if one.mean is not None:
                label = None if "mean" in shown else "mean"
                shown.add("mean")
                axes.plot(one.mean, row, "D", color=COLOURS[1], markersize=7, label=label, zorder=4)
        if not metrics:
            sentence(axes, "no metrics")
        axes.set_yticks(range(len(metrics)), [one.metric for one in metrics], fontsize=9)
        axes.set_ylim(max(len(metrics), 1) - 0.5, -0.5)
        axes.use_sticky_edges = False  # room beside bars, too
        axes.margins(x=0.06)
        axes.grid(axis="x", alpha=0.3)
        axes.set_xlabel("value")
        folds = max((len(one.values) for one in metrics), default=0)
        axes.set_title(title or f"{folds} folds", fontsize=11)
        if shown:
            figure.legend(loc="outside lower center", fontsize=9, ncols=3, frameon=False)
        return png_bytes(figure)


def _spread(count: int) -> "np.ndarray":
    """Heights that keep equal values apart: the first fold at the top, the last at the bottom of the bar."""
    reach = 0.1 if count <= 3 else 0.18
    return np.linspace(-reach, reach, count) if count > 1 else np.zeros(1)
