"""The ROC AUC of one class with its uncertainty: placements, DeLong's and Obuchowski's variances, and intervals.

The AUC is the share of pairs of an image of the class (a positive) and another one (a negative) that the score puts in
the right order, a tie counting one half. m positives, n negatives. Scores that differ in the last bit differ.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy.special
from numpy.typing import NDArray

from evalcam_cli.evaluation.estimates import Interval

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
AucMethod = Literal["score", "delong"]

TOO_FEW_IMAGES = "needs at least 2 images of the class and 2 of the others"
TOO_FEW_PATIENTS = "needs at least 2 patients with images of the class and 2 with others"
_Z = 1.959963984540054  # 97.5 % quantile of the standard normal distribution


@dataclass(frozen=True)
class Placements:
    """Where each image stands among those of the other side, in image order within each side.

    The structural components of DeLong, DeLong and Clarke-Pearson, "Comparing the areas under two or more correlated
    receiver operating characteristic curves", Biometrics 1988.
    """

    positives: Floats
    """(m,) share of the negatives that each positive beats, a tie counting one half; V10 of DeLong."""
    negatives: Floats
    """(n,) share of the positives that beat each negative, a tie counting one half; V01 of DeLong."""

    @property
    def auc(self) -> float:
        """Mean of either side, rounded once: the sum of `positives` times 2n is a whole number."""
        pairs = 2.0 * len(self.positives) * len(self.negatives)
        return float(np.rint(self.positives.sum() * (2.0 * len(self.negatives))) / pairs)


def placements(scores: Floats, positive: NDArray[np.bool_]) -> Placements | None:
    """Placements of (N,) finite scores; None when there are no positives or no negatives.

    The smaller side is sorted and the larger one looked up in it, O(N log min(m, n)).
    """
    positives, negatives = scores[positive], scores[~positive]
    if not len(positives) or not len(negatives):
        return None
    if len(positives) > len(negatives):
        few, many = _placements_of_few(-negatives, -positives)
        return Placements(many, few)
    return Placements(*_placements_of_few(positives, negatives))


def _placements_of_few(few: Floats, many: Floats) -> tuple[Floats, Floats]:
    """Share of `many` below each of `few`, and share of `few` above each of `many`, ties counting one half."""
    order = np.argsort(few, kind="stable")
    ordered = few[order]
    smaller = np.searchsorted(ordered, many)  # how many of `few` are below each of `many`
    tied = np.flatnonzero(ordered[np.minimum(smaller, len(few) - 1)] == many)
    twice = 2 * smaller  # twice those below, and once those that are equal
    through = smaller.copy()
    through[tied] = np.searchsorted(ordered, many[tied], side="right")
    twice[tied] += through[tied] - smaller[tied]
    # One of `few` whose run of equals ends at `end` is below those of `many` with smaller >= end, and below or equal
    # to those with through >= end.
    ends = np.searchsorted(ordered, ordered, side="right")
    above = _at_least(smaller, ends, len(few)) + _at_least(through, ends, len(few))
    beaten = np.empty(len(few))
    beaten[order] = (2 * len(many) - above) / (2.0 * len(many))
    return beaten, (2 * len(few) - twice) / (2.0 * len(few))


def _at_least(values: Ints, limits: Ints, highest: int) -> Ints:
    """How many of the `values`, from 0 to `highest`, are at least each limit."""
    counts = np.bincount(values, minlength=highest + 1)
    return np.cumsum(counts[::-1])[::-1][limits].astype(np.int64)


def delong_covariance(a: Placements, b: Placements) -> float:
    """Covariance of two AUCs on the same images: s(V10a, V10b)/m + s(V01a, V01b)/n; DeLong 1988, equations 4 to 6.

    NaN with fewer than 2 positives or 2 negatives.
    """
    return _half_covariance(a.positives, b.positives) + _half_covariance(a.negatives, b.negatives)


def delong_variance(placed: Placements) -> float:
    """Variance of the AUC; NaN with fewer than 2 positives or 2 negatives."""
    return delong_covariance(placed, placed)


def _half_covariance(a: Floats, b: Floats) -> float:
    count = len(a)
    if count < 2:
        return float("nan")
    return float(((a - a.mean()) * (b - b.mean())).sum() / (count - 1) / count)


def clustered_covariance(a: Placements, b: Placements, positive_groups: Ints, negative_groups: Ints) -> float:
    """Covariance of two AUCs on the same images when the images of a patient depend on each other.

    Obuchowski, "Nonparametric analysis of clustered ROC curve data", Biometrics 1997. With a_i and b_i the sums of
    V10 - AUC and V01 - AUC over the M positives and N negatives of patient i, of I patients, I10 with positives and I01
    with negatives: S10/M + S01/N + (S11 + S11')/(MN), S10 = I10/((I10-1)M) sum a_i a_i', S01 likewise,
    S11 = I/(I-1) sum a_i b_i', where ' marks the second score. Patients may have images of both sides. Where every
    patient has one image it is DeLong's covariance, for then I10 = M, I01 = N and S11 = 0.

    Args:
        a: Placements by the first score.
        b: Placements by the second one; the same object for a variance.
        positive_groups: (M,) non-negative patient codes of the positives, in image order.
        negative_groups: (N,) the same of the negatives.

    Returns:
        The covariance; NaN with fewer than 2 patients on one side. A variance may come out negative when patients have
        images of both sides and these err in opposite directions.
    """
    size = 1 + max(int(positive_groups.max()), int(negative_groups.max()))
    with_positives, with_negatives = np.zeros((2, size), dtype=np.bool_)
    with_positives[positive_groups] = True
    with_negatives[negative_groups] = True
    counts = int(with_positives.sum()), int(with_negatives.sum()), int((with_positives | with_negatives).sum())
    if min(counts) < 2:
        return float("nan")
    a10, b10 = (_sums(placed.positives, positive_groups, size) for placed in (a, b))
    a01, b01 = (_sums(placed.negatives, negative_groups, size) for placed in (a, b))
    m, n = len(positive_groups), len(negative_groups)
    positive, negative, both = (count / (count - 1) for count in counts)
    crossed = both * float((a10 * b01).sum() + (b10 * a01).sum()) / m / n
    return positive * float((a10 * b10).sum()) / m**2 + negative * float((a01 * b01).sum()) / n**2 + crossed


def _sums(values: Floats, groups: Ints, size: int) -> Floats:
    sums: Floats = np.bincount(groups, weights=values - values.mean(), minlength=size).astype(np.float64, copy=False)
    return sums


def auc_interval(
    placed: Placements, *, method: AucMethod = "score", groups: tuple[Ints, Ints] | None = None
) -> Interval:
    """The 95 % interval of an AUC."""
    if groups is None:
        if min(len(placed.positives), len(placed.negatives)) < 2:
            return Interval(note=TOO_FEW_IMAGES)
        variance = delong_variance(placed)
    else:
        variance = max(clustered_covariance(placed, placed, *groups), 0.0)
        if math.isnan(variance):
            return Interval(note=TOO_FEW_PATIENTS)
    if method == "delong":
        return _wald(placed.auc, variance, "delong" if groups is None else "obuchowski_wald")
    return _provisional(placed.auc, variance, len(placed.positives), len(placed.negatives), groups is not None)


def _wald(auc: float, variance: float, method: str) -> Interval:
    half = _Z * math.sqrt(variance)
    return Interval(max(auc - half, 0.0), min(auc + half, 1.0), method)


def _provisional(auc: float, variance: float, m: int, n: int, clustered: bool) -> Interval:
    shrunk = (auc * m * n + 0.5) / (m * n + 1)
    error = math.sqrt(max(variance, shrunk * (1 - shrunk) / (m * n))) / (shrunk * (1 - shrunk))
    centre, half = math.log(shrunk / (1 - shrunk)), float(scipy.special.stdtrit(min(m, n) - 1, 0.975)) * error
    low, high = (1 / (1 + math.exp(-x)) for x in (centre - half, centre + half))
    return Interval(low, high, "obuchowski" if clustered else "score")
