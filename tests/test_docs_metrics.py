"""docs/metrics.md says what every number means. `python -m tests.test_docs_metrics` writes its tables anew."""

import re
from functools import cache

import numpy as np
import pytest

from evalcam_cli.evaluation.definitions import define
from evalcam_cli.evaluation.estimates import Estimate
from evalcam_cli.evaluation.metrics import CLASS_METRICS, OVERALL_METRICS, Metrics, compute_metrics
from evalcam_cli.evaluation.operating_point import OperatingPoint
from evalcam_cli.evaluation.predictions import Predictions
from tests.conftest import REPOSITORY

PAGE = REPOSITORY / "docs" / "metrics.md"

ONE_SIDED = "no images of this class; no images of other classes"
UNDEFINED = {
    "precision": "never predicted",
    "recall": "no images of this class",
    "specificity": "no images of other classes",
    "npv": "all images are predicted as this class",
    "f1": "no images of this class, and never predicted",
    "lr_positive": f"infinite: specificity is 1; never predicted; {ONE_SIDED}",
    "lr_negative": f"infinite: specificity is 0; all images are predicted as this class; {ONE_SIDED}",
    **dict.fromkeys(("roc_auc", "partial_roc_auc", "average_precision"), ONE_SIDED),
    "log_loss": "infinite: an image with probability 0 for the true class",
    "mcc": "all images are of one class or predicted as one class",
    "cohen_kappa": "all images are of one class and predicted as it",
    "roc_auc_ovo_macro": "no two classes have images",
    **dict.fromkeys(
        ("calibration_slope", "calibration_intercept"),
        "only one class has images; a probability is exactly 0 or 1; all images have the same probability; the classes "
        "are perfectly separated",
    ),
    **dict.fromkeys(("top_3_accuracy", "top_5_accuracy"), "there are only as many classes, so it is always 1"),
}
"""Of metrics that can be; averages are so when they are for every class."""

DIFFERENCES = [
    ("a metric without a denominator", "0, with a warning", "`null` and a reason",
     "test_with_images_of_a_single_class"),
    ("precision of a class never predicted", "0, and so in the macro average", "`null`, left out of the average, "
     "`classes_counted` says so", "test_a_class_never_predicted_has_no_precision"),
    ("recall of a class without images", "0, and so in the macro average (but not in `balanced_accuracy_score`)",
     "`null`, left out; `recall_macro` is `balanced_accuracy`", "test_a_class_predicted_without_truth"),
    ("macro and weighted averages", "over all labels", "over the classes where the metric is defined",
     "test_the_mean_of_halves_is_the_macro_average"),
    ("`mcc` with one class in truth or prediction", "0", "`null`", "test_with_images_of_a_single_class"),
    ("`log_loss` with p = 0 for the truth", "p is raised to 2.2e-16 (float32: 1.2e-7)",
     "infinite, so `null`, and the images are counted",
     "test_a_stated_probability_of_zero_makes_the_log_loss_infinite"),
    ("`roc_auc_ovr_macro` with an absent class", "nan, with a warning", "mean over the classes with images",
     "test_random_cases_equal_scikit_learn"),
    ("`average_precision` without images of the class, or without others", "0; 1", "`null`",
     "test_evalcam_is_right_or_says_why_not"),
    ("top-k with equal scores", "the class with the higher index comes first", "the class with the lower index does",
     "test_top_k_takes_equal_scores_in_class_order"),
    ("top-k with k ≥ K", "1, with a warning", "`null`: it says nothing", "test_evalcam_is_right_or_says_why_not"),
    ("likelihood ratio with 0 in the denominator", "nan, or a value of choice", "`null`, with a lower limit",
     "test_evalcam_is_right_or_says_why_not"),
    ("scores that are not finite", "an error", "an error that names the images",
     "test_scores_that_are_not_finite_are_refused"),
    ("rows that do not sum to 1", "a warning (log loss)", "an error above 0.001, which names the rows",
     "test_evalcam_is_right_or_says_why_not"),
    ("`brier` of K classes", "`scale_by_half='auto'`", "the same: the sum over classes, halved for two",
     "test_brier_is_the_sum_over_classes"),
    ("an image is called positive", "`roc_curve`: at a score ≥ the threshold", "the same, p ≥ threshold, everywhere",
     "test_an_image_at_the_threshold_is_called"),
    ("ECE, MCE", "none", "15 bins closed on the right, confidence of the top label",
     "test_bins_are_closed_on_the_right"),
    ("names of averages", "`average=` or `multi_class=` at the call", "in the name: `_macro`, `_weighted`, `_micro`, "
     "`_ovr_`, `_ovo_`", "test_the_names_are_those_of_the_interface"),
]  # fmt: skip
"""What, scikit-learn, evalcam, and the beginning of the name of the test that holds it."""


