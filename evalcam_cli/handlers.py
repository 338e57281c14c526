"""Which signals ask a process to end, and changing what they do."""

import signal
from collections.abc import Mapping
from typing import Any

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""Windows has no SIGHUP."""
ONE_BLOW_SECONDS = 0.5
"""A signal that comes so soon after another is the same one: many programs pass on what the terminal sent to all."""


def handlers_of(numbers: tuple[int, ...] = SIGNALS) -> dict[int, Any]:
    """The functions that answer the signals; those that are ignored, or left to the system, are not among them."""
    return {number: handler for number in numbers if callable(handler := signal.getsignal(number))}


def replace_handlers(handlers: Mapping[int, Any]) -> None:
    """Set the handlers of signals, all of them, also when a signal arrives meanwhile and its handler raises."""
    try:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    except BaseException:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        raise
