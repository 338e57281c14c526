"""Gates: what they read, what they refuse, and what they decide."""

import contextlib
import unicodedata
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalcam_cli.errors import UsageError
from evalcam_cli.evaluation.estimates import Estimate
from evalcam_cli.evaluation.gates import Direction, GateResult, check_gates, parse_gate
from evalcam_cli.evaluation.metrics import CLASS_METRICS, OVERALL_METRICS, Metrics, compute_metrics
from evalcam_cli.evaluation.predictions import Predictions
from evalcam_cli.evaluation.quantities import range_of, refuse_unknown

CLASSES = ("cat", "a>=b", "x[y]=1", "개와 고양이")


def measured(predicted: list[int], targets: list[int], classes: tuple[str, ...] = CLASSES) -> Metrics:
    logits = np.eye(len(classes), dtype=np.float32)[predicted]
    return compute_metrics(Predictions(classes, logits, np.array(targets), ("",) * len(targets)), bootstrap=20)


NINE_OF_TEN = measured([0, 0, 0, 1, 1, 2, 2, 3, 3, 0], [0, 0, 0, 1, 1, 2, 2, 3, 3, 3])


@pytest.mark.parametrize(
    ("text", "direction", "passed"),
    [
        ("accuracy=0.9", "under", True),  # the threshold itself is good enough
        ("accuracy>=0.9", "under", True),
        ("accuracy==0.9", "under", True),
        ("accuracy ≥ 0.9", "under", True),
        ("accuracy>0.9", "under", False),
        ("accuracy=0.91", "under", False),
        (" accuracy = 9e-1 ", "under", True),
        ("accuracy.ci_low=0.55", "under", True),
        ("accuracy.ci_low=0.9", "under", False),
        ("accuracy.ci_high=0.97", "under", True),
        ("accuracy.estimate=0.9", "under", True),
        ("brier=2", "over", True),
        ("ece<=0.9", "over", True),
        ("ece<0.0001", "over", False),
        ("log_loss=5", "over", True),
        ("mcc=-1", "under", True),
        ("recall[cat]=1", "under", True),
        ("recall[cat].ci_low=0.5", "under", False),
        ("precision[a>=b]=1", "under", True),
        ("recall[x[y]=1]>=1", "under", True),
        ("recall[x[y]=1].ci_low>=0.3", "under", True),
        ("recall[개와 고양이]=0.7", "under", False),
        ("recall[개와 고양이]=0.6", "under", True),
    ],
)
def test_gates_decide(text: str, direction: Direction, passed: bool) -> None:
    (result,) = check_gates([parse_gate(text, direction)], NINE_OF_TEN)

    assert result.passed is passed
    assert result.line.startswith("passed: " if passed else "FAILED: ")


@pytest.mark.parametrize(
    ("text", "direction", "message"),
    [
        ("accuracy", "under", r"--fail-under accuracy: .*quote it, the shell took `>`"),
        ("ece", "over", r"--fail-over 'ece<=0.9', or without quotes --fail-over ece=0.9"),
        ("", "under", "no operator and number"),
        ("=0.9", "under", "no operator and number"),
        ("acuracy=0.9", "under", "no metric 'acuracy'; did you mean 'accuracy'"),
        ("Accuracy=0.9", "under", "did you mean 'accuracy'"),
        ("sensitivity[cat]=0.9", "under", "did you mean 'recall'"),
        ("Sensitivity@op=0.9", "under", "did you mean 'recall@op'"),
        ("AUC=0.9", "under", "did you mean 'roc_auc'"),
        ("zzz=0.9", "under", "no metric 'zzz'\nthere are accuracy, .* and [0-9]+ more, all in metrics.json"),
        ("recal[cat]=0.9", "under", "did you mean 'recall'"),
        ("recall=0.9", "under", r"name one: recall\[CLASS\], or use recall_macro"),
        ("accuracy[cat]=0.9", "under", r"leave \[cat\] away"),
        ("support[cat]=9", "under", "no metric 'support' per class"),
        ("accuracy.ci_lo=0.9", "under", "did you mean 'ci_low'"),
        ("accuracy=", "under", "'' is no number"),
        ("accuracy=x", "under", "'x' is no number"),
        ("accuracy=nan", "under", "'nan' is no number"),
        ("accuracy=inf", "under", "'inf' is no number"),
        ("accuracy=90%", "under", "90 % is 0.9"),
        ("accuracy=90", "under", "accuracy is from 0 to 1, so 90 decides nothing; 90 % is 0.9"),
        ("log_loss=-1", "over", "log_loss is at least 0"),
        ("ece<=0.05", "under", "`<=` contradicts --fail-under.*use --fail-over"),
        ("accuracy>=0.9", "over", "`>=` contradicts --fail-over.*use --fail-under"),
        ("recall]cat[=0.9", "under", "write NAME=0.9"),
    ],
)
def test_what_is_no_gate_is_refused_before_there_are_metrics(text: str, direction: Direction, message: str) -> None:
    with pytest.raises(UsageError, match=f"(?s){message}") as caught:
        parse_gate(text, direction)

    assert str(caught.value).count("\n") < 4


