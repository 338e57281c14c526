"""What a classifier is worth in use: net benefit by threshold, and predictive values at another prevalence."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from evalcam_cli.evaluation.estimates import Caution, Estimate, Interval
from evalcam_cli.evaluation.intervals import likelihood_ratio_intervals, resampled_interval
from evalcam_cli.evaluation.predictions import Predictions
from evalcam_cli.evaluation.resampling import resample_weights
from evalcam_cli.evaluation.statistics import sum_by_label

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

THRESHOLDS = tuple(step / 100 for step in range(1, 100))
"""1 is left out: its odds are infinite."""
HEADER = (
    *("threshold", "net_benefit", "ci_low", "ci_high", "treat_all", "treat_all_ci_low", "treat_all_ci_high"),
    *("treat_none", "advantage", "advantage_ci_low", "advantage_ci_high", "interventions_avoided_per_100", "ci_method"),
)
VALUES_HEADER = ("metric", "class", "prevalence", "estimate", "ci_low", "ci_high", "ci_method", "undefined_reason")
MERCALDO = "logit_delta"
_MISCALIBRATED = 0.01  # p-value of the calibration test below which thresholds do not mean what they say
_ONE_CLASS = "all images are of one class"


@dataclass(frozen=True)
class DecisionPoint:
    """What acting on p ≥ threshold is worth, in true positives per image."""

    threshold: float
    net_benefit: Estimate
    treat_all: Estimate
    """Of acting on every image. Acting on none has net benefit 0."""
    advantage: Estimate
    """Net benefit less the better of acting on all and on none."""
    interventions_avoided: float | None
    """Per 100 images: how many fewer are acted on than when acting on all, at the same net number of true positives."""


@dataclass(frozen=True)
class DecisionCurve:
    """Net benefit of one class against the rest over thresholds."""

    positive: str
    n: int
    observed_prevalence: float
    """Share of the positive class among the images."""
    prevalence: float
    """The one that net benefit is computed for."""
    points: tuple[DecisionPoint, ...]
    cautions: tuple[Caution, ...]

    @property
    def useful(self) -> tuple[float, ...]:
        """Thresholds at which the classifier is better than acting on all and on none, sure at 97.5 % at each."""
        return tuple(one.threshold for one in self.points if (one.advantage.ci_low or 0.0) > 0)

    def document(self) -> dict[str, object]:
        """Plain values for JSON; the points stand in the CSV file."""
        useful = self.useful
        return {
            "positive": self.positive,
            "n": self.n,
            "observed_prevalence": self.observed_prevalence,
            "prevalence": self.prevalence,
            "thresholds": len(self.points),
            "useful_from": useful[0] if useful else None,
            "useful_to": useful[-1] if useful else None,
            "useful_thresholds": len(useful),
            "warnings": [asdict(caution) for caution in self.cautions],
        }

    def rows(self) -> Iterator[tuple[object, ...]]:
        """A row per threshold, with the columns of `HEADER`."""
        for one in self.points:
            model, everyone, gain = one.net_benefit, one.treat_all, one.advantage
            yield (
                one.threshold,
                *(model.estimate, model.ci_low, model.ci_high),
                *(everyone.estimate, everyone.ci_low, everyone.ci_high),
                *(0.0, gain.estimate, gain.ci_low, gain.ci_high),
                *(one.interventions_avoided, model.ci_method),
            )


def decision_curve(
    predictions: Predictions,
    *,
    positive: str | None = None,
    prevalence: float | None = None,
    bootstrap: int | None = None,
    seed: int = 0,
    calibration_p: float | None = None,
) -> DecisionCurve:
    """Net benefit at every threshold of `THRESHOLDS`, with pointwise 95 % bands.

    NB(t) = TP/n - FP/n · t/(1-t), an image counting as positive when p ≥ t; acting on all π - (1-π) t/(1-t), on none 0:
    Vickers and Elkin, "Decision curve analysis", Medical Decision Making 2006. Interventions avoided per 100 images are
    100 (NB - NB of all) (1-t)/t (Vickers et al., "Extensions to decision curve analysis", 2008). With a stated
    prevalence (case-control sets) NB(t) = Se(t) π - (1 - Sp(t)) (1-π) t/(1-t): sensitivity and specificity are kept; so
    are the probabilities, see `adjust_probabilities`. Bands are percentiles of resamples of images, or of patients.

    Args:
        predictions: N images.
        positive: The class to act on; by default that of the operating point, else the last class.
        prevalence: In (0, 1), of the positive class in use; None: as among the images.
        bootstrap: Resamples; None: no bands.
        seed: Of the resamples, which are those of the metrics with the same seed.
        calibration_p: p-value of a calibration test; below .01 a caution says that thresholds are not what they say.

    Raises:
        ValueError: There are no images, no such class, or the prevalence is not in (0, 1).
    """
    positive, index = _positive(predictions, positive)
    _refuse_prevalence(prevalence)
    truth = predictions.targets == index
    n = len(truth)
    levels = np.searchsorted(np.array(THRESHOLDS), predictions.probability_of(index), side="right")  # thresholds ≤ p
    found = _curve(levels, truth, np.ones((1, n), dtype=np.int32), prevalence)
    groups = predictions.group_codes
    bands: list[list[Interval]] | None = None
    if bootstrap is not None:
        blocks = [_curve(levels, truth, w, prevalence) for w in resample_weights(n, bootstrap, seed, groups)]
        drawn = [np.concatenate([block[part] for block in blocks]) for part in range(3)]
        bands = [
            [resampled_interval(column, predictions.units, clustered=groups is not None) for column in values.T]
            for values in drawn
        ]
    reason = _ONE_CLASS if prevalence is not None else "not a number"

    def estimate(part: int, place: int) -> Estimate:
        value = float(found[part][0, place])
        if np.isnan(value):
            return Estimate(None, undefined_reason=reason, n=n)
        one = bands[part][place] if bands is not None else Interval()
        return Estimate(value, one.low, one.high, one.method, None, n, one.note)

    points = []
    for place, threshold in enumerate(THRESHOLDS):
        model, everyone = estimate(0, place), estimate(1, place)
        avoided = None
        if model.estimate is not None and everyone.estimate is not None:
            avoided = 100 * (model.estimate - everyone.estimate) * (1 - threshold) / threshold
        points.append(DecisionPoint(threshold, model, everyone, estimate(2, place), avoided))
    share = float(truth.mean())
    used = share if prevalence is None else prevalence
    return DecisionCurve(positive, n, share, used, tuple(points), _cautions(share, prevalence, calibration_p))


def _positive(predictions: Predictions, positive: str | None) -> tuple[str, int]:
    if not len(predictions.targets):
        raise ValueError("there are no images")
    point = predictions.operating_point
    name = positive or (point.positive if point else predictions.classes[-1])
    return name, predictions.classes.index(name)


def _refuse_prevalence(prevalence: float | None) -> None:
    if prevalence is not None and not 0 < prevalence < 1:
        raise ValueError(f"a prevalence lies between 0 and 1, not at {prevalence}")


def _curve(
    levels: NDArray[np.int64], truth: Bools, weights: NDArray[np.int32], prevalence: float | None
) -> tuple[Floats, Floats, Floats]:
    """(B, T) net benefit of the classifier, of acting on all, and the classifier's advantage, for (B, N) weights."""
    count = len(THRESHOLDS)
    true_above, positives = _above(levels[truth], weights[:, truth], count)
    false_above, negatives = _above(levels[~truth], weights[:, ~truth], count)
    total = positives + negatives
    with np.errstate(invalid="ignore", divide="ignore"):  # no positives or no negatives: NaN, with a stated prevalence
        if prevalence is None:
            gain, harm, share, rest = (part / total for part in (true_above, false_above, positives, negatives))
        else:
            gain, harm = true_above / positives * prevalence, false_above / negatives * (1 - prevalence)
            share, rest = np.full_like(total, prevalence), np.full_like(total, 1 - prevalence)
    odds = np.array([threshold / (1 - threshold) for threshold in THRESHOLDS])
    model = gain - harm * odds
    everyone = np.broadcast_to(share - rest * odds, model.shape)  # to the last digit the same where all are called
    return model, everyone, np.asarray(model - np.maximum(everyone, 0.0))


