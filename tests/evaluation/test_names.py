"""Which numbers an evaluation has, what each rests on, and why one is undefined, written out by hand."""

from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
import scipy.stats

from evalcam_cli.errors import DataError, UsageError
from evalcam_cli.evaluation import calibration, metrics
from evalcam_cli.evaluation.estimates import Estimate
from evalcam_cli.evaluation.intervals import wilson_interval
from evalcam_cli.evaluation.metrics import CLASS_METRICS, MACROS, MAIN_METRICS, OVERALL_METRICS, POINT_METRICS, Metrics
from evalcam_cli.evaluation.metrics import compute_metrics as measured
from evalcam_cli.evaluation.operating_point import OperatingPoint
from evalcam_cli.evaluation.predictions import Predictions
from tests.evaluation.degenerate_cases import decided, made

MAIN = [
    "accuracy", "balanced_accuracy", "precision_macro", "recall_macro", "specificity_macro", "f1_macro",
    "roc_auc", "roc_auc_ovr_macro", "average_precision_macro", "log_loss", "brier", "ece", "mcc", "cohen_kappa",
]  # fmt: skip
FURTHER = [
    "no_information_rate", "top_3_accuracy", "top_5_accuracy", "npv_macro", "precision_weighted",
    "recall_weighted", "specificity_weighted", "npv_weighted", "f1_weighted", "precision_micro", "recall_micro",
    "specificity_micro", "npv_micro", "f1_micro", "roc_auc_ovr_weighted", "roc_auc_ovr_micro",
    "roc_auc_ovo_macro", "average_precision_weighted", "average_precision_micro", "ece_equal_mass", "mce",
    "ece_expected_if_calibrated", "calibration_slope", "calibration_intercept",
]  # fmt: skip
AT_POINT = [
    "accuracy@op", "precision@op", "recall@op", "specificity@op", "npv@op", "f1@op", "lr_positive@op",
    "lr_negative@op",
]  # fmt: skip
OF_CLASS = [
    "precision", "recall", "specificity", "npv", "f1", "lr_positive", "lr_negative", "roc_auc",
    "partial_roc_auc", "average_precision",
]  # fmt: skip
OF_TWO = {"roc_auc", "calibration_slope", "calibration_intercept"}
OF_MORE = {"roc_auc_ovr_macro", "roc_auc_ovr_weighted", "roc_auc_ovr_micro", "roc_auc_ovo_macro"}


def drawn(k: int, n: int = 40, *, point: OperatingPoint | None = None, groups: int = 0) -> Predictions:
    generator = np.random.default_rng(k)
    targets = generator.integers(0, k, n)
    logits = generator.normal(size=(n, k)).astype(np.float32)
    logits[np.arange(n), targets] += 1
    patients = tuple(f"p{i // groups}" for i in range(n)) if groups else ()
    names, paths = tuple("abcdefgh"[:k]), tuple(f"{i}.png" for i in range(n))
    return Predictions(names, logits, targets, paths, operating_point=point, groups=patients)


def at(positive: str, threshold: float = 0.4) -> OperatingPoint:
    return OperatingPoint(positive, threshold, "youden", 50, 50, 0.9, 0.9)


def reason(found: Metrics, name: str, label: str = "") -> str | None:
    estimate = found.per_class[label].estimates[name] if label else found.overall[name]
    assert estimate.estimate is None, name
    return estimate.undefined_reason


def test_the_names_are_these_in_this_order() -> None:
    assert list(MAIN_METRICS) == MAIN
    assert list(CLASS_METRICS) == OF_CLASS
    assert list(POINT_METRICS) == AT_POINT
    assert list(OVERALL_METRICS) == [*MAIN, *FURTHER, *AT_POINT]


@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize("bootstrap", [None, 20])
@pytest.mark.parametrize("point", [None, at("b")])
def test_an_evaluation_has_the_numbers_for_its_classes(
    k: int, bootstrap: int | None, point: OperatingPoint | None
) -> None:
    found = measured(drawn(k, point=point), bootstrap=bootstrap)

    left_out = (OF_MORE if k == 2 else OF_TWO) | (set() if point else set(AT_POINT))
    left_out |= set() if bootstrap else {"ece_expected_if_calibrated"}
    assert list(found.overall) == [name for name in (*MAIN, *FURTHER, *AT_POINT) if name not in left_out]
    for entry in found.per_class.values():
        assert list(entry.estimates) == OF_CLASS
    assert list(found.tests) == (["accuracy_above_no_information_rate", "ece_consistency"] if bootstrap else [])


