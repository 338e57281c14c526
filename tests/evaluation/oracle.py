"""The metrics as scikit-learn gives them, and the random predictions that both are held to."""

import warnings

import numpy as np
import sklearn
import sklearn.metrics as oracle
from numpy.typing import NDArray

from evalcam_cli.evaluation.metrics import Metrics
from evalcam_cli.evaluation.predictions import Predictions
from evalcam_cli.evaluation.stated import StatedProbabilities

NAN = float("nan")
EPSILON = 2.220446049250313e-16
"""scikit-learn's log loss clips probabilities to this."""
NOT_IN_SCIKIT_LEARN = ("ece", "ece_equal_mass", "mce", "calibration_slope", "calibration_intercept")
_PAIRS_BY_SCIKIT_LEARN = 6  # more pairs of classes are counted one by one: scikit-learn takes a millisecond for each

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def values(metrics: Metrics) -> dict[str, float | None]:
    """Every number by name, `metric` or `metric[class]`."""
    found = {name: estimate.estimate for name, estimate in metrics.overall.items()}
    for label, entry in metrics.per_class.items():
        found |= {f"{name}[{label}]": estimate.estimate for name, estimate in entry.estimates.items()}
    return found


def scikit_learn_values(predictions: Predictions) -> dict[str, float]:
    """The same numbers, NaN where evalcam says undefined and scikit-learn says 0 for want of anything better."""
    cheap = sklearn.config_context(assume_finite=True, skip_parameter_validation=True)
    with warnings.catch_warnings(), np.errstate(divide="ignore", invalid="ignore"), cheap:
        warnings.simplefilter("ignore")  # scikit-learn warns where it invents a number
        return _values(predictions)


def _values(predictions: Predictions) -> dict[str, float]:
    truth, predicted, probabilities = predictions.targets, predictions.predicted, predictions.probabilities
    classes = predictions.classes
    labels = list(range(len(classes)))
    by_class, support = class_values(truth, predicted, labels)
    by_class |= _ranked(truth, probabilities)
    several = len(set(truth)) > 1 and len(set(predicted)) > 1
    wanted = {
        "accuracy": oracle.accuracy_score(truth, predicted),
        "balanced_accuracy": oracle.balanced_accuracy_score(truth, predicted),
        "log_loss": _log_loss(predictions, labels),
        "brier": oracle.brier_score_loss(truth, probabilities, labels=labels, scale_by_half=len(labels) == 2),
        "mcc": oracle.matthews_corrcoef(truth, predicted) if several else NAN,
        "cohen_kappa": oracle.cohen_kappa_score(truth, predicted),
        "no_information_rate": support.max() / support.sum(),
    }
    for name in ("precision", "recall", "specificity", "npv", "f1", "average_precision"):
        wanted[f"{name}_macro"] = np.nanmean(by_class[name])
        wanted[f"{name}_weighted"] = weighted_by(support, by_class[name])
    wanted |= _micro(truth, predicted, labels) | _pooled(truth, probabilities, by_class["roc_auc"])
    if len(labels) == 2:
        point = predictions.operating_point  # p near 1 has ties that p near 0 has not: the side matters
        wanted["roc_auc"] = by_class["roc_auc"][1 if point is None else classes.index(point.positive)]
    for k in (3, 5):
        wanted[f"top_{k}_accuracy"] = (
            oracle.top_k_accuracy_score(truth, in_class_order(_scores(predictions)), k=k, labels=labels)
            if k < len(labels)
            else NAN
        )
    wanted |= _at_point(predictions)
    return wanted | {f"{name}[{classes[i]}]": by_class[name][i] for name in by_class for i in labels}


def class_values(truth: Ints, predicted: Ints, labels: list[int]) -> tuple[dict[str, Floats], Ints]:
    """(K,) count metrics of each class, and its support."""
    tn, fp, fn, tp = oracle.multilabel_confusion_matrix(truth, predicted, labels=labels).reshape(-1, 4).T
    precision, recall, f1, support = oracle.precision_recall_fscore_support(
        truth, predicted, labels=labels, average=None, zero_division=np.nan
    )
    return {
        "precision": precision,
        "recall": recall,
        "f1": f1,
        "specificity": tn / (tn + fp),
        "npv": tn / (tn + fn),
        "lr_positive": np.where(fp * (tp + fn) > 0, tp * (tn + fp) / (fp * (tp + fn)), NAN),
        "lr_negative": np.where(tn * (tp + fn) > 0, fn * (tn + fp) / (tn * (tp + fn)), NAN),
    }, support


