"""More than two classifiers: Cochran's Q for all at once, Holm's correction for their pairs."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.special
from numpy.typing import NDArray

from evalcam_cli.evaluation.swaps import PERMUTATIONS

_BLOCK_CELLS = 4_000_000


@dataclass(frozen=True)
class CochranTest:
    """A test of equal accuracy of M classifiers on the same images."""

    statistic: float | None
    """Q; None when no image tells them apart."""
    p_value: float
    test: str


def cochran(
    correct: NDArray[np.bool_], *, groups: NDArray[np.int64] | None = None, seed: int = 0,
    permutations: int = PERMUTATIONS,
) -> CochranTest:  # fmt: skip
    """Test whether M classifiers are equally often right on the same N images; p = 1 when none is told apart.

    Q = (M - 1) (M Σ T_j² - (Σ T_j)²) / (M Σ L_i - Σ L_i²), T_j images that classifier j gets right, L_i
    classifiers that get image i right; chi-squared with M - 1 degrees of freedom (Cochran, "The comparison of
    percentages in matched samples", Biometrika 1950). With patients Q is held against what it becomes when the
    classifiers are shuffled within each patient.

    Args:
        correct: (N, M).
        groups: (N,) patients.
        seed: Of the shuffles.
        permutations: How many.
    """
    m = correct.shape[1]
    right = correct.sum(axis=1)
    denominator = float((m * right - right**2).sum())
    if denominator == 0:
        return CochranTest(None, 1.0, "cochran_q")
    totals = correct.sum(axis=0).astype(np.float64)
    statistic = (m - 1) * float(m * (totals**2).sum() - totals.sum() ** 2) / denominator
    if groups is None or len(np.unique(groups)) == len(groups):
        return CochranTest(statistic, float(scipy.special.chdtrc(m - 1, statistic)), "cochran_q")
    return CochranTest(statistic, _shuffled(correct, groups, seed, permutations), "cochran_q_patient_shuffles")


def _shuffled(correct: NDArray[np.bool_], groups: NDArray[np.int64], seed: int, permutations: int) -> float:
    m = correct.shape[1]
    _, codes = np.unique(groups, return_inverse=True)
    sums = np.stack([np.bincount(codes, weights=correct[:, j]) for j in range(m)], axis=1)  # (G, M), whole numbers
    sums = sums[np.ptp(sums, axis=1) > 0]
    observed = float((sums.sum(axis=0) ** 2).sum())
    generator = np.random.default_rng(np.random.SeedSequence(seed))
    height = max(1, _BLOCK_CELLS // max(sums.size, 1))
    extreme = 0
    for start in range(0, permutations, height):
        rows = min(height, permutations - start)
        order = generator.random((rows, *sums.shape)).argsort(axis=2)
        dealt = np.take_along_axis(np.broadcast_to(sums, (rows, *sums.shape)), order, axis=2)
        extreme += int(((dealt.sum(axis=1) ** 2).sum(axis=1) >= observed).sum())
    return (1 + extreme) / (1 + permutations)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """p-values that hold for all hypotheses together; None stays None and is not counted.

    Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 1979: the
    smallest times m, the next times m - 1, …, never falling, at most 1.
    """
    order = sorted((index for index, p in enumerate(p_values) if p is not None), key=lambda index: p_values[index])  # type: ignore[arg-type,return-value]
    adjusted: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * (p_values[index] or 0.0)))
        adjusted[index] = highest
    return adjusted
