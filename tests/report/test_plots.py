"""Pictures: that they are drawn for every input, the same each time, and hold what they should."""

import io
import subprocess
import sys
from dataclasses import replace
from typing import Any, cast

import matplotlib.colors
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from evalcam_cli.evaluation.estimates import Estimate
from evalcam_cli.evaluation.metrics import compute_metrics
from evalcam_cli.evaluation.operating_point import OperatingPoint
from evalcam_cli.evaluation.predictions import Predictions
from evalcam_cli.report import (
    drawing,
    plots_calibration,
    plots_confusion,
    plots_decisions,
    plots_folds,
    plots_ranking,
    plots_scores,
    plots_training,
)
from evalcam_cli.report.plots_calibration import CALIBRATION_HEADER, calibration_rows, plot_calibration
from evalcam_cli.report.plots_confusion import confusion_rows, plot_confusion_matrix
from evalcam_cli.report.plots_decisions import plot_decision_curve, plot_risk_coverage
from evalcam_cli.report.plots_folds import FoldDots, plot_folds
from evalcam_cli.report.plots_ranking import (
    BAND_HEADER,
    band_rows,
    plot_precision_recall,
    plot_roc,
    precision_recall_rows,
    roc_bands,
)
from evalcam_cli.report.plots_scores import plot_scores
from evalcam_cli.report.plots_training import plot_curves

