"""Images of different sets that are one picture: copied, encoded anew, resized, turned, mirrored, slightly cropped."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from evalcam_cli.data.close_looks import look_closely
from evalcam_cli.data.crowding import LEAST_SIMILARITY, Crowding, crowd_around, distances, fit, measure_crowding
from evalcam_cli.data.disk import inside
from evalcam_cli.data.fingerprints import Fingerprint, Structures
from evalcam_cli.data.identity import identify
from evalcam_cli.data.leakage import BYTES, LEAK_COLUMNS, PIXELS, part_of
from evalcam_cli.data.neighbours import VARIANT_NAMES, Codes, Pictures, encode, nearest
from evalcam_cli.data.registration import Registration
from evalcam_cli.data.samples import Sample
from evalcam_cli.data.tables import read_table
from evalcam_cli.progress import Progress, silent
from evalcam_cli.text import csv_text, shown

NEAR = "near-duplicate"
PAIR_COLUMNS = (*LEAK_COLUMNS, "similarity", "threshold", "transformation")

Doubles = NDArray[np.float64]
Integers = NDArray[np.int64]

_LIKELY = 0.55  # correlation of codes from which an image's three best partners are looked at
_VERY_LIKELY = 0.65  # and from which its eight best are
_CLOSE = 0.8  # correlation of fingerprints from which the images of an image's three best pairs are read again
_SAME = 0.999  # similarity from which images of equal size are compared pixel by pixel
_CROP = 0.015  # share of a side; less is the rounding of sizes
_LIGHT = 0.06  # change of the mean grey level that is called one of brightness


@dataclass(frozen=True)
class Pair:
    """An image and one in another set that it may be a copy of."""

    path: str
    """The image that should leave its set."""
    set: str
    """Or `fold 3`."""
    label: str
    kind: str
    """`identical bytes`, `identical pixels` or `near-duplicate`."""
    other: str
    other_set: str
    other_label: str
    similarity: float
    """Correlation of the two pictures once the transformation is undone, at most 1; 1 for identical ones."""
    threshold: float
    """From which this image's pairs count, as the data set around it demands."""
    transformation: str
    """What made `path` from `other`, as `flip + crop`; empty for identical ones."""

    @property
    def has_two_labels(self) -> bool:
        """Whether one picture stands under two labels."""
        return self.label != self.other_label

    def row(self) -> tuple[str | float, ...]:
        """As in near_duplicates.csv, in the order of `PAIR_COLUMNS`."""
        names = (self.path, self.set, self.label, self.kind, self.other, self.other_set, self.other_label)
        return (*names, self.similarity, self.threshold, self.transformation)


@dataclass(frozen=True)
class Findings:
    """Of a search for near-duplicates between sets."""

    pairs: tuple[Pair, ...]
    """One for each image that has a copy where it should not, with the nearest one; in the order of the samples."""
    close_calls: tuple[Pair, ...]
    """Pairs of at least `LEAST_SIMILARITY` that stayed below the threshold of their image."""
    crowding: Crowding
    comparisons: int
    """Images that were compared with another set."""
    expected_false_pairs: float
    """By chance, estimated from a sample; NaN where there are too few images."""
    plain: tuple[str, ...]
    """Images with nothing to recognise, compared by their pixels only."""


@dataclass(frozen=True)
class _Candidate:
    """Two images that may be one picture; numbers are positions in the list of samples."""

    first: int
    second: int
    similarity: float
    kind: str = NEAR
    warp: tuple[float, ...] = (1.0, 0.0, 1.0, 0.0)
    variant: int = 0

    @property
    def rank(self) -> tuple[bool, bool, float, int]:
        """Ascending from the best."""
        return self.kind != BYTES, self.kind != PIXELS, -self.similarity, self.second


