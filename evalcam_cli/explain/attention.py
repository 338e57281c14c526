"""Where the maps of a class look on average, and a warning when that is the border or a corner of the images.

A classifier that reads a marker, a ruler or a burnt-in text instead of the object has its maps where those stand: along
the border or in a corner, in many images. One map shows little of this, the average of many does.

**The average.** The positive part of each map is taken on a grid over the part of the image that the model saw (all of
it, unless a crop cut some off) and divided by its sum, so that every image counts the same whatever its size and its
scale. An image whose map is nowhere positive there is counted as empty and left out.

**The rule.** Nine regions are looked at: the four corners (a quarter of the width by a quarter of the height), the four
edges (an eighth), and the border (the four edges together). A region that covers the share a of the area is expected
to hold at most a of the mass when attention is spread evenly, at random places or around the middle. A class is said to
look at a region when its mean share s over n images is

1. large: s >= a + 0.15 (1 - a), as if 15 % of the attention were there alone and the rest spread evenly: 20 % in one
   corner, 26 % along one edge, 52 % along the border; and
2. no accident: by Hoeffding (1963), theorem 1, equation 2.1, independent shares with a mean of at most a reach s with a
   probability of at most exp(-n KL(s, a)), where KL(s, a) = s ln(s / a) + (1 - s) ln((1 - s) / (1 - a)), whatever
   their distribution. This must be at most 0.01 / (9 K) for K classes with images: the chance of any false warning in a
   report stays below 1 %.

Of several regions that pass, the one farthest above its area, (s - a) / (1 - a), is named.

**How many images.** With four classes, a corner that holds all of the mass takes 3 images, 80 % 5, 50 % 12 and 30 % 31;
a border 10 images at 100 % and 30 at 80 %. `images_needed` tells; a class with fewer than the border needs at its best
(10 for four classes) is called undecided when nothing passed. Images of one patient or one film are not independent:
count those, not the images.

**Measured** (`tests/benchmarks/attention.py`, four classes, 7 x 7 maps, 5 to 300 images per class): no false alarm in
8,358 reports of maps that are even, noise, bumps at random places, around the middle, a third from one corner, or low
in the picture. A corner marker that draws 80 % of the attention is found in all classes of 10 images, with 50 % in all
of 30; in half of the images, 80 % in 87 % of the classes of 30 and all of 100; in a third of the images, 80 % and
100 % of those of 100 and 300; in a tenth never. A text along one edge with 80 % takes 30 images, in half of the images
300; markers anywhere along the border with 80 % take 100, weaker ones are not found: the average is too even.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from evalcam_cli.data.preprocessing import Geometry
from evalcam_cli.text import counted, shown

Floats = NDArray[np.floating]

GRID = 32
"""Cells of the common grid along each side."""
EXCESS = 0.15
"""Least share of the attention, beyond an even spread, that counts as looking at a region."""
FALSE_ALARMS = 0.01
"""Largest chance of any false warning in a report."""
_CORNER, _EDGE = GRID // 4, GRID // 8


@dataclass(frozen=True)
class Region:
    """A part of the image area that should not matter by itself."""

    name: str
    extent: str
    rows: slice
    columns: slice
    inside: bool = True
    """False for all but these rows and columns."""

    @property
    def mask(self) -> NDArray[np.bool_]:
        """(GRID, GRID), true in the region."""
        found = np.full((GRID, GRID), not self.inside)
        found[self.rows, self.columns] = self.inside
        return found

    @property
    def area(self) -> float:
        """Its share of the image area."""
        return float(self.mask.mean())


def _regions() -> tuple[Region, ...]:
    everything = slice(None)
    quarter, wide, high = (
        "a quarter of the width by a quarter of the height",
        "an eighth of the height",
        "an eighth of the width",
    )
    tops = {"top": slice(None, _CORNER), "bottom": slice(-_CORNER, None)}
    lefts = {"left": slice(None, _CORNER), "right": slice(-_CORNER, None)}
    corners = [
        Region(f"{top}-{left} corner", quarter, rows, columns)
        for top, rows in tops.items()
        for left, columns in lefts.items()
    ]
    first, last, middle = slice(None, _EDGE), slice(-_EDGE, None), slice(_EDGE, -_EDGE)
    edges = [
        Region("top edge", wide, first, everything),
        Region("bottom edge", wide, last, everything),
        Region("left edge", high, everything, first),
        Region("right edge", high, everything, last),
    ]
    border = Region("border", "an eighth of the width and height on every side", middle, middle, inside=False)
    return (*corners, *edges, border)


REGIONS = _regions()
BORDER = REGIONS[-1]


@dataclass(frozen=True)
class Finding:
    """A region that a class looks at more than chance explains."""

    region: Region
    share: float
    """Of the mass of an average image."""
    chance: float
    """Upper bound of the probability of such a share without a reason, before the correction for all tests."""


@dataclass(frozen=True)
class ClassAttention:
    """Where the maps of one class look on average."""

    class_index: int
    images: int
    """With a map that is positive somewhere; what the average is over."""
    empty: int
    """Images whose map is nowhere positive."""
    average: NDArray[np.float64] | None
    """(GRID, GRID) with the sum 1; None without images."""
    finding: Finding | None
    needed: float
    """Images from which on the rule can decide about every region."""

    @property
    def undecided(self) -> bool:
        """Whether nothing was found in too few images to rule it out."""
        return self.finding is None and self.images < self.needed

    def share(self, region: Region) -> float | None:
        """Mean share of the positive mass in a region; None without images."""
        return None if self.average is None else float(self.average[region.mask].sum())


def describe(attention: ClassAttention, label: str) -> str | None:
    """The warning in one sentence, with its numbers; None where there is nothing to warn of."""
    found = attention.finding
    if found is None:
        return None
    images = counted(attention.images, "image")
    return (
        f"the attention of {shown(label)} sits at the {found.region.name}: {found.share:.0%} of it, over {images}, "
        f"lies in {found.region.extent}, which is {found.region.area:.0%} of the area; "
        "look there for a marker, a ruler or burnt-in text"
    )


class AttentionAverages:
    """Running averages of the maps of K classes; memory does not grow with the images: 8 kB per class."""

    def __init__(self, classes: int) -> None:
        self._sums = np.zeros((classes, GRID, GRID))
        self._images = np.zeros(classes, dtype=np.int64)
        self._empty = np.zeros(classes, dtype=np.int64)

    def add(self, class_index: int, class_map: Floats, geometry: Geometry) -> None:
        """Take in one image's map of a class.

        Args:
            class_index: The class that the map explains.
            class_map: (h, w), signed, finite, over the model's input square.
            geometry: Where the image lies in it.
        """
        grid = positive_on_grid(class_map, geometry)
        mass = float(grid.sum())
        if mass > 0:
            self._sums[class_index] += grid / mass
            self._images[class_index] += 1
        else:
            self._empty[class_index] += 1

    def to_arrays(self) -> dict[str, NDArray[np.generic]]:
        """All that is known, to be saved and continued from."""
        return {"sums": self._sums.copy(), "images": self._images.copy(), "empty": self._empty.copy()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]]) -> Self:
        """The inverse of `to_arrays`."""
        averages = cls(len(arrays["images"]))
        averages._sums += arrays["sums"].astype(np.float64)
        averages._images += arrays["images"].astype(np.int64)
        averages._empty += arrays["empty"].astype(np.int64)
        return averages

    def summarise(self) -> tuple[ClassAttention, ...]:
        """Every class with at least one image, empty maps included, in class order."""
        tests = len(REGIONS) * max(1, int((self._images > 0).sum()))
        needed = images_needed(1.0, BORDER.area, tests)
        found = []
        for class_index in np.flatnonzero(self._images + self._empty):
            n, empty = int(self._images[class_index]), int(self._empty[class_index])
            average = self._sums[class_index] / n if n else None
            finding = None if average is None else find_region(average, n, tests)
            found.append(ClassAttention(int(class_index), n, empty, average, finding, needed))
        return tuple(found)


def positive_on_grid(class_map: Floats, geometry: Geometry) -> NDArray[np.float64]:
    """(GRID, GRID) means of the map's positive part over the part of the image that the model saw.

    Between the centres of the map's cells values are linear, beyond the outermost constant, as in the overlays.
    """
    rows = _places(class_map.shape[0], geometry.height * geometry.scale_y, geometry.top, geometry.image_size)
    columns = _places(class_map.shape[1], geometry.width * geometry.scale_x, geometry.left, geometry.image_size)
    fine = _between(_between(class_map.astype(np.float64), rows).T, columns).T
    blocks = np.maximum(fine, 0).reshape(GRID, len(rows) // GRID, GRID, len(columns) // GRID)
    return np.asarray(blocks.mean(axis=(1, 3)))


def _places(cells: int, length: float, offset: float, size: int) -> NDArray[np.float64]:
    """Where evenly spaced points of the seen part stand along one axis, in cells from the first one's centre.

    At least one point per grid cell and about one per cell of the map.
    """
    start, end = max(0.0, offset), min(float(size), offset + length)
    points = GRID * max(1, math.ceil((end - start) / size * cells / GRID))
    centres = start + (np.arange(points) + 0.5) / points * (end - start)
    return np.clip(centres / size * cells - 0.5, 0, cells - 1)


def _between(cells: NDArray[np.float64], places: NDArray[np.float64]) -> NDArray[np.float64]:
    """(P, ...) linear values at P places along the first axis."""
    lower = places.astype(np.intp)
    share = (places - lower)[:, None]
    below, above = cells[lower], cells[np.minimum(lower + 1, len(cells) - 1)]
    return np.asarray(below + share * (above - below))


def find_region(average: NDArray[np.float64], images: int, tests: int) -> Finding | None:
    """The region that the rule names, if any.

    Args:
        average: (GRID, GRID) with the sum 1.
        images: How many it is over.
        tests: Regions times classes, which share the chance of a false warning.
    """
    passing = []
    for region in REGIONS:
        share = min(1.0, float(average[region.mask].sum()))
        excess = (share - region.area) / (1 - region.area)
        chance = math.exp(-images * _divergence(share, region.area))
        if excess >= EXCESS and chance <= FALSE_ALARMS / tests:
            passing.append((excess, Finding(region, share, chance)))
    return max(passing, key=lambda pair: pair[0])[1] if passing else None  # of equals the first, a corner before a ring


def _divergence(share: float, area: float) -> float:
    """KL(share, area) of two coins, in nats; 0 where the share is no larger than the area."""
    if share <= area:
        return 0.0
    rest = 0.0 if share >= 1 else (1 - share) * math.log((1 - share) / (1 - area))
    return share * math.log(share / area) + rest


def images_needed(share: float, area: float, tests: int) -> float:
    """Images from which on a mean share of this size passes the second part of the rule; infinite where none do."""
    divergence = _divergence(share, area)
    return math.inf if divergence <= 0 else math.ceil(math.log(tests / FALSE_ALARMS) / divergence)
