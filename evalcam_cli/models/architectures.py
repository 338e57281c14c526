"""The networks that evalcam trains: torchvision's ResNets, by name, with a head for the data's classes."""

from collections.abc import Callable

import torchvision.models as zoo
from torch import nn

from evalcam_cli.config import ARCHS
from evalcam_cli.errors import UsageError
from evalcam_cli.text import did_you_mean, shown

# A fixed table: a name in a config or a checkpoint selects one of these and nothing else.
_CONSTRUCTORS: dict[str, Callable[..., nn.Module]] = {
    "resnet18": zoo.resnet18,
    "resnet34": zoo.resnet34,
    "resnet50": zoo.resnet50,
    "resnet101": zoo.resnet101,
    "resnet152": zoo.resnet152,
    "resnext50_32x4d": zoo.resnext50_32x4d,
    "resnext101_32x8d": zoo.resnext101_32x8d,
    "resnext101_64x4d": zoo.resnext101_64x4d,
    "wide_resnet50_2": zoo.wide_resnet50_2,
    "wide_resnet101_2": zoo.wide_resnet101_2,
}
STAGES = ("stem", "layer1", "layer2", "layer3", "layer4")
STEM = ("conv1", "bn1")
"""The modules before the first stage."""
HEAD = "fc"


def build_model(arch: str, class_count: int, *, last_stride: int = 2) -> nn.Module:
    """A randomly initialised ResNet from (N, 3, H, W) images to (N, K) logits.

    Args:
        arch: A name of `config.ARCHS`.
        class_count: K.
        last_stride: 1 keeps the last stage at the resolution of the one before, so its maps are twice as fine; the
            weights have the same shapes either way.

    Raises:
        UsageError: There is no such architecture.
    """
    if arch not in _CONSTRUCTORS:
        raise UsageError(f"unknown architecture {shown(arch)!r}{did_you_mean(arch, ARCHS)}")
    model = _CONSTRUCTORS[arch](weights=None, num_classes=class_count)
    if last_stride == 1:
        _undo_last_stride(model)
    return model


def _undo_last_stride(model: nn.Module) -> None:
    for module in model.get_submodule("layer4.0").modules():
        if isinstance(module, nn.Conv2d) and module.stride == (2, 2):
            module.stride = (1, 1)


def frozen_modules(model: nn.Module, upto: str | None) -> list[nn.Module]:
    """The modules up to and including a stage, in order; none for None."""
    if upto is None:
        return []
    stages = [model.get_submodule(name) for name in STAGES[1 : STAGES.index(upto) + 1]]
    return [*(model.get_submodule(name) for name in STEM), *stages]


def still_frozen(upto: str | None, thaw_every: int, epoch: int) -> str | None:
    """The last stage that is frozen in an epoch, when one more is freed, from the head down, every so many epochs.

    Args:
        upto: The last stage that is frozen at the beginning.
        thaw_every: Epochs between; 0 frees none.
        epoch: From 0.
    """
    if upto is None or thaw_every == 0:
        return upto
    left = STAGES.index(upto) + 1 - epoch // thaw_every
    return STAGES[left - 1] if left > 0 else None
