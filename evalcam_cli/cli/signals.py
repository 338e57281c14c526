"""Ctrl-C, SIGTERM and SIGHUP, answered at any moment of any command.

The first signal raises an exception in the main thread, so that every block is left as it should be; training, which
has work to save, lets it wait until a step is done (`training.interruption`). A second one ends the process at once:
worker processes end by themselves when their parent is gone, and what is half-written is swept by the next run.

Two signals of the same half second are one: `timeout` signals a process and its group, and programs that start others
pass on the Ctrl-C that the terminal has sent to all of them anyway.

What else may come: SIGPIPE is an error of the write that meets it (exit code 141 on stdout, nothing on stderr). SIGTSTP
and SIGCONT pause and go on. SIGQUIT and SIGKILL end at once, which `--resume` mends.
"""

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from types import FrameType

from evalcam_cli.cli.processes import ignore_further_signals, several
from evalcam_cli.handlers import ONE_BLOW_SECONDS, SIGNALS, replace_handlers

INTERRUPT = int(signal.SIGINT)
MESSAGES: dict[int, str] = {
    signal.SIGINT: "interrupted; what was finished is kept (`--resume` continues a training)",
    signal.SIGTERM: "terminated; what was finished is kept (`--resume` continues a training)",
    getattr(signal, "SIGHUP", -1): "the terminal is gone; what was finished is kept (`--resume` continues a training)",
}


class Signalled(BaseException):
    """SIGTERM or SIGHUP arrived; for SIGINT there is KeyboardInterrupt."""


class _Arrivals:
    """What has arrived in this process."""

    def __init__(self) -> None:
        self.number = 0
        """Of the first signal; 0 for none."""
        self.answered = True
        """Whether the block in which signals are answered is under way."""
        self._time = 0.0
        self._process = os.getpid()

    def arrived(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            return  # a worker that was forked just now, and is about to ignore signals: its parent ends it
        if several():  # each is signalled by the terminal or the scheduler, and by torchrun again
            ignore_further_signals()
        elif self.number:
            if time.monotonic() - self._time >= ONE_BLOW_SECONDS:
                _leave_at_once(number)
            return
        self.number, self._time = number, time.monotonic()
        self.raise_again()

    def raise_again(self) -> None:
        """Raise what stands for the signal."""
        if self.number and self.answered:
            raise KeyboardInterrupt if self.number == signal.SIGINT else Signalled


_arrivals = _Arrivals()  # signals are the process's, not a caller's


@contextlib.contextmanager
def answered() -> Iterator[None]:
    """Answer signals in the block; one that was ignored before stays ignored, as `nohup` wants it."""
    global _arrivals  # noqa: PLW0603
    _arrivals = _Arrivals()
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    changed = {number: handler for number, handler in handlers.items() if handler not in (signal.SIG_IGN, None)}
    replace_handlers(dict.fromkeys(changed, _arrivals.arrived))
    try:
        yield
    finally:
        _arrivals.answered = False
        replace_handlers(changed)


def arrived() -> int:
    """The number of the signal that has arrived; 0 for none."""
    return _arrivals.number


def raise_swallowed() -> None:
    """Raise again what stands for a signal that has arrived.

    Called now and then: Python drops an exception that is raised while it destroys an object, and so does a library
    that catches everything.
    """
    _arrivals.raise_again()


def _leave_at_once(number: int) -> None:
    with contextlib.suppress(OSError):
        os.write(2, b"evalcam: left at once; finished files are kept\n")
    os._exit(128 + number)
