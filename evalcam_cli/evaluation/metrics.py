"""All numbers of an evaluation, each with its interval or the reason why it has none."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evalcam_cli.errors import DataError, UsageError
from evalcam_cli.evaluation import cautions, counts, intervals
from evalcam_cli.evaluation.calibration import reliability_bins
from evalcam_cli.evaluation.counts import Counts, Floats
from evalcam_cli.evaluation.estimates import Caution, Estimate, Interval
from evalcam_cli.evaluation.predictions import Predictions
from evalcam_cli.evaluation.ranking import auc_and_average_precision, rank
from evalcam_cli.evaluation.stated import LOG_PROBABILITIES, LOGITS, StatedProbabilities
from evalcam_cli.text import counted, did_you_mean, listed

PROPORTIONS = ("precision", "recall", "specificity", "npv")
CLASS_METRICS = (*PROPORTIONS, "f1", "roc_auc", "average_precision")
MACROS = {
    "balanced_accuracy": "recall",
    "precision_macro": "precision",
    "recall_macro": "recall",
    "specificity_macro": "specificity",
    "f1_macro": "f1",
    "roc_auc_ovr_macro": "roc_auc",
    "average_precision_macro": "average_precision",
}
"""Averages over classes, and of what; a class where it is undefined is left out."""
OVERALL_METRICS = (
    *("accuracy", "balanced_accuracy", "precision_macro", "recall_macro", "specificity_macro", "f1_macro"),
    *("roc_auc", "roc_auc_ovr_macro", "average_precision_macro", "log_loss", "brier", "ece", "mcc", "cohen_kappa"),
)
"""In the order shown; `roc_auc` exists for two classes, `roc_auc_ovr_macro` for any other number."""

_BY_CLASS = {
    "precision": counts.precision,
    "recall": counts.recall,
    "specificity": counts.specificity,
    "npv": counts.npv,
    "f1": counts.f1,
}
_TOGETHER = {"accuracy": counts.accuracy, "mcc": counts.mcc, "cohen_kappa": counts.cohen_kappa}
RANKED = ("roc_auc", "average_precision")
MAX_RANKED_DRAWS = 1_000_000_000
"""Scores times resamples up to which metrics of rank are resampled; more would take minutes."""


@dataclass(frozen=True)
class ClassMetrics:
    """One class against the rest: counts of images, and estimates."""

    support: int
    tp: int
    fp: int
    fn: int
    tn: int
    precision: Estimate
    recall: Estimate
    specificity: Estimate
    npv: Estimate
    f1: Estimate
    roc_auc: Estimate
    average_precision: Estimate

    @property
    def estimates(self) -> dict[str, Estimate]:
        """The metrics that are no counts, by name."""
        return {name: getattr(self, name) for name in CLASS_METRICS}


@dataclass(frozen=True)
class Metrics:
    """What a set of predictions is worth."""

    n: int
    classes: tuple[str, ...]
    positive: str | None
    """The class that binary metrics are about; None unless there are two classes."""
    overall: dict[str, Estimate]
    per_class: dict[str, ClassMetrics]
    confusion: NDArray[np.int64]
    """(K, K) counts: row i, column j is the number of images of class i predicted as class j."""
    warnings: tuple[Caution, ...]
    bootstrap: int | None
    """Resamples behind the intervals; None when no intervals were asked for."""
    seed: int
    scores: str
    """What the predictions were: `logits`, or `log_probabilities` when only probabilities are known."""


def compute_metrics(
    predictions: Predictions, *, positive: str | None = None, bootstrap: int | None = None, seed: int = 0
) -> Metrics:
    """Compute every metric over all images at once, in float64.

    Args:
        predictions: N images, K classes.
        positive: Of two classes the one that `roc_auc` is about; by default the last.
        bootstrap: Resamples for the intervals that have no formula. None: no intervals at all, as in training.
        seed: Of the resamples.

    Raises:
        DataError: There are no images, or a score is not finite.
        UsageError: `positive` is not a class, or there are not two classes.
    """
    _refuse_unusable(predictions)
    positive = _positive(predictions.classes, positive)
    sample = _Sample.of(predictions, positive)
    n, k = len(predictions.targets), len(predictions.classes)
    confusion = counts.confusion_matrix(predictions.targets, predictions.predicted, k)
    margins = counts.count(confusion)
    points = {name: values[0] for name, values in sample.statistics(np.ones((1, n), dtype=np.int32)).items()}
    ranked = bootstrap is None or n * k * bootstrap <= MAX_RANKED_DRAWS
    limits = {} if bootstrap is None else _intervals(sample, points, margins, bootstrap, seed, ranked=ranked)
    overall = _overall(points, limits, predictions, margins, positive)
    per_class = {name: _class_metrics(index, points, limits, margins) for index, name in enumerate(predictions.classes)}
    warnings = cautions.find(predictions, margins, skipped=not ranked)
    scores = LOG_PROBABILITIES if isinstance(predictions, StatedProbabilities) else LOGITS
    return Metrics(n, predictions.classes, positive, overall, per_class, confusion, warnings, bootstrap, seed, scores)


def _refuse_unusable(predictions: Predictions) -> None:
    if not len(predictions.targets):
        raise DataError("there are no images to evaluate")
    # The logarithm of a stated probability of 0 is minus infinity; a network's logits are finite or broken.
    scores = predictions.probabilities if isinstance(predictions, StatedProbabilities) else predictions.logits
    broken = np.flatnonzero(~np.isfinite(scores).all(axis=1))
    if len(broken):
        names = [predictions.paths[i] if predictions.paths else f"row {i + 1}" for i in broken]
        raise DataError(
            f"{counted(len(broken), 'image')} of {len(scores):,} got NaN or infinite scores: {listed(names)};\n"
            "the model is broken (diverged in training?) or the file is damaged"
        )


def _positive(classes: tuple[str, ...], positive: str | None) -> str | None:
    if positive is None:
        return classes[-1] if len(classes) == 2 else None
    if positive not in classes:
        raise UsageError(
            f"--positive {positive!r} is none of the classes {listed(classes)}{did_you_mean(positive, classes)}"
        )
    if len(classes) != 2:
        raise UsageError(f"--positive needs two classes; these predictions have {len(classes)}: {listed(classes)}")
    return positive


@dataclass(frozen=True)
class _Sample:
    """The images as the metrics need them, so that any number of resamples is a matter of weights."""

    targets: NDArray[np.int64]
    predicted: NDArray[np.int64]
    losses: Floats
    """(N,) minus the log probability of the true class; infinite where that is 0."""
    squares: Floats
    """(N,) sum over classes of (p - y)², halved for two classes."""
    probabilities: Floats
    """(N, K)."""
    positive: int | None

    @classmethod
    def of(cls, predictions: Predictions, positive: str | None) -> "_Sample":
        n, k = predictions.logits.shape
        targets, probabilities = predictions.targets, predictions.probabilities
        truth = probabilities[np.arange(n), targets]
        squares = np.einsum("nk,nk->n", probabilities, probabilities) - truth**2 + (1 - truth) ** 2
        return cls(
            targets,
            predictions.predicted,
            0.0 - predictions.log_probabilities[np.arange(n), targets],  # not -0.0 for a sure hit
            squares / 2 if k == 2 else squares,
            probabilities,
            None if positive is None else predictions.classes.index(positive),
        )

    def statistics(self, weights: NDArray[np.int32], *, ranked: bool = True) -> dict[str, Floats]:
        """Every metric but ECE for each row of (B, N) weights: (B,) values, (B, K) by class; NaN if undefined."""
        k = self.probabilities.shape[1]
        correct = self.predicted == self.targets
        tally = Counts(
            _sums(weights, self.targets, k),
            _sums(weights, self.predicted, k),
            _sums(weights[:, correct], self.targets[correct], k),
        )
        values: dict[str, Floats] = {name: of(tally) for name, of in _BY_CLASS.items()}
        if ranked:
            # Sorted anew in each call: keeping the orders of 1,000 classes would cost more memory than the logits.
            pairs = [
                auc_and_average_precision(rank(self.probabilities[:, index], self.targets == index), weights)
                for index in range(k)
            ]
            values["roc_auc"], values["average_precision"] = (
                np.stack(side, axis=1) for side in zip(*pairs, strict=True)
            )
        values |= {name: counts.macro(values[of]) for name, of in MACROS.items() if of in values}
        if self.positive is not None and ranked:
            values["overall_roc_auc"] = values["roc_auc"][:, self.positive]
        values |= {name: of(tally) for name, of in _TOGETHER.items()}
        values["log_loss"] = _weighted_mean(self.losses, weights)
        values["brier"] = _weighted_mean(self.squares, weights)
        return values


def _sums(weights: NDArray[np.int32], labels: NDArray[np.int64], k: int) -> Floats:
    """(B, K) sum of the weights of each class's images."""
    order = np.argsort(labels, kind="stable")
    present, starts = np.unique(labels[order], return_index=True)
    sums = np.zeros((len(weights), k))
    if len(present):
        sums[:, present] = np.add.reduceat(weights[:, order], starts, axis=1)
    return sums


