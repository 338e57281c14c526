"""What a model is good for: net benefit over thresholds, and errors over how many images it may answer."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from evalcam_cli.evaluation.curves import thinned
from evalcam_cli.report.drawing import COLOURS, GREY, drawn_names, new_figure, own_style, png_bytes, sentence

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_POINTS = 2000  # more cannot be told apart on paper


def plot_decision_curve(
    thresholds: ArrayLike,
    net_benefit: ArrayLike,
    treat_all: ArrayLike,
    *,
    low: ArrayLike | None = None,
    high: ArrayLike | None = None,
    positive: str = "",
    operating_point: float | None = None,
) -> bytes:
    """Net benefit of acting on the model, on everyone and on no one.

    Vickers and Elkin, "Decision curve analysis", Medical Decision Making 2006. Far below 0 the axis is cut, where
    acting on everyone is out of the question anyway.

    Args:
        thresholds: (T,) threshold probabilities, rising.
        net_benefit: (T,) of the model; NaN where undefined.
        treat_all: (T,) of calling every image positive.
        low: (T,) pointwise 95 % limits.
        high: Likewise.
        positive: The class that is acted on, for the title.
        operating_point: A threshold to mark.
    """
    with own_style():
        names = drawn_names([positive])
        figure = new_figure(6, 5)
        axes = figure.add_subplot()
        places, model, everyone = (
            np.asarray(values, dtype=np.float64) for values in (thresholds, net_benefit, treat_all)
        )
        if not np.isfinite(model).any():
            sentence(axes, "no decision curve: it needs images\nof the class and of others")
        else:
            axes.axhline(0, color=GREY, linewidth=1.2, linestyle=":", label="act on no one")
            axes.plot(places, everyone, color=COLOURS[1], linestyle="--", label="act on everyone")
            _band(axes, places, low, high)
            axes.plot(places, model, color=COLOURS[0], linewidth=2, label="act on what the model calls")
            top = float(np.nanmax([np.nanmax(model), np.nanmax(everyone), 0.01]))
            lowest = model if low is None else np.fmin(model, np.asarray(low, dtype=np.float64))
            bottom = max(float(np.nanmin(lowest)), -0.5 * top)
            axes.set_ylim(min(bottom, -0.05 * top) - 0.05 * top, 1.1 * top)
            if operating_point is not None:
                axes.axvline(
                    operating_point,
                    color="black",
                    linewidth=1,
                    linestyle=(0, (4, 3)),
                    label=f"operating point {operating_point:.3g}",
                )
        axes.set(xlim=(0, 1), xlabel="threshold probability", ylabel="net benefit")
        names.letter(
            [axes.set_title(f"Decision curve: {names.labels[0]}" if positive else "Decision curve", fontsize=11)]
        )
        _legend(axes)
        names.explain(figure)
        return png_bytes(figure)


def plot_risk_coverage(
    coverage: ArrayLike,
    risk: ArrayLike,
    *,
    low: ArrayLike | None = None,
    high: ArrayLike | None = None,
    area: float | None = None,
) -> bytes:
    """The error rate among the images that are answered, most confident first.

    El-Yaniv and Wiener, "On the foundations of noise-free selective classification", JMLR 2010.

    Args:
        coverage: (T,) shares of the images answered, in (0, 1], rising.
        risk: (T,) share of them that is wrong.
        low: (T,) pointwise 95 % limits.
        high: Likewise.
        area: Under the curve (AURC), for the title.
    """
    with own_style():
        figure = new_figure(6, 4.8)
        axes = figure.add_subplot()
        shares, risks = np.asarray(coverage, dtype=np.float64), np.asarray(risk, dtype=np.float64)
        if not len(shares):
            sentence(axes, "no risk-coverage curve: no images")
        else:
            keep = thinned(len(shares), _POINTS)
            if low is not None and high is not None:
                low, high = np.asarray(low, dtype=np.float64)[keep], np.asarray(high, dtype=np.float64)[keep]
            _band(axes, shares[keep], low, high)
            marker = "o" if len(shares) < 10 else ""
            axes.plot(
                shares[keep],
                risks[keep],
                color=COLOURS[0],
                linewidth=2,
                marker=marker,
                label="errors among the answered",
            )
            axes.axhline(
                risks[-1], color=GREY, linewidth=1, linestyle=(0, (4, 4)), label=f"answering all: {risks[-1]:.3f}"
            )
            top = float(np.nanmax(risks if high is None else np.fmax(risks[keep], np.asarray(high))))
            axes.set_ylim(-0.02 * max(top, 0.05), 1.08 * max(top, 0.05))
        axes.set(xlim=(0, 1.01), xlabel="coverage (share of the images answered)", ylabel="risk (share of them wrong)")
        axes.set_title("Risk and coverage" + ("" if area is None else f": area {area:.4f}"), fontsize=11)
        _legend(axes)
        return png_bytes(figure)


def _band(axes: "Axes", places: "np.ndarray", low: ArrayLike | None, high: ArrayLike | None) -> None:
    if low is not None and high is not None:
        lower, upper = (np.asarray(values, dtype=np.float64) for values in (low, high))
        axes.fill_between(
            places, lower, upper, color=COLOURS[0], alpha=0.2, linewidth=0, label="pointwise 95 % interval"
        )


def _legend(axes: "Axes") -> None:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.13), fontsize=9, ncols=2, frameon=False)
