"""Thresholds: what each rule chooses, and when there is nothing to choose."""

import csv
import json

import numpy as np
import pytest
from numpy.typing import NDArray

from evalcam_cli.errors import DataError, UsageError
from evalcam_cli.evaluation.operating_point import (
    OperatingPoint,
    choose_operating_point,
    parse_rule,
    point_cautions,
    point_from_document,
    shortfall_probability,
)
from tests.conftest import SHARED

Floats = NDArray[np.float64]

SCORES = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2])
ACTUAL = np.array([True, True, False, True, False, False, True, False])


def choose(rule: str, scores: Floats = SCORES, actual: NDArray[np.bool_] = ACTUAL) -> OperatingPoint:
    return choose_operating_point(scores, actual, positive="ill", rule=parse_rule(rule))


@pytest.mark.skipif(not SHARED.exists(), reason="needs the reference data")
def test_youden_on_asah_is_what_proc_finds() -> None:
    """pROC, tests/testthat/test-coords.R: S100B, TP 26, FP 14, TN 58, FN 15; it prints the midpoint 0.205 for 0.22."""
    with (SHARED / "reference/data/aSAH.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    scores = np.array([float(row["s100b"]) for row in rows])
    actual = np.array([row["outcome"] == "Poor" for row in rows])

    point = choose("youden", scores, actual)

    assert (point.positives, point.negatives) == (41, 72)
    assert point.sensitivity == 26 / 41
    assert point.specificity == 58 / 72
    assert point.threshold == 0.22
    assert max(score for score in scores if score < 0.22) == pytest.approx(2 * 0.205 - 0.22)


@pytest.mark.parametrize("seed", range(30))
def test_every_rule_agrees_with_scikit_learn_s_curve(seed: int) -> None:
    from sklearn.metrics import roc_curve

    generator = np.random.default_rng(seed)
    actual = generator.random(int(generator.integers(6, 60))) < generator.uniform(0.2, 0.8)
    actual[:2] = True, False
    scores = generator.normal(actual * 1.0).round(int(generator.integers(0, 3)))  # with ties
    scores = (1 + np.tanh(scores)) / 2
    fpr, tpr, thresholds = roc_curve(actual, scores, drop_intermediate=False)
    real = slice(1, None)  # the first is "nobody"

    for share in (0.5, 0.8, 0.95, 1.0):
        assert choose(f"sensitivity={share}", scores, actual).threshold == thresholds[real][tpr[real] >= share].max()
        met = thresholds[real][1 - fpr[real] >= share - 1e-12]
        if len(met):
            assert choose(f"specificity={share}", scores, actual).threshold == met.min()
        else:
            with pytest.raises(DataError, match="best attainable"):
                choose(f"specificity={share}", scores, actual)
    if (tpr - fpr).max() > 1e-12:
        point = choose("youden", scores, actual)
        assert point.sensitivity + point.specificity - 1 == pytest.approx((tpr - fpr).max())
        assert point.threshold == thresholds[(tpr - fpr) >= (tpr - fpr).max() - 1e-12].max()


@pytest.mark.parametrize(
    ("rule", "threshold", "sensitivity", "specificity"),
    [
        ("youden", 0.8, 0.5, 1.0),  # J = 0.5 at 0.8 and at 0.6 alike: the higher one
        ("sensitivity>=0.75", 0.6, 0.75, 0.75),
        ("sensitivity>=0.76", 0.3, 1.0, 0.25),
        ("specificity>=1", 0.8, 0.5, 1.0),
        ("specificity>=0.75", 0.6, 0.75, 0.75),
        ("cost 1:1", 0.5, 0.75, 0.5),
        ("cost 1:4", 0.2, 1.0, 0.0),
        ("cost 3:1", 0.75, 0.5, 1.0),
    ],
)
def test_rules_on_a_case_worked_out_by_hand(
    rule: str, threshold: float, sensitivity: float, specificity: float
) -> None:
    point = choose(rule)

    assert (point.threshold, point.sensitivity, point.specificity) == (threshold, sensitivity, specificity)
    assert (point.positive, point.rule, point.positives, point.negatives) == ("ill", rule, 4, 4)


def test_the_cost_rule_is_the_cheapest_threshold_of_calibrated_probabilities() -> None:
    generator = np.random.default_rng(0)
    scores = generator.uniform(size=200_000)
    actual = generator.random(200_000) < scores

    def cost(threshold: float) -> int:
        called = scores >= threshold
        return int((called & ~actual).sum()) + 5 * int((~called & actual).sum())

    point = choose("cost=1:5", scores, actual)

    assert point.threshold == 1 / 6
    assert cost(point.threshold) < min(cost(0.12), cost(0.22), cost(0.5))


def test_a_share_of_counts_is_compared_without_rounding_errors() -> None:
    for n in (10, 20, 30, 70, 100, 1000):
        for k in range(1, n + 1):
            scores = np.linspace(1, 0.01, n)
            point = choose(f"sensitivity={k / n!r}", np.append(scores, 0.5), np.append(np.ones(n, bool), False))

            assert point.threshold == scores[k - 1]


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("youden", "youden"),
        (" Youden ", "youden"),
        ("sensitivity>=0.95", "sensitivity>=0.95"),
        ("sensitivity=0.95", "sensitivity>=0.95"),
        ("sensitivity >= 0.95", "sensitivity>=0.95"),
        ("specificity=.9", "specificity>=.9"),
        ("cost 1:5", "cost 1:5"),
        ("cost=1:5", "cost 1:5"),
        ("cost 1 : 5", "cost 1:5"),
    ],
)
def test_a_rule_may_be_written_with_and_without_quotes(typed: str, meant: str) -> None:
    assert parse_rule(typed).text == meant
    assert parse_rule(parse_rule(typed).text) == parse_rule(typed)


