"""What a pass over the scores leaves, block by block, and every metric under weights."""

from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest

from evalcam_cli.evaluation import statistics
from evalcam_cli.evaluation.operating_point import OperatingPoint
from evalcam_cli.evaluation.predictions import Predictions
from evalcam_cli.evaluation.statistics import Facts, Sample, sum_by_label, weighted_mean
from tests.evaluation.degenerate_cases import made

BLOCKS = "evalcam_cli.evaluation.predictions.BLOCK_SCORES"
COUNTED = (
    *("precision", "recall", "specificity", "npv", "f1", "lr_positive", "lr_negative"),
    *(f"{name}_{average}" for name in ("precision", "recall", "specificity", "npv", "f1")
      for average in ("macro", "weighted", "micro")),
    *("balanced_accuracy", "accuracy", "mcc", "cohen_kappa", "no_information_rate"),
    *("top_3_accuracy", "top_5_accuracy", "log_loss", "brier"),
)  # fmt: skip
AT_POINT = tuple(f"{name}@op" for name in (*COUNTED[:7], "accuracy"))
RANKED = (
    *("roc_auc", "partial_roc_auc", "average_precision"),
    *("roc_auc_ovr_macro", "roc_auc_ovr_weighted", "average_precision_macro", "average_precision_weighted"),
)
POOLED = ("roc_auc_ovr_micro", "average_precision_micro", "roc_auc_ovo_macro")


def drawn(n: int = 23, k: int = 7, *, seed: int = 0, point: bool = False) -> Predictions:
    """Random scores, rounded so that some are tied; the last class has no images."""
    generator = np.random.default_rng(seed)
    targets = generator.integers(0, k - 1, n)
    logits = generator.normal(size=(n, k)).round(1)
    logits[np.arange(n), targets] += 0.7
    names, paths = tuple("abcdefg"[:k]), tuple(map(str, range(n)))
    chosen = OperatingPoint("b", 0.2, "youden", 50, 50, 0.9, 0.9) if point else None
    return Predictions(names, logits.astype(np.float32), targets, paths, operating_point=chosen)


def test_facts_of_two_images_by_hand() -> None:
    facts = Facts.of(made([0, 2], [[0.5, 0.3, 0.2], [0.4, 0.4, 0.2]], stated=True))

    np.testing.assert_allclose(facts.losses, [-np.log(0.5), -np.log(0.2)], rtol=1e-15)
    np.testing.assert_allclose(facts.truth, [0.5, 0.2], rtol=1e-15)
    np.testing.assert_allclose(facts.squares, [0.25 + 0.09 + 0.04, 0.16 + 0.16 + 0.64], rtol=1e-14)
    assert facts.truth_rank.tolist() == [0, 2]
    assert facts.truth_rank.dtype == np.int64


def test_squares_of_two_classes_are_halved_and_a_sure_hit_costs_plus_zero() -> None:
    facts = Facts.of(made([0, 1, 1], [[0.75, 0.25], [0.0, 1.0], [1.0, 0.0]], stated=True))

    assert facts.squares.tolist() == [0.0625, 0, 1]
    assert facts.losses.tolist() == [-np.log(0.75), 0, np.inf]
    assert not np.signbit(facts.losses[1])


def test_equal_scores_come_in_class_order() -> None:
    tied = [[1.0, 2.0, 2.0, 0.0]] * 4

    assert Facts.of(made([0, 1, 2, 3], tied)).truth_rank.tolist() == [2, 0, 1, 3]
    assert Facts.of(made([0, 1, 2, 3], [[0.0] * 4] * 4)).truth_rank.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("scores", [1, 7, 21, 50])
