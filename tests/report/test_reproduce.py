"""The script beside every report agrees with it, stands alone, and notices when a number was changed."""

import csv
import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from evalcam_cli.evaluation.metrics import compute_metrics
from evalcam_cli.evaluation.operating_point import OperatingPoint
from evalcam_cli.evaluation.predictions import Predictions
from evalcam_cli.report import reproduce
from tests.cli.commands import run_command

SCRIPT = Path(reproduce.__file__)
NAMES = ("=cat", "b,c", "ü", "'=d")

pytestmark = [
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),  # quotients 0/0, which the script silences in `main`
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


def write_scores(path: Path, kind: str, classes: int, *, absent: bool = False, groups: bool = False) -> Path:
    """A CSV as any classifier may have written it."""
    generator, n = np.random.default_rng(classes), 60
    targets = generator.integers(0, classes - absent, n)
    logits = generator.normal(size=(n, classes))
    logits[np.arange(n), targets] += 1
    scores = logits if kind == "logit" else (np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)).round(3)
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        names = NAMES[:classes]
        writer.writerow(["target", *["group"] * groups, *(f"{kind}:{name}" for name in names)])
        for index, row in enumerate(scores.tolist()):
            writer.writerow([names[targets[index]], *[f"@p{index // 3}" if index % 9 else ""] * groups, *row])
    return path


def differing(folder: Path) -> tuple[list[reproduce.Row], list[str]]:
    rows = list(reproduce.compare(reproduce.read_saved(folder), everything=False))
    return rows, [row.name for row in rows if row.wrong]


@pytest.mark.parametrize(
    ("kind", "classes", "options"),
    [
        pytest.param("logit", 2, {}, id="two-classes"),
        pytest.param("p", 3, {}, id="stated-probabilities"),
        pytest.param("logit", 4, {"absent": True}, id="absent-class"),
        pytest.param("p", 2, {"groups": True}, id="patients"),
    ],
)
def test_every_number_of_an_evaluation_is_found_again(
    kind: str, classes: int, options: dict[str, bool], tmp_path: Path
) -> None:
    scores = write_scores(tmp_path / "scores.csv", kind, classes, **options)
    outcome = run_command(
        "evaluate", "--predictions", str(scores), "--out", str(tmp_path / "out"), "--set", "evaluate.bootstrap=100"
    )

    rows, wrong = differing(tmp_path / "out")

    assert outcome.code == 0, outcome.err
    assert wrong == []
    assert len([row for row in rows if not row.note]) > 100
    left_out = {row.name.partition("[")[0].partition(" ")[0] for row in rows if row.theirs is None}
    assert all("average_precision" in name or "roc_auc" in name for name in left_out), left_out


def write_document(folder: Path, predictions: Predictions) -> None:
    """The three files in their least form."""
    metrics = compute_metrics(predictions, bootstrap=50, seed=3)
    point = predictions.operating_point
    np.save(folder / "logits.npy", predictions.logits)
    names = [
        [predictions.classes[i] for i in places.tolist()] for places in (predictions.targets, predictions.predicted)
    ]
    lines = [f"{target},{predicted}," for target, predicted in zip(*names, strict=True)]
    (folder / "predictions.csv").write_text("target,predicted,group\n" + "\n".join(lines), encoding="utf-8")
    counts = ("support", "tp", "fp", "fn", "tn")
    document = {
        "classes": list(predictions.classes),
        "positive": metrics.positive,
        "metrics": {name: asdict(estimate) for name, estimate in metrics.overall.items()},
        "per_class": {
            label: {name: getattr(entry, name) for name in counts}
            | {name: asdict(estimate) for name, estimate in entry.estimates.items()}
            for label, entry in metrics.per_class.items()
        },
        "tests": {name: asdict(test) for name, test in metrics.tests.items()},
        "scores": metrics.scores,
        "bootstrap": metrics.bootstrap,
        "seed": metrics.seed,
        "calibration": {"temperature": predictions.temperature, "operating_point": point and point.to_dict()},
    }
    (folder / "metrics.json").write_text(json.dumps(document, allow_nan=False), encoding="utf-8")


@pytest.fixture(params=[2, 3])
def calibrated(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A folder with a temperature and an operating point."""
    generator, k = np.random.default_rng(0), request.param
    targets = generator.integers(0, k, 80)
    logits = generator.normal(size=(80, k)).astype(np.float32)
    logits[np.arange(80), targets] += 1
    point = OperatingPoint("b", 0.3, "youden", 9, 9, 0.9, 0.9)
    names = tuple("abc"[:k])
    write_document(tmp_path, Predictions(names, logits, targets, ("",) * 80, temperature=1.7, operating_point=point))
    return tmp_path


def test_a_stored_temperature_and_operating_point_are_applied(calibrated: Path) -> None:
    rows, wrong = differing(calibrated)

    assert wrong == []
    assert {"recall@op", "recall@op ci_low", "lr_positive@op ci_low", "f1@op ci_high"} <= {row.name for row in rows}


@pytest.mark.parametrize("end", ["estimate", "ci_low", "ci_high"])
def test_a_changed_number_is_named(calibrated: Path, end: str) -> None:
    path = calibrated / "metrics.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    document["metrics"]["f1_macro"][end] += 1e-6
    path.write_text(json.dumps(document), encoding="utf-8")

    _, wrong = differing(calibrated)

    assert wrong == [f"f1_macro {end}".removesuffix(" estimate")]


def test_an_image_whose_truth_was_changed_is_noticed(calibrated: Path) -> None:
    path = calibrated / "predictions.csv"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("\na,", "\nb,", 1), encoding="utf-8")

    _, wrong = differing(calibrated)

    assert "accuracy" in wrong


def test_a_number_in_the_place_of_null_is_a_mismatch_and_an_intended_null_is_not() -> None:
    assert reproduce.Row("recall[a]", None, 0.0).wrong
    assert reproduce.Row("recall[a]", 0.0, float("nan")).wrong
    assert not reproduce.Row("recall[a]", None, float("nan")).wrong
    assert not reproduce.Row("mcc", None, 0.0).wrong
    assert reproduce.Row("mcc", 0.5, 0.0).wrong


def test_the_script_needs_neither_evalcam_nor_torch(calibrated: Path) -> None:
    copied = calibrated / "reproduce.py"
    copied.write_bytes(SCRIPT.read_bytes())
    code = (
        "import runpy, sys\n"
        f"sys.argv = [{str(copied)!r}]\n"
        "try:\n"
        f"    runpy.run_path({str(copied)!r}, run_name='__main__')\n"
        "except SystemExit as stop:\n"
        "    sys.exit(stop.code or len({'torch', 'evalcam_cli', 'matplotlib'} & set(sys.modules)))"
    )

    run = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=False)

    assert run.returncode == 0, run.stderr
    assert "MISMATCH" not in run.stdout
    assert "\nrecomputed " in run.stdout
    assert run.stderr == ""
