"""The tests behind `compare` against pROC's, R's and published numbers, statsmodels, theorems and hand cases."""

import csv
import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from numpy.typing import NDArray
from statsmodels.stats.contingency_tables import cochrans_q
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint

from evalcam_cli.evaluation import counts
from evalcam_cli.evaluation.auc import Placements, delong_covariance, delong_variance, placements
from evalcam_cli.evaluation.paired import (
    auc_influence,
    compare_auc,
    compare_macro_auc,
    compare_proportions,
    influence_variance,
    mcnemar,
    newcombe_paired,
)
from evalcam_cli.evaluation.several import cochran, holm
from evalcam_cli.evaluation.swaps import count_swaps, is_exact, mean_swaps, patterns
from evalcam_cli.evaluation.unpaired import compare_aucs_apart, compare_means, compare_shares

REFERENCE = Path(__file__).parents[3] / "shared" / "reference" / "data"
needs_reference = pytest.mark.skipif(not REFERENCE.exists(), reason="reference data are not at hand")


def stroke_patients() -> dict[str, Placements]:
    """Placements of the three scores of pROC's data set aSAH."""
    with (REFERENCE / "aSAH.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    poor = np.array([row["outcome"] == "Poor" for row in rows])
    placed = {
        name: placements(np.array([float(row[name]) for row in rows]), poor) for name in ("wfns", "ndka", "s100b")
    }
    return {name: one for name, one in placed.items() if one is not None}


def reference(name: str) -> dict[str, dict[str, dict[str, object]]]:
    found: dict[str, dict[str, dict[str, object]]] = json.loads((REFERENCE / "reference_values.json").read_text())[name]
    return found


# McNemar and Newcombe


def test_without_discordant_images_p_is_1() -> None:
    assert [mcnemar(0, 0, method)[0] for method in ("auto", "exact", "midp")] == [1, 1, 1]


@pytest.mark.parametrize(("b", "c"), [(0, 1), (0, 8), (3, 9), (10, 10), (59, 121), (200, 260)])
def test_exact_mcnemar_is_that_of_statsmodels(b: int, c: int) -> None:
    expected = statsmodels_mcnemar([[50, b], [c, 50]], exact=True).pvalue

    assert mcnemar(b, c, "exact")[0] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("b", "c"), [(0, 1), (0, 8), (3, 9), (10, 10), (59, 121)])
def test_mid_p_counts_the_observed_table_half(b: int, c: int) -> None:
    """Summed from the definition: P(more extreme) + P(as extreme) / 2, both sides."""
    chances = scipy.stats.binom.pmf(np.arange(b + c + 1), b + c, 0.5)
    distance = np.abs(np.arange(b + c + 1) - (b + c) / 2)
    expected = chances[distance > abs(b - c) / 2].sum() + chances[distance == abs(b - c) / 2].sum() / 2
    if b == c:  # the table itself is on both sides
        expected = 1.0

    assert mcnemar(b, c, "midp")[0] == pytest.approx(expected, rel=1e-12)


def test_auto_changes_to_mid_p_at_25_discordant_images() -> None:
    assert mcnemar(4, 20)[1] == "mcnemar_exact"
    assert mcnemar(5, 20)[1] == "mcnemar_midp"


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        ((36, 12, 2, 0), (0.0569, 0.3404)),  # Newcombe 1998, table II, method 10
        ((14, 5, 0, 22), (0.011, 0.226)),  # Altman et al., Statistics with Confidence, 2000, chapter 6
        ((1, 1, 7, 12), (-0.507, -0.026)),  # Fagerland et al. 2014, airway hyper-responsiveness
    ],
)
def test_paired_intervals_are_those_printed(cells: tuple[int, int, int, int], expected: tuple[float, float]) -> None:
    """The papers subtract the other way round."""
    both, only_a, only_b, neither = cells

    interval = newcombe_paired(both, only_a, only_b, neither)

    digits = 4 if expected[0] == 0.0569 else 3
    assert (-(interval.high or 0), -(interval.low or 0)) == pytest.approx(expected, abs=0.51 * 10**-digits)


