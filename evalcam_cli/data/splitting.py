"""Who goes where: images that belong together as units, and units into parts with every class in its share."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from evalcam_cli.data import balancing
from evalcam_cli.data.disk import nfc
from evalcam_cli.data.identity import Identity
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
    parents = list(range(len(samples)))

    def root(index: int) -> int:
        while parents[index] != index:
            parents[index] = parents[parents[index]]
            index = parents[index]
        return index

    first: dict[tuple[str, str], int] = {}
    for index, sample in enumerate(samples):
        for key in _links(sample, identities):
            parents[root(index)] = root(first.setdefault(key, index))
    members: dict[int, list[int]] = defaultdict(list)
    for index in range(len(samples)):
        members[root(index)].append(index)
    return sorted(members.values())


def _links(sample: Sample, identities: Mapping[str, Identity] | None) -> Iterable[tuple[str, str]]:
    identity = identities.get(sample.path) if identities else None
    if sample.group:
        yield "group", sample.group
    if identity:
        yield "pixels", identity.pixels
        yield "bytes", identity.sha256
    elif sample.sha256:
        yield "bytes", sample.sha256


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
    table = np.zeros((len(ordered), len(classes)), np.int64)
    for row, unit in enumerate(ordered):
        for index in unit:
            table[row, position[samples[index].label]] += 1
    _refuse_rare(table, classes, weights, parts)
    placed = _place(table, weights)
    _refuse_absent(table, placed, classes, weights, parts)
    result = [0] * len(samples)
    for unit, part in zip(ordered, placed, strict=True):
        for index in unit:
            result[index] = part
    return result


def _shuffled(samples: Sequence[Sample], units: Sequence[Sequence[int]], seed: int | str) -> list[Sequence[int]]:
    """The units in a random order that any machine draws alike."""

    def draw(unit: Sequence[int]) -> bytes:
        path = min(nfc(samples[index].path) for index in unit)
        return hashlib.sha256(f"{seed}\n{path}".encode("utf-8", "surrogateescape")).digest()

    return sorted(units, key=draw)


def _refuse_rare(table: Counts, classes: Sequence[str], weights: Counts, parts: str) -> None:
    needed = int((weights > 0).sum())
    for label, column in zip(classes, table.T, strict=True):
        holding, images = int((column > 0).sum()), int(column.sum())
        if holding < needed:
            together = "" if holding == images else f" in {counted(holding, 'group')} that must stay together"
            remedy = "ask for fewer folds or add images" if parts == "folds" else "add images"
            raise DataError(
                f"the class {shown(label)!r} has {counted(images, 'image')}{together}, "
                f"too few for {needed} {parts} with at least one each; {remedy}"
            )


def _refuse_absent(table: Counts, placed: Sequence[int], classes: Sequence[str], weights: Counts, parts: str) -> None:
    present = {(part, label) for row, part in zip(table, placed, strict=True) for label in np.flatnonzero(row).tolist()}
    for index, label in enumerate(classes):
        for part in np.flatnonzero(weights).tolist():
            if (part, index) not in present:
                raise DataError(
                    f"the groups cannot be divided so that each of the {parts} has images of the class "
                    f"{shown(label)!r}; use fewer {parts}, smaller groups or another --seed"
                )


def _place(table: Counts, weights: Counts) -> list[int]:
    """The part of each unit (rows: images per class): the best of several beginnings, each improved."""
    kinds, kind_of = np.unique(table, axis=0, return_inverse=True)
    kind_of = kind_of.reshape(-1)
    totals = table.sum(axis=0)
    stocks = [_stock(kinds, kind_of, totals, weights, order) for order in _orders(table.sum(axis=1))]
    return _handed_out(kind_of, min(stocks, key=lambda stock: balancing.cost(kinds, stock, weights)))


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


def _stock(kinds: Counts, kind_of: Counts, totals: Counts, weights: Counts, order: Counts) -> Counts:
    """(T, P) units of each kind in each part."""
    stock = balancing.place(kinds, kind_of[order], totals, weights)
    targets = class_targets(totals, weights)
    for kind in np.flatnonzero(kinds.sum(axis=1) == 1):
        label = int(kinds[kind].argmax())
        stock[kind] = _fill(targets[label] - kinds[:, label] @ stock, int((kind_of == kind).sum()), weights)
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


def _fill(deficits: Counts, count: int, weights: Counts) -> Counts:
    """(P,) how `count` single images are best spread over parts that lack `deficits`, of which some may be negative."""
    given = np.where(weights > 0, np.maximum(deficits, 0), 0)
    for _ in range(int(given.sum()) - count):  # larger units overshot elsewhere, so these parts cannot be filled
        part = np.where(given > 0, deficits - given, np.iinfo(np.int64).max).argmin()
        given[part] -= 1
    return given
