"""Net benefit by its definition, and predictive values at a stated prevalence by Bayes' theorem."""

import json
import math
import time
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from evalcam_cli.evaluation.decision import (
    HEADER,
    THRESHOLDS,
    VALUES_HEADER,
    adjust_probabilities,
    adjusted_npv,
    adjusted_ppv,
    decision_curve,
    predictive_values,
)
from evalcam_cli.evaluation.operating_point import OperatingPoint
from evalcam_cli.evaluation.predictions import Predictions
from evalcam_cli.evaluation.resampling import resample_weights
from evalcam_cli.evaluation.stated import StatedProbabilities

Floats = NDArray[np.float64]


def stated(p: list[float], truth: list[int], groups: tuple[str, ...] = ()) -> StatedProbabilities:
    """Two classes, `p` the probability of the second."""
    both = np.stack([1 - np.array(p), np.array(p)], axis=1)
    with np.errstate(divide="ignore"):
        logits = np.log(both).astype(np.float32)
    paths = tuple(map(str, range(len(p))))
    return StatedProbabilities(("no", "yes"), logits, np.array(truth), paths, groups=groups, stated=both)


def drawn(n: int = 300, seed: int = 0, k: int = 2, **more: object) -> Predictions:
    generator = np.random.default_rng(seed)
    targets = generator.integers(0, k, n)
    logits = generator.normal(size=(n, k)).astype(np.float32)
    logits[np.arange(n), targets] += 1
    return Predictions(tuple("abcdef"[:k]), logits, targets, tuple(map(str, range(n))), **more)  # type: ignore[arg-type]


def counted(tp: int, fp: int, fn: int, tn: int, groups: tuple[str, ...] = ()) -> StatedProbabilities:
    """Decisions with these counts."""
    p = [0.9] * (tp + fp) + [0.1] * (fn + tn)
    return stated(p, [1] * tp + [0] * fp + [1] * fn + [0] * tn, groups)


def test_net_benefit_worked_out_by_hand() -> None:
    """At .25 the odds are 1/3: TP 2, FP 1 of 5 images give (2 - 1/3)/5; all: 2/5 - 3/5 · 1/3."""
    curve = decision_curve(stated([0.9, 0.25, 0.3, 0.2, 0.1], [1, 1, 0, 0, 0]))

    point = curve.points[THRESHOLDS.index(0.25)]

    assert point.net_benefit.estimate == pytest.approx((2 - 1 / 3) / 5)
    assert point.treat_all.estimate == pytest.approx(2 / 5 - 1 / 5)
    assert point.advantage.estimate == pytest.approx(1 / 3 - 1 / 5)
    assert point.interventions_avoided == pytest.approx(100 * 2 / 5)  # two negatives of five images are spared


@pytest.mark.parametrize("k", [2, 4])
def test_net_benefit_equals_its_definition_at_every_threshold(k: int) -> None:
    predictions = drawn(k=k)
    p, truth = predictions.probabilities[:, 1], predictions.targets == 1

    curve = decision_curve(predictions, positive="b")

    for point in curve.points:
        odds = point.threshold / (1 - point.threshold)
        wanted = np.mean((p >= point.threshold) & truth) - np.mean((p >= point.threshold) & ~truth) * odds
        assert point.net_benefit.estimate == pytest.approx(wanted, abs=1e-12)


def test_a_probability_equal_to_the_threshold_counts_as_positive() -> None:
    grid = list(THRESHOLDS)

    curve = decision_curve(stated(grid, [1] * len(grid)))

    reached = [round(99 * (point.net_benefit.estimate or 0.0)) for point in curve.points]
    assert reached == list(range(99, 0, -1))


def test_a_classifier_that_calls_all_positive_is_worth_as_much_as_acting_on_all() -> None:
    curve = decision_curve(stated([1.0] * 10, [1, 1, 1] + [0] * 7))

    for point in curve.points:
        assert point.net_benefit.estimate == pytest.approx(point.treat_all.estimate)
        assert point.interventions_avoided == pytest.approx(0)


