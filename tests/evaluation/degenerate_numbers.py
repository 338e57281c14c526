"""More degenerate inputs: ties, extreme numbers, and intervals, tests and comparisons without evidence."""

from collections.abc import Callable

import numpy as np

from evalcam_cli.evaluation.auc import placements
from evalcam_cli.evaluation.intervals import likelihood_ratio_intervals, proportion_interval
from evalcam_cli.evaluation.metrics import compute_metrics
from evalcam_cli.evaluation.paired import compare_auc, mcnemar
from tests.evaluation.degenerate_cases import (
    HUGE,
    LAST_BIT,
    LOG_LOSS,
    ONE_HOT,
    SEPARATED,
    TIES,
    Case,
    decided,
    limits,
    made,
    shape,
    sk,
    tm,
    with_second,
)

ONE_CLASS = [1, 1, 1], [1, 1, 0]
MIXED = [0.1, 0.4, 0.35, 0.8]
TINY = [5e-324, 0.0]


def p_value(targets: list[int], a: list[float], b: list[float]) -> Callable[[], str]:
    """Of equal AUCs of two scores on the same images."""

    def ask() -> str:
        positive = np.array(targets) == 1
        tested = compare_auc(placements(np.array(a), positive), placements(np.array(b), positive))
        return f"p = {tested.p_value:.6g}" if tested.p_value is not None else f"null: {tested.reason}"

    return ask


def above_chance() -> str:
    found = compute_metrics(decided([1, 1, 1], [1, 1, 1], 2), bootstrap=20)
    return f"p = {found.tests['accuracy_above_no_information_rate'].p_value}"


