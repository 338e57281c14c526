"""How alike two different images of one data set may look by chance, measured on the data set itself."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evalcam_cli.data.neighbours import Codes, Pictures, likely_variants, nearest, turned
from evalcam_cli.data.registration import register
from evalcam_cli.progress import Progress, silent

Doubles = NDArray[np.float64]
Integers = NDArray[np.int64]

LEAST_SIMILARITY = 0.95
"""Below this no pair is called near-duplicate in any data set."""
CERTAIN_SIMILARITY = 0.999
"""No more is demanded, however crowded a data set seems: so crowded are only families of copies."""
FALSE_PAIRS = 0.1
"""The expected number of chance pairs that an audit aims at."""
NEIGHBOURS = 15
"""The k-th neighbour whose distance says how crowded an image stands; a few copies of it do not matter then."""
SAMPLE = 100
"""Images that the calibration looks at."""
_POOL = 2  # times as many neighbours by code are compared, since the order by code is not that of the pictures
_NEAREST_LEFT_OUT = 5  # they may be copies
_DIMENSIONS = (2.0, 20.0)
_FEW = 10
_BATCH = 128


@dataclass(frozen=True)
class Fit:
    """Of pairs of images."""

    similarity: Doubles
    """(B,) of the best variant."""
    warp: Doubles
    """(B, 4) as in `Registration`."""
    variant: Integers
    """(B,) of the first image."""


@dataclass(frozen=True)
class Crowd:
    """How other images lie around each of R images."""

    distance: Doubles
    """(R,) to the k-th neighbour."""
    dimension: Doubles
    """(R,) of the space that they fill there: how fast nearer neighbours get rarer."""

    def capped(self, most: float) -> "Crowd":
        """The same with dimensions of at most so many: an image of little structure has many neighbours very near."""
        return Crowd(self.distance, np.minimum(self.dimension, most))


@dataclass(frozen=True)
class Crowding:
    """What is needed to say how likely a pair is by chance."""

    dimension: float
    """Median of the sample."""
    sample: Crowd
    """Capped by the median."""
    neighbours: int
    """k; 0 when there are too few images to measure anything."""
    images: int

    def expected(self, distance: Doubles | float, crowd: Crowd, targets: Doubles | float) -> Doubles:
        """Chance neighbours within a distance among so many targets, for each image."""
        within = (distance / np.maximum(crowd.distance, 1e-9)) ** crowd.dimension
        return np.asarray(self._density(targets) * within)

    def thresholds(self, crowd: Crowd, targets: Doubles | float, comparisons: int) -> Doubles:
        """The similarity from which a pair counts: each comparison may bring its share of `FALSE_PAIRS`."""
        share = FALSE_PAIRS / max(comparisons, 1) / np.maximum(self._density(targets), 1e-9)
        distance = crowd.distance * np.minimum(share, 1.0) ** (1 / crowd.dimension)
        return np.asarray(np.clip(1 - distance**2 / 2, LEAST_SIMILARITY, CERTAIN_SIMILARITY))

    def _density(self, targets: Doubles | float) -> Doubles:
        """Of the targets, those among the k nearest images."""
        return np.asarray(self.neighbours * np.asarray(targets) / max(self.images - 1, 1))


def fit(structures: Pictures, codes: Codes, first: Integers, second: Integers, *, progress: Progress = silent) -> Fit:
    """Lay the first image of each pair on the second, in every variant that is likely enough."""
    best = np.full(len(first), -1.0)
    warp = np.tile(np.array([1.0, 0.0, 1.0, 0.0]), (len(first), 1))
    chosen = np.zeros(len(first), dtype=np.int64)
    for start in range(0, len(first), _BATCH):
        here = slice(start, start + _BATCH)
        one, other = first[here], second[here]
        for variant, rows in likely_variants(codes[one], codes[other], within=0.1):
            if len(rows):
                found = register(turned(structures[one[rows]], variant), structures[other[rows]])
                better = found.similarity > best[start + rows]
                places = start + rows[better]
                best[places], warp[places], chosen[places] = found.similarity[better], found.warp[better], variant
        progress("comparing pictures", min(start + _BATCH, len(first)), len(first))
    return Fit(best, warp, chosen)


def distances(similarity: Doubles) -> Doubles:
    """Between normalised pictures of such a correlation: 0 for equal ones, 1.41 for unrelated ones."""
    return np.asarray(np.sqrt(np.maximum(2 * (1 - similarity), 0.0)))


def crowd_around(structures: Pictures, codes: Codes, rows: Integers, count: int) -> Crowd:
    """How the nearest `count` other images lie around some images.

    The number of chance neighbours within distance t of an image is taken to be k (t / d_k)^m, where d_k is the
    distance to its k-th neighbour: points that lie evenly, on that scale, in a space of m dimensions. m is the maximum
    likelihood estimate of Levina and Bickel, "Maximum Likelihood Estimation of Intrinsic Dimension", NIPS 2004,
    equation 8: the logarithms of d_k / d_j are exponential with rate m. The nearest five, which may be copies, are only
    known to be nearer than the sixth (type II censoring).
    """
    pool = min(_POOL * count, len(codes) - 1)
    found = nearest(codes, rows, np.arange(len(codes)), most=pool + 1, floor=-1.01).index
    others = np.array([near[near != row][:pool] for near, row in zip(found, rows, strict=True)], dtype=np.int64)
    fitted = fit(structures, codes, np.repeat(rows, pool), others.ravel())
    near = np.sort(distances(fitted.similarity).reshape(len(rows), pool), axis=1)[:, :count]
    near = np.maximum(near, 1e-6)
    logs = np.log(near[:, -1:] / near[:, _NEAREST_LEFT_OUT:-1])
    rates = logs.shape[1] / np.maximum(logs.sum(axis=1) + _NEAREST_LEFT_OUT * logs[:, 0], 1e-9)
    return Crowd(near[:, -1], np.clip(rates, *_DIMENSIONS))


def measure_crowding(structures: Pictures, codes: Codes, *, seed: int) -> Crowding:
    """From what lies around `SAMPLE` images, or all where there are fewer."""
    total = len(structures)
    if total <= _FEW:
        return Crowding(_DIMENSIONS[0], Crowd(np.empty(0), np.empty(0)), 0, total)
    rows = np.sort(np.random.default_rng(seed).permutation(total)[:SAMPLE])
    count = min(NEIGHBOURS, total - 1)
    sample = crowd_around(structures, codes, rows, count)
    dimension = float(np.median(sample.dimension))
    return Crowding(dimension, sample.capped(dimension), count, total)
