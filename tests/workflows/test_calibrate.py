"""What validation images choose, and that nothing else has a say."""

import ast
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evalcam_cli.config import RunConfig
from evalcam_cli.config_sources import load_config
from evalcam_cli.data.split_file import read_split, write_split
from evalcam_cli.errors import DataError, EvalcamError, MachineError, UsageError
from evalcam_cli.files import output_folder
from evalcam_cli.models.checkpoint import load_checkpoint
from evalcam_cli.workflows.calibrate import CALIBRATION, CalibratedRun, CalibrateRequest, calibrate
from evalcam_cli.workflows.checkpoints import WeightsRequest
from evalcam_cli.workflows.cross_validation import train_all_folds
from evalcam_cli.workflows.evaluate import evaluate
from evalcam_cli.workflows.gradcam import GradCamRequest, explain
from evalcam_cli.workflows.predict import predict
from evalcam_cli.workflows.predictions import EvaluateRequest
from evalcam_cli.workflows.split import make_split
from evalcam_cli.workflows.train import TrainRequest, train
from evalcam_cli.workflows.training_run import BEST, LAST
from tests.conftest import REPOSITORY, TINY, read_rows


def config(*assignments: str) -> RunConfig:
    return load_config(
        assignments=[
            *(one for one in TINY if one != "--set"), "train.epochs=2", "split.ratios=0.3,0.4,0.3", *assignments,
        ]
    )  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes that a model confuses: 80 `healthy` and 80 `ill` images of faintly differing colour."""
    root, generator = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for index, label in enumerate(("healthy", "ill")):
        (root / label).mkdir()
        for number in range(80):
            pixels = generator.integers(0, 200, (24, 24, 3)).astype(float)
            pixels[..., 0] += 14 * (index + generator.normal(0, 0.8))
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / label / f"{number:03}.png")
    return root


@pytest.fixture(scope="module")
def split_file(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("split") / "split.csv"
    write_split(make_split(data, config(), report_beside=path).split, path)
    return path


@pytest.fixture(scope="module")
def trained(split_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(config(), TrainRequest(tmp_path_factory.mktemp("train") / "run", split_file=split_file)).folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A finished run of the test's own."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


def calibrated(run: Path, rule: str | None = "sensitivity=0.9", *, temperature: bool = True) -> CalibratedRun:
    (result,) = calibrate(config(), CalibrateRequest(run, rule, temperature))
    return result


def test_training_ends_with_a_temperature_in_the_best_checkpoint(trained: Path) -> None:
    best, last = (load_checkpoint(trained / name).checkpoint for name in (BEST, LAST))
    document = json.loads((trained / CALIBRATION).read_text())

    assert best.temperature == document["temperature"] is not None
    assert document["images"] == 64
    assert document["after"]["log_loss"] < document["before"]["log_loss"]
    assert last.temperature is None


def test_what_is_chosen_is_stored_and_the_weights_stay_as_they_are(run: Path) -> None:
    before, last = load_checkpoint(run / BEST), (run / LAST).read_bytes()

    result = calibrated(run)

    after = load_checkpoint(run / BEST)
    point = after.checkpoint.operating_point
    assert after.tensors_sha256 == before.tensors_sha256
    assert (run / LAST).read_bytes() == last
    assert after.checkpoint.temperature == result.calibration.temperature
    assert point == result.calibration.operating_point
    assert point is not None
    assert (point.positive, point.positives, point.negatives) == ("ill", 32, 32)
    assert point.sensitivity >= 0.9
    assert json.loads((run / CALIBRATION).read_text()) == result.document
    assert replace(after.checkpoint, operating_point=None, positive=None) == before.checkpoint


def test_calibrating_again_starts_from_the_raw_logits(run: Path) -> None:
    first = calibrated(run).document
    content = (run / BEST).read_bytes()
    calibrated(run, "cost=1:5")

    again = calibrated(run).document

    assert again == first
    assert (run / BEST).read_bytes() == content


def test_asking_for_neither_takes_away_both(run: Path) -> None:
    calibrated(run)

    calibrated(run, None, temperature=False)

    checkpoint = load_checkpoint(run / BEST).checkpoint
    assert (checkpoint.temperature, checkpoint.operating_point) == (None, None)


def test_test_labels_decide_nothing(trained: Path, split_file: Path, run: Path, tmp_path: Path) -> None:
    split, _ = read_split(split_file)
    other = {"healthy": "ill", "ill": "healthy"}
    turned = [replace(s, label=other[s.label]) if s.set == "test" else s for s in split.samples]
    write_split(replace(split, samples=tuple(turned)), tmp_path / "turned.csv")

    second = train(config(), TrainRequest(tmp_path / "second", split_file=tmp_path / "turned.csv")).folder

    assert (second / CALIBRATION).read_bytes() == (trained / CALIBRATION).read_bytes()
    calibrated(run)
    calibrated(second)
    assert (second / CALIBRATION).read_bytes() == (run / CALIBRATION).read_bytes()
    here, there = load_checkpoint(run / BEST), load_checkpoint(second / BEST)
    assert here.tensors_sha256 == there.tensors_sha256
    assert replace(there.checkpoint, split_fingerprint="") == replace(here.checkpoint, split_fingerprint="")
    assert here.checkpoint.split_fingerprint != there.checkpoint.split_fingerprint


def test_test_images_are_not_even_opened(run: Path, data: Path, tmp_path: Path) -> None:
    calibrated(run)
    before = (run / BEST).read_bytes()
    copy = Path(shutil.copytree(data, tmp_path / "copy"))
    tests = [row["path"] for row in read_rows(run / "split.csv") if row["set"] == "test"]
    (copy / tests[0]).unlink()
    for path in tests[1:]:
        (copy / path).write_bytes(b"not an image")

    calibrate(config(), CalibrateRequest(run, "sensitivity=0.9", data=copy))

    assert (run / BEST).read_bytes() == before


@pytest.mark.parametrize("module", ["workflows/evaluate.py", "workflows/predictions.py", "evaluation/metrics.py"])
def test_what_sees_test_labels_imports_nothing_that_chooses(module: str) -> None:
    tree = ast.parse((REPOSITORY / "evalcam_cli" / module).read_text(encoding="utf-8"))
    choosing = {"choose_operating_point", "fit_temperature", "calibrate_on", "calibrate", "choosing", "temperature"}

    imported = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {alias.name.rpartition(".")[2] for node in imported for alias in node.names}
    names |= {(node.module or "").rpartition(".")[2] for node in imported if isinstance(node, ast.ImportFrom)}

    assert imported
    assert not names & choosing


def test_every_command_says_the_same_of_the_same_image(run: Path, data: Path, tmp_path: Path) -> None:
    point = calibrated(run, "specificity=0.8").calibration.operating_point
    assert point is not None

    said = evaluate(config(), EvaluateRequest(out=tmp_path / "out", ckpt=run)).predictions
    images = [data / path for path in said.paths]
    predicted = predict(config(), WeightsRequest(run), images, tmp_path / "p.csv").predictions
    maps = explain(config(), GradCamRequest(tmp_path / "maps", tuple(images[:12]), WeightsRequest(run))).rows

    np.testing.assert_allclose(predicted.probabilities, said.probabilities, atol=1e-6)
    called = said.probabilities[:, 1] >= point.threshold
    assert said.predicted.tolist() == called.tolist() == predicted.predicted.tolist()
    assert (said.predicted != said.argmax).any()  # so the threshold had a say
    for row, probabilities, call in zip(maps, said.probabilities, called, strict=False):
        assert row.predicted == row.class_name == ("ill" if call else "healthy")
        assert row.probability == pytest.approx(probabilities[int(call)], abs=1e-5)
    again = evaluate(config(), EvaluateRequest(predictions=tmp_path / "out" / "predictions.csv"))
    assert again.predictions.operating_point == point
    assert again.predictions.temperature == said.temperature
    assert again.document["metrics"] == evaluate(config(), EvaluateRequest(ckpt=run)).document["metrics"]


def test_an_edited_calibration_in_metrics_json_is_refused(run: Path, tmp_path: Path) -> None:
    calibrated(run)
    evaluate(config(), EvaluateRequest(out=tmp_path / "out", ckpt=run))
    path = tmp_path / "out" / "metrics.json"
    document = json.loads(path.read_text())

    entries: list[object] = [{"temperature": 0}, {"temperature": "2"}, {"operating_point": {"threshold": 2}}, []]
    for entry in entries:
        path.write_text(json.dumps(document | {"calibration": entry}))
        with pytest.raises(DataError, match="calibration cannot be used"):
            evaluate(config(), EvaluateRequest(predictions=tmp_path / "out"))


def test_a_run_interrupted_while_calibrating_continues_to_the_same_bytes(
    trained: Path, split_file: Path, tmp_path: Path
) -> None:
    def interrupt(task: str, done: int, total: int, note: str = "") -> None:
        if task == "calibrating":
            raise KeyboardInterrupt

    request = TrainRequest(tmp_path / "run", split_file=split_file)
    with pytest.raises(KeyboardInterrupt):
        train(config(), request, interrupt)
    with pytest.raises(DataError, match="not finished"):
        calibrate(config(), CalibrateRequest(tmp_path / "run"))

    train(config(), replace(request, resume=True))

    for name in (BEST, LAST, CALIBRATION):
        assert (tmp_path / "run" / name).read_bytes() == (trained / name).read_bytes(), name


def test_resuming_a_finished_run_keeps_its_calibration(run: Path, split_file: Path) -> None:
    calibrated(run)
    before = (run / BEST).read_bytes()

    train(config(), TrainRequest(run, split_file=split_file, resume=True))

    assert (run / BEST).read_bytes() == before


def test_only_the_split_that_the_run_was_trained_with_will_do(run: Path) -> None:
    table = (run / "split.csv").read_text()
    before = (run / BEST).read_bytes()

    (run / "split.csv").write_text(table.replace(",test,", ",val,"))
    with pytest.raises(DataError, match="not the split that the run was trained with"):
        calibrated(run)
    (run / "split.csv").unlink()
    with pytest.raises(UsageError, match=r"no split\.csv"):
        calibrated(run)

    assert (run / BEST).read_bytes() == before


def test_changed_and_missing_validation_images_are_refused(run: Path, data: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(data, tmp_path / "copy"))
    paths = [row["path"] for row in read_rows(run / "split.csv") if row["set"] == "val"]
    shutil.copy(copy / paths[1], copy / paths[0])

    with pytest.raises(DataError, match="1 validation image changed"):
        calibrate(config(), CalibrateRequest(run, data=copy))
    (copy / paths[0]).unlink()
    with pytest.raises(DataError, match="1 of 64 validation images are not under"):
        calibrate(config(), CalibrateRequest(run, data=copy))


def test_a_folder_in_use_is_left_alone(run: Path) -> None:
    import subprocess
    import sys

    hold = (
        "import sys, pathlib\nfrom evalcam_cli.files import output_folder\n"
        "with output_folder(pathlib.Path(sys.argv[1]), resume=True):\n print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", hold, str(run)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(MachineError, match="another evalcam run is using"):
            calibrated(run)
        holder.communicate("")
    with output_folder(run, resume=True):
        pass


@pytest.mark.parametrize(
    ("place", "rule", "problem"),
    [
        ("run/nowhere", None, "there is no run folder"),
        (f"run/{LAST}", None, "only that is calibrated"),
        ("run/checkpoints", None, "holds no checkpoints"),
        ("run", "sensitivity", "the shell took"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(run: Path, place: str, rule: str | None, problem: str) -> None:
    with pytest.raises(EvalcamError, match=problem):
        calibrated(run.parent / place, rule)


def test_the_best_checkpoint_names_its_run(run: Path) -> None:
    assert calibrated(run / BEST).folder == run


def test_every_round_is_calibrated_on_its_own_validation_images(data: Path, tmp_path: Path) -> None:
    settings = config("split.folds=2", "train.epochs=1")
    train_all_folds(settings, TrainRequest(tmp_path / "cv", data))
    untouched = [(tmp_path / "cv" / fold / BEST).read_bytes() for fold in ("fold-0", "fold-1")]

    with pytest.raises(DataError, match="a temperature needs 50"):
        calibrate(settings, CalibrateRequest(tmp_path / "cv"))
    assert [(tmp_path / "cv" / fold / BEST).read_bytes() for fold in ("fold-0", "fold-1")] == untouched

    first, second = calibrate(settings, CalibrateRequest(tmp_path / "cv", "cost=1:3", temperature=False))
    assert first.document["validation_images_sha256"] != second.document["validation_images_sha256"]
    for result in (first, second):
        assert load_checkpoint(result.checkpoint).checkpoint.operating_point == result.calibration.operating_point
