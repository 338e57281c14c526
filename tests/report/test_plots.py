"""Pictures: that they are drawn for every input, the same each time, and hold what they should."""

import io
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from evalcam_cli.evaluation.metrics import compute_metrics
from evalcam_cli.evaluation.predictions import Predictions
from evalcam_cli.report import drawing, plots

NAMES = {
    "brackets": '[red]${}_x^$ "q" <b>\\',
    "hangul": "교모세포종 {}",
    "long": "an_extraordinarily_long_class_name_that_never_ends_{}_really",
    "none has it": "\U0001f984{}",
}


def sample(k: int, n: int = 120, name: str = "class {}") -> Predictions:
    generator = np.random.default_rng(k)
    targets = generator.integers(0, k, n)
    logits = generator.normal(size=(n, k))
    logits[np.arange(n), targets] += 2
    classes = tuple(name.format(index) for index in range(k))
    return Predictions(classes, logits.astype(np.float32), targets, ("",) * n)


def every_plot(predictions: Predictions) -> list[bytes]:
    metrics = compute_metrics(predictions, bootstrap=20)
    return [
        plots.plot_confusion_matrix(metrics.confusion, metrics.classes),
        plots.plot_roc(predictions, metrics),
        plots.plot_precision_recall(predictions, metrics),
        plots.plot_calibration(predictions, metrics),
    ]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures made during a test, to ask what they hold."""
    figures: list[Figure] = []

    def remember(width: float, height: float) -> Figure:
        figures.append(drawing_new_figure(width, height))
        return figures[-1]

    drawing_new_figure = drawing.new_figure
    monkeypatch.setattr(plots, "new_figure", remember)
    return figures


def texts(figure: Figure) -> list[str]:
    legends = [text for axes in figure.axes if (legend := axes.get_legend()) for text in legend.get_texts()]
    return [text.get_text() for axes in figure.axes for text in axes.texts] + [text.get_text() for text in legends]


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
@pytest.mark.parametrize("k", [3, 31])
def test_any_names_are_drawn_without_a_warning(k: int, name: str) -> None:
    for picture in every_plot(sample(k, name=name)):
        image = Image.open(io.BytesIO(picture))
        image.load()
        assert image.format == "PNG"
        assert 300 < image.width < 4000
        assert "Software" not in image.info


def test_the_same_input_gives_the_same_bytes() -> None:
    assert every_plot(sample(3)) == every_plot(sample(3))


def test_settings_of_the_user_change_nothing_and_stay_as_they_are() -> None:
    counts = np.eye(3, dtype=np.int64)
    usual = plots.plot_confusion_matrix(counts, "abc")

    with matplotlib.rc_context({"font.size": 30.0, "axes.facecolor": "red", "savefig.dpi": 30}):
        assert plots.plot_confusion_matrix(counts, "abc") == usual
        assert matplotlib.rcParams["font.size"] == 30


def test_pyplot_is_never_loaded() -> None:
    code = (
        "import sys, evalcam_cli.report.plots; sys.exit('matplotlib.pyplot' in sys.modules or 'torch' in sys.modules)"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_cell_holds_its_count_and_its_share_of_the_row(drawn: list[Figure]) -> None:
    plots.plot_confusion_matrix(np.array([[1, 3], [0, 0]]), ("a", "b"))

    axes = drawn[0].axes[0]
    assert [text.get_text() for text in axes.texts] == ["1\n25%", "3\n75%", "0\n–", "0\n–"]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["a (n=4)", "b (n=0)"]
    assert axes.get_xlabel() == "predicted class"
    assert [text.get_position() for text in axes.texts][1] == (1, 0)  # x: predicted, y: true


@pytest.mark.parametrize(
    ("share", "shown"), [(0, "0%"), (0.001, "<1%"), (0.5, "50%"), (0.999, ">99%"), (1, "100%")]
)  # fmt: skip
def test_a_percentage_is_never_rounded_to_all_or_nothing(share: float, shown: str) -> None:
    assert plots._percent(share) == shown


def test_many_classes_show_their_confusions_most_frequent_first(drawn: list[Figure]) -> None:
    confusion = np.diag(np.full(31, 10))
    confusion[4, 7], confusion[20, 2] = 5, 9

    plots.plot_confusion_matrix(confusion, tuple(f"c{index}" for index in range(31)))

    axes = drawn[0].axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["c20 → c2", "c4 → c7"]
    assert [text.get_text() for text in axes.texts] == ["9 of 19", "5 of 15"]
    assert "31 classes, 14 images wrong" in axes.get_title()


def test_no_confusion_at_all_is_said(drawn: list[Figure]) -> None:
    plots.plot_confusion_matrix(np.diag(np.full(40, 3)), tuple(map(str, range(40))))

    assert "no confusions" in drawn[0].axes[0].get_title()


def test_two_classes_have_one_curve_with_its_area_and_the_chance_line(drawn: list[Figure]) -> None:
    predictions = sample(2)
    metrics = compute_metrics(predictions, positive="class 0", bootstrap=20)
    auc, average_precision = metrics.overall["roc_auc"], metrics.per_class["class 0"].estimates["average_precision"]

    plots.plot_roc(predictions, metrics)
    plots.plot_precision_recall(predictions, metrics)

    roc, recall = texts(drawn[0]), texts(drawn[1])
    assert roc == ["chance", f"class 0: AUC {auc.estimate:.3f} [{auc.ci_low:.3f}, {auc.ci_high:.3f}]"]
    assert recall[0].startswith(f"class 0: average precision {average_precision.estimate:.3f} [")
    assert recall[1] == f"guessing: {metrics.per_class['class 0'].support / 120:.3f}, the share of the class"
    assert drawn[0].axes[0].get_aspect() == 1


def test_many_classes_show_the_mean_and_the_five_worst(drawn: list[Figure]) -> None:
    predictions = sample(11)
    metrics = compute_metrics(predictions)
    areas = {label: entry.estimates["roc_auc"].estimate or 0.0 for label, entry in metrics.per_class.items()}

    plots.plot_roc(predictions, metrics)

    labels = texts(drawn[0])
    assert labels[1].startswith("mean of 11 classes: AUC")
    assert [label.split(":")[0] for label in labels[2:]] == sorted(areas, key=lambda name: areas[name])[:5]


def test_images_of_one_class_have_no_curve_and_the_picture_says_so(drawn: list[Figure]) -> None:
    predictions = sample(3)
    alone = Predictions(predictions.classes, predictions.logits, np.zeros(120, dtype=np.int64), predictions.paths)

    every_plot(alone)

    assert any("no ROC curve" in text for text in texts(drawn[1]))
    assert any("no precision-recall curve" in text for text in texts(drawn[2]))


def test_bins_show_how_many_images_they_hold(drawn: list[Figure]) -> None:
    predictions = sample(2)

    plots.plot_calibration(predictions, compute_metrics(predictions))

    shown = [text.get_text() for text in drawn[0].axes[1].texts]
    assert sum(int(count) for count in shown if count) == 120


def test_a_name_that_no_font_has_is_numbered_and_explained(
    drawn: list[Figure], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drawing, "display_names", lambda names: (["a", "#1"], None, "#1 = \\uac00"))

    plots.plot_confusion_matrix(np.eye(2, dtype=np.int64), ("a", "가"))

    assert [text.get_text() for text in drawn[0].texts] == ["#1 = \\uac00"]
    assert [text.get_text() for text in drawn[0].axes[0].get_xticklabels()] == ["a", "#1"]


def test_long_names_lose_their_middle_but_stay_different() -> None:
    names = drawing.drawn_names(["x" * 40 + "1", "x" * 40 + "2", "y" * 20 + "a" + "y" * 20, "y" * 20 + "b" + "y" * 20])

    assert len(set(names.labels)) == 4
    assert all(drawing.columns(label) <= 30 for label in names.labels)
    assert names.labels[0].endswith("x1")
    assert drawing.shortened("교모세포종" * 4) != "교모세포종" * 4
    assert drawing.columns(drawing.shortened("교모세포종" * 4)) <= 26


ROWS = [
    {"epoch": e, "train_loss": 1 / e, "val_loss": (e - 3) ** 2 + 1, "val_accuracy": 0.5, "val_balanced_accuracy": 0.4}
    | {"lr": 0.1, "seconds": 2.0}
    for e in range(1, 7)
]


def test_curves_mark_the_best_epoch_in_both_panels(drawn: list[Figure]) -> None:
    plots.plot_curves(ROWS)
    plots.plot_curves(ROWS, best_epoch=5)

    assert "best epoch (3)" in texts(drawn[0])
    assert texts(drawn[1]).count("best epoch (5)") == 2


@pytest.mark.parametrize(
    "rows",
    [
        [],
        ROWS[:1],
        [{name: str(value) for name, value in row.items()} for row in ROWS],
        [row | {"val_loss": None, "val_accuracy": "", "val_balanced_accuracy": None} for row in ROWS],
        [row | {"val_loss": float("nan")} for row in ROWS],
    ],
    ids=["none", "one", "texts", "no validation", "diverged"],
)
def test_curves_are_drawn_of_any_history(rows: list[dict[str, object]]) -> None:
    assert plots.plot_curves(rows).startswith(b"\x89PNG")
