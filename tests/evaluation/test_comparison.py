"""Comparisons of whole sets of predictions: matching, every metric's test, identical models, edges, gates."""

import math
from dataclasses import replace

import numpy as np
import pytest

from evalcam_cli.errors import DataError, UsageError
from evalcam_cli.evaluation.comparison import CompareOptions, Comparison, Difference, compare, parse_metric
from evalcam_cli.evaluation.matching import Model
from evalcam_cli.evaluation.metrics import OVERALL_METRICS, compute_metrics
from evalcam_cli.evaluation.non_inferiority import check_non_inferiority, parse_non_inferiority
from evalcam_cli.evaluation.paired import mcnemar
from evalcam_cli.evaluation.predictions import Predictions
from evalcam_cli.evaluation.stated import StatedProbabilities


def model(name: str, *, n: int = 90, k: int = 3, seed: int = 0, skill: float = 1.5, groups: int = 0) -> Model:
    """Predictions of one model; all have the same images."""
    targets = np.arange(n) % k
    logits = np.random.default_rng([seed, n, k]).normal(size=(n, k)) + skill * np.eye(k)[targets]
    patients = tuple(f"p{index // 5}" for index in range(n)) if groups else ()
    paths = tuple(f"{index}.png" for index in range(n))
    return Model(name, f"{name}.csv", Predictions(tuple("abcdefghij"[:k]), logits.astype(np.float32), targets, paths,
                                                  groups=patients))  # fmt: skip


def two(**options: int) -> list[Model]:
    return [model("A", seed=1, **options), model("B", seed=2, skill=2, **options)]


def quick(*metrics: str, **options: object) -> CompareOptions:
    quantities = tuple(parse_metric(name, "--metric") for name in metrics)
    return replace(CompareOptions(quantities, bootstrap=200, permutations=500), **options)  # type: ignore[arg-type]


def only(comparison: Comparison) -> Difference:
    ((difference,),) = [pair.differences for pair in comparison.pairs]
    return difference


def changed(one: Model, **changes: object) -> Model:
    return replace(one, predictions=replace(one.predictions, **changes))  # type: ignore[arg-type]


# what is compared


@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("groups", [0, 1])
def test_values_are_those_of_an_evaluation_and_the_difference_is_b_minus_a(k: int, paired: bool, groups: int) -> None:
    models = two(k=k, groups=groups)
    a, b = (compute_metrics(one.predictions) for one in models)

    (pair,) = compare(models, quick(paired=paired)).pairs

    assert len(pair.differences) == 6
    for one in pair.differences:
        values = a.overall[one.metric].estimate, b.overall[one.metric].estimate
        assert (one.a, one.b) == pytest.approx(values, rel=1e-12)
        assert one.estimate.estimate == pytest.approx(values[1] - values[0], abs=1e-12)  # type: ignore[operator]
        assert one.estimate.ci_low is not None
        assert one.estimate.ci_high is not None
        assert one.estimate.ci_low <= (one.estimate.estimate or 0) <= one.estimate.ci_high
        assert one.p_value is not None
        assert 0 < one.p_value <= 1


def test_every_metric_can_be_compared_or_is_refused_before_the_work() -> None:
    models = two(k=3)
    done = 0
    for name in OVERALL_METRICS:
        try:
            options = quick(name)
            found = only(compare(models, options))
        except UsageError:
            continue
        done += 1
        assert (found.p_value is None) == (found.p_reason is not None)
        assert (found.estimate.estimate is None) == (found.estimate.undefined_reason is not None)
    assert done > 25


def test_exchanging_the_models_turns_the_sign_and_keeps_p() -> None:
    a, b = two()

    one = compare([a, b], quick()).pairs[0].differences
    other = compare([replace(b, name="A"), replace(a, name="B")], quick()).pairs[0].differences

    for x, y in zip(one, other, strict=True):
        assert x.estimate.estimate == pytest.approx(-(y.estimate.estimate or 0), abs=1e-12)
        assert x.p_value == pytest.approx(y.p_value, rel=1e-9)
        assert x.estimate.ci_low == pytest.approx(-(y.estimate.ci_high or 0), abs=1e-9)
        assert x.favours == -y.favours


def test_the_order_of_images_and_classes_changes_nothing() -> None:
    a, b = two()
    shuffled = b.predictions.take(np.random.default_rng(0).permutation(90))
    order = [2, 0, 1]
    other = replace(
        shuffled, classes=("c", "a", "b"), logits=shuffled.logits[:, order], targets=np.argsort(order)[shuffled.targets]
    )

    expected, found = compare([a, b], quick()), compare([a, replace(b, predictions=other)], quick())

    assert found.pairs == expected.pairs


