"""One number of an evaluation, as a script names it: `accuracy`, `recall[glioma].ci_low`, `worst:accuracy{scanner}`."""

import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, get_args

from evalcam_cli.errors import UsageError
from evalcam_cli.evaluation.estimates import Estimate
from evalcam_cli.evaluation.metrics import CLASS_METRICS, MAIN_METRICS, OVERALL_METRICS, Metrics
from evalcam_cli.text import did_you_mean, listed, shown

Part = Literal["estimate", "ci_low", "ci_high"]
Better = Literal["higher", "lower"]

_LEFT = re.compile(
    r"(?P<worst>worst:)?(?P<metric>[^\[\]{}.:]+)(?:\[(?P<label>.*)\])?(?:\{(?P<scope>.*)\})?(?:\.(?P<part>[^\[\]{}.]+))?",
    re.DOTALL,
)
_PARTS: dict[str, Part] = {part: part for part in get_args(Part)}


class Range(NamedTuple):
    """The values that a metric can take, and which of them are good."""

    low: float
    high: float
    better: Better | None
    """None where neither direction is better."""


_FRACTION = Range(0.0, 1.0, "higher")
_RANGES = {
    "log_loss": Range(0.0, math.inf, "lower"),
    "brier": Range(0.0, 2.0, "lower"),
    "ece": Range(0.0, 1.0, "lower"),
    "ece_equal_mass": Range(0.0, 1.0, "lower"),
    "mce": Range(0.0, 1.0, "lower"),
    "ece_expected_if_calibrated": Range(0.0, 1.0, None),
    "calibration_slope": Range(-math.inf, math.inf, None),
    "calibration_intercept": Range(-math.inf, math.inf, None),
    "no_information_rate": Range(0.0, 1.0, None),
    "mcc": Range(-1.0, 1.0, "higher"),
    "cohen_kappa": Range(-1.0, 1.0, "higher"),
    "lr_positive": Range(0.0, math.inf, "higher"),
    "lr_negative": Range(0.0, math.inf, "lower"),
}
"""Metrics that are no fractions of which more is better."""

_SYNONYMS = {
    **dict.fromkeys(("sensitivity", "tpr", "hit_rate"), "recall"),
    **dict.fromkeys(("auc", "auroc", "rocauc"), "roc_auc"),
    **{"ppv": "precision", "tnr": "specificity", "kappa": "cohen_kappa", "ap": "average_precision", "acc": "accuracy"},
}
"""Other words for metrics, for messages."""


def range_of(metric: str) -> Range:
    """What the metric can be; at an operating point (`…@op`) the same as without."""
    return _RANGES.get(metric.partition("@")[0], _FRACTION)


class Slice(Protocol):
    """The metrics of the images with one value in one column."""

    @property
    def column(self) -> str: ...
    @property
    def value(self) -> str: ...
    @property
    def metrics(self) -> Mapping[str, Estimate] | None:
        """By name, a metric of one class as `recall[NAME]`; None when the slice is suppressed."""

    @property
    def suppressed_reason(self) -> str | None: ...


@dataclass(frozen=True)
class Quantity:
    """One number: a metric of everything, of a class, of a slice, or of the worst slice."""

    metric: str
    label: str | None = None
    """The class of a metric per class."""
    part: Part = "estimate"
    scope: str | None = None
    """`COLUMN=VALUE` of one slice; with `worst` the column to search, None for all; None for all images."""
    worst: bool = False
    """The worst over the slices."""

    @property
    def name(self) -> str:
        """Metric and class: `recall[NAME]`."""
        return self.metric if self.label is None else f"{self.metric}[{self.label}]"

    @property
    def text(self) -> str:
        """As a user writes it."""
        scope = "" if self.scope is None else f"{{{self.scope}}}"
        part = "" if self.part == "estimate" else f".{self.part}"
        return f"{'worst:' if self.worst else ''}{self.name}{scope}{part}"

    @property
    def sliced(self) -> bool:
        """Whether slices are needed to know it."""
        return self.worst or self.scope is not None


class Demand(Protocol):
    """Anything that a number is held against: a gate, or an earlier result."""

    @property
    def text(self) -> str:
        """As the user wrote it."""

    @property
    def demand(self) -> str:
        """With its operator spelled out."""

    @property
    def quantity(self) -> Quantity: ...

    def met_by(self, value: float) -> bool: ...


def parse_quantity(text: str, option: str) -> Quantity:
    """Read the name of a number before there are any metrics.

    Args:
        text: As in this module's first line.
        option: What the user typed, for messages.

    Raises:
        UsageError: There is no such metric, or it is written in another way.
    """
    match = _LEFT.fullmatch(text.strip())
    if match is None or (match["scope"] is not None and not match["scope"].strip()):
        raise UsageError(
            f"{option}: write NAME=0.9 or recall[CLASS]=0.9; {{COLUMN=VALUE}} for one slice and .ci_low or .ci_high "
            "may follow the name"
        )
    metric, label, scope, worst = match["metric"].strip(), match["label"], match["scope"], bool(match["worst"])
    _refuse_metric(metric, label, option)
    part = _part(match["part"], option)
    if scope is not None and not worst and "=" not in scope:
        name = f"{metric}{'' if label is None else f'[{label}]'}{{{scope}}}"
        raise UsageError(
            f"{option}: {{{shown(scope)}}} names no slice; write {{{shown(scope)}=VALUE}}, or worst:{shown(name)} for "
            "the worst of them"
        )
    return Quantity(metric, label, part, scope, worst)


