"""The 95 % interval of a mean, also when some of the values belong together."""

import math

import numpy as np
import scipy.special
from numpy.typing import NDArray

from evalcam_cli.evaluation.estimates import Interval

Floats = NDArray[np.float64]

T_METHOD, CLUSTERED_T = "t", "clustered_t"


def mean_interval(values: Floats, groups: NDArray[np.int64], *, low: float, high: float) -> Interval:
    """Limits m ± t(G - 1, 0.975) s of the mean of (N,) values in G groups, cut to the range of the values.

    s² = G/(G-1) Σ_g (Σ_i in g (y_i - m))² / N², the linearised variance of a ratio (Cochran, "Sampling Techniques", 3rd
    edition, 1977, section 6.3); with one value per group it is the variance over N, and the interval is Student's.

    Args:
        values: (N,)
        groups: (N,) number of each value's group, from 0.
        low: The smallest value there can be.
        high: The largest one.
    """
    sizes = np.bincount(groups)
    sizes = sizes[sizes > 0]
    if len(sizes) < 2:
        return Interval(note="needs at least 2 images")
    mean = float(values.mean())
    sums = np.bincount(groups, weights=values - mean)
    error = math.sqrt(len(sizes) / (len(sizes) - 1) * float((sums**2).sum())) / len(values)
    if error <= 1e-12 * max(abs(low), abs(high)):
        return Interval(note="all values are the same, so they cannot tell how uncertain the mean is")
    half = float(scipy.special.stdtrit(len(sizes) - 1, 0.975)) * error
    name = T_METHOD if sizes.max() == 1 else CLUSTERED_T
    return Interval(max(mean - half, low), min(mean + half, high), name)
