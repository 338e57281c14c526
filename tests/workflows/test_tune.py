"""A search from a config and images to the best config; the training itself is replaced by a formula."""

import json
import math
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

from evalcam_cli.config import RunConfig
from evalcam_cli.config_sources import load_config
from evalcam_cli.data.preprocessing import Preprocessing
from evalcam_cli.errors import DataError, DivergedError, MemoryTooSmallError, UsageError
from evalcam_cli.files import OutputFolder
from evalcam_cli.models.checkpoint import Checkpoint, Stored, save_checkpoint
from evalcam_cli.progress import Progress
from evalcam_cli.training import history as history_file
from evalcam_cli.training.history import Best, EpochRecord
from evalcam_cli.training.position import TrainingState, state_document, state_from_document
from evalcam_cli.workflows import trials
from evalcam_cli.workflows.search_files import TuneResult
from evalcam_cli.workflows.split import PreparedSplit, make_split, write_split_file
from evalcam_cli.workflows.training_run import BEST, LAST
from evalcam_cli.workflows.tune import TuneRequest, tune
from tests.conftest import read_rows

pytest.importorskip("optuna")

SPACE = "search.space={train.lr: {low: 1e-5, high: 1e-1, log: true}, train.batch_size: [16, 32]}"


class Killed(BaseException):
    """The process ends here."""


def value_at(config: RunConfig, epoch: int) -> float:
    """Best at a rate of 1e-3, and better from epoch to epoch."""
    return 1 - 0.1 * abs(math.log10(config.train.lr) + 3) - 0.1 / epoch


@dataclass
class Training:
    """Stands for `train_prepared`: it keeps the files that a search reads, and its epochs cost nothing."""

    value: Callable[[RunConfig, int], float] = value_at
    before_epoch: Callable[[RunConfig, int], None] = lambda config, epoch: None
    after_epoch: Callable[[RunConfig, int], None] = lambda config, epoch: None
    epochs: list[tuple[float, int]] = field(default_factory=list)
    """Rate and number of each epoch trained."""

    def __call__(
        self, config: RunConfig, prepared: PreparedSplit, folder: OutputFolder, progress: Progress, *,
        start: object = None, stored: Stored | None = None, watch: Callable[[EpochRecord], None],
    ) -> None:  # fmt: skip
        assert not config.search.space
        state = TrainingState()
        if stored is not None:
            history = history_file.read_history(folder.path / "history.csv")
            state = state_from_document(stored.training_document["state"], history)
        sign = -1 if config.train.monitor == "loss" else 1
        while not state.finished(config):
            epoch = state.epoch + 1
            self.before_epoch(config, epoch)
            self.epochs.append((config.train.lr, epoch))
            score = sign * self.value(config, epoch)
            best = Best(epoch, score, 0.0) if state.best.is_beaten_by(score, 0.0) else state.best
            record = EpochRecord(epoch, 1.0, 1.0, 0.5, 0.5, config.train.lr, 1.0, 2.0)
            state = TrainingState(epoch, best, (*state.history, record))
            folder.write_csv("history.csv", history_file.HEADER, history_file.rows(state.history))
            checkpoint = Checkpoint("resnet18", 2, ("a", "b"), Preprocessing(32, "pad"))
            for name in (BEST, LAST):
                save_checkpoint(
                    folder.claim(name), checkpoint, {"w": torch.zeros(1)}, {}, {"state": state_document(state)}
                )
            self.after_epoch(config, epoch)
            watch(record)


@pytest.fixture
def training(monkeypatch: pytest.MonkeyPatch) -> Training:
    return use(Training(), monkeypatch)


def use(training: Training, monkeypatch: pytest.MonkeyPatch) -> Training:
    monkeypatch.setattr(trials, "train_prepared", training)
    return training


def searching(*assignments: str) -> RunConfig:
    fixed = ("model.weights=none", "train.epochs=3", "train.warmup_epochs=0", "search.pruner=none")
    return load_config(assignments=[SPACE, *fixed, *assignments])


