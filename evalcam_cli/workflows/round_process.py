"""A round of a cross-validation in a process of its own, and what it tells the process that started it.

The job goes in by the standard input, pickled, and the messages come out by the standard output. The input stays open:
a byte on it asks the round to stop, and its end means that the parent is gone, so that the round must go, too.
"""

import _thread
import contextlib
import logging
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO, Any, NoReturn

from evalcam_cli.config import RunConfig
from evalcam_cli.files import output_folder
from evalcam_cli.workflows.split import PreparedSplit

_EVERY = 0.2  # seconds between two messages of progress
# sys.path comes first, so that the child finds what the parent found, and nothing in the working directory
_ENTRY = (
    "import sys, pickle; sys.path[:] = pickle.load(sys.stdin.buffer); "
    "from evalcam_cli.workflows.round_process import main; main()"
)


@dataclass(frozen=True)
class RoundJob:
    """What a process needs to train one round."""

    number: int
    config: RunConfig
    prepared: PreparedSplit
    """Of the round; its images were read and hashed by the parent, and are not again."""
    out: Path
    threads: int
    """Threads to compute with, at most."""
    overwrite: bool = False
    resume: bool = False
    inputs: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Step:
    """Progress, as the callback is told."""

    task: str
    done: int
    total: int
    note: str = ""


@dataclass(frozen=True)
class Note:
    """A message of the log."""

    level: int
    text: str


@dataclass(frozen=True)
class Ready:
    """The job has arrived, and the child listens."""


@dataclass(frozen=True)
class End:
    """The last message: how it went."""

    result: Any = None
    """The `TrainResult`."""
    error: Exception | None = None
    stopped: bool = False
    """The round was asked to stop, and what it has is kept."""


@dataclass(frozen=True)
class Gone:
    """What the parent says in place of an `End` when the process died without one."""

    exit_code: int


Message = Ready | Step | Note | End | Gone


class RoundProcess:
    """The parent's side of a round."""

    def __init__(self, job: RoundJob, inbox: "queue.Queue[tuple[int, Message]]") -> None:
        """Start the process; its messages go to the inbox with the round's number, an `End` or a `Gone` last."""
        self.number = job.number
        self._listens = threading.Event()
        # a session of its own: Ctrl-C and signals to the whole group reach the parent alone, which passes them on once
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", _ENTRY],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        threading.Thread(target=self._exchange, args=(job, inbox), daemon=True).start()

    def _exchange(self, job: RoundJob, inbox: "queue.Queue[tuple[int, Message]]") -> None:
        sender, receiver = self._streams()
        last: Message | None = None
        with contextlib.suppress(OSError, EOFError, pickle.UnpicklingError):  # the process died: its exit code says how
            pickle.dump(sys.path, sender)
            pickle.dump(job, sender)
            sender.flush()
            while not isinstance(last, End):
                last = pickle.load(receiver)  # noqa: S301 (from a process that this one started)
                if isinstance(last, Ready):
                    self._listens.set()
                elif not isinstance(last, End):
                    inbox.put((self.number, last))
        code = self._process.wait()
        with contextlib.suppress(OSError):  # what was not sent any more
            sender.close()
        receiver.close()
        self._listens.set()
        inbox.put((self.number, last if isinstance(last, End) else Gone(code)))

    def _streams(self) -> tuple[IO[bytes], IO[bytes]]:
        if self._process.stdin is None or self._process.stdout is None:
            raise ValueError("a round is started with pipes")
        return self._process.stdin, self._process.stdout

    def ask_to_stop(self) -> None:
        """Let it finish the step under way, save and end."""
        sender, _ = self._streams()
        self._listens.wait()
        with contextlib.suppress(OSError, ValueError):  # it has ended
            sender.write(b".")
            sender.flush()

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.wait()


class _Stopped(BaseException):
    """The parent asked to stop."""


def main() -> None:
    """Train the round that the standard input holds."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the parent answers it for all its rounds
    signal.signal(signal.SIGINT, _stop)
    messages = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not get between the messages
    lock = threading.Lock()

    def send(message: Message) -> None:
        with lock, contextlib.suppress(BrokenPipeError):
            pickle.dump(message, messages)
            messages.flush()

    try:
        job = pickle.load(sys.stdin.buffer)  # noqa: S301 (from the process that started this one)
        orders = os.dup(0)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # a forked process closes its standard input
        threading.Thread(target=_obey, args=(orders,), daemon=True).start()
        send(Ready())
        send(End(_trained(job, send)))
    except _Stopped:
        send(End(stopped=True))
    except Exception as error:
        send(End(error=_sendable(error)))


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    raise _Stopped


def _obey(orders: int) -> None:
    """Wait for the parent to say stop, or to die: a parent that was killed cannot end its rounds."""
    # no lock of a Python stream is held meanwhile, on which a forked process would wait for ever
    while os.read(orders, 1):
        _thread.interrupt_main(signal.SIGINT)  # which training answers once it has saved
    os._exit(1)


def _trained(job: RoundJob, send: Callable[[Message], None]) -> Any:
    import torch  # in the child only, and after the signals are set

    from evalcam_cli.workflows.train import train_round  # noqa: PLC0415
    from evalcam_cli.workflows.training_run import starting_weights  # noqa: PLC0415

    torch.set_num_threads(min(torch.get_num_threads(), job.threads))
    if torch.cuda.device_count() > 1:
        torch.cuda.set_device(job.number % torch.cuda.device_count())
    log = logging.getLogger("evalcam")
    log.setLevel(logging.INFO)
    log.addHandler(_Sender(send))
    with output_folder(job.out, overwrite=job.overwrite, resume=job.resume, inputs=job.inputs) as folder:
        start = starting_weights(job.config)
        return train_round(job.config, job.prepared, folder, _Steps(send), start=start, resume=job.resume)


class _Sender(logging.Handler):
    def __init__(self, send: Callable[[Message], None]) -> None:
        super().__init__()
        self._send = send

    def emit(self, record: logging.LogRecord) -> None:
        self._send(Note(record.levelno, record.getMessage()))


class _Steps:
    """A progress callback that tells the parent now and then, and the end of each task always."""

    def __init__(self, send: Callable[[Message], None]) -> None:
        self._send = send
        self._last = 0.0

    def __call__(self, task: str, done: int, total: int, note: str = "") -> None:
        now = time.monotonic()
        if done == total or now - self._last >= _EVERY:
            self._last = now
            self._send(Step(task, done, total, note))


def _sendable(error: Exception) -> Exception:
    """The error itself where it can travel; else one that says the same."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 (what was pickled here)
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
