"""How the methods weigh the channels of a layer: each from activations and gradients, or in closed form.

Every map is signed, before the ReLU that some papers end with; `positive` is that ReLU. A is (N, C, h, w), its
gradients G alike, and a map of one score (N, h, w). The closed forms hold where global average pooling and one linear
layer follow, so that G is a slope divided by Z = h * w at all positions; slopes are (N, T, C), and T maps cost one
product.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Formula:
    """One way to weigh channels."""

    dense: Callable[[Tensor, Tensor], Tensor] | None
    """From A and G of one score to (N, h, w); None when the method is defined in closed form only."""
    pooled: Callable[[Tensor, Tensor], Tensor]
    """From A and slopes to (N, T, h, w)."""
    sums_to_score: bool = False
    """Whether a map of the closed form sums to score - bias."""


def positive(maps: Tensor) -> Tensor:
    """What speaks for the class: the ReLU of Grad-CAM's equation 2. All zeros where nothing does."""
    return maps.clamp(min=0)


def grad_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Each channel weighs as much as its mean gradient.

    Selvaraju et al., "Grad-CAM", ICCV 2017, https://arxiv.org/abs/1610.02391, equations 1 and 2.
    """
    return _weighted(gradients.mean(dim=(2, 3)), activations)


def _grad_cam_pooled(activations: Tensor, slopes: Tensor) -> Tensor:
    return _all_weighted(slopes, activations) / _positions(activations)


def _cam_pooled(activations: Tensor, slopes: Tensor) -> Tensor:
    """Each channel weighs as much as the head's weight: h * w times Grad-CAM.

    Zhou et al., "Learning Deep Features for Discriminative Localization", CVPR 2016,
    https://arxiv.org/abs/1512.04150, equation 2. The value at a place is the logit, less the bias, that the image would
    have if all places were like it; their mean is the image's.
    """
    return _all_weighted(slopes, activations)


def hires_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Each activation weighs as much as its own gradient.

    Draelos and Carin, "Use HiResCAM instead of Grad-CAM", 2020, https://arxiv.org/abs/2011.08891, equation 5.
    """
    return (activations * gradients).sum(dim=1)


def x_grad_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Each channel weighs as much as the mean of its gradients, weighted by its activations.

    Fu et al., "Axiom-based Grad-CAM", BMVC 2020, https://arxiv.org/abs/2008.02312, equation 8. A channel whose
    activations sum to exactly 0, which has no such mean, is left out; one that is 0 everywhere adds nothing anyway.
    """
    sums = activations.sum(dim=(2, 3), dtype=torch.float64)  # of both signs, they may nearly cancel
    weights = (activations * gradients).sum(dim=(2, 3), dtype=torch.float64) / sums
    return _weighted(torch.where(sums == 0, 0, weights).to(activations.dtype), activations)


def layer_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Each activation weighs as much as the positive part of its own gradient.

    Jiang et al., "LayerCAM", IEEE TIP 2021, https://doi.org/10.1109/TIP.2021.3089943, equations 5 and 6.
    """
    return (activations * gradients.clamp(min=0)).sum(dim=1)


def _layer_cam_pooled(activations: Tensor, slopes: Tensor) -> Tensor:
    return _all_weighted(slopes.clamp(min=0), activations) / _positions(activations)


def grad_cam_pp(activations: Tensor, gradients: Tensor) -> Tensor:
    """Each channel weighs as much as its positive gradients, weighted by how few of its places share the evidence.

    Chattopadhay et al., "Grad-CAM++", WACV 2018, https://arxiv.org/abs/1710.11063, equations 5 and 19 (a score that is
    explained through its exponential), without the scaling of the weights that only the authors' code has. The weight
    g^2 / (2 g^2 + sum(A) g^3) of a gradient g is written 1 / (2 + sum(A) g), which needs no epsilon where g is 0.
    """
    sums = activations.sum(dim=(2, 3), keepdim=True, dtype=torch.float64)  # 2 + sum(A) g may be nearly 0
    weights = (_shares(sums, gradients) * gradients.clamp(min=0)).sum(dim=(2, 3))
    return _weighted(weights.to(activations.dtype), activations)


def _grad_cam_pp_pooled(activations: Tensor, slopes: Tensor) -> Tensor:
    positions = _positions(activations)
    gradients = slopes / positions
    sums = activations.sum(dim=(2, 3))[:, None]
    return _all_weighted(positions * _shares(sums, gradients) * gradients.clamp(min=0), activations)


def _shares(sums: Tensor, gradients: Tensor) -> Tensor:
    """1 / (2 + sum(A) g); 0 where the denominator is exactly 0, which A from 0 up never reach with g above 0."""
    denominators = 2 + sums * gradients
    return torch.where(denominators == 0, 0, 1 / denominators)


def _weighted(weights: Tensor, activations: Tensor) -> Tensor:
    """(N, h, w): channels by (N, C) weights."""
    return (weights[:, :, None, None] * activations).sum(dim=1)


def _all_weighted(weights: Tensor, activations: Tensor) -> Tensor:
    """(N, T, h, w): channels by (N, T, C) weights."""
    return torch.bmm(weights, activations.flatten(2)).view(*weights.shape[:2], *activations.shape[2:])


def _positions(activations: Tensor) -> int:
    return activations.shape[2] * activations.shape[3]


FORMULAS = {
    "cam": Formula(None, _cam_pooled),
    "gradcam": Formula(grad_cam, _grad_cam_pooled, sums_to_score=True),
    "gradcam++": Formula(grad_cam_pp, _grad_cam_pp_pooled),
    "hirescam": Formula(hires_cam, _grad_cam_pooled, sums_to_score=True),
    "xgradcam": Formula(x_grad_cam, _grad_cam_pooled, sums_to_score=True),
    "layercam": Formula(layer_cam, _layer_cam_pooled),
}