def test_a_class_that_there_is_not_is_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"(?s)no class 'cta'; did you mean 'cat'\?\nthere are cat, "):
        refuse_unknown([parse_gate("recall[cta]=0.5", "under")], CLASSES)


def test_the_auc_that_there_is_depends_on_the_number_of_classes() -> None:
    with pytest.raises(UsageError, match="with 4 classes the metric is roc_auc_ovr_macro"):
        refuse_unknown([parse_gate("roc_auc=0.5", "under")], CLASSES)
    with pytest.raises(UsageError, match="with 2 classes the metric is roc_auc"):
        refuse_unknown([parse_gate("roc_auc_ovr_macro=0.5", "under")], ("a", "b"))

    refuse_unknown([parse_gate("roc_auc[cat]=0.5", "under")], CLASSES)


def test_a_decomposed_name_is_the_same_class() -> None:
    text = unicodedata.normalize("NFD", "recall[개와 고양이]=0.5")

    assert check_gates([parse_gate(text, "under")], NINE_OF_TEN)[0].passed


def test_an_undefined_metric_fails_and_says_why() -> None:
    metrics = measured([0, 0], [0, 0])

    low, never, no_interval = check_gates(
        [
            parse_gate("recall[a>=b]=0.1", "under"),
            parse_gate("mcc=0.9", "over"),
            parse_gate("ece.ci_low=0.9", "over"),
        ],
        metrics,
    )

    assert (low.passed, low.value, low.reason) == (False, None, "no images of this class")
    assert not never.passed
    assert str(no_interval.reason).startswith("no interval: resampling inflates")
    assert low.line == "FAILED: recall[a>=b] >= 0.1 (n/a: no images of this class)"


def test_a_gate_on_a_limit_fails_when_no_intervals_were_computed() -> None:
    logits = np.eye(2, dtype=np.float32)
    metrics = compute_metrics(Predictions(("a", "b"), logits, np.array([0, 1]), ("", "")))

    (result,) = check_gates([parse_gate("accuracy.ci_low=0.1", "under")], metrics)

    assert (result.passed, result.reason) == (False, "no interval was computed")


def test_names_from_outside_cannot_move_the_cursor() -> None:
    metrics = measured([0, 1], [0, 1], ("a\x1b[2J", "b"))

    (result,) = check_gates([parse_gate("recall[a\x1b[2J]=0.1", "under")], metrics)

    assert "\x1b" not in result.line


@dataclass(frozen=True)
class Part:
    """A slice as `check_gates` wants it."""

    column: str
    value: str
    metrics: dict[str, Estimate] | None
    suppressed_reason: str | None = None


def parts() -> list[Part]:
    """Women .9, men .7, one hospital .8, one too small, and a class measured in some slices."""
    return [
        Part("sex", "F", {"accuracy": Estimate(0.9, 0.8, 0.95), "recall[cat]": Estimate(0.6)}),
        Part("sex", "M", {"accuracy": Estimate(0.7, 0.5, 0.85), "recall[cat]": Estimate(0.8)}),
        Part("site", "개}=1", {"accuracy": Estimate(0.8), "ece": Estimate(0.3)}),
        Part("site", "B", None, "fewer than 20 images"),
    ]