@pytest.mark.parametrize("bootstrap", [None, 20])
def test_a_proportion_rests_on_its_denominator_and_everything_else_on_all_images(bootstrap: int | None) -> None:
    """Of 10 images 3 are of a and 5 are called a, 2 of them rightly; the operating point calls what the argmax does."""
    sample = decided([0, 0, 0, 1, 1, 1, 1, 2, 2, 2], [0, 0, 1, 0, 0, 0, 1, 1, 2, 2], 3)

    found = measured(replace(sample, operating_point=at("a")), bootstrap=bootstrap)

    entry = found.per_class["a"]
    assert (entry.support, entry.tp, entry.fp, entry.fn, entry.tn) == (3, 2, 3, 1, 4)
    wanted = {"precision": 5, "recall": 3, "specificity": 7, "npv": 5}
    assert {name: one.n for name, one in entry.estimates.items()} == dict.fromkeys(OF_CLASS, 10) | wanted
    point = {f"{name}@op": n for name, n in wanted.items()}
    assert {name: one.n for name, one in found.overall.items()} == dict.fromkeys(found.overall, 10) | point
    assert found.overall["recall@op"].estimate == 2 / 3
    assert found.n == 10


@pytest.mark.parametrize("k", [2, 3])
def test_a_macro_average_says_over_how_many_classes_it_is(k: int) -> None:
    """Class b has no images and is never predicted: recall, precision, F1 and ranks are undefined for it."""
    found = measured(decided([0, 0, k - 1], [0, 0, k - 1], k) if k == 3 else decided([0, 0], [0, 0], 2)).overall

    whole, without = (3, 2) if k == 3 else (1, 1)
    wanted = {
        "balanced_accuracy": without,
        "precision_macro": without,
        "recall_macro": without,
        "f1_macro": without,
        "specificity_macro": whole,
        "npv_macro": whole,
        "roc_auc_ovr_macro": without,
        "average_precision_macro": without if k == 3 else 0,
    }
    counted = {name: one.classes_counted for name, one in found.items() if one.classes_counted is not None}
    assert counted == {name: count for name, count in wanted.items() if name in found}
    assert set(MACROS) == set(wanted)


def test_every_average_that_is_undefined_says_so() -> None:
    one, sure = measured(decided([0, 0], [0, 0], 3)), measured(decided([1, 1], [0, 0], 2))

    assert {reason(one, name) for name in ("roc_auc_ovr_macro", "average_precision_macro")} == {
        "undefined for every class"
    }
    names = ("roc_auc_ovr_weighted", "average_precision_weighted", "specificity_weighted")
    assert {reason(one, name) for name in names} == {"undefined for every class that has images"}
    assert reason(one, "roc_auc_ovo_macro") == "no two classes have images"
    assert reason(one, "mcc") == "all images are of one class or predicted as one class"
    assert reason(one, "cohen_kappa") == "all images are of one class and predicted as it"
    assert reason(sure, "roc_auc") == "only one class has images"
    assert reason(sure, "precision_weighted") == "undefined for every class that has images"
    assert {reason(one, f"top_{top}_accuracy") for top in (3, 5)} == {"there are only 3 classes, so it is always 1"}
    assert one.overall["roc_auc_ovr_macro"].classes_counted == 0


def test_an_infinite_log_loss_counts_the_images() -> None:
    two = made([0, 0, 1], [[0.0, 1.0], [0.0, 1.0], [0.5, 0.5]], stated=True)

    assert reason(measured(two), "log_loss") == "infinite: 2 images with probability 0 for the true class"


ONE, OTHERS = "no images of this class", "no images of other classes"


@pytest.mark.parametrize(
    ("targets", "predicted", "wanted"),
    [
        ([0, 1], [0, 0], {"precision": "never predicted", "lr_positive": "never predicted"}),
        ([0, 1], [1, 1], dict.fromkeys(("npv", "lr_negative"), "all images are predicted as this class")),
        ([0, 1, 1], [0, 1, 0], {"lr_positive": "infinite: specificity is 1"}),
        ([0, 1, 1], [1, 1, 0], {"lr_negative": "infinite: specificity is 0"}),
        ([0, 0], [0, 1], dict.fromkeys(("recall", "lr_positive", "lr_negative", *OF_CLASS[7:]), ONE)),
        ([1, 1], [1, 0], dict.fromkeys(("specificity", "lr_positive", "lr_negative", *OF_CLASS[7:]), OTHERS)),
        ([0, 0], [0, 0], dict.fromkeys(("recall", "lr_positive", "lr_negative", *OF_CLASS[7:]), ONE)
         | {"precision": "never predicted", "f1": "no images of this class, and never predicted"}),
    ],
)  # fmt: skip
def test_an_undefined_number_of_a_class_has_its_reason_also_at_an_operating_point(
    targets: list[int], predicted: list[int], wanted: dict[str, str]
) -> None:
    found = measured(replace(decided(targets, predicted, 2), operating_point=at("b")), bootstrap=10)

    entry = found.per_class["b"].estimates
    assert {name: one.undefined_reason for name, one in entry.items() if one.estimate is None} == wanted
    point = {name: one for name, one in found.overall.items() if name.endswith("@op")}
    assert {name: one.undefined_reason for name, one in point.items() if one.estimate is None} == {
        f"{name}@op": text for name, text in wanted.items() if f"{name}@op" in POINT_METRICS
    }
    for one in (*entry.values(), *point.values()):
        assert (one.estimate is None) == (one.undefined_reason is not None)


