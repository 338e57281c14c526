"""The files of an evaluation: complete, consistent with each other, the same each time."""

import csv
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import sklearn.metrics

from evalcam_cli.documents import read_csv
from evalcam_cli.evaluation.analyses import analyse
from evalcam_cli.evaluation.definitions import define
from evalcam_cli.evaluation.gates import check_gates, parse_gate
from evalcam_cli.evaluation.metrics import CLASS_METRICS, OVERALL_METRICS, POINT_METRICS, compute_metrics
from evalcam_cli.evaluation.predictions import Predictions
from evalcam_cli.evaluation.statistics import AVERAGED
from evalcam_cli.files import output_folder
from evalcam_cli.report.contents import Report
from evalcam_cli.report.evaluation import metrics_document, write_evaluation
from evalcam_cli.report.markdown import report_text
from evalcam_cli.report.tables import class_table_rows, metrics_table_rows

FILES = {
    *("metrics.json", "metrics.csv", "per_class.csv", "confusion_matrix.csv", "predictions.csv", "logits.npy"),
    *("roc.csv", "confusion_matrix.png", "roc.png", "precision_recall.png", "calibration.png", "report.md"),
    *("report.tex", "reproduce.py", "risk_coverage.csv", "risk_coverage.png", "label_errors.csv", "confusions.csv"),
    *("roc_band.csv", "precision_recall.csv", "calibration.csv", "score_histograms.csv", "score_histograms.png"),
}
CLASSES = ("=cat|x", "[red]$a_b$ <b>", "개", "absent")


def sample() -> Predictions:
    generator = np.random.default_rng(0)
    targets = generator.integers(0, 3, 60)
    logits = generator.normal(size=(60, 4)).astype(np.float32)
    logits[np.arange(60), targets] += 2
    logits[:, 3] -= 20
    paths = tuple(f"개/+{i}.png" for i in range(60))
    return Predictions(
        CLASSES,
        logits,
        targets,
        paths,
        groups=tuple(f"p{i // 2}" for i in range(60)),
        extra_columns=("site",),
        extra=(("A",),) * 60,
    )


METRICS = compute_metrics(sample(), bootstrap=50)
GATES = check_gates([parse_gate("accuracy=0.5", "under"), parse_gate("recall[absent]=0.5", "under")], METRICS)


def report(meta: Mapping[str, object]) -> Report:
    return Report(sample(), METRICS, analyse(sample(), METRICS), subset="test", gates=GATES, meta=meta)


def write(out: Path) -> dict[str, Path]:
    with output_folder(out) as folder:
        meta = {"checkpoint": "/a/best.safetensors", "split": None}
        files = write_evaluation(folder, report(meta))
    return {file.name: file for file in files}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write(tmp_path_factory.mktemp("evaluation") / "out")


def rows(path: Path) -> list[dict[str, str]]:
    header, body = read_csv(path)
    return [dict(zip(header, row, strict=True)) for row in body]


def test_every_file_of_the_interface_is_there_and_metrics_come_last(files: dict[str, Path]) -> None:
    assert set(files) == FILES
    assert list(files)[-1] == "metrics.json"


def test_the_same_evaluation_gives_the_same_bytes(files: dict[str, Path], tmp_path: Path) -> None:
    again = write(tmp_path / "out")

    assert {name: path.read_bytes() for name, path in again.items()} == {
        name: path.read_bytes() for name, path in files.items()
    }


def test_json_has_the_fields_of_the_interface(files: dict[str, Path]) -> None:
    document = json.loads(files["metrics.json"].read_text(encoding="utf-8"), parse_constant=pytest.fail)

    assert document["schema_version"] == 1
    assert document["n"] == 60
    assert document["classes"] == list(CLASSES)
    two_classes = {"roc_auc", "calibration_slope", "calibration_intercept"}
    assert set(document["metrics"]) == set(OVERALL_METRICS) - set(POINT_METRICS) - two_classes
    fields = {"estimate", "ci_low", "ci_high", "ci_method", "undefined_reason"}
    assert all(fields <= set(entry) for entry in document["metrics"].values())
    absent = document["per_class"]["absent"]
    assert absent["support"] == 0
    assert absent["recall"]["estimate"] is None
    assert absent["recall"]["undefined_reason"] == "no images of this class"
    assert document["metrics"]["recall_macro"]["classes_counted"] == 3
    assert "absent_class" in [warning["code"] for warning in document["warnings"]]
    assert [gate["passed"] for gate in document["gates"]] == [True, False]
    assert document["positive"] is None
    assert document["meta"]["checkpoint"] == "/a/best.safetensors"
    assert (document["subset"], document["seed"], document["bootstrap"]) == ("test", 0, 50)


def test_what_is_printed_is_what_is_written(files: dict[str, Path]) -> None:
    meta = {"checkpoint": "/a/best.safetensors", "split": None}
    document = metrics_document(report(meta))

    assert json.loads(files["metrics.json"].read_text(encoding="utf-8")) == json.loads(json.dumps(document))


def test_the_tidy_table_says_the_same_as_the_json(files: dict[str, Path]) -> None:
    document = json.loads(files["metrics.json"].read_text(encoding="utf-8"))
    table = rows(files["metrics.csv"])

    header = "metric,class,average,subset,fold,estimate,ci_low,ci_high,ci_method,n,undefined_reason"
    assert list(table[0]) == header.split(",")
    assert len(table) == len(METRICS.overall) + 4 * (5 + len(CLASS_METRICS))
    for row in table:
        place = document["per_class"][row["class"]] if row["class"] else document["metrics"]
        entry = place[row["metric"]]
        wanted = entry["estimate"] if isinstance(entry, dict) else entry
        assert (float(row["estimate"]) if row["estimate"] else None) == wanted
        assert (row["estimate"] == "") == (row["undefined_reason"] != "")
        assert row["subset"] == "test"
    assert {row["metric"] for row in table if row["average"] == "macro"} >= {"f1_macro", "balanced_accuracy"}


