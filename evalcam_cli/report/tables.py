"""Metrics as rows of short texts, for the terminal and for the report."""

from collections.abc import Sequence

from evalcam_cli.evaluation.estimates import Estimate
from evalcam_cli.evaluation.metrics import MAIN_METRICS, POINT_METRICS, Metrics

METRICS_HEADER = ("metric", "estimate", "95 % interval")
CLASS_HEADER = ("class", "images", "precision", "recall", "specificity", "F1", "ROC AUC")
_CLASS_COLUMNS = ("precision", "recall", "specificity", "f1", "roc_auc")


def metrics_table_rows(
    metrics: Metrics, names: Sequence[str] = (*MAIN_METRICS, *POINT_METRICS)
) -> list[tuple[str, str, str]]:
    """Name, estimate and interval of metrics over all classes; by default those that are always shown.

    Fractions have three decimals, undefined is `n/a (reason)`. A macro average that leaves classes out says over how
    many it is; a missing interval is empty.
    """
    total = len(metrics.classes)
    return [
        (
            _name(name, metrics.overall[name], total),
            estimate_text(metrics.overall[name]),
            interval_text(metrics.overall[name]),
        )
        for name in names
        if name in metrics.overall
    ]


def class_table_rows(metrics: Metrics) -> list[tuple[str, ...]]:
    """A row per class with the columns of `CLASS_HEADER`; recall with its interval, undefined is `n/a`."""
    return [
        (label, f"{entry.support}", *(_class_cell(name, entry.estimates[name]) for name in _CLASS_COLUMNS))
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


def _name(name: str, estimate: Estimate, classes: int) -> str:
    counted = estimate.classes_counted
    return name if counted in (None, classes) else f"{name} ({counted} of {classes} classes)"


def _class_cell(name: str, estimate: Estimate) -> str:
    if estimate.estimate is None:
        return "n/a"
    interval = interval_text(estimate) if name == "recall" else ""
    return f"{estimate.estimate:.3f}" + (f" ({interval})" if interval else "")
