"""Which weights move, how, and how fast."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from evalcam_cli.config import TrainConfig
from evalcam_cli.models.architectures import build_model, still_frozen
from evalcam_cli.training.optimisation import class_weights, learning_rate, make_optimizer, set_rate


def test_the_rate_rises_linearly_and_falls_along_a_cosine_to_zero() -> None:
    config = TrainConfig(epochs=10, lr=1.0, warmup_epochs=2.0)

    rates = [learning_rate(step, 5, config) for step in range(50)]

    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == pytest.approx(1.0)
    assert rates[10] == pytest.approx(1.0)
    assert rates[30] == pytest.approx(0.5)  # half of the way down after half of the 40 steps
    assert 0 < rates[-1] < 0.01
    assert all(later <= earlier for earlier, later in pairwise(rates[10:]))


def test_a_constant_schedule_stays_after_the_warm_up() -> None:
    config = TrainConfig(epochs=4, lr=0.5, warmup_epochs=1.0, schedule="constant")

    assert [learning_rate(step, 2, config) for step in range(8)] == [0.25, *[0.5] * 7]


def test_no_warm_up_begins_at_the_full_rate() -> None:
    assert learning_rate(0, 5, TrainConfig(epochs=3, lr=0.2, warmup_epochs=0)) == 0.2


def test_biases_and_batch_norm_are_not_decayed_and_frozen_weights_not_moved() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))

    groups = make_optimizer(model, TrainConfig(weight_decay=0.1), never=[model[0]]).param_groups

    decayed = {id(parameter) for group in groups if group["weight_decay"] for parameter in group["params"]}
    spared = {id(parameter) for group in groups if not group["weight_decay"] for parameter in group["params"]}
    assert decayed == {id(model[3].weight)}
    assert spared == {id(model[1].weight), id(model[1].bias), id(model[3].bias)}


@pytest.mark.parametrize(("name", "kind"), [("sgd", torch.optim.SGD), ("adamw", torch.optim.AdamW)])
def test_both_optimizers_can_be_chosen(name: str, kind: type) -> None:
    assert isinstance(make_optimizer(nn.Linear(2, 2), TrainConfig.model_validate({"optimizer": name})), kind)


def test_balanced_weights_give_every_class_the_same_total() -> None:
    targets = [0] * 6 + [1] * 3 + [2]

    weights = class_weights(targets, 3, "balanced")

    assert weights is not None
    torch.testing.assert_close(weights * torch.tensor([6.0, 3.0, 1.0]), torch.full((3,), 10 / 3))
    assert class_weights(targets, 3, "none") is None


def test_every_stage_has_its_share_of_the_rate() -> None:
    """0.5 per stage: the head whole, layer4 a half, layer1 a sixteenth, the stem a thirty-second."""
    model = build_model("resnet18", 2)
    optimizer = make_optimizer(model, TrainConfig(stage_lr=0.5))

    set_rate(optimizer, 0.32)

    rates = {id(parameter): group["lr"] for group in optimizer.param_groups for parameter in group["params"]}
    found = {name: rates[id(parameter)] for name, parameter in model.named_parameters()}
    assert found["fc.weight"] == found["fc.bias"] == 0.32
    assert found["layer4.1.bn2.bias"] == pytest.approx(0.16)
    assert found["layer3.0.conv1.weight"] == pytest.approx(0.08)
    assert found["layer1.0.conv1.weight"] == pytest.approx(0.02)
    assert found["conv1.weight"] == found["bn1.weight"] == pytest.approx(0.01)
    assert len(found) == len(rates)


def test_one_more_stage_is_freed_from_the_head_down() -> None:
    frozen = [still_frozen("layer3", 2, epoch) for epoch in range(10)]

    assert frozen == ["layer3"] * 2 + ["layer2"] * 2 + ["layer1"] * 2 + ["stem"] * 2 + [None] * 2
    assert still_frozen("layer3", 0, 99) == "layer3"
    assert still_frozen(None, 0, 0) is None