def test_classes_have_a_row_each_with_whole_counts(files: dict[str, Path]) -> None:
    table = rows(files["per_class.csv"])

    assert [row["class"] for row in table] == list(CLASSES)
    for row in table:
        entry = METRICS.per_class[row["class"]]
        assert int(row["support"]) == entry.support
        assert int(row["tp"]) + int(row["fp"]) + int(row["fn"]) + int(row["tn"]) == 60
        assert row["recall_ci_low"] == (
            "" if entry.estimates["recall"].ci_low is None else repr(entry.estimates["recall"].ci_low)
        )


def test_rows_of_the_matrix_are_the_truth(files: dict[str, Path]) -> None:
    header, body = read_csv(files["confusion_matrix.csv"])

    assert header == ["true\\predicted", *CLASSES]
    assert [row[0] for row in body] == list(CLASSES)
    assert [[int(cell) for cell in row[1:]] for row in body] == METRICS.confusion.tolist()


def test_predictions_and_logits_stand_row_by_row(files: dict[str, Path]) -> None:
    table, logits = rows(files["predictions.csv"]), np.load(files["logits.npy"], allow_pickle=False)

    assert list(table[0]) == ["path", "subset", "group", "target", "predicted", "correct", "confidence", "site"]
    assert (logits.dtype, logits.shape) == (np.float32, (60, 4))
    assert [row["predicted"] for row in table] == [CLASSES[index] for index in logits.argmax(axis=1)]
    assert sum(int(row["correct"]) for row in table) == METRICS.confusion.trace()
    assert {row["subset"] for row in table} == {"test"}
    assert [row["path"] for row in table] == list(sample().paths)


def test_texts_cannot_become_formulas_in_a_spreadsheet(files: dict[str, Path]) -> None:
    with files["per_class.csv"].open(encoding="utf-8", newline="") as stream:
        assert next(row for row in csv.reader(stream) if row[0].endswith("cat|x"))[0] == "'=cat|x"


def test_the_roc_table_gives_the_area_back(files: dict[str, Path]) -> None:
    table = rows(files["roc.csv"])

    for label in CLASSES[:3]:
        points = [(float(row["fpr"]), float(row["tpr"])) for row in table if row["class"] == label]
        assert (points[0], points[-1]) == ((0, 0), (1, 1))
        area = sklearn.metrics.auc([fpr for fpr, _ in points], [tpr for _, tpr in points])
        assert area == pytest.approx(METRICS.per_class[label].estimates["roc_auc"].estimate, abs=1e-12)
    assert not [row for row in table if row["class"] == "absent"]
    assert table[0]["threshold"] == "inf"


def test_the_report_begins_with_the_headline_and_shows_names_literally(files: dict[str, Path]) -> None:
    text = files["report.md"].read_text(encoding="utf-8")

    accuracy = METRICS.overall["accuracy"]
    assert text.startswith(
        f"# Evaluation\n\n**Accuracy {accuracy.estimate:.3f}** (95 % interval {accuracy.ci_low:.3f}–"
    )
    assert "of 60 images of the set test right" in text
    assert "<b>" not in text
    assert "=cat\\|x" in text
    assert "n/a (no images of this class)" in text
    assert "`absent_class`: 1 class has no images in this set: absent" in text
    assert "recall_macro (3 of 4 classes)".replace("_", "\\_") in text
    assert "/a/best.safetensors" in text
    for name in FILES - {"report.md"}:
        assert name in text


def test_every_number_has_a_definition() -> None:
    for name in (*OVERALL_METRICS, *CLASS_METRICS):
        assert all(define(name)), name


def test_the_averages_of_a_metric_are_defined_apart() -> None:
    meanings = [define(f"{name}_{average}").meaning for name in AVERAGED for average in ("macro", "weighted", "micro")]

    assert len(set(meanings)) == len(meanings)
    assert "against the rest" in define("roc_auc_ovr_macro").meaning


def test_rows_for_the_terminal_have_three_decimals_or_a_reason() -> None:
    table = {row[0]: row[1:] for row in metrics_table_rows(METRICS)}
    classes = {row[0]: row[1:] for row in class_table_rows(METRICS)}

    accuracy = METRICS.overall["accuracy"]
    assert table["accuracy"] == (f"{accuracy.estimate:.3f}", f"{accuracy.ci_low:.3f}–{accuracy.ci_high:.3f}")
    assert "recall_macro (3 of 4 classes)" in table
    assert table["ece"][1] == ""
    assert classes["absent"][:3] == ("0", "n/a", "n/a")
    alone = compute_metrics(Predictions(("a", "b"), np.eye(2, dtype=np.float32), np.array([0, 0]), ("", "")))
    undefined = {row[0]: row[1] for row in metrics_table_rows(alone)}
    assert undefined["roc_auc"] == "n/a (only one class has images)"


@pytest.mark.parametrize("subset", ["all", ""])
def test_images_without_a_set_are_not_called_one(subset: str) -> None:
    assert "of 60 images right." in report_text(replace(report({}), subset=subset))


def test_a_model_that_is_useful_at_no_threshold_is_said_to_be() -> None:
    scores = np.zeros((20, 2), dtype=np.float32)
    same = Predictions(("a", "b"), scores, np.arange(20) % 2, tuple(map(str, range(20))))
    metrics = compute_metrics(same, bootstrap=100)

    text = report_text(Report(same, metrics, analyse(same, metrics)))

    assert "than acting on all and on none at no threshold;" in text
