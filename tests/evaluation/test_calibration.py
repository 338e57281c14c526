"""Calibration against statsmodels, theorems and simulation; printed ECEs are in test_reference_values.py."""

import numpy as np
import pytest
import scipy.stats
import statsmodels.api as sm
from numpy.typing import NDArray
from scipy.special import expit, logit

from evalcam_cli.evaluation.calibration import (
    Recalibration,
    calibration_null,
    equal_mass_bins,
    recalibration,
    reliability_bins,
)

Floats = NDArray[np.float64]


def outcomes(seed: int, n: int = 200) -> tuple[Floats, NDArray[np.bool_]]:
    """Probabilities that are too extreme, and what happened."""
    generator = np.random.default_rng(seed)
    x = generator.normal(size=n)
    return 1 / (1 + np.exp(-1.7 * x - 0.4)), generator.random(n) < 1 / (1 + np.exp(-x))


def fitted(probability: Floats, positive: NDArray[np.bool_], groups: NDArray[np.int64] | None = None) -> Recalibration:
    found = recalibration(probability, positive, groups)
    assert isinstance(found, Recalibration)
    return found


@pytest.mark.parametrize("seed", range(4))
def test_slope_and_intercept_are_those_of_a_logistic_regression(seed: int) -> None:
    p, y = outcomes(seed)
    x = logit(p)
    sloped = sm.GLM(y.astype(float), sm.add_constant(x), family=sm.families.Binomial()).fit(tol=1e-14)
    shifted = sm.GLM(y.astype(float), np.ones_like(x), offset=x, family=sm.families.Binomial()).fit(tol=1e-14)

    found = fitted(p, y)

    assert (found.slope, found.slope_error) == pytest.approx((sloped.params[1], sloped.bse[1]), abs=1e-8)
    assert (found.intercept, found.intercept_error) == pytest.approx((shifted.params[0], shifted.bse[0]), abs=1e-8)
    assert found.limits("slope") == pytest.approx(tuple(sloped.conf_int()[1]), abs=1e-7)


@pytest.mark.parametrize("seed", range(3))
def test_standard_errors_by_patient_are_the_sandwich_with_g_over_g_less_1(seed: int) -> None:
    """statsmodels multiplies by (n - 1) / (n - k) as well, k the coefficients; evalcam does not."""
    p, y = outcomes(seed)
    groups = np.arange(200) // 5
    kinds = {"cov_type": "cluster", "cov_kwds": {"groups": groups}, "tol": 1e-14}
    family = sm.families.Binomial()
    sloped = sm.GLM(y.astype(float), sm.add_constant(logit(p)), family=family).fit(**kinds)
    shifted = sm.GLM(y.astype(float), np.ones(200), offset=logit(p), family=family).fit(**kinds)

    found = fitted(p, y, groups)

    assert found.slope == pytest.approx(sloped.params[1], abs=1e-8)
    assert found.slope_error == pytest.approx(sloped.bse[1] * np.sqrt((200 - 2) / 199), abs=1e-8)
    assert found.intercept_error == pytest.approx(shifted.bse[0], abs=1e-8)


def test_intervals_by_patient_hold_their_coverage_with_five_patients() -> None:
    """Calibrated probabilities, patients with easy and hard images; the normal quantile covers 87 %."""
    groups = np.repeat(np.arange(5), 20)
    covered = []
    for seed in range(400):
        generator = np.random.default_rng(seed)
        x = generator.normal(0, 1.2, 100) + np.repeat(generator.normal(0, 0.6, 5), 20)
        found = fitted(expit(x), generator.random(100) < expit(x), groups)
        slope, intercept = found.limits("slope"), found.limits("intercept")
        covered.append([slope[0] <= 1 <= slope[1], intercept[0] <= 0 <= intercept[1]])

    assert (np.mean(covered, axis=0) >= 0.93).all()


def test_scaling_the_log_odds_divides_the_slope() -> None:
    p, y = outcomes(1)
    twice = 1 / (1 + np.exp(-2 * logit(p)))

    assert fitted(twice, y).slope == pytest.approx(fitted(p, y).slope / 2, abs=1e-9)


def test_shifting_the_log_odds_moves_the_intercept_back() -> None:
    p, y = outcomes(2)
    shifted = 1 / (1 + np.exp(-logit(p) - 0.7))

    assert fitted(shifted, y).intercept == pytest.approx(fitted(p, y).intercept - 0.7, abs=1e-9)


@pytest.mark.parametrize(
    ("probability", "positive", "reason"),
    [
        ([0.2, 0.4, 0.3], [True, True, True], "only one class has images"),
        ([0.0, 0.4, 0.3], [True, False, True], "a probability is exactly 0 or 1"),
        ([0.4, 0.4, 0.4], [True, False, True], "all images have the same probability"),
        ([0.1, 0.4, 0.3], [False, True, True], "perfectly separated"),
        ([0.9, 0.3, 0.3], [False, True, False], "perfectly separated"),
    ],
)
def test_what_cannot_be_fitted_has_a_reason(probability: list[float], positive: list[bool], reason: str) -> None:
    found = recalibration(np.array(probability), np.array(positive))

    assert isinstance(found, str)
    assert reason in found


@pytest.mark.parametrize("n", [15, 100, 157])
def test_equal_mass_bins_hold_equally_many_images(n: int) -> None:
    confidence = np.random.default_rng(n).random(n)

    bins = equal_mass_bins(confidence, np.ones(n, dtype=bool))

    assert bins.counts.sum() == n
    assert np.ptp(bins.counts) <= 1


def test_equal_mass_bins_keep_equal_confidences_together_and_are_no_more_than_the_images() -> None:
    tied = equal_mass_bins(np.repeat([0.5, 0.9], [9, 1]), np.ones(10, dtype=bool), 5)
    few = equal_mass_bins(np.array([0.4, 0.6]), np.array([True, False]))

    assert sorted(tied.counts.tolist()) == [0, 0, 0, 1, 9]
    assert tied.ece == pytest.approx(0.9 * 0.5 + 0.1 * 0.1)
    assert few.counts.tolist() == [1, 1]
    assert few.ece == pytest.approx((0.6 + 0.6) / 2)


def test_consistency_resampling_rejects_a_calibrated_model_one_time_in_twenty() -> None:
    """300 calibrated sets: 15 rejections are expected, and more than 27 or fewer than 5 have a chance of 0.2 % each."""
    generator = np.random.default_rng(0)
    rejected = 0
    for seed in range(300):
        confidence = generator.beta(5, 1.5, size=80)
        ece = reliability_bins(confidence, generator.random(80) < confidence).ece
        rejected += calibration_null(confidence, ece, resamples=199, seed=seed).p_value <= 0.05

    assert 5 <= rejected <= 27


def test_a_calibrated_model_of_500_images_has_an_ece_of_0_045() -> None:
    """Beta(5, 1.5) confidences, 15 bins of equal width: .045 on average, measured independently in 2,000 runs."""
    confidence = scipy.stats.beta(5, 1.5).ppf((np.arange(500) + 0.5) / 500)

    null = calibration_null(confidence, 0.045, resamples=400, seed=0)

    assert null.mean == pytest.approx(0.045, abs=0.0015)
    assert null.low < null.mean < null.high
    assert 0.3 < null.p_value < 0.7


def test_a_badly_calibrated_model_is_rejected_and_the_same_seed_gives_the_same_null() -> None:
    confidence = np.full(100, 0.99)

    null = calibration_null(confidence, 0.39, resamples=99, seed=1)

    assert null.p_value == 0.01
    assert null == calibration_null(confidence, 0.39, resamples=99, seed=1)
