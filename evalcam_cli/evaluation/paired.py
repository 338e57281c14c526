"""Two classifiers on the same images: McNemar's test, Newcombe's interval, DeLong's test; by patient where there are.

Every difference is B minus A. Undefined is None with a reason.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy.special
import scipy.stats
from numpy.typing import NDArray

from evalcam_cli.evaluation.auc import (
    TOO_FEW_IMAGES,
    TOO_FEW_PATIENTS,
    Placements,
    clustered_covariance,
    delong_variance,
)
from evalcam_cli.evaluation.clustered import ONE_PATIENT, clustered_limits, effective_number
from evalcam_cli.evaluation.estimates import Interval
from evalcam_cli.evaluation.intervals import Z, wilson
from evalcam_cli.evaluation.swaps import PERMUTATIONS, mean_swaps

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
McNemar = Literal["auto", "exact", "midp"]

FEW_DISCORDANT = 25
"""Discordant images below which `auto` takes the exact test."""
ONE_SIDED = "all images are of one class, or none is"
_NO_SPREAD = "the variance of the difference is estimated as 0"
_NEGLIGIBLE = 1e-15  # standard error that is nothing but rounding


@dataclass(frozen=True)
class Tested:
    """A difference, B minus A, with its interval and the test of no difference."""

    difference: float | None
    interval: Interval
    p_value: float | None
    test: str
    """Which test: `mcnemar_exact`, `delong`, …"""
    statistic: float | None = None
    """Z or t, where the test has one."""
    reason: str | None = None
    """Why the difference, or else the p-value, is None."""
    discordant: tuple[int, int] | None = None
    """For a proportion: images that only A gets right, and that only B does."""


def undefined(reason: str) -> Tested:
    """No difference, for a reason."""
    return Tested(None, Interval(), None, "none", reason=reason)


def mcnemar(only_a: int, only_b: int, method: McNemar = "auto") -> tuple[float, str]:
    """The p-value of equal proportions on the same images, and which test gave it.

    Under equality each of the d discordant images is A's or B's with chance 1/2. Exact: twice the smaller tail of
    Binomial(d, 1/2), at most 1 (McNemar, "Note on the sampling error of the difference between correlated proportions
    or percentages", Psychometrika 1947). Mid-p: the same less the chance of the count found, which is less
    conservative (Fagerland, Lydersen and Laake, "The McNemar test for binary matched-pairs data", BMC Medical Research
    Methodology 2013). `auto` is exact below 25 discordant images and mid-p from there. No discordant image gives
    p = 1. The chi-squared form is not offered: with few discordant images it is wrong.
    """
    discordant, fewer = only_a + only_b, min(only_a, only_b)
    exact = method == "exact" or (method == "auto" and discordant < FEW_DISCORDANT)
    name = "mcnemar_exact" if exact else "mcnemar_midp"
    if not discordant:
        return 1.0, name
    p = 2 * float(scipy.special.bdtr(fewer, discordant, 0.5))
    if not exact:
        p -= float(scipy.stats.binom.pmf(fewer, discordant, 0.5))
    return min(p, 1.0), name


def newcombe_paired(both: int, only_a: int, only_b: int, neither: int) -> Interval:
    """The interval of the difference of two proportions on the same images; empty without images.

    Newcombe, "Improved confidence intervals for the difference between binomial proportions based on paired data",
    Statistics in Medicine 1998, method 10: the Wilson limits of both proportions, joined by their correlation
    phi = (eh - fg) / sqrt((e+f)(g+h)(e+g)(f+h)), where a positive eh - fg is lowered by n/2 but not below 0, and phi is
    0 when a margin is 0.
    """
    n = both + only_a + only_b + neither
    if not n:
        return Interval()
    right_a, right_b = both + only_a, both + only_b
    margins = float(right_a) * (n - right_a) * float(right_b) * (n - right_b)
    excess = float(both * neither - only_a * only_b)
    excess = max(excess - n / 2, 0.0) if excess > 0 else excess
    phi = excess / math.sqrt(margins) if margins else 0.0
    low, high = joined_limits(right_a / n, wilson(right_a, n), right_b / n, wilson(right_b, n), phi)
    return Interval(low, high, "newcombe_paired")


def joined_limits(
    a: float, limits_a: tuple[Floats, Floats], b: float, limits_b: tuple[Floats, Floats], correlation: float = 0.0
) -> tuple[float, float]:
    """Limits of b - a from the limits of a and of b (Newcombe 1998; Zou and Donner, Statistics in Medicine 2008)."""
    (low_a, high_a), (low_b, high_b) = (tuple(map(float, limits)) for limits in (limits_a, limits_b))

    def reach(one: float, other: float) -> float:
        return math.sqrt(max(one**2 + other**2 - 2 * correlation * one * other, 0.0))

    return max(b - a - reach(b - low_b, high_a - a), -1.0), min(b - a + reach(high_b - b, a - low_a), 1.0)


def compare_proportions(
    hits_a: Bools, hits_b: Bools, *, groups: Ints | None = None, method: McNemar = "auto", seed: int = 0,
    permutations: int = PERMUTATIONS,
) -> Tested:  # fmt: skip
    """Compare the shares of hits among the same (N,) images: accuracy, or recall among the images of a class.

    Independent images: McNemar's test and Newcombe's interval. With groups, several images of a patient: the outcomes
    of A and B are swapped for whole patients (`swaps`), and the interval joins the clustered Wilson limits of both
    (`clustered_limits`) by the correlation of their patients' residuals. Where every patient has one image these are
    the same as without patients, except that the p-value is McNemar's again.
    """
    n = len(hits_a)
    if not n:
        return undefined("no images to count")
    only_a, only_b = int((hits_a & ~hits_b).sum()), int((hits_b & ~hits_a).sum())
    difference = (only_b - only_a) / n
    if groups is None or len(np.unique(groups)) == n:
        both = int((hits_a & hits_b).sum())
        p, name = mcnemar(only_a, only_b, method)
        interval = newcombe_paired(both, only_a, only_b, n - both - only_a - only_b)
        return Tested(difference, interval, p, name, discordant=(only_a, only_b))
    p, name = mean_swaps(hits_b.astype(np.float64) - hits_a, groups=groups, seed=seed, permutations=permutations)
    return Tested(difference, _clustered_interval(hits_a, hits_b, groups), p, name, discordant=(only_a, only_b))


def _clustered_interval(hits_a: Bools, hits_b: Bools, groups: Ints) -> Interval:
    _, codes = np.unique(groups, return_inverse=True)
    trials = np.bincount(codes).astype(np.float64)
    if len(trials) < 2:
        return Interval(note=ONE_PATIENT)
    sums = [np.bincount(codes, weights=hits).astype(np.float64) for hits in (hits_a, hits_b)]
    shares = [float(hits.sum() / trials.sum()) for hits in sums]
    residual_a, residual_b = (hits - trials * share for hits, share in zip(sums, shares, strict=True))
    spread = math.sqrt(float((residual_a**2).sum() * (residual_b**2).sum()))
    correlation = float((residual_a * residual_b).sum()) / spread if spread else 0.0
    limits_a, limits_b = (clustered_limits(hits, trials) for hits in sums)
    low, high = joined_limits(shares[0], limits_a, shares[1], limits_b, correlation)
    return Interval(low, high, "clustered_newcombe_paired")


def compare_auc(a: Placements | None, b: Placements | None, sides: tuple[Ints, Ints] | None = None) -> Tested:
    """DeLong's test of equal AUCs on the same images, and its interval; equal to pROC's.

    Z = (B - A) / sqrt(v), v the variance of the difference by DeLong, DeLong and Clarke-Pearson, Biometrics 1988,
    equation 5, which is the variance of the difference of the placements. With patients v is Obuchowski's (Biometrics
    1997), and Z is held against Student's t with one degree less than the patients on the side with fewer.

    Args:
        a: Placements by A's scores; None when all images are of one class.
        b: Placements of the same images by B's scores.
        sides: Patient codes of the positives and of the negatives.
    """
    if a is None or b is None:
        return undefined(ONE_SIDED)
    change = Placements(b.positives - a.positives, b.negatives - a.negatives)
    if sides is None or len(np.unique(np.concatenate(sides))) == sum(map(len, sides)):
        return _wald(b.auc - a.auc, delong_variance(change), math.inf, "delong", TOO_FEW_IMAGES)
    freedom = min(len(np.unique(side)) for side in sides) - 1
    variance = clustered_covariance(change, change, *sides) if freedom else math.nan
    return _wald(b.auc - a.auc, variance, freedom, "obuchowski", TOO_FEW_PATIENTS)


def compare_macro_auc(changes: Sequence[tuple[float, Floats]], groups: Ints | None = None) -> Tested:
    """Test equal means, over the classes, of the one-versus-rest AUC on the same images.

    An image moves the AUC of a class by (V10 - AUC)/m as one of its m positives and by (V01 - AUC)/n as one of its n
    negatives (`auc_influence`). Its moves in all classes are added, and the variance is G/(G-1) times the sum over
    patients (or images) of their squared sums. This holds the covariances between the classes, which DeLong's formula
    has for pairs of AUCs.

    Args:
        changes: For each class with images on both sides, the difference of the AUCs and the (N,) influence on it.
        groups: (N,) patients.
    """
    if not changes:
        return undefined(ONE_SIDED)
    difference = sum(change for change, _ in changes) / len(changes)
    influence = sum((moved for _, moved in changes), np.zeros_like(changes[0][1])) / len(changes)
    variance, units = influence_variance(influence, groups)
    name = "delong_macro" if groups is None else "clustered_delong_macro"
    return _wald(difference, variance, units - 1, name, "needs at least 2 images (patients)")


def auc_influence(placed: Placements, positive: Bools) -> Floats:
    """(N,) by how much each image moves the AUC; sums to 0 on either side."""
    influence = np.empty(len(positive))
    influence[positive] = (placed.positives - placed.positives.mean()) / len(placed.positives)
    influence[~positive] = (placed.negatives - placed.negatives.mean()) / len(placed.negatives)
    return influence


def influence_variance(influence: Floats, groups: Ints | None = None) -> tuple[float, float]:
    """Variance of a number with these (N,) influences, and how many patients (images) it rests on; NaN below 2.

    Patients count by their `effective_number`.
    """
    if groups is None:
        sums, units = influence, float(len(influence))
    else:
        sums = np.bincount(groups, weights=influence).astype(np.float64)
        units = float(effective_number(np.bincount(groups)))
    return (float((sums**2).sum()) * units / (units - 1) if units > 1.5 else math.nan), units


def _wald(difference: float, variance: float, freedom: float, name: str, too_few: str) -> Tested:
    """Difference, interval and p-value of a normal (or Student's t) statistic, with its edges."""
    if math.isnan(variance):
        return Tested(difference, Interval(note=too_few), None, name, reason=too_few)
    error = math.sqrt(max(variance, 0.0))
    if error <= _NEGLIGIBLE:
        same = abs(difference) <= _NEGLIGIBLE
        interval = Interval(note=_NO_SPREAD)
        return Tested(0.0 if same else difference, interval, 1.0 if same else None, name, 0.0 if same else None,
                      None if same else _NO_SPREAD)  # fmt: skip
    statistic = difference / error
    normal = math.isinf(freedom)
    quantile = Z if normal else float(scipy.special.stdtrit(freedom, 0.975))
    tail = scipy.special.ndtr(-abs(statistic)) if normal else scipy.special.stdtr(freedom, -abs(statistic))
    low, high = max(difference - quantile * error, -1.0), min(difference + quantile * error, 1.0)
    return Tested(difference, Interval(low, high, name), 2 * float(tail), name, statistic)


def compare_apart(
    a: float, variance_a: float, b: float, variance_b: float, parts: Sequence[tuple[float, float]], name: str
) -> Tested:
    """Test equality of two numbers from independent sets of images, with Satterthwaite's degrees of freedom.

    t = (B - A) / sqrt(v_a + v_b) on (Σ v_i)² / Σ v_i²/(n_i - 1) degrees of freedom.

    Args:
        a: Of the first set.
        variance_a: Of `a`.
        b: Of the second set.
        variance_b: Of `b`.
        parts: (v_i, n_i) of the variances as the data give them, and the images (patients) behind each.
        name: Of the test.
    """
    known = sum(v for v, _ in parts)
    spread = sum(v**2 / (n - 1) if n > 1 else math.nan for v, n in parts)
    freedom = known**2 / spread if spread else math.inf
    return _wald(b - a, variance_a + variance_b, freedom, name, TOO_FEW_IMAGES)
