"""Prediction sets: a case by hand, an independent implementation, and the coverage that the theorem promises."""

import json
import math
import time
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from evalcam_cli.evaluation.conformal import (
    HEADER,
    SIZE_HEADER,
    ConformalResult,
    apply_conformal,
    fit_conformal,
    prediction_sets,
)
from evalcam_cli.evaluation.intervals import wilson_interval
from evalcam_cli.evaluation.operating_point import OperatingPoint
from evalcam_cli.evaluation.predictions import Predictions
from evalcam_cli.evaluation.stated import StatedProbabilities

Floats = NDArray[np.float64]


def stated(rows: list[list[float]], targets: list[int], groups: tuple[str, ...] = ()) -> StatedProbabilities:
    table = np.array(rows)
    with np.errstate(divide="ignore"):
        logits = np.log(table).astype(np.float32)
    classes = tuple("abcdef"[: table.shape[1]])
    paths = tuple(map(str, range(len(rows))))
    return StatedProbabilities(classes, logits, np.array(targets), paths, groups=groups, stated=table)


def drawn(n: int = 200, seed: int = 0, k: int = 5, **more: object) -> Predictions:
    generator = np.random.default_rng(seed)
    targets = generator.integers(0, k, n)
    logits = generator.normal(size=(n, k)).astype(np.float32)
    logits[np.arange(n), targets] += 1.5
    classes = tuple(map(str, range(k)))
    return Predictions(classes, logits, targets, tuple(map(str, range(n))), **more)  # type: ignore[arg-type]


def independently(validation: Floats, truth: NDArray[np.int64], test: Floats, alpha: float) -> NDArray[np.bool_]:
    """Split-conformal LAC in the words of its definition; the quantile by numpy."""
    n = len(truth)
    scores = 1 - validation[np.arange(n), truth]
    level = math.ceil(round((n + 1) * (1 - alpha), 9)) / n
    q = np.inf if level > 1 else np.quantile(scores, level, method="inverted_cdf")
    return np.asarray(1 - test <= q + 1e-12)


def codes(result: ConformalResult) -> list[str]:
    return [caution.code for caution in result.cautions]


def four(alpha: float = 0.4) -> ConformalResult:
    """Validation .9, .8, .6, .3 for the true class: at α = .4 the third of 5 · .6 = 3, so classes with p ≥ .6."""
    validation = stated([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6], [0.7, 0.3]], [0, 0, 1, 1])
    test = stated([[0.95, 0.05], [0.55, 0.45], [0.4, 0.6], [0.1, 0.9]], [0, 0, 1, 0])
    return apply_conformal(fit_conformal(validation, alpha, also_used_for=()), test)


def test_four_images_worked_out_by_hand() -> None:
    found = four()

    assert found.rule.threshold == 0.6
    assert found.rule.quantile == pytest.approx(0.4)
    assert found.coverage.estimate == 0.5  # the first and the third; the second's set is empty, the fourth's is {b}
    assert found.sizes == {0: 1, 1: 3}
    assert found.empty == 1
    assert found.mean_size.estimate == 0.75
    assert found.by_class["a"].estimate == pytest.approx(1 / 3)
    assert found.by_class["b"].estimate == 1.0
    assert codes(found) == ["conformal_empty_sets"]


def test_too_few_validation_images_give_sets_of_all_classes_and_say_so() -> None:
    """At α = .1 nine images are needed: 4 < 1/α - 1 = 9."""
    found = four(0.1)

    assert found.rule.quantile is None
    assert found.sizes == {2: 4}
    assert found.coverage.estimate == 1.0
    assert "conformal_too_few" in codes(found)
    assert "needs at least 9 validation images" in found.cautions[0].message


@pytest.mark.parametrize(
    ("n", "alpha", "rank"), [(9, 0.1, 9), (8, 0.1, 9), (19, 0.05, 19), (99, 0.01, 99), (10, 0.3, 8)]
)
def test_the_rank_is_exact_where_floating_point_is_not(n: int, alpha: float, rank: int) -> None:
    rule = fit_conformal(drawn(n), alpha)

    assert rule.rank == rank
    assert (rule.quantile is None) == (rank > n)


@pytest.mark.parametrize("alpha", [0.01, 0.1, 0.25, 0.5])
@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_sets_equal_those_of_an_independent_implementation(alpha: float, temperature: float) -> None:
    validation, test = drawn(150, 1, temperature=temperature), drawn(300, 2, temperature=temperature)
    wanted = independently(validation.probabilities, validation.targets, test.probabilities, alpha)

    found = np.concatenate(list(prediction_sets(fit_conformal(validation, alpha), test)))

    np.testing.assert_array_equal(found, wanted)


