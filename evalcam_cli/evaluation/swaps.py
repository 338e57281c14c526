"""Permutation tests of two classifiers on the same images: what A and B said is swapped for some images.

If the two are equally good in the sense that either could have given either output, every pattern of swaps was as
likely as the one observed (Fisher, "The Design of Experiments", 1935, section 21; for classifiers Yeh, "More accurate
tests for the statistical significance of result differences", COLING 2000). With patients, all images of a patient are
swapped together. Images that A and B agree on change nothing and are left out.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from evalcam_cli.evaluation.counts import Counts

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

PERMUTATIONS = 9_999
"""Random swaps; when there are no more patterns than this, each is taken once."""
_BLOCK_CELLS = 4_000_000
_TOLERANCE = 1e-10  # relative; sums of the same terms in another order count as equal


def mean_swaps(
    differences: Floats, *, groups: Ints | None = None, seed: int = 0, permutations: int = PERMUTATIONS
) -> tuple[float, str]:
    """The p-value of a mean difference of 0, and the test's name.

    Two-sided: the share of patterns whose sum is at least as far from 0. Random patterns count the observed one too,
    (1 + c) / (1 + B), so that p is never 0 (Phipson and Smyth, "Permutation p-values should never be zero", 2010).

    Args:
        differences: (N,) finite, B minus A for each image.
        groups: (N,) patients; their images change sign together.
        seed: Of the random patterns.
        permutations: B.
    """
    sums = differences if groups is None else np.bincount(groups, weights=differences)
    sums = sums[np.abs(sums) > _TOLERANCE * np.abs(differences).max(initial=0.0)]
    observed, size = abs(float(sums.sum())), float(np.abs(sums).sum())
    # einsum, not BLAS: its rounding does not depend on the number of threads
    found = (np.einsum("bu,u->b", 1.0 - 2.0 * block, sums) for block in patterns(len(sums), seed, permutations))
    return _p_value((np.abs(values) >= observed - _TOLERANCE * size for values in found), len(sums), permutations), (
        "image_swaps" if groups is None else "patient_swaps"
    )


def count_swaps(
    targets: Ints,
    predicted: tuple[Ints, Ints],
    classes: int,
    metrics: Sequence[Callable[[Counts], Floats]],
    *,
    groups: Ints | None = None,
    seed: int = 0,
    permutations: int = PERMUTATIONS,
) -> tuple[list[float], str]:
    """The p-value of no difference for each of some metrics of decisions, and the test's name.

    Patterns for which a metric is undefined count as extreme.

    Args:
        targets: (N,) true classes.
        predicted: The (N,) decisions of A and of B.
        classes: K.
        metrics: From counts of shape (B, K) to (B,) values.
        groups: (N,) patients; their images are swapped together.
        seed: Of the random patterns.
        permutations: B.
    """
    tables = [_margins(targets, decided, classes) for decided in predicted]
    changes = _changes(targets, predicted, classes, groups)
    support = np.bincount(targets, minlength=classes).astype(np.float64)

    def differences(moved: Floats) -> list[Floats]:
        a, b = (Counts(np.broadcast_to(support, part[..., :classes].shape), part[..., :classes], part[..., classes:])
                for part in (tables[0] + moved, tables[1] - moved))  # fmt: skip
        return [of(b) - of(a) for of in metrics]

    observed = [abs(float(value[0])) for value in differences(np.zeros((1, 2 * classes)))]
    units = changes.shape[0]
    extreme: list[list[NDArray[np.bool_]]] = [[] for _ in metrics]
    for block in patterns(units, seed, permutations):
        found = differences(np.asarray((changes.T @ block.T.astype(np.float64)).T))  # whole numbers, so exact
        for index, values in enumerate(found):
            extreme[index].append(~(np.abs(values) < observed[index] - _TOLERANCE))
    name = "image_swaps" if groups is None else "patient_swaps"
    return [_p_value(iter(hits), units, permutations) for hits in extreme], name


def _margins(targets: Ints, decided: Ints, classes: int) -> Floats:
    """(2K,) images predicted as each class, and rightly so."""
    hits = np.bincount(targets[targets == decided], minlength=classes)
    return np.concatenate([np.bincount(decided, minlength=classes), hits]).astype(np.float64)


def _changes(targets: Ints, predicted: tuple[Ints, Ints], classes: int, groups: Ints | None) -> scipy.sparse.csr_matrix:
    """(U, 2K) how swapping each unit changes the margins of A; those of B change the other way."""
    rows = np.flatnonzero(predicted[0] != predicted[1])
    units = rows if groups is None else groups[rows]
    _, units = np.unique(units, return_inverse=True)
    places, columns, values = [], [], []
    for decided, sign in ((predicted[0][rows], -1.0), (predicted[1][rows], 1.0)):
        right = decided == targets[rows]
        places += [units, units[right]]
        columns += [decided, classes + decided[right]]
        values.append(np.full(len(rows) + int(right.sum()), sign))
    shape = (len(np.unique(units)), 2 * classes)
    cells = (np.concatenate(places), np.concatenate(columns))
    return scipy.sparse.csr_matrix((np.concatenate(values), cells), shape=shape)


def patterns(units: int, seed: int, permutations: int = PERMUTATIONS) -> Iterator[NDArray[np.int8]]:
    """Blocks of (b, units) patterns, 1 for swapped: all of them when they are few, else random ones."""
    height = max(1, _BLOCK_CELLS // max(units, 1))
    every = is_exact(units, permutations)
    total = 2**units if every else permutations
    generator = np.random.default_rng(np.random.SeedSequence(seed))
    for start in range(0, total, height):
        numbers = np.arange(start, min(start + height, total))
        if every:
            yield ((numbers[:, None] >> np.arange(units)) & 1).astype(np.int8)
        else:
            yield generator.integers(0, 2, size=(len(numbers), units), dtype=np.int8)


def is_exact(units: int, permutations: int = PERMUTATIONS) -> bool:
    """Whether all patterns are taken."""
    return units < 60 and 2**units <= permutations


def _p_value(extreme: Iterator[NDArray[np.bool_]], units: int, permutations: int) -> float:
    count: int = sum(int(block.sum()) for block in extreme)
    if is_exact(units, permutations):
        return count / float(2**units)
    return (1 + count) / (1 + permutations)
