"""95 % intervals: Wilson for proportions, the stratified percentile bootstrap for the rest."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evalcam_cli.evaluation.estimates import Interval

Floats = NDArray[np.float64]

WILSON = "wilson"
BOOTSTRAP = "stratified_bootstrap"
_Z = 1.959963984540054  # 97.5 % quantile of the standard normal distribution
_MAX_UNDEFINED = 0.05  # share of resamples without a value above which an interval would hide them
_CHUNK_BYTES = 200_000_000
_BYTES_PER_DRAW = 48  # weights, their sorted copy and running sums, at the same time


def wilson(successes: ArrayLike, trials: ArrayLike) -> tuple[Floats, Floats]:
    """Limits of a binomial proportion; NaN for 0 trials, never outside [0, 1].

    (p + z²/2n ± z √(p(1-p)/n + z²/4n²)) / (1 + z²/n): Wilson 1927; method 3 in Newcombe, "Two-sided confidence
    intervals for the single proportion: comparison of seven methods", Statistics in Medicine 1998.
    """
    k, n = np.broadcast_arrays(np.asarray(successes, dtype=np.float64), np.asarray(trials, dtype=np.float64))
    n = np.where(n > 0, n, np.nan)
    p = k / n
    centre = p + _Z**2 / (2 * n)
    half = _Z * np.sqrt(p * (1 - p) / n + _Z**2 / (4 * n**2))
    scale = 1 + _Z**2 / n
    low = np.where(k == 0, 0 * n, np.clip((centre - half) / scale, 0, 1))  # exactly 0 and 1 at the ends
    high = np.where(k == n, 1 + 0 * n, np.clip((centre + half) / scale, 0, 1))
    return low, high


def wilson_interval(successes: float, trials: float) -> Interval:
    """Wilson's interval of one proportion; empty for 0 trials."""
    if not trials:
        return Interval()
    low, high = wilson(successes, trials)
    return Interval(float(low), float(high), WILSON)


def stratified_weights(strata: NDArray[np.int64], resamples: int, seed: int) -> Iterator[NDArray[np.int32]]:
    """How often each image stands in each resample, in blocks of (b, N) that stay below 200 MB.

    Each class is resampled by itself, with replacement, to its own size, so no class gets lost, and the intervals hold
    for a set with these class sizes. The same seed gives the same resamples, whatever is computed from them.
    """
    n = len(strata)
    order = np.argsort(strata, kind="stable")
    sizes = np.bincount(strata)
    ends = np.repeat(np.cumsum(sizes), sizes)
    starts = ends - np.repeat(sizes, sizes)
    generator = np.random.default_rng(np.random.SeedSequence(seed))
    block = max(1, _CHUNK_BYTES // (_BYTES_PER_DRAW * n))
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        drawn = order[generator.integers(starts, ends, size=(rows, n))]
        drawn += n * np.arange(rows)[:, None]
        yield np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n).astype(np.int32)


def percentile_interval(values: Floats) -> Interval:
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
    return Interval(float(low), float(high), BOOTSTRAP)
