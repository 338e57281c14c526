"""Which images each step of training uses: a function of the seed and the epoch alone."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch.utils.data import Sampler

from evalcam_cli.data.augmentation import keyed_generator


@dataclass(frozen=True, slots=True)
class Draw:
    """One use of one image."""

    index: int
    epoch: int = 0
    repeat: int = 0
    """How often this image was drawn before in this epoch (sampling with replacement)."""


class TrainingOrder(Sampler[list[Draw]]):
    """The batches of one epoch; set `epoch` before iterating."""

    def __init__(self, targets: Sequence[int], *, batch_size: int, seed: int, balanced: bool) -> None:
        self.targets = torch.tensor(targets)
        self.batch_size, self.seed, self.balanced = batch_size, seed, balanced
        self.epoch = 0

    def __len__(self) -> int:
        """Steps per epoch."""
        count = len(self.targets)
        # batch norm cannot learn from a single image: a last batch of one joins the batch before it
        return max(1, count // self.batch_size + (count % self.batch_size > 1))

    def __iter__(self) -> Iterator[list[Draw]]:
        order, repeats, draws = self._order(), Counter[int](), []
        for index in order:
            draws.append(Draw(index, self.epoch, repeats[index]))
            repeats[index] += 1
        steps = len(self)
        for step in range(steps):
            end = len(draws) if step == steps - 1 else (step + 1) * self.batch_size
            yield draws[step * self.batch_size : end]

    def _order(self) -> list[int]:
        generator = keyed_generator(self.seed, self.epoch)
        if not self.balanced:
            return torch.randperm(len(self.targets), generator=generator).tolist()
        frequency = torch.bincount(self.targets).double()
        weights = 1 / frequency[self.targets]
        return torch.multinomial(weights, len(self.targets), replacement=True, generator=generator).tolist()
