"""Two or more classifiers held against each other: differences with intervals first, then p-values.

Every difference is B minus A, A being the first of the pair.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from evalcam_cli.errors import DataError, UsageError
from evalcam_cli.evaluation import pairing
from evalcam_cli.evaluation.cautions import FEW_GROUPS
from evalcam_cli.evaluation.estimates import Caution, Estimate
from evalcam_cli.evaluation.matching import Model, match_models, same_classes, shared_paths
from evalcam_cli.evaluation.paired import McNemar, Tested
from evalcam_cli.evaluation.pairing import Settings, Side, needs_resamples
from evalcam_cli.evaluation.predictions import Predictions, row_blocks
from evalcam_cli.evaluation.quantities import Better, Quantity, parse_quantity, range_of, same_name
from evalcam_cli.evaluation.resampling import resample_weights
from evalcam_cli.evaluation.several import CochranTest, cochran, holm
from evalcam_cli.evaluation.statistics import RANKED, Sample
from evalcam_cli.evaluation.swaps import PERMUTATIONS
from evalcam_cli.text import counted, did_you_mean, listed, shown

Floats = NDArray[np.float64]

DEFAULT_METRICS = ("accuracy", "balanced_accuracy", "f1_macro", "roc_auc", "roc_auc_ovr_macro", "log_loss", "brier")
"""Compared when none is named; of the two AUCs the one for the number of classes."""
_POOLED = ("roc_auc_ovr_micro", "average_precision_micro", "roc_auc_ovo_macro")


@dataclass(frozen=True)
class Difference:
    """One metric of two models: the difference B - A, its interval, and the test of no difference."""

    metric: str
    better: Better | None
    """Which direction is better for the metric; a difference above 0 speaks for B when it is `higher`."""
    a: float | None
    b: float | None
    estimate: Estimate
    """B - A."""
    p_value: float | None
    p_holm: float | None
    """Corrected for the other pairs; equal to `p_value` for a single pair."""
    test: str
    statistic: float | None
    p_reason: str | None
    """Why there is no p-value."""
    discordant: tuple[int, int] | None
    """Images right only by A, and only by B, for proportions on the same images."""

    @property
    def favours(self) -> int:
        """1 when p < 0.05 (after Holm) speaks for B, -1 for A, 0 when there is no evidence of a difference."""
        difference, better = self.estimate.estimate, self.better
        if self.p_holm is None or self.p_holm >= 0.05 or not difference or better is None:
            return 0
        return 1 if (difference > 0) == (better == "higher") else -1


@dataclass(frozen=True)
class Pair:
    """Two models by name, and all their differences."""

    a: str
    b: str
    differences: tuple[Difference, ...]
    disagreements: int | None
    """Images on which the decisions differ; None for independent sets."""
    identical_scores: bool

    @property
    def identical_decisions(self) -> bool:
        return self.disagreements == 0


@dataclass(frozen=True)
class Comparison:
    """Everything that was found about the models."""

    models: tuple[Model, ...]
    """In the order given; on the same images, in one order, unless unpaired."""
    paired: bool
    positive: str | None
    """Of two classes the one that `roc_auc` is about."""
    pairs: tuple[Pair, ...]
    cochran: CochranTest | None
    """Of equal accuracy of all models, when there are more than two on the same images."""
    groups: int | None
    """Patients that the images are clustered by; None without."""
    cautions: tuple[Caution, ...]
    bootstrap: int
    permutations: int
    seed: int

    @property
    def classes(self) -> tuple[str, ...]:
        return self.models[0].predictions.classes

    def find(self, quantity: Quantity, differences: Sequence[Difference]) -> Difference:
        """The difference of one metric among those of a pair."""
        return next(one for one in differences if one.metric == resolve(quantity, self.classes).name)


@dataclass(frozen=True)
class CompareOptions:
    """How to compare."""

    metrics: tuple[Quantity, ...] = ()
    """By default `DEFAULT_METRICS`."""
    further: tuple[Quantity, ...] = ()
    """Compared as well: those that gates are about."""
    paired: bool = True
    all_pairs: bool = False
    """Every model against every other one, not only against the first."""
    positive: str | None = None
    mcnemar: McNemar = "auto"
    bootstrap: int = 1000
    permutations: int = PERMUTATIONS
    seed: int = 0


def parse_metric(text: str, option: str) -> Quantity:
    """Read the name of a metric to compare: `accuracy`, `recall[NAME]`.

    Raises:
        UsageError: There is none of that name, or it has no estimate that could be resampled.
    """
    quantity = parse_quantity(text, option)
    if quantity.sliced or quantity.part != "estimate":
        raise UsageError(f"{option}: compare takes the metric itself, not a slice or a limit: {shown(quantity.name)}")
    if not pairing.is_comparable(quantity):
        raise UsageError(f"{option}: {quantity.metric} is no mean over images or resamples, so there is no test for it")
    return quantity


def resolve(quantity: Quantity, classes: Sequence[str]) -> Quantity:
    """The quantity with its class as the predictions spell it.

    Raises:
        UsageError: There is no such class, or the AUC is for another number of classes.
    """
    if quantity.label is None:
        if quantity.metric.startswith("roc_auc") and (quantity.metric == "roc_auc") != (len(classes) == 2):
            right = "roc_auc" if len(classes) == 2 else "roc_auc_ovr_macro"
            raise UsageError(f"metric {quantity.metric}: with {counted(len(classes), 'class')} it is {right}")
        return quantity
    label = same_name(quantity.label, classes)
    if label is None:
        raise UsageError(
            f"metric {shown(quantity.name)}: there is no class '{shown(quantity.label)}'"
            f"{did_you_mean(quantity.label, classes)}; there are {listed(classes, 10)}"
        )
    return replace(quantity, label=label)


def compare(models: Sequence[Model], options: CompareOptions) -> Comparison:
    """Compare models on the same images, or on independent sets with `paired=False`.

    Where the predictions know groups (patients), everything is by patient.

    Args:
        models: Two at least.
        options: How.

    Raises:
        DataError: The images, classes or truths do not fit together.
        UsageError: A metric or the positive class is not there.
    """
    cautions: list[Caution] = []
    if options.paired:
        models, cautions = match_models(models)
    else:
        models = same_classes(models)
    classes = models[0].predictions.classes
    quantities = _quantities(options, classes)
    positive = _positive(options.positive, classes)
    sides = _resampled([_side(model, quantities) for model in models], quantities, options)
    settings = Settings(options.paired, positive, options.mcnemar, options.permutations, options.seed)
    found = [_pair(a, b, quantities, settings) for a, b in _pairs(sides, options)]
    groups = _group_count(models)
    cautions += _cautions(models, found, options, groups)
    return Comparison(
        tuple(models), options.paired, classes[positive] if len(classes) == 2 else None, _corrected(found),
        _cochran(models, options), groups, tuple(cautions), options.bootstrap, options.permutations, options.seed,
    )  # fmt: skip


def _quantities(options: CompareOptions, classes: Sequence[str]) -> list[Quantity]:
    left_out = "roc_auc_ovr_macro" if len(classes) == 2 else "roc_auc"
    named = options.metrics or tuple(Quantity(name) for name in DEFAULT_METRICS if name != left_out)
    found = [resolve(quantity, classes) for quantity in (*named, *options.further)]
    return list(dict.fromkeys(found))


def _positive(name: str | None, classes: Sequence[str]) -> int:
    if name is None:
        return len(classes) - 1
    found = same_name(name, classes)
    if found is None:
        raise UsageError(
            f"--positive {shown(name)}: there is no such class{did_you_mean(name, classes)}; "
            f"there are {listed(classes, 10)}"
        )
    if len(classes) != 2:
        raise UsageError(f"--positive is for two classes, there are {len(classes)}")
    return classes.index(found)


def _side(model: Model, quantities: Sequence[Quantity]) -> Side:
    n = len(model.predictions.targets)
    if not n:
        raise DataError(f"{shown(model.source)} has no images")
    sample = Sample.of(model.predictions)
    points = sample.statistics(
        np.ones((1, n), dtype=np.int32), ranked=_ranked(quantities), pooled=_is_pooled(quantities)
    )
    return Side(model.name, model.predictions, sample, points, {})


def _ranked(quantities: Sequence[Quantity]) -> bool:
    return any(one.metric.startswith((*RANKED, "roc_auc", "average_precision")) for one in quantities)


def _is_pooled(quantities: Sequence[Quantity]) -> bool:
    return any(one.metric in _POOLED for one in quantities)


def _resampled(sides: list[Side], quantities: Sequence[Quantity], options: CompareOptions) -> list[Side]:
    """The sides with the resampled values of the metrics that need them; paired sides share their resamples."""
    names = {one.metric for one in quantities if needs_resamples(one, paired=options.paired)}
    if not names:
        return sides
    chosen = [one for one in quantities if one.metric in names]
    parts: list[dict[str, list[Floats]]] = [{name: [] for name in names} for _ in sides]

    def collect(index: int, weights: NDArray[np.int32]) -> None:
        found = sides[index].sample.statistics(weights, ranked=_ranked(chosen), pooled=_is_pooled(chosen))
        for name in names & found.keys():
            parts[index][name].append(found[name])

    if options.paired:
        predictions = sides[0].predictions
        draws = resample_weights(len(predictions.targets), options.bootstrap, options.seed, predictions.group_codes)
        for weights in draws:
            for index in range(len(sides)):
                collect(index, weights)
    else:
        for index, side in enumerate(sides):
            n, codes = len(side.predictions.targets), side.predictions.group_codes
            for weights in resample_weights(n, options.bootstrap, options.seed + index, codes):
                collect(index, weights)
    return [
        replace(side, resampled={name: np.concatenate(blocks) for name, blocks in found.items() if blocks})
        for side, found in zip(sides, parts, strict=True)
    ]


def _pairs(sides: Sequence[Side], options: CompareOptions) -> list[tuple[Side, Side]]:
    return list(itertools.combinations(sides, 2)) if options.all_pairs else [(sides[0], side) for side in sides[1:]]


def _pair(a: Side, b: Side, quantities: Sequence[Quantity], settings: Settings) -> Pair:
    identical = settings.paired and _same_scores(a.predictions, b.predictions)
    differences = []
    for quantity in quantities:
        tested = pairing.difference_of(quantity, a, b, settings, identical=identical)
        values = [pairing.finite(pairing.value_of(quantity, side, settings.positive)) for side in (a, b)]
        differences.append(_difference(quantity, values, tested, pairing.count_images(quantity, a, b, settings)))
    disagreements = int((a.predictions.predicted != b.predictions.predicted).sum()) if settings.paired else None
    return Pair(a.name, b.name, tuple(differences), disagreements, identical)


def _difference(quantity: Quantity, values: list[float | None], tested: Tested, n: int) -> Difference:
    interval = tested.interval
    lost = tested.reason if tested.difference is None else None
    estimate = Estimate(
        tested.difference, interval.low, interval.high, interval.method, lost, n=n,
        ci_note=interval.note if tested.difference is not None else None,
    )  # fmt: skip
    reason = None if tested.p_value is not None else tested.reason
    return Difference(
        quantity.name, range_of(quantity.metric).better, values[0], values[1], estimate, tested.p_value,
        tested.p_value, tested.test, tested.statistic, reason, tested.discordant,
    )  # fmt: skip


def _same_scores(a: Predictions, b: Predictions) -> bool:
    """Whether all probabilities and all decisions are the same."""
    if not np.array_equal(a.predicted, b.predicted):
        return False
    return all(np.array_equal(a.rows(*block), b.rows(*block)) for block in row_blocks(*a.logits.shape))


def _corrected(pairs: Sequence[Pair]) -> tuple[Pair, ...]:
    """The pairs with Holm's correction, for each metric over the pairs."""
    columns = zip(*(pair.differences for pair in pairs), strict=True)
    adjusted = [holm([one.p_value for one in column]) for column in columns]
    return tuple(
        replace(pair, differences=tuple(
            replace(one, p_holm=column[index]) for one, column in zip(pair.differences, adjusted, strict=True)
        ))
        for index, pair in enumerate(pairs)
    )  # fmt: skip


