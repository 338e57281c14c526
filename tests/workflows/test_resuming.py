"""A begun run goes on from its last state, or from the one before it, to the same bits; or says why it cannot."""

import errno
import logging
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from evalcam_cli.data.preprocessing import Preprocessing
from evalcam_cli.errors import CheckpointError, MachineError
from evalcam_cli.files import OutputFolder, output_folder
from evalcam_cli.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from evalcam_cli.workflows.resuming import is_begun, stored_run
from evalcam_cli.workflows.training_run import BEST, LAST, PREVIOUS
from tests.workflows.struck_training import EPOCHS, Begin, Blow, Reference, assert_ends_alike
from tests.workflows.training_process import files_of

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("resuming")]


def keep(folder: OutputFolder, name: str, epoch: int, best: int) -> None:
    """A checkpoint with a weight that tells its epoch, and a state that knows of the best one."""
    about = Checkpoint("resnet18", 2, ("a", "b"), Preprocessing(32, "pad"), epoch=epoch)
    state: dict[str, Any] = {"state": {"epoch": epoch, "best": {"epoch": best}, "stopped_early": False}}
    save_checkpoint(folder.claim(name), about, {"weight": torch.tensor([float(epoch)])}, {}, state)


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def begun(folder: OutputFolder, *, last: int = 3, best: int = 2) -> None:
    """A run of some epochs, with both states and the best weights."""
    keep(folder, PREVIOUS, last - 1, min(best, last - 1))
    keep(folder, LAST, last, best)
    keep(folder, BEST, best, best)


def test_the_last_state_is_taken_when_all_is_whole(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with output_folder(tmp_path / "run") as folder:
        begun(folder)

        stored = stored_run(folder)

        assert stored.weights["weight"].item() == 3
        assert caplog.records == []


@pytest.mark.parametrize("how", ["flipped", "cut off", "gone"])
def test_a_damaged_last_state_is_replaced_by_the_one_before(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    with output_folder(tmp_path / "run") as folder:
        begun(folder)
        last = folder.path / LAST
        if how == "flipped":
            damage(last)
        elif how == "cut off":
            last.write_bytes(last.read_bytes()[:-1])
        else:
            last.unlink()
        assert is_begun(folder.path)

        with caplog.at_level(logging.WARNING, "evalcam"):
            stored = stored_run(folder)

        assert stored.weights["weight"].item() == 2
        assert "last.safetensors" in caplog.text
        assert "going on with the state before it" in caplog.text
        assert last.read_bytes() == (folder.path / PREVIOUS).read_bytes()  # the next save keeps a whole one


def test_best_weights_that_will_be_made_again_may_be_damaged(tmp_path: Path) -> None:
    with output_folder(tmp_path / "run") as folder:
        begun(folder, last=3, best=3)
        damage(folder.path / BEST)

        stored = stored_run(folder)

        assert stored.weights["weight"].item() == 2


@pytest.mark.parametrize("names", [[BEST], [LAST, PREVIOUS], [LAST, BEST]])
def test_what_cannot_be_made_again_is_refused_before_any_training(tmp_path: Path, names: list[str]) -> None:
    with output_folder(tmp_path / "run") as folder:
        begun(folder, last=3, best=1)
        for name in names:
            damage(folder.path / name)
        before = {name: (folder.path / name).read_bytes() for name in (LAST, PREVIOUS, BEST)}

        with pytest.raises(CheckpointError, match=rf"{Path(names[0]).name} is damaged(.|\n)*start anew"):
            stored_run(folder)

        assert {name: (folder.path / name).read_bytes() for name in before} == before


def test_a_run_without_a_state_is_not_begun(tmp_path: Path) -> None:
    assert not is_begun(tmp_path)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
def test_a_run_whose_last_state_is_damaged_comes_to_the_same_bits(begin: Begin, reference: Reference) -> None:
    training = begin("data.workers=0")
    training.run(Blow((signal.SIGKILL,), f"epoch {EPOCHS}/{EPOCHS}", 2))
    last, previous = (load_checkpoint(training.out / name).checkpoint.epoch for name in (LAST, PREVIOUS))
    damage(training.out / LAST)

    assert_ends_alike(training, reference)

    assert (last, previous) == (EPOCHS - 1, EPOCHS - 2)
    assert "going on with the state before it" in training.err
    assert PREVIOUS not in files_of(training.out)


def test_a_spare_state_that_cannot_be_removed_is_told_and_the_run_is_finished_all_the_same(
    begin: Begin, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from tests.cli.commands import run_command

    training, out = begin("data.workers=0"), tmp_path / "run"
    command = ("train", str(training.data), "--out", str(out), *training.options)
    unlink = Path.unlink

    def refuse(path: Path, missing_ok: bool = False) -> None:
        if path.name == Path(PREVIOUS).name:
            raise PermissionError(errno.EACCES, "Permission denied")
        unlink(path, missing_ok=missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuse)
        first = run_command(*command)
    left, weights = (out / PREVIOUS).exists(), (out / LAST).read_bytes()
    again = run_command(*command, "--resume")

    assert (first.code, again.code) == (MachineError.exit_code, 0)
    assert "cannot remove" in first.err
    assert "is finished already" in again.err
    assert left
    assert PREVIOUS not in files_of(out)
    assert (out / LAST).read_bytes() == weights


def test_a_disk_without_room_for_the_checkpoints_is_found_before_any_training(
    begin: Begin, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from evalcam_cli import writing
    from tests.cli.commands import run_command

    training = begin("data.workers=0")
    monkeypatch.setattr(writing, "_free", lambda folder: 100_000_000)

    outcome = run_command("train", str(training.data), "--out", str(tmp_path / "run"), *training.options)

    assert outcome.code == MachineError.exit_code
    assert "No space left" in outcome.err
    assert "313.1 MB are needed and 100.0 MB are free" in outcome.err
    assert not os.path.lexists(tmp_path / "run")
