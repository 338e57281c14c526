"""Eigen-CAM against a singular value decomposition, hand cases for what the mathematics leaves open, and a peer."""

from typing import cast

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from evalcam_cli.explain.eigen import eigen_cam, project
from evalcam_cli.explain.layers import LayerError
from evalcam_cli.explain.targets import of_classes
from tests.explain.test_maps import assert_same_state, state_of


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Sequential(nn.Conv2d(3, 20, 3, stride=2, padding=1), nn.BatchNorm2d(20), nn.ReLU())
        self.head = nn.Linear(20, 4)

    def forward(self, images: Tensor) -> Tensor:
        return cast(Tensor, self.head(self.layer(images).mean(dim=(2, 3))))


@pytest.fixture
def images() -> Tensor:
    return torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def random(*shape: int, seed: int = 0) -> Tensor:
    """Activations as after a ReLU, in double precision."""
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).relu()


def by_svd(activations: Tensor) -> Tensor:
    """(N, h, w) by the definition, of the sign at which they grow with the mean activation."""
    maps = []
    for each in activations.double():
        matrix = each.flatten(1).T
        centred = matrix - matrix.mean(dim=0)
        _, _, rows = torch.linalg.svd(centred, full_matrices=False)
        projected = centred @ rows[0]
        maps.append((projected * (projected * matrix.mean(dim=1)).sum().sign()).view(each.shape[1:]))
    return torch.stack(maps)


@pytest.mark.parametrize("shape", [(3, 64, 4, 5), (2, 6, 7, 8), (2, 12, 3, 4), (2, 3, 1, 2)])
def test_equals_the_singular_value_decomposition(shape: tuple[int, ...]) -> None:
    """With more channels than places, fewer, and as many."""
    activations = random(*shape)

    maps, note = project(activations)

    wanted = by_svd(activations)
    torch.testing.assert_close(maps, wanted, rtol=0, atol=1e-12 * float(wanted.abs().max()))
    assert note == ""


def test_single_precision_loses_nothing_but_its_rounding() -> None:
    activations = random(2, 512, 7, 7)

    maps, _ = project(activations.float())

    wanted = by_svd(activations)
    torch.testing.assert_close(maps, wanted, rtol=0, atol=1e-6 * float(wanted.abs().max()))


def test_a_pattern_that_all_channels_share_is_the_map() -> None:
    """Channels a_k + b_k p of one pattern p have the first component b / |b|, so the map is |b| (p - mean of p)."""
    pattern = torch.tensor([[0.0, 1.0], [2.0, 5.0]], dtype=torch.float64)
    strengths, offsets = torch.tensor([3.0, 4.0, 0.0]), torch.tensor([1.0, -2.0, 7.0])
    activations = offsets[:, None, None] + strengths[:, None, None] * pattern

    maps, note = project(activations[None].double())

    torch.testing.assert_close(maps[0], 5 * (pattern - 2))
    assert note == ""


def test_a_pattern_that_lowers_the_mean_activation_is_negative_where_it_is_strong() -> None:
    pattern = torch.tensor([[0.0, 0.0], [0.0, 4.0]], dtype=torch.float64)

    maps, _ = project(torch.stack([9 - 3 * pattern, 4 * pattern / 4])[None])

    assert maps[0, 1, 1] < 0 < maps[0, 0, 0]


def test_unrelated_to_the_mean_activation_the_largest_magnitude_is_positive() -> None:
    """Two channels that are opposites have the same mean everywhere."""
    pattern = torch.tensor([[0.0, 0.0], [0.0, 4.0]], dtype=torch.float64)

    for one, other in ((pattern, -pattern), (-pattern, pattern)):
        maps, note = project(torch.stack([one, other])[None])

        torch.testing.assert_close(maps[0], 2**0.5 * (pattern - 1))
        assert note == ""


