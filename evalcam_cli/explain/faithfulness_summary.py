"""What the metrics say over many images: means with intervals, and how often a map beats the random one."""

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.special
from numpy.typing import NDArray

from evalcam_cli.evaluation.clustered import clustered_proportion
from evalcam_cli.evaluation.estimates import Estimate, Interval
from evalcam_cli.explain.faithfulness import METRICS, Faithfulness

Floats = NDArray[np.float64]

STUDENT = "student_t"
CLUSTERED_STUDENT = "clustered_student_t"


@dataclass(frozen=True)
class Summary:
    """One metric over images."""

    metric: str
    higher_is_better: bool
    score: Estimate
    """Mean over the images where it is defined."""
    random: Estimate
    """Mean for the random maps of the same images."""
    difference: Estimate
    """Mean of score - random, paired by image."""
    beats_random: Estimate
    """Share of images in which the map does better than its random map; equal counts as a half."""

    @property
    def verdict(self) -> str:
        """In words: whether the interval of the difference excludes 0, and on which side."""
        low, high = self.difference.ci_low, self.difference.ci_high
        if low is None or high is None:
            return "undecided"
        if low <= 0 <= high:
            return "not told from random"
        return "better than random" if (low > 0) == self.higher_is_better else "worse than random"


def summarise(records: Iterable[Faithfulness], groups: Sequence[str] | None = None) -> dict[str, Summary]:
    """Each metric over the records.

    Args:
        records: Of one method; each image once. Two numbers of each metric are kept of them.
        groups: What images that depend on each other have in common, such as the patient. The intervals then allow for
            it.
    """
    pairs = {name: array("d") for name in METRICS}
    for record in records:
        for name, found in pairs.items():
            found.extend((record.scores[name].score, record.scores[name].random))
    tables = {name: np.array(found).reshape(-1, 2) for name, found in pairs.items()}
    count = len(next(iter(tables.values())))
    codes = np.arange(count) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    return {name: _summary(name, table, np.asarray(codes).ravel()) for name, table in tables.items()}


def _summary(name: str, pairs: Floats, codes: NDArray[np.intp]) -> Summary:
    """Of (N, 2) scores of maps and of their random maps."""
    scores, randoms = pairs.T
    defined = ~(np.isnan(scores) | np.isnan(randoms))
    scores, randoms = scores[defined], randoms[defined]
    groups = np.unique(codes[defined], return_inverse=True)[1].ravel()
    gains = scores - randoms if METRICS[name].higher_is_better else randoms - scores
    return Summary(
        name,
        METRICS[name].higher_is_better,
        mean_estimate(scores, groups),
        mean_estimate(randoms, groups),
        mean_estimate(scores - randoms, groups),
        _share(np.where(gains == 0, 0.5, gains > 0), groups),
    )


def mean_estimate(values: Floats, groups: NDArray[np.intp]) -> Estimate:
    """The mean of (N,) values with Student's interval; with groups, with the ratio estimator's variance.

    G/(G - 1) sum_g (s_g - n_g m)^2 / N^2 for the sums s_g of the n_g values of each of G groups and the mean m
    (Cochran, "Sampling Techniques", 1977, section 9A.2), with t of G - 1 degrees of freedom; s^2 / N when each value is
    a group of its own. No interval for one group, or where all values agree.
    """
    n = len(values)
    if not n:
        return Estimate(None, undefined_reason="defined in no image", n=0)
    mean = float(values.mean())
    interval = _interval(values, mean, groups)
    return Estimate(mean, interval.low, interval.high, interval.method, n=n, ci_note=interval.note)


def _interval(values: Floats, mean: float, groups: NDArray[np.intp]) -> Interval:
    sizes = np.bincount(groups)
    clusters = len(sizes)
    clustered = bool(sizes.max() > 1)
    if clusters < 2:
        return Interval(note=f"needs at least 2 {'groups' if clustered else 'images'}")
    if np.ptp(values) == 0:
        return Interval(note="all images have the same value, so its uncertainty cannot be told")
    misses = np.bincount(groups, weights=values - mean)
    error = np.sqrt(clusters / (clusters - 1) * (misses**2).sum()) / len(values)
    half = float(scipy.special.stdtrit(clusters - 1, 0.975) * error)
    return Interval(mean - half, mean + half, CLUSTERED_STUDENT if clustered else STUDENT)


def _share(wins: Floats, groups: NDArray[np.intp]) -> Estimate:
    if not len(wins):
        return Estimate(None, undefined_reason="defined in no image", n=0)
    hits: Floats = np.bincount(groups, weights=wins).astype(np.float64)
    trials: Floats = np.bincount(groups).astype(np.float64)
    interval = clustered_proportion(hits, trials)
    share = float(wins.mean())
    return Estimate(share, interval.low, interval.high, interval.method, n=len(wins), ci_note=interval.note)
