"""What happens when the classifier may abstain: risk against coverage, accepting the surest images first."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evalcam_cli.evaluation.curves import thinned
from evalcam_cli.evaluation.estimates import Estimate, Interval
from evalcam_cli.evaluation.intervals import resampled_interval
from evalcam_cli.evaluation.predictions import Predictions
from evalcam_cli.evaluation.ranking import tie_ends
from evalcam_cli.evaluation.resampling import resample_weights

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

RISKS = (0.01, 0.02, 0.05)
HEADER = ("confidence", "accepted", "coverage", "risk", "generalised_risk")


@dataclass(frozen=True)
class RiskCoverage:
    """Errors among the images that are accepted when the surest are accepted first."""

    n: int
    errors: int
    confidence: Floats
    """(S,) falling: the image is accepted from here on; images of equal confidence are accepted together."""
    accepted: Ints
    """(S,) images accepted, rising to n."""
    wrong: Ints
    """(S,) of these, images decided wrongly."""
    aurc: Estimate
    """Area under risk over coverage: the mean of the risk that each image's confidence gives as a threshold."""
    augrc: Estimate
    """Area under generalised risk (accepted and wrong) over coverage."""
    aurc_optimal: float
    """AURC if every wrong image were less sure than every right one."""
    coverage_at_risk: dict[float, float]
    """By risk, the largest share of images that can be accepted with no more; 0 when not even the surest can."""

    @property
    def coverage(self) -> Floats:
        """(S,) share of the images accepted."""
        return np.asarray(self.accepted / self.n)

    @property
    def risk(self) -> Floats:
        """(S,) share of the accepted images that are wrong."""
        return np.asarray(self.wrong / self.accepted)

    @property
    def full_risk(self) -> float:
        """Share of all images that are wrong; also the AURC that random confidences have on average."""
        return self.errors / self.n

    @property
    def excess_aurc(self) -> float | None:
        """AURC less the optimal one: Geifman, Uziel and El-Yaniv, "Bias-reduced uncertainty estimation", ICLR 2019."""
        return None if self.aurc.estimate is None else max(self.aurc.estimate - self.aurc_optimal, 0.0)

    @property
    def augrc_optimal(self) -> float:
        """r²/2 for a risk r at full coverage; random confidences have r/2."""
        return self.full_risk**2 / 2

    def document(self) -> dict[str, object]:
        """Plain values for JSON; the curve stands in the CSV file."""
        return {
            "n": self.n,
            "risk_at_full_coverage": self.full_risk,
            "aurc": self.aurc.document(),
            "aurc_optimal": self.aurc_optimal,
            "aurc_random": self.full_risk,
            "excess_aurc": self.excess_aurc,
            "augrc": self.augrc.document(),
            "augrc_optimal": self.augrc_optimal,
            "augrc_random": self.full_risk / 2,
            "coverage_at_risk": {f"{risk:g}": share for risk, share in self.coverage_at_risk.items()},
        }

    def rows(self, limit: int | None = 1000) -> Iterator[tuple[object, ...]]:
        """A row per confidence, with the columns of `HEADER`; at most so many, evenly spread, first and last kept."""
        count = len(self.accepted)
        for place in thinned(count, limit or count).tolist():
            accepted, wrong = int(self.accepted[place]), int(self.wrong[place])
            yield (float(self.confidence[place]), accepted, accepted / self.n, wrong / accepted, wrong / self.n)


