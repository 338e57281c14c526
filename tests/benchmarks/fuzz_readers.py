"""Fuzz what reads files from outside: configs, splits and manifests, weights files.

    python -m tests.benchmarks.fuzz_readers [--target config|split|checkpoint]... [--seconds 600] [--seed 0]
        [--engine auto|guided|own] [--keep FOLDER] [--json FILE]
    python -m tests.benchmarks.fuzz_readers --target config --input FILE        (one kept input again)

Each input must give a valid object or one EvalcamError of the classes that `fuzz_targets` names, whose message has at
most 4,000 bytes and 8 lines and shows no control character; within 2 s of processor time, 30 s in all and 300 MB beyond
what the process had before. Inputs are read in forked processes, so that a crash or a hang is a finding and not the
end.

`guided` looks for inputs that reach other lines, with Atheris where it is installed (`pip install atheris`: it exists
for Linux and some versions of Python only, and is therefore in none of the extras), half of its changes being those of
`fuzz_mutators`; what takes too long while lines are counted is read again without. `own` takes those changes alone and
keeps inputs that get another answer. Ends with 1 when something is found. Results: docs/reliability.md.
"""

import argparse
import importlib.util
import json
import logging
import math
import mmap
import os
import random
import re
import resource
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import unicodedata
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from tests.benchmarks.fuzz_mutators import changed, mutant
from tests.benchmarks.fuzz_targets import TARGETS, Target

_BATCH = 250
_SLATE = 2**20
_WORKER = """\
import sys, atheris
with atheris.instrument_imports(include=["evalcam_cli", "yaml", "zipfile", "pickletools"]):
    from tests.benchmarks import fuzz_readers
fuzz_readers.guided_worker(*sys.argv[1:])
"""

_UNSEEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
"""Categories of characters that are not seen or steer; spaces of other scripts (Zs) are text."""


@dataclass(frozen=True)
class Limits:
    """What one input may take."""

    seconds: float = 2.0
    """Of the processor."""
    megabytes: int = 300


@dataclass
class Tally:
    """What came of one target's inputs."""

    engine: str
    executions: int = 0
    seconds: float = 0.0
    findings: dict[str, bytes] = field(default_factory=dict)
    """An input for each kind of problem."""
    answers: set[str] = field(default_factory=set)


def judge(target: Target, data: bytes, folder: Path) -> tuple[str, str]:
    """What the reader answers, without names and numbers; and what is wrong with it, or nothing."""
    try:
        target.read(data, folder)
    except target.allowed as error:
        if type(error) in target.allowed:
            return _shape(f"{type(error).__name__}: {error}"), _about_message(str(error))
        return "", _described(error)
    except Exception as error:
        return "", _described(error)
    return "accepted", ""


def _about_message(text: str) -> str:
    if len(text.encode("utf-8", "replace")) > 4000 or text.count("\n") > 7:
        return f"a message that is too long: {_shape(text[:200])}"
    unseen = [one for one in text if one != "\n" and unicodedata.category(one) in _UNSEEN]
    return f"a message with {unseen[0]!a}: {_shape(text[:200])!a}" if unseen else ""


def _described(error: Exception) -> str:
    places = [place for place in traceback.extract_tb(error.__traceback__) if "fuzz_readers" not in place.filename]
    where = f" in {Path(places[-1].filename).name}, {places[-1].name}" if places else ""
    return f"{type(error).__name__}{where}: {_shape(str(error)[:200])!a}"


def _shape(text: str) -> str:
    return re.sub(r"'[^']*'|/\S+|\d+", "_", text)[:150]


class Slate:
    """Holds the number of inputs begun and the one in work, readable after the process has died."""

    def __init__(self, path: Path) -> None:
        path.touch()
        with path.open("r+b") as file:
            file.truncate(16 + _SLATE)
            self._map = mmap.mmap(file.fileno(), 16 + _SLATE)

    def begin(self, data: bytes) -> None:
        self._map[:16] = struct.pack("<QQ", self.count + 1, len(data))
        self._map[16 : 16 + len(data)] = data

    @property
    def count(self) -> int:
        return int(struct.unpack_from("<Q", self._map)[0])

    @property
    def data(self) -> bytes:
        length = struct.unpack_from("<Q", self._map, 8)[0]
        return self._map[16 : 16 + length]


