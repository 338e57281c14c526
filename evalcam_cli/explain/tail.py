"""What follows a layer, as a function of its activations; what precedes it is recorded once and not run again."""

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from evalcam_cli.explain.layers import LayerError, layer_name
from evalcam_cli.explain.untouched import Inputs, as_tuple, untouched

_TOLERANCE = 1e-5
"""Largest difference, relative to the largest value, between the model's output and the tail's; in half precision,
what the numbers resolve."""


@dataclass(frozen=True)
class Tail:
    """A model from a layer on, for the images that it was recorded with."""

    output: Any
    """What the model returned for the N images, detached."""
    activations: Tensor
    """(N, C, h, w) of the layer, detached."""
    model: nn.Module
    layer: nn.Module
    inputs: tuple[Tensor, ...]
    calls: tuple[tuple[nn.Module, Any], ...]
    """The outermost modules that ran before the layer, in order, and what they returned; empty where these have to run
    again, because what they returned does not say all."""
    cloned: bool
    """Whether each run gets copies of what was recorded, because the model writes into it."""

    @property
    def divisible(self) -> bool:
        """Whether the output has a row per image, so that copies of a single image can be run together."""
        return isinstance(self.output, Tensor) and self.output.ndim > 0 and len(self.output) == len(self.activations)

    def __call__(self, activations: Tensor, image: int | None = None) -> Any:
        """The model's output if the layer had returned these activations; detached.

        Args:
            activations: (M, C, h, w) for M copies of one image, or (N, C, h, w) for all N.
            image: Which one; None for all.
        """
        count = len(activations)
        pick = partial(_copies, images=len(self.activations), image=image, count=count, cloned=self.cloned)
        pending = deque(self.calls)
        with untouched(self.model), torch.no_grad(), ExitStack() as stack:
            for module in {module: None for module, _ in self.calls}:
                stack.enter_context(_returning(module, _StandIn(module, module.forward, pending, pick)))
            # a clone: what follows may write into it
            stack.enter_context(_returning(self.layer, lambda *args, **kwargs: activations.clone()))
            return self.model(*(pick(each) for each in self.inputs))


def record_tail(model: nn.Module, layer: nn.Module, inputs: Inputs) -> Tail:
    """Run the model once and keep what is needed to run only what follows the layer.

    In a run of the tail, each outermost module that had ended before the layer began returns what it had returned; what
    is functional between modules is computed from that. Every image is tried out: its own activations must give its own
    output, in two copies. Where they do not, because the model writes into recorded values, these are copied for each
    run; and where that does not help, all of the model runs each time, with the layer's output replaced.

    Args:
        model: Called as `model(*inputs)`; it is left as it was, also by each run of the tail.
        layer: A module of it that runs once, with an (N, C, h, w) output.
        inputs: (N, 3, H, W) images, normalised as the model expects, on its device, and what else it takes.

    Raises:
        LayerError: The layer did not run once, returned no feature map, or the output does not depend on it and the
            image alone.
    """
    given = as_tuple(inputs)
    for cloned in (False, True):
        tail = _record(model, layer, given, cloned=cloned)
        if _is_reproduced(tail):
            return tail
    whole = replace(tail, calls=())
    if not _reproduces(whole):
        raise LayerError(
            f"what follows {layer_name(model, layer)} gives another output for the same activations: it depends on "
            "chance, or on the other images of the batch"
        )
    return whole


def _is_reproduced(tail: Tail) -> bool:
    """Whether the recorded modules can stand for what they computed; any error in the trial says no."""
    try:
        return _reproduces(tail)
    except Exception:  # whatever a model does with values of a shape it did not expect; run whole, it would raise again
        return False


def _reproduces(tail: Tail) -> bool:
    """Whether each image's own activations give its own output, within rounding."""
    if not tail.divisible:
        wanted = _tensors(tail.output)
        return _close(_tensors(tail(tail.activations)), wanted) if wanted else not tail.calls
    found = [tail(own.expand(2, -1, -1, -1), image) for image, own in enumerate(tail.activations)]
    return all(isinstance(each, Tensor) and len(each) == 2 for each in found) and _close(
        [torch.stack([each[copy] for each in found]) for copy in range(2)], [tail.output, tail.output]
    )


