"""Metrics of how well a score puts the images of one class before the others: ROC AUC and average precision.

The images are sorted once per class; weights (how often a resample holds each image) then give any number of resamples
from the same order. Scores that differ in the last bit are different scores; equal ones share their rank.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

PARTIAL_FPR = 0.1
"""Largest false positive rate of the partial AUC."""


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


@dataclass(frozen=True)
class RankedClass:
    """Metrics of rank of one class, (B,) each; NaN where one side has no weight."""

    roc_auc: Floats
    partial_roc_auc: Floats
    average_precision: Floats


def ranked_metrics(ranking: Ranking, weights: NDArray[np.integer]) -> RankedClass:
    """ROC AUC, partial AUC and average precision for each row of (B, N) weights.

    AUC is the share of pairs of an image of the class and another one that are in the right order, ties counting one
    half (Bamber 1975; Hanley and McNeil 1982): the midrank statistic. Average precision is the step sum
    Σ (R_i - R_{i-1}) P_i over the distinct scores, without interpolation, as in scikit-learn. The partial AUC is that
    of false positive rates up to `PARTIAL_FPR`, standardised to 0.5 for chance and 1 at best: McClish, "Analyzing a
    portion of the ROC curve", 1989.
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
    earlier = before - (found - fresh)  # false positives before each tie
    partial = _partial(earlier, through - found, found - fresh, fresh, positives, negatives) * both
    return RankedClass(auc, partial, average_precision)


def _partial(earlier: Ints, later: Ints, before: Ints, fresh: Ints, positives: Floats, negatives: Floats) -> Floats:
    """(B,) standardised area under the ROC curve left of `PARTIAL_FPR`.

    Each tie with images of the class is a segment of the curve from (earlier, before) to (later, before + fresh);
    between two of them, and after the last, the curve is flat.
    """
    limit = PARTIAL_FPR * negatives[:, None]
    start, end = np.minimum(earlier, limit), np.minimum(later, limit)
    width = np.maximum(later - earlier, 1)
    rise = fresh * (end - start) / width  # up to the limit
    ramps = (end - start) * (before + rise / 2)
    steps = np.where((later == earlier) & (earlier <= limit), fresh, 0) + np.where(later > earlier, fresh, 0)
    following = np.concatenate([np.minimum(earlier[:, 1:], limit), limit], axis=1)
    flats = (following - end) * (before + steps)
    scale = np.maximum(positives * negatives, 1)
    area = (ramps + flats).sum(axis=1) / scale
    least, most = PARTIAL_FPR**2 / 2, PARTIAL_FPR
    return np.asarray(0.5 * (1 + (area - least) / (most - least)))


def micro_metrics(blocks: Iterable[Floats], own: Floats) -> tuple[float, float]:
    """ROC AUC and average precision of all scores of all classes as one list, in which every image is once positive.

    The list is never held or sorted as a whole: each block is sorted, and the positives are looked up in it.

    Args:
        blocks: All N K scores, in any division.
        own: (N,) each image's score of its true class; these are among the blocks' scores, too.
    """
    own = np.sort(own)
    above, through = np.zeros(len(own), dtype=np.int64), np.zeros(len(own), dtype=np.int64)
    total = 0
    for block in blocks:
        ascending = np.sort(block, axis=None)
        above += len(ascending) - np.searchsorted(ascending, own, side="right")
        through += len(ascending) - np.searchsorted(ascending, own, side="left")
        total += len(ascending)
    n = len(own)
    found_above, found = n - np.searchsorted(own, own, side="right"), n - np.searchsorted(own, own, side="left")
    negatives = total - n
    twice_below = 2 * negatives - (above - found_above) - (through - found)
    return float(twice_below.sum() / (2.0 * n * negatives)), float((found / through).sum() / n)


def hand_till(columns: Iterable[Floats], targets: Ints, weights: NDArray[np.integer]) -> Floats:
    """(B,) mean over ordered pairs of classes (i, j) of the AUC of p_i between their images; pairs without images of
    both are left out.

    Hand and Till, "A simple generalisation of the area under the ROC curve for multiple class classification
    problems", Machine Learning 45, 2001, equation 7. It does not depend on the class shares.

    Args:
        columns: The (N,) probabilities of each class in turn.
        targets: (N,) true classes.
        weights: (B, N).
    """
    by_class = np.argsort(targets, kind="stable")
    present, starts = np.unique(targets[by_class], return_index=True)
    support = np.add.reduceat(weights[:, by_class], starts, axis=1).astype(np.float64)  # (B, classes present)
    sums, pairs = np.zeros(len(weights)), np.zeros(len(weights))
    for index, scores in enumerate(columns):
        if index not in present:
            continue
        own = int(np.searchsorted(present, index))
        above = np.add.reduceat((weights * _beaten(scores, targets == index, weights))[:, by_class], starts, axis=1)
        both = (support > 0) & (support[:, own, None] > 0)
        both[:, own] = False
        areas = np.divide(above, support * support[:, own, None], out=np.zeros_like(above), where=both)
        sums += areas.sum(axis=1)
        pairs += both.sum(axis=1)
    return np.asarray(np.divide(sums, pairs, out=np.full(len(weights), np.nan), where=pairs > 0))


def _beaten(scores: Floats, positive: NDArray[np.bool_], weights: NDArray[np.integer]) -> Floats:
    """(B, N) weight of the images of the class with a higher score than each image, those with its score half."""
    own = np.flatnonzero(positive)
    own = own[np.argsort(scores[own])]
    ascending = scores[own]
    sums = np.zeros((len(weights), len(own) + 1))
    np.cumsum(weights[:, own], axis=1, out=sums[:, 1:])
    until, below = np.searchsorted(ascending, scores, "right"), np.searchsorted(ascending, scores, "left")
    return np.asarray(sums[:, -1:] - (sums[:, until] + sums[:, below]) / 2)


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
    steps = called_by_score(scores, positive)
    if steps is None:
        return None
    found, called, thresholds = steps
    tpr = np.concatenate([[0.0], found / found[-1]])
    fpr = np.concatenate([[0.0], (called - found) / (called[-1] - found[-1])])
    return RocCurve(fpr, tpr, np.concatenate([[np.inf], thresholds]))


def precision_recall_curve(scores: Floats, positive: NDArray[np.bool_]) -> PrecisionRecallCurve | None:
    """The curve with one point per distinct score after (0, 1); None for a single class."""
    steps = called_by_score(scores, positive)
    if steps is None:
        return None
    found, called, _ = steps
    return PrecisionRecallCurve(np.concatenate([[0.0], found / found[-1]]), np.concatenate([[1.0], found / called]))


def called_by_score(scores: Floats, positive: NDArray[np.bool_]) -> tuple[Ints, Ints, Floats] | None:
    """For each distinct score, descending: images of the class, and of all, with at least that score; and the score.

    None when all images are of the class or none is.
    """
    if positive.all() or not positive.any():
        return None
    order = np.argsort(scores)[::-1]
    ends = tie_ends(scores[order])
    return np.cumsum(positive[order], dtype=np.int64)[ends], ends + 1, scores[order][ends]
