"""Units of several images, placed so that the class counts of every part come near their share.

All numbers are whole: counts are compared with shares in units of 1 / sum of weights, so that every machine decides
alike. A unit's kind is its number of images per class; units of one kind are interchangeable.
"""

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]
_SWEEPS = 10
_PER_PAIR = 40  # exchanges between two parts before the next two
_CELLS = 4_000_000  # size of the largest intermediate array


def wanted(totals: Counts, weights: Counts) -> Counts:
    """(K, P) the exact share of each class in each part, times the sum of weights."""
    return np.asarray(totals[:, None] * weights)


def cost(kinds: Counts, stock: Counts, weights: Counts) -> tuple[int, int]:
    """How many classes are absent somewhere, and the squared deviation from the shares; lower is better."""
    counts = kinds.T @ stock
    excess = counts * weights.sum() - wanted(counts.sum(axis=1), weights)
    absent = int((counts[:, weights > 0] == 0).sum())
    return absent, sum(value**2 for value in excess[:, weights > 0].ravel().tolist())  # exceeds 64 bits


def place(kinds: Counts, kind_of: Counts, totals: Counts, weights: Counts) -> Counts:
    """(T, P) units of each kind in each part, each put where the squared deviation of the counts grows least.

    Args:
        kinds: (T, K) images per class of each kind.
        kind_of: (U,) kind of each unit, in the order in which they are placed.
        totals: (K,) images per class, of these units and all others.
        weights: (P,) of the parts.
    """
    stock = np.zeros((len(kinds), len(weights)), np.int64)
    excess = -wanted(totals, weights)
    parts = np.flatnonzero(weights)
    whole = weights.sum()
    for kind in kind_of.tolist():
        part = parts[(kinds[kind] @ excess)[parts].argmin()]
        excess[:, part] += kinds[kind] * whole
        stock[kind, part] += 1
    return stock


def improve(kinds: Counts, stock: Counts, totals: Counts, weights: Counts) -> None:
    """Exchange units between two parts at a time while that leaves fewer classes absent or the counts nearer.

    Args:
        kinds: (T, K) images per class of each kind.
        stock: (T, P) units of each kind in each part; changed.
        totals: (K,) images per class.
        weights: (P,) of the parts.
    """
    with_nothing = np.vstack([kinds, np.zeros_like(kinds[:1])])  # a move is an exchange for nothing
    excess = kinds.T @ stock * weights.sum() - wanted(totals, weights)
    parts = np.flatnonzero(weights).tolist()
    pairs = [(one, other) for one in parts for other in parts if one < other]
    for _ in range(_SWEEPS):
        changed = [_exchange(with_nothing, stock, excess, totals, weights, pair) for pair in pairs]
        if not any(changed):
            return


def _exchange(
    kinds: Counts, stock: Counts, excess: Counts, totals: Counts, weights: Counts, pair: tuple[int, int]
) -> bool:
    """Whether exchanges between two parts helped; the best one is made, then the next."""
    one, other = pair
    nothing = len(kinds) - 1
    for made in range(_PER_PAIR):
        best = _best_exchange(kinds, stock, excess, totals, weights, pair)
        if best is None:
            return made > 0
        images = kinds[best[0]] - kinds[best[1]]
        for kind, source, goal in ((best[0], one, other), (best[1], other, one)):
            if kind != nothing:
                stock[kind, source] -= 1
                stock[kind, goal] += 1
        excess[:, one] -= images * weights.sum()
        excess[:, other] += images * weights.sum()
    return True


def _best_exchange(
    kinds: Counts, stock: Counts, excess: Counts, totals: Counts, weights: Counts, pair: tuple[int, int]
) -> tuple[int, int] | None:
    """The kinds to send from the first part to the second and back; None when no exchange helps."""
    one, other = pair
    whole = int(weights.sum())
    sent, returned = _choice(kinds, stock[:, one]), _choice(kinds, stock[:, other])
    forth, back = kinds[sent], kinds[returned]
    pull = excess[:, other] - excess[:, one]
    # half the change of the sum of squares: whole * |v|^2 + v . pull, where v = forth - back
    squares = (forth**2).sum(axis=1)[:, None] + (back**2).sum(axis=1)[None] - 2 * forth @ back.T
    change = whole * squares + (forth @ pull)[:, None] - (back @ pull)[None]
    absent = _absent_change(forth, back, excess[:, pair] + wanted(totals, weights)[:, pair], whole)
    fewest = absent.min()
    change = np.where(absent == fewest, change, np.iinfo(np.int64).max)
    row, column = np.unravel_index(change.argmin(), change.shape)
    if fewest > 0 or (fewest == 0 and change[row, column] >= 0):
        return None
    return int(sent[row]), int(returned[column])


def _choice(kinds: Counts, stock: Counts) -> Counts:
    """The kinds that a part can give, `nothing` among them; of very many, some of every size."""
    present = np.flatnonzero(stock)
    limit = max(30, min(300, int((_CELLS / kinds.shape[1]) ** 0.5)))
    if len(present) > limit:
        by_size = present[np.argsort(kinds[present].sum(axis=1), kind="stable")]
        present = by_size[np.arange(limit) * len(by_size) // limit]
    return np.append(present, len(kinds) - 1)


def _absent_change(forth: Counts, back: Counts, held: Counts, whole: int) -> Counts:
    """(A, B) how many more classes each exchange would leave without images in one of the two parts.

    Args:
        forth: (A, K) images that may go from the first part to the second.
        back: (B, K) images that may return.
        held: (K, 2) images of the two parts, times `whole`.
        whole: The sum of weights.
    """
    counts = held // whole
    risky = np.flatnonzero((counts <= np.maximum(forth.max(axis=0), back.max(axis=0))[:, None]).any(axis=1))
    images = forth[:, None, risky] - back[None, :, risky]
    after = (counts[risky, 0] == images).sum(axis=2) + (counts[risky, 1] == -images).sum(axis=2)
    return np.asarray(after - (counts[risky] == 0).sum())
