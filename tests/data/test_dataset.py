"""Images as tensors, in an order that depends on the seed and the epoch alone."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from evalcam_cli.config import AugmentConfig
from evalcam_cli.data.augmentation import Augmentation, keyed_generator
from evalcam_cli.data.dataset import ImageDataset, make_loader, normalise
from evalcam_cli.data.order import TrainingOrder
from evalcam_cli.data.preprocessing import Preprocessing

PREPROCESSING = Preprocessing(32, "pad")
CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    for index in range(11):
        pixels = generator.integers(0, 256, (20 + index, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")
    return tmp_path


def dataset(folder: Path, *, augmented: bool = True) -> ImageDataset:
    paths = [f"{index}.png" for index in range(11)]
    augmentation = (
        Augmentation(AugmentConfig(erase=0.5, saturation=0.2, hue=0.1, vflip=0.5), (1, 2, 3)) if augmented else None
    )
    return ImageDataset(folder, paths, PREPROCESSING, max_pixels=10**6, augmentation=augmentation, seed=5)


def epoch_of(folder: Path, workers: int, epoch: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    order = TrainingOrder([0, 1] * 5 + [0], batch_size=4, seed=3, balanced=False)
    order.epoch = epoch
    return [tuple(batch) for batch in make_loader(dataset(folder), order, workers=workers, device=CPU)]


@pytest.mark.parametrize("workers", [1, 2])
def test_the_number_of_workers_changes_nothing(folder: Path, workers: int) -> None:
    alone, together = epoch_of(folder, 0, 1), epoch_of(folder, workers, 1)

    for (images, indices), (same_images, same_indices) in zip(alone, together, strict=True):
        assert torch.equal(images, same_images)
        assert torch.equal(indices, same_indices)


def test_every_epoch_changes_the_order_and_the_pixels(folder: Path) -> None:
    first, second = epoch_of(folder, 0, 0), epoch_of(folder, 0, 1)

    assert [index.tolist() for _, index in first] != [index.tolist() for _, index in second]
    assert sorted(int(i) for _, index in first for i in index) == list(range(11))
    by_index = [
        {int(i): image for images, indices in epoch for image, i in zip(images, indices, strict=True)}
        for epoch in (first, second)
    ]
    assert any(not torch.equal(by_index[0][index], by_index[1][index]) for index in range(11))


def test_augmentation_leaves_the_global_random_state_alone(folder: Path) -> None:
    before = torch.get_rng_state()

    dataset(folder)[3]

    assert torch.equal(before, torch.get_rng_state())


def test_no_augmentation_means_the_preprocessed_pixels(folder: Path) -> None:
    pixels, index = dataset(folder, augmented=False)[4]

    with Image.open(folder / "4.png") as image:
        expected = PREPROCESSING.apply(image.convert("RGB"))
    assert index == 4
    assert np.array_equal(pixels.permute(1, 2, 0).numpy(), expected)


def test_a_mirror_image_is_exact() -> None:
    quiet = {"rotate": 0.0, "translate": 0.0, "scale": 0.0, "brightness": 0.0, "contrast": 0.0}
    image = torch.arange(3 * 16 * 16, dtype=torch.int64).reshape(3, 16, 16).to(torch.uint8)

    flipped = Augmentation(AugmentConfig(hflip=1.0, **quiet), (0, 0, 0))(image, keyed_generator(1))

    assert torch.equal(flipped, image.flip(-1))


def test_what_comes_from_outside_the_image_has_the_fill_colour() -> None:
    config = AugmentConfig(hflip=0, rotate=45, translate=0, scale=0, brightness=0, contrast=0)
    image = torch.full((3, 32, 32), 200, dtype=torch.uint8)
    corners = {
        tuple(Augmentation(config, (10, 20, 30))(image, keyed_generator(seed))[:, 0, 0].tolist()) for seed in range(9)
    }

    assert corners <= {(10, 20, 30), (200, 200, 200)} | {corner for corner in corners if min(corner) >= 10}
    assert (10, 20, 30) in corners


@pytest.mark.parametrize(
    ("count", "batch", "sizes"), [(9, 4, [4, 5]), (8, 4, [4, 4]), (10, 4, [4, 4, 2]), (1, 4, [1]), (5, 1, [1] * 5)]
)
def test_a_last_batch_of_one_joins_the_batch_before(count: int, batch: int, sizes: list[int]) -> None:
    order = TrainingOrder([0] * count, batch_size=batch, seed=0, balanced=False)

    batches = list(order)

    assert [len(one) for one in batches] == sizes
    assert len(order) == len(sizes)
    assert sorted(draw.index for one in batches for draw in one) == list(range(count))


def test_balanced_sampling_draws_every_class_equally_often() -> None:
    targets = [0] * 900 + [1] * 100
    order = TrainingOrder(targets, batch_size=50, seed=0, balanced=True)

    drawn = Counter(targets[draw.index] for batch in order for draw in batch)

    assert drawn[0] + drawn[1] == 1000
    assert abs(drawn[1] - 500) < 4 * 1000**0.5 / 2  # four standard deviations of a fair coin
    repeats = [(draw.index, draw.repeat) for batch in order for draw in batch]
    assert len(set(repeats)) == 1000  # each use of an image has its own augmentation


def test_normalisation_is_torchvision_s() -> None:
    from torchvision.transforms.v2 import functional

    images = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)

    expected = functional.normalize(images.float() / 255, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])

    torch.testing.assert_close(normalise(images, PREPROCESSING, CPU), expected)