def _close(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> bool:
    if len(found) != len(wanted):
        return False
    for one, other in zip(found, wanted, strict=True):
        if one.shape != other.shape or one.dtype != other.dtype:
            return False
        if not other.is_floating_point():
            if not torch.equal(one, other):
                return False
        elif other.numel() > 0:
            tolerance = max(_TOLERANCE, 4 * torch.finfo(other.dtype).eps)
            if not (one - other).abs().max() <= tolerance * other.abs().max():  # NaN is never close
                return False
    return True


@dataclass
class _Recorder:
    """Hooks on all modules that keep what the outermost of those returned that ended before the layer began."""

    cloned: bool
    calls: list[tuple[nn.Module, Any]] = field(default_factory=list)
    begun: list[int] = field(default_factory=list)
    """For each module that runs, how many calls were there when it began; later ones are inside it."""
    outputs: list[Any] = field(default_factory=list)
    """Of the layer."""
    reached: bool = False

    def before(self, module: nn.Module, inputs: object) -> None:
        self.begun.append(len(self.calls))

    def after(self, module: nn.Module, inputs: object, output: Any) -> None:
        begun = self.begun.pop()
        if not self.reached:
            del self.calls[begun:]
            self.calls.append((module, _mapped(output, torch.clone if self.cloned else torch.Tensor.detach)))

    def reach(self, layer: nn.Module, inputs: object) -> None:
        self.reached = True

    def keep(self, layer: nn.Module, inputs: object, output: Any) -> None:
        self.outputs.append(output.clone() if isinstance(output, Tensor) else output)


def _record(model: nn.Module, layer: nn.Module, inputs: tuple[Tensor, ...], *, cloned: bool) -> Tail:
    recorder = _Recorder(cloned)
    with untouched(model), torch.no_grad(), ExitStack() as stack:
        stack.callback(layer.register_forward_pre_hook(recorder.reach).remove)
        stack.callback(layer.register_forward_hook(recorder.keep).remove)
        for module in model.modules():
            stack.callback(module.register_forward_pre_hook(recorder.before).remove)
            stack.callback(module.register_forward_hook(recorder.after).remove)
        # a clone: the model may write into what it is given
        output = model(*(each.clone() for each in inputs))
    if len(recorder.outputs) != 1:
        times = f"ran {len(recorder.outputs)} times" if recorder.outputs else "did not run"
        raise LayerError(f"{layer_name(model, layer)} {times} in one forward pass; choose a layer that runs once")
    (activations,) = recorder.outputs
    if not (isinstance(activations, Tensor) and activations.ndim == 4 and len(activations) == len(inputs[0])):
        raise LayerError(f"the output of {layer_name(model, layer)} is not a feature map of the images")
    return Tail(output, activations, model, layer, inputs, tuple(recorder.calls), cloned)


def _mapped(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The value with each tensor in it changed; containers of an unknown kind stay as they are."""
    if isinstance(value, Tensor):
        return change(value)
    if type(value) in (list, tuple):
        return type(value)(_mapped(each, change) for each in value)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_mapped(each, change) for each in value))
    if type(value) in (dict, OrderedDict):
        return type(value)((key, _mapped(each, change)) for key, each in value.items())
    return value


def _tensors(value: Any) -> list[Tensor]:
    """The tensors of an output; none in containers of an unknown kind."""
    found: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        found.append(tensor)
        return tensor

    _mapped(value, keep)
    return found


def _copies(tensor: Tensor, *, images: int, image: int | None, count: int, cloned: bool) -> Tensor:
    """What a run is given of a recorded tensor: all of it, or `count` times the row of an image."""
    if image is None:
        return tensor.clone()
    if tensor.ndim > 0 and len(tensor) == images:
        tensor = tensor[image : image + 1].expand(count, *[-1] * (tensor.ndim - 1))
    return tensor.clone() if cloned else tensor


@dataclass(frozen=True)
class _StandIn:
    """What a recorded module does in a run: give out the next recorded value, and compute when none is left."""

    module: nn.Module
    forward: Callable[..., Any]
    pending: deque[tuple[nn.Module, Any]]
    pick: Callable[[Tensor], Tensor]

    def __call__(self, *args: object, **kwargs: object) -> Any:
        if not self.pending:
            return self.forward(*args, **kwargs)
        expected, value = self.pending.popleft()
        if expected is not self.module:
            raise RuntimeError("the model does not run its modules in the recorded order")
        return _mapped(value, self.pick)


@contextmanager
def _returning(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """The module with another forward function, by an attribute of the instance that goes away afterwards."""
    own = module.__dict__
    before = own.get("forward")
    own["forward"] = forward
    try:
        yield
    finally:
        if before is None:
            del own["forward"]
        else:
            own["forward"] = before