def test_the_same_seed_gives_the_same_comparison() -> None:
    assert compare(two(groups=1), quick()).pairs == compare(two(groups=1), quick()).pairs


def test_accuracy_and_recall_count_the_images_only_one_gets_right() -> None:
    a, b = two()
    right_a, right_b = (one.predictions.predicted == one.predictions.targets for one in (a, b))

    accuracy = only(compare([a, b], quick("accuracy")))
    recall = only(compare([a, b], quick("recall[b]")))

    own = a.predictions.targets == 1
    assert accuracy.discordant == ((right_a & ~right_b).sum(), (right_b & ~right_a).sum())
    assert recall.discordant == ((right_a & ~right_b & own).sum(), (right_b & ~right_a & own).sum())
    assert recall.estimate.n == 30
    assert accuracy.p_value == mcnemar(*accuracy.discordant)[0]


def test_stated_probabilities_are_compared_as_stated() -> None:
    a, b = two(k=2)
    stated = [
        replace(one, predictions=StatedProbabilities(
            one.predictions.classes, np.log(one.predictions.probabilities).astype(np.float32), one.predictions.targets,
            one.predictions.paths, stated=one.predictions.probabilities,
        )) for one in (a, b)
    ]  # fmt: skip

    for x, y in zip(compare([a, b], quick()).pairs[0].differences, compare(stated, quick()).pairs[0].differences,
                    strict=True):  # fmt: skip
        assert x.estimate.estimate == pytest.approx(y.estimate.estimate, abs=1e-9)


# identical models


@pytest.mark.parametrize("groups", [0, 1])
def test_identical_models_have_difference_0_and_p_1_everywhere(groups: int) -> None:
    a = model("A", groups=groups)

    found = compare([a, replace(a, name="B")], quick("accuracy", "f1_macro", "roc_auc_ovr_macro", "log_loss", "mcc",
                                                     "average_precision_macro", "recall[a]"))  # fmt: skip

    for one in found.pairs[0].differences:
        assert (one.estimate.estimate, one.estimate.ci_low, one.estimate.ci_high, one.p_value) == (0, 0, 0, 1)
        assert one.favours == 0
    assert [caution.code for caution in found.cautions if caution.code != "few_groups"] == ["identical_scores"]


def test_identical_decisions_with_other_scores_are_said() -> None:
    a = model("A")
    b = changed(replace(a, name="B"), logits=a.predictions.logits * 2)

    found = compare([a, b], quick("accuracy", "f1_macro", "log_loss"))

    accuracy, f1, loss = found.pairs[0].differences
    assert [caution.code for caution in found.cautions] == ["identical_decisions"]
    assert (accuracy.p_value, f1.p_value, f1.estimate.estimate) == (1, 1, 0)
    assert accuracy.estimate.ci_low is not None
    assert accuracy.estimate.ci_low < 0
    assert (f1.estimate.ci_low, f1.estimate.ci_note is None) == (None, False)
    assert loss.estimate.estimate != 0


# matching


def test_other_images_are_refused_with_counts_and_the_first() -> None:
    a, b = two()
    fewer = replace(b, predictions=b.predictions.take(range(2, 90)))

    with pytest.raises(DataError, match=r"2 images only in A\.csv: 0\.png, 1\.png"):
        compare([a, fewer], quick())


def test_another_truth_is_refused_with_the_first() -> None:
    a, b = two()
    targets = b.predictions.targets.copy()
    targets[[4, 7]] = (targets[[4, 7]] + 1) % 3

    with pytest.raises(DataError, match=r"2 images with another target .* the first is 4\.png, b in A\.csv and c in"):
        compare([a, changed(b, targets=targets)], quick())


def test_another_digest_of_the_same_path_is_refused() -> None:
    a, b = (changed(one, extra_columns=("sha256",), extra=(("ab",),) * 90) for one in two())

    assert compare([a, changed(b, extra=(("AB",),) * 90)], quick("accuracy"))
    with pytest.raises(DataError, match="another sha256"):
        compare([a, changed(b, extra=(("cd",), *b.predictions.extra[1:]))], quick())


def test_a_path_may_stand_once() -> None:
    a, b = two()

    with pytest.raises(DataError, match=r"several rows for 0\.png"):
        compare([a, changed(b, paths=("0.png", "0.png", *b.predictions.paths[2:]))], quick())


