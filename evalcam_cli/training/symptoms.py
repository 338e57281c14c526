"""What a finished run shows of each fault: one rule per function, every threshold with its reason.

Losses are in nats, K is the number of classes, and log K is what it costs to call all classes equally likely: for cross
entropy also with label smoothing, mixup and class weights; the focal loss stays below it. Standard errors take images
as independent; where groups of images hang together they are too small.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from evalcam_cli.text import counted, listed, shown
from evalcam_cli.training.history import EpochRecord

FEW_IMAGES = 20
"""Training images per class below which learning is called few-shot; a network from scratch has nothing to go by."""
_LARGE_GAP, _SMALL_GAP = 0.10, 0.05
_LEARNED = 0.75
_OVERSHOOT = 3.0
_BARELY = 0.15
_MOVING = 1e-3
_UNSURE = 2 / 3
_KNOWN = 0.4


@dataclass(frozen=True)
class Finding:
    """One thing that a run shows."""

    code: str
    sentence: str
    """With the numbers that it rests on."""
    advice: str


@dataclass(frozen=True)
class Facts:
    """What is known of a finished run."""

    history: tuple[EpochRecord, ...]
    best_epoch: int
    """From 1."""
    classes: tuple[str, ...]
    train_counts: NDArray[np.int64]
    """(K,) training images of each class."""
    train_confusion: NDArray[np.int64]
    """(K, K) counts, rows are true classes: training images seen with evaluation transforms by the best weights."""
    val_confusion: NDArray[np.int64]
    """(K, K) counts of the validation images; zeros without any."""
    lr: float
    """The highest learning rate."""
    cross_entropy: bool = True
    """Whether the training loss is one, and so comparable to that of validation; the focal loss is lower."""

    @cached_property
    def train_images(self) -> int:
        """Images in `train_confusion`."""
        return int(self.train_confusion.sum())

    @cached_property
    def val_images(self) -> int:
        return int(self.val_confusion.sum())

    @cached_property
    def chance(self) -> float:
        """Accuracy of always naming the most frequent training class."""
        return float(self.train_counts.max() / self.train_counts.sum())

    @cached_property
    def train_accuracy(self) -> float:
        return float(self.train_confusion.trace() / self.train_images)

    @cached_property
    def val_accuracy(self) -> float | None:
        return float(self.val_confusion.trace() / self.val_images) if self.val_images else None

    @cached_property
    def gap(self) -> float:
        """Training minus validation accuracy, at validation's mix of classes; NaN without validation images.

        The training accuracy is the mean of the classes' recalls weighed by their shares of the validation images, so
        that sets with different shares of the classes can be compared. A class without images in the training part has
        the overall accuracy.
        """
        return self._matched[0] - self.val_accuracy if self.val_accuracy is not None else math.nan

    @cached_property
    def gap_standard_error(self) -> float:
        """Of `gap`; one success and one failure are added on either side (Agresti & Caffo 2000)."""
        if self.val_accuracy is None:
            return math.nan
        rate, effective = self._matched
        return math.sqrt(_variance(rate, effective) + _variance(self.val_accuracy, self.val_images))

    @cached_property
    def _matched(self) -> tuple[float, float]:
        """Accuracy of the training part at validation's mix of classes, and how many images that is worth."""
        there = self.train_confusion.sum(axis=1)
        shares = self.val_confusion.sum(axis=1) / self.val_images
        measured = (there > 0) & (shares > 0)
        if not measured.any():
            return self.train_accuracy, float(self.train_images)
        recalls = np.where(measured, self.train_confusion.diagonal() / np.maximum(there, 1), self.train_accuracy)
        # the variance of a weighted mean of proportions, sum of w^2 p (1 - p) / n, is p (1 - p) / n_eff at equal p
        effective = shares[measured].sum() ** 2 / (shares[measured] ** 2 / there[measured]).sum()
        return float(recalls @ shares), float(effective)

    @cached_property
    def inaccurate(self) -> bool:
        """Training accuracy under 0.75 (where chance is lower), or less than half of the way from chance to 1."""
        least = self.chance + (1 - self.chance) / 2
        return self.train_accuracy < max(_LEARNED if self.chance < _LEARNED else 0.0, least)

    @cached_property
    def learned_little(self) -> bool:
        """Whether the training images are told badly, or neither loss of the best epoch is below two thirds of log K.

        The latter is mostly right, and hardly surer than before. Of the two losses the lower one counts: overfitting
        and batch norm's lagging statistics raise the one of validation, label smoothing and mixup that of training.
        Never where training images are known `by_heart`.
        """
        best = self.best_epoch - 1
        loss = np.fmin(self.train_losses[best], self.val_losses[best])
        return not self.by_heart and (self.inaccurate or bool(loss > _UNSURE * math.log(len(self.classes))))

    @cached_property
    def by_heart(self) -> bool:
        """Whether training images are known and validation images guessed, by the losses of the last epoch.

        The training loss is below 0.4 of the entropy of the class frequencies, the validation loss above two thirds of
        log K, and the validation accuracy less than half of the way from chance to 1. The accuracy on training images
        may hide it: after few steps the running statistics of batch norm, of which each step keeps nine tenths, are far
        from those of a batch.
        """
        if self.val_accuracy is None or not self.cross_entropy:
            return False
        shares = self.train_counts[self.train_counts > 0] / self.train_counts.sum()
        known, asked = self.train_losses[-1], self.val_losses[-1]
        return bool(
            known < -_KNOWN * (shares @ np.log(shares))
            and asked > _UNSURE * math.log(len(self.classes))
            and self.val_accuracy < self.chance + (1 - self.chance) / 2
        )

    @property
    def typical_count(self) -> float:
        """Training images of a class: the median over the classes."""
        return float(np.median(self.train_counts))

    @cached_property
    def lost(self) -> list[int]:
        """Classes that the network has given up: hardly ever named, and hardly ever found.

        Named at most a quarter as often as they occur among the validation images, with a recall of at most 0.1. Only
        classes with at least 5 validation images are judged: at a true recall of one half, none of 5 is found in 3 %.
        """
        there, named = self.val_confusion.sum(axis=1), self.val_confusion.sum(axis=0)
        gone = (there >= 5) & (named <= 0.25 * there) & (self.val_confusion.diagonal() <= 0.1 * there)
        return [int(k) for k in np.flatnonzero(gone)]

    @cached_property
    def train_losses(self) -> NDArray[np.float64]:
        return np.array([record.train_loss for record in self.history])

    @cached_property
    def val_losses(self) -> NDArray[np.float64]:
        """NaN without validation images."""
        return np.array([math.nan if record.val_loss is None else record.val_loss for record in self.history])

    @property
    def numbers(self) -> str:
        """The accuracies in words."""
        if self.val_accuracy is None:
            return f"training accuracy {self.train_accuracy:.3f}, chance {self.chance:.3f}, no validation images"
        return (
            f"accuracy {self.train_accuracy:.3f} on training images, {self.val_accuracy:.3f} on validation images "
            f"(gap {self.gap:+.3f} ± {self.gap_standard_error:.3f}, chance {self.chance:.3f}), "
            f"best epoch {self.best_epoch} of {len(self.history)}"
        )


