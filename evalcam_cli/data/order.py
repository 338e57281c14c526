"""Which images each step of training uses: a function of the seed and the epoch alone."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import Sampler

from evalcam_cli.data.augmentation import keyed_generator
from evalcam_cli.world import World


@dataclass(frozen=True, slots=True)
class Draw:
    """One use of one image."""

    index: int
    epoch: int = 0
    repeat: int = 0
    """How often this image was drawn before in this epoch (sampling with replacement)."""


class TrainingOrder(Sampler[list[Draw]]):
    """The images of the steps of one epoch, those of this process; set `epoch` and `start` before iterating.

    Of several processes each has every so manieth image of a step, so that all of them together make the same steps
    as one alone.
    """

    def __init__(
        self, targets: Sequence[int], *, step_size: int, seed: int, balanced: bool, world: World | None = None
    ) -> None:
        self.targets = torch.tensor(targets)
        self.step_size, self.seed, self.balanced, self.world = step_size, seed, balanced, world or World()
        self.epoch = 0
        self.start = 0
        """The step that is drawn first: those before it were made already."""

    @property
    def steps(self) -> int:
        """Steps of a whole epoch."""
        count = len(self.targets)
        # batch norm cannot learn from a single image: a last step of one (for a process) joins the step before it
        return max(1, count // self.step_size + (count % self.step_size >= 2 * self.world.size))

    def __len__(self) -> int:
        """Steps that are still to be drawn."""
        return self.steps - self.start

    def indices(self) -> Tensor:
        """(N,) int64, the images of the epoch in order, of all processes."""
        generator = keyed_generator(self.seed, self.epoch)
        if not self.balanced:
            return torch.randperm(len(self.targets), generator=generator)
        frequency = torch.bincount(self.targets).double()
        weights = 1 / frequency[self.targets]
        return torch.multinomial(weights, len(self.targets), replacement=True, generator=generator)

    def span(self, step: int) -> slice:
        """Where the images of a step stand in `indices`."""
        end = len(self.targets) if step == self.steps - 1 else (step + 1) * self.step_size
        return slice(step * self.step_size, end)

    def __iter__(self) -> Iterator[list[Draw]]:
        indices, repeats = self.indices(), Counter[int]()
        for step in range(self.steps):
            draws = []
            for index in indices[self.span(step)].tolist():
                draws.append(Draw(index, self.epoch, repeats[index]))
                if self.balanced:
                    repeats[index] += 1
            if step >= self.start:
                yield draws[self.world.rank :: self.world.size]
