"""Traps in what an explanation does to the model, to its inputs and to everything around it."""

import gc
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor, nn

from tests.benchmarks.explanation_peers import Tool
from tests.explain.trap_models import (
    CLASSES,
    Rectified,
    Small,
    four_images,
    plain_grad_cam,
    pooled,
    refused,
    require_close,
    small,
)


def explain(tool: Tool, model: Small, images: Tensor | None = None) -> Tensor:
    return tool.maps["gradcam"](model, model.block, four_images() if images is None else images, CLASSES)


def keeps(what: Callable[[Small], object], tool: Tool) -> None:
    """Something about a model in training mode, with a part at rest and a part frozen, is as before."""
    model = small().train()
    model.norm.eval()
    model.stem.requires_grad_(False)
    model.fc.weight.grad = torch.ones(5, 12)
    before = what(model)
    explain(tool, model)
    assert what(model) == before, "changed"


def modes(model: nn.Module) -> list[bool]:
    return [module.training for module in model.modules()]


def buffers(model: nn.Module) -> list[object]:
    return [buffer.tolist() for buffer in model.buffers()]


def parameter_gradients(model: nn.Module) -> list[object]:
    return [None if each.grad is None else each.grad.tolist() for each in model.parameters()]


def trainable(model: nn.Module) -> list[bool]:
    return [parameter.requires_grad for parameter in model.parameters()]


def hooks(model: nn.Module) -> list[int]:
    return [
        len(each._forward_hooks) + len(each._forward_pre_hooks) + len(each._backward_hooks) for each in model.modules()
    ]


def parts(model: nn.Module) -> list[tuple[int, object]]:
    return [(id(module), getattr(module, "inplace", None)) for module in model.modules()]


def predicts_at_rest(tool: Tool) -> None:
    model = small()
    expected = plain_grad_cam(model, model.block, four_images(), CLASSES)
    require_close(explain(tool, model.train()), expected)


def dropout_left_on(tool: Tool) -> None:
    model = small()
    expected = plain_grad_cam(model, model.block, four_images(), CLASSES)
    model.dropout.train()
    require_close(explain(tool, model), expected)


def frozen(tool: Tool) -> None:
    model = small()
    expected = plain_grad_cam(model, model.block, four_images(), CLASSES)
    require_close(explain(tool, model.requires_grad_(False)), expected)


def within(mode: Callable[[], torch.no_grad | torch.inference_mode], tool: Tool) -> None:
    model = small()
    expected = plain_grad_cam(model, model.block, four_images(), CLASSES)
    with mode():
        found = explain(tool, model, four_images() + 0)  # made in that mode, too
        assert not torch.is_grad_enabled(), "turns gradients on"
    require_close(found, expected)


def turns_gradients_off(tool: Tool) -> None:
    model = small()
    expected = plain_grad_cam(model, model.block, four_images(), CLASSES)
    model.forward = torch.no_grad()(model.forward)  # type: ignore[method-assign]
    require_close(explain(tool, model), expected)


def leaves_images(tool: Tool) -> None:
    leaf, plain = four_images().requires_grad_(), four_images()
    explain(tool, small(), leaf)
    explain(tool, small(), plain)
    assert (leaf.requires_grad, plain.requires_grad) == (True, False), "changes what asks for gradients"
    assert leaf.grad is None, "fills images.grad"
    assert torch.equal(leaf, plain), "changes the images"


def model_that_writes_into_its_input(tool: Tool) -> None:
    class Normalising(Small):
        def forward(self, images: Tensor) -> Tensor:
            found: Tensor = super().forward(images.sub_(0.5))
            return found

    model, images = Normalising().eval(), four_images()
    explain(tool, model, images)
    assert torch.equal(images, four_images()), "the caller's images are changed"


def leaves_random_numbers(tool: Tool) -> None:
    model = small()
    before = torch.get_rng_state()
    explain(tool, model)
    assert torch.equal(torch.get_rng_state(), before), "draws random numbers"


def failing(error: type[Exception]) -> Small:
    def after(model: Small, features: Tensor) -> Tensor:
        raise error("of the model")

    return small(after).train()


def exception_of_the_model(error: type[Exception], tool: Tool) -> None:
    model = failing(error)
    before = hooks(model), modes(model), trainable(model)
    try:
        explain(tool, model)
    except error:
        pass
    except Exception as other:
        raise AssertionError(f"becomes {type(other).__name__}") from other
    else:
        raise AssertionError("suppressed")
    gc.collect()  # hooks that hang on an object of the tool
    assert hooks(model) == before[0], "hooks remain"
    assert modes(model) == before[1], "the mode is not restored"
    assert trainable(model) == before[2], "requires_grad is not restored"


