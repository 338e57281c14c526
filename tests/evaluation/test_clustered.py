"""Intervals of patients with several images: identities with independent images, hand cases, simulated truth."""

import time
from typing import Any

import numpy as np
import pytest
import scipy.stats
from numpy.typing import NDArray

from evalcam_cli.evaluation.auc import (
    Placements,
    auc_interval,
    clustered_covariance,
    delong_covariance,
    delong_variance,
    evidence,
    placements,
    score_limits,
)
from evalcam_cli.evaluation.clustered import clustered_limits, clustered_proportion
from evalcam_cli.evaluation.estimates import Interval
from evalcam_cli.evaluation.intervals import wilson, wilson_interval
from tests.benchmarks import coverage
from tests.evaluation.test_auc import limits, table_after

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


def two_scores(n: int = 60, seed: int = 0) -> tuple[Placements, Placements, Bools]:
    """Placements of n images by two scores, rounded so that there are ties, and which images are positive."""
    generator = np.random.default_rng(seed)
    positive = generator.random(n) < 0.4
    found = [placements((generator.normal(size=n) + positive).round(1), positive) for _ in range(2)]
    assert found[0] is not None
    assert found[1] is not None
    return found[0], found[1], positive


def variance_from_pairs(scores: Floats, positive: Bools, groups: Ints) -> float:
    """Obuchowski's variance from a double loop over pairs and a loop over patients."""
    positives, negatives = np.flatnonzero(positive), np.flatnonzero(~positive)
    m, n = len(positives), len(negatives)
    won = {
        (i, j): float(scores[i] > scores[j]) + 0.5 * float(scores[i] == scores[j]) for i in positives for j in negatives
    }
    auc = sum(won.values()) / (m * n)
    s10 = s01 = s11 = 0.0
    for patient in np.unique(groups):
        own = groups == patient
        a = sum(sum(won[i, j] for j in negatives) / n - auc for i in positives if own[i])
        b = sum(sum(won[i, j] for i in positives) / m - auc for j in negatives if own[j])
        s10, s01, s11 = s10 + a * a, s01 + b * b, s11 + a * b
    i10, i01, i = len(np.unique(groups[positive])), len(np.unique(groups[~positive])), len(np.unique(groups))
    s10, s01, s11 = i10 / ((i10 - 1) * m) * s10, i01 / ((i01 - 1) * n) * s01, i / (i - 1) * s11
    return s10 / m + s01 / n + 2 * s11 / (m * n)


# AUC


def test_with_one_image_a_patient_obuchowski_is_delong() -> None:
    a, b, positive = two_scores()
    codes = np.random.default_rng(1).permutation(len(positive))
    sides = codes[positive], codes[~positive]

    assert clustered_covariance(a, b, *sides) == pytest.approx(delong_covariance(a, b), rel=1e-12)
    assert clustered_covariance(a, a, *sides) == pytest.approx(delong_variance(a), rel=1e-12)
    assert limits(auc_interval(a, groups=sides)) == pytest.approx(limits(auc_interval(a)), abs=1e-12)


@pytest.mark.parametrize("copies", [2, 5])
def test_copies_of_each_image_in_its_patient_add_nothing(copies: int) -> None:
    """DeLong's variance falls with every copy; Obuchowski's stays what it is without copies."""
    a, _, positive = two_scores()
    repeated = Placements(np.repeat(a.positives, copies), np.repeat(a.negatives, copies))
    codes = np.arange(len(positive))
    sides = np.repeat(codes[positive], copies), np.repeat(codes[~positive], copies)

    assert clustered_covariance(repeated, repeated, *sides) == pytest.approx(delong_variance(a), rel=1e-12)
    assert delong_variance(repeated) < 1.1 * delong_variance(a) / copies


def test_a_patient_with_images_of_both_sides_counts_the_cross_term() -> None:
    """Patient 0 has a high positive and a high negative, patient 1 a low and a low one: the errors cancel."""
    scores = np.array([5.0, 4.0, 2.0, 1.0, 3.0, 0.0, 2.0])
    positive = np.array([True, False, True, False, True, False, True])
    groups = np.array([0, 0, 1, 1, 2, 2, 3])
    found = placements(scores, positive)
    assert found is not None

    variance = clustered_covariance(found, found, groups[positive], groups[~positive])

    # By hand: V10 = 1, 2/3, 2/3, 2/3, V01 = 1/4, 1, 1, AUC 3/4; a = 1/4, -1/12, -1/12, -1/12; b = -1/2, 1/4, 1/4.
    s10 = 4 / (3 * 4) * (1 / 16 + 3 / 144)
    s01 = 3 / (2 * 3) * (1 / 4 + 2 / 16)
    s11 = 4 / 3 * (-1 / 8 - 2 / 48)
    assert variance == pytest.approx(s10 / 4 + s01 / 3 + 2 * s11 / 12, abs=1e-15)
    assert variance == pytest.approx(variance_from_pairs(scores, positive, groups), abs=1e-15)