MODULES = (
    *(plots_calibration, plots_confusion, plots_decisions, plots_folds, plots_ranking, plots_scores, plots_training),
)

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
        plot_confusion_matrix(metrics.confusion, metrics.classes),
        plot_roc(predictions, metrics, roc_bands(predictions, metrics)),
        plot_precision_recall(predictions, metrics),
        plot_calibration(predictions, metrics),
        plot_scores(predictions, metrics),
    ]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures made during a test, to ask what they hold; they are not made into pictures, which takes time."""
    figures: list[Figure] = []

    def remember(width: float, height: float) -> Figure:
        figures.append(drawing_new_figure(width, height))
        return figures[-1]

    drawing_new_figure = drawing.new_figure
    for module in MODULES:
        monkeypatch.setattr(module, "new_figure", remember)
        monkeypatch.setattr(module, "png_bytes", lambda figure: b"")
    return figures


def texts(figure: Figure) -> list[str]:
    legends = [text for axes in figure.axes if (legend := axes.get_legend()) for text in legend.get_texts()]
    return [text.get_text() for axes in figure.axes for text in axes.texts] + [text.get_text() for text in legends]


@pytest.mark.parametrize(
    ("k", "name"), [*((3, name) for name in NAMES), (2, "brackets"), (31, "long"), (31, "none has it")]
)
def test_any_names_are_drawn_without_a_warning(k: int, name: str) -> None:
    for picture in every_plot(sample(k, name=NAMES[name])):
        image = Image.open(io.BytesIO(picture))
        image.load()
        assert image.format == "PNG"
        assert 300 < image.width < 4000
        assert "Software" not in image.info


def test_the_same_input_gives_the_same_bytes() -> None:
    assert every_plot(sample(3)) == every_plot(sample(3))


def test_settings_of_the_user_change_nothing_and_stay_as_they_are() -> None:
    counts = np.eye(3, dtype=np.int64)
    usual = plot_confusion_matrix(counts, "abc")

    with matplotlib.rc_context({"font.size": 30.0, "axes.facecolor": "red", "savefig.dpi": 30}):
        assert plot_confusion_matrix(counts, "abc") == usual
        assert matplotlib.rcParams["font.size"] == 30


def test_pyplot_is_never_loaded() -> None:
    modules = ", ".join(module.__name__ for module in MODULES)
    code = f"import sys, {modules}; sys.exit('matplotlib.pyplot' in sys.modules or 'torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_cell_holds_its_count_and_its_share_of_the_row(drawn: list[Figure]) -> None:
    plot_confusion_matrix(np.array([[1, 3], [0, 0]]), ("a", "b"))

    axes = drawn[0].axes[0]
    assert [text.get_text() for text in axes.texts] == ["1\n25%", "3\n75%", "0\n–", "0\n–"]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["a (n=4)", "b (n=0)"]
    assert axes.get_xlabel() == "predicted class"
    assert [text.get_position() for text in axes.texts][1] == (1, 0)  # x: predicted, y: true


@pytest.mark.parametrize(
    ("share", "shown"), [(0, "0%"), (0.001, "<1%"), (0.5, "50%"), (0.999, ">99%"), (1, "100%")]
)  # fmt: skip
def test_a_percentage_is_never_rounded_to_all_or_nothing(share: float, shown: str) -> None:
    assert plots_confusion._percent(share) == shown


def test_many_classes_show_their_confusions_most_frequent_first(drawn: list[Figure]) -> None:
    confusion = np.diag(np.full(31, 10))
    confusion[4, 7], confusion[20, 2] = 5, 9

    plot_confusion_matrix(confusion, tuple(f"c{index}" for index in range(31)))

    axes = drawn[0].axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["c20 → c2", "c4 → c7"]
    assert [text.get_text() for text in axes.texts] == ["9 of 19", "5 of 15"]
    assert "31 classes, 14 of 324 images wrong" in drawn[0].get_suptitle()


def test_no_confusion_at_all_is_said(drawn: list[Figure]) -> None:
    plot_confusion_matrix(np.diag(np.full(40, 3)), tuple(map(str, range(40))))

    assert texts(drawn[0]) == ["no confusions: every image is right"]


def test_two_classes_have_one_curve_with_its_area_and_the_chance_line(drawn: list[Figure]) -> None:
    predictions = sample(2)
    metrics = compute_metrics(predictions, positive="class 0", bootstrap=20)
    auc, average_precision = metrics.overall["roc_auc"], metrics.per_class["class 0"].estimates["average_precision"]

    plot_roc(predictions, metrics)
    plot_precision_recall(predictions, metrics)

    roc, recall = texts(drawn[0]), texts(drawn[1])
    assert roc == ["chance", f"class 0: AUC {auc.estimate:.3f} [{auc.ci_low:.3f}, {auc.ci_high:.3f}]"]
    assert recall[0].startswith(f"class 0: average precision {average_precision.estimate:.3f} [")
    assert recall[1] == f"guessing: {metrics.per_class['class 0'].support / 120:.3f}, the share of the class"
    assert drawn[0].axes[0].get_aspect() == 1


def test_many_classes_show_the_mean_and_the_five_worst(drawn: list[Figure]) -> None:
    predictions = sample(11)
    metrics = compute_metrics(predictions)
    areas = {label: entry.estimates["roc_auc"].estimate or 0.0 for label, entry in metrics.per_class.items()}

    plot_roc(predictions, metrics)

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

    plot_calibration(predictions, compute_metrics(predictions))

    shown = [text.get_text() for text in drawn[0].axes[1].texts]
    assert sum(int(count) for count in shown if count) == 120


def test_a_name_that_no_font_has_is_numbered_and_explained(
    drawn: list[Figure], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drawing, "display_names", lambda names, numbers: (["a", "#1"], None, "#1 = \\uac00"))

    plot_confusion_matrix(np.eye(2, dtype=np.int64), ("a", "가"))

    assert [text.get_text() for text in drawn[0].texts] == ["#1 = \\uac00"]
    assert [text.get_text() for text in drawn[0].axes[0].get_xticklabels()] == ["a", "#1"]


def test_long_names_lose_their_middle_but_stay_different() -> None:
    names = drawing.drawn_names(["x" * 40 + "1", "x" * 40 + "2", "y" * 20 + "a" + "y" * 20, "y" * 20 + "b" + "y" * 20])

    assert len(set(names.labels)) == 4
    assert all(drawing.columns(label) <= 30 for label in names.labels)
    assert names.labels[0].endswith("x1")
    assert drawing.shortened("교모세포종" * 4) != "교모세포종" * 4
    assert drawing.columns(drawing.shortened("교모세포종" * 4)) <= 26


WITH_POINT = OperatingPoint("class 1", 0.7, "specificity>=0.9", 60, 60, 0.6, 0.9)


def line(figure: Figure, label: str) -> tuple[np.ndarray, np.ndarray]:
    """x and y of what the legend calls so."""
    (found,) = [one for one in figure.axes[0].lines if str(one.get_label()).startswith(label)]
    x, y = found.get_data()
    return np.asarray(x), np.asarray(y)


def line_x(axes: Axes, index: int) -> Any:
    return axes.lines[index].get_xdata()


def test_every_text_of_the_matrix_stands_out_from_its_cell(drawn: list[Figure]) -> None:
    counts = np.zeros((26, 26), dtype=np.int64)
    counts[:, 0] = np.arange(0, 101, 4)
    counts[:, 1] = 100 - counts[:, 0]

    plot_confusion_matrix(counts, tuple("abcdefghijklmnopqrstuvwxyz"))

    axes = drawn[0].axes[0]
    colours: Any = axes.images[0].to_rgba(np.asarray(axes.images[0].get_array()))
    for text in axes.texts:
        column, row = (int(place) for place in text.get_position())
        assert contrast(colours[row, column, :3], matplotlib.colors.to_rgb(text.get_color())) > 4.3


def contrast(one: Any, other: Any) -> float:
    """The contrast ratio of two sRGB colours, W3C, WCAG 2.1."""
    linear = [[c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour] for colour in (one, other)]
    dark, light = sorted(0.2126 * r + 0.7152 * g + 0.0722 * b for r, g, b in linear)
    return float((light + 0.05) / (dark + 0.05))


def test_the_operating_point_is_a_cross_of_the_intervals_of_its_rates(drawn: list[Figure]) -> None:
    predictions = replace(sample(2), operating_point=WITH_POINT)
    metrics = compute_metrics(predictions, bootstrap=20)
    recall, specificity = (bounds(metrics.overall[name]) for name in ("recall@op", "specificity@op"))

    plot_roc(predictions, metrics)

    bars: Any = drawn[0].axes[0].containers[0]
    across, upright = (lines.get_segments()[0] for lines in bars.lines[2])
    fpr = 1 - specificity[0]
    assert bars.lines[0].get_xydata() == pytest.approx(np.array([[fpr, recall[0]]]))
    assert across[:, 0] == pytest.approx([1 - specificity[2], 1 - specificity[1]])
    assert upright[:, 1] == pytest.approx([recall[1], recall[2]])
    curve_x, curve_y = line(drawn[0], "class 1: AUC")
    assert np.hypot(curve_x - fpr, curve_y - recall[0]).min() < 1e-12  # it lies on the curve


def bounds(estimate: Estimate) -> tuple[float, float, float]:
    assert estimate.estimate is not None
    assert estimate.ci_low is not None
    assert estimate.ci_high is not None
    return estimate.estimate, estimate.ci_low, estimate.ci_high


def test_the_band_of_the_roc_curve_is_drawn_and_written_for_the_same_class(drawn: list[Figure]) -> None:
    predictions = sample(4)
    metrics = compute_metrics(predictions, bootstrap=20)
    bands = roc_bands(predictions, metrics)
    worst = min(metrics.per_class, key=lambda name: bounds(metrics.per_class[name].estimates["roc_auc"])[0])

    plot_roc(predictions, metrics, bands)

    assert f"{worst}: pointwise 95 % band" in texts(drawn[0])
    rows = [dict(zip(BAND_HEADER, row, strict=True)) for row in band_rows(bands, metrics.classes)]
    assert {row["class"] for row in rows} == {worst}
    assert len(rows) == 101
    path = np.asarray(drawn[0].axes[0].collections[0].get_paths()[0].vertices)
    assert {row["ci_low"] for row in rows} <= set(path[:, 1])


def test_metrics_without_intervals_have_no_band() -> None:
    predictions = sample(3)

    assert roc_bands(predictions, compute_metrics(predictions)) == {}


def test_the_steps_of_precision_enclose_the_average_precision(drawn: list[Figure]) -> None:
    predictions = sample(2)
    metrics = compute_metrics(predictions)

    plot_precision_recall(predictions, metrics)

    recall, precision = line(drawn[0], "class 1")
    rows = [row[1:] for row in precision_recall_rows(predictions, metrics)]
    assert set(zip(recall, precision, strict=True)) <= set(rows)
    expected = metrics.per_class["class 1"].estimates["average_precision"].estimate
    assert (np.diff(recall) * precision[1:]).sum() == pytest.approx(expected)


def test_calibration_says_what_chance_would_do(drawn: list[Figure]) -> None:
    predictions = sample(3)
    metrics = compute_metrics(predictions, bootstrap=20)

    plot_calibration(predictions, metrics)

    title = drawn[0].axes[0].get_title()
    assert f"{metrics.overall['ece_expected_if_calibrated'].estimate:.3f} expected if calibrated, p = " in title


def test_a_temperature_shows_the_bins_before_it(drawn: list[Figure]) -> None:
    predictions = replace(sample(3), temperature=3.0)

    plot_calibration(predictions, compute_metrics(predictions))

    x, _ = line(drawn[0], "before temperature scaling")
    raw: list[Any] = [row for row in calibration_rows(predictions) if row[0] == 1.0 and row[3]]
    assert x.tolist() == [row[8] for row in raw]
    assert sum(row[3] for row in raw) == 120


def test_histograms_of_two_classes_show_the_threshold(drawn: list[Figure]) -> None:
    predictions = replace(sample(2), operating_point=WITH_POINT)

    plot_scores(predictions, compute_metrics(predictions))

    for axes in drawn[0].axes:
        assert line_x(axes, 0)[0] == 0.7
    right: Any = drawn[0].axes[0].containers[0]
    assert predictions.called is not None
    assert sum(bar.get_height() for bar in right) == (~predictions.called & (predictions.targets == 0)).sum()


def test_confusions_are_written_with_their_share_of_the_class() -> None:
    rows = list(confusion_rows(np.array([[6, 2], [1, 0]]), ("a", "b")))

    assert rows == [("a", "b", 2, 8, 0.25), ("b", "a", 1, 1, 1.0)]


def test_only_the_drawn_names_are_explained(drawn: list[Figure]) -> None:
    confusion = np.diag(np.full(500, 3))
    confusion[7, 9] = 2

    plot_confusion_matrix(confusion, tuple(f"\U0001f984 {index}" for index in range(500)))

    (legend,) = [text.get_text() for text in drawn[0].texts if "=" in text.get_text()]
    assert legend.replace("\n", " ") == "#7 = \\U0001f984 7, #9 = \\U0001f984 9"


def test_net_benefit_is_cut_far_below_zero(drawn: list[Figure]) -> None:
    places = np.arange(1, 100) / 100
    everyone = 0.3 - 0.7 * places / (1 - places)

    plot_decision_curve(places, 0.3 - 0.3 * places, everyone, positive="$a", operating_point=0.2)
    plot_decision_curve(places, np.full(99, np.nan), everyone)

    plot_decision_curve(places, 0.3 - 0.3 * places, everyone, low=np.full(99, np.nan), high=np.full(99, np.nan))

    bottom, top = drawn[0].axes[0].get_ylim()
    assert -0.1 < bottom < 0
    assert 0.3 < top < 0.4
    assert "operating point 0.2" in texts(drawn[0])
    assert any("no decision curve" in text for text in texts(drawn[1]))


def test_risk_is_drawn_over_coverage_down_to_one_image(drawn: list[Figure]) -> None:
    plot_risk_coverage([0.5, 1.0], [0.0, 0.25], low=[0.0, 0.1], high=[0.2, 0.4], area=0.125)
    plot_risk_coverage([], [])

    assert line(drawn[0], "errors")[1].tolist() == [0.0, 0.25]
    assert "answering all: 0.250" in texts(drawn[0])
    assert "area 0.1250" in drawn[0].axes[0].get_title()
    assert any("no images" in text for text in texts(drawn[1]))


def test_folds_show_their_values_their_mean_and_its_interval(drawn: list[Figure]) -> None:
    plot_folds([FoldDots("accuracy", [0.8, None, 0.9], 0.85, 0.7, 1.0), FoldDots("mcc", [None, None, None], None)])

    axes = drawn[0].axes[0]
    assert list(line_x(axes, 0)) == [0.8, 0.9]
    assert list(line_x(axes, 1)) == [0.85]
    bar: Any = axes.patches[0]
    assert (bar.get_x(), bar.get_x() + bar.get_width()) == pytest.approx((0.7, 1.0))
    assert "undefined in every fold" in texts(drawn[0])


def test_equal_values_of_many_rounds_stand_apart(drawn: list[Figure]) -> None:
    plot_folds([FoldDots("accuracy", [0.8] * 15, 0.8)], title="15 rounds (3 repeats)")

    axes = drawn[0].axes[0]
    heights = np.asarray(axes.lines[0].get_ydata(), dtype=float)
    assert len(set(heights)) == 15
    assert np.abs(heights).max() < 0.25
    assert axes.get_title() == "15 rounds (3 repeats)"


def test_several_predictions_of_each_image_make_no_bin_more_certain(drawn: list[Figure]) -> None:
    once = replace(sample(3, n=60), paths=tuple(f"{index}.png" for index in range(60)))
    twice = replace(
        once,
        logits=np.tile(once.logits, (2, 1)),
        targets=np.tile(once.targets, 2),
        paths=once.paths * 2,
        groups=once.paths * 2,
    )

    places = [CALIBRATION_HEADER.index(name) for name in ("images", "accuracy", "ci_low", "ci_high", "calibrated_low")]
    first, second = ([[row[place] for place in places] for row in calibration_rows(one)] for one in (once, twice))
    plot_calibration(twice, compute_metrics(twice))

    for one, two in zip(first, second, strict=True):
        images, accuracy, low, high, _ = cast("list[Any]", one)
        assert two[:2] == [2 * images, accuracy]
        assert two[4] is None
        if images > 1:
            assert cast("float", two[3]) - cast("float", two[2]) >= 0.999 * (high - low)
    assert "accuracy in the bin, 95 % interval by group" in drawn[0].legends[0].get_texts()[-1].get_text()


def test_no_folds_are_drawn() -> None:
    assert plot_folds([]).startswith(b"\x89PNG")


@pytest.mark.parametrize("k", [2, 3])
def test_one_image_is_drawn(k: int) -> None:
    for picture in every_plot(sample(k, n=1)):
        assert picture.startswith(b"\x89PNG")


def test_texts_outside_the_axes_do_not_cover_each_other(drawn: list[Figure]) -> None:
    every_plot(replace(sample(2), operating_point=WITH_POINT, temperature=2.0))
    every_plot(sample(4))

    for figure in drawn:
        figure.canvas.draw()
        places = [text.get_window_extent() for text in outside(figure) if text.get_text()]
        for index, one in enumerate(places):
            assert not any(one.overlaps(other) for other in places[:index])


def outside(figure: Figure) -> list[Text]:
    """Titles, axis labels and legends."""
    legends = [*figure.legends, *(legend for axes in figure.axes if (legend := axes.get_legend()))]
    labels = [text for axes in figure.axes for text in (axes.title, axes.xaxis.label, axes.yaxis.label)]
    return [*labels, *figure.texts, *(text for legend in legends for text in legend.get_texts())]


ROWS = [
    {"epoch": e, "train_loss": 1 / e, "val_loss": (e - 3) ** 2 + 1, "val_accuracy": 0.5, "val_balanced_accuracy": 0.4}
    | {"lr": 0.1, "seconds": 2.0}
    for e in range(1, 7)
]


def test_curves_mark_the_best_epoch_in_both_panels(drawn: list[Figure]) -> None:
    plot_curves(ROWS)
    plot_curves(ROWS, best_epoch=5)

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
    assert plot_curves(rows).startswith(b"\x89PNG")