def test_exchanging_the_models_mirrors_the_paired_interval() -> None:
    for cells in itertools.product((0, 1, 7), repeat=4):
        both, b, c, neither = cells
        if sum(cells):
            one, other = newcombe_paired(both, b, c, neither), newcombe_paired(both, c, b, neither)
            assert one.low == pytest.approx(-(other.high or 0.0), abs=1e-12)
            assert one.low is not None
            assert one.high is not None
            assert -1 <= one.low <= (c - b) / sum(cells) <= one.high <= 1


def test_the_unpaired_interval_is_that_of_statsmodels() -> None:
    hits = np.arange(70) < 56, np.arange(80) < 48

    found = compare_shares(hits)

    expected = confint_proportions_2indep(48, 80, 56, 70, method="newcomb", compare="diff")
    assert (found.interval.low, found.interval.high) == pytest.approx(expected, rel=1e-12)


def test_the_unpaired_chi_squared_is_pearsons_with_n_minus_1() -> None:
    hits = np.arange(70) < 56, np.arange(80) < 48
    table = [[56, 14], [48, 32]]

    found = compare_shares(hits)

    chi = scipy.stats.chi2_contingency(table, correction=False).statistic * 149 / 150
    assert found.p_value == pytest.approx(scipy.stats.chi2.sf(chi, 1), rel=1e-10)


def test_all_right_on_both_independent_sets_is_no_difference() -> None:
    found = compare_shares((np.ones(5, dtype=bool), np.ones(9, dtype=bool)))

    assert (found.difference, found.p_value) == (0, 1)
    assert found.interval.low == pytest.approx(proportion_confint(9, 9, method="wilson")[0] - 1)


# AUC


@needs_reference
@pytest.mark.parametrize("pair", ["wfns-s100b", "wfns-ndka", "ndka-s100b"])
def test_paired_delong_is_procs(pair: str) -> None:
    expected = reference("aSAH_pROC")["paired_delong"][pair]
    second, first = pair.split("-")
    placed = stroke_patients()

    found = compare_auc(placed[first], placed[second])

    assert found.statistic == pytest.approx(expected["Z"], abs=1e-12)
    assert found.p_value == pytest.approx(expected["p_two"], abs=1e-12)
    assert [found.interval.low, found.interval.high] == pytest.approx(expected["ci"], abs=1e-12)


@needs_reference
@pytest.mark.parametrize("pair", ["wfns-s100b", "wfns-ndka", "ndka-s100b"])
def test_unpaired_delong_is_procs(pair: str) -> None:
    expected = reference("aSAH_pROC")["unpaired_delong"][pair]
    second, first = pair.split("-")
    placed = stroke_patients()

    found = compare_aucs_apart((placed[first], placed[second]), as_proc=True)

    assert found.statistic == pytest.approx(expected["D"], abs=1e-12)
    assert found.p_value == pytest.approx(expected["p"], abs=1e-12)


def scored(seed: int, n: int = 40) -> tuple[Placements, Placements, NDArray[np.bool_]]:
    generator = np.random.default_rng(seed)
    positive = np.arange(n) % 3 == 0
    a, b = (placements(np.round(generator.normal(size=n) + positive, 1), positive) for _ in range(2))
    assert a is not None
    assert b is not None
    return a, b, positive


def test_the_variance_of_the_difference_is_that_of_both_less_twice_the_covariance() -> None:
    a, b, _ = scored(0)

    found = compare_auc(a, b)

    variance = delong_variance(a) + delong_variance(b) - 2 * delong_covariance(a, b)
    assert found.statistic == pytest.approx((b.auc - a.auc) / math.sqrt(variance), rel=1e-12)


def test_patients_with_one_image_each_change_nothing() -> None:
    a, b, positive = scored(1)
    codes = np.random.default_rng(0).permutation(len(positive))

    assert compare_auc(a, b, (codes[positive], codes[~positive])) == compare_auc(a, b)


def test_identical_scores_have_z_0_and_p_1() -> None:
    a, _, positive = scored(2)
    codes = np.arange(len(positive)) // 4

    for found in (compare_auc(a, a), compare_auc(a, a, (codes[positive], codes[~positive]))):
        assert (found.difference, found.statistic, found.p_value) == (0, 0, 1)