@pytest.mark.parametrize("prevalence", [None, 0.2])
@pytest.mark.parametrize("seed", range(6))
def test_calling_all_is_no_advantage_not_even_in_the_last_digit(seed: int, prevalence: float | None) -> None:
    """A rounding error of 1e-16 in all resamples would be called useful."""
    generator = np.random.default_rng(seed)
    truth = (generator.random(137) < generator.uniform(0.1, 0.9)).astype(int).tolist()

    curve = decision_curve(stated([0.9] * 137, truth), prevalence=prevalence, bootstrap=50)

    called = curve.points[: THRESHOLDS.index(0.9) + 1]
    assert all((one.advantage.estimate or 0) <= 0 and (one.advantage.ci_high or 0) <= 0 for one in called)
    assert all(one.net_benefit == one.treat_all for one in called if prevalence is None)
    assert not curve.useful


def test_the_curve_starts_at_the_prevalence_and_a_perfect_one_stays_there() -> None:
    curve = decision_curve(stated([1.0] * 3 + [0.0] * 7, [1] * 3 + [0] * 7))

    assert [point.net_benefit.estimate for point in curve.points] == pytest.approx([0.3] * 99)


def test_stating_the_prevalence_that_the_images_have_changes_nothing() -> None:
    predictions = drawn()
    observed = float((predictions.targets == 1).mean())

    plain, restated = decision_curve(predictions), decision_curve(predictions, prevalence=observed)

    for a, b in zip(plain.points, restated.points, strict=True):
        assert b.net_benefit.estimate == pytest.approx(a.net_benefit.estimate)
        assert b.treat_all.estimate == pytest.approx(a.treat_all.estimate)


def test_a_stated_prevalence_equals_weighing_the_images_to_it() -> None:
    """A case-control set of 1:1, reweighted to 1:4 by taking every negative four times."""
    p, truth = [0.9, 0.6, 0.3, 0.8, 0.4, 0.1], [1, 1, 1, 0, 0, 0]
    weighed = stated(p + p[3:] * 3, truth + truth[3:] * 3)

    restated, repeated = decision_curve(stated(p, truth), prevalence=0.2), decision_curve(weighed)

    wanted = [point.net_benefit.estimate for point in repeated.points]
    assert [point.net_benefit.estimate for point in restated.points] == pytest.approx(wanted)


def test_the_band_is_the_percentiles_of_the_shared_resamples() -> None:
    predictions = drawn(80)
    p, truth = predictions.probabilities[:, 1], predictions.targets == 1
    weights = np.concatenate(list(resample_weights(80, 200, 3)))
    odds = 0.3 / 0.7
    values = [(w[(p >= 0.3) & truth].sum() - w[(p >= 0.3) & ~truth].sum() * odds) / 80 for w in weights]

    found = decision_curve(predictions, bootstrap=200, seed=3).points[29].net_benefit

    assert (found.ci_low, found.ci_high) == pytest.approx(tuple(np.quantile(values, [0.025, 0.975])))
    assert found.ci_method == "bootstrap"


