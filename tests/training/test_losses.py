"""The loss of each image, against torch and against the papers' formulas by hand."""

import math

import pytest
import torch
from torch.nn import functional

from evalcam_cli.config import TrainConfig
from evalcam_cli.training.losses import image_losses, total_weight

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.0, 0.0, 0.0], [-3.0, 4.0, 1.0], [1.0, 1.5, -2.0]])
TARGETS = torch.tensor([0, 2, 0, 1])


@pytest.mark.parametrize("weights", [None, torch.tensor([0.5, 1.0, 3.0])])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_sum_over_the_total_weight_is_torch_s_mean(weights: torch.Tensor | None, smoothing: float) -> None:
    losses = image_losses(LOGITS, TARGETS, TrainConfig(label_smoothing=smoothing), weights)

    expected = functional.cross_entropy(LOGITS, TARGETS, weights, label_smoothing=smoothing)
    torch.testing.assert_close(losses.sum() / total_weight(TARGETS, weights), expected)


def test_focal_loss_by_hand() -> None:
    """Two classes at p = 0.8 and p = 0.2: (1 - p)^2 * -log p (Lin et al. 2017, equation 4)."""
    logits = torch.tensor([[math.log(0.8), math.log(0.2)]] * 2)

    losses = image_losses(logits, torch.tensor([0, 1]), TrainConfig(loss="focal", focal_gamma=2.0), None)

    torch.testing.assert_close(losses, torch.tensor([0.04 * -math.log(0.8), 0.64 * -math.log(0.2)]))


def test_without_gamma_the_focal_loss_is_cross_entropy() -> None:
    plain = image_losses(LOGITS, TARGETS, TrainConfig(), None)

    assert torch.equal(image_losses(LOGITS, TARGETS, TrainConfig(loss="focal", focal_gamma=0), None), plain)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_a_certain_image_has_no_focal_loss_and_a_finite_gradient(gamma: float) -> None:
    logits = torch.tensor([[60.0, -60.0]], requires_grad=True)

    (gradient,) = torch.autograd.grad(
        image_losses(logits, torch.tensor([0]), TrainConfig(loss="focal", focal_gamma=gamma), None).sum(), logits
    )

    assert torch.isfinite(gradient).all()
