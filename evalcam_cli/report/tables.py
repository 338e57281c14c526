"""Metrics as rows of short texts, for the terminal and for the report."""

from collections.abc import Mapping, Sequence

from evalcam_cli.evaluation.estimates import Estimate
from evalcam_cli.evaluation.folds import FoldTable
from evalcam_cli.evaluation.metrics import MAIN_METRICS, POINT_METRICS, Metrics
from evalcam_cli.evaluation.slices import ImageSlice

METRICS_HEADER = ("metric", "estimate", "95 % interval")
FOLDS_HEADER = ("metric", "mean", "SD", "lowest", "highest", "95 % interval")
SLICES_HEADER = ("slice", "images", "accuracy", "95 % interval", "p, Holm")
CLASS_HEADER = ("class", "images", "precision", "recall", "specificity", "F1", "ROC AUC")
_CLASS_COLUMNS = ("precision", "recall", "specificity", "f1", "roc_auc")


def metrics_table_rows(
    metrics: Metrics, names: Sequence[str] = (*MAIN_METRICS, *POINT_METRICS)
) -> list[tuple[str, str, str]]:
    """Name, estimate and interval of metrics over all classes; by default those that are always shown.

    Fractions have three decimals, undefined is `n/a (reason)`. A macro average that leaves classes out says over how
    many it is; a missing interval is empty.
    """
    return named_rows(metrics.overall, names, len(metrics.classes))


def named_rows(
    numbers: Mapping[str, Estimate], names: Sequence[str], classes: int | None = None
) -> list[tuple[str, str, str]]:
    """Name, estimate and interval of some of the numbers; those that are not there are left out.

    Args:
        numbers: By name.
        names: In the order to show.
        classes: How many there are, so that an average over fewer says so.
    """
    return [
        (metric_text(name, numbers[name], classes), estimate_text(numbers[name]), interval_text(numbers[name]))
        for name in names
        if name in numbers
    ]


def fold_table_rows(table: FoldTable) -> list[tuple[str, ...]]:
    """Mean, spread and Nadeau and Bengio's interval of the main metrics over the folds."""
    rows = []
    for name in MAIN_METRICS:
        one = table.summaries.get(name)
        if one is not None:
            numbers = map(number_text, (one.mean, one.sd, one.low, one.high))
            rows.append((name, *numbers, interval_text(one.estimate())))
    return rows


def slice_table_rows(slices: Sequence[ImageSlice]) -> list[tuple[str, ...]]:
    """Accuracy of each slice, or why it is not shown."""
    rows: list[tuple[str, ...]] = []
    for one in slices:
        name = f"{one.column} = {one.value}"
        if one.metrics is None:
            rows.append((name, f"{one.n:,}", one.suppressed_reason or "", "", ""))
        else:
            accuracy = one.metrics["accuracy"]
            p = "" if one.p_holm is None else f"{one.p_holm:.3g}"
            rows.append((name, f"{one.n:,}", estimate_text(accuracy), interval_text(accuracy), p))
    return rows


def number_text(value: float | None) -> str:
    """Three decimals, or `n/a`."""
    return "n/a" if value is None else f"{value:.3f}"


def class_table_rows(metrics: Metrics) -> list[tuple[str, ...]]:
    """A row per class with the columns of `CLASS_HEADER`; recall with its interval, undefined is `n/a`."""
    of = "" if int(metrics.confusion.sum()) == metrics.n else " predictions"  # several of each image
    return [
        (label, f"{entry.support}{of}", *(_class_cell(name, entry.estimates[name]) for name in _CLASS_COLUMNS))
        for label, entry in metrics.per_class.items()
    ]


def estimate_text(estimate: Estimate) -> str:
    """Three decimals, or `n/a (reason)`."""
    return f"n/a ({estimate.undefined_reason})" if estimate.estimate is None else f"{estimate.estimate:.3f}"


def interval_text(estimate: Estimate) -> str:
    """`0.812–0.882`, or nothing."""
    if estimate.ci_low is None:
        return ""
    return (
        f"above {estimate.ci_low:.3f}" if estimate.ci_high is None else f"{estimate.ci_low:.3f}–{estimate.ci_high:.3f}"
    )


def metric_text(name: str, estimate: Estimate, classes: int | None) -> str:
    """The name of a metric; of an average that leaves classes out with `(3 of 4 classes)`."""
    counted = estimate.classes_counted
    return name if classes is None or counted in (None, classes) else f"{name} ({counted} of {classes} classes)"


def _class_cell(name: str, estimate: Estimate) -> str:
    if estimate.estimate is None:
        return "n/a"
    interval = interval_text(estimate) if name == "recall" else ""
    return f"{estimate.estimate:.3f}" + (f" ({interval})" if interval else "")
