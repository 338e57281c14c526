"""A range test from a config and images to its files."""

import json
import multiprocessing
import shutil
from pathlib import Path

import pytest

from evalcam_cli.config import RunConfig
from evalcam_cli.config_sources import load_config
from evalcam_cli.errors import DataError, UsageError
from evalcam_cli.workflows.lr_find import RangeTestRequest, lr_find
from evalcam_cli.workflows.split import make_split, write_split_file
from tests.conftest import TINY, read_rows


def config(*assignments: str) -> RunConfig:
    return load_config(
        assignments=[*(one for one in TINY if one != "--set"), "data.image_size=16", "train.lr=0.5", *assignments]
    )


@pytest.fixture(scope="module")
def split_file(colours: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A split of which only training images can be read."""
    root = tmp_path_factory.mktemp("lr")
    data = shutil.copytree(colours, root / "data")
    prepared = make_split(data, RunConfig(), report_beside=root / "out")
    write_split_file(prepared, root / "split.csv")
    for name in ("val", "test"):
        for sample in prepared.split.subset(name):
            (data / sample.path).write_bytes(b"garbage")
    return root / "split.csv"


def test_only_training_images_are_used_and_no_weights_are_kept(split_file: Path, tmp_path: Path) -> None:
    request = RangeTestRequest(tmp_path / "out", split_file=split_file, low=1e-6, high=1.0, steps=20)
    others = multiprocessing.active_children()

    result = lr_find(config("data.workers=1"), request)

    names = {path.name for path in (tmp_path / "out").iterdir()} - {".evalcam.lock"}
    assert names == {"lr_find.csv", "lr_find.json", "lr_find.png"}
    rows = read_rows(tmp_path / "out" / "lr_find.csv")
    assert list(rows[0]) == ["step", "lr", "loss", "smoothed_loss"]
    assert [float(row["lr"]) for row in rows] == [point.rate for point in result.points]
    assert rows[0]["lr"] == "1e-06"
    document = json.loads((tmp_path / "out" / "lr_find.json").read_text("utf-8"))
    assert document == result.document
    assert document["train.lr"] == result.suggestion.recommended
    assert document["steps"] == len(rows)
    assert set(multiprocessing.active_children()) <= set(others)  # the reader was left in the middle of an epoch


def test_the_same_seed_gives_the_same_losses_and_the_config_s_rate_has_no_part(
    split_file: Path, tmp_path: Path
) -> None:
    request = RangeTestRequest(tmp_path / "a", split_file=split_file, steps=20)

    first = lr_find(config(), request)
    again = lr_find(config("train.lr=0.01"), RangeTestRequest(tmp_path / "b", split_file=split_file, steps=20))

    assert again.points == first.points


def test_what_cannot_be_is_refused_and_leaves_nothing(colours: Path, split_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"

    with pytest.raises(UsageError, match="--min"):
        lr_find(config(), RangeTestRequest(out, colours, low=1.0, high=0.1))
    with pytest.raises(UsageError, match="folds"):
        lr_find(config("split.folds=3"), RangeTestRequest(out, colours))
    with pytest.raises(UsageError, match="nothing to train on"):
        lr_find(config(), RangeTestRequest(out))
    (tmp_path / "split.csv").write_text("path,label,set\na/b.png,a,test\n")
    with pytest.raises(DataError, match="no train images"):
        lr_find(config(), RangeTestRequest(out, colours, split_file=tmp_path / "split.csv"))
    assert not out.exists()
