"""Eigen-CAM: where in the image the activations of a layer vary together, whatever the class."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from evalcam_cli.explain.look import look
from evalcam_cli.explain.maps import Maps, detached, full
from evalcam_cli.explain.targets import Target
from evalcam_cli.explain.untouched import Inputs

_DISTINCT = 1e-5
"""Smallest distance of the two largest eigenvalues, as a share of the largest, at which the first direction is one."""
_ZERO = 1e-12
"""Share of the largest possible value below which a sum counts as 0: what rounding of float64 leaves."""


def eigen_cam(model: nn.Module, layer: nn.Module, inputs: Inputs, target: Target) -> Maps:
    """Project the activations at each place on their first principal component.

    Muhammad and Yeasin, "Eigen-CAM", IJCNN 2020, https://arxiv.org/abs/2008.00299: with O = U S V^T, the map is O V_1.
    O has a row per place and a column per channel, and each column's mean is taken off first, as in pytorch-grad-cam:
    without that, the first direction is little more than the mean activation. The map knows no class, so all T maps of
    an image are the same, and it sums to 0.

    The component comes from the smaller of O O^T and O^T O, in float64, and not from a decomposition of O. What the
    mathematics leaves open is settled: a map has the sign at which it grows with the mean activation over the channels
    or, where it is not related to that, the sign at which its largest magnitude is positive. Where two components
    explain equally much, any mixture of them would do; the note says so. Activations that are the same at all places
    give a map of zeros, and the note says that too. Activations that are not finite give NaN.

    Args:
        model: Called as `model(*inputs)`.
        layer: A module of it that runs once, with an (N, C, h, w) output.
        inputs: (N, 3, H, W) images, normalised as the model expects, on its device, and what else it takes.
        target: Whose scores go with the maps; it decides only their number.

    Returns:
        (N, T, h, w) maps, in units of the activations.

    Raises:
        LayerError: The layer is not fit to be explained.
        ValueError: The target does not fit the output.
    """
    with look(model, [layer], inputs, target) as seen:
        output, scores, activations = detached(seen.output), full(seen.scores.detach()).cpu(), seen.activations[0]
    maps, note = project(activations)
    kept = maps.to(full(activations).dtype).cpu()
    return Maps(output, scores, kept[:, None].repeat(1, scores.shape[1], 1, 1), note=note)


def project(activations: Tensor) -> tuple[Tensor, str]:
    """(N, h, w) float64 projections of (N, C, h, w) on their first principal component, and what to know about them."""
    places = activations.flatten(2).transpose(1, 2).double()  # (N, h * w, C)
    centred = places - places.mean(dim=1, keepdim=True)
    strange = ~torch.isfinite(centred).all(dim=2).all(dim=1, keepdim=True)  # which eigh does not take
    centred = torch.where(strange[..., None], 0, centred)
    values, found = _first_component(centred)
    constant = centred.square().sum(dim=(1, 2)) <= _ZERO**2 * places.square().sum(dim=(1, 2))
    maps = torch.where(constant[:, None], 0, found * _signs(found, centred.mean(dim=2)))
    maps = torch.where(strange, torch.nan, maps)
    mixed = ~constant & (values[:, 0] - values[:, 1] <= _DISTINCT * values[:, 0])
    return maps.view(len(maps), *activations.shape[2:]), _note(int(mixed.sum()), int(constant.sum()), len(maps))


def _first_component(centred: Tensor) -> tuple[Tensor, Tensor]:
    """(N, 2) largest eigenvalues, and (N, h * w) projections on the first component, of either sign.

    With X = U S V^T of (h * w, C), X X^T = U S^2 U^T and X^T X = V S^2 V^T; the projection is X V_1 = U_1 S_1.
    """
    places, channels = centred.shape[1:]
    if places <= channels:
        values, vectors = torch.linalg.eigh(centred @ centred.mT)
        found = vectors[..., -1] * values[:, -1:].clamp(min=0).sqrt()
    else:
        values, vectors = torch.linalg.eigh(centred.mT @ centred)
        found = (centred @ vectors[..., -1:])[..., 0]
    two = functional.pad(values, (1, 0))[:, -2:].flip(1)  # of a single one, the second is 0
    return two, found


def _signs(maps: Tensor, means: Tensor) -> Tensor:
    """(N, 1) factors by which (N, h * w) maps grow with the mean activation, or else their largest value is above 0."""
    related = (maps * means).sum(dim=1, keepdim=True)
    largest = maps.gather(1, maps.abs().argmax(dim=1, keepdim=True))
    unrelated = related.abs() <= _ZERO * maps.norm(dim=1, keepdim=True) * means.norm(dim=1, keepdim=True)
    return torch.where(torch.where(unrelated, largest, related) < 0, -1.0, 1.0).to(maps)


def _note(mixed: int, constant: int, images: int) -> str:
    parts = []
    if mixed:
        parts.append(
            f"in {mixed} of {images} images two principal components explain equally much; "
            "the map is one of their many mixtures"
        )
    if constant:
        parts.append(f"in {constant} of {images} images the activations are the same at all places: a map of zeros")
    return "; ".join(parts)
