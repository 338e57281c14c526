"""Metrics per scanner, sex or site: those of the images alone, suppressed when few, tested against the rest."""

import json
from collections.abc import Sequence

import numpy as np
import pytest
import scipy.special

from evalcam_cli.errors import UsageError
from evalcam_cli.evaluation.gates import check_gates, parse_gate
from evalcam_cli.evaluation.metrics import compute_metrics
from evalcam_cli.evaluation.operating_point import OperatingPoint
from evalcam_cli.evaluation.predictions import Predictions
from evalcam_cli.evaluation.slices import HEADER, ImageSlice, slice_metrics


def sample(values: Sequence[str], k: int = 2, seed: int = 0, **more: object) -> Predictions:
    """One image per value of the column `site`."""
    generator = np.random.default_rng(seed)
    n = len(values)
    targets = generator.integers(0, k, n)
    logits = generator.normal(size=(n, k)).astype(np.float32)
    logits[np.arange(n), targets] += 1
    classes, paths, extra = tuple("abcdef"[:k]), tuple(map(str, range(n))), tuple((value,) for value in values)
    return Predictions(classes, logits, targets, paths, extra_columns=("site",), extra=extra, **more)  # type: ignore[arg-type]


def decided(right: dict[str, tuple[int, int]], **more: object) -> Predictions:
    """Per site so many images right and wrong; half of them of each class, as far as possible."""
    sites, hits = [], []
    for site, (good, bad) in right.items():
        sites += [site] * (good + bad)
        hits += [True] * good + [False] * bad
    targets = np.arange(len(hits)) % 2
    predicted = np.where(hits, targets, 1 - targets)
    logits = np.where(np.arange(2) == predicted[:, None], 1.0, -1.0).astype(np.float32)
    extra = tuple((site,) for site in sites)
    paths = tuple(map(str, range(len(hits))))
    return Predictions(("a", "b"), logits, targets, paths, extra_columns=("site",), extra=extra, **more)  # type: ignore[arg-type]


def by_site(predictions: Predictions, bootstrap: int | None = 100) -> dict[str, ImageSlice]:
    whole = compute_metrics(predictions, bootstrap=bootstrap)
    return {one.value: one for one in slice_metrics(predictions, "site", whole)}


def fisher(right: int, wrong: int, other_right: int, other_wrong: int) -> float:
    """Two-sided: the chance, given the margins, of all tables that are no more likely than this one."""

    def chance(k: int) -> float:
        n, m = right + wrong, other_right + other_wrong
        hits = right + other_right
        ways = scipy.special.binom(n, k) * scipy.special.binom(m, hits - k)
        return float(ways / scipy.special.binom(n + m, hits))

    tables = range(max(0, right + other_right - other_right - other_wrong), min(right + wrong, right + other_right) + 1)
    return sum(chance(k) for k in tables if chance(k) <= chance(right) * (1 + 1e-9))


@pytest.mark.parametrize("k", [2, 4])
def test_a_slice_has_the_metrics_of_its_images_alone(k: int) -> None:
    predictions = sample(["north", "south", "west"] * 40, k)

    found = by_site(predictions)["south"]

    alone = compute_metrics(predictions.take(range(1, 120, 3)), bootstrap=100)
    assert found.metrics is not None
    assert found.n == 40
    assert found.metrics["accuracy"] == alone.overall["accuracy"]
    assert found.metrics["log_loss"] == alone.overall["log_loss"]
    assert found.metrics["recall[a]"] == alone.per_class["a"].estimates["recall"]
    assert ("roc_auc" in found.metrics) == (k == 2)
    assert found.prevalence == ((predictions.targets[1::3] == 1).mean() if k == 2 else None)


