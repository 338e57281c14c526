"""Metrics of how well a score puts the images of one class before the others: ROC AUC and average precision.

The images are sorted once per class; weights (how often a resample holds each image) then give any number of resamples
from the same order. Scores that differ in the last bit are different scores; equal ones share their rank.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Ranking:
    """N images from the highest score to the lowest, and where among them those of the class stand.

    A tie is a run of equal scores; only ties with at least one image of the class matter, T of them.
    """

    order: Ints
    """(N,) image indices, highest score first."""
    positives: Ints
    """(P,) indices of the images of the class, highest score first."""
    last: Ints
    """(T,) position in `positives` of each tie's last image."""
    before: Ints
    """(T,) images ranked before each tie."""
    through: Ints
    """(T,) images ranked before or in each tie."""


def rank(scores: Floats, positive: NDArray[np.bool_]) -> Ranking:
    """Sort (N,) finite scores once; `positive` marks the images of the class."""
    order = np.argsort(scores)[::-1]
    ends = tie_ends(scores[order])
    places = np.flatnonzero(positive[order])
    ties = np.searchsorted(ends, places)  # which tie each image of the class is in
    last = np.flatnonzero(np.diff(ties, append=len(ends)))
    starts = np.concatenate([[0], ends[:-1] + 1])
    held = ties[last]
    return Ranking(order, order[places], last, starts[held], ends[held] + 1)


def tie_ends(descending: Floats) -> Ints:
    """Positions of the last of each run of equal values in a sorted (N,) array."""
    return np.flatnonzero(np.append(descending[1:] != descending[:-1], True))


def auc_and_average_precision(ranking: Ranking, weights: NDArray[np.integer]) -> tuple[Floats, Floats]:
    """ROC AUC and average precision for each row of (B, N) weights; NaN where one side has no weight.

    AUC is the share of pairs of an image of the class and another one that are in the right order, ties counting one
    half (Bamber 1975; Hanley and McNeil 1982): the midrank statistic. Average precision is the step sum
    Σ (R_i - R_{i-1}) P_i over the distinct scores, without interpolation, as in scikit-learn.
    """
    total = np.zeros((len(weights), len(ranking.order) + 1), dtype=np.int64)
    np.cumsum(weights[:, ranking.order], axis=1, out=total[:, 1:])
    before, through = total[:, ranking.before], total[:, ranking.through]
    found = np.cumsum(weights[:, ranking.positives], axis=1, dtype=np.int64)[:, ranking.last]  # in or before each tie
    fresh = np.diff(found, axis=1, prepend=0)  # in each tie
    positives = fresh.sum(axis=1).astype(np.float64)
    negatives = total[:, -1] - positives
    # Twice the others ranked below each image of the class; integers, so nothing is lost.
    below = 2 * negatives.astype(np.int64)[:, None] - (before - (found - fresh)) - (through - found)
    both = np.where((positives > 0) & (negatives > 0), 1.0, np.nan)
    pairs = np.maximum(2 * positives * negatives, 1)
    auc = (fresh * below).sum(axis=1) / pairs * both
    precision = found / np.maximum(through, 1)  # nothing found yet where no image has weight
    average_precision = (fresh * precision).sum(axis=1) / np.maximum(positives, 1) * both
    return auc, average_precision


@dataclass(frozen=True)
class RocCurve:
    """Points of the ROC curve of one class, from (0, 0) to (1, 1); `score >= threshold` is called positive."""

    fpr: Floats
    tpr: Floats
    thresholds: Floats
    """Every distinct score, descending, after infinity."""


@dataclass(frozen=True)
class PrecisionRecallCurve:
    """Points of the precision-recall curve of one class by rising recall; average precision is its step area."""

    recall: Floats
    precision: Floats


def roc_curve(scores: Floats, positive: NDArray[np.bool_]) -> RocCurve | None:
    """The ROC curve with all its points, as scikit-learn's with `drop_intermediate=False`; None for a single class."""
    steps = _steps(scores, positive)
    if steps is None:
        return None
    found, called, thresholds = steps
    tpr = np.concatenate([[0.0], found / found[-1]])
    fpr = np.concatenate([[0.0], (called - found) / (called[-1] - found[-1])])
    return RocCurve(fpr, tpr, np.concatenate([[np.inf], thresholds]))


def precision_recall_curve(scores: Floats, positive: NDArray[np.bool_]) -> PrecisionRecallCurve | None:
    """The curve with one point per distinct score after (0, 1); None for a single class."""
    steps = _steps(scores, positive)
    if steps is None:
        return None
    found, called, _ = steps
    return PrecisionRecallCurve(np.concatenate([[0.0], found / found[-1]]), np.concatenate([[1.0], found / called]))


def _steps(scores: Floats, positive: NDArray[np.bool_]) -> tuple[Ints, Ints, Floats] | None:
    """For each distinct score, descending: images of the class, and of all, with at least that score; and the score."""
    if positive.all() or not positive.any():
        return None
    order = np.argsort(scores)[::-1]
    ends = tie_ends(scores[order])
    return np.cumsum(positive[order], dtype=np.int64)[ends], ends + 1, scores[order][ends]
