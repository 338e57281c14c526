"""SIGTERM and Ctrl-C, kept until the work under way is in a state worth saving."""

import signal
import threading
from types import FrameType, TracebackType

from evalcam_cli.world import world

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(BaseException):
    """The work was left at a good place because a signal is waiting."""


class Interruption:
    """In its block a first signal only waits, to be delivered when the work is saved; a second one acts at once."""

    def __init__(self) -> None:
        self.signal = 0
        """The number of the signal that waits; 0 for none."""
        self._before: dict[int, object] = {}

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                before = signal.getsignal(number)
                if callable(before):  # one that is ignored stays ignored
                    self._before[number] = before
                    signal.signal(number, self._arrived)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()
        if self.signal and kind is None:
            self.deliver()

    def _restore(self) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)  # type: ignore[arg-type]
        self._before = {}

    def _arrived(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        if world().size == 1:  # torchrun repeats a signal, and means no hurry by it
            self._restore()

    def deliver(self) -> None:
        """Let the signal do what it would have done when it arrived."""
        number, self.signal = self.signal, 0
        self._restore()
        signal.raise_signal(number)
