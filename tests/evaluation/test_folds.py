"""The rounds of a cross-validation: means, an interval that does not pretend folds are independent, and names."""

import json
import math
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats

from evalcam_cli.evaluation.auc import placements
from evalcam_cli.evaluation.folds import (
    FOLD_HEADER,
    HEADER,
    headline,
    nadeau_bengio,
    nadeau_bengio_test,
    of_rounds,
    pooled_names,
    summarise_folds,
)
from evalcam_cli.evaluation.metrics import Metrics, compute_metrics
from evalcam_cli.evaluation.operating_point import OperatingPoint
from evalcam_cli.evaluation.predictions import Predictions


def sample(n: int, k: int = 2, seed: int = 0, shift: float = 1.5, classes: int | None = None) -> Predictions:
    """Predictions for K classes; the truth is among the first `classes` of them."""
    generator = np.random.default_rng(seed)
    targets = np.arange(n) % (classes or k)
    logits = generator.normal(size=(n, k)).astype(np.float32)
    logits[np.arange(n), targets] += shift
    return Predictions(tuple("abcdef"[:k]), logits, targets, tuple(f"{seed}/{i}" for i in range(n)))


def rounds(k: int = 2, folds: int = 5, n: int = 40) -> list[tuple[int, Metrics]]:
    return [(fold, compute_metrics(sample(n, k, seed=fold))) for fold in range(folds)]


