"""Which weights move, how, and how fast."""

import math
from collections.abc import Iterable

import torch
from torch import nn

from evalcam_cli.config import TrainConfig
from evalcam_cli.models.architectures import STAGES, STEM


def make_optimizer(model: nn.Module, config: TrainConfig, *, never: Iterable[nn.Module] = ()) -> torch.optim.Optimizer:
    """AdamW, or SGD with Nesterov momentum, over the parameters that are not frozen for good.

    Biases and batch-norm parameters (all with one dimension) are not decayed: Goyal et al. 2017, "Accurate, Large
    Minibatch SGD", section 5.3; He et al. 2019, "Bag of Tricks", section 3.1. Each stage has its share of the learning
    rate (`stage_lr`): Howard & Ruder 2018, "Universal Language Model Fine-tuning", section 3.2.

    Args:
        model: From `build_model`.
        config: Of training.
        never: Modules whose parameters stay as they are throughout.
    """
    fixed = {id(parameter) for module in never for parameter in module.parameters()}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if id(parameter) not in fixed:
            decay = config.weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((rate_share(name, config.stage_lr), decay), []).append(parameter)
    listed = [
        {"params": parameters, "weight_decay": decay, "share": share} for (share, decay), parameters in groups.items()
    ]
    if config.optimizer == "sgd":
        return torch.optim.SGD(listed, lr=config.lr, momentum=config.momentum, nesterov=config.momentum > 0)
    return torch.optim.AdamW(listed, lr=config.lr, fused=True)


def rate_share(name: str, factor: float) -> float:
    """The share of the learning rate that a parameter trains with: `factor` to the power of its stage's distance.

    Args:
        name: Of the parameter, such as `layer3.0.conv1.weight`; what belongs to no stage is of the head.
        factor: `train.stage_lr`.
    """
    stage = name.partition(".")[0]
    stage = "stem" if stage in STEM else stage
    return factor ** (len(STAGES) - STAGES.index(stage)) if stage in STAGES else 1.0


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Let the head train with this rate, and each stage with its share of it."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["share"]


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
