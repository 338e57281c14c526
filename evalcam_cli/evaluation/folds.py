"""The rounds of a cross-validation as one table: each metric's value per fold, its mean, and an honest interval of it.

Two numbers go by the same name in the literature: the mean of the folds' values, and the value of all out-of-fold
predictions put together. For ranks they differ in meaning, since the scores of different models are not on one scale
(Forman and Scholz, "Apples-to-apples in cross-validation studies", SIGKDD Explorations 2010). Here a plain name
(`roc_auc`) is the mean over folds, and the other number ends in `_pooled_oof`.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np
import scipy.special
from numpy.typing import ArrayLike

from evalcam_cli.evaluation.estimates import Estimate, Interval
from evalcam_cli.evaluation.metrics import Metrics
from evalcam_cli.evaluation.quantities import range_of

HEADER = (
    *("metric", "class", "folds", "folds_defined", "mean", "sd", "min", "max"),
    *("ci_low", "ci_high", "ci_method", "undefined_reason", "ci_note"),
)
FOLD_HEADER = ("fold", "metric", "class", "estimate", "n_train", "n_test", "undefined_reason")

NADEAU_BENGIO = "nadeau_bengio"
CLIPPED = "nadeau_bengio_clipped"
"""The same, with a limit that left the metric's range put back on its edge."""
_NO_SPREAD = "all folds have the same value, which says nothing about how uncertain it is"
_SAME = 1e-12  # relative; a spread below is rounding
_ENDING = "_pooled_oof"
_CHANCE = "ece_expected_if_calibrated"
_ABSENT = Estimate(None, undefined_reason="not measured in this fold")  # no operating point there
_RENAMED = {
    "roc_auc": "auc",
    "roc_auc_ovr_macro": "auc_ovr_macro",
    "roc_auc_ovr_weighted": "auc_ovr_weighted",
    "roc_auc_ovr_micro": "auc_ovr_micro",
    "roc_auc_ovo_macro": "auc_ovo_macro",
    "partial_roc_auc": "partial_auc",
}
_ENDED = (
    *("f1", "f1_macro", "f1_weighted", "average_precision"),
    *("average_precision_macro", "average_precision_weighted", "average_precision_micro"),
)


@dataclass(frozen=True)
class FoldSummary:
    """One metric over the folds."""

    metric: str
    label: str | None
    """The class of a metric per class."""
    values: tuple[float | None, ...]
    """In the order of the folds; None where the metric is undefined in the fold."""
    reasons: tuple[str | None, ...]
    """Why it is."""
    mean: float | None
    """Of the folds where it is defined."""
    sd: float | None
    """With a degree of freedom less than defined folds; None for fewer than 2. SD/sqrt(folds) is no standard error."""
    low: float | None
    """The smallest value."""
    high: float | None
    """The largest value."""
    interval: Interval

    @property
    def name(self) -> str:
        """Metric and class: `recall[NAME]`."""
        return self.metric if self.label is None else f"{self.metric}[{self.label}]"

    @property
    def defined(self) -> int:
        """Folds in which the metric has a value."""
        return sum(value is not None for value in self.values)

    @property
    def undefined_reason(self) -> str | None:
        """Why there is no mean."""
        if self.mean is not None:
            return None
        return "undefined in every fold: " + "; ".join(dict.fromkeys(reason or "no value" for reason in self.reasons))

    def estimate(self, n: int | None = None) -> Estimate:
        """The mean over folds as a number like any other."""
        one = self.interval
        note = one.note
        if self.mean is not None and self.defined < len(self.values):
            left_out = f"the mean of {self.defined} of {len(self.values)} folds: undefined in the others"
            note = left_out if note is None else f"{note}; {left_out}"
        return Estimate(self.mean, one.low, one.high, one.method, self.undefined_reason, n, note)


