"""evalcam calibrate, as a shell sees it."""

import json
from pathlib import Path

import pytest

from evalcam_cli.config_sources import load_config
from evalcam_cli.workflows.train import TrainRequest, train
from tests.cli.commands import run_command
from tests.conftest import TINY, draw_classes


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with 6 validation images."""
    root = tmp_path_factory.mktemp("calibrate")
    data = draw_classes(root / "data", {"cat": 20, "dog": 20})
    config = load_config(assignments=[*(one for one in TINY if one != "--set"), "train.epochs=1"])
    return train(config, TrainRequest(root / "run", data)).folder


def test_the_threshold_is_printed_with_the_images_it_rests_on(run: Path) -> None:
    result = run_command("calibrate", str(run), "--operating-point", "cost=1:5", "--no-temperature")

    assert result.code == 0, result.err
    assert "dog when p >= 0.1667 (cost 1:5)" in result.out
    assert "optimistic" in result.out
    assert "of 3" in result.out
    assert result.out.rstrip().endswith("best.safetensors")
    assert "few_validation_images" in result.err
    assert "assumes calibrated probabilities" in result.err


def test_json_is_what_the_file_says(run: Path) -> None:
    result = run_command(
        "calibrate", str(run), "--no-temperature", "--operating-point", "cost=2:1", "--json", "--quiet"
    )

    (document,) = json.loads(result.out)["runs"]
    assert document.pop("folder") == str(run)
    assert document == json.loads((run / "calibration.json").read_text())
    assert document["operating_point"]["threshold"] == 2 / 3


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        ([], 3, "--allow-few"),
        (["--no-temperature", "--operating-point", "sensitivity"], 2, "the shell took"),
        (["--no-temperature", "--operating-point", "youden", "--positive", "cow"], 2, "no class 'cow'"),
        (["--split", "other.csv"], 2, "--split"),
        (["--subset", "test"], 2, "--subset"),
    ],
)
def test_mistakes_have_a_code_and_a_few_lines(run: Path, options: list[str], code: int, words: str) -> None:
    result = run_command("calibrate", str(run), *options)

    assert result.code == code
    assert words in result.err
    assert "Traceback" not in result.err
    assert result.err.count("\n") <= 8


def test_a_folder_that_is_no_run_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")

    result = run_command("calibrate", str(tmp_path))

    assert result.code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
