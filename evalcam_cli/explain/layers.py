"""Which module of a network is explained."""

from collections.abc import Mapping

from torch import nn

from evalcam_cli.errors import UsageError
from evalcam_cli.text import did_you_mean


class LayerError(UsageError):
    """The layer cannot be explained: its output is no feature map, or it does not run exactly once."""


def find_layers(model: nn.Module, name: str | None = None) -> tuple[str, tuple[nn.Module, ...]]:
    """The modules of this name, by default the last stage of a ResNet, `layer4`; with their name.

    Args:
        model: Any network.
        name: As in `model.named_modules()`; several, joined by `+`, are to be fused.

    Raises:
        UsageError: There is no such module, or one is named twice.
    """
    modules = {path: module for path, module in model.named_modules() if path}
    name = _last_stage(model, modules) if name is None else name
    parts = name.split("+")
    for part in parts:
        if part not in modules:
            raise UsageError(f"the model has no layer {part!r}{did_you_mean(part, modules)}")
    if len(set(parts)) < len(parts):
        raise UsageError(f"--layer {name}: a layer is named twice")
    return name, tuple(modules[part] for part in parts)


def _last_stage(model: nn.Module, modules: Mapping[str, nn.Module]) -> str:
    if "layer4" in modules:
        return "layer4"
    convolutions = [path for path, module in modules.items() if isinstance(module, nn.Conv2d)]
    example = f", e.g. {convolutions[-1]!r}" if convolutions else ""
    raise UsageError(f"{type(model).__name__} has no layer4 to explain; choose a layer with --layer{example}")


def layer_name(model: nn.Module, layer: nn.Module) -> str:
    """The layer in a message."""
    names = (name for name, module in model.named_modules() if module is layer)
    return f"layer {next(names, type(layer).__name__)!r}"
