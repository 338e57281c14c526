"""95 % intervals of independent images: proportions, likelihood ratios, and the percentiles of a bootstrap."""

import math
from typing import Literal

import numpy as np
import scipy.special
from numpy.typing import ArrayLike, NDArray

from evalcam_cli.evaluation.estimates import Interval

Floats = NDArray[np.float64]
ProportionMethod = Literal["wilson", "clopper_pearson"]
BootstrapMethod = Literal["bootstrap", "patient_bootstrap"]

WILSON: ProportionMethod = "wilson"
SIMEL = "simel"
Z = 1.959963984540054
"""97.5 % quantile of the standard normal distribution."""
_MAX_UNDEFINED = 0.05  # share of resamples without a value above which an interval would hide them


def wilson(successes: ArrayLike, trials: ArrayLike, quantile: ArrayLike = Z) -> tuple[Floats, Floats]:
    """Limits of a binomial proportion; NaN for 0 trials, never outside [0, 1].

    (p + z²/2n ± z √(p(1-p)/n + z²/4n²)) / (1 + z²/n): Wilson 1927; method 3 in Newcombe, "Two-sided confidence
    intervals for the single proportion: comparison of seven methods", Statistics in Medicine 1998. `quantile` is z.
    """
    k, n = np.broadcast_arrays(successes, trials)
    n = np.where(n > 0, n, np.nan)
    p = k / n
    z = np.asarray(quantile)
    centre = p + z**2 / (2 * n)
    half = z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    scale = 1 + z**2 / n
    low = np.where(k == 0, n - n, np.maximum((centre - half) / scale, 0))  # exactly 0 and 1 at the ends, or NaN
    high = np.where(k == n, n / n, np.minimum((centre + half) / scale, 1))
    return low, high


def clopper_pearson(successes: ArrayLike, trials: ArrayLike) -> tuple[Floats, Floats]:
    """The exact limits of a binomial proportion: never covers less than 95 %; NaN for 0 trials.

    Quantiles 0.025 of Beta(k, n - k + 1) and 0.975 of Beta(k + 1, n - k): Clopper and Pearson, "The use of confidence
    or fiducial limits illustrated in the case of the binomial", Biometrika 1934. Fractions of successes are allowed.
    """
    k, n = np.broadcast_arrays(successes, trials)
    n = np.where(n > 0, n, np.nan)
    low = np.where(k > 0, scipy.special.betaincinv(k, n - k + 1, 0.025), n - n)
    high = np.where(k < n, scipy.special.betaincinv(k + 1, n - k, 0.975), n / n)
    return low, high


def proportion_interval(successes: float, trials: float, method: ProportionMethod = "wilson") -> Interval:
    """The interval of one proportion by either method; empty for 0 trials."""
    if not trials:
        return Interval()
    low, high = (wilson if method == WILSON else clopper_pearson)(successes, trials)
    return Interval(float(low), float(high), method)


def wilson_interval(successes: float, trials: float) -> Interval:
    """Wilson's interval of one proportion; empty for 0 trials."""
    return proportion_interval(successes, trials, WILSON)


def likelihood_ratio_intervals(tp: float, fp: float, fn: float, tn: float) -> tuple[Interval, Interval]:
    """Intervals of LR+ = Se / (1 - Sp) and LR- = (1 - Se) / Sp from the counts of a 2 x 2 table.

    Simel, Samsa and Matchar, "Likelihood ratios with confidence: sample size estimation for diagnostic test studies",
    Journal of Clinical Epidemiology 1991: ln LR+ ± z sqrt((1 - Se)/TP + Sp/FP), ln LR- ± z sqrt(Se/FN + (1 - Sp)/TN).
    Where one of the four counts is 0, a half is added to all four for the interval only, and `note` says so. An
    infinite ratio (LR+ at Sp = 1, LR- at Sp = 0) has a lower limit and no upper one, a ratio of 0 the lower limit 0.
    No interval without images on one side, or where the ratio is 0/0.
    """
    if not tp + fn or not fp + tn:
        return Interval(), Interval()
    return _simel(tp, tp + fn, fp, fp + tn), _simel(fn, tp + fn, tn, fp + tn)


def _simel(above: float, positives: float, below: float, negatives: float) -> Interval:
    """The interval of (above / positives) / (below / negatives)."""
    if not above and not below:
        return Interval(note="the ratio is 0/0")
    note = None
    k, m, j, n = above, positives, below, negatives
    if not (0 < k < m and 0 < j < n):
        k, m, j, n = k + 0.5, m + 1, j + 0.5, n + 1
        note = "a count of the table is 0: a half was added to all four for this interval"
    ratio = (k / m) / (j / n)
    width = math.exp(Z * math.sqrt((1 - k / m) / k + (1 - j / n) / j))
    return Interval(ratio / width if above else 0.0, ratio * width if below else None, SIMEL, note)


def percentile_interval(values: Floats, method: BootstrapMethod = "bootstrap") -> Interval:
    """The 2.5 % and 97.5 % quantiles of (B,) resampled values, NaN where a resample has none.

    Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13. No interval when more than 5 % of the
    resamples have no value, or when all agree: then the bootstrap cannot tell how uncertain the value is.
    """
    if not len(values):
        return Interval(note="no resamples were drawn")
    defined = values[~np.isnan(values)]
    missing = (len(values) - len(defined)) / len(values)
    if missing > _MAX_UNDEFINED:
        return Interval(note=f"undefined in {missing:.1%} of the resamples")
    if np.ptp(defined) <= 1e-12 * np.abs(defined).max():
        return Interval(note="all resamples give the same value, so the bootstrap cannot tell its uncertainty")
    low, high = np.quantile(defined, [0.025, 0.975])
    return Interval(float(low), float(high), method)


def resampled_interval(values: Floats, units: int, *, clustered: bool) -> Interval:
    """`percentile_interval` of resamples of so many images, or with `clustered` of groups; none below 2 of them."""
    if units < 2:
        return Interval(note=f"needs at least 2 {'groups' if clustered else 'images'}")
    return percentile_interval(values, "patient_bootstrap" if clustered else "bootstrap")
