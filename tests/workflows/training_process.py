"""Real `evalcam train` processes, to be interrupted and killed, and what to hold their folders against."""

import contextlib
import csv
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import NoReturn

import yaml
from PIL import Image

from evalcam_cli.errors import EvalcamError
from evalcam_cli.files import LOCK_NAME
from evalcam_cli.models.checkpoint import load_checkpoint
from tests.conftest import draw_classes, read_rows

BEST, LAST = "checkpoints/best.safetensors", "checkpoints/last.safetensors"
TIMING = ("images_per_second", "seconds")
# A shell that runs the tests in the background has SIGINT ignored, `nohup` SIGHUP, and its children inherit that.
_LISTEN = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"
)
_MAIN = "from evalcam_cli.__main__ import main; main()"


@dataclass
class TrainingProcess:
    """One `evalcam train` into a folder, in a session of its own."""

    data: Path
    out: Path
    options: Sequence[str]
    before: str = ""
    """Python code that is run before the command."""
    begun: float = field(default_factory=time.time)

    def __post_init__(self) -> None:
        code = _LISTEN + self.before + _MAIN
        command = [sys.executable, "-c", code, "train", str(self.data), "--out", str(self.out), *self.options]
        with self.log.open("wb") as err:
            self.process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=err, text=True, start_new_session=True,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
            )  # fmt: skip

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def log(self) -> Path:
        return self.out.with_name(f"{self.out.name}.stderr")

    @property
    def stderr(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def end(self, timeout: float = 300) -> int:
        """Wait for the process; its exit code, or minus the signal that killed it."""
        try:
            self.stdout, _ = self.process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        return self.process.returncode

    def kill(self) -> None:
        """`kill -9` of the process alone: its workers must find out by themselves."""
        self.process.kill()
        self.end()

    def weights_sha256(self) -> str:
        """What the finished process said."""
        (run,) = json.loads(self.stdout)["runs"]
        return str(run["weights_sha256"])

    def family(self) -> list[int]:
        """The living processes of its session: itself, its workers, and theirs; also when it is dead."""
        return family(self.pid)


@dataclass
class PreloadedProcess(TrainingProcess):
    """The same, forked from a server that has imported everything: it begins to read images at once."""

    def __post_init__(self) -> None:
        arguments = ["train", str(self.data), "--out", str(self.out), *self.options]
        self.forked = server().Process(target=become_evalcam, args=(arguments, self.out))
        self.forked.start()

    @property
    def pid(self) -> int:
        assert self.forked.pid is not None
        return self.forked.pid

    @property
    def running(self) -> bool:
        return self.forked.is_alive()

    def end(self, timeout: float = 300) -> int:
        self.forked.join(timeout)
        assert self.forked.exitcode is not None, "it did not end in time"
        self.stdout = self.out.with_name(f"{self.out.name}.stdout").read_text(encoding="utf-8")
        return self.forked.exitcode

    def kill(self) -> None:
        self.forked.kill()
        self.end()


@dataclass
class CarelessProcess(PreloadedProcess):
    """One that saves as most programs do: straight to the final path, and without all that the next step depends on."""

    def __post_init__(self) -> None:
        arguments = ["train", str(self.data), "--out", str(self.out), *self.options]
        self.forked = server().Process(target=become_careless, args=(arguments, self.out))
        self.forked.start()


def become_careless(arguments: list[str], out: Path) -> NoReturn:
    make_careless()
    become_evalcam(arguments, out)


def make_careless() -> None:
    """Let this process write its checkpoints in place, and resume with the weights alone.

    The state of torch's generator alone would make no difference: what is drawn is keyed by seed, epoch and image.
    """
    from evalcam_cli.models import checkpoint
    from evalcam_cli.workflows import training_run

    def write_in_place(path: Path, parts: Iterator[bytes], *, previous: Path | None = None) -> None:
        with path.open("wb") as stream:
            for part in parts:
                stream.write(part)

    vars(checkpoint)["write_parts"] = write_in_place
    vars(training_run)["restore_training"] = lambda trainer, tensors, document: None


def server() -> ForkServerContext:
    """A process that has imported what training needs, and forks."""
    context = multiprocessing.get_context("forkserver")
    commands = ("cross_validation", "evaluate", "gradcam", "predict", "audit", "lr_find", "calibrate", "run")
    drawing = ("rich.table", "matplotlib.figure", "matplotlib.backends.backend_agg")
    workflows = (f"evalcam_cli.workflows.{one}" for one in commands)
    context.set_forkserver_preload(["evalcam_cli.cli.app", *workflows, *drawing, __name__])
    return context


def become_when_told(arguments: list[str], out: Path) -> NoReturn:
    """As `become_evalcam`, once `OUT.go` is there; `OUT.ready` says that nothing is left but to wait for it."""
    go = out.with_name(f"{out.name}.go")
    out.with_name(f"{out.name}.ready").touch()
    while not go.exists():
        time.sleep(0.01)
    become_evalcam(arguments, out)


def become_evalcam(arguments: list[str], out: Path) -> NoReturn:
    """Turn a process forked from the server into one that a shell might have started."""
    import torch

    from evalcam_cli.cli.app import main

    os.setsid()
    multiprocessing.set_start_method(None, force=True)  # its workers are started as usual, not by another server
    for ignored in (signal.SIGINT, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_DFL)  # as `evalcam` begins; a background shell would have it ignored
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(out.with_name(f"{out.name}.{name}"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1, encoding="utf-8") for number in (1, 2))
    torch.set_num_threads(1)
    main(arguments)


def draw_confused(root: Path, counts: dict[str, int]) -> Path:
    """Class folders of which some images are in the wrong one, so that a network is not always right."""
    draw_classes(root, counts)
    first, second, *_ = (root / label for label in counts)
    for name in (f"{number:03}.png" for number in range(min(counts.values()) // 5)):
        (first / name).rename(root / "other.png")
        (second / name).rename(first / name)
        (root / "other.png").rename(second / name)
    return root


def family(session: int) -> list[int]:
    """The living processes of a session."""
    return [pid for pid, its_session in _sessions() if its_session == session]


def _sessions() -> Iterator[tuple[int, int]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                state, _, _, session, *_ = (entry / "stat").read_text().rpartition(")")[2].split()
                if state != "Z":
                    yield int(entry.name), int(session)


def wait_until(true: Callable[[], bool], *, timeout: float = 120, every: float = 0.005) -> bool:
    """Whether it became true in time."""
    deadline = time.monotonic() + timeout
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(every)
    return True


def files_of(folder: Path) -> set[str]:
    """All files by name, without the lock."""
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return {name for name in names if name != LOCK_NAME}


def temporaries(folder: Path) -> list[str]:
    """What processes left half-written, under names that nobody takes for results."""
    return sorted(name for name in files_of(folder) if Path(name).name.startswith("."))


def faults(folder: Path) -> list[str]:
    """The files under a final name that cannot be read to their end."""
    finals = sorted(files_of(folder) - set(temporaries(folder)))
    return [f"{name}: {fault}" for name in finals if (fault := _fault(folder / name))]


def _fault(path: Path) -> str:
    try:
        _read_whole(path)
    except (EvalcamError, ValueError, OSError, SyntaxError, yaml.YAMLError) as error:
        return f"{type(error).__name__}: {error}"
    return ""


def _read_whole(path: Path) -> None:
    match path.suffix:
        case ".safetensors":
            load_checkpoint(path)  # verifies both digests
        case ".csv":
            with path.open(encoding="utf-8", newline="") as stream:
                header, *rows = csv.reader(stream, strict=True)
            if any(len(row) != len(header) for row in rows) or not path.read_bytes().endswith(b"\n"):
                raise ValueError("cut off")
        case ".json":
            json.loads(path.read_text(encoding="utf-8"))
        case ".yaml":
            if not isinstance(yaml.safe_load(path.read_text(encoding="utf-8")), dict):
                raise ValueError("no map")
        case ".png":
            with Image.open(path) as image:
                image.load()


def differences(run: Path, reference: Path) -> list[str]:
    """In what a finished run differs from an uninterrupted one, the clock's times apart."""
    same_bytes = [BEST, "split.csv", "split.json", "config.yaml", "diagnosis.json", "calibration.json"]
    found = [name for name in same_bytes if _content(run / name) != _content(reference / name)]
    if load_checkpoint(run / LAST).tensors_sha256 != load_checkpoint(reference / LAST).tensors_sha256:
        found.append(LAST)
    if _history(run) != _history(reference):
        found.append("history.csv")
    return found + [f"{name} is in one only" for name in sorted(files_of(run) ^ files_of(reference))]


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def _history(folder: Path) -> list[dict[str, str]]:
    rows = read_rows(folder / "history.csv")
    return [{name: value for name, value in row.items() if name not in TIMING} for row in rows]
