"""How often a test set was looked at: `test_ledger.jsonl` beside the split used, a line per evaluation.

A test set that decides between models again and again stops being unseen. The ledger forbids nothing; it lets the
report say how many looks, with how many checkpoints, a number comes after.
"""

import contextlib
import json
import logging
import os
import stat
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from evalcam_cli import __version__
from evalcam_cli.text import counted, shown

LEDGER_NAME = "test_ledger.jsonl"
_LOCK_SECONDS = 5.0
_LINE_BYTES = 64 * 1024  # of a line that is read; longer ones are none of ours

log = logging.getLogger("evalcam")


@dataclass(frozen=True)
class Look:
    """One evaluation on a test set."""

    checkpoint: str | None
    """SHA-256 of the checkpoint."""
    split: str
    """The fingerprint of the split."""
    subset: str
    n: int
    metrics: Mapping[str, float | None]
    """The headline numbers: accuracy, balanced accuracy."""


@dataclass(frozen=True)
class Looks:
    """How often a set was evaluated, this time included."""

    times: int
    checkpoints: int
    """Different ones."""

    @property
    def sentence(self) -> str:
        """For the report."""
        if self.times == 1:
            return "This is the first recorded look at this test set."
        return (
            f"This test set was looked at {self.times:,} times, with {counted(self.checkpoints, 'checkpoint')}, "
            "this time included; numbers that were chosen by looking at it are too good."
        )


def record_look(
    split_path: Path | None, data_root: Path | None, look: Look, *, now: datetime | None = None
) -> Looks | None:
    """Append a look at a test set to the ledger beside the split, and count those at the same set.

    The same set is the same split fingerprint and the same subset. A ledger that cannot be kept is a warning: the
    evaluation stands without it.

    Args:
        split_path: The `split.csv` used; None for data evaluated without a split, which has no place for a ledger.
        data_root: The data folder, in which nothing is written.
        look: This evaluation. The sets `train` and `val` are there to be looked at and are not recorded.
        now: The time to write; by default the present.

    Returns:
        None when nothing was recorded.
    """
    if split_path is None or look.subset in ("train", "val"):
        return None
    path = split_path.resolve().parent / LEDGER_NAME
    if data_root is not None and path.is_relative_to(data_root.resolve()):
        log.warning("no test ledger: %s lies in the data folder, which is never written to", shown(split_path))
        return None
    try:
        return _record(path, look, now or datetime.now(UTC))
    except OSError as error:
        log.warning("no test ledger: cannot write %s: %s", shown(path), error.strerror or error)
        return None


def _record(path: Path, look: Look, now: datetime) -> Looks | None:
    kind = _kind(path)
    if kind is not None:
        log.warning("no test ledger: %s is %s", shown(path), kind)
        return None
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT
    for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY"):  # not all exist everywhere
        flags |= getattr(os, name, 0)
    descriptor = os.open(path, flags, 0o644)
    with open(descriptor, "rb", closefd=True) as stream:  # noqa: PTH123 (a descriptor is no path)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            log.warning("no test ledger: %s is no regular file", shown(path))
            return None
        with _locked(descriptor):
            before, damaged, complete = _read(stream, look)
            _append(descriptor, look, now, new_line=not complete)
    if damaged:
        log.warning("%s: %s cannot be read and are not counted", shown(path), counted(damaged, "line"))
    checkpoints = {checkpoint for checkpoint in (*before, look.checkpoint) if checkpoint is not None}
    return Looks(len(before) + 1, max(1, len(checkpoints)))


def _kind(path: Path) -> str | None:
    """What stands at the path instead of a ledger; None when nothing or a regular file does."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return None
    if stat.S_ISLNK(mode):
        return "a symbolic link, which is not followed"
    return None if stat.S_ISREG(mode) else "no regular file"


def _read(stream: Iterator[bytes], look: Look) -> tuple[list[str | None], int, bool]:
    """The checkpoints of the looks at the same set, damaged lines, and whether the last line is complete."""
    checkpoints: list[str | None] = []
    damaged, line = 0, b"\n"
    for line in stream:
        if not line.strip():
            continue
        entry = _entry(line)
        if entry is None:
            damaged += 1
        elif (entry["split"], entry["subset"]) == (look.split, look.subset):
            checkpoints.append(entry["checkpoint"])
    return checkpoints, damaged, line.endswith(b"\n")


def _entry(line: bytes) -> dict[str, str | None] | None:
    """What is needed of a line; None when it is none that evalcam wrote."""
    try:
        entry = json.loads(line) if len(line) <= _LINE_BYTES else None
    except (ValueError, RecursionError):
        return None
    if not isinstance(entry, dict):
        return None
    checkpoint = entry.get("checkpoint")
    if not (isinstance(entry.get("split"), str) and isinstance(entry.get("subset"), str)):
        return None
    return entry if checkpoint is None or isinstance(checkpoint, str) else None


def _append(descriptor: int, look: Look, now: datetime, *, new_line: bool) -> None:
    """One write, so that lines of runs that look at the same time do not mix even where there is no lock."""
    entry = {
        "time": now.astimezone(UTC).isoformat(timespec="seconds"),
        "evalcam": __version__,
        "checkpoint": look.checkpoint,
        "split": look.split,
        "subset": look.subset,
        "n": look.n,
        "metrics": dict(look.metrics),
    }
    line = json.dumps(entry, ensure_ascii=True, allow_nan=False) + "\n"
    data = ("\n" if new_line else "") + line
    size = os.fstat(descriptor).st_size
    if os.write(descriptor, data.encode()) < len(data):
        os.ftruncate(descriptor, size)  # half a line would be in the way of the next one
        raise OSError(None, "the line was cut off; is the disk full?")


@contextlib.contextmanager
def _locked(descriptor: int) -> Iterator[None]:
    """Alone with the file, if it can be had within some seconds; else together, which a single write survives."""
    if os.name == "nt":
        yield
        return
    import fcntl  # noqa: PLC0415 (exists on POSIX only)

    end, held = time.monotonic() + _LOCK_SECONDS, False
    while not held and time.monotonic() < end:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held = True
        except BlockingIOError:
            time.sleep(0.02)
        except OSError:  # a file system without locks
            break
    try:
        yield
    finally:
        if held:
            fcntl.flock(descriptor, fcntl.LOCK_UN)