def _variance(rate: float, count: float) -> float:
    adjusted = (rate * count + 1) / (count + 2)
    return adjusted * (1 - adjusted) / (count + 2)


def rate_too_high(facts: Facts) -> Finding | None:
    """Steps that throw the weights about, and a network that did not get over it.

    Sign: the mean training loss of an epoch is above 3 log K. A random head starts at 1.0 to 1.2 log K; the first steps
    at ordinary rates drove it up to 2.7 log K, rates a hundred times too high to 4.6 log K and more (all runs of
    `tests.benchmarks.record_curves`). Harm: the training images are told badly.
    """
    uniform = math.log(len(facts.classes))
    worst = int(np.argmax(facts.train_losses))
    overshoot = facts.train_losses[worst] > _OVERSHOOT * uniform
    if not (overshoot and facts.inaccurate):
        return None
    return Finding(
        "learning_rate_too_high",
        f"The learning rate {facts.lr:.2g} is too high: the training loss was {facts.train_losses[worst]:.3g} in epoch "
        f"{worst + 1}, where calling all classes equally likely costs {uniform:.3g}",
        "divide train.lr by 10 (`evalcam lr-find` measures it), lengthen train.warmup_epochs, or set "
        "train.clip_grad_norm to 1",
    )


def rate_too_low(facts: Facts) -> Finding | None:
    """A network that has hardly moved, with a rate at which it could not.

    After three epochs or more the training loss has lost less than 15 % of its start, the training accuracy is less
    than a quarter of the way from chance to 1 (a frozen or small network gets further, and underfits), and the rate is
    below 1e-3: at that rate and above both AdamW and SGD with momentum do move a network, so that a flat loss has
    another reason (weight decay, labels that say nothing).
    """
    first, last = facts.train_losses[0], facts.train_losses[-1]
    near_chance = facts.train_accuracy < facts.chance + (1 - facts.chance) / 4
    if len(facts.history) < 3 or facts.lr >= _MOVING or not near_chance or last < (1 - _BARELY) * first:
        return None
    return Finding(
        "learning_rate_too_low",
        f"The learning rate {facts.lr:.2g} is too low: in {len(facts.history)} epochs the training loss went from "
        f"{first:.3f} to {last:.3f} only",
        "multiply train.lr by 10 or more (`evalcam lr-find` measures it), or train much longer",
    )


