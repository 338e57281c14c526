"""Folders that one run owns."""

import contextlib
import json
import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from evalcam_cli.documents import json_text, write_csv
from evalcam_cli.errors import EvalcamError, MachineError, UsageError
from evalcam_cli.text import listed, shown
from evalcam_cli.writing import (
    make_folder,
    sweep,
    sync_folder,
    whole_file,
    write_each_whole,
    write_error,
    write_swept,
)

LOCK_NAME = ".evalcam.lock"


class OutputFolder:
    """A folder that this run alone writes to, and whose files it remembers so that `--overwrite` removes only those.

    The lock file holds one line per file written, on the disk before the file is: after a crash nothing of evalcam's is
    a stranger's. The lock itself belongs to the process and is freed when it dies. What is to be overwritten is removed
    when the first new file is written: a run that is refused loses nothing.
    """

    def __init__(self, path: Path, lock: IO[bytes], written: set[str], *, overwrite: bool) -> None:
        self.path = path
        self._lock = lock
        self._written = written
        self._overwrite = overwrite
        self._claiming = threading.Lock()
        self._noted = True
        """Whether all names are on the disk."""
        self._synced = False
        """Whether the lock file itself is sure to be found in the folder."""

    @property
    def is_empty(self) -> bool:
        """Whether nothing of evalcam's is in it."""
        return not self._written

    def claim(self, *names: str) -> Path:
        """The path of a file about to be written, its folders made; a stranger's file is never replaced.

        Threads may claim at the same time. Of several names, the path of the first.

        Raises:
            UsageError: A file of that name is there and evalcam did not write it.
        """
        with self._claiming:
            for name in names:
                self._claim(name)
            self._note()
        return self.path / names[0]

    def _claim(self, name: str) -> None:
        path = self.path / name
        if self._overwrite:
            self._overwrite = False
            _remove(self.path, self._written)
            self._lock.truncate(0)
            self._written.clear()
        if name not in self._written:
            if os.path.lexists(path):
                raise UsageError(
                    f"{shown(path.absolute())} is there already and evalcam did not write it; move it away"
                )
            make_folder(path.parent)
            self._append((json.dumps(name) + "\n").encode())
            self._written.add(name)

    def _append(self, line: bytes) -> None:
        """Add a line to the lock file, or nothing."""
        size = os.fstat(self._lock.fileno()).st_size
        self._noted = False
        try:
            while line:
                line = line[self._lock.write(line) :]
        except OSError as error:
            with contextlib.suppress(OSError):
                self._lock.truncate(size)
            raise write_error(self.path / LOCK_NAME, error) from error

    def _note(self) -> None:
        """Bring the names to the disk."""
        if self._noted:
            return
        try:
            os.fsync(self._lock.fileno())
            if not self._synced:
                sync_folder(self.path)
        except OSError as error:
            raise write_error(self.path / LOCK_NAME, error) from error
        self._noted = self._synced = True

    def write(self, name: str, *data: bytes | memoryview) -> Path:
        """Write one file of the folder, whole or not at all."""
        path = self.claim(name)
        write_swept(path, data)
        return path

    def write_all(self, content: Mapping[str, bytes | memoryview]) -> None:
        """Write several files of the folder by name, each whole or not at all; all are on the disk afterwards."""
        if content:
            self.claim(*content)
            write_each_whole({self.path / name: data for name, data in content.items()})

    def remove(self, name: str) -> None:
        """Remove one file of the folder, if it is there, for good.

        Raises:
            MachineError: The system reports a fault.
        """
        path = self.claim(name)
        try:
            path.unlink(missing_ok=True)
            sync_folder(path.parent)
        except OSError as error:
            raise write_error(path, error, what="remove") from error

    @contextlib.contextmanager
    def stream(self, name: str) -> Iterator[IO[bytes]]:
        """One file of the folder, written piece by piece in the block: whole when it ends, as before when it fails.

        An `OSError` of the block is taken for one of this file.
        """
        with whole_file(self.claim(name)) as stream:
            yield stream

    def write_json(self, name: str, value: object) -> Path:
        return self.write(name, json_text(value).encode())

    def write_csv(self, name: str, header: Sequence[str], rows: Iterable[Sequence[object]]) -> Path:
        path = self.claim(name)
        write_csv(path, header, rows)
        return path


@contextlib.contextmanager
def output_folder(
    path: Path, *, overwrite: bool = False, resume: bool = False, inputs: Iterable[Path] = ()
) -> Iterator[OutputFolder]:
    """Own the folder for the time of the block.

    Args:
        path: Used exactly as given; made when absent.
        overwrite: Remove what evalcam wrote there before.
        resume: Accept what evalcam wrote there before.
        inputs: Folders that are only read; the output may not lie in one of them.

    Raises:
        UsageError: The path is a file, holds other things, or lies in an input folder.
        MachineError: Another run owns it, or it is not writable.
    """
    _refuse_bad_place(path, inputs)
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    with contextlib.ExitStack() as stack:
        try:
            lock = stack.enter_context(_locked(path))
        except EvalcamError:
            _remove_empty(made)
            raise
        written = _names(lock, path)
        _sweep_temporaries(path, written)
        folder = OutputFolder(path, lock, written, overwrite=overwrite and bool(written))
        try:
            _require_empty(path, allowed=resume or overwrite)
            yield folder
        finally:
            if folder.is_empty:  # a run that wrote nothing leaves nothing: neither its lock nor the folder it made
                _tidy(path, made)


