"""What is explained: one class, what speaks against it, one class against another, or any scalar of the output."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

ClassIndices = Tensor | Sequence[Sequence[int]]
"""(N, T) integers from 0 to K - 1: the classes of T scores in each of N images."""


@dataclass(frozen=True)
class Combination:
    """T scores per image, each a weighted sum of logits; where the head is linear its maps have a closed form."""

    terms: tuple[tuple[float, Tensor], ...]
    """Factor and (N, T) int64 class indices of each term."""

    def scores(self, logits: Tensor) -> Tensor:
        """(N, T) of (N, K) logits."""
        return sum(  # type: ignore[return-value]  # of at least one term
            factor * logits.gather(1, indices.to(logits.device)) for factor, indices in self.terms
        )

    def slopes(self, weight: Tensor) -> Tensor:
        """(N, T, C) derivatives of the scores by the features of a linear head with a (K, C) weight."""
        return sum(factor * weight[indices.to(weight.device)] for factor, indices in self.terms)  # type: ignore[return-value]

    def negated(self) -> "Combination":
        """Minus the scores: what would have to go for the class to be given up (Grad-CAM paper, section 3.3)."""
        return replace(self, terms=tuple((-factor, indices) for factor, indices in self.terms))

    def against(self, other: "Combination") -> "Combination":
        """These scores minus the other's, of equal shape: what speaks for the one and not for the other."""
        return Combination((*self.terms, *other.negated().terms))


Target = Callable[[Any], Combination | Tensor]
"""From the model's output for N images to what is explained: a `Combination`, or (N, T) scalars with their graph."""


def of_classes(indices: ClassIndices) -> Target:
    """The logits of these classes.

    Args:
        indices: (N, T), which may differ from image to image.
    """
    return lambda output: class_scores(indices, output)


def class_scores(indices: ClassIndices, logits: Any) -> Combination:
    """The logits of these classes as a `Combination`.

    Raises:
        ValueError: The indices do not fit the (N, K) logits.
    """
    require_logits(logits)
    return Combination(((1.0, _checked_indices(indices, logits)),))


def require_logits(logits: Any) -> None:
    """Raise ValueError for what is not (N, K) logits."""
    if not (isinstance(logits, Tensor) and logits.ndim == 2):
        raise ValueError(f"the model returned {described(logits)} instead of (N, K) logits")


def _checked_indices(class_indices: ClassIndices, logits: Tensor) -> Tensor:
    """As (N, T) int64 on the CPU."""
    indices = torch.as_tensor(class_indices).cpu()
    images, classes = logits.shape
    if indices.ndim != 2 or len(indices) != images or indices.shape[1] == 0:
        raise ValueError(f"class_indices have shape {tuple(indices.shape)}; expected ({images}, at least 1)")
    if indices.is_floating_point() or indices.is_complex() or indices.dtype == torch.bool:
        raise ValueError(f"class_indices are {indices.dtype}, not integers")
    if indices.numel() and not 0 <= int(indices.min()) <= int(indices.max()) < classes:
        raise ValueError(
            f"class_indices reach from {int(indices.min())} to {int(indices.max())}; there are {classes} classes"
        )
    # chosen in inference mode, only a copy can take part in a graph
    return indices.long().clone() if indices.is_inference() else indices.long()


def compute_scores(target: Target, output: Any, images: int) -> tuple[Tensor, Combination | None]:
    """(N, T) scores of the output, and the combination of logits that they are, if they are one.

    Raises:
        ValueError: The target returned something else, or not one row per image.
    """
    found = target(output)
    combination = found if isinstance(found, Combination) else None
    scores = found.scores(output) if isinstance(found, Combination) else found
    if not (isinstance(scores, Tensor) and scores.is_floating_point() and scores.ndim == 2):
        raise ValueError(f"the target returned {described(scores)} instead of (N, T) floating-point scores")
    if len(scores) != images or scores.shape[1] == 0:
        raise ValueError(f"the target returned scores of shape {tuple(scores.shape)} for {images} images")
    return scores, combination


def described(value: object) -> str:
    """A value in a message."""
    return f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
