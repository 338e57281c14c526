"""Two real processes on gloo do what one does."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from evalcam_cli.distributed import highest_of, in_each, joined, on_each, on_first, share, sum_of, to_first, together
from evalcam_cli.errors import DataError, MachineError, UsageError
from evalcam_cli.models import device
from evalcam_cli.models.checkpoint import load_checkpoint
from evalcam_cli.training.position import TrainingState
from evalcam_cli.world import World, world
from tests.cli.commands import Outcome, run_command
from tests.conftest import REPOSITORY, TINY, read_rows
from tests.processes import Answer, in_processes
from tests.training.test_trainer import config, trainer_of

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("distributed")]

TRAINING = ("--epochs", "3", *TINY, "--set", "model.freeze_batch_norm=true")


def squares(shared: list[int], own: list[str] | None) -> list[int]:
    if own is not None:
        own.append("first")
    return [number for part in on_each(lambda: [shared[place] ** 2 for place in share(len(shared))]) for number in part]


def _refused(job: Any) -> list[str]:
    """What an error says, with its notes."""
    try:
        job()
    except DataError as error:
        return [str(error), *[note.partition(",")[0] for note in getattr(error, "__notes__", ())]]
    return []


def _fails_in(rank: int) -> Any:
    def job() -> int:
        if world().rank == rank:
            raise DataError(f"rank {rank} cannot")
        return world().rank

    return job


def conversation() -> dict[str, Any]:
    """Each way of talking once, in a process of several."""
    found: dict[str, Any] = {}
    with joined() as here, joined():
        found["first"] = on_first(lambda: here.rank)
        found["first fails"] = _refused(lambda: on_first(_fails_in(0)))
        found["alone in a job"] = on_first(lambda: (on_each(lambda: here.rank), list(share(3)), sum_of(5)))
        own: list[str] = []
        found["together"] = on_first(lambda: together(squares, [1, 2, 3], own))
        found["own"] = own
        found["together fails"] = _refused(lambda: on_first(lambda: together(_fail_second, None, None)))
        found["each"] = on_each(lambda: here.rank)
        found["in each"] = in_each(lambda: here.rank)
        found["second fails"] = _refused(lambda: on_each(_fails_in(1)))
        taken: list[list[int]] = []
        to_first(lambda: here.rank + 10, taken.append)
        found["taken"] = taken
        found["taking fails"] = _refused(lambda: to_first(_fails_in(1), taken.append))
        found["numbers"] = [highest_of(here.rank), sum_of(here.rank + 0.5)]
        found["shares"] = on_each(lambda: [list(share(count)) for count in (0, 1, 5)])
    return found


def mend(spoilt: str, good: str) -> None:
    """Put a good image in the place of a spoilt one; both processes do, at any time."""
    copy = Path(f"{spoilt}.{os.getpid()}")
    copy.write_bytes(Path(good).read_bytes())
    copy.replace(spoilt)


def ten_losses(data: str) -> list[float]:
    """Of the first steps with frozen batch norm: 40 images in steps of 14, 14 and 12."""
    losses: list[float] = []
    with joined():
        trainer = trainer_of(Path(data), config("train.batch_size=14", "model.freeze_batch_norm=true"))
        step = trainer.step

        def kept(*args: Any, **options: Any) -> float:
            losses.append(step(*args, **options))
            return losses[-1]

        trainer.step = kept  # type: ignore[method-assign]
        for epoch in range(4):
            trainer.train_epoch(TrainingState(epoch=epoch))
    return losses[:10]


def _fail_second(shared: None, own: None) -> None:
    on_each(_fails_in(1))


@dataclass(frozen=True)
class Together:
    """What one process wrote, and what two did."""

    folder: Path
    alone: dict[str, Outcome]
    both: dict[str, list[Answer]]


@pytest.fixture(scope="module")
def results(colours: Path, tmp_path_factory: pytest.TempPathFactory) -> Together:
    """Commands done by one process and by two; the images are odd in number, and one cannot be read."""
    folder = tmp_path_factory.mktemp("processes")
    (folder / "images").mkdir()
    for number, path in enumerate(sorted((colours / "정상").iterdir())[:7]):
        (folder / "images" / path.name).write_bytes(b"no image" if number == 4 else path.read_bytes())
    assert run_command("train", str(colours), "--out", str(folder / "run"), *TRAINING).code == 0
    run, images = str(folder / "run"), str(folder / "images")
    compared = {
        "evaluate": ["evaluate", "--ckpt", run, "--conformal", "0.2", "--set", "evaluate.batch_size=2"],
        "predict": ["predict", images, "--ckpt", run, "--allow-unreadable", "1"],
        "gradcam": ["gradcam", images, "--ckpt", run, "--class", "all", "--find-boxes", "--allow-unreadable", "1"],
        "report": ["gradcam", "--ckpt", run, "--subset", "val", "--mistakes", "--set", "gradcam.norm=shared"],
    }  # fmt: skip
    others = {
        "single": ["gradcam", str(folder / "images" / "000.png"), "--ckpt", run],
        "gate": ["evaluate", "--ckpt", run, "--fail-over", "log_loss=0"],
        "unreadable": ["gradcam", images, "--ckpt", run],
        "nothing": ["evaluate", "--ckpt", str(folder / "nothing")],
        "split": ["split", str(colours)],
        "train": ["train", str(colours), *TRAINING],
    }

    def command(name: str, place: str) -> list[str]:
        out = folder / place / f"{name}{'.csv' if name in ('predict', 'split') else ''}"
        quick = ("--set", "data.workers=0", "--set", "evaluate.bootstrap=100")
        return [*(compared | others)[name], "--out", str(out), *quick]

    alone = {name: run_command(*command(name, "one")) for name in compared}
    spoilt = folder / "images" / "004.png"
    functions = {
        "mended": ["tests.test_distributed:mend", str(spoilt), str(colours / "정상" / "004.png")],
        "conversation": ["tests.test_distributed:conversation"],
        "losses": ["tests.test_distributed:ten_losses", str(colours)],
    }
    tasks = {name: command(name, "two") for name in (*compared, *others)} | functions
    tasks["resumed"] = [*tasks["unreadable"], "--resume"]
    answers = in_processes(list(tasks.values()), folder)
    return Together(folder, alone, dict(zip(tasks, answers, strict=True)))


def close(one: Any, other: Any) -> bool:
    """Equal, numbers to 1e-6."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(close(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(close, one, other))
    if isinstance(one, float):
        return isinstance(other, float | int) and abs(one - other) <= 1e-6
    return bool(one == other)


