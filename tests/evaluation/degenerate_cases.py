"""Degenerate inputs, what evalcam must say of them, and how to ask scikit-learn and torchmetrics the same."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from evalcam_cli.errors import EvalcamError
from evalcam_cli.evaluation.estimates import Interval
from evalcam_cli.evaluation.metrics import compute_metrics
from evalcam_cli.evaluation.predictions import Predictions
from evalcam_cli.evaluation.saved import read_predictions
from evalcam_cli.evaluation.stated import StatedProbabilities

Rows = Sequence[Sequence[float]]
NAN, INF = float("nan"), float("inf")


@dataclass(frozen=True)
class Peer:
    """A function of another tool, and its call."""

    function: str
    ask: Callable[[], Any]


@dataclass(frozen=True)
class Case:
    """One input and one number asked of it."""

    name: str
    asked: str
    ours: Callable[[], str]
    expected: str
    """A regular expression of all that evalcam says."""
    scikit_learn: Peer | None = None
    torchmetrics: Peer | None = None


def made(
    targets: Sequence[int], scores: Rows, *, stated: bool = False, groups: Sequence[str] = (), dtype: Any = np.float32
) -> Predictions:
    names, paths = tuple("abcdef"[: len(scores[0]) if scores else 2]), tuple(f"{i}.png" for i in range(len(targets)))
    values = np.array(scores, dtype=np.float64).reshape(len(targets), len(names))
    if stated:
        with np.errstate(divide="ignore"):
            logits = np.log(values).astype(np.float32)
        return StatedProbabilities(names, logits, np.array(targets), paths, groups=tuple(groups), stated=values)
    return Predictions(names, values.astype(dtype), np.array(targets, dtype=np.int64), paths, groups=tuple(groups))


def decided(targets: Sequence[int], predicted: Sequence[int], k: int) -> Predictions:
    return made(targets, np.eye(k)[list(predicted)].tolist())


def said(name: str, predictions: Callable[[], Predictions], *, end: str = "estimate") -> str:
    """What evalcam says of `metric` or `metric[class]`, or of its interval."""
    try:
        metrics = compute_metrics(predictions(), bootstrap=None if end == "estimate" else 50)
    except EvalcamError as error:
        return f"refused: {error}".partition("\n")[0]
    base, _, label = name.rstrip("]").partition("[")
    found = metrics.per_class[label].estimates[base] if label else metrics.overall[base]
    if end == "interval":
        return limits(Interval(found.ci_low, found.ci_high, found.ci_method, found.ci_note or found.undefined_reason))
    suffix = f" ({found.classes_counted} classes)" if found.classes_counted is not None else ""
    return f"null: {found.undefined_reason}" if found.estimate is None else f"{found.estimate:.6g}{suffix}"


def limits(interval: Interval) -> str:
    if interval.low is None and interval.high is None:
        return f"null: {interval.note}"
    high = "no upper limit" if interval.high is None else f"{interval.high:.4f}"
    return f"{interval.low:.4f} to {high}"


def from_csv(text: str, name: str = "accuracy") -> Callable[[], str]:
    """What evalcam says of predictions in a CSV file."""

    def ask() -> str:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "p.csv"
            path.write_text(text, encoding="utf-8")
            try:
                predictions = read_predictions(path)
            except EvalcamError as error:
                return f"refused: {error}".replace(str(path), "p.csv").replace("\n", " ")
            return said(name, lambda: predictions)

    return ask


def sk(name: str, *arguments: Any, **options: Any) -> Peer:
    """A function of `sklearn.metrics`."""

    def ask() -> Any:
        import sklearn.metrics

        return getattr(sklearn.metrics, name)(*map(np.asarray, arguments), **options)

    return Peer(name, ask)


def tm(name: str, scores: Any, targets: Any, **options: Any) -> Peer:
    """A function of `torchmetrics.functional.classification`."""

    def ask() -> Any:
        import torch
        import torchmetrics.functional.classification as functional

        return getattr(functional, name)(torch.tensor(scores), torch.tensor(targets), **options).tolist()

    return Peer(name, ask)


def shape(name: str, asked: str, predictions: Callable[[], Predictions], expected: str, *peers: Peer | None) -> Case:
    """A case asked of predictions."""
    end = "interval" if asked.endswith("'s interval") else "estimate"
    metric = asked.removesuffix("'s interval")
    return Case(name, asked, lambda: said(metric, predictions, end=end), expected, *peers)


ABSENT = [[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.6, 0.3, 0.1], [0.3, 0.6, 0.1], [0.5, 0.3, 0.2]], [0, 1, 0, 1, 1]
"""Five images of two of three classes; the last one is predicted wrongly."""
CALLED = ABSENT[1], [0, 1, 0, 1, 0]
OF_THREE = {"labels": [0, 1, 2]}
PREDICTED = [0, 0, 1, 1], [0, 2, 1, 1]
"""Truth and prediction; class c is predicted but never true."""
HALF = [[0.5, 0.5]] * 4
THREE = {"num_classes": 3}
EACH = {"num_classes": 3, "average": None}
TIES = [[0.25] * 4] * 4
ONE_HOT = [[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 0.0]]
LOG_LOSS = [[0.0, 1.0], [0.5, 0.5]]
HUGE = [[1e30, 0.0], [1e30, 0.0]]
LAST_BIT = [0.25, float(np.nextafter(0.25, 1))]
SEPARATED = [[0.9, 0.1], [0.8, 0.2], [0.2, 0.8], [0.1, 0.9]]


def absent(asked: str, expected: str, *peers: Peer | None) -> Case:
    """Of `ABSENT`."""
    return shape("class c has no images", asked, lambda: made(ABSENT[1], ABSENT[0], stated=True), expected, *peers)


def phantom(asked: str, expected: str, *peers: Peer | None) -> Case:
    """Of `PREDICTED`."""
    return shape("class c is predicted but has no images", asked, lambda: decided(*PREDICTED, 3), expected, *peers)


def with_second(column: Sequence[float]) -> list[list[float]]:
    """Rows of two probabilities from those of the second class."""
    return [[1 - p, p] for p in column]


CASES = [

    absent("recall_macro", r"0\.833333 \(2 classes\)", sk("recall_score", *CALLED, average="macro",
           **OF_THREE), tm("multiclass_recall", ABSENT[0], ABSENT[1], average="macro", **THREE)),
    absent("balanced_accuracy", r"0\.833333 \(2 classes\)", sk("balanced_accuracy_score", *CALLED)),
    absent("f1_macro", r"0\.8 \(2 classes\)", sk("f1_score", *CALLED, average="macro",
           **OF_THREE), tm("multiclass_f1_score", ABSENT[0], ABSENT[1], average="macro", **THREE)),
    absent("roc_auc_ovr_macro", r"0\.958333 \(2 classes\)", sk("roc_auc_score", ABSENT[1], ABSENT[0], **OF_THREE,
           multi_class="ovr"), tm("multiclass_auroc", ABSENT[0], ABSENT[1], average="macro", **THREE)),
    absent("roc_auc_ovo_macro", r"0\.958333", sk("roc_auc_score", ABSENT[1], ABSENT[0], **OF_THREE,
           multi_class="ovo")),
    absent("roc_auc[c]", "null: no images of this class", sk("roc_auc_score", [0] * 5, [0.1, 0.1, 0.1, 0.1, 0.2]),
           tm("multiclass_auroc", ABSENT[0], ABSENT[1], **EACH)),
    absent("average_precision[c]", "null: no images of this class", sk("average_precision_score", [0] * 5,
           [0.1, 0.1, 0.1, 0.1, 0.2]), tm("multiclass_average_precision", ABSENT[0], ABSENT[1], **EACH)),
    absent("f1[c]", "null: no images of this class, and never predicted", sk("f1_score", *CALLED,
           labels=[2], average="macro"), tm("multiclass_f1_score", ABSENT[0], ABSENT[1], **EACH)),

    phantom("precision[c]", "0", sk("precision_score", *PREDICTED, labels=[2], average="macro"),
           tm("multiclass_precision", PREDICTED[1], PREDICTED[0], **EACH)),
    phantom("recall[c]", "null: no images of this class", sk("recall_score", *PREDICTED, labels=[2], average="macro"),
           tm("multiclass_recall", PREDICTED[1], PREDICTED[0], **EACH)),
    phantom("recall_macro", r"0\.75 \(2 classes\)", sk("recall_score", *PREDICTED, average="macro"),
           tm("multiclass_recall", PREDICTED[1], PREDICTED[0], average="macro", **THREE)),
    phantom("precision_macro", r"0\.666667 \(3 classes\)", sk("precision_score", *PREDICTED, average="macro"),
           tm("multiclass_precision", PREDICTED[1], PREDICTED[0], average="macro", **THREE)),
    shape("class b is never predicted", "precision[b]", lambda: decided([0, 1], [0, 0], 2), "null: never predicted",
          sk("precision_score", [0, 1], [0, 0]), tm("binary_precision", [0, 0], [0, 1])),
    shape("class b is never predicted", "precision_macro", lambda: decided([0, 1], [0, 0], 2), r"0\.5 \(1 classes\)",
          sk("precision_score", [0, 1], [0, 0], average="macro"),
          tm("multiclass_precision", [0, 0], [0, 1], num_classes=2, average="macro")),
    shape("all images predicted as b", "npv[b]", lambda: decided([0, 1], [1, 1], 2),
          "null: all images are predicted as this class", sk("precision_score", [0, 1], [1, 1], pos_label=0)),
    shape("n = 1", "mcc", lambda: decided([0], [0], 2), "null: all images are of one class or predicted as one class",
          sk("matthews_corrcoef", [0], [0]), tm("binary_matthews_corrcoef", [0], [0])),
    shape("n = 1", "cohen_kappa", lambda: decided([0], [0], 2), "null: all images are of one class and predicted as it",
          sk("cohen_kappa_score", [0], [0]), tm("binary_cohen_kappa", [0], [0])),
    shape("n = 1", "roc_auc", lambda: made([1], [[0.0, 1.0]]), "null: only one class has images",
          sk("roc_auc_score", [1], [0.7]), tm("binary_auroc", [0.7], [1])),
    shape("n = 1", "accuracy's interval", lambda: decided([0], [0], 2), r"0\.2065 to 1\.0000"),
    shape("n = 1", "brier's interval", lambda: made([0], [[1.0, 0.0]]), "null: needs at least 2 images"),
    shape("no images", "accuracy", lambda: made([], []), "refused: there are no images to evaluate",
          sk("accuracy_score", [], []), tm("binary_accuracy", [], [])),
    shape("all scores equal", "roc_auc", lambda: made([0, 1, 1, 1], HALF, stated=True), r"0\.5",
          sk("roc_auc_score", [0, 1, 1, 1], [0.5] * 4), tm("binary_auroc", [0.5] * 4, [0, 1, 1, 1])),
    shape("all scores equal", "average_precision[b]", lambda: made([0, 1, 1, 1], HALF, stated=True), r"0\.75",
          sk("average_precision_score", [0, 1, 1, 1], [0.5] * 4),
          tm("binary_average_precision", [0.5] * 4, [0, 1, 1, 1])),
    shape("all scores equal", "roc_auc's interval", lambda: made([0, 0, 1, 1], HALF, stated=True), r"0\.\d+ to 0\.\d+"),
    shape("all scores equal", "calibration_slope", lambda: made([0, 1, 1, 1], HALF, stated=True),
          "null: all images have the same probability"),
    *(
        shape(f"a score is {value}", "roc_auc", partial(made, [0, 1], [[0.0, value], [0.0, 1.0]]),
              r"refused: 1 image of 2 got NaN or infinite scores: 0\.png;", sk("roc_auc_score", [0, 1], [value, 1.0]),
              tm("binary_auroc", [value, 1.0], [0, 1]))
        for value in (NAN, INF, -INF)
    ),
    Case("a probability is NaN", "accuracy", from_csv("target,p:a,p:b\na,nan,0.5\nb,0.1,0.9\n"),
         "refused: p.csv: 1 row with probabilities that are not from 0 to 1 .*: row 2",
         sk("log_loss", [0, 1], [[NAN, 0.5], [0.1, 0.9]]), tm("multiclass_accuracy", [[NAN, 0.5], [0.1, 0.9]], [0, 1],
                                                              num_classes=2, average="micro")),
    Case("a probability is 1.0000001", "accuracy",
         from_csv("target,p:a,p:b\na,0.9,0.1\na,0.8,0.2\na,0.7,0.3\nb,-0.0000001,1.0000001\n"), "1",
         sk("log_loss", [0, 0, 0, 1], [0.1, 0.2, 0.3, 1.0000001]),
         tm("binary_accuracy", [0.1, 0.2, 0.3, 1.0000001], [0, 0, 0, 1])),
    Case("a probability is 1.1", "accuracy", from_csv("target,p:a,p:b\na,-0.1,1.1\n"),
         "refused: p.csv: 1 row with probabilities that are not from 0 to 1 .*",
         sk("brier_score_loss", [0, 1], [0.1, 1.1]), tm("binary_accuracy", [0.1, 1.1], [0, 1])),
    Case("rows that do not sum to 1", "accuracy", from_csv("target,p:a,p:b\na,0.9,0.9\nb,0.1,0.2\n"),
         "refused: p.csv: 2 rows with probabilities that do not sum to 1: row 2, 3",
         sk("log_loss", [0, 1], [[0.9, 0.9], [0.1, 0.2]]),
         tm("multiclass_auroc", [[0.9, 0.9], [0.1, 0.2]], [0, 1], num_classes=2)),
    Case("logits passed as probabilities", "accuracy", from_csv("target,p:a,p:b\na,3.1,-2\nb,-1,4\n"),
         r"refused: p.csv: 2 rows with probabilities that are not from 0 to 1 \(write logits as logit:<class>\): .*",
         sk("log_loss", [0, 1], [[3.1, -2], [-1, 4]]), tm("multiclass_calibration_error", [[3.1, -2.0], [-1.0, 4.0]],
                                                          [0, 1], num_classes=2)),
    Case("two columns of one class", "accuracy", from_csv("target,p:a,p:a\na,0.5,0.5\n"),
         "refused: p.csv has several columns named 'p:a'; names must differ"),
    Case("a single class", "accuracy", from_csv("target,p:a\na,1\n"),
         "refused: p.csv has scores for 1 class; two are needed at least"),
    Case("a target that is no class", "accuracy", from_csv("target,p:a,p:b\nc,0.5,0.5\n"),
         "refused: p.csv, row 2: target 'c' is none of the 2 classes.*",
         sk("log_loss", [2], [[0.5, 0.5]], labels=[0, 1]), tm("multiclass_accuracy", [[0.5, 0.5]], [2], num_classes=2)),
    Case("an empty file", "accuracy", from_csv(""), "refused: p.csv is empty; expected a header and a row per image"),
    Case("a header and no rows", "accuracy", from_csv("target,p:a,p:b\n"), "refused: p.csv has a header but no rows"),
    Case("a row that is too short", "accuracy", from_csv("target,p:a,p:b\na,0.5\n"),
         "refused: p.csv: 1 row with another number of cells than the header's 3: row 2"),
]  # fmt: skip
