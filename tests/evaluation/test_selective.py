"""Risk against coverage, held to brute force, to the AUC of the confidence, and to bounds known in closed form."""

import json
import time
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from evalcam_cli.evaluation.operating_point import OperatingPoint
from evalcam_cli.evaluation.predictions import Predictions
from evalcam_cli.evaluation.resampling import resample_weights
from evalcam_cli.evaluation.selective import HEADER, RiskCoverage, decision_confidence, risk_coverage
from evalcam_cli.evaluation.stated import StatedProbabilities

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def sure(confidence: list[float], correct: list[bool], groups: tuple[str, ...] = ()) -> StatedProbabilities:
    """Two classes; every image is predicted as the first with this confidence."""
    p = np.array(confidence)
    both = np.stack([p, 1 - p], axis=1)
    with np.errstate(divide="ignore"):
        logits = np.log(both).astype(np.float32)
    targets = np.where(correct, 0, 1).astype(np.int64)
    return StatedProbabilities(("a", "b"), logits, targets, tuple(map(str, range(len(p)))), groups=groups, stated=both)


def drawn(n: int = 200, seed: int = 0, k: int = 3, decimals: int | None = None) -> Predictions:
    """Random predictions; rounded logits give many ties."""
    generator = np.random.default_rng(seed)
    targets = generator.integers(0, k, n)
    logits = generator.normal(size=(n, k))
    logits[np.arange(n), targets] += 1
    if decimals is not None:
        logits = np.round(logits, decimals)
    return Predictions(tuple("abcdef"[:k]), logits.astype(np.float32), targets, tuple(map(str, range(n))))


def brute_force(confidence: Floats, wrong: Bools) -> tuple[float, float]:
    """AURC and AUGRC by comparing every image with every other one."""
    n = len(wrong)
    aurc = np.mean([wrong[confidence >= threshold].mean() for threshold in confidence])
    beats = (confidence[:, None] > confidence) + 0.5 * (confidence[:, None] == confidence)
    return float(aurc), float(beats[wrong].sum() / n**2)  # a wrong image accepted before, or half the time beside


def areas(found: RiskCoverage) -> tuple[float | None, float | None]:
    return found.aurc.estimate, found.augrc.estimate


def test_the_curve_of_four_images_worked_out_by_hand() -> None:
    """Right, wrong, then two equally sure: one right, one wrong."""
    found = risk_coverage(sure([0.9, 0.8, 0.7, 0.7], [True, False, True, False]))

    np.testing.assert_array_equal(found.accepted, [1, 2, 4])
    np.testing.assert_allclose(found.risk, [0, 1 / 2, 1 / 2])
    assert found.aurc.estimate == pytest.approx((0 + 1 / 2 + 2 * 1 / 2) / 4)
    assert found.augrc.estimate == pytest.approx(0 + (0 + 1 / 4) / 2 / 4 + (1 / 4 + 2 / 4) / 2 / 2)


@pytest.mark.parametrize("decimals", [None, 0, 1])
@pytest.mark.parametrize("seed", range(5))
def test_the_areas_equal_brute_force(seed: int, decimals: int | None) -> None:
    predictions = drawn(seed=seed, decimals=decimals)
    wrong = predictions.predicted != predictions.targets

    found = risk_coverage(predictions)

    assert areas(found) == pytest.approx(brute_force(predictions.probabilities.max(axis=1), wrong), abs=1e-12)


@pytest.mark.parametrize("decimals", [None, 0])
def test_augrc_follows_from_the_risk_and_the_auc_of_the_confidence(decimals: int | None) -> None:
    """Traub et al. 2024: r(1-r)(1-A) + r²/2."""
    predictions = drawn(500, decimals=decimals)
    correct = predictions.predicted == predictions.targets
    area = roc_auc_score(correct, predictions.probabilities.max(axis=1))

    found = risk_coverage(predictions)

    risk = found.full_risk
    assert found.augrc.estimate == pytest.approx(risk * (1 - risk) * (1 - area) + risk**2 / 2, abs=1e-12)


def test_confidences_that_put_every_error_last_reach_the_optimum() -> None:
    found = risk_coverage(sure(np.linspace(0.99, 0.51, 30).tolist(), [True] * 20 + [False] * 10))

    assert found.aurc.estimate == pytest.approx(found.aurc_optimal)
    assert found.excess_aurc == pytest.approx(0)
    assert found.augrc.estimate == pytest.approx(found.augrc_optimal)
    assert found.augrc_optimal == pytest.approx((1 / 3) ** 2 / 2)


def test_confidences_that_say_nothing_have_the_areas_of_chance() -> None:
    found = risk_coverage(sure([0.7] * 10, [True] * 6 + [False] * 4))

    assert areas(found) == pytest.approx((0.4, 0.2))
    assert len(found.accepted) == 1


