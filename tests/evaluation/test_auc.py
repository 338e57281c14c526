"""The AUC and its intervals against pROC's numbers, statsmodels, all pairs, integrals, and simulated truth."""

import csv
import json
import time
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.special
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from statsmodels.stats.nonparametric import rank_compare_2indep

from evalcam_cli.evaluation.auc import (
    Evidence,
    Placements,
    auc_interval,
    delong_covariance,
    delong_variance,
    evidence,
    model_variance,
    placements,
    score_limits,
)
from evalcam_cli.evaluation.estimates import Interval
from tests.benchmarks import coverage
from tests.conftest import SHARED

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
DATA = SHARED / "reference" / "data"
COVERAGE_PAGE = Path(__file__).parents[2] / "docs" / "coverage.md"


def placed(positives: list[float] | Floats, negatives: list[float] | Floats) -> Placements:
    found = placements(
        np.concatenate([positives, negatives]).astype(np.float64),
        np.arange(len(positives) + len(negatives)) < len(positives),
    )
    assert found is not None
    return found


def limits(found: Interval) -> tuple[float, float]:
    assert found.low is not None
    assert found.high is not None
    return found.low, found.high


@pytest.fixture(scope="module")
def asah() -> tuple[dict[str, Placements], dict[str, Any]]:
    """Placements by each of the three scores of pROC's aSAH data, and what pROC's tests print for them."""
    if not DATA.exists():
        pytest.skip("the reference data is not here")
    with (DATA / "aSAH.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    poor = np.array([row["outcome"] == "Poor" for row in rows])
    found = {}
    for name in ("wfns", "ndka", "s100b"):
        one = placements(np.array([float(row[name]) for row in rows]), poor)
        assert one is not None
        found[name] = one
    return found, json.loads((DATA / "reference_values.json").read_text(encoding="utf-8"))["aSAH_pROC"]


def test_asah_has_the_aucs_variances_and_covariances_of_proc(
    asah: tuple[dict[str, Placements], dict[str, Any]],
) -> None:
    found, printed = asah

    for name, one in found.items():
        assert one.auc == pytest.approx(printed["auc"][name], abs=1e-4 if name == "s100b" else 1e-12)
        assert delong_variance(one) == pytest.approx(printed["var_delong"][name], abs=1e-12)
    for pair, value in printed["cov_delong"].items():
        a, b = (found[name] for name in pair.split(","))
        assert delong_covariance(a, b) == pytest.approx(value, abs=1e-12)
        assert delong_covariance(a, b) == delong_covariance(b, a)


def test_asah_has_the_wald_intervals_of_proc(asah: tuple[dict[str, Placements], dict[str, Any]]) -> None:
    found, printed = asah

    ndka = limits(auc_interval(found["ndka"], method="delong"))
    s100b = limits(auc_interval(found["s100b"], method="delong"))

    assert ndka == pytest.approx(printed["ci_delong_wald_95"]["ndka"], abs=1e-12)
    assert s100b == pytest.approx(printed["ci_delong_wald_95"]["s100b_4dp"], abs=5.1e-5)


def test_asah_differences_have_the_z_of_proc(asah: tuple[dict[str, Placements], dict[str, Any]]) -> None:
    found, printed = asah

    for pair, wanted in printed["paired_delong"].items():
        a, b = (found[name] for name in pair.split("-"))
        variance = delong_variance(a) + delong_variance(b) - 2 * delong_covariance(a, b)
        assert (a.auc - b.auc) / np.sqrt(variance) == pytest.approx(wanted["Z"], abs=1e-12)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([-1.0, 0.0, 0.5, np.nextafter(0.5, 1), 3.0]), st.booleans()), max_size=25))
def test_placements_are_the_shares_of_all_pairs(images: list[tuple[float, bool]]) -> None:
    scores = np.array([score for score, _ in images])
    positive = np.array([is_positive for _, is_positive in images], dtype=np.bool_)

    found = placements(scores, positive)

    if positive.all() or not positive.any():
        assert found is None
        return
    assert found is not None
    a, b = scores[positive][:, None], scores[~positive]
    won = (a > b) + 0.5 * (a == b)
    np.testing.assert_allclose(found.positives, won.mean(axis=1), rtol=0, atol=1e-15)
    np.testing.assert_allclose(found.negatives, won.mean(axis=0), rtol=0, atol=1e-15)
    assert found.auc == won.sum() / won.size


@pytest.mark.parametrize(("m", "n"), [(3, 500), (500, 3), (250, 250)])
def test_variance_and_interval_equal_statsmodels(m: int, n: int) -> None:
    generator = np.random.default_rng(m)
    scores = np.round(np.concatenate([generator.normal(1, 1, m), generator.normal(0, 1, n)]), 1)  # with ties
    shuffled = generator.permutation(m + n)

    one = placements(scores[shuffled], (np.arange(m + n) < m)[shuffled])

    assert one is not None
    wanted = rank_compare_2indep(scores[:m], scores[m:], use_t=False)
    assert one.auc == pytest.approx(wanted.prob1, abs=1e-14)
    assert one.auc == pytest.approx(roc_auc_score(np.arange(m + n) < m, scores), abs=1e-14)
    assert delong_variance(one) == pytest.approx(wanted.var_prob, rel=1e-12)
    low, high = wanted.conf_int()
    assert limits(auc_interval(one, method="delong")) == pytest.approx((max(low, 0), min(high, 1)), abs=1e-12)


