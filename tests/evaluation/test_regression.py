"""No-regression: what is read, what is refused, which direction is worse, and what the result admits."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evalcam_cli.errors import DataError, EvalcamError, UsageError
from evalcam_cli.evaluation.estimates import Estimate
from evalcam_cli.evaluation.metrics import Metrics, compute_metrics
from evalcam_cli.evaluation.predictions import Predictions
from evalcam_cli.evaluation.regression import check_regressions, read_regression

CLASSES = ("cat", "a:b[c]")


def measured(accuracy: float, **others: float) -> Metrics:
    """Metrics of ten images with the numbers put in."""
    logits = np.eye(2, dtype=np.float32)[[0] * 5 + [1] * 5]
    targets = np.array([0] * 5 + [1] * 5)
    metrics = compute_metrics(Predictions(CLASSES, logits, targets, ("",) * 10), bootstrap=100)
    put = {"accuracy": Estimate(accuracy, accuracy - 0.1, accuracy + 0.05)}
    put |= {name: Estimate(value) for name, value in others.items()}
    return replace(metrics, overall=metrics.overall | put)


def written(folder: Path, *, n: int = 10, **changes: Any) -> Path:
    """A baseline with accuracy 0.91 (0.8 to 0.95) and log loss 0.5."""
    document = {
        "schema_version": 1,
        "n": n,
        "classes": list(CLASSES),
        "positive": "a:b[c]",
        "subset": "test",
        "metrics": {
            "accuracy": {"estimate": 0.91, "ci_low": 0.8, "ci_high": 0.95, "undefined_reason": None},
            "log_loss": {"estimate": 0.5, "ci_low": None, "ci_high": None, "undefined_reason": None},
            "mcc": {"estimate": None, "ci_low": None, "ci_high": None, "undefined_reason": "one class"},
        },
        "per_class": {"a:b[c]": {"support": 5, "recall": {"estimate": 0.8, "ci_low": 0.4, "ci_high": 0.95}}},
        "meta": {"split_fingerprint": "f00d"},
    } | changes
    path = folder / "metrics.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("demand", "now", "passed"),
    [
        ("accuracy", 0.91, True),
        ("accuracy", 0.909, False),
        ("accuracy:0.01", 0.9, True),  # 0.91 - 0.01 is 0.9 in decimals, and a little more in binary
        ("accuracy:0.01", 0.8999, False),
        ("accuracy.ci_low", 0.9, True),
        ("accuracy.ci_low", 0.89, False),
        ("accuracy.ci_low:1e-2", 0.89, True),
        ("accuracy:0", 0.99, True),
    ],
)
def test_more_accuracy_is_better(tmp_path: Path, demand: str, now: float, passed: bool) -> None:
    regression = read_regression(f"{written(tmp_path)}:{demand}")

    (result,) = check_regressions([regression], measured(now), subset="test", split_fingerprint="f00d")

    assert result.passed is passed
    assert result.note == ("before 0.8" if "ci_low" in demand else "before 0.91")


@pytest.mark.parametrize(
    ("demand", "now", "passed"),
    [("log_loss", 0.5, True), ("log_loss", 0.1, True), ("log_loss", 0.51, False), ("log_loss:0.01", 0.51, True)],
)
def test_less_loss_is_better(tmp_path: Path, demand: str, now: float, passed: bool) -> None:
    regression = read_regression(f"{written(tmp_path)}:{demand}")

    (result,) = check_regressions([regression], measured(0.9, log_loss=now))

    assert result.passed is passed
    assert f"log_loss <= {tmp_path}/metrics.json" in result.line


@pytest.mark.parametrize("name", ["C:\\runs\\a.json", "x:accuracy:0.5.json", "recall[cat]:m.json", "a b.json"])
def test_the_path_may_hold_colons(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    written(tmp_path).rename(tmp_path / name)

    regression = read_regression(f"{name}:recall[a:b[c]].ci_low:0.05")

    assert regression.baseline.place == name
    assert regression.quantity.text == "recall[a:b[c]].ci_low"
    assert (regression.before, regression.margin) == (0.4, 0.05)


def test_a_class_named_like_a_metric_keeps_its_brackets_together(tmp_path: Path) -> None:
    regression = read_regression(f"{written(tmp_path)}:recall[x:f1[y]]:0.1")

    assert regression.quantity.label == "x:f1[y]"


def test_the_folder_of_a_baseline_is_enough(tmp_path: Path) -> None:
    written(tmp_path)

    assert read_regression(f"{tmp_path}:accuracy").before == 0.91


@pytest.mark.parametrize(
    ("demand", "message"),
    [
        ("accuracy:0.01", r"passed: accuracy >= \S+ - 0.01 \(0.905; before 0.91\)"),
        ("accuracy", r"FAILED: accuracy >= \S+ \(0.905; before 0.91\)"),
    ],
)
def test_the_line_names_both_numbers(tmp_path: Path, demand: str, message: str) -> None:
    (result,) = check_regressions([read_regression(f"{written(tmp_path)}:{demand}")], measured(0.905), subset="test")

    assert re.fullmatch(message, result.line)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"n": 12}, "then on 12 images: not the same test"),
        ({"classes": ["x"]}, "then on other classes"),
        ({"positive": "cat"}, "then on another positive class"),
        ({"subset": "val"}, "then on the set val"),
        ({"meta": {"split_fingerprint": "beef"}}, "then on another split"),
        ({"subset": "val", "n": 9}, "then on the set val, 9 images"),
        ({"n": [1], "subset": {"x": 1}, "meta": 3}, "another number of images"),
    ],
)
def test_another_test_set_is_said_and_fails_nothing(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    regression = read_regression(f"{written(tmp_path, **changes)}:accuracy")

    (result,) = check_regressions([regression], measured(0.95), subset="test", split_fingerprint="f00d")

    assert result.passed
    assert said in result.line


@pytest.mark.parametrize(
    ("demand", "reason"),
    [
        ("mcc", "undefined in the baseline: one class"),
        ("brier", "undefined in the baseline: it has no brier"),
        ("recall[cat]", "undefined in the baseline: it has no class cat"),
        ("precision[a:b[c]]", "undefined in the baseline: it has no precision"),
        ("log_loss.ci_low", "undefined in the baseline: no interval was computed"),
    ],
)
def test_what_the_baseline_does_not_say_fails(tmp_path: Path, demand: str, reason: str) -> None:
    (result,) = check_regressions([read_regression(f"{written(tmp_path)}:{demand}")], measured(0.99))

    assert (result.passed, result.value, result.reason) == (False, None, reason)


def test_what_is_undefined_now_fails(tmp_path: Path) -> None:
    metrics = measured(0.99)
    metrics = replace(metrics, overall=metrics.overall | {"accuracy": Estimate(None, undefined_reason="no images")})

    (result,) = check_regressions([read_regression(f"{written(tmp_path)}:accuracy")], metrics)

    assert "(n/a: no images; before 0.91)" in result.line
    assert not result.passed


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("accuracy", "write FILE:METRIC"),
        (":accuracy", "write FILE:METRIC"),
        ("", "write FILE:METRIC"),
        ("FILE:acuracy", "no metric 'acuracy'; did you mean 'accuracy'"),
        ("FILE:recall", r"recall\[CLASS\], or use recall_macro"),
        ("FILE:accuracy:abc", "the margin 'abc' is no number from 0"),
        ("FILE:accuracy:nan", "the margin 'nan' is no number"),
        ("FILE:accuracy:", "the margin '' is no number"),
        ("FILE:accuracy:-0.01", "the margin '-0.01' is no number from 0"),
        ("FILE:accuracy:1%", "1 % is 0.01"),
        ("FILE:accuracy:1", "accuracy is from 0 to 1, so a margin of 1 decides nothing"),
        ("FILE:calibration_slope", "neither more nor less calibration_slope is better; use --fail-under"),
        ("FILE:accuracy{sex=F}", "a baseline holds no slices"),
        ("/nowhere/metrics.json:accuracy", r"cannot read /nowhere/metrics.json: No such file"),
    ],
)
def test_what_cannot_be_meant_is_a_usage_error(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        read_regression(text.replace("FILE", str(written(tmp_path))))

    assert str(caught.value).count("\n") < 4


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is not JSON"),
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "is not a metrics.json"),
        ("{}", "is not a metrics.json"),
        ('{"schema_version": 2}', "written by a newer evalcam"),
        ('{"schema_version": "1"}', "is not a metrics.json"),
        ('{"schema_version": 1}', "is damaged"),
        ('{"schema_version": 1, "metrics": []}', "is damaged"),
        ('{"schema_version": 1, "metrics": {"accuracy": 0.9}}', "is damaged"),
        ('{"schema_version": 1, "metrics": {"accuracy": {}}}', "is damaged"),
        ('{"schema_version": 1, "metrics": {"accuracy": {"estimate": true}}}', "is damaged"),
        ('{"schema_version": 1, "metrics": {"accuracy": {"estimate": "0.9"}}}', "is damaged"),
        ('{"schema_version": 1, "metrics": {"accuracy": {"estimate": NaN}}}', "is damaged"),
        ('{"schema_version": 1, "metrics": {"accuracy": {"estimate": 1e999}}}', "is damaged"),
        (f'{{"schema_version": 1, "metrics": {{"accuracy": {{"estimate": {10**400}}}}}}}', "is damaged"),
        ('{"schema_version": 1, "metrics": {"accuracy": {"estimate": null, "undefined_reason": 3}}}', "is damaged"),
    ],
)
def test_a_damaged_baseline_is_the_data_s_fault(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "b.json").write_text(content, encoding="utf-8")

    with pytest.raises(DataError, match=message) as caught:
        read_regression(f"{tmp_path / 'b.json'}:accuracy")

    assert len(str(caught.value)) < 600


def test_a_class_of_the_baseline_only_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, per_class={"dog": {"recall": {"estimate": 0.5}}})

    with pytest.raises(EvalcamError, match="there is no class 'dog'"):
        check_regressions([read_regression(f"{path}:recall[dog]")], measured(0.9))
