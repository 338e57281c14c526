"""Intervals against their formulas written out, on whole numbers, fractions of images, arrays, and tables with a 0."""

import math
from typing import get_args

import numpy as np
import pytest
import scipy.stats

from evalcam_cli.evaluation import intervals
from evalcam_cli.evaluation.estimates import Interval
from evalcam_cli.evaluation.intervals import (
    BootstrapMethod,
    ProportionMethod,
    clopper_pearson,
    likelihood_ratio_intervals,
    percentile_interval,
    proportion_interval,
    resampled_interval,
    wilson,
    wilson_interval,
)

NAN = float("nan")
Z = scipy.stats.norm.ppf(0.975)


def test_the_words_for_methods_are_those_of_the_documentation() -> None:
    assert get_args(ProportionMethod) == ("wilson", "clopper_pearson")
    assert get_args(BootstrapMethod) == ("bootstrap", "patient_bootstrap")
    assert pytest.approx(intervals.Z, abs=1e-15) == Z


@pytest.mark.parametrize("quantile", [1.0, Z, 2.5])
@pytest.mark.parametrize(("k", "n"), [(1, 4), (3, 4), (2.5, 7.25), (0.1, 0.5), (899, 1000)])
def test_wilsons_limits_are_the_rates_at_which_the_estimate_lies_z_errors_away(
    k: float, n: float, quantile: float
) -> None:
    """The definition: (p - r)² = z² r (1 - r) / n at both limits r."""
    low, high = wilson(k, n, quantile)

    for rate in (float(low), float(high)):
        assert (k / n - rate) ** 2 == pytest.approx(quantile**2 * rate * (1 - rate) / n, rel=1e-10)
    assert 0 < low < k / n < high < 1


def test_arrays_have_the_limits_of_each_number_and_exact_ends() -> None:
    k, n = np.array([[0, 3, 5, 0], [0, 1, 9, 2]]), np.array([5, 5, 5, 0])

    for method in (wilson, clopper_pearson):
        low, high = method(k[0], n)
        np.testing.assert_array_equal(low[[0, 3]], [0, NAN])
        np.testing.assert_array_equal(high[[2, 3]], [1, NAN])
        assert (low[1], high[1]) == method(3, 5)
        assert (low[2], high[0]) == (method(5, 5)[0], method(0, 5)[1])
        assert low.dtype == high.dtype == np.float64


def test_none_and_all_of_any_number_end_exactly_at_0_and_1() -> None:
    n = np.arange(1, 2000)

    for method in (wilson, clopper_pearson):
        assert (method(0, n)[0] == 0).all()
        assert (method(n, n)[1] == 1).all()


def test_wilsons_limits_stay_within_0_and_1_for_tiny_fractions_of_an_image() -> None:
    generator = np.random.default_rng(0)
    k, n = 10.0 ** generator.uniform(-25, 0, 10_000), 10.0 ** generator.uniform(0.01, 8, 10_000)
    below = np.nextafter(n, 0)

    (low, high), (_, nearly) = wilson(k, n), wilson(below, n)

    assert (low >= 0).all()
    assert (high > low).all()
    assert (nearly <= 1).all()
    assert low.min() == 0
    assert nearly.max() == 1


@pytest.mark.parametrize(("k", "n"), [(1, 2), (3.5, 9.25), (0.2, 1), (19, 20)])
def test_clopper_and_pearsons_limits_are_quantiles_of_beta_distributions(k: float, n: float) -> None:
    low, high = clopper_pearson(k, n)

    assert low == pytest.approx(scipy.stats.beta.ppf(0.025, k, n - k + 1), rel=1e-9)
    assert high == pytest.approx(scipy.stats.beta.ppf(0.975, k + 1, n - k), rel=1e-9)


def test_none_and_all_of_n_leave_a_half_of_5_percent_to_the_other_side() -> None:
    """By hand: (1 - p)^n = 0.025."""
    low, high = clopper_pearson([0, 8], [8, 8])

    assert (low[0], high[1]) == (0, 1)
    assert high[0] == pytest.approx(1 - 0.025 ** (1 / 8), rel=1e-12)
    assert low[1] == pytest.approx(0.025 ** (1 / 8), rel=1e-12)


def test_a_proportion_has_wilsons_interval_unless_clopper_and_pearsons_is_asked_for() -> None:
    plain, exact = proportion_interval(3, 10), proportion_interval(3, 10, "clopper_pearson")

    assert plain == wilson_interval(3, 10) == proportion_interval(3, 10, "wilson")
    assert (plain.method, exact.method, plain.note) == ("wilson", "clopper_pearson", None)
    assert (plain.low, plain.high) == tuple(map(float, wilson(3, 10)))
    assert (exact.low, exact.high) == tuple(map(float, clopper_pearson(3, 10)))
    assert proportion_interval(0, 0) == Interval()


