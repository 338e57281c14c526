"""What this machine lends to the process: cores and memory, within the limits of its container."""

import contextlib
import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from evalcam_cli.world import world

_JOBS_VARIABLE = "EVALCAM_JOBS"  # inherited by the processes that share the machine
_UNKNOWN_MEMORY = 2 << 30  # bytes taken for free where the system is not asked


def usable_cores(root: Path = Path("/")) -> int:
    """CPU cores that the process may keep busy: those it is bound to, or fewer by its container's quota; at least 1.

    Args:
        root: Of the file system; another one in tests.
    """
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [_cores_of(folder) for controller in ("", "cpu") for folder in _control_groups(controller, root)]
    return max(1, int(min([float(bound), *quotas])))


def available_memory(root: Path = Path("/")) -> int:
    """Bytes that can be taken without swapping, or without being killed at the limit of a container.

    Args:
        root: Of the file system; another one in tests.
    """
    memory = _system_memory(root)
    rooms = [_room_of(folder) for controller in ("", "memory") for folder in _control_groups(controller, root)]
    return max(0, int(min([float(memory), *rooms])))


def processes_here() -> int:
    """Processes of this run on this machine, as torchrun or `--jobs` says: they share its cores and its memory."""
    said = os.environ.get("LOCAL_WORLD_SIZE" if world().size > 1 else _JOBS_VARIABLE, "")
    return max(1, int(said)) if said.isdecimal() else 1


@contextlib.contextmanager
def shared_machine(jobs: int) -> Iterator[None]:
    """Let this process and those that it starts in the block know that so many work at a time."""
    before = os.environ.get(_JOBS_VARIABLE)
    os.environ[_JOBS_VARIABLE] = str(jobs)
    try:
        yield
    finally:
        if before is None:
            del os.environ[_JOBS_VARIABLE]
        else:
            os.environ[_JOBS_VARIABLE] = before


def room_for_batches() -> int:
    """Bytes of shared memory through which the workers of this process hand over batches; containers often have 64 MB.

    Much more than there is where the system has no such limit.
    """
    try:
        status = os.statvfs("/dev/shm")
    except (AttributeError, OSError):
        return sys.maxsize
    return status.f_bavail * status.f_frsize // processes_here()


def _control_groups(controller: str, root: Path) -> Iterator[Path]:
    """The folders of the group that the process is in and of those around it; no controller means version 2.

    In a container the path may be the host's, of which only the mounted folder itself is to be seen.
    """
    base = root / "sys/fs/cgroup"
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controller not in controllers.split(","):
            continue
        for mount in dict.fromkeys((base / (controllers or "unified"), base / controller)):
            group = mount if ".." in path.split("/") else mount / path.lstrip("/")
            yield from (folder for folder in (group, *group.parents) if folder.is_relative_to(mount))


def _cores_of(folder: Path) -> float:
    """Cores' worth of time that a group is given; infinite without a limit."""
    quota, period = ([*_text(folder / "cpu.max").split(), "", ""])[:2]  # version 2: "max 100000"
    if not quota:
        quota, period = _text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us")  # version 1: -1
    return int(quota) / int(period) if quota.isdecimal() and period.isdecimal() and int(period) else math.inf


def _room_of(folder: Path) -> float:
    """Bytes left to a group; what only caches files does not count as taken."""
    names = ("memory.max", "memory.current", "inactive_file")
    if not (folder / names[0]).exists():
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    limit, used = _text(folder / names[0]), _text(folder / names[1])
    if not (limit.isdecimal() and used.isdecimal()):
        return math.inf
    return int(limit) - int(used) + _entry(_text(folder / "memory.stat"), names[2])


def _system_memory(root: Path) -> int:
    """Bytes that the system calls available, by `MemAvailable` of Linux; elsewhere an estimate."""
    available = _entry(_text(root / "proc/meminfo"), "MemAvailable:")
    if available:
        return available * 1024
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2  # macOS does not say what is free
    except (AttributeError, ValueError, OSError):
        return _UNKNOWN_MEMORY


def _entry(table: str, name: str) -> int:
    """The number behind a name in lines of names and numbers; 0 when it is not there."""
    rows = (line.split() for line in table.splitlines())
    return next((int(row[1]) for row in rows if len(row) > 1 and row[0] == name and row[1].isdecimal()), 0)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except (OSError, ValueError):
        return ""
