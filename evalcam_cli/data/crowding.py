"""How alike two different images of one data set may look by chance, measured on the data set itself."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evalcam_cli.data.neighbours import Codes, likely_variants, nearest, turned
from evalcam_cli.data.registration import register
from evalcam_cli.progress import Progress, silent

Doubles = NDArray[np.float64]
Integers = NDArray[np.int64]

LEAST_SIMILARITY = 0.95
"""Below this no pair is called near-duplicate in any data set."""
FALSE_PAIRS = 0.1
"""The expected number of chance pairs that an audit may report."""
NEIGHBOURS = 10
"""The k-th neighbour whose distance says how crowded an image stands; a few copies of it do not matter then."""
SAMPLE = 100
"""Images that the calibration looks at."""
_POOL = 3  # times as many neighbours by code are compared, since the order by code is not that of the pictures
_NEAREST_LEFT_OUT = 2  # the very nearest may be copies
_DIMENSIONS = (2.0, 20.0)
_FEW = 5
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
class Crowding:
    """What is needed to say how likely a pair is by chance."""

    dimension: float
    """Of the space that the images fill, as far as they are apart: how fast nearer neighbours get rarer."""
    distances: Doubles
    """(S,) to the k-th neighbour, of a sample."""
    neighbours: int
    """k; 0 when there are too few images to measure anything."""
    images: int

    def expected(self, distance: Doubles | float, crowd: Doubles, targets: float) -> Doubles:
        """Chance neighbours within a distance among so many targets, for images whose k-th neighbour is at `crowd`."""
        density = self.neighbours * targets / max(self.images - 1, 1)
        return np.asarray(density * (distance / np.maximum(crowd, 1e-9)) ** self.dimension)

    def thresholds(self, crowd: Doubles, targets: Doubles, comparisons: int) -> Doubles:
        """The similarity from which a pair counts: each comparison may bring its share of `FALSE_PAIRS`."""
        if not self.neighbours:
            return np.full(len(crowd), LEAST_SIMILARITY)
        density = self.neighbours * targets / max(self.images - 1, 1)
        share = FALSE_PAIRS / max(comparisons, 1) / np.maximum(density, 1e-9)
        distance = crowd * share ** (1 / self.dimension)
        return np.asarray(np.maximum(1 - distance**2 / 2, LEAST_SIMILARITY))


def fit(
    structures: NDArray[np.floating], codes: Codes, first: Integers, second: Integers, *, progress: Progress = silent
) -> Fit:
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


def neighbour_distances(structures: NDArray[np.floating], codes: Codes, rows: Integers, count: int) -> Doubles:
    """(R, count) ascending distances of some images to their nearest others in the whole data set."""
    pool = min(_POOL * count, len(codes) - 1)
    found = nearest(codes[rows], codes, most=pool + 1, floor=-1.01).index
    others = np.array([near[near != row][:pool] for near, row in zip(found, rows, strict=True)], dtype=np.int64)
    fitted = fit(structures, codes, np.repeat(rows, pool), others.ravel())
    return np.sort(distances(fitted.similarity).reshape(len(rows), pool), axis=1)[:, :count]


def measure_crowding(structures: NDArray[np.floating], codes: Codes, *, seed: int) -> Crowding:
    """From the neighbours of up to `SAMPLE` images.

    The number of chance neighbours within distance t of an image is taken to be k (t / d_k)^m, where d_k is the
    distance to its k-th neighbour: points that lie evenly, on that scale, in a space of m dimensions. m is the median
    over the sample of the maximum likelihood estimate of Levina and Bickel, "Maximum Likelihood Estimation of Intrinsic
    Dimension", NIPS 2004, equation 8: the logarithms of d_k / d_j are exponential with rate m. The two nearest, which
    may be copies, are only known to be nearer than the third (type II censoring).
    """
    total = len(structures)
    if total <= _FEW:
        return Crowding(_DIMENSIONS[0], np.empty(0), 0, total)
    count = min(NEIGHBOURS, total - 1)
    rows = np.sort(np.random.default_rng(seed).permutation(total)[:SAMPLE])
    found = np.maximum(neighbour_distances(structures, codes, rows, count), 1e-6)
    logs = np.log(found[:, -1:] / found[:, _NEAREST_LEFT_OUT:-1])
    rates = logs.shape[1] / np.maximum(logs.sum(axis=1) + _NEAREST_LEFT_OUT * logs[:, 0], 1e-9)
    dimension = float(np.clip(np.median(rates), *_DIMENSIONS))
    return Crowding(dimension, found[:, -1], count, total)
