"""From a classifier and images to numbers."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from evalcam_cli.config import RunConfig
from evalcam_cli.config_sources import load_config
from evalcam_cli.errors import CheckpointError, DataError, GateError, UsageError
from evalcam_cli.models.architectures import build_model
from evalcam_cli.workflows.checkpoints import WeightsRequest
from evalcam_cli.workflows.cross_validation import train_all_folds
from evalcam_cli.workflows.evaluate import evaluate
from evalcam_cli.workflows.predict import predict
from evalcam_cli.workflows.predictions import EvaluateRequest
from evalcam_cli.workflows.train import TrainRequest, train
from tests.conftest import TINY, draw_classes, read_rows


def config(*assignments: str) -> RunConfig:
    return load_config(assignments=[*(one for one in TINY if one != "--set"), "train.epochs=2", *assignments])


@pytest.fixture(scope="module")
def run(colours: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(config(), TrainRequest(tmp_path_factory.mktemp("train") / "run", colours)).folder


def test_everything_promised_is_written(run: Path, tmp_path: Path) -> None:
    evaluation = evaluate(config(), EvaluateRequest(out=tmp_path / "out", ckpt=run))

    names = {path.name for path in (tmp_path / "out").iterdir()} - {".evalcam.lock"}
    assert names == {
        "metrics.json",
        "metrics.csv",
        "per_class.csv",
        "confusion_matrix.csv",
        "predictions.csv",
        "logits.npy",
        "roc.csv",
        "confusion_matrix.png",
        "roc.png",
        "precision_recall.png",
        "calibration.png",
        "confusions.csv",
        "roc_band.csv",
        "precision_recall.csv",
        "calibration.csv",
        "score_histograms.csv",
        "score_histograms.png",
        "decision_curve.csv",
        "decision_curve.png",
        "risk_coverage.png",
        "risk_coverage.csv",
        "label_errors.csv",
        "report.md",
        "report.tex",
        "reproduce.py",
    }
    document = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert document["n"] == evaluation.metrics.n == 6
    assert document["classes"] == ["a [b]", "정상"]


def test_the_predictions_alone_give_the_same_numbers_without_the_model(run: Path, tmp_path: Path) -> None:
    first = evaluate(config(), EvaluateRequest(out=tmp_path / "out", ckpt=run))

    again = evaluate(config(), EvaluateRequest(predictions=tmp_path / "out" / "predictions.csv"))

    assert again.document["metrics"] == first.document["metrics"]
    assert again.document["per_class"] == first.document["per_class"]


def test_the_same_image_gets_the_same_probability_in_every_command(run: Path, colours: Path, tmp_path: Path) -> None:
    evaluation = evaluate(config(), EvaluateRequest(ckpt=run))
    images = [colours / path for path in evaluation.predictions.paths]

    result = predict(config(), WeightsRequest(run), images, tmp_path / "p.csv")

    np.testing.assert_allclose(result.predictions.probabilities, evaluation.predictions.probabilities, atol=1e-6)
    rows = read_rows(tmp_path / "p.csv")
    assert list(rows[0]) == ["path", "predicted", "confidence", "p:a [b]", "p:정상"]


def test_a_set_that_is_not_there_is_never_replaced_by_another(colours: Path, tmp_path: Path) -> None:
    run = train(config("split.ratios=0.8,0.2,0", "train.epochs=1"), TrainRequest(tmp_path / "run", colours)).folder

    with pytest.raises(DataError, match="no test images"):
        evaluate(config(), EvaluateRequest(out=tmp_path / "out", ckpt=run))

    assert not (tmp_path / "out").exists()


def test_images_that_were_learned_from_are_refused(run: Path, colours: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="28 of 40 images to evaluate are pixel copies"):
        evaluate(config(), EvaluateRequest(ckpt=run, data=colours, out=tmp_path / "out"))
    assert len(read_rows(tmp_path / "leaks.csv")) == 28
    assert not (tmp_path / "out").exists()
    with pytest.raises(DataError, match="pixel copies"):
        evaluate(config(), EvaluateRequest(ckpt=run, subset="train"))

    assert evaluate(config("split.leaks=drop"), EvaluateRequest(ckpt=run, data=colours)).metrics.n == 12
    assert evaluate(config("split.leaks=allow"), EvaluateRequest(ckpt=run, data=colours)).metrics.n == 40


def test_classes_keep_the_checkpoint_s_order_when_one_is_missing(run: Path, tmp_path: Path) -> None:
    data = draw_classes(tmp_path / "new", {"정상": 5}, seed=9)

    evaluation = evaluate(config(), EvaluateRequest(ckpt=run, data=data))

    assert evaluation.predictions.targets.tolist() == [1] * 5  # the index in the checkpoint, not in the folder
    assert evaluation.metrics.overall["accuracy"].estimate == 1.0
    assert evaluation.metrics.per_class["a [b]"].estimates["recall"].estimate is None
    assert "absent_class" in {warning["code"] for warning in evaluation.document["warnings"]}


def test_an_unknown_class_is_refused_and_can_be_renamed(run: Path, tmp_path: Path) -> None:
    data = draw_classes(tmp_path / "new", {"normal": 4, "a [b]": 4}, seed=9)

    with pytest.raises(DataError, match="does not know the class normal"):
        evaluate(config(), EvaluateRequest(ckpt=run, data=data))
    with pytest.raises(UsageError, match="--map-class"):
        evaluate(config(), EvaluateRequest(ckpt=run, data=data, map_class=("normal=other",)))

    assert evaluate(config(), EvaluateRequest(ckpt=run, data=data, map_class=("normal=정상",))).metrics.n == 8


def test_changed_images_are_refused(tmp_path: Path) -> None:
    data = draw_classes(tmp_path / "data", {"a": 14, "b": 14})
    run = train(config("train.epochs=1"), TrainRequest(tmp_path / "run", data)).folder
    evaluation = evaluate(config(), EvaluateRequest(ckpt=run))
    (data / evaluation.predictions.paths[0]).write_bytes((data / evaluation.predictions.paths[1]).read_bytes())

    with pytest.raises(DataError, match="1 image changed since"):
        evaluate(config(), EvaluateRequest(ckpt=run))


def test_another_copy_of_the_data_may_stand_elsewhere(run: Path, colours: Path, tmp_path: Path) -> None:
    shutil.copytree(colours, tmp_path / "copy")

    here = evaluate(config(), EvaluateRequest(ckpt=run, split_file=run / "split.csv", data=tmp_path / "copy"))

    assert here.metrics.n == 6
    with pytest.raises(DataError, match="not under"):
        evaluate(config(), EvaluateRequest(ckpt=run, split_file=run / "split.csv", data=tmp_path))


def test_gates_pass_and_fail(run: Path) -> None:
    passing = evaluate(config("evaluate.fail_under=[accuracy=0.1]"), EvaluateRequest(ckpt=run))
    failing = evaluate(config("evaluate.fail_over=[accuracy=0.1]"), EvaluateRequest(ckpt=run))

    passing.require_gates()
    with pytest.raises(GateError, match="accuracy"):
        failing.require_gates()


def test_a_gate_on_an_unknown_class_is_refused(run: Path) -> None:
    with pytest.raises(UsageError, match="there is no class"):
        evaluate(config("evaluate.fail_under=['recall[cat]>=0.1']"), EvaluateRequest(ckpt=run))


def test_folds_are_evaluated_together(colours: Path, tmp_path: Path) -> None:
    train_all_folds(config("split.folds=2", "train.epochs=1"), TrainRequest(tmp_path / "cv", colours))

    evaluation = evaluate(config(), EvaluateRequest(out=tmp_path / "out", ckpt=tmp_path / "cv"))

    assert evaluation.metrics.n == 40
    assert sorted(evaluation.predictions.paths) == sorted(set(evaluation.predictions.paths))
    rows = read_rows(tmp_path / "out" / "folds.csv")
    values = [float(row["estimate"]) for row in rows if row["metric"] == "balanced_accuracy"]
    assert [row["fold"] for row in rows if row["metric"] == "balanced_accuracy"] == ["0", "1"]
    tidy = [row for row in read_rows(tmp_path / "out" / "metrics.csv") if row["metric"] == "balanced_accuracy"]
    assert [(row["fold"], row["estimate"]) for row in tidy[1:]] == [("0", str(values[0])), ("1", str(values[1]))]
    found = evaluation.document["folds"]["metrics"]["balanced_accuracy"]
    assert found["mean"] == pytest.approx(sum(values) / 2)
    numbers = evaluation.document["metrics"]
    assert numbers["roc_auc"]["estimate"] == evaluation.document["folds"]["metrics"]["roc_auc"]["mean"]
    assert numbers["auc_pooled_oof"]["estimate"] is not None
    assert {row["fold"] for row in read_rows(tmp_path / "out" / "predictions.csv")} == {"0", "1"}
    again = subprocess.run(
        [sys.executable, str(tmp_path / "out" / "reproduce.py")], check=False, capture_output=True, text=True
    )
    assert again.returncode == 0, again.stderr


def test_rounds_are_not_pooled_over_the_same_images(colours: Path, tmp_path: Path) -> None:
    train_all_folds(config("split.folds=2", "train.epochs=1"), TrainRequest(tmp_path / "cv", colours))

    with pytest.raises(UsageError, match="own test fold"):
        evaluate(config(), EvaluateRequest(ckpt=tmp_path / "cv", data=colours))
    with pytest.raises(UsageError, match="own test fold"):
        evaluate(config(), EvaluateRequest(ckpt=tmp_path / "cv", subset="val"))

    (tmp_path / "cv" / "fold-1").rename(tmp_path / "cv" / "fold-7")
    with pytest.raises(DataError, match="fold-7"):
        evaluate(config(), EvaluateRequest(ckpt=tmp_path / "cv"))


def test_nothing_is_written_into_the_data_folder(run: Path, colours: Path) -> None:
    with pytest.raises(UsageError, match="never writes to"):
        evaluate(config(), EvaluateRequest(out=colours / "out", ckpt=run))

    assert not (colours / "out").exists()


def test_foreign_weights_are_used_once_they_are_explained(colours: Path, tmp_path: Path) -> None:
    torch.save(build_model("resnet18", 2).state_dict(), tmp_path / "w.pth")
    (tmp_path / "classes.txt").write_text("정상\na [b]\n", encoding="utf-8")
    request = EvaluateRequest(ckpt=tmp_path / "w.pth", data=colours)

    with pytest.raises(CheckpointError, match="--arch NAME and --classes FILE"):
        evaluate(config(), request)

    known = EvaluateRequest(
        ckpt=tmp_path / "w.pth", data=colours, arch="resnet18", classes_file=tmp_path / "classes.txt"
    )
    assert evaluate(config(), known).document["classes"] == ["정상", "a [b]"]


def test_foreign_weights_with_another_number_of_classes_are_refused(colours: Path, tmp_path: Path) -> None:
    torch.save(build_model("resnet18", 3).state_dict(), tmp_path / "w.pth")
    (tmp_path / "classes.txt").write_text("a\nb\n")

    with pytest.raises(CheckpointError, match=r"3 outputs.* 2 classes"):
        evaluate(
            config(),
            EvaluateRequest(
                ckpt=tmp_path / "w.pth",
                data=colours,
                arch="resnet18",
                classes_file=tmp_path / "classes.txt",
            ),
        )
