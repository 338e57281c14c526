"""One epoch of training, and the epochs one after another."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader

from evalcam_cli.config import RunConfig
from evalcam_cli.data.dataset import ImageDataset, make_loader, normalise
from evalcam_cli.data.order import TrainingOrder
from evalcam_cli.errors import DataError, UsageError
from evalcam_cli.evaluation.metrics import Metrics
from evalcam_cli.models.architectures import frozen_modules
from evalcam_cli.progress import Progress, silent
from evalcam_cli.text import listed
from evalcam_cli.training.history import Best, EpochRecord
from evalcam_cli.training.optimisation import class_weights, learning_rate, make_optimizer


@dataclass(frozen=True)
class TrainingState:
    """Where training stands after an epoch."""

    epoch: int = 0
    """Epochs finished."""
    best: Best = field(default_factory=Best)
    history: tuple[EpochRecord, ...] = ()
    stopped_early: bool = False

    def finished(self, config: RunConfig) -> bool:
        """Whether there is nothing left to train."""
        return self.stopped_early or self.epoch >= config.train.epochs


class Trainer:
    """Moves the weights of a model through the training images, one epoch at a time."""

    def __init__(
        self, model: nn.Module, dataset: ImageDataset, targets: Sequence[int], class_count: int, config: RunConfig,
        *, device: torch.device, workers: int,
    ) -> None:  # fmt: skip
        self.model, self.dataset, self.config, self.device = model, dataset, config.train, device
        self.targets = torch.tensor(targets)
        self.order = TrainingOrder(
            targets, batch_size=config.train.batch_size, seed=config.seed, balanced=config.train.sampling == "balanced"
        )
        self.loader: DataLoader[tuple[Tensor, int]] = make_loader(dataset, self.order, workers=workers, device=device)
        self.frozen = frozen_modules(model, config.model.freeze)
        for module in self.frozen:
            module.requires_grad_(False)
        self.optimizer = make_optimizer(model, config.train)
        weights = class_weights(list(targets), class_count, config.train.class_weights)
        self.class_weights = None if weights is None else weights.to(device)
        self.autocast = _autocast_dtype(config.train.precision, device)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.autocast is torch.float16)

    def train_epoch(self, epoch: int, progress: Progress = silent) -> tuple[float, float]:
        """Train once through the images.

        Args:
            epoch: From 0.
            progress: Told after each step.

        Returns:
            The mean loss over the images and the learning rate of the last step.

        Raises:
            DataError: The loss is no longer finite.
        """
        self.model.train()
        for module in self.frozen:
            module.eval()  # frozen batch norm keeps its statistics too
        self.order.epoch = epoch
        total, seen, rate, steps = 0.0, 0, 0.0, len(self.order)
        for step, (images, indices) in enumerate(self.loader):
            rate = learning_rate(epoch * steps + step, steps, self.config)
            loss = self._step(normalise(images, self.dataset.preprocessing, self.device), self.targets[indices], rate)
            if not math.isfinite(loss):
                names = listed(self.dataset.paths[int(index)] for index in indices)
                raise DataError(
                    f"the loss became {loss} in epoch {epoch + 1}, step {step + 1}, rate {rate:.2g} ({names});\n"
                    "lower train.lr or set train.clip_grad_norm to 1; the last good checkpoint is kept"
                )
            total, seen = total + loss * len(images), seen + len(images)
            progress(f"epoch {epoch + 1}/{self.config.epochs}", step + 1, steps, f"loss {total / seen:.3f}")
        return total / seen, rate

    def _step(self, images: Tensor, targets: Tensor, rate: float) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        with torch.autocast(self.device.type, self.autocast, enabled=self.autocast is not None):
            loss = functional.cross_entropy(
                self.model(images), targets.to(self.device), self.class_weights,
                label_smoothing=self.config.label_smoothing,
            )  # fmt: skip
        value = float(loss.detach())
        if math.isfinite(value):  # else the weights stay as they are
            self.optimizer.zero_grad(set_to_none=True)
            self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            if self.config.clip_grad_norm:
                self.scaler.unscale_(self.optimizer)
                nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_grad_norm)
            self.scaler.step(self.optimizer)
            self.scaler.update()
        return value


def _autocast_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    """The reduced type of the arithmetic, or None for full precision."""
    if precision == "fp16" and device.type == "cpu":
        raise UsageError("train.precision fp16 needs CUDA; on the CPU use fp32 or bf16")
    if precision == "auto":
        precision = "fp16" if device.type == "cuda" else "fp32"
    return {"fp16": torch.float16, "bf16": torch.bfloat16}.get(precision)


def fit(
    trainer: Trainer,
    config: RunConfig,
    state: TrainingState,
    *,
    validate: Callable[[], Metrics | None],
    save: Callable[[TrainingState, bool], None],
    progress: Progress = silent,
) -> TrainingState:
    """Train from a state to the last epoch, or until the patience runs out.

    Args:
        trainer: Holds the weights that belong to the state.
        config: Of the run.
        state: Where to begin.
        validate: Metrics of the current weights on the validation images; None when there are none.
        save: Called after each epoch with the new state and whether it is the best so far.
        progress: Told after each step.
    """
    while not state.finished(config):
        begin = time.perf_counter()
        train_loss, rate = trainer.train_epoch(state.epoch, progress)
        trained = time.perf_counter()
        metrics = validate()
        record = EpochRecord(
            epoch=state.epoch + 1,
            train_loss=train_loss,
            val_loss=_value(metrics, "log_loss"),
            val_accuracy=_value(metrics, "accuracy"),
            val_balanced_accuracy=_value(metrics, "balanced_accuracy"),
            lr=rate,
            images_per_second=len(trainer.targets) / (trained - begin),
            seconds=time.perf_counter() - begin,
        )
        state, is_best = _advanced(state, record, _score(metrics, config.train.monitor), config.train.patience)
        save(state, is_best)
    return state


def _advanced(
    state: TrainingState, record: EpochRecord, score: float | None, patience: int
) -> tuple[TrainingState, bool]:
    loss = math.inf if record.val_loss is None else record.val_loss
    # without validation images the newest weights are the best there are
    is_best = score is None or state.best.is_beaten_by(score, loss)
    best = Best(record.epoch, -math.inf if score is None else score, loss) if is_best else state.best
    stop = patience > 0 and record.epoch - best.epoch >= patience
    return (
        replace(state, epoch=record.epoch, best=best, history=(*state.history, record), stopped_early=stop),
        is_best,
    )


def _value(metrics: Metrics | None, name: str) -> float | None:
    return None if metrics is None else metrics.overall[name].estimate


def _score(metrics: Metrics | None, monitor: str) -> float | None:
    """The monitored value, higher is better; an undefined one is the worst."""
    if metrics is None:
        return None
    value = _value(metrics, "log_loss" if monitor == "loss" else monitor)
    if value is None:
        return -math.inf
    return -value if monitor == "loss" else value


def state_document(state: TrainingState) -> dict[str, Any]:
    """The state as plain data, for the checkpoint.

    The history stays in `history.csv`: its seconds differ from run to run, and equal runs shall give equal checkpoints.
    """
    score, loss = (None if math.isinf(value) else value for value in (state.best.score, state.best.loss))
    best = {"epoch": state.best.epoch, "score": score, "loss": loss}
    return {"epoch": state.epoch, "best": best, "stopped_early": state.stopped_early}


def state_from_document(document: dict[str, Any], history: Sequence[EpochRecord]) -> TrainingState:
    """The inverse of `state_document`; records of epochs that the state does not know are dropped.

    Raises:
        DataError: The history lacks an epoch.
    """
    known = tuple(record for record in history if record.epoch <= document["epoch"])
    if [record.epoch for record in known] != list(range(1, document["epoch"] + 1)):
        raise DataError(f"history.csv lacks some of the first {document['epoch']} epochs; restore it, or start anew")
    best, score, loss = (document["best"][key] for key in ("epoch", "score", "loss"))
    return TrainingState(
        epoch=document["epoch"],
        best=Best(best, -math.inf if score is None else score, math.inf if loss is None else loss),
        history=known,
        stopped_early=document["stopped_early"],
    )
