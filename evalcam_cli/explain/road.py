"""ROAD: remove pixels by painting over them from around, so that neither their values nor their outline remain.

Rong et al., "A Consistent and Efficient Evaluation Strategy for Attribution Methods", ICML 2022,
https://arxiv.org/abs/2202.00449.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import splu
from torch import Tensor, nn

from evalcam_cli.explain.perturbing import Floats, Variant, ask, rank_pixels

PERCENTILES = (10, 20, 30, 40, 50, 60, 70, 80, 90)
NOISE = 0.01
"""Standard deviation of the noise on painted pixels, in units of the normalised image, as in the authors' code."""

_DIRECT, _DIAGONAL = 1 / 6, 1 / 12  # weights of the 4 and 4 neighbours: section 4.2 of the paper


@dataclass(frozen=True)
class Road:
    """Changes of the probability of the class, after minus before, in (N, P) for P percentiles."""

    most_relevant: Floats
    """The most relevant pixels removed (MoRF). Lower is better."""
    least_relevant: Floats
    """The least relevant pixels removed (LeRF). Higher is better."""

    @property
    def combined(self) -> Floats:
        """(N,) (LeRF - MoRF) / 2, averaged over the percentiles, within -1 and 1.

        Higher is better; about 0 for a map whose order means nothing.
        """
        return np.asarray((self.least_relevant - self.most_relevant).mean(axis=1) / 2)


def road(
    model: nn.Module,
    images: Tensor,
    class_indices: Tensor,
    maps: Tensor,
    *,
    percentiles: Sequence[int] = PERCENTILES,
    noise: Tensor | None = None,
    batch_size: int = 32,
) -> Road:
    """The change of the probability when the pixels above each percentile of the map are painted over.

    The q-th percentile keeps q % of the pixels. The least relevant pixels are removed in the reverse order, equally
    many. Pixels of equal relevance are removed as they are read (MoRF) and in the reverse order (LeRF), so their number
    never depends on ties.

    Args:
        model: From (N, 3, H, W) images to (N, K) logits.
        images: (N, 3, H, W), normalised as the model expects.
        class_indices: (N,)
        maps: (N, h, w) of any resolution, finite; only the order of their values matters.
        percentiles: Whole numbers within 0 and 100, exclusive.
        noise: (N, 3, H, W) that is added to painted pixels; None for none.
        batch_size: Images per forward pass; decides nothing but speed and memory.
    """
    height, width = images.shape[2:]
    places = rank_pixels(maps, (height, width)).cpu().numpy()
    pixels = height * width
    # the values from a percentile up, where it lies between two values: those after the (n - 1) q / 100-th
    counts = [pixels - -(-(pixels - 1) * percentile // 100) for percentile in percentiles]

    def variants() -> Iterator[Variant]:
        for number, (image, index) in enumerate(zip(images, class_indices.tolist(), strict=True)):
            added = None if noise is None else noise[number]
            yield image, index
            for count in counts:
                yield impute(image, places[number] < count, added), index
                yield impute(image, places[number] >= pixels - count, added), index

    found = ask(model, variants(), batch_size=batch_size).reshape(len(images), -1)
    changes = found[:, 1:] - found[:, :1]
    return Road(changes[:, 0::2], changes[:, 1::2])


def impute(image: Tensor, missing: NDArray[np.bool_], noise: Tensor | None = None) -> Tensor:
    """The image with each missing pixel at the weighted mean of its neighbours, all at once.

    Section 4.2 of the paper, "noisy linear imputation": a sparse linear system with one equation per missing pixel, the
    same for all channels. The weights are 1/6 for the 4 direct and 1/12 for the 4 diagonal neighbours, divided by their
    sum at the border.

    Args:
        image: (C, H, W)
        missing: (H * W,), row by row; not all of them.
        noise: (C, H, W) that is added to the missing pixels; None for none.
    """
    channels, height, width = image.shape
    weights, balance = _grid(height, width)
    wanted, known = np.flatnonzero(missing), np.flatnonzero(~missing)
    if not len(wanted):
        return image
    if not len(known):
        raise ValueError("all pixels are missing")
    values = image.reshape(channels, -1).cpu().double().numpy().T  # (H * W, C)
    rows = weights[wanted]
    system = (sparse.diags(balance[wanted]) - rows[:, wanted]).tocsc()
    # symmetric and positive definite: no pivots are needed, and the order of least fill is found on the pattern itself
    factors = splu(system, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
    painted = torch.from_numpy(factors.solve(rows[:, known] @ values[known])).T.to(image)
    filled = image.reshape(channels, -1).clone()
    where = torch.from_numpy(wanted).to(image.device)
    filled[:, where] = painted if noise is None else painted + noise.reshape(channels, -1).to(image)[:, where]
    return filled.view_as(image)


@lru_cache(maxsize=2)
def _grid(height: int, width: int) -> tuple[sparse.csr_matrix, Floats]:
    """(H * W, H * W) weights of the neighbours of each pixel, and their sums, less than 1 at the border."""
    near = [sparse.diags([1.0, 1.0], [-1, 1], shape=(side, side)) for side in (height, width)]
    same = [sparse.identity(side) for side in (height, width)]
    direct = sparse.kron(near[0], same[1]) + sparse.kron(same[0], near[1])
    weights = sparse.csr_matrix(_DIRECT * direct + _DIAGONAL * sparse.kron(near[0], near[1]))
    return weights, np.asarray(weights.sum(axis=1)).ravel()
