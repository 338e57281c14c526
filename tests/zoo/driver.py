"""Runs a case's real command in a process of its own and holds what came of it against what must happen."""

import hashlib
import math
import multiprocessing
import os
import resource
import shutil
import signal
import stat
import sys
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import torch

from evalcam_cli.data.preprocessing import Preprocessing
from evalcam_cli.models.architectures import build_model
from evalcam_cli.models.checkpoint import Checkpoint, save_checkpoint
from tests.cli.commands import run_command
from tests.conftest import draw_classes
from tests.zoo.cases import CANARY, Case, Kit, Result

MAX_LINES = 8
_BESIDE = ("unreadable.csv", "leaks.csv")  # what a refusal may leave beside --out, to say what is wrong


def make_kit(root: Path) -> Kit:
    """The good inputs, written into an empty folder."""
    kit = Kit(root)
    draw_classes(kit.data, {"cat": 10, "dog": 10}, side=32)
    made = run_command("split", str(kit.data), "--out", str(kit.split), "--ratios", "0.6,0.2,0.2")
    assert made.code == 0, made.err
    torch.manual_seed(0)
    model = build_model("resnet18", 2)
    preprocessing = Preprocessing(32, "squash", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    checkpoint = Checkpoint("resnet18", 2, ("cat", "dog"), preprocessing)
    save_checkpoint(kit.checkpoint, checkpoint, model.state_dict())
    warmed = _server().Process(target=int)  # so that no case has to wait for the server's imports
    warmed.start()
    warmed.join()
    return kit


def faults(case: Case, kit: Kit, scratch: Path) -> list[str]:
    """What is wrong with what the command made of the input; nothing when all is as it must be."""
    here, results = scratch / "here", scratch / "results"
    here.mkdir(parents=True)
    results.mkdir()
    case.make(here, kit)
    before = tree(here)
    canary = scratch / "canary"
    result = run(case, kit, here, results / "out", canary)
    seen = results.with_name("seen") if results.with_name("seen").exists() else results
    found = _about_ending(case, result) + _about_words(case, result) + _about_files(case, seen)
    if tree(here) != before:
        found.append("the input was changed")
    if canary.exists():
        found.append("code from the input was run")
    if case.check is not None and not found:
        found += [problem for problem in [case.check(result)] if problem]
    _make_removable(scratch)
    return [*found, f"stderr was: {result.err[-1500:]}"] if found else []


def run(case: Case, kit: Kit, here: Path, output: Path, canary: Path) -> Result:
    """The command's outcome; a process that does not end in time is killed."""
    streams = (output.parent.with_name("stdout"), output.parent.with_name("stderr"))
    arguments = case.arguments(here, output, kit)
    places = (here, output.parent)
    process = _server().Process(target=_become, args=(arguments, streams, canary, case.megabytes, case.setting, places))
    begun = time.monotonic()
    process.start()
    process.join(case.seconds * max(1, os.getloadavg()[0] / (os.cpu_count() or 1)))  # more where others work, too
    seconds = time.monotonic() - begun
    if process.is_alive():
        process.kill()
        process.join()
        seconds = math.inf
    assert process.exitcode is not None
    out, err = (path.read_text(encoding="utf-8", errors="surrogateescape") for path in streams)
    return Result(process.exitcode, out, err, seconds, here, output)


def _server() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    commands = ["split", "train", "evaluate", "gradcam", "predict"]
    workflows = [f"evalcam_cli.workflows.{one}" for one in commands]
    context.set_forkserver_preload(["tests.zoo.driver", "tests.zoo.settings", "rich.table", *workflows])
    return context


def _become(
    arguments: list[str],
    streams: tuple[Path, Path],
    canary: Path,
    megabytes: int,
    setting: Callable[[Path, Path], None] | None,
    places: tuple[Path, Path],
) -> None:
    """Turn a process forked from the server into one that a shell might have started."""
    from evalcam_cli.cli.app import main

    os.setsid()
    multiprocessing.set_start_method(None, force=True)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, path in enumerate(streams, 1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.environ[CANARY] = str(canary)
    torch.set_num_threads(1)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limit = size + megabytes * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    if setting is not None:
        setting(*places)
    sys.stdout, sys.stderr = _stream(1), _stream(2)
    try:
        main(arguments)
    except SystemExit:
        sys.stderr = None  # it is written line by line; flushing it again would fail where its disk is full
        raise
    finally:
        if places[1].is_mount():  # it will be gone with this process
            shutil.copytree(places[1], places[1].with_name("seen"), symlinks=True)


def _stream(number: int) -> Any:
    """As Python sets it up: nothing where the descriptor is closed."""
    try:
        os.fstat(number)
    except OSError:
        return None
    return os.fdopen(
        number, "w", buffering={1: -1, 2: 1}[number], encoding="utf-8"
    )  # stdout by blocks, stderr by lines


def _about_ending(case: Case, result: Result) -> list[str]:
    if result.seconds == math.inf:
        return [f"it hangs: no end after {case.seconds:g} s"]
    if result.code < 0:
        return [f"it crashed: ended by signal {-result.code}"]
    return [] if result.code == case.code else [f"exit code {result.code} instead of {case.code}"]


def _about_words(case: Case, result: Result) -> list[str]:
    found = []
    text = result.out + result.err
    if "Traceback" in text:
        found.append("a traceback")
    odd = sorted({character for character in text if ord(character) < 32 and character != "\n"})
    if odd or "\x7f" in text or any("\x80" <= character < "\xa0" for character in text):
        found.append(f"control characters in the output: {odd!r}")
    lines = result.err.splitlines()
    start = next(
        (number for number, line in enumerate(lines) if line.startswith(("evalcam: error", "Error: "))), len(lines)
    )
    if result.code not in (0, 141) and start == len(lines):  # 141: nobody reads any more
        found.append("it fails without an error message")
    if len(lines) - start > MAX_LINES:
        found.append(f"{len(lines) - start} lines of error")
    found += [f"nothing is said of {word!r}" for word in case.words if word.lower() not in text.lower()]
    if case.outcome == "warn" and "warning" not in text.lower():
        found.append("no warning")
    return found


def _about_files(case: Case, results: Path) -> list[str]:
    there = sorted(path.relative_to(results).as_posix() for path in results.rglob("*"))
    found = [f"left half-written: {name}" for name in there if name.endswith(".tmp")]
    keeps_what_it_did = case.code in (5, 141) or case.command[0] in ("gradcam", "audit")  # or what it found
    if case.code and not keeps_what_it_did:
        found += [f"written although refused: {name}" for name in there if name not in _BESIDE]
    return found


def tree(folder: Path) -> dict[str, str]:
    """What each entry of the folder is: its mode and its bytes, or where its link leads."""
    return {os.fsdecode(os.fsencode(path.relative_to(folder))): _entry(path) for path in folder.rglob("*")}


def _entry(path: Path) -> str:
    status = path.lstat()
    content = ""
    if stat.S_ISLNK(status.st_mode):
        content = str(path.readlink())
    elif stat.S_ISREG(status.st_mode) and status.st_size > 2**22:  # too large to read for every case
        content = f"{status.st_size} {status.st_blocks} {status.st_mtime_ns} {status.st_ctime_ns}"
    elif stat.S_ISREG(status.st_mode) and os.access(path, os.R_OK):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
    return f"{status.st_mode:o} {content}"


def _make_removable(scratch: Path) -> None:
    for path in scratch.rglob("*"):
        if not path.is_symlink() and path.is_dir():
            path.chmod(0o700)
    shutil.rmtree(scratch)
