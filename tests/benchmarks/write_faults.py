"""Let every system call by which a command writes be the one at which it is killed, or which the system refuses.

    python -m tests.benchmarks.write_faults [--quick] [--only NAME] [--faults KILL,ENOSPC] [--seed 0]

The method is that of SQLite's tests: make the n-th call fail, for every n. strace counts the calls of one undisturbed
run (open with O_CREAT, write, ftruncate, fsync, rename, link, unlink, close, mkdir; below the output folder only), and
then, in one run each, kills the process on entering the n-th or lets it return ENOSPC, EIO, EDQUOT or EACCES. The
processes are forked from one that has imported everything, and are traced from there on.

After a fault every file under a final name must be whole, and be what it was before or what an undisturbed run makes of
it. After an error there must be exit code 5, a message of at most 8 lines without a traceback, and nothing
half-written; exit code 0 is right where all files are as they should be (a folder that cannot be flushed). After a
death and ENOSPC the command is started again (`train --resume`, `gradcam --resume`, else `--overwrite`) and must come
to the files of the undisturbed run, training to the same bits, and sweep what the killed one left. The last line is the
verdict; exit 1 when anything is wrong. Needs strace and the permission to trace; `--quick` draws 12 points.

A checkpoint is written piece by piece, in up to a hundred calls of `write` that differ only in their number: of more
than 16 into one file the first four, the last four and every eighth are struck.

Results: docs/reliability.md.
"""

import argparse
import hashlib
import json
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Any, NoReturn

from matplotlib.figure import Figure
from PIL import Image

from evalcam_cli.models.checkpoint import load_checkpoint
from evalcam_cli.workflows import ahead
from tests.conftest import draw_classes, read_rows
from tests.workflows.training_process import (
    LAST,
    TIMING,
    become_when_told,
    faults,
    files_of,
    server,
    temporaries,
    wait_until,
)

CALLS = (
    "openat", "write", "pwrite64", "ftruncate", "fsync", "fdatasync", "rename", "renameat", "renameat2", "link",
    "linkat", "unlink", "unlinkat", "close", "mkdir", "mkdirat",
)  # fmt: skip
ERRORS = ("ENOSPC", "EIO", "EDQUOT", "EACCES")
KILL = "KILL"
PREVIOUS = "checkpoints/previous.safetensors"
_CLOCKED = ("environment.json", "config.yaml", "gradcam.json", "metrics.json", "report.md", "split.json")
"""Files that hold a time or the place of the run: only their being whole is looked at."""
_LINE = re.compile(r"(\d+) +(\w+)\((.*)")


@dataclass(frozen=True)
class Scenario:
    """A command in a folder of its own, and how it is started once more after a fault."""

    name: str
    out: str
    """What it writes, in that folder: a file or a folder."""
    arguments: Callable[[Path], list[str]]
    """Of the command, from the folder."""
    again: Callable[[Path], list[str]]
    start: Path | None = None
    """What is in the folder to begin with."""


@dataclass(frozen=True)
class Point:
    """The n-th call of its kind in one thread."""

    call: str
    number: int
    target: str
    """The last part of the path, for people."""


@dataclass(frozen=True)
class Outcome:
    """What came of one fault."""

    scenario: str
    fault: str
    point: Point
    code: int
    hit: bool
    """Whether it struck a call below the folder, as meant."""
    wrong: tuple[str, ...]


def can_trace() -> bool:
    """Whether strace is installed and may attach to another process."""
    if shutil.which("strace") is None:
        return False
    process = subprocess.Popen(["sleep", "20"])
    try:
        with subprocess.Popen(
            ["strace", "-o", "/dev/null", "-p", str(process.pid)], stderr=subprocess.PIPE, text=True
        ) as strace:
            assert strace.stderr is not None
            said = strace.stderr.readline()
            strace.terminate()
        return "attached" in said
    finally:
        process.kill()
        process.wait()