def simel(tp: float, fp: float, fn: float, tn: float) -> list[float]:
    """Both intervals as the paper has them, of counts without a 0."""
    se, sp = tp / (tp + fn), tn / (tn + fp)
    found = []
    for ratio, error in (
        (se / (1 - sp), math.sqrt((1 - se) / tp + sp / fp)),
        ((1 - se) / sp, math.sqrt(se / fn + (1 - sp) / tn)),
    ):
        found += [math.exp(math.log(ratio) - Z * error), math.exp(math.log(ratio) + Z * error)]
    return found


@pytest.mark.parametrize("table", [(8, 3, 2, 12), (1, 1, 1, 1), (1, 9, 7, 1), (50, 1, 1, 50), (2, 1, 3, 1)])
def test_likelihood_ratios_have_simels_intervals_also_with_single_images(table: tuple[int, int, int, int]) -> None:
    found = likelihood_ratio_intervals(*table)

    assert [found[0].low, found[0].high, found[1].low, found[1].high] == pytest.approx(simel(*table), rel=1e-10)
    assert [(one.method, one.note) for one in found] == [("simel", None)] * 2


HALVED = "a count of the table is 0: a half was added to all four for this interval"


@pytest.mark.parametrize("zero", range(4))
def test_a_table_with_a_0_gets_a_half_in_every_cell_for_both_intervals(zero: int) -> None:
    table = [3.0, 4.0, 5.0, 6.0]
    table[zero] = 0
    tp, fp, fn, tn = table

    positive, negative = likelihood_ratio_intervals(*table)

    wanted = simel(*(count + 0.5 for count in table))
    assert positive.low == (pytest.approx(wanted[0], rel=1e-10) if tp else 0)
    assert positive.high == (pytest.approx(wanted[1], rel=1e-10) if fp else None)
    assert negative.low == (pytest.approx(wanted[2], rel=1e-10) if fn else 0)
    assert negative.high == (pytest.approx(wanted[3], rel=1e-10) if tn else None)
    assert (positive.note, negative.note, positive.method, negative.method) == (HALVED, HALVED, "simel", "simel")


def test_a_ratio_of_nothing_to_nothing_has_no_interval_but_the_other_one_has() -> None:
    for table, empty in (((0, 0, 4, 6), 0), ((4, 6, 0, 0), 1)):
        found = likelihood_ratio_intervals(*table)
        assert found[empty] == Interval(note="the ratio is 0/0")
        assert found[1 - empty].note == HALVED
    for table in ((0, 3, 0, 5), (2, 0, 3, 0), (1, 0, 0, 0), (0, 0, 0, 1)):
        assert likelihood_ratio_intervals(*table) == (Interval(), Interval())
    for table in ((1, 0, 0, 1), (0, 1, 1, 0)):
        assert all(one.note == HALVED for one in likelihood_ratio_intervals(*table))


def test_percentiles_are_numpys_of_the_defined_values() -> None:
    values = np.append(np.random.default_rng(0).normal(size=97), [NAN, NAN, NAN])

    found = percentile_interval(values)

    low, high = np.nanpercentile(values, [2.5, 97.5])
    assert found == Interval(float(low), float(high), "bootstrap")
    assert percentile_interval(values, "patient_bootstrap").method == "patient_bootstrap"


@pytest.mark.parametrize(("missing", "kept"), [(0, True), (1, True), (2, False), (20, False)])
def test_up_to_a_twentieth_may_be_undefined(missing: int, kept: bool) -> None:
    values = np.linspace(1, 2, 20)
    values[:missing] = NAN

    found = percentile_interval(values)

    assert (found.low is not None) is kept
    assert found.note == (None if kept else f"undefined in {5 * missing:.1f}% of the resamples")


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
@pytest.mark.parametrize("sign", [1, -1])
def test_resamples_that_agree_to_the_last_digits_are_told_from_those_that_nearly_do(scale: float, sign: int) -> None:
    agree, differ = (np.array([1.0, 1 + spread] * 30) * scale * sign for spread in (1e-13, 1e-11))

    same = "all resamples give the same value, so the bootstrap cannot tell its uncertainty"
    assert percentile_interval(agree) == Interval(note=same)
    assert percentile_interval(np.zeros(30)) == Interval(note=same)
    assert percentile_interval(differ).note is None


def test_no_resamples_leave_no_interval() -> None:
    assert percentile_interval(np.zeros(0)) == Interval(note="no resamples were drawn")


@pytest.mark.parametrize("units", [0, 1, 2, 3])
def test_fewer_than_two_images_or_groups_are_not_resampled(units: int) -> None:
    values = np.linspace(0, 1, 41)

    images, groups = (resampled_interval(values, units, clustered=clustered) for clustered in (False, True))

    if units < 2:
        assert images == Interval(note="needs at least 2 images")
        assert groups == Interval(note="needs at least 2 groups")
    else:
        assert images == percentile_interval(values, "bootstrap")
        assert groups == percentile_interval(values, "patient_bootstrap")
