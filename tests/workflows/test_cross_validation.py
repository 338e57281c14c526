"""All rounds of a cross-validation: one after the other, several at a time, killed, taken up again, summed up."""

import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from evalcam_cli.config import RunConfig
from evalcam_cli.config_sources import load_config
from evalcam_cli.errors import DataError, MachineError, UsageError
from evalcam_cli.files import output_folder
from evalcam_cli.models.checkpoint import load_checkpoint
from evalcam_cli.training.history import read_history
from evalcam_cli.workflows.cross_validation import CrossValidation, train_all_folds
from evalcam_cli.workflows.evaluate import evaluate
from evalcam_cli.workflows.predictions import EvaluateRequest
from evalcam_cli.workflows.train import TrainRequest
from evalcam_cli.workflows.training_run import LAST
from tests.conftest import TINY, read_rows

DIVISION = ("split.folds=2", "train.epochs=2")
ROUNDS = (*DIVISION, "split.repeats=2")  # of which the first two are those of the single division


def config(*assignments: str) -> RunConfig:
    return load_config(assignments=[*(one for one in TINY if one != "--set"), *assignments])


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """As a round has in a process of its own on two cores: the number of threads can change the rounding."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def reference(colours: Path, tmp_path_factory: pytest.TempPathFactory) -> CrossValidation:
    """Two divisions into two folds, trained one after the other by this process."""
    return train_all_folds(config(*ROUNDS), TrainRequest(tmp_path_factory.mktemp("train") / "cv", colours))


def outer(found: CrossValidation) -> Path:
    return found.results[0].folder.parent


class Shell:
    """Starts trainings of two rounds at a time, and leaves none behind."""

    def __init__(self) -> None:
        self.processes: list[subprocess.Popen[str]] = []

    def train(self, data: Path, out: Path) -> subprocess.Popen[str]:
        assignments = [word for one in DIVISION for word in ("--set", one)]
        command = ["train", str(data), "--out", str(out), "--all-folds", "--jobs", "2", *TINY, *assignments]
        process = subprocess.Popen(
            [sys.executable, "-m", "evalcam_cli", *command],
            env=os.environ | {"OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.processes.append(process)
        return process


@pytest.fixture
def shell() -> Iterator[Shell]:
    found = Shell()
    yield found
    for process in found.processes:
        process.kill()
        process.communicate()


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 600
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.02)


def children(process: subprocess.Popen[str]) -> list[int]:
    found = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text(encoding="ascii")
    return [int(word) for word in found.split()]


def is_alive(number: int) -> bool:
    try:
        return Path(f"/proc/{number}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")


def test_each_round_of_each_division_is_a_run_folder(reference: CrossValidation) -> None:
    assert [result.folder.name for result in reference.results] == ["fold-0", "fold-1", "fold-2", "fold-3"]
    tests = [
        {row["path"] for row in read_rows(result.folder / "split.csv") if row["set"] == "test"}
        for result in reference.results
    ]
    assert [len(one) for one in tests] == [20] * 4
    assert not tests[0] & tests[1]
    assert not tests[2] & tests[3]
    assert tests[2] not in (tests[0], tests[1])


def test_the_summary_is_of_the_best_epochs_of_the_rounds(reference: CrossValidation) -> None:
    summary = json.loads((outer(reference) / "summary.json").read_text(encoding="utf-8"))

    best = [read_history(one.folder / "history.csv")[one.best_epoch - 1] for one in reference.results]
    losses = [record.val_loss for record in best if record.val_loss is not None]
    assert (summary["folds"], summary["repeats"], summary["subset"]) == (2, 2, "val")
    assert [(one["round"], one["repeat"], one["fold"]) for one in summary["rounds"]] == [
        (0, 0, 0), (1, 0, 1), (2, 1, 0), (3, 1, 1),
    ]  # fmt: skip
    assert [one["val_loss"] for one in summary["rounds"]] == losses
    assert summary["mean"]["val_loss"] == pytest.approx(sum(losses) / 4)
    assert summary["sd"]["val_loss"] == pytest.approx(statistics.stdev(losses))
    for one, result in zip(summary["rounds"], reference.results, strict=True):
        assert one["weights_sha256"] == load_checkpoint(result.folder / LAST).tensors_sha256
        assert one["diagnosis"] == json.loads((result.folder / "diagnosis.json").read_text())["verdict"]


def test_the_table_ends_with_the_mean_and_the_sd(reference: CrossValidation) -> None:
    rows = read_rows(outer(reference) / "summary.csv")

    assert [row["round"] for row in rows] == ["0", "1", "2", "3", "mean", "sd"]
    accuracies = [float(row["val_accuracy"]) for row in rows]
    assert accuracies[4] == pytest.approx(statistics.fmean(accuracies[:4]))
    assert accuracies[5] == pytest.approx(statistics.stdev(accuracies[:4]))


@pytest.mark.slow
@needs_proc
def test_killed_with_all_its_processes_it_goes_on_to_the_same_bits(
    reference: CrossValidation, colours: Path, tmp_path: Path, shell: Shell
) -> None:
    out = tmp_path / "cv"
    process = shell.train(colours, out)
    wait_for(out / "fold-1" / LAST, process)
    rounds = children(process)
    process.kill()
    process.communicate()
    end = time.monotonic() + 60
    while any(map(is_alive, rounds)) and time.monotonic() < end:
        time.sleep(0.02)
    assert len(rounds) == 2
    assert not any(map(is_alive, rounds))
    assert not (out / "summary.json").exists()

    resumed = train_all_folds(config(*DIVISION), TrainRequest(out, colours, resume=True), jobs=2)

    for one, whole in zip(resumed.results, reference.results[:2], strict=True):
        assert one.weights_sha256 == whole.weights_sha256
        assert load_checkpoint(one.checkpoint).tensors_sha256 == load_checkpoint(whole.checkpoint).tensors_sha256
    assert [one.validation for one in resumed.table.rounds] == [one.validation for one in reference.table.rounds[:2]]
    assert (out / "summary.json").exists()


@pytest.mark.slow
@needs_proc
def test_a_signal_is_passed_on_and_every_round_saves(
    reference: CrossValidation, colours: Path, tmp_path: Path, shell: Shell
) -> None:
    out = tmp_path / "cv"
    process = shell.train(colours, out)
    wait_for(out / "fold-0" / LAST, process)
    rounds = children(process)

    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=600)

    assert process.returncode == 143, said
    assert not any(map(is_alive, rounds))
    assert "--resume" in said
    resumed = train_all_folds(config(*DIVISION), TrainRequest(out, colours, resume=True))
    assert [one.weights_sha256 for one in resumed.results] == [one.weights_sha256 for one in reference.results[:2]]


@pytest.mark.slow
def test_a_round_that_fails_is_named_and_the_other_one_is_finished(colours: Path, tmp_path: Path) -> None:
    out = tmp_path / "cv"
    request = TrainRequest(out, colours, resume=True)

    with output_folder(out / "fold-1"), pytest.raises(MachineError, match="fold 1: another evalcam run"):
        train_all_folds(config("split.folds=3", "train.epochs=1"), request, jobs=2)

    assert (out / "fold-0" / "diagnosis.json").exists()
    assert not (out / "fold-2").exists()


def test_a_finished_training_is_not_trained_again(reference: CrossValidation, colours: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in outer(reference).rglob("*.safetensors")}

    again = train_all_folds(config(*ROUNDS), TrainRequest(outer(reference), resume=True), jobs=2)

    assert again.table == reference.table
    assert {path: path.stat().st_mtime_ns for path in outer(reference).rglob("*.safetensors")} == before


def test_another_config_or_split_is_refused_before_any_round(reference: CrossValidation, tmp_path: Path) -> None:
    other = tmp_path / "split.csv"
    text = (outer(reference) / "split.csv").read_text(encoding="utf-8")
    first, second = text.splitlines()[1:3]
    other.write_text(text.replace(first, first[:-1] + second[-1]).replace(second, second[:-1] + first[-1]), "utf-8")
    other.with_suffix(".json").write_bytes((outer(reference) / "split.json").read_bytes())

    with pytest.raises(UsageError, match=r"train\.lr: 0\.001 then"):
        train_all_folds(config(*ROUNDS, "train.lr=0.5"), TrainRequest(outer(reference), resume=True), jobs=2)
    assert first[-1] != second[-1]
    with pytest.raises(DataError, match="another split"):
        train_all_folds(config(*ROUNDS), TrainRequest(outer(reference), split_file=other, resume=True))


def test_a_hold_out_split_has_no_rounds(colours: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--folds K"):
        train_all_folds(config(), TrainRequest(tmp_path / "cv", colours))
    with pytest.raises(UsageError, match="--jobs 0"):
        train_all_folds(config(*ROUNDS), TrainRequest(tmp_path / "cv", colours), jobs=0)
    assert list(tmp_path.iterdir()) == []


def test_repeats_are_evaluated_with_intervals_by_image(reference: CrossValidation, tmp_path: Path) -> None:
    out = tmp_path / "out"

    found = evaluate(config(), EvaluateRequest(out=out, ckpt=outer(reference)))

    assert found.metrics.n == found.document["n"] == found.metrics.groups == 40
    assert int(found.metrics.confusion.sum()) == found.document["folds"]["n_predictions"] == 80
    assert found.document["folds"]["repeats"] == 2
    assert found.document["folds"]["folds"] == [0, 1, 2, 3]
    rows = read_rows(out / "predictions.csv")
    assert all(row["group"] == row["path"] for row in rows)
    assert sorted(row["fold"] for row in rows) == sorted("0123" * 20)
    assert "4 rounds (2 repeats)" in (out / "report.md").read_text(encoding="utf-8")
    again = subprocess.run([sys.executable, str(out / "reproduce.py")], check=False, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr


def test_an_image_twice_in_one_division_is_no_cross_validation(reference: CrossValidation, tmp_path: Path) -> None:
    for name in ("fold-0", "fold-1", "fold-2"):
        (tmp_path / name).symlink_to(outer(reference) / "fold-0" if name == "fold-1" else outer(reference) / name)

    with pytest.raises(DataError, match="not of one cross-validation"):
        evaluate(config(), EvaluateRequest(ckpt=tmp_path))