def test_composed_and_decomposed_accents_are_the_same_path() -> None:
    a, b = two()

    found = compare([changed(a, paths=("é.png", *a.predictions.paths[1:])),
                     changed(b, paths=("e\u0301.png", *b.predictions.paths[1:]))], quick("accuracy"))  # fmt: skip

    assert found.pairs[0].disagreements


def numbered(one: Model) -> Model:
    return changed(one, paths=tuple(f"row {index}" for index in range(2, 2 + len(one.predictions.targets))))


def test_files_without_paths_are_matched_by_row_and_this_is_said() -> None:
    a, b = map(numbered, two())

    assert [caution.code for caution in compare([a, b], quick("accuracy")).cautions] == ["matched_by_row"]
    with pytest.raises(DataError, match="90 rows"):
        compare([a, replace(b, predictions=numbered(model("B", n=60)).predictions)], quick())
    with pytest.raises(DataError, match="no column path"):
        compare([two()[0], b], quick())


def test_other_classes_are_refused_by_name() -> None:
    a, b = two()

    with pytest.raises(DataError, match=r"A\.csv has no 'x'\nB\.csv has no 'c'"):
        compare([a, changed(b, classes=("a", "b", "x"))], quick())


def test_patients_of_one_file_hold_for_both_and_must_not_contradict() -> None:
    with_groups, without = model("A", groups=1), model("B", seed=2)

    found = compare([without, replace(with_groups, name="B")], quick("accuracy"))

    assert found.groups == 18
    other = changed(replace(with_groups, name="B"), groups=("x", *with_groups.predictions.groups[1:]))
    with pytest.raises(DataError, match="another group"):
        compare([with_groups, other], quick())


# by patient, unpaired, several


def test_with_patients_every_test_is_by_patient() -> None:
    found = compare(two(groups=1), quick("accuracy", "f1_macro", "log_loss", "roc_auc_ovr_macro", "roc_auc[a]"))

    tests = [one.test for one in found.pairs[0].differences]
    assert tests == ["patient_swaps", "patient_swaps", "patient_swaps", "clustered_delong_macro", "obuchowski"]
    assert [caution.code for caution in found.cautions] == ["few_groups"]


def test_independent_sets_may_have_other_sizes_and_share_no_images() -> None:
    a, b = model("A", n=60), model("B", n=120, seed=2)
    b = changed(b, paths=tuple(f"other/{path}" for path in b.predictions.paths))

    found = compare([a, b], quick(paired=False))

    assert found.cautions == ()
    assert found.pairs[0].disagreements is None
    assert all(one.p_value is not None for one in found.pairs[0].differences)


def test_shared_images_of_unpaired_sets_are_said() -> None:
    assert [caution.code for caution in compare(two(), quick("accuracy", paired=False)).cautions] == ["shared_images"]


def test_three_models_have_holms_p_and_cochrans_q() -> None:
    models = [*two(), model("C", seed=3, skill=0.5)]

    against_first = compare(models, quick("accuracy"))
    all_pairs = compare(models, quick("accuracy", all_pairs=True))

    assert [(pair.a, pair.b) for pair in against_first.pairs] == [("A", "B"), ("A", "C")]
    assert [(pair.a, pair.b) for pair in all_pairs.pairs] == [("A", "B"), ("A", "C"), ("B", "C")]
    raw = [pair.differences[0].p_value or 0 for pair in all_pairs.pairs]
    assert [pair.differences[0].p_holm for pair in all_pairs.pairs][int(np.argmin(raw))] == pytest.approx(
        min(1, 3 * min(raw))
    )
    assert all_pairs.cochran is not None
    assert compare(two(), quick("accuracy")).cochran is None


# edges


def test_an_absent_class_is_left_out_of_averages_and_said() -> None:
    a, b = (
        replace(one, predictions=one.predictions.take(np.flatnonzero(one.predictions.targets < 2))) for one in two()
    )

    found = compare([a, b], quick("balanced_accuracy", "roc_auc_ovr_macro", "recall[c]"))

    balanced, auc, recall = found.pairs[0].differences
    assert balanced.p_value is not None
    assert auc.p_value is not None
    assert recall.estimate.undefined_reason == "no images of the class c"
    assert [caution.code for caution in found.cautions] == ["absent_class"]


def test_a_single_class_leaves_the_auc_undefined() -> None:
    a, b = (replace(one, predictions=one.predictions.take(np.flatnonzero(one.predictions.targets == 0)))
            for one in two(k=2))  # fmt: skip

    found = only(compare([a, b], quick("roc_auc")))

    assert (found.estimate.estimate, found.p_value, found.favours) == (None, None, 0)
    assert found.estimate.undefined_reason


