"""How well the maps of a whole set stand on their objects, with intervals."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from evalcam_cli.evaluation.clustered import ONE_PATIENT, clustered_proportion
from evalcam_cli.evaluation.estimates import Estimate, Interval
from evalcam_cli.evaluation.intervals import wilson_interval
from evalcam_cli.evaluation.means import mean_interval
from evalcam_cli.explain.boxes import Bools
from evalcam_cli.explain.levels import LEVELS
from evalcam_cli.explain.localisation import V1_OVERLAP, V2_OVERLAPS, Floats, Localised, unpack_hits, unpack_overlaps

MEANINGS = {
    "iou_50": "Share of maps whose box (above 15 % of the maximum or as asked for, largest segment) and an object have "
    "an IoU of at least 0.5.",
    "iou_mean": "Mean IoU of that box and the object it fits best; 0 for an empty map.",
    "pixel_iou_mean": "Mean IoU of that segment and the mask, pixel by pixel; 0 for an empty map.",
    "localisation_error_top1": "Share of images whose class is not the predicted one, or whose box has an IoU below "
    "0.5.",
    "localisation_error_top5": "The same with a class that is not among the first five.",
    "classification_error_top1": "Share of these images whose class is not the predicted one.",
    "classification_error_top5": "Share of these images whose class is not among the first five.",
    "max_box_acc": "Share of maps whose largest contour has an IoU of 0.5 or more, at the one threshold that is best "
    "for all maps together.",
    "max_box_acc_v2": "The same of any contour, averaged over an IoU of 0.3, 0.5 and 0.7 or more, each at its own "
    "best threshold.",
    "iou_mean_best": "Mean IoU of the largest contour and the object it fits best, at the one threshold that is best "
    "for all maps together.",
    "pointing_game": "Share of maps whose strongest point lies less than 15 pixels from an object.",
    "pointing_game_0px": "Share of maps whose strongest point lies on an object.",
    "pointing_game_centre": "How often the centre of the image would have been less than 15 pixels from an object.",
    "energy": "Mean share of the positive part of a map that lies on the objects; empty maps are left out.",
    "object_share": "Mean share of the seen pixels that are the objects': the energy of an even map.",
    "empty": "Share of maps in which nothing speaks for the class; they count as misses above.",
}
"""What each number is."""
POINTING_TOLERANCE = 15.0
"""Pixels of the original; Zhang et al., "Top-down neural attention by excitation backprop", IJCV 2018."""
_SELECTED = "the threshold was chosen on these maps, so it is a little too good"


@dataclass(frozen=True)
class Localisation:
    """The numbers of a set of maps."""

    numbers: Mapping[str, Estimate]
    """By name, as in `MEANINGS`; without `pixel_iou_mean` where no masks were given."""
    maps: int
    units: int
    """Images, or what they belong to."""
    thresholds: Mapping[str, float]
    """Best share of the range from a map's smallest to its largest value, of every overlap asked for; empty without
    maps. All thresholds up to the next 255th do the same."""


def summarise(records: Sequence[Localised]) -> Localisation:
    """The numbers over all maps of one method; undefined, with the reason, where there are none.

    A rate has Wilson's interval, a mean Student's; where a unit has several maps, both allow for what they share.
    """
    units = {unit: code for code, unit in enumerate(dict.fromkeys(record.unit for record in records))}
    estimates = _Estimates(np.array([units[record.unit] for record in records], dtype=np.int64))
    numbers = {name: estimates.rate(hits, tried) for name, hits, tried in _rates(records)}
    numbers |= {name: estimates.mean(values) for name, values in _means(records)}
    hits = unpack_hits(records)  # (N, 4, 255)
    best = hits.sum(axis=0).argmax(axis=1)  # one level for the whole set, for each overlap
    chosen = np.take_along_axis(hits, best[None, :, None], axis=2)[:, :, 0]
    numbers["max_box_acc"] = _noted(estimates.rate(chosen[:, 0], np.ones(len(records), dtype=bool)))
    numbers["max_box_acc_v2"] = _noted(estimates.mean(chosen[:, 1:].mean(axis=1)))
    overlaps = unpack_overlaps(records)
    highest = int(overlaps.sum(axis=0).argmax())
    numbers["iou_mean_best"] = _noted(estimates.mean(overlaps[:, highest]))
    names = ("iou_mean_best", "max_box_acc", *(f"max_box_acc_v2 at {overlap:g}" for overlap in V2_OVERLAPS))
    thresholds = (
        {name: int(level) / LEVELS for name, level in zip(names, (highest, *best), strict=True)} if records else {}
    )
    ordered = {name: numbers[name] for name in MEANINGS if name in numbers}
    return Localisation(ordered, len(records), len(units), thresholds)


def _rates(records: Sequence[Localised]) -> Iterator[tuple[str, Bools, Bools]]:
    """Name, (N,) which maps count as a hit, and (N,) which count at all."""
    everything = np.ones(len(records), dtype=bool)
    ranked = np.array([record.rank is not None for record in records], dtype=bool)
    ranks = np.array([record.rank or 0 for record in records], dtype=np.int64)
    found = np.array([record.iou >= V1_OVERLAP for record in records], dtype=bool)
    yield "iou_50", found, everything
    for top in (1, 5):
        yield f"localisation_error_top{top}", ~(found & (ranks < top)), ranked
        yield f"classification_error_top{top}", ranks >= top, ranked
    distances = _values(record.distance for record in records)
    yield "pointing_game", distances < POINTING_TOLERANCE, everything  # NaN, in an empty map, is no hit
    yield "pointing_game_0px", distances == 0, everything
    yield "pointing_game_centre", _values(record.centre_distance for record in records) < POINTING_TOLERANCE, everything
    yield "empty", np.array([record.empty for record in records], dtype=bool), everything


def _means(records: Sequence[Localised]) -> Iterator[tuple[str, Floats]]:
    """Name and (N,) values, NaN for the maps that do not count."""
    yield "iou_mean", _values(record.iou for record in records)
    if any(record.pixel_iou is not None for record in records):
        yield "pixel_iou_mean", _values(record.pixel_iou for record in records)
    yield "energy", _values(record.energy for record in records)
    yield "object_share", _values(record.share for record in records)


def _values(values: Iterable[float | None]) -> Floats:
    return np.array([math.nan if value is None else value for value in values], dtype=np.float64)


@dataclass(frozen=True)
class _Estimates:
    """Numbers of maps with intervals by unit."""

    units: NDArray[np.int64]
    """(N,) number of each map's unit."""

    def rate(self, hits: Bools, tried: Bools) -> Estimate:
        n = int(tried.sum())
        if not n:
            return Estimate(None, undefined_reason=_why_none(len(tried)), n=0)
        trials = np.bincount(self.units[tried]).astype(np.float64)
        sums = np.bincount(self.units[tried], weights=hits[tried]).astype(np.float64)
        interval = wilson_interval(sums.sum(), n) if trials.max() == 1 else clustered_proportion(sums, trials)
        if interval.note == ONE_PATIENT:
            interval = Interval(note="needs at least 2 images")
        return _estimate(float(sums.sum()) / n, interval, n)

    def mean(self, values: Floats) -> Estimate:
        """Over the (N,) values that are not NaN, each from 0 to 1."""
        defined = ~np.isnan(values)
        n = int(defined.sum())
        if not n:
            return Estimate(None, undefined_reason=_why_none(len(values)), n=0)
        interval = mean_interval(values[defined], self.units[defined], low=0, high=1)
        return _estimate(float(values[defined].mean()), interval, n)


def _why_none(maps: int) -> str:
    return "no map can be judged by it" if maps else "there are no maps with a known object"


def _estimate(value: float, interval: Interval, n: int) -> Estimate:
    return Estimate(value, interval.low, interval.high, interval.method, n=n, ci_note=interval.note)


def _noted(estimate: Estimate) -> Estimate:
    return estimate if estimate.ci_low is None else replace(estimate, ci_note=_SELECTED)
