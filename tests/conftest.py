"""One thread: on a shared machine, two that wait for each other are slower than one; and small trained runs."""

import csv
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

REPOSITORY = Path(__file__).parents[1]
SHARED = REPOSITORY.parent / "shared"


@pytest.fixture(autouse=True)
def no_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the CI system that runs the tests is written to by what they run."""
    for name in ("GITHUB_STEP_SUMMARY", "GITHUB_ACTIONS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the processes that tests start
    yield
    torch.set_num_threads(before)


def draw_classes(root: Path, counts: dict[str, int], *, seed: int = 0, side: int = 24) -> Path:
    """Class folders of noisy images whose colour tells the class, so that a tiny run learns it."""
    generator = np.random.default_rng(seed)
    for index, (label, count) in enumerate(counts.items()):
        (root / label).mkdir(parents=True)
        for number in range(count):
            pixels = generator.integers(0, 120, (side, side + 6, 3))
            pixels[..., index % 3] += 130
            Image.fromarray(pixels.astype(np.uint8)).save(root / label / f"{number:03}.png")
    return root


@pytest.fixture(scope="session")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of two easily told classes, 20 images each, with names that are not ASCII."""
    return draw_classes(tmp_path_factory.mktemp("data") / "색", {"정상": 20, "a [b]": 20})


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file by column."""
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


TINY = (
    "--set",
    "data.image_size=32",
    "--set",
    "train.batch_size=8",
    "--set",
    "data.workers=0",
    "--set",
    "evaluate.bootstrap=100",
    "--set",
    "model.weights=none",
    "--set",
    "train.warmup_epochs=0",
    "--set",
    "train.lr=1e-3",
)
"""Options of a run that takes about two seconds."""