def _cochran(models: Sequence[Model], options: CompareOptions) -> CochranTest | None:
    if len(models) == 2 or not options.paired:
        return None
    first = models[0].predictions
    correct = np.stack([model.predictions.predicted == first.targets for model in models], axis=1)
    return cochran(correct, groups=first.group_codes, seed=options.seed, permutations=options.permutations)


def _group_count(models: Sequence[Model]) -> int | None:
    return min((count for model in models if (count := model.predictions.group_count) is not None), default=None)


def _cautions(
    models: Sequence[Model], pairs: Sequence[Pair], options: CompareOptions, groups: int | None
) -> list[Caution]:
    found = []
    for pair in pairs:
        if pair.identical_scores:
            found.append(Caution("identical_scores", f"{pair.a} and {pair.b} have identical scores: the same model?"))
        elif pair.identical_decisions:
            found.append(Caution("identical_decisions", f"{pair.a} and {pair.b} make identical decisions"))
    if not options.paired:
        for a, b in itertools.combinations(models, 2):
            if count := shared_paths(a.predictions, b.predictions):
                found.append(Caution(
                    "shared_images",
                    f"{counted(count, 'image')} in both {a.name} and {b.name}: the sets are not independent, compare "
                    "them without --unpaired",
                ))  # fmt: skip
    classes = models[0].predictions.classes
    for model in models[:1] if options.paired else models:
        absent = [name for index, name in enumerate(classes) if not (model.predictions.targets == index).any()]
        if absent:
            where = "" if options.paired else f" in {model.name}"
            found.append(Caution(
                "absent_class", f"no images of {listed(absent)}{where}: averages are over the other classes"
            ))  # fmt: skip
    if groups is not None and groups < FEW_GROUPS:
        found.append(Caution("few_groups", f"only {counted(groups, 'group')}: tests and intervals by group are rough"))
    return found
