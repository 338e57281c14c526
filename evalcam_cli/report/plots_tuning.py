"""Plots of a search and of a learning-rate range test."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from evalcam_cli.report.drawing import COLOURS, GREY, new_figure, own_style, png_bytes, sentence

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class TrialPoint:
    """A trial as it is drawn."""

    number: int
    state: str
    """`complete`, `pruned`, `failed` or `unfinished`."""
    value: float | None


def plot_history(trials: Sequence[TrialPoint], *, metric: str, maximise: bool) -> bytes:
    """The value of each trial in order, and the best so far.

    Args:
        trials: By number.
        metric: What the values are.
        maximise: Whether higher is better.
    """
    with own_style():
        figure = new_figure(8, 4.2)
        axes = figure.subplots()
        complete = _finite(trials, "complete")
        if complete:
            bests: list[float] = []
            for _, value in complete:
                bests.append(value if not bests else (max if maximise else min)(bests[-1], value))
            numbers = [number for number, _ in complete] + [trials[-1].number]
            axes.step(numbers, [*bests, bests[-1]], where="post", color=COLOURS[0], label="best so far")
            axes.plot(*_columns(complete), "o", color=COLOURS[0], markersize=5, label="complete")
        pruned = _finite(trials, "pruned")
        if pruned:
            label = "pruned (best until then)"
            axes.plot(*_columns(pruned), "o", color=COLOURS[1], fillstyle="none", markersize=5, label=label)
        _mark_failed(axes, [trial.number for trial in trials if trial.state == "failed"])
        if not complete and not pruned:
            sentence(axes, "no trial came to a value")
        axes.set_xlabel("trial")
        axes.set_ylabel(f"{metric} ({'higher' if maximise else 'lower'} is better)", parse_math=False)
        axes.set_xlim(-0.5, max((trial.number for trial in trials), default=0) + 0.5)
        axes.locator_params(axis="x", integer=True, min_n_ticks=1)
        _legend(axes)
        return png_bytes(figure)


def _finite(trials: Sequence[TrialPoint], state: str) -> list[tuple[int, float]]:
    return [
        (trial.number, trial.value)
        for trial in trials
        if trial.state == state and trial.value is not None and math.isfinite(trial.value)
    ]


def _columns(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def _mark_failed(axes: "Axes", numbers: Sequence[int]) -> None:
    """Failed trials have no value: crosses on the lower edge."""
    if numbers:
        transform = axes.get_xaxis_transform()
        axes.plot(
            numbers, [0.0] * len(numbers), "x", color=COLOURS[6], transform=transform, clip_on=False, label="failed"
        )


def _legend(axes: "Axes") -> None:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=9, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=4, frameon=False)


def plot_importances(shares: Mapping[str, float] | None, reason: str, *, metric: str, trials: int) -> bytes:
    """How much of the differences between trials each key explains.

    Args:
        shares: By key, largest first; None when there are none.
        reason: Why there are none.
        metric: What the values of the trials are.
        trials: How many the shares rest on.
    """
    with own_style():
        figure = new_figure(8, 1.4 + 0.4 * max(1, len(shares or {})))
        axes = figure.subplots()
        if shares is None:
            sentence(axes, reason)
            axes.set_axis_off()
            return png_bytes(figure)
        keys = list(reversed(list(shares)))
        bars = axes.barh(range(len(keys)), [shares[key] for key in keys], color=COLOURS[0], height=0.6)
        axes.bar_label(bars, fmt="%.2f", padding=3, fontsize=9)
        axes.set_yticks(range(len(keys)), keys, parse_math=False)
        axes.set_xlim(0, 1.08)
        axes.set_xlabel(f"share of the variance of {metric} over {trials} complete trials (fANOVA)", parse_math=False)
        return png_bytes(figure)


def plot_range_test(
    rates: Sequence[float], losses: Sequence[float], smoothed: Sequence[float], marks: Mapping[str, float]
) -> bytes:
    """The loss over the learning rate.

    Args:
        rates: Of each step, rising.
        losses: Of each step, as measured.
        smoothed: Of each step.
        marks: What is said of some rates, such as `steepest descent`.
    """
    with own_style():
        figure = new_figure(8, 4.2)
        axes = figure.subplots()
        axes.plot(rates, losses, color=GREY, linewidth=0.8, alpha=0.6, label="loss of the step")
        axes.plot(rates, smoothed, color=COLOURS[0], label="smoothed")
        styles = zip(marks.items(), COLOURS[1:], ("--", ":", "-.", "-", "--", ":"), strict=False)
        for (text, rate), colour, dashes in styles:
            axes.axvline(rate, color=colour, linestyle=dashes, label=f"{text}: {rate:.2g}")
        axes.set_xscale("log")
        known = [value for value in smoothed if math.isfinite(value)]
        if known:
            # one batch that explodes must not flatten the rest
            low = min(known + [value for value in losses if math.isfinite(value)])
            high = min(max(known), known[0] + 2 * max(known[0] - low, 0.1 * abs(known[0])))
            axes.set_ylim(low - 0.05 * (high - low), high + 0.1 * (high - low))
        axes.set_xlabel("learning rate")
        axes.set_ylabel("training loss")
        _legend(axes)
        return png_bytes(figure)
