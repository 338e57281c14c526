"""What a reader of the numbers must know, with what to do about it."""

import numpy as np
from numpy.typing import NDArray

from evalcam_cli.evaluation.counts import Counts
from evalcam_cli.evaluation.estimates import Caution
from evalcam_cli.evaluation.predictions import Predictions, row_blocks
from evalcam_cli.evaluation.statistics import Facts
from evalcam_cli.text import counted, listed

SMALL = 30
"""Images below which a class, or a whole set, says little: Wilson's interval of 27 of 30 is 0.74 to 0.97."""
FEW_GROUPS = 20
"""Groups (patients) below which their number decides what an interval by group is worth."""


def find(predictions: Predictions, facts: Facts, margins: Counts, *, skipped: bool) -> tuple[Caution, ...]:
    """Everything to be careful about, in a fixed order.

    Args:
        predictions: With finite scores.
        facts: Of these predictions.
        margins: Of their confusion matrix.
        skipped: Metrics of rank were not resampled.
    """
    n, k = len(predictions.targets), len(predictions.classes)
    support, predicted = margins.support, margins.predicted
    constant = np.array([np.ptp(scores) == 0 for _, scores in predictions.each_class()]) if n > 1 else np.zeros(k, bool)
    found = [
        _absent(_named(predictions, support == 0), k),
        _never_predicted(_named(predictions, (predicted == 0) & (support > 0))),
        _small_class(_named(predictions, (support > 0) & (support < SMALL))),
        _few_images(n),
        _few_groups(predictions),
        _degenerate(_named(predictions, constant)),
        _tied(_tied_images(predictions)),
        _saturated(int((predictions.confidence == 1).sum())),
        _impossible(int(np.isinf(facts.losses).sum())),
        _skipped(skipped),
    ]
    return tuple(caution for caution in found if caution)


def _named(predictions: Predictions, chosen: NDArray[np.bool_]) -> list[str]:
    return [predictions.classes[index] for index in np.flatnonzero(chosen)]


def _tied_images(predictions: Predictions) -> int:
    images = 0
    for start, stop in row_blocks(*predictions.logits.shape):
        scores = predictions.scores(start, stop)
        images += int(((scores == scores.max(axis=1, keepdims=True)).sum(axis=1) > 1).sum())
    return images


def _few_groups(predictions: Predictions) -> Caution | None:
    groups = predictions.group_count
    if groups is None or groups >= FEW_GROUPS:
        return None
    return Caution("few_groups", f"only {counted(groups, 'group')}: intervals by group are rough below {FEW_GROUPS}")


def _absent(names: list[str], k: int) -> Caution | None:
    return _caution(
        "absent_class",
        names,
        "has",
        f"no images in this set: {listed(names)}; what needs them is undefined, and averages over classes leave "
        f"it out ({k - len(names)} of {k} classes have images)",
    )


def _never_predicted(names: list[str]) -> Caution | None:
    return _caution(
        "never_predicted",
        names,
        "is",
        f"never predicted: {listed(names)}; the precision is undefined and left out of precision_macro, so look at "
        "recall_macro and f1_macro",
    )


def _small_class(names: list[str]) -> Caution | None:
    return _caution(
        "small_class",
        names,
        "has",
        f"fewer than {SMALL} images: {listed(names)}; bootstrap intervals are too narrow there, so collect more "
        "images or rely on recall and its Wilson interval",
    )


def _few_images(n: int) -> Caution | None:
    if n >= SMALL:
        return None
    return Caution(
        "few_images", f"only {counted(n, 'image')}: ece in particular is far too high by chance in small sets"
    )


def _degenerate(names: list[str]) -> Caution | None:
    return _caution(
        "degenerate_scores",
        names,
        "has",
        f"the same score for all images: {listed(names)}; its AUC of 0.5 says that nothing is ranked",
    )


def _tied(images: int) -> Caution | None:
    if not images:
        return None
    return Caution(
        "tied_predictions",
        f"{counted(images, 'image')} with the highest score for several classes: the first in class order is taken",
    )


def _saturated(images: int) -> Caution | None:
    if images < 2:
        return None
    return Caution(
        "saturated_probabilities",
        f"{counted(images, 'image')} with a probability that rounds to exactly 1: these tie in AUC and average "
        "precision, and probabilities near 0 do not, so the AUC of two classes may depend on which one is positive",
    )


def _impossible(images: int) -> Caution | None:
    if not images:
        return None
    return Caution(
        "infinite_log_loss",
        f"{counted(images, 'image')} with probability 0 for the true class, which makes log_loss infinite; save "
        "logits, or probabilities with more digits",
    )


def _skipped(skipped: bool) -> Caution | None:
    if not skipped:
        return None
    return Caution(
        "intervals_left_out",
        "average precision and averages of AUC have no intervals: resampling so many images and classes takes minutes",
    )


def _caution(code: str, names: list[str], verb: str, rest: str) -> Caution | None:
    if not names:
        return None
    plural = {"has": "have", "is": "are"}
    return Caution(code, f"{counted(len(names), 'class')} {verb if len(names) == 1 else plural[verb]} {rest}")
