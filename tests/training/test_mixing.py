"""Blended images and the share of each."""

import numpy as np
import pytest
import torch

from evalcam_cli.config import TrainConfig
from evalcam_cli.training.mixing import Mixture, mix

IMAGES = torch.arange(6, dtype=torch.float32).view(6, 1, 1, 1).expand(6, 3, 16, 16).contiguous()  # image i is i


def values(images: torch.Tensor) -> set[float]:
    return set(images.flatten().tolist())


def mixed(config: TrainConfig, step: int = 0) -> Mixture:
    mixture = mix(IMAGES, config, (0, 0, step))
    assert mixture is not None
    return mixture


def test_nothing_is_mixed_unless_asked_for() -> None:
    assert mix(IMAGES, TrainConfig(), (0,)) is None


@pytest.mark.parametrize("step", range(5))
def test_mixup_blends_each_image_with_its_partner_by_the_share(step: int) -> None:
    mixture = mixed(TrainConfig(mixup=1.0), step)

    expected = mixture.share * torch.arange(6.0) + (1 - mixture.share) * mixture.partners
    torch.testing.assert_close(mixture.images[:, 0, 3, 7], expected)
    assert sorted(mixture.partners.tolist()) == list(range(6))


@pytest.mark.parametrize("step", range(20))
def test_cutmix_pastes_as_many_pixels_of_the_partner_as_its_share_says(step: int) -> None:
    mixture = mixed(TrainConfig(cutmix=1.0), step)

    for index, partner in enumerate(mixture.partners.tolist()):
        if partner != index:
            own = (mixture.images[index, 0] == index).double().mean().item()
            assert own == pytest.approx(mixture.share)
            assert values(mixture.images[index]) <= {index, partner}


def test_the_share_of_mixup_has_the_beta_distribution() -> None:
    """Beta(a, a) has mean 1/2 and variance 1 / (4 (2a + 1)): 1/12 for a = 1."""
    shares = np.array([mixed(TrainConfig(mixup=1.0), step).share for step in range(2000)])

    assert abs(shares.mean() - 0.5) < 4 * (1 / 12 / 2000) ** 0.5
    assert abs(shares.var() - 1 / 12) < 0.006


def test_with_both_each_batch_draws_one_of_them() -> None:
    whole = [mixed(TrainConfig(mixup=1.0, cutmix=1.0), step) for step in range(200)]

    cut = sum(values(one.images) <= set(range(6)) for one in whole)
    assert abs(cut - 100) < 4 * 50**0.5


def test_the_draw_depends_on_the_key_alone() -> None:
    torch.manual_seed(1)
    first = mixed(TrainConfig(cutmix=0.5), 3)
    torch.manual_seed(2)

    assert torch.equal(first.images, mixed(TrainConfig(cutmix=0.5), 3).images)
    assert not torch.equal(first.partners, mixed(TrainConfig(cutmix=0.5), 4).partners)
    assert torch.equal(IMAGES[:, 0, 0, 0], torch.arange(6.0))  # the batch itself is left alone
