"""The methods that do not weigh channels by gradients, ours against the peers': how far, and why where it is far."""

from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.benchmarks.explanation_parity import Comparison
from tests.benchmarks.explanation_peers import (
    OURS,
    PEERS,
    activations_and_gradients,
    build,
    largest_difference,
    noise,
    quiet,
)

LIMITS = {"guided-backprop": 1e-6, "occlusion": 1e-5, "eigencam": 1e-5, "ablationcam": 2e-4, "scorecam": 1e-4}
"""As a share of the map's largest magnitude, in float32. Ablation-CAM subtracts two scores that are nearly equal."""


def compare_others(model: nn.Module, layer: nn.Module, images: Tensor, classes: Sequence[int]) -> Iterator[Comparison]:
    """Every such method that a peer has, too, on a whole batch."""
    for method, bound in LIMITS.items():
        ours = OURS.maps[method](model, layer, images, classes)
        for tool in PEERS:
            if method not in tool.maps:
                continue
            with quiet():
                theirs = tool.maps[method](model, layer, images, classes)
            if method == "eigencam":
                theirs = _of_sign(theirs, ours)
            difference = largest_difference(theirs, ours) if theirs.shape == ours.shape else float("inf")
            reason = ""
            if difference > bound:
                reason = _reason(method, model, layer, images, classes, theirs, bound)
            yield Comparison(method, tool.name, difference, bound, reason)


def _of_sign(maps: Tensor, wanted: Tensor) -> Tensor:
    """Eigen-CAM leaves the sign open; a peer takes what the decomposition returns."""
    return maps * (maps * wanted).sum(dim=(1, 2), keepdim=True).sign()


def _reason(
    method: str,
    model: nn.Module,
    layer: nn.Module,
    images: Tensor,
    classes: Sequence[int],
    theirs: Tensor,
    bound: float,
) -> str:
    """What the peer computes instead, when that computed gives its map; else nothing."""
    guesses: dict[str, Tensor] = {}
    if method == "guided-backprop" and len(theirs) < len(images):
        return "the first image only"
    if method == "guided-backprop":
        leaf = images.clone().requires_grad_()
        score = model(leaf).gather(1, torch.tensor(list(classes))[:, None]).sum()
        guesses["ReLU6 keeps its plain gradient"] = torch.autograd.grad(score, leaf)[0]
    if method == "scorecam":
        given = model, layer, images, classes
        guesses["masks enlarged with aligned corners"] = score_cam(*given, aligned=True)
        guesses["masks scaled before they are enlarged"] = score_cam(*given, scaled="before")
    for reason, maps in guesses.items():
        if largest_difference(theirs, maps) <= 10 * bound:
            return reason
    return ""


def score_cam(
    model: nn.Module,
    layer: nn.Module,
    images: Tensor,
    classes: Sequence[int],
    *,
    aligned: bool = False,
    scaled: Literal["before", "after"] = "after",
) -> Tensor:
    """Wang et al. 2020, algorithm 1, and what some do instead."""
    activations = activations_and_gradients(model, layer, images, classes)[0]
    masks = _scaled(activations) if scaled == "before" else activations
    masks = functional.interpolate(masks, images.shape[2:], mode="bilinear", align_corners=aligned)
    masks = _scaled(masks) if scaled == "after" else masks
    with torch.no_grad():
        scores = [
            torch.cat([model(some[:, None] * image) for some in own.split(16)])[:, index]
            for image, own, index in zip(images, masks, classes, strict=True)
        ]
    return (torch.stack(scores).softmax(dim=1)[:, :, None, None] * activations).sum(dim=1)


def _scaled(values: Tensor) -> Tensor:
    lowest, highest = values.amin(dim=(2, 3), keepdim=True), values.amax(dim=(2, 3), keepdim=True)
    return torch.where(highest > lowest, (values - lowest) / (highest - lowest), 0)


def print_others(*, side: int, count: int) -> bool:
    """The table in Markdown; whether every bound was held or the difference explained."""
    print(f"\nThe same of the other methods, float32, {count} images of {side} px.\n")
    titles = " | ".join(tool.title for tool in PEERS)
    print(f"| network | layer | method | bound | {titles} |\n|---|---|---|--:|---|---|---|")
    fine = True
    for name, layer in (("ResNet-18", "layer4"), ("MobileNet-V2", "features.18")):
        model = build(name, side=side)
        classes = [(3 * place) % 10 for place in range(count)]
        found = list(compare_others(model, model.get_submodule(layer), noise(count, side), classes))
        fine &= all(each.held or each.reason for each in found)
        for method, bound in LIMITS.items():
            cells = {each.other: each.cell() for each in found if each.method == method}
            row = " | ".join(cells.get(tool.name, "") for tool in PEERS)
            print(f"| {name} | {layer} | {method} | {bound:.0e} | {row} |", flush=True)
    return fine
