"""Draw every plot from made-up predictions into a folder to look at: python tests/benchmarks/gallery.py FOLDER."""

import sys
import time
from pathlib import Path

import numpy as np

from evalcam_cli.evaluation.metrics import compute_metrics
from evalcam_cli.evaluation.operating_point import OperatingPoint
from evalcam_cli.evaluation.predictions import Predictions
from evalcam_cli.report.plots_calibration import plot_calibration
from evalcam_cli.report.plots_confusion import plot_confusion_matrix
from evalcam_cli.report.plots_decisions import plot_decision_curve, plot_risk_coverage
from evalcam_cli.report.plots_folds import FoldDots, plot_folds
from evalcam_cli.report.plots_ranking import plot_precision_recall, plot_roc, roc_bands
from evalcam_cli.report.plots_scores import plot_scores
from evalcam_cli.report.plots_training import plot_curves

HOSTILE = (
    *(
        "$x_{1}$",
        "a_b_c",
        "교모세포종",
        "正常",
        "\U0001f984 unicorn",
        "<b>&amp;",
        "\\frac{1}{2}",
        "=SUM(A1)",
        "",
        "a\nb",
    ),
    *(
        "an_extraordinarily_long_class_name_that_never_ends_left",
        "an_extraordinarily_long_class_name_that_never_ends_right",
    ),
)


def predictions_of(
    k: int,
    n: int,
    *,
    names: tuple[str, ...] = (),
    absent: int | None = None,
    skill: float = 2.0,
    temperature: float = 1.0,
    point: bool = False,
    groups: bool = False,
) -> Predictions:
    """Logits of N images that know the true class to some degree."""
    generator = np.random.default_rng(k)
    present = [index for index in range(k) if index != absent]
    targets = generator.choice(present, n)
    logits = generator.normal(size=(n, k)).astype(np.float32)
    logits[np.arange(n), targets] += skill
    classes = names or tuple(f"class {index}" for index in range(k))
    chosen = OperatingPoint(classes[-1], 0.4, "sensitivity>=0.95", 80, 120, 0.95, 0.8) if point else None
    patients = tuple(f"p{index // 4}" for index in range(n)) if groups else ()
    return Predictions(
        classes, logits, targets, ("",) * n, groups=patients, temperature=temperature, operating_point=chosen
    )


def cases() -> dict[str, Predictions]:
    """Inputs by name, from the usual to the odd."""
    return {
        "2": predictions_of(2, 400, point=True, temperature=1.6),
        "2_patients": predictions_of(2, 300, point=True, groups=True),
        "2_perfect": predictions_of(2, 100, skill=30),
        "2_one_class": predictions_of(2, 50, absent=1, point=True),
        "2_one_image": predictions_of(2, 1),
        "2_hostile": predictions_of(2, 100, names=(HOSTILE[0], HOSTILE[2]), point=True),
        "4": predictions_of(4, 600, temperature=0.6),
        "4_point": predictions_of(4, 600, point=True),
        "4_absent": predictions_of(4, 60, absent=2),
        "10": predictions_of(10, 5000),
        "12": predictions_of(12, 1500),
        "12_hostile": predictions_of(12, 400, names=HOSTILE),
        "30": predictions_of(30, 60_000),
        "31": predictions_of(
            31, 2000, names=tuple(f"an_extraordinarily_long_class_name_{i:03d}_really" for i in range(31))
        ),
        "31_perfect": predictions_of(31, 100, skill=40),
        "100_hostile": predictions_of(100, 1000, names=tuple(f"${i}_x^$ 정상 \U0001f984{i}" for i in range(100))),
        "1000_absent": predictions_of(1000, 600, skill=4),
    }


def draw(folder: Path, name: str, predictions: Predictions) -> None:
    """All plots of one set of predictions."""
    metrics = compute_metrics(predictions, bootstrap=200)
    started = time.process_time()
    pictures = {
        "confusion": plot_confusion_matrix(metrics.confusion, metrics.classes),
        "roc": plot_roc(predictions, metrics, roc_bands(predictions, metrics)),
        "precision_recall": plot_precision_recall(predictions, metrics),
        "calibration": plot_calibration(predictions, metrics),
        "scores": plot_scores(predictions, metrics),
    }
    print(f"{name}: {time.process_time() - started:.2f} s", flush=True)
    for kind, picture in pictures.items():
        (folder / f"{name}.{kind}.png").write_bytes(picture)


def draw_others(folder: Path) -> None:
    """Plots that take plain numbers."""
    places = np.arange(1, 100) / 100
    everyone = 0.3 - 0.7 * places / (1 - places)
    model = np.maximum(0.27 - 0.2 * places, everyone) * (1 - places**4)
    generator = np.random.default_rng(0)
    wrong = np.sort(generator.random(500) < 0.15)
    coverage = np.arange(1, 501) / 500
    risk = np.cumsum(generator.permutation(500)[np.argsort(wrong)] < 60) / np.arange(1, 501)
    values = [0.81, 0.84, 0.79, 0.86, 0.84]
    folds = [
        FoldDots("accuracy", values, 0.828, 0.78, 0.88),
        FoldDots("balanced_accuracy", [0.8, None, 0.78, 0.82, 0.8], 0.8, 0.74, 0.86),
        FoldDots("roc_auc_ovr_macro", [0.97] * 5, 0.97, 0.97, 0.97),
        FoldDots("mcc", [None] * 5, None),
    ]
    rows = [
        {"epoch": e, "train_loss": 1 / e, "val_loss": 0.3 + (e - 6) ** 2 / 50, "val_accuracy": 0.9 - 0.4 / e}
        | {"val_balanced_accuracy": 0.88 - 0.4 / e, "lr": 1e-3 / e}
        for e in range(1, 13)
    ]
    pictures = {
        "decision": plot_decision_curve(
            places, model, everyone, low=model - 0.03, high=model + 0.03, positive="$x_1$ tumour", operating_point=0.2
        ),
        "decision_undefined": plot_decision_curve(places, places * np.nan, everyone),
        "risk": plot_risk_coverage(coverage, risk, low=risk * 0.8, high=risk * 1.2 + 0.01, area=float(risk.mean())),
        "risk_one": plot_risk_coverage([1.0], [1.0]),
        "folds": plot_folds(folds),
        "folds_none": plot_folds([]),
        "curves": plot_curves(rows),
        "curves_one": plot_curves(rows[:1]),
    }
    for kind, picture in pictures.items():
        (folder / f"other.{kind}.png").write_bytes(picture)


def main() -> None:
    """Draw everything, or the cases named after the folder."""
    folder, wanted = Path(sys.argv[1]), sys.argv[2:]
    folder.mkdir(parents=True, exist_ok=True)
    for name, predictions in cases().items():
        if not wanted or name in wanted:
            draw(folder, name, predictions)
    if not wanted or "other" in wanted:
        draw_others(folder)


if __name__ == "__main__":
    main()