def test_the_variance_equals_a_double_loop_over_pairs() -> None:
    generator = np.random.default_rng(4)
    for _ in range(20):
        scores, positive = generator.integers(0, 8, 40).astype(np.float64), generator.random(40) < 0.5
        groups = generator.integers(0, 12, 40)
        found = placements(scores, positive)
        assert found is not None
        variance = clustered_covariance(found, found, groups[positive], groups[~positive])
        assert variance == pytest.approx(variance_from_pairs(scores, positive, groups), abs=1e-14)


def test_the_covariance_of_two_scores_is_the_polarised_variance() -> None:
    """cov(A, B) = (var(A + B) - var(A - B)) / 4, the cross terms in both orders included."""
    a, b, positive = two_scores()
    groups = np.random.default_rng(2).integers(0, 15, len(positive))
    sides = groups[positive], groups[~positive]
    both = Placements(a.positives + b.positives, a.negatives + b.negatives)
    apart = Placements(a.positives - b.positives, a.negatives - b.negatives)

    found = clustered_covariance(a, b, *sides)

    wanted = (clustered_covariance(both, both, *sides) - clustered_covariance(apart, apart, *sides)) / 4
    assert found == pytest.approx(wanted, rel=1e-10)
    assert found == clustered_covariance(b, a, *sides)


def test_patient_codes_are_names_only() -> None:
    a, _, positive = two_scores()
    groups = np.random.default_rng(2).integers(0, 15, len(positive))
    names = np.random.default_rng(3).permutation(1000)[groups]

    found, renamed = (auc_interval(a, groups=(codes[positive], codes[~positive])) for codes in (groups, names))

    assert limits(renamed) == pytest.approx(limits(found), abs=1e-12)
    assert found.method == "obuchowski_score"


@pytest.mark.parametrize("method", ["score", "delong"])
def test_one_patient_on_a_side_leaves_no_interval_and_says_why(method: Any) -> None:
    a, _, positive = two_scores()
    groups = np.arange(len(positive))

    found = auc_interval(a, method=method, groups=(np.zeros(positive.sum(), dtype=np.int64), groups[~positive]))

    assert (found.low, found.high) == (None, None)
    assert "at least 2 patients" in (found.note or "")


def test_a_perfect_ranking_is_as_uncertain_as_its_patients_are_few() -> None:
    perfect = Placements(np.ones(50), np.ones(50))
    groups = np.repeat(np.arange(10), 5)

    clustered, independent = auc_interval(perfect, groups=(groups, groups + 10)), auc_interval(perfect)
    patients_alone = auc_interval(Placements(np.ones(10), np.ones(10)))

    assert 0.9 * limits(patients_alone)[0] < limits(clustered)[0] < limits(patients_alone)[0]
    assert limits(patients_alone)[0] < limits(independent)[0] - 0.1
    assert limits(clustered)[1] == 1


# Proportions


def test_with_one_image_a_patient_a_proportion_has_wilsons_interval() -> None:
    hits = np.array([1.0, 0, 1, 1, 1, 0, 1])

    assert clustered_proportion(hits, np.ones(7)) == wilson_interval(5, 7)


@pytest.mark.parametrize("hits", [np.zeros(4), np.array([3.0, 1, 5, 2])])
def test_all_hits_or_none_leave_as_many_images_as_patients(hits: Floats) -> None:
    trials = np.array([3.0, 1, 5, 2])
    patients = 11**2 / 39

    found = limits(clustered_proportion(hits, trials))

    quantile = scipy.stats.t.ppf(0.975, patients - 1)
    wanted = wilson(hits.sum() / 11 * patients, patients, quantile)
    assert found == pytest.approx((float(wanted[0]), float(wanted[1])), abs=1e-12)
    assert (0 in found) != (1 in found)


def test_the_interval_of_a_proportion_follows_its_docstring() -> None:
    """By hand: p = 8/12; K = 144/38; k = 3 patients with a miss, 4 with a hit."""
    hits, trials = np.array([4.0, 2, 0, 2]), np.array([4.0, 3, 2, 3])
    p, n, patients = 8 / 12, 12, 144 / 38
    spread = (4 - 4 * p) ** 2 + 0 + (0 - 2 * p) ** 2 + 0
    effect = max(1, patients / (patients - 1) * spread / (n * p * (1 - p)))
    effect = (3 * effect + n / patients) / 4
    t = scipy.stats.t.ppf(0.975, patients - 1)
    centre, half = p + t**2 * effect / (2 * n), t * np.sqrt(p * (1 - p) * effect / n + (t * effect / n) ** 2 / 4)
    scale = 1 + t**2 * effect / n

    found = clustered_proportion(hits, trials)

    assert limits(found) == pytest.approx(((centre - half) / scale, (centre + half) / scale), abs=1e-12)
    assert found.method == "clustered_wilson"


