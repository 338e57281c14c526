"""Demands on metrics, as a script states them: `accuracy=0.9`, `recall[glioma].ci_low>=0.8`, `ece<=0.05`."""

import math
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from evalcam_cli.errors import UsageError
from evalcam_cli.evaluation.estimates import Estimate
from evalcam_cli.evaluation.metrics import CLASS_METRICS, OVERALL_METRICS, Metrics
from evalcam_cli.text import did_you_mean, listed, shown

Direction = Literal["under", "over"]
Part = Literal["estimate", "ci_low", "ci_high"]

# The last operator counts: class names may hold `=`, `<` and `>`, numbers do not.
_GATE = re.compile(r"(?P<left>.+?)\s*(?P<operator>>=|<=|==|=|>|<|≥|≤)\s*(?P<value>[^=<>≥≤]*)", re.DOTALL)
_LEFT = re.compile(r"(?P<metric>[^\[\].]+)(?:\[(?P<label>.*)\])?(?:\.(?P<part>[^\[\].]+))?", re.DOTALL)
_PARTS: dict[str, Part] = {"estimate": "estimate", "ci_low": "ci_low", "ci_high": "ci_high"}
_NOT_FRACTIONS = {"log_loss": (0.0, math.inf), "brier": (0.0, 2.0), "mcc": (-1.0, 1.0), "cohen_kappa": (-1.0, 1.0)}


@dataclass(frozen=True)
class Gate:
    """A demand on one number."""

    text: str
    """As the user wrote it."""
    direction: Direction
    """`under`: fails below the threshold; `over`: fails above it."""
    metric: str
    label: str | None
    """The class of a metric per class."""
    part: Part
    threshold: float
    strict: bool
    """The threshold itself fails too."""

    def met_by(self, value: float) -> bool:
        if self.direction == "under":
            return value > self.threshold if self.strict else value >= self.threshold
        return value < self.threshold if self.strict else value <= self.threshold

    @property
    def demand(self) -> str:
        """The gate with its operator spelled out: `accuracy >= 0.9`."""
        operator = (">" if self.direction == "under" else "<") + ("" if self.strict else "=")
        label = "" if self.label is None else f"[{self.label}]"
        part = "" if self.part == "estimate" else f".{self.part}"
        return f"{self.metric}{label}{part} {operator} {self.threshold:g}"


@dataclass(frozen=True)
class GateResult:
    """What became of a gate."""

    gate: Gate
    passed: bool
    value: float | None
    """The number that was tested; None when it is undefined, which fails."""
    reason: str | None
    """Why the value is None."""

    @property
    def line(self) -> str:
        """`passed: accuracy >= 0.9 (0.912)`; names made safe to print."""
        found = f"n/a: {self.reason}" if self.value is None else f"{self.value:.4g}"
        return f"{'passed' if self.passed else 'FAILED'}: {shown(self.gate.demand)} ({found})"


def parse_gate(text: str, direction: Direction) -> Gate:
    """Read a gate before there are any metrics; whether its class exists is for `refuse_unknown`.

    Args:
        text: `NAME=NUMBER`, or with `>=` or `>` for `under`, `<=` or `<` for `over`.
        direction: `under` for `--fail-under`, `over` for `--fail-over`.

    Raises:
        UsageError: The text is no gate, names no metric, or contradicts the direction.
    """
    option = f"--fail-{direction} {shown(text)}"
    match = _GATE.fullmatch(text.strip())
    if match is None:
        name = text.strip() if re.match(r"\w+(\[.+\])?(\.\w+)?$", text.strip()) else "accuracy"
        quoted = f"'{name}{'>=' if direction == 'under' else '<='}0.9'"
        raise UsageError(
            f"{option}: no operator and number; if you typed one, quote it, the shell took `>`:\n"
            f"--fail-{direction} {shown(quoted)}, or without quotes --fail-{direction} {shown(name)}=0.9"
        )
    operator = match["operator"]
    if operator[0] in ("<≤" if direction == "under" else ">≥"):
        other = "over" if direction == "under" else "under"
        raise UsageError(
            f"{option}: `{operator}` contradicts --fail-{direction}, which says what is too "
            f"{'low' if direction == 'under' else 'high'}; use --fail-{other}, or `=`"
        )
    metric, label, part = _subject(match["left"], option)
    threshold = _threshold(match["value"], metric, option)
    return Gate(text, direction, metric, label, part, threshold, strict=operator in "<>")


