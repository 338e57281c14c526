"""Sets of classes that hold the true one at a stated rate, made from the probabilities of validation images."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction

import numpy as np
import scipy.special
from numpy.typing import NDArray

from evalcam_cli.evaluation.clustered import clustered_proportion
from evalcam_cli.evaluation.estimates import Caution, Estimate, Interval
from evalcam_cli.evaluation.intervals import resampled_interval, wilson_interval
from evalcam_cli.evaluation.predictions import Predictions, row_blocks
from evalcam_cli.evaluation.resampling import resample_weights
from evalcam_cli.evaluation.statistics import weighted_mean
from evalcam_cli.text import counted

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

HEADER = ("class", "images", "covered", "coverage", "ci_low", "ci_high", "ci_method", "undefined_reason")
SIZE_HEADER = ("set_size", "images", "share")


@dataclass(frozen=True)
class ConformalRule:
    """Which classes belong to the set of an image: those with a probability of at least `threshold`."""

    classes: tuple[str, ...]
    alpha: float
    """Rate at which sets may miss the true class."""
    n: int
    """Validation images."""
    rank: int
    """⌈(n+1)(1-α)⌉, how many of them must be covered; above n there are too few images, and sets hold all classes."""
    threshold: float
    """Lowest probability that belongs; 0 when sets hold all classes."""
    temperature: float
    """Of the probabilities; sets of probabilities at another one mean nothing."""
    groups: int | None
    """Groups (patients) of the validation images."""
    also_used_for: tuple[str, ...]
    """What else was chosen on the same images."""

    @property
    def quantile(self) -> float | None:
        """The quantile q of 1 - p of the true class; None for infinity."""
        return 1 - self.threshold if self.rank <= self.n else None

    @property
    def expected(self) -> tuple[float, float] | None:
        """Where the true coverage lies for 95 % of sets of n independent validation images; None for all classes.

        Without ties the coverage of a rule is distributed as Beta(k, n + 1 - k), k the rank: Vovk, "Conditional
        validity of inductive conformal predictors", 2012, proposition 2a.
        """
        if self.rank > self.n:
            return None
        low, high = (scipy.special.betaincinv(self.rank, self.n + 1 - self.rank, level) for level in (0.025, 0.975))
        return float(low), float(high)

    def document(self) -> dict[str, object]:
        """Plain values for JSON."""
        expected = self.expected
        return {
            "method": "split_conformal_lac",
            "alpha": self.alpha,
            "n_calibration": self.n,
            "calibration_groups": self.groups,
            "quantile": self.quantile,
            "probability_threshold": self.threshold,
            "expected_coverage_low": None if expected is None else expected[0],
            "expected_coverage_high": None if expected is None else expected[1],
            "also_used_for": list(self.also_used_for),
        }


@dataclass(frozen=True)
class ConformalResult:
    """How the sets of a rule do on test images."""

    rule: ConformalRule
    n: int
    coverage: Estimate
    """Share of the images whose set holds the true class; at least 1 - α is promised on average."""
    mean_size: Estimate
    """Classes per set."""
    sizes: dict[int, int]
    """Images by the size of their set, only sizes that occur."""
    empty: int
    """Images with an empty set: no class is probable enough. They are misses."""
    by_class: dict[str, Estimate]
    """Coverage of the images of each class; nothing is promised for these."""
    covered: dict[str, int]
    """Images covered, by class."""
    cautions: tuple[Caution, ...]

    def document(self) -> dict[str, object]:
        """Plain values for JSON."""
        return {
            "rule": self.rule.document(),
            "n": self.n,
            "coverage": self.coverage.document(),
            "mean_set_size": self.mean_size.document(),
            "set_sizes": {str(size): count for size, count in self.sizes.items()},
            "empty_sets": self.empty,
            "coverage_by_class": {label: one.document() for label, one in self.by_class.items()},
            "warnings": [asdict(caution) for caution in self.cautions],
        }

    def rows(self) -> Iterator[tuple[object, ...]]:
        """Coverage of all images (no class) and of each class, with the columns of `HEADER`."""
        entries: list[tuple[str | None, Estimate, int]] = [(None, self.coverage, sum(self.covered.values()))]
        entries += [(label, one, self.covered[label]) for label, one in self.by_class.items()]
        for label, one, covered in entries:
            limits = (one.ci_low, one.ci_high, one.ci_method)
            yield (label, one.n, covered, one.estimate, *limits, one.undefined_reason)

    def size_rows(self) -> Iterator[tuple[object, ...]]:
        """A row per size of set, with the columns of `SIZE_HEADER`."""
        for size, count in self.sizes.items():
            yield (size, count, count / self.n)


def fit_conformal(
    validation: Predictions, alpha: float, *, also_used_for: Sequence[str] = ("the choice of the epoch",)
) -> ConformalRule:
    """The rule of split-conformal prediction with the probability of the class as its score (LAC).

    q is the ⌈(n+1)(1-α)⌉-th smallest of the n values 1 - p(true class), and a set holds the classes with 1 - p ≤ q:
    Sadinle, Lei and Wasserman, "Least ambiguous set-valued classifiers with bounded error levels", JASA 2019; Vovk,
    Gammerman and Shafer, "Algorithmic learning in a random world", 2005. If validation and test images are
    exchangeable, sets hold the true class with a chance of at least 1 - α, whatever the model, and at most
    1 - α + 1/(n+1) without ties: on average over validation and test sets, not for each class and not for one
    validation set. With fewer than 1/α - 1 images q is infinite and every set holds all classes. Kept as a threshold of
    p, which loses no digits.

    Args:
        validation: Images that the model was not trained on.
        alpha: In (0, 1).
        also_used_for: What else was chosen on these images, which bends the promise; a temperature and an operating
            point are added by themselves.

    Raises:
        ValueError: There are no images, or `alpha` is not in (0, 1).
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha lies between 0 and 1, not at {alpha}")
    n, k = validation.logits.shape
    if not n:
        raise ValueError("there are no validation images")
    rank = math.ceil((n + 1) * (1 - Fraction(str(alpha))))  # exact: 0.1 means one tenth
    truth = np.concatenate(
        [
            validation.rows(start, stop)[np.arange(stop - start), validation.targets[start:stop]]
            for start, stop in row_blocks(n, k)
        ]
    )
    threshold = float(np.partition(truth, n - rank)[n - rank]) if rank <= n else 0.0
    used = [*also_used_for]
    if validation.temperature != 1:
        used.append("the temperature")
    if validation.operating_point is not None:
        used.append("the operating point")
    return ConformalRule(
        validation.classes, alpha, n, rank, threshold, validation.temperature, validation.group_count, tuple(used)
    )