def test_patients_are_resampled_whole_and_make_the_band_wider() -> None:
    """Ten copies of every image, under one patient each, say no more than the images themselves."""
    single = drawn(40)
    tenfold = replace(single.take(np.repeat(np.arange(40), 10)), groups=tuple(str(i // 10) for i in range(400)))

    one = decision_curve(single, bootstrap=300).points[30].net_benefit
    other = decision_curve(tenfold, bootstrap=300).points[30].net_benefit

    assert other.ci_method == "patient_bootstrap"
    assert (other.ci_low, other.ci_high) == pytest.approx((one.ci_low, one.ci_high))


def test_a_good_classifier_is_useful_in_the_middle_and_noise_nowhere() -> None:
    generator = np.random.default_rng(1)
    truth = generator.random(2000) < 0.3
    risk = np.where(truth, generator.beta(4, 2, 2000), generator.beta(2, 6, 2000))

    good = decision_curve(stated(risk.tolist(), truth.astype(int).tolist()), bootstrap=200)
    noise = decision_curve(stated(generator.random(2000).tolist(), truth.astype(int).tolist()), bootstrap=200)

    assert {0.2, 0.3, 0.4} <= set(good.useful)
    assert not noise.useful


@pytest.mark.parametrize(("p", "codes"), [(0.002, ["decision_curve_uncalibrated"]), (0.2, []), (None, [])])
def test_probabilities_that_are_not_calibrated_are_warned_about(p: float | None, codes: list[str]) -> None:
    assert [caution.code for caution in decision_curve(drawn(), calibration_p=p).cautions] == codes


def test_images_of_one_class_have_a_curve_at_their_own_prevalence_and_none_at_another() -> None:
    predictions = stated([0.9, 0.2], [1, 1])

    own, other = decision_curve(predictions), decision_curve(predictions, prevalence=0.2)

    assert own.points[49].net_benefit.estimate == 0.5
    assert other.points[49].net_benefit.estimate is None
    assert other.points[49].net_benefit.undefined_reason == "all images are of one class"


def test_the_curve_of_50_000_images_takes_seconds() -> None:
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(50_000, 2)).astype(np.float32)
    predictions = Predictions(("a", "b"), logits, generator.integers(0, 2, 50_000), ())

    start = time.process_time()
    decision_curve(predictions, bootstrap=100)

    assert time.process_time() - start < 10


@pytest.mark.parametrize(("prevalence", "ppv"), [(0.469, 0.768), (0.10, 0.294), (0.01, 0.037)])
def test_ppv_falls_with_the_prevalence_as_in_the_diagnostic_table_of_scott(prevalence: float, ppv: float) -> None:
    """Se .9005 and Sp .7601: epiR's example, Scott et al. 2008."""
    assert adjusted_ppv(0.9005, 0.7601, prevalence) == pytest.approx(ppv, abs=5e-4)


def test_at_the_observed_prevalence_predictive_values_are_shares_of_the_calls() -> None:
    """670 true and 202 false positives, 74 false and 640 true negatives: Scott 2008."""
    found = predictive_values(counted(670, 202, 74, 640), prevalence=744 / 1586)

    assert found.ppv.estimate == pytest.approx(670 / 872)
    assert found.npv.estimate == pytest.approx(640 / 714)


def test_npv_is_the_ppv_of_the_other_answer() -> None:
    assert adjusted_npv(0.9, 0.76, 0.1) == pytest.approx(0.76 * 0.9 / (0.76 * 0.9 + 0.1 * 0.1))
    assert adjusted_ppv(0.0, 1.0, 0.1) is None
    assert adjusted_npv(1.0, 0.0, 0.1) is None


def test_the_interval_is_mercaldo_lau_and_zhou_worked_out() -> None:
    tp, fp, fn, tn, prevalence = 670, 202, 74, 640, 0.1
    se, sp = tp / (tp + fn), tn / (tn + fp)
    centre = math.log(se * prevalence / ((1 - sp) * (1 - prevalence)))
    half = 1.959963984540054 * math.sqrt((1 - se) / se / (tp + fn) + sp / (1 - sp) / (tn + fp))
    npv_centre = math.log(sp * (1 - prevalence) / ((1 - se) * prevalence))
    npv_half = 1.959963984540054 * math.sqrt(se / (1 - se) / (tp + fn) + (1 - sp) / sp / (tn + fp))

    found = predictive_values(counted(tp, fp, fn, tn), prevalence=prevalence, bootstrap=100)

    def back(x: float) -> float:
        return 1 / (1 + math.exp(-x))

    assert (found.ppv.ci_low, found.ppv.ci_high) == pytest.approx((back(centre - half), back(centre + half)))
    assert (found.npv.ci_low, found.npv.ci_high) == pytest.approx(
        (back(npv_centre - npv_half), back(npv_centre + npv_half))
    )
    assert found.ppv.ci_method == "logit_delta"


def test_no_false_positive_leaves_an_interval_that_ends_at_1() -> None:
    found = predictive_values(counted(20, 0, 5, 30), prevalence=0.1, bootstrap=100)

    assert found.ppv.estimate == 1.0
    assert found.ppv.ci_high == 1.0
    assert 0 < float(found.ppv.ci_low or 0) < 1
    assert "half" in str(found.ppv.ci_note)


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    """Se .85 on 60 positives, Sp .8 on 90 negatives; 2,000 sets."""
    generator = np.random.default_rng(0)
    truth = adjusted_ppv(0.85, 0.8, 0.1)
    hits = 0
    tables: dict[tuple[int, int], tuple[float, float]] = {}
    for tp, tn in zip(generator.binomial(60, 0.85, 2000), generator.binomial(90, 0.8, 2000), strict=True):
        if (tp, tn) not in tables:
            found = predictive_values(counted(tp, 90 - tn, 60 - tp, tn), prevalence=0.1, bootstrap=1).ppv
            tables[tp, tn] = (float(found.ci_low or 0), float(found.ci_high or 1))
        low, high = tables[tp, tn]
        hits += low <= float(truth or 0) <= high

    assert 0.93 <= hits / 2000 <= 0.975


def test_with_patients_the_interval_comes_from_resampled_patients() -> None:
    predictions = counted(40, 10, 12, 60, groups=tuple(str(index // 3) for index in range(122)))

    found = predictive_values(predictions, prevalence=0.2, bootstrap=200)

    assert found.ppv.ci_method == "patient_bootstrap"
    assert float(found.ppv.ci_low or 0) < float(found.ppv.estimate or 0) < float(found.ppv.ci_high or 0)


def test_one_class_alone_or_nothing_called_has_a_reason() -> None:
    alone = predictive_values(counted(5, 0, 5, 0), prevalence=0.2, bootstrap=100)
    silent = predictive_values(counted(0, 0, 5, 5), prevalence=0.2, bootstrap=100)

    assert (alone.ppv.estimate, alone.sensitivity, alone.specificity) == (None, 0.5, None)
    assert alone.ppv.undefined_reason == "all images are of one class"
    assert silent.ppv.undefined_reason == "never called positive"
    assert silent.npv.estimate == pytest.approx(0.8)


def test_the_decision_is_that_of_the_operating_point() -> None:
    point = OperatingPoint("yes", 0.05, "youden", 100, 300, 0.8, 0.7)
    predictions = replace(counted(5, 5, 5, 5), operating_point=point)

    found = predictive_values(predictions, prevalence=0.3)

    assert (found.sensitivity, found.specificity) == (1.0, 0.0)
    assert found.ppv.estimate == pytest.approx(0.3)


def test_adjusted_probabilities_are_those_of_bayes_theorem() -> None:
    """Two normal classes: the posterior at any prevalence is known in closed form."""
    x = np.linspace(-3, 3, 13)

    def posterior(share: float) -> Floats:
        ratio = np.exp(2 * x - 2) * share / (1 - share)  # means 0 and 2, variance 1
        return np.stack([1 / (1 + ratio), ratio / (1 + ratio)], axis=1)

    found = adjust_probabilities(posterior(0.5), [0.5, 0.5], [0.9, 0.1])

    np.testing.assert_allclose(found, posterior(0.1), rtol=1e-12)


def test_adjusting_to_the_same_prevalence_and_there_and_back_changes_nothing() -> None:
    probabilities = drawn(k=4).probabilities
    before, after = [0.25] * 4, [0.1, 0.2, 0.3, 0.4]

    there = adjust_probabilities(probabilities, before, after)

    np.testing.assert_allclose(adjust_probabilities(probabilities, before, before), probabilities, rtol=1e-12)
    np.testing.assert_allclose(adjust_probabilities(there, after, before), probabilities, rtol=1e-12)
    np.testing.assert_allclose(there.sum(axis=1), 1, rtol=1e-12)


@pytest.mark.parametrize(("before", "after"), [([0.5, 0.5, 0], [1, 0]), ([0, 1], [0.5, 0.5]), ([0.5, 0.5], [0.7, 0.7])])
def test_prevalences_that_are_none_are_refused(before: list[float], after: list[float]) -> None:
    with pytest.raises(ValueError, match="prevalences"):
        adjust_probabilities(np.array([[0.3, 0.7]]), before, after)


@pytest.mark.parametrize("prevalence", [0.0, 1.0, -0.1, math.nan])
def test_a_prevalence_of_0_or_1_is_refused(prevalence: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        decision_curve(drawn(), prevalence=prevalence)


def test_files_have_their_columns_and_json_has_no_nan() -> None:
    curve = decision_curve(stated([0.9, 0.2], [1, 1]), prevalence=0.2, bootstrap=100)
    values = predictive_values(counted(0, 0, 5, 5), prevalence=0.2, bootstrap=100)

    json.dumps([curve.document(), values.document()], allow_nan=False)

    assert all(len(row) == len(HEADER) for row in curve.rows())
    assert all(len(row) == len(VALUES_HEADER) for row in values.rows())
