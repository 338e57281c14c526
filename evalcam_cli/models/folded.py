"""The inference form of a model: batch norm folded into the convolution before it, channels last in memory, checked."""

import copy
import weakref
from collections import Counter
from collections.abc import Collection
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

TOLERANCE = 1e-4
"""Largest difference of an output value, relative to the largest magnitude, at which the folded copy is used."""


@dataclass(frozen=True)
class Folded:
    """A copy of a model in evaluation mode that computes the same, faster."""

    model: nn.Module
    """Its module names are those of the original; a batch norm that was folded is an `nn.Identity`."""
    pairs: int
    """How many batch norms were folded."""
    largest_difference: float
    """Of an output value on the check inputs, as a share of the largest magnitude there."""
    note: str = ""
    """Why nothing was folded, when a folded copy was refused."""


def folded(model: nn.Module, inputs: Tensor | tuple[Tensor, ...], *, keep: Collection[str] = ()) -> Folded:
    """A faster copy of the model, tried out on these inputs; the model itself is neither run nor changed.

    A batch norm at rest is y = g (x - m) / sqrt(v + eps) + b. After a convolution x = W * z + c this is a convolution
    with g W / sqrt(v + eps) and g (c - m) / sqrt(v + eps) + b, computed in float64. Which pairs belong together is seen
    while the copy runs: a batch norm whose input is, unchanged, what one convolution returned, both running once.

    A folded copy whose output differs by more than `TOLERANCE` (the convolution's output has a second use, say) is
    refused: the copy returned is then channels last only, and the note says so.

    Args:
        model: Called as `model(*inputs)`.
        inputs: A few images, (N, 3, H, W) on the model's device, and what else it takes.
        keep: Names of modules whose outputs must stay what they are, because they will be looked at: the output of a
            convolution that was folded is the batch norm's.
    """
    given = inputs if isinstance(inputs, tuple) else (inputs,)
    with torch.inference_mode(False), torch.no_grad():  # inference tensors do not count how often they are written to
        quick = _copied(model)
        pairs, wanted = _find_pairs(quick, given, keep)
        if not isinstance(wanted, Tensor):
            return Folded(quick, 0, 0.0, f"not folded: the model returns a {type(wanted).__name__}, not one tensor")
        for convolution, norm in pairs:
            _fold(quick, convolution, norm)
        difference = _difference(_channels_last(quick)(*given), wanted)
        if difference <= TOLERANCE:
            return Folded(quick, len(pairs), difference)
        plain = _channels_last(_copied(model))
        note = f"not folded: the output would differ by {difference:.1g} of its largest value"
        return Folded(plain, 0, _difference(plain(*given), wanted), note)


def _copied(model: nn.Module) -> nn.Module:
    return copy.deepcopy(model).eval().requires_grad_(False)


def _channels_last(model: nn.Module) -> nn.Module:
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.to(memory_format=torch.channels_last)
    return model


@dataclass
class _Meetings:
    """Hooks that see which batch norm gets what a convolution returned."""

    runs: Counter[nn.Module] = field(default_factory=Counter)
    made: list[tuple[nn.Conv2d, weakref.ref[Tensor], int]] = field(default_factory=list)
    """Convolution, its output, and how often that had been written to."""
    pairs: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = field(default_factory=list)

    def after(self, convolution: nn.Conv2d, inputs: object, output: Tensor) -> None:
        self.runs[convolution] += 1
        self.made.append((convolution, weakref.ref(output), output._version))

    def before(self, norm: nn.BatchNorm2d, inputs: tuple[Tensor, ...]) -> None:
        self.runs[norm] += 1
        for convolution, output, version in self.made:
            if len(inputs) == 1 and output() is inputs[0] and inputs[0]._version == version:
                self.pairs.append((convolution, norm))


def _find_pairs(
    model: nn.Module, inputs: tuple[Tensor, ...], keep: Collection[str]
) -> tuple[list[tuple[nn.Conv2d, nn.BatchNorm2d]], Any]:
    """Convolutions with the batch norms that follow them, and the model's output."""
    kept = {module for name, module in model.named_modules(remove_duplicate=False) if name in keep}
    meetings = _Meetings()
    with ExitStack() as stack:
        for module in model.modules():
            if type(module) is nn.Conv2d and module not in kept and _is_plain(module):
                stack.callback(module.register_forward_hook(meetings.after).remove)
            elif type(module) is nn.BatchNorm2d and module.running_var is not None and _is_plain(module):
                stack.callback(module.register_forward_pre_hook(meetings.before).remove)
        output = model(*inputs)
    runs, norms = meetings.runs, Counter(convolution for convolution, _ in meetings.pairs)
    return [pair for pair in meetings.pairs if runs[pair[0]] == runs[pair[1]] == norms[pair[0]] == 1], output


def _is_plain(module: nn.Module) -> bool:
    """Whether nothing but the module itself decides what it computes: no hook, no weight made from others."""
    hooked = module._forward_hooks or module._forward_pre_hooks or module._backward_hooks
    return not hooked and "weight" in module._parameters


def _fold(model: nn.Module, convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    """Put a batch norm into the convolution, and nothing in its place."""
    mean, variance, dtype = norm.running_mean, norm.running_var, convolution.weight.dtype
    if mean is None or variance is None:  # it normalises by each batch, and was not chosen
        return
    scale = (variance.double() + norm.eps).rsqrt()
    scale = scale if norm.weight is None else scale * norm.weight.double()
    shift = -mean.double() if convolution.bias is None else convolution.bias.double() - mean.double()
    shift = shift * scale if norm.bias is None else shift * scale + norm.bias.double()
    weight = convolution.weight.double() * scale[:, None, None, None]
    convolution.weight = nn.Parameter(weight.to(dtype), requires_grad=False)
    convolution.bias = nn.Parameter(shift.to(dtype), requires_grad=False)
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if child is norm:
                parent._modules[name] = nn.Identity().eval()


def _difference(found: Tensor, wanted: Tensor) -> float:
    """The largest difference as a share of the largest magnitude; 0 where nothing differs, NaN where a value is."""
    difference = (found - wanted).abs().max()
    return float(difference / wanted.abs().max()) if difference != 0 else 0.0
