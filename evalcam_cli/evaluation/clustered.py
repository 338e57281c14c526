"""95 % intervals of proportions when the images of a patient depend on each other."""

import numpy as np
from numpy.typing import NDArray

from evalcam_cli.evaluation.estimates import Interval
from evalcam_cli.evaluation.intervals import wilson

Floats = NDArray[np.float64]
ONE_PATIENT = "needs at least 2 patients"


def clustered_proportion(hits: Floats, trials: Floats) -> Interval:
    """The interval of sum x_i / sum n_i with x_i hits in the n_i images of patient i; those without images do not count."""
    hits, trials = hits[trials > 0], trials[trials > 0]
    count, n = len(trials), float(trials.sum())
    if count < 2:
        return Interval(note=ONE_PATIENT) if count else Interval()
    p = float(hits.sum()) / n
    shrunk = (hits.sum() + 1) / (n + 2)
    variance = count / (count - 1) * float(((hits - trials * p) ** 2).sum()) / n**2
    effect = max(1.0, variance / (shrunk * (1 - shrunk) / n))
    low, high = wilson(p * n / effect, n / effect)
    return Interval(float(low), float(high), "clustered_wilson")
