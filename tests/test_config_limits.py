"""What each config key takes and what it refuses: limits, choices, texts, lists; and which values go together."""

import json
import math
import re
from collections.abc import Iterable

import pytest

from evalcam_cli.config import GradCamConfig, RunConfig, config_keys, default_of, resolved
from evalcam_cli.config_sources import load_config
from evalcam_cli.errors import UsageError

WHOLE = {
    "seed": (0, 2**63 - 1),
    "data.image_size": (16, 2048),
    "data.workers": (0, 64),
    "data.max_pixels": (1, 2_000_000_000),
    "data.allow_unreadable": (0, 1_000_000_000),
    "split.folds": (2, 100),
    "split.repeats": (1, 100),
    "model.thaw_every": (0, 100_000),
    "model.last_stride": (1, 2),
    "train.epochs": (1, 100_000),
    "train.batch_size": (1, 65_536),
    "train.accumulate": (1, 65_536),
    "train.patience": (0, 100_000),
    "train.augment.randaugment": (0, 8),
    "evaluate.bootstrap": (100, 100_000),
    "evaluate.batch_size": (1, 65_536),
    "gradcam.window": (1, 2048),
    "gradcam.stride": (1, 2048),
    "gradcam.steps": (2, 1000),
    "gradcam.copies": (1, 1000),
    "gradcam.max_images": (1, 1_000_000_000),
    "search.startup_trials": (0, 1_000_000),
}
"""The lowest and the highest whole number that a key takes."""

NUMBERS = {
    "train.lr": "(0, 1e6]",
    "train.stage_lr": "(0, 1]",
    "train.momentum": "[0, 1)",
    "train.weight_decay": "[0, 1e6]",
    "train.warmup_epochs": "[0, 20]",  # the default of train.epochs
    "train.label_smoothing": "[0, 1)",
    "train.focal_gamma": "[0, 1e6]",
    "train.mixup": "[0, 1e6]",
    "train.cutmix": "[0, 1e6]",
    "train.clip_grad_norm": "[0, 1e6]",
    "train.ema": "[0, 1)",
    "train.augment.hflip": "[0, 1]",
    "train.augment.vflip": "[0, 1]",
    "train.augment.rotate": "[0, 180]",
    "train.augment.translate": "[0, 1]",
    "train.augment.scale": "[0, 1)",
    "train.augment.brightness": "[0, 1]",
    "train.augment.contrast": "[0, 1]",
    "train.augment.saturation": "[0, 1]",
    "train.augment.hue": "[0, 0.5]",
    "train.augment.erase": "[0, 1]",
    "train.augment.randaugment_magnitude": "[0, 10]",
    "evaluate.prevalence": "(0, 1)",
    "evaluate.conformal": "(0, 1)",
    "gradcam.full_colour": "(0, 1e30]",
    "gradcam.box_threshold": "(0, 1)",
}
"""The interval of numbers that a key takes; a round bracket leaves the end out."""

CHOICES = {
    "device": "auto cpu cuda",
    "data.resize": "pad crop squash",
    "data.cache": "auto none ram file",
    "split.ungrouped": "refuse single",
    "split.leaks": "refuse drop resplit allow",
    "model.arch": "resnet18 resnet34 resnet50 resnet101 resnet152 resnext50_32x4d resnext101_32x8d resnext101_64x4d "
    "wide_resnet50_2 wide_resnet101_2",
    "model.freeze": "stem layer1 layer2 layer3 layer4",
    "train.optimizer": "adamw sgd",
    "train.schedule": "cosine constant",
    "train.loss": "cross_entropy focal",
    "train.class_weights": "none balanced",
    "train.sampling": "uniform balanced",
    "train.precision": "auto fp32 bf16 fp16",
    "train.monitor": "loss accuracy balanced_accuracy f1_macro mcc cohen_kappa",
    "train.logger": "none tensorboard",
    "evaluate.subset": "train val test",
    "evaluate.proportion_interval": "wilson clopper_pearson",
    "evaluate.auc_interval": "score delong",
    "gradcam.method": "cam gradcam gradcam++ hirescam xgradcam layercam eigencam scorecam ablationcam counterfactual "
    "guided-backprop guided-gradcam occlusion gradient integrated-gradients smoothgrad",
    "gradcam.norm": "image shared raw",
    "gradcam.maps": "npy npz",
    "search.pruner": "median none",
}

TEXTS = ("data.path", "split.group_by", "model.weights", "evaluate.positive", "gradcam.layer")
SWITCHES = ("model.freeze_batch_norm", "train.channels_last", "train.compile", "train.deterministic",
            "train.temperature", "gradcam.flips", "gradcam.folded")  # fmt: skip
