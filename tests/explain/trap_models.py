"""Small networks for the traps, and what must be true of a model and its maps afterwards."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.benchmarks.explanation_peers import activations_and_gradients, largest_difference

CLASSES = [3, 0, 4, 1]
"""Of the four images that are explained."""
BOUND = 2e-5
"""Largest difference of a float32 map, as a share of its largest magnitude."""


class Small(nn.Module):
    """A stem, a block that is explained, and whatever comes after the block."""

    def __init__(self, after: Callable[["Small", Tensor], Any] | None = None) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.conv, self.norm, self.relu = nn.Conv2d(8, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(inplace=True)
        self.block = nn.Sequential(nn.Conv2d(12, 12, 3, stride=2, padding=1), nn.BatchNorm2d(12), nn.ReLU())
        self.dropout, self.fc = nn.Dropout(0.5), nn.Linear(12, 5)
        self.spare = nn.Conv2d(3, 4, 3)
        self.after = pooled if after is None else after

    def forward(self, images: Tensor) -> Any:
        return self.after(self, self.block(self.relu(self.norm(self.conv(self.stem(images))))))


def pooled(model: Small, features: Tensor) -> Any:
    """Global average pooling, dropout and a linear layer."""
    return model.fc(model.dropout(features.mean(dim=(2, 3))))


def small(after: Callable[[Small, Tensor], Any] | None = None, **modules: nn.Module) -> Small:
    """With batch-norm statistics of noise, in evaluation mode; further modules replace those of these names."""
    torch.manual_seed(0)
    model = Small(after)
    for name, module in modules.items():
        setattr(model, name, module)
    with torch.no_grad():
        for _ in range(3):
            model.block(model.relu(model.norm(model.conv(model.stem(torch.randn(8, 3, 32, 32))))))
        if isinstance(model.fc, nn.Linear):
            nn.init.normal_(model.fc.weight, std=0.3)
    return model.eval()


def four_images(side: int = 32, *, width: int | None = None) -> Tensor:
    return torch.randn(4, 3, side, width or side, generator=torch.Generator().manual_seed(1))


def plain_grad_cam(model: nn.Module, layer: nn.Module, images: Tensor, classes: Sequence[int]) -> Tensor:
    """Equations 1 and 2 of the paper, by the graph of the whole network."""
    activations, gradients = activations_and_gradients(model, layer, images, classes)
    return (gradients.mean(dim=(2, 3), keepdim=True) * activations).sum(dim=1)


def require_close(found: Tensor, wanted: Tensor, bound: float = BOUND) -> None:
    assert found.shape == wanted.shape, f"shape {tuple(found.shape)} instead of {tuple(wanted.shape)}"
    difference = largest_difference(found.detach(), wanted.detach())
    assert difference <= bound, "differs by more than the map" if difference > 1 else f"off by {100 * difference:.2g} %"


@contextmanager
def refused(what: str) -> Iterator[None]:
    """Fails with what was done instead of raising."""
    try:
        yield
    except Exception:
        return
    raise AssertionError(what)


class GuidedReLU(torch.autograd.Function):
    """Springenberg et al. 2015, section 3.4, written down by itself."""

    @staticmethod
    def forward(context: Any, values: Tensor) -> Tensor:
        context.save_for_backward(values)
        return functional.relu(values)

    @staticmethod
    def backward(context: Any, arriving: Tensor) -> Tensor:
        (values,) = context.saved_tensors
        passed: Tensor = arriving * (values > 0) * (arriving > 0)
        return passed


class Rectified(nn.Module):
    """Three convolutions with a ReLU after each, spelled in a way of its own."""

    def __init__(self, rectify: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.convs = nn.ModuleList([nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3)])
        self.fc = nn.Linear(8, 5)
        self.rectify = rectify

    def forward(self, images: Tensor) -> Tensor:
        features = images
        for conv in self.convs:
            features = self.rectify(conv(features))
        logits: Tensor = self.fc(features.mean(dim=(2, 3)))
        return logits


def guided_gradients(images: Tensor, classes: Sequence[int]) -> Tensor:
    """(N, 3, H, W) of a `Rectified`, by `GuidedReLU`."""
    leaf = images.clone().requires_grad_()
    logits = Rectified(GuidedReLU.apply)(leaf)
    (found,) = torch.autograd.grad(logits.gather(1, torch.tensor(list(classes))[:, None]).sum(), leaf)
    return found
