"""Which of the processes that torchrun started this one is."""

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from evalcam_cli.errors import UsageError


@dataclass(frozen=True)
class World:
    """The processes of one run."""

    rank: int = 0
    """Of this process, from 0."""
    size: int = 1
    """How many there are."""
    local_rank: int = 0
    """Among those on this machine: which GPU is this one's."""
    restarts: int = 0
    """How often torchrun has started all of them anew, after one had died."""

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and speaks."""
        return self.rank == 0


def world() -> World:
    """The place of this process, as torchrun says it in the environment; a process of its own otherwise.

    Raises:
        UsageError: The environment says something impossible.
    """
    if "WORLD_SIZE" not in os.environ or "RANK" not in os.environ or "MASTER_ADDR" not in os.environ:
        return World()
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "TORCHELASTIC_RESTART_COUNT")
    values = [os.environ.get(name, "0") for name in names]
    if not all(value.isdecimal() for value in values) or int(values[0]) >= int(values[1]):
        said = ", ".join(f"{name}={value}" for name, value in zip(names, values, strict=True))
        raise UsageError(
            f"cannot join the processes of torchrun: {said}; start with torchrun, or unset these variables"
        )
    return World(*map(int, values))


def is_of_this_launch(file: Path) -> bool:
    """Whether a file was last changed after the torchrun that started this process had begun.

    So what an attempt before a restart left is told from what was there before the command. Where the system does not
    say when a process began, any file that is there counts.
    """
    try:
        changed = file.stat().st_mtime
    except OSError:
        return False
    begun = _beginning_of(os.getppid())
    return begun is None or changed >= begun


def _beginning_of(process: int) -> float | None:
    """When a process began, in seconds since 1970, to a second; None where `/proc` does not say."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        fields = Path(f"/proc/{process}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
        rows = (line.split() for line in Path("/proc/stat").read_text(encoding="ascii").splitlines())
        boot = next(int(row[1]) for row in rows if row and row[0] == "btime")
        return boot + int(fields[19]) / os.sysconf("SC_CLK_TCK") - 1  # proc(5), fields 22 and btime, which is rounded
    return None