def run(arguments: list[str], place: Path, *, inject: str = "") -> tuple[int, list[str]]:
    """The exit code of a command (minus the signal that killed it), and the trace of its calls; `place` names logs."""
    process = server().Process(target=_become_serial, args=(arguments, place))
    process.start()
    assert wait_until(place.with_name(f"{place.name}.ready").exists), "it does not begin"  # its imports are not counted
    log = place.with_name(f"{place.name}.calls")
    options = ["-e", f"trace={','.join(CALLS)}", *(["-e", f"inject={inject}"] if inject else [])]
    with subprocess.Popen(
        ["strace", "-f", "-y", "-s", "0", "-o", str(log), *options, "-p", str(process.pid)],
        stderr=subprocess.PIPE, text=True,
    ) as strace:  # fmt: skip
        assert strace.stderr is not None
        assert "attached" in strace.stderr.readline()
        place.with_name(f"{place.name}.go").touch()
        process.join(300)
        strace.stderr.read()
    assert process.exitcode is not None, "it did not end in five minutes"
    return process.exitcode, log.read_text(errors="replace").splitlines()


def _become_serial(arguments: list[str], place: Path) -> NoReturn:
    """As `become_when_told`, without threads that write: strace counts the calls of each thread by itself.

    Diagrams are one pixel large: drawing them would take most of the time.
    """

    def one_by_one(work: Callable[[Any], Any], items: Iterable[Any], **_: object) -> Iterator[Any]:
        yield from map(work, items)

    def draw_nothing(figure: Figure, file: IO[bytes], **_: object) -> None:
        Image.new("L", (1, 1)).save(file, "PNG")

    ahead._in_threads = one_by_one  # type: ignore[assignment]
    Figure.savefig = draw_nothing  # type: ignore[assignment]
    become_when_told(arguments, place)


def writing_calls(trace: Sequence[str], folder: Path) -> Iterator[Point]:
    """The calls of a trace that change what is below the folder, those of the first thread."""
    counts: Counter[tuple[str, str]] = Counter()
    writable: dict[str, bool] = {}
    first = ""
    for line in trace:
        found = _LINE.match(line)
        if found is None:
            continue
        thread, call, rest = found.groups()
        first = first or thread
        counts[thread, call] += 1
        if call == "openat" and (made := re.search(r"= (\d+)<", rest)):
            writable[made[1]] = "O_CREAT" in rest or "O_RDWR" in rest
        below = re.findall(rf'[<"]{re.escape(str(folder))}([^">]*)[">]', rest)
        if not below or thread != first or (call == "openat" and "O_CREAT" not in rest):
            continue
        if call == "close" and not writable.get(rest.partition("<")[0], False):
            continue
        yield Point(call, counts[thread, call], below[-1].rpartition("/")[2])


def thinned(points: Sequence[Point]) -> list[Point]:
    """Without most of many writes into one file."""
    writes: dict[str, list[Point]] = {}
    for point in points:
        if point.call == "write":
            writes.setdefault(point.target, []).append(point)
    left_out = {one for many in writes.values() if len(many) > 16 for place, one in enumerate(many[4:-4]) if place % 8}
    return [point for point in points if point not in left_out]


def examine(scenario: Scenario, fault: str, point: Point, place: Path, reference: dict[str, str]) -> Outcome:
    """Strike at a point, judge what is left, and let the command be started again."""
    before = _prepare(scenario, place)
    how = "signal=KILL" if fault == KILL else f"error={fault}"
    code, trace = run(scenario.arguments(place), place / "run", inject=f"{point.call}:{how}:when={point.number}")
    hit = _hit(trace, fault, place / scenario.out)
    wrong = [*_wrong_files(place, scenario.out, before, reference)]
    if fault != KILL:
        wrong += _wrong_error(code, place, reference, scenario.out)
    elif hit and code != -9:
        wrong.append(f"it was not killed: {code}")
    if fault in (KILL, ERRORS[0]):
        wrong += _wrong_restart(scenario, place, reference)
    shutil.rmtree(place)
    return Outcome(scenario.name, fault, point, code, hit, tuple(wrong))