def defined(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def moons_aucs() -> tuple[np.ndarray, np.ndarray, int, int]:
    """AUCs of two support vector machines in the 100 rounds of scikit-learn's plot_grid_search_stats example."""
    from sklearn.datasets import make_moons
    from sklearn.model_selection import RepeatedStratifiedKFold
    from sklearn.svm import SVC

    points, truth = make_moons(noise=0.352, random_state=1, n_samples=100)
    found: dict[str, list[float]] = {"rbf": [], "linear": []}
    for train, test in RepeatedStratifiedKFold(n_splits=10, n_repeats=10, random_state=0).split(points, truth):
        for kernel, areas in found.items():
            scores = SVC(kernel=kernel, random_state=0).fit(points[train], truth[train]).decision_function(points[test])
            placed = placements(scores, truth[test] == 1)
            assert placed is not None
            areas.append(placed.auc)
    return np.array(found["rbf"]), np.array(found["linear"]), len(train), len(test)


def test_the_corrected_t_test_gives_what_scikit_learn_prints() -> None:
    rbf, linear, n_train, n_test = moons_aucs()

    corrected = nadeau_bengio_test(rbf - linear, n_test / n_train, alternative="greater")
    uncorrected = nadeau_bengio_test(rbf - linear, 0.0, alternative="greater")

    assert corrected == pytest.approx((0.7503126954482318, 0.2274229710133665), abs=1e-10)
    assert uncorrected == pytest.approx((2.6111648393354643, 0.005213013150393235), abs=1e-10)


def test_without_the_correction_it_is_the_paired_t_test() -> None:
    differences = np.random.default_rng(3).normal(0.3, size=12)

    t, p = nadeau_bengio_test(differences, 0.0)

    oracle = scipy.stats.ttest_1samp(differences, 0.0)
    assert (t, p) == pytest.approx((oracle.statistic, oracle.pvalue), rel=1e-12)


def test_the_interval_of_three_folds_worked_out_by_hand() -> None:
    """Mean 2, SD 1; sqrt(1/3 + 1/2) = .9128709, and Student's t with 2 degrees of freedom is 4.3026527."""
    found = nadeau_bengio([1.0, 2.0, 3.0], 1 / 2)

    assert found.low == pytest.approx(2 - 4.302652729749464 * math.sqrt(5 / 6))
    assert found.high == pytest.approx(2 + 4.302652729749464 * math.sqrt(5 / 6))
    assert found.method == "nadeau_bengio"


def test_the_interval_and_the_test_agree_on_where_the_edge_is() -> None:
    values = np.random.default_rng(5).normal(0.2, 0.1, size=8)
    interval = nadeau_bengio(values.tolist(), 0.25)
    assert interval.low is not None

    _, p = nadeau_bengio_test(values - interval.low, 0.25)

    assert p == pytest.approx(0.05, abs=1e-9)


def test_it_is_wider_than_the_standard_error_of_the_mean_would_be() -> None:
    values = [0.80, 0.85, 0.90, 0.82, 0.88]
    naive = 2.7764451051977934 * float(np.std(values, ddof=1)) / math.sqrt(5)

    found = nadeau_bengio(values, 1 / 4)

    assert found.low is not None
    assert found.high is not None
    assert found.high - found.low == pytest.approx(2 * naive * math.sqrt(5 * (1 / 5 + 1 / 4)))


@pytest.mark.parametrize(("values", "reason"), [([0.9], "2 folds"), ([0.9, 0.9, 0.9], "same value")])
def test_too_few_or_equal_values_give_a_reason_instead_of_an_interval(values: list[float], reason: str) -> None:
    found = nadeau_bengio(values, 0.5)

    assert (found.low, found.high, found.method) == (None, None, None)
    assert reason in str(found.note)


def test_identical_classifiers_give_p_1_and_equal_differences_give_none() -> None:
    assert nadeau_bengio_test([0.0, 0.0, 0.0], 0.5) == (None, 1.0)
    assert nadeau_bengio_test([0.1, 0.1, 0.1], 0.5) == (None, None)
    assert nadeau_bengio_test([0.1], 0.5) == (None, None)


def test_the_summary_holds_mean_sd_and_ends_of_the_values() -> None:
    folds = rounds(k=3)

    table = summarise_folds(folds)

    values = defined(metrics.overall["accuracy"].estimate for _, metrics in folds)
    one = table.summaries["accuracy"]
    assert one.values == tuple(values)
    assert (one.mean, one.sd) == pytest.approx((np.mean(values), np.std(values, ddof=1)))
    assert (one.low, one.high, one.defined) == (min(values), max(values), 5)
    assert one.interval == nadeau_bengio(values, 1 / 4)


def test_sizes_give_the_ratio_of_test_to_training_images() -> None:
    """Images held back for validation were not trained on, so the interval is wider than that of 1 / (k - 1)."""
    folds = rounds(k=3)

    table = summarise_folds(folds, sizes=[(136, 40)] * 5)

    values = table.summaries["brier"].values
    assert table.summaries["brier"].interval == nadeau_bengio(
        [value for value in values if value is not None], 40 / 136
    )


def test_a_metric_undefined_in_a_fold_is_left_out_and_counted() -> None:
    folds = [*rounds(k=3, folds=3), (3, compute_metrics(sample(40, 3, seed=9, classes=2)))]

    one = summarise_folds(folds).summaries["recall[c]"]

    assert one.values[3] is None
    assert one.reasons[3] == "no images of this class"
    assert one.defined == 3
    assert one.mean == pytest.approx(np.mean(defined(one.values)))
    assert one.interval.low is not None
    assert "3 of 4 folds" in str(one.estimate().ci_note)


def test_a_metric_undefined_in_all_folds_has_a_reason() -> None:
    folds = [(fold, compute_metrics(sample(40, 3, seed=fold, classes=2))) for fold in range(3)]

    one = summarise_folds(folds).summaries["recall[c]"]

    assert (one.mean, one.sd, one.low, one.interval.low) == (None, None, None, None)
    assert one.undefined_reason == "undefined in every fold: no images of this class"


def test_a_metric_defined_in_one_fold_has_a_mean_but_no_sd() -> None:
    folds = [(0, compute_metrics(sample(40, 3, seed=1))), (1, compute_metrics(sample(40, 3, seed=2, classes=2)))]

    one = summarise_folds(folds).summaries["recall[c]"]

    assert one.mean == one.values[0]
    assert one.sd is None
    assert "2 folds" in str(one.interval.note)


def test_a_limit_outside_what_the_metric_can_be_is_put_on_the_edge_and_named() -> None:
    folds = [(fold, compute_metrics(sample(20, 2, seed=fold, shift=shift))) for fold, shift in enumerate((9, 1, 9))]

    one = summarise_folds(folds).summaries["accuracy"]

    assert one.interval.high == 1.0
    assert one.interval.method == "nadeau_bengio_clipped"
    assert 0 <= float(one.interval.low or 0) < float(one.mean or 0)


def test_pooled_ranks_and_f1_have_names_of_their_own() -> None:
    two, three = rounds(2)[0][1], rounds(3)[0][1]

    names = pooled_names(two.overall) | pooled_names(three.overall)

    assert names["roc_auc"] == "auc_pooled_oof"
    assert names["roc_auc_ovr_macro"] == "auc_ovr_macro_pooled_oof"
    assert names["average_precision_macro"] == "average_precision_macro_pooled_oof"
    assert names["f1_macro"] == "f1_macro_pooled_oof"
    assert names["accuracy"] == "accuracy"


def test_no_pooled_name_is_taken_twice_or_is_that_of_a_mean_over_folds() -> None:
    names = pooled_names(rounds(3)[0][1].overall)

    changed = {name: other for name, other in names.items() if name != other}
    assert len(set(names.values())) == len(names)
    assert not set(changed.values()) & set(names)


def test_the_headline_auc_is_the_mean_of_the_folds_and_differs_from_the_pooled_one() -> None:
    """Each fold ranks perfectly, on a scale of its own: the mean is 1, the pooled AUC is not."""
    logits = [np.array([[0, base], [0, base + 1.0]], dtype=np.float32) for base in (-4.0, 0.0, 4.0)]
    parts = [Predictions(("a", "b"), block, np.array([0, 1]), ("x", "y")) for block in logits]
    pooled = Predictions(("a", "b"), np.concatenate(logits), np.array([0, 1] * 3), tuple("uvwxyz"))

    found = headline(compute_metrics(pooled), summarise_folds([(i, compute_metrics(p)) for i, p in enumerate(parts)]))

    assert found["roc_auc"].estimate == 1.0
    assert found["auc_pooled_oof"].estimate == pytest.approx(6 / 9)
    assert found["f1_macro_pooled_oof"].estimate == compute_metrics(pooled).overall["f1_macro"].estimate
    assert found["accuracy"] == compute_metrics(pooled).overall["accuracy"]


def test_files_have_their_columns_and_json_has_no_nan() -> None:
    table = summarise_folds([*rounds(k=3, folds=2), (2, compute_metrics(sample(40, 3, seed=9, classes=2)))])

    document = json.loads(json.dumps(table.document(), allow_nan=False))
    rows, fold_rows = list(table.rows()), list(table.fold_rows())

    assert document["metrics"]["accuracy"]["folds_defined"] == 3
    assert document["prevalence"][2] == {"a": 0.5, "b": 0.5, "c": 0.0}
    assert all(len(row) == len(HEADER) for row in rows)
    assert all(len(row) == len(FOLD_HEADER) for row in fold_rows)
    assert len(fold_rows) == 3 * len(rows)


def test_folds_of_other_classes_are_refused() -> None:
    with pytest.raises(ValueError, match="same classes"):
        summarise_folds([rounds(2)[0], rounds(3)[0]])


def test_one_fold_has_values_but_no_interval() -> None:
    one = summarise_folds(rounds(folds=1)).summaries["accuracy"]

    assert one.mean == one.values[0] == one.low == one.high
    assert (one.sd, one.interval.low) == (None, None)
    assert "2 folds" in str(one.estimate().ci_note)


def test_a_fold_without_operating_point_leaves_its_numbers_undefined_with_a_reason() -> None:
    point = OperatingPoint("b", 0.4, "youden", 50, 50, 0.9, 0.9)
    with_point = compute_metrics(replace(sample(40), operating_point=point))
    without = compute_metrics(sample(40, seed=2))

    one = summarise_folds([(0, without), (1, with_point)]).summaries["recall@op"]

    assert one.values == (None, with_point.overall["recall@op"].estimate)
    assert one.reasons[0] == "not measured in this fold"


def test_a_large_negative_t_keeps_its_tiny_p() -> None:
    """1 - (1 - p) would be 0."""
    differences = np.random.default_rng(0).normal(1, 0.01, 20)

    _, p = nadeau_bengio_test(-differences, 0.1)

    assert p == nadeau_bengio_test(differences, 0.1)[1] == pytest.approx(0, abs=1e-20)
    assert p is not None
    assert p > 0


def test_equal_learners_are_rarely_called_different_in_ten_folds_and_often_without_the_correction() -> None:
    """Two nearest-mean learners on disjoint, equally informative halves of the features; 10 folds of 100 images."""
    generator = np.random.default_rng(11)
    differences = []
    for _ in range(150):
        truth = np.arange(100) % 2
        features = generator.normal(size=(100, 40)) + 0.3 * truth[:, None]
        folds = generator.permutation(100).reshape(10, 10)
        differences.append([_nearest_mean(features[:, :20], truth, fold) - _nearest_mean(features[:, 20:], truth, fold)
                            for fold in folds])  # fmt: skip

    wrong = [np.mean([(nadeau_bengio_test(one, ratio)[1] or 1) < 0.05 for one in differences]) for ratio in (1 / 9, 0)]

    assert wrong[0] <= 0.065
    assert wrong[0] < wrong[1]


def _nearest_mean(features: np.ndarray, truth: np.ndarray, test: np.ndarray) -> float:
    train = np.setdiff1d(np.arange(len(truth)), test)
    means = [features[train][truth[train] == label].mean(axis=0) for label in (0, 1)]
    distances = np.stack([((features[test] - mean) ** 2).sum(axis=1) for mean in means])
    return float((distances.argmin(axis=0) == truth[test]).mean())


# ---- repeats


def test_the_interval_of_two_repeats_of_three_folds_worked_out_by_hand() -> None:
    """Mean .85, SD sqrt(.055 / 5); J = 6 rounds, and n_test / n_train = 1/2 since each division has 3 folds."""
    values = [0.8, 0.9, 1.0, 0.7, 0.9, 0.8]

    found = nadeau_bengio(values, 1 / 2)

    half = 2.570581835636314 * math.sqrt(0.055 / 5) * math.sqrt(1 / 6 + 1 / 2)
    assert (found.low, found.high) == pytest.approx((0.85 - half, 0.85 + half))


def test_repeats_leave_the_ratio_that_of_one_division() -> None:
    given = rounds(folds=6, n=40)

    table = summarise_folds(given, repeats=2)

    one = table.summaries["accuracy"]
    expected = nadeau_bengio(defined(one.values), 1 / 2)
    assert one.interval.low == pytest.approx(expected.low)
    assert table.title == "6 rounds (2 repeats)"
    assert table.document()["repeats"] == 2


def test_repeats_count_images_and_not_predictions() -> None:
    predictions = sample(60)
    twice = replace(
        predictions,
        logits=np.tile(predictions.logits, (2, 1)),
        targets=np.tile(predictions.targets, 2),
        paths=predictions.paths * 2,
        groups=predictions.paths * 2,
    )
    table = summarise_folds(rounds(folds=4, n=30), repeats=2, images=60)

    found = of_rounds(compute_metrics(twice, bootstrap=50), table)

    assert found.n == 60
    assert found.confusion.sum() == 120


def test_saying_the_same_of_each_image_again_makes_no_interval_narrower() -> None:
    predictions = sample(60, shift=0.8)
    twice = replace(
        predictions,
        logits=np.tile(predictions.logits, (3, 1)),
        targets=np.tile(predictions.targets, 3),
        paths=predictions.paths * 3,
        groups=predictions.paths * 3,
    )

    once = compute_metrics(predictions, bootstrap=300).overall
    again = compute_metrics(twice, bootstrap=300).overall

    for name in ("accuracy", "balanced_accuracy", "f1_macro", "roc_auc", "log_loss"):
        first, second = once[name], again[name]
        assert second.estimate == pytest.approx(first.estimate)
        assert None not in (first.ci_low, first.ci_high, second.ci_low, second.ci_high)
        width = (second.ci_high or 0) - (second.ci_low or 0)
        assert width > 0.93 * ((first.ci_high or 0) - (first.ci_low or 0))
