"""What a classifier said about a set of images: the border between torch and numpy."""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax


@dataclass(frozen=True)
class Predictions:
    """Logits and truth of N images for K classes.

    All metrics are computed from here, over all N images at once, in float64.
    """

    classes: tuple[str, ...]
    """K names in output order."""
    logits: NDArray[np.float32]
    """(N, K), raw, before softmax and temperature. Logarithms of probabilities serve as well."""
    targets: NDArray[np.int64]
    """(N,) index of the true class."""
    paths: tuple[str, ...]
    """(N,) relative to the data root."""
    subsets: tuple[str, ...] = ()
    """(N,) the set each image was taken from; empty when unknown."""
    groups: tuple[str, ...] = ()
    """(N,) group (patient) of each image; empty when unknown."""
    extra_columns: tuple[str, ...] = ()
    extra: tuple[tuple[str, ...], ...] = field(default=())
    """(N,) rows of the manifest's further columns."""

    @cached_property
    def log_probabilities(self) -> NDArray[np.float64]:
        """(N, K), float64."""
        return np.asarray(log_softmax(self.logits.astype(np.float64), axis=1))

    @cached_property
    def probabilities(self) -> NDArray[np.float64]:
        """(N, K), float64, rows sum to 1."""
        return np.exp(self.log_probabilities)

    @cached_property
    def predicted(self) -> NDArray[np.int64]:
        """(N,) index of the largest logit; the lowest index of equals."""
        return np.asarray(self.logits.argmax(axis=1), dtype=np.int64)
