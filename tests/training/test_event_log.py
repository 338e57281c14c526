"""TensorBoard's event file says what history.csv says, whatever happened to either."""

import dataclasses
import logging
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evalcam_cli.config import RunConfig
from evalcam_cli.config_sources import load_config
from evalcam_cli.errors import UsageError
from evalcam_cli.files import OutputFolder, output_folder
from evalcam_cli.training.event_log import EVENT_FILE, log_history, require_tensorboard
from evalcam_cli.training.history import EpochRecord, read_history
from evalcam_cli.workflows.train import TrainRequest, train
from tests.conftest import TINY
from tests.workflows.training_process import become_evalcam, server

pytestmark = pytest.mark.skipif(find_spec("tensorboard") is None, reason="an extra")

CONFIG = {"seed": 3, "data": {"path": "사진/a b"}, "train": {"lr": 1e-3}}


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[OutputFolder]:
    with output_folder(tmp_path / "run") as folder:
        yield folder


def history(epochs: int, *, seed: int = 0, validated: bool = True) -> list[EpochRecord]:
    generator = np.random.default_rng(seed)
    records = []
    for epoch in range(1, epochs + 1):
        loss, val_loss, accuracy, lr, rate, seconds = generator.random(6).tolist()
        if validated:
            records.append(EpochRecord(epoch, loss, val_loss, accuracy, accuracy, lr, rate, seconds))
        else:
            records.append(EpochRecord(epoch, loss, None, None, None, lr, rate, seconds))
    return records


def as_tensorboard_reads(folder: Path) -> Any:
    """TensorBoard's own reader, after the whole folder."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logging.getLogger("tensorboard").setLevel(logging.ERROR)
    accumulator = EventAccumulator(str(folder / "tensorboard"))
    accumulator.Reload()
    return accumulator


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Steps and values by tag."""
    read = as_tensorboard_reads(folder)
    return {tag: [(event.step, event.value) for event in read.Scalars(tag)] for tag in read.Tags()["scalars"]}


def expected(records: list[EpochRecord]) -> dict[str, list[tuple[int, float]]]:
    columns = [field.name for field in dataclasses.fields(EpochRecord) if field.name != "epoch"]
    return {name: [(record.epoch, float(np.float32(getattr(record, name)))) for record in records] for name in columns}


def test_every_column_of_the_history_is_a_scalar_by_epoch(folder: OutputFolder) -> None:
    for epochs in (1, 2, 3):
        log_history(folder, CONFIG, history(epochs))

    assert scalars(folder.path) == expected(history(3))


def test_what_is_not_measured_has_no_point(folder: OutputFolder) -> None:
    log_history(folder, CONFIG, history(2, validated=False))

    assert set(scalars(folder.path)) == {"train_loss", "lr", "images_per_second", "seconds"}


def test_the_config_is_there_as_a_text(folder: OutputFolder) -> None:
    log_history(folder, CONFIG, history(1))

    read = as_tensorboard_reads(folder.path)
    (event,) = read.Tensors("config")
    assert read.SummaryMetadata("config").plugin_data.plugin_name == "text"
    text = event.tensor_proto.string_val[0].decode()
    assert text.splitlines() == ["    seed: 3", "    data:", "      path: 사진/a b", "    train:", "      lr: 0.001"]


def test_logging_again_appends_and_leaves_what_is_there(folder: OutputFolder) -> None:
    log_history(folder, CONFIG, history(2))
    before, inode = (folder.path / EVENT_FILE).read_bytes(), (folder.path / EVENT_FILE).stat().st_ino

    log_history(folder, CONFIG, history(2))
    same = (folder.path / EVENT_FILE).read_bytes()
    log_history(folder, CONFIG, history(3))
    longer = (folder.path / EVENT_FILE).read_bytes()

    assert same == before
    assert longer.startswith(before)
    assert len(longer) > len(before)
    assert (folder.path / EVENT_FILE).stat().st_ino == inode  # who reads along goes on


