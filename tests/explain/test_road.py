import numpy as np
import pytest
import torch
from torch import Tensor, nn

from evalcam_cli.explain.road import PERCENTILES, Road, impute, road

SIDE = 16


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 5), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 4))
    with torch.no_grad():
        for parameter in model[-1].parameters():
            parameter.mul_(20)
    return model.eval()


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def maps() -> Tensor:
    return torch.rand(3, SIDE, SIDE, generator=torch.Generator().manual_seed(2))


CLASSES = torch.tensor([0, 3, 1])


def test_one_missing_pixel_is_the_weighted_mean_of_its_neighbours() -> None:
    image = torch.arange(9.0).view(1, 3, 3) ** 2
    missing = np.arange(9) == 4

    filled = impute(image, missing)

    direct, diagonal = 1 + 9 + 25 + 49, 0 + 4 + 36 + 64
    assert float(filled[0, 1, 1]) == pytest.approx(direct / 6 + diagonal / 12)
    assert torch.equal(filled.flatten()[~missing], image.flatten()[~missing])


def test_in_a_corner_the_weights_of_three_neighbours_are_divided_by_their_sum() -> None:
    image = torch.tensor([[[9.0, 1.0], [2.0, 4.0]]])

    filled = impute(image, np.array([True, False, False, False]))

    assert float(filled[0, 0, 0]) == pytest.approx((1 / 6 + 2 / 6 + 4 / 12) / (1 / 6 + 1 / 6 + 1 / 12))


def test_a_ramp_with_a_hole_is_the_ramp_again() -> None:
    """Every pixel inside is the mean of its neighbours, so the system has the ramp as its one solution."""
    rows, columns = torch.meshgrid(torch.arange(12.0), torch.arange(12.0), indexing="ij")
    ramp = torch.stack([rows + 2 * columns, -columns])
    hole = torch.zeros(12, 12, dtype=torch.bool)
    hole[2:10, 3:9] = True

    filled = impute(torch.where(hole, 99.0, ramp), hole.flatten().numpy())

    torch.testing.assert_close(filled, ramp)


def test_a_plain_image_stays_plain_also_at_its_border() -> None:
    filled = impute(torch.full((3, 8, 8), 0.3), np.arange(64) < 60)

    torch.testing.assert_close(filled, torch.full((3, 8, 8), 0.3))


def test_noise_falls_on_missing_pixels_only() -> None:
    image, noise = torch.zeros(1, 4, 4), torch.ones(1, 4, 4)

    filled = impute(image, np.arange(16) < 5, noise)

    assert filled.flatten().tolist() == [1.0] * 5 + [0.0] * 11


def test_nothing_missing_and_everything_missing() -> None:
    image = torch.ones(1, 2, 2)

    assert torch.equal(impute(image, np.zeros(4, dtype=bool)), image)
    with pytest.raises(ValueError, match="all pixels are missing"):
        impute(image, np.ones(4, dtype=bool))


def test_the_combined_score_is_half_the_mean_difference() -> None:
    found = Road(np.array([[-0.4, -0.6]]), np.array([[-0.1, 0.1]]))

    assert found.combined == pytest.approx(0.25)


def test_the_opposite_map_has_the_opposite_score(network: nn.Module, images: Tensor, maps: Tensor) -> None:
    ours, opposite = (road(network, images, CLASSES, values) for values in (maps, -maps))

    np.testing.assert_allclose(ours.combined, -opposite.combined, atol=1e-6)
    assert (np.abs(ours.combined) > 1e-4).all()


def test_the_size_of_a_batch_changes_nothing(network: nn.Module, images: Tensor, maps: Tensor) -> None:
    one, many = (road(network, images, CLASSES, maps, batch_size=size) for size in (1, 50))

    np.testing.assert_allclose(one.most_relevant, many.most_relevant, atol=1e-6)
    np.testing.assert_allclose(one.least_relevant, many.least_relevant, atol=1e-6)


def test_tied_maps_lose_as_many_pixels_as_others() -> None:
    seen: list[int] = []

    class Count(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            seen.extend(int(changed) for changed in (images != original).any(dim=1).sum(dim=(1, 2)))
            return images.mean(dim=(2, 3))

    original = torch.randn(1, 3, 10, 10, generator=torch.Generator().manual_seed(0))
    tied = torch.zeros(1, 10, 10)
    tied[0, 0, 0] = 1

    road(Count(), original, torch.tensor([0]), tied, percentiles=(90, 50), batch_size=8)

    # the values from a percentile up: 99 * 0.9 = 89.1 and 99 * 0.5 = 49.5, so 10 and 50 of 100
    assert seen == [0, 10, 10, 50, 50]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the peer, under numpy 2
def test_equals_pytorch_grad_cam_without_noise(network: nn.Module, images: Tensor, maps: Tensor) -> None:
    peer = pytest.importorskip("pytorch_grad_cam.metrics.road")
    confidence = pytest.importorskip("pytorch_grad_cam.metrics.perturbation_confidence")
    targets_module = pytest.importorskip("pytorch_grad_cam.utils.model_targets")
    targets = [targets_module.ClassifierOutputSoftmaxTarget(int(index)) for index in CLASSES]

    def theirs(remove: type) -> np.ndarray:
        return np.stack(
            [
                confidence.PerturbationConfidenceMetric(remove(percentile, peer.NoisyLinearImputer(noise=0)))(
                    images, maps.double().numpy(), targets, network
                )
                for percentile in PERCENTILES
            ],
            axis=1,
        )

    ours = road(network, images, CLASSES, maps.double())

    most, least = (theirs(remove) for remove in (peer.RemoveMostRelevantFirst, peer.RemoveLeastRelevantFirst))
    np.testing.assert_allclose(ours.most_relevant, most, atol=1e-4)
    np.testing.assert_allclose(ours.least_relevant, least, atol=1e-4)
    np.testing.assert_allclose(ours.combined, (least - most).mean(axis=1) / 2, atol=1e-4)
    assert np.ptp(most) > 0.01
