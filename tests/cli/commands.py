"""Run a command of evalcam in this process and see what a shell would see."""

import contextlib
import io
import signal
from dataclasses import dataclass

from evalcam_cli.cli.app import main


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


def run_command(*arguments: str) -> Outcome:
    """Exit code, stdout and stderr; neither is a terminal."""
    out, err = io.StringIO(), io.StringIO()
    handler = signal.getsignal(signal.SIGTERM)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), contextlib.suppress(SystemExit):
            code = 1
            try:
                main([str(argument) for argument in arguments])
            except SystemExit as stop:
                code = stop.code if isinstance(stop.code, int) else 1
    finally:
        signal.signal(signal.SIGTERM, handler)
    return Outcome(code, out.getvalue(), err.getvalue())