@pytest.mark.parametrize("paired", [True, False])
def test_a_single_image_breaks_nothing(paired: bool) -> None:
    models = [replace(one, predictions=one.predictions.take([0])) for one in two()]

    for one in compare(models, quick(paired=paired)).pairs[0].differences:
        assert one.p_value is None or one.p_value == 1


def test_constant_scores_and_all_wrong_break_nothing() -> None:
    a, _ = two()
    constant = changed(replace(a, name="B"), logits=np.zeros_like(a.predictions.logits))
    wrong = changed(replace(a, name="B"), logits=-9 * np.eye(3, dtype=np.float32)[a.predictions.targets])

    for other in (constant, wrong):
        found = {one.metric: one for one in compare([a, other], quick()).pairs[0].differences}
        assert found["accuracy"].favours == -1
    wrong_too = changed(wrong, logits=wrong.predictions.logits * 2)
    both_wrong = only(compare([wrong, replace(wrong_too, name="C")], quick("accuracy")))
    assert (both_wrong.a, both_wrong.b, both_wrong.p_value) == (0, 0, 1)


def test_an_infinite_log_loss_has_no_difference_and_says_why() -> None:
    a, b = two(k=2)
    logits = b.predictions.logits.copy()
    logits[0] = (-math.inf, 0)  # the truth of the first image is class a

    found = only(compare([a, changed(b, logits=logits)], quick("log_loss")))

    assert found.estimate.estimate is None
    assert found.estimate.undefined_reason is not None
    assert found.estimate.undefined_reason.startswith("infinite for B")


@pytest.mark.parametrize("name", ["ece", "calibration_slope", "accuracy.ci_low", "worst:accuracy", "acuracy", "recall"])
def test_what_has_no_test_is_refused_by_name(name: str) -> None:
    with pytest.raises(UsageError, match="--metric"):
        parse_metric(name, "--metric x")


def test_the_auc_of_another_number_of_classes_and_unknown_classes_are_refused() -> None:
    with pytest.raises(UsageError, match="roc_auc_ovr_macro"):
        compare(two(), quick("roc_auc"))
    with pytest.raises(UsageError, match="no class 'x'"):
        compare(two(), quick("recall[x]"))
    with pytest.raises(UsageError, match="--positive"):
        compare(two(), quick(positive="a"))


def test_the_positive_class_of_two_decides_the_auc() -> None:
    models = two(k=2)

    for positive in ("a", "b"):
        found = compare(models, quick("roc_auc", positive=positive))
        expected = compute_metrics(models[0].predictions, positive=positive).overall["roc_auc"].estimate
        assert only(found).a == pytest.approx(expected, rel=1e-12)
        assert found.positive == positive


# non-inferiority


@pytest.mark.parametrize(("metric", "better"), [("accuracy", "higher"), ("log_loss", "lower")])
def test_non_inferiority_is_decided_by_the_worse_limit(metric: str, better: str) -> None:
    comparison = compare(two(), quick(metric))
    estimate = only(comparison).estimate
    limit = -(estimate.ci_low or 0) if better == "higher" else (estimate.ci_high or 0)
    a_worse = [replace(one, name=name) for one, name in zip(reversed(two()), "AB", strict=True)]
    turned = compare(a_worse, quick(metric))
    turned_limit = -(only(turned).estimate.ci_low or 0) if better == "higher" else (only(turned).estimate.ci_high or 0)

    assert limit < 0.05  # B is the better one
    assert check_non_inferiority([parse_non_inferiority(f"{metric}:0.05")], comparison)[0].passed
    for margin, passed in ((turned_limit + 1e-6, True), (turned_limit - 1e-6, False)):
        (result,) = check_non_inferiority([parse_non_inferiority(f"{metric}:{margin:.12f}")], turned)
        assert result.passed == passed
        assert result.line.startswith("passed" if passed else "FAILED")


def test_non_inferiority_without_an_interval_fails_and_says_so() -> None:
    a = model("A")
    b = changed(replace(a, name="B"), logits=a.predictions.logits * 2)

    (result,) = check_non_inferiority([parse_non_inferiority("f1_macro:0.1")], compare([a, b], quick("f1_macro")))

    assert not result.passed
    assert "cannot be shown" in result.line


@pytest.mark.parametrize("text", ["accuracy", "accuracy:", "accuracy:-0.1", "accuracy:nan", ":0.1", "ece:0.1"])
def test_what_is_no_margin_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--non-inferior"):
        parse_non_inferiority(text)


def test_a_margin_may_follow_a_class_with_a_colon() -> None:
    assert parse_non_inferiority("recall[a:b]:0.1").quantity.label == "a:b"
