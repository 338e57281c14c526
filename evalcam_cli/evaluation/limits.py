"""The interval of every metric: a formula where there is one that holds, else the shared bootstrap."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evalcam_cli.evaluation.auc import AucMethod, auc_interval, placements
from evalcam_cli.evaluation.clustered import clustered_proportion
from evalcam_cli.evaluation.counts import Counts, Floats
from evalcam_cli.evaluation.estimates import Interval
from evalcam_cli.evaluation.intervals import (
    ProportionMethod,
    likelihood_ratio_intervals,
    proportion_interval,
    resampled_interval,
)
from evalcam_cli.evaluation.resampling import resample_weights
from evalcam_cli.evaluation.statistics import RANKED, TOP_K, Sample

Bools = NDArray[np.bool_]

PROPORTIONS = ("precision", "recall", "specificity", "npv")
MAX_RANKED_SCORES = 5_000_000
"""Scores up to which average precision and averages of AUC are resampled; more would take minutes."""
MAX_POOLED_DRAWS = 1_000_000_000
"""Scores times resamples up to which micro averages of rank and Hand and Till's AUC are resampled."""
_AS_ACCURACY = ("accuracy", "precision_micro", "recall_micro", "f1_micro", "recall_weighted")
"""The same number for predictions of one class per image, so the same interval."""


@dataclass(frozen=True)
class IntervalChoice:
    """Which formula, where several are in use."""

    proportions: ProportionMethod = "wilson"
    auc: AucMethod = "score"


@dataclass(frozen=True)
class Limits:
    """Intervals by metric: one, or one per class."""

    found: dict[str, list[Interval]]
    ranked: bool
    """Whether metrics of rank were resampled."""

    def of(self, name: str, index: int = 0) -> Interval:
        """The interval of a metric, or of a class by it."""
        return self.found[name][index]


def compute_limits(
    sample: Sample, points: Mapping[str, Floats], margins: Counts, resamples: int, seed: int, choice: IntervalChoice
) -> Limits:
    """The 95 % interval of every statistic.

    Args:
        sample: The images; where they have groups, every interval is clustered by them.
        points: The statistics of all images, once each.
        margins: Of the confusion matrix.
        resamples: Of the bootstrap.
        seed: Of the resamples, which all metrics share.
        choice: Of formulas.
    """
    scores = sample.predictions.logits.size
    ranked = scores <= MAX_RANKED_SCORES
    pooled = ranked and scores * resamples <= MAX_POOLED_DRAWS
    found = _bootstrap(sample, points, margins, resamples, seed, ranked=ranked, pooled=pooled)
    makers = _Formulas(sample, choice)
    found |= {name: makers.by_class(name) for name in PROPORTIONS}
    found["roc_auc"] = makers.auc()
    everything = np.ones(len(sample.predictions.targets), dtype=bool)
    accuracy = makers.proportion(sample.predictions.predicted == sample.predictions.targets, everything)
    found |= {name: [accuracy] for name in _AS_ACCURACY}
    for top in TOP_K:
        if np.isfinite(points[f"top_{top}_accuracy"]):
            found[f"top_{top}_accuracy"] = [makers.proportion(sample.facts.truth_rank < top, everything)]
    found |= {name: [makers.proportion(hits, tried)] for name, (hits, tried) in makers.at_point()}
    if makers.groups is None:
        found |= makers.likelihood_ratios(margins)
    return Limits(found, ranked)


def _bootstrap(
    sample: Sample, points: Mapping[str, Floats], margins: Counts, resamples: int, seed: int, *, ranked: bool,
    pooled: bool,
) -> dict[str, list[Interval]]:  # fmt: skip
    """Percentiles of every statistic over shared resamples of images or, where there are groups, of groups."""
    groups = sample.predictions.group_codes
    n = len(sample.predictions.targets)
    blocks = [
        sample.statistics(weights, ranked=ranked, pooled=pooled)
        for weights in resample_weights(n, resamples, seed, groups)
    ]
    found: dict[str, list[Interval]] = {}
    for name, point in points.items():
        if name in blocks[0]:
            columns = np.concatenate([block[name] for block in blocks]).reshape(resamples, -1).T
            found[name] = [
                _around(value, resampled_interval(column, sample.predictions.units, clustered=groups is not None))
                if np.isfinite(value)
                else Interval()
                for value, column in zip(np.atleast_1d(point), columns, strict=True)
            ]
        else:
            limit = f"more than {MAX_RANKED_SCORES:,} scores" if not ranked else "too many scores times resamples"
            found[name] = [Interval(note=f"left out: {limit} to rank")] * max(1, np.size(point))
    for name in ("f1", *RANKED):
        found[name] = _enough(found[name], margins, ranked=name in RANKED)
    return found