@dataclass(frozen=True)
class FoldTable:
    """All metrics over the rounds of one cross-validation."""

    folds: tuple[int, ...]
    """Numbers of the rounds: repeat * folds + fold."""
    sizes: tuple[tuple[int, int], ...] | None
    """Training and test images of each round; None when unknown."""
    n_test: tuple[int, ...]
    """Test images of each round."""
    shares: tuple[dict[str, float], ...]
    """By round, the share of the test images in each class (its prevalence)."""
    summaries: dict[str, FoldSummary]
    """By name, a metric of one class as `recall[NAME]`."""
    repeats: int = 1
    """Divisions into folds; an image is tested once in each."""
    images: int | None = None
    """Different test images of all rounds; None when unknown."""

    @property
    def title(self) -> str:
        """`5 folds`, or `15 rounds (3 repeats)`."""
        if self.repeats == 1:
            return f"{len(self.folds)} folds"
        return f"{len(self.folds)} rounds ({self.repeats} repeats)"

    def document(self) -> dict[str, object]:
        """Plain values for JSON; the numbers per class stand in the CSV files only."""
        return {
            "folds": list(self.folds),
            "repeats": self.repeats,
            "n_predictions": sum(self.n_test),
            "n_train": None if self.sizes is None else [train for train, _ in self.sizes],
            "n_test": list(self.n_test),
            "prevalence": [dict(shares) for shares in self.shares],
            "metrics": {name: _document(one) for name, one in self.summaries.items() if one.label is None},
        }

    def rows(self) -> Iterator[tuple[object, ...]]:
        """A row per metric, with the columns of `HEADER`."""
        for one in self.summaries.values():
            limits = (one.interval.low, one.interval.high, one.interval.method)
            spread = (one.mean, one.sd, one.low, one.high)
            yield (
                one.metric, one.label, len(self.folds), one.defined, *spread, *limits, one.undefined_reason,
                one.interval.note,
            )  # fmt: skip

    def fold_rows(self) -> Iterator[tuple[object, ...]]:
        """A row per fold and metric, with the columns of `FOLD_HEADER`."""
        for index, fold in enumerate(self.folds):
            train = None if self.sizes is None else self.sizes[index][0]
            for one in self.summaries.values():
                value, reason = one.values[index], one.reasons[index]
                yield (fold, one.metric, one.label, value, train, self.n_test[index], reason)


def _document(one: FoldSummary) -> dict[str, object]:
    return {
        "values": list(one.values),
        "folds_defined": one.defined,
        "mean": one.mean,
        "sd": one.sd,
        "min": one.low,
        "max": one.high,
        "ci_low": one.interval.low,
        "ci_high": one.interval.high,
        "ci_method": one.interval.method,
        "undefined_reason": one.undefined_reason,
        "ci_note": one.interval.note,
    }


def summarise_folds(
    folds: Sequence[tuple[int, Metrics]],
    sizes: Sequence[tuple[int, int]] | None = None,
    *,
    repeats: int = 1,
    images: int | None = None,
) -> FoldTable:
    """Put the metrics of the rounds side by side.

    A metric that is undefined in a fold is left out of its mean, SD and interval, and `folds_defined` says so.

    Args:
        folds: Number and metrics of each round, all of the same classes.
        sizes: Training and test images of each round, validation images not counted. None: every image is in one test
            fold of each division and all others were trained on, so n_test / n_train = 1 / (k - 1) for k folds.
        repeats: Divisions into folds that the rounds are of.
        images: Different test images.

    Raises:
        ValueError: There are no folds, or their classes or the number of sizes differ.
    """
    if not folds or any(metrics.classes != folds[0][1].classes for _, metrics in folds):
        raise ValueError("folds must be of the same classes, and at least one")
    if sizes is not None and (len(sizes) != len(folds) or any(min(pair) < 1 for pair in sizes)):
        raise ValueError("sizes must be (n_train, n_test) of each fold, all from 1")
    first = folds[0][1]
    ratios = partial(_ratio, folds=len(folds) / repeats, sizes=sizes)
    summaries = {}
    for name in dict.fromkeys(name for _, metrics in folds for name in metrics.overall):
        summaries[name] = _summary(name, None, [metrics.overall.get(name, _ABSENT) for _, metrics in folds], ratios)
    for label in first.classes:
        for name in first.per_class[label].estimates:
            found = [metrics.per_class[label].estimates[name] for _, metrics in folds]
            summaries[f"{name}[{label}]"] = _summary(name, label, found, ratios)
    return FoldTable(
        tuple(fold for fold, _ in folds),
        None if sizes is None else tuple(sizes),
        tuple(metrics.n for _, metrics in folds),
        tuple({label: entry.support / metrics.n for label, entry in metrics.per_class.items()} for _, metrics in folds),
        summaries,
        repeats,
        images,
    )


def _summary(
    metric: str, label: str | None, estimates: Sequence[Estimate], ratio: Callable[[Sequence[int]], float]
) -> FoldSummary:
    values = tuple(estimate.estimate for estimate in estimates)
    reasons = tuple(estimate.undefined_reason for estimate in estimates)
    places = [index for index, value in enumerate(values) if value is not None]
    defined = [value for value in values if value is not None]
    interval, mean, sd = Interval(), None, None
    if defined:
        mean = float(np.mean(defined))
        sd = float(np.std(defined, ddof=1)) if len(defined) > 1 else None
        interval = _within(nadeau_bengio(defined, ratio(places)), metric)
    low, high = (min(defined), max(defined)) if defined else (None, None)
    return FoldSummary(metric, label, values, reasons, mean, sd, low, high, interval)


def _ratio(places: Sequence[int], folds: float, sizes: Sequence[tuple[int, int]] | None) -> float:
    """n_test / n_train over the rounds that count; infinite for a single fold of unknown size."""
    if sizes is None:
        return 1 / (folds - 1) if folds > 1 else math.inf
    return sum(sizes[index][1] for index in places) / sum(sizes[index][0] for index in places)