def discard_folder(path: Path) -> None:
    """Remove what evalcam wrote in a folder, and the folder unless something else is in it.

    Raises:
        MachineError: Another run owns it.
    """
    with _locked(path) as lock:
        _remove(path, _names(lock, path))
        _tidy(path, [path])


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[IO[bytes]]:
    """The folder's lock file, owned by this process."""
    for _ in range(5):
        make_folder(path)
        try:
            lock = (path / LOCK_NAME).open("a+b", buffering=0)
        except OSError as error:
            raise write_error(path, error) from error
        try:
            _take_lock(lock, path)
            if _is_current(lock, path / LOCK_NAME):
                yield lock
                return
        finally:
            with contextlib.suppress(OSError):  # its lines are on the disk
                lock.close()
    raise MachineError(f"other evalcam runs keep using {shown(path.absolute())}; choose another --out")


def _is_current(lock: IO[bytes], path: Path) -> bool:
    """Whether the file is still the one under the path: a run that ended just now may have removed it."""
    try:
        mine, there = os.fstat(lock.fileno()), path.stat()
    except OSError:
        return False
    return (mine.st_dev, mine.st_ino) == (there.st_dev, there.st_ino)


def _require_empty(path: Path, *, allowed: bool) -> None:
    present = sorted(entry.name for entry in os.scandir(path) if entry.name != LOCK_NAME)
    if present and not allowed:
        raise UsageError(
            f"the output folder {shown(path.absolute())} is not empty ({listed(present)});\n"
            "use --resume to continue an interrupted run, --overwrite to replace what evalcam wrote there,\n"
            "or another --out"
        )


def _tidy(path: Path, made: Iterable[Path]) -> None:
    with contextlib.suppress(OSError):
        (path / LOCK_NAME).unlink()
        _remove_empty(made)


def _remove_empty(folders: Iterable[Path]) -> None:
    """Remove folders, the innermost first, of which some may be missing or in use."""
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()


def _names(lock: IO[bytes], path: Path) -> set[str]:
    """The file names in a lock file; a last line cut off by a crash names a file that was not yet written."""
    names: set[str] = set()
    try:
        lock.seek(0)
        *lines, rest = lock.read().split(b"\n")
        if rest:
            lock.truncate(lock.tell() - len(rest))  # else the next name would be added to half a one
    except OSError as error:
        raise write_error(path / LOCK_NAME, error) from error
    for line in lines:
        with contextlib.suppress(ValueError):
            names.add(str(json.loads(line)))
    return names


def _refuse_bad_place(path: Path, inputs: Iterable[Path]) -> None:
    try:
        resolved = path.resolve()
        if path.exists() and not path.is_dir():
            raise UsageError(f"--out {shown(path.absolute())} is a file; name a folder")
    except OSError as error:
        raise write_error(path, error) from error
    except ValueError as error:
        raise UsageError(f"--out {shown(path)} cannot be used: {error}") from error
    reserved = [Path(resolved.anchor)]
    with contextlib.suppress(RuntimeError):  # a container may know no home
        reserved.append(Path.home())
    if resolved in reserved:
        raise UsageError(f"--out {shown(resolved)} is not a place for results; name a folder of its own")
    refuse_inside(resolved, inputs)


def refuse_inside(path: Path, inputs: Iterable[Path]) -> None:
    """Refuse to write into a folder that is only read.

    Raises:
        UsageError: The path is one of the input folders or lies in one.
    """
    for folder in inputs:
        if folder.is_dir() and path.resolve().is_relative_to(folder.resolve()):
            raise UsageError(
                f"--out {shown(path.absolute())} lies in the data folder, which evalcam never writes to; choose another"
            )


def _take_lock(lock: IO[bytes], path: Path) -> None:
    try:
        if os.name == "nt":
            import msvcrt  # noqa: PLC0415 (exists on Windows only)

            getattr(msvcrt, "locking")(lock.fileno(), getattr(msvcrt, "LK_NBLCK"), 1)  # noqa: B009
        else:
            import fcntl  # noqa: PLC0415 (exists on POSIX only)

            # not flock: workers that were forked off would keep that alive for seconds after this process is killed
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise MachineError(
            f"another evalcam run is using {shown(path.absolute())}; wait for it or choose another --out"
        ) from error


def _sweep_temporaries(path: Path, written: Iterable[str]) -> None:
    """Remove what killed runs left of their own files; safe because this run holds the lock."""
    names: dict[Path, list[str]] = {}
    for name in written:
        names.setdefault((path / name).parent, []).append(Path(name).name)
    for folder, own in names.items():
        if folder.resolve().is_relative_to(path.resolve()):  # a lock file edited by hand must not reach outside
            sweep(folder, own)


def _remove(path: Path, written: Iterable[str]) -> None:
    folders: set[Path] = set()
    for name in written:
        file = path / name
        if not file.resolve().is_relative_to(path.resolve()):
            continue  # a lock file edited by hand must not reach outside
        with contextlib.suppress(FileNotFoundError):
            file.unlink()
        folders.update(parent for parent in file.parents if parent != path and parent.is_relative_to(path))
    for folder in sorted(folders, key=lambda entry: -len(entry.parts)):
        with contextlib.suppress(OSError):  # not empty: somebody else's files stay
            folder.rmdir()