def _subject(left: str, option: str) -> tuple[str, str | None, Part]:
    match = _LEFT.fullmatch(left)
    if match is None:
        raise UsageError(f"{option}: write NAME=0.9 or recall[CLASS]=0.9; .ci_low or .ci_high may follow the name")
    metric, label = match["metric"].strip(), match["label"]
    if label is None and metric not in OVERALL_METRICS:
        if metric in CLASS_METRICS:
            raise UsageError(
                f"{option}: {metric} is a number per class; name one: {metric}[CLASS]{_macro_hint(metric)}"
            )
        near = did_you_mean(metric, (*OVERALL_METRICS, *CLASS_METRICS))
        raise UsageError(f"{option}: no metric '{shown(metric)}'{near}\nthere are {', '.join(OVERALL_METRICS)}")
    if label is not None and metric not in CLASS_METRICS:
        if metric in OVERALL_METRICS:
            raise UsageError(f"{option}: {metric} is one number for all classes; leave [{shown(label)}] away")
        near = did_you_mean(metric, CLASS_METRICS)
        raise UsageError(f"{option}: no metric '{shown(metric)}' per class{near}\nthere are {', '.join(CLASS_METRICS)}")
    return metric, label, _part(match["part"], option)


def _part(text: str | None, option: str) -> Part:
    part = _PARTS.get(text or "estimate")
    if part is None:
        near = did_you_mean(text or "", _PARTS)
        raise UsageError(f"{option}: no part '{shown(text)}' of a metric{near}\nthere are .ci_low and .ci_high")
    return part


def _macro_hint(metric: str) -> str:
    return f", or use {metric}_macro" if f"{metric}_macro" in OVERALL_METRICS else ""


def _threshold(text: str, metric: str, option: str) -> float:
    try:
        threshold = float(text)
    except ValueError:
        threshold = math.nan
    low, high = _NOT_FRACTIONS.get(metric, (0.0, 1.0))
    if not math.isfinite(threshold):
        hint = "; 90 % is 0.9" if "%" in text else ""
        raise UsageError(f"{option}: '{shown(text)}' is no number{hint}")
    if not low <= threshold <= high:
        span = f"from {low:g} to {high:g}" if math.isfinite(high) else f"at least {low:g}"
        hint = "; 90 % is 0.9" if (low, high) == (0.0, 1.0) else ""
        raise UsageError(f"{option}: {metric} is {span}, so {text.strip()} decides nothing{hint}")
    return threshold


def refuse_unknown(gates: Sequence[Gate], classes: Sequence[str]) -> None:
    """Check gates against the classes as soon as these are known, before the work is done.

    Raises:
        UsageError: A gate names a class that there is not, or an AUC for another number of classes.
    """
    for gate in gates:
        if gate.label is not None:
            _class(gate, gate.label, classes)
        right = "roc_auc" if len(classes) == 2 else "roc_auc_ovr_macro"
        if gate.label is None and gate.metric.startswith("roc_auc") and gate.metric != right:
            raise UsageError(f"gate {shown(gate.text)}: with {len(classes)} classes the metric is {right}")


def _class(gate: Gate, label: str, classes: Sequence[str]) -> str:
    """The class as spelled in `classes`; composed and decomposed accents are the same."""
    if label in classes:
        return label
    wanted = unicodedata.normalize("NFC", label)
    for name in classes:
        if unicodedata.normalize("NFC", name) == wanted:
            return name
    raise UsageError(
        f"gate {shown(gate.text)}: there is no class '{shown(label)}'{did_you_mean(wanted, classes)}\n"
        f"there are {listed(classes, 10)}"
    )


def check_gates(gates: Sequence[Gate], metrics: Metrics) -> tuple[GateResult, ...]:
    """Hold the metrics against the gates, in the order given; a number that is not there fails.

    Raises:
        UsageError: As `refuse_unknown`.
    """
    refuse_unknown(gates, metrics.classes)
    return tuple(_check(gate, metrics) for gate in gates)


def _check(gate: Gate, metrics: Metrics) -> GateResult:
    estimate = (
        metrics.overall[gate.metric]
        if gate.label is None
        else metrics.per_class[_class(gate, gate.label, metrics.classes)].estimates[gate.metric]
    )
    value: float | None = getattr(estimate, gate.part)
    if value is None:
        return GateResult(gate, False, None, _why_none(estimate))
    return GateResult(gate, gate.met_by(value), value, None)


def _why_none(estimate: Estimate) -> str:
    return estimate.undefined_reason or estimate.ci_note or "no interval was computed"
