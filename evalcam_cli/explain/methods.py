"""The methods by name: what they are called, what their values mean, and maps of several of them at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from evalcam_cli.explain.formulas import FORMULAS
from evalcam_cli.explain.maps import Maps, layer_maps
from evalcam_cli.explain.targets import Combination, Target
from evalcam_cli.explain.untouched import Inputs


@dataclass(frozen=True)
class Method:
    """What a reader of a map has to know."""

    title: str
    unit: str = "logit units"
    """Of the map's values; the score's own when it is not a logit."""
    signed: bool = True
    """Whether the sign of a value can be read: above 0 speaks for the class."""
    of_layer: bool = True
    """Whether a layer is explained, rather than the pixels."""
    caution: str = ""
    """What is known against the method, for its pictures."""


_EDGES = "shows edges whatever the model has learned (Adebayo et al. 2018)"
_SLOPE = "logit units per input unit"
METHODS = {
    "cam": Method("CAM", "logit units per image"),
    "gradcam": Method("Grad-CAM"),
    "gradcam++": Method("Grad-CAM++"),
    "hirescam": Method("HiResCAM"),
    "xgradcam": Method("XGradCAM"),
    "layercam": Method("LayerCAM"),
    "counterfactual": Method("counterfactual Grad-CAM"),
}


@dataclass(frozen=True)
class Settings:
    """Choices of the methods that have any."""

    seed: int = 0
    """Of SmoothGrad's noise."""


def explain(
    model: nn.Module,
    layers: Sequence[nn.Module],
    inputs: Inputs,
    target: Target,
    methods: Sequence[str],
    settings: Settings = Settings(),
) -> dict[str, Maps]:
    """Maps by each method; those that weigh the channels of a layer share one forward pass.

    Args:
        model: Called as `model(*inputs)`; it is left exactly as it was.
        layers: What the methods of a layer explain; maps of several layers are fused.
        inputs: (N, 3, S, S) images, normalised, on the model's device, and what else it takes.
        target: What is explained.
        methods: Names in `METHODS`.
        settings: Choices of the methods that have any.

    Raises:
        LayerError: A layer is not fit to be explained, or not by this method.
        ValueError: The target does not fit the output.
    """
    formulas = [name for name in methods if name in FORMULAS]
    found = layer_maps(model, layers, inputs, target, formulas) if formulas else {}
    for name in methods:
        if name == "counterfactual":
            found[name] = layer_maps(model, layers, inputs, _negated(target))["gradcam"]
    return {name: found[name] for name in methods}


def _negated(target: Target) -> Target:
    """Minus the scores: what would have to go for the class to be given up (Grad-CAM paper, section 3.3)."""

    def negative(output: Any) -> Combination | Tensor:
        scores = target(output)
        return scores.negated() if isinstance(scores, Combination) else -scores

    return negative
