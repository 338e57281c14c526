"""Processes that share a folder."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from evalcam_cli.workflows.presence import Presence, present

_STAYS = """
import sys, time
from pathlib import Path
from evalcam_cli.workflows.presence import present
with present(Path(sys.argv[1])) as here:
    print(here.name, flush=True)
    time.sleep(60)
"""


def start(folder: Path, **environment: str) -> tuple[subprocess.Popen[str], str]:
    """Another process in the folder, and its name."""
    process = subprocess.Popen(
        [sys.executable, "-c", _STAYS, str(folder)], stdout=subprocess.PIPE, text=True, env=os.environ | environment
    )
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def test_a_process_is_alive_until_it_is_killed(tmp_path: Path) -> None:
    process, name = start(tmp_path)

    with process, present(tmp_path) as here:
        assert here.is_alive(here.name)
        assert here.is_alive(name)
        assert here.others() == [name]
        process.kill()
        process.wait()
        assert not here.is_alive(name)  # at once: no heartbeat has to run out
        assert here.others() == []


def test_a_process_that_left_is_not_alive_and_leaves_no_file(tmp_path: Path) -> None:
    with present(tmp_path) as first:
        pass

    with present(tmp_path) as here:
        assert not here.is_alive(first.name)
    assert [path.name for path in tmp_path.iterdir()] == ["turn.lock"]


def test_what_a_killed_process_left_is_swept_and_what_lives_is_not(tmp_path: Path) -> None:
    killed, dead = start(tmp_path)
    living, alive = start(tmp_path)
    with killed, living:
        killed.kill()
        killed.wait()

        with present(tmp_path) as here:
            there = {path.stem for path in tmp_path.glob("*.worker")}

        living.kill()
    assert there == {here.name, alive}
    assert dead not in there


def test_on_another_machine_the_age_of_the_file_decides(tmp_path: Path) -> None:
    far = tmp_path / "far.1-0.worker"
    far.touch()

    with present(tmp_path) as here:
        assert here.is_alive("far.1-0")
        long_ago = time.time() - 1000
        os.utime(far, (long_ago, long_ago))
        assert not here.is_alive("far.1-0")


def test_a_helper_ends_when_the_process_that_started_it_is_gone(tmp_path: Path) -> None:
    process, _ = start(tmp_path, EVALCAM_TUNE_PARENT="1")  # not its parent

    with process:
        assert process.wait(30) == -signal.SIGTERM


def test_one_at_a_time(tmp_path: Path) -> None:
    code = """
import sys, time
from pathlib import Path
from evalcam_cli.workflows.presence import Presence
counter = Path(sys.argv[1]) / "counter"
for _ in range(50):
    with Presence(counter.parent, "me").alone():
        number = int(counter.read_text())
        time.sleep(0.001)
        counter.write_text(str(number + 1))
"""
    (tmp_path / "counter").write_text("0")

    processes = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)]) for _ in range(2)]

    assert [process.wait() for process in processes] == [0, 0]
    assert (tmp_path / "counter").read_text() == "100"


def test_nothing_is_locked_after_the_turn(tmp_path: Path) -> None:
    here = Presence(tmp_path, "me")

    for _ in range(2):
        with pytest.raises(ZeroDivisionError), here.alone():
            _ = 1 // 0
