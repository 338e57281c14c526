"""How far confidence and accuracy agree."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ReliabilityBins:
    """Images in bins of equal width by their confidence, the probability of the predicted class."""

    edges: Floats
    """(M + 1,) from 0 to 1; bin b holds (edges[b], edges[b + 1]], the first one 0 as well."""
    counts: NDArray[np.int64]
    """(M,) images."""
    hits: NDArray[np.int64]
    """(M,) correctly classified images."""
    confidence: Floats
    """(M,) mean confidence; NaN in an empty bin."""

    @property
    def ece(self) -> float:
        """Expected calibration error, Σ (n_b / n) |accuracy_b - confidence_b|, in [0, 1]; empty bins count nothing.

        Guo et al., "On Calibration of Modern Neural Networks", 2017, https://arxiv.org/abs/1706.04599, equation 3.
        """
        filled = self.counts > 0
        gaps = np.abs(self.hits[filled] - self.confidence[filled] * self.counts[filled])
        return float(gaps.sum() / self.counts.sum())


def reliability_bins(confidence: Floats, correct: NDArray[np.bool_], bins: int = 15) -> ReliabilityBins:
    """Sort (N,) confidences into bins closed on the right."""
    edges = np.linspace(0, 1, bins + 1)
    places = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    counts = np.bincount(places, minlength=bins)
    hits = np.bincount(places[correct], minlength=bins)
    sums = np.bincount(places, weights=confidence, minlength=bins)
    means = np.divide(sums, counts, out=np.full(bins, np.nan), where=counts > 0)
    return ReliabilityBins(edges, counts.astype(np.int64), hits.astype(np.int64), means)
