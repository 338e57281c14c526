"""Files for CI: where they may stand, and that GitHub is only told on GitHub."""

from pathlib import Path

import numpy as np
import pytest

from evalcam_cli.errors import EvalcamError, MachineError, UsageError
from evalcam_cli.evaluation.gates import GateResult, check_gates, parse_gate
from evalcam_cli.evaluation.metrics import Metrics, compute_metrics
from evalcam_cli.evaluation.predictions import Predictions
from evalcam_cli.files import output_folder
from evalcam_cli.workflows.ci import refuse_junit_place, tell_github, write_junit


@pytest.fixture
def metrics() -> Metrics:
    logits = np.eye(2, dtype=np.float32)[[0, 0, 1, 0]]
    return compute_metrics(Predictions(("a", "b"), logits, np.array([0, 0, 1, 1]), ("",) * 4))


@pytest.fixture
def results(metrics: Metrics) -> tuple[GateResult, ...]:
    return check_gates([parse_gate("accuracy=0.8", "under")], metrics)


def test_the_junit_file_goes_anywhere_and_replaces_only_its_own_kind(
    tmp_path: Path, metrics: Metrics, results: tuple[GateResult, ...]
) -> None:
    path = tmp_path / "reports" / "junit.xml"

    for _ in range(2):
        refuse_junit_place(path, [])
        write_junit(path, None, results, metrics, "test")

    assert b'<testsuite name="evalcam test" tests="1" failures="1"' in path.read_bytes()
    write_junit(None, None, results, metrics, "test")
    assert [entry.name for entry in path.parent.iterdir()] == ["junit.xml"]


def test_in_the_output_folder_it_belongs_to_the_run(
    tmp_path: Path, metrics: Metrics, results: tuple[GateResult, ...]
) -> None:
    out = tmp_path / "out"
    refuse_junit_place(out / "junit.xml", [])
    with output_folder(out) as folder:
        write_junit(out / "junit.xml", folder, results, metrics, "test")

    with output_folder(out, overwrite=True) as folder:
        folder.write("new", b"")

    assert not (out / "junit.xml").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "is a folder; name a file"),
        ("mine.xml", "is there already and evalcam did not write it"),
        ("data/junit.xml", "lies in the data folder"),
        ("runs/out", "is the output folder; name a file"),
        ("runs", "is the output folder; name a file"),
        ("dangling", "is there already and evalcam did not write it"),
        ("a" * 5000, "name too long|cannot be used"),
        ("a\0b", "cannot be used"),
    ],
)
def test_a_bad_place_is_found_out_before_the_work(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "mine.xml").write_text("<?xml version='1.0'?>\n<testsuites/>", encoding="utf-8")
    (tmp_path / "data").mkdir()
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")

    with pytest.raises(UsageError, match=f"(?i){message}") as caught:
        refuse_junit_place(tmp_path / name, [tmp_path / "data"], tmp_path / "runs/out")

    assert len(str(caught.value)) < 1000


def test_a_file_for_a_folder_is_the_machine_s_or_the_user_s_fault(
    tmp_path: Path, metrics: Metrics, results: tuple[GateResult, ...]
) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")

    with pytest.raises(EvalcamError, match="cannot write") as caught:
        write_junit(tmp_path / "file" / "junit.xml", None, results, metrics, "test")

    assert isinstance(caught.value, UsageError | MachineError)


def test_github_is_told_on_github_only(
    tmp_path: Path, metrics: Metrics, results: tuple[GateResult, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY"):
        monkeypatch.delenv(name, raising=False)
    assert tell_github(results, metrics) == []

    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    lines = tell_github(results, metrics, subset="test", looks="First look.")

    assert lines == ["::error title=gate accuracy >= 0.8::FAILED: accuracy >= 0.8 (0.75)"]
    assert "First look." in (tmp_path / "summary.md").read_text(encoding="utf-8")