def _above(levels: NDArray[np.int64], weights: NDArray[np.int32], count: int) -> tuple[Floats, Floats]:
    """(B, T) weight of the images with p ≥ each threshold, and the (B, 1) weight of all."""
    by_level = sum_by_label(weights, levels, count + 1)
    reached = np.cumsum(by_level[:, ::-1], axis=1)[:, ::-1]
    return reached[:, 1:], reached[:, :1]


def _cautions(share: float, prevalence: float | None, calibration_p: float | None) -> tuple[Caution, ...]:
    found = []
    if calibration_p is not None and calibration_p < _MISCALIBRATED:
        found.append(
            Caution(
                "decision_curve_uncalibrated",
                f"the probabilities are not calibrated (p = {calibration_p:.2g}), so a threshold of 0.2 does not mean a"
                " risk of 20 % and the decision curve misleads; calibrate first",
            )
        )
    if prevalence is not None and abs(prevalence - share) > 0.05:
        found.append(
            Caution(
                "decision_curve_prevalence",
                f"net benefit is for a prevalence of {prevalence:.3g}, the images have {share:.3g}; the probabilities"
                " are the model's, and assume the prevalence that it was trained on",
            )
        )
    return tuple(found)


@dataclass(frozen=True)
class PredictiveValues:
    """What a positive and a negative answer are worth where the class is as frequent as stated."""

    positive: str
    prevalence: float
    observed_prevalence: float
    sensitivity: float | None
    specificity: float | None
    ppv: Estimate
    npv: Estimate

    def document(self) -> dict[str, object]:
        """Plain values for JSON."""
        return asdict(self) | {"ppv": self.ppv.document(), "npv": self.npv.document()}

    def rows(self) -> Iterator[tuple[object, ...]]:
        """A row for each predictive value, with the columns of `VALUES_HEADER`."""
        for name, one in (("ppv", self.ppv), ("npv", self.npv)):
            limits = (one.ci_low, one.ci_high, one.ci_method)
            yield (name, self.positive, self.prevalence, one.estimate, *limits, one.undefined_reason)


