"""The trials of a search, in a file."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from evalcam_cli.config import RunConfig
from evalcam_cli.config_sources import load_config
from evalcam_cli.errors import DataError, UsageError
from evalcam_cli.search_space import search_space
from evalcam_cli.workflows.study import Study, Trial, Wait

pytest.importorskip("optuna")

SPACE = (
    "search.space={train.lr: {low: 1e-5, high: 1e-1, log: true}, train.batch_size: [8, 16, 32], "
    "train.weight_decay: {low: 0, high: 1}}"
)


def searching(*assignments: str) -> RunConfig:
    return load_config(assignments=[SPACE, "train.warmup_epochs=0", "search.startup_trials=3", *assignments])


def study_in(folder: Path, config: RunConfig | None = None) -> Study:
    config = config or searching()
    return Study(folder / "odd %20?#ü.db", search_space(config), config)


def nobody(worker: str) -> bool:
    return False


def claimed(study: Study, count: int, is_alive: Callable[[str], bool] = nobody) -> Trial:
    trial = study.claim("me", is_alive, count)
    assert isinstance(trial, Trial)
    return trial


def value_of(trial: Trial) -> float:
    return 1 - abs(float(str(trial.params["train.lr"])) - 0.01)


def run(study: Study, count: int) -> list[Trial]:
    """All trials, the number 2 a failure."""
    while isinstance(trial := study.claim("me", nobody, count), Trial):
        if trial.number == 2:
            study.finish(2, "failed", reason="exploded")
        else:
            study.finish(trial.number, "complete", value=value_of(trial), best_epoch=1, seconds=1.0)
    assert trial is None
    return study.trials()


@pytest.fixture(scope="module")
def ten(tmp_path_factory: pytest.TempPathFactory) -> list[Trial]:
    return run(study_in(tmp_path_factory.mktemp("study")), 10)


def test_the_first_trial_is_the_config_as_it_stands(ten: list[Trial]) -> None:
    assert ten[0].params == {"train.batch_size": 32, "train.lr": 3e-4, "train.weight_decay": 0.01}


def test_the_first_trial_is_drawn_when_the_config_lies_outside_the_space(tmp_path: Path) -> None:
    trial = claimed(study_in(tmp_path, searching("train.batch_size=64")), 1)

    assert trial.params["train.batch_size"] in (8, 16, 32)
    assert trial.params["train.lr"] != 3e-4


def test_the_same_seed_proposes_the_same_and_another_seed_does_not(tmp_path: Path, ten: list[Trial]) -> None:
    (tmp_path / "other").mkdir()

    again = run(study_in(tmp_path), 5)
    other = run(study_in(tmp_path / "other", searching("seed=1")), 5)

    assert [trial.params for trial in again] == [trial.params for trial in ten[:5]]
    assert all(mine.params != theirs.params for mine, theirs in zip(other[1:], ten[1:5], strict=True))


def test_a_search_that_dies_in_every_trial_proposes_what_one_that_lives_does(tmp_path: Path, ten: list[Trial]) -> None:
    for number in range(7):
        lost = study_in(tmp_path).claim("dead", nobody, 10)  # this process dies here
        assert isinstance(lost, Trial)
        trial = claimed(study_in(tmp_path), 10)
        assert trial.number == number
        assert trial.params == lost.params == ten[number].params
        study = study_in(tmp_path)
        if number == 2:
            study.finish(2, "failed")
        else:
            study.finish(number, "complete", value=value_of(trial))

    assert [trial.params for trial in study_in(tmp_path).trials()] == [trial.params for trial in ten[:7]]


def test_the_best_is_the_first_with_the_best_value(tmp_path: Path) -> None:
    for monitor, values, best in (("accuracy", (0.1, 0.5, 0.5), 1), ("loss", (0.1, 0.5, 0.1), 0)):
        (tmp_path / monitor).mkdir()
        study = study_in(tmp_path / monitor, searching(f"train.monitor={monitor}"))
        for value in values:
            study.finish(claimed(study, 3).number, "complete", value=value)
        found = study.best()
        assert found is not None
        assert found.number == best


def test_a_trial_that_another_process_still_runs_is_waited_for_and_then_taken_over(tmp_path: Path) -> None:
    study = study_in(tmp_path)
    lost = study.claim("other", nobody, 1)

    assert isinstance(study.claim("me", lambda worker: worker == "other", 1), Wait)
    taken = claimed(study, 1)

    assert isinstance(lost, Trial)
    assert (taken.number, taken.params) == (lost.number, lost.params)


def test_a_trial_without_a_value_has_failed(tmp_path: Path) -> None:
    study = study_in(tmp_path)

    study.finish(claimed(study, 1).number, "complete", value=None)

    assert [(trial.state, trial.reason) for trial in study.trials()] == [
        ("failed", "the monitored metric is undefined")
    ]
    assert study.best() is None


def test_a_trial_is_pruned_when_it_is_worse_than_half_of_the_finished_ones_were_then(tmp_path: Path) -> None:
    study = study_in(tmp_path)
    for height in (0.3, 0.5, 0.7):
        number = claimed(study, 5).number
        assert not any(study.report(number, epoch, height + epoch / 100) for epoch in (1, 2))
        study.finish(number, "complete", value=height)

    number = claimed(study, 5).number
    good = study.report(number, 1, 0.6)
    bad = study.report(number, 2, 0.6 - 1e-9)
    study.finish(number, "pruned")

    assert not good  # the median at epoch 1 is 0.51
    assert not bad  # and the best up to epoch 2 still is 0.6
    number = claimed(study, 5).number
    assert study.report(number, 1, 0.5)


def test_nothing_is_pruned_during_the_warm_up_or_when_no_pruner_is_asked_for(tmp_path: Path) -> None:
    for name, assignment in (("warm", "train.warmup_epochs=1"), ("none", "search.pruner=none")):
        (tmp_path / name).mkdir()
        study = study_in(tmp_path / name, searching("search.startup_trials=1", assignment))
        number = claimed(study, 2).number
        for epoch in (1, 2):
            study.report(number, epoch, 0.9)
        study.finish(number, "complete", value=0.9)
        number = claimed(study, 2).number
        assert not study.report(number, 1, 0.1)
        assert study.report(number, 2, 0.1) == (name == "warm")


def test_importances_find_the_key_that_matters_and_say_why_there_are_none(tmp_path: Path, ten: list[Trial]) -> None:
    study = study_in(tmp_path)
    run(study, 3)
    assert study.importances()[0] is None
    assert "there are 2" in study.importances()[1]

    run(study, 12)
    shares, reason = study.importances()

    assert reason == ""
    assert shares is not None
    assert next(iter(shares)) == "train.lr"
    assert sum(shares.values()) == pytest.approx(1)


def test_equal_values_have_no_importances(tmp_path: Path) -> None:
    study = study_in(tmp_path)
    for _ in range(4):
        study.finish(claimed(study, 4).number, "complete", value=0.5)

    assert study.importances() == (None, "all trials have the same value")


def test_what_is_stated_about_a_search_is_there_for_the_next_process(tmp_path: Path) -> None:
    study_in(tmp_path).state({"trials": 7, "config": {"train": {"lr": 0.1}}})

    assert study_in(tmp_path).facts == {"trials": 7, "config": {"train": {"lr": 0.1}}}


def test_a_file_that_is_no_study_is_named(tmp_path: Path) -> None:
    (tmp_path / "odd %20?#ü.db").write_bytes(b"not a database" * 100)

    with pytest.raises(DataError, match="is no study"):
        study_in(tmp_path)


def test_without_optuna_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)

    with pytest.raises(UsageError, match=r"evalcam\[tune\]"):
        study_in(tmp_path)


_WORKS = """
import sys, time
from pathlib import Path
from tests.workflows.test_study import study_in
from evalcam_cli.workflows.presence import present
from evalcam_cli.workflows.study import Wait
folder = Path(sys.argv[1])
study = study_in(folder)
with present(folder / "workers") as here:
    while True:
        with here.alone():
            trial = study.claim(here.name, here.is_alive, 12)
        if trial is None:
            break
        if isinstance(trial, Wait):
            time.sleep(0.01)
            continue
        study.report(trial.number, 1, 0.5)
        study.finish(trial.number, "complete", value=trial.number / 100)
        print(trial.number)
"""


def test_several_processes_at_once_do_each_trial_once(tmp_path: Path) -> None:
    study_in(tmp_path)

    processes = [
        subprocess.Popen([sys.executable, "-c", _WORKS, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    done = [process.communicate()[0].split() for process in processes]

    assert [process.returncode for process in processes] == [0, 0]
    assert sorted(int(number) for numbers in done for number in numbers) == list(range(12))
    assert [trial.value for trial in study_in(tmp_path).trials()] == [number / 100 for number in range(12)]
