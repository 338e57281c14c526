"""Metrics against theorems, cases worked by hand, printed numbers, and scikit-learn."""

import csv
import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics as oracle

from evalcam_cli.errors import DataError, UsageError
from evalcam_cli.evaluation import counts
from evalcam_cli.evaluation.calibration import reliability_bins
from evalcam_cli.evaluation.metrics import CLASS_METRICS, OVERALL_METRICS, POINT_METRICS, Metrics, compute_metrics
from evalcam_cli.evaluation.operating_point import OperatingPoint
from evalcam_cli.evaluation.predictions import Predictions
from evalcam_cli.evaluation.ranking import precision_recall_curve, rank, ranked_metrics, roc_curve
from evalcam_cli.evaluation.stated import StatedProbabilities
from tests.evaluation.oracle import NOT_IN_SCIKIT_LEARN, scikit_learn_values, values

REFERENCE = Path(__file__).parents[3] / "shared" / "reference" / "data"
NAN = float("nan")
TOO_MANY = ("top_3_accuracy", "top_5_accuracy")


def predictions(targets: list[int], logits: list[list[float]]) -> Predictions:
    values = np.array(logits, dtype=np.float32)
    names = tuple("abcdefghij"[: values.shape[1]])
    return Predictions(names, values, np.array(targets), tuple(f"{i}.png" for i in range(len(targets))))


def decided(targets: list[int], predicted: list[int], classes: int) -> Predictions:
    """Predictions with these decisions."""
    return predictions(targets, np.eye(classes)[predicted].tolist())


def stated(targets: list[int], probabilities: list[list[float]]) -> StatedProbabilities:
    values = np.array(probabilities)
    with np.errstate(divide="ignore"):
        logits = np.log(values).astype(np.float32)
    names = tuple("abcdefghij"[: values.shape[1]])
    return StatedProbabilities(names, logits, np.array(targets), tuple(map(str, targets)), stated=values)


def random_predictions(seed: int) -> Predictions:
    """Any size, with ties, absent classes and classes never predicted."""
    generator = np.random.default_rng(seed)
    k = int(generator.choice([2, 2, 3, 4, 7, 20, 50]))
    n = int(generator.integers(2, 400 if k < 20 else 1500))
    present = generator.choice(k, size=generator.integers(1, k + 1), replace=False)
    targets = generator.choice(present, size=n)
    logits = generator.normal(size=(n, k)) * generator.choice([0.1, 1, 3])
    if seed % 3 == 0:
        logits = logits.round()  # ties
    if seed % 5 == 0:
        logits[:, 0] -= 15  # hardly ever predicted; scikit-learn clips probabilities below 2e-16
    logits[np.arange(n), targets] += generator.choice([0, 1, 3])
    names = tuple(f"class {index}" for index in range(k))
    return Predictions(names, logits.astype(np.float32), targets, tuple(map(str, range(n))))


def test_perfect_predictions_have_the_best_value_of_every_metric() -> None:
    metrics = compute_metrics(decided([0, 1, 2, 0, 1, 2], [0, 1, 2, 0, 1, 2], 3))

    other = ("log_loss", "brier", "ece", "ece_equal_mass", "mce", "no_information_rate", *TOO_MANY)
    best = {name: 1.0 for name in metrics.overall if name not in other}
    assert {name: metrics.overall[name].estimate for name in best} == pytest.approx(best)
    for entry in metrics.per_class.values():
        assert entry.estimates["lr_positive"].undefined_reason == "infinite: specificity is 1"
        assert entry.estimates["lr_negative"].estimate == 0
        assert all(entry.estimates[name].estimate == 1 for name in CLASS_METRICS if not name.startswith("lr_"))


def test_the_names_are_those_of_the_interface() -> None:
    two, three = (compute_metrics(decided([0, 1], [0, 1], k)) for k in (2, 3))

    shared = ["accuracy", "balanced_accuracy", "precision_macro", "recall_macro", "specificity_macro", "f1_macro"]
    shared += ["average_precision_macro", "log_loss", "brier", "ece", "mcc", "cohen_kappa"]
    assert set(two.overall) >= {*shared, "roc_auc", "calibration_slope"}
    assert set(three.overall) >= {*shared, "roc_auc_ovr_macro", "roc_auc_ovo_macro"}
    assert "roc_auc" not in three.overall
    assert "roc_auc_ovr_macro" not in two.overall
    assert set(two.overall) | set(three.overall) | set(POINT_METRICS) | {"ece_expected_if_calibrated"} == set(
        OVERALL_METRICS
    )


