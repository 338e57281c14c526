"""docs/reliability.md says what was measured, and of what was not measured that it was not."""

import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks import damaged_checkpoints, kills, large, mutants, reliability, signals, write_faults
from tests.benchmarks.reliability import PAGE, QUICK, STORE, WHOLE, Result, page, read, write
from tests.benchmarks.reliability_parts import PARTS, ROWS, Numbers, Row

ALL = [row for rows in ROWS.values() for row in rows]


def damaged(*outcomes: str, error: str = "CheckpointError") -> Numbers:
    counts = Counter(outcomes)
    result = damaged_checkpoints.Result(counts, Counter({error: counts["refused"]}), 0.1)
    return {what: {"native": damaged_checkpoints.numbers(result)} for what in ("damaged", "mutated")}


def killed(*wrong: str) -> Numbers:
    kill = kills.Kill("training", "training", 1.0, [])
    return kills.numbers([kills.KilledRun("adamw", [kill] * 100, list(wrong))])


def struck(*wrong: str) -> Numbers:
    point = write_faults.Point("write", 1, "split.csv")
    return write_faults.numbers([
        write_faults.Outcome("train", fault, point, 5, True, wrong) for fault in (write_faults.KILL, "EIO")
    ])  # fmt: skip


def signalled(*wrong: str, seconds: float = 1.0) -> Numbers:
    return signals.numbers([signals.Blow("train", 2, False, False, 1.0, 130, seconds, wrong)] * 40)


def spent(what: str, images: int, seconds: float) -> Numbers:
    return {what: large.Spent(seconds, 9.0, 100.0, 120.0, "").numbers(images)}


def mutated(killed: int) -> Numbers:
    drawn = [mutants.Mutant("text", number, 0, f"text.f: {number}", 1) for number in range(1000)]
    found = mutants.numbers({one: "killed" if one.place < killed else "survived" for one in drawn})
    return found | {"unexplained": []}


def walked(wrong: int) -> Numbers:
    return {"counts": {"images": {"refuse": 200}, "splits": {"accept": 200}}, "wrong": {"code run": wrong}}


def of_tests(failed: int) -> Numbers:
    return {"passed": 3, "failed": failed, "skipped": 0}


def fuzzed(*findings: str) -> Numbers:
    one = {"engine": "guided", "executions": 1000, "seconds": 600.0, "findings": dict.fromkeys(findings, "")}
    return {"targets": [one]}


RIGHT_AND_WRONG: dict[str, tuple[Numbers, Sequence[Numbers]]] = {
    "zoo": (walked(0), [walked(1)]),
    "malicious": (walked(0), [walked(1)]),
    "control": (of_tests(0), [of_tests(1)]),
    "checkpoints": (
        damaged(*["refused"] * 10_000, "same"),
        [damaged(*["refused"] * 10_000, "other"), damaged(*["refused"] * 10_000, error="KeyError")],
    ),
    **{name: (fuzzed(), [fuzzed("a crash")]) for name in PARTS if name.startswith("fuzz-")},
    "sinks": (of_tests(0), [of_tests(1)]),
    "kills": (killed(), [killed("other weights")]),
    **{name: (struck(), [struck("lost")]) for name in PARTS if name.startswith("writes-")},
    "signals": (signalled(), [signalled("orphans"), signalled(seconds=11)]),
    "writer": (of_tests(0), [of_tests(1), {"passed": 0, "failed": 0, "skipped": 1}]),
    "large-split": (spent("split", 100_000, 59), [spent("split", 100_000, 61), spent("split", 10_000, 1)]),
    "large-manifest": (spent("manifest", 1_000_000, 19), [spent("manifest", 1_000_000, 21)]),
    "large-file": (spent("file", 1_000_000, 39), [spent("file", 1_000_000, 41)]),
    "slopes": (
        {"slopes": dict.fromkeys("abcdefg", 1000.0)},
        [{"slopes": dict.fromkeys("abcdefg", 1025.0)}, {"slopes": dict.fromkeys("abcdef", 1000.0)}],
    ),
    "workers": (of_tests(0), [of_tests(2)]),
    "batches": (of_tests(0), [of_tests(1)]),
    "mutants": (mutated(900), [mutated(899)]),
}
"""Numbers as the part leaves them: such that the goal is held, and such that it is missed."""


