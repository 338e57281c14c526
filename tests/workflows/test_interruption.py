"""Processes that are killed or asked to stop, at any moment, and go on to the bits of one that nobody stopped.

The processes are real and so are the signals, but they are forked from a server that has imported everything already,
and strike themselves: at a step, or at the n-th of all their moments (each step, each batch read or validated, each
file about to be renamed and after). `python -m tests.benchmarks.kills` does the same from outside, to whole processes.
"""

import json
import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from evalcam_cli.models.checkpoint import load_checkpoint
from evalcam_cli.training.interruption import Interruption
from tests.workflows.training_process import (
    BEST,
    LAST,
    TrainingProcess,
    become_evalcam,
    differences,
    draw_confused,
    family,
    faults,
    files_of,
    server,
    temporaries,
    wait_until,
)

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")

EPOCHS = 3
SETTINGS = (
    "data.image_size=32", "model.weights=none", "train.warmup_epochs=0", "train.lr=1e-2", "train.batch_size=2",
    "train.optimizer=sgd", "split.ratios=0.25,0.75,0", "evaluate.batch_size=16",
)  # fmt: skip


@dataclass(frozen=True)
class Blow:
    """What a process sends itself, and when."""

    signals: tuple[signal.Signals, ...]
    task: str = ""
    """Of the progress; empty: at the n-th moment of all."""
    number: int = 1
    """Units of the task done, or the moment's number."""
    group: bool = False
    """To the workers too, as a terminal does."""


class _Moments:
    """Counts the moments of a process, and strikes at the one that was asked for."""

    def __init__(self, blow: Blow | None) -> None:
        self.blow, self.count = blow, 0

    def pass_by(self, task: str, done: int) -> None:
        self.count += 1
        blow = self.blow
        if blow is not None and ((task, done) if blow.task else ("", self.count)) == (blow.task, blow.number):
            for number in blow.signals:
                os.killpg(0, number) if blow.group else os.kill(os.getpid(), number)
                time.sleep(0.05)


def _train(arguments: list[str], out: Path, blow: Blow | None) -> None:
    """The life of one process."""
    from evalcam_cli.cli.terminal import Screen

    moments, fsync, mine = _Moments(blow), os.fsync, os.getpid()

    def told(screen: Screen, task: str, done: int, total: int, note: str = "") -> None:
        moments.pass_by(task, done)

    def synced(descriptor: int) -> None:
        fsync(descriptor)
        if os.getpid() == mine:
            moments.pass_by("fsync", 0)

    Screen.progress, os.fsync = told, synced  # type: ignore[method-assign, assignment]
    try:
        become_evalcam(["train", *arguments], out)
    finally:
        out.with_suffix(".moments").write_text(str(moments.count))


@dataclass
class Training:
    """A run folder and the processes that one after the other work on it."""

    data: Path
    out: Path
    settings: tuple[str, ...]
    sessions: list[int] = field(default_factory=list)

    @property
    def options(self) -> list[str]:
        settings = [part for one in (*SETTINGS, *self.settings) for part in ("--set", one)]
        return ["--epochs", str(EPOCHS), "--json", *settings, *["--resume"] * bool(self.sessions)]

    def start(self, blow: Blow | None = None) -> BaseProcess:
        """Start a process; from the second one on it continues the run."""
        arguments = [str(self.data), "--out", str(self.out), *self.options]
        process = server().Process(target=_train, args=(arguments, self.out, blow))
        process.start()
        assert process.pid is not None
        self.sessions.append(process.pid)
        return process

    def run(self, blow: Blow | None = None) -> int:
        """The exit code of a process; minus the signal that killed it."""
        process = self.start(blow)
        process.join(600)
        assert process.exitcode is not None, "it did not end in ten minutes"
        return process.exitcode

    def finish(self) -> str:
        """Let the run come to its end; the digest that it tells."""
        assert self.run() == 0, self.err
        (run,) = json.loads(self.out.with_suffix(".stdout").read_text(encoding="utf-8"))["runs"]
        return str(run["weights_sha256"])

    @property
    def err(self) -> str:
        return self.out.with_suffix(".stderr").read_text(encoding="utf-8")

    @property
    def moments(self) -> int:
        return int(self.out.with_suffix(".moments").read_text())

    @property
    def position(self) -> tuple[int, int]:
        """Epochs finished and steps of the next, as the last checkpoint has it."""
        state = load_checkpoint(self.out / LAST).training_document["state"]
        return state["epoch"], state["step"]

    def survivors(self) -> list[int]:
        """Processes that should have ended."""
        wait_until(lambda: not any(map(family, self.sessions)), timeout=20)
        return [pid for session in self.sessions for pid in family(session)]


Begin = Callable[..., Training]


@pytest.fixture(scope="module")
def begin(tmp_path_factory: pytest.TempPathFactory) -> Begin:
    """A function from settings to a run folder in which nothing happened yet; all share their images."""
    data = draw_confused(tmp_path_factory.mktemp("data") / "data", {"a": 32, "b": 30})

    def begin(*settings: str) -> Training:
        return Training(data, tmp_path_factory.mktemp("train") / "run", settings)

    return begin


@dataclass(frozen=True)
class Reference:
    """What a run came to that nobody stopped."""

    folder: Path
    sha256: str
    moments: int


@pytest.fixture(scope="module")
def reference(begin: Begin) -> Reference:
    return uninterrupted(begin("data.workers=0"))


def uninterrupted(training: Training) -> Reference:
    return Reference(training.out, training.finish(), training.moments)


