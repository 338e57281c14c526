"""What a classifier said about a set of images: the border between torch and numpy."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray

from evalcam_cli.evaluation.operating_point import OperatingPoint

Floats = NDArray[np.float64]

BLOCK_SCORES = 2_000_000
"""Scores worked on at a time (16 MB in float64), so that a pass over all images takes the memory of one block."""


@dataclass(frozen=True)
class Predictions:
    """Logits and truth of N images for K classes.

    All metrics are computed from here, over all N images at once, in float64. Probabilities are the softmax of the
    logits divided by the temperature. They are made block by block, so that no second copy of the logits is needed;
    `probabilities` is for sets small enough to hold all of them.
    """

    classes: tuple[str, ...]
    """K names in output order."""
    logits: NDArray[np.float32]
    """(N, K), raw, before softmax and temperature. Logarithms of probabilities serve as well."""
    targets: NDArray[np.int64]
    """(N,) index of the true class."""
    paths: tuple[str, ...]
    """(N,) relative to the data root."""
    subsets: tuple[str, ...] = ()
    """(N,) the set each image was taken from; empty when unknown."""
    groups: tuple[str, ...] = ()
    """(N,) group (patient) of each image; empty when unknown."""
    extra_columns: tuple[str, ...] = ()
    extra: tuple[tuple[str, ...], ...] = field(default=())
    """(N,) rows of the manifest's further columns."""
    temperature: float = 1.0
    """Divides the logits; fitted on validation images (Guo et al. 2017)."""
    operating_point: OperatingPoint | None = None
    """With two classes it decides `predicted`; with more it only adds one-vs-rest numbers."""

    def take(self, indices: Sequence[int] | NDArray[np.int64]) -> Self:
        """The predictions of some of the images, in the order named."""
        chosen = np.asarray(indices, dtype=np.int64)

        def picked(texts: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(texts[index] for index in chosen) if texts else ()

        return replace(
            self,
            logits=self.logits[chosen],
            targets=self.targets[chosen],
            paths=picked(self.paths),
            subsets=picked(self.subsets),
            groups=picked(self.groups),
            extra=tuple(self.extra[index] for index in chosen) if self.extra else (),
        )

    def column(self, name: str) -> tuple[str, ...] | None:
        """(N,) texts of `group`, `subset` or one of the manifest's further columns; None when there is none."""
        known = {"group": self.groups, "subset": self.subsets}
        if name in known:
            return known[name] or None
        if name not in self.extra_columns:
            return None
        index = self.extra_columns.index(name)
        return tuple(row[index] for row in self.extra)

    @cached_property
    def _normalisers(self) -> tuple[Floats, Floats]:
        """(N,) largest scaled logit of each image, and the logarithm of Σ exp(scaled logit - largest)."""
        largest = np.empty(len(self.logits))
        log_sums = np.empty(len(self.logits))
        for start, stop in row_blocks(*self.logits.shape):
            scaled = self.logits[start:stop].astype(np.float64) / self.temperature
            largest[start:stop] = scaled.max(axis=1)
            scaled -= largest[start:stop, None]
            np.exp(scaled, out=scaled)
            log_sums[start:stop] = np.log(scaled.sum(axis=1))
        return largest, log_sums

    def log_rows(self, start: int, stop: int) -> Floats:
        """(stop - start, K) log probabilities of some images."""
        largest, log_sums = self._normalisers
        scaled = self.logits[start:stop].astype(np.float64) / self.temperature
        scaled -= largest[start:stop, None]
        scaled -= log_sums[start:stop, None]
        return np.asarray(scaled)

    def rows(self, start: int, stop: int) -> Floats:
        """(stop - start, K) probabilities of some images."""
        found = self.log_rows(start, stop)
        return np.asarray(np.exp(found, out=found))

    def scores(self, start: int, stop: int) -> NDArray[np.floating]:
        """(stop - start, K) of some images, what decides which of its classes come first; nothing is rounded."""
        return self.logits[start:stop]

    def columns(self, start: int, stop: int) -> Floats:
        """(stop - start, N) probabilities of some classes, one contiguous row for each."""
        largest, log_sums = self._normalisers
        scaled = self.logits.T[start:stop].astype(np.float64, order="C") / self.temperature
        scaled -= largest
        scaled -= log_sums
        return np.asarray(np.exp(scaled, out=scaled))

    def probability_of(self, class_index: int) -> Floats:
        """(N,) probability of one class."""
        return np.asarray(self.columns(class_index, class_index + 1)[0])

    def each_class(self) -> Iterator[tuple[int, Floats]]:
        """Every class index with the (N,) probabilities of the class."""
        n, k = self.logits.shape
        width = max(1, min(64, BLOCK_SCORES // max(n, 1)))
        for start in range(0, k, width):
            yield from enumerate(self.columns(start, min(start + width, k)), start)

    @property
    def log_probabilities(self) -> Floats:
        """(N, K), float64."""
        return self.log_rows(0, len(self.logits))

    @property
    def probabilities(self) -> Floats:
        """(N, K), float64, rows sum to 1."""
        return self.rows(0, len(self.logits))

    @cached_property
    def confidence(self) -> Floats:
        """(N,) largest probability of each image, whatever an operating point decides."""
        _, log_sums = self._normalisers
        return np.asarray(np.exp(-log_sums))  # the largest scaled logit, less itself, is 0

    @cached_property
    def argmax(self) -> NDArray[np.int64]:
        """(N,) index of the largest logit; the lowest index of equals."""
        return np.asarray(self.logits.argmax(axis=1), dtype=np.int64)

    @cached_property
    def called(self) -> NDArray[np.bool_] | None:
        """(N,) whether each image is called positive at the operating point; None without one."""
        point = self.operating_point
        if point is None:
            return None
        return np.asarray(self.probability_of(self.classes.index(point.positive)) >= point.threshold)

    @property
    def at_point(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]] | None:
        """(N,) whether each image is of the operating point's class, and whether it is called; None without a point."""
        point, called = self.operating_point, self.called
        if point is None or called is None:
            return None
        return self.targets == self.classes.index(point.positive), called

    @cached_property
    def predicted(self) -> NDArray[np.int64]:
        """(N,) index of the predicted class: by the operating point with two classes, else the argmax."""
        if self.called is None or self.operating_point is None or len(self.classes) != 2:
            return self.argmax
        positive = self.classes.index(self.operating_point.positive)
        return np.where(self.called, positive, 1 - positive).astype(np.int64)

    @cached_property
    def group_codes(self) -> NDArray[np.int64] | None:
        """(N,) the group of each image as a number from 0; images without group are groups of their own.

        None when no two images share a group: then images are independent.
        """
        if not any(self.groups):
            return None
        keys = [group or f"\0{index}" for index, group in enumerate(self.groups)]
        codes: dict[str, int] = {}
        found = np.array([codes.setdefault(key, len(codes)) for key in keys], dtype=np.int64)
        return found if len(codes) < len(keys) else None

    @cached_property
    def group_count(self) -> int | None:
        """Groups, images without one counted as groups of their own; None when images are independent."""
        return None if self.group_codes is None else int(self.group_codes.max()) + 1

    @property
    def units(self) -> int:
        """What is independent of each other, and so is resampled: groups, or images where there are none."""
        return len(self.targets) if self.group_count is None else self.group_count


def row_blocks(n: int, k: int) -> Iterator[tuple[int, int]]:
    """Bounds of blocks of rows that hold about `BLOCK_SCORES` scores each."""
    height = max(1, BLOCK_SCORES // max(k, 1))
    for start in range(0, n, height):
        yield start, min(start + height, n)