def _micro(truth: Ints, predicted: Ints, labels: list[int]) -> dict[str, float]:
    precision, recall, f1, _ = oracle.precision_recall_fscore_support(truth, predicted, labels=labels, average="micro")
    cells = oracle.confusion_matrix(truth, predicted, labels=labels)
    n, right = cells.sum(), np.trace(cells)
    tn, wrong = (len(labels) - 2) * n + right, n - right  # over all classes
    return {
        "precision_micro": precision,
        "recall_micro": recall,
        "f1_micro": f1,
        "specificity_micro": tn / (tn + wrong),
        "npv_micro": tn / (tn + wrong),
    }


def _ranked(truth: Ints, probabilities: Floats) -> dict[str, Floats]:
    """(K,) metrics of rank; NaN for a class without images, or without images of others."""
    n, k = probabilities.shape
    flags = np.eye(k, dtype=np.int64)[truth]
    support = flags.sum(axis=0)
    two_sided = np.flatnonzero((support > 0) & (support < n))
    found = {name: np.full(k, NAN) for name in ("roc_auc", "partial_roc_auc", "average_precision")}
    if len(two_sided):  # two or more, taken for labels that do not exclude each other: one call for all
        columns = flags[:, two_sided], probabilities[:, two_sided]
        found["roc_auc"][two_sided] = oracle.roc_auc_score(*columns, average=None)
        found["partial_roc_auc"][two_sided] = oracle.roc_auc_score(*columns, average=None, max_fpr=0.1)
        found["average_precision"][two_sided] = oracle.average_precision_score(*columns, average=None)
    return found


def _pooled(truth: Ints, probabilities: Floats, areas: Floats) -> dict[str, float]:
    k = probabilities.shape[1]
    flat = np.eye(k)[truth].ravel()
    found = {"average_precision_micro": oracle.average_precision_score(flat, probabilities.ravel())}
    if k == 2:
        return found
    return found | {
        "roc_auc_ovr_macro": np.nanmean(areas),
        "roc_auc_ovr_weighted": weighted_by(np.bincount(truth, minlength=k), areas),
        "roc_auc_ovr_micro": oracle.roc_auc_score(flat, probabilities.ravel()),
        "roc_auc_ovo_macro": hand_till_by_pairs(truth, probabilities),
    }


def _log_loss(predictions: Predictions, labels: list[int]) -> float:
    """scikit-learn's where it does not clip, else minus the mean of the logarithms; NaN when that is infinite."""
    rows = np.arange(len(predictions.targets))
    if predictions.probabilities[rows, predictions.targets].min() > EPSILON:
        return float(oracle.log_loss(predictions.targets, predictions.probabilities, labels=labels))
    losses = -predictions.log_probabilities[rows, predictions.targets]
    return float(losses.mean()) if np.isfinite(losses).all() else NAN


def _at_point(predictions: Predictions) -> dict[str, float]:
    point, called = predictions.operating_point, predictions.called
    if point is None or called is None:
        return {}
    positive = predictions.targets == predictions.classes.index(point.positive)
    found, _ = class_values(positive.astype(np.int64), called.astype(np.int64), [0, 1])
    return {f"{name}@op": column[1] for name, column in found.items()} | {
        "accuracy@op": oracle.accuracy_score(positive, called)
    }


def weighted_by(support: Ints, values: Floats) -> float:
    """The mean of the defined values by support; NaN when none of their classes has images."""
    defined = ~np.isnan(values) & (support > 0)
    return float(np.average(values[defined], weights=support[defined])) if defined.any() else NAN


def _scores(predictions: Predictions) -> Floats:
    """What decides the order of the classes of an image."""
    if isinstance(predictions, StatedProbabilities):
        return predictions.stated
    return predictions.logits.astype(np.float64)


def in_class_order(scores: Floats) -> Floats:
    """The rank of each score in its row, equals in class order: scikit-learn's top-k has another tie rule."""
    order = np.argsort(-scores, axis=1, kind="stable")
    return -np.argsort(order, axis=1, kind="stable").astype(np.float64)


def hand_till_by_pairs(truth: Ints, probabilities: Floats) -> float:
    """The mean of A(i|j) over ordered pairs of classes with images, each by scikit-learn where the pairs are few."""
    present = sorted(set(truth.tolist()))
    areas = [
        oracle.roc_auc_score(truth[pair] == i, probabilities[pair, i])
        if len(present) * (len(present) - 1) <= _PAIRS_BY_SCIKIT_LEARN
        else _counted_area(probabilities[truth == i, i], probabilities[truth == j, i])
        for i in present
        for j in present
        if i != j and len(pair := np.flatnonzero((truth == i) | (truth == j)))
    ]
    return float(np.mean(areas)) if areas else NAN


def _counted_area(positives: Floats, negatives: Floats) -> float:
    above = (positives[:, None] > negatives).sum() + (positives[:, None] == negatives).sum() / 2
    return float(above / (len(positives) * len(negatives)))
