import pytest
import torch
from torch import Tensor, nn

from evalcam_cli.errors import UsageError
from evalcam_cli.explain.occlusion import count_windows, occlusion
from evalcam_cli.explain.targets import class_scores, of_classes
from tests.explain.networks import Functional, build, difference, make_images


class Sums(nn.Module):
    """Class 0 scores the sum of all pixels, class 1 the top left one; counts how often and for how many it ran."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[int] = []

    def forward(self, images: Tensor) -> Tensor:
        self.rows.append(len(images))
        return torch.stack([images.sum(dim=(1, 2, 3)), images[:, :, 0, 0].sum(dim=1)], dim=1)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "window", "stride", "dtype", "tolerance"),
    [
        ("ResNet-18", 17, 9, torch.float64, 1e-7),  # captum adds up in single precision
        ("ResNet-18", 18, 10, torch.float32, 1e-5),
        ("VGG-16", 20, 15, torch.float32, 1e-5),
        ("MobileNet-V2", 18, 10, torch.float32, 1e-5),
        ("functional", 11, 5, torch.float64, 1e-7),
        ("functional", 8, 8, torch.float32, 1e-5),
    ],
)
def test_equals_captum_on_a_whole_batch_windows_cut_at_the_border_included(
    name: str, window: int, stride: int, dtype: torch.dtype, tolerance: float
) -> None:
    captum = pytest.importorskip("captum.attr")
    model = Functional().to(dtype) if name == "functional" else build(name, dtype)
    class_indices = torch.tensor([[0, 3], [4, 1]])
    images = make_images(2, dtype=dtype)

    found = occlusion(model, images, of_classes(class_indices), window=window, stride=stride).maps

    for place in range(2):
        wanted = captum.Occlusion(lambda given: model(given.clone())).attribute(
            images,
            (3, window, window),
            strides=(3, stride, stride),
            target=class_indices[:, place],
            perturbations_per_eval=9,
        )
        assert difference(found[:, place], wanted[:, 0]) <= tolerance


def test_a_case_worked_out_by_hand() -> None:
    """Windows of 2 at 0 and 1 along 3 pixels, each of value 1: every window takes 4 pixels from the sum."""
    images = torch.full((1, 1, 3, 3), 1.0, dtype=torch.float64)

    found = occlusion(Sums(), images, of_classes([[0, 1]]), window=2, stride=1)

    assert (found.maps[0, 0] == 4).all()
    assert found.maps[0, 1].tolist() == [[1, 0.5, 0], [0.5, 0.25, 0], [0, 0, 0]]
    assert found.note == "2 x 2 px window every 1 px, 4 windows"


def test_a_window_at_the_border_covers_less() -> None:
    """Along 5 pixels, windows of 3 at 0 and 3: the second has 2 pixels left."""
    images = torch.full((1, 1, 5, 5), 1.0, dtype=torch.float64)

    found = occlusion(Sums(), images, of_classes([[0]]), window=3, stride=3).maps[0, 0]

    assert found[0].tolist() == [9, 9, 9, 6, 6]
    assert found[4].tolist() == [6, 6, 6, 4, 4]


@pytest.mark.parametrize("rows", [1, 7, 100])
def test_all_scores_come_from_the_same_forwards_of_bounded_size(rows: int) -> None:
    model, images = Sums(), torch.ones(2, 1, 10, 10, dtype=torch.float64)

    occlusion(model, images, of_classes([[0, 1, 1, 0]] * 2), window=4, stride=2, rows=rows)

    assert sum(model.rows) == 2 * (1 + count_windows(10, 10, window=4, stride=2)) == 2 * 17
    assert max(model.rows) <= max(rows, 2)


def test_the_baseline_is_what_covers() -> None:
    images = make_images(side=6)
    cover = images.mean(dim=(2, 3), keepdim=True)

    found = occlusion(Sums(), images, of_classes([[1]] * 3), window=2, stride=2, baseline=cover).maps[:, 0]

    torch.testing.assert_close(found[:, 0, 0], (images[:, :, 0, 0] - cover[:, :, 0, 0]).sum(dim=1))


def test_a_predicted_class_stays_the_class_when_a_window_changes_the_prediction() -> None:
    images = torch.zeros(1, 1, 4, 4, dtype=torch.float64)
    images[..., 0, 0], images[..., 3, 3] = 1, -1  # class 1 wins by its pixel, which is then covered

    found = occlusion(Sums(), images, lambda output: class_scores(output.argmax(dim=1, keepdim=True), output), window=2)

    assert found.maps[0, 0, 0, 0] == 1


def test_an_image_need_not_be_square() -> None:
    found = occlusion(Sums(), torch.ones(1, 1, 10, 23), of_classes([[0]]))

    assert found.maps.shape == (1, 1, 10, 23)
    assert found.maps.dtype == torch.float32
    assert count_windows(10, 23) == 9 * 22


def test_the_default_is_bearable() -> None:
    assert count_windows(224, 224) == count_windows(96, 96) == 100


@pytest.mark.parametrize(("window", "stride"), [(0, 1), (11, 1), (4, 5), (4, 0)])
def test_a_window_that_would_miss_pixels_is_refused(window: int, stride: int) -> None:
    with pytest.raises(UsageError, match="occlusion"):
        occlusion(Sums(), torch.ones(1, 1, 10, 10), of_classes([[0]]), window=window, stride=stride)
