"""Bootstrap resamples as weights: how often each image stands in each resample.

The same seed gives the same resamples, whatever is computed from them. So the metrics of one evaluation, and the models
of a comparison, share their resamples, which makes differences between them paired.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

_BLOCK_BYTES = 64_000_000
_BYTES_PER_DRAW = 48  # weights, their sorted copy and running sums, at the same time


def resample_weights(
    n: int, resamples: int, seed: int, groups: NDArray[np.int64] | None = None
) -> Iterator[NDArray[np.int32]]:
    """Blocks of (b, N) weights, `resamples` rows in all.

    Rows are drawn with replacement, N of N (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 6).
    With groups, whole groups are drawn, G of G, and every image weighs as often as its group was drawn (Field and
    Welsh, "Bootstrapping clustered data", 2007). Class sizes vary between resamples, as they do between samples.

    Args:
        n: Images.
        resamples: Rows in all.
        seed: The same one gives the same weights.
        groups: (N,) group of each image, numbers from 0.
    """
    units = n if groups is None else int(groups.max()) + 1
    generator = np.random.default_rng(np.random.SeedSequence(seed))
    block = max(1, _BLOCK_BYTES // (_BYTES_PER_DRAW * n))
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        drawn = generator.integers(0, units, size=(rows, units))
        drawn += units * np.arange(rows)[:, None]
        weights = np.bincount(drawn.ravel(), minlength=rows * units).reshape(rows, units).astype(np.int32)
        yield weights if groups is None else weights[:, groups]