@pytest.mark.parametrize("seed", range(40))
def test_equals_scikit_learn_wherever_it_defines_the_metric(seed: int) -> None:
    sample = random_predictions(seed)

    found = values(compute_metrics(sample))

    wanted = scikit_learn_values(sample)
    assert {name.partition("[")[0] for name in set(found) - set(wanted)} <= set(NOT_IN_SCIKIT_LEARN)
    for name, value in wanted.items():
        actual = found[name]
        assert (actual is None) == bool(np.isnan(value)), name
        assert actual is None or actual == pytest.approx(value, abs=1e-12), name


def test_metrics_do_not_depend_on_the_order_of_the_images() -> None:
    sample = random_predictions(3)
    order = np.random.default_rng(0).permutation(len(sample.targets))
    paths = tuple(sample.paths[i] for i in order)
    shuffled = Predictions(sample.classes, sample.logits[order], sample.targets[order], paths)

    assert values(compute_metrics(shuffled)) == pytest.approx(values(compute_metrics(sample)), abs=1e-12)


def test_renaming_and_reordering_the_classes_moves_the_numbers_along() -> None:
    sample = random_predictions(1)
    turned = Predictions(
        sample.classes[::-1], sample.logits[:, ::-1], len(sample.classes) - 1 - sample.targets, sample.paths
    )

    before, after = compute_metrics(sample).per_class, compute_metrics(turned).per_class

    assert {label: (entry.support, entry.tp, entry.fp) for label, entry in before.items()} == {
        label: (entry.support, entry.tp, entry.fp) for label, entry in after.items()
    }


def test_rows_of_the_confusion_matrix_are_the_truth() -> None:
    metrics = compute_metrics(decided([0, 0, 0, 1, 2], [1, 1, 0, 1, 2], 3))

    assert metrics.confusion.tolist() == [[1, 2, 0], [0, 1, 0], [0, 0, 1]]
    entry = metrics.per_class["a"]
    assert (entry.support, entry.tp, entry.fp, entry.fn, entry.tn) == (3, 1, 0, 2, 2)


def test_a_class_never_predicted_has_no_precision_and_a_recall_of_zero() -> None:
    metrics = compute_metrics(decided([0, 1], [0, 0], 2))

    entry = metrics.per_class["b"]
    assert (entry.estimates["precision"].estimate, entry.estimates["precision"].undefined_reason) == (
        None,
        "never predicted",
    )
    assert (entry.estimates["recall"].estimate, entry.estimates["f1"].estimate) == (0, 0)
    assert metrics.overall["precision_macro"].estimate == 0.5
    assert metrics.overall["precision_macro"].classes_counted == 1
    assert "never_predicted" in [caution.code for caution in metrics.warnings]


def test_a_class_predicted_without_truth_has_precision_zero_and_no_recall() -> None:
    metrics = compute_metrics(decided([0, 0, 1, 1], [0, 2, 1, 1], 3))

    entry = metrics.per_class["c"]
    assert entry.estimates["precision"].estimate == 0
    assert (entry.estimates["recall"].estimate, entry.estimates["recall"].undefined_reason) == (
        None,
        "no images of this class",
    )
    assert entry.estimates["roc_auc"].estimate is None
    assert entry.estimates["average_precision"].estimate is None
    assert metrics.overall["recall_macro"].estimate == 0.75
    assert metrics.overall["recall_macro"].classes_counted == 2
    assert metrics.overall["balanced_accuracy"].estimate == 0.75
    (absent,) = [caution.message for caution in metrics.warnings if caution.code == "absent_class"]
    assert "has no images in this set: c" in absent
    assert "2 of 3" in absent


def test_with_images_of_a_single_class_what_needs_two_is_undefined() -> None:
    metrics = compute_metrics(decided([1, 1, 1], [1, 1, 0], 2))

    assert metrics.overall["roc_auc"].estimate is None
    assert metrics.overall["roc_auc"].undefined_reason == "only one class has images"
    assert metrics.overall["mcc"].estimate is None
    assert metrics.per_class["b"].estimates["specificity"].undefined_reason == "no images of other classes"
    assert metrics.overall["accuracy"].estimate == pytest.approx(2 / 3)


