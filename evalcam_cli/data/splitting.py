"""Who goes where: images that belong together as units, and units into parts with every class in its share."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from evalcam_cli.data import balancing
from evalcam_cli.data.disk import nfc
from evalcam_cli.data.identity import Identity
from evalcam_cli.data.leakage import Key, Links
from evalcam_cli.data.samples import Sample
from evalcam_cli.errors import DataError
from evalcam_cli.text import counted, shown

Counts = NDArray[np.int64]
_WHOLE = 1_000_000  # shares are kept as millionths, so that no rounding of floats can differ between machines
_MANY, _FEW = 5_000, 50  # units, beyond which one beginning, or a few, are good enough


def units(samples: Sequence[Sample], identities: Mapping[str, Identity] | None = None) -> list[list[int]]:
    """Positions of the samples that must stay together: those linked by a group, equal bytes or equal pixels.

    Args:
        samples: With `group` and, where there is no identity, `sha256`.
        identities: By path; samples without one are linked by group and sha256 only.

    Returns:
        Each position once, every unit sorted, units in the order of their first sample.
    """
    parents: dict[int, int] = {}  # of those linked to another

    def root(index: int) -> int:
        while parents.get(index, index) != index:
            parents[index] = parents[parents[index]]
            index = parents[index]
        return index

    first: dict[Key, int] = {}
    links = Links(samples, identities or {})
    for index, sample in enumerate(samples):
        for key in links.of(sample):
            parents[root(index)] = root(first.setdefault(key, index))
    members: dict[int, list[int]] = defaultdict(list)
    for index in sorted(parents):
        members[root(index)].append(index)
    alone = [[index] for index in range(len(samples)) if index not in parents]
    return sorted([*alone, *members.values()])


def assign(
    samples: Sequence[Sample],
    units: Sequence[Sequence[int]],
    shares: Sequence[float],
    *,
    seed: int | str,
    parts: str = "parts",
) -> list[int]:
    """The part of each sample: units whole, every class in every part as near to its share as the units allow.

    With single images as units, each class count is within one of the exact share. The result depends on the set of
    paths and the seed, not on the order of the samples or on the machine.

    Args:
        samples: With path and label.
        units: Positions, as from `units`.
        shares: Of the parts, in any scale; a part with share 0 stays empty.
        seed: Another one gives another division.
        parts: What the parts are, for the message: `folds`, `sets`.

    Raises:
        DataError: A class has too few units to be in every part.
    """
    weights = np.array([round(share / sum(shares) * _WHOLE) for share in shares], np.int64)
    classes = sorted({sample.label for sample in samples})
    position = {label: index for index, label in enumerate(classes)}
    ordered = _shuffled(samples, units, seed)
    kinds, kind_of = _kinds([[position[samples[index].label] for index in unit] for unit in ordered], len(classes))
    amounts = np.bincount(kind_of)
    _refuse_rare(kinds, amounts, classes, weights, parts)
    stock = _place(kinds, kind_of, amounts, weights)
    _refuse_absent(kinds, stock, classes, weights, parts)
    result = [0] * len(samples)
    for unit, part in zip(ordered, _handed_out(kind_of, stock), strict=True):
        for index in unit:
            result[index] = part
    return result


def _shuffled(samples: Sequence[Sample], units: Sequence[Sequence[int]], seed: int | str) -> list[Sequence[int]]:
    """The units in a random order that any machine draws alike."""

    def draw(unit: Sequence[int]) -> bytes:
        path = min(nfc(samples[index].path) for index in unit)
        return hashlib.sha256(f"{seed}\n{path}".encode("utf-8", "surrogateescape")).digest()

    return sorted(units, key=draw)


def _kinds(units: Iterable[Sequence[int]], classes: int) -> tuple[Counts, Counts]:
    """(T, K) images per class of each kind of unit, in lexical order, and (U,) the kind of each unit.

    Args:
        units: The class index of each of their images.
        classes: K.
    """
    numbers: dict[tuple[int, ...], int] = {}
    kind_of = np.fromiter((numbers.setdefault(tuple(sorted(unit)), len(numbers)) for unit in units), np.int64)
    kinds = np.zeros((len(numbers), classes), np.int64)
    for kind, held in enumerate(numbers):
        np.add.at(kinds[kind], list(held), 1)
    order = np.lexsort(kinds.T[::-1])
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return kinds[order], rank[kind_of]


def _refuse_rare(kinds: Counts, amounts: Counts, classes: Sequence[str], weights: Counts, parts: str) -> None:
    needed = int((weights > 0).sum())
    holders, totals = ((kinds > 0).T @ amounts).tolist(), (kinds.T @ amounts).tolist()
    for label, holding, images in zip(classes, holders, totals, strict=True):
        if holding < needed:
            together = "" if holding == images else f" in {counted(holding, 'group')} that must stay together"
            remedy = "ask for fewer folds or add images" if parts == "folds" else "add images"
            raise DataError(
                f"the class {shown(label)!r} has {counted(images, 'image')}{together}, "
                f"too few for {needed} {parts} with at least one each; {remedy}"
            )


def _refuse_absent(kinds: Counts, stock: Counts, classes: Sequence[str], weights: Counts, parts: str) -> None:
    present = (kinds > 0).T @ stock > 0  # (K, P)
    for label, row in zip(classes, present, strict=True):
        if not row[weights > 0].all():
            raise DataError(
                f"the groups cannot be divided so that each of the {parts} has images of the class "
                f"{shown(label)!r}; use fewer {parts}, smaller groups or another --seed"
            )


def _place(kinds: Counts, kind_of: Counts, amounts: Counts, weights: Counts) -> Counts:
    """(T, P) units of each kind in each part: the best of several beginnings, each improved."""
    orders = _orders(kinds.sum(axis=1)[kind_of])
    stocks = [_stock(kinds, kind_of, amounts, weights, order) for order in orders]
    return min(stocks, key=lambda stock: balancing.cost(kinds, stock, weights))


def _orders(sizes: Counts) -> list[Counts]:
    """Orders in which units of several images may be placed: the largest first, and others where that costs little."""
    several = np.flatnonzero(sizes > 1)
    if not len(several) or len(sizes) > _MANY:
        return [several[np.argsort(-sizes[several], kind="stable")]]
    digits = int(sizes.max()).bit_length()
    turns = 8 if len(sizes) <= _FEW else 1
    return [
        (rolled := np.roll(several, turn * len(several) // turns))[np.argsort(-(sizes[rolled] >> digit), kind="stable")]
        for digit in range(digits)
        for turn in range(turns)
    ]


def _stock(kinds: Counts, kind_of: Counts, amounts: Counts, weights: Counts, order: Counts) -> Counts:
    """(T, P) units of each kind in each part."""
    totals = kinds.T @ amounts
    stock = balancing.place(kinds, kind_of[order], totals, weights)
    targets = class_targets(totals, weights)
    for kind in np.flatnonzero(kinds.sum(axis=1) == 1):
        label = int(kinds[kind].argmax())
        stock[kind] = _fill(targets[label] - kinds[:, label] @ stock, int(amounts[kind]))
    if len(order):
        balancing.improve(kinds, stock, totals, weights)
    return stock


def _handed_out(kind_of: Counts, stock: Counts) -> list[int]:
    """Units of one kind go to the parts in the order in which they were drawn."""
    queues = [iter(np.repeat(np.arange(stock.shape[1]), row).tolist()) for row in stock]
    return [next(queues[kind]) for kind in kind_of.tolist()]


def class_targets(totals: Counts, weights: Counts) -> Counts:
    """(K, P) whole numbers: each class total in proportion to the weights, rounded up or down.

    The roundings of different classes make up for each other, so that the parts too come out near their share. Each
    part with a weight gets at least one image of a class that has enough.
    """
    whole = int(weights.sum())
    targets = np.zeros((len(totals), len(weights)), np.int64)
    owed = np.zeros(len(weights), np.int64)  # what each part has got too little so far, in units of 1 / whole
    for label in np.argsort(totals, kind="stable"):
        exact = totals[label] * weights
        row, remainders = np.divmod(exact, whole)
        claims = owed + remainders
        takers = sorted(np.flatnonzero(remainders).tolist(), key=lambda part: -claims[part])
        row[takers[: int(totals[label] - row.sum())]] += 1
        targets[label] = _at_least_one(row, exact, weights)
        owed += exact - targets[label] * whole
    return targets


def _at_least_one(row: Counts, exact: Counts, weights: Counts) -> Counts:
    whole = int(weights.sum())
    for part in np.flatnonzero((row == 0) & (weights > 0)).tolist():
        surplus = np.where(row > 1, row * whole - exact, np.iinfo(np.int64).min)
        giver = int(surplus.argmax())
        if row[giver] > 1:
            row[giver] -= 1
            row[part] += 1
    return row


def _fill(deficits: Counts, count: int) -> Counts:
    """(P,) how `count` single images are best spread over parts that lack `deficits`, of which some may be negative."""
    given = np.maximum(deficits, 0)
    for _ in range(int(given.sum()) - count):  # larger units overshot elsewhere, so these parts cannot be filled
        part = np.where(given > 0, deficits - given, np.iinfo(np.int64).max).argmin()
        given[part] -= 1
    return given