LISTS = ("evaluate.fail_under", "evaluate.fail_over", "evaluate.no_regression", "evaluate.by", "gradcam.class")
OTHERS = ("split.ratios", "gradcam.against", "search.space")

BESIDE: dict[str, dict[str, object]] = {"model.thaw_every": {"model.freeze": "layer1"}}
"""What else must be said for a key to make sense."""


def taken(key: str, value: object) -> object:
    """What the config holds after it was given the value."""
    held: object = load_config(options={**BESIDE.get(key, {}), key: value}).model_dump(by_alias=True)
    for part in key.split("."):
        assert isinstance(held, dict)
        held = held[part]
    return held


def refusal(key: str, value: object) -> str:
    with pytest.raises(UsageError) as caught:
        taken(key, value)
    assert key in str(caught.value)
    return str(caught.value)


def test_every_key_is_listed_here_once() -> None:
    listed = [*WHOLE, *NUMBERS, *CHOICES, *TEXTS, *SWITCHES, *LISTS, *OTHERS]

    assert sorted(listed) == sorted(config_keys())


@pytest.mark.parametrize("key", WHOLE)
def test_a_whole_number_is_taken_up_to_its_limits_and_refused_beyond(key: str) -> None:
    lowest, highest = WHOLE[key]

    assert [taken(key, lowest), taken(key, highest)] == [lowest, highest]
    assert f"greater than or equal to {lowest}, got {lowest - 1}" in refusal(key, lowest - 1)
    assert f", got {highest + 1}" in refusal(key, highest + 1)
    assert "whole number" in refusal(key, float(highest) + 0.5)


@pytest.mark.parametrize("key", NUMBERS)
def test_a_number_is_taken_up_to_the_ends_of_its_interval_and_refused_beyond(key: str) -> None:
    interval = NUMBERS[key]
    low, high = map(float, interval[1:-1].split(", "))
    below, above = math.nextafter(low, -math.inf), math.nextafter(high, math.inf)
    inside = [low if interval[0] == "[" else math.nextafter(low, high)]
    inside += [high if interval[-1] == "]" else math.nextafter(high, low)]
    outside = [below if interval[0] == "[" else low, above if interval[-1] == "]" else high]

    assert [taken(key, value) for value in inside] == inside
    for value in outside:
        refusal(key, value)


