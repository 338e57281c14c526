"""The AUC's variances and limits by hand, against the equation they solve, and in as few steps as promised."""

import math
from dataclasses import FrozenInstanceError
from typing import get_args

import numpy as np
import pytest
import scipy.optimize
import scipy.special
import scipy.stats
from numpy.typing import NDArray

from evalcam_cli.evaluation import auc
from evalcam_cli.evaluation.auc import (
    AucMethod,
    Evidence,
    Placements,
    auc_interval,
    clustered_covariance,
    delong_covariance,
    delong_variance,
    evidence,
    placements,
    score_limits,
    voted_variance,
)
from evalcam_cli.evaluation.estimates import Interval

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Z = scipy.stats.norm.ppf(0.975)


def placed(positives: list[float] | Floats, negatives: list[float] | Floats) -> Placements:
    scores = np.concatenate([positives, negatives]).astype(np.float64)
    found = placements(scores, np.arange(len(scores)) < len(positives))
    assert found is not None
    return found


def drawn(seed: int, m: int, n: int, shift: float = 1.0) -> Placements:
    generator = np.random.default_rng(seed)
    return placed(generator.normal(shift, 1, m).round(1), generator.normal(0, 1, n).round(1))


def codes(*numbers: int) -> Ints:
    return np.array(numbers, dtype=np.int64)


def test_placements_of_five_images_by_hand() -> None:
    """3 beats 1 and ties with 3; 2 beats 1 only; 0 beats nothing."""
    found = placed([3, 2, 0], [1, 3])

    assert found.positives.tolist() == [0.75, 0.5, 0]
    assert found.negatives.tolist() == [2 / 3, 0.5 / 3]
    assert found.auc == 2.5 / 6
    assert delong_variance(found) == pytest.approx(
        np.var([0.75, 0.5, 0], ddof=1) / 3 + np.var([2 / 3, 0.5 / 3], ddof=1) / 2, rel=1e-14
    )


@pytest.mark.parametrize(("m", "n"), [(1, 1), (2, 2), (1, 7), (7, 1), (6, 6), (5, 9), (9, 5)])
def test_either_side_may_be_the_larger(m: int, n: int) -> None:
    generator = np.random.default_rng(m)
    positives, negatives = generator.integers(0, 4, m).astype(float), generator.integers(0, 4, n).astype(float)

    found = placed(positives, negatives)

    won = (positives[:, None] > negatives) + 0.5 * (positives[:, None] == negatives)
    np.testing.assert_allclose(found.positives, won.mean(axis=1), rtol=0, atol=1e-15)
    np.testing.assert_allclose(found.negatives, won.mean(axis=0), rtol=0, atol=1e-15)
    assert found.auc == won.sum() / won.size


def test_the_covariance_of_two_scores_is_numpys_by_side() -> None:
    a, b = drawn(0, 6, 9), drawn(1, 6, 9)

    wanted = np.cov(a.positives, b.positives)[0, 1] / 6 + np.cov(a.negatives, b.negatives)[0, 1] / 9

    assert delong_covariance(a, b) == pytest.approx(wanted, rel=1e-13)
    assert not math.isnan(delong_variance(drawn(0, 2, 2)))
    for m, n in ((1, 5), (5, 1)):
        assert math.isnan(delong_variance(drawn(0, m, n)))


def obuchowski(a: Placements, b: Placements, positives: Ints, negatives: Ints) -> float:
    """The formula of the docstring, patient by patient."""
    m, n = len(positives), len(negatives)

    def sums(values: Floats, groups: Ints) -> Floats:
        return np.array([(values[groups == one] - values.mean()).sum() for one in range(10)])

    i10, i01, either = len(set(positives)), len(set(negatives)), len({*positives, *negatives})
    a10, b10 = sums(a.positives, positives), sums(b.positives, positives)
    a01, b01 = sums(a.negatives, negatives), sums(b.negatives, negatives)
    s10, s01 = i10 / (i10 - 1) / m * (a10 @ b10), i01 / (i01 - 1) / n * (a01 @ b01)
    s11 = either / (either - 1) * np.array([a10 @ b01, b10 @ a01])
    return float(s10 / m + s01 / n + s11.sum() / (m * n))