def test_a_reader_that_reads_along_sees_each_epoch_once(folder: OutputFolder) -> None:
    log_history(folder, CONFIG, history(1))
    reader = as_tensorboard_reads(folder.path)
    for epochs in (2, 3, 4):
        log_history(folder, CONFIG, history(epochs))
        reader.Reload()

        assert [event.step for event in reader.Scalars("lr")] == list(range(1, epochs + 1))


@pytest.mark.parametrize("lost", [1, 4, 15, 16, 17, 100])
def test_half_a_record_of_a_killed_process_is_replaced(folder: OutputFolder, lost: int) -> None:
    log_history(folder, CONFIG, history(3))
    content = (folder.path / EVENT_FILE).read_bytes()
    (folder.path / EVENT_FILE).write_bytes(content[:-lost])

    log_history(folder, CONFIG, history(3))

    assert scalars(folder.path) == expected(history(3))
    assert len((folder.path / EVENT_FILE).read_bytes()) == len(content)


@pytest.mark.parametrize("damage", [b"", b"\0" * 40, b"\xff" * 40, b"no event file at all, but text of some length"])
def test_a_file_that_is_none_is_written_anew(folder: OutputFolder, damage: bytes) -> None:
    log_history(folder, CONFIG, history(1))
    (folder.path / EVENT_FILE).write_bytes(damage)

    log_history(folder, CONFIG, history(2))

    assert scalars(folder.path) == expected(history(2))


def test_epochs_after_an_older_checkpoint_are_taken_back(folder: OutputFolder) -> None:
    log_history(folder, CONFIG, history(5))

    log_history(folder, CONFIG, history(2))
    back = scalars(folder.path)
    other = [*history(2), *history(4, seed=1)[2:]]
    log_history(folder, CONFIG, other)

    assert back == expected(history(2))
    assert scalars(folder.path) == expected(other)


def test_epochs_missed_between_a_checkpoint_and_its_log_are_caught_up(folder: OutputFolder) -> None:
    log_history(folder, CONFIG, history(1))

    log_history(folder, CONFIG, history(4))

    assert scalars(folder.path) == expected(history(4))


def test_the_file_is_of_the_run_and_goes_with_it(folder: OutputFolder, tmp_path: Path) -> None:
    with output_folder(tmp_path / "again") as first:
        log_history(first, CONFIG, history(1))
    with output_folder(tmp_path / "again", overwrite=True) as second:
        second.write("config.yaml", b"")

        assert not (tmp_path / "again" / "tensorboard").exists()


def test_without_the_package_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "tensorboard"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboard", None)  # as if it were not installed

    with pytest.raises(UsageError, match=r"pip install 'evalcam\[tensorboard\]'"):
        require_tensorboard()


def test_a_training_with_the_logger_writes_what_its_history_says(colours: Path, tmp_path: Path) -> None:
    settings = config("train.logger=tensorboard")

    train(settings, TrainRequest(tmp_path / "run", colours))

    assert scalars(tmp_path / "run") == expected(read_history(tmp_path / "run" / "history.csv"))


def config(*assignments: str) -> RunConfig:
    return load_config(assignments=[*(one for one in TINY if one != "--set"), "train.epochs=2", *assignments])


def _train_and_tell(arguments: list[str], out: Path) -> None:
    try:
        become_evalcam(arguments, out)
    finally:
        names = {name.partition(".")[0] for name in sys.modules}
        out.with_suffix(".modules").write_text(" ".join(sorted(names)))


@pytest.mark.skipif(sys.platform != "linux", reason="forks")
def test_a_training_without_the_logger_does_not_import_tensorboard(colours: Path, tmp_path: Path) -> None:
    arguments = ["train", str(colours), "--out", str(tmp_path / "run"), "--epochs", "1", *TINY]

    process = server().Process(target=_train_and_tell, args=(arguments, tmp_path / "run"))
    process.start()
    process.join(600)

    modules = (tmp_path / "run.modules").read_text().split()
    assert process.exitcode == 0
    assert "torch" in modules
    assert not {"tensorboard", "tensorflow", "google"} & set(modules)
