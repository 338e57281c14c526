"""An exponential moving average of the weights."""

from collections.abc import Mapping

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

Tensors = tuple[Tensor, ...] | list[Tensor]


class WeightAverage:
    """The average of a model's weights and batch-norm statistics over the steps so far, the newest counting most.

    average <- d * average + (1 - d) * weights with d = min(decay, (1 + t) / (10 + t)) after t earlier updates: short
    runs would else keep a share of their random beginning (Polyak & Juditsky 1992; the warm-up is TensorFlow's).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self._average = AveragedModel(model, multi_avg_fn=self._blend, use_buffers=True)

    @property
    def model(self) -> nn.Module:
        """A model of its own with the averaged weights."""
        return self._average.module

    def update(self, model: nn.Module) -> None:
        """Take in the weights after a step."""
        self._average.update_parameters(model)
        self.updates += 1

    def restore(self, weights: Mapping[str, Tensor], updates: int) -> None:
        """Go on from an average taken before."""
        self.model.load_state_dict(weights)
        self.updates = updates
        self._average.n_averaged.fill_(updates)  # else the next update would begin anew

    def _blend(self, averages: Tensors, weights: Tensors, _: object) -> None:
        rate = 1 - min(self.decay, (1 + self.updates) / (10 + self.updates))
        for average, weight in zip(averages, weights, strict=True):
            if average.is_floating_point():
                average.lerp_(weight, rate)
            else:  # batch norm counts its batches
                average.copy_(weight)