def nadeau_bengio(values: Sequence[float], ratio: float) -> Interval:
    """The 95 % interval of the mean of J values from overlapping training sets; none for J < 2 or equal values.

    mean ± t(J-1, 0.975) s sqrt(1/J + n_test/n_train): Nadeau and Bengio, "Inference for the generalization error",
    Machine Learning 52:239, 2003, section 3 (the corrected resampled t-test). For repeated k-fold J = k r (Bouckaert
    and Frank, "Evaluating the replicability of significance tests", 2004). SD/sqrt(J) is far too short: folds share
    their training images, and no unbiased estimate of the variance exists (Bengio and Grandvalet, JMLR 2004). The
    interval is about models trained in this way on sets of this size, not about one model that is shipped. It may leave
    the metric's range; `summarise_folds` then puts the limit on the edge.

    Args:
        values: J values, one per round.
        ratio: n_test / n_train; for k-fold without validation images 1 / (k - 1).
    """
    count = len(values)
    if count < 2:
        return Interval(note="an interval over folds needs 2 folds in which it is defined")
    mean, sd = float(np.mean(values)), float(np.std(values, ddof=1))
    if sd <= _SAME * max(abs(value) for value in values):
        return Interval(note=_NO_SPREAD)
    half = float(scipy.special.stdtrit(count - 1, 0.975)) * sd * math.sqrt(1 / count + ratio)
    return Interval(mean - half, mean + half, NADEAU_BENGIO)


def _within(interval: Interval, metric: str) -> Interval:
    """The interval cut at the ends of what the metric can be, under a name that says so."""
    if interval.low is None or interval.high is None:
        return interval
    bounds = range_of(metric)
    low, high = max(interval.low, bounds.low), min(interval.high, bounds.high)
    clipped = (low, high) != (interval.low, interval.high)
    return Interval(low, high, CLIPPED if clipped else interval.method)


def nadeau_bengio_test(
    differences: ArrayLike, ratio: float, *, alternative: Literal["two-sided", "greater"] = "two-sided"
) -> tuple[float | None, float | None]:
    """t and p of two classifiers being equally good, from their differences in the same J rounds.

    t = mean / (s sqrt(1/J + n_test/n_train)) with J - 1 degrees of freedom; Nadeau and Bengio 2003. With `ratio` 0 it
    is the ordinary paired t-test, which finds differences that are not there. Differences of 0 throughout give p = 1
    and no t; other equal differences, or fewer than 2, give neither.
    """
    found = np.asarray(differences, dtype=np.float64)
    if len(found) and not found.any():
        return None, 1.0
    if len(found) < 2 or found.std(ddof=1) <= _SAME * np.abs(found).max():
        return None, None
    t = float(found.mean() / (found.std(ddof=1) * math.sqrt(1 / len(found) + ratio)))
    if alternative == "greater":
        return t, float(scipy.special.stdtr(len(found) - 1, -t))
    return t, 2 * float(scipy.special.stdtr(len(found) - 1, -abs(t)))


def pooled_names(metrics: Mapping[str, object]) -> dict[str, str]:
    """What metrics of all out-of-fold predictions together are called: by name, the name that says `pooled_oof`.

    Ranks and F1 get another name, since the mean over folds is another number: `roc_auc` becomes `auc_pooled_oof`,
    `f1_macro` (of the summed confusion matrices, the unbiased choice of Forman and Scholz 2010) `f1_macro_pooled_oof`.
    Everything else keeps its name.
    """
    return {name: _pooled_name(name) for name in metrics}


def _pooled_name(name: str) -> str:
    if name in _RENAMED:
        return _RENAMED[name] + _ENDING
    return name + _ENDING if name in _ENDED else name


def headline(pooled: Metrics, table: FoldTable) -> dict[str, Estimate]:
    """The numbers of a cross-validation by name: means over folds of ranks and F1, the pooled ones beside them.

    Everything else is of all out-of-fold predictions together, with its interval over images.
    """
    found: dict[str, Estimate] = {}
    for name, other in pooled_names(pooled.overall).items():
        if other != name:
            found[name] = table.summaries[name].estimate(pooled.n)
        found[other] = pooled.overall[name]
    return found


def of_rounds(pooled: Metrics, table: FoldTable) -> Metrics:
    """The metrics of a cross-validation, from those of all out-of-fold predictions together.

    `n` counts images. After R divisions each of them has R predictions: those are what counts and denominators count,
    and what the confusion matrix sums to. The ECE that chance makes of a calibrated model is known for independent
    predictions only.
    """
    overall = headline(pooled, table)
    if table.repeats > 1 and _CHANCE in overall:
        overall[_CHANCE] = Estimate(None, undefined_reason="several predictions of an image are not independent")
    return replace(pooled, n=pooled.n if table.images is None else table.images, overall=overall)
