"""Runs that a module's tests share."""

import pytest

from tests.workflows.struck_training import Begin, Reference, Training, uninterrupted
from tests.workflows.training_process import draw_confused


@pytest.fixture(scope="module")
def begin(tmp_path_factory: pytest.TempPathFactory) -> Begin:
    """A function from settings to a run folder in which nothing happened yet; all share their images."""
    data = draw_confused(tmp_path_factory.mktemp("data") / "data", {"a": 32, "b": 30})

    def begin(*settings: str) -> Training:
        return Training(data, tmp_path_factory.mktemp("train") / "run", settings)

    return begin


@pytest.fixture(scope="module")
def reference(begin: Begin) -> Reference:
    """What a run came to that nobody stopped."""
    return uninterrupted(begin("data.workers=0"))