def document(path: Path) -> Any:
    found = json.loads(path.read_text(encoding="utf-8"))
    return {key: value for key, value in found.items() if key != "looks"} if isinstance(found, dict) else found


def test_two_processes_measure_what_one_measures(results: Together) -> None:
    one, two = results.folder / "one" / "evaluate", results.folder / "two" / "evaluate"

    assert results.alone["evaluate"].code == 0, results.alone["evaluate"].err
    assert [answer.code for answer in results.both["evaluate"]] == [0, 0], results.both["evaluate"]
    assert close(document(one / "metrics.json"), document(two / "metrics.json"))
    assert read_rows(one / "predictions.csv") != []
    for mine, theirs in zip(read_rows(one / "predictions.csv"), read_rows(two / "predictions.csv"), strict=True):
        assert abs(float(mine.pop("confidence")) - float(theirs.pop("confidence"))) <= 1e-6
        assert mine == theirs
    np.testing.assert_allclose(np.load(two / "logits.npy"), np.load(one / "logits.npy"), rtol=0, atol=1e-6)


def test_each_command_writes_the_files_that_one_process_writes(results: Together) -> None:
    def files(folder: Path) -> list[str]:
        return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))

    for name in ("evaluate", "gradcam", "report"):
        assert files(results.folder / "two" / name) == files(results.folder / "one" / name)
    looks = "test_ledger.jsonl"  # of the evaluations
    assert files(results.folder / "two" / "train") == [one for one in files(results.folder / "run") if one != looks]