def easier_validation(facts: Facts) -> Finding | None:
    """Validation images that are told better than images the network has learned from.

    Accuracies with evaluation transforms are compared, not losses: augmentation, mixup, label smoothing and moving
    weights all make the training loss the higher one. At equal difficulty training images are told at least as well;
    only noise can turn that round. Three standard errors and 0.05: validation accuracy is the best of several epochs,
    and the best of 15 without any trend lies 1.7 of its own standard errors too high.
    """
    if facts.val_accuracy is None or facts.gap > -max(_SMALL_GAP, 3 * facts.gap_standard_error):
        return None
    return Finding(
        "validation_easier",
        f"Validation is easier than training: {-facts.gap:.3f} ({-facts.gap / facts.gap_standard_error:.1f} standard "
        "errors) more of its images are told right",
        "look for copies of training images in validation (`evalcam audit`), for subjects in both sets (--group-by), "
        "for sets of different origin, and for wrong labels in training",
    )


def collapse(facts: Facts) -> Finding | None:
    """Classes that are hardly ever named (`Facts.lost`)."""
    there, named = facts.val_confusion.sum(axis=1), facts.val_confusion.sum(axis=0)
    lost = facts.lost
    if not lost:
        return None
    listing = listed(
        f"{shown(facts.classes[k])} ({counted(int(facts.train_counts[k]), 'training image')})" for k in lost
    )
    return Finding(
        "class_collapse",
        f"{len(lost)} of {len(facts.classes)} classes are hardly ever predicted: {listing}; "
        f"{int(named[lost].sum())} predictions for {int(there[lost].sum())} validation images",
        "get more images of these classes, set train.class_weights or train.sampling to balanced, and monitor "
        "balanced_accuracy",
    )


def overfitting(facts: Facts) -> Finding | None:
    """Training images told better than validation images by more than noise explains.

    A gap above 0.10 and two standard errors; or a gap above 0.05 with a validation loss that turned: in both of the
    last two epochs (one may be noise) it is 25 % above its lowest value, while the training loss kept falling; or
    training images that are known `by_heart`.
    """
    if facts.val_accuracy is None:
        return None
    losses = facts.val_losses
    lowest = int(np.argmin(np.nan_to_num(losses, nan=np.inf, posinf=np.inf)))
    end = float(losses[-2:].min())
    turned = (
        lowest < len(losses) - 2 and end > 1.25 * losses[lowest] and facts.train_losses[-1] < facts.train_losses[lowest]
    )
    large = facts.gap > max(_LARGE_GAP, 2 * facts.gap_standard_error)
    if not (large or facts.by_heart or (turned and facts.gap > _SMALL_GAP)):
        return None
    after = ""
    if turned:
        after = f"; the validation loss rose from {losses[lowest]:.3f} in epoch {lowest + 1} to {losses[-1]:.3f}"
    elif facts.by_heart:
        after = f"; the last loss is {facts.train_losses[-1]:.3f} in training and {losses[-1]:.3f} in validation"
    if facts.typical_count < FEW_IMAGES:
        return _few_images(facts, after)
    return Finding(
        "overfits",
        f"The run overfits{after}",
        "get more images, strengthen augmentation, weight decay or label smoothing, start from pretrained weights, "
        "freeze early stages, use a smaller network or stop earlier; check the labels (`evalcam audit`)",
    )


def underfitting(facts: Facts) -> Finding | None:
    """Training images not learned, and validation images hardly worse.

    With few images the network has seen few steps too: they are named first.
    """
    if not facts.learned_little:
        return None
    if facts.typical_count < FEW_IMAGES:
        return _few_images(facts, "")
    return Finding(
        "underfits",
        "The run underfits",
        "train longer, raise the learning rate, use a larger network or pretrained weights, or weaken augmentation and "
        "weight decay",
    )


def _few_images(facts: Facts, after: str) -> Finding:
    return Finding(
        "too_few_images",
        f"{facts.typical_count:g} training images per class are too few to learn what holds for others{after}",
        "get more images (at least 50 per class), start from pretrained weights, freeze early stages, and compare "
        "settings by cross-validation",
    )


def rare(facts: Facts) -> bool:
    """Whether a lost class has less than half as many training images as the mean of the classes."""
    return bool((facts.train_counts[facts.lost] < 0.5 * facts.train_counts.mean()).any())


def few_validation_images(facts: Facts) -> Finding | None:
    """A validation accuracy that is known to no better than ± 0.10 (95 %)."""
    if facts.val_accuracy is None:
        return None
    margin = 1.96 * math.sqrt(_variance(facts.val_accuracy, facts.val_images))
    if margin <= 0.10:
        return None
    return Finding(
        "few_validation_images",
        f"The validation accuracy {facts.val_accuracy:.3f} rests on {counted(facts.val_images, 'image')} and is known "
        f"to ± {margin:.2f} only",
        "set more images aside for validation, or judge by cross-validation (--folds)",
    )
