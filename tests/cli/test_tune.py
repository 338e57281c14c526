"""`evalcam tune` and `evalcam lr-find` as a shell sees them."""

import json
from pathlib import Path

import pytest

from evalcam_cli.config_sources import load_config
from tests.cli.commands import run_command
from tests.conftest import TINY, read_rows

pytest.importorskip("optuna")

SPACE = "search: {space: {train.lr: {low: 1e-4, high: 1e-2, log: true}, train.weight_decay: [0, 0.1]}}\n"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "tune.yaml"
    path.write_text(SPACE + "train: {epochs: 1}\n", encoding="utf-8")
    return path


@pytest.mark.slow
def test_two_processes_search_and_the_best_config_is_written(colours: Path, tmp_path: Path, config: Path) -> None:
    out = tmp_path / "out"

    outcome = run_command(
        "tune",
        str(config),
        str(colours),
        "--out",
        str(out),
        "--trials",
        "3",
        "--jobs",
        "2",
        "--json",
        *TINY,
        "--set",
        "data.image_size=16",
    )

    assert outcome.code == 0, outcome.err
    document = json.loads(outcome.out)
    assert document["trials"] == {"complete": 3, "pruned": 0, "failed": 0}
    assert [row["state"] for row in read_rows(out / "trials.csv")] == ["complete"] * 3
    best = load_config(out / "best.yaml")
    assert best.train.lr == document["best"]["params"]["train.lr"]
    assert Path(document["best"]["checkpoint"]).is_file()
    assert outcome.err.count("best so far") >= 1
    assert "helper ended" not in outcome.err


@pytest.mark.slow
def test_the_helpers_find_the_images_of_a_given_split_wherever_the_config_says_data_are(
    colours: Path, tmp_path: Path, config: Path
) -> None:
    split, out, shared = tmp_path / "s.csv", tmp_path / "out", (*TINY, "--set", "data.image_size=16")
    elsewhere = ("--set", f"data.path={tmp_path}", *shared)
    assert run_command("split", str(colours), "--out", str(split)).code == 0
    begun = ("tune", str(config), "--split", str(split), "--out", str(out), *elsewhere)

    together = run_command(*begun, "--trials", "2", "--jobs", "2")
    later = run_command("tune", str(config), "--out", str(out), *elsewhere, "--trials", "3", "--resume")
    as_before = run_command(*begun, "--resume")

    assert together.code == 0, together.err
    assert "helper ended" not in together.err
    assert later.code == 0, later.err
    assert as_before.code == 0, as_before.err
    assert len(read_rows(out / "trials.csv")) == 3


def test_mistakes_are_said_before_anything_is_trained(colours: Path, tmp_path: Path, config: Path) -> None:
    out, plain = tmp_path / "out", tmp_path / "plain.yaml"
    plain.write_text("train: {epochs: 1}\n", encoding="utf-8")
    shared = (str(colours), "--out", str(out))
    wrong = {
        "search:": (str(plain), *shared),
        "--join": (str(config), *shared, "--join", "--jobs", "2"),
        "no search in": (str(config), *shared, "--join"),
        "did you mean 'train.lr'": (str(config), *shared, "--set", "search.space={trian.lr: [1, 2]}"),
        "--resume and --overwrite": (str(config), *shared, "--resume", "--overwrite"),
        "nothing to train on": (str(config), "--out", str(out)),
    }

    for words, arguments in wrong.items():
        outcome = run_command("tune", *arguments)
        assert outcome.code == 2, words
        assert words in outcome.err
        assert "Traceback" not in outcome.err
    assert not out.exists()


def test_a_range_test_prints_the_line_for_the_config(colours: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"

    outcome = run_command(
        "lr-find",
        str(colours),
        "--out",
        str(out),
        "--steps",
        "30",
        "--min",
        "1e-6",
        *TINY,
        "--set",
        "data.image_size=16",
    )

    assert outcome.code == 0, outcome.err
    lines = outcome.out.splitlines()
    (line,) = [line for line in lines if line.startswith("train.lr: ")]
    said = json.loads((out / "lr_find.json").read_text("utf-8"))["train.lr"]
    assert line == f"train.lr: {'n/a' if said is None else f'{said:.2g}'}"
    assert lines[-1] == str(out)