def find_near_duplicates(
    root: Path,
    samples: Sequence[Sample],
    fingerprints: Mapping[str, Fingerprint],
    *,
    max_pixels: int,
    seed: int = 0,
    progress: Progress = silent,
    jobs: int | None = None,
) -> Findings:
    """Compare images of val and test with training images, of val with test images, of each fold with all others.

    Each image is named once, with the most similar one that it gives away. What this rests on is told in docs/audit.md.

    Args:
        root: The folder that the paths are relative to.
        samples: All with a fingerprint; in two sets or folds at least, else nothing is found.
        fingerprints: By path.
        max_pixels: Larger images cannot be read.
        seed: Of the sample that the threshold is calibrated on.
        progress: Told what is being done.
        jobs: Worker processes; by default one per CPU core.
    """
    prints = [fingerprints[sample.path] for sample in samples]
    sides = list(_comparisons(samples))
    reader = _Reader(root, samples, prints, max_pixels, progress, jobs)
    best = {found.first: found for found in _equal_bytes(prints, sides)}
    plain = [place for place, one in enumerate(prints) if one.is_plain]
    best |= {found.first: found for found in _equal_plain(reader, plain, sides) if found.first not in best}
    shapes = np.array([place for place, one in enumerate(prints) if not one.is_plain], dtype=np.int64)
    pictures = Structures(prints[place] for place in shapes)
    codes = encode(pictures)
    candidates: list[_Candidate] = []
    for queries, targets in sides:
        wanted = np.setdiff1d(queries, [*best, *plain])
        candidates += _candidates(reader, pictures, codes, shapes, wanted, np.setdiff1d(targets, plain))
    near = _best_of(_with_equal_pixels(reader, candidates))
    crowding = measure_crowding(pictures, codes, seed=seed)
    partners = {int(query): len(targets) for queries, targets in sides for query in queries}
    rows = [place for place, found in near.items() if found.similarity >= LEAST_SIMILARITY]
    thresholds = _thresholds(
        crowding, pictures, codes, np.searchsorted(shapes, rows), [partners[row] for row in rows], len(partners)
    )
    limits = dict(zip(rows, thresholds, strict=True))
    passed = {row for row in rows if near[row].kind == PIXELS or near[row].similarity >= limits[row]}
    best |= {row: near[row] for row in passed}

    def told(found: _Candidate) -> Pair:
        return _pair(samples, prints, found, float(limits.get(found.first, LEAST_SIMILARITY)))

    return Findings(
        pairs=tuple(told(best[place]) for place in sorted(best)),
        close_calls=tuple(told(near[place]) for place in sorted(rows) if place not in best),
        crowding=crowding,
        comparisons=len(partners),
        expected_false_pairs=_expected(crowding, list(partners.values())),
        plain=tuple(samples[place].path for place in plain),
    )


def _comparisons(samples: Sequence[Sample]) -> Iterator[tuple[Integers, Integers]]:
    """(queries, targets): images, and those that they must not be copies of."""
    members: dict[str, list[int]] = defaultdict(list)
    for place, sample in enumerate(samples):
        members[part_of(sample)].append(place)
    folds = [part for part in members if part.startswith("fold ")]
    against = {"test": ["train", *folds], "val": ["train", "test"]}
    against |= {fold: [other for other in folds if other != fold] for fold in folds}
    for part, others in against.items():
        targets = sorted(place for other in others for place in members.get(other, ()))
        if members.get(part) and targets:
            yield np.array(members[part]), np.array(targets)


@dataclass(frozen=True)
class _Reader:
    """What is needed to read images again."""

    root: Path
    samples: Sequence[Sample]
    prints: Sequence[Fingerprint]
    max_pixels: int
    progress: Progress
    jobs: int | None

    def pixels_of(self, places: Sequence[int]) -> dict[int, str]:
        """The hash of the pixels of each of these images that can be read."""
        paths = {self.samples[place].path: place for place in places}
        read, _ = identify(self.root, list(paths), max_pixels=self.max_pixels, progress=self.progress, jobs=self.jobs)
        return {paths[path]: identity.pixels for path, identity in read.items()}

    def look_closely(self, pairs: Sequence[tuple[int, int, int]], warps: Doubles) -> Registration:
        named = [(self.samples[one].path, self.samples[other].path, variant) for one, other, variant in pairs]
        return look_closely(self.root, named, warps, max_pixels=self.max_pixels, progress=self.progress, jobs=self.jobs)


def _equal_bytes(prints: Sequence[Fingerprint], sides: Sequence[tuple[Integers, Integers]]) -> Iterator[_Candidate]:
    for queries, targets in sides:
        holders = {prints[place].digest: int(place) for place in targets[::-1]}
        for place in queries:
            if prints[place].digest in holders:
                yield _Candidate(int(place), holders[prints[place].digest], 1.0, BYTES)


def _equal_plain(
    reader: _Reader, plain: Sequence[int], sides: Sequence[tuple[Integers, Integers]]
) -> Iterator[_Candidate]:
    """Images without structure can only be compared pixel by pixel."""
    pixels = reader.pixels_of(plain) if plain else {}
    for queries, targets in sides:
        holders = {pixels[place]: int(place) for place in targets[::-1] if place in pixels}
        for place in queries:
            if place in pixels and pixels[place] in holders:
                yield _Candidate(int(place), holders[pixels[place]], 1.0, PIXELS)


def _candidates(
    reader: _Reader,
    pictures: Pictures,
    codes: Codes,
    shapes: Integers,
    queries: Integers,
    targets: Integers,
) -> Iterator[_Candidate]:
    """Pairs of a query and a target that look alike, after a closer look at them."""
    first, second = np.searchsorted(shapes, queries), np.searchsorted(shapes, targets)
    found = nearest(codes, first, second, most=8, floor=_LIKELY, progress=reader.progress)
    worth = (found.index >= 0) & ((np.arange(8) < 3) | (found.score >= _VERY_LIKELY))
    rows, ranks = np.nonzero(worth)
    partners = found.index[rows, ranks]
    fitted = fit(pictures, codes, first[rows], partners, progress=reader.progress)
    order = np.lexsort((partners, -fitted.similarity, rows))
    place_in_row = np.arange(len(order)) - np.searchsorted(rows[order], rows[order])
    kept = order[(place_in_row < 3) & (fitted.similarity[order] >= _CLOSE)]
    pairs = [(int(shapes[first[rows[at]]]), int(shapes[partners[at]]), int(fitted.variant[at])) for at in kept]
    looks = reader.look_closely(pairs, fitted.warp[kept])
    for (one, other, variant), similarity, warp in zip(pairs, looks.similarity, looks.warp, strict=True):
        yield _Candidate(one, other, round(float(similarity), 4), NEAR, tuple(map(float, warp)), variant)