def test_blocks_of_images_leave_what_all_at_once_leave(scores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Facts.of(drawn())
    monkeypatch.setattr(BLOCKS, scores)

    parts = Facts.of(drawn())

    for name in ("losses", "truth", "squares", "truth_rank"):
        np.testing.assert_array_equal(getattr(parts, name), getattr(whole, name))
    assert len(parts.losses) == 23


@pytest.mark.parametrize("scores", [1, 50, 70])
def test_blocks_of_classes_have_the_points_of_all_at_once(scores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Sample.of(drawn(point=True)).points()
    monkeypatch.setattr(BLOCKS, scores)

    parts = Sample.of(drawn(point=True)).points()

    assert parts.keys() == whole.keys()
    for name, value in whole.items():
        np.testing.assert_array_equal(parts[name], value)


def test_the_statistics_are_those_named() -> None:
    plain, at_point = Sample.of(drawn()), Sample.of(drawn(point=True))
    ones = np.ones((1, 23), dtype=np.int32)

    assert set(plain.statistics(ones, ranked=False)) == set(COUNTED)
    assert set(plain.statistics(ones, pooled=False)) == {*COUNTED, *RANKED}
    assert set(plain.statistics(ones)) == {*COUNTED, *RANKED, *POOLED}
    assert set(at_point.statistics(ones)) == {*COUNTED, *RANKED, *POOLED, *AT_POINT}
    assert set(at_point.points()) == {*COUNTED, *RANKED, *POOLED, *AT_POINT}


def test_metrics_by_class_have_a_column_for_each_and_others_one_value() -> None:
    found = Sample.of(drawn(point=True)).statistics(np.ones((2, 23), dtype=np.int32))

    for name, values in found.items():
        assert values.shape == ((2, 7) if name in (*COUNTED[:7], *RANKED[:3]) else (2,)), name


@pytest.mark.parametrize("rows", [1, 2, 3, 100])
def test_weights_are_the_same_as_repeating_images(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many resamples the pooled scores take at a time."""
    sample = drawn(point=True)
    weights = np.random.default_rng(1).integers(0, 4, (7, 23)).astype(np.int32)
    monkeypatch.setattr(statistics, "_POOLED_WEIGHTS", rows * 23 * 7)

    found = Sample.of(sample).statistics(weights)

    for row, repeats in enumerate(weights):
        wanted = Sample.of(sample.take(np.repeat(np.arange(23), repeats))).points()
        for name, value in wanted.items():
            np.testing.assert_allclose(found[name][row], value, rtol=1e-12, atol=1e-12, err_msg=name)


def test_a_single_resample_is_pooled_even_where_it_is_more_than_may_be_held(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = np.random.default_rng(1).integers(0, 4, (3, 23)).astype(np.int32)
    whole = Sample.of(drawn()).statistics(weights)
    monkeypatch.setattr(statistics, "_POOLED_WEIGHTS", 1)

    parts = Sample.of(drawn()).statistics(weights)

    for name in POOLED:
        np.testing.assert_allclose(parts[name], whole[name], rtol=1e-14)


def test_points_are_the_statistics_of_every_image_once() -> None:
    sample = Sample.of(drawn(point=True))
    once = sample.statistics(np.ones((1, 23), dtype=np.int32))

    for name, value in sample.points().items():
        np.testing.assert_allclose(once[name][0], value, rtol=1e-13, err_msg=name)


def test_top_k_is_undefined_where_there_are_no_more_classes() -> None:
    three, four, five = (Sample.of(drawn(k=k)).points() for k in (3, 4, 5))

    assert np.isnan([three["top_3_accuracy"], three["top_5_accuracy"], five["top_5_accuracy"]]).all()
    assert 0 < four["top_3_accuracy"] < 1


def test_top_3_and_the_auc_of_a_class_by_hand() -> None:
    """The true class is 4th, 2nd and 1st; p of class a puts its image above one other and below the other one."""
    rows = [[2.0, 3.0, 4.0, 5.0], [3.0, 1.0, 2.0, 0.0], [1.0, 0.0, 0.0, 9.0]]

    found = Sample.of(made([0, 2, 3], rows)).points()

    assert found["top_3_accuracy"] == pytest.approx(2 / 3)
    assert found["roc_auc"][0] == 0.5
    assert found["roc_auc"][3] == 1


def test_the_share_of_the_largest_class_changes_with_the_resample() -> None:
    sample = Sample.of(made([0, 0, 1], [[1.0, 0.0]] * 3))
    weights = np.array([[1, 1, 1], [0, 1, 2], [1, 0, 0], [0, 0, 0]], dtype=np.int32)

    found = sample._count_statistics(weights[:3])["no_information_rate"]

    np.testing.assert_allclose(found, [2 / 3, 2 / 3, 1])


def test_an_operating_point_counts_its_class_against_the_rest() -> None:
    """p of b is 0.2, 0.3, 0.1 and 0.6: with 0.2 as the threshold all but the third are called."""
    rows = [[0.5, 0.2, 0.3], [0.4, 0.3, 0.3], [0.6, 0.1, 0.3], [0.2, 0.6, 0.2]]
    point = OperatingPoint("b", 0.2, "youden", 50, 50, 0.9, 0.9)

    found = Sample.of(replace(made([0, 1, 1, 1], rows, stated=True), operating_point=point)).points()

    assert {name: float(found[f"{name}@op"]) for name in ("accuracy", "precision", "recall", "npv")} == pytest.approx(
        {"accuracy": 2 / 4, "precision": 2 / 3, "recall": 2 / 3, "npv": 0}
    )


def test_sums_by_label_hold_every_class_also_without_images() -> None:
    weights = np.array([[1, 2, 3, 4], [10, 20, 30, 40]], dtype=np.int32)

    assert sum_by_label(weights, np.array([2, 0, 2, 3]), 5).tolist() == [[2, 0, 4, 4, 0], [20, 0, 40, 40, 0]]
    assert sum_by_label(weights[:, :0], np.zeros(0, dtype=np.int64), 3).tolist() == [[0] * 3] * 2


def test_a_weighted_mean_takes_infinity_only_where_it_has_weight() -> None:
    values, weights = np.array([1.0, np.inf, 4.0]), np.array([[1, 0, 2], [1, 3, 2], [5, 0, 0]], dtype=np.int32)

    assert weighted_mean(values, weights).tolist() == [3, np.inf, 1]


def test_facts_and_samples_cannot_be_changed() -> None:
    sample = Sample.of(drawn())

    with pytest.raises(FrozenInstanceError):
        sample.facts.losses = np.zeros(23)  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        sample.facts = sample.facts  # type: ignore[misc]
