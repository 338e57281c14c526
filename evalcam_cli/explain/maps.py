"""Maps of a batch by the methods that weigh the channels of a layer, in one forward pass for all of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from evalcam_cli.explain.formulas import FORMULAS, Formula
from evalcam_cli.explain.layers import LayerError, layer_name
from evalcam_cli.explain.look import Look, look
from evalcam_cli.explain.targets import Target
from evalcam_cli.explain.untouched import Inputs


@dataclass(frozen=True)
class Maps:
    """Maps of a batch and what they explain; on the CPU, detached, float32 (float64 of a float64 model)."""

    output: Any
    """What the model returned; (N, K) logits of a classifier."""
    scores: Tensor
    """(N, T)"""
    maps: Tensor
    """(N, T, h, w): signed, in units of the score."""
    gap: Tensor | None = None
    """(N, T): by how much the sum of each map misses what it must be, where the method promises a sum: score - bias for
    Grad-CAM at a linear head; None otherwise."""
    note: str = ""
    """What a reader should know about how they were computed."""


def layer_maps(
    model: nn.Module, layers: Sequence[nn.Module], inputs: Inputs, target: Target, methods: Sequence[str] = ("gradcam",)
) -> dict[str, Maps]:
    """Maps of each method of `formulas.FORMULAS`.

    The model runs once, in evaluation mode, without a graph up to the layer. Where only global average pooling and one
    linear layer follow, which is tried out on every batch, the maps of all scores are one product and nothing is
    differentiated but the head; else what follows the layer is differentiated once per score. Where they do follow, a
    Grad-CAM map sums to score - bias.

    Args:
        model: Called as `model(*inputs)`.
        layers: Modules of it that run once, with (N, channels, h, w) outputs; maps of several are fused (`fuse`).
        inputs: (N, 3, H, W) images, normalised as the model expects, on its device, and what else it takes.
        target: What is explained.
        methods: Names in `FORMULAS`.

    Raises:
        LayerError: A layer is not fit to be explained, or `cam` was asked for where the head is not linear.
        ValueError: The target does not fit the output.
    """
    with look(model, layers, inputs, target) as seen:
        output, scores = detached(seen.output), full(seen.scores.detach()).cpu()
        found = _apply(seen, [FORMULAS[name] for name in methods], model, layers)
        gaps = [_gap(seen, maps, FORMULAS[name]) for name, maps in zip(methods, found, strict=True)]
    results = [Maps(output, scores, maps.cpu(), gap) for maps, gap in zip(found, gaps, strict=True)]
    return dict(zip(methods, results, strict=True))


def _apply(seen: Look, formulas: Sequence[Formula], model: nn.Module, layers: Sequence[nn.Module]) -> list[Tensor]:
    """(N, T, h, w) of each formula."""
    if seen.slopes is not None:
        activations, slopes = full(seen.activations[0]), full(seen.slopes)
        return [formula.pooled(activations, slopes) for formula in formulas]
    dense = [formula.dense for formula in formulas]
    if None in dense:
        raise LayerError(
            f"CAM is defined where global average pooling and one linear layer follow the layer, which is not so after "
            f"{layer_name(model, layers[0])}; Grad-CAM is its generalisation: --method gradcam"
        )
    kept = [full(activations) for activations in seen.activations]
    by_score: list[list[Tensor]] = [[] for _ in formulas]
    for place in range(seen.scores.shape[1]):  # one score at a time: all gradients together might not fit
        gradients = [full(gradient) for gradient in seen.gradients(place)]
        for found, weigh in zip(by_score, dense, strict=True):
            found.append(_of_layers(weigh, kept, gradients))
    return [torch.stack(found, dim=1) for found in by_score]


def _gap(seen: Look, maps: Tensor, formula: Formula) -> Tensor | None:
    """Sum of the maps + bias - score, at a linear head."""
    if seen.slopes is None or seen.combination is None or not formula.sums_to_score:
        return None
    bias = 0 if seen.bias is None else seen.combination.slopes(full(seen.bias)[:, None])[..., 0]
    return (maps.sum(dim=(2, 3)) + bias - full(seen.scores.detach())).cpu()


def _of_layers(
    weigh: Callable[[Tensor, Tensor], Tensor] | None, activations: Sequence[Tensor], gradients: Sequence[Tensor]
) -> Tensor:
    assert weigh is not None  # refused above
    maps = [weigh(*pair) for pair in zip(activations, gradients, strict=True)]
    return maps[0] if len(maps) == 1 else fuse(maps)


def fuse(maps: Sequence[Tensor]) -> Tensor:
    """The mean of the maps of several layers, each divided by its own largest magnitude, at the finest resolution.

    The values have no unit any more; their largest magnitude is at most 1. A map of zeros adds nothing.

    Args:
        maps: (N, h, w) each, of any resolutions.
    """
    finest = max((tuple(each.shape[1:]) for each in maps), key=lambda sides: sides[0] * sides[1])
    enlarged = []
    for each in maps:
        largest = each.abs().amax(dim=(1, 2), keepdim=True)
        scaled = torch.where(largest > 0, each / largest, 0)
        enlarged.append(functional.interpolate(scaled[:, None], finest, mode="bilinear", align_corners=False)[:, 0])
    return torch.stack(enlarged).mean(dim=0)


def full(values: Tensor) -> Tensor:
    """In float32, or float64 as given: sums over channels and positions need it."""
    return values if values.dtype == torch.float64 else values.float()


def detached(output: Any) -> Any:
    """The output as it is kept: tensors in full precision on the CPU."""
    return full(output.detach()).cpu() if isinstance(output, Tensor) and output.is_floating_point() else output