def test_slices_share_out_all_images_and_their_hits() -> None:
    predictions = sample([["x", "y", ""][i * i % 3] for i in range(200)])

    found = by_site(predictions)

    assert sum(one.n for one in found.values()) == 200
    assert sum(one.share for one in found.values()) == pytest.approx(1)
    hits = sum((one.metrics["accuracy"].estimate or 0) * one.n for one in found.values() if one.metrics)
    assert hits == pytest.approx((predictions.predicted == predictions.targets).sum())


def test_a_slice_of_nineteen_is_suppressed_and_one_of_twenty_is_not() -> None:
    found = by_site(sample(["small"] * 19 + ["large"] * 20))

    assert found["small"].metrics is None
    assert found["small"].suppressed_reason == "fewer than 20 images"
    assert (found["small"].prevalence, found["small"].p_value, found["small"].p_holm) == (None, None, None)
    assert found["large"].metrics is not None
    assert found["large"].suppressed_reason is None


def test_nothing_of_the_labels_of_a_suppressed_slice_is_written() -> None:
    """One image of a site: its share of the positive class would be its label."""
    found = by_site(sample(["alone"] + ["rest"] * 30))["alone"]

    rows = list(found.rows())

    assert len(rows) == 1
    assert dict(zip(HEADER, rows[0], strict=True)) == {
        **dict.fromkeys(HEADER),
        **{"column": "site", "value": "alone", "n": 1, "share": 1 / 31, "undefined_reason": "fewer than 20 images"},
    }
    assert found.document()["prevalence"] is None


def test_images_without_a_value_are_a_slice_of_their_own() -> None:
    assert set(by_site(sample(["x"] * 25 + [""] * 25))) == {"x", "(missing)"}


def test_a_slice_of_one_class_has_an_accuracy_and_no_auc() -> None:
    predictions = sample(["x"] * 60)
    of_class = ["only a" if target == 0 else "only b" for target in predictions.targets]
    extra = tuple((value,) for value in of_class)
    sliced = Predictions(("a", "b"), predictions.logits, predictions.targets, predictions.paths,
                         extra_columns=("site",), extra=extra)  # fmt: skip

    found = by_site(sliced)["only a"]

    assert found.metrics is not None
    assert found.metrics["accuracy"].estimate is not None
    assert found.metrics["roc_auc"].estimate is None
    assert found.metrics["roc_auc"].undefined_reason == "only one class has images"
    assert found.prevalence == 0


def test_the_test_against_the_rest_is_fishers_worked_out() -> None:
    found = by_site(decided({"x": (15, 10), "y": (28, 2), "z": (20, 5)}))

    assert found["x"].p_value == pytest.approx(fisher(15, 10, 48, 7), rel=1e-9)
    assert found["y"].p_value == pytest.approx(fisher(28, 2, 35, 15), rel=1e-9)


def test_p_values_of_three_slices_are_adjusted_as_holm_says() -> None:
    found = by_site(decided({"x": (15, 10), "y": (28, 2), "z": (20, 5)}))

    raw = sorted(one.p_value for one in found.values() if one.p_value is not None)
    wanted = [min(1, 3 * raw[0]), 0.0, 0.0]
    wanted[1] = max(wanted[0], min(1, 2 * raw[1]))
    wanted[2] = max(wanted[1], raw[2])
    assert sorted(one.p_holm for one in found.values() if one.p_holm is not None) == pytest.approx(wanted)


def test_two_slices_are_one_hypothesis_so_nothing_is_adjusted() -> None:
    found = by_site(decided({"f": (15, 10), "m": (28, 2)}))

    p_values = [p for one in found.values() for p in (one.p_value, one.p_holm)]
    assert p_values == pytest.approx([fisher(15, 10, 28, 2)] * 4, rel=1e-9)


def test_a_suppressed_slice_counts_among_the_rest_but_not_among_the_tests() -> None:
    found = by_site(decided({"x": (15, 10), "y": (28, 2), "few": (1, 9)}))

    assert found["few"].p_value is None
    assert found["x"].p_value == pytest.approx(fisher(15, 10, 29, 11), rel=1e-9)
    small, large = sorted((found["x"], found["y"]), key=lambda one: one.p_value or 0)
    assert small.p_holm == pytest.approx(min(1, 2 * (small.p_value or 0)))
    assert large.p_holm == pytest.approx(max(small.p_holm or 0, large.p_value or 0))


