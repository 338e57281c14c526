"""What the trained rounds of a cross-validation say about each other, by their validation images alone."""

import json
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evalcam_cli.errors import DataError
from evalcam_cli.text import shown
from evalcam_cli.training.history import read_history

VALIDATION = ("val_loss", "val_accuracy", "val_balanced_accuracy")
HEADER = ("round", "repeat", "fold", "epochs", "best_epoch", *VALIDATION, "diagnosis", "weights_sha256")
NOTE = (
    "of the validation images of each round, by which its best epoch was chosen: too good for a result; "
    "`evaluate` measures the test folds"
)


@dataclass(frozen=True)
class RoundSummary:
    """One round, as far as it is the same whenever the training is repeated: no times."""

    number: int
    """repeat * folds + fold."""
    epochs: int
    """Epochs trained."""
    best_epoch: int
    """From 1; its weights are those in `checkpoints/best.safetensors`."""
    validation: dict[str, float | None]
    """After the best epoch, by the names in `VALIDATION`; None without validation images."""
    diagnosis: str | None
    """The verdict in `diagnosis.json`."""
    weights_sha256: str
    """Of the last epoch's tensors, training state included."""


@dataclass(frozen=True)
class RoundTable:
    """All rounds of a cross-validation."""

    rounds: tuple[RoundSummary, ...]
    folds: int
    repeats: int

    def mean(self, name: str) -> float | None:
        """Over the rounds that have the number; None when none has."""
        values = self._values(name)
        return statistics.fmean(values) if values else None

    def sd(self, name: str) -> float | None:
        """With a degree of freedom less than rounds; None for fewer than 2.

        No standard error follows from it: rounds share their training images.
        """
        values = self._values(name)
        return statistics.stdev(values) if len(values) > 1 else None

    def _values(self, name: str) -> list[float]:
        return [value for one in self.rounds if (value := one.validation[name]) is not None]

    def document(self) -> dict[str, Any]:
        """The content of `summary.json`."""
        return {
            "schema_version": 1,
            "folds": self.folds,
            "repeats": self.repeats,
            "subset": "val",
            "note": NOTE,
            "rounds": [dict(zip(HEADER, row, strict=True)) for row in self._round_rows()],
            "mean": {name: self.mean(name) for name in VALIDATION},
            "sd": {name: self.sd(name) for name in VALIDATION},
        }

    def rows(self) -> Iterator[tuple[object, ...]]:
        """A row per round, then their mean and SD, with the columns of `HEADER`."""
        yield from self._round_rows()
        for title, of in (("mean", self.mean), ("sd", self.sd)):
            yield (title, None, None, None, None, *map(of, VALIDATION), None, None)

    def _round_rows(self) -> Iterator[tuple[object, ...]]:
        for one in self.rounds:
            numbers = (one.number, *divmod(one.number, self.folds), one.epochs, one.best_epoch)
            validation = (one.validation[name] for name in VALIDATION)
            yield (*numbers, *validation, one.diagnosis, one.weights_sha256)


def summarise_round(number: int, folder: Path, *, epochs: int, best_epoch: int, weights_sha256: str) -> RoundSummary:
    """What a finished run folder says.

    Raises:
        DataError: Its history or its diagnosis cannot be read.
    """
    record = read_history(folder / "history.csv")[best_epoch - 1]
    return RoundSummary(
        number, epochs, best_epoch, {name: getattr(record, name) for name in VALIDATION}, _verdict(folder),
        weights_sha256,
    )  # fmt: skip


def _verdict(folder: Path) -> str | None:
    path = folder / "diagnosis.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["verdict"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"cannot read {shown(path.absolute())}: {shown(error)[:200]}") from error
    return str(found)