def _with_equal_pixels(reader: _Reader, candidates: Sequence[_Candidate]) -> Iterator[_Candidate]:
    """The candidates, those with equal pixels under that kind."""

    def size(place: int) -> tuple[int, int]:
        return reader.prints[place].width, reader.prints[place].height

    same = [one for one in candidates if one.similarity >= _SAME and size(one.first) == size(one.second)]
    alike = {(one.first, one.second) for one in same}
    places = sorted({place for pair in alike for place in pair})
    pixels = reader.pixels_of(places) if places else {}
    for one in candidates:
        if (one.first, one.second) in alike and one.first in pixels and pixels[one.first] == pixels.get(one.second):
            yield _Candidate(one.first, one.second, 1.0, PIXELS)
        else:
            yield one


def _best_of(candidates: Iterator[_Candidate]) -> dict[int, _Candidate]:
    best: dict[int, _Candidate] = {}
    for one in candidates:
        if one.first not in best or one.rank < best[one.first].rank:
            best[one.first] = one
    return best


def _thresholds(
    crowding: Crowding,
    pictures: Pictures,
    codes: Codes,
    rows: Integers,
    targets: Sequence[int],
    comparisons: int,
) -> Doubles:
    """The similarity from which each of these images' pairs count, rounded as similarities are."""
    if not crowding.neighbours or not len(rows):
        return np.full(len(rows), LEAST_SIMILARITY)
    crowd = crowd_around(pictures, codes, rows, crowding.neighbours).capped(crowding.dimension)
    return np.round(crowding.thresholds(crowd, np.array(targets, dtype=np.float64), comparisons), 4)


def _expected(crowding: Crowding, targets: Sequence[int]) -> float:
    """Chance pairs in the whole audit; NaN where nothing was measured."""
    if not crowding.neighbours or not targets:
        return float("nan")
    mean = sum(targets) / len(targets)
    limits = crowding.thresholds(crowding.sample, mean, len(targets))
    return float(crowding.expected(distances(limits), crowding.sample, mean).mean() * len(targets))


def _pair(samples: Sequence[Sample], prints: Sequence[Fingerprint], found: _Candidate, threshold: float) -> Pair:
    one, other = samples[found.first], samples[found.second]
    return Pair(
        path=one.path,
        set=part_of(one),
        label=one.label,
        kind=found.kind,
        other=other.path,
        other_set=part_of(other),
        other_label=other.label,
        similarity=found.similarity,
        threshold=threshold,
        transformation=_transformation(prints[found.first], prints[found.second], found) if found.kind == NEAR else "",
    )


def _transformation(one: Fingerprint, other: Fingerprint, found: _Candidate) -> str:
    """What made the first image from the second, as far as it can be seen."""
    down, below, right, beside = found.warp
    height, width = (one.width, one.height) if found.variant & 4 else (one.height, one.width)
    sizes = ((height, other.height * down), (width, other.width * right))
    cropped = max(abs(down - 1), abs(right - 1), 2 * abs(below), 2 * abs(beside)) > _CROP
    resized = any(abs(now - before) > max(2, 0.02 * before) for now, before in sizes)
    lit = abs(np.log(max(one.mean, 1.0) / max(other.mean, 1.0))) > _LIGHT
    said = [
        VARIANT_NAMES[found.variant],
        "crop" if cropped else "",
        "resize" if resized else "",
        "brightness" if lit else "",
    ]
    return " + ".join(part for part in said if part) or "re-encoding"


def near_duplicate_paths(path: Path) -> dict[str, str]:
    """Which images of a near_duplicates.csv are copies, and of what: {path: other}.

    Raises:
        UsageError: The file cannot be opened.
        DataError: It is no such list; the message names the row.
    """
    table = read_table(path, ("path", "other"), errors="surrogateescape")
    found: dict[str, str] = {}
    for number, (image, other) in table.cells("path", "other"):
        name, partner = inside(csv_text(image)), inside(csv_text(other))
        if not image or not other:
            raise table.fault(number, "an image and the one that it is a copy of are needed")
        if name is None or partner is None:
            raise table.fault(
                number, f"the path {shown(image if name is None else other)[:200]!r} leaves the data folder"
            )
        found.setdefault(name, partner)
    return found