def test_a_column_with_one_value_has_nothing_to_differ_from() -> None:
    found = by_site(sample(["x"] * 30))["x"]

    assert (found.p_value, found.p_holm, found.share) == (None, None, 1)


def test_with_patients_intervals_are_clustered_and_there_is_no_p() -> None:
    groups = tuple(str(index // 4) for index in range(120))

    found = by_site(sample(["x"] * 60 + ["y"] * 60, groups=groups))["x"]

    assert found.p_value is None
    assert found.metrics is not None
    assert found.metrics["accuracy"].ci_method == "clustered_wilson"


def test_set_and_group_are_columns_too() -> None:
    predictions = sample(["x"] * 60, subsets=("val",) * 25 + ("test",) * 35, groups=("p",) * 30 + ("q",) * 30)
    whole = compute_metrics(predictions)

    assert [one.n for one in slice_metrics(predictions, "subset", whole)] == [35, 25]  # test, val
    assert [one.n for one in slice_metrics(predictions, "group", whole)] == [30, 30]


def test_an_unknown_column_is_refused_with_those_there_are() -> None:
    predictions = sample(["x"] * 30)

    with pytest.raises(UsageError, match=r"no such column.*site") as caught:
        slice_metrics(predictions, "sites", compute_metrics(predictions))

    assert "did you mean" in str(caught.value)


def test_predictions_without_columns_say_so() -> None:
    predictions = Predictions(("a", "b"), np.zeros((3, 2), np.float32), np.array([0, 1, 0]), ("1", "2", "3"))

    with pytest.raises(UsageError, match="there is none"):
        slice_metrics(predictions, "sex", compute_metrics(predictions))


def test_a_measurement_is_no_column_to_slice_by() -> None:
    fifty, more = (sample([str(index % count) for index in range(200)]) for count in (50, 51))

    assert len(by_site(fifty)) == 50
    with pytest.raises(UsageError, match="51 values; at most 50"):
        by_site(more)


def test_the_operating_point_is_applied_in_slices() -> None:
    point = OperatingPoint("b", 0.2, "youden", 50, 50, 0.9, 0.9)
    predictions = sample(["x", "y"] * 40, operating_point=point)

    found = by_site(predictions)["x"]

    part = predictions.take(range(0, 80, 2))
    called, truth = part.probability_of(1) >= 0.2, part.targets == 1
    assert found.metrics is not None
    assert found.metrics["recall@op"].estimate == pytest.approx(called[truth].mean())
    assert found.metrics["accuracy"].estimate == pytest.approx((called == truth).mean())


def test_gates_read_the_worst_slice_and_a_named_one() -> None:
    predictions = decided({"x": (15, 10), "y": (28, 2), "z": (20, 5)})
    whole = compute_metrics(predictions, bootstrap=100)
    gates = [parse_gate("worst:accuracy=0.7", "under"), parse_gate("accuracy{site=y}=0.9", "under")]

    worst, named = check_gates(gates, whole, slices=slice_metrics(predictions, "site", whole))

    assert (worst.passed, worst.value) == (False, 0.6)
    assert named.passed
    assert named.value == pytest.approx(28 / 30)


def test_files_have_their_columns_and_json_has_no_nan() -> None:
    found = by_site(sample(["x"] * 30 + ["y"] * 5, k=3)).values()

    json.dumps([one.document() for one in found], allow_nan=False)

    assert all(len(row) == len(HEADER) for one in found for row in one.rows())
    tested = [row for one in found for row in one.rows() if row[-3] is not None]
    assert {row[HEADER.index("metric")] for row in tested} == {"accuracy"}
