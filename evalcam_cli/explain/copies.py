"""A question put to a batch of images, and the same question put to altered copies of them."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from evalcam_cli.explain.maps import Maps, detached, full
from evalcam_cli.explain.targets import Combination, Target, compute_scores
from evalcam_cli.explain.untouched import Inputs, as_tuple


@dataclass(frozen=True)
class Attributions:
    """What each value of an image adds to each score, or how the score depends on it; detached, as in `Maps`."""

    output: Any
    """What the model returned for the images as they are; (N, K) logits of a classifier."""
    scores: Tensor
    """(N, T)"""
    values: Tensor
    """(N, T, 3, H, W): signed, channels as in the images."""
    gap: Tensor | None = None
    """(N, T): by how much the sum of the values misses what it must be; None where the method promises no sum."""
    note: str = ""
    """What a reader should know about how they were computed."""

    def maps(self) -> Maps:
        """Their sum over the channels: as much as each pixel does when its channels move together."""
        return Maps(self.output, self.scores, self.values.sum(dim=2), self.gap, self.note)


def filled(images: Tensor, baseline: float | Tensor) -> Tensor:
    """The baseline, a colour or images, for each of the (N, 3, H, W) images; in their own precision."""
    exact = baseline if isinstance(baseline, Tensor) else torch.tensor(baseline, dtype=torch.float64)
    return exact.cpu().to(images.dtype).to(images.device).expand_as(images)


@dataclass(frozen=True)
class Question:
    """What is explained, settled on the images as they are: a class predicted there stays the class in every copy."""

    model: nn.Module
    inputs: tuple[Tensor, ...]
    target: Target
    output: Any
    scores: Tensor
    """(N, T), with their graph if there is one."""
    combination: Combination | None

    @property
    def images(self) -> Tensor:
        """(N, 3, H, W)"""
        return self.inputs[0]

    def copies_per_pass(self, rows: int) -> int:
        """How many copies of all images make about so many rows; one where the output cannot be divided by rows."""
        divisible = isinstance(self.output, Tensor) and self.output.ndim > 0 and len(self.output) == len(self.images)
        return max(1, rows // len(self.images)) if divisible else 1

    def scores_of(self, copies: Tensor) -> Tensor:
        """(M, N, T) of M copies of all images, (M, N, 3, H, W), in one pass; further inputs go with each copy.

        Raises:
            ValueError: The target does not fit the output.
        """
        count, images = copies.shape[:2]
        others = [other.repeat(count, *[1] * (other.ndim - 1)) for other in self.inputs[1:]]
        # a clone: the model may write into what it is given
        output = self.model(copies.flatten(0, 1).clone(), *others)
        parts = [output] if count == 1 else output.split(images)
        return torch.stack([self._scores_of_part(part) for part in parts])

    def _scores_of_part(self, output: Any) -> Tensor:
        if self.combination is not None:
            return self.combination.scores(output)
        return compute_scores(self.target, output, len(self.images))[0]

    def answer(self, values: Tensor, note: str, gap: Tensor | None = None) -> Attributions:
        """The question with (N, T, 3, H, W) attributions."""
        scores = full(self.scores.detach()).cpu()
        return Attributions(detached(self.output), scores, full(values.detach()).cpu(), gap, note)


def ask(model: nn.Module, inputs: Inputs, target: Target, *, leaf: Tensor | None = None) -> Question:
    """Run the model once on the images as they are, within `untouched`, and settle what is explained.

    Args:
        model: Called as `model(*inputs)`.
        inputs: (N, 3, H, W) images, normalised as the model expects, on its device, and what else it takes.
        target: What is explained.
        leaf: The images as a leaf, which the graph then begins with.

    Raises:
        ValueError: The target does not fit the output.
    """
    given = as_tuple(inputs)
    images = given[0] if leaf is None else leaf
    output = model(images.clone(), *(other.clone() for other in given[1:]))
    scores, combination = compute_scores(target, output, len(images))
    return Question(model, given, target, output, scores, combination)
