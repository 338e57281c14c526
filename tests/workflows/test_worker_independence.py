"""Who reads the images, and from where, changes no bit of what is trained, with all recipes at once."""

from pathlib import Path

import pytest

from evalcam_cli.config import RunConfig
from evalcam_cli.config_sources import load_config
from evalcam_cli.workflows.train import TrainRequest, train
from evalcam_cli.workflows.training_run import TrainResult
from tests.conftest import TINY

RECIPES = (
    "train.epochs=2", "train.batch_size=4", "train.accumulate=3", "train.ema=0.9", "train.mixup=0.2", "train.cutmix=1",
    "train.sampling=balanced", "train.augment.randaugment=2", "train.augment.erase=0.5", "train.label_smoothing=0.1",
    "model.freeze=layer1", "model.thaw_every=1", "train.stage_lr=0.5",
)  # fmt: skip


def config(*assignments: str) -> RunConfig:
    return load_config(assignments=[*(one for one in TINY if one != "--set"), *RECIPES, *assignments])


@pytest.fixture(scope="module")
def alone(colours: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    """One process that reads every image from its file each time."""
    settings = config("data.workers=0", "data.cache=none")
    return train(settings, TrainRequest(tmp_path_factory.mktemp("train") / "run", colours))


@pytest.mark.parametrize(
    "assignments",
    [
        ("data.workers=2", "data.cache=none"),
        ("data.workers=0", "data.cache=ram"),
        ("data.workers=2", "data.cache=ram"),
        ("data.workers=2", "data.cache=file"),
    ],
    ids=" ".join,
)
def test_weights_are_the_same_bits_however_images_are_read(
    colours: Path, tmp_path: Path, alone: TrainResult, assignments: tuple[str, str]
) -> None:
    result = train(config(*assignments), TrainRequest(tmp_path / "run", colours))

    assert result.weights_sha256 == alone.weights_sha256


def test_the_recipes_themselves_change_the_bits(colours: Path, tmp_path: Path, alone: TrainResult) -> None:
    result = train(config("data.workers=0", "train.augment.randaugment=0"), TrainRequest(tmp_path / "run", colours))

    assert result.weights_sha256 != alone.weights_sha256
