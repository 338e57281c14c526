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

from evalcam_cli.evaluation.clustered import effective_number
from evalcam_cli.evaluation.estimates import Interval
from evalcam_cli.evaluation.intervals import Z

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
AucMethod = Literal["score", "delong"]

TOO_FEW_IMAGES = "needs at least 2 images of the class and 2 of the others"
TOO_FEW_PATIENTS = "needs at least 2 patients with images of the class and 2 with others"
_VOTES = 2.0  # patients, one on each side, that speak for the worst dependence


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
    order = np.argsort(few)
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
    patient has one image it is DeLong's covariance exactly, for then I10 = M, I01 = N and S11 = 0.

    Args:
        a: Placements by the first score.
        b: Placements by the second one; the same object for a variance.
        positive_groups: (M,) patient codes of the positives, whole numbers from 0, in image order.
        negative_groups: (N,) the same of the negatives.

    Returns:
        The covariance; NaN with fewer than 2 patients on one side. A variance is not negative but by rounding: I/(I-1)
        is at most I10/(I10-1) and I01/(I01-1).
    """
    return sum(_clustered_parts(a, b, positive_groups, negative_groups))


def _clustered_parts(a: Placements, b: Placements, positives: Ints, negatives: Ints) -> tuple[float, float, float]:
    """S10/M, S01/N and (S11 + S11')/(MN) of Obuchowski 1997."""
    size = 1 + max(int(positives.max()), int(negatives.max()))
    has_positives = np.bincount(positives, minlength=size) > 0
    has_negatives = np.bincount(negatives, minlength=size) > 0
    counts = (int(has_positives.sum()), int(has_negatives.sum()), int((has_positives | has_negatives).sum()))
    if min(counts) < 2:
        return math.nan, math.nan, math.nan
    a10, b10 = (_sums(placed.positives, positives, size) for placed in (a, b))
    a01, b01 = (_sums(placed.negatives, negatives, size) for placed in (a, b))
    m, n = len(positives), len(negatives)
    positive, negative, either = (count / (count - 1) for count in counts)
    crossed = either * float((a10 * b01).sum() + (b10 * a01).sum()) / m / n
    return positive * float((a10 * b10).sum()) / m**2, negative * float((a01 * b01).sum()) / n**2, crossed


def _sums(values: Floats, groups: Ints, size: int) -> Floats:
    """Sum of the deviations from the mean in each group."""
    return np.bincount(groups, weights=values - values.mean(), minlength=size).astype(np.float64, copy=False)


def auc_interval(
    placed: Placements, *, method: AucMethod = "score", groups: tuple[Ints, Ints] | None = None
) -> Interval:
    """The 95 % interval of an AUC, by `score_limits` or, with `delong`, as pROC has it: AUC ± z S^(1/2) within [0, 1].

    DeLong's interval covers too little with few images or a high AUC (docs/coverage.md), and has no width at 0 or 1.

    Args:
        placed: The placements of the images.
        method: `score` or `delong`.
        groups: Patient codes of the positives and of the negatives, as in `clustered_covariance`; None when every
            image stands for itself.
    """
    found = evidence(placed, groups)
    variance = float(found.variance)
    if math.isnan(variance):
        return Interval(note=TOO_FEW_IMAGES if groups is None else TOO_FEW_PATIENTS)
    if method == "delong":
        half = Z * math.sqrt(variance)
        note = None if half else "no width: the variance is estimated as 0 when all pairs are in order"
        low, high = max(placed.auc - half, 0.0), min(placed.auc + half, 1.0)
        return Interval(low, high, "delong" if groups is None else "obuchowski", note)
    limits = score_limits(found)
    return Interval(float(limits[0]), float(limits[1]), "delong_score" if groups is None else "obuchowski_score")


@dataclass(frozen=True)
class Evidence:
    """What the score interval of an AUC rests on: arrays that broadcast, () for one AUC."""

    auc: Floats
    variance: Floats
    """DeLong's or Obuchowski's, not negative."""
    parts: tuple[Floats, Floats]
    """The parts of the variance that come from the positives and from the negatives."""
    images: tuple[Floats, Floats]
    """m and n."""
    patients: tuple[Floats, Floats]
    """`effective_number` of patients with positives and with negatives; m and n without patients."""
    imperfect: Floats
    """Patients, or images, that the variance is learnt from: those not perfectly placed, of the side with fewer."""


def evidence(placed: Placements, groups: tuple[Ints, Ints] | None = None) -> Evidence:
    """The evidence of one score; the variance is NaN with fewer than 2 images or patients on a side."""
    sides = placed.positives, placed.negatives
    images = np.float64(len(sides[0])), np.float64(len(sides[1]))
    patients, crossed = images, 0.0
    if groups is None:
        positive, negative = (_half_covariance(side, side) for side in sides)
    else:
        positive, negative, crossed = _clustered_parts(placed, placed, *groups)
        first, second = (np.float64(effective_number(np.bincount(codes))) for codes in groups)
        patients = first, second
    codes = groups or (None, None)
    imperfect = min(_imperfect(side, group) for side, group in zip(sides, codes, strict=True))
    numbers = (placed.auc, np.maximum(positive + negative + crossed, 0), positive, negative, *images, *patients)
    auc, variance, x, y, *sizes = (np.asarray(number) for number in numbers)
    m, n, k, j = sizes
    return Evidence(auc, variance, (x, y), (m, n), (k, j), np.asarray(imperfect, dtype=np.float64))


def _imperfect(side: Floats, groups: Ints | None) -> int:
    """Patients (or images) of a side that are not above all of the other side, or not below all: the fewer of both."""
    misplaced = side < 1, side > 0
    if groups is None:
        return min(int(np.count_nonzero(mask)) for mask in misplaced)
    return min(int(np.count_nonzero(np.bincount(groups[mask]))) for mask in misplaced)


def score_limits(found: Evidence) -> tuple[Floats, Floats]:
    """Limits of the AUC by a score interval whose variance is the larger of a model's and the data's.

    All values T that the estimate A does not contradict: (A - T)^2 <= z^2 F V(T), where V is the variance that a model
    gives to an AUC of T (`model_variance`), so that the interval is asymmetric, stays within [0, 1] and has a width at
    A = 1. Newcombe, "Confidence intervals for an effect size measure based on the Mann-Whitney statistic. Part 2",
    Statistics in Medicine 2006, method 5, is this with F = 1 and another V. The data widen it by

        F = max(1, (t/z)^2 S' / V(A')),  S' = (k S + 2 max(S, V_p(A'))) / (k + 2),  A' = (mnA + 1/2) / (mn + 1)

    with S DeLong's or Obuchowski's variance, t the 97.5 % quantile of Student's distribution with Satterthwaite's
    degrees of freedom as in Brunner and Munzel, Biometrical Journal 2000, k the patients that S is learnt from
    (`imperfect`), and V_p the model's variance if all images of a patient were alike: V with the effective numbers of
    patients for m and n. Two patients, one on each side, thus vote for the worst dependence, which decides when few
    are misordered. Without patients V_p = V. V, F and the votes are ours, chosen by simulation: docs/coverage.md.
    """
    m, n = found.images
    shrunk = scipy.special.ndtri((found.auc * m * n + 0.5) / (m * n + 1))
    expected = model_variance(shrunk, m, n)
    inflation = np.maximum(1.0, (_t_quantile(found) / Z) ** 2 * voted_variance(found) / expected)
    return _solve(found.auc, shrunk, inflation, m, n)


def voted_variance(found: Evidence) -> Floats:
    """S' of `score_limits`: the variance of the data, with two votes for the model's where that is larger."""
    m, n = found.images
    shrunk = scipy.special.ndtri((found.auc * m * n + 0.5) / (m * n + 1))
    alike = model_variance(shrunk, *found.patients)
    votes = found.imperfect * found.variance + _VOTES * np.maximum(found.variance, alike)
    return np.asarray(votes / (found.imperfect + _VOTES))


def _t_quantile(found: Evidence) -> Floats:
    """97.5 % quantile of Student's t, (x + y)^2 / (x^2/(K-1) + y^2/(L-1)) degrees of freedom; z without variance."""
    (x, y), (k, n) = found.parts, found.patients
    known = x + y > 0
    slack = x**2 / np.maximum(k - 1, 1) + y**2 / np.maximum(n - 1, 1)
    freedom = np.where(known, x + y, 1) ** 2 / np.where(known, slack, 1)
    quantile: Floats = np.where(known, scipy.special.stdtrit(np.maximum(freedom, 1), 0.975), Z)
    return quantile


def model_variance(probit: Floats, m: Floats, n: Floats) -> Floats:
    """Variance of an AUC of T = Phi(h) with m positives and n negatives: two thirds normal, one third exponential.

    For any continuous scores it is (T(1-T) + (m-1) c + (n-1) c') / (mn), with c the chance that one negative is below
    two positives, less T^2, and c' the chance that one positive is above two negatives, less T^2 (Bamber, "The area
    above the ordinal dominance graph", Journal of Mathematical Psychology 1975). For normal scores of equal variance
    c = c' = T - T^2 - 2 O(h, 3^(-1/2)) with Owen's function O. For exponential ones (Hanley and McNeil, Radiology 1982)
    Newcombe's method 5 takes the mean of both, (c + c')/2 = T(1-T) (1 - 3 / (2 (2-T)(1+T))). Near 1 the first falls
    faster than the second, and which is nearer to the truth is unknown.

    Args:
        probit: h, of any shape.
        m: Positives; may be a fraction (effective numbers).
        n: Negatives.
    """
    auc, spread = scipy.special.ndtr(probit), scipy.special.ndtr(probit) * scipy.special.ndtr(-probit)
    normal = spread - 2 * scipy.special.owens_t(probit, 3**-0.5)
    exponential = spread * (1 - 1.5 / ((2 - auc) * (1 + auc)))
    shared: Floats = (spread + (m + n - 2) * (2 * normal + exponential) / 3) / (m * n)
    return shared


def _solve(auc: Floats, start: Floats, inflation: Floats, m: Floats, n: Floats) -> tuple[Floats, Floats]:
    """Both ends of {T: (A - T)^2 <= z^2 F V(T)}, to 1e-14, by false position (Illinois rule) on the probit of T.

    `start` is the probit of a value inside.
    """
    sides = np.array([1.0, -1.0]).reshape(2, *[1] * np.ndim(auc))  # below the estimate, above it
    inner, outer = start, -9.0 * sides

    def excess(probit: Floats) -> Floats:
        distance: Floats = sides * (auc - scipy.special.ndtr(probit))
        return distance - Z * np.sqrt(inflation * model_variance(probit, m, n))

    inside, outside = excess(inner), excess(outer)  # negative, positive
    open_ended = np.stack([auc <= 0, auc >= 1])
    was_outside = np.zeros(inside.shape, dtype=np.bool_)
    limits = outer
    for step in range(200):
        span = outside - inside
        limits = outer - outside * (outer - inner) / np.where(span > 0, span, 1)
        found = excess(limits)
        if np.abs(np.where(open_ended, 0, found)).max() <= 1e-14:
            break
        is_outside = found > 0
        again = (is_outside == was_outside) & (step > 0)  # the other end stays a second time: halve its weight
        outer, inner = np.where(is_outside, limits, outer), np.where(is_outside, inner, limits)
        outside = np.where(is_outside, found, np.where(again, outside / 2, outside))
        inside = np.where(is_outside, np.where(again, inside / 2, inside), found)
        was_outside = is_outside
    low, high = scipy.special.ndtr(limits)
    low, high = np.where(auc > 0, low, 0.0), np.where(auc < 1, high, 1.0)
    return low, high
