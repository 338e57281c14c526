"""What a case may do to the process that its command runs in: the machine as users meet it at its worst."""

import contextlib
import ctypes
import fcntl
import os
import resource
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

from evalcam_cli.files import LOCK_NAME

_NEW_NAMESPACE, _NEW_USER = 0x00020000, 0x10000000  # of sched.h
_READ_ONLY, _REMOUNT, _PRIVATE, _RECURSIVE = 1, 32, 1 << 18, 1 << 14  # of sys/mount.h


def without_privileges(here: Path, results: Path) -> None:
    """Make permissions count for root: give up every capability (capabilities(7))."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    nothing = (ctypes.c_uint32 * 6)()
    _checked(ctypes.CDLL(None, use_errno=True).capset(header, nothing))


def full_disk(here: Path, results: Path, size: str = "64k") -> None:
    """Nothing but a small disk to write to."""
    _mount("tmpfs", results, "tmpfs", 0, f"size={size}")


def nearly_full_disk(here: Path, results: Path) -> None:
    """Room for some files of a run."""
    full_disk(here, results, "2m")


def few_files(here: Path, results: Path) -> None:
    """A disk on which no more files can be made than a handful."""
    _mount("tmpfs", results, "tmpfs", 0, "size=64m,nr_inodes=4")


def read_only_disk(here: Path, results: Path) -> None:
    """Results cannot be written at all."""
    _mount("tmpfs", results, "tmpfs", _READ_ONLY, "size=64k")


def no_permission(here: Path, results: Path) -> None:
    """The results' folder belongs to somebody else, in effect."""
    results.chmod(0o555)
    without_privileges(here, results)


def small_shared_memory(here: Path, results: Path) -> None:
    """As in a container: processes cannot hand each other much."""
    _mount("tmpfs", Path("/dev/shm"), "tmpfs", 0, "size=256k")


def small_files(here: Path, results: Path) -> None:
    """No file may grow beyond 300 bytes, as by `ulimit -f`."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))


def few_open_files(here: Path, results: Path) -> None:
    """As by `ulimit -n`."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))


def full_stdout(here: Path, results: Path) -> None:
    """As by `> /dev/full`."""
    os.dup2(os.open("/dev/full", os.O_WRONLY), 1)


def full_stderr(here: Path, results: Path) -> None:
    """As by `2> /dev/full`."""
    os.dup2(os.open("/dev/full", os.O_WRONLY), 2)


def gone_reader(here: Path, results: Path) -> None:
    """As by `| true`."""
    reading, writing = os.pipe()
    os.close(reading)
    os.dup2(writing, 1)


def closed_stdin(here: Path, results: Path) -> None:
    """As by `<&-`."""
    os.close(0)
    sys.stdin = None


def closed_stdout(here: Path, results: Path) -> None:
    """As by `>&-`."""
    os.close(1)


def gone_folder(here: Path, results: Path) -> None:
    """The working directory was removed by somebody else."""
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)


def no_folder_for_temporaries(here: Path, results: Path) -> None:
    """Nowhere to put temporary files but where results go."""
    os.environ["TMPDIR"] = "/nonexistent"
    tempfile.tempdir = "/nonexistent"


def no_home(here: Path, results: Path) -> None:
    """As in a container that knows no user."""
    for name in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "TORCH_HOME"):
        os.environ[name] = "/nonexistent"


def no_graphics_card(here: Path, results: Path) -> None:
    """Hide what there may be."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""


def unsafe_loading(here: Path, results: Path) -> None:
    """The variable that makes torch run code from checkpoints."""
    os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] = "1"


def private_files(here: Path, results: Path) -> None:
    """A careful umask."""
    os.umask(0o077)


def odd_variables(here: Path, results: Path) -> None:
    """Rubbish in variables that libraries read."""
    names = (
        "COLUMNS",
        "LINES",
        "TERM",
        "TZ",
        "LANG",
        "PYTHONBREAKPOINT",
        "SOURCE_DATE_EPOCH",
        "NO_COLOR",
        "FORCE_COLOR",
    )
    os.environ.update(dict.fromkeys(names, "banana"))


def half_launched(here: Path, results: Path) -> None:
    """Some of what a launcher of several processes sets."""
    os.environ.update({"WORLD_SIZE": "2"})


def oddly_launched(here: Path, results: Path) -> None:
    """Rubbish where a launcher puts numbers."""
    os.environ.update({"WORLD_SIZE": "banana", "RANK": "-1", "MASTER_ADDR": "localhost"})


def unwritable_summary(here: Path, results: Path) -> None:
    """A CI system's file for summaries that is not there."""
    os.environ.update({"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": "/nonexistent/summary"})


def locked(here: Path, results: Path) -> None:
    """The folder with the input belongs to another run, which ends with this process."""
    alive, ours = os.pipe()
    ready, done = os.pipe()
    if os.fork() == 0:
        os.close(ours)
        descriptor = os.open(here / LOCK_NAME, os.O_RDWR)
        fcntl.lockf(descriptor, fcntl.LOCK_EX)
        os.write(done, b".")
        os.read(alive, 1)  # returns when nobody can write to it any more
        os._exit(0)
    os.read(ready, 1)


def killed_worker(here: Path, results: Path) -> None:
    """The first child process is killed, as by a system without memory."""
    threading.Thread(target=_kill_first_child, daemon=True).start()


def _kill_first_child() -> None:
    while True:
        time.sleep(0.005)
        children = [(task / "children").read_text().split() for task in Path("/proc/self/task").iterdir()]
        for child in (one for each in children for one in each):
            with contextlib.suppress(OSError):  # it may have ended
                if b"resource_tracker" not in Path(f"/proc/{child}/cmdline").read_bytes():
                    time.sleep(0.05)
                    os.kill(int(child), signal.SIGKILL)
                    return


def _mount(source: str, place: Path, kind: str, flags: int, options: str) -> None:
    """Mount in a name space that this process alone sees."""
    system = ctypes.CDLL(None, use_errno=True)
    user, group = os.getuid(), os.getgid()
    _checked(system.unshare(_NEW_NAMESPACE | (0 if user == 0 else _NEW_USER)))
    if user:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    _checked(system.mount(None, b"/", None, _RECURSIVE | _PRIVATE, None))
    _checked(system.mount(source.encode(), os.fsencode(place), kind.encode(), flags, options.encode()))


def _checked(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
