"""All numbers of an evaluation, each with its interval or the reason why it has none."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
import scipy.stats
from numpy.typing import NDArray

from evalcam_cli.errors import DataError, UsageError
from evalcam_cli.evaluation import calibration, cautions, counts
from evalcam_cli.evaluation.calibration import CalibrationNull
from evalcam_cli.evaluation.clustered import ONE_PATIENT
from evalcam_cli.evaluation.counts import Counts, Floats
from evalcam_cli.evaluation.estimates import Caution, Estimate, HypothesisTest, Interval
from evalcam_cli.evaluation.limits import IntervalChoice, Limits, compute_limits
from evalcam_cli.evaluation.predictions import Predictions, row_blocks
from evalcam_cli.evaluation.stated import LOG_PROBABILITIES, LOGITS, StatedProbabilities
from evalcam_cli.evaluation.statistics import RANKED, TOP_K, Sample
from evalcam_cli.text import counted, did_you_mean, listed

CLASS_METRICS = (
    *("precision", "recall", "specificity", "npv", "f1", "lr_positive", "lr_negative"),
    *("roc_auc", "partial_roc_auc", "average_precision"),
)
MACROS = {
    "balanced_accuracy": "recall",
    "precision_macro": "precision",
    "recall_macro": "recall",
    "specificity_macro": "specificity",
    "npv_macro": "npv",
    "f1_macro": "f1",
    "roc_auc_ovr_macro": "roc_auc",
    "average_precision_macro": "average_precision",
}
"""Averages over classes, and of what; a class where it is undefined is left out."""
MAIN_METRICS = (
    *("accuracy", "balanced_accuracy", "precision_macro", "recall_macro", "specificity_macro", "f1_macro"),
    *("roc_auc", "roc_auc_ovr_macro", "average_precision_macro", "log_loss", "brier", "ece", "mcc", "cohen_kappa"),
)
"""Those that are always shown; `roc_auc` exists for two classes, `roc_auc_ovr_macro` for any other number."""
FURTHER_METRICS = (
    *("no_information_rate", *(f"top_{k}_accuracy" for k in TOP_K), "npv_macro"),
    *(f"{name}_weighted" for name in ("precision", "recall", "specificity", "npv", "f1")),
    *(f"{name}_micro" for name in ("precision", "recall", "specificity", "npv", "f1")),
    *("roc_auc_ovr_weighted", "roc_auc_ovr_micro", "roc_auc_ovo_macro"),
    *("average_precision_weighted", "average_precision_micro"),
    *("ece_equal_mass", "mce", "ece_expected_if_calibrated", "calibration_slope", "calibration_intercept"),
)
POINT_METRICS = tuple(f"{name}@op" for name in ("accuracy", *CLASS_METRICS[:7]))
"""At the operating point, its positive class against the rest; only there when there is a point."""
OVERALL_METRICS = (*MAIN_METRICS, *FURTHER_METRICS, *POINT_METRICS)
"""In the order shown."""

_NOT_FOR_TWO = ("roc_auc_ovr_macro", "roc_auc_ovr_weighted", "roc_auc_ovr_micro", "roc_auc_ovo_macro")
_NULL_RESAMPLES = 1000
_NEVER = "not a number"  # the reason of a metric that always is one


@dataclass(frozen=True)
class ClassMetrics:
    """One class against the rest: counts of images, and estimates."""

    support: int
    tp: int
    fp: int
    fn: int
    tn: int
    estimates: dict[str, Estimate]
    """By name, in the order of `CLASS_METRICS`."""


@dataclass(frozen=True)
class Metrics:
    """What a set of predictions is worth."""

    n: int
    classes: tuple[str, ...]
    positive: str | None
    """The class that binary metrics, or an operating point, are about; None otherwise."""
    overall: dict[str, Estimate]
    per_class: dict[str, ClassMetrics]
    confusion: NDArray[np.int64]
    """(K, K) counts: row i, column j is the number of images of class i predicted as class j."""
    tests: dict[str, HypothesisTest]
    warnings: tuple[Caution, ...]
    bootstrap: int | None
    """Resamples behind the intervals; None when no intervals were asked for."""
    seed: int
    scores: str
    """What the predictions were: `logits`, or `log_probabilities` when only probabilities are known."""
    groups: int | None = None
    """Groups (patients) that the intervals are clustered by; None without."""


def compute_metrics(
    predictions: Predictions,
    *,
    positive: str | None = None,
    bootstrap: int | None = None,
    seed: int = 0,
    choice: IntervalChoice | None = None,
) -> Metrics:
    """Compute every metric over all images at once, in float64.

    Where the predictions know groups (patients), every interval is clustered by them.

    Args:
        predictions: N images, K classes.
        positive: Of two classes the one that `roc_auc` is about; by default that of the operating point, else the last.
        bootstrap: Resamples for the intervals that have no formula. None: no intervals at all, as in training.
        seed: Of the resamples.
        choice: Which formulas, where there are several.

    Raises:
        DataError: There are no images, or a score is not finite.
        UsageError: `positive` is not a class, is not that of the operating point, or is named without reason.
    """
    _refuse_unusable(predictions)
    positive = _positive(predictions, positive)
    sample = Sample.of(predictions)
    n, k = len(predictions.targets), len(predictions.classes)
    confusion = counts.confusion_matrix(predictions.targets, predictions.predicted, k)
    margins = counts.count(confusion)
    points = sample.points()
    limits = None
    if bootstrap is not None:
        limits = compute_limits(sample, points, margins, bootstrap, seed, choice or IntervalChoice())
    calibrated = _calibration_null(sample, seed) if bootstrap is not None else None
    overall = _overall(sample, points, limits, positive, calibrated)
    per_class = {name: _class_metrics(index, points, limits, margins) for index, name in enumerate(predictions.classes)}
    return Metrics(
        n=n,
        classes=predictions.classes,
        positive=positive,
        overall=overall,
        per_class=per_class,
        confusion=confusion,
        tests={} if calibrated is None else _tests(predictions, margins, calibrated),
        warnings=cautions.find(predictions, sample.facts, margins, skipped=limits is not None and not limits.ranked),
        bootstrap=bootstrap,
        seed=seed,
        scores=LOG_PROBABILITIES if isinstance(predictions, StatedProbabilities) else LOGITS,
        groups=predictions.group_count,
    )


def _refuse_unusable(predictions: Predictions) -> None:
    n, k = predictions.logits.shape
    if not n:
        raise DataError("there are no images to evaluate")
    # The logarithm of a stated probability of 0 is minus infinity; a network's logits are finite or broken.
    scores = predictions.stated if isinstance(predictions, StatedProbabilities) else predictions.logits
    blocks = [~np.isfinite(scores[start:stop]).all(axis=1) for start, stop in row_blocks(n, k)]
    broken = np.flatnonzero(np.concatenate(blocks))
    if len(broken):
        names = [predictions.paths[i] if predictions.paths else f"row {i + 1}" for i in broken]
        raise DataError(
            f"{counted(len(broken), 'image')} of {n:,} got NaN or infinite scores: {listed(names)};\n"
            "the model is broken (diverged in training?) or the file is damaged"
        )


def _positive(predictions: Predictions, positive: str | None) -> str | None:
    classes, point = predictions.classes, predictions.operating_point
    if positive is None:
        return point.positive if point else classes[-1] if len(classes) == 2 else None
    if positive not in classes:
        raise UsageError(
            f"--positive {positive!r} is none of the classes {listed(classes)}{did_you_mean(positive, classes)}"
        )
    if point is not None and positive != point.positive:
        raise UsageError(
            f"--positive {positive!r}: the stored operating point is that of {point.positive!r};\n"
            "choose another with `evalcam calibrate`"
        )
    if len(classes) != 2 and point is None:
        raise UsageError(
            f"--positive needs two classes or an operating point; these predictions have {len(classes)} classes: "
            f"{listed(classes)}"
        )
    return positive


def _calibration_null(sample: Sample, seed: int) -> CalibrationNull:
    found = _bins(sample).ece
    return calibration.calibration_null(sample.predictions.confidence, found, resamples=_NULL_RESAMPLES, seed=seed)


def _bins(sample: Sample) -> calibration.ReliabilityBins:
    correct = sample.predictions.argmax == sample.predictions.targets
    return calibration.reliability_bins(sample.predictions.confidence, correct)


def _tests(predictions: Predictions, margins: Counts, null: CalibrationNull) -> dict[str, HypothesisTest]:
    """The accuracy against guessing the largest class, and the calibration against chance."""
    guessing = "the accuracy is no better than that of always naming the largest class (exact binomial, one-sided)"
    calibrated = "the model is perfectly calibrated, and ECE is what chance makes of it"
    if predictions.group_codes is not None:
        reason = "images of one group are not independent"
        return {
            "accuracy_above_no_information_rate": HypothesisTest(None, guessing, reason),
            "ece_consistency": HypothesisTest(None, calibrated, reason),
        }
    n = int(margins.total)
    rate = float(margins.support.max()) / n
    binomial = scipy.stats.binomtest(int(margins.hits.sum()), n, rate, alternative="greater")
    return {
        "accuracy_above_no_information_rate": HypothesisTest(float(binomial.pvalue), guessing),
        "ece_consistency": HypothesisTest(null.p_value, calibrated),
    }


def _estimate(
    value: float, interval: Interval | None, reason: str, *, n: int, classes_counted: int | None = None
) -> Estimate:
    found = interval or Interval()
    if not np.isfinite(value):
        return Estimate(
            None,
            ci_low=found.low,  # of an infinite ratio
            ci_method=found.method,
            undefined_reason=reason,
            n=n,
            classes_counted=classes_counted,
        )
    return Estimate(float(value), found.low, found.high, found.method, None, n, found.note, classes_counted)


def _overall(
    sample: Sample,
    points: Mapping[str, Floats],
    limits: Limits | None,
    positive: str | None,
    null: CalibrationNull | None,
) -> dict[str, Estimate]:
    predictions = sample.predictions
    n, two = len(predictions.targets), len(predictions.classes) == 2
    others = _calibration_estimates(sample, limits, null) | _point_estimates(predictions, points, limits)
    others |= _recalibration_estimates(predictions, limits, positive) if two and positive else {}
    found: dict[str, Estimate] = {}
    for name in OVERALL_METRICS:
        if name in (_NOT_FOR_TWO if two else ("roc_auc",)):
            continue
        if name in others:
            found[name] = others[name]
        elif name == "roc_auc" and positive is not None:
            index = predictions.classes.index(positive)
            interval = limits.of(name, index) if limits else None
            found[name] = _estimate(float(points[name][index]), interval, _why_undefined(name, sample), n=n)
        elif name in points:
            of = MACROS.get(name)
            found[name] = _estimate(
                float(points[name]),
                limits.of(name) if limits else None,
                _why_undefined(name, sample),
                n=n,
                classes_counted=int(np.count_nonzero(~np.isnan(points[of]))) if of else None,
            )
    return found


def _calibration_estimates(sample: Sample, limits: Limits | None, null: CalibrationNull | None) -> dict[str, Estimate]:
    """ECE gets no bootstrap interval: resampling inflates it, so the interval of a calibrated model would exclude 0."""
    bins = _bins(sample)
    predictions = sample.predictions
    mass = calibration.equal_mass_bins(predictions.confidence, predictions.argmax == predictions.targets)
    n = len(predictions.targets)
    note = None if limits is None else "no interval: resampling inflates it; see ece_expected_if_calibrated"
    found = {
        "ece": Estimate(bins.ece, n=n, ci_note=note),
        "ece_equal_mass": Estimate(mass.ece, n=n, ci_note=note),
        "mce": Estimate(bins.mce, n=n, ci_note=note),
    }
    if null is not None:
        found["ece_expected_if_calibrated"] = Estimate(null.mean, null.low, null.high, "consistency_resampling", n=n)
    return found


def _recalibration_estimates(predictions: Predictions, limits: Limits | None, positive: str) -> dict[str, Estimate]:
    index = predictions.classes.index(positive)
    codes = predictions.group_codes
    fitted = calibration.recalibration(predictions.probability_of(index), predictions.targets == index, codes)
    n = len(predictions.targets)
    names = {"calibration_slope": "slope", "calibration_intercept": "intercept"}
    if isinstance(fitted, str):
        return {name: Estimate(None, undefined_reason=fitted, n=n) for name in names}
    if limits is None:
        return {name: Estimate(getattr(fitted, part), n=n) for name, part in names.items()}
    if codes is not None and not codes.any():  # the scores of one group sum to 0 at the solution: no width at all
        return {name: Estimate(getattr(fitted, part), n=n, ci_note=ONE_PATIENT) for name, part in names.items()}
    method = "wald" if codes is None else "patient_sandwich"
    return {name: Estimate(getattr(fitted, part), *fitted.limits(part), method, n=n) for name, part in names.items()}


def _why_undefined(name: str, sample: Sample) -> str:
    if name.endswith("_weighted"):
        return "undefined for every class that has images"
    if name in MACROS:
        return "undefined for every class"
    if name == "log_loss":
        images = counted(int(np.isinf(sample.facts.losses).sum()), "image")
        return f"infinite: {images} with probability 0 for the true class"
    if name.startswith("top_"):
        return f"there are only {len(sample.predictions.classes)} classes, so it is always 1"
    return {
        "roc_auc": "only one class has images",
        "roc_auc_ovr_micro": "undefined for every class",
        "roc_auc_ovo_macro": "no two classes have images",
        "mcc": "all images are of one class or predicted as one class",
        "cohen_kappa": "all images are of one class and predicted as it",
    }.get(name, _NEVER)


_CLASS_REASONS = {
    "precision": "never predicted",
    "recall": "no images of this class",
    "specificity": "no images of other classes",
    "npv": "all images are predicted as this class",
    "f1": "no images of this class, and never predicted",
    "lr_positive": "infinite: specificity is 1",
    "lr_negative": "infinite: specificity is 0",
}


class _Cells(NamedTuple):
    """Counts of images, one class against the rest."""

    tp: int
    fp: int
    fn: int
    tn: int

    @classmethod
    def of(cls, margins: Counts, index: int) -> Self:
        total, support = int(margins.total), int(margins.support[index])
        tp, predicted = int(margins.hits[index]), int(margins.predicted[index])
        return cls(tp, predicted - tp, support - tp, total - support - (predicted - tp))

    def estimate(self, name: str, value: float, interval: Interval | None) -> Estimate:
        """With the denominator of a proportion, and the reason where the value is undefined."""
        tp, fp, fn, tn = self
        denominators = {"precision": tp + fp, "recall": tp + fn, "specificity": fp + tn, "npv": fn + tn}
        reason = _reasons(*self).get(name, _NEVER)
        return _estimate(value, interval, reason, n=denominators.get(name, sum(self)))


def _reasons(tp: int, fp: int, fn: int, tn: int) -> dict[str, str]:
    """Why a metric of a class with these counts is undefined, if it is."""
    one_sided = "no images of other classes" if tp + fn else "no images of this class"
    reasons = _CLASS_REASONS | dict.fromkeys(RANKED, one_sided)
    if not (tp + fn and fp + tn):
        return reasons | {"lr_positive": one_sided, "lr_negative": one_sided}
    if not tp + fp:
        reasons["lr_positive"] = reasons["precision"]  # 0/0, not infinite
    if not fn + tn:
        reasons["lr_negative"] = reasons["npv"]
    return reasons


def _point_estimates(
    predictions: Predictions, points: Mapping[str, Floats], limits: Limits | None
) -> dict[str, Estimate]:
    if predictions.at_point is None:
        return {}
    truth, called = (flags.astype(np.int64) for flags in predictions.at_point)
    cells = _Cells.of(counts.count(counts.confusion_matrix(truth, called, 2)), 1)
    return {
        name: cells.estimate(name.removesuffix("@op"), float(points[name]), limits.of(name) if limits else None)
        for name in POINT_METRICS
    }


def _class_metrics(index: int, points: Mapping[str, Floats], limits: Limits | None, margins: Counts) -> ClassMetrics:
    cells = _Cells.of(margins, index)
    estimates = {
        name: cells.estimate(name, float(points[name][index]), limits.of(name, index) if limits else None)
        for name in CLASS_METRICS
    }
    return ClassMetrics(cells.tp + cells.fn, *cells, estimates)