def test_intervals_are_those_of_the_formulas_by_name() -> None:
    found = measured(drawn(4, point=at("b")), bootstrap=20)

    hits = int(found.confusion.trace())
    accuracy, interval = found.overall["accuracy"], wilson_interval(hits, 40)
    assert (accuracy.ci_low, accuracy.ci_high, accuracy.ci_method) == (interval.low, interval.high, "wilson")
    methods = {name: one.ci_method for name, one in found.overall.items()}
    assert (methods["recall@op"], methods["lr_positive@op"], methods["mcc"]) == ("wilson", "simel", "bootstrap")
    of_class = {name: one.ci_method for name, one in found.per_class["b"].estimates.items()}
    assert of_class == dict.fromkeys(OF_CLASS[:4], "wilson") | {
        "f1": "bootstrap", "lr_positive": "simel", "lr_negative": "simel", "roc_auc": "delong_score",
        "partial_roc_auc": "bootstrap", "average_precision": "bootstrap",
    }  # fmt: skip


def test_an_infinite_ratio_keeps_its_lower_limit() -> None:
    found = measured(decided([0, 0, 1, 1], [0, 0, 1, 0], 2), bootstrap=10).per_class["b"].estimates["lr_positive"]

    assert (found.estimate, found.ci_high, found.ci_method, found.ci_note) == (None, None, "simel", None)
    assert found.ci_low is not None


def test_calibration_errors_have_no_interval_and_say_why_when_intervals_are_asked_for() -> None:
    sample = drawn(3)
    plain, asked = measured(sample).overall, measured(sample, bootstrap=10).overall
    bins = calibration.reliability_bins(sample.confidence, sample.argmax == sample.targets)
    mass = calibration.equal_mass_bins(sample.confidence, sample.argmax == sample.targets)

    note = "no interval: resampling inflates it; see ece_expected_if_calibrated"
    for name, value in {"ece": bins.ece, "ece_equal_mass": mass.ece, "mce": bins.mce}.items():
        assert plain[name] == Estimate(value, n=40)
        assert asked[name] == Estimate(value, n=40, ci_note=note)


def test_the_null_of_the_calibration_is_of_1000_redraws_with_the_seed() -> None:
    sample = drawn(3)

    found = measured(sample, bootstrap=10, seed=3)

    ece = found.overall["ece"].estimate
    assert ece is not None
    null = calibration.calibration_null(sample.confidence, ece, resamples=1000, seed=3)
    wanted = Estimate(null.mean, null.low, null.high, "consistency_resampling", n=40)
    assert found.overall["ece_expected_if_calibrated"] == wanted
    assert found.tests["ece_consistency"].p_value == null.p_value
    assert found.tests["ece_consistency"].hypothesis.startswith("the model is perfectly calibrated")
    assert (found.seed, found.bootstrap) == (3, 10)


def test_the_accuracy_is_tested_against_the_largest_class() -> None:
    """12 of 16 right where the largest class has 9: P(X >= 12), X binomial of 16 and 9/16."""
    sample = decided([0] * 9 + [1] * 7, [0] * 7 + [1] * 2 + [1] * 5 + [0] * 2, 2)

    found = measured(sample, bootstrap=10).tests["accuracy_above_no_information_rate"]

    assert found.p_value == pytest.approx(scipy.stats.binom.sf(11, 16, 9 / 16), rel=1e-12)
    assert (found.undefined_reason, found.hypothesis.split(" (")[0]) == (
        None, "the accuracy is no better than that of always naming the largest class",
    )  # fmt: skip


def test_with_patients_nothing_is_tested_as_if_images_were_independent() -> None:
    found = measured(drawn(2, groups=4), bootstrap=10)

    for one in found.tests.values():
        assert (one.p_value, one.undefined_reason) == (None, "images of one group are not independent")
    assert (list(found.tests), found.groups) == (["accuracy_above_no_information_rate", "ece_consistency"], 10)
    assert found.overall["calibration_slope"].ci_method == "patient_sandwich"