@pytest.mark.parametrize(
    ("text", "direction", "line"),
    [
        ("accuracy{sex=F}=0.9", "under", "passed: accuracy{sex=F} >= 0.9 (0.9)"),
        ("accuracy{sex=M}=0.9", "under", "FAILED: accuracy{sex=M} >= 0.9 (0.7)"),
        ("accuracy{sex=M}.ci_low=0.5", "under", "passed: accuracy{sex=M}.ci_low >= 0.5 (0.5)"),
        ("recall[cat]{sex=F}>=0.5", "under", "passed: recall[cat]{sex=F} >= 0.5 (0.6)"),
        ("accuracy{site=개}=1}=0.8", "under", "passed: accuracy{site=개}=1} >= 0.8 (0.8)"),
        (
            "accuracy{site=B}=0.1",
            "under",
            "FAILED: accuracy{site=B} >= 0.1 (n/a: site=B is left out: fewer than 20 images)",
        ),
        (
            "accuracy{sex=f}=0.1",
            "under",
            "FAILED: accuracy{sex=f} >= 0.1 (n/a: no images with sex=f; there are sex=F, sex=M)",
        ),
        ("ece{sex=F}=0.1", "over", "FAILED: ece{sex=F} <= 0.1 (n/a: ece is not measured per slice)"),
        ("worst:accuracy{sex}=0.7", "under", "passed: worst:accuracy{sex} >= 0.7 (0.7; in sex=M)"),
        ("worst:accuracy{sex}=0.8", "over", "FAILED: worst:accuracy{sex} <= 0.8 (0.9; in sex=F)"),
        ("worst:recall[cat]{sex}=0.7", "under", "FAILED: worst:recall[cat]{sex} >= 0.7 (0.6; in sex=F)"),
        (
            "worst:accuracy=0.7",
            "under",
            "passed: worst:accuracy >= 0.7 (0.7; in sex=M; 1 of 4 slices left out: fewer than 20 images)",
        ),
        (
            "worst:accuracy.ci_low=0.1",
            "under",
            "FAILED: worst:accuracy.ci_low >= 0.1 (n/a: site=개}=1: no interval was computed; "
            "1 of 4 slices left out: fewer than 20 images)",
        ),
    ],
)
def test_gates_on_slices_decide_and_say_which_slice(text: str, direction: Direction, line: str) -> None:
    (result,) = check_gates([parse_gate(text, direction)], NINE_OF_TEN, slices=parts())

    assert result.line == line


def test_a_worst_gate_fails_when_every_slice_is_left_out() -> None:
    (result,) = check_gates([parse_gate("worst:accuracy=0", "under")], NINE_OF_TEN, slices=parts()[3:])

    assert (result.passed, result.value) == (False, None)
    assert result.reason == "all of 1 slice are left out: fewer than 20 images"


@pytest.mark.parametrize(
    ("text", "by", "message"),
    [
        ("worst:accuracy=0.8", (), "is about slices; say by which column: --by COLUMN"),
        ("accuracy{sex=F}=0.8", (), "--by sex"),
        ("accuracy{sxe=F}=0.8", ("sex", "site"), "no slices are made by 'sxe'; did you mean 'sex'.*--by sex, site"),
        ("worst:accuracy{age}=0.8", ("sex",), "no slices are made by 'age'"),
    ],
)
def test_a_gate_on_slices_that_are_not_made_is_refused(text: str, by: tuple[str, ...], message: str) -> None:
    with pytest.raises(UsageError, match=f"(?s){message}"):
        refuse_unknown([parse_gate(text, "under")], CLASSES, by=by)


