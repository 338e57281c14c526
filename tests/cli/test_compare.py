"""`evalcam compare` as a shell sees it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.commands import run_command
from tests.workflows.test_compare import write_predictions

QUICK = ("--set", "evaluate.bootstrap=100")


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    return [
        str(write_predictions(tmp_path / f"{name}.csv", seed=seed, skill=skill))
        for seed, (name, skill) in enumerate([("a", 1.0), ("b", 3.0), ("c", 1.1)])
    ]


def test_the_table_puts_the_difference_first(files: list[str]) -> None:
    outcome = run_command("compare", *files[:2], *QUICK)

    assert outcome.code == 0
    header = next(line for line in outcome.out.splitlines() if line.strip().startswith("metric"))
    assert header.split() == ["metric", "B", "−", "A", "95", "%", "interval", "p", "A", "B", "reading"]
    assert "B better" in outcome.out


def test_json_is_one_document(files: list[str]) -> None:
    outcome = run_command("compare", *files, "--json", "--all-pairs", *QUICK)

    document = json.loads(outcome.out)
    assert document["schema_version"] == 1
    assert [(pair["a"], pair["b"]) for pair in document["pairs"]] == [("A", "B"), ("A", "C"), ("B", "C")]
    assert document["cochran_q"]["p_value"] < 0.05


def test_no_evidence_is_not_called_equal(files: list[str]) -> None:
    outcome = run_command("compare", files[0], files[2], "--metric", "accuracy", *QUICK)

    assert "no evidence of a difference" in outcome.out
    assert "equal" not in outcome.out


def test_identical_models_say_so(files: list[str]) -> None:
    outcome = run_command("compare", files[0], files[0], *QUICK)

    assert outcome.code == 0
    assert "identical scores" in outcome.out
    assert "identical scores" in outcome.err


def test_a_failed_gate_is_exit_4_after_the_table(files: list[str]) -> None:
    outcome = run_command("compare", files[1], files[0], "--non-inferior", "accuracy:0.02", *QUICK)

    assert outcome.code == 4
    assert "A better" in outcome.out
    assert "not shown that B is not worse than A in accuracy by 0.02" in outcome.err


def test_a_passed_gate_is_printed(files: list[str]) -> None:
    outcome = run_command("compare", *files[:2], "--non-inferior", "log_loss:0.02", "--metric", "accuracy", *QUICK)

    assert outcome.code == 0
    assert "passed: B is not worse than A in log_loss by 0.02" in outcome.out


def test_other_images_are_exit_3_within_8_lines(files: list[str], tmp_path: Path) -> None:
    other = str(write_predictions(tmp_path / "d.csv", seed=9, n=30))

    outcome = run_command("compare", files[0], other, *QUICK)

    assert outcome.code == 3
    assert "30 images only in" in outcome.err
    assert len(outcome.err.splitlines()) <= 8
    assert run_command("compare", files[0], other, "--unpaired", *QUICK).code == 0


@pytest.mark.parametrize(
    "arguments",
    [("--metric", "ece"), ("--metric", "recall[x]"), ("--mcnemar", "yates"), ("--non-inferior", "accuracy"),
     ("--positive", "glioma"), ("--metric", "roc_auc")],
)  # fmt: skip
def test_wrong_usage_is_exit_2(files: list[str], arguments: tuple[str, ...]) -> None:
    assert run_command("compare", *files[:2], *arguments, *QUICK).code == 2


def test_one_file_is_exit_2(files: list[str]) -> None:
    assert run_command("compare", files[0]).code == 2


def test_out_is_printed_last_and_overwritten_only_on_request(files: list[str], tmp_path: Path) -> None:
    arguments = ("compare", *files[:2], "-o", str(tmp_path / "out"), *QUICK)

    first, second, third = run_command(*arguments), run_command(*arguments), run_command(*arguments, "--overwrite")

    assert (first.code, second.code, third.code) == (0, 2, 0)
    assert first.out.splitlines()[-1] == str(tmp_path / "out")


def test_quiet_leaves_stderr_empty(files: list[str]) -> None:
    assert run_command("compare", files[0], files[0], "--quiet", *QUICK).err == ""


def test_compare_needs_no_torch() -> None:
    code = "import sys, evalcam_cli.workflows.compare; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
