"""Processes that are killed or asked to stop, at any moment, and go on to the bits of one that nobody stopped.

`python -m tests.benchmarks.kills` does the same from outside, to whole processes.
"""

import random
import signal
from pathlib import Path

import pytest

from evalcam_cli.training.interruption import Interruption
from tests.workflows.struck_training import EPOCHS, Begin, Blow, Reference, assert_ends_alike, uninterrupted
from tests.workflows.training_process import (
    BEST,
    LAST,
    TrainingProcess,
    faults,
    files_of,
    temporaries,
    wait_until,
)

pytestmark = [
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc"),
    pytest.mark.slow,
    pytest.mark.xdist_group("interruption"),
]

RICH = (
    "data.workers=2", "train.ema=0.9", "train.accumulate=2", "train.mixup=0.2",
    "train.sampling=balanced", "train.augment.randaugment=1", "data.cache=file", "train.logger=tensorboard",
)  # fmt: skip


@pytest.mark.parametrize("name", [BEST, LAST, "history.csv", "split.json", "diagnosis.json", "curves.png"])
def test_a_file_that_is_cut_off_is_noticed(reference: Reference, tmp_path: Path, name: str) -> None:
    content = (reference.folder / name).read_bytes()
    path = tmp_path / Path(name).name
    path.write_bytes(content)
    whole = faults(tmp_path)

    path.write_bytes(content[: len(content) * 2 // 3 + 1])

    assert whole == []
    assert len(faults(tmp_path)) == 1


@pytest.mark.parametrize("settings", [("data.workers=0",), RICH], ids=["plain", "rich"])
def test_kill_9_at_random_moments_costs_no_bit_and_no_file(begin: Begin, settings: tuple[str, ...]) -> None:
    reference, dice = uninterrupted(begin(*settings)), random.Random(5)
    training = begin(*settings)

    for share in (1, 0.6, 0.4, 0.3):  # a process that goes on has less before it
        blow = Blow((signal.SIGKILL,), number=dice.randint(1, int(reference.moments * share)))
        code = training.run(blow)
        assert code == -signal.SIGKILL or training.position == (EPOCHS, 0)
        assert faults(training.out) == []

    assert_ends_alike(training, reference)


def test_a_training_that_keeps_its_weights_alone_comes_to_other_bits(begin: Begin, reference: Reference) -> None:
    training = begin("data.workers=0")
    training.careless = True

    training.run(Blow((signal.SIGKILL,), "epoch 2/3", 3))

    assert training.finish() != reference.sha256


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_a_signal_lets_the_step_end_and_keeps_the_middle_of_the_epoch(
    begin: Begin, reference: Reference, number: signal.Signals, code: int
) -> None:
    training = begin("data.workers=0")

    left = training.run(Blow((number,), "epoch 2/3", 3))

    assert left == code
    assert training.position == (1, 3)
    assert "--resume" in training.err
    assert "Traceback" not in training.err
    assert faults(training.out) == []
    assert_ends_alike(training, reference)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_workers_that_get_the_signal_too_say_nothing(begin: Begin, number: signal.Signals, code: int) -> None:
    training = begin("data.workers=2")

    left = training.run(Blow((number,), "epoch 1/3", 2, group=True))

    assert left == code
    assert training.position == (0, 2)
    assert [line for line in training.err.splitlines() if "evalcam: " not in line and "image" not in line] == []
    assert training.survivors() == []


def test_a_signal_in_validation_goes_on_with_validation(begin: Begin, reference: Reference) -> None:
    training = begin("data.workers=0")
    steps = 8

    left = training.run(Blow((signal.SIGTERM,), "validating", 32))

    assert left == 143
    assert training.position == (0, steps)
    assert BEST not in files_of(training.out)  # not judged yet
    assert_ends_alike(training, reference)


def test_a_signal_while_images_are_read_leaves_nothing(begin: Begin, reference: Reference) -> None:
    training = begin("data.workers=0")

    left = training.run(Blow((signal.SIGTERM,), "reading images", 0))

    assert left == 143
    assert not training.out.exists()
    assert_ends_alike(training, reference)


@pytest.mark.parametrize("task", ["calibrating", "diagnosing"])
def test_a_signal_after_the_last_epoch_ends_at_once(begin: Begin, reference: Reference, task: str) -> None:
    training = begin("data.workers=0")

    left = training.run(Blow((signal.SIGTERM,), task, 16))

    assert left == 143
    assert training.position == (EPOCHS, 0)
    assert_ends_alike(training, reference)


@pytest.mark.parametrize(
    ("signals", "code"), [((signal.SIGTERM, signal.SIGTERM), 143), ((signal.SIGTERM, signal.SIGINT), 130)]
)
def test_a_second_signal_ends_at_once_and_what_was_saved_stays(
    begin: Begin, reference: Reference, signals: tuple[signal.Signals, ...], code: int
) -> None:
    training = begin("data.workers=0")

    left = training.run(Blow(signals, "epoch 2/3", 3))

    assert left == code
    assert training.position == (1, 0)
    assert faults(training.out) == []
    assert_ends_alike(training, reference)


def test_signals_at_random_moments_one_after_the_other_cost_no_bit(begin: Begin, reference: Reference) -> None:
    training, dice = begin("data.workers=0"), random.Random(2)

    for share in (1, 0.6, 0.4):
        blow = Blow((signal.SIGTERM,), number=dice.randint(1, int(reference.moments * share)))
        assert training.run(blow) == 143 or training.position == (EPOCHS, 0)
        assert faults(training.out) == []
        assert temporaries(training.out) == []

    assert_ends_alike(training, reference)


def test_a_signal_that_was_ignored_before_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Interruption() as interruption:
            signal.raise_signal(signal.SIGINT)

            assert interruption.signal == 0
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_signal_that_waits_outlives_an_error() -> None:
    """As when a trial of a search is pruned: the search must not go on to the next."""

    def prune() -> None:
        with Interruption():
            signal.raise_signal(signal.SIGINT)
            raise ValueError("pruned")

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            prune()
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_crash_ends_the_process_and_its_workers(begin: Begin) -> None:
    """Python waits for workers when it ends, and they ignore the signal by which it would end them."""
    training = begin("data.workers=1")
    bug = (
        "from evalcam_cli.cli.terminal import Screen\n"
        "Screen.progress = lambda screen, task, *rest: 1 / (not task.startswith('epoch'))\n"
    )

    process = TrainingProcess(training.data, training.out, training.options, bug)

    assert process.end(timeout=600) == 1
    assert "ZeroDivisionError" in process.stderr
    assert wait_until(lambda: not process.family(), timeout=20)
