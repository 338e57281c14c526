"""Send SIGINT, SIGTERM and SIGHUP at random moments to every command, and see what it leaves.

    python -m tests.benchmarks.signals [--count 40] [--seed 0] [--quick] [--only NAME]

Each command runs with worker processes, in a session of its own, forked from a process that has imported everything. At
a moment drawn from its whole life a signal is sent to it, or to its whole group as a terminal does; one in eight is
followed by a second one. It must end within 10 seconds with 128 plus the signal's number (or have ended before), say so
without a traceback, leave nothing half-written, every file whole, and no process. Then it is started again (`--resume`
where there is one, else `--overwrite`) and must come to the files of an undisturbed run; training to the same bits. The
last line is the verdict; exit 1 when anything is wrong. `--quick` sends 6.

Measured on two busy cores: 40 of 40 right, the slowest end took 3.1 s; 12 more to `predict` alone ended within 0.5 s.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NoReturn

from tests.benchmarks.write_faults import contents
from tests.conftest import draw_classes
from tests.workflows.training_process import become_evalcam, family, faults, server, wait_until

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
MOST_SECONDS = 10.0
_TOKEN = "EVALCAM_TEST_TOKEN"
_SETTINGS = (
    "data.image_size=32", "model.weights=none", "train.warmup_epochs=0", "train.batch_size=8", "data.workers=2",
    "split.ratios=0.4,0.3,0.3", "train.optimizer=sgd", "evaluate.bootstrap=100", "gradcam.max_images=6",
)  # fmt: skip
_CLOCKED = ("trials.csv", "tune.json", "study.db", "metrics.json", "report.md", "failures.html", "calibration.json")
"""Files in which times stand: of these only their being there is compared."""


@dataclass(frozen=True)
class Command:
    """A command line without its `--out`, and how it goes on."""

    name: str
    arguments: tuple[str, ...]
    out: str = "out"
    again: tuple[str, ...] = ("--overwrite",)
    start: Path | None = None
    """What is in its folder to begin with."""
    in_place: bool = False
    """Whether it changes a folder that is named as its argument, and has no `--out`."""

    def line(self, place: Path, *, again: bool = False) -> list[str]:
        where = [str(place / self.out)] if self.in_place else ["--out", str(place / self.out)]
        return [*self.arguments, *where, *(self.again if again else ())]


@dataclass(frozen=True)
class Blow:
    """A signal and what came of it."""

    command: str
    number: int
    group: bool
    twice: bool
    after: float
    """Seconds of the command's life."""
    code: int
    seconds: float
    """Until it had ended."""
    wrong: tuple[str, ...]


def become_marked(arguments: list[str], place: Path, token: str) -> NoReturn:
    """As `become_evalcam`, with a mark that its descendants inherit."""
    os.environ[_TOKEN] = token
    become_evalcam(arguments, place)


def relatives(pid: int, token: str) -> list[int]:
    """The living processes of the session, and those that bear the mark."""
    found = set(family(pid))
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                marked = f"{_TOKEN}={token}".encode() in (entry / "environ").read_bytes().split(b"\0")
                dead = (entry / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
            except OSError:
                continue
            if marked and not dead:
                found.add(int(entry.name))
    return sorted(found)


@cache
def commands(base: Path) -> tuple[Command, ...]:
    """All of them, with what they need in a folder."""
    data = draw_classes(base / "data", {"a": 60, "b": 50})
    settings = [part for one in _SETTINGS for part in ("--set", one)]
    (base / "config.yaml").write_text(
        f"data: {{path: {data}, image_size: 32, workers: 2}}\nmodel: {{weights: none}}\n"
        "train: {epochs: 2, warmup_epochs: 0, batch_size: 8, optimizer: sgd}\nsplit: {ratios: [0.4, 0.3, 0.3]}\n"
        "evaluate: {bootstrap: 100}\ngradcam: {max_images: 6}\n"
    )
    (base / "search.yaml").write_text(
        (base / "config.yaml").read_text() + "search: {space: {train.lr: {low: 0.001, high: 0.01}}}\n"
    )
    train = ("train", str(data), *settings, "--epochs")
    _finish([*train, "1", "--out", str(base / "trained" / "out")], base / "first")
    best, split = (base / "trained" / "out" / name for name in ("checkpoints/best.safetensors", "split.csv"))
    weights = ("--ckpt", str(best))
    return (
        Command("train", (*train, "3"), again=("--resume",)),
        Command("split", ("split", str(data)), "split.csv"),
        Command("evaluate", ("evaluate", *weights, "--split", str(split), *settings)),
        Command("gradcam", ("gradcam", str(data), *weights, *settings), again=("--resume",)),
        Command("train", (*train, "3"), again=("--resume",)),
        Command("predict", ("predict", str(data), *weights, *settings), "predictions.csv"),
        Command("calibrate", ("calibrate", *settings, "--allow-few"), again=(), start=base / "trained", in_place=True),
        Command("audit", ("audit", str(split))),
        Command("lr-find", ("lr-find", str(data), *settings)),
        Command("tune", ("tune", str(base / "search.yaml"), "--trials", "2", "--jobs", "2"), again=("--resume",)),
        Command("run", ("run", str(base / "config.yaml")), again=("--resume",)),
    )


def _start(arguments: list[str], place: Path) -> tuple[BaseProcess, str]:
    token = f"{os.getpid()}-{time.monotonic_ns()}"
    process = server().Process(target=become_marked, args=(arguments, place, token))
    process.start()
    return process, token


def _finish(arguments: list[str], place: Path) -> None:
    process, _ = _start(arguments, place)
    process.join(600)
    assert process.exitcode == 0, _err(place)


def _err(place: Path) -> str:
    return place.with_name(f"{place.name}.stderr").read_text(encoding="utf-8", errors="replace")


def prepare(command: Command, place: Path) -> Path:
    place.mkdir()
    if command.start is not None:
        shutil.copytree(command.start, place, dirs_exist_ok=True)
    return place


@dataclass(frozen=True)
class Reference:
    """What a command makes when nobody disturbs it."""

    files: dict[str, str]
    seconds: float


def undisturbed(command: Command, place: Path) -> Reference:
    prepare(command, place)
    begin = time.monotonic()
    _finish(command.line(place), place / "log")
    seconds = time.monotonic() - begin
    return Reference(made(command, place), seconds)


def made(command: Command, place: Path) -> dict[str, str]:
    found = contents(place, command.out)
    return {
        name: "there" if Path(name).name in _CLOCKED else content
        for name, content in found.items()
        if not name.startswith("workers/") and Path(name).name != "test_ledger.jsonl"  # counts the disturbed one, too
    }


def strike(command: Command, place: Path, reference: Reference, dice: random.Random) -> Blow:
    """Send a signal, judge what is left, and let the command go on."""
    number, group, twice = dice.choice(SIGNALS), dice.random() < 0.5, dice.random() < 0.125
    prepare(command, place)
    process, token = _start(command.line(place), place / "log")
    pid = process.pid or 0
    wait_until(lambda: family(pid) != [] or not process.is_alive())
    after = dice.uniform(0.05, reference.seconds)
    process.join(after)
    alive = process.is_alive()
    begin = time.monotonic()
    if alive:
        _send(pid, number, group=group)
        if twice:
            process.join(0.7)
            _send(pid, number, group=group)
    process.join(60)
    seconds = time.monotonic() - begin
    code = process.exitcode
    if code is None:
        process.kill()
    wrong = list(_wrong_end(code, number, seconds, alive=alive, err=_err(place / "log")))
    if not wait_until(lambda: relatives(pid, token) == [], timeout=MOST_SECONDS):
        wrong.append(f"processes live on: {relatives(pid, token)}")
    left = sorted(path.relative_to(place).as_posix() for path in place.rglob("*.tmp"))
    wrong += [f"left half-written: {name}" for name in left if not twice]
    wrong += [one for one in faults(place) if not one.startswith(("log.", "again."))]
    wrong += _going_on(command, place, reference)
    shutil.rmtree(place)
    return Blow(command.name, number, group, twice, after, code or 0, seconds, tuple(wrong))


def _send(pid: int, number: int, *, group: bool) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, number) if group else os.kill(pid, number)


