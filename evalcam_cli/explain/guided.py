"""Guided backpropagation, alone and under a Grad-CAM map.

A ReLU is found where autograd recorded it, in the graph of this one forward pass: however the model spells it (module
or function, in place or not, one module run many times), nothing of the model is replaced or hooked.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.nn import functional

from evalcam_cli.errors import UsageError
from evalcam_cli.explain.copies import Attributions
from evalcam_cli.explain.maps import Maps, layer_maps
from evalcam_cli.explain.pixel_gradients import differentiate
from evalcam_cli.explain.targets import Target
from evalcam_cli.explain.untouched import Inputs, as_tuple

_LOWER_BOUNDS = {
    "Threshold": "_saved_threshold",
    "Hardtanh": "_saved_min_val",
    "Clamp": "_saved_min",
    "ClampMin": "_saved_min",
}
"""Operations that are a ReLU, capped or not, when they cut at 0: ReLU6 is a hardtanh, `clamp(min=0)` a clamp."""
_OTHER_ACTIVATIONS = {
    **{"Celu": "CELU", "Elu": "ELU or SELU", "Gelu": "GELU", "Hardswish": "Hardswish", "Hardtanh": "Hardtanh"},
    **{"LeakyRelu": "LeakyReLU", "Maximum": "maximum", "Mish": "Mish", "PreluKernel": "PReLU"},
    **{"Silu": "SiLU", "Softplus": "Softplus"},
}
"""Operations that stand in for a ReLU and have no guided form, and what a reader calls them."""
_RECORDED = re.compile(r"(\w+)Backward\d+$")
"""An operation of torch in the graph; anything else may hide operations that cannot be seen from outside."""
_TRANSPARENT = ("AccumulateGrad", "CopyBackwards")


def guided_backprop(model: nn.Module, inputs: Inputs, target: Target) -> Maps:
    """(N, T, H, W): `guided_backprop_attributions`, summed over the channels."""
    return guided_backprop_attributions(model, inputs, target).maps()


def guided_backprop_attributions(model: nn.Module, inputs: Inputs, target: Target) -> Attributions:
    """The gradient by the image, when every ReLU passes back only what is positive.

    Springenberg et al., "Striving for Simplicity", 2015, https://arxiv.org/abs/1412.6806, section 3.4: a ReLU with
    input f passes R * [f > 0] * [R > 0] of the gradient R that arrives. ReLU6, `clamp(min=0)` and thresholds at 0 are
    ReLUs too, and pass nothing where they cap. Other activations (GELU, SiLU, LeakyReLU, ...) keep their own gradient,
    which the note says. Adebayo et al. 2018, https://arxiv.org/abs/1810.03292, show that these maps hardly depend on
    what the network has learned.

    Args:
        model: Called as `model(*inputs)`.
        inputs: (N, 3, H, W) images, normalised as the model expects, on its device, and what else it takes.
        target: What is explained.

    Raises:
        UsageError: There is no ReLU between image and score, a part of the model hides its operations from autograd, or
            a score cannot be differentiated by the image.
        ValueError: The target does not fit the output.
    """
    return differentiate(model, inputs, target, _guide)


def guided_grad_cam(model: nn.Module, inputs: Inputs, target: Target, *, layers: Sequence[nn.Module]) -> Maps:
    """(N, T, H, W): `guided_grad_cam_attributions`, summed over the channels."""
    return guided_grad_cam_attributions(model, inputs, target, layers=layers).maps()


def guided_grad_cam_attributions(
    model: nn.Module, inputs: Inputs, target: Target, *, layers: Sequence[nn.Module]
) -> Attributions:
    """Guided backpropagation, times the positive part of the Grad-CAM map below it.

    Selvaraju et al., "Grad-CAM", ICCV 2017, https://arxiv.org/abs/1610.02391, section 3.2: the map is enlarged
    bilinearly (align_corners=False). All zeros where the Grad-CAM map is nowhere positive.

    Args:
        model: Called as `model(*inputs)`.
        inputs: (N, 3, H, W) images, normalised as the model expects, on its device, and what else it takes.
        target: What is explained.
        layers: Of the Grad-CAM map; several are fused as in `maps.layer_maps`.

    Raises:
        LayerError: A layer is not fit to be explained.
        UsageError: As `guided_backprop_attributions`.
        ValueError: The target does not fit the output.
    """
    kept = tuple(given.clone() for given in as_tuple(inputs))  # which a model that writes into its input may spoil
    coarse = layer_maps(model, layers, kept, target)["gradcam"].maps
    guided = guided_backprop_attributions(model, inputs, target)
    size = as_tuple(inputs)[0].shape[2:]
    enlarged = functional.interpolate(coarse.clamp(min=0), size, mode="bilinear", align_corners=False)
    return replace(guided, values=enlarged[:, :, None] * guided.values)


def _guide(scores: Tensor) -> str:
    """Let the ReLUs in the graph of the scores pass back only what is positive; a note on the other activations.

    Raises:
        UsageError: There is none, or there may be some that cannot be seen.
    """
    guided, others = 0, Counter[str]()
    for node in _nodes(scores):
        match = _RECORDED.search(node.name())
        operation = match.group(1) if match else ""
        if not (match or node.name().endswith(_TRANSPARENT)):
            raise _hidden(node.name())
        if operation == "Relu" or _cuts_at_zero(node, operation):
            node.register_hook(_only_positive)
            guided += 1
        elif operation in _OTHER_ACTIVATIONS:
            others[_OTHER_ACTIVATIONS[operation]] += 1
    if not guided:
        found = f" but {_counted(others)}" if others else ""
        raise UsageError(
            f"there is no ReLU between image and score{found}: guided backpropagation would be the plain gradient; "
            f"--method gradient"
        )
    kept = f"; {_counted(others)} with the plain gradient" if others else ""
    return f"guided at {guided} ReLU{'s' if guided > 1 else ''}{kept}"


def _nodes(scores: Tensor) -> Iterator[Node]:
    """Each operation that the scores came from."""
    waiting = [scores.grad_fn]
    seen: set[Node] = set()
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            yield node
            waiting.extend(before for before, _ in node.next_functions)


def _cuts_at_zero(node: Node, operation: str) -> bool:
    bound = getattr(node, _LOWER_BOUNDS.get(operation, ""), None)
    if isinstance(bound, Tensor):
        return not bound.any()
    return bound is not None and bound == 0


def _only_positive(passed: Sequence[Tensor | None], arrived: object) -> tuple[Tensor | None, ...]:
    """What a ReLU passes back, without its negative part."""
    return tuple(None if gradient is None else gradient.clamp(min=0) for gradient in passed)


def _counted(activations: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(activations.items()))


def _hidden(name: str) -> UsageError:
    what = {
        "CopySlices": "an operation in place on a part or a view of a tensor",
        "CompiledFunctionBackward": "a compiled part (pass the model as it was before torch.compile)",
        "CheckpointFunctionBackward": "a checkpointed part (turn checkpointing off, or use_reentrant=False)",
    }.get(name.rpartition("::")[2], f"an operation of its own ({name.removesuffix('Backward')})")
    return UsageError(
        f"guided backpropagation must see every ReLU, and {what} of the model may hide some; use --method gradcam or "
        f"--method smoothgrad"
    )
