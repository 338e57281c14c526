"""Numbers that only plots show: the band of a ROC curve, histograms of scores, what chance does to a bin."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import scipy.stats
from numpy.typing import NDArray

from evalcam_cli.evaluation.calibration import ReliabilityBins, reliability_bins
from evalcam_cli.evaluation.predictions import Predictions
from evalcam_cli.evaluation.ranking import roc_curve, tie_ends
from evalcam_cli.evaluation.resampling import resample_weights

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

HISTOGRAM_BINS = 20
CLASS_PANELS = 10
"""Classes up to which each has a histogram of its own."""
_GRID = np.arange(101) / 100  # divided, so that it meets rates such as 3/10 exactly
_MAX_DRAWS = 20_000_000
_MANY_SCORES = 5_000_000
_POINTS = 1000
_FEWEST = 200  # resamples, however many images there are


def thinned(points: int, most: int) -> Ints:
    """(at most `most`,) indices of points, evenly spread, ends included."""
    return np.unique(np.linspace(0, points - 1, min(points, most)).round().astype(np.int64))


def kept_points(points: int, predictions: Predictions) -> Ints:
    """Indices of the points of a curve that a file gets: all, or 1,000 where there are over five million scores."""
    return thinned(points, _POINTS) if predictions.logits.size > _MANY_SCORES else np.arange(points)


@dataclass(frozen=True)
class RocBand:
    """Sensitivity at given specificities with a pointwise 95 % interval each: not a band for the curve as a whole."""

    specificity: Floats
    """(101,) from 1 to 0, in the order of the curve."""
    sensitivity: Floats
    low: Floats
    high: Floats
    method: Literal["stratified_bootstrap", "patient_bootstrap"]


def roc_band(
    scores: Floats, positive: Bools, *, resamples: int, seed: int, groups: Ints | None = None
) -> RocBand | None:
    """The percentile interval of the sensitivity at each specificity; None unless both sides have two images.

    Each resample has a ROC curve, read off by linear interpolation and, where it is vertical, at its upper end: pROC's
    `ci.se` (Robin et al., "pROC", BMC Bioinformatics 2011). Without groups, images of the class and others are drawn
    apart, so that both keep their number; with groups (patients) whole groups are, and resamples of one side are left
    out. Above 20 million draws there are fewer resamples, but 200 at least. Where no image is misranked the band has no
    width, because no resample can misrank one.

    Args:
        scores: (N,) of the class.
        positive: (N,) whether it is the true one.
        resamples: Resamples.
        seed: Of the resamples.
        groups: (N,) group of each image, numbers from 0.
    """
    if min(int(positive.sum()), int((~positive).sum())) < 2 or (groups is not None and groups.max() < 1):
        return None
    curve = roc_curve(scores, positive)
    if curve is None:
        return None
    resamples = min(resamples, max(_FEWEST, _MAX_DRAWS // len(scores)))
    ties = _ties(scores)
    draws = (
        _stratified(ties, positive, resamples, seed)
        if groups is None
        else _clustered(ties, positive, resamples, seed, groups)
    )
    heights = np.array([_heights(hits, alarms) for hits, alarms in draws if hits[-1] and alarms[-1]])
    if not len(heights):
        return None
    low, high = np.quantile(heights, [0.025, 0.975], axis=0)
    return RocBand(
        1 - _GRID,
        np.interp(_GRID, curve.fpr, curve.tpr),
        low,
        high,
        "stratified_bootstrap" if groups is None else "patient_bootstrap",
    )


def _ties(scores: Floats) -> Ints:
    """(N,) place of each image's score among the distinct ones, 0 for the highest."""
    order = np.argsort(-scores, kind="stable")
    ends = tie_ends(scores[order])
    ties = np.empty(len(scores), dtype=np.int64)
    ties[order] = np.searchsorted(ends, np.arange(len(scores)))
    return ties


