"""How far evalcam's maps are from those of the peers, map by map, and why where it is further than rounding."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from evalcam_cli.explain.formulas import FORMULAS
from tests.benchmarks.explanation_peers import (
    NETWORKS,
    OURS,
    PEERS,
    activations_and_gradients,
    build,
    largest_difference,
    noise,
    quiet,
)

BOUNDS = {torch.float64: 1e-8, torch.float32: 2e-5}
"""Largest difference as a share of the map's largest magnitude."""
FORMULA_BOUND = 1e-5
"""The same, of Grad-CAM++ from its formula in float64."""
EPSILONS = {"torchcam": 1e-8, "pytorch-grad-cam": 1e-7}
"""What they add to the sum of the activations in XGradCAM."""
FORMULA = "formula in float64"


@dataclass(frozen=True)
class Comparison:
    """One method on one layer, ours against another's."""

    method: str
    other: str
    difference: float
    """The largest over the batch, as a share of each map's largest magnitude."""
    bound: float
    reason: str = ""
    """Why they differ by more; shown by a computation, not supposed."""

    @property
    def held(self) -> bool:
        return self.difference <= self.bound

    def cell(self) -> str:
        mark = "" if self.held else (f" – {self.reason}" if self.reason else " **missed**")
        return f"{self.difference:.1e}{mark}"


def compare(
    model: nn.Module, layer: nn.Module, images: Tensor, classes: Sequence[int], *, pooled: bool
) -> Iterator[Comparison]:
    """Every method that a peer has, too; CAM where the head is linear."""
    bound = BOUNDS[images.dtype]
    recorded = activations_and_gradients(model, layer, images, classes)
    for method, explain in OURS.maps.items():
        if method not in FORMULAS or (method == "cam" and not pooled):
            continue
        ours = explain(model, layer, images, classes)
        if method == "gradcam++":
            exact = grad_cam_pp(*(each.double() for each in recorded))
            yield Comparison(method, FORMULA, largest_difference(ours, exact), min(bound, FORMULA_BOUND))
        for tool in PEERS:
            if method not in tool.maps:
                continue
            with quiet():
                theirs = tool.maps[method](model, layer, images, classes)
            difference = largest_difference(theirs, ours)
            reason = _reason(tool.name, method, recorded, theirs, ours, bound) if difference > bound else ""
            yield Comparison(method, tool.name, difference, bound, reason)


def _reason(tool: str, method: str, recorded: tuple[Tensor, Tensor], theirs: Tensor, ours: Tensor, bound: float) -> str:
    """What the peer computes instead, when that computed gives its map; else nothing."""
    guesses: dict[str, Tensor] = {}
    if method == "xgradcam":
        guesses[f"its epsilon of {EPSILONS[tool]:.0e}"] = x_grad_cam(*recorded, epsilon=EPSILONS[tool])
    if method == "gradcam++":
        guesses["its epsilon of 1e-06"] = grad_cam_pp(*recorded, epsilon=1e-6)
        guesses["it never divides"] = _grad_cam_pp_undivided(*recorded)
    for reason, maps in guesses.items():
        if largest_difference(theirs, maps) <= 10 * bound:
            return reason
    exact = {"xgradcam": x_grad_cam, "gradcam++": grad_cam_pp}.get(method)
    if exact is not None and largest_difference(ours, exact(*(each.double() for each in recorded))) <= bound:
        return "its rounding, where ours is right"
    return ""


def grad_cam_pp(activations: Tensor, gradients: Tensor, *, epsilon: float = 0.0) -> Tensor:
    """Chattopadhay et al. 2018, equations 19 and 5, as they stand; with what some add to the denominator."""
    squares, cubes = gradients**2, gradients**3
    denominators = 2 * squares + activations.sum(dim=(2, 3), keepdim=True) * cubes + epsilon
    shares = torch.where(gradients == 0, 0, squares / denominators)
    weights = (shares * gradients.clamp(min=0)).sum(dim=(2, 3), keepdim=True)
    return (weights * activations).sum(dim=1)


def _grad_cam_pp_undivided(activations: Tensor, gradients: Tensor) -> Tensor:
    weights = (gradients**2 * gradients.clamp(min=0)).sum(dim=(2, 3), keepdim=True)
    return (weights * activations).sum(dim=1)


def x_grad_cam(activations: Tensor, gradients: Tensor, *, epsilon: float = 0.0) -> Tensor:
    """Fu et al. 2020, equation 8, with what some add to the denominator."""
    sums = activations.sum(dim=(2, 3), keepdim=True)
    weights = (activations * gradients).sum(dim=(2, 3), keepdim=True) / (sums + epsilon)
    return (torch.where(sums == 0, 0, weights) * activations).sum(dim=1)


def print_parity(*, side: int, count: int, networks: Sequence[str]) -> bool:
    """The table in Markdown; whether every bound was held or the difference explained."""
    print(
        f"Largest difference of a map, as a share of its largest magnitude: {count} images of {side} px, float64 "
        f"(bound {BOUNDS[torch.float64]:.0e}) / float32 (bound {BOUNDS[torch.float32]:.0e}).\n"
    )
    columns = (*(tool.title for tool in PEERS), FORMULA)
    print(f"| network | layer | method | {' | '.join(columns)} |\n|---|---|---|{'---|' * len(columns)}")
    fine = True
    for name in networks:
        network, model = NETWORKS[name], build(name, side=side)
        for layer in (network.last, *network.inner):
            pooled = network.pooled and layer == network.last
            found = [_compare_as(model, layer, count, side, dtype, pooled=pooled) for dtype in BOUNDS]
            fine &= all(each.held or each.reason for of_dtype in found for each in of_dtype.values())
            for method in dict.fromkeys(method for method, _ in found[0]):
                cells = [_pair(*(each.get((method, other)) for each in found)) for other in _others()]
                print(f"| {name} | {layer} | {method} | {' | '.join(cells)} |", flush=True)
    return fine


def _others() -> tuple[str, ...]:
    return (*(tool.name for tool in PEERS), FORMULA)


def _compare_as(
    model: nn.Module, layer: str, count: int, side: int, dtype: torch.dtype, *, pooled: bool
) -> dict[tuple[str, str], Comparison]:
    model.to(dtype)
    images, classes = noise(count, side).to(dtype), [(3 * place) % 10 for place in range(count)]
    found = compare(model, model.get_submodule(layer), images, classes, pooled=pooled)
    kept = {(each.method, each.other): each for each in found}
    model.float()
    return kept


def _pair(double: Comparison | None, single: Comparison | None) -> str:
    return "" if double is None or single is None else f"{double.cell()} / {single.cell()}"