def exception_of_the_target(tool: Tool) -> None:
    def score(row: Tensor) -> Tensor:
        raise KeyError("of the target")

    model = small().train()
    before = hooks(model), modes(model), trainable(model)
    try:
        tool.of_scores(model, model.block, four_images(), score)
    except KeyError:
        pass
    else:
        raise AssertionError("suppressed")
    gc.collect()
    assert (hooks(model), modes(model), trainable(model)) == before, "the model is not as before"


def own_hooks(tool: Tool) -> None:
    """A hook that the user put on the layer changes what comes after it, and stays."""
    model = small()
    model.block.register_forward_hook(lambda module, inputs, output: 2 * output)
    before = hooks(model)
    expected = plain_grad_cam(model, model.block, four_images(), CLASSES)
    require_close(explain(tool, model), expected)
    gc.collect()
    assert hooks(model) == before, "the user's hook is gone"


def resident() -> float:
    """MB of this process."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * 4096 / 1e6


def repeats(count: int, tool: Tool) -> None:
    model, images = small(), four_images()
    for _ in range(20):
        explain(tool, model, images)
    gc.collect()
    before = resident()
    for _ in range(count):
        explain(tool, model, images)
    gc.collect()
    assert resident() - before <= 5, f"grows by {resident() - before:.0f} MB"


def fewer_classes(tool: Tool) -> None:
    model = small()
    with refused("maps without a word"):
        tool.maps["gradcam"](model, model.block, four_images(), [1])


def class_below_zero(tool: Tool) -> None:
    model = small()
    with refused("explains the last class"):
        tool.maps["gradcam"](model, model.block, four_images(), [-1, 0, 1, 2])


def layer_that_runs_twice(tool: Tool) -> None:
    model = small(lambda model, features: pooled(model, model.block(features)))
    with refused("a map without a word"):
        explain(tool, model)


def layer_that_does_not_run(tool: Tool) -> None:
    model = small()
    with refused("a map without a word"):
        tool.maps["gradcam"](model, model.spare, four_images(), CLASSES)


def layer_beside_the_way(tool: Tool) -> None:
    class Beside(Small):
        def forward(self, images: Tensor) -> Tensor:
            self.spare(images)
            found: Tensor = super().forward(images)
            return found

    model = Beside().eval()
    with refused("a map without a word"):
        tool.maps["gradcam"](model, model.spare, four_images(), CLASSES)


def integer_output(tool: Tool) -> None:
    model = small(lambda model, features: pooled(model, features).argsort(dim=1))
    with refused("a map without a word"):
        explain(tool, model)


def several_outputs(tool: Tool) -> None:
    """Right, as with a target that takes one of them, or refused."""
    model = small(lambda model, features: (pooled(model, features), features))
    with refused("a map without a word"):
        explain(tool, model)


def ablation_exception(tool: Tool) -> None:
    """The model fails when it runs the third time."""
    runs: list[int] = []

    def after(model: Small, features: Tensor) -> Tensor:
        runs.append(len(features))
        if len(runs) > 2:
            raise ZeroDivisionError
        found: Tensor = pooled(model, features.relu().square())
        return found

    model = small(after)
    before = parts(model), hooks(model)
    with suppress(ZeroDivisionError):
        tool.maps["ablationcam"](model, model.block, four_images(), CLASSES)
    gc.collect()
    assert parts(model) == before[0], "the layer stays replaced"
    assert hooks(model) == before[1], "hooks remain"


def guide(tool: Tool, model: nn.Module, images: Tensor) -> Tensor:
    return tool.maps["guided-backprop"](model, model, images, CLASSES)


def guided_keeps(what: Callable[[nn.Module], object], tool: Tool) -> None:
    model = Rectified(nn.ReLU(inplace=True)).eval()
    before = what(model)
    guide(tool, model, four_images())
    assert what(model) == before, "changed"


def guided_leaves_images(tool: Tool) -> None:
    images = four_images()
    guide(tool, Rectified(nn.ReLU()).eval(), images)
    assert not images.requires_grad, "the images are left asking for gradients"


def guided_exception(tool: Tool) -> None:
    class Failing(nn.Linear):
        def forward(self, features: Tensor) -> Tensor:
            raise ZeroDivisionError

    model = Rectified(nn.ReLU(inplace=True)).eval()
    model.fc = Failing(8, 5)
    before = parts(model), hooks(model)
    with refused("suppressed"):
        guide(tool, model, four_images())
    assert (parts(model), hooks(model)) == before, "modules stay replaced"
