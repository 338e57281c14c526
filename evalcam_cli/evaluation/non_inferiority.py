"""The demand that B is not worse than A by more than a margin: `accuracy:0.02`."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from evalcam_cli.errors import UsageError
from evalcam_cli.evaluation.comparison import Comparison, Difference, parse_metric
from evalcam_cli.evaluation.quantities import Quantity, range_of
from evalcam_cli.text import shown

LEVEL = "one-sided 2.5 %"
"""Of the test that a limit of a two-sided 95 % interval makes."""


@dataclass(frozen=True)
class NonInferiority:
    """What was demanded."""

    text: str
    """As the user wrote it."""
    quantity: Quantity
    margin: float


@dataclass(frozen=True)
class NonInferiorityResult:
    """What became of the demand for one pair."""

    demand: NonInferiority
    metric: str
    a: str
    b: str
    passed: bool
    limit: float | None
    """The limit of B - A on the side that is worse for B; None when undefined, which fails."""
    reason: str | None
    line: str
    """`passed: …` or `FAILED: …`, names made safe to print."""


def parse_non_inferiority(text: str) -> NonInferiority:
    """Read `METRIC:MARGIN`, e.g. `accuracy:0.02` or `recall[NAME]:0.05`.

    Raises:
        UsageError: It is not that, the margin is no number from 0, or neither direction of the metric is better.
    """
    option = f"--non-inferior {shown(text)}"
    metric, colon, margin_text = text.rpartition(":")
    if not colon or not metric:
        raise UsageError(f"{option}: write METRIC:MARGIN, e.g. accuracy:0.02")
    try:
        margin = float(margin_text)
    except ValueError:
        margin = math.nan
    if not (math.isfinite(margin) and margin >= 0):
        raise UsageError(
            f"{option}: the margin '{shown(margin_text)}' is no number from 0; it says how much worse is still good "
            "enough, e.g. 0.02"
        )
    quantity = parse_metric(metric, option)
    if range_of(quantity.metric).better is None:
        raise UsageError(f"{option}: neither more nor less {quantity.metric} is better")
    return NonInferiority(text, quantity, margin)


def check_non_inferiority(demands: Sequence[NonInferiority], comparison: Comparison) -> list[NonInferiorityResult]:
    """Hold every pair against every demand: the worse limit of the 95 % interval must lie above minus the margin.

    This is a test at the one-sided level of 2.5 % (ICH E9, section 3.3.2). A difference without an interval fails.
    """
    return [
        _check(demand, comparison.find(demand.quantity, pair.differences), pair.a, pair.b)
        for demand in demands
        for pair in comparison.pairs
    ]


def _check(demand: NonInferiority, found: Difference, a: str, b: str) -> NonInferiorityResult:
    higher = found.better == "higher"
    limit = found.estimate.ci_low if higher else found.estimate.ci_high
    claim = f"{b} is not worse than {a} in {shown(found.metric)} by {demand.margin:.15g} or more"
    if limit is None:
        reason = found.estimate.undefined_reason or found.estimate.ci_note or "the difference has no interval"
        line = f"FAILED: {claim}: cannot be shown ({shown(reason)})"
        return NonInferiorityResult(demand, found.metric, a, b, False, None, reason, line)
    passed = limit > -demand.margin if higher else limit < demand.margin
    side, bound = ("lower", -demand.margin) if higher else ("upper", demand.margin)
    relation = (">" if higher else "<") if passed else ("<=" if higher else ">=")
    verdict, shown_as = ("passed", claim) if passed else ("FAILED", f"not shown that {claim}")
    line = f"{verdict}: {shown_as}: {side} limit of {b} - {a} is {limit:.4g} {relation} {bound:.15g} ({LEVEL})"
    return NonInferiorityResult(demand, found.metric, a, b, passed, limit, None, line)
