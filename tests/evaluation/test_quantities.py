"""Names of numbers: what they mean, what a metric can be, and what is refused with which advice."""

import math
import unicodedata
from dataclasses import FrozenInstanceError, dataclass, replace
from typing import get_args

import numpy as np
import pytest

from evalcam_cli.errors import UsageError
from evalcam_cli.evaluation.estimates import Estimate
from evalcam_cli.evaluation.metrics import CLASS_METRICS, OVERALL_METRICS, Metrics, compute_metrics
from evalcam_cli.evaluation.quantities import (
    Better,
    Part,
    Quantity,
    Range,
    look_up,
    parse_quantity,
    range_of,
    refuse_unknown,
    same_name,
    why_none,
)
from tests.evaluation.degenerate_cases import decided

E_ACUTE, DECOMPOSED = "é", unicodedata.normalize("NFD", "é")
UNBOUNDED = {
    "log_loss": (0, math.inf),
    "lr_positive": (0, math.inf),
    "lr_negative": (0, math.inf),
    "calibration_slope": (-math.inf, math.inf),
    "calibration_intercept": (-math.inf, math.inf),
}
BOUNDS = {**UNBOUNDED, "brier": (0, 2), "mcc": (-1, 1), "cohen_kappa": (-1, 1)}
"""Of metrics that are no fractions from 0 to 1."""
LOWER = {"log_loss", "brier", "ece", "ece_equal_mass", "mce", "lr_negative", "lr_negative@op"}
NEITHER = {"no_information_rate", "ece_expected_if_calibrated", "calibration_slope", "calibration_intercept"}


@dataclass(frozen=True)
class Asked:
    """A demand as a user wrote it."""

    quantity: Quantity
    text: str = "TEXT"
    demand: str = "TEXT"

    def met_by(self, value: float) -> bool:
        return value > 0


def metrics(k: int = 3) -> Metrics:
    return compute_metrics(decided([0, 0, 1, 1], [0, 1, 1, 1], k))


def refused(text: str) -> str:
    with pytest.raises(UsageError) as caught:
        parse_quantity(text, "--gate")
    return str(caught.value)


@pytest.mark.parametrize("name", [*OVERALL_METRICS, *CLASS_METRICS])
def test_every_metric_has_the_bounds_of_its_definition(name: str) -> None:
    low, high, better = range_of(name)

    assert (low, high) == BOUNDS.get(name.removesuffix("@op"), (0, 1))
    assert better == ("lower" if name in LOWER else None if name in NEITHER else "higher")


def test_the_best_of_a_range_is_high_except_for_losses_errors_and_the_negative_likelihood_ratio() -> None:
    assert range_of("accuracy") == Range(0, 1, "higher")
    assert range_of("mcc") == Range(-1, 1, "higher")
    assert range_of("cohen_kappa") == Range(-1, 1, "higher")
    assert range_of("lr_positive@op") == Range(0, math.inf, "higher")
    assert range_of("lr_negative@op") == Range(0, math.inf, "lower")
    assert get_args(Better) == ("higher", "lower")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("accuracy", Quantity("accuracy", None, "estimate", None, False)),
        (" accuracy ", Quantity("accuracy")),
        ("accuracy.estimate", Quantity("accuracy")),
        ("recall[cat]", Quantity("recall", label="cat")),
        ("recall[a]b].ci_low", Quantity("recall", label="a]b", part="ci_low")),
        ("recall@op.ci_high", Quantity("recall@op", part="ci_high")),
        ("accuracy{site=A}", Quantity("accuracy", scope="site=A")),
        ("f1[a]{site=A=B}.ci_low", Quantity("f1", "a", "ci_low", "site=A=B")),
        ("worst:accuracy", Quantity("accuracy", worst=True)),
        ("worst:npv[a]{site}.ci_low", Quantity("npv", "a", "ci_low", "site", worst=True)),
        ("recall[a\nb]", Quantity("recall", label="a\nb")),
    ],
)
def test_a_name_is_read_and_written_back(text: str, wanted: Quantity) -> None:
    found = parse_quantity(text, "--gate")

    assert found == wanted
    assert found.text == text.strip().removesuffix(".estimate")


def test_a_number_is_of_all_images_and_itself_unless_said_otherwise() -> None:
    found = Quantity("accuracy")

    assert (found.label, found.part, found.scope, found.worst, found.sliced) == (None, "estimate", None, False, False)
    assert (found.name, Quantity("recall", "cat").name) == ("accuracy", "recall[cat]")
    assert Quantity("accuracy", worst=True).sliced
    assert Quantity("accuracy", scope="sex=F").sliced
    assert get_args(Part) == ("estimate", "ci_low", "ci_high")


