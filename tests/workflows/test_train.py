"""From a config and images to a run folder."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from evalcam_cli.config import RunConfig
from evalcam_cli.config_sources import load_config
from evalcam_cli.errors import CheckpointError, DataError, UsageError
from evalcam_cli.files import LOCK_NAME
from evalcam_cli.models.architectures import build_model
from evalcam_cli.models.checkpoint import load_checkpoint
from evalcam_cli.training.diagnosis import VERDICTS
from evalcam_cli.training.history import read_history
from evalcam_cli.workflows.train import TrainRequest, train
from evalcam_cli.workflows.training_run import BEST, LAST, TrainResult
from tests.conftest import TINY, draw_classes
from tests.workflows.training_process import files_of


def config(*assignments: str) -> RunConfig:
    return load_config(assignments=[*(one for one in TINY if one != "--set"), "train.epochs=3", *assignments])


@pytest.fixture(scope="module")
def reference(colours: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    """An uninterrupted run of three epochs."""
    return train(config(), TrainRequest(tmp_path_factory.mktemp("train") / "run", colours))


@pytest.fixture(scope="module")
def short(colours: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    """The same for one epoch."""
    return train(config("train.epochs=1"), TrainRequest(tmp_path_factory.mktemp("train") / "run", colours))


def test_a_run_folder_has_everything_that_is_promised(reference: TrainResult) -> None:
    names = {path.relative_to(reference.folder).as_posix() for path in reference.folder.rglob("*") if path.is_file()}

    assert names - {".evalcam.lock"} == {
        "config.yaml",
        "environment.json",
        "split.csv",
        "split.json",
        "history.csv",
        BEST,
        LAST,
        "curves.png",
        "diagnosis.json",
    }
    header = (reference.folder / "history.csv").read_text().splitlines()[0]
    assert header == "epoch,train_loss,val_loss,val_accuracy,val_balanced_accuracy,lr,images_per_second,seconds"
    assert load_config(reference.folder / "config.yaml").train.epochs == 3
    diagnosis = json.loads((reference.folder / "diagnosis.json").read_text())
    assert diagnosis["verdict"] in VERDICTS


def test_the_checkpoint_says_all_that_is_needed_to_use_it(reference: TrainResult) -> None:
    stored = load_checkpoint(reference.checkpoint)

    assert stored.checkpoint.classes == ("a [b]", "정상")
    assert stored.checkpoint.preprocessing.image_size == 32
    assert len(stored.checkpoint.training_pixels) == 28
    assert stored.checkpoint.config["train"]["epochs"] == 3
    assert not stored.training_tensors  # best is for use
    assert load_checkpoint(reference.folder / LAST).training_tensors  # last is for going on


@pytest.mark.parametrize("workers", [1, 2])
def test_the_number_of_workers_does_not_change_a_bit(
    colours: Path, tmp_path: Path, reference: TrainResult, workers: int
) -> None:
    result = train(config(f"data.workers={workers}"), TrainRequest(tmp_path / "run", colours))

    assert result.weights_sha256 == reference.weights_sha256


def test_another_seed_gives_other_weights(colours: Path, tmp_path: Path, reference: TrainResult) -> None:
    assert train(config("seed=1"), TrainRequest(tmp_path / "run", colours)).weights_sha256 != reference.weights_sha256


@pytest.mark.parametrize("stop", [("epoch 2/3", 1), ("epoch 3/3", 4), ("validating", 6)])
def test_an_interrupted_run_continues_to_the_same_bits(
    colours: Path, tmp_path: Path, reference: TrainResult, stop: tuple[str, int]
) -> None:
    calls = []

    def interrupt(task: str, done: int, total: int, note: str = "") -> None:
        calls.append(task)
        if task == stop[0] and done == stop[1] and (task != "validating" or calls.count(task) == 2):
            raise KeyboardInterrupt

    request = TrainRequest(tmp_path / "run", colours)
    with pytest.raises(KeyboardInterrupt):
        train(config(), request, interrupt)

    result = train(config(), TrainRequest(tmp_path / "run", colours, resume=True))

    assert result.weights_sha256 == reference.weights_sha256
    assert (result.folder / BEST).read_bytes() == reference.checkpoint.read_bytes()
    assert [record.epoch for record in read_history(result.folder / "history.csv")] == [1, 2, 3]


@pytest.mark.slow
def test_a_killed_process_continues_to_the_same_bits(colours: Path, tmp_path: Path) -> None:
    """kill -9 in the middle of an epoch and resume at once, while the workers of the killed run may still live."""

    def command(out: str, *more: str) -> list[str]:
        options = ["--out", str(tmp_path / out), "--epochs", "4", *TINY, "--set", "data.workers=1"]
        return [sys.executable, "-m", "evalcam_cli", "train", str(colours), *options, *more]

    process = subprocess.Popen(command("killed"), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (tmp_path / "killed" / LAST).exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    process.kill()
    process.wait()

    for out, more in (("killed", ["--resume"]), ("whole", [])):
        subprocess.run(command(out, *more), check=True, capture_output=True)

    killed, whole = (load_checkpoint(tmp_path / out / LAST) for out in ("killed", "whole"))
    assert killed.checkpoint.epoch == 4
    assert killed.tensors_sha256 == whole.tensors_sha256
    assert (tmp_path / "killed" / BEST).read_bytes() == (tmp_path / "whole" / BEST).read_bytes()


def test_resuming_a_finished_run_changes_nothing(colours: Path, reference: TrainResult) -> None:
    before = {path: path.stat().st_mtime_ns for path in reference.folder.rglob("*")}

    result = train(config(), TrainRequest(reference.folder, colours, resume=True))

    assert result.weights_sha256 == reference.weights_sha256
    assert {path: path.stat().st_mtime_ns for path in reference.folder.rglob("*") if path in before} == before


def test_resuming_where_nothing_was_saved_starts(colours: Path, tmp_path: Path, reference: TrainResult) -> None:
    result = train(config(), TrainRequest(tmp_path / "new", colours, resume=True))

    assert result.weights_sha256 == reference.weights_sha256


def test_resuming_with_another_config_is_refused_by_key(colours: Path, reference: TrainResult) -> None:
    with pytest.raises(UsageError, match=r"train.lr: 0.001 then, 0.5 now"):
        train(config("train.lr=0.5"), TrainRequest(reference.folder, colours, resume=True))


def test_a_resumed_run_may_make_its_steps_of_smaller_batches(colours: Path, tmp_path: Path) -> None:
    """As after the system has killed it for its memory; the order of the images stays that of the steps."""
    request = TrainRequest(tmp_path / "run", colours, resume=True)

    def interrupt(task: str, done: int, total: int, note: str = "") -> None:
        if (task, done) == ("epoch 2/3", 1):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config(), request, interrupt)
    with pytest.raises(UsageError, match=r"train\.batch_size: 8 then, 4 now"):
        train(config("train.batch_size=4"), request)

    result = train(config("train.batch_size=4", "train.accumulate=2"), request)

    assert result.epochs == 3


def test_resuming_with_changed_images_is_refused(tmp_path: Path) -> None:
    data = draw_classes(tmp_path / "data", {"a": 12, "b": 12})
    train(config("train.epochs=1"), TrainRequest(tmp_path / "run", data))
    image = data / "a" / "000.png"
    image.write_bytes((data / "b" / "001.png").read_bytes())

    with pytest.raises(DataError, match="changed since"):
        train(config("train.epochs=1"), TrainRequest(tmp_path / "run", data, resume=True))


def test_a_fold_that_is_not_there_is_a_matter_of_usage(colours: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the folds 0 to 1"):
        train(config("split.folds=2"), TrainRequest(tmp_path / "run", colours, fold=2))
    with pytest.raises(UsageError, match="no folds"):
        train(config(), TrainRequest(tmp_path / "run", colours, fold=0))
    assert list(tmp_path.iterdir()) == []


def test_frozen_stages_do_not_move(colours: Path, tmp_path: Path) -> None:
    torch.manual_seed(3)
    start = build_model("resnet18", 5).state_dict()
    torch.save(start, tmp_path / "start.pt")

    result = train(
        config(f"model.weights={tmp_path / 'start.pt'}", "model.freeze=layer3", "train.epochs=1"),
        TrainRequest(tmp_path / "run", colours),
    )

    end = load_checkpoint(result.checkpoint).weights
    frozen = ("conv1", "bn1", "layer1", "layer2", "layer3")
    for name, tensor in end.items():
        if name.startswith(frozen):
            assert torch.equal(tensor, start[name]), name
    assert not torch.equal(end["layer4.0.conv1.weight"], start["layer4.0.conv1.weight"])
    assert end["fc.weight"].shape == (2, 512)


def test_our_own_checkpoint_serves_as_a_start(colours: Path, tmp_path: Path, reference: TrainResult) -> None:
    settings = config(f"model.weights={reference.checkpoint}", "train.epochs=1", "model.freeze=layer4")

    result = train(settings, TrainRequest(tmp_path / "run", colours))

    end, start = load_checkpoint(result.checkpoint).weights, load_checkpoint(reference.checkpoint).weights
    assert torch.equal(end["layer4.1.conv2.weight"], start["layer4.1.conv2.weight"])


def test_weights_that_do_not_fit_stop_the_run_before_anything_is_trained(colours: Path, tmp_path: Path) -> None:
    torch.save(build_model("resnet34", 2).state_dict(), tmp_path / "w.pt")

    with pytest.raises(CheckpointError, match="another architecture"):
        train(config(f"model.weights={tmp_path / 'w.pt'}"), TrainRequest(tmp_path / "run", colours))


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_good_weights(colours: Path, tmp_path: Path) -> None:
    settings = config("train.optimizer=sgd", "train.lr=1e6", "train.epochs=6", "train.schedule=constant")

    with pytest.raises(DataError, match=r"the loss became (nan|inf)|NaN|validation"):
        train(settings, TrainRequest(tmp_path / "run", colours))

    if (tmp_path / "run" / LAST).exists():
        load_checkpoint(tmp_path / "run" / LAST)


def test_early_stopping_ends_a_run_that_no_longer_improves(colours: Path, tmp_path: Path) -> None:
    settings = config("train.epochs=9", "train.lr=1e-6", "train.patience=1", "train.monitor=accuracy")

    result = train(settings, TrainRequest(tmp_path / "run", colours))

    assert result.epochs < 9
    assert result.epochs == result.best_epoch + 1


def test_without_validation_images_the_last_epoch_counts(colours: Path, tmp_path: Path) -> None:
    settings = config("split.ratios=0.8,0,0.2", "train.epochs=2")

    result = train(settings, TrainRequest(tmp_path / "run", colours))

    assert result.best_epoch == 2
    assert result.diagnosis is not None
    assert result.diagnosis.verdict == "cannot be judged"


@pytest.mark.parametrize(
    "assignment",
    [
        "train.optimizer=sgd",
        "train.label_smoothing=0.1",
        "train.class_weights=balanced",
        "train.sampling=balanced",
        "train.clip_grad_norm=0.1",
        "train.loss=focal",
        "train.mixup=0.4",
        "train.cutmix=1.0",
        "train.ema=0.9",
        "train.accumulate=2",
        "train.stage_lr=0.5",
        "model.freeze_batch_norm=true",
        "train.augment.randaugment=2",
        "train.precision=bf16",
        "data.resize=crop",
        "model.last_stride=1",
    ],
)
def test_every_recipe_changes_the_weights_and_trains(
    colours: Path, tmp_path: Path, short: TrainResult, assignment: str
) -> None:
    result = train(config("train.epochs=1", assignment), TrainRequest(tmp_path / "run", colours))

    if assignment == "train.class_weights=balanced":  # the classes are equally large
        assert result.weights_sha256 == short.weights_sha256
    else:
        assert result.weights_sha256 != short.weights_sha256
    # with statistics that nobody fitted to random weights, activations grow from stage to stage
    highest = 20 if assignment == "model.freeze_batch_norm=true" else 2
    assert all(record.train_loss < highest for record in read_history(result.folder / "history.csv"))


def test_the_data_folder_is_left_as_it_was(colours: Path, reference: TrainResult) -> None:
    assert sorted(path.suffix for path in colours.rglob("*") if path.is_file()) == [".png"] * 40


def under_torchrun(monkeypatch: pytest.MonkeyPatch, restarts: int) -> None:
    for name, value in {
        "WORLD_SIZE": 1,
        "RANK": 0,
        "MASTER_ADDR": "localhost",
        "TORCHELASTIC_RESTART_COUNT": restarts,
    }.items():
        monkeypatch.setenv(name, str(value))


def test_a_restart_goes_on_with_what_this_start_of_torchrun_began(
    colours: Path, reference: TrainResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--overwrite` overwrites once: what the attempt before the restart wrote stays."""
    train(config("train.epochs=1"), TrainRequest(tmp_path / "run", colours))
    under_torchrun(monkeypatch, 0)
    begun = TrainRequest(tmp_path / "run", colours, overwrite=True)

    def interrupt(task: str, done: int, total: int, note: str = "") -> None:
        if task == "epoch 2/3":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config(), begun, interrupt)

    under_torchrun(monkeypatch, 1)
    result = train(config(), begun)

    assert result.weights_sha256 == reference.weights_sha256
    assert files_of(tmp_path / "run") == files_of(reference.folder)


def test_a_restart_takes_no_older_run_for_its_own(
    colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    train(config("train.epochs=1"), TrainRequest(out, colours))
    os.utime(out / LOCK_NAME, (1, 1))  # long before torchrun began
    under_torchrun(monkeypatch, 1)

    with pytest.raises(UsageError, match="not empty"):
        train(config("train.epochs=1"), TrainRequest(out, colours))
