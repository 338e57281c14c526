"""Networks with random weights and settled batch norm, and what an explanation could leave behind in them."""

import copy
import functools
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import mobilenet_v2, resnet18
from torchvision.models.vgg import cfgs, make_layers

CLASSES = 6


class Capped(nn.ReLU):
    """ReLU6 as captum recognises a ReLU."""

    def forward(self, values: Tensor) -> Tensor:
        return functional.relu6(values)


class Functional(nn.Module):
    """A small classifier without modules for its activations; it writes into its input."""

    def __init__(self, activation: Callable[[Tensor], Tensor] = functional.relu) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, padding=1)
        self.second = nn.Conv2d(6, 8, 3, stride=2, padding=1)
        self.head = nn.Linear(8, CLASSES)
        self.activation = activation

    def forward(self, images: Tensor) -> Tensor:
        images.mul_(0.5)
        features = self.activation(self.second(self.activation(self.first(images))))
        return cast(Tensor, self.head(features.mean(dim=(2, 3))))


class Residual(nn.Module):
    """Stem and one residual block as in a ResNet: batch norm, and one ReLU that runs in place three times."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8)
        self.layer1 = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8))
        self.layer2 = nn.Conv2d(8, 8, 3, stride=2, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.dropout = nn.Dropout()
        self.fc = nn.Linear(8, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        features = self.relu(self.norm(self.stem(images)))
        features = self.relu(self.layer1(features) + features)
        features = self.relu(self.layer2(features))
        return cast(Tensor, self.fc(self.dropout(features.mean(dim=(2, 3)))))


class Conditioned(nn.Module):
    """A further input, one row per image, scales the features; the output is a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3, padding=1)
        self.head = nn.Linear(4, 3)

    def forward(self, images: Tensor, scale: Tensor) -> dict[str, Tensor]:
        features = functional.relu(self.convolution(images)).mean(dim=(2, 3))
        return {"answers": self.head(features * scale)}


def _resnet() -> nn.Module:
    return cast(nn.Module, resnet18(weights=None, num_classes=CLASSES))


def _vgg() -> nn.Module:
    return nn.Sequential(
        make_layers(cfgs["D"]), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        nn.Linear(2048, 32), nn.ReLU(inplace=True), nn.Dropout(), nn.Linear(32, CLASSES),
    )  # fmt: skip


def _mobilenet() -> nn.Module:
    return cast(nn.Module, mobilenet_v2(weights=None, num_classes=CLASSES))


NETWORKS = {"ResNet-18": _resnet, "VGG-16": _vgg, "MobileNet-V2": _mobilenet}
_BUILDERS: dict[str, Callable[[], nn.Module]] = {**NETWORKS, "residual": Residual}


def build(name: str, dtype: torch.dtype = torch.float64) -> nn.Module:
    return copy.deepcopy(_built(name)).to(dtype)


@functools.cache
def _built(name: str) -> nn.Module:
    torch.manual_seed(0)
    model = _BUILDERS[name]()
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    if any(isinstance(module, nn.BatchNorm2d) for module in model.modules()):
        with torch.no_grad():
            for _ in range(3):
                model(torch.randn(6, 3, 40, 40))
    return model.eval()


def make_images(count: int = 3, side: int = 40, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(1)).to(dtype)


def state_of(model: nn.Module) -> dict[str, object]:
    """Everything an explanation could leave behind."""
    modules = dict(model.named_modules())
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return {
        "values": {name: value.double().sum().item() for name, value in model.state_dict().items()},
        "versions": {name: value._version for name, value in model.named_parameters()},
        "modes": {name: module.training for name, module in modules.items()},
        "in place": {name: getattr(module, "inplace", None) for name, module in modules.items()},
        "identities": {name: id(module) for name, module in modules.items()},
        "hooks": {name: [len(getattr(module, kind)) for kind in hooks] for name, module in modules.items()},
        "trainable": {name: parameter.requires_grad for name, parameter in model.named_parameters()},
        "gradients": {name: parameter.grad for name, parameter in model.named_parameters()},
        "autograd": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
    }


def difference(values: Tensor, wanted: Tensor) -> float:
    """The largest difference, as a share of the largest value wanted."""
    return float((values - wanted).abs().max() / wanted.abs().max())
