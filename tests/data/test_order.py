"""Steps of an epoch: whole, shared by processes, or from the middle on."""

from itertools import chain

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalcam_cli.data.order import Draw, TrainingOrder
from evalcam_cli.world import World


def order(count: int, size: int, *, world: World | None = None, balanced: bool = False) -> TrainingOrder:
    targets = [int(index % 5 == 0) for index in range(count)]
    return TrainingOrder(targets, step_size=size, seed=3, balanced=balanced, world=world)


@pytest.mark.parametrize("balanced", [False, True])
@given(count=st.integers(2, 60), size=st.integers(2, 20), processes=st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_processes_share_every_step_without_a_gap_or_a_double(
    count: int, size: int, processes: int, balanced: bool
) -> None:
    """Rank by rank dealt out, the shares are the steps of a run whose last step joins at the same size."""
    shares = [list(order(count, size, world=World(rank, processes), balanced=balanced)) for rank in range(processes)]

    whole = order(count, size, world=World(0, processes), balanced=balanced)
    indices = whole.indices().tolist()
    for step, parts in enumerate(zip(*shares, strict=True)):
        dealt = [draw.index for draw in chain.from_iterable(parts)]
        assert sorted(dealt) == sorted(indices[whole.span(step)])
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
        if size >= 2 * processes and count >= 2 * processes:
            assert min(map(len, parts)) >= 2  # batch norm needs two
    assert sum(len(part) for share in shares for part in share) == count


@given(count=st.integers(2, 60), size=st.integers(1, 20), balanced=st.booleans(), data=st.data())
@settings(max_examples=60, deadline=None)
def test_an_epoch_taken_up_in_the_middle_has_the_steps_that_are_missing(
    count: int, size: int, balanced: bool, data: st.DataObject
) -> None:
    whole, rest = order(count, size, balanced=balanced), order(count, size, balanced=balanced)
    whole.epoch = rest.epoch = 4
    rest.start = data.draw(st.integers(0, whole.steps))

    assert list(rest) == list(whole)[rest.start :]
    assert len(rest) == whole.steps - rest.start


def test_each_use_of_an_image_is_numbered_when_it_may_be_drawn_twice() -> None:
    draws = list(chain.from_iterable(order(40, 8, balanced=True)))

    assert len(set(draws)) == 40
    assert any(draw.repeat for draw in draws)
    assert Draw(draws[0].index) == draws[0]