def adjusted_ppv(sensitivity: float, specificity: float, prevalence: float) -> float | None:
    """Se π / (Se π + (1-Sp)(1-π)), Bayes' theorem; None where nothing is called positive."""
    called = sensitivity * prevalence + (1 - specificity) * (1 - prevalence)
    return sensitivity * prevalence / called if called else None


def adjusted_npv(sensitivity: float, specificity: float, prevalence: float) -> float | None:
    """Sp (1-π) / (Sp (1-π) + (1-Se) π), Bayes' theorem; None where everything is called positive."""
    return adjusted_ppv(specificity, sensitivity, 1 - prevalence)


def predictive_values(
    predictions: Predictions,
    *,
    prevalence: float,
    positive: str | None = None,
    bootstrap: int | None = None,
    seed: int = 0,
) -> PredictiveValues:
    """PPV and NPV of the decisions made, at a stated prevalence.

    Sensitivity and specificity are taken to be the same there, which a change in the mix of mild and severe cases may
    break. Intervals of independent images: the delta method on the logit, Mercaldo, Lau and Zhou, "Confidence intervals
    for predictive values with an emphasis to case-control studies", Statistics in Medicine 2007. Since logit PPV =
    ln LR+ + logit π, it is the interval of the likelihood ratio carried over, with its rule for counts of 0. With
    patients: percentiles of resamples of patients. The prevalence counts as known.

    Args:
        predictions: N images; decided by their operating point if it is for the positive class, else by the argmax.
        prevalence: In (0, 1).
        positive: By default the class of the operating point, else the last class.
        bootstrap: Resamples, used with patients; None: no intervals at all.
        seed: Of the resamples.

    Raises:
        ValueError: There are no images, no such class, or the prevalence is not in (0, 1).
    """
    positive, index = _positive(predictions, positive)
    _refuse_prevalence(prevalence)
    truth = predictions.targets == index
    point = predictions.operating_point
    decided = predictions.called if point is not None and point.positive == positive else None
    called = predictions.predicted == index if decided is None else decided
    tp, fn = int((truth & called).sum()), int((truth & ~called).sum())
    fp, tn = int((~truth & called).sum()), int((~truth & ~called).sum())
    observed = float(truth.mean())
    if not tp + fn or not fp + tn:
        missing = Estimate(None, undefined_reason=_ONE_CLASS, n=len(truth))
        one_sided = (tp / (tp + fn) if tp + fn else None, tn / (fp + tn) if fp + tn else None)
        return PredictiveValues(positive, prevalence, observed, *one_sided, missing, missing)
    sensitivity, specificity = tp / (tp + fn), tn / (fp + tn)
    limits = (Interval(), Interval())
    if bootstrap is not None and predictions.group_codes is None:
        limits = _mercaldo(tp, fp, fn, tn, prevalence)
    elif bootstrap is not None:
        limits = _resampled_values(predictions, truth, called, prevalence, bootstrap, seed)
    values = (adjusted_ppv, adjusted_npv)
    reasons = ("never called positive", "always called positive")
    ppv, npv = (
        Estimate(value, one.low, one.high, one.method, None, len(truth), one.note)
        if (value := of(sensitivity, specificity, prevalence)) is not None
        else Estimate(None, undefined_reason=reason, n=len(truth))
        for of, one, reason in zip(values, limits, reasons, strict=True)
    )
    return PredictiveValues(positive, prevalence, observed, sensitivity, specificity, ppv, npv)