def test_two_perfect_scores_do_not_differ_and_have_no_interval() -> None:
    positive = np.array([0, 0, 1, 1], dtype=bool)
    a, b = placements(np.arange(4.0), positive), placements(np.array([0.0, 0, 5, 5]), positive)

    found = compare_auc(a, b)

    assert (found.difference, found.p_value, found.interval.low) == (0, 1, None)
    assert found.interval.note is not None


def test_a_difference_without_variance_has_no_test_and_says_why() -> None:
    positive = np.array([0, 0, 1, 1], dtype=bool)
    perfect, guessing = placements(np.arange(4.0), positive), placements(np.zeros(4), positive)

    found = compare_auc(guessing, perfect)

    assert found.difference == 0.5
    assert found.p_value is None
    assert found.reason is not None


def test_one_class_or_one_positive_leave_the_auc_untested() -> None:
    positive = np.array([1, 0, 0], dtype=bool)
    a, b = placements(np.array([1.0, 2, 0]), positive), placements(np.array([1.0, 0, 0]), positive)

    assert compare_auc(None, None).difference is None
    assert compare_auc(a, b).p_value is None
    assert compare_auc(a, b).difference == 0.5


def test_the_influence_gives_the_delong_variance_of_one_class_in_large_samples() -> None:
    a, b, positive = scored(3, 6000)

    influence = auc_influence(b, positive) - auc_influence(a, positive)

    change = Placements(b.positives - a.positives, b.negatives - a.negatives)
    assert influence_variance(influence)[0] == pytest.approx(delong_variance(change), rel=1e-3)


def test_the_macro_auc_of_equal_classes_is_their_auc() -> None:
    a, b, positive = scored(4)
    change = (b.auc - a.auc, auc_influence(b, positive) - auc_influence(a, positive))

    assert compare_macro_auc([change, change]) == compare_macro_auc([change])


# permutations


def test_all_patterns_of_few_swaps_are_taken_once() -> None:
    (block,) = patterns(4, seed=0)

    assert sorted(map(tuple, block.tolist())) == sorted(itertools.product((0, 1), repeat=4))


def test_the_exact_swap_of_right_and_wrong_is_exact_mcnemar() -> None:
    """Swapping ones and minus ones is tossing a coin for each discordant image."""
    for b, c in ((0, 1), (3, 9), (2, 2), (1, 7)):
        differences = np.concatenate([-np.ones(b), np.ones(c), np.zeros(20)])

        p, _ = mean_swaps(differences)

        assert p == pytest.approx(mcnemar(b, c, "exact")[0], rel=1e-12)


def test_mean_swaps_are_scipys_permutation_test() -> None:
    a, b = np.random.default_rng(0).gamma(1, size=(2, 10))

    p, _ = mean_swaps(b - a)

    expected = scipy.stats.permutation_test((a, b), lambda x, y: np.mean(y) - np.mean(x), permutation_type="samples")
    assert p == pytest.approx(expected.pvalue, rel=1e-12)


def test_random_swaps_are_near_the_exact_ones_and_never_0() -> None:
    differences = np.concatenate([np.ones(13), -np.ones(4)])

    p, _ = mean_swaps(differences, permutations=5000)

    assert not is_exact(17, 5000)
    assert p == pytest.approx(mcnemar(13, 4, "exact")[0], abs=0.01)
    assert mean_swaps(np.ones(60))[0] == 1 / 10_000


def test_patients_are_swapped_whole() -> None:
    """Three patients with all their differences on one side: 2 of 8 patterns are as extreme."""
    differences, patients = np.ones(12), np.repeat([0, 1, 2], 4)

    assert mean_swaps(differences, groups=patients)[0] == 2 / 8


def test_count_swaps_of_accuracy_are_mean_swaps_of_right_and_wrong() -> None:
    generator = np.random.default_rng(1)
    targets, a, b = generator.integers(0, 3, (3, 12))

    (p,), _ = count_swaps(targets, (a, b), 3, [counts.accuracy])

    differences = (b == targets).astype(float) - (a == targets)
    assert p == pytest.approx(mean_swaps(differences)[0], rel=1e-12)