def _wrong_restart(scenario: Scenario, place: Path, reference: dict[str, str]) -> Iterator[str]:
    if (code := _plainly(scenario.again(place), place / "again")) != 0:
        yield f"started again it ended with {code}: {_err(place / 'again')[-300:]}"
        return
    yield from (f"started again: {one}" for one in _differences(contents(place, scenario.out), reference))
    yield from (f"started again: {name} was left" for name in _left(place))


def _prepare(scenario: Scenario, place: Path) -> dict[str, str]:
    place.mkdir()
    if scenario.start is not None:
        shutil.copytree(scenario.start, place, dirs_exist_ok=True)
    return contents(place, scenario.out)


def _plainly(arguments: list[str], place: Path) -> int:
    process = server().Process(target=_become_serial, args=(arguments, place))
    place.with_name(f"{place.name}.go").touch()
    process.start()
    process.join(300)
    assert process.exitcode is not None, "it did not end in five minutes"
    return process.exitcode


def _hit(trace: Sequence[str], fault: str, out: Path) -> bool:
    lines = trace[-40:] if fault == KILL else [line for line in trace if "(INJECTED)" in line]
    return any(str(out) in line or str(out.parent) in line for line in lines)


def contents(place: Path, out: str) -> dict[str, str]:
    """What each file under a final name says, the clock and the name of the place apart, in a few letters."""
    folder = place / out
    if folder.is_dir():
        names = sorted(files_of(folder) - set(temporaries(folder)))
        return {name: _content(folder / name, place) for name in names}
    names = [path.name for path in place.glob(f"{Path(out).stem}.*") if path.suffix in (".csv", ".json")]
    return {name: _content(place / name, place) for name in sorted(names)}


def _content(path: Path, place: Path) -> str:
    if path.suffix == ".safetensors":
        status = path.stat()
        return _tensors_of(path, status.st_size, status.st_mtime_ns)
    if path.name == "history.csv":
        rows = [{key: value for key, value in row.items() if key not in TIMING} for row in read_rows(path)]
        return hashlib.sha256(repr(rows).encode()).hexdigest()[:12]
    if path.name in _CLOCKED:
        return "there"
    return hashlib.sha256(path.read_bytes().replace(bytes(place), b"PLACE")).hexdigest()[:12]


@cache
def _tensors_of(path: Path, size: int, changed: int) -> str:
    """Read once for as long as the file stays what it is; copies of a folder keep the times."""
    return load_checkpoint(path).tensors_sha256[:12]


def _wrong_files(place: Path, out: str, before: dict[str, str], reference: dict[str, str]) -> Iterator[str]:
    folder = place / out if (place / out).is_dir() else place
    broken = [fault for fault in faults(folder) if not re.match(r"(run|again)\.", fault)]
    yield from broken
    if broken:
        return
    for name, content in contents(place, out).items():
        right = {before.get(name), reference.get(name)}
        if name == PREVIOUS:
            right.add(before.get(LAST))
        if content not in right and name in reference | before:
            yield f"{name} is neither old nor new"
    lost = [name for name in before if name not in contents(place, out) and name in reference]
    yield from (f"{name} was there before and is gone" for name in lost)


def _wrong_error(code: int, place: Path, reference: dict[str, str], out: str) -> Iterator[str]:
    text = _err(place / "run")
    yield from (f"left half-written: {name}" for name in _left(place))
    if code == 0:
        yield from _differences(contents(place, out), reference)
        return
    message = text[text.find("evalcam: error") :].strip()
    if code != 5:
        yield f"exit code {code}: {text[-300:]}"
    if "Traceback" in text or text.count("evalcam: error") != 1 or len(message.splitlines()) > 8:
        yield f"not a message of at most 8 lines: {text[-600:]}"
    if "kept" not in message:
        yield f"what is kept is not said: {message}"


def _err(place: Path) -> str:
    log = place.with_name(f"{place.name}.stderr")
    return log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""


def _left(place: Path) -> list[str]:
    return sorted(path.relative_to(place).as_posix() for path in place.rglob("*.tmp"))


