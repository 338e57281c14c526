"""Which test a metric is given, on the same images or on independent ones."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import scipy.special
from numpy.typing import NDArray

from evalcam_cli.evaluation import counts, paired, unpaired
from evalcam_cli.evaluation.auc import Placements, placements
from evalcam_cli.evaluation.clustered import effective_number
from evalcam_cli.evaluation.counts import Counts
from evalcam_cli.evaluation.estimates import Interval
from evalcam_cli.evaluation.intervals import percentile_interval
from evalcam_cli.evaluation.paired import McNemar, Tested, undefined
from evalcam_cli.evaluation.predictions import Predictions
from evalcam_cli.evaluation.quantities import Quantity
from evalcam_cli.evaluation.statistics import AVERAGED, BY_CLASS, TOGETHER, TOP_K, Sample
from evalcam_cli.evaluation.swaps import count_swaps, mean_swaps

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_NOT_RESAMPLED = (
    *("ece", "ece_equal_mass", "mce", "ece_expected_if_calibrated", "calibration_slope", "calibration_intercept"),
    "no_information_rate",
)
_AUC = ("roc_auc", "roc_auc_ovr_macro")
_MAX_UNDEFINED = 0.05


@dataclass(frozen=True)
class Settings:
    """How pairs are tested."""

    paired: bool
    positive: int
    """Index of the positive class of two."""
    mcnemar: McNemar
    permutations: int
    seed: int


@dataclass(frozen=True)
class Side:
    """One model with its values."""

    name: str
    predictions: Predictions
    sample: Sample
    points: dict[str, Floats]
    """(1,) or (1, K), by metric."""
    resampled: dict[str, Floats]
    """(B,) or (B, K), for the metrics that need resamples."""


def is_comparable(quantity: Quantity) -> bool:
    """Whether there is a test for the metric."""
    return quantity.metric not in _NOT_RESAMPLED


def needs_resamples(quantity: Quantity, *, paired: bool) -> bool:
    """Whether the interval of the difference comes from the bootstrap."""
    return quantity.metric not in _AUC and not _is_proportion(quantity)


def _is_proportion(quantity: Quantity) -> bool:
    """Whether it is a share of images that are the same for all models."""
    if quantity.label is not None:
        return quantity.metric in ("recall", "specificity")
    return quantity.metric in ("accuracy", *(f"top_{k}_accuracy" for k in TOP_K))


def value_of(quantity: Quantity, side: Side, positive: int) -> float:
    """The metric of one model; NaN where undefined."""
    return float(_column(quantity, side.points, side.predictions.classes, positive)[0])


def _column(quantity: Quantity, values: dict[str, Floats], classes: tuple[str, ...], positive: int) -> Floats:
    if quantity.metric not in values:
        return np.full(1, np.nan)
    found = values[quantity.metric]
    if found.ndim == 1:
        return found
    return found[:, positive if quantity.label is None else classes.index(quantity.label)]


def finite(value: float) -> float | None:
    """The value, None for NaN and infinity."""
    return value if math.isfinite(value) else None


def count_images(quantity: Quantity, a: Side, b: Side, settings: Settings) -> int:
    """Images that the difference rests on: those of the class for a recall, else all, of both sets when unpaired."""
    sides = (a,) if settings.paired else (a, b)
    if _is_proportion(quantity):
        return sum(len(_hits(quantity, side)[1]) for side in sides)
    return sum(len(side.predictions.targets) for side in sides)


def difference_of(quantity: Quantity, a: Side, b: Side, settings: Settings, *, identical: bool) -> Tested:
    """The difference B - A with interval and p-value."""
    for side in (a, b):
        value = value_of(quantity, side, settings.positive)
        if not math.isfinite(value):
            return undefined(_why(quantity, value, side))
    if identical:
        return Tested(0.0, Interval(0.0, 0.0, "identical"), 1.0, "identical")
    if _is_proportion(quantity):
        return _proportions(quantity, a, b, settings)
    if quantity.metric == "roc_auc_ovr_macro":
        return _macro_auc(a, b, settings)
    if quantity.metric == "roc_auc":
        index = settings.positive if quantity.label is None else a.predictions.classes.index(quantity.label)
        return _auc(index, a, b, settings)
    return _resampled(quantity, a, b, settings)


def _why(quantity: Quantity, value: float, side: Side) -> str:
    if math.isinf(value):
        return f"infinite for {side.name}: the true class of an image has probability 0"
    if quantity.metric.endswith("@op") and side.predictions.operating_point is None:
        return f"no operating point is stored with {side.name}"
    if quantity.metric.startswith("top_") and quantity.metric not in side.points:
        return "not computed"
    if quantity.label is not None:
        index = side.predictions.classes.index(quantity.label)
        own = side.predictions.targets == index
        if not own.any():
            return f"no images of the class {quantity.label}"
        if own.all():
            return f"no images of classes other than {quantity.label}"
    return f"undefined for {side.name} on these images"


def _hits(quantity: Quantity, side: Side) -> tuple[NDArray[np.int64], Bools]:
    """Indices of the images that count, and which of them are hits."""
    targets, predicted = side.predictions.targets, side.predictions.predicted
    if quantity.label is None:
        hits = predicted == targets
        if quantity.metric.startswith("top_"):
            hits = side.sample.facts.truth_rank < int(quantity.metric.split("_")[1])
        return np.arange(len(targets)), hits
    index = side.predictions.classes.index(quantity.label)
    called = predicted == index
    own = targets == index
    chosen = np.flatnonzero(own if quantity.metric == "recall" else ~own)
    return chosen, (called if quantity.metric == "recall" else ~called)[chosen]


def _proportions(quantity: Quantity, a: Side, b: Side, settings: Settings) -> Tested:
    (rows_a, hits_a), (rows_b, hits_b) = _hits(quantity, a), _hits(quantity, b)
    codes_a, codes_b = a.predictions.group_codes, b.predictions.group_codes
    groups_a = None if codes_a is None else codes_a[rows_a]
    if settings.paired:
        return paired.compare_proportions(
            hits_a, hits_b, groups=groups_a, method=settings.mcnemar, seed=settings.seed,
            permutations=settings.permutations,
        )  # fmt: skip
    groups_b = None if codes_b is None else codes_b[rows_b]
    return unpaired.compare_shares(
        (hits_a, hits_b), groups=(groups_a, groups_b), seed=settings.seed, permutations=settings.permutations
    )


def _placed(side: Side, index: int) -> tuple[Placements | None, Bools]:
    positive = side.predictions.targets == index
    return placements(side.predictions.probability_of(index), positive), positive


def _auc(index: int, a: Side, b: Side, settings: Settings) -> Tested:
    placed = [_placed(side, index) for side in (a, b)]
    sides = []
    for side, (_, positive) in zip((a, b), placed, strict=True):
        codes = side.predictions.group_codes
        sides.append(None if codes is None else (codes[positive], codes[~positive]))
    if settings.paired:
        return paired.compare_auc(placed[0][0], placed[1][0], sides[0])
    return unpaired.compare_aucs_apart((placed[0][0], placed[1][0]), (sides[0], sides[1]))


def _macro_auc(a: Side, b: Side, settings: Settings) -> Tested:
    found = [_influences(side) for side in (a, b)]
    if settings.paired:
        changes = [(two - one, moved_b - moved_a) for (one, moved_a), (two, moved_b) in zip(*found, strict=True)]
        return paired.compare_macro_auc(changes, a.predictions.group_codes)
    values, variances, units = [], [], []
    for side, classes in zip((a, b), found, strict=True):
        values.append(sum(value for value, _ in classes) / len(classes))
        influence = sum((moved for _, moved in classes), np.zeros(len(side.predictions.targets))) / len(classes)
        variance, size = paired.influence_variance(influence, side.predictions.group_codes)
        variances.append(variance)
        units.append(size)
    parts = list(zip(variances, units, strict=True))
    return paired.compare_apart(values[0], variances[0], values[1], variances[1], parts, "delong_macro_unpaired")


def _influences(side: Side) -> list[tuple[float, Floats]]:
    """AUC and influences of every class with images on both sides."""
    found = []
    for index in range(len(side.predictions.classes)):
        placed, positive = _placed(side, index)
        if placed is not None:
            found.append((placed.auc, paired.auc_influence(placed, positive)))
    return found


def _resampled(quantity: Quantity, a: Side, b: Side, settings: Settings) -> Tested:
    """A bootstrap interval, with a permutation test where there is one, else with the bootstrap's own p-value."""
    classes = a.predictions.classes
    draws = [_column(quantity, side.resampled, classes, settings.positive) for side in (a, b)]
    changes = draws[1] - draws[0]
    difference = value_of(quantity, b, settings.positive) - value_of(quantity, a, settings.positive)
    units = min(_units(a.predictions), _units(b.predictions))
    interval = _interval(changes, units, clustered=a.predictions.group_codes is not None)
    permuted = _swapped(quantity, a, b, settings) if settings.paired else _shuffled(quantity, a, b, settings)
    if permuted is not None:
        return Tested(difference, interval, *permuted)
    p, name, reason = _bootstrap_p(changes, units, same_images=settings.paired)
    return Tested(difference, interval, p, name, reason=reason)