def _around(value: float, interval: Interval) -> Interval:
    """No interval where 97.5 % of the resamples lie on one side of the estimate.

    Drawing images twice changes some numbers by itself: the share of the largest class grows, and average precision
    with a few images a class. Percentiles then are limits of another number.
    """
    if interval.low is None or interval.high is None:
        return interval
    slack = 1e-12 * max(abs(interval.low), abs(interval.high))
    if interval.low - slack <= value <= interval.high + slack:
        return interval
    return Interval(note="resampling shifts it: nearly all resamples lie on one side of the estimate")


def _enough(found: list[Interval], margins: Counts, *, ranked: bool) -> list[Interval]:
    """No bootstrap interval where a resample can only repeat the one image there is."""
    total = margins.total
    few = Interval(note="needs at least 2 images of the class" + (" and 2 of the others" if ranked else ""))
    return [
        few if support < 2 or (ranked and total - support < 2) else interval
        for support, interval in zip(margins.support, found, strict=True)
    ]


class _Formulas:
    """Intervals by formula for one set of images, by group where there are groups."""

    def __init__(self, sample: Sample, choice: IntervalChoice) -> None:
        self.predictions = sample.predictions
        self.groups = sample.predictions.group_codes
        self._choice = choice

    def proportion(self, hits: Bools, tried: Bools) -> Interval:
        """Of the (N,) images tried, the share that hits; by group when there are groups."""
        trials = int(tried.sum())
        if not trials:
            return Interval()
        hits = hits & tried
        if self.groups is None:
            return proportion_interval(int(hits.sum()), trials, self._choice.proportions)
        codes = self.groups[tried]
        sums = np.bincount(codes, weights=hits[tried]).astype(np.float64)
        return clustered_proportion(sums, np.bincount(codes).astype(np.float64))

    def by_class(self, name: str) -> list[Interval]:
        """Precision, recall, specificity or npv of every class."""
        targets, predicted = self.predictions.targets, self.predictions.predicted
        return [
            self.proportion(*_fraction(name, targets == index, predicted == index))
            for index in range(len(self.predictions.classes))
        ]

    def at_point(self) -> Iterator[tuple[str, tuple[Bools, Bools]]]:
        """Hits and trials of every proportion at the operating point."""
        if self.predictions.at_point is None:
            return
        positive, called = self.predictions.at_point
        for name in PROPORTIONS:
            yield f"{name}@op", _fraction(name, positive, called)
        yield "accuracy@op", (positive == called, np.ones_like(called))

    def auc(self) -> list[Interval]:
        """Of every class against the rest; empty where one side has no images."""
        found = []
        for index, scores in self.predictions.each_class():
            positive = self.predictions.targets == index
            placed = placements(scores, positive)
            sides = None if self.groups is None else (self.groups[positive], self.groups[~positive])
            found.append(Interval() if placed is None else auc_interval(placed, method=self._choice.auc, groups=sides))
        return found

    def likelihood_ratios(self, margins: Counts) -> dict[str, list[Interval]]:
        """Of every class, and at the operating point."""
        fp, fn = margins.predicted - margins.hits, margins.support - margins.hits
        tn = margins.total - margins.support - fp
        pairs = [likelihood_ratio_intervals(*map(float, cells)) for cells in zip(margins.hits, fp, fn, tn, strict=True)]
        found = {"lr_positive": [one for one, _ in pairs], "lr_negative": [one for _, one in pairs]}
        if self.predictions.at_point is not None:
            positive, called = self.predictions.at_point
            cells = [float((called == a)[positive == b].sum()) for a, b in ((1, 1), (1, 0), (0, 1), (0, 0))]
            one, other = likelihood_ratio_intervals(*cells)
            found |= {"lr_positive@op": [one], "lr_negative@op": [other]}
        return found


def _fraction(name: str, positive: Bools, called: Bools) -> tuple[Bools, Bools]:
    """(N,) which images hit and which are tried, for a proportion of one class against the rest."""
    return {
        "precision": (positive, called),
        "recall": (called, positive),
        "specificity": (~called, ~positive),
        "npv": (~positive, ~called),
    }[name]
