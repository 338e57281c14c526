"""The methods by name: what they are called, what their values mean, and maps of several of them at once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from evalcam_cli.explain.ablation import ablation_cam
from evalcam_cli.explain.eigen import eigen_cam
from evalcam_cli.explain.formulas import FORMULAS
from evalcam_cli.explain.guided import guided_backprop, guided_grad_cam
from evalcam_cli.explain.layers import LayerError
from evalcam_cli.explain.maps import Maps, layer_maps
from evalcam_cli.explain.occlusion import occlusion
from evalcam_cli.explain.pixel_gradients import gradient, integrated_gradients, smooth_grad
from evalcam_cli.explain.score_cam import score_cam
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
    both_signs: bool = False
    """Whether pictures show what speaks against the class too: values of single pixels cancel each other."""
    fine: bool = False
    """Whether its maps have the input's resolution."""
    dear: bool = False
    """Whether it takes many forward passes."""
    caution: str = ""
    """What is known against the method, for its pictures."""


_EDGES = "shows edges, hardly what was learned (Adebayo et al. 2018)"
_SLOPE = "logit units per input unit"
METHODS = {
    "cam": Method("CAM", "local logit units"),
    "gradcam": Method("Grad-CAM"),
    "gradcam++": Method("Grad-CAM++"),
    "hirescam": Method("HiResCAM"),
    "xgradcam": Method("XGradCAM"),
    "layercam": Method("LayerCAM"),
    "eigencam": Method("Eigen-CAM", "activation units", caution="the same map for every class"),
    "scorecam": Method("Score-CAM", "activation units", dear=True),
    "ablationcam": Method("Ablation-CAM", "activation units"),
    "counterfactual": Method("counterfactual Grad-CAM"),
    "guided-backprop": Method(
        "guided backpropagation", _SLOPE, signed=False, of_layer=False, fine=True, caution=_EDGES
    ),
    "guided-gradcam": Method("guided Grad-CAM", "map x slope", signed=False, fine=True, caution=_EDGES),
    "occlusion": Method("occlusion", of_layer=False, fine=True, dear=True),
    "gradient": Method("gradient", _SLOPE, signed=False, of_layer=False, fine=True),
    "integrated-gradients": Method("integrated gradients", both_signs=True, of_layer=False, fine=True, dear=True),
    "smoothgrad": Method("SmoothGrad", _SLOPE, signed=False, of_layer=False, fine=True, dear=True),
}


@dataclass(frozen=True)
class Settings:
    """Choices of the methods that have any."""

    seed: int = 0
    """Of SmoothGrad's noise."""
    window: int | None = None
    """Side of the occluding square in pixels of the input; None is a fifth of the input."""
    stride: int | None = None
    """Its step; None is half of it."""
    steps: int = 32
    """Of integrated gradients."""
    copies: int = 25
    """Noisy copies of an image for SmoothGrad."""


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
        if name not in FORMULAS:
            found[name] = _others(model, layers, inputs, target, settings)[name]()
    return {name: found[name] for name in methods}


def _others(
    model: nn.Module, layers: Sequence[nn.Module], inputs: Inputs, target: Target, settings: Settings
) -> dict[str, Callable[[], Maps]]:
    """The methods that need more than one forward pass, or another one."""
    call = (model, inputs, target)
    return {
        "counterfactual": lambda: _counterfactual(model, layers, inputs, target),
        "eigencam": lambda: eigen_cam(model, _single(layers, "Eigen-CAM"), inputs, target),
        "scorecam": lambda: score_cam(model, _single(layers, "Score-CAM"), inputs, target),
        "ablationcam": lambda: _for_the_class(ablation_cam(model, _single(layers, "Ablation-CAM"), inputs, target)),
        "guided-backprop": lambda: guided_backprop(*call),
        "guided-gradcam": lambda: guided_grad_cam(*call, layers=layers),
        "occlusion": lambda: occlusion(*call, window=settings.window, stride=settings.stride),
        "gradient": lambda: gradient(*call),
        "integrated-gradients": lambda: integrated_gradients(*call, steps=settings.steps),
        "smoothgrad": lambda: smooth_grad(*call, copies=settings.copies, seed=settings.seed),
    }


def _for_the_class(found: Maps) -> Maps:
    """With values above 0 speaking for the class also where its score, by which Ablation-CAM divides, is below 0."""
    return replace(found, maps=found.maps * found.scores.sign()[..., None, None], note="")


def _single(layers: Sequence[nn.Module], title: str) -> nn.Module:
    if len(layers) > 1:
        raise LayerError(f"{title} explains one layer; name one with --layer, without +")
    return layers[0]


def _counterfactual(model: nn.Module, layers: Sequence[nn.Module], inputs: Inputs, target: Target) -> Maps:
    """Grad-CAM of minus the scores: what would have to go for the class to be given up (its paper, section 3.3).

    The scores that go with the maps are those of the target, as for every method.
    """
    found = layer_maps(model, layers, inputs, _negated(target))["gradcam"]
    return replace(found, scores=-found.scores)


def _negated(target: Target) -> Target:

    def negative(output: Any) -> Combination | Tensor:
        scores = target(output)
        return scores.negated() if isinstance(scores, Combination) else -scores

    return negative
