"""The epochs of a training, one after another."""

import math
import time
from collections.abc import Callable
from dataclasses import replace

from evalcam_cli.config import RunConfig
from evalcam_cli.distributed import highest_of
from evalcam_cli.evaluation.metrics import Metrics
from evalcam_cli.progress import Progress, silent
from evalcam_cli.training.history import Best, EpochRecord
from evalcam_cli.training.interruption import Interrupted, Interruption
from evalcam_cli.training.optimisation import learning_rate
from evalcam_cli.training.position import TrainingState
from evalcam_cli.training.trainer import Trainer


def fit(
    trainer: Trainer,
    config: RunConfig,
    state: TrainingState,
    *,
    validate: Callable[[Progress], Metrics | None],
    save: Callable[[TrainingState, bool], None],
    progress: Progress = silent,
    watch: Callable[[EpochRecord], None] | None = None,
) -> TrainingState:
    """Train from a state to the last epoch, or until the patience runs out.

    SIGTERM and Ctrl-C let the step under way be finished and the state be saved, and then do what they always do.

    Args:
        trainer: Holds the weights that belong to the state.
        config: Of the run.
        state: Where to begin.
        validate: Metrics of the current weights on the validation images, telling the progress it is given; None when
            there are no images.
        save: Called after each epoch, and when interrupted, with the new state and whether it is the best so far.
        progress: Told after each step.
        watch: Called with the record of each epoch once it is saved; what it raises ends the training.
    """
    with Interruption() as interruption:

        def interrupted() -> bool:
            highest = highest_of(interruption.signal)  # the processes must leave at the same step
            if highest:  # else a signal that has arrived since then would be forgotten
                interruption.signal = highest
            return highest > 0

        def until_interrupted(task: str, done: int, total: int, note: str = "") -> None:
            progress(task, done, total, note)
            # several processes validate different numbers of batches: they cannot agree here
            if trainer.world.size == 1 and interruption.signal:
                raise Interrupted

        while not state.finished(config):
            state = _train(trainer, state, progress, interrupted)
            begin = time.perf_counter()
            try:
                if interrupted():
                    raise Interrupted
                metrics = validate(until_interrupted)
            except Interrupted:
                save(state, False)
                interruption.deliver()
                continue
            record = _record(trainer, state, metrics, time.perf_counter() - begin)
            state, is_best = _advanced(state, record, _score(metrics, config.train.monitor), config.train.patience)
            save(state, is_best)
            if watch is not None:
                watch(record)
    return state


def _train(
    trainer: Trainer, state: TrainingState, progress: Progress, interrupted: Callable[[], bool]
) -> TrainingState:
    begin = time.perf_counter()
    trained = trainer.train_epoch(state, progress, interrupted)
    return replace(trained, seconds=state.seconds + time.perf_counter() - begin)


def _record(trainer: Trainer, state: TrainingState, metrics: Metrics | None, seconds: float) -> EpochRecord:
    steps = trainer.order.steps
    return EpochRecord(
        epoch=state.epoch + 1,
        train_loss=state.loss_sum / state.seen,
        val_loss=_value(metrics, "log_loss"),
        val_accuracy=_value(metrics, "accuracy"),
        val_balanced_accuracy=_value(metrics, "balanced_accuracy"),
        lr=learning_rate((state.epoch + 1) * steps - 1, steps, trainer.config),
        images_per_second=state.seen / state.seconds,
        seconds=state.seconds + seconds,
    )


def _advanced(
    state: TrainingState, record: EpochRecord, score: float | None, patience: int
) -> tuple[TrainingState, bool]:
    loss = math.inf if record.val_loss is None else record.val_loss
    # without validation images the newest weights are the best there are
    is_best = score is None or state.best.is_beaten_by(score, loss)
    best = Best(record.epoch, -math.inf if score is None else score, loss) if is_best else state.best
    stop = patience > 0 and record.epoch - best.epoch >= patience
    return (
        TrainingState(record.epoch, best, (*state.history, record), stop),
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
