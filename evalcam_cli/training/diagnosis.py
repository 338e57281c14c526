"""What is wrong with a run, the numbers behind that, and what to do about it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from evalcam_cli.training import symptoms
from evalcam_cli.training.history import EpochRecord
from evalcam_cli.training.symptoms import Facts, Finding

VERDICTS = (
    "validation_easier",
    "learning_rate_too_high",
    "learning_rate_too_low",
    "class_collapse",
    "too_few_images",
    "overfits",
    "underfits",
    "is fine",
    "cannot be judged",
)


@dataclass(frozen=True)
class Diagnosis:
    """The verdict of `diagnose`, as written to `diagnosis.json`."""

    verdict: str
    """One of `VERDICTS`: the code of the first finding."""
    sentence: str
    """Of the first finding, with the accuracies."""
    advice: str
    findings: tuple[Finding, ...]
    """All that the run shows, most serious first."""
    train_accuracy: float
    """Of the best weights on a fixed part of the training images, with evaluation transforms."""
    val_accuracy: float | None
    gap: float | None
    """Training minus validation accuracy, at validation's mix of classes."""
    gap_standard_error: float | None
    train_images: int
    """Behind `train_accuracy`."""
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
    history: Sequence[EpochRecord],
    best_epoch: int,
    classes: Sequence[str],
    train_counts: Sequence[int],
    train_confusion: ArrayLike,
    val_confusion: ArrayLike | None,
    lr: float,
    loss: str = "cross_entropy",
) -> Diagnosis:
    """Judge a run by its curves, and by what its best weights say of images it has learned from and of others.

    The rules, with their thresholds, are in `training.symptoms`. Their order: validation that is easier than training
    puts every other number in doubt; a wrong learning rate explains all that follows; a lost class is hidden by the
    accuracy; then the gap, and last what was not learned. Non-finite losses do not come here: they end a run.

    Args:
        history: One record per epoch, at least one.
        best_epoch: Whose weights were kept, from 1.
        classes: K names, in output order.
        train_counts: (K,) images of each class in the whole training set.
        train_confusion: (K, K) counts, rows true and columns predicted, of a fixed part of the training images, by the
            best weights and with evaluation transforms.
        val_confusion: The same of all validation images; None without any.
        lr: `train.lr`, the highest rate.
        loss: `train.loss`.
    """
    trained = np.asarray(train_confusion, dtype=np.int64)
    facts = Facts(
        history=tuple(history),
        best_epoch=best_epoch,
        classes=tuple(classes),
        train_counts=np.asarray(train_counts, dtype=np.int64),
        train_confusion=trained,
        val_confusion=np.zeros_like(trained) if val_confusion is None else np.asarray(val_confusion, dtype=np.int64),
        lr=lr,
        cross_entropy=loss == "cross_entropy",
    )
    findings = _findings(facts)
    losses = [record.val_loss for record in history if record.val_loss is not None]
    return Diagnosis(
        verdict=findings[0].code,
        sentence=f"{findings[0].sentence}{';' if ':' in findings[0].sentence else ':'} {facts.numbers}.",
        advice=findings[0].advice,
        findings=findings,
        train_accuracy=facts.train_accuracy,
        val_accuracy=facts.val_accuracy,
        gap=facts.gap if facts.val_images else None,
        gap_standard_error=facts.gap_standard_error if facts.val_images else None,
        train_images=facts.train_images,
        val_images=facts.val_images,
        chance=facts.chance,
        best_epoch=best_epoch,
        epochs=len(history),
        val_loss_best=min(losses, default=None),
        val_loss_last=losses[-1] if losses else None,
    )


def _findings(facts: Facts) -> tuple[Finding, ...]:
    """What the rules find, most serious first; the first is the verdict."""
    rate = symptoms.rate_too_high(facts) or symptoms.rate_too_low(facts)
    if not facts.val_images:
        unknown = Finding(
            "cannot be judged",
            "The run cannot be judged",
            "set aside validation images (split.ratios) to tell under- from overfitting",
        )
        return (unknown, rate) if rate else (unknown,)
    gap = symptoms.overfitting(facts)
    collapse = symptoms.collapse(facts)
    found = [symptoms.easier_validation(facts), rate]
    if collapse and (symptoms.rare(facts) or not (gap or facts.learned_little)):
        found.append(collapse)
        collapse = None
    found.append(gap)
    if not gap and not rate:
        found.append(symptoms.underfitting(facts))
    if not any(found):
        found.append(
            Finding(
                "is fine",
                "The run is fine",
                "keep these settings; confirm them with cross-validation before the test set is used",
            )
        )
    found += [collapse, symptoms.few_validation_images(facts)]
    return tuple(finding for finding in found if finding)
