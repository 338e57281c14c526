"""SIGTERM, SIGHUP and Ctrl-C, kept until the work under way is in a state worth saving."""

import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any

from evalcam_cli.handlers import ONE_BLOW_SECONDS, handlers_of, replace_handlers
from evalcam_cli.world import world


class Interrupted(BaseException):
    """The work was left at a good place because a signal is waiting."""


class Interruption:
    """In its block a first signal only waits, to be delivered when the work is saved; a second one acts at once."""

    def __init__(self) -> None:
        self.signal = 0
        """The number of the signal that waits; 0 for none."""
        self._time = 0.0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():
            self._before = handlers_of()
            replace_handlers(dict.fromkeys(self._before, self._arrived))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        replace_handlers(self._before)
        if self.signal and (kind is None or issubclass(kind, Exception)):
            self.deliver()

    def _arrived(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if not self.signal:
            self.signal, self._time = number, now
        elif now - self._time >= ONE_BLOW_SECONDS and world().size == 1:  # torchrun repeats a signal, without hurry
            self.signal = number
            self.deliver()

    def deliver(self) -> None:
        """Let the signal do what it would have done when it arrived."""
        number, self.signal = self.signal, 0
        replace_handlers(self._before)
        signal.raise_signal(number)
