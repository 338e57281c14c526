"""Which weights move, how, and how fast."""

import math

import torch
from torch import nn

from evalcam_cli.config import TrainConfig


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """AdamW, or SGD with Nesterov momentum, over the parameters that are not frozen.

    Biases and batch-norm parameters (all with one dimension) are not decayed: Goyal et al. 2017, "Accurate, Large
    Minibatch SGD", section 5.3; He et al. 2019, "Bag of Tricks", section 3.1.
    """
    moving = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [parameter for parameter in moving if parameter.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [parameter for parameter in moving if parameter.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=config.momentum > 0)
    return torch.optim.AdamW(groups, lr=config.lr)


def learning_rate(step: int, steps_per_epoch: int, config: TrainConfig) -> float:
    """The rate of a step (from 0): a linear warm-up to `lr`, then a cosine towards 0, or constant.

    Cosine: Loshchilov & Hutter 2017, "SGDR", equation 5 without restarts.
    """
    warmup = config.warmup_epochs * steps_per_epoch
    if step < warmup:
        return config.lr * min(1.0, (step + 1) / warmup)
    if config.schedule == "constant":
        return config.lr
    total = config.epochs * steps_per_epoch
    return config.lr * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


def class_weights(targets: list[int], class_count: int, mode: str) -> torch.Tensor | None:
    """(K,) weights of the loss: inverse class frequency, mean 1 over the images; None for `none`."""
    if mode == "none":
        return None
    counts = torch.bincount(torch.tensor(targets), minlength=class_count).double()
    return (len(targets) / (class_count * counts.clamp(min=1))).float()
