"""How far probabilities and outcomes agree.

Of the top label: the confidence is the probability of the class with the highest one, an outcome is whether that class
is true. Of the positive class: the recalibration line of two-class predictions.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit, stdtrit

from evalcam_cli.evaluation.intervals import Z

Floats = NDArray[np.float64]

BINS = 15
_MAX_STEPS = 100


@dataclass(frozen=True)
class ReliabilityBins:
    """Images in bins by their confidence."""

    edges: Floats
    """(M + 1,) rising; bin b holds (edges[b], edges[b + 1]], the first one its lower edge as well."""
    counts: NDArray[np.int64]
    """(M,) images."""
    hits: NDArray[np.int64]
    """(M,) correctly classified images."""
    confidence: Floats
    """(M,) mean confidence; NaN in an empty bin."""

    @property
    def gaps(self) -> Floats:
        """(M,) |accuracy - confidence|; NaN in an empty bin."""
        accuracy = np.divide(self.hits, self.counts, out=np.full(len(self.counts), np.nan), where=self.counts > 0)
        return np.asarray(np.abs(accuracy - self.confidence))

    @property
    def ece(self) -> float:
        """Expected calibration error, Σ (n_b / n) |accuracy_b - confidence_b|, in [0, 1]; empty bins count nothing.

        Guo et al., "On Calibration of Modern Neural Networks", 2017, https://arxiv.org/abs/1706.04599, equation 3.
        """
        filled = self.counts > 0
        gaps = np.abs(self.hits[filled] - self.confidence[filled] * self.counts[filled])
        return float(gaps.sum() / self.counts.sum())

    @property
    def mce(self) -> float:
        """Maximum calibration error, the largest gap of a bin, in [0, 1]; Guo et al. 2017, equation 5."""
        return float(np.nanmax(self.gaps))


def reliability_bins(confidence: Floats, correct: NDArray[np.bool_], bins: int = BINS) -> ReliabilityBins:
    """Sort (N,) confidences into bins of equal width, closed on the right."""
    edges = np.linspace(0, 1, bins + 1)
    places = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    return _binned(edges, places, confidence, correct)


def equal_mass_bins(confidence: Floats, correct: NDArray[np.bool_], bins: int = BINS) -> ReliabilityBins:
    """Sort (N,) confidences into bins that hold equally many images, or one more; equal confidences stay together.

    Nixon et al., "Measuring Calibration in Deep Learning", 2019, section 4. With fewer images than bins, one each.
    """
    ascending = np.sort(confidence)
    bins = min(bins, len(ascending))
    last = (np.arange(1, bins + 1) * len(ascending)) // bins - 1
    edges = np.concatenate([[0.0], ascending[last]])
    edges[-1] = 1.0
    places = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    return _binned(edges, places, confidence, correct)


def _binned(
    edges: Floats, places: NDArray[np.int64], confidence: Floats, correct: NDArray[np.bool_]
) -> ReliabilityBins:
    bins = len(edges) - 1
    counts = np.bincount(places, minlength=bins)
    hits = np.bincount(places[correct], minlength=bins)
    sums = np.bincount(places, weights=confidence, minlength=bins)
    means = np.divide(sums, counts, out=np.full(bins, np.nan), where=counts > 0)
    return ReliabilityBins(edges, counts.astype(np.int64), hits.astype(np.int64), means)


@dataclass(frozen=True)
class CalibrationNull:
    """What ECE would be if the model were perfectly calibrated."""

    mean: float
    """Expected ECE of these confidences when each image is right with the probability stated."""
    low: float
    high: float
    """Its 2.5 % and 97.5 % quantiles."""
    p_value: float
    """Share of such outcomes with an ECE at least as high as the one found, (1 + count) / (1 + resamples)."""


def calibration_null(confidence: Floats, ece: float, *, resamples: int, seed: int, bins: int = BINS) -> CalibrationNull:
    """Redraw the outcomes of (N,) images from their confidences and measure ECE each time.

    Consistency resampling: Bröcker and Smith, "Increasing the Reliability of Reliability Diagrams", 2007; as a test
    Vaicenavicius et al., "Evaluating model calibration in classification", 2019, section 5. Images count as
    independent.
    """
    order = np.argsort(confidence, kind="stable")
    ascending = confidence[order]
    drawn = reliability_bins(ascending, np.zeros(len(ascending), dtype=bool), bins)
    filled = np.flatnonzero(drawn.counts)
    starts = np.concatenate([[0], np.cumsum(drawn.counts[filled])[:-1]])
    expected = drawn.confidence[filled] * drawn.counts[filled]
    generator = np.random.default_rng(np.random.SeedSequence([seed, 1]))  # a stream of its own
    values = np.empty(resamples)
    for index in range(resamples):
        right = generator.random(len(ascending)) < ascending
        hits = np.add.reduceat(right, starts, dtype=np.int64)
        values[index] = np.abs(hits - expected).sum() / len(ascending)
    low, high = np.quantile(values, [0.025, 0.975])
    reached = int((values >= ece - 1e-12).sum())
    return CalibrationNull(float(values.mean()), float(low), float(high), (1 + reached) / (1 + resamples))


@dataclass(frozen=True)
class Recalibration:
    """How the log odds of the positive class would have to be changed, with standard errors."""

    slope: float
    slope_error: float
    """1 is ideal; below 1 the probabilities are too extreme."""
    intercept: float
    intercept_error: float
    """With the slope held at 1; 0 is ideal, below 0 the probabilities are too high on the whole."""
    quantile: float = Z
    """Standard errors on either side in a 95 % interval: the normal one; with G groups Student's t on G - 1."""

    def limits(self, name: str) -> tuple[float, float]:
        """Wald's 95 % interval of `slope` or `intercept`."""
        value, error = getattr(self, name), getattr(self, f"{name}_error")
        return value - self.quantile * error, value + self.quantile * error