def search(out: Path, data: Path, *assignments: str, count: int = 6, resume: bool = False) -> TuneResult:
    return tune(searching(*assignments), TuneRequest(out, data, trials=count, resume=resume))


def test_the_best_config_trains_as_it_stands_and_only_the_best_weights_are_kept(
    colours: Path, tmp_path: Path, training: Training
) -> None:
    result = search(tmp_path / "out", colours)

    names = {path.name for path in (tmp_path / "out").iterdir()}
    files = {"trials.csv", "best.yaml", "history.png", "importance.png", "tune.json", "study.db", "split.csv"}
    assert files | {"split.json", "config.yaml"} <= names
    best = load_config(tmp_path / "out" / "best.yaml")
    assert best.train.lr == result.best.params["train.lr"]
    assert best.train.epochs == 3
    assert not best.search.space
    assert Path(best.data.path or "") == colours.absolute()
    assert result.best.value == max(trial.value or 0 for trial in result.trials) == value_at(best, 3)
    kept = [path.parents[1].name for path in (tmp_path / "out" / "trials").rglob("best.safetensors")]
    assert kept == [f"trial-{result.best.number:04}"]
    comment = (tmp_path / "out" / "best.yaml").read_text("utf-8").partition("\nseed")[0]
    assert "of 6 trials" in comment
    assert "optimistic" in comment


def test_the_table_has_a_row_for_each_trial(colours: Path, tmp_path: Path, training: Training) -> None:
    result = search(tmp_path / "out", colours, count=3)

    rows = read_rows(tmp_path / "out" / "trials.csv")
    header = "number,state,value,epochs,best_epoch,seconds,train.batch_size,train.lr,reason"
    assert ",".join(rows[0]) == header
    assert [(row["number"], row["state"], row["epochs"], row["seconds"]) for row in rows] == [
        (str(number), "complete", "3", "6.0") for number in range(3)
    ]
    assert [float(row["train.lr"]) for row in rows] == [trial.params["train.lr"] for trial in result.trials]
    document = json.loads((tmp_path / "out" / "tune.json").read_text("utf-8"))
    assert document == result.document
    assert document["trials"] == {"complete": 3, "pruned": 0, "failed": 0}
    assert document["importances"] is None


