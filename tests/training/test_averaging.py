"""The moving average of the weights, by hand."""

import pytest
import torch
from torch import nn

from evalcam_cli.training.averaging import WeightAverage


def set_weight(model: nn.Module, value: float) -> None:
    with torch.no_grad():
        model.get_parameter("weight").fill_(value)


def test_each_update_moves_the_average_by_its_rate() -> None:
    model = nn.Linear(1, 1, bias=False)
    average = WeightAverage(model, 0.5)

    expected, seen = 0.0, []
    for updates, value in enumerate([4.0, 8.0, 2.0, 6.0]):
        set_weight(model, value)
        average.update(model)
        decay = min(0.5, (1 + updates) / (10 + updates))
        expected = value if updates == 0 else decay * expected + (1 - decay) * value
        seen.append(average.model.get_parameter("weight").item())
        assert seen[-1] == pytest.approx(expected)

    assert len(set(seen)) == 4


def test_batch_norm_statistics_are_averaged_too_and_batches_counted() -> None:
    model = nn.BatchNorm2d(2)
    average = WeightAverage(model, 0.9)
    for _ in range(3):
        model(torch.randn(4, 2, 3, 3) + 5)
        average.update(model)

    assert average.model.get_buffer("num_batches_tracked").item() == 3
    averaged, newest = (one.get_buffer("running_mean").mean().item() for one in (average.model, model))
    assert 0 < averaged < newest


def test_a_restored_average_goes_on_as_if_never_left() -> None:
    model = nn.Linear(3, 2)
    whole, other = WeightAverage(model, 0.8), WeightAverage(model, 0.8)
    for value in (1.0, 2.0, 3.0):
        set_weight(model, value)
        whole.update(model)
    set_weight(model, 2.0)
    other.restore(whole.model.state_dict(), whole.updates)
    for average in (whole, other):
        average.update(model)

    assert torch.equal(whole.model.get_parameter("weight"), other.model.get_parameter("weight"))
