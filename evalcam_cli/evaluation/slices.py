"""The main metrics of the images with one value in a column of the manifest: scanner, sex, site."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy.stats
from numpy.typing import NDArray

from evalcam_cli.errors import UsageError
from evalcam_cli.evaluation.estimates import Estimate
from evalcam_cli.evaluation.limits import IntervalChoice
from evalcam_cli.evaluation.metrics import Metrics, compute_metrics
from evalcam_cli.evaluation.predictions import Predictions
from evalcam_cli.evaluation.several import holm
from evalcam_cli.text import did_you_mean, listed, shown

SMALLEST = 20
"""Images below which a slice is suppressed: it says little, and may point at persons."""
MOST = 50
"""Values of a column; more are no slices but a measurement."""
MISSING = "(missing)"
HEADER = (
    *("column", "value", "n", "share", "prevalence", "metric", "estimate", "ci_low", "ci_high", "ci_method"),
    *("p_differs_from_rest", "p_holm", "undefined_reason"),
)
_MAIN = (
    *("accuracy", "balanced_accuracy", "f1_macro", "roc_auc", "roc_auc_ovr_macro", "log_loss", "brier", "ece"),
    *("recall@op", "specificity@op"),
)


@dataclass(frozen=True)
class ImageSlice:
    """The images with one value in one column."""

    column: str
    value: str
    n: int
    share: float
    """Of all images evaluated."""
    prevalence: float | None
    """Share of the positive class among them; None without one, or when suppressed."""
    metrics: dict[str, Estimate] | None
    """The main metrics by name, those of a class as `recall[NAME]`; None when the slice is suppressed."""
    suppressed_reason: str | None
    p_value: float | None = None
    """Of the hypothesis that the accuracy here is that of all other images; None by group, or when suppressed."""
    p_holm: float | None = None
    """The same, adjusted for all slices of the column; two slices are each other's rest, which is one hypothesis."""

    def rows(self) -> Iterator[tuple[object, ...]]:
        """A row per metric, as `HEADER`; a single one when suppressed."""
        facts = (self.column, self.value, self.n, self.share, self.prevalence)
        if self.metrics is None:
            yield (*facts, *[None] * 7, self.suppressed_reason)
            return
        for name, one in self.metrics.items():
            tests = (self.p_value, self.p_holm) if name == "accuracy" else (None, None)
            yield (*facts, name, one.estimate, one.ci_low, one.ci_high, one.ci_method, *tests, one.undefined_reason)

    def document(self) -> dict[str, object]:
        """As in `metrics.json`."""
        return {
            "column": self.column,
            "value": self.value,
            "n": self.n,
            "prevalence": self.prevalence,
            "suppressed_reason": self.suppressed_reason,
            "p_differs_from_rest": self.p_value,
            "p_holm": self.p_holm,
            "metrics": {name: one.document() for name, one in (self.metrics or {}).items()},
        }


def slice_metrics(
    predictions: Predictions, column: str, whole: Metrics, *, choice: IntervalChoice | None = None
) -> tuple[ImageSlice, ...]:
    """The slices of one column, by value.

    Args:
        predictions: Of all images.
        column: `group`, `subset` or one of the manifest's further columns.
        whole: The metrics of all images; slices take over its positive class, resamples and seed.
        choice: Of interval formulas.

    Raises:
        UsageError: There is no such column, or it has more values than slices make sense for.
    """
    cells = predictions.column(column)
    if cells is None:
        there = [name for name in ("group", "subset", *predictions.extra_columns) if predictions.column(name)]
        raise UsageError(
            f"--by {shown(column)}: there is no such column{did_you_mean(column, there)}; "
            f"there {'are ' + listed(there, 10) if there else 'is none'}"
        )
    values = np.array([cell or MISSING for cell in cells])
    names = sorted(set(values.tolist()))
    if len(names) > MOST:
        raise UsageError(f"--by {shown(column)}: {len(names):,} values; at most {MOST} can be told apart as slices")
    found = [_slice(predictions, column, name, values == name, whole, choice) for name in names]
    return _adjusted(found)


def _slice(
    predictions: Predictions, column: str, value: str, inside: NDArray[np.bool_], whole: Metrics,
    choice: IntervalChoice | None,
) -> ImageSlice:  # fmt: skip
    n = int(inside.sum())
    if n < SMALLEST:
        reason = f"fewer than {SMALLEST} images"
        return ImageSlice(column, value, n, n / len(inside), None, None, reason)
    prevalence = None
    if whole.positive is not None:
        prevalence = float((predictions.targets[inside] == whole.classes.index(whole.positive)).mean())
    part = predictions.take(np.flatnonzero(inside))
    metrics = compute_metrics(part, positive=whole.positive, bootstrap=whole.bootstrap, seed=whole.seed, choice=choice)
    numbers = {name: metrics.overall[name] for name in _MAIN if name in metrics.overall}
    for label, entry in metrics.per_class.items():
        numbers |= {f"{name}[{label}]": entry.estimates[name] for name in ("recall", "specificity", "precision")}
    hits = predictions.predicted == predictions.targets
    independent = predictions.group_codes is None
    p_value = _differs(hits[inside], hits[~inside]) if independent and n < len(inside) else None
    return ImageSlice(column, value, n, n / len(inside), prevalence, numbers, None, p_value)


def _differs(inside: NDArray[np.bool_], outside: NDArray[np.bool_]) -> float:
    """Fisher's exact test of two proportions, two-sided."""
    table = [[int(part.sum()), int((~part).sum())] for part in (inside, outside)]
    return float(scipy.stats.fisher_exact(table).pvalue)


def _adjusted(slices: Sequence[ImageSlice]) -> tuple[ImageSlice, ...]:
    """The slices with p-values adjusted for the number of hypotheses."""
    if len(slices) == 2:  # both p-values are of the same table
        return tuple(replace(one, p_holm=one.p_value) for one in slices)
    adjusted = holm([one.p_value for one in slices])
    return tuple(replace(one, p_holm=value) for one, value in zip(slices, adjusted, strict=True))