@pytest.mark.parametrize("moment", ["before_epoch", "after_epoch"])
def test_a_search_killed_again_and_again_finds_what_an_undisturbed_one_does(
    colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """No trial is lost or repeated, and no epoch is trained twice once it is saved."""
    pruned = ("search.pruner=median", "search.startup_trials=3")
    calm = use(Training(), monkeypatch)
    undisturbed = search(tmp_path / "calm", colours, *pruned, count=5)
    hit: set[tuple[float, int]] = set()

    def strike(config: RunConfig, epoch: int) -> None:
        if (config.train.lr, epoch) not in hit and epoch == 2:
            hit.add((config.train.lr, epoch))
            raise Killed

    troubled = use(Training(), monkeypatch)
    setattr(troubled, moment, strike)
    for _ in range(100):
        try:
            result = search(tmp_path / "out", colours, *pruned, count=5, resume=True)
            break
        except Killed:
            continue

    assert len(hit) >= 3
    assert troubled.epochs == calm.epochs
    assert [(one.number, one.state, one.params, one.value) for one in result.trials] == [
        (one.number, one.state, one.params, one.value) for one in undisturbed.trials
    ]


def test_a_trial_that_falls_behind_is_ended(colours: Path, tmp_path: Path, training: Training) -> None:
    result = search(
        tmp_path / "out", colours, "search.pruner=median", "search.startup_trials=2", "train.epochs=5", count=8
    )

    ended = [trial for trial in result.trials if trial.state == "pruned"]
    assert ended
    assert all(trial.epochs < 5 for trial in ended)
    assert len(training.epochs) == sum(trial.epochs for trial in result.trials) < 40
    assert result.best.state == "complete"


def test_a_trial_whose_loss_explodes_has_failed_and_the_search_goes_on(
    colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def explode(config: RunConfig, epoch: int) -> None:
        if config.train.lr != 3e-4:
            raise DivergedError("the loss became nan in epoch 2, step 3;\nlower train.lr")

    use(Training(after_epoch=explode), monkeypatch)
    result = search(tmp_path / "out", colours, count=3)

    assert [trial.state for trial in result.trials] == ["complete", "failed", "failed"]
    assert result.trials[1].reason == "the loss became nan in epoch 2, step 3"
    assert read_rows(tmp_path / "out" / "trials.csv")[2]["reason"] == result.trials[2].reason
    assert not list((tmp_path / "out" / "trials" / "trial-0001").rglob("*.safetensors"))


def test_values_that_go_together_with_nothing_here_stop_the_search_and_are_named(
    colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(config: RunConfig, epoch: int) -> None:
        raise UsageError("train.precision fp16 needs CUDA")

    use(Training(before_epoch=refuse), monkeypatch)

    with pytest.raises(UsageError, match=r"trial 0 \(train\.batch_size: 32, train\.lr: 0\.0003\): train\.precision"):
        search(tmp_path / "out", colours, count=2)


def test_a_second_run_in_the_same_folder_is_told_how_to_take_part(
    colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def meet(config: RunConfig, epoch: int) -> None:
        code = (
            "import sys; from pathlib import Path; from tests.workflows.test_tune import *\n"
            "tune(searching(), TuneRequest(Path(sys.argv[1]), Path(sys.argv[2]), resume=True))"
        )
        command = [sys.executable, "-c", code, str(tmp_path / "out"), str(colours)]
        said.append(subprocess.run(command, capture_output=True, text=True, check=False).stderr)

    said: list[str] = []
    use(Training(before_epoch=meet), monkeypatch)
    search(tmp_path / "out", colours, "train.epochs=1", count=1)

    assert "MachineError: another evalcam run is using" in said[0]
    assert "`--join` takes part" in said[0]


def test_a_search_in_which_nothing_trains_says_why(
    colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def explode(config: RunConfig, epoch: int) -> None:
        raise MemoryTooSmallError("out of memory with 1 images of 32 px at a time")

    use(Training(before_epoch=explode), monkeypatch)

    with pytest.raises(DataError, match="none of 2 trials came to a value; the last failed because out of memory"):
        search(tmp_path / "out", colours, count=2)


def test_an_unreadable_image_stops_the_search_and_a_resume_goes_on(
    colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(config: RunConfig, epoch: int) -> None:
        raise DataError("cannot read a.png")

    use(Training(after_epoch=stop), monkeypatch)
    with pytest.raises(DataError, match="cannot read"):
        search(tmp_path / "out", colours, count=2)

    mended = use(Training(), monkeypatch)
    result = search(tmp_path / "out", colours, count=2, resume=True)

    assert [trial.state for trial in result.trials] == ["complete", "complete"]
    assert len(mended.epochs) == 5  # one was saved


def test_the_loss_is_minimised(colours: Path, tmp_path: Path, training: Training) -> None:
    training.value = lambda config, epoch: 2 - value_at(config, epoch)

    result = search(tmp_path / "out", colours, "train.monitor=loss", count=4)

    assert result.document["direction"] == "minimize"
    assert result.best.value == min(trial.value or math.inf for trial in result.trials) > 0


def test_no_image_of_the_test_set_is_opened(colours: Path, tmp_path: Path, training: Training) -> None:
    data = shutil.copytree(colours, tmp_path / "data")
    prepared = make_split(data, RunConfig(), report_beside=tmp_path / "out")
    write_split_file(prepared, tmp_path / "split.csv")
    tests = prepared.split.subset("test")
    for number, sample in enumerate(tests):
        (data / sample.path).unlink() if number % 2 else (data / sample.path).write_bytes(b"garbage")

    result = tune(searching(), TuneRequest(tmp_path / "out", split_file=tmp_path / "split.csv", trials=2))

    assert len(tests) >= 4
    assert len(result.trials) == 2
    assert (tmp_path / "out" / "split.csv").read_bytes() == (tmp_path / "split.csv").read_bytes()


def test_a_validation_image_that_changed_is_found(colours: Path, tmp_path: Path, training: Training) -> None:
    data = shutil.copytree(colours, tmp_path / "data")
    prepared = make_split(data, RunConfig(), report_beside=tmp_path / "out")
    write_split_file(prepared, tmp_path / "split.csv")
    train, val = (data / prepared.split.subset(name)[0].path for name in ("train", "val"))
    val.write_bytes(train.read_bytes())

    with pytest.raises(DataError, match="changed since the split"):
        tune(searching(), TuneRequest(tmp_path / "out", split_file=tmp_path / "split.csv", trials=2))
    assert not (tmp_path / "out").exists()


def test_a_finished_search_is_not_repeated_and_more_trials_go_on_from_it(
    colours: Path, tmp_path: Path, training: Training
) -> None:
    first = search(tmp_path / "out", colours, count=2)

    again = tune(searching(), TuneRequest(tmp_path / "out", colours, resume=True))
    assert (again.trials, len(training.epochs)) == (first.trials, 6)
    more = search(tmp_path / "out", colours, count=3, resume=True)

    assert more.trials[:2] == first.trials
    assert len(training.epochs) == 9


def test_a_search_is_not_continued_with_another_config_or_another_split(
    colours: Path, tmp_path: Path, training: Training
) -> None:
    search(tmp_path / "out", colours, count=1)
    write_split_file(make_split(colours, searching("seed=5"), report_beside=tmp_path / "x"), tmp_path / "split.csv")

    with pytest.raises(UsageError, match=r"train\.epochs: 3 then, 4 now"):
        search(tmp_path / "out", colours, "train.epochs=4", resume=True)
    with pytest.raises(UsageError, match=r"search\.startup_trials"):
        search(tmp_path / "out", colours, "search.startup_trials=1", resume=True)
    with pytest.raises(DataError, match="another split"):
        tune(searching(), TuneRequest(tmp_path / "out", split_file=tmp_path / "split.csv", resume=True))
    search(tmp_path / "out", colours, "data.workers=0", "gradcam.method=cam", count=2, resume=True)


def test_a_folder_with_a_search_is_replaced_only_when_asked_and_other_files_stay(
    colours: Path, tmp_path: Path, training: Training
) -> None:
    search(tmp_path / "out", colours, count=3)
    (tmp_path / "out" / "trials" / "trial-0001" / "mine.txt").write_text("mine")

    with pytest.raises(UsageError, match="not empty"):
        search(tmp_path / "out", colours, count=1)
    tune(searching(), TuneRequest(tmp_path / "out", colours, trials=1, overwrite=True))

    left = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").glob("trials/*/*"))
    assert [name for name in left if not name.startswith("trials/trial-0000/")] == ["trials/trial-0001/mine.txt"]
    assert len(read_rows(tmp_path / "out" / "trials.csv")) == 1


def test_another_process_joins_a_search_under_the_same_config(
    colours: Path, tmp_path: Path, training: Training
) -> None:
    join = TuneRequest(tmp_path / "out", join=True)
    with pytest.raises(UsageError, match="no search in"):
        tune(searching(), join)

    search(tmp_path / "out", colours, count=1)
    result = tune(searching(), join)

    assert len(result.trials) == 1
    with pytest.raises(UsageError, match="another config"):
        tune(searching("train.epochs=9"), join)


def test_folds_and_a_split_without_validation_images_are_refused(
    colours: Path, tmp_path: Path, training: Training
) -> None:
    with pytest.raises(UsageError, match="folds"):
        search(tmp_path / "out", colours, "split.folds=3")
    with pytest.raises(DataError, match="no val images"):
        search(tmp_path / "out", colours, "split.ratios=[0.8, 0, 0.2]")
    with pytest.raises(UsageError, match="nothing to train on"):
        tune(searching(), TuneRequest(tmp_path / "out"))
    assert not (tmp_path / "out").exists()
