"""Moves the weights of a model through the training images, one optimiser step after another."""

import contextlib
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from evalcam_cli.config import RunConfig
from evalcam_cli.data.dataset import ImageDataset, make_loader, normalise
from evalcam_cli.data.order import TrainingOrder
from evalcam_cli.distributed import from_first, on_each, sum_of, told_by_all
from evalcam_cli.errors import DivergedError, MemoryTooSmallError, UsageError
from evalcam_cli.models.architectures import frozen_modules, still_frozen
from evalcam_cli.progress import Progress, silent
from evalcam_cli.text import listed
from evalcam_cli.training.averaging import WeightAverage
from evalcam_cli.training.losses import image_losses, total_weight
from evalcam_cli.training.mixing import mix
from evalcam_cli.training.optimisation import class_weights, learning_rate, make_optimizer, set_rate
from evalcam_cli.training.position import TrainingState
from evalcam_cli.world import world

log = logging.getLogger("evalcam")


class Trainer:
    """Moves the weights of a model; everything that the next step depends on is in it and in a `TrainingState`."""

    def __init__(
        self, model: nn.Module, dataset: ImageDataset, targets: Sequence[int], class_count: int, config: RunConfig,
        *, device: torch.device, workers: int,
    ) -> None:  # fmt: skip
        self.model, self.dataset, self.device, self.world = model, dataset, device, world()
        self.config, self.stages, self.seed = config.train, config.model, config.seed
        self.targets = torch.tensor(targets)
        self.order = TrainingOrder(
            targets,
            step_size=config.train.batch_size * config.train.accumulate,
            seed=config.seed,
            balanced=config.train.sampling == "balanced",
            world=self.world,
        )
        self.at_once = config.train.batch_size
        """Images per forward pass, of all processes; halved when memory runs out."""
        if self.world.size * 2 > self.order.step_size:
            raise UsageError(
                f"train.batch_size times accumulate is {self.order.step_size}: "
                f"{self.world.size} processes need at least {2 * self.world.size}"
            )
        if self.world.size > 1 and len(targets) < 2 * self.world.size:
            raise UsageError(f"{len(targets)} training images are too few for {self.world.size} processes; start fewer")
        self.loader: DataLoader[tuple[Tensor, int]] = make_loader(dataset, self.order, workers=workers, device=device)
        if self.world.size > 1 and not config.model.freeze_batch_norm:
            _synchronise_batch_norm(model, device)
        never = [] if self.stages.thaw_every else frozen_modules(model, self.stages.freeze)
        self.optimizer = make_optimizer(model, config.train, never=never)
        weights = class_weights(list(targets), class_count, config.train.class_weights)
        self.class_weights = None if weights is None else weights.to(device)
        self.autocast = autocast_dtype(config.train.precision, device)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.autocast is torch.float16)
        self.average = WeightAverage(model, config.train.ema) if config.train.ema else None
        self._frozen: list[nn.Module] = []
        self._network: Callable[[Tensor], Tensor] | None = None

    @property
    def for_use(self) -> nn.Module:
        """The model with the weights that are validated and kept: their average, when there is one."""
        return self.model if self.average is None else self.average.model

    def train_epoch(
        self, state: TrainingState, progress: Progress = silent, interrupted: Callable[[], bool] = lambda: False
    ) -> TrainingState:
        """Train from a position to the end of its epoch, or until interrupted.

        Args:
            state: Where the weights stand.
            progress: Told after each step.
            interrupted: Asked after each step whether to leave.

        Returns:
            The new position, in the same epoch.

        Raises:
            DivergedError: The loss is no longer finite.
            MemoryTooSmallError: The memory is too small for a single image.
        """
        if state.step >= self.order.steps:
            return state
        self.begin_epoch(state.epoch)
        self.order.epoch, self.order.start = state.epoch, state.step
        indices = self.order.indices()
        for images, own in self.loader:
            whole = indices[self.order.span(state.step)]
            rate = learning_rate(state.epoch * self.order.steps + state.step, self.order.steps, self.config)
            loss = self.step(images, own, whole, rate, key=(self.seed, state.epoch, state.step))
            if not math.isfinite(loss):
                paths = on_each(lambda: [self.dataset.paths[int(index)] for index in own])  # noqa: B023 (called at once)
                names = listed(path for of_process in paths for path in of_process)
                fault = DivergedError(
                    f"the loss became {loss} in epoch {state.epoch + 1}, step {state.step + 1}, rate {rate:.2g} "
                    f"({names});\n"
                    "lower train.lr or set train.clip_grad_norm to 1; the last good checkpoint is kept"
                )
                raise told_by_all(fault)
            state = replace(
                state,
                step=state.step + 1,
                loss_sum=state.loss_sum + loss * len(whole),
                seen=state.seen + len(whole),
            )
            note = f"loss {state.loss_sum / state.seen:.3f}"
            progress(f"epoch {state.epoch + 1}/{self.config.epochs}", state.step, self.order.steps, note)
            if interrupted():
                break
        self._settle()
        return state

    def step(self, images: Tensor, own: Tensor, whole: Tensor, rate: float, *, key: tuple[int, ...]) -> float:
        """One optimiser step.

        Args:
            images: (n, 3, S, S) uint8, this process's share.
            own: (n,) their indices.
            whole: (N,) the indices of the images of all processes.
            rate: Learning rate of the head.
            key: What mixing depends on.

        Returns:
            The mean loss over the images of all processes; when it is not finite, the weights have not moved.
        """
        set_rate(self.optimizer, rate)
        weight = total_weight(self.targets[whole], self.class_weights)
        while True:
            buffers = [buffer.clone() for buffer in self.model.buffers()]
            try:
                passes = self._passes(len(whole))
                loss = self._add_gradients(images, self.targets[own], weight, passes, (*key, self.world.rank))
                break
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                message = str(error)
            with torch.no_grad():  # what the failed attempt did to the batch-norm statistics
                for buffer, before in zip(self.model.buffers(), buffers, strict=True):
                    buffer.copy_(before)
            self._halve(message)
        loss = sum_of(loss)
        if math.isfinite(loss):
            self._move()
        return loss

    def _passes(self, count: int) -> int:
        """Forward passes for a step of so many images: equally many in all processes, and none of them empty.

        Where a last step has joined the one before it, a pass may have an image more, rather than the last pass one
        image alone, from which batch norm cannot learn.
        """
        most = max(1, self.at_once // self.world.size)
        share = -(-count // self.world.size)
        return max(1, min(-(-(share - (most > 1)) // most), count // self.world.size))

    def _add_gradients(
        self, images: Tensor, targets: Tensor, weight: float, passes: int, key: tuple[int, ...]
    ) -> float:
        """The gradient of the step's mean loss, in `.grad`; and this process's part of that loss."""
        self.optimizer.zero_grad(set_to_none=True)
        inputs = normalise(images, self.dataset.preprocessing, self.device)
        if not self.config.channels_last:
            inputs = inputs.contiguous()
        targets = targets.to(self.device)
        mixture = mix(inputs, self.config, key)
        partners, share = targets, 1.0
        if mixture is not None:
            inputs, partners, share = mixture.images, targets[mixture.partners], mixture.share
        parts = list(zip(*(one.tensor_split(passes) for one in (inputs, targets, partners)), strict=True))
        total, network = torch.zeros((), device=self.device), self._prepared_network()
        for number, part in enumerate(parts):
            with _unsynchronised(network, wanted=number < passes - 1):
                loss = self._loss(network, *part, share=share) / weight
                # the engine takes the mean of the processes' gradients, wanted is their sum
                self.scaler.scale(loss * self.world.size).backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        return float(total)

    def _loss(
        self, network: Callable[[Tensor], Tensor], inputs: Tensor, targets: Tensor, partners: Tensor, *, share: float
    ) -> Tensor:
        """The sum of the images' losses."""
        with torch.autocast(self.device.type, self.autocast, enabled=self.autocast is not None):
            logits = network(inputs)
            losses = image_losses(logits, targets, self.config, self.class_weights)
            if share < 1:
                others = image_losses(logits, partners, self.config, self.class_weights)
                losses = share * losses + (1 - share) * others
        return losses.sum()

    def _move(self) -> None:
        if self.config.clip_grad_norm:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_grad_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.average is not None:
            self.average.update(self.model)

    def _halve(self, message: str) -> None:
        """Half as many images at once from here on; the step, and so the schedule, stays what it is."""
        first_line = message.partition("\n")[0][:120]
        if self.world.size > 1 or self.at_once == 1:
            raise MemoryTooSmallError(
                f"out of memory with {self.at_once} images of {self.dataset.preprocessing.image_size} px at a time "
                f"({first_line});\nlower train.batch_size and raise train.accumulate, lower data.image_size, or take a "
                "smaller model.arch"
            )
        self.optimizer.zero_grad(set_to_none=True)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        self.at_once //= 2
        log.warning(
            "out of memory: going on with %d images at a time and their gradients added up; steps still have %d images",
            self.at_once,
            self.order.step_size,
        )

    def begin_epoch(self, epoch: int) -> None:
        """Training mode, and frozen what is frozen in this epoch."""
        frozen = frozen_modules(self.model, still_frozen(self.stages.freeze, self.stages.thaw_every, epoch))
        if len(frozen) != len(self._frozen):
            self._network = None  # the engine must learn which parameters have gradients
        self._frozen = frozen
        self.model.requires_grad_(True)
        self.model.train()
        for module in frozen:
            module.requires_grad_(False)
            module.eval()  # frozen batch norm keeps its statistics too
        if self.stages.freeze_batch_norm:
            for module in batch_norms(self.model):
                module.eval()

    def _prepared_network(self) -> Callable[[Tensor], Tensor]:
        """The model as it is called in training: compiled when asked for, within the engine when not alone."""
        if self._network is None:
            network: Any = self.model
            if self.world.size > 1:
                network = DistributedDataParallel(network)
            self._network = torch.compile(network) if self.config.compile else network
        return self._network

    def _settle(self) -> None:
        """Batch-norm statistics are those of the first process: each has seen other images."""
        for model in {id(one): one for one in (self.model, self.for_use)}.values():
            for buffer in model.buffers():
                from_first(buffer)


def _unsynchronised(network: object, *, wanted: bool) -> contextlib.AbstractContextManager[None]:
    """Within it gradients stay in this process, to be added up."""
    inner = getattr(network, "_orig_mod", network)  # inside what torch.compile returns
    if wanted and isinstance(inner, DistributedDataParallel):
        return inner.no_sync()
    return contextlib.nullcontext()


def batch_norms(model: nn.Module) -> list[nn.Module]:
    """The batch-norm layers of a model."""
    return [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]


def _synchronise_batch_norm(model: nn.Module, device: torch.device) -> None:
    """Let batch norm see the images of all processes, where torch can."""
    if device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    elif world().first:
        log.warning(
            "on CPUs torch cannot synchronise batch norm: each of the %d processes normalises its own share of a batch",
            world().size,
        )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch or Python failed to get memory; the CPU's allocator says so in words only."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(
        words in str(error).lower() for words in ("can't allocate memory", "not enough memory", "out of memory")
    )


def _has_bf16() -> bool:
    there = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return bool(there and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def autocast_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    """The reduced type of the arithmetic, or None for full precision.

    Raises:
        UsageError: fp16 on a CPU.
    """
    if precision == "fp16" and device.type == "cpu":
        raise UsageError("train.precision fp16 needs CUDA; on the CPU use fp32 or bf16")
    if precision == "bf16" and device.type == "cpu" and not _has_bf16():
        log.warning("this CPU has no bf16 arithmetic: train.precision bf16 is slower here than fp32")
    if precision == "auto":
        precision = "fp16" if device.type == "cuda" else "fp32"
    return {"fp16": torch.float16, "bf16": torch.bfloat16}.get(precision)
