"""What a search may vary."""

import pytest

from evalcam_cli.config import RunConfig, resolved
from evalcam_cli.config_sources import load_config, with_values
from evalcam_cli.errors import UsageError
from evalcam_cli.search_space import Dimension, search_space


def searching(space: str, *assignments: str) -> RunConfig:
    return load_config(assignments=[f"search.space={{{space}}}", *assignments])


def test_a_key_has_the_kind_of_values_that_the_config_takes() -> None:
    config = searching(
        "train.lr: {low: 1e-5, high: 1e-2, log: true}, train.weight_decay: {low: 0, high: 1}, "
        "train.batch_size: {low: 8, high: 64, log: true}, model.freeze: [null, layer1]"
    )

    freeze, batch, lr, decay = search_space(config)

    assert (lr.kind, lr.log, lr.low, lr.high) == ("number", True, 1e-5, 1e-2)
    assert (decay.kind, decay.high) == ("number", 1.0)  # 0 and 1 are written as whole numbers, and are not meant so
    assert (batch.kind, batch.low, batch.high) == ("integer", 8, 64)
    assert (freeze.kind, freeze.choices) == ("choice", (None, "layer1"))


def test_the_highest_value_is_a_whole_number_of_steps_above_the_lowest() -> None:
    (epochs,) = search_space(searching("train.epochs: {low: 1, high: 10, step: 2}"))

    assert (epochs.low, epochs.high, epochs.step) == (1, 9, 2)
    assert [value for value in range(12) if epochs.holds(value)] == [1, 3, 5, 7, 9]


def test_a_choice_is_held_with_its_type() -> None:
    one = Dimension("train.channels_last", "choice", choices=(True, False))

    assert one.holds(True)
    assert not one.holds(1)


@pytest.mark.parametrize(
    ("space", "words"),
    [
        ("", "nothing to search"),
        ("train.lrr: [1e-3, 1e-4]", "did you mean 'train.lr'"),
        ("train: [1, 2]", "unknown config key 'train'"),
        ("seed: [1, 2]", "a lucky seed"),
        ("data.path: [a, b]", "the same images"),
        ("split.folds: [2, 3]", "the same images"),
        ("evaluate.bootstrap: [100, 200]", "after training"),
        ("gradcam.layer: [layer3, layer4]", "after training"),
        ("search.startup_trials: [1, 2]", "does not search itself"),
        ("train.monitor: [loss, accuracy]", "compared by"),
        ("model.arch: {low: 1, high: 2}", "give a list of choices"),
        ("train.channels_last: {low: 0, high: 1}", "give a list of choices"),
        ("train.epochs: {low: 1, high: 2.5}", "whole numbers"),
        ("train.lr: {low: 0, high: 1}", "greater than 0"),
        ("model.arch: [resnet18, resnet19]", "resnet19"),
        ("train.lr: [[1e-3], 1e-4]", "train.lr"),
        ("train.epochs: [2, 40], train.warmup_epochs: {low: 0, high: 3}", "longer than train.epochs"),
    ],
)
def test_what_no_trial_could_use_is_refused_before_the_first(space: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        search_space(searching(space))


@pytest.mark.parametrize(
    ("span", "words"),
    [
        ("{low: 1}", "give low and high"),
        ("{low: 1, high: 1}", "below high"),
        ("{low: 0, high: 1, log: true}", "above 0"),
        ("{low: 1, high: 2, log: true, step: 1}", "takes no step"),
        ("{low: 1, high: 2, step: 0}", "step"),
        ("{low: 1, high: 2, choices: [1, 2]}", "not both"),
        ("[1]", "at least two"),
        ("[1, 1]", "all different"),
        ("{low: a, high: 2}", "train.lr.low must be a number"),
    ],
)
def test_a_range_that_makes_no_sense_is_refused_as_the_config_is_read(span: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        searching(f"train.lr: {span}")


def test_a_config_with_no_other_values_is_the_same_config() -> None:
    config = searching("train.lr: [1e-3, 1e-4]", "train.epochs=3")

    assert with_values(config, {}) == config
    changed = with_values(config, {"train.lr": 0.5})
    assert changed.train.lr == 0.5
    assert resolved(changed) == resolved(config) | {"train": resolved(config)["train"] | {"lr": 0.5}}


def test_a_value_that_the_config_does_not_take_is_refused() -> None:
    with pytest.raises(UsageError, match=r"train\.lr must be"):
        with_values(RunConfig(), {"train.lr": -1.0})


def test_whole_numbers_among_the_choices_of_a_fraction_are_fractions() -> None:
    (mixup,) = search_space(load_config(assignments=["search.space={train.mixup: [0, 0.2]}"]))

    assert mixup.holds(0.0)  # the default, so that the first trial is the config as it stands
    assert [type(choice) for choice in mixup.choices] == [float, float]


def test_two_choices_that_are_the_same_number_are_refused() -> None:
    with pytest.raises(UsageError, match="the same number"):
        search_space(load_config(assignments=["search.space={train.mixup: [0, 0.0]}"]))