def _weighted_mean(values: Floats, weights: NDArray[np.int32]) -> Floats:
    # No matrix product: its rounding may depend on the number of threads.
    used = np.where(weights > 0, values * np.where(np.isinf(values), 1, weights), 0.0)
    return np.asarray(used.sum(axis=1) / weights.sum(axis=1))


def _intervals(
    sample: _Sample, points: Mapping[str, Floats], margins: Counts, resamples: int, seed: int, *, ranked: bool
) -> dict[str, list[Interval]]:
    """Intervals by metric: one, or one per class."""
    blocks = [
        sample.statistics(weights, ranked=ranked)
        for weights in intervals.stratified_weights(sample.targets, resamples, seed)
    ]
    drawn = {name: np.concatenate([block[name] for block in blocks]) for name in points if blocks and name in blocks[0]}
    limits: dict[str, list[Interval]] = {}
    for name, point in points.items():
        if name in drawn:
            columns = drawn[name].reshape(resamples, -1).T
            limits[name] = [
                intervals.percentile_interval(column) if np.isfinite(value) else Interval()
                for value, column in zip(np.atleast_1d(point), columns, strict=True)
            ]
        else:
            note = f"left out: more than {MAX_RANKED_DRAWS:,} scores to rank" if not ranked else "no resamples"
            limits[name] = [Interval(note=note)] * max(1, np.size(point))
    for name in ("f1", *RANKED):
        limits[name] = _enough(limits[name], margins, ranked=name in RANKED)
    limits |= _proportions(margins)
    return limits


