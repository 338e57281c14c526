"""One forward pass of a batch, recorded at a layer, and how the scores depend on what was recorded."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from evalcam_cli.explain.layers import LayerError, layer_name
from evalcam_cli.explain.targets import Combination, Target, compute_scores, described
from evalcam_cli.explain.untouched import Inputs, as_tuple, untouched

_TOLERANCE = 1e-5
"""Largest difference, relative to the largest value, at which a linear head counts as recognised."""


@dataclass(frozen=True)
class Look:
    """A batch as the model saw it."""

    output: Any
    """As the model returned it, detached when it is a tensor; (N, K) logits of a classifier."""
    scores: Tensor
    """(N, T) of the target, with their graph."""
    combination: Combination | None
    """Of logits, when that is what the scores are."""
    activations: tuple[Tensor, ...]
    """(N, C, h, w) of each layer, detached."""
    slopes: Tensor | None
    """(N, T, C): derivatives by the mean activations, when there is one layer and after it only their global average
    and one linear layer. Then every gradient is a slope divided by h * w, the same at all positions."""
    weight: Tensor | None
    """(K, C) of that linear layer."""
    bias: Tensor | None
    """(K,) of it; None when it has none, or there is no such layer."""
    _recorded: tuple[Tensor, ...]
    _model: nn.Module
    _layers: tuple[nn.Module, ...]

    def gradients(self, place: int) -> tuple[Tensor, ...]:
        """(N, C, h, w) of each layer: the derivatives of one of the T scores.

        Raises:
            LayerError: The score does not depend on a layer.
        """
        return self.derivatives(self.scores[:, place])

    def derivatives(self, scores: Tensor) -> tuple[Tensor, ...]:
        """(N, C, h, w) of each layer, of one score per image.

        Args:
            scores: (N,), computed from `scores`.

        Raises:
            LayerError: The score does not depend on a layer.
        """
        # in evaluation mode images do not mix, so the gradient of the sum over images is each image's own
        score = scores.sum()
        found: Sequence[Tensor | None] = (None,) * len(self._layers)
        if score.requires_grad:
            found = torch.autograd.grad(score, self._recorded, retain_graph=True, allow_unused=True)
        for layer, gradient in zip(self._layers, found, strict=True):
            if gradient is None:
                name = layer_name(self._model, layer)
                raise LayerError(f"the score does not depend on {name}; choose a layer on the way to it")
        return tuple(gradient for gradient in found if gradient is not None)


@contextmanager
def look(model: nn.Module, layers: Sequence[nn.Module], inputs: Inputs, target: Target) -> Iterator[Look]:
    """Run the model once in evaluation mode, without a graph up to the first layer; afterwards it is as it was.

    Args:
        model: Called as `model(*inputs)`.
        layers: Modules of it that run once and whose outputs are (N, channels, h, w).
        inputs: (N, 3, H, W) images, normalised as the model expects, on its device, and what else it takes.
        target: What is explained, chosen once the output is known.

    Raises:
        LayerError: A layer did not run, ran twice, or has no (N, channels, h, w) output.
        ValueError: The target does not fit the output.
    """
    given = as_tuple(inputs)
    with untouched(model):
        output, recorded, heads = _forward(model, layers, given)
        scores, combination = compute_scores(target, output, len(given[0]))
        activations = tuple(tensor.detach() for tensor in recorded)
        plain = output.detach() if isinstance(output, Tensor) else output
        seen = Look(plain, scores, combination, activations, None, None, None, recorded, model, tuple(layers))
        yield _with_linear_head(seen, heads)


def _forward(
    model: nn.Module, layers: Sequence[nn.Module], inputs: tuple[Tensor, ...]
) -> tuple[Any, tuple[Tensor, ...], list[nn.Linear]]:
    """The output with a graph back to the first layer, what the layers returned, and the linear layer that ends all."""
    recorders = [_Recorder() for _ in layers]
    ends = _Ends()
    with ExitStack() as stack:
        for layer, recorder in zip(layers, recorders, strict=True):
            stack.callback(layer.register_forward_hook(recorder).remove)
        for module in model.modules():
            if type(module) is nn.Linear:
                stack.callback(module.register_forward_hook(ends).remove)
        output = model(*inputs)
    recorded = [
        _checked(recorder.outputs, model, layer, len(inputs[0]))
        for layer, recorder in zip(layers, recorders, strict=True)
    ]
    return output, tuple(recorded), [module for module, last in ends.outputs if last is output]


@dataclass
class _Recorder:
    """Forward hook that keeps a layer's output, and begins the graph there when none has begun before."""

    outputs: list[Any] = field(default_factory=list)

    def __call__(self, module: nn.Module, inputs: object, output: object) -> object:
        if not (isinstance(output, Tensor) and output.is_floating_point()):
            self.outputs.append(output)
            return None
        torch.set_grad_enabled(True)  # also where the model itself turned it off; the caller's mode comes back later
        activations = output if output.requires_grad else output.detach().requires_grad_()
        self.outputs.append(activations)
        return activations.clone()  # which an in-place operation after the layer may overwrite