@pytest.mark.parametrize(
    ("word", "metric"),
    [
        ("sensitivity", "recall"), ("tpr", "recall"), ("hit_rate", "recall"), ("ppv", "precision"),
        ("tnr", "specificity"), ("ap", "average_precision"), ("auc", "roc_auc"), ("auroc", "roc_auc"),
        ("rocauc", "roc_auc"), ("TNR", "specificity"), ("AUC", "roc_auc"), ("RocAUC", "roc_auc"),
    ],
)  # fmt: skip
def test_another_word_for_a_metric_of_a_class_is_understood_in_the_refusal(word: str, metric: str) -> None:
    told = refused(f"{word}[cat]")

    assert told.startswith(f"--gate: no metric '{word}' per class; did you mean '{metric}'?\n")
    assert told.endswith("there are " + ", ".join(CLASS_METRICS))


@pytest.mark.parametrize(
    ("word", "metric"),
    [("kappa", "cohen_kappa"), ("acc", "accuracy"), ("auc", "roc_auc"), ("ppv", "precision"), ("acc@op", "accuracy@op"),
     ("tnr@op", "specificity@op"), ("Kappa", "cohen_kappa"), ("RocAUC", "roc_auc"), ("ACC", "accuracy")],
)  # fmt: skip
def test_another_word_for_a_metric_is_understood_in_the_refusal(word: str, metric: str) -> None:
    assert refused(word).startswith(f"--gate: no metric '{word}'; did you mean '{metric}'?\nthere are accuracy, ")


def test_a_word_like_nothing_is_answered_with_the_main_metrics_and_how_many_more_there_are() -> None:
    assert refused("zzz").endswith(
        "no metric 'zzz'\nthere are accuracy, balanced_accuracy, precision_macro, recall_macro, specificity_macro, "
        "f1_macro, roc_auc, roc_auc_ovr_macro, average_precision_macro, log_loss, brier, ece, mcc, cohen_kappa and "
        f"{len(OVERALL_METRICS) - 14} more, all in metrics.json"
    )
    assert "did you mean" not in refused("zzz[cat]")
    assert "did you mean" not in refused("accurac[cat]")  # accuracy is no metric of a class


def test_a_metric_of_a_class_needs_one_and_its_macro_average_is_offered_where_there_is_one() -> None:
    assert refused("recall") == "--gate: recall is a number per class; name one: recall[CLASS], or use recall_macro"
    assert refused("lr_positive") == "--gate: lr_positive is a number per class; name one: lr_positive[CLASS]"
    assert refused("mcc[cat]") == "--gate: mcc is one number for all classes; leave [cat] away"
    assert "did you mean 'recall'" in refused("recal")
    assert "did you mean 'f1_macro'" in refused("f1_macr")


@pytest.mark.parametrize("text", ["", "[cat]", "recall]", "accuracy{ }", "accuracy{}", "a.b.c", "accuracy.", "x:y"])
def test_what_is_no_name_is_told_how_to_write_one(text: str) -> None:
    assert refused(text).startswith("--gate: write NAME=0.9 or recall[CLASS]=0.9; {COLUMN=VALUE} for one slice")


def test_another_part_or_way_of_saying_worst_is_refused_with_the_right_one() -> None:
    assert refused("accuracy.ci_hi") == (
        "--gate: no part 'ci_hi' of a metric; did you mean 'ci_high'?\nthere are .ci_low and .ci_high"
    )
    assert refused("accuracy.zzz") == "--gate: no part 'zzz' of a metric\nthere are .ci_low and .ci_high"
    assert "; write worst:accuracy\nthere are" in refused("worst(accuracy)")
    assert "write worst:" not in refused("worst(accuracy")
    assert "write worst:" not in refused("best(accuracy)")


def test_a_column_alone_names_no_slice_but_for_the_worst_of_them() -> None:
    told = refused("recall[cat]{sex}")

    assert told == "--gate: {sex} names no slice; write {sex=VALUE}, or worst:recall[cat]{sex} for the worst of them"
    assert "or worst:accuracy{sex} for" in refused("accuracy{sex}")
    assert parse_quantity("worst:recall[cat]{sex}", "--gate").scope == "sex"


@pytest.mark.parametrize("name", ["roc_auc", "roc_auc_ovr_macro", "roc_auc_ovr_micro", "roc_auc_ovo_macro"])
@pytest.mark.parametrize("k", [2, 3])
def test_an_auc_for_another_number_of_classes_is_refused(name: str, k: int) -> None:
    asked = Asked(Quantity(name))
    if (name == "roc_auc") == (k == 2):
        refuse_unknown([asked], "abc"[:k])
        return

    right = "roc_auc" if k == 2 else "roc_auc_ovr_macro"
    with pytest.raises(UsageError, match=rf"^gate TEXT: with {k} classes the metric is {right}$"):
        refuse_unknown([asked], "abc"[:k])


