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