def _differences(found: dict[str, str], reference: dict[str, str]) -> list[str]:
    return [name for name in sorted(found.keys() | reference.keys()) if found.get(name) != reference.get(name)]


SETTINGS = [
    part
    for one in (
        "data.image_size=32", "model.weights=none", "train.warmup_epochs=0", "train.batch_size=4", "data.workers=0",
        "split.ratios=0.5,0.25,0.25", "train.optimizer=sgd", "evaluate.bootstrap=100",
    )
    for part in ("--set", one)
]  # fmt: skip


def scenarios(base: Path, only: str = "") -> list[Scenario]:
    """The commands with this in their name, and what they need, in a folder."""
    makers = {
        "train": _fresh_training, "train --resume": _resumed_training, "split --overwrite": _split_again,
        "evaluate": _evaluation, "gradcam": _explanations,
    }  # fmt: skip
    return [make(base) for name, make in makers.items() if (only in name if only != "train" else name == only)]


def _into(arguments: list[str], name: str, *more: str) -> Callable[[Path], list[str]]:
    return lambda place: [*arguments, "--out", str(place / name), *more]


@cache
def _data(base: Path) -> Path:
    return draw_classes(base / "data", {"a": 12, "b": 8})


def _training(base: Path, epochs: int) -> list[str]:
    return ["train", str(_data(base)), *SETTINGS, "--epochs", str(epochs)]


def _fresh_training(base: Path) -> Scenario:
    short = _training(base, 1)
    return Scenario("train", "out", _into(short, "out"), _into(short, "out", "--resume"))


def _resumed_training(base: Path) -> Scenario:
    """With two generations of its state, and an epoch to go."""
    resume = _into(_training(base, 3), "out", "--resume")
    (base / "half").mkdir()
    _must(resume(base / "half"), base / "half-run", kill_at=base / "half" / "out" / PREVIOUS)
    return Scenario("train --resume", "out", resume, resume, base / "half")


def _split_again(base: Path) -> Scenario:
    split = ["split", str(_data(base)), "--set", "split.ratios=0.5,0.25,0.25"]
    (base / "divided").mkdir()
    _must([*split, "--seed", "5", "--out", str(base / "divided" / "split.csv")], base / "divided-run")
    again = _into(split, "split.csv", "--overwrite")
    return Scenario("split --overwrite", "split.csv", again, again, base / "divided")


@cache
def _trained(base: Path) -> Path:
    _must([*_training(base, 1), "--out", str(base / "trained")], base / "trained-run")
    return base / "trained"


def _evaluation(base: Path) -> Scenario:
    run = _trained(base)
    evaluate = ["evaluate", "--ckpt", str(run), "--split", str(run / "split.csv"), *SETTINGS]
    return Scenario("evaluate", "out", _into(evaluate, "out"), _into(evaluate, "out", "--overwrite"))


def _explanations(base: Path) -> Scenario:
    (base / "looked").mkdir()
    for path in sorted((_data(base) / "a").iterdir())[:2]:
        shutil.copy(path, base / "looked")
    gradcam = ["gradcam", str(base / "looked"), "--ckpt", str(_trained(base))]
    return Scenario("gradcam", "out", _into(gradcam, "out"), _into(gradcam, "out", "--resume"))


def _must(arguments: list[str], place: Path, *, kill_at: Path | None = None) -> None:
    """Run a command to its end, or kill it once a file is there."""
    process = server().Process(target=_become_serial, args=(arguments, place))
    place.with_name(f"{place.name}.go").touch()
    process.start()
    if kill_at:
        awaited = kill_at
        wait_until(lambda: not process.is_alive() or awaited.exists(), timeout=300, every=0.001)
        process.kill()
    process.join(300)
    assert kill_at or process.exitcode == 0, _err(place)


