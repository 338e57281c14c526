"""Predictions of which the probabilities are known, not the logits."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray

from evalcam_cli.evaluation.predictions import Predictions

LOGITS = "logits"
LOG_PROBABILITIES = "log_probabilities"
"""What `metrics.json` says under `scores` of the numbers in `logits.npy`."""


@dataclass(frozen=True, kw_only=True)
class StatedProbabilities(Predictions):
    """Predictions that some file states as probabilities.

    They are used as they are. A softmax over their logarithms would change last bits, and so break ties between images
    that have the same score. `logits` holds their logarithms, with minus infinity for a probability of 0.
    """

    stated: NDArray[np.float64]
    """(N, K) in [0, 1], rows sum to 1 within rounding."""

    def take(self, indices: Sequence[int] | NDArray[np.int64]) -> Self:
        """The predictions of some of the images, in the order named."""
        chosen = np.asarray(indices, dtype=np.int64)
        return replace(super().take(chosen), stated=self.stated[chosen])

    def log_rows(self, start: int, stop: int) -> NDArray[np.float64]:
        """(stop - start, K), float64; minus infinity for a probability of 0."""
        with np.errstate(divide="ignore"):
            return np.asarray(np.log(self.stated[start:stop]))

    def rows(self, start: int, stop: int) -> NDArray[np.float64]:
        """(stop - start, K), float64, as stated."""
        return self.stated[start:stop]

    def scores(self, start: int, stop: int) -> NDArray[np.float64]:
        """(stop - start, K), float64, as stated: logarithms would make equals of neighbours."""
        return self.stated[start:stop]

    def columns(self, start: int, stop: int) -> NDArray[np.float64]:
        """(stop - start, N), float64, as stated."""
        return np.ascontiguousarray(self.stated.T[start:stop])

    @cached_property
    def confidence(self) -> NDArray[np.float64]:
        """(N,) largest probability of each image, as stated."""
        return np.asarray(self.stated.max(axis=1))

    @cached_property
    def argmax(self) -> NDArray[np.int64]:
        """(N,) index of the largest probability; the lowest index of equals."""
        return np.asarray(self.stated.argmax(axis=1), dtype=np.int64)