def risk_coverage(predictions: Predictions, *, bootstrap: int | None = None, seed: int = 0) -> RiskCoverage:
    """The risk-coverage curve of the decisions made, and the areas under it; lower is better.

    El-Yaniv and Wiener, "On the foundations of noise-free selective classification", JMLR 2010. With c(t) the share of
    images with confidence ≥ t and r(t) the share of errors among them, AURC is the mean of r at the confidences of all
    n images (Geifman and El-Yaniv, "Selective classification for deep neural networks", NeurIPS 2017). It gives the
    few surest images most of the weight. AUGRC is the integral of P(wrong and accepted) over coverage, straight lines
    between the confidences (Traub et al., "Overcoming common flaws in the evaluation of selective classification
    systems", NeurIPS 2024): the mean risk of silent errors, equal to r(1-r)(1-A) + r²/2 with A the AUC of the
    confidence for being right. Intervals: percentiles of resamples of images, or of patients.

    Args:
        predictions: N images.
        bootstrap: Resamples; None: no intervals.
        seed: Of the resamples, which are those of the metrics with the same seed.

    Raises:
        ValueError: There are no images.
    """
    n = len(predictions.targets)
    if not n:
        raise ValueError("there are no images")
    confidence = decision_confidence(predictions)
    order = np.argsort(-confidence, kind="stable")
    wrong = (predictions.predicted != predictions.targets)[order]
    steps = tie_ends(confidence[order])
    accepted, errors = steps + 1, np.cumsum(wrong)[steps]
    aurc, augrc = _areas(np.ones((1, n), dtype=np.int32), wrong, steps)
    intervals = (Interval(), Interval())
    if bootstrap is not None:
        intervals = _intervals(predictions, order, wrong, steps, bootstrap, seed)
    estimates = [
        Estimate(float(value[0]), one.low, one.high, one.method, None, n, one.note)
        for value, one in zip((aurc, augrc), intervals, strict=True)
    ]
    total = int(wrong.sum())
    right = n - total
    late = np.arange(right + 1, n + 1)
    return RiskCoverage(
        n=n,
        errors=total,
        confidence=confidence[order][steps],
        accepted=accepted.astype(np.int64),
        wrong=errors.astype(np.int64),
        aurc=estimates[0],
        augrc=estimates[1],
        aurc_optimal=float(((late - right) / late).sum() / n),
        coverage_at_risk={risk: _largest_coverage(accepted, errors, risk) for risk in RISKS},
    )


def decision_confidence(predictions: Predictions) -> Floats:
    """(N,) how sure each decision is, from 0 to 1: the largest probability.

    With two classes and an operating point at t the decision is p ≥ t, so the probability of the class decided for is
    that at a prevalence which moves t to 1/2: p(1-t) / (p(1-t) + (1-p)t), or one less it, whichever is larger.
    """
    point = predictions.operating_point
    if point is None or len(predictions.classes) != 2:
        return predictions.confidence
    p, t = predictions.probability_of(predictions.classes.index(point.positive)), point.threshold
    above, below = p * (1 - t), (1 - p) * t
    total = above + below
    moved = np.divide(above, total, out=np.full(len(p), 0.5), where=total > 0)  # 0/0: p = t = 1, on the threshold
    return np.asarray(np.maximum(moved, 1 - moved))


def _largest_coverage(accepted: Ints, errors: Ints, risk: float) -> float:
    allowed = np.flatnonzero(errors <= risk * accepted * (1 + 1e-12))
    return float(accepted[allowed[-1]] / accepted[-1]) if len(allowed) else 0.0


def _areas(weights: NDArray[np.int32], wrong: Bools, steps: Ints) -> tuple[Floats, Floats]:
    """(B,) AURC and AUGRC for (B, N) weights of the images in falling order of confidence."""
    starts = np.concatenate([[0], steps[:-1] + 1])
    images = np.add.reduceat(weights, starts, axis=1, dtype=np.int64)
    errors = np.add.reduceat(weights * wrong, starts, axis=1, dtype=np.int64)
    total = images.sum(axis=1)
    accepted, failed = np.cumsum(images, axis=1), np.cumsum(errors, axis=1)
    risk = failed / np.maximum(accepted, 1)  # a step that no resampled image has reached weighs nothing
    twice = images * (2 * failed - errors)  # whole numbers: a trapezoid from the errors before to those after
    return np.einsum("bs,bs->b", images, risk) / total, twice.sum(axis=1) / (2.0 * total.astype(np.float64) ** 2)


def _intervals(
    predictions: Predictions, order: Ints, wrong: Bools, steps: Ints, resamples: int, seed: int
) -> tuple[Interval, Interval]:
    groups = predictions.group_codes
    blocks = [_areas(w[:, order], wrong, steps) for w in resample_weights(len(order), resamples, seed, groups)]
    aurc, augrc = (
        resampled_interval(
            np.concatenate([block[part] for block in blocks]), predictions.units, clustered=groups is not None
        )
        for part in (0, 1)
    )
    return aurc, augrc