@contextmanager
def _quiet_and_limited(limits: Limits) -> Iterator[None]:
    """For processes that end soon."""
    logging.disable(logging.CRITICAL)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    most = size + limits.megabytes * 2**20
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    with warnings.catch_warnings(action="error"):
        yield


def _serve(target: Target, inputs: Sequence[bytes], slate: Slate, notes: Path, limits: Limits, known: set[str]) -> None:
    """Judge the inputs, in a process of its own; what is new or wrong is noted at once."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    known = set(known)
    with _quiet_and_limited(limits), notes.open("a", encoding="ascii") as file:
        for data in inputs:
            slate.begin(data)
            signal.setitimer(signal.ITIMER_REAL, 15 * limits.seconds)
            signal.setitimer(signal.ITIMER_PROF, limits.seconds)
            answer, problem = judge(target, data, notes.parent)
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.setitimer(signal.ITIMER_REAL, 0)
            if problem or answer not in known:
                known.add(answer)
                file.write(json.dumps([answer, problem, data.hex()]) + "\n")
                file.flush()


def run_batch(
    target: Target,
    inputs: Sequence[bytes],
    tally: Tally,
    limits: Limits = Limits(),
) -> list[bytes]:
    """Judge the inputs in forked processes, add to the tally, and return those with a new answer."""
    with tempfile.TemporaryDirectory() as name:
        slate, notes = Slate(Path(name, "slate")), Path(name, "notes")
        while slate.count < len(inputs):
            with warnings.catch_warnings(action="ignore"):  # of forking beside threads, which from Python 3.12 on warns
                child = os.fork()
            if child == 0:
                try:
                    _serve(target, inputs[slate.count :], slate, notes, limits, tally.answers)
                    os._exit(0)
                finally:
                    os._exit(1)
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            if status and not slate.count:
                raise RuntimeError(f"the process for {target.name} cannot begin (status {status})")
            if status:
                tally.findings.setdefault(_ended(status), slate.data)
        tally.executions += len(inputs)
        return _gathered(notes, tally)


def _ended(status: int) -> str:
    signals = {-signal.SIGPROF: "more processor time than allowed", -signal.SIGALRM: "a hang"}
    return signals.get(status, f"the process ended with status {status}")


def _gathered(notes: Path, tally: Tally) -> list[bytes]:
    new = []
    for line in notes.read_text(encoding="ascii").splitlines() if notes.exists() else ():
        answer, problem, content = json.loads(line)
        if problem:
            tally.findings.setdefault(problem, bytes.fromhex(content))
        elif answer not in tally.answers:
            tally.answers.add(answer)
            new.append(bytes.fromhex(content))
    return new


def fuzz(target: Target, *, seconds: float, seed: int, batches: float = math.inf) -> Tally:
    """Read the corpus, then changes of it until the time is over or the batches are read; equal for equal seeds."""
    tally, corpus = Tally("own"), target.corpus()
    corpus += run_batch(target, corpus, tally)
    begun, batch = time.monotonic(), 0
    while time.monotonic() - begun < seconds and batch < batches:
        generator = random.Random(f"{target.name}/{seed}/{batch}")
        corpus += run_batch(target, [mutant(target, corpus, generator) for _ in range(_BATCH)], tally)
        batch += 1
    tally.seconds = time.monotonic() - begun
    return tally


def fuzz_guided(target: Target, *, seconds: float, seed: int) -> Tally:
    """As `fuzz`, led by which lines an input reaches."""
    tally = Tally("guided")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "corpus").mkdir()
        for content in target.corpus():
            (folder / "corpus" / sha256(content).hexdigest()[:16]).write_bytes(content)
        slate, begun = Slate(folder / "slate"), time.monotonic()
        while (left := seconds - (time.monotonic() - begun)) >= 1:
            words = (target.name, name, str(int(left)), str(seed))
            status = _run_worker(words, folder / "log", left + 120)
            if status and not slate.count:
                raise RuntimeError((folder / "log").read_text(errors="replace")[-2000:])
            if status and (status != -signal.SIGPROF or _takes_long(target, slate.data)):
                tally.findings.setdefault(_ended(status), slate.data)
            seed += 1
        tally.executions = slate.count
        _gathered(folder / "notes", tally)
        tally.seconds = time.monotonic() - begun
    return tally


def _takes_long(target: Target, data: bytes) -> bool:
    """Whether an input takes too long when no line that is reached is counted, which makes reading ten times slower."""
    plain = Tally("own")
    run_batch(target, [data], plain)
    return bool(plain.findings)


def _run_worker(words: Sequence[str], log: Path, seconds: float) -> int:
    """Exit code of the process that Atheris drives; it is killed when it is not gone long after its time."""
    with log.open("w") as file:
        try:
            command = [sys.executable, "-c", _WORKER, *words]
            return subprocess.run(command, stdout=file, stderr=file, check=False, timeout=seconds).returncode
        except subprocess.TimeoutExpired:
            done = "\nDone " in log.read_text(encoding="utf-8", errors="replace")  # all read, and only slow to leave
            return 0 if done else -signal.SIGALRM


def guided_worker(name: str, place: str, seconds: str, seed: str) -> None:
    """The process that Atheris drives; it does not return."""
    import atheris  # type: ignore[import-not-found,import-untyped,unused-ignore]

    target, folder, limits = TARGETS[name], Path(place), Limits()
    slate, known = Slate(folder / "slate"), set[str]()
    corpus = target.corpus()
    scratch = folder / "scratch"
    scratch.mkdir(exist_ok=True)

    def one(data: bytes) -> None:
        slate.begin(data)
        signal.setitimer(signal.ITIMER_PROF, limits.seconds)
        answer, problem = judge(target, data, scratch)
        signal.setitimer(signal.ITIMER_PROF, 0)
        if (problem or answer) not in known:
            known.add(problem or answer)
            with (folder / "notes").open("a", encoding="ascii") as file:
                file.write(json.dumps([answer, problem, data.hex()]) + "\n")

    def mutate(data: bytes, most: int, number: int) -> bytes:
        generator = random.Random(number)
        if generator.random() < 0.5:
            return bytes(atheris.Mutate(data, most))
        return changed(data, target, corpus, generator)[:most]

    options = {"max_total_time": seconds, "seed": int(seed) + 1, "max_len": target.most, "timeout": 30}
    options |= {"rss_limit_mb": 0, "artifact_prefix": f"{folder}/"}
    words = ["fuzz", *(f"-{key}={value}" for key, value in options.items()), str(folder / "corpus")]
    with _quiet_and_limited(limits):
        atheris.Setup(words, one, custom_mutator=mutate)
        atheris.Fuzz()


def _report(target: Target, tally: Tally, keep: Path) -> dict[str, Any]:
    kept = {}
    for problem, content in tally.findings.items():
        keep.mkdir(parents=True, exist_ok=True)
        path = keep / f"{target.name}-{sha256(content).hexdigest()[:12]}"
        path.write_bytes(content)
        kept[problem] = f"python -m tests.benchmarks.fuzz_readers --target {target.name} --input {path}"
    return {
        "target": target.name,
        "engine": tally.engine,
        "executions": tally.executions,
        "seconds": round(tally.seconds, 1),
        "answers": len(tally.answers),
        "findings": kept,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="Fuzz the readers of configs, splits and weights files.")
    parser.add_argument("--target", action="append", choices=list(TARGETS), help="default: all")
    parser.add_argument("--seconds", type=float, default=600, help="of each target")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--engine", choices=["auto", "guided", "own"], default="auto")
    parser.add_argument(
        "--keep", type=Path, default=Path("fuzz-findings"), help="folder for inputs that found something"
    )
    parser.add_argument("--input", type=Path, help="read this one input again")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    options = parser.parse_args()
    targets = [TARGETS[name] for name in options.target or TARGETS]
    if options.input:
        tally = Tally("one")
        run_batch(targets[0], [options.input.read_bytes()], tally)
        print(*(tally.findings or tally.answers), sep="\n")
        return 1 if tally.findings else 0
    guided = importlib.util.find_spec("atheris") is not None if options.engine == "auto" else options.engine == "guided"
    reports = []
    for target in targets:
        tally = (fuzz_guided if guided else fuzz)(target, seconds=options.seconds, seed=options.seed)
        reports.append(_report(target, tally, options.keep))
        one = reports[-1]
        print(
            f"{one['target']:<10} {one['engine']}: {one['executions']:,} inputs in {one['seconds']:.0f} s, "
            f"{one['answers']} kinds of answer, {len(one['findings'])} findings"
        )
        print(*(f"  {what}\n    {how}" for what, how in one["findings"].items()), sep="\n", end="", flush=True)
    if options.json:
        options.json.write_text(json.dumps({"targets": reports}))
    return 1 if any(one["findings"] for one in reports) else 0


if __name__ == "__main__":
    sys.exit(main())
