"""Grad-CAM of any layer and any classes of any classifier, which is left exactly as it was."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from evalcam_cli.errors import UsageError
from evalcam_cli.text import did_you_mean

ClassIndices = Tensor | Sequence[Sequence[int]]
"""(N, C) integers from 0 to K - 1: the C classes to explain in each of N images."""


class LayerError(UsageError):
    """The layer cannot be explained: its output is no feature map, or it does not run exactly once."""


@dataclass(frozen=True)
class GradCamResult:
    """Maps of a batch and what they explain; everything on the CPU, detached, float32 (float64 of a float64 model)."""

    logits: Tensor
    """(N, K)"""
    class_indices: Tensor
    """(N, C) int64"""
    maps: Tensor
    """(N, C, h, w): signed, in logit units."""


def grad_cam(
    model: nn.Module,
    layer: nn.Module,
    images: Tensor,
    class_indices: ClassIndices | Callable[[Tensor], ClassIndices],
) -> GradCamResult:
    """Weigh the channels of a layer by how much the logit of a class depends on them, and add them up.

    Selvaraju et al., "Grad-CAM", ICCV 2017, https://arxiv.org/abs/1610.02391, equations 1 and 2. The maps are those of
    equation 2 *before* its ReLU (`positive`): what speaks against the class is negative. Where global average pooling
    and one linear layer follow, a map sums to logit - bias.

    The model runs once, in evaluation mode, without a graph up to `layer`; then what follows the layer is
    differentiated once per class. Training mode, batch-norm statistics, gradients, `requires_grad`, hooks and the
    caller's grad or inference mode are as before afterwards, also when the model raises.

    Args:
        model: Any classifier from (N, 3, H, W) images to (N, K) logits.
        layer: A module of it that runs once and whose output is (N, channels, h, w).
        images: (N, 3, H, W), normalised as the model expects, on the model's device.
        class_indices: (N, C), which may differ from image to image, or a function that chooses them from the (N, K)
            logits.

    Raises:
        LayerError: `layer` did not run, ran twice, has no (N, channels, h, w) output, or the logits do not depend on
            it.
        ValueError: `class_indices` do not fit the images and the logits.
    """
    with torch.inference_mode(False), torch.enable_grad(), _evaluating_frozen(model):
        logits, activations = _forward(model, layer, images)
        known_logits = _result(logits)
        chosen = class_indices(known_logits) if callable(class_indices) else class_indices
        chosen = _checked_indices(chosen, known_logits)
        # In evaluation mode images do not mix, so the gradient of the sum over images is each image's own.
        sums = [logits.gather(1, column[:, None]).sum() for column in chosen.T.to(logits.device)]
        maps = [_weigh(activations, _gradients(model, layer, each, activations)) for each in sums]
    return GradCamResult(known_logits, chosen, torch.stack(maps, dim=1).cpu())


def positive(maps: Tensor) -> Tensor:
    """What speaks for the class: the ReLU of equation 2. All zeros where nothing does."""
    return maps.clamp(min=0)


def find_layer(model: nn.Module, name: str | None = None) -> tuple[str, nn.Module]:
    """The module of this name, by default the last stage of a ResNet, `layer4`; with its name.

    Raises:
        UsageError: There is no such module.
    """
    modules = {path: module for path, module in model.named_modules() if path}
    if name is None and "layer4" not in modules:
        convolutions = [path for path, module in modules.items() if isinstance(module, nn.Conv2d)]
        example = f", e.g. {convolutions[-1]!r}" if convolutions else ""
        raise UsageError(f"{type(model).__name__} has no layer4 to explain; choose a layer with --layer{example}")
    name = "layer4" if name is None else name
    if name not in modules:
        raise UsageError(f"the model has no layer {name!r}{did_you_mean(name, modules)}")
    return name, modules[name]


@contextmanager
def _evaluating_frozen(model: nn.Module) -> Iterator[None]:
    """In evaluation mode, and no parameter asks for a gradient: up to the layer there is then nothing to record."""
    modes = [(module, module.training) for module in model.modules()]
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        for module, _ in modes:
            module.training = False
        for parameter in trainable:
            parameter.requires_grad_(False)
        yield
    finally:
        for module, training in modes:
            module.training = training
        for parameter in trainable:
            parameter.requires_grad_(True)


@dataclass
class _Recorder:
    """Forward hook at which differentiation begins."""

    outputs: list[Any] = field(default_factory=list)

    def __call__(self, module: nn.Module, inputs: object, output: object) -> object:
        if not (isinstance(output, Tensor) and output.is_floating_point()):
            self.outputs.append(output)
            return None
        activations = output.detach().requires_grad_()
        self.outputs.append(activations)
        torch.set_grad_enabled(True)  # also where the model itself turned it off; the caller's mode comes back later
        return activations.clone()  # which an in-place operation after the layer may overwrite


def _forward(model: nn.Module, layer: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """The (N, K) logits with a graph back to the layer's (N, channels, h, w) activations, and these."""
    recorder = _Recorder()
    handle = layer.register_forward_hook(recorder)
    try:
        # Outside inference mode, only a copy of an inference tensor can take part in a graph.
        logits = model(images.clone() if images.is_inference() else images.detach())
    finally:
        handle.remove()
    activations = _checked_activations(recorder.outputs, model, layer, images)
    if not (isinstance(logits, Tensor) and logits.ndim == 2 and len(logits) == len(images)):
        raise ValueError(f"the model returned {_described(logits)} instead of (N, K) logits")
    return logits, activations