POSITIVE, NEGATIVE = codes(0, 0, 1, 2, 5, 5), codes(1, 1, 3, 5, 6, 6, 6, 3)


def test_obuchowskis_covariance_is_its_formula() -> None:
    a, b = drawn(0, 6, 8), drawn(1, 6, 8)

    assert clustered_covariance(a, b, POSITIVE + 2, NEGATIVE + 2) == clustered_covariance(a, b, POSITIVE, NEGATIVE)
    assert clustered_covariance(a, b, POSITIVE + 20, NEGATIVE) == pytest.approx(
        clustered_covariance(a, b, POSITIVE, NEGATIVE + 20), rel=1e-12
    )
    for other in (a, b):
        assert clustered_covariance(a, other, POSITIVE, NEGATIVE) == pytest.approx(
            obuchowski(a, other, POSITIVE, NEGATIVE), rel=1e-12
        )
        assert clustered_covariance(a, other, POSITIVE, NEGATIVE + 20) == pytest.approx(
            clustered_covariance(a, other, POSITIVE, NEGATIVE + 9), rel=1e-12
        )


def test_two_patients_on_each_side_are_enough_and_one_is_not() -> None:
    found = drawn(0, 3, 4)

    assert not math.isnan(clustered_covariance(found, found, codes(0, 0, 1), codes(2, 2, 2, 3)))
    for sides in ((codes(0, 0, 0), codes(1, 2, 3, 4)), (codes(0, 1, 2), codes(3, 3, 3, 3))):
        assert math.isnan(clustered_covariance(found, found, *sides))
        note = "needs at least 2 patients with images of the class and 2 with others"
        for method in get_args(AucMethod):
            assert auc_interval(found, method=method, groups=sides) == Interval(note=note)


def test_no_images_on_a_side_leave_no_placements_and_one_leaves_no_interval() -> None:
    scores = np.array([1.0, 2, 3])

    assert placements(scores, np.ones(3, dtype=np.bool_)) is None
    assert placements(scores, np.zeros(3, dtype=np.bool_)) is None
    assert placements(scores[:0], np.zeros(0, dtype=np.bool_)) is None
    for m, n in ((1, 4), (4, 1)):
        found = auc_interval(drawn(0, m, n))
        assert found == Interval(note="needs at least 2 images of the class and 2 of the others")


def test_the_interval_has_the_limits_of_its_evidence() -> None:
    for groups in (None, (POSITIVE, NEGATIVE)):
        found = auc_interval(drawn(0, 6, 8), groups=groups)
        assert (found.low, found.high) == tuple(map(float, score_limits(evidence(drawn(0, 6, 8), groups))))


def test_a_variance_that_rounding_makes_negative_is_taken_as_0() -> None:
    """What each patient gains by its positives it loses by its negatives: 0, computed as -1.7e-18."""
    one, sides = placed([4, 5, 4], [2, 4, 4]), (codes(0, 1, 1), codes(0, 1, 0))

    assert clustered_covariance(one, one, *sides) == pytest.approx(0, abs=1e-17)
    assert float(evidence(one, sides).variance) == 0
    assert auc_interval(one, method="delong", groups=sides).low == one.auc


@pytest.mark.parametrize("seed", range(20))
def test_obuchowskis_variance_is_never_negative(seed: int) -> None:
    """I/(I-1) is at most either side's factor, so S10/M + S01/N is at least twice the cross term in size."""
    generator = np.random.default_rng(seed)
    one, sides = drawn(seed, 6, 8, 0.0), (generator.integers(0, 4, 6), generator.integers(0, 4, 8))

    assert not clustered_covariance(one, one, *sides) < -1e-16


def test_many_aucs_at_once_have_the_limits_of_each() -> None:
    each = [evidence(drawn(seed, m, n, shift)) for seed, m, n, shift in SETS]

    def all_of(name: str) -> Floats:
        return np.array([getattr(one, name) for one in each])

    def both(name: str) -> tuple[Floats, Floats]:
        first, second = all_of(name).T
        return first, second

    together = Evidence(
        all_of("auc"), all_of("variance"), both("parts"), both("images"), both("patients"), all_of("imperfect")
    )

    np.testing.assert_allclose(np.array(score_limits(together)).T, [score_limits(one) for one in each], atol=1e-12)


