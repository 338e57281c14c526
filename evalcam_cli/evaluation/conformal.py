"""Prediction sets that hold the true class with a stated probability: split-conformal prediction.

Vovk, Gammerman and Shafer 2005; the sets of least ambiguity of Sadinle, Lei and Wasserman, "Least ambiguous set-valued
classifiers with bounded error levels", JASA 2019.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evalcam_cli.evaluation.clustered import clustered_proportion
from evalcam_cli.evaluation.estimates import Interval
from evalcam_cli.evaluation.intervals import wilson_interval
from evalcam_cli.evaluation.predictions import Predictions, row_blocks

Floats = NDArray[np.float64]
HEADER = ("class", "n", "covered", "coverage", "ci_low", "ci_high", "mean_set_size")


@dataclass(frozen=True)
class ConformalRule:
    """Which classes go into a set: those with 1 - p at most the quantile."""

    alpha: float
    """Error rate: sets hold the true class in at least 1 - alpha of images like the validation images."""
    quantile: float
    """Of 1 - p of the true class on the validation images; infinite when they are too few, and then sets hold all."""
    n: int
    """Validation images."""


@dataclass(frozen=True)
class ConformalResult:
    """The sets of a rule on other images."""

    rule: ConformalRule
    coverage: float
    interval: Interval
    mean_size: float
    sizes: tuple[int, ...]
    """Images with a set of 0, 1, … K classes."""
    by_class: tuple[tuple[str, int, int, float], ...]
    """Class name, images, images whose set holds the true class, mean size of their sets."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know."""
        found = ["the validation images chose the weights (and may have chosen temperature and threshold) as well"]
        if math.isinf(self.rule.quantile):
            found.append(
                f"{self.rule.n} validation images are too few for alpha = {self.rule.alpha:g}: sets hold all classes"
            )
        if self.sizes[0]:
            found.append(f"{self.sizes[0]} sets are empty: no class is likely enough, the image is unlike the others")
        return tuple(found)

    def rows(self) -> list[tuple[object, ...]]:
        """As `HEADER`; the first row is of all images."""
        n = sum(self.sizes)
        covered = round(self.coverage * n)
        found: list[tuple[object, ...]] = [
            ("all", n, covered, self.coverage, self.interval.low, self.interval.high, self.mean_size)
        ]
        for name, images, hits, size in self.by_class:
            limits = wilson_interval(hits, images)
            found.append((name, images, hits, hits / images if images else None, limits.low, limits.high, size))
        return found

    def document(self) -> dict[str, object]:
        """As in `metrics.json`."""
        return {
            "alpha": self.rule.alpha,
            "quantile": None if math.isinf(self.rule.quantile) else self.rule.quantile,
            "validation_images": self.rule.n,
            "coverage": {
                "estimate": self.coverage,
                "ci_low": self.interval.low,
                "ci_high": self.interval.high,
                "ci_method": self.interval.method,
            },
            "mean_set_size": self.mean_size,
            "set_sizes": list(self.sizes),
            "notes": list(self.notes),
        }


def fit_conformal(validation: Predictions, alpha: float) -> ConformalRule:
    """The ⌈(n+1)(1-alpha)⌉-th smallest of 1 - p of the true class over n validation images."""
    n = len(validation.targets)
    scores = np.sort(1 - _truth(validation))
    place = math.ceil((n + 1) * (1 - alpha) - 1e-9)  # 0.1 is a little more than a tenth in binary
    return ConformalRule(alpha, float(scores[place - 1]) if place <= n else math.inf, n)


def apply_conformal(rule: ConformalRule, predictions: Predictions) -> ConformalResult:
    """The sets of N images; their coverage is clustered where images have groups."""
    n, k = predictions.logits.shape
    size = np.empty(n, dtype=np.int64)
    for start, stop in row_blocks(n, k):
        size[start:stop] = (1 - predictions.rows(start, stop) <= rule.quantile).sum(axis=1)
    covered = 1 - _truth(predictions) <= rule.quantile
    codes = predictions.group_codes
    if codes is None:
        interval = wilson_interval(int(covered.sum()), n)
    else:
        hits = np.bincount(codes, weights=covered).astype(np.float64)
        interval = clustered_proportion(hits, np.bincount(codes).astype(np.float64))
    by_class = []
    for index, name in enumerate(predictions.classes):
        own = predictions.targets == index
        images = int(own.sum())
        by_class.append((name, images, int(covered[own].sum()), float(size[own].mean()) if images else math.nan))
    sizes = tuple(np.bincount(size, minlength=k + 1).tolist())
    return ConformalResult(rule, float(covered.mean()), interval, float(size.mean()), sizes, tuple(by_class))


def _truth(predictions: Predictions) -> Floats:
    """(N,) probability of the true class."""
    n, k = predictions.logits.shape
    found = np.empty(n)
    for start, stop in row_blocks(n, k):
        found[start:stop] = predictions.rows(start, stop)[np.arange(stop - start), predictions.targets[start:stop]]
    return found
