"""How many images go through the model at once changes no decision, and metrics by no more than rounding."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from evalcam_cli.config_sources import load_config
from evalcam_cli.data.preprocessing import Preprocessing
from evalcam_cli.models.architectures import build_model
from evalcam_cli.models.checkpoint import Checkpoint, save_checkpoint
from evalcam_cli.workflows.evaluate import evaluate
from evalcam_cli.workflows.predictions import EvaluateRequest
from tests.conftest import TINY, draw_classes, read_rows

SIZES = (1, 7, 64)


@pytest.fixture(scope="module")
def outs(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """An evaluation of 70 images with batches of each size."""
    place = tmp_path_factory.mktemp("batches")
    data = draw_classes(place / "data", {"a": 30, "b": 22, "c": 18})
    torch.manual_seed(0)
    checkpoint = Checkpoint("resnet18", 2, ("a", "b", "c"), Preprocessing(32, "pad"))
    save_checkpoint(place / "w.safetensors", checkpoint, build_model("resnet18", 3).state_dict())
    for size in SIZES:
        assignments = [*(one for one in TINY if one != "--set"), f"evaluate.batch_size={size}"]
        request = EvaluateRequest(out=place / str(size), ckpt=place / "w.safetensors", data=data)
        evaluate(load_config(assignments=assignments), request)
    return {size: place / str(size) for size in SIZES}


def numbers(value: Any, place: str = "") -> dict[str, float]:
    """The numbers of a document, by where they stand."""
    if isinstance(value, dict):
        return {key: number for name, one in value.items() for key, number in numbers(one, f"{place}/{name}").items()}
    if isinstance(value, list):
        return {key: number for at, one in enumerate(value) for key, number in numbers(one, f"{place}/{at}").items()}
    return {place: value} if isinstance(value, int | float) else {}


@pytest.mark.parametrize("size", SIZES[:-1])
def test_decisions_are_the_same_whatever_the_batch_size(outs: dict[int, Path], size: int) -> None:
    decided, again = (
        [(row["path"], row["predicted"]) for row in read_rows(outs[one] / "predictions.csv")] for one in (size, 64)
    )

    assert decided == again
    assert len(decided) == 70


@pytest.mark.parametrize("size", SIZES[:-1])
def test_metrics_are_the_same_within_a_millionth_whatever_the_batch_size(outs: dict[int, Path], size: int) -> None:
    found, again = (
        numbers(json.loads((outs[one] / "metrics.json").read_text(encoding="utf-8"))["metrics"]) for one in (size, 64)
    )

    assert found == pytest.approx(again, abs=1e-6)
    assert len(found) > 20