def _stratified(ties: Ints, positive: Bools, resamples: int, seed: int) -> Iterator[tuple[Ints, Ints]]:
    generator = np.random.default_rng(np.random.SeedSequence([seed, 2]))  # a stream of its own
    length = int(ties.max()) + 1
    for _ in range(resamples):
        one, other = (
            np.cumsum(np.bincount(side[generator.integers(0, len(side), len(side))], minlength=length))
            for side in (ties[positive], ties[~positive])
        )
        yield one, other


def _clustered(ties: Ints, positive: Bools, resamples: int, seed: int, groups: Ints) -> Iterator[tuple[Ints, Ints]]:
    length = int(ties.max()) + 1
    for block in resample_weights(len(ties), resamples, seed, groups):
        for weights in block:
            one, other = (
                np.cumsum(np.bincount(ties[side], weights=weights[side], minlength=length).astype(np.int64))
                for side in (positive, ~positive)
            )
            yield one, other


def _heights(hits: Ints, alarms: Ints) -> Floats:
    """(101,) sensitivities at the grid's false positive rates, of running sums over the falling distinct scores."""
    fpr, tpr = np.append(0.0, alarms / alarms[-1]), np.append(0.0, hits / hits[-1])
    return np.asarray(np.interp(_GRID, fpr, tpr))


@dataclass(frozen=True)
class MeanRoc:
    """The vertical average of the curves of all classes that have one."""

    fpr: Floats
    """(501,) from 0 to 1."""
    tpr: Floats
    classes: int
    """Classes averaged over."""


def mean_roc(predictions: Predictions) -> MeanRoc | None:
    """The mean sensitivity of the classes at each false positive rate; None when no class has a curve.

    Vertical averaging: Fawcett, "An introduction to ROC analysis", Pattern Recognition Letters 2006, section 9.1. Each
    class is looked up among its own images, which is faster than a sort of all.
    """
    grid = np.arange(501) / 500
    heights, drawn = np.zeros_like(grid), 0
    for index, scores in predictions.each_class():
        vertices = _vertices(scores, predictions.targets == index)
        if vertices is not None:
            heights += np.interp(grid, *vertices)
            drawn += 1
    return MeanRoc(grid, heights / drawn, drawn) if drawn else None


def _vertices(scores: Floats, positive: Bools) -> tuple[Floats, Floats] | None:
    """Where the ROC curve starts and ends to rise, at each distinct score of the class."""
    own, support = np.unique(scores[positive], return_counts=True)
    others = len(scores) - int(support.sum())
    if not len(own) or not others:
        return None
    places = np.searchsorted(own, scores)  # own[place - 1] < score <= own[place]
    equal = own[np.minimum(places, len(own) - 1)] == scores
    at_most = np.bincount(places, minlength=len(own) + 1)
    tied = np.bincount(places[equal], minlength=len(own) + 1)[:-1]  # with the class's own images
    above = len(scores) - np.cumsum(at_most)[:-1]  # images of any class, in the order of `own`
    found = int(support.sum()) - np.cumsum(support)  # images of the class above
    earlier, later = above - found, above + tied - found - support
    fpr = np.stack([earlier, later], axis=1)[::-1].ravel() / others
    tpr = np.stack([found, found + support], axis=1)[::-1].ravel() / support.sum()
    return np.append(fpr, 1.0), np.append(tpr, 1.0)


def uncalibrated(predictions: Predictions) -> Predictions | None:
    """The same predictions without temperature; None when there is none."""
    return None if predictions.temperature == 1 else replace(predictions, temperature=1.0, operating_point=None)


def top_label_bins(predictions: Predictions) -> ReliabilityBins:
    """Reliability bins of the class with the largest probability, whatever an operating point decides."""
    return reliability_bins(predictions.confidence, predictions.argmax == predictions.targets)


