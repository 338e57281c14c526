"""What an evaluation says beside its metrics: by slice, by fold, without leaks, before calibration, in use."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from evalcam_cli.errors import UsageError
from evalcam_cli.evaluation.conformal import ConformalResult, apply_conformal, fit_conformal
from evalcam_cli.evaluation.decision import DecisionCurve, PredictiveValues, decision_curve, predictive_values
from evalcam_cli.evaluation.folds import FoldTable, summarise_folds
from evalcam_cli.evaluation.label_errors import LikelyLabelError, likely_label_errors
from evalcam_cli.evaluation.limits import IntervalChoice
from evalcam_cli.evaluation.metrics import Metrics, compute_metrics
from evalcam_cli.evaluation.predictions import Predictions, row_blocks
from evalcam_cli.evaluation.selective import RiskCoverage, risk_coverage
from evalcam_cli.evaluation.slices import ImageSlice, slice_metrics

BEFORE = ("accuracy", "balanced_accuracy", "log_loss", "brier", "ece", "recall@op", "specificity@op")
"""Numbers shown before and after temperature and operating point."""


@dataclass(frozen=True)
class WithoutLeaks:
    """The metrics of the images that are known to be no independent test left out."""

    leaked: int
    metrics: Metrics | None
    """None when no image is left."""


@dataclass(frozen=True)
class Analyses:
    """All that was asked for, or follows from the data; None or empty where it does not apply."""

    uncalibrated: Metrics | None = None
    """Points only, of the raw logits and the argmax; when a temperature or an operating point is applied."""
    without_leaks: WithoutLeaks | None = None
    slices: tuple[ImageSlice, ...] = ()
    folds: FoldTable | None = None
    decision: DecisionCurve | None = None
    predictive_values: PredictiveValues | None = None
    selective: RiskCoverage | None = None
    conformal: ConformalResult | None = None
    label_errors: tuple[LikelyLabelError, ...] = ()


@dataclass(frozen=True)
class FoldPart:
    """One round of a cross-validation."""

    number: int
    """repeat * folds + fold."""
    predictions: Predictions
    train_images: int
    repeat: int = 0
    """Which of the divisions into folds it is of."""


def analyse(
    predictions: Predictions,
    metrics: Metrics,
    *,
    choice: IntervalChoice | None = None,
    by: Sequence[str] = (),
    prevalence: float | None = None,
    folds: Sequence[FoldPart] = (),
    validation: Predictions | None = None,
    alpha: float | None = None,
    leaked: Sequence[str] = (),
) -> Analyses:
    """Everything beside the metrics themselves.

    Args:
        predictions: Of all images.
        metrics: Of these predictions, with intervals.
        choice: Of interval formulas.
        by: Columns to slice by.
        prevalence: Share of the positive class where the model will be used.
        folds: The rounds that the predictions come from.
        validation: Predictions of the validation images; with `alpha`.
        alpha: Error rate of prediction sets.
        leaked: Paths of images that are no independent test.

    Raises:
        UsageError: A column cannot be sliced by, or a prevalence is given without a positive class.
    """
    return Analyses(
        uncalibrated=_uncalibrated(predictions, metrics),
        without_leaks=_without(predictions, metrics, leaked, choice) if leaked else None,
        slices=tuple(one for column in by for one in slice_metrics(predictions, column, metrics, choice=choice)),
        folds=_folds(folds, metrics) if folds else None,
        decision=_decision(predictions, metrics, prevalence),
        predictive_values=None if prevalence is None else _values(predictions, metrics, prevalence),
        selective=risk_coverage(predictions, bootstrap=metrics.bootstrap, seed=metrics.seed),
        conformal=_sets(validation, alpha, predictions, metrics),
        label_errors=likely_label_errors(lambda: _rows(predictions), predictions.targets).errors,
    )


def _decision(predictions: Predictions, metrics: Metrics, prevalence: float | None) -> DecisionCurve | None:
    if metrics.positive is None:
        return None
    test = metrics.tests.get("ece_consistency")
    return decision_curve(
        predictions,
        positive=metrics.positive,
        prevalence=prevalence,
        bootstrap=metrics.bootstrap,
        seed=metrics.seed,
        calibration_p=test.p_value if test else None,
    )


def _rows(predictions: Predictions) -> Iterator[NDArray[np.float64]]:
    for start, stop in row_blocks(*predictions.logits.shape):
        yield predictions.rows(start, stop)


def _folds(parts: Sequence[FoldPart], pooled: Metrics) -> FoldTable:
    metrics = [(part.number, compute_metrics(part.predictions, positive=pooled.positive)) for part in parts]
    return summarise_folds(
        metrics,
        [(part.train_images, len(part.predictions.targets)) for part in parts],
        repeats=len({part.repeat for part in parts}),
        images=len({path for part in parts for path in part.predictions.paths}),
    )


def _values(predictions: Predictions, metrics: Metrics, prevalence: float) -> PredictiveValues:
    if metrics.positive is None:
        raise UsageError("--prevalence needs a positive class: two classes, or a stored operating point")
    return predictive_values(
        predictions,
        prevalence=prevalence,
        positive=metrics.positive,
        bootstrap=metrics.bootstrap,
        seed=metrics.seed,
    )


def _sets(
    validation: Predictions | None, alpha: float | None, predictions: Predictions, metrics: Metrics
) -> ConformalResult | None:
    if validation is None or alpha is None:
        return None
    rule = fit_conformal(validation, alpha)
    return apply_conformal(rule, predictions, bootstrap=metrics.bootstrap, seed=metrics.seed)


def _uncalibrated(predictions: Predictions, metrics: Metrics) -> Metrics | None:
    if predictions.temperature == 1 and predictions.operating_point is None:
        return None
    raw = replace(predictions, temperature=1.0, operating_point=None)
    positive = metrics.positive if len(predictions.classes) == 2 else None
    found = compute_metrics(raw, positive=positive)
    if metrics.positive is None:
        return found
    entry = found.per_class[metrics.positive].estimates  # the decision by the argmax, in the words of the point
    return replace(found, overall=found.overall | {f"{name}@op": entry[name] for name in ("recall", "specificity")})


def _without(
    predictions: Predictions, metrics: Metrics, leaked: Sequence[str], choice: IntervalChoice | None
) -> WithoutLeaks:
    known = set(leaked)
    kept = np.flatnonzero([path not in known for path in predictions.paths])
    if not len(kept):
        return WithoutLeaks(len(predictions.paths), None)
    found = compute_metrics(
        predictions.take(kept), positive=metrics.positive, bootstrap=metrics.bootstrap, seed=metrics.seed, choice=choice
    )
    return WithoutLeaks(len(predictions.paths) - len(kept), found)