def result(numbers: Any, form: str = WHOLE) -> Result:
    return Result(form, "2026-01-02", 90.0, "a CPU, 2 cores", 0.5, {"evalcam": "0"}, 0, numbers)


def line(row: Row, text: str) -> str:
    (found,) = (one for one in text.splitlines() if one.startswith(f"| {row.what} |"))
    return found


def test_the_page_is_what_was_measured() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(read(STORE)), "run `python -m tests.benchmarks.reliability --page`"


@pytest.mark.parametrize("row", ALL, ids=lambda row: row.what[:40])
def test_what_was_not_measured_is_not_left_out(row: Row) -> None:
    assert line(row, page({})).endswith(f"| {row.goal} | not run yet | |")


@pytest.mark.parametrize("row", ALL, ids=lambda row: row.what[:40])
def test_a_goal_is_held_or_missed_by_the_numbers_of_the_benchmark(row: Row) -> None:
    right, wrong = RIGHT_AND_WRONG[row.part]

    assert line(row, page({row.part: {WHOLE: result(right)}})).endswith("(whole, 2026-01-02) | held |")
    for numbers in wrong:
        assert line(row, page({row.part: {WHOLE: result(numbers)}})).endswith("(whole, 2026-01-02) | **missed** |")


def test_every_goal_of_the_list_has_a_row() -> None:
    goals = " ".join(f"{row.what}: {row.goal}" for row in ALL)
    for words in (
        "0 tracebacks", "0 of at least 20", "100 % run", "3,000", "10,000", "10 minutes", "100 of 100", "ENOSPC",
        "40 of 40", "seven end with 5", "1, 7, 64", "60 s, 400 MB", "20 s, 500 MB", "1 KB", "90 % of 1,000",
    ):  # fmt: skip
        assert words in goals
    assert {row.part for row in ALL} == PARTS.keys()


def test_a_part_that_left_no_numbers_is_a_goal_missed() -> None:
    assert line(ALL[0], page({"zoo": {QUICK: result(None, QUICK)}})).endswith(
        "no numbers, exit code 0 (quick, 2026-01-02) | **missed** |"
    )


def test_the_whole_form_is_shown_and_a_quick_one_only_when_it_missed() -> None:
    right, wrong = RIGHT_AND_WRONG["zoo"]
    both = {WHOLE: result(right), QUICK: result(right, QUICK)}

    text = page({"zoo": both})
    worse = page({"zoo": both | {QUICK: result(wrong[0], QUICK)}})

    assert "(whole," in line(ALL[0], text)
    assert [re.findall(r"\((\w+), 2026", one) for one in worse.splitlines() if ALL[0].what in one] == [
        ["whole"], ["quick"],
    ]  # fmt: skip


def test_results_are_kept_part_by_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, document = tmp_path / "results.json", tmp_path / "page.md"
    write(store, {"kills": {WHOLE: result(killed())}})
    left = [result(of_tests(0), QUICK)]

    def one(*_: object) -> Result:
        if left:
            return left.pop()
        raise KeyboardInterrupt

    monkeypatch.setattr(reliability, "measured", one)
    with pytest.raises(KeyboardInterrupt):
        reliability.main(["--quick", "--only", "sinks", "--only", "writer"], store=store, document=document)

    assert read(store).keys() == {"kills", "sinks"}
    assert document.read_text(encoding="utf-8") == page(read(store))
    assert json.loads(store.read_text(encoding="utf-8"))["sinks"][QUICK]["numbers"]["passed"] == 3


def test_pytest_s_own_report_is_counted() -> None:
    junit = '<testsuites><testsuite tests="9" failures="2" errors="1" skipped="3"/></testsuites>'

    assert reliability.outcomes_of_tests(junit) == {"passed": 3, "failed": 3, "skipped": 3}
