"""Demands on metrics, as a script states them: `accuracy=0.9`, `recall[glioma].ci_low>=0.8`, `worst:accuracy=0.8`."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from evalcam_cli.errors import UsageError
from evalcam_cli.evaluation.estimates import Estimate
from evalcam_cli.evaluation.metrics import Metrics
from evalcam_cli.evaluation.quantities import (
    Demand,
    Quantity,
    Slice,
    look_up,
    parse_quantity,
    range_of,
    refuse_unknown,
    same_name,
    why_none,
)
from evalcam_cli.text import counted, listed, shown

Direction = Literal["under", "over"]

# The last operator counts: names of classes and slices may hold `=`, `<` and `>`, numbers do not.
_GATE = re.compile(r"(?P<left>.+?)\s*(?P<operator>>=|<=|==|=|>|<|≥|≤)\s*(?P<value>[^=<>≥≤]*)", re.DOTALL)


_MAX_CHARACTERS = 1_000


@dataclass(frozen=True)
class Gate:
    """A demand on one number."""

    text: str
    """As the user wrote it."""
    direction: Direction
    """`under`: fails below the threshold; `over`: fails above it."""
    quantity: Quantity
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
        return f"{self.quantity.text} {operator} {self.threshold:.15g}"


@dataclass(frozen=True)
class GateResult:
    """What became of a demand."""

    gate: Demand
    passed: bool
    value: float | None
    """The number that was tested; None when it is undefined, which fails."""
    reason: str | None
    """Why the value is None."""
    note: str | None = None
    """What a reader must know to judge the result: which slice was worst, what the baseline was."""
    estimate: Estimate | None = None
    """What the number was taken from."""

    @property
    def found(self) -> str:
        """The number, or `n/a: …`, and the note; names made safe to print.

        Four digits, more where fewer would seem to contradict the verdict.
        """
        if self.value is None:
            number = f"n/a: {self.reason}"
        else:
            texts = (f"{self.value:.{digits}g}" for digits in range(4, 18))
            number = next((text for text in texts if self.gate.met_by(float(text)) == self.passed), repr(self.value))
        return shown(number if self.note is None else f"{number}; {self.note}")

    @property
    def line(self) -> str:
        """`passed: accuracy >= 0.9 (0.912)`; names made safe to print."""
        return f"{'passed' if self.passed else 'FAILED'}: {shown(self.gate.demand)} ({self.found})"


def parse_gate(text: str, direction: Direction) -> Gate:
    """Read a gate before there are any metrics; whether its class exists is for `refuse_unknown`.

    Args:
        text: `NAME=NUMBER`, or with `>=` or `>` for `under`, `<=` or `<` for `over`.
        direction: `under` for `--fail-under`, `over` for `--fail-over`.

    Raises:
        UsageError: The text is no gate, names no metric, or contradicts the direction.
    """
    option = f"--fail-{direction} {shown(text)[:200]}"
    if len(text) > _MAX_CHARACTERS:
        raise UsageError(f"{option}… has {len(text):,} characters; a gate has at most {_MAX_CHARACTERS:,}")
    match = _GATE.fullmatch(text.strip())
    if match is None or match["value"].endswith(("]", "}")):  # the `=` of a name, and no number after it
        plain = re.match(r"[\w:@]+(\[.+\])?(\{.+\})?(\.\w+)?$", text.strip())
        name = text.strip() if plain else "accuracy"
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
    quantity = parse_quantity(match["left"], option)
    threshold = _threshold(match["value"], quantity.metric, option)
    return Gate(text, direction, quantity, threshold, strict=operator in "<>")


def _threshold(text: str, metric: str, option: str) -> float:
    threshold = as_number(text)
    low, high, _ = range_of(metric)
    if not math.isfinite(threshold):
        hint = "; 90 % is 0.9" if "%" in text else ""
        raise UsageError(f"{option}: '{shown(text)}' is no number{hint}")
    if not low <= threshold <= high:
        span = f"from {low:g} to {high:g}" if math.isfinite(high) else f"at least {low:g}"
        hint = "; 90 % is 0.9" if (low, high) == (0.0, 1.0) else ""
        raise UsageError(f"{option}: {metric} is {span}, so {text.strip()} decides nothing{hint}")
    return threshold


def as_number(text: str) -> float:
    """The number, or NaN where there is none."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def check_gates(gates: Sequence[Gate], metrics: Metrics, *, slices: Sequence[Slice] = ()) -> tuple[GateResult, ...]:
    """Hold the metrics against the gates, in the order given; a number that is not there fails.

    Raises:
        UsageError: As `refuse_unknown`; a gate about slices when there are none.
    """
    refuse_unknown(gates, metrics.classes, by=tuple(dict.fromkeys(entry.column for entry in slices)))
    return tuple(_check(gate, metrics, slices) for gate in gates)


