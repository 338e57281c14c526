"""The threshold at which an image is called positive: chosen on validation images, applied unchanged to others."""

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr

from evalcam_cli.errors import DataError, UsageError
from evalcam_cli.evaluation.estimates import Caution
from evalcam_cli.evaluation.ranking import called_by_score
from evalcam_cli.text import counted, did_you_mean, listed, shown

Floats = NDArray[np.float64]
RuleKind = Literal["youden", "sensitivity", "specificity", "cost"]

FEW_IMAGES = 50
"""Validation images of a class below which a threshold is a matter of luck."""
_FORMS = "youden, sensitivity=0.95, specificity=0.9 or cost=1:5"
_SHORTFALL = 0.05  # how far below its target a rate may truly be before the warning calls it missed


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold on the probability of one class, and what it was worth on the validation images it came from."""

    positive: str
    """The class called when its probability is at least the threshold."""
    threshold: float
    """In (0, 1], of the probability after temperature scaling."""
    rule: str
    """How it was chosen: `youden`, `sensitivity>=0.95`, `specificity>=0.9`, `cost 1:5`."""
    positives: int
    """Validation images of the positive class."""
    negatives: int
    """Validation images of all other classes."""
    sensitivity: float
    """Share of the validation positives called positive."""
    specificity: float
    """Share of the validation negatives not called positive."""

    def to_dict(self) -> dict[str, Any]:
        """As stored in checkpoints and `metrics.json`."""
        return asdict(self)


@dataclass(frozen=True)
class Rule:
    """How to choose a threshold."""

    kind: RuleKind
    text: str
    """In its quoted form, such as `sensitivity>=0.95`."""
    share: float = math.nan
    """The sensitivity or specificity demanded."""
    threshold: float = math.nan
    """Of a cost rule: c_FP / (c_FP + c_FN), where calling an image costs as much as not calling it."""


def parse_rule(text: str) -> Rule:
    """The rule that a user wrote.

    `youden`; `sensitivity>=0.95`; `specificity>=0.9`; `cost 1:5`, which says that a false negative costs five times
    what a false positive costs. `sensitivity=0.95` and `cost=1:5` need no quotes in a shell and mean the same.

    Raises:
        UsageError: It is none of these.
    """
    name, _, rest = re.sub(r"\s*(>=|=|\s)\s*", " ", text.strip(), count=1).partition(" ")
    kind, rest = name.lower(), rest.strip()
    if kind == "youden" and not rest:
        return Rule("youden", "youden")
    if kind in ("sensitivity", "specificity"):
        if not rest:
            raise UsageError(
                f"operating point {shown(text)!r} has no value; write {kind}=0.95, or quote it: the shell took `>`"
            )
        return Rule(cast(RuleKind, kind), f"{kind}>={rest}", share=_share(text, rest))
    if kind == "cost":
        costs = _costs(text, rest)
        return Rule("cost", f"cost {rest.replace(' ', '')}", threshold=costs[0] / (costs[0] + costs[1]))
    hint = did_you_mean(kind, ("youden", "sensitivity", "specificity", "cost"))
    raise UsageError(f"unknown operating point {shown(text)!r}{hint}; expected {_FORMS}")


def _share(text: str, number: str) -> float:
    try:
        share = float(number)
    except ValueError:
        share = math.nan
    if not 0 < share <= 1:
        raise UsageError(f"operating point {shown(text)!r}: expected a share above 0 and up to 1, such as 0.95")
    return share


def _costs(text: str, ratio: str) -> tuple[float, float]:
    """Costs of a false positive and a false negative."""
    try:
        false_positive, false_negative = (float(part) for part in ratio.split(":"))
    except ValueError:
        false_positive = false_negative = math.nan
    if not (0 < false_positive < 1e9 and 0 < false_negative < 1e9):
        raise UsageError(
            f"operating point {shown(text)!r}: expected the costs of a false positive and a false negative, "
            "both above 0, such as cost=1:5"
        )
    return false_positive, false_negative


def choose_operating_point(
    probability: Floats, actual: NDArray[np.bool_], *, positive: str, rule: Rule
) -> OperatingPoint:
    """The threshold that a rule gives on validation images.

    An image is called positive at p ≥ threshold. Apart from the cost rule, thresholds are probabilities that occur
    (pROC prints the midpoint to the next one instead, which calls the same images). Of equal values of Youden's J =
    Se + Sp - 1 (Youden, "Index for rating diagnostic tests", Cancer 1950) the highest threshold is taken, compared in
    whole numbers, so that rounding decides nothing; a sensitivity rule takes the highest threshold that meets it, a
    specificity rule the lowest. A cost rule takes c_FP / (c_FP + c_FN), which is least costly when the probabilities
    are calibrated (Elkan, "The foundations of cost-sensitive learning", IJCAI 2001, equation 2).

    Args:
        probability: (N,) of the positive class.
        actual: (N,) whether the image is of the positive class.
        positive: The name of the class.
        rule: From `parse_rule`.

    Raises:
        DataError: One side has no validation images, or no threshold meets the rule; then the best attainable is named.
    """
    positives = int(actual.sum())
    negatives = len(actual) - positives
    steps = called_by_score(probability, actual)
    if steps is None:
        raise DataError(
            f"no validation images {'other than' if positives else 'of'} {shown(positive)}; "
            "an operating point needs some of the positive class and some of the rest"
        )
    hits, found, values = steps
    threshold = rule.threshold if rule.kind == "cost" else _threshold(values, hits, found - hits, rule)
    called = probability >= threshold
    return OperatingPoint(
        positive=positive,
        threshold=threshold,
        rule=rule.text,
        positives=positives,
        negatives=negatives,
        sensitivity=int((called & actual).sum()) / positives,
        specificity=int((~called & ~actual).sum()) / negatives,
    )


def _threshold(values: Floats, hits: NDArray[np.int64], alarms: NDArray[np.int64], rule: Rule) -> float:
    """The threshold among (S,) falling probabilities with the positives and the negatives called at each."""
    positives, negatives = int(hits[-1]), int(alarms[-1])
    if rule.kind == "youden":
        gains = hits * negatives - alarms * positives
        index = int(np.argmax(gains))
        if gains[index] <= 0:
            raise DataError("youden: on the validation images no threshold is better than calling all images alike")
    elif rule.kind == "sensitivity":
        index = int(np.argmax(hits / positives >= rule.share))  # the last one always meets it
    else:
        met = np.flatnonzero((negatives - alarms) / negatives >= rule.share)
        if not len(met):
            best = int(negatives - alarms[0])
            raise DataError(
                f"{rule.text} cannot be met on the validation images: the best attainable specificity is "
                f"{best / negatives:.3f} ({best} of {negatives}), at p >= {values[0]:.4g}"
            )
        index = int(met[-1])
    if values[index] <= 0:
        above = hits[values > 0]
        reached = above[-1] / positives if len(above) else 0.0
        raise DataError(
            f"{rule.text} is met only by calling every image positive: some have the probability 0; "
            f"the best attainable sensitivity is {reached:.3f}"
        )
    return float(values[index])


def point_cautions(point: OperatingPoint, rule: Rule) -> tuple[Caution, ...]:
    """What a reader must know about a point: too few images behind it, or no better than chance."""
    cautions = []
    sides = [(point.positives, "positive"), (point.negatives, "negative")]
    few = [f"{count} validation {side}s" for count, side in sides if count < FEW_IMAGES]
    if few:
        cautions.append(
            Caution("few_validation_images", f"the threshold rests on {' and '.join(few)}{_luck(point, rule)}")
        )
    if point.sensitivity + point.specificity <= 1:
        cautions.append(
            Caution(
                "useless_operating_point",
                f"sensitivity {point.sensitivity:.3f} and specificity {point.specificity:.3f} on the validation "
                "images: no better than chance",
            )
        )
    return tuple(cautions)


def _luck(point: OperatingPoint, rule: Rule) -> str:
    """How often such a threshold misses its target by more than 0.05 on new images."""
    if rule.kind not in ("sensitivity", "specificity"):
        return f"; fewer than {FEW_IMAGES} of a class make it a matter of luck"
    n = point.positives if rule.kind == "sensitivity" else point.negatives
    worse = max(rule.share - _SHORTFALL, 0.0)
    return (
        f": with {counted(n, 'image')}, a threshold chosen for {rule.text} is truly below {worse:.3g} "
        f"{shortfall_probability(n, rule.share, worse):.0%} of the time"
    )


def shortfall_probability(n: int, share: float, worse: float) -> float:
    """How often the true rate at a threshold chosen for `share` on n images is below `worse`.

    The threshold is the k-th best score with the smallest k ≥ share · n, and the true rate at it is an order statistic
    of n uniform numbers, whatever the scores' distribution, if that has no ties: P = P(Binomial(n, 1 - worse) ≤ n - k).
    For n = 20, 0.95 and 0.90 it is 0.392.
    """
    k = next(k for k in range(n + 1) if k / n >= share)
    return float(bdtr(n - k, n, 1 - worse))


def point_from_document(document: object, classes: Collection[str]) -> OperatingPoint:
    """The inverse of `OperatingPoint.to_dict`, from a file that anyone may have edited.

    Raises:
        ValueError: It is not an operating point of these classes.
    """
    names = [entry.name for entry in fields(OperatingPoint)]
    if not isinstance(document, Mapping) or set(document) != set(names):
        raise ValueError(f"an operating point has the entries {listed(names, 10)}")
    if not isinstance(document["positive"], str) or document["positive"] not in classes:
        raise ValueError(f"operating point: no class {shown(document['positive'])!r}")
    if not isinstance(document["rule"], str):
        raise ValueError("operating point: the rule is no text")
    for name in ("positives", "negatives"):
        if type(document[name]) is not int or not 1 <= document[name] < 2**63:
            raise ValueError(f"operating point: {name} must be a whole number from 1")
    rates = {name: document[name] for name in ("threshold", "sensitivity", "specificity")}
    for name, value in rates.items():
        if type(value) not in (int, float) or not 0 <= value <= 1:  # also refuses NaN
            raise ValueError(f"operating point: {name} must be a number from 0 to 1")
    if not rates["threshold"] > 0:
        raise ValueError("operating point: the threshold must be above 0")
    return OperatingPoint(**{**document, **{name: float(value) for name, value in rates.items()}})