def assert_ends_alike(training: Training, reference: Reference) -> None:
    """Let the run come to its end and hold all of it against the other."""
    assert training.finish() == reference.sha256
    assert differences(training.out, reference.folder) == []
    assert temporaries(training.out) == []
    assert training.survivors() == []


RICH = (
    "data.workers=2", "train.ema=0.9", "train.accumulate=2", "train.mixup=0.2",
    "train.sampling=balanced", "train.augment.randaugment=1", "data.cache=file", "train.logger=tensorboard",
)  # fmt: skip


@pytest.mark.parametrize("name", [BEST, LAST, "history.csv", "split.json", "diagnosis.json", "curves.png"])
def test_a_file_that_is_cut_off_is_noticed(reference: Reference, tmp_path: Path, name: str) -> None:
    content = (reference.folder / name).read_bytes()
    path = tmp_path / Path(name).name
    path.write_bytes(content)
    whole = faults(tmp_path)

    path.write_bytes(content[: len(content) * 2 // 3 + 1])

    assert whole == []
    assert len(faults(tmp_path)) == 1


@pytest.mark.parametrize("settings", [("data.workers=0",), RICH], ids=["plain", "rich"])
def test_kill_9_at_random_moments_costs_no_bit_and_no_file(begin: Begin, settings: tuple[str, ...]) -> None:
    reference, dice = uninterrupted(begin(*settings)), random.Random(5)
    training = begin(*settings)

    for share in (1, 0.6, 0.4, 0.3):  # a process that goes on has less before it
        blow = Blow((signal.SIGKILL,), number=dice.randint(1, int(reference.moments * share)))
        code = training.run(blow)
        assert code == -signal.SIGKILL or training.position == (EPOCHS, 0)
        assert faults(training.out) == []

    assert_ends_alike(training, reference)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_lets_the_step_end_and_keeps_the_middle_of_the_epoch(
    begin: Begin, reference: Reference, number: signal.Signals, code: int
) -> None:
    training = begin("data.workers=0")

    left = training.run(Blow((number,), "epoch 2/3", 3))

    assert left == code
    assert training.position == (1, 3)
    assert "--resume" in training.err
    assert "Traceback" not in training.err
    assert faults(training.out) == []
    assert_ends_alike(training, reference)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_workers_that_get_the_signal_too_say_nothing(begin: Begin, number: signal.Signals, code: int) -> None:
    training = begin("data.workers=2")

    left = training.run(Blow((number,), "epoch 1/3", 2, group=True))

    assert left == code
    assert training.position == (0, 2)
    assert [line for line in training.err.splitlines() if "evalcam: " not in line and "image" not in line] == []
    assert training.survivors() == []


def test_a_signal_in_validation_goes_on_with_validation(begin: Begin, reference: Reference) -> None:
    training = begin("data.workers=0")
    steps = 8

    left = training.run(Blow((signal.SIGTERM,), "validating", 32))

    assert left == 143
    assert training.position == (0, steps)
    assert BEST not in files_of(training.out)  # not judged yet
    assert_ends_alike(training, reference)


def test_a_signal_while_images_are_read_leaves_nothing(begin: Begin, reference: Reference) -> None:
    training = begin("data.workers=0")

    left = training.run(Blow((signal.SIGTERM,), "reading images", 0))

    assert left == 143
    assert not training.out.exists()
    assert_ends_alike(training, reference)


@pytest.mark.parametrize("task", ["calibrating", "diagnosing"])
def test_a_signal_after_the_last_epoch_ends_at_once(begin: Begin, reference: Reference, task: str) -> None:
    training = begin("data.workers=0")

    left = training.run(Blow((signal.SIGTERM,), task, 16))

    assert left == 143
    assert training.position == (EPOCHS, 0)
    assert_ends_alike(training, reference)


@pytest.mark.parametrize(
    ("signals", "code"), [((signal.SIGTERM, signal.SIGTERM), 143), ((signal.SIGTERM, signal.SIGINT), 130)]
)
def test_a_second_signal_ends_at_once_and_what_was_saved_stays(
    begin: Begin, reference: Reference, signals: tuple[signal.Signals, ...], code: int
) -> None:
    training = begin("data.workers=0")

    left = training.run(Blow(signals, "epoch 2/3", 3))

    assert left == code
    assert training.position == (1, 0)
    assert faults(training.out) == []
    assert_ends_alike(training, reference)


def test_signals_at_random_moments_one_after_the_other_cost_no_bit(begin: Begin, reference: Reference) -> None:
    training, dice = begin("data.workers=0"), random.Random(2)

    for share in (1, 0.6, 0.4):
        blow = Blow((signal.SIGTERM,), number=dice.randint(1, int(reference.moments * share)))
        assert training.run(blow) == 143 or training.position == (EPOCHS, 0)
        assert faults(training.out) == []
        assert temporaries(training.out) == []

    assert_ends_alike(training, reference)


def test_a_signal_that_was_ignored_before_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Interruption() as interruption:
            signal.raise_signal(signal.SIGINT)

            assert interruption.signal == 0
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_crash_ends_the_process_and_its_workers(begin: Begin) -> None:
    """Python waits for workers when it ends, and they ignore the signal by which it would end them."""
    training = begin("data.workers=1")
    bug = (
        "from evalcam_cli.cli.terminal import Screen\n"
        "Screen.progress = lambda screen, task, *rest: 1 / (not task.startswith('epoch'))\n"
    )

    process = TrainingProcess(training.data, training.out, training.options, bug)

    assert process.end(timeout=600) == 1
    assert "ZeroDivisionError" in process.stderr
    assert wait_until(lambda: not process.family(), timeout=20)