def _units(predictions: Predictions) -> float:
    """Images, or patients by their `effective_number`."""
    codes = predictions.group_codes
    return float(len(predictions.targets) if codes is None else effective_number(np.bincount(codes)))


def _interval(changes: Floats, units: float, *, clustered: bool) -> Interval:
    """Percentiles of resampled differences, further out by what small samples lack.

    Expanded percentiles: Hesterberg, "What teachers should know about the bootstrap", The American Statistician 2015,
    section 4.1: the levels are Φ(∓ (n/(n-1))^(1/2) t), t the 97.5 % quantile of Student's distribution with n - 1
    degrees of freedom, n the images (patients) of the smaller set.
    """
    changes = np.where(np.isfinite(changes), changes, np.nan)
    if not np.isfinite(changes).any():
        return Interval(note="undefined in the resamples")
    if units < 2:
        return Interval(note="needs at least 2 images (patients)")
    found = percentile_interval(changes, "patient_bootstrap" if clustered else "bootstrap")
    if found.low is None:
        return found
    reach = math.sqrt(units / (units - 1)) * float(scipy.special.stdtrit(units - 1, 0.975))
    level = float(scipy.special.ndtr(-reach))
    low, high = np.quantile(changes[~np.isnan(changes)], [level, 1 - level])
    return replace(found, low=float(low), high=float(high))


