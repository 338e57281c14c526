"""What a classifier is worth where decisions follow: net benefit, and predictive values at a stated prevalence."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from evalcam_cli.evaluation.estimates import Estimate
from evalcam_cli.evaluation.predictions import Predictions
from evalcam_cli.evaluation.resampling import resample_weights

Floats = NDArray[np.float64]

THRESHOLDS = np.arange(1, 100) / 100
HEADER = ("threshold", "net_benefit", "ci_low", "ci_high", "treat_all", "treat_none", "avoided_per_100")
_Z = 1.959963984540054  # 97.5 % quantile of the standard normal distribution


@dataclass(frozen=True)
class DecisionCurve:
    """Net benefit of acting on p >= threshold, over the thresholds; every array is (T,)."""

    positive: str
    prevalence: float
    """Share of the positive class that the curve holds for."""
    thresholds: Floats
    net_benefit: Floats
    """True positives per image, less false positives at the exchange rate of the threshold."""
    low: Floats
    high: Floats
    """2.5 % and 97.5 % quantiles over resamples, point by point."""
    treat_all: Floats

    @property
    def avoided(self) -> Floats:
        """Interventions avoided per 100 images, against acting on all, at no loss of true positives."""
        odds = self.thresholds / (1 - self.thresholds)
        return np.asarray((self.net_benefit - self.treat_all) / odds * 100)

    def rows(self) -> list[tuple[float, ...]]:
        """As `HEADER`."""
        columns = (self.thresholds, self.net_benefit, self.low, self.high, self.treat_all, np.zeros(len(self.low)))
        return list(zip(*(column.tolist() for column in (*columns, self.avoided)), strict=True))


def decision_curve(
    predictions: Predictions, positive: str, *, resamples: int, seed: int, prevalence: float | None = None
) -> DecisionCurve | None:
    """Net benefit NB(t) = TP/n - FP/n t/(1-t); None when one side has no images.

    Vickers and Elkin, "Decision curve analysis", Medical Decision Making 2006, equation 1. The probabilities must be
    calibrated. With a prevalence π, TP/n becomes π Se and FP/n becomes (1-π)(1-Sp), as for case-control data. Resamples
    draw images, or whole groups where there are groups.

    Args:
        predictions: N images.
        positive: The class that is acted on.
        resamples: Of the band.
        seed: Of the resamples.
        prevalence: Where the model will be used; by default that of these images.
    """
    index = predictions.classes.index(positive)
    truth = predictions.targets == index
    if truth.all() or not truth.any():
        return None
    scores = predictions.probability_of(index)
    reached = np.searchsorted(THRESHOLDS, scores, side="right")  # thresholds up to this place call the image positive
    ones = np.ones((1, len(truth)), dtype=np.int32)
    point = _net_benefit(reached, truth, ones, prevalence)[0]
    blocks = [
        _net_benefit(reached, truth, weights, prevalence)
        for weights in resample_weights(len(truth), resamples, seed, predictions.group_codes)
    ]
    low, high = np.nanquantile(np.concatenate(blocks), [0.025, 0.975], axis=0)
    share = float(truth.mean()) if prevalence is None else prevalence
    treat_all = share - (1 - share) * THRESHOLDS / (1 - THRESHOLDS)
    return DecisionCurve(positive, share, THRESHOLDS, point, low, high, treat_all)


def _net_benefit(
    reached: NDArray[np.int64], truth: NDArray[np.bool_], weights: NDArray[np.int32], prevalence: float | None
) -> Floats:
    """(B, T) for each row of (B, N) weights; NaN where a resample lost one side and a prevalence is given."""
    tp, fp = (_called(reached[side], weights[:, side]) for side in (truth, ~truth))
    positives = weights[:, truth].sum(axis=1, dtype=np.float64)[:, None]
    negatives = weights[:, ~truth].sum(axis=1, dtype=np.float64)[:, None]
    odds = THRESHOLDS / (1 - THRESHOLDS)
    if prevalence is None:
        return np.asarray((tp - fp * odds) / (positives + negatives))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(prevalence * tp / positives - (1 - prevalence) * fp / negatives * odds)


def _called(reached: NDArray[np.int64], weights: NDArray[np.int32]) -> Floats:
    """(B, T) weight of the images called positive at each threshold."""
    counts = np.zeros((len(weights), len(THRESHOLDS) + 1))
    order = np.argsort(reached, kind="stable")
    present, starts = np.unique(reached[order], return_index=True)
    if len(present):
        counts[:, present] = np.add.reduceat(weights[:, order], starts, axis=1)
    return np.asarray(counts[:, ::-1].cumsum(axis=1)[:, ::-1][:, 1:])


@dataclass(frozen=True)
class PredictiveValues:
    """What a call is worth where the positive class has a stated share."""

    positive: str
    prevalence: float
    ppv: Estimate
    npv: Estimate

    def document(self) -> dict[str, object]:
        """As in `metrics.json`."""
        return {
            "positive": self.positive,
            "prevalence": self.prevalence,
            **{
                name: {
                    "estimate": one.estimate,
                    "ci_low": one.ci_low,
                    "ci_high": one.ci_high,
                    "ci_method": one.ci_method,
                    "undefined_reason": one.undefined_reason,
                    "ci_note": one.ci_note,
                }
                for name, one in (("ppv", self.ppv), ("npv", self.npv))
            },
        }


def predictive_values(
    positive: str, called: NDArray[np.bool_], truth: NDArray[np.bool_], prevalence: float,
    groups: NDArray[np.int64] | None = None,
) -> PredictiveValues:  # fmt: skip
    """PPV = Se π / (Se π + (1-Sp)(1-π)) and NPV = Sp (1-π) / (Sp (1-π) + (1-Se) π) with intervals on the logit scale.

    Mercaldo, Lau and Zhou, "Confidence intervals for predictive values with an emphasis to case-control studies",
    Statistics in Medicine 2007, equations 3 to 6. Where a cell is 0, one half is added to all cells for the interval.
    Images count as independent; with groups there is no interval, and the note says so.

    Args:
        positive: Name of the class.
        called: (N,) called positive.
        truth: (N,) positive in truth.
        prevalence: π, in (0, 1).
        groups: (N,) codes, when images of a group depend on each other.
    """
    tp, fn = float((called & truth).sum()), float((~called & truth).sum())
    fp, tn = float((called & ~truth).sum()), float((~called & ~truth).sum())
    if tp + fn == 0 or tn + fp == 0:
        nothing = Estimate(None, undefined_reason="only one class has images", n=len(truth))
        return PredictiveValues(positive, prevalence, nothing, nothing)
    note = None if groups is None else "no interval: images of one group are not independent"
    ppv = _odds_estimate(tp, fn, fp, tn, prevalence / (1 - prevalence), note, "never predicted")
    npv = _odds_estimate(tn, fp, fn, tp, (1 - prevalence) / prevalence, note, "all images are predicted as this class")
    return PredictiveValues(positive, prevalence, ppv, npv)


def _odds_estimate(
    hits: float, misses: float, false: float, right: float, odds: float, note: str | None, never: str
) -> Estimate:
    """The value whose odds are the prior `odds` times the likelihood ratio of a call, and its interval."""
    n = int(hits + misses + false + right)
    rate, alarm = hits / (hits + misses), false / (false + right)
    if rate + alarm == 0:
        return Estimate(None, undefined_reason=never, n=n)
    value = rate * odds / (rate * odds + alarm)
    if note is not None:
        return Estimate(value, n=n, ci_note=note)
    if min(hits, misses, false, right) == 0:
        hits, misses, false, right = (cell + 0.5 for cell in (hits, misses, false, right))
        rate, alarm = hits / (hits + misses), false / (false + right)
    centre = logit(rate * odds / (rate * odds + alarm))
    error = np.sqrt((1 - rate) / hits + (1 - alarm) / false)
    low, high = (float(expit(centre + sign * _Z * error)) for sign in (-1, 1))
    return Estimate(value, min(low, value), max(high, value), "mercaldo_logit", n=n)


def adjust_probabilities(probabilities: Floats, here: Floats, there: Floats) -> Floats:
    """(N, K) probabilities for other class shares: p'_k ∝ p_k π'_k / π_k.

    Saerens, Latinne and Decaestecker, "Adjusting the outputs of a classifier to new a priori probabilities", Neural
    Computation 2002, equation 2.4.

    Args:
        probabilities: (N, K) of a model trained with the shares `here`.
        here: (K,) above 0.
        there: (K,) where the model will be used.
    """
    weighed = probabilities * (there / here)
    return np.asarray(weighed / weighed.sum(axis=1, keepdims=True))