def test_kappa_is_undefined_only_when_truth_and_prediction_are_one_class_throughout() -> None:
    assert compute_metrics(decided([0, 0], [0, 0], 2)).overall["cohen_kappa"].estimate is None
    assert compute_metrics(decided([0, 0], [1, 1], 2)).overall["cohen_kappa"].estimate == 0


def test_one_image_is_enough_for_what_needs_no_more() -> None:
    metrics = compute_metrics(predictions([0], [[2, 1, 0]]), bootstrap=50)

    assert metrics.overall["accuracy"].estimate == 1
    assert metrics.overall["accuracy"].ci_low == pytest.approx(0.206549, abs=1e-6)  # 1 / (1 + z²)
    assert metrics.overall["roc_auc_ovr_macro"].estimate is None
    assert metrics.overall["mcc"].estimate is None
    assert "few_images" in [caution.code for caution in metrics.warnings]


def test_the_same_score_everywhere_ranks_nothing_and_says_so() -> None:
    metrics = compute_metrics(predictions([0, 1, 1], [[1, 1], [1, 1], [1, 1]]))

    assert metrics.overall["roc_auc"].estimate == 0.5
    codes = [caution.code for caution in metrics.warnings]
    assert "degenerate_scores" in codes
    assert "tied_predictions" in codes


@pytest.mark.parametrize("value", [NAN, np.inf, -np.inf])
def test_scores_that_are_not_finite_are_refused_with_the_first_three_images(value: float) -> None:
    logits = [[value, 0.0]] * 4 + [[1.0, 0.0]]

    with pytest.raises(DataError, match=r"4 images of 5 got NaN or infinite scores: 0\.png, 1\.png, 2\.png and 1 more"):
        compute_metrics(predictions([0, 1, 0, 1, 0], logits))


def test_no_images_are_refused() -> None:
    empty = Predictions(("a", "b"), np.zeros((0, 2), dtype=np.float32), np.zeros(0, dtype=np.int64), ())

    with pytest.raises(DataError, match="no images"):
        compute_metrics(empty)


def test_a_stated_probability_of_zero_makes_the_log_loss_infinite_not_nan() -> None:
    metrics = compute_metrics(stated([0, 1], [[0.0, 1.0], [0.5, 0.5]]), bootstrap=20)

    loss = metrics.overall["log_loss"]
    assert (loss.estimate, loss.ci_low) == (None, None)
    assert loss.undefined_reason == "infinite: 1 image with probability 0 for the true class"
    assert metrics.overall["brier"].estimate == pytest.approx((1 + 0.25) / 2)
    assert metrics.overall["accuracy"].estimate == 0


def test_stated_probabilities_are_not_renormalised_so_ties_stay_ties() -> None:
    rows = [[0.2, 0.3, 0.5], [0.2, 0.5, 0.3], [0.2, 0.1, 0.7], [0.2, 0.7, 0.1]]

    metrics = compute_metrics(stated([0, 1, 2, 0], rows))

    assert metrics.per_class["a"].estimates["roc_auc"].estimate == 0.5


def test_scores_that_differ_in_the_last_bit_are_different_scores() -> None:
    high = np.nextafter(0.25, 1)

    metrics = compute_metrics(stated([0, 1], [[high, 1 - high], [0.25, 0.75]]))

    assert metrics.per_class["a"].estimates["roc_auc"].estimate == 1


def test_top_k_tells_probabilities_apart_that_differ_in_the_last_digits() -> None:
    rows = [[0.25 + 1e-12, 0.25, 0.25, 0.25 - 1e-12], [0.25 - 1e-12, 0.25, 0.25, 0.25 + 1e-12]]

    metrics = compute_metrics(stated([0, 0], rows))

    assert metrics.overall["top_3_accuracy"].estimate == 0.5
    assert "tied_predictions" not in [caution.code for caution in metrics.warnings]


def test_the_positive_class_is_the_last_of_two_unless_named() -> None:
    sample = decided([0, 0, 1, 1], [0, 1, 1, 1], 2)

    assert compute_metrics(sample).positive == "b"
    assert compute_metrics(sample, positive="a").positive == "a"
    assert compute_metrics(decided([0, 1, 2], [0, 1, 2], 3)).positive is None
    with pytest.raises(UsageError, match="none of the classes a, b"):
        compute_metrics(sample, positive="c")
    with pytest.raises(UsageError, match="needs two classes or an operating point; these predictions have 3"):
        compute_metrics(decided([0, 1, 2], [0, 1, 2], 3), positive="a")


