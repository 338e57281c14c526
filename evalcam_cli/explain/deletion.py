"""Deletion and insertion: the probability while the most relevant pixels go, or come, first."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from evalcam_cli.explain.perturbing import Baseline, Floats, Variant, ask, make_baseline, rank_pixels


@dataclass(frozen=True)
class Curves:
    """Probability of the class by the fraction of pixels deleted, or inserted."""

    fractions: Floats
    """(P,) from 0 to 1."""
    deletion: Floats
    """(N, P), from the image to the baseline."""
    insertion: Floats
    """(N, P), from the baseline to the image."""

    @property
    def deletion_auc(self) -> Floats:
        """(N,) areas under the deletion curves, by the trapezoid rule. Lower is better."""
        return _area(self.deletion, self.fractions)

    @property
    def insertion_auc(self) -> Floats:
        """(N,) areas under the insertion curves, by the trapezoid rule. Higher is better."""
        return _area(self.insertion, self.fractions)


def _area(values: Floats, fractions: Floats) -> Floats:
    return np.asarray(((values[:, 1:] + values[:, :-1]) / 2) @ np.diff(fractions))


def delete_and_insert(
    model: nn.Module,
    images: Tensor,
    class_indices: Tensor,
    maps: Tensor,
    *,
    steps: int = 20,
    deletion_baseline: Baseline = "zero",
    insertion_baseline: Baseline = "blur",
    batch_size: int = 32,
) -> Curves:
    """The probability of the class while pixels are replaced, the most relevant first.

    Petsiuk et al., "RISE", BMVC 2018, https://arxiv.org/abs/1806.07421, section 4.1 and algorithm 1: deletion puts the
    mean colour in the place of the most relevant pixels, insertion puts the pixels of the image, the most relevant
    first, onto the blurred image. All channels of a pixel change together. Each step changes the same number of pixels,
    the last one what is left. Pixels of equal relevance follow each other as they are read.

    Args:
        model: From (N, 3, H, W) images to (N, K) logits.
        images: (N, 3, H, W), normalised as the model expects.
        class_indices: (N,)
        maps: (N, h, w) of any resolution, finite; only the order of their values matters.
        steps: Steps from all to nothing, at most; P is one more.
        deletion_baseline: What stands in the place of deleted pixels.
        insertion_baseline: What pixels are inserted into.
        batch_size: Images per forward pass; decides nothing but speed and memory.
    """
    height, width = images.shape[2:]
    ranks = rank_pixels(maps.to(images.device), (height, width)).view(len(images), 1, height, width)
    pixels = height * width
    counts = [*range(0, pixels, -(-pixels // steps)), pixels]
    hidden, base = make_baseline(images, deletion_baseline), make_baseline(images, insertion_baseline)

    def variants() -> Iterator[Variant]:
        for image, gone, behind, places, index in zip(images, hidden, base, ranks, class_indices.tolist(), strict=True):
            yield image, index
            for count in counts[1:]:
                yield torch.where(places < count, gone, image), index
            for count in counts[:-1]:
                yield torch.where(places < count, image, behind), index

    found = ask(model, variants(), batch_size=batch_size).reshape(len(images), 2 * len(counts) - 1)
    insertion = np.concatenate([found[:, len(counts) :], found[:, :1]], axis=1)
    return Curves(np.array(counts) / pixels, found[:, : len(counts)], insertion)