def test_methods_are_named_by_formula_and_by_patients() -> None:
    found, sides = drawn(0, 6, 8), (POSITIVE, NEGATIVE)

    assert get_args(AucMethod) == ("score", "delong")
    assert auc_interval(found) == auc_interval(found, method="score")
    assert [auc_interval(found, groups=groups).method for groups in (None, sides)] == [
        "delong_score", "obuchowski_score",
    ]  # fmt: skip
    assert [auc_interval(found, method="delong", groups=groups).method for groups in (None, sides)] == [
        "delong", "obuchowski",
    ]  # fmt: skip


@pytest.mark.parametrize("groups", [None, (POSITIVE, NEGATIVE)])
def test_delongs_interval_is_the_auc_plus_and_minus_z_errors_within_0_and_1(groups: tuple[Ints, Ints] | None) -> None:
    for shift in (-1.5, 0.3, 1.5):
        found = drawn(0, 6, 8, shift)
        variance = delong_variance(found) if groups is None else max(0, clustered_covariance(found, found, *groups))

        made = auc_interval(found, method="delong", groups=groups)

        half = Z * math.sqrt(variance)
        assert made.low == pytest.approx(max(0, found.auc - half), abs=1e-12)
        assert made.high == pytest.approx(min(1, found.auc + half), abs=1e-12)
        assert made.note is None


def test_delongs_interval_without_width_says_so() -> None:
    made = auc_interval(placed([1, 2, 3], [0, 0]), method="delong")

    assert made == Interval(1, 1, "delong", "no width: the variance is estimated as 0 when all pairs are in order")


def test_evidence_holds_both_sides_and_the_fewer_imperfect_images() -> None:
    """Positives are beaten by 0, 1 and 2 of 4 negatives; only two negatives are above any of the positives."""
    found = evidence(placed([9, 4, 2], [1, 1, 3, 5]))

    assert float(found.auc) == (4 + 3 + 2) / 12
    assert [float(part) for part in found.parts] == pytest.approx(
        [np.var([1, 0.75, 0.5], ddof=1) / 3, np.var([1, 1, 2 / 3, 1 / 3], ddof=1) / 4]
    )
    assert float(found.variance) == pytest.approx(sum(map(float, found.parts)))
    assert [float(number) for number in (*found.images, *found.patients)] == [3, 4, 3, 4]
    assert float(found.imperfect) == 2
    assert found.imperfect.dtype == np.float64


def test_evidence_of_patients_counts_effective_patients_and_imperfect_ones() -> None:
    """Patients of 1 and 2 images are worth 9/5; the imperfect images are of one patient on each side."""
    found = evidence(placed([9, 4, 2], [1, 1, 3, 5]), (codes(0, 1, 1), codes(2, 2, 3, 3)))

    assert [float(number) for number in (*found.images, *found.patients)] == pytest.approx([3, 4, 9 / 5, 2])
    assert float(found.imperfect) == 1
    one = placed([9, 4, 2], [1, 1, 3, 5])
    whole = clustered_covariance(one, one, codes(0, 1, 1), codes(2, 2, 3, 3))
    assert float(found.variance) == pytest.approx(max(whole, 0))


def test_of_a_score_that_is_wrong_throughout_the_right_ones_are_counted() -> None:
    assert float(evidence(placed([0, 0, 3], [1, 2, 2, 2])).imperfect) == 1
    assert float(evidence(placed([0, 0, 0], [1, 2, 2, 2])).imperfect) == 0


def model(rate: float, m: float, n: float) -> float:
    """Two thirds normal, one third exponential, by Owen's function and by Newcombe's method 5."""
    normal = rate - rate**2 - 2 * scipy.special.owens_t(scipy.stats.norm.ppf(rate), 1 / math.sqrt(3))
    exponential = rate * (1 - rate) * (1 - 3 / (2 * (2 - rate) * (1 + rate)))
    return float((rate * (1 - rate) + (m + n - 2) * (2 * normal + exponential) / 3) / (m * n))