def test_the_auc_of_two_classes_is_the_same_from_either_side() -> None:
    sample = predictions([0, 1, 0, 1, 1, 0], [[2, 0], [1, 0], [0, 1], [0, 2], [1, 1], [0, 0.5]])

    first, second = (compute_metrics(sample, positive=name).overall["roc_auc"].estimate for name in "ab")

    assert first == second


def test_auc_is_the_midrank_statistic() -> None:
    """Bamber 1975: AUC = (R - m(m+1)/2) / mn, R the sum of the midranks of the m positives."""
    generator = np.random.default_rng(4)
    scores = generator.integers(0, 8, 200).astype(float)
    positive = generator.random(200) < 0.3
    m = int(positive.sum())

    auc = ranked_metrics(rank(scores, positive), np.ones((1, 200), dtype=np.int32)).roc_auc

    ranks = scipy.stats.rankdata(scores)[positive].sum()
    assert auc[0] == pytest.approx((ranks - m * (m + 1) / 2) / (m * (200 - m)), abs=1e-15)


def test_a_weight_is_the_same_as_repeating_the_image() -> None:
    generator = np.random.default_rng(5)
    scores = generator.integers(0, 6, 40).astype(float)
    positive = generator.random(40) < 0.4
    weights = generator.integers(0, 4, (3, 40))

    found = ranked_metrics(rank(scores, positive), weights)

    for row, repeats in enumerate(weights):
        repeated, truth = np.repeat(scores, repeats), np.repeat(positive, repeats)
        assert found.roc_auc[row] == pytest.approx(oracle.roc_auc_score(truth, repeated), abs=1e-12)
        assert found.average_precision[row] == pytest.approx(oracle.average_precision_score(truth, repeated), abs=1e-12)


def test_auc_does_not_overflow_in_large_sets() -> None:
    """xrobin/pROC#19: a product of group sizes beyond 32 bits once made the interval 1 to 1."""
    n = 300_000
    scores = np.arange(n) % 1000 / 1000
    positive = np.arange(n) % 2 == 0

    auc = ranked_metrics(rank(scores, positive), np.ones((1, n), dtype=np.int32)).roc_auc

    assert auc[0] == pytest.approx(0.499, abs=1e-9)  # even scores against odd ones, each one step above: (1-1/500)/2


@pytest.mark.parametrize("seed", range(5))
def test_curves_equal_scikit_learn_with_all_their_points(seed: int) -> None:
    generator = np.random.default_rng(seed)
    scores, positive = generator.normal(size=90).round(1), generator.random(90) < 0.4

    curve, steps = roc_curve(scores, positive), precision_recall_curve(scores, positive)

    fpr, tpr, thresholds = oracle.roc_curve(positive, scores, drop_intermediate=False)
    assert curve is not None
    assert steps is not None
    np.testing.assert_allclose([curve.fpr, curve.tpr, curve.thresholds], [fpr, tpr, thresholds], atol=1e-15)
    precision, recall, _ = oracle.precision_recall_curve(positive, scores)
    np.testing.assert_allclose([steps.recall, steps.precision], [recall[::-1], precision[::-1]], atol=1e-15)
    assert roc_curve(scores, np.ones(90, dtype=bool)) is None


