"""How much better a classifier is on the images that it is sure about: risk over coverage."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evalcam_cli.evaluation.estimates import Estimate
from evalcam_cli.evaluation.intervals import percentile_interval
from evalcam_cli.evaluation.resampling import resample_weights

Floats = NDArray[np.float64]

HEADER = ("coverage", "risk", "generalised_risk", "confidence")
RISKS = (0.01, 0.02, 0.05)
_POINTS = 1000
"""Points of the curve that are written; a curve of more is thinned evenly."""


@dataclass(frozen=True)
class RiskCoverage:
    """The curve over all confidence levels, and what it comes to."""

    coverage: Floats
    """(T,) share of images with at least the confidence of the level, rising."""
    risk: Floats
    """(T,) share of errors among them."""
    confidence: Floats
    """(T,) levels, falling."""
    aurc: Estimate
    """Mean over images of the risk at their own coverage; lower is better."""
    augrc: Estimate
    """Area under the curve of the share of all images that are accepted and wrong; lower is better."""
    aurc_best: float
    """AURC of the same errors if all of them had the lowest confidence."""
    at_risk: dict[float, float | None]
    """The largest coverage at which the risk is no higher; None when there is none."""

    def rows(self) -> list[tuple[float, ...]]:
        """As `HEADER`; at most 1,000."""
        kept = np.unique(np.linspace(0, len(self.risk) - 1, min(_POINTS, len(self.risk))).round().astype(np.int64))
        columns = (self.coverage, self.risk, self.coverage * self.risk, self.confidence)
        return list(zip(*(column[kept].tolist() for column in columns), strict=True))

    def document(self) -> dict[str, object]:
        """As in `metrics.json`."""
        found: dict[str, object] = {
            name: {"estimate": one.estimate, "ci_low": one.ci_low, "ci_high": one.ci_high, "ci_method": one.ci_method}
            for name, one in (("aurc", self.aurc), ("augrc", self.augrc))
        }
        found["aurc_best"] = self.aurc_best
        found["coverage_at_risk"] = {f"{risk:g}": coverage for risk, coverage in self.at_risk.items()}
        return found


def risk_coverage(
    confidence: Floats,
    correct: NDArray[np.bool_],
    *,
    resamples: int,
    seed: int,
    groups: NDArray[np.int64] | None = None,
) -> RiskCoverage:
    """The risk–coverage curve; images of equal confidence are accepted together.

    El-Yaniv and Wiener, "On the foundations of noise-free selective classification", JMLR 2010. AURC: Geifman, Uziel
    and El-Yaniv, "Bias-reduced uncertainty estimation", 2019. AUGRC: Traub et al., "Overcoming common flaws in the
    evaluation of selective classification systems", NeurIPS 2024, equation 6, as the mean over images of the share of
    accepted errors at their coverage, less half the step of each own tie.

    Args:
        confidence: (N,).
        correct: (N,) whether the decision is right.
        resamples: Of the intervals.
        seed: Of the resamples.
        groups: (N,) codes of groups, which are drawn as wholes.
    """
    n = len(confidence)
    order = np.argsort(-confidence, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(confidence[order]) != 0, True))
    wrong = ~correct[order]
    errors = np.cumsum(wrong)[ends]
    coverage, risk = (ends + 1) / n, errors / (ends + 1)
    ones = np.ones((1, n), dtype=np.int32)
    point = _areas(wrong, ends, ones)
    drawn = [_areas(wrong, ends, weights[:, order]) for weights in resample_weights(n, resamples, seed, groups)]
    areas = []
    for place in (0, 1):
        limits = percentile_interval(
            np.concatenate([pair[place] for pair in drawn]), "bootstrap" if groups is None else "patient_bootstrap"
        )
        areas.append(Estimate(float(point[place][0]), limits.low, limits.high, limits.method, n=n, ci_note=limits.note))
    return RiskCoverage(
        coverage, risk, confidence[order][ends], areas[0], areas[1], _best(int(wrong.sum()), n),
        {wanted: _coverage_at(coverage, risk, wanted) for wanted in RISKS},
    )  # fmt: skip


def _areas(wrong: NDArray[np.bool_], ends: NDArray[np.int64], weights: NDArray[np.int32]) -> tuple[Floats, Floats]:
    """(B,) AURC and AUGRC for each row of (B, N) weights of images in falling confidence."""
    accepted = np.cumsum(weights, axis=1, dtype=np.int64)[:, ends].astype(np.float64)
    errors = np.cumsum(weights * wrong, axis=1, dtype=np.int64)[:, ends].astype(np.float64)
    total = accepted[:, -1:]
    fresh = np.diff(accepted, axis=1, prepend=0)
    risk = np.divide(errors, accepted, out=np.zeros_like(errors), where=accepted > 0)
    before = np.concatenate([np.zeros((len(errors), 1)), errors[:, :-1]], axis=1)
    aurc = (fresh * risk).sum(axis=1) / total[:, 0]
    augrc = (fresh * (before + errors) / 2).sum(axis=1) / total[
        :, 0
    ] ** 2  # the trapezoids under errors/n over coverage
    return aurc, augrc


def _best(errors: int, n: int) -> float:
    """AURC when every error has less confidence than every hit."""
    ranks = np.arange(1, n + 1)
    return float((np.maximum(ranks - (n - errors), 0) / ranks).mean())


def _coverage_at(coverage: Floats, risk: Floats, wanted: float) -> float | None:
    allowed = np.flatnonzero(risk <= wanted)
    return float(coverage[allowed[-1]]) if len(allowed) else None
