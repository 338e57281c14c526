"""No worse than before: metrics held against an earlier `metrics.json`."""

import math
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evalcam_cli.documents import read_json
from evalcam_cli.errors import DataError, UsageError
from evalcam_cli.evaluation.estimates import Estimate
from evalcam_cli.evaluation.gates import GateResult, as_number, judged
from evalcam_cli.evaluation.metrics import Metrics
from evalcam_cli.evaluation.quantities import (
    Better,
    Quantity,
    look_up,
    parse_quantity,
    range_of,
    refuse_unknown,
    same_name,
    why_none,
)
from evalcam_cli.evaluation.saved import METRICS_NAME, SCHEMA_VERSION
from evalcam_cli.text import counted, shown

_TOLERANCE = 1e-12  # what rounding can do to the difference of two decimals: 0.91 - 0.01 is met by 0.9
_REST = re.compile(
    r"(?P<quantity>[^\W\d][\w@]*(?:\[.*\])?(?:\{.*\})?(?:\.[a-z_]+)?)(?::(?P<margin>[^:\[\]]*))?", re.DOTALL
)


@dataclass(frozen=True)
class Baseline:
    """What an earlier evaluation found, and on what."""

    place: str
    """As the user wrote it."""
    estimate: Estimate
    facts: Mapping[str, Any]
    """`n`, `classes`, `subset`, `positive` and `split_fingerprint`, where the file says them."""


@dataclass(frozen=True)
class Regression:
    """The demand that one number is not worse than in an earlier evaluation."""

    text: str
    """As the user wrote it."""
    quantity: Quantity
    better: Better
    margin: float
    baseline: Baseline

    @property
    def before(self) -> float | None:
        """The number in the baseline."""
        value: float | None = getattr(self.baseline.estimate, self.quantity.part)
        return value

    def met_by(self, value: float) -> bool:
        if self.before is None:
            return False
        worse = self.before - value if self.better == "higher" else value - self.before
        return worse <= self.margin + _TOLERANCE

    @property
    def demand(self) -> str:
        """`accuracy >= runs/old/metrics.json - 0.01`: the same whatever the numbers, so that CI can follow it."""
        operator, sign = (">=", "-") if self.better == "higher" else ("<=", "+")
        margin = f" {sign} {self.margin:.15g}" if self.margin else ""
        return f"{self.quantity.text} {operator} {self.baseline.place}{margin}"


def read_regression(text: str) -> Regression:
    """Read a demand and the baseline that it names.

    Args:
        text: `FILE:METRIC` or `FILE:METRIC:MARGIN`. FILE is a `metrics.json` or the folder that holds it; METRIC is
            `accuracy`, `recall[NAME]`, `accuracy.ci_low`; MARGIN is how much worse is still good enough, 0 by default.

    Raises:
        UsageError: The text makes no sense, neither direction of the metric is better, or the file is not there.
        DataError: The file is damaged, or not what `evalcam evaluate` writes.
    """
    option = f"--no-regression {shown(text)}"
    file, match = _divided(text)
    if match is None or not file:
        raise UsageError(f"{option}: write FILE:METRIC or FILE:METRIC:MARGIN, e.g. baseline/metrics.json:accuracy:0.01")
    quantity = parse_quantity(match["quantity"], option)
    if quantity.sliced:
        raise UsageError(f"{option}: a baseline holds no slices; compare the metric of all images")
    better = range_of(quantity.metric).better
    if better is None:
        raise UsageError(
            f"{option}: neither more nor less {quantity.metric} is better; use --fail-under and --fail-over instead"
        )
    margin = _margin(match["margin"], quantity.metric, option)
    return Regression(text, quantity, better, margin, _baseline(file, quantity))


def _divided(text: str) -> tuple[str, re.Match[str] | None]:
    """The path and what follows it; where both may hold colons, the last known metric with paired brackets is meant."""
    colons = [index for index, character in enumerate(text) if character == ":"]
    found = [(text[:at], match) for at in reversed(colons) if (match := _REST.fullmatch(text, at + 1)) is not None]
    known = [pair for pair in found if _is_quantity(pair[1]["quantity"])]
    paired = [pair for pair in known if _is_paired(pair[1]["quantity"])]
    return next(iter(paired or known or found), (text, None))


def _is_paired(text: str) -> bool:
    return text.count("[") == text.count("]")


def _is_quantity(text: str) -> bool:
    try:
        parse_quantity(text, "")
    except UsageError:
        return False
    return True


def _margin(text: str | None, metric: str, option: str) -> float:
    margin = 0.0 if text is None else as_number(text)
    if not (math.isfinite(margin) and margin >= 0):
        hint = "; 1 % is 0.01" if "%" in (text or "") else "; it says how much worse is still good enough, e.g. 0.01"
        raise UsageError(f"{option}: the margin '{shown(text)}' is no number from 0{hint}")
    low, high, _ = range_of(metric)
    if margin >= high - low:
        raise UsageError(f"{option}: {metric} is from {low:g} to {high:g}, so a margin of {margin:g} decides nothing")
    return margin


