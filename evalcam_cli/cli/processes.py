"""One command in several processes, as torchrun starts them: which one speaks, and in which order they leave."""

import os
import signal
import sys
import time
import warnings
from types import FrameType
from typing import NoReturn

from evalcam_cli.errors import GateError, UsageError
from evalcam_cli.handlers import SIGNALS, replace_handlers
from evalcam_cli.world import World, world

SHARED = ("train", "evaluate", "gradcam", "predict")
"""Commands whose work several processes can share."""
_PATIENCE = 5.0
"""Seconds that the first process is given to say what went wrong; torchrun ends all as soon as one has failed."""


def several() -> bool:
    """Whether this process is one of several."""
    return _place().size > 1


def _place() -> World:
    """As `world()`, for those who cannot mend an impossible one: it is refused by the command."""
    try:
        return world()
    except UsageError:
        return World()


def hush() -> None:
    """Keep all but the first process from writing to stdout and from warning."""
    if not _place().first:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123 (until the process ends)
        warnings.simplefilter("ignore")


def refuse_unshared(command: str | None) -> None:
    """Refuse a command that each of several processes would do as a whole.

    Raises:
        UsageError: It is one.
    """
    size = world().size
    if size > 1 and command not in SHARED:
        raise UsageError(
            f"{size} processes were started, and `evalcam {command}` does not share its work:\n"
            f"start it once, without torchrun; in several processes there are {', '.join(SHARED)}"
        )


def speaks(error: BaseException) -> bool:
    """Whether this process is the one to say what went wrong.

    What all raise the first says. Before they have joined, they have read the same command line and maybe another disk,
    so that one on each machine says it.
    """
    here = _place()
    if here.first:
        return True
    if isinstance(error, GateError) or not isinstance(error, Exception):  # an interruption reaches all of them
        return False
    from evalcam_cli.distributed import told_by_first  # noqa: PLC0415 (only where there are several)

    told = told_by_first(error)
    return here.local_rank == 0 if told is None else not told


def speaker() -> str:
    """What a message begins with when it is not from the first process."""
    here = _place()
    return "" if here.first else f"process {here.rank} of {here.size}: "


def leave_silently(code: int) -> NoReturn:
    """End with the exit code, when it is an error only after the first process has had the time to speak."""

    def ended(signum: int, frame: FrameType | None) -> NoReturn:
        raise SystemExit(code)

    if 0 < code <= 128:  # above are those of signals
        signal.signal(signal.SIGTERM, ended)
        time.sleep(_PATIENCE)
    raise SystemExit(code)


def ignore_further_signals() -> None:
    """Of several processes each is signalled by the terminal or the scheduler, and by torchrun again: once will do."""
    if several():
        replace_handlers(dict.fromkeys(SIGNALS, signal.SIG_IGN))