def test_no_errors_leave_no_risk_and_nothing_but_errors_leaves_no_choice() -> None:
    right, wrong = risk_coverage(sure([0.9, 0.8], [True, True])), risk_coverage(sure([0.9, 0.8], [False, False]))

    assert areas(right) == (0.0, 0.0)
    assert right.coverage_at_risk == {0.01: 1.0, 0.02: 1.0, 0.05: 1.0}
    assert areas(wrong) == (1.0, 0.5)
    assert wrong.coverage_at_risk == {0.01: 0.0, 0.02: 0.0, 0.05: 0.0}


def test_coverage_at_a_risk_is_the_largest_even_after_an_early_error() -> None:
    """The surest image is wrong, the next 99 are right: all 100 images have a risk of exactly 1 %."""
    found = risk_coverage(sure(np.linspace(0.99, 0.6, 100).tolist(), [False] + [True] * 99))

    assert found.coverage_at_risk == {0.01: 1.0, 0.02: 1.0, 0.05: 1.0}


def test_images_of_equal_confidence_are_accepted_together() -> None:
    """The first wrong image ties with the last 10 right ones, so coverage stops before the tie."""
    found = risk_coverage(sure([0.9] * 50 + [0.8] * 11, [True] * 60 + [False]))

    assert found.coverage_at_risk[0.01] == pytest.approx(50 / 61)
    assert found.coverage_at_risk[0.02] == pytest.approx(1.0)  # 1 of 61 is 1.6 %


def test_the_order_of_the_images_changes_nothing() -> None:
    predictions = drawn(decimals=1)
    shuffled = predictions.take(np.random.default_rng(1).permutation(200))

    assert areas(risk_coverage(shuffled)) == areas(risk_coverage(predictions))


def test_the_interval_is_the_percentiles_of_the_shared_resamples() -> None:
    predictions = drawn(60, decimals=1)
    confidence, wrong = predictions.probabilities.max(axis=1), predictions.predicted != predictions.targets
    rows = np.concatenate(list(resample_weights(60, 150, 4)))
    values = [brute_force(np.repeat(confidence, row), np.repeat(wrong, row)) for row in rows]

    found = risk_coverage(predictions, bootstrap=150, seed=4)

    wanted = np.quantile(values, [0.025, 0.975], axis=0)
    assert (found.aurc.ci_low, found.aurc.ci_high) == pytest.approx(tuple(wanted[:, 0]))
    assert (found.augrc.ci_low, found.augrc.ci_high) == pytest.approx(tuple(wanted[:, 1]))


def test_patients_are_resampled_whole() -> None:
    """Ten copies of every image, under one patient each, say no more than the images themselves."""
    single = drawn(40)
    tenfold = replace(single.take(np.repeat(np.arange(40), 10)), groups=tuple(str(i // 10) for i in range(400)))

    one, other = (risk_coverage(each, bootstrap=300).augrc for each in (single, tenfold))

    assert other.ci_method == "patient_bootstrap"
    assert (other.ci_low, other.ci_high) == pytest.approx((one.ci_low, one.ci_high))


def test_one_patient_has_no_interval() -> None:
    found = risk_coverage(sure([0.9, 0.8, 0.7], [True, False, True], ("x",) * 3), bootstrap=100)

    assert found.aurc.ci_low is None
    assert "2 groups" in str(found.aurc.ci_note)


def test_the_confidence_of_a_decision_by_threshold_is_lowest_at_the_threshold() -> None:
    point = OperatingPoint("b", 0.1, "youden", 100, 300, 0.8, 0.7)
    predictions = replace(sure([0.95, 0.9, 0.8, 0.5, 0.0], [True] * 5), operating_point=point)  # p: .05, .1, .2, .5, 1

    found = decision_confidence(predictions)

    np.testing.assert_allclose(found, [1 - 0.05 * 0.9 / 0.14, 0.5, 0.18 / 0.26, 0.9, 1.0], atol=1e-12)


def test_a_threshold_of_one_half_leaves_the_largest_probability() -> None:
    predictions = drawn(k=2)
    point = OperatingPoint("b", 0.5, "youden", 100, 300, 0.8, 0.7)

    found = decision_confidence(replace(predictions, operating_point=point))

    np.testing.assert_allclose(found, predictions.probabilities.max(axis=1), rtol=1e-12)


def test_files_have_their_columns_and_keep_both_ends() -> None:
    found = risk_coverage(drawn(3000), bootstrap=100)

    rows = list(found.rows(limit=100))
    json.dumps(found.document(), allow_nan=False)

    assert len(rows) == 100
    assert all(len(row) == len(HEADER) for row in rows)
    assert rows[0][1] == found.accepted[0]
    assert rows[-1][2:4] == (1.0, found.full_risk)


def test_50_000_images_of_100_classes_take_seconds() -> None:
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(50_000, 100)).astype(np.float32)
    predictions = Predictions(tuple(map(str, range(100))), logits, generator.integers(0, 100, 50_000), ())

    start = time.process_time()
    risk_coverage(predictions, bootstrap=100)

    assert time.process_time() - start < 10
