"""Intervals against printed numbers, known distributions, and what a bootstrap must not do."""

import json
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from evalcam_cli.evaluation import intervals
from evalcam_cli.evaluation.estimates import Interval

REFERENCE = Path(__file__).parents[3] / "shared" / "reference" / "data" / "reference_values.json"

WILSON = [  # Newcombe 1998, Table I, method 3; 18/20 and 30/30: R's binom::binom.confint, as in statsmodels' tests
    (81, 263, 0.2553, 0.3662),
    (15, 148, 0.0624, 0.1605),
    (0, 20, 0.0, 0.1611),
    (1, 29, 0.0061, 0.1718),
    (18, 20, 0.6989663547715128, 0.972133518786232),
    (30, 30, 0.8864866, 1.0),
]


@pytest.mark.parametrize(("successes", "trials", "low", "high"), WILSON)
def test_wilson_equals_printed_intervals(successes: int, trials: int, low: float, high: float) -> None:
    found = intervals.wilson_interval(successes, trials)

    assert (found.low, found.high) == pytest.approx((low, high), abs=5.1e-5)
    assert found.method == "wilson"


def test_wilson_equals_every_reference_value() -> None:
    if not REFERENCE.exists():
        pytest.skip("the reference data is not here")
    groups = json.loads(REFERENCE.read_text(encoding="utf-8"))
    printed = groups["Newcombe1998_TableI"]["wilson"] | groups["R_binom_confint"]["wilson"]

    for fraction, limits in printed.items():
        found = intervals.wilson_interval(*map(int, fraction.split("/")))
        assert [found.low, found.high] == pytest.approx(limits, abs=5.1e-5), fraction


@pytest.mark.parametrize("trials", [1, 2, 20, 1000, 10**7])
def test_wilson_equals_scipy_and_stays_within_0_and_1(trials: int) -> None:
    for successes in {0, 1, trials // 3, trials - 1, trials}:
        found = intervals.wilson_interval(successes, trials)
        wanted = scipy.stats.binomtest(successes, trials).proportion_ci(method="wilson")
        assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high), abs=1e-12)
        assert found.low is not None
        assert found.high is not None
        assert 0 <= found.low <= successes / trials <= found.high <= 1


def test_wilson_of_nothing_is_no_interval() -> None:
    assert intervals.wilson_interval(0, 0) == Interval()
    assert np.isnan(intervals.wilson([0, 1], [0, 2])).tolist() == [[True, False], [True, False]]


def test_more_than_a_twentieth_of_undefined_resamples_leaves_no_interval() -> None:
    values = np.linspace(0, 1, 100)
    values[:5] = np.nan
    assert intervals.percentile_interval(values).method == "bootstrap"

    values[:6] = np.nan
    found = intervals.percentile_interval(values)

    assert (found.low, found.note) == (None, "undefined in 6.0% of the resamples")


def test_every_resample_undefined_and_no_resample_leave_no_interval() -> None:
    assert intervals.percentile_interval(np.full(50, np.nan)).note == "undefined in 100.0% of the resamples"
    assert intervals.percentile_interval(np.zeros(0)).note == "no resamples were drawn"


def test_resamples_that_agree_to_rounding_leave_no_interval() -> None:
    found = intervals.percentile_interval(np.array([0.3, 0.1 + 0.2] * 50))

    assert found.low is None
    assert "all resamples give the same value" in (found.note or "")


def test_a_patient_bootstrap_is_named_and_has_the_same_limits() -> None:
    values = np.linspace(0, 1, 1001)

    found = intervals.percentile_interval(values, "patient_bootstrap")

    assert (found.low, found.high) == pytest.approx((0.025, 0.975), abs=1e-12)
    assert found.method == "patient_bootstrap"


def test_clopper_pearson_equals_every_reference_value() -> None:
    if not REFERENCE.exists():
        pytest.skip("the reference data is not here")
    groups = json.loads(REFERENCE.read_text(encoding="utf-8"))
    printed = groups["Newcombe1998_TableI"]["clopper_pearson"] | groups["R_binom_confint"]["exact"]

    for fraction, limits in printed.items():
        successes, trials = map(int, fraction.split("/"))
        found = intervals.proportion_interval(successes, trials, "clopper_pearson")
        digits = 5.1e-5 if fraction in groups["Newcombe1998_TableI"]["clopper_pearson"] else 5.1e-8
        assert [found.low, found.high] == pytest.approx(limits, abs=digits), fraction
        assert found.method == "clopper_pearson"


