"""Signals at any moment of any command; `python -m tests.benchmarks.signals` sends many more."""

import gc
import io
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from evalcam_cli.cli import signals
from evalcam_cli.cli.terminal import Screen, write_err
from evalcam_cli.handlers import ONE_BLOW_SECONDS, replace_handlers
from tests.benchmarks.signals import strike_all
from tests.cli.commands import run_command
from tests.workflows.struck_training import Begin, Blow, Reference, assert_ends_alike
from tests.workflows.training_process import server, wait_until

pytestmark = [
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc"),
    pytest.mark.slow,
    pytest.mark.xdist_group("signals"),
]


@pytest.fixture
def _usual_handlers() -> Iterator[None]:
    """As a shell starts a program, whatever runs the tests."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("name", ["split", "predict"])
def test_a_command_with_workers_ends_at_once_and_goes_on_when_started_again(tmp_path: Path, name: str) -> None:
    blows = strike_all(tmp_path, 2, seed=3, only=name)

    assert [blow for blow in blows if blow.wrong] == []


def test_two_signals_of_one_moment_are_one(begin: Begin, reference: Reference) -> None:
    """`timeout` signals the process and its group; programs that start others pass on what the terminal sent to all."""
    training = begin("data.workers=0")

    left = training.run(Blow((signal.SIGINT, signal.SIGTERM), "epoch 2/3", 3, at_once=True))

    assert left == 128 + signal.SIGINT
    assert training.position == (1, 3)
    assert_ends_alike(training, reference)


def test_a_training_that_is_paused_goes_on_to_the_same_bits(begin: Begin, reference: Reference) -> None:
    training = begin("data.workers=0")
    process = training.start(Blow((signal.SIGSTOP,), "epoch 2/3", 3))
    stat = Path(f"/proc/{process.pid}/stat")

    assert wait_until(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T", timeout=300)
    os.kill(process.pid or 0, signal.SIGCONT)
    process.join(600)

    assert process.exitcode == 0
    assert_ends_alike(training, reference)


def _dawdle(ready: Path) -> NoReturn:
    os.setsid()
    replace_handlers({signal.SIGINT: signal.default_int_handler})
    with signals.answered():
        try:
            ready.touch()
            time.sleep(60)
        finally:
            time.sleep(60)
    raise AssertionError


def test_a_second_signal_does_not_wait_for_the_first(tmp_path: Path) -> None:
    process = server().Process(target=_dawdle, args=(tmp_path / "ready",))
    process.start()
    assert wait_until((tmp_path / "ready").exists, timeout=300)

    os.kill(process.pid or 0, signal.SIGTERM)
    time.sleep(ONE_BLOW_SECONDS + 0.1)
    os.kill(process.pid or 0, signal.SIGINT)
    process.join(10)

    assert process.exitcode == 128 + signal.SIGINT


class _Swallowing:
    """Python drops what is raised while an object is destroyed."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGTERM)


@pytest.mark.usefixtures("_usual_handlers")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_signal_whose_exception_was_swallowed_is_raised_with_the_next_progress() -> None:
    with signals.answered():
        _Swallowing()
        gc.collect()
        waits = signals.arrived()

        with pytest.raises(signals.Signalled):
            Screen(quiet=True).progress("reading images", 1, 2)

    assert waits == signal.SIGTERM


@pytest.mark.usefixtures("_usual_handlers")
def test_handlers_are_put_back_and_what_was_ignored_stays_ignored() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does

    with signals.answered():
        within = [signal.getsignal(number) for number in (signal.SIGHUP, signal.SIGTERM)]

    assert within[0] == signal.SIG_IGN
    assert callable(within[1])
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.usefixtures("_usual_handlers")
def test_handlers_are_all_replaced_also_when_one_of_them_raises_meanwhile() -> None:
    def raising(number: int, frame: object) -> NoReturn:
        raise KeyboardInterrupt

    calls = []
    real = signal.signal

    def watched(number: int, handler: object) -> None:
        calls.append(number)
        real(number, handler)  # type: ignore[arg-type]
        if len(calls) == 1:
            signal.raise_signal(signal.SIGINT)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(signal, "signal", watched)
        with pytest.raises(KeyboardInterrupt):
            replace_handlers({signal.SIGINT: raising, signal.SIGTERM: raising})

    assert signal.getsignal(signal.SIGTERM) is raising


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [
        (signal.SIGINT, 130, "interrupted"),
        (signal.SIGTERM, 143, "terminated"),
        (signal.SIGHUP, 129, "terminal is gone"),
    ],
)
@pytest.mark.usefixtures("_usual_handlers")
def test_each_signal_has_its_code_and_its_word(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, number: int, code: int, word: str
) -> None:
    monkeypatch.setattr("evalcam_cli.cli.split.options.read_config", lambda *_: signal.raise_signal(number))

    outcome = run_command("split", str(tmp_path), "--out", str(tmp_path / "split.csv"))

    assert outcome.code == code
    assert word in outcome.err
    assert len(outcome.err.splitlines()) == 1


@pytest.mark.usefixtures("_usual_handlers")
def test_an_error_that_something_made_of_a_signal_is_told_as_the_signal(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def confused(*_: object) -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
        except BaseException as error:
            raise ImportError("cannot import a half-imported module") from error

    monkeypatch.setattr("evalcam_cli.cli.split.options.read_config", confused)

    outcome = run_command("split", str(tmp_path), "--out", str(tmp_path / "split.csv"))

    assert outcome.code == 143
    assert "half-imported" not in outcome.err


class _Gone(io.StringIO):
    """A terminal that was closed."""

    def write(self, text: str) -> int:
        raise OSError(5, "Input/output error")


def test_a_terminal_that_is_gone_costs_no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", _Gone())
    screen = Screen(quiet=False)
    screen.live = True

    for done in range(3):
        screen.progress("epoch 1/3", done, 3)
        screen.note("a note")
    screen.close()
    write_err("a line")

    assert screen.quiet
