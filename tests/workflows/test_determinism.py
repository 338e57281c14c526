"""From the same saved predictions the same files, byte for byte, whatever the number of threads."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.cli.commands import run_command
from tests.conftest import read_rows

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def write_predictions(path: Path, classes: int, *, groups: bool) -> None:
    generator = np.random.default_rng(classes)
    targets = generator.integers(0, classes, 120)
    logits = generator.normal(size=(120, classes)) * 2
    logits[np.arange(120), targets] += 1
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["path", "target", *["group"] * groups, *(f"logit:{index}" for index in range(classes))])
        for index, row in enumerate(logits.tolist()):
            writer.writerow([f"{index}.png", targets[index], *[f"p{index // 4}"] * groups, *row])


def evaluate(scores: Path, out: Path, threads: int) -> dict[str, bytes]:
    """The files of an evaluation in a process of its own."""
    command = [sys.executable, "-m", "evalcam_cli", "evaluate", "--predictions", str(scores), "--out", str(out)]
    environment = os.environ | dict.fromkeys(THREADS, str(threads))
    run = subprocess.run(
        [*command, "--quiet", "--set", "evaluate.bootstrap=100"],
        env=environment, cwd=scores.parent, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    return {path.name: without_looks(path) for path in sorted(out.iterdir())}


def without_looks(path: Path) -> bytes:
    """The bytes, but for what may differ: how often the set was looked at, and the name of the output folder."""
    content = path.read_bytes()
    if path.name == "metrics.json":
        document = json.loads(content)
        document["looks"] = None
        content = json.dumps(document).encode()
    return content.replace(path.parent.name.encode(), b"OUT")


@pytest.mark.parametrize(("classes", "groups"), [(2, True), (7, False)])
def test_json_csv_and_png_are_the_same_bytes_in_every_run_and_with_one_or_two_threads(
    classes: int, groups: bool, tmp_path: Path
) -> None:
    scores = tmp_path / "scores.csv"
    write_predictions(scores, classes, groups=groups)

    first = evaluate(scores, tmp_path / "out-one", 1)
    again = evaluate(scores, tmp_path / "out-two", 2)

    assert {"metrics.json", "metrics.csv", "predictions.csv", "roc.png", "calibration.png", "report.md"} <= set(first)
    assert [name for name in first if first[name] != again.get(name)] == []
    assert set(first) == set(again)


def test_other_labels_change_no_prediction(tmp_path: Path) -> None:
    """What is predicted, and how surely, is settled before the labels are looked at."""
    scores, shuffled = tmp_path / "scores.csv", tmp_path / "shuffled.csv"
    write_predictions(scores, 3, groups=False)
    rows = [line.split(",") for line in scores.read_text(encoding="utf-8").splitlines()]
    labels = [row[1] for row in rows[1:]]
    turned = [rows[0], *([row[0], labels[index - 40], *row[2:]] for index, row in enumerate(rows[1:]))]
    shuffled.write_text("\n".join(map(",".join, turned)), encoding="utf-8")

    folders = [tmp_path / path.stem for path in (scores, shuffled)]
    for path, folder in zip((scores, shuffled), folders, strict=True):
        run_command(
            "evaluate", "--predictions", str(path), "--out", str(folder), "--set", "evaluate.bootstrap=100"
        )  # fmt: skip

    before, after = ([(row["predicted"], row["confidence"]) for row in read_rows(folder / "predictions.csv")]
                     for folder in folders)  # fmt: skip
    assert before == after
    assert (folders[0] / "logits.npy").read_bytes() == (folders[1] / "logits.npy").read_bytes()
    assert (folders[0] / "confusion_matrix.csv").read_bytes() != (folders[1] / "confusion_matrix.csv").read_bytes()
