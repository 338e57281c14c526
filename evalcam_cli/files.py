"""Writing that is whole or absent: write beside, flush to disk, rename. And folders that one run owns."""

import contextlib
import csv
import errno
import hashlib
import io
import json
import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from evalcam_cli.errors import MachineError, UsageError
from evalcam_cli.inputs import read_bytes
from evalcam_cli.text import csv_cell, csv_text, listed, shown

LOCK_NAME = ".evalcam.lock"
_MAX_JSON_BYTES = 200_000_000


def write_whole(path: Path, *data: bytes | memoryview) -> None:
    """Put the bytes, one part after the other, under the path: a crash leaves the old file or the new one, whole.

    Raises:
        MachineError: The disk is full, the folder is not writable, or the system reports another fault.
    """
    with _whole_file(path) as stream:
        for part in data:
            stream.write(part)


def write_each_whole(files: Mapping[Path, bytes | memoryview]) -> None:
    """As `write_whole` for each of several files: one failing does not take back those before it.

    Returns when all are on the disk, as after as many calls, but each folder is synced only once.
    """
    for path, data in files.items():
        with _whole_file(path, sync=False) as stream:
            stream.write(data)
    for folder in {path.parent: None for path in files}:
        try:
            _sync_folder(folder)
        except OSError as error:
            raise write_error(folder, error) from error


@contextlib.contextmanager
def _whole_file(path: Path, *, sync: bool = True) -> Iterator[IO[bytes]]:
    """A file to write to, which takes the path when the block ends well and is gone when it does not.

    Its content is on the disk before it takes the path; that it has taken it is so, too, only after a sync.
    """
    temporary = _temporary(path, str(os.getpid()))
    try:
        try:
            with temporary.open("xb") as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        if sync:
            _sync_folder(path.parent)
    except OSError as error:
        raise write_error(path, error) from error


def _temporary(path: Path, owner: str) -> Path:
    """Where a file is written first: in its folder, since a rename must not cross disks, under a name that fits."""
    return path.parent / f".{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]}.{owner}.tmp"


def _sync_folder(folder: Path) -> None:
    """Make a rename in the folder durable; Windows has no such call and needs none."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_error(path: Path, error: OSError) -> MachineError | UsageError:
    """What to tell the user when the system refused to write."""
    place = shown(path.absolute())
    if error.errno in (errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EINVAL):
        return UsageError(f"cannot write {place}: {error.strerror}; choose another --out")
    hint = {
        errno.ENOSPC: "free some space and run again; earlier files are kept",
        errno.EDQUOT: "the disk quota is used up; earlier files are kept",
        errno.EACCES: "you have no permission to write there; choose another --out",
        errno.EPERM: "you have no permission to write there; choose another --out",
        errno.EROFS: "the file system is read-only; choose another --out",
    }.get(error.errno or 0, "earlier files are kept")
    return MachineError(f"cannot write {place}: {error.strerror}; {hint}")


def json_text(value: object) -> str:
    """Strict JSON (no NaN), keys in the order given, ending with a newline."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, indent=1) + "\n"


def csv_bytes(header: Sequence[str], rows: Iterable[Sequence[object]]) -> bytes:
    """A CSV table in UTF-8 with LF line ends; texts are guarded against spreadsheets, None is an empty cell.

    Floats are written in full (the shortest text that reads back to the same number).
    """
    return csv_lines([header, *rows])


