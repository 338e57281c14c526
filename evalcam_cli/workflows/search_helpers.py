"""Further processes on this machine that take part in a search."""

import contextlib
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from evalcam_cli.data.machine import shared_machine, usable_cores
from evalcam_cli.workflows.presence import PARENT_VARIABLE

log = logging.getLogger("evalcam")


@contextlib.contextmanager
def helpers(out: Path, root: Path, jobs: int, device: str) -> Iterator[None]:
    """All but one of so many processes, working on the search in `out` for the time of the block.

    The images of its split are under `root`. The cores are shared out among the processes, which end with the block,
    and with this one if it is killed.
    """
    if jobs == 1:
        yield
        return
    import torch

    threads = max(1, usable_cores() // jobs)
    before = torch.get_num_threads()
    command = [sys.executable, "-m", "evalcam_cli", "tune", str(out / "config.yaml")]
    command += [str(root), "--out", str(out), "--device", device, "--join", "--quiet"]
    torch.set_num_threads(min(threads, before))
    try:
        with shared_machine(jobs), contextlib.ExitStack() as stack:
            started = [_Helper(stack, command, threads) for _ in range(jobs - 1)]
            try:
                yield
            except BaseException:
                for helper in started:  # all of them before any is waited for
                    helper.ask_to_stop()
                raise
            for helper in started:
                helper.process.wait()  # all trials are finished
                helper.complain()
    finally:
        torch.set_num_threads(before)


class _Helper:
    """One of them, ended with the block whatever happens."""

    def __init__(self, stack: contextlib.ExitStack, command: Sequence[str], threads: int) -> None:
        self.said: IO[Any] = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
        environment = {"OMP_NUM_THREADS": str(threads)} | os.environ | {PARENT_VARIABLE: str(os.getpid())}
        self.process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=self.said,
            start_new_session=True,  # Ctrl-C reaches the parent alone, which passes on one signal, once
        )  # fmt: skip
        stack.callback(self._end)

    def ask_to_stop(self) -> None:
        """Let it finish its step and save."""
        if self.process.poll() is None:
            self.process.terminate()

    def _end(self) -> None:
        if self.process.poll() is None:
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def complain(self) -> None:
        """Pass on what a helper that ended badly has said."""
        if self.process.returncode:
            self.said.seek(0)
            text = self.said.read().decode(errors="replace").strip()[-1000:]
            log.warning("a helper ended with exit code %d: %s", self.process.returncode, text)