def test_the_sign_does_not_depend_on_the_order_of_channels_or_on_the_other_images() -> None:
    activations = random(4, 30, 5, 5)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(2))
    maps, _ = project(activations)

    torch.testing.assert_close(project(activations[:, order])[0], maps)
    torch.testing.assert_close(project(activations[2:3])[0], maps[2:3])
    torch.testing.assert_close(project(activations.flip(3))[0], maps.flip(2))
    torch.testing.assert_close(project(3 * activations + 1)[0], 3 * maps)


def test_two_components_that_explain_equally_much_are_named() -> None:
    """Two channels, each at a place of its own and equally strong: their difference and any other mixture with it."""
    activations = random(2, 3, 2, 2)
    activations[0] = 0
    activations[0, 0, 0] = torch.tensor([1.0, -1.0])
    activations[0, 1, 1] = torch.tensor([1.0, -1.0])

    maps, note = project(activations)

    assert note.startswith("in 1 of 2 images two principal components explain equally much")
    assert maps.isfinite().all()


def test_activations_that_are_the_same_at_all_places_give_zeros() -> None:
    activations = random(2, 3, 4, 4)
    activations[1] = torch.tensor([0.1, 0.7, 3.3])[:, None, None]

    maps, note = project(activations)

    assert maps[0].abs().max() > 0
    assert (maps[1] == 0).all()
    assert note == "in 1 of 2 images the activations are the same at all places: a map of zeros"
    assert (project(torch.ones(1, 5, 1, 1))[0] == 0).all()


def test_activations_that_are_not_finite_give_nan_and_leave_the_other_images_alone() -> None:
    activations = random(3, 5, 4, 4)
    wanted, _ = project(activations)
    activations[1, 2, 3, 3] = torch.inf

    maps, _ = project(activations)

    assert maps[1].isnan().all()
    torch.testing.assert_close(maps[[0, 2]], wanted[[0, 2]])


def test_all_scores_of_an_image_have_the_same_map(images: Tensor) -> None:
    model = Small().eval()

    found = eigen_cam(model, model.layer, images, of_classes([[0, 3], [1, 0], [2, 2]]))

    assert found.maps.shape == (3, 2, 8, 8)
    assert found.maps.dtype == torch.float32
    assert torch.equal(found.maps[:, 0], found.maps[:, 1])
    torch.testing.assert_close(found.scores, model(images).gather(1, torch.tensor([[0, 3], [1, 0], [2, 2]])).detach())
    wanted = by_svd(model.layer(images).detach()).float()
    torch.testing.assert_close(found.maps[:, 0], wanted, rtol=0, atol=1e-6 * float(wanted.abs().max()))


def test_the_model_is_left_as_it_was(images: Tensor) -> None:
    model = Small().train()
    before = state_of(model)

    with torch.inference_mode():
        eigen_cam(model, model.layer, images, of_classes([[0]] * 3))

    assert_same_state(before, state_of(model))


def test_a_layer_without_feature_map_is_refused(images: Tensor) -> None:
    model = Small().eval()

    with pytest.raises(LayerError, match="not a feature map"):
        eigen_cam(model, model.head, images, of_classes([[0]] * 3))


@pytest.mark.parametrize("shape", [(2, 96, 7, 7), (2, 16, 9, 8)])
def test_equals_pytorch_grad_cam_but_for_the_sign_that_it_leaves_to_chance(shape: tuple[int, ...]) -> None:
    peer = pytest.importorskip("pytorch_grad_cam.utils.svd_on_activations")
    activations = functional.relu(random(*shape) - 0.5)

    maps, _ = project(activations)

    wanted = torch.from_numpy(peer.get_2d_projection(activations.numpy())).double()  # rounded to float32
    signs = (wanted * maps).sum(dim=(1, 2)).sign()[:, None, None]
    torch.testing.assert_close(maps, signs * wanted, rtol=0, atol=1e-7 * float(wanted.abs().max()))
