"""The pictures that look most like each picture of another set, whichever way round they lie: an exact search."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from evalcam_cli.progress import Progress, silent

Integers = NDArray[np.int64]
Codes = NDArray[np.int16]
Floats = NDArray[np.float32]

WAVES = 8
"""Frequencies along each axis that a code keeps, from 0."""
VARIANTS = 8
"""The ways a picture can lie: bit 4 exchanges rows and columns, then bit 2 reverses the rows, bit 1 the columns."""
SCALE = 4000
"""Length of a code. All its numbers are whole, and so is every sum of products in between, at most 2**24 in size: a
matrix product in float32 is exact then, on any number of threads. They are kept in half the bytes."""

_QUERIES, _TARGETS = 128, 2048  # per block, so that a block stays in the cache
_ENCODED = 1024  # per block


@dataclass(frozen=True)
class Neighbours:
    """The likeliest partners of Q pictures, best first."""

    index: Integers
    """(Q, k) rows of the codes; -1 where there are no more above the floor."""
    score: NDArray[np.float64]
    """(Q, k) correlation of the codes, in the best variant; -1 beside an index of -1."""


class Pictures(Protocol):
    """(N, n, n) grey pictures, in an array or made one by one."""

    def __len__(self) -> int: ...

    def __getitem__(self, places: Any, /) -> NDArray[np.floating]: ...


def encode(structures: Pictures) -> Codes:
    """(N, 64) whole numbers: the low frequencies of (N, n, n) pictures, each as rare as the others in this data set.

    The cosine transform, type II, up to frequency 7 both ways, less the mean over the data set and over the eight ways
    a picture can lie, divided by the standard deviation over the same: what all pictures share (the outline of a head,
    the frame around a digit) tells none of them apart. Both are the same for a picture and its turned or mirrored copy.

    The columns are in four blocks of 16 by the parity of the row and column frequency: both even, column odd, row odd,
    both odd. Reversing the rows changes the sign of the last two, reversing the columns that of the second and last.
    """
    count = len(structures)
    codes = np.empty((count, WAVES * WAVES), dtype=np.int16)
    if not count:
        return codes
    even = np.arange(WAVES) % 2 == 0
    mean = sum(waves.sum(axis=0) for _, waves in _waves(structures)) / count
    mean = np.where(even[:, None] & even, (mean + mean.T) / 2, 0.0)
    power = sum(((waves - mean) ** 2).sum(axis=0) for _, waves in _waves(structures)) / count
    deviation = np.sqrt((power + power.T) / 2)
    deviation[0, 0] = np.inf  # the mean grey level says nothing
    for place, waves in _waves(structures):
        rare = (waves - mean) / np.where(deviation > 0, deviation, np.inf)
        norm = np.sqrt((rare * rare).sum(axis=(1, 2), keepdims=True))
        whole = np.rint(rare * (SCALE / np.maximum(norm, 1e-12)))
        halves = [whole[:, row::2, column::2].reshape(-1, 16) for row in (0, 1) for column in (0, 1)]
        codes[place] = np.concatenate(halves, axis=1)
    return codes


def _waves(structures: Pictures) -> Iterator[tuple[slice, NDArray[np.float64]]]:
    """(B, 8, 8) of block after block: what is made of all pictures at once would take more memory than they do."""
    for start in range(0, len(structures), _ENCODED):
        block = structures[start : start + _ENCODED].astype(np.float64)
        side = block.shape[-1]
        basis = np.cos(np.pi * np.arange(WAVES)[:, None] * ((np.arange(side) + 0.5) / side))
        down = np.einsum("un,bnm->bum", basis, block)
        yield slice(start, start + _ENCODED), np.einsum("bum,vm->buv", down, basis)


def nearest(
    codes: Codes, queries: Integers, targets: Integers, *, most: int, floor: float, progress: Progress = silent
) -> Neighbours:
    """For each query, at most so many targets whose score is above the floor; ties go to the earlier target.

    Args:
        codes: Of all pictures.
        queries: Rows of the codes.
        targets: Rows of the codes, ascending.
        most: Targets for each query.
        floor: Score that a target must exceed.
        progress: Told `searching for copies`.
    """
    index = np.full((len(queries), most), -1, dtype=np.int64)
    score = np.full((len(queries), most), floor * SCALE**2)
    for start in range(0, len(queries), _QUERIES):
        here = slice(start, start + _QUERIES)
        straight = codes[queries[here]]
        ways = straight.astype(np.float32), _exchanged(straight).astype(np.float32)
        for first in range(0, len(targets), _TARGETS):
            rows = targets[first : first + _TARGETS]
            block = codes[rows].astype(np.float32)
            scores = np.maximum(_best_of_four(ways[0], block), _best_of_four(ways[1], block))
            _take_in(index[here], score[here], scores, rows)
        progress("searching for copies", min(start + _QUERIES, len(queries)), len(queries))
    return Neighbours(index, np.where(index >= 0, score / SCALE**2, -1.0))


def _best_of_four(queries: Floats, targets: Floats) -> Floats:
    """(Q, T) scores in the best of the four ways without exchanging rows and columns."""
    both_even, column_odd, row_odd, both_odd = _products(queries, targets)
    plus = np.abs(column_odd + both_odd) + row_odd
    minus = np.abs(column_odd - both_odd) - row_odd
    return np.asarray(both_even + np.maximum(plus, minus), dtype=np.float32)


def _products(queries: Floats, targets: Floats) -> list[Floats]:
    return [queries[:, part : part + 16] @ targets[:, part : part + 16].T for part in range(0, 64, 16)]


def _exchanged(codes: Codes) -> Codes:
    """The codes of the pictures with rows and columns exchanged."""
    blocks = codes.reshape(-1, 4, 4, 4)[:, [0, 2, 1, 3]]
    return np.ascontiguousarray(blocks.transpose(0, 1, 3, 2).reshape(-1, 64))


def _take_in(index: Integers, score: NDArray[np.float64], scores: Floats, targets: Integers) -> None:
    """Update the best of each row, in place, with a block of targets that come after those seen before."""
    most = index.shape[1]
    rows, columns = np.nonzero(scores > score[:, -1:])
    if not len(rows):
        return
    touched = np.unique(rows)
    all_rows = np.concatenate([np.repeat(touched, most), rows])
    all_scores = np.concatenate([score[touched].ravel(), scores[rows, columns].astype(np.float64)])
    all_index = np.concatenate([index[touched].ravel(), targets[columns]])
    empty = all_index < 0
    order = np.lexsort((all_index, empty, -all_scores, all_rows))
    ordered = all_rows[order]
    rank = np.arange(len(order)) - np.searchsorted(ordered, ordered)
    kept = order[rank < most]
    index[touched] = all_index[kept].reshape(-1, most)
    score[touched] = all_scores[kept].reshape(-1, most)


def likely_variants(queries: Codes, targets: Codes, *, within: float) -> Iterator[tuple[int, Integers]]:
    """For row-aligned pairs of codes, each variant of the query and the pairs for which it is worth a look.

    That is the best one and any whose score is at most so much lower.
    """
    scores = np.empty((len(queries), VARIANTS))
    others = targets.astype(np.float32)
    for base, codes in ((0, queries), (4, _exchanged(queries))):
        ones = codes.astype(np.float32)
        parts = [np.einsum("bi,bi->b", ones[:, p : p + 16], others[:, p : p + 16]) for p in range(0, 64, 16)]
        for variant in range(4):
            column, row = (-1 if variant & 1 else 1), (-1 if variant & 2 else 1)
            signed = parts[0] + column * parts[1] + row * parts[2] + row * column * parts[3]
            scores[:, base + variant] = signed / SCALE**2
    worth = scores >= scores.max(axis=1, keepdims=True) - within
    for variant in range(VARIANTS):
        yield variant, np.flatnonzero(worth[:, variant])


def turned(pictures: NDArray[np.floating], variant: int) -> NDArray[np.floating]:
    """(..., n, n) pictures in one of the eight ways."""
    result = pictures.swapaxes(-1, -2) if variant & 4 else pictures
    if variant & 2:
        result = result[..., ::-1, :]
    return result[..., ::-1] if variant & 1 else result


VARIANT_NAMES: Sequence[str] = (
    *("", "flip", "flip vertical", "turn 180"),
    *("turn 90 + flip", "turn 270", "turn 90", "turn 90 + flip vertical"),
)
"""What made the query from the target, where this variant of the query is the target; turns are clockwise."""