def _enough(found: list[Interval], margins: Counts, *, ranked: bool) -> list[Interval]:
    """No bootstrap interval where a resample can only repeat the one image there is."""
    total = margins.total
    few = Interval(note="needs at least 2 images of the class" + (" and 2 of the others" if ranked else ""))
    return [
        few if support < 2 or (ranked and total - support < 2) else interval
        for support, interval in zip(margins.support, found, strict=True)
    ]


def _proportions(margins: Counts) -> dict[str, list[Interval]]:
    """Wilson intervals of everything that is k images of n."""
    fractions = {name: _fraction(name, margins) for name in PROPORTIONS}
    limits = {
        name: [intervals.wilson_interval(k, n) for k, n in zip(hits, trials, strict=True)]
        for name, (hits, trials) in fractions.items()
    }
    limits["accuracy"] = [intervals.wilson_interval(margins.hits.sum(), float(margins.total))]
    return limits


def _fraction(name: str, margins: Counts) -> tuple[Floats, Floats]:
    """(K,) numerators and denominators of a proportion."""
    rest, unpredicted = margins.total - margins.support, margins.total - margins.predicted
    tn = rest - margins.predicted + margins.hits
    return {
        "precision": (margins.hits, margins.predicted),
        "recall": (margins.hits, margins.support),
        "specificity": (tn, rest),
        "npv": (tn, unpredicted),
    }[name]


def _estimate(
    value: float, interval: Interval | None, reason: str, *, n: int, classes_counted: int | None = None
) -> Estimate:
    if not np.isfinite(value):
        return Estimate(None, undefined_reason=reason, n=n, classes_counted=classes_counted)
    found = interval or Interval()
    return Estimate(float(value), found.low, found.high, found.method, None, n, found.note, classes_counted)


def _overall(
    points: Mapping[str, Floats],
    limits: Mapping[str, list[Interval]],
    predictions: Predictions,
    margins: Counts,
    positive: str | None,
) -> dict[str, Estimate]:
    n = len(predictions.targets)
    found: dict[str, Estimate] = {}
    for name in OVERALL_METRICS:
        key = "overall_roc_auc" if name == "roc_auc" else name
        if name == "ece":
            found[name] = _ece(predictions, noted=bool(limits))
        elif name not in ("roc_auc", "roc_auc_ovr_macro") or (name == "roc_auc") == (positive is not None):
            of = MACROS.get(name)
            found[name] = _estimate(
                float(points[key]),
                limits[key][0] if limits else None,
                _why_undefined(name, predictions),
                n=n,
                classes_counted=int(np.count_nonzero(~np.isnan(points[of]))) if of else None,
            )
    return found


def _ece(predictions: Predictions, *, noted: bool) -> Estimate:
    """ECE gets no bootstrap interval: resampling inflates it, so the interval of a calibrated model would exclude 0."""
    n = len(predictions.targets)
    confidence = predictions.probabilities[np.arange(n), predictions.predicted]
    bins = reliability_bins(confidence, predictions.predicted == predictions.targets)
    note = "no interval: resampling inflates ECE" if noted else None
    return Estimate(bins.ece, n=n, ci_note=note)


def _why_undefined(name: str, predictions: Predictions) -> str:
    if name in MACROS:
        return "undefined for every class"
    if name == "log_loss":
        images = counted(cautions.impossible_images(predictions), "image")
        return f"infinite: {images} with probability 0 for the true class"
    return {
        "roc_auc": "only one class has images",
        "mcc": "all images are of one class or predicted as one class",
        "cohen_kappa": "all images are of one class and predicted as it",
    }.get(name, "not a number")


def _class_metrics(
    index: int, points: Mapping[str, Floats], limits: Mapping[str, list[Interval]], margins: Counts
) -> ClassMetrics:
    total, support = int(margins.total), int(margins.support[index])
    tp, predicted = int(margins.hits[index]), int(margins.predicted[index])
    denominators = {name: int(_fraction(name, margins)[1][index]) for name in PROPORTIONS}
    reasons = {
        "precision": "never predicted",
        "recall": "no images of this class",
        "specificity": "no images of other classes",
        "npv": "all images are predicted as this class",
        "f1": "no images of this class, and never predicted",
        "roc_auc": "no images of other classes" if support else "no images of this class",
        "average_precision": "no images of other classes" if support else "no images of this class",
    }
    estimates = {
        name: _estimate(
            float(points[name][index]),
            limits[name][index] if limits else None,
            reasons[name],
            n=denominators.get(name, total),
        )
        for name in CLASS_METRICS
    }
    return ClassMetrics(support, tp, predicted - tp, support - tp, total - support - predicted + tp, **estimates)