def _wrong_end(code: int | None, number: int, seconds: float, *, alive: bool, err: str) -> Iterator[str]:
    if code is None:
        yield "it goes on"
    elif alive and code not in (0, 128 + number, -number):  # 0: it was done already
        yield f"exit code {code}: {err[-300:]}"
    elif not alive and code != 0:
        yield f"ended with {code} before the signal"
    if seconds > MOST_SECONDS:
        yield f"it took {seconds:.1f} s"
    if "Traceback" in err or "Exception ignored" in err or "Error" in err:
        yield f"it said {err[-800:]}"


def _going_on(command: Command, place: Path, reference: Reference) -> Iterator[str]:
    process, _ = _start(command.line(place, again=True), place / "again")
    process.join(600)
    if process.exitcode != 0:
        yield f"started again it ended with {process.exitcode}: {_err(place / 'again')[-400:]}"
        return
    found = made(command, place)
    names = sorted(found.keys() | reference.files.keys())
    yield from (f"started again: {name} differs" for name in names if found.get(name) != reference.files.get(name))
    yield from (f"started again: {path.name} was left" for path in place.rglob("*.tmp"))


def strike_all(
    place: Path, count: int, *, seed: int, only: str = "", tell: Callable[[Blow], None] = lambda blow: None
) -> list[Blow]:
    """So many signals, to the commands in turn."""
    dice = random.Random(seed)
    blows: list[Blow] = []
    references: dict[str, Reference] = {}
    (place / "base").mkdir()
    chosen = [one for one in commands(place / "base") if only in one.name]
    for number in range(count):
        command = chosen[number % len(chosen)]
        if command.name not in references:
            references[command.name] = undisturbed(command, place / f"whole-{number}")
        blows.append(strike(command, place / f"struck-{number}", references[command.name], dice))
        tell(blows[-1])
    return blows


def numbers(blows: list[Blow]) -> dict[str, Any]:
    """What came of the signals."""
    return {
        "signals": len(blows),
        "right": sum(not blow.wrong for blow in blows),
        "slowest": max(blow.seconds for blow in blows),
        "wrong": [f"{blow.command}: {wrong}" for blow in blows for wrong in blow.wrong],
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="")
    parser.add_argument("--quick", action="store_true", help="6 signals")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    asked = parser.parse_args()

    def tell(blow: Blow) -> None:
        name = signal.Signals(blow.number).name + (" twice" if blow.twice else "")
        whom = "to all" if blow.group else "to it"
        what = "\n".join(blow.wrong) or "right"
        print(
            f"{blow.command:10} {name:14} {whom:7} after {blow.after:5.1f} s: "
            f"{blow.code:4} in {blow.seconds:4.1f} s  {what}",
            flush=True,
        )

    with tempfile.TemporaryDirectory() as place:
        count = 6 if asked.quick else asked.count
        blows = strike_all(Path(place), count, seed=asked.seed, only=asked.only, tell=tell)
    found = numbers(blows)
    right, slowest = found["right"], found["slowest"]
    print(f"{len(blows)} signals: {right} ended and went on as they must; the slowest end took {slowest:.1f} s")
    if asked.json:
        asked.json.write_text(json.dumps(found))
    sys.exit(0 if right == len(blows) else 1)


if __name__ == "__main__":
    main()