def _refuse_metric(metric: str, label: str | None, option: str) -> None:
    known, others = (OVERALL_METRICS, CLASS_METRICS) if label is None else (CLASS_METRICS, OVERALL_METRICS)
    if metric in known:
        return
    if metric in others and label is None:
        macro = f", or use {metric}_macro" if f"{metric}_macro" in OVERALL_METRICS else ""
        raise UsageError(f"{option}: {metric} is a number per class; name one: {metric}[CLASS]{macro}")
    if metric in others:
        raise UsageError(f"{option}: {metric} is one number for all classes; leave [{shown(label)}] away")
    near = _near(metric, known if label is not None else (*OVERALL_METRICS, *CLASS_METRICS))
    names = ", ".join(CLASS_METRICS if label is not None else MAIN_METRICS)
    more = f" and {len(OVERALL_METRICS) - len(MAIN_METRICS)} more, all in metrics.json" if label is None else ""
    kind = "" if label is None else " per class"
    raise UsageError(f"{option}: no metric '{shown(metric)}'{kind}{near}\nthere are {names}{more}")


def _near(metric: str, known: Sequence[str]) -> str:
    """What may have been meant, by spelling or by another word for the same thing."""
    if metric.startswith("worst(") and metric.endswith(")"):
        return f"; write worst:{shown(metric[6:-1])}"
    name, at, point = metric.lower().partition("@")
    synonym = _SYNONYMS.get(name, name) + at + point
    return f"; did you mean '{synonym}'?" if synonym in known else did_you_mean(metric, known)


def _part(text: str | None, option: str) -> Part:
    part = _PARTS.get(text or "estimate")
    if part is None:
        near = did_you_mean(text or "", _PARTS)
        raise UsageError(f"{option}: no part '{shown(text)}' of a metric{near}\nthere are .ci_low and .ci_high")
    return part


def refuse_unknown(demands: Sequence[Demand], classes: Sequence[str], *, by: Sequence[str] | None = None) -> None:
    """Check demands as soon as the classes are known, before the work is done.

    Args:
        demands: Gates and comparisons with earlier results.
        classes: The K names.
        by: The columns that slices are made by; None when that is not known yet.

    Raises:
        UsageError: A demand names a class that there is not, an AUC for another number of classes, or a column that
            no slices are made by.
    """
    for demand in demands:
        quantity = demand.quantity
        if quantity.label is not None:
            _class(demand, quantity.label, classes)
        elif quantity.metric.startswith("roc_auc") and (quantity.metric == "roc_auc") != (len(classes) == 2):
            right = "roc_auc" if len(classes) == 2 else "roc_auc_ovr_macro"
            raise UsageError(f"gate {shown(demand.text)}: with {len(classes)} classes the metric is {right}")
        if quantity.sliced and by is not None:
            _refuse_column(demand, by)


def _refuse_column(demand: Demand, by: Sequence[str]) -> None:
    scope = demand.quantity.scope
    if not by:
        column = (scope or "COLUMN").partition("=")[0]
        raise UsageError(f"gate {shown(demand.text)} is about slices; say by which column: --by {shown(column)}")
    if scope is not None and not any(scope == column or scope.startswith(f"{column}=") for column in by):
        column = scope.partition("=")[0]
        raise UsageError(
            f"gate {shown(demand.text)}: no slices are made by '{shown(column)}'{did_you_mean(column, by)}; "
            f"there is --by {listed(by, 8)}"
        )


def _class(demand: Demand, label: str, classes: Sequence[str]) -> str:
    name = same_name(label, classes)
    if name is None:
        wanted = unicodedata.normalize("NFC", label)
        raise UsageError(
            f"gate {shown(demand.text)}: there is no class '{shown(label)}'{did_you_mean(wanted, classes)}\n"
            f"there are {listed(classes, 10)}"
        )
    return name


def same_name(wanted: str, names: Sequence[str]) -> str | None:
    """The name as spelled in `names`; composed and decomposed accents are the same."""
    if wanted in names:
        return wanted
    composed = unicodedata.normalize("NFC", wanted)
    return next((name for name in names if unicodedata.normalize("NFC", name) == composed), None)


def look_up(demand: Demand, metrics: Metrics) -> Estimate:
    """The estimate over all images that a demand is about; undefined, with a reason, where it was not computed.

    Raises:
        UsageError: There is no such class.
    """
    quantity = demand.quantity
    if quantity.label is None:
        found = metrics.overall.get(quantity.metric)
    else:
        label = _class(demand, quantity.label, metrics.classes)
        found = metrics.per_class[label].estimates.get(quantity.metric)
    return found or Estimate(None, undefined_reason=_why_absent(quantity.metric, len(metrics.classes)))


def _why_absent(metric: str, classes: int) -> str:
    if metric.endswith("@op"):
        return "no operating point is stored; choose one on the validation set with `evalcam calibrate`"
    return f"not computed for {classes} classes"


def why_none(estimate: Estimate) -> str:
    """Why a part of the estimate is None."""
    return estimate.undefined_reason or estimate.ci_note or "no interval was computed"
