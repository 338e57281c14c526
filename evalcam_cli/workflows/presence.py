"""Which processes take part in a search, and one at a time: locked files in a folder that they share.

A process that is killed loses its locks at that moment, so its trial can be taken over at once. Where a lock says
nothing - the other process runs on another machine - the age of its file counts, which it renews as long as it lives.
"""

import contextlib
import os
import secrets
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from evalcam_cli.errors import MachineError
from evalcam_cli.text import shown
from evalcam_cli.writing import make_folder, write_error

_RENEW_SECONDS = 10.0
_DEAD_AFTER_SECONDS = 120.0
PARENT_VARIABLE = "EVALCAM_TUNE_PARENT"
"""Process id of the worker that started this one, which ends when that one does."""


class Presence:
    """This process as one of those that share the folder."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self.name = folder, name

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Hold off the others for the time of the block."""
        with _turn(self._folder):
            yield

    def is_alive(self, name: str) -> bool:
        """Whether the process of that name still works; this one does."""
        if name == self.name:
            return True
        path = self._folder / f"{name}.worker"
        try:
            age = (self._folder / f"{self.name}.worker").stat().st_mtime - path.stat().st_mtime  # one clock for both
        except OSError:
            return False  # it has left
        if name.rpartition(".")[0] != self.name.rpartition(".")[0]:
            return age < _DEAD_AFTER_SECONDS
        with _opened(path) as file:
            return not _lock(file, wait=False)

    def others(self) -> list[str]:
        """The names of the other processes that work."""
        names = sorted(path.stem for path in self._folder.glob("*.worker"))
        return [name for name in names if name != self.name and self.is_alive(name)]


@contextlib.contextmanager
def present(folder: Path) -> Iterator[Presence]:
    """Take part for the time of the block."""
    host = "".join(letter if letter.isalnum() or letter == "-" else "_" for letter in socket.gethostname()) or "host"
    name = f"{host}.{os.getpid()}-{secrets.token_hex(4)}"  # token_hex: ids of processes are used again
    path = folder / f"{name}.worker"
    make_folder(folder)
    left = threading.Event()
    with contextlib.ExitStack() as stack:
        with _turn(folder):  # nobody may take the file for a dead process's before it is locked
            _sweep(folder, name)
            _lock(stack.enter_context(_opened(path)), wait=True)
        thread = threading.Thread(target=_keep_renewing, args=(path, left), daemon=True)
        thread.start()
        try:
            yield Presence(folder, name)
        finally:
            left.set()
            thread.join()
            with contextlib.suppress(OSError):
                path.unlink()


@contextlib.contextmanager
def _turn(folder: Path) -> Iterator[None]:
    """Hold off the others for the time of the block."""
    path = folder / "turn.lock"
    with _opened(path) as file:
        if not _lock(file, wait=True):
            raise MachineError(f"cannot lock {shown(path.absolute())}; choose an --out on a disk that knows locks")
        yield


def _sweep(folder: Path, name: str) -> None:
    """Remove the files that killed processes of this machine left; those of others say nothing by their locks."""
    host, own = name.rpartition(".")[0], name.rpartition("-")[0]
    for path in folder.glob("*.worker"):
        if path.stem.rpartition(".")[0] == host and path.stem.rpartition("-")[0] != own:  # a lock is the process's
            with _opened(path) as file:
                if _lock(file, wait=False):
                    path.unlink(missing_ok=True)


def _keep_renewing(path: Path, left: threading.Event) -> None:
    parent = int(os.environ.get(PARENT_VARIABLE, "0"))
    renewed = time.monotonic()
    while not left.wait(1.0):
        if parent and os.name != "nt" and os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGTERM)  # whoever started this process was killed
            return
        if time.monotonic() - renewed >= _RENEW_SECONDS:
            renewed = time.monotonic()
            with contextlib.suppress(OSError):  # a network folder that is away for a moment
                os.utime(path)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    try:
        file = path.open("ab")
    except OSError as error:
        raise write_error(path, error) from error
    with file:
        yield file


def _lock(file: IO[bytes], *, wait: bool) -> bool:
    """Take the lock of an open file, which closing it gives back; whether it was to be had."""
    try:
        if os.name == "nt":
            import msvcrt  # noqa: PLC0415 (exists on Windows only)

            mode = getattr(msvcrt, "LK_LOCK" if wait else "LK_NBLCK")
            file.seek(0)
            getattr(msvcrt, "locking")(file.fileno(), mode, 1)  # noqa: B009
        else:
            import fcntl  # noqa: PLC0415 (exists on POSIX only)

            fcntl.lockf(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        return False
    return True