def test_count_swaps_recompute_the_metric_of_every_pattern() -> None:
    generator = np.random.default_rng(2)
    targets, a, b = generator.integers(0, 3, (3, 8))

    def f1(first: NDArray[np.int64]) -> float:
        matrix = counts.confusion_matrix(targets, first, 3)
        return float(counts.macro(counts.f1(counts.count(matrix))))

    (p,), _ = count_swaps(targets, (a, b), 3, [lambda tally: counts.macro(counts.f1(tally))])

    every = [np.array(pattern, dtype=bool) for pattern in itertools.product((0, 1), repeat=8)]
    found = [abs(f1(np.where(swap, a, b)) - f1(np.where(swap, b, a))) for swap in every]
    assert p == pytest.approx(np.mean(np.array(found) >= abs(f1(b) - f1(a)) - 1e-12), rel=1e-12)


def test_shuffled_means_are_near_the_t_test_of_welch() -> None:
    a, b = np.random.default_rng(5).normal(size=(2, 60))

    p, _ = compare_means((a, b + 0.3))

    assert p == pytest.approx(scipy.stats.ttest_ind(a, b + 0.3, equal_var=False).pvalue, abs=0.02)


def test_equal_means_of_independent_sets_have_p_1() -> None:
    assert compare_means((np.ones(5), np.ones(9)))[0] == 1
    assert compare_means((np.zeros(1), np.ones(9)))[0] == 1


# by patient


def test_accuracy_by_patient_is_mcnemars_when_each_has_one_image() -> None:
    a, b = np.random.default_rng(3).random((2, 50)) < 0.7

    assert compare_proportions(a, b, groups=np.arange(50)[::-1]) == compare_proportions(a, b)


def test_copies_of_images_of_the_same_patients_add_no_evidence() -> None:
    a, b = np.random.default_rng(4).random((2, 12)) < 0.6
    patients = np.arange(12)

    once = compare_proportions(a, b)
    copied = compare_proportions(*(np.repeat(x, 20) for x in (a, b)), groups=np.repeat(patients, 20))
    naive = compare_proportions(*(np.repeat(x, 20) for x in (a, b)))

    assert copied.p_value == pytest.approx(once.p_value, rel=1e-12)
    assert naive.p_value is not None
    assert once.p_value is not None
    assert naive.p_value < once.p_value
    widths = [(one.interval.high or 0) - (one.interval.low or 0) for one in (once, copied, naive)]
    assert widths[2] < 0.5 * widths[1]
    assert widths[1] > 0.8 * widths[0]


def test_a_single_patient_gives_no_interval() -> None:
    found = compare_proportions(np.array([True, False]), np.array([True, True]), groups=np.array([0, 0]))

    assert found.interval.low is None
    assert found.p_value == 1


# several


@needs_reference
def test_cochrans_q_is_conovers() -> None:
    expected = reference("CochranQ_Conover")

    found = cochran(np.array(expected["x"], dtype=bool))

    assert found.statistic == pytest.approx(expected["Q"], abs=1e-12)
    assert found.p_value == pytest.approx(expected["p"], abs=1e-6)


def test_cochrans_q_is_that_of_statsmodels() -> None:
    correct = np.random.default_rng(0).random((60, 4)) < [0.6, 0.7, 0.7, 0.9]

    found = cochran(correct)

    expected = cochrans_q(correct.astype(int))
    assert (found.statistic, found.p_value) == pytest.approx((expected.statistic, expected.pvalue), rel=1e-12)


def test_models_that_agree_everywhere_have_no_q_and_p_1() -> None:
    found = cochran(np.repeat([[True], [False]], 3, axis=1))

    assert (found.statistic, found.p_value) == (None, 1)


def test_q_by_patient_ignores_copies() -> None:
    correct = np.random.default_rng(1).random((30, 3)) < [0.5, 0.6, 0.8]

    copied = cochran(np.repeat(correct, 10, axis=0), groups=np.repeat(np.arange(30), 10))

    assert copied.p_value == pytest.approx(cochran(correct).p_value, abs=0.06)
    assert cochran(np.repeat(correct, 10, axis=0)).p_value < 1e-3


def test_holm_as_worked_by_hand() -> None:
    """0.01 x 3; 0.02 x 2; the largest is not below the one before."""
    assert holm([0.03, 0.01, 0.02]) == [0.04, 0.03, 0.04]
    assert holm([0.9, None, 0.4]) == [0.9, None, 0.8]
    assert holm([None]) == [None]
