"""How many processes read images."""

import multiprocessing

import pytest
import torch

from evalcam_cli.models import device as module
from evalcam_cli.models.device import worker_count


@pytest.mark.parametrize(
    ("cores", "device", "images", "workers"),
    [
        (1, "cpu", None, 0),
        (2, "cpu", 2000, 1),
        (16, "cpu", 2000, 4),
        (16, "cuda", 2000, 15),
        (64, "cuda", 2000, 16),
        (16, "cpu", 63, 0),
        (16, "cuda", 63, 0),
    ],
)
def test_auto_is_a_worker_for_each_spare_core(
    cores: int, device: str, images: int | None, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "usable_cores", lambda: cores)
    monkeypatch.setattr(multiprocessing, "get_start_method", lambda allow_none: "fork")

    assert worker_count("auto", device=torch.device(device), images=images) == workers


def test_workers_that_are_slow_to_start_need_more_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "usable_cores", lambda: 4)
    monkeypatch.setattr(multiprocessing, "get_start_method", lambda allow_none: "spawn")

    assert [worker_count("auto", images=images) for images in (999, 1000)] == [0, 3]


def test_processes_of_torchrun_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "usable_cores", lambda: 8)
    monkeypatch.setattr(module, "processes_here", lambda: 4)

    assert worker_count("auto") == 1


def test_a_number_is_taken_as_it_is() -> None:
    assert worker_count(7, images=1) == 7