def recalibration(
    probability: Floats, positive: NDArray[np.bool_], groups: NDArray[np.int64] | None = None
) -> Recalibration | str:
    """Calibration slope and calibration-in-the-large of two classes, or the reason why there are none.

    Cox, "Two further applications of a model for binary regression", 1958; Van Calster et al., "Calibration: the
    Achilles heel of predictive analytics", 2019. The slope b is that of the logistic regression logit P(y) = a + b x on
    x = logit p; the intercept that of logit P(y) = a + x. Standard errors come from the information, or with groups
    (patients) from the sandwich estimator over groups with the factor G / (G - 1), used with Student's t on G - 1
    degrees of freedom: with the normal quantile intervals of 5 groups cover 87 %.

    Args:
        probability: (N,) of the positive class.
        positive: (N,) whether it is the true one.
        groups: (N,) group of each image, numbers from 0.
    """
    if positive.all() or not positive.any():
        return "only one class has images"
    if ((probability <= 0) | (probability >= 1)).any():
        return "a probability is exactly 0 or 1, so its log odds are infinite"
    x = logit(probability)
    if np.ptp(x) == 0:
        return "all images have the same probability"
    inside, outside = x[positive], x[~positive]
    if inside.min() >= outside.max() or inside.max() <= outside.min():
        return "the classes are perfectly separated, so the slope is infinite"
    sloped = _logistic(np.stack([np.ones_like(x), x], axis=1), np.zeros_like(x), positive, groups)
    shifted = _logistic(np.ones((len(x), 1)), x, positive, groups)
    if sloped is None or shifted is None:
        return "the logistic regression does not converge"
    quantile = Z if groups is None else float(stdtrit(max(int(groups.max()), 1), 0.975))
    return Recalibration(sloped[0][1], sloped[1][1], shifted[0][0], shifted[1][0], quantile)


def _logistic(
    design: Floats, offset: Floats, positive: NDArray[np.bool_], groups: NDArray[np.int64] | None
) -> tuple[Floats, Floats] | None:
    """Coefficients and standard errors by Newton's method; None when it does not converge."""
    found = np.zeros(design.shape[1])
    if design.shape[1] > 1:
        found[1] = 1.0  # where a calibrated model ends
    gradient, information = _score(design, offset, positive, found)
    for _ in range(_MAX_STEPS):
        step = _solve(information, gradient)
        if step is None:
            return None
        size = 1.0
        before = _log_likelihood(design, offset, positive, found)
        while size > 1e-6 and _log_likelihood(design, offset, positive, found + size * step) < before - 1e-12:
            size /= 2
        found = found + size * step
        gradient, information = _score(design, offset, positive, found)
        if np.abs(step).max() < 1e-10 * max(1.0, np.abs(found).max()):
            break
    else:
        return None
    inverse = np.linalg.inv(information)
    if groups is None:
        return found, np.sqrt(np.diag(inverse))
    residual = positive - expit(np.einsum("nd,d->n", design, found) + offset)
    sums = np.stack([np.bincount(groups, weights=column * residual) for column in design.T], axis=1)
    meat = np.einsum("gd,ge->de", sums, sums) * len(sums) / max(len(sums) - 1, 1)
    return found, np.sqrt(np.diag(inverse @ meat @ inverse))


def _score(design: Floats, offset: Floats, positive: NDArray[np.bool_], coefficients: Floats) -> tuple[Floats, Floats]:
    """Gradient and information of the log likelihood."""
    fitted = expit(np.einsum("nd,d->n", design, coefficients) + offset)
    gradient = np.einsum("nd,n->d", design, positive - fitted)
    return gradient, np.einsum("nd,ne,n->de", design, design, fitted * (1 - fitted))


def _log_likelihood(design: Floats, offset: Floats, positive: NDArray[np.bool_], coefficients: Floats) -> float:
    odds = np.einsum("nd,d->n", design, coefficients) + offset
    return float((np.where(positive, odds, 0.0) - np.logaddexp(0.0, odds)).sum())


def _solve(information: Floats, gradient: Floats) -> Floats | None:
    try:
        return np.asarray(np.linalg.solve(information, gradient))
    except np.linalg.LinAlgError:
        return None