def test_recalibration_has_walds_limits_of_its_positive_class() -> None:
    sample = drawn(2)
    fitted = calibration.recalibration(sample.probability_of(0), sample.targets == 0, None)
    assert not isinstance(fitted, str)

    plain, asked = measured(sample, positive="a").overall, measured(sample, positive="a", bootstrap=10).overall

    for name, part in {"calibration_slope": "slope", "calibration_intercept": "intercept"}.items():
        value, (low, high) = getattr(fitted, part), fitted.limits(part)
        assert plain[name] == Estimate(value, n=40)
        assert asked[name] == Estimate(value, low, high, "wald", n=40)


def test_recalibration_that_cannot_be_fitted_says_why_and_one_patient_has_no_limits() -> None:
    separated = measured(decided([0, 0, 1], [0, 0, 1], 2), bootstrap=10).overall
    one_patient = measured(drawn(2, groups=100), bootstrap=10).overall

    for name in ("calibration_slope", "calibration_intercept"):
        assert (separated[name].undefined_reason, separated[name].n) == (
            "the classes are perfectly separated, so the slope is infinite",
            3,
        )
        found = one_patient[name]
        assert found.estimate is not None
        assert (found.ci_low, found.ci_note, found.n) == (None, "needs images of at least 2 patients", 40)


def test_what_the_scores_were_and_how_many_groups_there_are_is_said() -> None:
    plain, stated = measured(drawn(3)), measured(made([0, 1], [[0.5, 0.5], [0.1, 0.9]], stated=True))

    assert (plain.scores, stated.scores) == ("logits", "log_probabilities")
    assert (plain.groups, plain.bootstrap, plain.seed, plain.classes) == (None, None, 0, ("a", "b", "c"))
    assert (plain.tests, plain.positive, stated.positive) == ({}, None, "b")


def test_the_positive_class_is_that_of_the_operating_point_and_no_other() -> None:
    point = drawn(2, point=at("a"))

    assert measured(point).positive == "a"
    assert measured(point, positive="a").positive == "a"
    assert measured(drawn(3, point=at("b")), positive="b").positive == "b"
    with pytest.raises(UsageError, match="--positive 'b': the stored operating point is that of 'a';\nchoose another"):
        measured(point, positive="b")
    with pytest.raises(
        UsageError, match=r"^--positive needs two classes or an operating point; .* 3 classes: a, b, c$"
    ):
        measured(drawn(3), positive="b")
    with pytest.raises(UsageError, match="none of the classes cat, dog; did you mean 'cat'"):
        measured(replace(drawn(2), classes=("cat", "dog")), positive="cats")


def test_the_auc_of_two_is_that_of_the_positive_class() -> None:
    """By p near 1 three images tie that differ by p near 0."""
    sample = made([0, 0, 1, 1], [[40.0, 0.0], [45.0, 0.0], [50.0, 0.0], [0.0, 3.0]])

    for name in "ab":
        found = measured(sample, positive=name, bootstrap=20)
        wanted = found.per_class[name].estimates["roc_auc"]
        assert found.overall["roc_auc"] == wanted
    assert measured(sample, positive="a").overall["roc_auc"] != measured(sample, positive="b").overall["roc_auc"]


def test_no_images_are_refused() -> None:
    with pytest.raises(DataError, match=r"^there are no images to evaluate$"):
        measured(drawn(2).take([]))


@pytest.mark.parametrize("scores", [2, 5, 2_000_000])
def test_broken_scores_are_named_whichever_block_they_are_in(scores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evalcam_cli.evaluation.predictions.BLOCK_SCORES", scores)
    logits = np.zeros((7, 2), dtype=np.float32)
    logits[[1, 4, 6], [0, 1, 0]] = np.nan
    sample = replace(decided([0, 1, 0, 1, 0, 1, 0], [0] * 7, 2), logits=logits)

    with pytest.raises(
        DataError, match=r"3 images of 7 got NaN or infinite scores: 1\.png, 4\.png, 6\.png;\nthe model"
    ):
        measured(sample)
    with pytest.raises(DataError, match=r"scores: row 2, row 5, row 7;"):
        measured(replace(sample, paths=()))


def test_more_scores_than_are_ranked_are_warned_of_when_intervals_are_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def codes(bootstrap: int | None) -> list[str]:
        return [caution.code for caution in measured(drawn(3), bootstrap=bootstrap).warnings]

    before = codes(10)
    monkeypatch.setattr("evalcam_cli.evaluation.limits.MAX_RANKED_SCORES", 100)

    assert set(codes(10)) - set(before) == {"intervals_left_out"}
    assert codes(None) == before


def test_metrics_cannot_be_changed() -> None:
    found = measured(drawn(2))

    with pytest.raises(FrozenInstanceError):
        found.n = 3  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        found.per_class["a"].tp = 3  # type: ignore[misc]
    assert metrics.CLASS_METRICS[:7] == tuple(name.removesuffix("@op") for name in POINT_METRICS[1:])
