"""A few seconds of the fuzzing of `tests/benchmarks/fuzz_readers.py`, and that it sees what it looks for."""

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from evalcam_cli.errors import DataError, UsageError
from tests.benchmarks.fuzz_readers import Limits, Tally, fuzz, run_batch
from tests.benchmarks.fuzz_targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_changed_files_are_read_or_refused_and_nothing_else(name: str) -> None:
    target = TARGETS[name]

    tally = fuzz(target, seconds=60, seed=0, batches=2)

    assert tally.findings == {}
    assert "accepted" in tally.answers
    assert len(tally.answers) > 10


def _raise(error: Exception) -> Callable[[bytes, Path], None]:
    def read(data: bytes, folder: Path) -> None:
        if data == b"bad":
            raise error

    return read


def _die(data: bytes, folder: Path) -> None:
    if data == b"bad":
        os.kill(os.getpid(), signal.SIGSEGV)


def _spin(data: bytes, folder: Path) -> None:
    while data == b"bad":
        pass


def _grow(data: bytes, folder: Path) -> None:
    if data == b"bad":
        bytearray(2**30)


@pytest.mark.parametrize(
    ("read", "words"),
    [
        (_raise(KeyError("x")), "KeyError"),
        (_raise(DataError("of a class that is not allowed")), "DataError"),
        (_raise(UsageError("x" * 4001)), "too long"),
        (_raise(UsageError("a\n" * 9)), "too long"),
        (_raise(UsageError("\x1b[31m")), "a message with"),
        (_die, "status -11"),
        (_spin, "processor time"),
        (_grow, "MemoryError"),
    ],
)
def test_each_kind_of_finding_is_found_and_the_inputs_behind_it_are_still_read(
    read: Callable[[bytes, Path], None], words: str
) -> None:
    target, tally = replace(TARGETS["config"], read=read), Tally("own")

    new = run_batch(target, [b"good", b"bad", b"behind"], tally, Limits(seconds=0.3))

    assert [words in problem for problem in tally.findings] == [True]
    assert list(tally.findings.values()) == [b"bad"]
    assert tally.executions == 3
    assert new == [b"good"]