@pytest.mark.parametrize(
    ("typed", "problem"),
    [
        ("", "unknown operating point"),
        ("yuden", "did you mean 'youden'"),
        ("youden=0.5", "unknown operating point"),
        ("f1", "expected youden"),
        ("sensitivity", "the shell took"),
        ("sensitivity>=95", "a share above 0"),
        ("sensitivity>=0", "a share above 0"),
        ("specificity>=nan", "a share above 0"),
        ("specificity<=0.9", "unknown operating point|a share"),
        ("sensitivity>=0.9%", "a share above 0"),
        ("cost", "such as cost=1:5"),
        ("cost=0:5", "above 0"),
        ("cost=1:-5", "above 0"),
        ("cost=1:2:3", "such as cost=1:5"),
        ("cost=inf:1", "above 0"),
    ],
)
def test_a_rule_that_cannot_be_read_is_a_matter_of_usage(typed: str, problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        parse_rule(typed)


def test_a_rule_that_cannot_be_met_names_the_best_attainable() -> None:
    actual = np.array([False, True, True, False])

    with pytest.raises(DataError, match=r"best attainable specificity is 0.500 \(1 of 2\), at p >= 0.9"):
        choose("specificity>=0.9", np.array([0.9, 0.8, 0.7, 0.1]), actual)
    with pytest.raises(DataError, match=r"some have the probability 0.*sensitivity is 0.500"):
        choose("sensitivity>=0.9", np.array([0.9, 0.8, 0.0, 0.1]), actual)
    with pytest.raises(DataError, match="no threshold is better"):
        choose("youden", np.array([0.5, 0.5, 0.5, 0.5]), actual)
    with pytest.raises(DataError, match="no threshold is better"):
        choose("youden", np.array([0.9, 0.4, 0.3, 0.8]), actual)


def test_one_side_without_images_is_refused() -> None:
    for actual, words in ((np.zeros(8, bool), "no validation images of ill"), (np.ones(8, bool), "other than ill")):
        with pytest.raises(DataError, match=words):
            choose("youden", SCORES, actual)


def test_the_chance_of_a_missed_target_is_what_simulation_finds() -> None:
    """evaluation.md, 1.7: with 20 positives, a threshold for 95 % is truly below 90 % sensitive 39 % of the time."""
    generator = np.random.default_rng(1)
    rule, missed, runs = parse_rule("sensitivity>=0.95"), 0, 4000
    for _ in range(runs):
        positives = generator.uniform(size=20)
        point = choose_operating_point(
            np.append(positives, 0.5), np.append(np.ones(20, bool), False), positive="ill", rule=rule
        )
        missed += 1 - point.threshold < 0.9

    assert shortfall_probability(20, 0.95, 0.9) == pytest.approx(0.3917, abs=1e-4)
    assert missed / runs == pytest.approx(0.3917, abs=0.03)


def test_few_images_behind_a_threshold_are_warned_about() -> None:
    def codes(positives: int, negatives: int, rule: str) -> list[str]:
        point = OperatingPoint("ill", 0.5, rule, positives, negatives, 0.95, 0.8)
        return [f"{caution.code}: {caution.message}" for caution in point_cautions(point, parse_rule(rule))]

    assert codes(50, 50, "youden") == []
    assert codes(20, 60, "sensitivity>=0.95") == [
        "few_validation_images: the threshold rests on 20 validation positives: with 20 images, a threshold chosen for "
        "sensitivity>=0.95 is truly below 0.9 39% of the time"
    ]
    assert "49 validation negatives" in codes(60, 49, "specificity>=0.9")[0]
    assert "matter of luck" in codes(10, 10, "youden")[0]


def test_a_point_that_is_no_better_than_chance_is_warned_about() -> None:
    scores, actual = np.linspace(0.9, 0.1, 120), np.arange(120) >= 60  # the wrong way round

    point = choose("sensitivity>=0.9", scores, actual)

    assert [caution.code for caution in point_cautions(point, parse_rule("sensitivity>=0.9"))] == [
        "useless_operating_point"
    ]


POINT = OperatingPoint("ill", 0.25, "youden", 50, 60, 0.9, 0.75)


def test_a_point_survives_a_file() -> None:
    document = json.loads(json.dumps(POINT.to_dict()))

    assert point_from_document(document, ("well", "ill")) == POINT


@pytest.mark.parametrize(
    "change",
    [
        {"positive": "other"},
        {"positive": 1},
        {"threshold": 0.0},
        {"threshold": 1.5},
        {"threshold": float("nan")},
        {"threshold": "0.5"},
        {"threshold": True},
        {"rule": None},
        {"positives": 0},
        {"negatives": 1.5},
        {"negatives": True},
        {"sensitivity": -0.1},
        {"specificity": None},
        {"more": 1},
    ],
)
def test_a_point_that_makes_no_sense_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="operating point"):
        point_from_document(POINT.to_dict() | change, ("well", "ill"))


def test_a_point_that_is_no_map_is_refused() -> None:
    documents: list[object] = [[], "youden", None, {}]
    for document in documents:
        with pytest.raises(ValueError, match="operating point"):
            point_from_document(document, ("well", "ill"))
