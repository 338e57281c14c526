"""What the metrics share that change an image and ask the model again: order of the pixels, batches, baselines."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from evalcam_cli.explain.untouched import untouched

Floats = NDArray[np.float64]
Variant = tuple[Tensor, int]
"""A (3, S, S) image and the index of the class whose probability is asked for."""
Baseline = Literal["zero", "blur"] | Tensor
"""What stands where an image is hidden: 0 after normalisation, which is the mean colour; the image blurred; or these
pixels, of a shape that broadcasts to the images."""

_BLUR = 5 / 224  # standard deviation of the RISE authors' kernel, as a fraction of the side


def enlarge(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """(N, H, W) from (N, h, w): bilinear, with corners not aligned."""
    return functional.interpolate(maps[:, None], size, mode="bilinear", align_corners=False)[:, 0]


def rank_pixels(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """(N, H * W) int64 places of the pixels by relevance, 0 for the most relevant, row by row.

    Maps are enlarged to (H, W) first. Pixels of equal value are ordered as they are read: left to right, top to bottom.
    """
    order = enlarge(maps, size).flatten(1).argsort(dim=1, descending=True, stable=True)
    places = torch.arange(order.shape[1], device=order.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, places)


def ask(model: nn.Module, variants: Iterable[Variant], *, batch_size: int) -> Floats:
    """The probability (softmax) of its class for each variant, in their order; `batch_size` images exist at a time."""
    found: list[Floats] = []
    with untouched(model), torch.inference_mode():
        for batch in _batches(variants, batch_size):
            logits = model(torch.stack([image for image, _ in batch])).double()
            indices = torch.tensor([index for _, index in batch], device=logits.device)
            found.append(logits.softmax(dim=1).gather(1, indices[:, None])[:, 0].cpu().numpy())
    return np.concatenate(found) if found else np.zeros(0)


def _batches(variants: Iterable[Variant], batch_size: int) -> Iterator[list[Variant]]:
    remaining = iter(variants)
    while batch := list(islice(remaining, batch_size)):
        yield batch


def make_baseline(images: Tensor, baseline: Baseline) -> Tensor:
    """(N, 3, H, W) of what stands where the images are hidden."""
    if isinstance(baseline, Tensor):
        return baseline.to(images).expand_as(images)
    return torch.zeros_like(images) if baseline == "zero" else blur(images, sigma=_BLUR * images.shape[-1])


def blur(images: Tensor, *, sigma: float) -> Tensor:
    """(N, C, H, W) images under a Gaussian of this standard deviation in pixels; the border pixels are repeated."""
    reach = max(1, round(3 * sigma))
    ticks = torch.arange(-reach, reach + 1, dtype=images.dtype, device=images.device)
    kernel = torch.exp(-0.5 * (ticks / sigma) ** 2)
    kernel = (kernel / kernel.sum()).expand(images.shape[1], 1, 1, -1)
    padded = functional.pad(images, (reach, reach, reach, reach), mode="replicate")
    across = functional.conv2d(padded, kernel, groups=images.shape[1])
    return functional.conv2d(across, kernel.transpose(2, 3), groups=images.shape[1])