def _losses(quantity: Quantity, side: Side) -> Floats | None:
    """(N,) what the metric is the mean of."""
    facts = side.sample.facts
    return {"log_loss": facts.losses, "brier": facts.squares}.get(quantity.metric)


def _shuffled(quantity: Quantity, a: Side, b: Side, settings: Settings) -> tuple[float, str] | None:
    """p and name of the test of a mean on independent sets; None for other metrics."""
    one, two = _losses(quantity, a), _losses(quantity, b)
    if one is None or two is None:
        return None
    groups = a.predictions.group_codes, b.predictions.group_codes
    return unpaired.compare_means((one, two), groups=groups, seed=settings.seed, permutations=settings.permutations)


def _swapped(quantity: Quantity, a: Side, b: Side, settings: Settings) -> tuple[float, str] | None:
    """p and name of the permutation test on the same images; None for metrics that have none."""
    groups, targets = a.predictions.group_codes, a.predictions.targets
    one, two = _losses(quantity, a), _losses(quantity, b)
    if one is not None and two is not None:
        return mean_swaps(two - one, groups=groups, seed=settings.seed, permutations=settings.permutations)
    metric = count_metric(quantity, a.predictions.classes)
    if metric is None:
        return None
    decided = a.predictions.predicted, b.predictions.predicted
    found, name = count_swaps(
        targets, decided, len(a.predictions.classes), [metric],
        groups=groups, seed=settings.seed, permutations=settings.permutations,
    )  # fmt: skip
    return found[0], name


def count_metric(quantity: Quantity, classes: tuple[str, ...]) -> Callable[[Counts], Floats] | None:
    """The metric as a function of counts, to (B,) values; None when it needs more than the decisions."""
    metric = quantity.metric
    if quantity.label is not None:
        if metric not in BY_CLASS:
            return None
        index = classes.index(quantity.label)
        return lambda tally: BY_CLASS[metric](tally)[..., index]
    if metric in TOGETHER:
        return TOGETHER[metric]
    name, _, average = ("recall_macro" if metric == "balanced_accuracy" else metric).rpartition("_")
    if name not in AVERAGED:
        return None
    by_class = BY_CLASS[name]
    if average == "macro":
        return lambda tally: counts.macro(by_class(tally))
    return lambda tally: counts.weighted(by_class(tally), tally.support)


def _bootstrap_p(changes: Floats, units: float, *, same_images: bool) -> tuple[float | None, str, str | None]:
    """The level at which the interval would just touch 0: below 0.05 when `_interval` leaves 0 out.

    Twice the share of resampled differences on the other side of 0 (Efron and Tibshirani, "An Introduction to the
    Bootstrap", 1993, section 15.4), the observed sample counted in, and expanded as the interval is.
    """
    name = "bootstrap" if same_images else "bootstrap_unpaired"
    defined = changes[np.isfinite(changes)]
    if units < 2 or not len(defined) or len(defined) < (1 - _MAX_UNDEFINED) * len(changes):
        return None, name, "too few images, or undefined in too many resamples"
    tail = min(int((defined <= 0).sum()), int((defined >= 0).sum()))
    share = min(0.5, (1 + tail) / (1 + len(defined)))
    quantile = float(scipy.special.ndtri(share)) / math.sqrt(units / (units - 1))
    return 2 * float(scipy.special.stdtr(units - 1, quantile)), name, None