def undisturbed(scenario: Scenario, place: Path) -> tuple[dict[str, str], list[Point]]:
    """What the command makes, and the calls by which it does."""
    _prepare(scenario, place)
    code, trace = run(scenario.arguments(place), place / "run")
    assert code == 0, _err(place / "run")
    points = list(writing_calls(trace, place / scenario.out))
    if not (place / scenario.out).is_dir():
        points = [one for one in writing_calls(trace, place) if not one.target.startswith("run.")]
    made = contents(place, scenario.out)
    shutil.rmtree(place)
    return made, thinned(points)


def examine_all(
    place: Path, *, only: str = "", wanted: Sequence[str] = (KILL, *ERRORS), sample: int = 0, seed: int = 0
) -> Iterator[Outcome]:
    """Every point, or so many drawn at random, with every fault."""
    dice = random.Random(seed)
    chosen: list[tuple[Scenario, str, Point, dict[str, str]]] = []
    for scenario in scenarios(place / "base", only):
        reference, points = undisturbed(scenario, place / "undisturbed")
        chosen += [(scenario, fault, point, reference) for point in points for fault in wanted]
    for scenario, fault, point, reference in dice.sample(chosen, min(sample, len(chosen))) if sample else chosen:
        yield examine(scenario, fault, point, place / "struck", reference)


def numbers(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """What came of the faults: those by which the command died, and those which it was told of."""
    deaths = [one for one in outcomes if one.fault == KILL]
    return {
        "deaths": len(deaths),
        "deaths_right": sum(not one.wrong for one in deaths),
        "errors": len(outcomes) - len(deaths),
        "errors_right": sum(not one.wrong for one in outcomes if one.fault != KILL),
        "elsewhere": sum(not one.hit for one in outcomes),
        "wrong": [
            f"{one.scenario}, {one.fault} at {one.point.call} {one.point.number} ({one.point.target}): {wrong}"
            for one in outcomes
            for wrong in one.wrong
        ],
    }


def report(outcomes: Sequence[Outcome]) -> bool:
    """Print the tables and the verdict."""
    print(f"\n{'command':20} {'fault':8} points  right  went on")
    for name, fault in dict.fromkeys((one.scenario, one.fault) for one in outcomes):
        of = [one for one in outcomes if (one.scenario, one.fault) == (name, fault)]
        right, went_on = sum(not one.wrong for one in of), sum(one.code == 0 for one in of)
        print(f"{name:20} {fault:8} {len(of):6}  {right:5}  {went_on:7}")
    print(f"\n{'call':12} points")
    for call, count in sorted(Counter(one.point.call for one in outcomes).items()):
        print(f"{call:12} {count:6}")
    wrong = [one for one in outcomes if one.wrong]
    for one in wrong:
        print(f"WRONG: {one.scenario}, {one.fault} at {one.point.call} {one.point.number} ({one.point.target}):")
        print("\n".join(f"  {line}" for line in one.wrong))
    missed, right = sum(not one.hit for one in outcomes), len(outcomes) - len(wrong)
    print(f"\n{len(outcomes)} faults, {missed} of them elsewhere than meant: {right} ended as they must")
    return not wrong


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="12 points")
    parser.add_argument("--sample", type=int, default=0, help="so many points")
    parser.add_argument("--only", default="", help="commands with this in their name")
    parser.add_argument("--faults", default=",".join((KILL, *ERRORS)))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    asked = parser.parse_args()
    if not can_trace():
        sys.exit("strace is not installed, or may not trace")
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "base").mkdir()
        outcomes = []
        for one in examine_all(
            Path(place), only=asked.only, wanted=asked.faults.split(","), seed=asked.seed,
            sample=12 if asked.quick else asked.sample,
        ):  # fmt: skip
            outcomes.append(one)
            state = "WRONG" if one.wrong else "right"
            print(
                f"{one.scenario:18} {one.fault:7} {one.point.call:9} {one.point.target:28} {one.code:4} {state}",
                flush=True,
            )
        right = report(outcomes)
        if asked.json:
            asked.json.write_text(json.dumps(numbers(outcomes)))
        print(f"{time.monotonic() - begin:.0f} s")
    sys.exit(0 if right else 1)


if __name__ == "__main__":
    main()
