"""Labels that look wrong to a model that did not train on them: for review by a person, never for deletion."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
Integers = NDArray[np.int64]
Blocks = Callable[[], Iterable[NDArray[np.floating]]]
"""Gives the (N, K) probabilities from the first row again at each call, as blocks of rows."""

_ROWS = 4096


@dataclass(frozen=True, slots=True)
class LikelyLabelError:
    """One image whose label a person should look at."""

    index: int
    """The row, from 0."""
    given: int
    """Class index of the label."""
    suggested: int
    """The class that the model is confident of, as defined in `likely_label_errors`."""
    self_confidence: float
    """Probability of the given label."""
    margin: float
    """Probability of the given label less the largest of all others, -1 to 1; the lower, the likelier wrong."""


@dataclass(frozen=True)
class LabelReview:
    """The suspects and what they were found by."""

    errors: tuple[LikelyLabelError, ...]
    """Ascending by margin, then self-confidence, then row."""
    thresholds: Doubles
    """(K,) mean self-confidence of each class; NaN for a class without images."""
    confident_joint: Integers
    """(K, K) counts: row i, column j is the number of images labelled i that confidently are of class j."""


def likely_label_errors(probabilities: NDArray[np.floating] | Blocks, targets: NDArray[np.integer]) -> LabelReview:
    """The off-diagonal of the confident joint, likeliest first.

    Northcutt, Jiang and Chuang, "Confident Learning: Estimating Uncertainty in Dataset Labels", JAIR 70 (2021), 1373,
    https://doi.org/10.1613/jair.1.12125, equations 1 and 2. The threshold of a class is the mean of the probabilities
    that images with its label get for it. An image confidently is of the class whose probability is largest among those
    that reach their thresholds; one that reaches none is counted nowhere. Where the given label ties with another
    class, it is believed. A class without images has no threshold and is never suggested. About half of what was found
    in well-known test sets was truly wrong (Northcutt, Athalye and Mueller, "Pervasive Label Errors", 2021).

    Args:
        probabilities: (N, K), held out: from a model that did not train on these images. An array is read in blocks and
            not copied; a callable is asked for its blocks twice.
        targets: (N,) class indices of the given labels.

    Raises:
        ValueError: The rows do not fit the targets, a value is not in 0 to 1, or a target is no class.
    """
    labels = np.asarray(targets).astype(np.int64, copy=False)
    sums, counts = _self_confidence(probabilities, labels)
    thresholds = np.divide(sums, counts, out=np.full(len(sums), np.nan), where=counts > 0)
    joint = np.zeros((len(sums), len(sums)), dtype=np.int64)
    errors: list[LikelyLabelError] = []
    for start, block in _blocks(probabilities, len(labels)):
        given = labels[start : start + len(block)]
        suggested = _confident_class(block, given, thresholds)
        sure = suggested >= 0
        np.add.at(joint, (given[sure], suggested[sure]), 1)
        wrong = np.flatnonzero(sure & (suggested != given))
        errors += _records(block[wrong], given[wrong], suggested[wrong], start + wrong)
    errors.sort(key=lambda error: (error.margin, error.self_confidence, error.index))
    return LabelReview(tuple(errors), thresholds, joint)


def _self_confidence(probabilities: NDArray[np.floating] | Blocks, labels: Integers) -> tuple[Doubles, Integers]:
    """Of each class, the sum of the probabilities given to its label, and its number of images."""
    sums, counts = np.zeros(0), np.zeros(0, dtype=np.int64)
    for start, block in _blocks(probabilities, len(labels)):
        if not len(sums):
            sums, counts = np.zeros(block.shape[1]), np.zeros(block.shape[1], dtype=np.int64)
        if block.shape[1] != len(sums):
            raise ValueError(f"a block has {block.shape[1]} classes, the first has {len(sums)}")
        given = labels[start : start + len(block)]
        if not (given >= 0).all() or not (given < len(sums)).all():
            raise ValueError(f"targets must be class indices below {len(sums)}")
        if not ((block >= 0) & (block <= 1)).all():  # also false for NaN
            raise ValueError(f"rows {start} to {start + len(block) - 1} hold values that are no probabilities")
        np.add.at(sums, given, block[np.arange(len(block)), given].astype(np.float64))
        np.add.at(counts, given, 1)
    return sums, counts


def _blocks(probabilities: NDArray[np.floating] | Blocks, total: int) -> Iterator[tuple[int, NDArray[np.floating]]]:
    """(first row, block) of at most `_ROWS` rows each."""
    whole: Iterable[NDArray[np.floating]] = probabilities() if callable(probabilities) else (probabilities,)
    start = 0
    for part in whole:
        if part.ndim != 2 or start + len(part) > total:
            raise ValueError(f"expected (N, K) probabilities of {total} rows, got a part of shape {part.shape}")
        for first in range(0, len(part), _ROWS):
            block = part[first : first + _ROWS]
            yield start, block
            start += len(block)
    if start != total:
        raise ValueError(f"{start} rows of probabilities for {total} targets")


def _confident_class(block: NDArray[np.floating], given: Integers, thresholds: Doubles) -> Integers:
    """(B,) class that each row confidently is of; -1 where no class reaches its threshold."""
    reached = np.where(block >= thresholds, block, -1.0)  # NaN is reached by none
    best = reached.argmax(axis=1)
    rows = np.arange(len(block))
    largest = reached[rows, best]
    best = np.where(reached[rows, given] == largest, given, best)
    return np.where(largest >= 0, best, -1)


def _records(
    block: NDArray[np.floating], given: Integers, suggested: Integers, index: Integers
) -> Iterator[LikelyLabelError]:
    rows = np.arange(len(block))
    own = block[rows, given].astype(np.float64)
    others = block.astype(np.float64)
    others[rows, given] = -1.0
    margins = own - others.max(axis=1, initial=-1.0)
    for row in range(len(block)):
        yield LikelyLabelError(
            int(index[row]), int(given[row]), int(suggested[row]), float(own[row]), float(margins[row])
        )
