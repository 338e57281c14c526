"""From a classifier and images to heatmaps on the original pixels."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evalcam_cli.config import RunConfig
from evalcam_cli.config_sources import load_config
from evalcam_cli.errors import DataError, UsageError
from evalcam_cli.progress import Progress
from evalcam_cli.workflows.checkpoints import WeightsRequest
from evalcam_cli.workflows.explanations import HEADER
from evalcam_cli.workflows.gradcam import GradCamRequest, explain
from evalcam_cli.workflows.train import TrainRequest, train
from tests.conftest import TINY, draw_classes, read_rows


def config(*assignments: str) -> RunConfig:
    return load_config(assignments=[*(one for one in TINY if one != "--set"), "train.epochs=2", *assignments])


@pytest.fixture(scope="module")
def run(colours: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(config(), TrainRequest(tmp_path_factory.mktemp("train") / "run", colours)).folder


def request(run: Path, out: Path, *images: Path, resume: bool = False) -> GradCamRequest:
    return GradCamRequest(out, images, WeightsRequest(run), resume=resume)


def test_the_table_the_maps_and_the_overlays_belong_together(run: Path, colours: Path, tmp_path: Path) -> None:
    image = colours / "정상" / "000.png"

    result = explain(config("gradcam.class=all"), request(run, tmp_path / "out", image))

    rows = read_rows(tmp_path / "out" / "explanations.csv")
    assert tuple(rows[0]) == HEADER
    assert [row["class"] for row in rows] == ["a [b]", "정상"]
    assert sum(float(row["probability"]) for row in rows) == pytest.approx(1)
    for row, explained in zip(rows, result.rows, strict=True):
        signed = np.load(tmp_path / "out" / row["map"], allow_pickle=False)
        assert signed.dtype == np.float32
        assert (float(row["map_min"]), float(row["map_max"])) == (signed.min(), signed.max())
        assert (row["empty"] == "true") == explained.empty == (not signed.max() > 0)
        with Image.open(tmp_path / "out" / row["overlay"]) as overlay, Image.open(image) as original:
            assert overlay.width >= original.width
            assert overlay.height > original.height  # a strip with the colour bar below
    assert rows[0]["overlay"] == "000.gradcam.a__b_.png"
    assert rows[1]["overlay"] == "000.gradcam.정상.png"


def test_a_map_of_a_resnet_sums_to_the_logit_less_the_bias(run: Path, colours: Path, tmp_path: Path) -> None:
    """Global pooling and one linear layer: Selvaraju et al. 2017, section 3.1. Here through all of the command."""
    from evalcam_cli.models.checkpoint import load_checkpoint

    result = explain(config("gradcam.class=all"), request(run, tmp_path / "out", colours / "정상" / "000.png"))

    bias = load_checkpoint(run / "checkpoints" / "best.safetensors").weights["fc.bias"]
    for row in result.rows:
        total = np.load(tmp_path / "out" / row.map).sum()
        assert total == pytest.approx(row.logit - float(bias[row.class_index]), abs=1e-4)


def test_a_folder_keeps_its_folders_and_knows_the_true_class(run: Path, colours: Path, tmp_path: Path) -> None:
    result = explain(config("gradcam.class=true", "gradcam.max_images=30"), request(run, tmp_path / "out", colours))

    assert len(result.rows) == 30
    assert {row.label for row in result.rows} == {"a [b]", "정상"}
    assert all(row.class_name == row.label for row in result.rows)
    assert (tmp_path / "out" / "정상" / "003.gradcam.정상.png").exists()


def test_images_of_a_split_are_taken_from_each_class_in_turn(run: Path, tmp_path: Path) -> None:
    settings = config("gradcam.max_images=4")

    result = explain(settings, GradCamRequest(tmp_path / "out", weights=WeightsRequest(run), subset="test"))

    assert sorted(row.label for row in result.rows) == ["a [b]", "a [b]", "정상", "정상"]


def test_equal_stems_keep_their_suffix_and_equal_names_get_a_number(run: Path, tmp_path: Path) -> None:
    pixels = Image.new("RGB", (30, 20), (200, 10, 10))
    files = [tmp_path / "a" / "x.png", tmp_path / "a" / "x.bmp", tmp_path / "b" / "x.png"]
    for file in files:
        file.parent.mkdir(exist_ok=True)
        pixels.save(file)

    result = explain(config(), request(run, tmp_path / "out", *files))

    stems = [row.overlay.split(".gradcam")[0] for row in result.rows]
    assert stems == ["x.png", "x.bmp", "x.png-2"]


def interrupt_after(count: int) -> Progress:
    def interrupt(task: str, done: int, total: int, note: str = "") -> None:
        if task == "explaining" and done >= count:
            raise KeyboardInterrupt

    return interrupt


def test_an_interrupted_explanation_goes_on_where_it_stopped(run: Path, colours: Path, tmp_path: Path) -> None:
    whole = explain(config(), request(run, tmp_path / "whole", colours))
    with pytest.raises(KeyboardInterrupt):
        explain(config(), request(run, tmp_path / "out", colours), interrupt_after(20))
    assert not (tmp_path / "out" / "explanations.csv").exists()
    done = [row.map for row in whole.rows[:20]]
    finished = {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in done}

    result = explain(config(), request(run, tmp_path / "out", colours, resume=True))

    assert result.rows == whole.rows
    assert {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in done} == finished
    assert (tmp_path / "out" / "explanations.csv").read_bytes() == (
        tmp_path / "whole" / "explanations.csv"
    ).read_bytes()
    assert not list((tmp_path / "out").glob("*.jsonl"))


def test_a_finished_explanation_is_not_made_again(run: Path, colours: Path, tmp_path: Path) -> None:
    first = explain(config(), request(run, tmp_path / "out", colours / "정상"))
    before = (tmp_path / "out" / "explanations.csv").stat().st_mtime_ns

    again = explain(config(), request(run, tmp_path / "out", colours / "정상", resume=True))

    assert again.rows == first.rows
    assert (tmp_path / "out" / "explanations.csv").stat().st_mtime_ns == before


def test_resuming_with_other_classes_is_refused(run: Path, colours: Path, tmp_path: Path) -> None:
    explain(config(), request(run, tmp_path / "out", colours / "정상" / "000.png"))

    with pytest.raises(UsageError, match="other images, classes, methods, layer or checkpoint"):
        explain(config("gradcam.class=all"), request(run, tmp_path / "out", colours / "정상" / "000.png", resume=True))


def test_a_broken_image_is_reported_and_does_not_stop_the_rest(run: Path, tmp_path: Path) -> None:
    data = draw_classes(tmp_path / "data", {"정상": 2})
    (data / "정상" / "001-bad.png").write_bytes(b"no image")

    with pytest.raises(DataError, match=r"bad\.png") as error:
        explain(config(), request(run, tmp_path / "out", data))

    assert error.value.exit_code == 3
    assert len(read_rows(tmp_path / "out" / "explanations.csv")) == 2
    assert "bad.png" in (tmp_path / "unreadable.csv").read_text()


def test_a_broken_image_is_explained_once_it_is_mended(run: Path, tmp_path: Path) -> None:
    data = draw_classes(tmp_path / "data", {"정상": 3})
    whole = explain(config(), request(run, tmp_path / "whole", data)).rows
    middle = data / "정상" / "001.png"
    content = middle.read_bytes()
    middle.write_bytes(b"no image")
    with pytest.raises(DataError):
        explain(config(), request(run, tmp_path / "out", data))
    middle.write_bytes(content)

    mended = explain(config(), request(run, tmp_path / "out", data, resume=True))

    assert [(row.path, row.map, row.peak_x) for row in mended.rows] == [
        (row.path, row.map, row.peak_x) for row in whole
    ]
    assert [row.logit for row in mended.rows] == pytest.approx([row.logit for row in whole], abs=1e-5)


def test_a_broken_image_is_left_out_when_so_many_are_allowed(run: Path, tmp_path: Path) -> None:
    data = draw_classes(tmp_path / "data", {"정상": 2})
    (data / "정상" / "bad.png").write_bytes(b"no image")

    result = explain(config("data.allow_unreadable=1"), request(run, tmp_path / "out", data))

    assert len(result.rows) == 2


def test_an_image_that_has_changed_is_not_continued(run: Path, tmp_path: Path) -> None:
    data = draw_classes(tmp_path / "data", {"정상": 3})
    with pytest.raises(KeyboardInterrupt):
        explain(config(), request(run, tmp_path / "out", data), interrupt_after(1))
    Image.new("RGB", (40, 40)).save(data / "정상" / "000.png")

    with pytest.raises(UsageError, match=r"000\.png has changed"):
        explain(config(), request(run, tmp_path / "out", data, resume=True))


def test_the_true_class_of_a_single_file_is_unknown(run: Path, colours: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="need labels"):
        explain(config("gradcam.class=true"), request(run, tmp_path / "out", colours / "정상" / "000.png"))


def test_two_interruptions_leave_no_row_twice(run: Path, colours: Path, tmp_path: Path) -> None:
    settings = config("gradcam.class=all")
    whole = explain(settings, request(run, tmp_path / "whole", colours))

    for count in (7, 23):
        with pytest.raises(KeyboardInterrupt):
            explain(settings, request(run, tmp_path / "out", colours, resume=True), interrupt_after(count))
    result = explain(settings, request(run, tmp_path / "out", colours, resume=True))

    assert result.rows == whole.rows


def test_resuming_with_other_images_is_refused(run: Path, colours: Path, tmp_path: Path) -> None:
    explain(config(), request(run, tmp_path / "out", colours / "정상" / "000.png"))

    with pytest.raises(UsageError, match="other images"):
        explain(config(), request(run, tmp_path / "out", colours / "정상" / "001.png", resume=True))


@pytest.mark.parametrize("lost", [1, 2, 100])
def test_a_ledger_cut_off_anywhere_is_continued(run: Path, colours: Path, tmp_path: Path, lost: int) -> None:
    whole = explain(config(), request(run, tmp_path / "whole", colours))
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        explain(config(), request(run, out, colours), interrupt_after(20))
    ledger = out / "explanations.partial.jsonl"
    ledger.write_bytes(ledger.read_bytes()[:-lost])

    result = explain(config(), request(run, out, colours, resume=True))

    assert result.rows == whole.rows
