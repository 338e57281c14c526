"""Where a training stands, as plain values."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from evalcam_cli.config import RunConfig
from evalcam_cli.errors import CheckpointError, DataError
from evalcam_cli.training.history import Best, EpochRecord


@dataclass(frozen=True)
class TrainingState:
    """Where training stands: after so many epochs and so many steps of the next one."""

    epoch: int = 0
    """Epochs finished."""
    best: Best = field(default_factory=Best)
    history: tuple[EpochRecord, ...] = ()
    stopped_early: bool = False
    step: int = 0
    """Steps made of the epoch under way; all of them when only its validation is missing."""
    loss_sum: float = 0.0
    """Of the images of these steps."""
    seen: int = 0
    """Images in these steps."""
    seconds: float = 0.0
    """That these steps took."""

    def finished(self, config: RunConfig) -> bool:
        """Whether there is nothing left to train."""
        return self.stopped_early or self.epoch >= config.train.epochs


def state_document(state: TrainingState) -> dict[str, Any]:
    """The state without its history, as kept in a checkpoint; JSON values only."""
    score = None if math.isinf(state.best.score) else state.best.score
    loss = None if math.isinf(state.best.loss) else state.best.loss
    return {
        "epoch": state.epoch,
        "best": {"epoch": state.best.epoch, "score": score, "loss": loss},
        "stopped_early": state.stopped_early,
        "step": state.step,
        "loss_sum": state.loss_sum,
        "seen": state.seen,
        "seconds": state.seconds,
    }


def require_state(document: object) -> None:
    """Refuse what `state_document` cannot have made.

    Raises:
        CheckpointError: Naming the entry.
    """
    best = document.get("best") if isinstance(document, dict) else None
    if not isinstance(document, dict) or not isinstance(best, dict):
        raise CheckpointError("its training state is no state of a run")
    counts = [document.get("epoch"), best.get("epoch"), *(document.get(key, 0) for key in ("step", "seen"))]
    amounts = [document.get(key, 0.0) for key in ("loss_sum", "seconds")] + [best.get(key) for key in ("score", "loss")]
    if (
        not all(type(count) is int and 0 <= count < 2**31 for count in counts)
        or not all(amount is None or type(amount) in (int, float) for amount in amounts)
        or not isinstance(document.get("stopped_early"), bool)
    ):
        raise CheckpointError("its training state holds numbers that cannot be")


def state_from_document(document: dict[str, Any], history: Sequence[EpochRecord]) -> TrainingState:
    """The inverse of `state_document`; records of epochs that the state does not know are dropped.

    Raises:
        DataError: The history lacks an epoch.
    """
    known = tuple(record for record in history if record.epoch <= document["epoch"])
    if len(known) != document["epoch"] or [record.epoch for record in known] != list(range(1, len(known) + 1)):
        raise DataError(f"history.csv lacks some of the first {document['epoch']} epochs; restore it, or start anew")
    best, score, loss = (document["best"][key] for key in ("epoch", "score", "loss"))
    return TrainingState(
        epoch=document["epoch"],
        best=Best(best, -math.inf if score is None else score, math.inf if loss is None else loss),
        history=known,
        stopped_early=document["stopped_early"],
        step=document.get("step", 0),
        loss_sum=document.get("loss_sum", 0.0),
        seen=document.get("seen", 0),
        seconds=document.get("seconds", 0.0),
    )
