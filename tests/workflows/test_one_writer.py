"""Of several processes that want one folder, one has it."""

import os
import signal
from pathlib import Path

import pytest

from tests.conftest import draw_classes
from tests.workflows.training_process import LAST, become_when_told, faults, server, temporaries, wait_until

PROCESSES = 8
SETTINGS = ("data.image_size=32", "model.weights=none", "train.warmup_epochs=0", "data.workers=0", "train.batch_size=4")

pytestmark = [
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc"),
    pytest.mark.slow,
]


def test_of_eight_trainings_that_start_at_once_one_runs(tmp_path: Path) -> None:
    data, out = draw_classes(tmp_path / "data", {"a": 8, "b": 8}), tmp_path / "run"
    options = ["--epochs", "1000", *(part for one in SETTINGS for part in ("--set", one))]
    places = [tmp_path / f"process-{number}" for number in range(PROCESSES)]
    arguments = ["train", str(data), "--out", str(out), *options]
    processes = [server().Process(target=become_when_told, args=(arguments, place)) for place in places]
    for process in processes:
        process.start()
    for place in places:
        place.with_name(f"{place.name}.go").touch()

    assert wait_until(lambda: sum(process.is_alive() for process in processes) == 1, timeout=300)
    (winner,) = (process for process in processes if process.is_alive())
    assert wait_until((out / LAST).exists, timeout=300)
    os.kill(winner.pid or 0, signal.SIGTERM)
    for process in processes:
        process.join(300)

    assert sorted(process.exitcode or 0 for process in processes) == [5] * (PROCESSES - 1) + [143]
    for process, place in zip(processes, places, strict=True):
        said = place.with_name(f"{place.name}.stderr").read_text()
        assert ("another evalcam run is using" in said) == (process is not winner)
        assert "Traceback" not in said
    assert faults(out) == []
    assert temporaries(out) == []