def _check(gate: Gate, metrics: Metrics, slices: Sequence[Slice]) -> GateResult:
    if gate.quantity.worst:
        return _check_worst(gate, slices)
    if gate.quantity.scope is not None:
        return _check_slice(gate, gate.quantity.scope, slices)
    return judged(gate, look_up(gate, metrics))


def judged(gate: Demand, estimate: Estimate, note: str | None = None) -> GateResult:
    """The result of a demand on an estimate; its part may be undefined, which fails."""
    value: float | None = getattr(estimate, gate.quantity.part)
    if value is None:
        return GateResult(gate, False, None, why_none(estimate), note, estimate)
    return GateResult(gate, gate.met_by(value), value, None, note, estimate)


def _check_slice(gate: Gate, scope: str, slices: Sequence[Slice]) -> GateResult:
    names = [_name(entry) for entry in slices]
    found = same_name(scope, names)
    if found is None:
        there = [name for name in names if name.partition("=")[0] == scope.partition("=")[0]]
        return GateResult(gate, False, None, f"no images with {scope}; there are {listed(there, 5)}")
    entry = slices[names.index(found)]
    if entry.metrics is None:
        return GateResult(gate, False, None, f"{found} is left out: {_why_left_out(entry)}")
    return judged(gate, _of_slice(gate.quantity, entry))


def _check_worst(gate: Gate, slices: Sequence[Slice]) -> GateResult:
    """The worst defined value decides; a slice that counts and has none makes the gate undefined.

    The worst is the lowest for a gate that fails under, the highest for one that fails over; the first of equals.
    """
    among = [entry for entry in slices if gate.quantity.scope in (None, entry.column)]
    counting = [entry for entry in among if entry.metrics is not None]
    left_out = [entry for entry in among if entry.metrics is None]
    if not counting:
        return GateResult(gate, False, None, f"all of {counted(len(among), 'slice')} are left out: {_why(left_out)}")
    note = f"{len(left_out)} of {counted(len(among), 'slice')} left out: {_why(left_out)}" if left_out else None
    results = [(entry, judged(gate, _of_slice(gate.quantity, entry))) for entry in counting]
    for entry, result in results:
        if result.value is None:
            reason = f"{_name(entry)}: {result.reason}"
            return GateResult(gate, False, None, reason, note, result.estimate)
    sign = 1 if gate.direction == "under" else -1
    entry, worst = min(results, key=lambda pair: sign * (pair[1].value or 0.0))
    where = f"in {_name(entry)}" + (f"; {note}" if note else "")
    return GateResult(gate, worst.passed, worst.value, None, where, worst.estimate)


def _name(entry: Slice) -> str:
    return f"{entry.column}={entry.value}"


def _why_left_out(entry: Slice) -> str:
    return entry.suppressed_reason or "too small"


def _why(left_out: Sequence[Slice]) -> str:
    return ", ".join(dict.fromkeys(map(_why_left_out, left_out)))


def _of_slice(quantity: Quantity, entry: Slice) -> Estimate:
    metrics = entry.metrics or {}
    name = same_name(quantity.name, tuple(metrics))
    if name is None:
        return Estimate(None, undefined_reason=f"{quantity.name} is not measured per slice")
    return metrics[name]