def _baseline(file: str, quantity: Quantity) -> Baseline:
    path = Path(file)
    path = path / METRICS_NAME if path.is_dir() else path
    place = shown(path.absolute())
    try:
        document = read_json(path)
    except (ValueError, RecursionError) as error:
        raise DataError(f"the baseline {place} is not JSON: {str(error)[:200]}") from error
    version = document.get("schema_version") if isinstance(document, dict) else None
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise DataError(f"the baseline {place} was written by a newer evalcam; update evalcam")
    if version != SCHEMA_VERSION:
        raise DataError(f"the baseline {place} is not a metrics.json of `evalcam evaluate`")
    facts = {name: document[name] for name in ("n", "classes", "subset", "positive") if name in document}
    meta = document.get("meta")
    if isinstance(meta, dict) and isinstance(meta.get("split_fingerprint"), str):
        facts["split_fingerprint"] = meta["split_fingerprint"]
    return Baseline(file, _estimate(document, quantity, place), facts)


def _estimate(document: Mapping[str, Any], quantity: Quantity, place: str) -> Estimate:
    """The number in the file; undefined where the file does not have it."""
    damaged = DataError(f"the baseline {place} is damaged: {shown(quantity.name)} is not as evalcam writes it")
    if quantity.label is None:
        metrics = document.get("metrics")
    else:
        classes = document.get("per_class")
        if not isinstance(classes, dict):
            raise damaged
        label = same_name(quantity.label, tuple(classes))
        if label is None:
            return Estimate(None, undefined_reason=f"it has no class {quantity.label}")
        metrics = classes[label]
    if not isinstance(metrics, dict):
        raise damaged
    if quantity.metric not in metrics:
        return Estimate(None, undefined_reason=f"it has no {quantity.metric}")
    entry = metrics[quantity.metric]
    if not isinstance(entry, dict) or "estimate" not in entry:
        raise damaged
    numbers = [entry.get(part) for part in ("estimate", "ci_low", "ci_high")]
    texts = [entry.get(name) for name in ("undefined_reason", "ci_note")]
    if not (all(map(_is_number, numbers)) and all(text is None or isinstance(text, str) for text in texts)):
        raise damaged
    estimate, ci_low, ci_high = (None if number is None else float(number) for number in numbers)
    return Estimate(estimate, ci_low, ci_high, undefined_reason=texts[0], ci_note=texts[1])


def _is_number(value: object) -> bool:
    """Whether it is null or a number that a float holds; true and false are none."""
    return value is None or (type(value) in (int, float) and abs(value) <= sys.float_info.max)  # type: ignore[arg-type]


def check_regressions(
    regressions: Sequence[Regression], metrics: Metrics, *, subset: str = "", split_fingerprint: str | None = None
) -> tuple[GateResult, ...]:
    """Hold the metrics against the baselines, in the order given; a number that is not there, then or now, fails.

    Args:
        regressions: What was demanded.
        metrics: Of this evaluation.
        subset: The set evaluated.
        split_fingerprint: Of the split evaluated. Another split, set, number of images or list of classes than the
            baseline's does not fail, but the result says so.

    Raises:
        UsageError: As `refuse_unknown`.
    """
    refuse_unknown(regressions, metrics.classes)
    now = {"n": metrics.n, "classes": list(metrics.classes), "subset": subset, "positive": metrics.positive}
    if split_fingerprint is not None:
        now["split_fingerprint"] = split_fingerprint
    return tuple(_check(regression, metrics, now) for regression in regressions)


def _check(regression: Regression, metrics: Metrics, now: Mapping[str, Any]) -> GateResult:
    different = _differences(regression.baseline.facts, now)
    estimate = look_up(regression, metrics)
    if regression.before is None:
        reason = f"undefined in the baseline: {why_none(regression.baseline.estimate)}"
        return GateResult(regression, False, None, reason, different, estimate)
    note = f"before {regression.before:.4g}"
    return judged(regression, estimate, note if different is None else f"{note}, {different}")


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """What makes the two evaluations hard to compare; None when nothing is known to."""
    differs = {name for name in before if name in now and before[name] != now[name]}
    found = []
    if "classes" in differs:
        found.append("other classes")
    if "positive" in differs and "classes" not in differs:
        found.append("another positive class")
    if "subset" in differs and before["subset"] and now["subset"]:
        found.append(f"the set {before['subset']}")
    if "split_fingerprint" in differs:
        found.append("another split")
    if "n" in differs:
        found.append(counted(before["n"], "image") if isinstance(before["n"], int) else "another number of images")
    return f"then on {', '.join(found)}: not the same test" if found else None