@pytest.mark.parametrize("key", [*NUMBERS, "split.ratios"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_refused_as_such(key: str, value: float) -> None:
    assert "must be a finite number" in refusal(key, [value, 0.5, 0.5] if key == "split.ratios" else value)


@pytest.mark.parametrize("key", CHOICES)
def test_each_choice_is_taken_and_the_refusal_of_another_names_them_all(key: str) -> None:
    choices = CHOICES[key].split()
    several = key == "gradcam.method"

    assert [taken(key, one) for one in choices] == [((one,) if several else one) for one in choices]
    listed = refusal(key, "?").partition(" got ")[0]
    assert re.findall(r"'(.*?)'", listed) == choices


def test_the_number_of_workers_may_be_left_to_the_program() -> None:
    assert taken("data.workers", "auto") == "auto"


@pytest.mark.parametrize("key", TEXTS)
def test_a_text_is_neither_empty_nor_longer_than_4096_characters(key: str) -> None:
    assert taken(key, "x") == "x"
    assert taken(key, "x" * 4096) == "x" * 4096
    assert "must be a text that is not empty" in refusal(key, "")
    assert "must be a shorter text" in refusal(key, "x" * 4097)


@pytest.mark.parametrize("key", SWITCHES)
def test_a_switch_is_on_or_off(key: str) -> None:
    assert [taken(key, True), taken(key, False)] == [True, False]
    assert "must be true or false, got 1" in refusal(key, 1)


@pytest.mark.parametrize("key", LISTS)
def test_a_list_takes_one_or_more_texts_and_what_yaml_reads_as_a_number_or_a_truth(key: str) -> None:
    assert taken(key, "x") == ("x",)
    assert taken(key, ["x", 3, True, False]) == ("x", "3", "true", "false")
    assert taken(key, 3) == ("3",)
    assert "must be a text, got 0.5" in refusal(key, ["x", 0.5])


def test_there_is_always_something_to_explain_and_a_way_to() -> None:
    assert "must have at least 1 value" in refusal("gradcam.class", [])
    assert "must have at least 1 value" in refusal("gradcam.method", [])


def test_methods_are_one_text_or_a_list_each_once() -> None:
    assert taken("gradcam.method", " gradcam, occlusion ,gradcam") == ("gradcam", "occlusion")
    assert taken("gradcam.method", ["cam,occlusion", "cam"]) == ("cam", "occlusion")
    assert taken("gradcam.method", ("cam", "occlusion")) == ("cam", "occlusion")
    assert "got 3" in refusal("gradcam.method", 3)
    assert "got [1]" in refusal("gradcam.method", ["cam", [1]])


def test_the_class_that_others_are_compared_with_may_be_called_like_a_number() -> None:
    assert [taken("gradcam.against", value) for value in ("cat", 3, True, None)] == ["cat", "3", "true", None]


@pytest.mark.parametrize("ratios", [(1, 0, 0), (0.7, 0.3, 0), (0.5, 0, 0.5), (0.7, 0.2, 0.1 + 9e-7)])
def test_shares_that_sum_to_one_within_a_millionth_are_taken(ratios: tuple[float, ...]) -> None:
    assert taken("split.ratios", ratios) == ratios


@pytest.mark.parametrize(
    ("ratios", "said"),
    [
        ((0.7, 0.2, 0.1 + 2e-6), "must sum to 1; 0.7 + 0.2 + 0.100002 = 1"),
        ((0.7, 0.2, 0.1 - 2e-6), "must sum to 1"),
        ((1, 1, 1), "must sum to 1; 1 + 1 + 1 = 3"),
        ((0, 0, 0), "must sum to 1; 0 + 0 + 0 = 0"),
        ((0, 1, 0), "the training set needs a share above 0"),
        ((1.5, -0.5, 0), "must be less than or equal to 1, got 1.5"),
        ((0.5, 0.5), "must have 3 values"),
        ((0.25, 0.25, 0.25, 0.25), "split.ratios"),
    ],
)
def test_other_shares_are_refused(ratios: tuple[float, ...], said: str) -> None:
    assert said in refusal("split.ratios", ratios)


# ---- values that do not go together


def together(**values: object) -> RunConfig:
    return load_config(options={key.replace("__", "."): value for key, value in values.items()})


def quarrel(**values: object) -> str:
    with pytest.raises(UsageError) as caught:
        together(**values)
    return str(caught.value)


def test_batch_norm_needs_more_than_one_value() -> None:
    """Five halvings leave one place of an image of up to 32 pixels; without the last, two by two."""
    assert "raise one" in quarrel(train__batch_size=1, data__image_size=32)
    assert "raise one" in quarrel(train__batch_size=1, data__image_size=16)

    together(train__batch_size=1, data__image_size=33)
    together(train__batch_size=2, data__image_size=32)
    together(train__batch_size=1, data__image_size=32, model__last_stride=1)


def test_the_warm_up_may_fill_the_training_and_be_no_longer() -> None:
    together(train__epochs=2, train__warmup_epochs=2)

    assert "train.warmup_epochs (2.5) is longer than train.epochs (2)" in quarrel(
        train__epochs=2, train__warmup_epochs=2.5
    )


@pytest.mark.parametrize("blend", ["train__mixup", "train__cutmix"])
def test_the_focal_loss_takes_no_mixtures(blend: str) -> None:
    assert "do not go together" in quarrel(train__loss="focal", **{blend: 0.2})

    together(train__loss="cross_entropy", **{blend: 0.2})
    together(train__loss="focal", **{blend: 0})


def test_only_what_is_frozen_thaws() -> None:
    assert "nothing is frozen" in quarrel(model__thaw_every=1)

    together(model__thaw_every=1, model__freeze="stem")
    together(model__freeze="stem")


# ---- the config as a whole


def flat(values: dict[str, object], prefix: str = "") -> Iterable[str]:
    for key, value in values.items():
        if isinstance(value, dict) and prefix + key != "search.space":
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key


def test_a_run_keeps_every_key_under_the_name_that_the_readme_gives_it() -> None:
    written = resolved(RunConfig())

    assert list(flat(written)) == list(config_keys())
    assert written["gradcam"]["class"] == ["predicted"]
    assert json.loads(json.dumps(written)) == written
    assert default_of("gradcam.class") == ("predicted",)


def test_a_config_is_never_changed() -> None:
    config = RunConfig()

    with pytest.raises(ValueError, match="frozen"):
        config.seed = 1
    with pytest.raises(ValueError, match="frozen"):
        config.train.lr = 1.0


def test_a_key_has_one_name() -> None:
    """The field is called `classes`, as `class` is a word of Python; the key is not."""
    assert GradCamConfig.model_validate({"class": "cat"}).classes == ("cat",)
    with pytest.raises(ValueError, match="Extra inputs"):
        GradCamConfig.model_validate({"classes": "cat"})
