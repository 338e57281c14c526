"""What happened in each epoch."""

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from evalcam_cli.documents import read_csv
from evalcam_cli.errors import DataError
from evalcam_cli.text import shown


@dataclass(frozen=True)
class EpochRecord:
    """One row of `history.csv`."""

    epoch: int
    """From 1."""
    train_loss: float
    """Mean over the epoch's images, as augmented, while the weights moved (class weights count within each batch)."""
    val_loss: float | None
    """Mean negative log-likelihood over the validation images; None without any."""
    val_accuracy: float | None
    val_balanced_accuracy: float | None
    lr: float
    """Of the last step."""
    images_per_second: float
    """Training images over the seconds of training, validation not counted."""
    seconds: float
    """Of the whole epoch."""


HEADER = tuple(field.name for field in fields(EpochRecord))


def rows(history: Sequence[EpochRecord]) -> list[tuple[float | int | None, ...]]:
    """The rows of `history.csv`."""
    return [astuple(record) for record in history]


def read_history(path: Path) -> list[EpochRecord]:
    """The records of a `history.csv`.

    Raises:
        DataError: It is gone or cannot be read.
    """
    try:
        header, table = read_csv(path)
        if tuple(header) != HEADER:
            raise ValueError("other columns")
        return [EpochRecord(int(row[0]), *(float(cell) if cell else None for cell in row[1:])) for row in table]  # type: ignore[arg-type]
    except (OSError, ValueError, TypeError, IndexError) as error:
        raise DataError(f"cannot read {shown(path.absolute())}: {shown(error)}; a resume needs it") from error


@dataclass(frozen=True)
class Best:
    """The best epoch so far by the monitored metric; higher scores are better."""

    epoch: int = 0
    score: float = -math.inf
    loss: float = math.inf

    def is_beaten_by(self, score: float, loss: float) -> bool:
        """Whether the new epoch is better; equal scores are decided by the lower loss."""
        return (score, -loss) > (self.score, -self.loss)