NUMBERS = [
    shape("all classes tied, K = 4", "top_3_accuracy", lambda: made([0, 1, 2, 3], TIES, stated=True), r"0\.75",
          sk("top_k_accuracy_score", [0, 1, 2, 3], TIES, k=3),
          tm("multiclass_accuracy", TIES, [0, 1, 2, 3], num_classes=4, top_k=3, average="micro")),
    shape("all classes tied, K = 4", "accuracy", lambda: made([0, 1, 2, 3], TIES, stated=True), r"0\.25",
          sk("top_k_accuracy_score", [0, 1, 2, 3], TIES, k=1),
          tm("multiclass_accuracy", TIES, [0, 1, 2, 3], num_classes=4, average="micro")),
    shape("top 5 of 4 classes", "top_5_accuracy", lambda: made([0, 1, 2, 3], TIES, stated=True),
          "null: there are only 4 classes, so it is always 1", sk("top_k_accuracy_score", [0, 1, 2, 3], TIES, k=5),
          tm("multiclass_accuracy", TIES, [0, 1, 2, 3], num_classes=4, top_k=5, average="micro")),
    shape("p = 0 for the truth, float64", "log_loss", lambda: made([0, 1], LOG_LOSS, stated=True),
          "null: infinite: 1 image with probability 0 for the true class", sk("log_loss", [0, 1], LOG_LOSS)),
    shape("p = 0 for the truth, float32", "log_loss", lambda: made([0, 1], LOG_LOSS, stated=True),
          "null: infinite: 1 image with probability 0 for the true class",
          sk("log_loss", [0, 1], np.array(LOG_LOSS, dtype=np.float32))),
    shape("p = 0 for the truth", "brier", lambda: made([0, 1], LOG_LOSS, stated=True), r"0\.625",
          sk("brier_score_loss", [0, 1], [1.0, 0.5])),
    shape("confidence exactly 1, one wrong", "ece", lambda: made([0, 1, 0, 1], ONE_HOT, stated=True), r"0\.25", None,
          tm("multiclass_calibration_error", ONE_HOT, [0, 1, 0, 1], num_classes=2)),
    shape("confidence exactly 1, one wrong", "mce", lambda: made([0, 1, 0, 1], ONE_HOT, stated=True), r"0\.25", None,
          tm("multiclass_calibration_error", ONE_HOT, [0, 1, 0, 1], num_classes=2, norm="max")),
    shape("confidence exactly 1, all right", "ece", lambda: made([0, 1, 0, 0], ONE_HOT, stated=True), "0", None,
          tm("multiclass_calibration_error", ONE_HOT, [0, 1, 0, 0], num_classes=2)),
    shape("truth and prediction one class", "cohen_kappa", lambda: decided([1, 1], [1, 1], 2),
          "null: all images are of one class and predicted as it", sk("cohen_kappa_score", [1, 1], [1, 1]),
          tm("binary_cohen_kappa", [1, 1], [1, 1])),
    shape("truth and prediction one class", "mcc", lambda: decided([1, 1], [1, 1], 2),
          "null: all images are of one class or predicted as one class", sk("matthews_corrcoef", [1, 1], [1, 1]),
          tm("binary_matthews_corrcoef", [1, 1], [1, 1])),
    shape("truth and prediction one class", "balanced_accuracy", lambda: decided([1, 1], [1, 1], 2),
          r"1 \(1 classes\)", sk("balanced_accuracy_score", [1, 1], [1, 1])),
    shape("truth one class", "mcc", lambda: decided(*ONE_CLASS, 2),
          "null: all images are of one class or predicted as one class", sk("matthews_corrcoef", *ONE_CLASS),
          tm("binary_matthews_corrcoef", [1, 1, 0], [1, 1, 1])),
    shape("truth one class", "cohen_kappa", lambda: decided(*ONE_CLASS, 2), "0", sk("cohen_kappa_score", *ONE_CLASS),
          tm("binary_cohen_kappa", [1, 1, 0], [1, 1, 1])),
    shape("truth one class", "specificity[b]", lambda: decided(*ONE_CLASS, 2), "null: no images of other classes",
          sk("recall_score", *ONE_CLASS, pos_label=0), tm("binary_specificity", [1, 1, 0], [1, 1, 1])),
    shape("truth one class", "average_precision[b]", lambda: decided(*ONE_CLASS, 2), "null: no images of other classes",
          sk("average_precision_score", [1, 1, 1], [1.0, 1.0, 0.0]),
          tm("binary_average_precision", [0.9, 0.9, 0.1], [1, 1, 1])),
    shape("truth one class", "roc_auc", lambda: decided(*ONE_CLASS, 2), "null: only one class has images",
          sk("roc_auc_score", [1, 1, 1], [1.0, 1.0, 0.0]), tm("binary_auroc", [0.9, 0.9, 0.1], [1, 1, 1])),
    shape("truth one class", "calibration_slope", lambda: made([1, 1], [[0.0, 1.0], [0.0, 2.0]]),
          "null: only one class has images"),
    shape("prediction one class", "mcc", lambda: decided([0, 1, 1], [1, 1, 1], 2),
          "null: all images are of one class or predicted as one class", sk("matthews_corrcoef", [0, 1, 1], [1, 1, 1]),
          tm("binary_matthews_corrcoef", [1, 1, 1], [0, 1, 1])),
    Case("truth and prediction one class", "accuracy above no-information rate", above_chance, r"p = 1\.0"),
    shape("logits of 1e30, one wrong", "log_loss", lambda: made([0, 1], HUGE), r"5e\+29",
          sk("log_loss", [0, 1], [[1.0, 0.0], [1.0, 0.0]])),
    shape("logits of 1e30, one wrong", "accuracy", lambda: made([0, 1], HUGE), r"0\.5", None,
          tm("multiclass_accuracy", HUGE, [0, 1], num_classes=2, average="micro")),
    shape("logits of 1e30, one wrong", "ece", lambda: made([0, 1], HUGE), r"0\.5", None,
          tm("multiclass_calibration_error", HUGE, [0, 1], num_classes=2)),
    shape("a logit of -0.0 beside 0.0", "roc_auc", lambda: made([0, 1], [[0.0, 0.0], [0.0, -0.0]]), r"0\.5",
          sk("roc_auc_score", [0, 1], [0.0, -0.0]), tm("binary_auroc", [0.0, -0.0], [0, 1])),
    shape("p = 5e-324 beside 0", "roc_auc", lambda: made([1, 0], with_second(TINY), stated=True), "1",
          sk("roc_auc_score", [1, 0], TINY), tm("binary_auroc", TINY, [1, 0])),
    shape("scores differ in the last bit", "roc_auc", lambda: made([0, 1], with_second(LAST_BIT), stated=True), "1",
          sk("roc_auc_score", [0, 1], LAST_BIT), tm("binary_auroc", LAST_BIT, [0, 1])),
    shape("perfect separation", "calibration_slope", lambda: made([0, 0, 1, 1], SEPARATED, stated=True),
          "null: the classes are perfectly separated, so the slope is infinite"),
    shape("perfect separation", "roc_auc's interval", lambda: made([0, 0, 1, 1], SEPARATED, stated=True),
          r"0\.\d+ to 1\.0000"),
    shape("perfect separation", "lr_positive[b]", lambda: made([0, 0, 1, 1], SEPARATED, stated=True),
          "null: infinite: specificity is 1", sk("class_likelihood_ratios", [0, 0, 1, 1], [0, 0, 1, 1])),
    shape("perfect separation", "lr_positive[b]'s interval", lambda: made([0, 0, 1, 1], SEPARATED, stated=True),
          r"0\.\d+ to no upper limit"),
    shape("class b is never predicted", "lr_positive[b]", lambda: decided([0, 1, 1], [0, 0, 0], 2),
          "null: never predicted", sk("class_likelihood_ratios", [0, 1, 1], [0, 0, 0])),
    shape("a probability is exactly 1", "calibration_slope", lambda: made([0, 1, 0, 1], ONE_HOT, stated=True),
          "null: a probability is exactly 0 or 1, so its log odds are infinite"),
    shape("one image of class b", "roc_auc's interval", lambda: made([0, 0, 1], [[2, 0], [0, 1], [0, 2]]),
          "null: needs at least 2 images of the class and 2 of the others"),
    shape("one patient", "accuracy's interval", lambda: made([0, 1], [[1, 0], [1, 0]], groups=("p", "p")),
          "null: needs images of at least 2 patients"),
    shape("one patient", "f1_macro's interval", lambda: made([0, 1], [[1, 0], [1, 0]], groups=("p", "p")),
          "null: needs at least 2 groups"),
    shape("all patients all right", "accuracy's interval",
          lambda: made([0, 1] * 3, [[1, 0], [0, 1]] * 3, groups=tuple("aabbcc")), r"0\.\d+ to 1\.0000"),
    shape("0 of 0", "recall[b]'s interval", lambda: decided([0, 0], [0, 1], 2), "null: no images of this class"),
    Case("0 of 9", "Wilson's interval", lambda: limits(proportion_interval(0, 9)), r"0\.0000 to 0\.2991"),
    shape("0 of 0, with patients", "recall[b]'s interval",
          lambda: made([0, 0], [[1, 0], [1, 0]], groups=("p", "q")), "null: no images of this class"),
    Case("tp = fp = 0", "LR+'s interval", lambda: limits(likelihood_ratio_intervals(0, 0, 5, 5)[0]),
         "null: the ratio is 0/0"),
    Case("identical models, b + c = 0", "McNemar's test", lambda: f"p = {mcnemar(0, 0)[0]:g}", "p = 1"),
    Case("b + c = 1", "McNemar's test", lambda: f"p = {mcnemar(1, 0)[0]:g}", "p = 1"),
    Case("identical scores", "DeLong's paired test", p_value([0, 0, 1, 1], MIXED, MIXED), "p = 1"),
    Case("both models separate perfectly", "DeLong's paired test", p_value([0, 0, 1, 1], [1, 2, 3, 4], [0, 1, 2, 9]),
         "p = 1"),
]  # fmt: skip