def test_only_the_first_process_speaks(results: Together) -> None:
    for answers in results.both.values():
        if answers[0].value is None:
            assert (answers[1].out, answers[1].err) == ("", "")
    for name in results.alone:
        mine, theirs = (one.replace("/one/", "/two/") for one in (results.alone[name].out, results.both[name][0].out))
        assert [line for line in mine.splitlines() if "looked at" not in line] == [
            line for line in theirs.splitlines() if "looked at" not in line
        ]


def test_every_image_is_predicted_once_and_in_order(results: Together) -> None:
    one, two = (read_rows(results.folder / place / "predict.csv") for place in ("one", "two"))

    assert len(one) == 6
    for mine, theirs in zip(one, two, strict=True):
        assert (mine["path"], mine["predicted"]) == (theirs["path"], theirs["predicted"])
        assert abs(float(mine["confidence"]) - float(theirs["confidence"])) <= 1e-6


@pytest.mark.parametrize("name", ["gradcam", "report"])
def test_two_processes_explain_what_one_explains(results: Together, name: str) -> None:
    one, two = results.folder / "one" / name, results.folder / "two" / name
    exact = ("path", "label", "predicted", "class", "method", "layer", "empty", "peak_x", "peak_y", "overlay", "map")

    assert [answer.code for answer in results.both[name]] == [0, 0], results.both[name]
    for mine, theirs in zip(read_rows(one / "explanations.csv"), read_rows(two / "explanations.csv"), strict=True):
        assert {key: mine[key] for key in exact} == {key: theirs[key] for key in exact}
        assert abs(float(mine["logit"]) - float(theirs["logit"])) <= 1e-5
        np.testing.assert_allclose(np.load(two / theirs["map"]), np.load(one / mine["map"]), rtol=0, atol=1e-5)
    if name == "gradcam":
        assert (two / "boxes.csv").read_bytes() == (one / "boxes.csv").read_bytes()
        assert "1 of 7 images cannot be read" in results.both[name][0].err


def test_two_processes_resume_with_the_images_that_are_missing(results: Together) -> None:
    assert [answer.code for answer in results.both["resumed"]] == [0, 0], results.both["resumed"]
    rows = read_rows(results.folder / "two" / "unreadable" / "explanations.csv")
    assert [Path(row["path"]).name for row in rows] == [f"{number:03}.png" for number in range(7)]


def test_a_process_without_an_image_waits_for_the_others(results: Together) -> None:
    assert [answer.code for answer in results.both["single"]] == [0, 0], results.both["single"]
    assert len(read_rows(results.folder / "two" / "single" / "explanations.csv")) == 1


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [
        ("gate", 4, "log_loss"),
        ("unreadable", 3, "1 of 7 images cannot be read"),
        ("nothing", 2, "there is no checkpoint"),
        ("split", 2, "does not share its work"),
    ],
)
def test_a_fault_ends_all_and_is_said_once(results: Together, name: str, code: int, said: str) -> None:
    first, second = results.both[name]

    assert [first.code, second.code] == [code, code]
    assert said in first.err
    assert "Traceback" not in first.err


def test_ten_steps_of_two_processes_have_the_loss_of_one(results: Together, colours: Path) -> None:
    alone = ten_losses(str(colours))

    assert len(alone) == 10
    assert max(alone) - min(alone) > 0.01
    for answer in results.both["losses"]:
        np.testing.assert_allclose(answer.value, alone, rtol=0, atol=1e-4)