def prediction_sets(rule: ConformalRule, predictions: Predictions) -> Iterator[Bools]:
    """Blocks of (b, K), which classes belong to the set of each image, in image order.

    Raises:
        ValueError: The predictions have other classes or another temperature than the rule.
    """
    if predictions.classes != rule.classes or predictions.temperature != rule.temperature:
        raise ValueError("the rule is for other classes, or for probabilities at another temperature")
    for start, stop in row_blocks(*predictions.logits.shape):
        yield predictions.rows(start, stop) >= rule.threshold


def apply_conformal(
    rule: ConformalRule, predictions: Predictions, *, bootstrap: int | None = None, seed: int = 0
) -> ConformalResult:
    """Coverage and size of the sets of test images, block by block.

    Coverage has Wilson's interval, or the clustered one when images have groups (patients); mean size the percentiles
    of resamples of images, or of groups.

    Args:
        rule: From validation images.
        predictions: N other images of the same classes, at the same temperature.
        bootstrap: Resamples; None: no interval for the mean size.
        seed: Of the resamples, which are those of the metrics with the same seed.

    Raises:
        ValueError: There are no images, or the predictions do not fit the rule.
    """
    n = len(predictions.targets)
    if not n:
        raise ValueError("there are no images")
    sizes, hits, start = np.empty(n, dtype=np.int64), np.empty(n, dtype=bool), 0
    for block in prediction_sets(rule, predictions):
        stop = start + len(block)
        sizes[start:stop] = block.sum(axis=1)
        hits[start:stop] = block[np.arange(stop - start), predictions.targets[start:stop]]
        start = stop
    codes = predictions.group_codes
    members = np.split(
        np.argsort(predictions.targets, kind="stable"),
        np.cumsum(np.bincount(predictions.targets, minlength=len(rule.classes)))[:-1],
    )
    by_class = {label: _coverage(hits, codes, own) for label, own in zip(rule.classes, members, strict=True)}
    counts = np.bincount(sizes)
    empty = int(counts[0])
    return ConformalResult(
        rule=rule,
        n=n,
        coverage=_coverage(hits, codes, np.arange(n)),
        mean_size=_mean_size(sizes, predictions, bootstrap, seed),
        sizes={size: int(count) for size, count in enumerate(counts.tolist()) if count},
        empty=empty,
        by_class=by_class,
        covered={label: int(hits[own].sum()) for label, own in zip(rule.classes, members, strict=True)},
        cautions=_cautions(rule, codes is not None, empty),
    )


def _coverage(hits: Bools, codes: Ints | None, places: Ints) -> Estimate:
    """The share of hits among the images at these places."""
    if not len(places):
        return Estimate(None, undefined_reason="no images of this class", n=0)
    right = hits[places]
    if codes is None:
        one = wilson_interval(int(right.sum()), len(right))
    else:
        _, own = np.unique(codes[places], return_inverse=True)
        sums = np.bincount(own, weights=right).astype(np.float64)
        one = clustered_proportion(sums, np.bincount(own).astype(np.float64))
    return Estimate(float(right.mean()), one.low, one.high, one.method, None, len(right), one.note)


def _mean_size(sizes: Ints, predictions: Predictions, resamples: int | None, seed: int) -> Estimate:
    n, codes, one = len(sizes), predictions.group_codes, Interval()
    if resamples is not None:
        drawn = [weighted_mean(sizes.astype(np.float64), w) for w in resample_weights(n, resamples, seed, codes)]
        one = resampled_interval(np.concatenate(drawn), predictions.units, clustered=codes is not None)
    return Estimate(float(sizes.mean()), one.low, one.high, one.method, None, n, one.note)


def _cautions(rule: ConformalRule, clustered: bool, empty: int) -> tuple[Caution, ...]:
    found = []
    if rule.rank > rule.n:
        found.append(
            Caution(
                "conformal_too_few",
                f"an error rate of {rule.alpha:g} needs at least {math.ceil(1 / Fraction(str(rule.alpha)) - 1)}"
                f" validation images, and there are {rule.n}: every set holds all classes",
            )
        )
    if rule.also_used_for:
        found.append(
            Caution(
                "conformal_reuse",
                f"the validation images of the prediction sets also served for {', '.join(rule.also_used_for)};"
                " the coverage promised holds strictly only for images kept apart, so trust the coverage measured",
            )
        )
    if clustered or rule.groups is not None:
        found.append(
            Caution(
                "conformal_groups",
                "images of a patient are not exchangeable with those of others: the coverage promised is for"
                " exchangeable images, and comes true less exactly the fewer patients there are",
            )
        )
    if empty:
        found.append(
            Caution(
                "conformal_empty_sets",
                f"{counted(empty, 'prediction set')} without any class, as none is probable enough: these are misses",
            )
        )
    return tuple(found)