def _checked_activations(outputs: list[Any], model: nn.Module, layer: nn.Module, images: Tensor) -> Tensor:
    if len(outputs) != 1:
        times = f"ran {len(outputs)} times" if outputs else "did not run"
        raise LayerError(f"{_name(model, layer)} {times} in one forward pass; choose a layer that runs once")
    (activations,) = outputs
    if not (isinstance(activations, Tensor) and activations.requires_grad and activations.ndim == 4):
        raise LayerError(
            f"the output of {_name(model, layer)} is {_described(activations)}, not a feature map of shape "
            f"(images, channels, height, width); choose a convolutional layer"
        )
    if len(activations) != len(images):
        raise LayerError(f"{_name(model, layer)} turned {len(images)} images into {len(activations)} feature maps")
    return activations


def _checked_indices(class_indices: ClassIndices, logits: Tensor) -> Tensor:
    """As (N, C) int64 on the CPU."""
    indices = torch.as_tensor(class_indices).cpu()
    images, classes = logits.shape
    if indices.ndim != 2 or len(indices) != images or indices.shape[1] == 0:
        raise ValueError(f"class_indices have shape {tuple(indices.shape)}; expected ({images}, at least 1)")
    if indices.is_floating_point() or indices.is_complex() or indices.dtype == torch.bool:
        raise ValueError(f"class_indices are {indices.dtype}, not integers")
    if indices.numel() and not 0 <= int(indices.min()) <= int(indices.max()) < classes:
        raise ValueError(
            f"class_indices reach from {int(indices.min())} to {int(indices.max())}; there are {classes} classes"
        )
    return indices.long()


def _gradients(model: nn.Module, layer: nn.Module, score: Tensor, activations: Tensor) -> Tensor:
    """d score / d activations, (N, channels, h, w)."""
    gradients = None
    if score.requires_grad:
        (gradients,) = torch.autograd.grad(score, activations, retain_graph=True, allow_unused=True)
    if gradients is None:
        raise LayerError(f"the logits do not depend on {_name(model, layer)}; choose a layer on the way to them")
    return gradients


def _weigh(activations: Tensor, gradients: Tensor) -> Tensor:
    """(N, h, w) signed maps in full precision, also of half-precision activations."""
    weights = _full(gradients).mean(dim=(2, 3), keepdim=True)  # (N, channels, 1, 1), equation 1
    return (weights * _full(activations.detach())).sum(dim=1)


def _full(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()


def _result(values: Tensor) -> Tensor:
    return _full(values.detach()).cpu()


def _name(model: nn.Module, layer: nn.Module) -> str:
    names = (name for name, module in model.named_modules() if module is layer)
    return f"layer {next(names, type(layer).__name__)!r}"


def _described(value: object) -> str:
    return f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