def _mercaldo(tp: int, fp: int, fn: int, tn: int, prevalence: float) -> tuple[Interval, Interval]:
    odds = prevalence / (1 - prevalence)
    found = []
    for ratio, rising in zip(likelihood_ratio_intervals(tp, fp, fn, tn), (True, False), strict=True):
        if ratio.low is None:
            found.append(ratio)
            continue
        # Post-test odds from the ratio's limits, as a share; NPV is the share that is left after a negative answer.
        low = ratio.low * odds / (1 + ratio.low * odds)
        high = 1.0 if ratio.high is None else ratio.high * odds / (1 + ratio.high * odds)
        ends = (low, high) if rising else (1 - high, 1 - low)
        found.append(Interval(*ends, MERCALDO, ratio.note))
    return found[0], found[1]


def _resampled_values(
    predictions: Predictions, truth: Bools, called: Bools, prevalence: float, resamples: int, seed: int
) -> tuple[Interval, Interval]:
    rates = []
    for weights in resample_weights(len(truth), resamples, seed, predictions.group_codes):
        cells = [weights[:, part].sum(axis=1) for part in (truth & called, truth, ~truth & ~called, ~truth)]
        with np.errstate(invalid="ignore", divide="ignore"):
            rates.append((cells[0] / cells[1], cells[2] / cells[3]))
    sensitivity, specificity = (np.concatenate([pair[side] for pair in rates]) for side in (0, 1))
    with np.errstate(invalid="ignore", divide="ignore"):
        hit, miss = sensitivity * prevalence, (1 - sensitivity) * prevalence
        right, wrong = specificity * (1 - prevalence), (1 - specificity) * (1 - prevalence)
        values = hit / (hit + wrong), right / (right + miss)
    ppv, npv = (resampled_interval(column, predictions.units, clustered=True) for column in values)
    return ppv, npv


def adjust_probabilities(
    probabilities: Floats, train_prevalence: Sequence[float] | Floats, new_prevalence: Sequence[float] | Floats
) -> Floats:
    """(N, K) probabilities as they would be where classes are as frequent as in `new_prevalence`; rows sum to 1.

    p'_k ∝ p_k π'_k / π_k: Saerens, Latinne and Decaestecker, "Adjusting the outputs of a classifier to new a priori
    probabilities", Neural Computation 2002, equation 2.4. Holds when only the class frequencies differ, not what the
    images of a class look like, and the probabilities are calibrated for the training frequencies.

    Args:
        probabilities: (N, K); a block of rows at a time serves.
        train_prevalence: (K,) above 0, sums to 1.
        new_prevalence: (K,) from 0, sums to 1.

    Raises:
        ValueError: The prevalences are not such, or leave a row without any probability.
    """
    before, after = np.asarray(train_prevalence, dtype=np.float64), np.asarray(new_prevalence, dtype=np.float64)
    classes = probabilities.shape[1]
    if before.shape != (classes,) or after.shape != (classes,) or not (before > 0).all() or not (after >= 0).all():
        raise ValueError(f"both prevalences must hold {classes} shares, those of training all above 0")
    if abs(before.sum() - 1) > 1e-6 or abs(after.sum() - 1) > 1e-6:
        raise ValueError("prevalences must sum to 1")
    found = probabilities * (after / before)
    sums = found.sum(axis=1, keepdims=True)
    if not (sums > 0).all():
        raise ValueError("an image has probability 0 for all classes that exist at the new prevalence")
    found /= sums
    return np.asarray(found)