def test_products_of_large_sides_do_not_overflow() -> None:
    """pROC once returned the interval 1 to 1 at n = 144,720, where mn overflows 32 bits."""
    scores = np.concatenate([np.full(72_360, 1.0), np.zeros(72_360)])
    scores[0] = -1.0

    found = placements(scores, np.arange(144_720) < 72_360)

    assert found is not None
    assert found.auc == 72_359 / 72_360
    low, high = limits(auc_interval(found))
    assert 0.9999 < low < found.auc < high < 1


def test_a_thousand_rare_classes_would_take_seconds() -> None:
    generator = np.random.default_rng(0)
    scores = generator.normal(size=50_000)
    positive = np.zeros(50_000, dtype=np.bool_)
    positive[generator.choice(50_000, 50, replace=False)] = True
    start = time.process_time()

    for _ in range(50):
        placements(scores, positive)

    assert time.process_time() - start < 1  # 0.15 s on an idle machine


@pytest.mark.parametrize(("m", "n"), [(1, 20), (20, 1), (1, 1)])
@pytest.mark.parametrize("method", ["score", "delong"])
def test_one_image_on_a_side_leaves_no_interval_and_says_why(m: int, n: int, method: Any) -> None:
    one = placed(np.arange(m, dtype=np.float64), np.arange(n, dtype=np.float64))

    found = auc_interval(one, method=method)

    assert np.isnan(delong_variance(one))
    assert found == Interval(note="needs at least 2 images of the class and 2 of the others")


def test_score_limits_solve_their_equation() -> None:
    """(A - T)^2 = z^2 F V(T) at both ends, with F from the formula of the docstring."""
    generator = np.random.default_rng(3)
    one = placed(generator.normal(1.5, 2, 20), generator.normal(0, 1, 60))
    auc, variance, m, n = one.auc, delong_variance(one), 20.0, 60.0
    x, y = one.positives.var(ddof=1) / m, one.negatives.var(ddof=1) / n
    freedom = (x + y) ** 2 / (x**2 / (m - 1) + y**2 / (n - 1))
    k = min((one.positives < 1).sum(), (one.positives > 0).sum(), (one.negatives < 1).sum(), (one.negatives > 0).sum())

    def model(value: float) -> float:
        return float(model_variance(np.array(scipy.special.ndtri(value)), np.array(m), np.array(n)))

    expected = model((m * n * auc + 0.5) / (m * n + 1))
    t, z = scipy.stats.t.ppf(0.975, freedom), scipy.stats.norm.ppf(0.975)
    factor = max(1, (t / z) ** 2 * (k * variance + 2 * max(variance, expected)) / (k + 2) / expected)

    low, high = limits(auc_interval(one))

    assert factor > 1.1
    for end in (low, high):
        assert (auc - end) ** 2 == pytest.approx(z**2 * factor * model(end), rel=1e-10)
    assert low < auc < high


@pytest.mark.parametrize("auc", [0.5, 0.6, 0.9, 0.99])
def test_the_model_is_two_thirds_normal_and_one_third_exponential(auc: float) -> None:
    """Against the bivariate normal distribution, and the terms Q1 and Q2 of Hanley and McNeil 1982."""
    m, n = 12.0, 30.0
    h = scipy.stats.norm.ppf(auc)
    both = scipy.stats.multivariate_normal([0, 0], [[1, 0.5], [0.5, 1]]).cdf([h, h])
    normal = (auc * (1 - auc) + (m + n - 2) * (both - auc**2)) / (m * n)
    q = (auc / (2 - auc) + 2 * auc**2 / (1 + auc)) / 2
    exponential = (auc * (1 - auc) + (m + n - 2) * (q - auc**2)) / (m * n)

    found = float(model_variance(np.array(h), np.array(m), np.array(n)))

    assert found == pytest.approx((2 * normal + exponential) / 3, rel=1e-6)


@pytest.mark.parametrize(("m", "n"), [(2, 2), (5, 20), (30, 30), (25, 200), (3000, 5000)])
def test_a_perfect_ranking_has_an_interval_below_1_and_its_mirror_above_0(m: int, n: int) -> None:
    best = auc_interval(placed(np.ones(m), np.zeros(n)))
    worst = auc_interval(placed(np.zeros(m), np.ones(n)))

    low, high = limits(best)
    assert high == 1
    assert 0.3 < low < 1 - 1 / (m * n)
    assert limits(worst) == pytest.approx((0, 1 - low), abs=1e-12)