def wanted_limits(found: Evidence) -> tuple[float, float]:
    """The docstring of `score_limits`, solved by Brent's method."""
    a, s, j = float(found.auc), float(found.variance), float(found.imperfect)
    (x, y), (m, n), (k, o) = (tuple(map(float, pair)) for pair in (found.parts, found.images, found.patients))
    near = (m * n * a + 0.5) / (m * n + 1)
    t = Z
    if x + y:
        t = scipy.stats.t.ppf(0.975, max(1, (x + y) ** 2 / (x**2 / max(k - 1, 1) + y**2 / max(o - 1, 1))))
    voted = (j * s + 2 * max(s, model(near, k, o))) / (j + 2)
    assert float(voted_variance(found)) == pytest.approx(voted, rel=1e-11)
    factor = max(1, (t / Z) ** 2 * voted / model(near, m, n))

    def off(rate: float) -> float:
        return float((a - rate) ** 2 - Z**2 * factor * model(rate, m, n))

    tiny = 1e-15
    low = scipy.optimize.brentq(off, tiny, near, xtol=1e-15) if a > 0 else 0
    high = scipy.optimize.brentq(off, near, 1 - tiny, xtol=1e-15) if a < 1 else 1
    return float(low), float(high)


SETS = [(seed, m, n, shift) for seed, (m, n) in enumerate([(2, 2), (2, 9), (9, 3), (12, 40), (70, 60)])
        for shift in (-3.0, -0.5, 0.5, 1.5, 3.0)]  # fmt: skip


@pytest.mark.parametrize(("seed", "m", "n", "shift"), SETS)
def test_score_limits_are_the_solutions_of_their_equation(seed: int, m: int, n: int, shift: float) -> None:
    found = evidence(drawn(seed, m, n, shift))

    assert tuple(map(float, score_limits(found))) == pytest.approx(wanted_limits(found), abs=1e-9)


@pytest.mark.parametrize("shift", [-3.0, 0.0, 1.0, 3.0])
def test_score_limits_of_patients_are_the_solutions_of_their_equation(shift: float) -> None:
    generator = np.random.default_rng(0)
    for m, n in ((6, 8), (20, 30)):
        sides = generator.integers(0, m // 2, m), generator.integers(0, m // 2 + 3, n)
        found = evidence(drawn(m, m, n, shift), sides)

        assert tuple(map(float, score_limits(found))) == pytest.approx(wanted_limits(found), abs=1e-9)
    few = evidence(drawn(6, 6, 8, shift), (codes(0, 0, 0, 0, 0, 1), codes(2, 2, 2, 2, 2, 2, 2, 3)))
    assert 1 < max(map(float, few.patients)) < 2
    assert tuple(map(float, score_limits(few))) == pytest.approx(wanted_limits(few), abs=1e-9)


def test_a_perfect_ranking_has_an_end_exactly_and_one_placed_evenly_is_symmetric() -> None:
    best, worst = (evidence(placed(*sides)) for sides in (([2.0, 3, 4], [0.0, 1]), ([0.0, 1], [2.0, 3, 4])))

    assert (float(score_limits(best)[1]), float(score_limits(worst)[0])) == (1, 0)
    assert 0 < float(score_limits(best)[0]) < 1
    assert 0 < float(score_limits(worst)[1]) < 1
    low, high = score_limits(evidence(placed([0, 3], [0, 3])))
    assert low == pytest.approx(1 - high, abs=1e-12)


@pytest.mark.parametrize(("seed", "m", "n", "shift"), SETS)
def test_the_limits_take_few_steps(seed: int, m: int, n: int, shift: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """False position with the Illinois rule: about a dozen, where plain false position needs hundreds."""
    steps = []
    real = auc.model_variance

    def counting(probit: Floats, m: Floats, n: Floats) -> Floats:
        steps.append(probit)
        return real(probit, m, n)

    found = evidence(drawn(seed, m, n, shift))
    monkeypatch.setattr(auc, "model_variance", counting)

    score_limits(found)

    assert len(steps) <= STEPS


STEPS = 18
"""Of those 4 are for the start and the inflation."""


def test_placements_and_evidence_cannot_be_changed() -> None:
    one = drawn(0, 3, 4)

    with pytest.raises(FrozenInstanceError):
        one.positives = one.negatives  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        evidence(one).auc = np.array(1.0)  # type: ignore[misc]