def test_the_auc_of_a_class_and_other_metrics_are_for_any_number_of_classes() -> None:
    for k in (2, 3):
        refuse_unknown([Asked(Quantity("roc_auc", "a")), Asked(Quantity("accuracy"))], "abc"[:k])
    with pytest.raises(UsageError, match=r"^gate TEXT: there is no class 'd'\nthere are a, b, c$"):
        refuse_unknown([Asked(Quantity("accuracy")), Asked(Quantity("recall", "d"))], "abc")


def test_of_many_classes_ten_are_named_with_the_nearest_first() -> None:
    classes = [f"class {number}" for number in range(12)]

    with pytest.raises(UsageError, match=r"no class 'clas 1'; did you mean 'class 1'\?\n.*class 9 and 2 more$"):
        refuse_unknown([Asked(Quantity("recall", "clas 1"))], classes)


def test_columns_are_checked_when_they_are_known() -> None:
    worst, site = Asked(Quantity("accuracy", worst=True)), Asked(Quantity("accuracy", scope="site=A"))
    column = Asked(Quantity("accuracy", scope="site", worst=True))

    refuse_unknown([worst, site, column], "ab")
    refuse_unknown([worst, site, column], "ab", by=("sex", "site"))
    refuse_unknown([Asked(Quantity("accuracy"))], "ab", by=())
    for asked, name in ((worst, "COLUMN"), (site, "site"), (column, "site")):
        with pytest.raises(UsageError, match=rf"^gate TEXT is about slices; say by which column: --by {name}$"):
            refuse_unknown([asked], "ab", by=())
    for asked in (site, column):
        told = r"^gate TEXT: no slices are made by 'site'; did you mean 'sites'\?; there is --by sites, sex$"
        with pytest.raises(UsageError, match=told):
            refuse_unknown([asked], "ab", by=("sites", "sex"))


def test_of_many_columns_eight_are_named() -> None:
    with pytest.raises(UsageError, match=r"there is --by c0, c1, c2, c3, c4, c5, c6, c7 and 1 more$"):
        refuse_unknown([Asked(Quantity("accuracy", scope="x=1"))], "ab", by=[f"c{i}" for i in range(9)])


def test_a_name_is_found_as_it_is_spelled_before_any_other_form() -> None:
    both = (DECOMPOSED, E_ACUTE)

    assert same_name(E_ACUTE, both) == E_ACUTE
    assert same_name(DECOMPOSED, both) == DECOMPOSED
    assert same_name(E_ACUTE, (DECOMPOSED, "e")) == DECOMPOSED
    assert same_name(DECOMPOSED, (E_ACUTE,)) == E_ACUTE
    assert same_name("e", both) is None
    with pytest.raises(UsageError, match="did you mean 'éac'"):
        refuse_unknown([Asked(Quantity("recall", f"{DECOMPOSED}ab"))], ("éac", "x"))


def test_estimates_are_those_of_the_metrics_and_what_is_absent_says_why() -> None:
    found = metrics()

    assert look_up(Asked(Quantity("accuracy")), found) == found.overall["accuracy"]
    assert look_up(Asked(Quantity("recall", "b")), found) == found.per_class["b"].estimates["recall"]
    assert look_up(Asked(Quantity("roc_auc")), found) == Estimate(None, undefined_reason="not computed for 3 classes")
    assert look_up(Asked(Quantity("accuracy@op")), found).undefined_reason == (
        "no operating point is stored; choose one on the validation set with `evalcam calibrate`"
    )
    with pytest.raises(UsageError, match="no class 'z'"):
        look_up(Asked(Quantity("recall", "z")), found)


def test_a_part_that_is_none_says_why() -> None:
    assert why_none(Estimate(None, undefined_reason="never predicted", ci_note="x")) == "never predicted"
    assert why_none(Estimate(0.5, ci_note="too few")) == "too few"
    assert why_none(Estimate(0.5)) == "no interval was computed"


def test_every_metric_lies_in_its_range_for_perfect_and_for_hopeless_predictions() -> None:
    for predicted in ([0, 0, 1, 1], [1, 1, 0, 0]):
        for name, estimate in compute_metrics(decided([0, 0, 1, 1], predicted, 2)).overall.items():
            low, high, _ = range_of(name)
            assert estimate.estimate is None or low <= estimate.estimate <= high, name
    logits = np.array([[-50, 50.0]] * 3, dtype=np.float32)
    worst = compute_metrics(replace(decided([0, 0, 0], [1, 1, 1], 2), logits=logits)).overall
    assert worst["brier"].estimate == 1  # halved for two classes; the 2 is for more
    assert worst["log_loss"].estimate == 100


def test_a_quantity_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        Quantity("accuracy").metric = "mcc"  # type: ignore[misc]
