"""Gates: what they read, what they refuse, and what they decide."""

import unicodedata

import numpy as np
import pytest

from evalcam_cli.errors import UsageError
from evalcam_cli.evaluation.gates import Direction, check_gates, parse_gate, refuse_unknown
from evalcam_cli.evaluation.metrics import Metrics, compute_metrics
from evalcam_cli.evaluation.predictions import Predictions

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
    assert no_interval.reason == "no interval: resampling inflates ECE"
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