def test_hits_and_misses_have_mirrored_intervals() -> None:
    hits, trials = coverage.draw_hits(np.random.default_rng(0), 40, 12, 0.85, 0.5, "all")

    low, high = clustered_limits(hits, trials)
    low_misses, high_misses = clustered_limits(trials - hits, trials)

    np.testing.assert_allclose(low, 1 - high_misses, atol=1e-12)
    np.testing.assert_allclose(high, 1 - low_misses, atol=1e-12)


def test_patients_never_narrow_an_interval() -> None:
    hits, trials = coverage.draw_hits(np.random.default_rng(0), 200, 15, 0.9, 0.0, "all")

    low, high = clustered_limits(hits, trials)
    low_naive, high_naive = coverage.naive(hits, trials)

    assert (high - low > high_naive - low_naive).all()
    assert (low >= 0).all()
    assert (high <= 1).all()


def test_patients_without_images_do_not_count() -> None:
    hits, trials = np.array([2.0, 0, 3, 0, 1]), np.array([3.0, 0, 3, 0, 4])
    kept = trials > 0

    assert clustered_proportion(hits, trials) == clustered_proportion(hits[kept], trials[kept])


def test_one_patient_or_none_has_no_interval() -> None:
    assert clustered_proportion(np.array([2.0, 0]), np.array([5.0, 0])) == Interval(
        note="needs images of at least 2 patients"
    )
    assert clustered_proportion(np.zeros(3), np.zeros(3)) == Interval()


def test_a_patient_with_nearly_all_images_leaves_a_wide_interval() -> None:
    low, high = limits(clustered_proportion(np.array([900.0, 1]), np.array([1000.0, 1])))

    assert low < 0.1
    assert high > 0.95


def test_four_thousand_proportions_of_thousands_of_patients_take_less_than_two_seconds() -> None:
    generator = np.random.default_rng(0)
    trials = generator.integers(0, 10, 3000).astype(np.float64)
    hits = generator.binomial(trials.astype(np.int64), 0.9).astype(np.float64)
    start = time.process_time()

    for _ in range(400):
        clustered_proportion(hits, trials)

    assert time.process_time() - start < 1  # a tenth of the work; 0.06 s on an idle machine


# Simulated truth


@pytest.mark.parametrize("by", ["patient", "image"])
def test_the_benchmark_computes_the_evidence_that_evalcam_does(by: str) -> None:
    scores, positive, there = coverage.draw_clusters(np.random.default_rng(0), 30, 12, 0.9, 0.5, by)
    found, delong = coverage.clustered_evidence(scores, positive, there)
    low, high = score_limits(found)

    for run in range(len(scores)):
        groups = np.nonzero(there[run])[0]
        labels = positive[run][there[run]]
        one = placements(scores[run][there[run]], labels)
        assert one is not None
        sides = groups[labels], groups[~labels]
        single = evidence(one, sides)
        assert found.variance[run] == pytest.approx(float(single.variance), abs=1e-13)
        assert found.imperfect[run] == single.imperfect
        assert delong[run] == pytest.approx(delong_variance(one), abs=1e-13)
        assert limits(auc_interval(one, groups=sides)) == pytest.approx((low[run], high[run]), abs=1e-9)


@pytest.mark.parametrize("of", ["all", "patient", "image"])
def test_dependent_hits_are_covered_where_the_design_effect_alone_is_not(of: str) -> None:
    """3,000 runs of 50 patients, ICC .8, rate .95; more cells: docs/coverage.md."""
    drawn = coverage.draw_hits(np.random.default_rng(1), 3000, 50, 0.95, 0.8, of)

    assert coverage.covered(clustered_limits(*drawn), 0.95)[0] >= 0.94
    assert coverage.covered(coverage.design_effect(*drawn), 0.95)[0] < 0.9
    assert coverage.covered(coverage.naive(*drawn), 0.95)[0] < 0.8


def test_the_committed_tables_keep_the_promised_coverage() -> None:
    for heading, cells in (("### Proportions, 50 patients", 24), ("### AUC, 50 patients", 24)):
        head, *rows = table_after(heading)
        assert len(rows) == cells
        assert all(float(row[head.index("evalcam")].split()[0]) >= 0.93 for row in rows)