def test_delong_has_no_width_at_a_perfect_ranking_and_says_so() -> None:
    found = auc_interval(placed([1, 2, 3], [0, 0]), method="delong")

    assert limits(found) == (1, 1)
    assert "no width" in (found.note or "")


def test_all_scores_equal_leave_the_auc_in_the_middle() -> None:
    low, high = limits(auc_interval(placed(np.zeros(30), np.zeros(30))))

    assert low == pytest.approx(1 - high, abs=1e-12)
    assert 0.3 < low < 0.4


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 40), st.integers(2, 40), st.floats(-2, 6), st.integers(0, 10**6))
def test_intervals_hold_the_estimate_and_mirror_when_the_sides_change(m: int, n: int, shift: float, seed: int) -> None:
    generator = np.random.default_rng(seed)
    positives, negatives = generator.normal(shift, 1, m).round(1), generator.normal(0, 1, n).round(1)

    low, high = limits(auc_interval(placed(positives, negatives)))
    mirrored = limits(auc_interval(placed(negatives, positives)))
    turned = limits(auc_interval(placed(-negatives, -positives)))

    assert 0 <= low <= placed(positives, negatives).auc <= high <= 1
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=1e-9)
    assert turned == pytest.approx((low, high), abs=1e-9)


def test_many_aucs_at_once_have_the_limits_of_each() -> None:
    generator = np.random.default_rng(0)
    positives, negatives = coverage.normal_scores(1)(generator, 50, 12, 40, 0.95)

    low, high = score_limits(coverage.evidence(positives, negatives))

    for run, (a, b) in enumerate(zip(positives, negatives, strict=True)):
        assert limits(auc_interval(placed(a, b))) == pytest.approx((low[run], high[run]), abs=1e-11)


def test_evidence_of_a_perfect_ranking_rests_on_no_image() -> None:
    found = evidence(placed([2, 3, 4], [0, 1]))

    assert isinstance(found, Evidence)
    assert (float(found.imperfect), float(found.variance)) == (0, 0)


@pytest.mark.parametrize(("auc", "m", "n"), [(0.97, 10, 50), (0.99, 25, 200), (0.9, 30, 30)])
def test_the_default_covers_where_delong_and_logit_t_do_not(auc: float, m: int, n: int) -> None:
    """3,000 runs: a standard error of 0.004. All 20 cells with 10,000: docs/coverage.md."""
    found = coverage.evidence(*coverage.normal_scores(1)(np.random.default_rng(1), 3000, m, n, auc))

    assert 0.945 <= coverage.covered(score_limits(found), auc)[0] <= 0.985
    assert coverage.covered(coverage.wald(found), auc)[0] < 0.92


def test_the_committed_table_keeps_the_promised_coverage() -> None:
    head, *rows = table_after("### AUC, independent images, normal scores")
    column = head.index("evalcam (default)")

    assert len(rows) == 20
    assert all(0.93 <= float(row[column].split()[0]) <= 0.985 for row in rows)


def table_after(heading: str) -> list[list[str]]:
    """Cells of the first table below a heading of docs/coverage.md."""
    section = COVERAGE_PAGE.read_text(encoding="utf-8").split(heading)[1].split("\n### ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|") and "---" not in line]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_method_5_of_the_benchmark_is_newcombes() -> None:
    """The lower limits at AUC 1 in the reference: .761 at 5/20, .880 at 10/50, .933 at 30/30, .980 at 100/100."""
    for (m, n), wanted in zip([(5, 20), (10, 50), (30, 30), (100, 100)], [0.761, 0.880, 0.933, 0.980], strict=True):
        found = coverage.evidence(np.ones((1, m)), np.zeros((1, n)))
        low, high = coverage.newcombe(found)
        assert (float(low[0]), float(high[0])) == pytest.approx((wanted, 1), abs=5e-4)


def test_the_shapes_of_the_benchmark_have_the_aucs_they_claim() -> None:
    for name, (draw, highest) in coverage.SHAPES.items():
        for auc in (0.75, 0.97):
            assert auc < highest
            found = coverage.evidence(*draw(np.random.default_rng(5), 400, 40, 60, auc))
            error = found.auc.std() / np.sqrt(400)
            assert found.auc.mean() == pytest.approx(auc, abs=4 * error), name


def test_covariances_of_three_scores_are_a_covariance_matrix() -> None:
    generator = np.random.default_rng(0)
    positive = generator.random(80) < 0.4
    scores = [generator.normal(size=80) + positive * shift for shift in (0.5, 1, 2)]
    found = [one for one in (placements(score, positive) for score in scores) if one is not None]

    matrix = np.array([[delong_covariance(a, b) for a in found] for b in found])

    assert np.linalg.eigvalsh(matrix).min() > 0
    for a, b in combinations(range(3), 2):
        assert abs(matrix[a, b]) < np.sqrt(matrix[a, a] * matrix[b, b])
