"""The boxes of a map at all thresholds at once.

Choe et al., "Evaluating weakly supervised object localization methods right", CVPR 2020,
https://arxiv.org/abs/2001.07437, section 3.3: the map is scaled from its smallest value to its largest, brought to 256
steps, and binarised at every threshold from 0 to 1. So only 255 levels differ, whatever the number of thresholds.

How a component of hot pixels grows from level to level follows from the map's hills. Every pixel climbs to its
hottest neighbour until it stands on a summit; at any level the hot pixels of one hill hang together, and two hills do
as soon as the pass between them is hot. The passes are taken from the highest down, as in the component tree of a grey
image (Salembier, Oliveras and Garrido, "Antiextensive connected operators for image and sequence processing", IEEE
Transactions on Image Processing 1998), and the tables of two hills are joined below their pass.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evalcam_cli.explain.boxes import Bools, Boxes

LEVELS = 255
"""At level t = 0 … 254 the pixels of step t + 1 and above are hot."""
_STEPS = LEVELS + 1
_EIGHT = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 0), (0, 1), (1, -1), (1, 0), (1, 1))  # in reading order
_FOUR = ((-1, 0), (0, -1), (0, 0), (0, 1), (1, 0))
_FAR = 2**30

Ints = NDArray[np.int64]
Steps = NDArray[np.uint8]


@dataclass(frozen=True)
class LevelBoxes:
    """Boxes by level, in no order."""

    levels: Ints
    """(M,) from 0 to 254."""
    boxes: Boxes
    """(M, 4)"""


def level_of(threshold: float) -> int:
    """The level at which a map is binarised for a threshold from 0 to below 1."""
    return int(threshold * LEVELS)


def scale_steps(heat: NDArray[np.floating], seen: Bools | None = None) -> Steps:
    """(H, W) steps from 0, where the map is smallest, to 255, where it is largest, rounded down.

    All 0 for a map that is the same everywhere; 0 where the model saw nothing.
    """
    heat = heat.astype(np.float64)
    known = np.ones(heat.shape, dtype=bool) if seen is None else seen
    low = float(heat.min(where=known, initial=np.inf))
    spread = float(heat.max(where=known, initial=-np.inf)) - low
    if not spread > 0:
        return np.zeros(heat.shape, dtype=np.uint8)
    return np.asarray(np.where(known, (heat - low) / spread, 0) * LEVELS).astype(np.uint8)


@dataclass(frozen=True)
class Contours:
    """What the hot pixels of a map are bounded by at every level."""

    largest: LevelBoxes
    """The box of the largest contour, for every level that has one.

    Largest by the area that an outer contour encloses, drawn through the centres of its pixels, holes included; of
    equal ones the one whose first pixel comes last in reading order (both as OpenCV's `findContours` has it).
    """
    every: LevelBoxes
    """Of all contours: of every component, and of the rim around every hole in one.

    The rim of a hole is a contour of its own in the published protocol (OpenCV's `RETR_TREE`).
    """


def find_contours(steps: Steps) -> Contours:
    """The boxes of an (H, W) map at every level; hot pixels belong together where they touch, at corners too."""
    valleys = _find_valleys(steps)
    hills = _find_hills(steps, _EIGHT)
    alive, boxes, first = _alive(hills, steps)
    hole_levels, holes = _holes(steps, valleys)
    every = LevelBoxes(np.concatenate([np.nonzero(alive)[1], hole_levels]), np.concatenate([boxes, holes]))
    if len(holes):  # a hole counts as hot
        steps = _filled(steps, valleys)
        hills = _find_hills(steps, _EIGHT)
        alive, boxes, first = _alive(hills, steps)
    areas = _joined(_cells(hills.labels, steps, len(hills.summits)), hills)[alive]
    levels = np.nonzero(alive)[1]
    order = np.lexsort((first, areas, levels))
    last = np.diff(levels[order], append=-1) != 0
    return Contours(LevelBoxes(levels[order][last], boxes[order][last]), every)


def _holes(steps: Steps, valleys: "_Hills") -> tuple[Ints, Boxes]:
    """Level and rim of every hole: cold pixels that touch at their sides and are cut off from the image's border."""
    alive, boxes, _ = _alive(valleys, _depths(steps))
    valley, depth_levels = np.nonzero(alive)
    inner = valley != valleys.labels[0, 0]  # the frame is outside
    rims = boxes[inner] + np.array([-2, -2, 0, 0])  # a pixel wider, in the image's coordinates
    return LEVELS - 1 - depth_levels[inner], rims


@dataclass(frozen=True)
class _Hills:
    """The hills of a map and the passes between them."""

    labels: Ints
    """(H, W) number of each pixel's hill."""
    summits: Ints
    """(B,) step of each summit."""
    merges: list[tuple[int, int, int]]
    """(hill, hill it becomes a part of, step of the pass), from the highest pass down."""


def _find_hills(
    steps: Steps, neighbours: tuple[tuple[int, int], ...], favourite: tuple[int, int] | None = None
) -> _Hills:
    """The hills and, with a favourite pixel, that one's as the part of no other."""
    labels, summits = _climb(steps, neighbours)
    heights = steps.ravel()[summits].astype(np.int64)
    ranks = heights.copy()
    if favourite is not None:
        ranks[labels[favourite]] = _STEPS
    return _Hills(labels, heights, _merge(*_passes(labels, steps, neighbours), ranks.tolist()))


def _climb(steps: Steps, neighbours: tuple[tuple[int, int], ...]) -> tuple[Ints, Ints]:
    """(H, W) number of the hill that each pixel is on, and the (B,) places of the summits in reading order.

    Among equal neighbours the last in reading order is climbed to, so that no two pixels climb to each other.
    """
    height, width = steps.shape
    padded = np.pad(steps.astype(np.int16), 1, constant_values=-1)
    best = np.full(steps.shape, -1, dtype=np.int16)
    way = np.zeros(steps.shape, dtype=np.int64)
    for dy, dx in neighbours:
        there = padded[1 + dy : 1 + dy + height, 1 + dx : 1 + dx + width]
        higher = there >= best
        np.copyto(best, there, where=higher)
        np.copyto(way, dy * width + dx, where=higher)
    here = np.arange(steps.size)
    target = here + way.ravel()
    summits = np.flatnonzero(target == here)
    while True:
        further = target[target]
        if np.array_equal(further, target):
            break
        target = further
    number = np.empty(steps.size, dtype=np.int64)
    number[summits] = np.arange(len(summits))
    return number[target].reshape(steps.shape), summits


def _passes(labels: Ints, steps: Steps, neighbours: tuple[tuple[int, int], ...]) -> tuple[Ints, Ints, Ints]:
    """Pairs of hills and the step of the highest pass between them, from the highest down."""
    height, width = labels.shape
    found = []
    for dy, dx in neighbours[len(neighbours) // 2 + 1 :]:
        here = np.s_[: height - dy, max(0, -dx) : width - max(0, dx)]
        there = np.s_[dy:, max(0, dx) : width + min(0, dx)]
        differ = labels[here] != labels[there]
        found.append((labels[here][differ], labels[there][differ], np.minimum(steps[here], steps[there])[differ]))
    one, other, heights = (np.concatenate(parts) for parts in zip(*found, strict=True))
    order = np.argsort(LEVELS - heights, kind="stable")
    pairs = np.minimum(one, other) * (int(labels.max()) + 1) + np.maximum(one, other)
    highest = order[np.sort(np.unique(pairs[order], return_index=True)[1])]
    return one[highest], other[highest], heights[highest].astype(np.int64)


def _merge(one: Ints, other: Ints, heights: Ints, ranks: list[int]) -> list[tuple[int, int, int]]:
    """Join hills over the passes in turn; the one of the lower rank becomes part of the other."""
    owner = list(range(len(ranks)))

    def root(hill: int) -> int:
        while owner[hill] != hill:
            owner[hill] = owner[owner[hill]]
            hill = owner[hill]
        return hill

    merges = []
    for left, right, height in zip(one.tolist(), other.tolist(), heights.tolist(), strict=True):
        into, part = root(left), root(right)
        if into != part:
            if ranks[into] < ranks[part]:
                into, part = part, into
            owner[part] = into
            merges.append((part, into, height))
    return merges


def _alive(hills: _Hills, steps: Steps) -> tuple[Bools, Boxes, Ints]:
    """(B, 255) whether a component bears the number of hill b at level t; box and first pixel of every such."""
    ends = np.zeros(len(hills.summits), dtype=np.int64)
    for part, _, height in hills.merges:
        ends[part] = height
    levels = np.arange(LEVELS)
    alive = (levels >= ends[:, None]) & (levels < hills.summits[:, None])
    corners = np.stack([one[alive] for one in _extents(hills, steps)])  # (5, M)
    boxes = np.stack([corners[0], corners[1], 1 - corners[2], 1 - corners[3]], axis=1).astype(np.int64)
    return alive, boxes, corners[4].astype(np.int64)


def _extents(hills: _Hills, steps: Steps) -> NDArray[np.int32]:
    """(5, B, 255) smallest x, y, -x, -y and place in reading order of the hot pixels of a component."""
    height, width = steps.shape
    count = len(hills.summits)
    codes = ((LEVELS - steps.astype(np.int64)) * count + hills.labels).ravel()  # the hottest come first
    y, x = (np.broadcast_to(one, steps.shape).ravel() for one in np.ogrid[:height, :width])
    table = np.full((5, _STEPS * count), _FAR, dtype=np.int32)
    for row, values in zip(table, (x, y, -x, -y, y * width + x), strict=True):
        np.minimum.at(row, codes, values.astype(np.int32))
    reach = table.reshape(5, _STEPS, -1)
    np.minimum.accumulate(reach, axis=1, out=reach)
    for part, into, pass_height in hills.merges:
        below = np.s_[:, LEVELS - pass_height : LEVELS, :]
        np.minimum(reach[below][..., into], reach[below][..., part], out=reach[below][..., into])
    return reach[:, LEVELS - 1 :: -1].transpose(0, 2, 1)


def _cells(labels: Ints, steps: Steps, count: int) -> Ints:
    """(B, 255) twice the area between the centres of the hot pixels, by the hill that each square of four hangs on.

    A square between four centres counts whole where all four are hot and half where three are.
    """
    a, b, c, d = steps[:-1, :-1], steps[:-1, 1:], steps[1:, :-1], steps[1:, 1:]
    low_ab, high_ab, low_cd, high_cd = np.minimum(a, b), np.maximum(a, b), np.minimum(c, d), np.maximum(c, d)
    fourth = np.minimum(low_ab, low_cd)
    third = np.minimum(np.maximum(low_ab, low_cd), np.minimum(high_ab, high_cd))
    above = np.where(a >= b, labels[:-1, :-1], labels[:-1, 1:])
    below = np.where(c >= d, labels[1:, :-1], labels[1:, 1:])
    hottest = np.where(high_ab >= high_cd, above, below) * _STEPS
    counts = sum(np.bincount((hottest + corner).ravel(), minlength=count * _STEPS) for corner in (third, fourth))
    return np.asarray(np.cumsum(np.reshape(counts, (count, _STEPS))[:, ::-1], axis=1)[:, LEVELS - 1 :: -1])


def _joined(table: Ints, hills: _Hills) -> Ints:
    """The (B, 255) sums of single hills as those of whole components."""
    for part, into, height in hills.merges:
        table[into, :height] += table[part, :height]
    return table


def _depths(steps: Steps) -> Steps:
    """How far below the top step each pixel lies, inside a frame, a pixel wide, that is as deep as can be."""
    return np.pad(LEVELS - steps, 1, constant_values=LEVELS)


def _find_valleys(steps: Steps) -> _Hills:
    """The hills of the depths, whose pixels touch at their sides only; the frame is in the first pixel's."""
    return _find_hills(_depths(steps), _FOUR, favourite=(0, 0))


def _filled(steps: Steps, valleys: _Hills) -> Steps:
    """The map with its holes filled: each pixel as hot as the lowest way from it to the image's border at its top."""
    reach = np.full(len(valleys.summits), LEVELS, dtype=np.int64)  # the highest depth at which the frame is reached
    for part, into, height in reversed(valleys.merges):
        reach[part] = min(height, reach[into])
    inner = valleys.labels[1:-1, 1:-1]
    return np.maximum(steps, LEVELS - reach[inner]).astype(np.uint8)