@dataclass
class _Ends:
    """Forward hook that keeps what linear layers returned."""

    outputs: list[tuple[nn.Linear, Tensor]] = field(default_factory=list)

    def __call__(self, module: nn.Module, inputs: object, output: Tensor) -> None:
        if isinstance(module, nn.Linear):
            self.outputs.append((module, output))


def _checked(outputs: list[Any], model: nn.Module, layer: nn.Module, images: int) -> Tensor:
    if len(outputs) != 1:
        times = f"ran {len(outputs)} times" if outputs else "did not run"
        raise LayerError(f"{layer_name(model, layer)} {times} in one forward pass; choose a layer that runs once")
    (activations,) = outputs
    if not (isinstance(activations, Tensor) and activations.requires_grad and activations.ndim == 4):
        raise LayerError(
            f"the output of {layer_name(model, layer)} is {described(activations)}, not a feature map of shape "
            f"(images, channels, height, width); choose a convolutional layer"
        )
    if len(activations) != images:
        raise LayerError(f"{layer_name(model, layer)} turned {images} images into {len(activations)} feature maps")
    return activations


def _with_linear_head(seen: Look, heads: Sequence[nn.Linear]) -> Look:
    """With slopes, where global average pooling and one of these linear layers is all that follows the layer.

    Tried out, not read off the architecture: pooling and head must give the logits, and the gradient must be the
    slopes, everywhere. (A second ReLU after a first leaves the logits but not the gradients.) One gradient is enough:
    that of all scores together, each brought to the same size and given its own weight so that none hides another.
    """
    if len(seen.activations) != 1 or seen.combination is None or len(heads) != 1:
        return seen
    (activations,), (head,) = seen.activations, heads
    weight = head.weight.detach()
    if weight.shape[1] != activations.shape[1] or weight.dtype != activations.dtype:
        return seen
    if not _close(functional.linear(activations.mean(dim=(2, 3)), weight, head.bias), seen.output):
        return seen
    slopes = seen.combination.slopes(weight)
    largest = slopes.abs().amax(dim=2)  # (N, T)
    spread = torch.linspace(1, 2, largest.shape[1], dtype=slopes.dtype, device=slopes.device)
    shares = torch.where(largest > 0, spread / largest, 0)
    (gradients,) = seen.derivatives((shares * seen.scores).sum(dim=1))
    positions = activations.shape[2] * activations.shape[3]
    if not _close((shares[..., None] * slopes).sum(dim=1)[..., None, None] / positions, gradients):
        return seen
    bias = None if head.bias is None else head.bias.detach()
    return Look(
        seen.output, seen.scores, seen.combination, seen.activations, slopes, weight, bias,
        seen._recorded, seen._model, seen._layers,
    )  # fmt: skip


def _close(values: Tensor, wanted: Tensor) -> bool:
    """Whether the largest difference is within the tolerance of the largest value; false where one is not finite."""
    return bool((values - wanted).abs().max() <= _TOLERANCE * wanted.abs().max())
