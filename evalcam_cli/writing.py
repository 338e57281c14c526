"""Writing that is whole or absent: write beside, flush to disk, rename, flush the folder.

Pillai et al., "All File Systems Are Not Created Equal", OSDI 2014, found what a crash undoes and reorders where one of
these four steps is left out. A failed flush is never tried again: Linux drops the pages that it could not write, so
that the second one would report success (PostgreSQL's "fsyncgate", 2018); the file is thrown away instead.
"""

import contextlib
import errno
import hashlib
import os
import secrets
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO

from evalcam_cli.errors import MachineError, UsageError
from evalcam_cli.text import shown

_SUFFIX = ".tmp"
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EINVAL)
"""What systems say that give no file a second name: FAT, some networks and containers."""
_NO_SYNC = (errno.EINVAL, errno.EBADF, errno.EOPNOTSUPP)
"""What systems say that do not flush folders."""
_TRIES = 5


def write_whole(path: Path, *data: bytes | memoryview) -> None:
    """Put the bytes, one part after the other, under the path: a crash leaves the old file or the new one, whole.

    What a killed process left half-written of this file is removed.

    Raises:
        MachineError: The disk is full, the folder is not writable, or the system reports another fault.
    """
    write_parts(path, data)


def write_parts(path: Path, parts: Iterable[bytes | memoryview], *, previous: Path | None = None) -> None:
    """As `write_whole`, with parts that may be made one after the other while the file is written.

    Args:
        path: Of the file.
        parts: Of its content.
        previous: In the same folder: what was under the path is there afterwards, in place of what was there before.
            There is no moment without a whole file under the one name or the other.
    """
    sweep_abandoned(path)
    write_swept(path, parts, previous=previous)


def write_swept(path: Path, parts: Iterable[bytes | memoryview], *, previous: Path | None = None) -> None:
    """As `write_parts`, where nothing is to be swept."""
    remaining, done = iter(parts), 0
    try:
        with whole_file(path, previous=previous) as stream:
            for part in remaining:
                done += memoryview(part).nbytes
                stream.write(part)
    except MachineError as error:
        if isinstance(error.__cause__, OSError) and error.__cause__.errno in (errno.ENOSPC, errno.EDQUOT):
            needed = done + sum(memoryview(part).nbytes for part in remaining)
            raise write_error(path, error.__cause__, needed=needed) from error.__cause__
        raise


def write_each_whole(files: Mapping[Path, bytes | memoryview]) -> None:
    """As `write_whole` for each of several files: one failing does not take back those before it.

    Returns when all are on the disk, as after as many calls, but each folder is flushed only once. Nothing is swept.
    """
    for path, data in files.items():
        with whole_file(path, sync=False) as stream:
            stream.write(data)
    for folder in {path.parent: None for path in files}:
        try:
            sync_folder(folder)
        except OSError as error:
            raise write_error(folder, error) from error


@contextlib.contextmanager
def whole_file(path: Path, *, sync: bool = True, previous: Path | None = None) -> Iterator[IO[bytes]]:
    """A file to write to, which takes the path when the block ends well and is gone when it does not.

    Its content is on the disk before it takes the path; that it has taken it is so, too, only after a flush of the
    folder. `previous` as in `write_parts`. An `OSError` of the block is taken for one of this file.
    """
    temporary = temporary_of(path, secrets.token_hex(4))
    try:
        try:
            with _created(temporary) as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
                # its lock must outlast the file's closing, which may report an error; Windows renames no open file
                held = None if os.name == "nt" else os.dup(stream.fileno())
            try:
                if previous is not None:
                    _keep(path, previous)
                temporary.replace(path)
            finally:
                with contextlib.suppress(OSError):  # all is on the disk
                    if held is not None:
                        os.close(held)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        if sync:
            sync_folder(path.parent)
    except OSError as error:
        raise write_error(path, error) from error


def _created(temporary: Path) -> IO[bytes]:
    """A new file, locked as long as it is open, by which other processes see that it is not abandoned."""
    for _ in range(_TRIES):
        stream = temporary.open("xb")
        if not lock(stream) or os.fstat(stream.fileno()).st_nlink:
            return stream
        stream.close()  # another process found it unlocked, and removed it
    raise OSError(errno.EBUSY, "other processes keep removing the file")


def _keep(path: Path, previous: Path) -> None:
    """Give the file under the path, if there is one, a second name in place of the file that has it."""
    with contextlib.suppress(OSError):
        if previous.samefile(path):
            return  # killed between the two renames; renaming a file to its own other name would leave both
    link = temporary_of(previous, secrets.token_hex(4))
    try:
        os.link(path, link)
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        path.replace(previous)
        return
    try:
        link.replace(previous)
    except BaseException:
        with contextlib.suppress(OSError):
            link.unlink()
        raise


def put_back(path: Path, previous: Path) -> None:
    """Let the path be the file that `write_parts` kept as the previous one, which stays there, too.

    Raises:
        MachineError: The system reports a fault.
    """
    try:
        with previous.open("rb") as content, whole_file(path) as stream:
            shutil.copyfileobj(content, stream, 1 << 20)
    except OSError as error:
        raise write_error(path, error) from error


