from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from evalcam_cli.errors import UsageError
from evalcam_cli.explain.pixel_gradients import (
    gradient,
    gradient_attributions,
    integrated_gradient_attributions,
    integrated_gradients,
    smooth_grad,
    smooth_grad_attributions,
)
from evalcam_cli.explain.targets import of_classes
from tests.explain.networks import NETWORKS, Functional, build, difference, make_images

CLASS_INDICES = torch.tensor([[0, 3], [4, 1], [2, 2]])


class Polynomial(nn.Module):
    """Class 0 scores half the sum of squares, whose gradient is the image; class 1 is linear with slope 3."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.stack([images.square().sum(dim=(1, 2, 3)) / 2, 3 * images.sum(dim=(1, 2, 3)) + 7], dim=1)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NETWORKS)
def test_the_gradient_equals_captum(name: str) -> None:
    captum = pytest.importorskip("captum.attr")
    model, images = build(name), make_images(2, 32)

    found = gradient_attributions(model, images, of_classes(CLASS_INDICES[:2])).values

    for place in range(2):
        wanted = captum.Saliency(model).attribute(images, target=CLASS_INDICES[:2, place], abs=False)
        assert difference(found[:, place], wanted) <= 1e-12


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "rule", "peers"),
    [
        ("ResNet-18", "gauss-legendre", "gausslegendre"),
        ("VGG-16", "midpoint", "riemann_middle"),
        ("MobileNet-V2", "midpoint", "riemann_middle"),
    ],
)
def test_integrated_gradients_equal_captum(name: str, rule: Literal["gauss-legendre", "midpoint"], peers: str) -> None:
    captum = pytest.importorskip("captum.attr")
    model, images = build(name), make_images(2, 32)

    found = integrated_gradient_attributions(
        model, images, of_classes(CLASS_INDICES[:2]), baseline=0.3, steps=3, rule=rule
    ).values

    wanted = captum.IntegratedGradients(model).attribute(
        images, baselines=0.3, target=CLASS_INDICES[:2, 1], n_steps=3, method=peers
    )
    assert difference(found[:, 1], wanted) <= 1e-11


def test_integrated_gradients_sum_to_the_score_above_the_baseline() -> None:
    """Proposition 1; two points of Gauss and Legendre are exact for a quadratic score."""
    images = make_images(side=4)

    found = integrated_gradients(Polynomial(), images, of_classes([[0, 1]] * 3), baseline=1.0, steps=2)

    gained = torch.stack([(images**2 - 1).sum(dim=(1, 2, 3)) / 2, 3 * (images - 1).sum(dim=(1, 2, 3))], dim=1)
    torch.testing.assert_close(found.maps.sum(dim=(2, 3)), gained)
    assert found.gap is not None
    assert found.gap.abs().max() < 1e-12


def test_the_gap_of_integrated_gradients_is_what_their_sum_misses() -> None:
    model, images = build("residual"), make_images()

    coarse = integrated_gradients(model, images, of_classes(CLASS_INDICES), steps=3)

    gained = (model(images) - model(torch.zeros_like(images))).gather(1, CLASS_INDICES).detach()
    assert coarse.gap is not None
    torch.testing.assert_close(coarse.gap, coarse.maps.sum(dim=(2, 3)) - gained)
    assert f"within {float(coarse.gap.abs().max()):.2g}" in coarse.note
    fine = integrated_gradients(model, images, of_classes(CLASS_INDICES), steps=100)
    assert fine.gap is not None
    assert fine.gap.abs().max() < coarse.gap.abs().max() / 3


def test_smoothgrad_without_noise_is_the_gradient() -> None:
    model, images = build("residual"), make_images()

    found = smooth_grad(model, images, of_classes(CLASS_INDICES), copies=3, noise=0)

    torch.testing.assert_close(found.maps, gradient(model, images, of_classes(CLASS_INDICES)).maps)


def test_the_noise_of_smoothgrad_is_a_share_of_each_image_range_and_independent_between_copies() -> None:
    """The gradient of half the square is the noisy image itself, so what is left is the mean noise."""
    images = make_images(side=60) * torch.tensor([1.0, 10.0, 0.1])[:, None, None, None]
    ranges = images.amax(dim=(1, 2, 3)) - images.amin(dim=(1, 2, 3))

    found = smooth_grad_attributions(Polynomial(), images, of_classes([[0]] * 3), copies=4, noise=0.2).values[:, 0]

    deviations = (found - images).std(dim=(1, 2, 3))
    torch.testing.assert_close(deviations, 0.2 * ranges / 4**0.5, rtol=0.03, atol=0)
    assert (found - images).mean().abs() < 0.02 * deviations.max()


def test_smoothgrad_depends_on_the_image_and_the_seed_and_on_nothing_beside_them() -> None:
    model, images = build("residual"), make_images()
    together = smooth_grad(model, images, of_classes(CLASS_INDICES), copies=5).maps

    backwards = smooth_grad(model, images.flip(0), of_classes(CLASS_INDICES.flip(0)), copies=5, rows=1).maps
    alone = smooth_grad(model, images[1:2], of_classes(CLASS_INDICES[1:2]), copies=5, rows=3).maps
    other = smooth_grad(model, images, of_classes(CLASS_INDICES), copies=5, seed=1).maps

    assert difference(backwards.flip(0), together) < 1e-12
    assert difference(alone, together[1:2]) < 1e-12
    assert difference(other, together) > 0.01


def test_an_image_of_one_colour_gets_no_noise() -> None:
    images = torch.full((1, 3, 6, 6), 0.5, dtype=torch.float64)

    assert (smooth_grad_attributions(Polynomial(), images, of_classes([[0]]), copies=2).values == 0.5).all()


@pytest.mark.parametrize("options", [{"copies": 0}, {"noise": -0.1}])
def test_smoothgrad_out_of_range_is_refused(options: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="SmoothGrad"):
        smooth_grad(Polynomial(), make_images(), of_classes([[0]] * 3), **options)


def test_integrated_gradients_without_steps_are_refused() -> None:
    with pytest.raises(UsageError, match="at least 1"):
        integrated_gradients(Polynomial(), make_images(), of_classes([[0]] * 3), steps=0)


def test_a_score_without_gradient_is_refused() -> None:
    class Closed(Functional):
        @torch.no_grad()
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images)

    for method in (gradient, smooth_grad, integrated_gradients):
        with pytest.raises(UsageError, match="cannot be differentiated by the image"):
            method(Closed().double(), make_images(side=8), of_classes(CLASS_INDICES))