def test_without_slices_a_gate_on_them_is_refused_and_before_they_are_known_it_is_not() -> None:
    gate = parse_gate("worst:accuracy=0.8", "under")

    refuse_unknown([gate], CLASSES)
    with pytest.raises(UsageError, match="--by COLUMN"):
        check_gates([gate], NINE_OF_TEN)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("accuracy{sex}=0.8", r"\{sex\} names no slice; write \{sex=VALUE\}, or worst:accuracy\{sex\} for the worst"),
        ("accuracy{}=0.8", "write NAME=0.9"),
        ("accuracy{sex=F}", "no operator and number"),
        ("worst:acuracy=0.8", "did you mean 'accuracy'"),
        ("worst(accuracy)=0.8", "write worst:accuracy"),
        ("best:accuracy=0.8", "write NAME=0.9"),
    ],
)
def test_what_names_no_slice_is_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_gate(text, "under")


def test_a_gate_at_the_operating_point_reads_its_row_and_fails_where_there_is_none() -> None:
    with_row = replace(NINE_OF_TEN, overall={**NINE_OF_TEN.overall, "recall@op": Estimate(0.95, 0.9, 0.98)})
    without = replace(
        NINE_OF_TEN, overall={name: at for name, at in NINE_OF_TEN.overall.items() if not name.endswith("@op")}
    )
    gate = parse_gate("recall@op.ci_low=0.9", "under")

    assert check_gates([gate], with_row)[0].line == "passed: recall@op.ci_low >= 0.9 (0.9)"
    (absent,) = check_gates([gate], without)
    assert not absent.passed
    assert "evalcam calibrate" in str(absent.reason)


@pytest.mark.parametrize(
    ("text", "direction", "refused"),
    [
        ("calibration_slope=-3", "under", False),
        ("calibration_intercept=7", "over", False),
        ("lr_positive[cat]=12", "under", False),
        ("lr_negative[cat]=-1", "over", True),
        ("recall@op=1.5", "under", True),
        ("mce=2", "over", True),
        ("mcc=-1.5", "under", True),
    ],
)
def test_a_threshold_outside_of_the_metric_s_range_decides_nothing(
    text: str, direction: Direction, refused: bool
) -> None:
    with pytest.raises(UsageError, match="decides nothing") if refused else contextlib.nullcontext():
        parse_gate(text, direction)


@settings(deadline=None, max_examples=50)
@given(
    st.floats(0, 1),
    st.floats(0, 1),
    st.sampled_from(["under", "over"]),
    st.sampled_from(["=", "strict"]),
)
def test_the_number_shown_never_contradicts_the_verdict(value: float, threshold: float, way: str, kind: str) -> None:
    direction: Direction = "under" if way == "under" else "over"
    operator = "=" if kind == "=" else {"under": ">", "over": "<"}[way]
    gate = parse_gate(f"accuracy{operator}{threshold!r}", direction)

    passed = gate.met_by(value)
    result = GateResult(gate, passed, value, None)

    assert gate.met_by(float(result.found)) is passed


def test_a_near_miss_is_printed_with_the_digits_that_it_needs() -> None:
    gate = parse_gate("accuracy=0.9", "under")

    assert GateResult(gate, False, 0.8999876543, None).line == "FAILED: accuracy >= 0.9 (0.89999)"
    assert GateResult(gate, True, 0.91234567, None).line == "passed: accuracy >= 0.9 (0.9123)"


def test_every_metric_has_a_range_and_its_value_lies_in_it() -> None:
    for name, estimate in NINE_OF_TEN.overall.items():
        low, high, _ = range_of(name)
        if estimate.estimate is not None:
            assert low <= estimate.estimate <= high, name


def test_lower_is_better_for_losses_and_errors_only() -> None:
    lower = {name for name in (*OVERALL_METRICS, *CLASS_METRICS) if range_of(name).better == "lower"}

    assert lower == {"log_loss", "brier", "ece", "ece_equal_mass", "mce", "lr_negative", "lr_negative@op"}


def test_nothing_is_better_or_worse_about_a_property_of_the_set_or_a_target_value() -> None:
    neither = {name for name in (*OVERALL_METRICS, *CLASS_METRICS) if range_of(name).better is None}

    assert neither == {
        *("no_information_rate", "ece_expected_if_calibrated", "calibration_slope", "calibration_intercept")
    }