@pytest.mark.parametrize("trials", [1, 2, 20, 1000, 10**6])
def test_clopper_pearson_equals_scipy_and_the_tails_of_the_binomial(trials: int) -> None:
    for successes in sorted({0, 1, trials // 3, trials - 1, trials}):
        low, high = map(float, intervals.clopper_pearson(successes, trials))
        wanted = scipy.stats.binomtest(successes, trials).proportion_ci(method="exact")
        assert (low, high) == pytest.approx((wanted.low, wanted.high), abs=1e-9)
        if successes > 0:
            assert scipy.stats.binom.sf(successes - 1, trials, low) == pytest.approx(0.025, rel=1e-6)
        if successes < trials:
            assert scipy.stats.binom.cdf(successes, trials, high) == pytest.approx(0.025, rel=1e-6)


def test_clopper_pearson_of_nothing_is_no_interval() -> None:
    assert intervals.proportion_interval(0, 0, "clopper_pearson") == Interval()
    assert np.isnan(intervals.clopper_pearson([0, 1], [0, 2])).tolist() == [[True, False], [True, False]]


@pytest.mark.parametrize("trials", [5, 20, 60])
def test_clopper_pearson_never_covers_less_than_95_percent(trials: int) -> None:
    rates = np.linspace(0.005, 0.995, 199)[:, None]
    counts = np.arange(trials + 1)
    low, high = intervals.clopper_pearson(counts, trials)

    held = (scipy.stats.binom.pmf(counts, trials, rates) * ((low <= rates) & (rates <= high))).sum(axis=1)

    assert held.min() >= 0.95


def test_likelihood_ratios_have_the_intervals_of_epir() -> None:
    """Scott 2008, in the manual of epi.tests: LR+ 3.75 (3.32, 4.24); recomputed there with z rounded to 1.96."""
    positive, negative = intervals.likelihood_ratio_intervals(tp=670, fp=202, fn=74, tn=640)

    assert (positive.low, positive.high) == pytest.approx((3.3206809559302197, 4.243244206363301), rel=4e-6)
    assert (negative.low, negative.high) == pytest.approx((0.10506389970679092, 0.16297773832605625), rel=4.5e-6)
    assert (positive.method, positive.note) == ("simel", None)


def test_likelihood_ratios_of_the_turned_table_are_inverse() -> None:
    """LR- of a test is 1 / LR+ of the test that calls the other way round, for the other side."""
    positive, negative = intervals.likelihood_ratio_intervals(tp=40, fp=7, fn=5, tn=60)
    turned_positive, turned_negative = intervals.likelihood_ratio_intervals(tp=60, fp=5, fn=7, tn=40)

    assert positive.low is not None
    assert negative.high is not None
    assert turned_positive.low == pytest.approx(1 / negative.high, rel=1e-12)
    assert turned_negative.high == pytest.approx(1 / positive.low, rel=1e-12)


def test_an_infinite_ratio_has_a_lower_limit_only() -> None:
    """By hand with a half added: LR+ = (20.5/31) / (0.5/41), SE^2 = 1/20.5 - 1/31 + 1/0.5 - 1/41."""
    positive, negative = intervals.likelihood_ratio_intervals(tp=20, fp=0, fn=10, tn=40)

    ratio, error = (20.5 / 31) / (0.5 / 41), np.sqrt(1 / 20.5 - 1 / 31 + 1 / 0.5 - 1 / 41)
    assert positive.low == pytest.approx(ratio / np.exp(1.959963984540054 * error), rel=1e-12)
    assert positive.high is None
    assert "a half was added" in (positive.note or "")
    assert negative.low is not None
    assert negative.high is not None
    assert negative.low < (10 / 30) / 1 < negative.high


def test_a_ratio_of_nothing_starts_at_zero() -> None:
    positive, negative = intervals.likelihood_ratio_intervals(tp=0, fp=5, fn=10, tn=35)

    assert positive.low == 0
    assert positive.high is not None
    assert positive.high > 0.1
    assert negative.low is not None
    assert negative.low < 8 / 7 < (negative.high or 0)


def test_ratios_without_images_or_of_0_by_0_have_no_interval() -> None:
    assert intervals.likelihood_ratio_intervals(0, 3, 0, 5) == (Interval(), Interval())
    assert intervals.likelihood_ratio_intervals(2, 0, 3, 0) == (Interval(), Interval())

    positive, negative = intervals.likelihood_ratio_intervals(tp=0, fp=0, fn=4, tn=6)

    assert (positive.low, positive.high, positive.note) == (None, None, "the ratio is 0/0")
    assert negative.low is not None
    assert negative.low < 1 < (negative.high or 0)
