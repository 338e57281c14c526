"""Training processes that strike themselves: at a step, or at the n-th of all their moments.

The processes are real and so are the signals, but they are forked from a server that has imported everything already.
The moments are each step, each batch read or validated, and each flush of a file and of a folder.
"""

import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path

from evalcam_cli.handlers import ONE_BLOW_SECONDS
from evalcam_cli.models.checkpoint import load_checkpoint
from tests.workflows.training_process import (
    LAST,
    become_evalcam,
    differences,
    family,
    make_careless,
    server,
    temporaries,
    wait_until,
)

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
    at_once: bool = False
    """Whether all signals come within a moment."""


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
                apart = len(blow.signals) > 1 and not blow.at_once
                time.sleep(ONE_BLOW_SECONDS + 0.1 if apart else 0.05)


def _train(arguments: list[str], out: Path, blow: Blow | None, careless: bool) -> None:
    """The life of one process."""
    if careless:
        make_careless()
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
    careless: bool = False
    """Whether its processes save as most programs do (`make_careless`)."""
    sessions: list[int] = field(default_factory=list)

    @property
    def options(self) -> list[str]:
        settings = [part for one in (*SETTINGS, *self.settings) for part in ("--set", one)]
        return ["--epochs", str(EPOCHS), "--json", *settings, *["--resume"] * bool(self.sessions)]

    def start(self, blow: Blow | None = None) -> BaseProcess:
        """Start a process; from the second one on it continues the run."""
        arguments = [str(self.data), "--out", str(self.out), *self.options]
        process = server().Process(target=_train, args=(arguments, self.out, blow, self.careless))
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


@dataclass(frozen=True)
class Reference:
    """What a run came to that nobody stopped."""

    folder: Path
    sha256: str
    moments: int


def uninterrupted(training: Training) -> Reference:
    return Reference(training.out, training.finish(), training.moments)


def assert_ends_alike(training: Training, reference: Reference) -> None:
    """Let the run come to its end and hold all of it against the other."""
    assert training.finish() == reference.sha256
    assert differences(training.out, reference.folder) == []
    assert temporaries(training.out) == []
    assert training.survivors() == []


Begin = Callable[..., Training]
