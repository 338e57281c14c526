"""The files of a comparison, from saved predictions and from folders of `evaluate`."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from evalcam_cli.config import RunConfig
from evalcam_cli.config_sources import load_config
from evalcam_cli.errors import DataError, GateError, UsageError
from evalcam_cli.workflows.compare import CompareRequest, compare_predictions
from evalcam_cli.workflows.evaluate import evaluate
from evalcam_cli.workflows.predictions import EvaluateRequest
from tests.conftest import read_rows

CLASSES = ("glioma", "no_tumor $x", "메닌")


def write_predictions(path: Path, *, seed: int, skill: float = 1.5, n: int = 60, columns: bool = True) -> Path:
    """A CSV of probabilities; all of them have the same images and truth."""
    targets = np.arange(n) % 3
    logits = np.random.default_rng(seed).normal(size=(n, 3)) + skill * np.eye(3)[targets]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow([*(("path", "group") if columns else ()), "target", *(f"p:{name}" for name in CLASSES)])
        for index, row in enumerate(probabilities):
            facts = (f"img/{index}.png", f"p{index // 3}") if columns else ()
            writer.writerow([*facts, CLASSES[targets[index]], *map(float, row)])
    return path


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    return write_predictions(tmp_path / "a.csv", seed=1), write_predictions(tmp_path / "b.csv", seed=2, skill=3)


def settings(**options: object) -> RunConfig:
    return load_config(options={"evaluate.bootstrap": 100, **options})


def test_the_files_say_the_same(pair: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"

    result = compare_predictions(settings(), CompareRequest(pair, out, non_inferior=("accuracy:0.1",)))

    document: dict[str, Any] = json.loads((out / "comparison.json").read_text(encoding="utf-8"))
    assert document == result.document
    rows = read_rows(out / "comparison.csv")
    metrics = document["pairs"][0]["metrics"]
    assert [row["metric"] for row in rows] == list(metrics)
    for row in rows:
        assert float(row["difference"]) == metrics[row["metric"]]["difference"]
        assert float(row["p_value"]) == metrics[row["metric"]]["p_value"]
    disputed = read_rows(out / "disagreements.csv")
    assert len(disputed) == document["pairs"][0]["disagreements"] > 0
    assert all(row["predicted_A"] != row["predicted_B"] for row in disputed)
    assert document["gates"][0]["passed"] is True
    with Image.open(out / "differences.png") as picture:
        assert picture.size[0] > 600
    page = (out / "comparison.md").read_text(encoding="utf-8")
    assert "| accuracy | +" in page
    assert "by 20 groups" in page
    assert str(tmp_path.parent) not in json.dumps(document["warnings"])


def test_the_same_seed_gives_the_same_bytes(pair: tuple[Path, Path], tmp_path: Path) -> None:
    for name in ("one", "two"):
        compare_predictions(settings(), CompareRequest(pair, tmp_path / name))

    for path in (tmp_path / "one").glob("[!.]*"):
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_without_out_nothing_is_written(pair: tuple[Path, Path], tmp_path: Path) -> None:
    before = sorted(tmp_path.iterdir())

    compare_predictions(settings(), CompareRequest(pair))

    assert sorted(tmp_path.iterdir()) == before


def test_a_refused_comparison_leaves_nothing(pair: tuple[Path, Path], tmp_path: Path) -> None:
    other = write_predictions(tmp_path / "c.csv", seed=3, n=30)

    with pytest.raises(DataError, match="30 images only in"):
        compare_predictions(settings(), CompareRequest((pair[0], other), tmp_path / "out"))

    assert not (tmp_path / "out").exists()


def test_a_demand_that_is_not_met_is_a_gate(pair: tuple[Path, Path]) -> None:
    result = compare_predictions(settings(), CompareRequest(pair[::-1], non_inferior=("accuracy:0.001",)))

    with pytest.raises(GateError, match="not shown that B is not worse than A in accuracy"):
        result.require_gates()


def test_a_folder_of_evaluate_compares_as_its_file(pair: tuple[Path, Path], tmp_path: Path) -> None:
    folder = tmp_path / "evaluated"
    evaluate(settings(), EvaluateRequest(out=folder, predictions=pair[0]))

    found = compare_predictions(settings(), CompareRequest((folder, pair[1]))).document["pairs"]

    expected = compare_predictions(settings(), CompareRequest(pair)).document["pairs"]
    for name, one in expected[0]["metrics"].items():
        assert found[0]["metrics"][name]["difference"] == pytest.approx(one["difference"], abs=1e-6)
        assert found[0]["metrics"][name]["p_value"] == pytest.approx(one["p_value"], abs=1e-6)


def test_one_input_an_unknown_test_and_a_missing_file_are_refused(pair: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="two or more"):
        compare_predictions(settings(), CompareRequest(pair[:1]))
    with pytest.raises(UsageError, match="--mcnemar"):
        compare_predictions(settings(), CompareRequest(pair, mcnemar="yates"))
    with pytest.raises(UsageError, match="cannot read"):
        compare_predictions(settings(), CompareRequest((pair[0], tmp_path / "none.csv")))


def test_an_output_folder_is_not_an_input_folder(pair: tuple[Path, Path], tmp_path: Path) -> None:
    folder = tmp_path / "evaluated"
    folder.mkdir()
    (folder / "predictions.csv").write_bytes(pair[0].read_bytes())

    with pytest.raises(UsageError, match="compared lies in"):
        compare_predictions(settings(), CompareRequest((folder, pair[1]), folder / "compared"))


def test_files_without_paths_or_groups_are_compared_by_row(tmp_path: Path) -> None:
    inputs = tuple(write_predictions(tmp_path / f"{seed}.csv", seed=seed, columns=False) for seed in (1, 2))

    document = compare_predictions(settings(), CompareRequest(inputs)).document

    assert document["groups"] is None
    assert [one["code"] for one in document["warnings"]] == ["matched_by_row"]