def consistency_bars(bins: ReliabilityBins) -> tuple[Floats, Floats]:
    """(M,) shares right between which 95 % of calibrated models would lie in each bin; NaN in an empty bin.

    Quantiles 0.025 and 0.975 of a binomial with the bin's mean confidence, over its count: Bröcker and Smith,
    "Increasing the Reliability of Reliability Diagrams", Weather and Forecasting 2007, section 3. Confidences vary
    within a bin, so the true distribution is narrower, by less than 2 % of its variance in most bins of width 1/15.
    """
    filled = bins.counts > 0
    trials, share = np.where(filled, bins.counts, 1), np.where(filled, bins.confidence, 0.5)
    low, high = (
        np.where(filled, scipy.stats.binom.ppf(quantile, trials, np.clip(share, 0, 1)) / trials, np.nan)
        for quantile in (0.025, 0.975)
    )
    return low, high


@dataclass(frozen=True)
class HistogramPanel:
    """Images by one probability, those called rightly and wrongly apart."""

    label: str
    """The true class; empty when the panel is about all classes."""
    right: Ints
    """(M,) images per bin."""
    wrong: Ints


@dataclass(frozen=True)
class ScoreHistograms:
    """How probabilities are spread."""

    quantity: Literal["positive", "true_class", "confidence"]
    """What is counted: the probability of the positive class, of the true class, or the largest."""
    edges: Floats
    """(M + 1,) from 0 to 1; a bin holds its lower edge, the last one its upper edge as well."""
    panels: tuple[HistogramPanel, ...]


def score_histograms(predictions: Predictions, positive: str | None) -> ScoreHistograms:
    """Counts of images by probability.

    Two classes: of the positive one, a panel per true class. Up to ten: of the true class, a panel per class. More: the
    largest probability, of all images in one panel. A class without images has a panel of zeros.
    """
    classes, targets = predictions.classes, predictions.targets
    right = predictions.predicted == targets
    edges = np.linspace(0, 1, HISTOGRAM_BINS + 1)
    panels = []
    if len(classes) == 2 and positive is not None:
        scores = predictions.probability_of(classes.index(positive))
        for index, label in enumerate(classes):
            panels.append(_panel(label, scores, targets == index, right))
        return ScoreHistograms("positive", edges, tuple(panels))
    if len(classes) <= CLASS_PANELS:
        for index, scores in predictions.each_class():
            panels.append(_panel(classes[index], scores, targets == index, right))
        return ScoreHistograms("true_class", edges, tuple(panels))
    everything = np.ones(len(targets), dtype=bool)
    right = predictions.argmax == targets  # an operating point changes no argmax of many classes
    return ScoreHistograms("confidence", edges, (_panel("", predictions.confidence, everything, right),))


def _panel(label: str, scores: Floats, chosen: Bools, right: Bools) -> HistogramPanel:
    places = np.clip((scores * HISTOGRAM_BINS).astype(np.int64), 0, HISTOGRAM_BINS - 1)
    counts = [np.bincount(places[chosen & side], minlength=HISTOGRAM_BINS) for side in (right, ~right)]
    return HistogramPanel(label, counts[0].astype(np.int64), counts[1].astype(np.int64))


@dataclass(frozen=True)
class Confusion:
    """Images of one class that were taken for another."""

    true: int
    predicted: int
    count: int
    support: int
    """Images of the true class."""


def top_confusions(confusion: Ints, limit: int) -> tuple[Confusion, ...]:
    """The most frequent pairs of a (K, K) matrix, most frequent first, equals by index; pairs without images never."""
    errors = confusion.copy()
    np.fill_diagonal(errors, 0)
    support = confusion.sum(axis=1)
    places = np.flatnonzero(errors)
    found = places[np.argsort(-errors.ravel()[places], kind="stable")][:limit]
    rows, columns = np.unravel_index(found, errors.shape)
    return tuple(
        Confusion(int(row), int(column), int(errors[row, column]), int(support[row]))
        for row, column in zip(rows, columns, strict=True)
    )
