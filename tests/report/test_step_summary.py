"""The step summary: what it says, that it stays below GitHub's limit, and that nothing in it stops a run."""

import os
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from evalcam_cli.evaluation.estimates import Caution
from evalcam_cli.evaluation.gates import GateResult, check_gates, parse_gate
from evalcam_cli.evaluation.metrics import Metrics, compute_metrics
from evalcam_cli.evaluation.predictions import Predictions
from evalcam_cli.report.step_summary import SUMMARY_LIMIT, append_step_summary, gate_annotations, step_summary


@cache
def measured(classes: tuple[str, ...] = ("cat", "dog")) -> Metrics:
    k = len(classes)
    targets = np.arange(2 * k) % k
    logits = np.eye(k, dtype=np.float32)[np.where(np.arange(2 * k) == 0, k - 1, targets)]
    return compute_metrics(Predictions(classes, logits, targets, ("",) * (2 * k)))


def results(metrics: Metrics) -> tuple[GateResult, ...]:
    return check_gates([parse_gate("accuracy=0.5", "under"), parse_gate("ece=0.0001", "over")], metrics)


def test_the_summary_says_verdict_headline_gates_and_tables() -> None:
    metrics = replace(measured(), warnings=(Caution("few_images", "only 4 images"),))

    text = step_summary(metrics, results(metrics), subset="test", looks="Looked at twice.")

    assert text.startswith(
        "## Evaluation\n\n**❌ 1 of 2 gates missed**\n\n**Accuracy 0.750** on 4 images of the set test."
    )
    assert text.index("❌ FAILED | ece") < text.index("✅ passed | accuracy >= 0.5".replace(">", "&gt;"))
    assert "Looked at twice." in text
    assert "- `few_images`: only 4 images" in text
    assert "| accuracy | 0.750 |" in text
    assert "| cat | 2 |" in text
    assert "left out" not in text


def test_passed_gates_are_said_and_no_gates_are_not() -> None:
    metrics = measured()

    assert "**✅ 1 gate passed**" in step_summary(metrics, results(metrics)[:1])
    assert "gate" not in step_summary(metrics)


HOSTILE = "|`<script>$x$*_[a](b)\\\n\u202e"


@pytest.mark.parametrize("limit", [SUMMARY_LIMIT, SUMMARY_LIMIT // 4])
def test_a_thousand_hostile_names_stay_below_the_limit_and_keep_the_verdict(limit: int) -> None:
    metrics = measured(tuple(f"{number} " + HOSTILE * 30 for number in range(1000)))

    text = step_summary(metrics, results(metrics), subset=HOSTILE * 5000, title=HOSTILE * 5000, limit=limit)

    assert len(text.encode()) <= limit < 1024 * 1024
    assert "1 of 2 gates missed" in text
    assert "| accuracy | " in text
    rows = sum(line.startswith(tuple("| " + digit for digit in "0123456789")) for line in text.splitlines())
    assert rows == 1000 if limit == SUMMARY_LIMIT else 0 < rows < 1000
    assert rows == 1000 or f"\n{1000 - rows:,} classes left out: the summary of a step is limited" in text
    assert "<script>" not in text
    assert "\u202e" not in text


def test_a_thousand_plain_classes_are_all_shown() -> None:
    text = step_summary(measured(tuple(f"class {number}" for number in range(1000))))

    assert "left out" not in text
    assert "| class 999 | 2 |" in text


@pytest.mark.parametrize("limit", [1000, 1200, 1500, 2000, 2500, 3000, 4000])
def test_at_any_limit_what_is_shown_is_whole_lines_and_what_is_not_is_said(limit: int) -> None:
    metrics = measured(tuple("abcdefghij"))
    whole = step_summary(metrics, results(metrics), subset="test")

    text = step_summary(metrics, results(metrics), subset="test", limit=limit)

    assert len(text.encode()) <= limit
    assert "**Accuracy" in text
    assert {line for line in text.splitlines() if "left out" not in line} <= {*whole.splitlines(), ""}
    assert ("left out" in text) is (text != whole)


def cells(line: str) -> int:
    return line.replace("\\\\", "").replace("\\|", "").count("|") - 1


def test_a_name_cannot_leave_its_cell() -> None:
    text = step_summary(measured(("a", HOSTILE)))

    (row,) = (line for line in text.splitlines() if "script" in line and "| 2 |" in line)
    assert cells(row) == 7


@pytest.fixture
def summary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "summary.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(path))
    return path


def test_summaries_are_appended_to_the_file_which_is_made(summary: Path) -> None:
    assert append_step_summary("one 한\n")
    assert append_step_summary("two\n")

    assert summary.read_text(encoding="utf-8") == "one 한\n\ntwo\n"


@pytest.mark.parametrize("value", [None, ""])
def test_without_the_variable_nothing_happens(value: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if value is None:
        monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    else:
        monkeypatch.setenv("GITHUB_STEP_SUMMARY", value)

    assert not append_step_summary("text")


def test_what_is_in_the_file_counts_towards_the_limit(summary: Path) -> None:
    summary.write_bytes(b"x" * 900)
    text = "".join(f"line {number}\n" for number in range(200))

    assert append_step_summary(text, limit=1500)

    content = summary.read_text(encoding="utf-8")
    assert len(content.encode()) <= 1500
    assert content.startswith("x" * 900 + "\nline 0\nline 1\n")
    assert content.endswith("all is in `metrics.json`.\n")
    assert all(line in (*text.splitlines(), "") for line in content.splitlines()[1:-1])


def test_a_full_summary_is_left_as_it_is(summary: Path, caplog: pytest.LogCaptureFixture) -> None:
    summary.write_bytes(b"x" * 1500)

    assert not append_step_summary("text\n" * 1000, limit=1500)

    assert summary.stat().st_size == 1500
    assert "is full (1,500 bytes)" in caplog.text


def test_a_folder_a_pipe_or_a_missing_folder_is_a_warning(
    summary: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(summary)
    assert not append_step_summary("text")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary.parent))
    assert not append_step_summary("text")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary.parent / "absent" / "a.md"))
    assert not append_step_summary("text")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "a" * 5000)
    assert not append_step_summary("text")

    assert [record.levelname for record in caplog.records] == ["WARNING"] * 4
    assert "not a regular file" in caplog.text
    assert "No such file or directory" in caplog.text


def test_missed_gates_are_annotations_that_a_name_cannot_escape() -> None:
    metrics = measured(("cat", "x%,:\n::set-output name=a::b"))
    gates = [parse_gate(f"recall[{metrics.classes[1]}]>1", "under") for _ in range(15)]

    lines = list(gate_annotations([*results(metrics)[:1], *check_gates(gates, metrics)]))

    assert len(lines) == 10
    assert lines[0] == (
        "::error title=gate recall[x%25%2C%3A\\n%3A%3Aset-output name=a%3A%3Ab] > 1::"
        "FAILED: recall[x%25,:\\n::set-output name=a::b] > 1 (1)"
    )
