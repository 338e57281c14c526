"""A command that is killed while it writes, or that the system refuses to let write, loses nothing.

A few of the points that `python -m tests.benchmarks.write_faults` strikes, all of them.
"""

import random
from pathlib import Path

import pytest

from tests.benchmarks.write_faults import (
    ERRORS,
    KILL,
    Outcome,
    Point,
    can_trace,
    contents,
    examine,
    scenarios,
    thinned,
    undisturbed,
    writing_calls,
)

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("write_faults")]

traces = pytest.mark.skipif(not can_trace(), reason="strace is not installed, or may not trace")


def struck(place: Path, name: str, points: int, *, around: str = "") -> list[Outcome]:
    """What came of faults at some of a command's calls, or at some of those around the first one of a kind."""
    (place / "base").mkdir()
    (scenario,) = scenarios(place / "base", name)
    reference, calls = undisturbed(scenario, place / "undisturbed")
    dice = random.Random(6)
    if around:
        first = next(index for index, point in enumerate(calls) if point.call.startswith(around))
        calls = calls[max(0, first - 3) : first + 5]
    chosen = [(point, dice.choice((KILL, KILL, *ERRORS))) for point in dice.sample(calls, points)]
    return [examine(scenario, fault, point, place / "struck", reference) for point, fault in chosen]


@traces
def test_a_split_struck_while_it_is_written_over_is_the_old_one_or_the_new_one(tmp_path: Path) -> None:
    outcomes = struck(tmp_path, "split --overwrite", 6)

    assert [one for one in outcomes if one.wrong or not one.hit] == []


@traces
def test_a_training_struck_while_a_state_takes_the_place_of_the_last_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    outcomes = struck(tmp_path, "train --resume", 3, around="link")

    assert [one for one in outcomes if one.wrong or not one.hit] == []


def test_only_calls_that_change_what_is_below_the_folder_are_counted(tmp_path: Path) -> None:
    trace = [
        f'7 openat(AT_FDCWD</>, "{tmp_path}/a", O_RDONLY|O_CLOEXEC) = 3<{tmp_path}/a>',
        f'7 openat(AT_FDCWD</>, "{tmp_path}/b", O_WRONLY|O_CREAT|O_EXCL, 0666) = 4<{tmp_path}/b>',
        f'7 write(4<{tmp_path}/b>, ""..., 9) = 9',
        '7 write(1</dev/null>, ""..., 9) = 9',
        f'8 write(4<{tmp_path}/b>, ""..., 9) = 9',
        f"7 close(3<{tmp_path}/a>) = 0",
        f"7 close(4<{tmp_path}/b>) = 0",
        f'7 rename("{tmp_path}/b", "{tmp_path}/c") = 0',
    ]

    assert list(writing_calls(trace, tmp_path)) == [
        Point("openat", 2, "b"), Point("write", 1, "b"), Point("close", 2, "b"), Point("rename", 1, "c"),
    ]  # fmt: skip


def test_of_many_writes_into_one_file_the_first_the_last_and_some_between_are_struck() -> None:
    few = [Point("write", number, "few") for number in range(16)]
    many = {number: Point("write", number, "many") for number in range(16, 49)}
    close = Point("close", 1, "many")

    kept = thinned([*few, *many.values(), close])

    struck_of_many = (16, 17, 18, 19, 20, 28, 36, 44, 45, 46, 47, 48)
    assert kept == [*few, *(many[number] for number in struck_of_many), close]


def test_contents_tell_what_a_file_says_and_not_when(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.csv").write_bytes(b"x\n1\n")
    (tmp_path / "out" / "environment.json").write_bytes(b"{}")
    before = contents(tmp_path, "out")
    (tmp_path / "out" / "a.csv").write_bytes(b"x\n2\n")
    (tmp_path / "out" / "environment.json").write_bytes(b'{"time": 1}')

    after = contents(tmp_path, "out")

    assert before["a.csv"] != after["a.csv"]
    assert before["environment.json"] == after["environment.json"]