def sample(k: int, *, groups: bool = False) -> Predictions:
    generator = np.random.default_rng(0)
    targets = generator.integers(0, k, 120)
    logits = generator.normal(size=(120, k)).astype(np.float32)
    logits[np.arange(120), targets] += 1
    names = tuple("abcdef"[:k])
    codes = tuple(f"p{i // 3}" for i in range(120)) if groups else ()
    point = OperatingPoint("a", 0.3, "youden", 60, 60, 0.8, 0.8)
    return Predictions(names, logits, targets, ("",) * 120, groups=codes, operating_point=point)


def entries(metrics: Metrics) -> dict[str, Estimate]:
    """One estimate of every metric; those of a class from the second one, by their name."""
    return metrics.per_class["b"].estimates | metrics.overall


@cache
def methods(*, groups: bool) -> dict[str, str]:
    """How evalcam makes the interval of each metric."""
    found: dict[str, str] = {}
    for k in (6, 2):
        for name, estimate in entries(compute_metrics(sample(k, groups=groups), bootstrap=60)).items():
            found.setdefault(name, estimate.ci_method or "none")
            if found[name] == "none" and estimate.ci_method:
                found[name] = estimate.ci_method
    return found


def undefined_when(name: str) -> str:
    base = name.removesuffix("@op")
    if base in UNDEFINED:
        return UNDEFINED[base]
    average = base.rpartition("_")[2]
    if average in ("macro", "weighted") or base == "balanced_accuracy":
        return "undefined for every class" + (" that has images" if average == "weighted" else "")
    return "never"


def metrics_table() -> str:
    head = "| metric | meaning | undefined when | interval | with groups | source | elsewhere |"
    rows = [head, "|---|---|---|---|---|---|---|"]
    names = (*OVERALL_METRICS, *(f"{name}" for name in CLASS_METRICS if name not in OVERALL_METRICS))
    for name in names:
        found = define(name)
        cells = (f"`{name}`", found.meaning, undefined_when(name), methods(groups=False)[name],
                 methods(groups=True)[name], found.source, found.elsewhere)  # fmt: skip
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows) + "\n"


def differences_table() -> str:
    rows = ["| what | scikit-learn | evalcam |", "|---|---|---|"]
    rows += [f"| {what} | {theirs} | {ours} |" for what, theirs, ours, _ in DIFFERENCES]
    return "\n".join(rows) + "\n"


TABLES = {"metrics": metrics_table, "differences": differences_table}


def block(name: str) -> re.Pattern[str]:
    return re.compile(rf"(<!-- {name} -->\n).*?(<!-- end {name} -->)", re.DOTALL)


@pytest.mark.parametrize("name", TABLES)
def test_the_page_is_what_the_code_says(name: str) -> None:
    found = block(name).search(PAGE.read_text(encoding="utf-8"))

    assert found
    assert TABLES[name]() in found[0], "run `python -m tests.test_docs_metrics`"


@pytest.mark.parametrize("k", [2, 6])
def test_no_number_of_an_evaluation_lacks_its_entry(k: int) -> None:
    page = PAGE.read_text(encoding="utf-8")

    for name in entries(compute_metrics(sample(k), bootstrap=10)):
        assert f"\n| `{name}` |" in page, name


@pytest.mark.parametrize(
    ("targets", "predicted", "k"),
    [([0, 0, 0], [0, 0, 0], 2), ([1, 1, 1], [1, 0, 1], 2), ([0, 1], [0, 0], 2), ([0, 0], [1, 1], 3), ([0], [2], 3)],
)
def test_the_reasons_given_are_those_of_the_page(targets: list[int], predicted: list[int], k: int) -> None:
    names, paths = tuple("abc"[:k]), ("",) * len(targets)
    metrics = compute_metrics(Predictions(names, np.eye(k, dtype=np.float32)[predicted], np.array(targets), paths))

    for name, estimate in entries(metrics).items():
        reason = estimate.undefined_reason
        if reason and name != "roc_auc" and not name.startswith(("top_", "calibration_")):
            assert reason in undefined_when(name) or reason == "undefined for every class", name


def test_every_intended_difference_has_its_test() -> None:
    texts = [path.read_text(encoding="utf-8") for path in (REPOSITORY / "tests").rglob("test_*.py")]

    for what, _, _, test in DIFFERENCES:
        assert any(f"def {test}" in text for text in texts), what


if __name__ == "__main__":
    text = PAGE.read_text(encoding="utf-8")
    for name, make in TABLES.items():
        text = block(name).sub(rf"\g<1>{make()}\g<2>".replace("\\|", "\\\\|"), text)
    PAGE.write_text(text, encoding="utf-8")