def csv_lines(rows: Iterable[Sequence[object]]) -> bytes:
    """Rows as `csv_bytes` writes them."""
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    for row in rows:
        writer.writerow([csv_cell(cell) if isinstance(cell, str) else "" if cell is None else cell for cell in row])
    return buffer.getvalue().encode("utf-8", "surrogateescape")


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a table as `csv_bytes` makes it, whole or not at all."""
    write_whole(path, csv_bytes(header, rows))


def read_csv(path: Path) -> tuple[list[str], list[list[str]]]:
    """Header and rows of a table that `write_csv` wrote, texts as they were before the guard."""
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as stream:
        rows = [[csv_text(cell) for cell in row] for row in csv.reader(stream)]
    return (rows[0], rows[1:]) if rows else ([], [])


class OutputFolder:
    """A folder that this run alone writes to, and whose files it remembers so that `--overwrite` removes only those.

    The lock file holds one line per file written. The lock itself belongs to the process and is freed when it dies.
    What is to be overwritten is removed when the first new file is written: a run that is refused loses nothing.
    """

    def __init__(self, path: Path, lock: IO[str], written: set[str], *, overwrite: bool) -> None:
        self.path = path
        self._lock = lock
        self._written = written
        self._overwrite = overwrite
        self._claiming = threading.Lock()

    @property
    def is_empty(self) -> bool:
        """Whether nothing of evalcam's is in it."""
        return not self._written

    def claim(self, name: str) -> Path:
        """The path of a file about to be written, its folders made; a stranger's file is never replaced.

        Threads may claim at the same time.

        Raises:
            UsageError: A file of that name is there and evalcam did not write it.
        """
        with self._claiming:
            return self._claim(name)

    def _claim(self, name: str) -> Path:
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
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                self._lock.write(json.dumps(name) + "\n")
                self._lock.flush()
            except OSError as error:
                raise write_error(path, error) from error
            self._written.add(name)
        return path

    def write(self, name: str, *data: bytes | memoryview) -> Path:
        """Write one file of the folder, whole or not at all."""
        path = self.claim(name)
        write_whole(path, *data)
        return path

    def write_all(self, content: Mapping[str, bytes | memoryview]) -> None:
        """Write several files of the folder by name, each whole or not at all; all are on the disk afterwards."""
        write_each_whole({self.claim(name): data for name, data in content.items()})

    @contextlib.contextmanager
    def stream(self, name: str) -> Iterator[IO[bytes]]:
        """One file of the folder, written piece by piece in the block: whole when it ends, as before when it fails.

        An `OSError` of the block is taken for one of this file.
        """
        with _whole_file(self.claim(name)) as stream:
            yield stream

    def write_json(self, name: str, value: object) -> Path:
        return self.write(name, json_text(value).encode("utf-8", "surrogateescape"))

    def write_csv(self, name: str, header: Sequence[str], rows: Iterable[Sequence[object]]) -> Path:
        return self.write(name, csv_bytes(header, rows))


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
    with _locked(path) as lock:
        lock.seek(0)
        written = set(_names(lock))
        _sweep_temporaries(path, written)
        folder = OutputFolder(path, lock, written, overwrite=overwrite and bool(written))
        try:
            _require_empty(path, allowed=resume or overwrite)
            yield folder
        finally:
            if folder.is_empty:  # a run that wrote nothing leaves nothing: neither its lock nor the folder it made
                _tidy(path, made)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[IO[str]]:
    """The folder's lock file, owned by this process."""
    for _ in range(5):
        try:
            path.mkdir(parents=True, exist_ok=True)
            lock = (path / LOCK_NAME).open("a+", encoding="utf-8", errors="surrogateescape", newline="\n")
        except OSError as error:
            raise write_error(path, error) from error
        with lock:
            _take_lock(lock, path)
            if _is_current(lock, path / LOCK_NAME):
                yield lock
                return
    raise MachineError(f"other evalcam runs keep using {shown(path.absolute())}; choose another --out")


def _is_current(lock: IO[str], path: Path) -> bool:
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
        for folder in made:
            folder.rmdir()


def _names(lock: Iterable[str]) -> Iterator[str]:
    """The file names in a lock file; a last line cut off by a crash names a file that was not yet written."""
    for line in lock:
        with contextlib.suppress(ValueError):
            yield str(json.loads(line))


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


def _take_lock(lock: IO[str], path: Path) -> None:
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
    for name in written:
        pattern = _temporary(path / name, "*")
        for temporary in pattern.parent.glob(pattern.name):
            with contextlib.suppress(OSError):
                temporary.unlink()


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


def read_json(path: Path) -> Any:
    """The value of a JSON file.

    Raises:
        UsageError: It is not there.
        ValueError: It is not JSON.
    """
    try:
        data = read_bytes(path, _MAX_JSON_BYTES)
        if len(data) > _MAX_JSON_BYTES:
            raise ValueError(f"it has more than {_MAX_JSON_BYTES:,} bytes")
        return json.loads(data.decode("utf-8-sig", "surrogateescape"))
    except OSError as error:
        raise UsageError(f"cannot read {shown(path.absolute())}: {error.strerror}") from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
