"""The learning-rate range test."""

import itertools
import math
from pathlib import Path

import pytest
import torch
from torch import nn

from evalcam_cli.training.position import TrainingState
from evalcam_cli.training.range_test import DIVERGED, RangePoint, geometric_rates, range_test, steps_of, suggest
from tests.training.test_trainer import config, trainer_of


def descent(curvature: float = 10.0) -> tuple[nn.Parameter, torch.optim.Optimizer]:
    """Gradient descent on a parabola diverges at rates above 2 / curvature, whatever the start."""
    weight = nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    return weight, torch.optim.SGD([weight], lr=1.0)


def test_rates_grow_by_the_same_factor_from_the_first_to_the_last() -> None:
    rates = geometric_rates(1e-7, 10, 100)

    assert rates[0] == 1e-7
    assert rates[-1] == pytest.approx(10)
    assert [after / before for before, after in itertools.pairwise(rates)] == pytest.approx([1e8 ** (1 / 99)] * 99)


def test_the_smoothed_loss_of_equal_losses_is_that_loss_from_the_first_step_on() -> None:
    """The bias of the average's beginning is corrected: Kingma & Ba 2015, section 3."""
    points = range_test(lambda rate: 2.5, geometric_rates(1e-5, 1, 20))

    assert [point.smoothed for point in points] == pytest.approx([2.5] * 20)


def test_the_smoothed_loss_forgets_by_a_fifth_with_each_step() -> None:
    losses = iter([1.0, 0.0, 0.0])

    points = range_test(lambda rate: next(losses), [1.0, 2.0, 3.0])

    # weights 0.2 x (1, 0.8, 0.64), over their sums 0.2, 0.36, 0.488
    assert [point.smoothed for point in points] == pytest.approx([1, 0.16 / 0.36, 0.128 / 0.488])


def test_a_descent_on_a_parabola_is_stopped_once_it_diverges_and_the_suggestion_converges() -> None:
    weight, optimizer = descent(curvature=10.0)

    def take_step(rate: float) -> float:
        loss = 5.0 * weight.square().sum() + 1
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return float(loss.detach())

    points = range_test(take_step, geometric_rates(1e-5, 100, 200))
    suggestion = suggest(points)

    assert len(points) < 200
    assert points[-1].smoothed > DIVERGED * min(point.smoothed for point in points)
    assert suggestion.recommended is not None
    assert 1e-4 < suggestion.recommended < 0.2  # 2 / curvature


def test_the_test_ends_with_a_loss_that_is_not_finite() -> None:
    losses = iter([1.0] * 7 + [math.inf] + [1.0] * 7)

    points = range_test(lambda rate: next(losses), geometric_rates(1e-5, 1, 15))

    assert len(points) == 8


def bowl(step: int, *, bottom: int = 60, of: int = 100) -> RangePoint:
    """A smoothed loss that falls evenly but between the steps 40 and 50, where it falls faster, and rises at last."""
    falling = 3.0 - 0.01 * min(step, bottom) - 0.1 * min(max(step - 40, 0), 10)
    loss = falling + 0.5 * max(0, step - bottom)
    return RangePoint(step, 10 ** (-7 + 8 * (step - 1) / (of - 1)), loss, loss)


def test_both_readings_lie_where_the_curve_says() -> None:
    points = [bowl(step) for step in range(1, 70)]

    suggestion = suggest(points)

    tenth = points[59].rate / 10
    assert suggestion.tenth_of_minimum == pytest.approx(tenth)
    assert suggestion.steepest is not None
    assert points[40].rate <= suggestion.steepest <= points[48].rate
    assert suggestion.recommended == pytest.approx(min(suggestion.steepest, tenth))
    assert suggestion.reason


def test_nothing_is_suggested_where_the_loss_never_fell_or_exploded_at_once() -> None:
    rising = [RangePoint(step, 1e-5 * 1.2**step, 1 + step / 100, 1 + step / 100) for step in range(1, 60)]

    for points, words in ((rising, "did not fall"), (rising[:4], "4 steps"), ([], "0 steps")):
        suggestion = suggest(points)
        assert suggestion.recommended is None
        assert words in suggestion.reason


def test_a_loss_that_still_falls_at_the_end_asks_for_higher_rates() -> None:
    suggestion = suggest([bowl(step) for step in range(1, 56)])

    assert "--max" in suggestion.reason
    assert suggestion.recommended == suggestion.steepest


def test_steps_at_one_rate_are_those_of_training_at_that_rate_over_the_end_of_an_epoch(colours: Path) -> None:
    settings = config("train.schedule=constant", "train.warmup_epochs=0", "train.lr=1e-3", "train.batch_size=16")
    trained, tested = trainer_of(colours, settings), trainer_of(colours, settings)

    states = [trained.train_epoch(TrainingState(epoch=epoch)) for epoch in (0, 1)]
    with steps_of(tested) as take_step:
        losses = [take_step(1e-3) for _ in range(6)]

    assert sum(losses[:3]) / 3 != sum(losses[3:]) / 3
    assert states[0].step == 3
    pairs = zip(trained.model.parameters(), tested.model.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