def test_what_the_processes_say_to_each_other(results: Together) -> None:
    first, second = (answer.value for answer in results.both["conversation"])

    for found in (first, second):
        assert found["first"] == 0
        assert found["first fails"] == ["rank 0 cannot"]
        assert found["alone in a job"] == [[0], [0, 1, 2], 5]
        assert found["together"] == [1, 9, 4]  # by rank
        assert found["together fails"] == found["second fails"] == ["rank 1 cannot", "(process 1 of 2"]
        assert found["each"] == [0, 1]
        assert found["taking fails"] == ["rank 1 cannot", "(process 1 of 2"]
        assert found["numbers"] == [1, 2.0]
        assert found["shares"] == [[[], [0], [0, 2, 4]], [[], [], [1, 3]]]
    assert (first["own"], second["own"]) == (["first"], [])
    assert (first["taken"], second["taken"]) == ([[10, 11]], [])
    assert (first["in each"], second["in each"]) == (0, 1)


def test_a_process_alone_talks_to_itself() -> None:
    own: list[str] = []
    taken: list[list[int]] = []

    with joined() as here:
        to_first(lambda: 7, taken.append)
        assert together(squares, [1, 2], own) == [1, 4]
        assert (here, on_each(lambda: 7), in_each(lambda: 7), taken) == (World(), [7], 7, [[7]])
        assert (sum_of(2.5), highest_of(3), list(share(3))) == (2.5, 3, [0, 1, 2])
        with pytest.raises(DataError, match=r"^rank 0 cannot$"):
            on_first(_fails_in(0))


def test_a_place_that_cannot_be_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("RANK", "2"), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "127.0.0.1")):
        monkeypatch.setenv(name, value)

    refused = run_command("evaluate", "--ckpt", "nothing")

    assert refused.code == 2
    assert "RANK=2" in refused.err
    with pytest.raises(UsageError, match="WORLD_SIZE=2"):
        world()


def test_processes_that_cannot_meet_are_told_what_to_try(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    values = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "none", "LOCAL_RANK": "0"}
    for name, value in values.items():
        monkeypatch.setenv(name, value)

    refused = run_command("evaluate", "--ckpt", str(tmp_path), "--out", str(tmp_path / "out"))

    assert refused.code == 5, refused.err
    assert "GLOO_SOCKET_IFNAME" in refused.err


@pytest.mark.parametrize(("rank", "expected"), [("0", "cuda:0"), ("1", "cuda:1")])
def test_each_process_of_a_machine_takes_its_own_gpu(monkeypatch: pytest.MonkeyPatch, rank: str, expected: str) -> None:
    taken: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    for name, value in (("RANK", rank), ("WORLD_SIZE", "4"), ("MASTER_ADDR", "here"), ("LOCAL_RANK", rank)):
        monkeypatch.setenv(name, value)

    assert device.choose_device("auto") == torch.device(expected)
    assert taken == [int(rank)]
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(MachineError, match="2 GPUs; start as many processes as GPUs"):
        device.choose_device("auto")


TORCHRUN = [
    sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--max-restarts", "1", "-m",
    "evalcam_cli",
]  # fmt: skip


def worker_of(agent: int, rank: str) -> int | None:
    """The process of a rank, when it has been started."""
    for child in Path(f"/proc/{agent}/task/{agent}/children").read_text().split():
        try:
            environment = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if f"RANK={rank}".encode() in environment:
            return int(child)
    return None


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the processes as Linux shows them")
def test_torchrun_resumes_by_itself_when_a_process_was_killed(results: Together, colours: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = [*TORCHRUN, "train", str(colours), *TRAINING, "--out", str(out)]
    agent = subprocess.Popen(
        command, cwd=REPOSITORY, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 600
    while not (out / "history.csv").exists() and time.monotonic() < deadline:
        time.sleep(0.01)

    worker = worker_of(agent.pid, "1")
    assert worker is not None
    os.kill(worker, signal.SIGKILL)
    _, err = agent.communicate(timeout=900)

    assert agent.returncode == 0, err.decode()
    assert b"resuming" in err
    kept, wanted = (
        load_checkpoint(run / "checkpoints" / "last.safetensors") for run in (out, results.folder / "two" / "train")
    )
    assert kept.tensors_sha256 == wanted.tensors_sha256