def test_coverage_is_what_the_theorem_promises_on_average() -> None:
    """At n = 49 and α = .1 the mean coverage is k/(n+1) = 45/50 = .9 exactly; 300 pairs of sets."""
    covered = [
        apply_conformal(fit_conformal(drawn(49, seed), 0.1), drawn(100, 10_000 + seed)).coverage.estimate or 0.0
        for seed in range(300)
    ]

    assert np.mean(covered) == pytest.approx(0.9, abs=4 * float(np.std(covered)) / math.sqrt(300))
    assert np.std(covered) < 0.06


def test_the_coverage_of_a_rule_varies_as_the_beta_distribution_says() -> None:
    test = drawn(5_000, 99)
    rules = [fit_conformal(drawn(60, seed), 0.1) for seed in range(200)]
    expected = rules[0].expected
    assert expected is not None

    covered = np.array([apply_conformal(rule, test).coverage.estimate for rule in rules], dtype=np.float64)

    assert np.mean((covered >= expected[0]) & (covered <= expected[1])) >= 0.9


def test_a_stricter_rate_only_adds_classes() -> None:
    validation, test = drawn(200, 1), drawn(100, 2)

    loose, strict = (np.concatenate(list(prediction_sets(fit_conformal(validation, a), test))) for a in (0.2, 0.05))

    assert (strict >= loose).all()
    assert strict.sum() > loose.sum()


def test_coverage_has_wilsons_interval_and_that_of_each_class_its_own() -> None:
    result = apply_conformal(fit_conformal(drawn(100, 1), 0.1), drawn(200, 2))

    one = wilson_interval(sum(result.covered.values()), 200)
    assert (result.coverage.ci_low, result.coverage.ci_high, result.coverage.ci_method) == (one.low, one.high, "wilson")
    weights = [estimate.n or 0 for estimate in result.by_class.values()]
    values = [estimate.estimate or 0.0 for estimate in result.by_class.values()]
    assert np.average(values, weights=weights) == pytest.approx(result.coverage.estimate)


def test_with_patients_the_interval_is_clustered_and_exchangeability_is_talked_about() -> None:
    single = drawn(60, 2)
    tenfold = replace(single.take(np.repeat(np.arange(60), 10)), groups=tuple(str(i // 10) for i in range(600)))
    rule = fit_conformal(drawn(100, 1), 0.1)

    one, other = apply_conformal(rule, single, bootstrap=200), apply_conformal(rule, tenfold, bootstrap=200)

    assert other.coverage.ci_method == "clustered_wilson"
    assert float(other.coverage.ci_low or 0) == pytest.approx(float(one.coverage.ci_low or 0), abs=0.02)
    assert (other.mean_size.ci_low, other.mean_size.ci_high) == pytest.approx(
        (one.mean_size.ci_low, one.mean_size.ci_high)
    )
    assert "conformal_groups" in codes(other)
    assert "conformal_groups" not in codes(one)


def test_what_else_the_validation_images_were_used_for_is_said() -> None:
    point = OperatingPoint("b", 0.3, "youden", 10, 30, 0.8, 0.7)
    validation = replace(stated([[0.9, 0.1]] * 30, [0] * 30), temperature=1.5, operating_point=point)

    rule = fit_conformal(validation, 0.1)

    assert rule.also_used_for == ("the choice of the epoch", "the temperature", "the operating point")
    assert "conformal_reuse" in codes(apply_conformal(rule, validation))


def test_a_class_without_images_has_no_coverage_and_a_reason() -> None:
    test = stated([[0.9, 0.05, 0.05], [0.1, 0.8, 0.1]], [0, 1])

    found = apply_conformal(fit_conformal(test, 0.5), test)

    assert found.by_class["c"].estimate is None
    assert found.by_class["c"].undefined_reason == "no images of this class"


@pytest.mark.parametrize("alpha", [0.0, 1.0, -1.0, math.nan])
def test_a_rate_of_0_or_1_is_refused(alpha: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        fit_conformal(drawn(), alpha)


def test_predictions_of_other_classes_or_temperature_are_refused() -> None:
    rule = fit_conformal(drawn(), 0.1)

    for other in (drawn(k=4), drawn(temperature=2.0)):
        with pytest.raises(ValueError, match="other classes, or for probabilities at another temperature"):
            apply_conformal(rule, other)


def test_files_have_their_columns_and_json_has_no_nan() -> None:
    found = four(0.1)

    document = json.loads(json.dumps(found.document(), allow_nan=False))

    assert document["rule"]["quantile"] is None
    assert document["set_sizes"] == {"2": 4}
    assert all(len(row) == len(HEADER) for row in found.rows())
    assert all(len(row) == len(SIZE_HEADER) for row in found.size_rows())


def test_20_000_images_of_500_classes_take_seconds_and_no_second_copy_of_the_logits() -> None:
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(20_000, 500)).astype(np.float32)  # 40 MB; its probabilities would be 80 MB
    predictions = Predictions(tuple(map(str, range(500))), logits, generator.integers(0, 500, 20_000), ())
    start = time.process_time()
    tracemalloc.start()

    apply_conformal(fit_conformal(predictions, 0.1), predictions)

    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 75_000_000
    assert time.process_time() - start < 10
