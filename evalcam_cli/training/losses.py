"""The loss of each image."""

import torch
from torch import Tensor
from torch.nn import functional

from evalcam_cli.config import TrainConfig


def image_losses(logits: Tensor, targets: Tensor, config: TrainConfig, class_weights: Tensor | None) -> Tensor:
    """(N,) what each image adds to the loss, in nats times the weight of its class.

    Cross entropy, with label smoothing (Szegedy et al. 2016, section 7), or the focal loss: cross entropy times
    (1 - p) ** gamma, where p is the probability of the true class (Lin et al. 2017, equation 4).

    Args:
        logits: (N, K).
        targets: (N,) class indices.
        config: Its `loss`, `focal_gamma` and `label_smoothing` count.
        class_weights: (K,), or None for 1.
    """
    losses = functional.cross_entropy(
        logits, targets, class_weights, label_smoothing=config.label_smoothing, reduction="none"
    )
    if config.loss == "cross_entropy":
        return losses
    # from float32, because 1 - p of a nearly certain image has no digits left in half precision
    log_p = functional.log_softmax(logits.float(), dim=1).gather(1, targets.unsqueeze(1)).squeeze(1)
    # and above 0, where a power below 1 has no finite slope
    return losses * (-torch.expm1(log_p)).clamp_min(torch.finfo(torch.float32).tiny).pow(config.focal_gamma)


def total_weight(targets: Tensor, class_weights: Tensor | None) -> float:
    """What the sum of the losses of these images is divided by: their number, or the sum of their classes' weights."""
    return float(len(targets)) if class_weights is None else float(class_weights.cpu()[targets].sum())
