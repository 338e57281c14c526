"""Count metrics against one small table worked by hand, and many tables at once against each alone."""

from collections.abc import Callable
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from numpy.typing import NDArray

from evalcam_cli.evaluation import counts
from evalcam_cli.evaluation.counts import Counts

Floats = NDArray[np.float64]
NAN = float("nan")

TABLE = np.array([[5, 1, 0, 0], [2, 3, 0, 1], [0, 0, 0, 0], [1, 3, 0, 0]])
"""Rows truth: 6, 6, 0 and 4 images; columns predictions: 8, 7, 0 and 1; 5, 3, 0 and 0 of them right; 16 in all."""

BY_HAND: dict[Callable[[Counts], Floats], list[float] | float] = {
    counts.accuracy: 8 / 16,
    counts.precision: [5 / 8, 3 / 7, NAN, 0 / 1],
    counts.recall: [5 / 6, 3 / 6, NAN, 0 / 4],
    counts.specificity: [7 / 10, 6 / 10, 16 / 16, 11 / 12],
    counts.npv: [7 / 8, 6 / 9, 16 / 16, 11 / 15],
    counts.f1: [10 / 14, 6 / 13, NAN, 0 / 5],
    counts.specificity_micro: (7 + 6 + 16 + 11) / (10 + 10 + 16 + 12),
    counts.lr_positive: [(5 / 6) / (3 / 10), (3 / 6) / (4 / 10), NAN, 0],
    counts.lr_negative: [(1 / 6) / (7 / 10), (3 / 6) / (6 / 10), NAN, 1 / (11 / 12)],
    # Σ p t = 8·6 + 7·6 + 0 + 1·4 = 94, Σ p² = 64 + 49 + 1 = 114, Σ t² = 36 + 36 + 16 = 88, s² = 256
    counts.mcc: (8 * 16 - 94) / np.sqrt((256 - 114) * (256 - 88)),
    counts.cohen_kappa: (8 / 16 - 94 / 256) / (1 - 94 / 256),
}


@pytest.mark.parametrize(("metric", "wanted"), BY_HAND.items(), ids=lambda item: getattr(item, "__name__", ""))
def test_the_numbers_of_a_table_worked_by_hand(metric: Callable[[Counts], Floats], wanted: list[float] | float) -> None:
    found = metric(counts.count(TABLE))

    np.testing.assert_allclose(found, wanted, rtol=1e-14)
    assert found.shape == np.shape(wanted)


@pytest.mark.parametrize("metric", BY_HAND, ids=lambda metric: metric.__name__)
def test_many_tables_at_once_have_the_numbers_of_each(metric: Callable[[Counts], Floats]) -> None:
    stack = np.random.default_rng(0).integers(0, 4, (5, 3, 4, 4))

    together = metric(counts.count(stack))

    for place in np.ndindex(5, 3):
        np.testing.assert_array_equal(together[place], metric(counts.count(stack[place])))
    assert together.shape[:2] == (5, 3)


def test_margins_are_rows_columns_diagonal_and_sum() -> None:
    found = counts.count(TABLE)

    assert found.support.tolist() == [6, 6, 0, 4]
    assert found.predicted.tolist() == [8, 7, 0, 1]
    assert found.hits.tolist() == [5, 3, 0, 0]
    assert found.total == 16
    assert counts.count(np.stack([TABLE, 2 * TABLE, TABLE])).total.tolist() == [16, 32, 16]


def test_a_confusion_matrix_has_a_row_and_a_column_for_every_class() -> None:
    found = counts.confusion_matrix(np.array([0, 0, 1, 1, 1]), np.array([0, 1, 1, 1, 0]), 4)

    assert found.tolist() == [[1, 1, 0, 0], [1, 2, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert found.dtype == np.int64


def test_a_table_of_one_class_has_no_correlation_and_kappa_only_where_prediction_differs() -> None:
    one = counts.count(np.array([[4, 0], [0, 0]]))
    other = counts.count(np.array([[0, 4], [0, 0]]))

    assert np.isnan(counts.mcc(one))
    assert np.isnan(counts.mcc(other))
    assert np.isnan(counts.cohen_kappa(one))
    assert counts.cohen_kappa(other) == 0


def test_agreement_by_chance_is_a_kappa_and_a_correlation_of_0_and_exchange_turns_the_sign() -> None:
    independent = np.outer([6, 4], [3, 7])

    assert counts.cohen_kappa(counts.count(independent)) == pytest.approx(0, abs=1e-15)
    assert counts.mcc(counts.count(independent)) == pytest.approx(0, abs=1e-15)
    assert counts.mcc(counts.count(np.array([[0, 5], [7, 0]]))) == -1
    assert counts.mcc(counts.count(np.array([[5, 0], [0, 7]]))) == 1


def test_a_quotient_by_0_is_undefined_not_infinite() -> None:
    found = counts.ratio(np.array([1.0, 0.0, 3.0, 0.0]), np.array([0.0, 0.0, -2.0, 5.0]))

    np.testing.assert_array_equal(found, [NAN, NAN, -1.5, 0])


def test_averages_leave_out_classes_where_the_value_is_undefined() -> None:
    values = np.array([[[0.5, NAN, 0.25], [NAN, NAN, 1.0]], [[NAN, NAN, NAN], [1.0, 0.0, NAN]]])
    support = np.array([[[1.0, 7.0, 3.0], [5.0, 5.0, 2.0]], [[1.0, 1.0, 1.0], [3.0, 1.0, 9.0]]])

    np.testing.assert_array_equal(counts.macro(values), [[0.375, 1.0], [NAN, 0.5]])
    np.testing.assert_array_equal(counts.weighted(values, support), [[(0.5 + 0.75) / 4, 1.0], [NAN, 0.75]])


def test_a_weighted_average_over_classes_without_images_is_undefined() -> None:
    assert np.isnan(counts.weighted(np.array([0.5, NAN]), np.array([0.0, 3.0])))


def test_counts_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        counts.count(TABLE).support = np.zeros(4)  # type: ignore[misc]
