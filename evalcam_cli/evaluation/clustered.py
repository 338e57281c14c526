"""The 95 % interval of a proportion when the images of a patient depend on each other."""

import numpy as np
import scipy.special
from numpy.typing import NDArray

from evalcam_cli.evaluation.estimates import Interval
from evalcam_cli.evaluation.intervals import wilson, wilson_interval

Floats = NDArray[np.float64]

CLUSTERED_WILSON = "clustered_wilson"
ONE_PATIENT = "needs images of at least 2 patients"


def effective_number(sizes: NDArray[np.floating | np.integer]) -> Floats:
    """(...,) (Σ n_i)² / Σ n_i² of (..., G) images per patient: how many patients with as many images each are worth as
    much (Kish, "Survey Sampling", 1965).
    """
    images = sizes.astype(np.float64)
    return np.asarray(images.sum(axis=-1) ** 2 / (images**2).sum(axis=-1))


def clustered_proportion(hits: Floats, trials: Floats) -> Interval:
    """The interval of p = sum x_i / sum n_i, x_i hits in the n_i images of patient i: Wilson's with fewer images.

    Wilson 1927 with n / d images and Student's t on K - 1 degrees of freedom in the place of z, where n = sum n_i,
    K = n^2 / sum n_i^2 is the effective number of patients (Kish, "Survey Sampling", 1965), and d the design effect: by
    how much dependence multiplies the variance p(1-p)/n of independent images. The data estimate it as

        d' = K/(K-1) sum (x_i - n_i p)^2 / (n p (1-p))

    (the ratio estimator's variance; Rao and Scott, "A simple method for the analysis of clustered binary data",
    Biometrics 1992), at least 1. But only the k patients with a miss (or with a hit, whichever are fewer) tell anything
    about it, and with few of them it is mostly too small: coverage falls to 86 % at p = .95. So one more patient votes
    for the worst, d = n/K, all images of a patient alike: d = (k max(d', 1) + n/K) / (k + 1). At p = 0 or 1 this leaves
    K images. Measured in docs/coverage.md; the vote is ours.

    Args:
        hits: (G,) x_i.
        trials: (G,) n_i; patients with 0 do not count.

    Returns:
        The interval; Wilson's where every patient has one image; empty without images.
    """
    hits, trials = hits[trials > 0], trials[trials > 0]
    if not len(trials):
        return Interval()
    if len(trials) == 1:
        return Interval(note=ONE_PATIENT)
    if trials.max() == 1:
        return wilson_interval(float(hits.sum()), float(trials.sum()))
    limits = clustered_limits(hits, trials)
    return Interval(float(limits[0]), float(limits[1]), CLUSTERED_WILSON)


def clustered_limits(hits: Floats, trials: Floats) -> tuple[Floats, Floats]:
    """Limits for (..., G) hits in (..., G) trials, at least 2 patients with trials in each row."""
    n = trials.sum(axis=-1)
    p = hits.sum(axis=-1) / n
    patients = effective_number(trials)
    spread = ((hits - trials * p[..., None]) ** 2).sum(axis=-1) * patients / (patients - 1)
    between = (hits > 0).any(axis=-1) & (hits < trials).any(axis=-1)
    effect = np.maximum(spread / np.where(between, n * p * (1 - p), 1), 1)
    informative = np.minimum((hits > 0).sum(axis=-1), (hits < trials).sum(axis=-1))
    effect = (informative * effect + n / patients) / (informative + 1)
    quantile = scipy.special.stdtrit(np.maximum(patients - 1, 1), 0.975)
    return wilson(p * n / effect, n / effect, quantile)
