"""Workers that read files: none of them outlives what it was for."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from evalcam_cli.data.parallel import SERIAL_BELOW, map_files
from evalcam_cli.progress import silent

COUNT = 2 * SERIAL_BELOW


def number_of(path: Path) -> int:
    return int(path.stem)


def sleep_long(path: Path) -> int:
    time.sleep(600)
    return 0


def mapped(job: Callable[[Path], int]) -> list[int | None]:
    names = [f"{number}.txt" for number in range(COUNT)]
    return map_files(job, Path(), names, task="counting", progress=silent, jobs=2)


def test_results_come_in_the_order_of_the_files_and_no_worker_is_left() -> None:
    others = multiprocessing.active_children()

    assert mapped(number_of) == list(range(COUNT))

    assert set(multiprocessing.active_children()) <= set(others)


@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="needs an alarm")
def test_an_interruption_does_not_wait_for_workers_that_are_at_work(monkeypatch: pytest.MonkeyPatch) -> None:
    others = multiprocessing.active_children()
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)  # raises KeyboardInterrupt
    begun = time.monotonic()
    signal.alarm(2)

    with pytest.raises(KeyboardInterrupt):
        mapped(sleep_long)

    signal.signal(signal.SIGALRM, before)
    assert time.monotonic() - begun < 60  # of the 600 seconds that a job takes
    assert set(multiprocessing.active_children()) <= set(others)


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes as Linux lists them")
def test_workers_die_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    from tests.workflows.training_process import family, wait_until

    script = tmp_path / "sleeping.py"
    script.write_text(
        "from tests.data.test_parallel import mapped, sleep_long\nif __name__ == '__main__':\n    mapped(sleep_long)\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen([sys.executable, str(script)], env=environment, start_new_session=True)
    assert wait_until(lambda: len(family(process.pid)) >= 4)  # itself, the resource tracker, two workers

    process.kill()
    process.wait()

    assert wait_until(lambda: family(process.pid) == [], timeout=60)
