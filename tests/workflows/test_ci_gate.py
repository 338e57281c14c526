"""The example job in docs/: its exit codes are what a CI system sees."""

import csv
import itertools
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from evalcam_cli.errors import UsageError
from evalcam_cli.evaluation.gates import parse_gate
from evalcam_cli.evaluation.regression import read_regression

REPOSITORY = Path(__file__).parents[2]
SCRIPT = REPOSITORY / "docs" / "ci_gate.sh"

pytestmark = pytest.mark.skipif(os.name == "nt", reason="a shell script")


def test_every_gate_in_the_documentation_can_be_read() -> None:
    text = (SCRIPT.parent / "ci.md").read_text(encoding="utf-8")
    code = re.findall(r"`([^`]*--(?:fail|no)-[^`]*)`", text) + re.findall(r"evalcam evaluate [^\n]*", text)
    words = [word for line in code for word in itertools.pairwise(shlex.split(line))]
    gates = [(option, gate) for option, gate in words if option in ("--fail-under", "--fail-over")]
    regressions = [gate for option, gate in words if option == "--no-regression"]

    for option, gate in gates:
        parse_gate(gate, "under" if option == "--fail-under" else "over")
    for gate in regressions:
        if gate.startswith("base/"):
            with pytest.raises(UsageError, match="cannot read"):  # understood, and only then not found
                read_regression(gate)
    assert len(gates) >= 9
    assert regressions


def predictions(path: Path, *, wrong: int, n: int = 80) -> Path:
    """Two classes in turn, sure of everything, wrong in the first few."""
    with path.open("w", encoding="utf-8", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["path", "target", "p:healthy", "p:종양 [x]"])
        for number in range(n):
            target = number % 2
            sure = [0.05, 0.95] if (target == 1) != (number < wrong) else [0.95, 0.05]
            table.writerow([f"{number}.png", ["healthy", "종양 [x]"][target], *sure])
    return path


def run(*arguments: object, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", str(SCRIPT), *map(str, arguments)],
        env=os.environ
        | {"EVALCAM": f"{sys.executable} -m evalcam_cli", "PYTHONPATH": str(REPOSITORY)}
        | {"GITHUB_ACTIONS": "", "GITHUB_STEP_SUMMARY": ""}
        | (environment or {}),
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )


@pytest.fixture(scope="module")
def baseline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a good model's gate: `good.csv`, `report/` and the step's `summary.md`."""
    folder = tmp_path_factory.mktemp("baseline")
    summary = {"GITHUB_STEP_SUMMARY": str(folder / "summary.md")}
    finished = run(predictions(folder / "good.csv", wrong=2), folder / "report", environment=summary)
    assert finished.returncode == 0, finished.stderr
    assert "gate: passed" in finished.stderr
    return folder


def test_a_good_model_is_exit_code_0_with_files_for_ci(baseline: Path) -> None:
    assert b'tests="3" failures="0" errors="0"' in (baseline / "report" / "junit.xml").read_bytes()
    assert "3 gates passed" in (baseline / "summary.md").read_text(encoding="utf-8")


def test_a_bad_model_is_exit_code_4_with_its_report(tmp_path: Path) -> None:
    finished = run(
        predictions(tmp_path / "bad.csv", wrong=30), tmp_path / "report", environment={"GITHUB_ACTIONS": "true"}
    )

    assert finished.returncode == 4
    assert "FAILED: accuracy.ci_low >= 0.8" in finished.stderr
    assert "::error title=gate balanced_accuracy >= 0.85::" in finished.stderr
    document = json.loads((tmp_path / "report" / "metrics.json").read_text(encoding="utf-8"))
    assert [gate["passed"] for gate in document["gates"]] == [False, False, False]


def test_a_model_that_is_worse_than_the_one_in_use_is_exit_code_4(baseline: Path, tmp_path: Path) -> None:
    finished = run(predictions(tmp_path / "worse.csv", wrong=5), tmp_path / "report", baseline / "report")

    assert finished.returncode == 4
    (missed,) = (line for line in finished.stderr.splitlines() if "FAILED" in line)
    assert "report - 0.02 (0.9375; before 0.975)" in missed


def test_a_path_that_is_not_there_is_exit_code_2(baseline: Path, tmp_path: Path) -> None:
    for arguments in (("only one",), (baseline / "good.csv", tmp_path / "report", tmp_path / "absent.json")):
        finished = run(*arguments)

        assert finished.returncode == 2, finished.stderr
        assert len(finished.stderr.splitlines()) <= 8
        assert not (tmp_path / "report").exists()


def test_a_damaged_baseline_is_exit_code_3(baseline: Path, tmp_path: Path) -> None:
    (tmp_path / "damaged.json").write_text("{", encoding="utf-8")

    finished = run(baseline / "good.csv", tmp_path / "report", tmp_path / "damaged.json")

    assert finished.returncode == 3
    assert "nothing was decided (exit code 3)" in finished.stderr