def temporary_of(path: Path, token: str) -> Path:
    """Where a file is written first: in its folder, since a rename must not cross disks, under a name that fits."""
    return path.parent / f".{_digest(path.name)}.{token}{_SUFFIX}"


def _digest(name: str) -> str:
    return hashlib.sha256(os.fsencode(name)).hexdigest()[:16]


def sweep(folder: Path, names: Collection[str], *, owned: bool = True) -> None:
    """Remove what killed processes left half-written of the files of these names in a folder.

    Args:
        folder: It need not be there.
        names: Of the files, without folders.
        owned: Nobody else writes to the folder; else files that another process has locked stay.
    """
    digests = {_digest(name) for name in names}
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            _, _, rest = entry.name.partition(".")
            if entry.name.startswith(".") and rest.endswith(_SUFFIX) and rest[:16] in digests and rest[16:17] == ".":
                with contextlib.suppress(OSError):
                    if owned or _is_abandoned(Path(entry.path)):
                        Path(entry.path).unlink()


def sweep_abandoned(*paths: Path) -> None:
    """Remove what killed processes left half-written of files that stand in folders which nobody owns."""
    folders: dict[Path, list[str]] = {}
    for path in paths:
        folders.setdefault(path.parent, []).append(path.name)
    for folder, names in folders.items():
        sweep(folder, names, owned=False)


def _is_abandoned(temporary: Path) -> bool:
    with temporary.open("r+b") as stream:
        return lock(stream)


def lock(stream: IO[bytes]) -> bool:
    """Take the whole file for this process, until it is closed; whether it was to be had and the system knows locks."""
    if os.name == "nt":
        return False
    import fcntl  # noqa: PLC0415 (exists on POSIX only)

    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def sync_folder(folder: Path) -> None:
    """Make what was renamed, made and removed in the folder durable, where the system can.

    Windows has no such call and needs none. A folder that one may write to but not list cannot be flushed.
    """
    if os.name == "nt":
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Make the folder and those that it lies in, unless they are there, and let them outlive a crash.

    Raises:
        MachineError: The system reports a fault.
        UsageError: A file stands in the way.
    """
    try:
        if not folder.is_dir():
            made = [one for one in (folder, *folder.parents) if not one.exists()]
            folder.mkdir(parents=True, exist_ok=True)
            for one in made:
                sync_folder(one.parent)
    except OSError as error:
        raise write_error(folder, error) from error


def require_space(folder: Path, needed: int, what: str) -> None:
    """Find out before the work whether its files will fit on the disk.

    Args:
        folder: Where they are to lie.
        needed: Bytes.
        what: What they are, for the message.

    Raises:
        MachineError: They will not. A quota may still be smaller than the disk.
    """
    free = _free(folder)
    if free is not None and free < needed:
        raise MachineError(
            f"No space left on the disk of {shown(folder.absolute())} for {what}: {amount(needed)} are needed and "
            f"{amount(free)} are free;\nfree some space, or choose another --out; nothing was changed"
        )


def _free(folder: Path) -> int | None:
    """Bytes that may be written to the folder's disk; None where the system does not say."""
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return None


def amount(size: int) -> str:
    """A number of bytes, short."""
    value, units = float(size), ["bytes", "kB", "MB", "GB", "TB"]
    while value >= 1000 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{value:.0f} {units[0]}" if units[0] == "bytes" else f"{value:.1f} {units[0]}"


_PLACES = (errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EINVAL, errno.EEXIST, errno.ELOOP)
"""What the system says of a path that can hold nothing: of another kind, too long, a link to nowhere."""


def write_error(path: Path, error: OSError, *, needed: int = 0, what: str = "write") -> MachineError | UsageError:
    """What to tell the user when the system refused to write.

    Args:
        path: Of the file or folder.
        error: What the system said.
        needed: Bytes that the file has or would have, where known.
        what: Was refused.
    """
    place = shown(path.absolute())
    if len(place) > 300:  # else what is wrong with it would be cut off
        place = f"{place[:200]}…{place[-80:]}"
    if error.errno in _PLACES:
        return UsageError(f"cannot write {place}: {error.strerror}; choose another --out")
    size = f"the file needs {amount(needed)}" if needed else "the disk is full"
    free = _free(path.parent) if error.errno == errno.ENOSPC else None
    room = size if free is None else f"{size}, {amount(free)} are free"
    no_permission = "you have no permission to write there; choose another --out;\n"
    hint = {
        errno.ENOSPC: f"{room};\nfree some space and run again; ",
        errno.EDQUOT: f"{size if needed else 'it does not fit'}, and the quota is used up;\n",
        errno.EACCES: no_permission,
        errno.EPERM: no_permission,
        errno.EROFS: "the file system is read-only; choose another --out;\n",
    }.get(error.errno or 0, "")
    return MachineError(f"cannot {what} {place}: {error.strerror}; {hint}what was there before is kept")
