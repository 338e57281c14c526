"""A model that is asked and left exactly as it was."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

Inputs = Tensor | tuple[Tensor, ...]
"""What a model is called with: a batch of images, or this and further tensors with a row per image."""


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode, with autograd on and no parameter asking for a gradient.

    Batch-norm statistics and dropout are thereby at rest, and a graph begins only where an explanation begins it. Each
    module's mode, each parameter's `requires_grad` and the caller's grad or inference mode are as before afterwards,
    also after an exception, which passes through.
    """
    modes = [(module, module.training) for module in model.modules()]
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    with torch.inference_mode(False), torch.enable_grad():
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


def as_tuple(inputs: Inputs) -> tuple[Tensor, ...]:
    """Copies of the inputs to call the model with, which may write into them; free of any graph and inference mode."""
    tensors = inputs if isinstance(inputs, tuple) else (inputs,)
    return tuple(tensor.detach().clone() for tensor in tensors)
