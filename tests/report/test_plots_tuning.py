"""Plots of a search and of a range test, judged by what is drawn."""

import io
import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from evalcam_cli.report.plots_tuning import TrialPoint, plot_history, plot_importances, plot_range_test

BLUE, VERMILION = (0, 114, 178), (213, 94, 0)


def pixels(png: bytes) -> NDArray[np.uint8]:
    return np.array(Image.open(io.BytesIO(png)).convert("RGB"))


def of_colour(png: bytes, colour: tuple[int, int, int]) -> int:
    return int((pixels(png) == colour).all(axis=-1).sum())


def history(*points: TrialPoint) -> bytes:
    return plot_history(points, metric="validation accuracy", maximise=True)


def test_complete_and_pruned_trials_are_told_apart() -> None:
    complete = [TrialPoint(0, "complete", 0.5), TrialPoint(1, "complete", 0.6)]

    without = history(*complete)
    with_pruned = history(*complete, TrialPoint(2, "pruned", 0.4))

    assert of_colour(without, BLUE) > 100
    assert of_colour(without, VERMILION) == 0
    assert of_colour(with_pruned, VERMILION) > 10
    assert history(*complete) == without  # the same bytes


def test_trials_without_a_value_do_not_stop_the_drawing() -> None:
    odd = [TrialPoint(0, "failed", None), TrialPoint(1, "complete", math.nan), TrialPoint(2, "unfinished", None)]

    assert of_colour(history(*odd), BLUE) == 0
    assert pixels(history()).size


def test_a_longer_bar_explains_more() -> None:
    def blue(share: float) -> int:
        return of_colour(plot_importances({"train.lr": share}, "", metric="accuracy", trials=9), BLUE)

    assert 1.8 < blue(0.8) / blue(0.4) < 2.2
    assert of_colour(plot_importances(None, "too few trials", metric="accuracy", trials=2), BLUE) == 0


def test_a_diverging_step_does_not_flatten_the_curve() -> None:
    rates = [10 ** (-5 + step / 10) for step in range(40)]
    smoothed = [2 - step / 40 for step in range(39)]

    calm = plot_range_test(rates, [*smoothed, 1.0], [*smoothed, 1.0], {"steepest descent": 1e-3})
    wild = plot_range_test(rates, [*smoothed, 1e9], [*smoothed, 1e9], {"steepest descent": 1e-3})
    infinite = plot_range_test(rates, [*smoothed, math.inf], [*smoothed, math.nan], {})

    rows = [np.flatnonzero((pixels(png) == BLUE).all(axis=-1).any(axis=1)) for png in (calm, wild, infinite)]
    heights = [found.max() - found.min() for found in rows]
    assert heights[1] > 0.5 * heights[0]
    assert heights[2] > 0.5 * heights[0]
