"""Whether a run underfits, overfits or is fine, the numbers behind that, and what to do about it."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from evalcam_cli.training.history import EpochRecord

_ADVICE = {
    "underfits": "train longer, raise the learning rate, use a larger network or pretrained weights, "
    "or weaken augmentation and weight decay",
    "overfits": "get more images, strengthen augmentation, weight decay or label smoothing, "
    "start from pretrained weights, freeze early stages, use a smaller network or stop earlier",
    "is fine": "keep these settings; confirm them with cross-validation before the test set is used",
    "cannot be judged": "set aside validation images (split.ratios) to tell under- from overfitting",
}


@dataclass(frozen=True)
class Diagnosis:
    """The verdict of `diagnose`, as written to `diagnosis.json`."""

    verdict: str
    """`underfits`, `overfits`, `is fine` or `cannot be judged`."""
    sentence: str
    advice: str
    train_accuracy: float | None
    """Of the best weights on a fixed part of the training images, with evaluation transforms."""
    val_accuracy: float | None
    gap: float | None
    """Training minus validation accuracy."""
    gap_standard_error: float | None
    train_images: int
    val_images: int
    chance: float
    """Accuracy of always naming the most frequent training class."""
    best_epoch: int
    epochs: int
    val_loss_best: float | None
    val_loss_last: float | None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def diagnose(
    *,
    train_accuracy: float,
    val_accuracy: float | None,
    train_images: int,
    val_images: int,
    chance: float,
    best_epoch: int,
    history: Sequence[EpochRecord],
) -> Diagnosis:
    """Judge a run by the accuracy on images it has learned from and on images it has not.

    The rules, in this order. Underfitting: training accuracy under 0.75 (where chance is lower), or less than half of
    the way from chance to 1, with a gap of at most 0.10 or two standard errors. Overfitting: a gap above 0.10 that
    exceeds two standard errors, or a gap above 0.05 with a validation loss that ends more than 25 % above its lowest
    value. Anything else is fine.
    """
    losses = [record.val_loss for record in history if record.val_loss is not None]
    gap = None if val_accuracy is None else train_accuracy - val_accuracy
    error = None if val_accuracy is None else _gap_error(train_accuracy, train_images, val_accuracy, val_images)
    verdict = _verdict(train_accuracy, gap, error, chance, losses)
    return Diagnosis(
        verdict=verdict,
        sentence=_sentence(verdict, train_accuracy, val_accuracy, gap, error, chance, best_epoch, len(history)),
        advice=_ADVICE[verdict],
        train_accuracy=train_accuracy,
        val_accuracy=val_accuracy,
        gap=gap,
        gap_standard_error=error,
        train_images=train_images,
        val_images=val_images,
        chance=chance,
        best_epoch=best_epoch,
        epochs=len(history),
        val_loss_best=min(losses, default=None),
        val_loss_last=losses[-1] if losses else None,
    )


def _gap_error(train: float, train_images: int, val: float, val_images: int) -> float:
    """Standard error of a difference of proportions, one success and one failure added (Agresti & Caffo 2000)."""

    def variance(rate: float, count: int) -> float:
        adjusted = (rate * count + 1) / (count + 2)
        return adjusted * (1 - adjusted) / (count + 2)

    return math.sqrt(variance(train, train_images) + variance(val, val_images))


def _verdict(train: float, gap: float | None, error: float | None, chance: float, losses: Sequence[float]) -> str:
    if gap is None or error is None:
        return "cannot be judged"
    learned_little = train < max(0.75 if chance < 0.75 else 0.0, chance + (1 - chance) / 2)
    if learned_little and gap <= max(0.10, 2 * error):
        return "underfits"
    loss_climbed = len(losses) > 1 and losses[-1] > 1.25 * min(losses)
    if (gap > 0.10 and gap > 2 * error) or (loss_climbed and gap > 0.05):
        return "overfits"
    return "is fine"


def _sentence(
    verdict: str, train: float, val: float | None, gap: float | None, error: float | None, chance: float,
    best_epoch: int, epochs: int,
) -> str:  # fmt: skip
    if val is None or gap is None or error is None:
        return f"The run cannot be judged: training accuracy {train:.3f}, no validation images."
    return (
        f"The run {verdict}: accuracy {train:.3f} on training images, {val:.3f} on validation images "
        f"(gap {gap:+.3f} ± {error:.3f}, chance {chance:.3f}), best epoch {best_epoch} of {epochs}."
    )