@pytest.mark.parametrize(("column", "wanted"), [("wfns", 0.823678861788618), ("ndka", 0.611957994579946)])
def test_auc_equals_proc_on_its_own_data(column: str, wanted: float) -> None:
    """xrobin/pROC, tests/testthat/test-auc.R: AUC of the aSAH data; `s100b` is printed as 0.7314."""
    if not (REFERENCE / "aSAH.csv").exists():
        pytest.skip("the reference data is not here")
    with (REFERENCE / "aSAH.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    scores = np.array([float(row[column]) for row in rows])
    positive = np.array([row["outcome"] == "Poor" for row in rows])

    auc = ranked_metrics(rank(scores, positive), np.ones((1, len(rows)), dtype=np.int32)).roc_auc

    assert auc[0] == pytest.approx(wanted, abs=1e-12)


def binary(tp: int, fn: int, fp: int, tn: int) -> Metrics:
    return compute_metrics(decided([1] * (tp + fn) + [0] * (fp + tn), [1] * tp + [0] * fn + [1] * fp + [0] * tn, 2))


@pytest.mark.parametrize(
    ("table", "wanted"),
    [
        ((45, 5, 10, 40), {"balanced_accuracy": 0.85, "mcc": 0.70, "cohen_kappa": 0.70}),
        ((81, 9, 2, 8), {"balanced_accuracy": 0.85, "mcc": 0.56, "cohen_kappa": 0.53}),
    ],
)
def test_figures_of_metric_pitfalls(table: tuple[int, int, int, int], wanted: dict[str, float]) -> None:
    """Reinke et al., "Understanding metric-related pitfalls", 2024, figure SN 2.9 A and B; F1 0.86 and 0.94."""
    metrics = binary(*table)

    assert {name: metrics.overall[name].estimate for name in wanted} == pytest.approx(wanted, abs=0.0051)
    assert metrics.per_class["b"].estimates["f1"].estimate == pytest.approx(
        0.86 if table[0] == 45 else 0.94, abs=0.0051
    )


def test_kappa_of_a_printed_table() -> None:
    """Artstein and Poesio, "Inter-coder agreement", 2008, table 1: kappa 0.348."""
    assert binary(50, 10, 20, 20).overall["cohen_kappa"].estimate == pytest.approx(0.348, abs=0.0005)


def test_sensitivity_and_specificity_of_a_diagnostic_test() -> None:
    """Scott et al. 2008, the example of R's epiR: 670/202/74/640 gives 0.90 and 0.76."""
    entry = binary(670, 74, 202, 640).per_class["b"]

    assert entry.estimates["recall"].estimate == pytest.approx(0.9005, abs=5e-5)
    assert entry.estimates["specificity"].estimate == pytest.approx(0.7601, abs=5e-5)
    assert entry.estimates["npv"].estimate == 640 / 714


def test_likelihood_ratios_are_quotients_of_whole_numbers() -> None:
    """1 - specificity is 1 / 1873 with an error of 1e-16, which is 1e-10 of the ratio."""
    entry = binary(tp=110, fn=12, fp=1, tn=1872).per_class["b"]

    assert entry.estimates["lr_positive"].estimate == (110 * 1873) / 122
    assert entry.estimates["lr_negative"].estimate == (12 * 1873) / (1872 * 122)


@pytest.mark.parametrize(
    ("targets", "predicted", "positive", "negative"),
    [
        ([0, 1], [0, 0], "never predicted", None),
        ([0, 1], [1, 1], None, "all images are predicted as this class"),
        ([0, 1, 1], [0, 1, 0], "infinite: specificity is 1", None),
        ([0, 1, 1], [1, 1, 0], None, "infinite: specificity is 0"),
        ([0, 0], [0, 1], "no images of this class", "no images of this class"),
        ([1, 1], [0, 1], "no images of other classes", "no images of other classes"),
    ],
)
def test_a_likelihood_ratio_that_is_0_by_0_is_not_called_infinite(
    targets: list[int], predicted: list[int], positive: str | None, negative: str | None
) -> None:
    """The same at an operating point that calls the same images."""
    point = OperatingPoint("b", 0.5, "youden", 50, 50, 0.9, 0.9)

    result = compute_metrics(replace(decided(targets, predicted, 2), operating_point=point))

    for found in (result.per_class["b"].estimates, result.overall):
        end = "@op" if found is result.overall else ""
        assert found[f"lr_positive{end}"].undefined_reason == positive
        assert found[f"lr_negative{end}"].undefined_reason == negative


@pytest.mark.parametrize("seed", range(50))
def test_a_correlation_of_1_is_not_more(seed: int) -> None:
    generator = np.random.default_rng(seed)
    truth = np.append([0, 1], generator.integers(0, generator.integers(2, 6), generator.integers(2, 3000)))

    assert counts.mcc(counts.count(counts.confusion_matrix(truth, truth, 6))) == 1


def test_a_weighted_mean_is_undefined_when_only_classes_without_images_have_a_value() -> None:
    found = compute_metrics(decided([0, 0], [1, 1], 2))

    assert found.per_class["b"].estimates["precision"].estimate == 0
    assert found.overall["precision_weighted"].undefined_reason == "undefined for every class that has images"


def test_brier_is_the_sum_over_classes_and_half_of_it_for_two() -> None:
    """scikit-learn, test_brier_score_loss_multiclass: 0.41333333."""
    three = stated([1, 0, 2], [[0.2, 0.7, 0.1], [0.6, 0.2, 0.2], [0.6, 0.1, 0.3]])
    two = stated([1, 0], [[0.2, 0.8], [0.6, 0.4]])

    assert compute_metrics(three).overall["brier"].estimate == pytest.approx(0.41333333, abs=1e-8)
    assert compute_metrics(two).overall["brier"].estimate == pytest.approx((0.2**2 + 0.4**2) / 2)


def test_ece_of_printed_examples() -> None:
    """MetricsReloaded, figure SN 2.24 (bins 2, 5, 10), and verified_calibration, util_test.py (3 classes, 3 bins)."""
    p = np.array([0.22, 0.48, 0.49, 0.96, 0.55, 0.64, 0.78, 0.82, 0.34, 0.87])
    y = np.array([0, 1, 0, 0, 1, 1, 1, 1, 1, 0]) == 1
    top, right = np.array([0.8, 0.6, 0.9, 1, 0.4, 0.85]), np.array([1, 1, 1, 1, 0, 1]) == 1

    assert [reliability_bins(p, y, bins).ece for bins in (2, 5, 10)] == pytest.approx([0.109, 0.315, 0.359])
    assert reliability_bins(top, right, 3).ece == pytest.approx(0.075)


def test_bins_are_closed_on_the_right_and_hold_0_and_1() -> None:
    confidence = np.array([0.0, 0.2, np.nextafter(0.2, 1), 1.0, np.nextafter(1, 2)])

    bins = reliability_bins(confidence, np.ones(5, dtype=bool), 5)

    assert bins.counts.tolist() == [2, 1, 0, 0, 2]


def test_ece_of_confidence_that_is_always_the_accuracy_is_zero() -> None:
    confidence = np.repeat([0.25, 0.5], 4)
    correct = np.array([1, 0, 0, 0, 1, 1, 0, 0]) == 1

    assert reliability_bins(confidence, correct).ece == 0


def test_count_metrics_take_any_number_of_matrices_at_once() -> None:
    generator = np.random.default_rng(0)
    stack = generator.integers(0, 9, (4, 3, 5, 5))

    together = counts.mcc(counts.count(stack))

    assert together.shape == (4, 3)
    assert together[2, 1] == counts.mcc(counts.count(stack[2, 1]))


def test_the_mean_of_halves_is_the_macro_average_over_what_is_defined() -> None:
    assert counts.macro(np.array([[0.5, NAN, 1.0], [NAN, NAN, NAN]]))[0] == 0.75
    assert np.isnan(counts.macro(np.array([NAN, NAN])))


def test_everything_can_be_written_as_strict_json() -> None:
    metrics = compute_metrics(random_predictions(7), bootstrap=30)

    assert "NaN" not in json.dumps(values(metrics), allow_nan=False)
    assert all(type(entry.support) is int for entry in metrics.per_class.values())


def test_many_classes_are_fast_enough_for_every_epoch() -> None:
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(5000, 200)).astype(np.float32)
    sample = Predictions(tuple(map(str, range(200))), logits, generator.integers(0, 200, 5000), ("",) * 5000)
    start = time.process_time()

    compute_metrics(sample)

    assert time.process_time() - start < 5


def test_neither_torch_nor_scikit_learn_nor_matplotlib_is_needed() -> None:
    code = (
        "import sys, evalcam_cli.evaluation.metrics, evalcam_cli.evaluation.gates, evalcam_cli.evaluation.saved\n"
        "sys.exit(len({'torch', 'sklearn', 'matplotlib', 'typer'} & set(sys.modules)))"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_probabilities_that_round_to_one_are_warned_of() -> None:
    """1 - 1e-20 is 1 in float64, and 1e-20 is not 0: scores near 1 tie where those near 0 do not."""
    sample = predictions([0, 1, 0, 1], [[0, 40], [0, 45], [0, 41], [3, 0]])

    codes = [caution.code for caution in compute_metrics(sample).warnings]

    assert "saturated_probabilities" in codes
    assert "saturated_probabilities" not in [
        caution.code for caution in compute_metrics(predictions([0, 1], [[0, 40], [0, 1]])).warnings
    ]
