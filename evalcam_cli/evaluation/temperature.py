"""Temperature scaling: one number, fitted on validation images, that makes probabilities mean what they say."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from evalcam_cli.evaluation.calibration import reliability_bins
from evalcam_cli.evaluation.predictions import Predictions, row_blocks

LOWEST, HIGHEST = 0.05, 20.0
"""Temperatures outside are not believed: the images cannot tell them."""
MIN_IMAGES = 50
"""Validation images that a temperature needs."""


@dataclass(frozen=True)
class TemperatureFit:
    """The temperature that fits, or the reason why none does."""

    temperature: float | None
    reason: str | None = None


@dataclass(frozen=True)
class CalibrationQuality:
    """How far probabilities and outcomes agree."""

    log_loss: float
    """Mean of -log p of the true class, in nats."""
    ece: float
    """Of the most probable class, over 15 bins of equal width."""


def is_temperature(value: object) -> bool:
    """Whether a value from a file is a temperature that could have been fitted."""
    return isinstance(value, int | float) and not isinstance(value, bool) and LOWEST <= value <= HIGHEST


def fit_temperature(predictions: Predictions) -> TemperatureFit:
    """The T > 0 that minimises the log loss of softmax(logits / T), whatever temperature the predictions have.

    Guo et al., "On Calibration of Modern Neural Networks", 2017, https://arxiv.org/abs/1706.04599, section 4.2. The
    loss is convex in 1/T, and its derivative there, Σ over images of Σ_k p_k z_k - z_true, has one root at most; it is
    found to 12 digits. Where it lies beyond 0.05 or 20 there is no temperature: every image is right, say, so that the
    loss only falls as T goes to 0.

    Args:
        predictions: Of validation images: no others may decide about it.
    """
    steepest, flattest = _slope(predictions, 1 / LOWEST), _slope(predictions, 1 / HIGHEST)
    if not steepest > 0:
        right = bool((predictions.argmax == predictions.targets).all())
        cause = "all of them are classified right" if right else "the logits are too close to each other"
        return TemperatureFit(None, f"the validation images want a temperature of {LOWEST:g} or lower: {cause}")
    if not flattest < 0:
        return TemperatureFit(
            None,
            f"the validation images want a temperature of {HIGHEST:g} or higher: "
            "the probabilities are no better than chance",
        )
    logarithm = brentq(
        lambda log_t: _slope(predictions, float(np.exp(-log_t))),
        np.log(LOWEST),
        np.log(HIGHEST),
        xtol=1e-13,
        rtol=1e-14,
    )
    return TemperatureFit(float(np.exp(logarithm)))


def _slope(predictions: Predictions, inverse: float) -> float:
    """The derivative of the mean log loss by 1/T; rising in 1/T."""
    total = 0.0
    for start, stop in row_blocks(*predictions.logits.shape):
        gaps = _gaps(predictions, start, stop)
        scaled = gaps * inverse
        scaled -= scaled.max(axis=1, keepdims=True)
        np.exp(scaled, out=scaled)
        total += float(((scaled * gaps).sum(axis=1) / scaled.sum(axis=1)).sum())
    return total / len(predictions.targets)


def _gaps(predictions: Predictions, start: int, stop: int) -> NDArray[np.float64]:
    """(stop - start, K) logits minus the true class's."""
    logits = predictions.logits[start:stop].astype(np.float64)
    logits -= np.take_along_axis(logits, predictions.targets[start:stop, None], axis=1)
    return logits


def calibration_quality(predictions: Predictions, temperature: float | None) -> CalibrationQuality:
    """Log loss and ECE at a temperature; None means 1."""
    scaled = replace(predictions, temperature=temperature or 1.0, operating_point=None)
    losses = np.empty(len(scaled.targets))
    for start, stop in row_blocks(*scaled.logits.shape):
        rows = scaled.log_rows(start, stop)
        losses[start:stop] = -np.take_along_axis(rows, scaled.targets[start:stop, None], axis=1)[:, 0]
    bins = reliability_bins(scaled.confidence, scaled.argmax == scaled.targets)
    return CalibrationQuality(float(losses.mean()), bins.ece)
