"""The learning-rate range test: train a little at ever higher rates, and see where the loss falls and explodes.

Smith 2017, "Cyclical Learning Rates for Training Neural Networks", section 3.3; with the rate growing exponentially.
"""

import contextlib
import itertools
import math
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from evalcam_cli.progress import Progress, silent
from evalcam_cli.training.trainer import Trainer

SMOOTHING = 0.8
"""Weight of the past in the smoothed loss: about five steps count; more would move all readings to the right."""
DIVERGED = 4.0
"""The test ends when the smoothed loss is this many times the best so far."""
_FEWEST = 10
_FELL = 0.95
"""Of the highest smoothed loss before the minimum: what is not below it has not fallen."""
_SETTLING = 5
"""First steps whose smoothed loss rests on too few values."""


@dataclass(frozen=True)
class RangePoint:
    """One step of the test."""

    step: int
    """From 1."""
    rate: float
    loss: float
    """Of the step's images, before the weights moved; not finite in the last step of a test that exploded."""
    smoothed: float
    """Exponential moving average of the losses, corrected for its beginning at 0 (Kingma & Ba 2015, section 3)."""


@dataclass(frozen=True)
class Suggestion:
    """What a range test says about the learning rate."""

    steepest: float | None
    """Rate at which the smoothed loss falls fastest over the logarithm of the rate."""
    tenth_of_minimum: float | None
    """A tenth of the rate at which the smoothed loss is lowest."""
    recommended: float | None
    """One of both."""
    reason: str
    """Why that one; or why there is none."""


def geometric_rates(low: float, high: float, steps: int) -> list[float]:
    """So many rates from `low` to `high`, each the same factor above the one before."""
    return [low * (high / low) ** (step / (steps - 1)) for step in range(steps)]


def range_test(
    take_step: Callable[[float], float], rates: Sequence[float], progress: Progress = silent
) -> tuple[RangePoint, ...]:
    """Take a step at each rate, until the smoothed loss is `DIVERGED` times its best or a loss is not finite.

    Args:
        take_step: One optimiser step at a rate; returns the loss before it.
        rates: Rising.
        progress: Told `testing rates`.
    """
    points: list[RangePoint] = []
    average, lowest = 0.0, math.inf
    for step, rate in enumerate(rates, start=1):
        loss = take_step(rate)
        average = SMOOTHING * average + (1 - SMOOTHING) * loss
        smoothed = average / (1 - SMOOTHING**step)
        points.append(RangePoint(step, rate, loss, smoothed))
        progress("testing rates", step, len(rates), f"rate {rate:.1e}, loss {smoothed:.3f}")
        if not math.isfinite(loss) or (step > _SETTLING and smoothed > DIVERGED * lowest):
            break
        lowest = min(lowest, smoothed)
    return tuple(points)


def suggest(points: Sequence[RangePoint]) -> Suggestion:
    """The two usual readings of a range test, and which of them to take.

    The steepest descent is searched between the steps that the average needs to settle and the minimum, as a slope over
    a twentieth of the steps to either side. It is where learning is fastest now; a tenth of the rate at the minimum
    keeps its distance from where learning ends. The lower of the two is recommended.
    """
    finite = [point for point in points if math.isfinite(point.smoothed)]
    if len(finite) < _FEWEST:
        return _nothing(f"the test took {len(finite)} steps before the loss exploded; begin at a lower --min")
    settled = finite[_SETTLING:]
    lowest = min(settled, key=lambda point: point.smoothed)
    falling = [point for point in settled if point.step <= lowest.step]
    reach = max(1, len(points) // 20)
    if len(falling) <= 2 * reach or lowest.smoothed > _FELL * max(point.smoothed for point in falling):
        return _nothing("the loss did not fall on the way; begin at a lower --min, or take more --steps")
    slopes = [
        (after.smoothed - before.smoothed) / math.log(after.rate / before.rate)
        for before, after in zip(falling, falling[2 * reach :], strict=False)
    ]
    steepest = falling[reach + slopes.index(min(slopes))].rate
    tenth = lowest.rate / 10
    if lowest.step == points[-1].step:
        return Suggestion(
            steepest, tenth, steepest, "where the loss falls fastest; it still fell at --max, so try a higher"
        )
    if tenth <= steepest:
        return Suggestion(steepest, tenth, tenth, "a tenth of the rate at the minimum; the loss falls fastest above it")
    return Suggestion(steepest, tenth, steepest, "where the loss falls fastest; below a tenth of the minimum's rate")


def _nothing(reason: str) -> Suggestion:
    return Suggestion(None, None, None, reason)


@contextlib.contextmanager
def steps_of(trainer: Trainer) -> Iterator[Callable[[float], float]]:
    """The steps of training, epoch after epoch, one at each call: from the rate to the loss before the step.

    In the first call and later, frozen stays what is frozen in the first epoch. With the block the processes end that
    read images.
    """
    batches = _batches(trainer)

    def take_step(rate: float) -> float:
        images, own, whole, key = next(batches)
        return trainer.step(images, own, whole, rate, key=key)

    try:
        yield take_step
    finally:
        batches.close()
        readers = trainer.loader._iterator
        if isinstance(readers, _MultiProcessingDataLoaderIter):  # left in the middle of an epoch, they wait for ever
            readers._shutdown_workers()


def _batches(trainer: Trainer) -> Generator[tuple[Tensor, Tensor, Tensor, tuple[int, ...]]]:
    """What `Trainer.step` takes."""
    for epoch in itertools.count():
        trainer.begin_epoch(0)
        trainer.order.epoch, trainer.order.start = epoch, 0
        indices = trainer.order.indices()
        for step, (images, own) in enumerate(trainer.loader):
            yield images, own, indices[trainer.order.span(step)], (trainer.seed, epoch, step)
