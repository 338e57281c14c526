"""What gradcam does beyond one map per image: methods, contrasts, scales, boxes, reports, own code."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from evalcam_cli.config import RunConfig
from evalcam_cli.config_sources import load_config
from evalcam_cli.data.boxes import read_boxes
from evalcam_cli.errors import DataError, UsageError
from evalcam_cli.report.overlay import enlarge
from evalcam_cli.workflows.checkpoints import WeightsRequest, load_classifier
from evalcam_cli.workflows.explaining import reflections
from evalcam_cli.workflows.explanations import Explanation
from evalcam_cli.workflows.gradcam import GradCamRequest, explain
from evalcam_cli.workflows.manifest import read_manifest
from evalcam_cli.workflows.map_files import Floats, read_map
from evalcam_cli.workflows.train import TrainRequest, train
from tests.conftest import TINY, read_rows


def config(*assignments: str) -> RunConfig:
    return load_config(assignments=[*(one for one in TINY if one != "--set"), "train.epochs=2", *assignments])


@pytest.fixture(scope="module")
def run(colours: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(config(), TrainRequest(tmp_path_factory.mktemp("train") / "run", colours)).folder


@pytest.fixture
def image(colours: Path) -> Path:
    return colours / "정상" / "000.png"


def maps_of(out: Path, rows: Sequence[Explanation]) -> list[Floats]:
    return [read_map(out, row.map) for row in rows]


def pixels_of(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def test_several_methods_make_maps_overlays_and_a_panel(run: Path, image: Path, tmp_path: Path) -> None:
    methods = "gradcam,guided-gradcam,occlusion"

    rows = explain(
        config(f"gradcam.method={methods}", "gradcam.class=all"),
        GradCamRequest(tmp_path / "out", (image,), WeightsRequest(run)),
    ).rows

    assert [row.method for row in rows] == [name for name in methods.split(",") for _ in range(2)]
    assert [row.layer for row in rows] == ["layer4", "layer4", "layer4", "layer4", "", ""]
    with Image.open(tmp_path / "out" / "000.panel.png") as panel:
        assert panel.width > 4 * 40
    assert all((tmp_path / "out" / row.overlay).exists() for row in rows)


def test_each_method_runs_from_the_command(run: Path, image: Path, tmp_path: Path) -> None:
    from typing import get_args

    from evalcam_cli.config import Method
    from evalcam_cli.explain.methods import METHODS

    every = get_args(Method)

    rows = explain(
        config(f"gradcam.method={','.join(every)}", "gradcam.steps=4", "gradcam.copies=2"),
        GradCamRequest(tmp_path / "out", (image,), WeightsRequest(run)),
    ).rows

    assert tuple(METHODS) == every == tuple(row.method for row in rows)
    by_method = dict(zip(every, maps_of(tmp_path / "out", rows), strict=True))
    np.testing.assert_allclose(by_method["counterfactual"], -by_method["gradcam"], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(by_method["hirescam"], by_method["gradcam"], rtol=1e-4, atol=1e-6)


def test_a_class_against_another_is_the_difference_of_their_maps(run: Path, image: Path, tmp_path: Path) -> None:
    request = GradCamRequest(tmp_path / "all", (image,), WeightsRequest(run))
    one, other = maps_of(tmp_path / "all", explain(config("gradcam.class=all"), request).rows)

    (row,) = explain(
        config("gradcam.class=0", "gradcam.against=1"), GradCamRequest(tmp_path / "out", (image,), WeightsRequest(run))
    ).rows

    assert row.class_name == "a [b] against 정상"
    np.testing.assert_allclose(read_map(tmp_path / "out", row.map), one - other, rtol=1e-4, atol=1e-6)


def test_a_class_against_itself_is_refused(run: Path, image: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="its map against itself is empty"):
        explain(
            config("gradcam.class=1", "gradcam.against=정상"),
            GradCamRequest(tmp_path / "out", (image,), WeightsRequest(run)),
        )


def test_a_method_says_once_how_it_went(
    run: Path, colours: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", logger="evalcam"):
        request = GradCamRequest(tmp_path / "out", (colours / "정상",), WeightsRequest(run))
        explain(config("gradcam.method=gradcam,occlusion"), request)

    said = [record.getMessage() for record in caplog.records]
    assert sum(message.startswith("occlusion: ") for message in said) == 1
    assert sum(message.startswith("self-check") for message in said) == 1


def test_ablation_speaks_for_the_class_also_where_its_logit_is_below_0(run: Path, image: Path, tmp_path: Path) -> None:
    rows = explain(
        config("gradcam.method=gradcam,ablationcam", "gradcam.class=all", "data.image_size=64"),
        GradCamRequest(tmp_path / "out", (image,), WeightsRequest(run)),
    ).rows

    maps = maps_of(tmp_path / "out", rows)
    assert any(row.logit < 0 for row in rows)
    for plain, ablated in zip(maps[:2], maps[2:], strict=True):
        assert (plain * ablated).sum() > 0


def test_the_map_is_checked_with_reflections_too(
    run: Path, image: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", logger="evalcam"):
        explain(config("gradcam.flips=true"), GradCamRequest(tmp_path / "out", (image,), WeightsRequest(run)))

    assert any(record.getMessage().startswith("self-check: ") for record in caplog.records)


def test_boxes_of_an_unknown_class_are_refused(run: Path, colours: Path, tmp_path: Path) -> None:
    boxes = write_boxes(tmp_path / "boxes.csv", [("정상/000.png", "dog", 0, 0, 2, 2)])

    with pytest.raises(DataError, match="no class 'dog'"):
        explain(config(), GradCamRequest(tmp_path / "out", (colours,), WeightsRequest(run), boxes=boxes))


def test_reflections_are_averaged(run: Path, image: Path, tmp_path: Path) -> None:
    """The map of an image and that of its mirror image become reflections of each other."""
    mirrored = tmp_path / "mirrored.png"
    with Image.open(image) as original:
        original.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(mirrored)

    rows = explain(  # trained with mirror images, not with images upside down
        config("gradcam.class=0", "gradcam.flips=true"),
        GradCamRequest(tmp_path / "out", (image, mirrored), WeightsRequest(run)),
    ).rows

    one, other = maps_of(tmp_path / "out", rows)
    np.testing.assert_allclose(one, other[:, ::-1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("augment", "flips"),
    [
        ({"hflip": 0.5, "vflip": 0.0}, ((3,),)),
        ({"hflip": 0.0, "vflip": 0.2}, ((2,),)),
        ({"hflip": 0.5, "vflip": 0.5}, ((3,), (2,), (2, 3))),
        ({"hflip": 0.0, "vflip": 0.0}, ()),
        (None, ((3,), (2,), (2, 3))),
    ],
)
def test_only_reflections_that_the_network_was_trained_with_count(
    run: Path, augment: dict[str, float] | None, flips: tuple[tuple[int, ...], ...]
) -> None:
    classifier = load_classifier(WeightsRequest(run), config()).classifier
    trained = {} if augment is None else {"train": {"augment": augment}}

    found = reflections(replace(classifier, checkpoint=replace(classifier.checkpoint, config=trained)))

    assert found == flips


def test_the_inference_form_gives_the_same_maps(run: Path, colours: Path, tmp_path: Path) -> None:
    images = tuple(colours / "정상" / f"{number:03}.png" for number in range(6))
    found = [
        explain(config(f"gradcam.folded={folded}"), GradCamRequest(tmp_path / folded, images, WeightsRequest(run)))
        for folded in ("false", "true")
    ]

    plain, quick = (np.array(maps_of(result.folder, result.rows)) for result in found)
    assert not np.array_equal(plain, quick)
    np.testing.assert_allclose(quick, plain, rtol=0, atol=1e-4 * np.abs(plain).max())


def test_a_shared_scale_shows_equal_values_in_equal_colours(run: Path, colours: Path, tmp_path: Path) -> None:
    """The image with the largest value is drawn as on its own; all others are paler than on their own."""
    folder = colours / "정상"
    results = {
        norm: explain(
            config("gradcam.class=predicted", f"gradcam.norm={norm}"),
            GradCamRequest(tmp_path / norm, (folder,), WeightsRequest(run)),
        )
        for norm in ("image", "shared")
    }

    rows = results["shared"].rows
    strongest = max(range(len(rows)), key=lambda place: rows[place].map_max or 0)
    same = []
    for row in rows:
        pictures = [pixels_of(tmp_path / norm / row.overlay) for norm in results]
        height = len(pixels_of(folder / Path(row.path).name))
        same.append(np.array_equal(pictures[0][:height], pictures[1][:height]))
    assert same[strongest]
    assert not all(same)


def test_a_bundle_holds_the_same_maps(run: Path, image: Path, tmp_path: Path) -> None:
    results = {
        kind: explain(
            config("gradcam.class=all", "gradcam.method=gradcam,layercam", f"gradcam.maps={kind}"),
            GradCamRequest(tmp_path / kind, (image,), WeightsRequest(run)),
        )
        for kind in ("npy", "npz")
    }

    assert not list((tmp_path / "npz").rglob("*.npy"))
    assert [path.name for path in (tmp_path / "npz").rglob("*.npz")] == ["000.maps.npz"]
    for one, other in zip(results["npy"].rows, results["npz"].rows, strict=True):
        np.testing.assert_array_equal(read_map(tmp_path / "npy", one.map), read_map(tmp_path / "npz", other.map))


def test_maps_reload_to_equal_bits_and_a_changed_one_is_found(run: Path, image: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    rows = explain(config("gradcam.class=all"), GradCamRequest(out, (image,), WeightsRequest(run))).rows

    found = list(read_manifest(out))

    loaded = load_classifier(WeightsRequest(run), config())
    manifest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["checkpoint_sha256"] == loaded.sha256
    assert manifest["preprocessing"]["image_size"] == loaded.classifier.preprocessing.image_size
    assert [record["class"] for record, _ in found] == ["a [b]", "정상"]
    for (record, array), row in zip(found, rows, strict=True):
        assert (record["min"], record["max"]) == (row.map_min, row.map_max) == (array.min(), array.max())
    changed = np.load(out / rows[1].map)
    changed[0, 0] += 1
    np.save(out / rows[1].map, changed)
    with pytest.raises(DataError, match="not the map that evalcam wrote"):
        list(read_manifest(out))


def write_boxes(path: Path, rows: Sequence[tuple[str, str, int, int, int, int]]) -> Path:
    lines = [",".join(map(str, row)) for row in rows]
    path.write_text("\n".join(["path,label,x0,y0,x1,y1", *lines, ""]), encoding="utf-8")
    return path


def test_maps_are_held_against_known_boxes(run: Path, colours: Path, tmp_path: Path) -> None:
    rows = [
        (file.relative_to(colours).as_posix(), file.parent.name, 0, 0, *pixels_of(file).shape[1::-1])
        for file in sorted(colours.rglob("*.png"))
    ]
    boxes = write_boxes(tmp_path / "boxes.csv", rows)

    result = explain(config(), GradCamRequest(tmp_path / "out", (colours,), WeightsRequest(run), boxes=boxes))

    found = result.localisation["gradcam"].numbers
    assert result.localisation["gradcam"].maps == len(rows)  # one per image: that of its own class
    assert all(row.class_name == row.label for row in result.rows)
    assert found["object_share"].estimate == 1  # the box is the whole image
    share = 1 - sum(row.empty for row in result.rows) / len(rows)
    assert found["pointing_game_0px"].estimate == pytest.approx(share)
    assert found["energy"].estimate == pytest.approx(1)
    document = json.loads((tmp_path / "out" / "localisation.json").read_text(encoding="utf-8"))
    assert document["gradcam"]["maps"] == len(rows)
    assert "pointing_game" in (tmp_path / "out" / "localisation.md").read_text(encoding="utf-8")


def test_boxes_of_other_images_are_refused(run: Path, colours: Path, tmp_path: Path) -> None:
    boxes = write_boxes(tmp_path / "boxes.csv", [("other.png", "정상", 0, 0, 2, 2)])

    with pytest.raises(DataError, match="none of its objects is of an image to be explained"):
        explain(config(), GradCamRequest(tmp_path / "out", (colours,), WeightsRequest(run), boxes=boxes))


def test_boxes_out_hold_what_lies_above_the_threshold(run: Path, image: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"

    (row,) = explain(
        config("gradcam.box_threshold=0.5"), GradCamRequest(out, (image,), WeightsRequest(run), find_boxes=True)
    ).rows

    (box,) = read_boxes(out / "boxes.csv").of("000.png", 10**6, 10**6)
    with Image.open(image) as original:
        size = original.size
    geometry = load_classifier(WeightsRequest(run), config()).classifier.preprocessing.geometry(*size)
    heat, _ = enlarge(read_map(out, row.map), geometry)
    ys, xs = np.nonzero(heat >= 0.5 * heat.max())
    assert (box.x0, box.y0) >= (int(xs.min()), int(ys.min()))
    assert box.x1 <= xs.max() + 1
    assert box.y1 <= ys.max() + 1
    document = json.loads((out / "coco.json").read_text(encoding="utf-8"))
    assert document["annotations"][0]["bbox"] == [box.x0, box.y0, box.x1 - box.x0, box.y1 - box.y0]
    assert sum(document["annotations"][0]["segmentation"]["counts"]) == size[0] * size[1]


@pytest.mark.parametrize("kind", ["mistakes", "all"])
def test_a_failure_report_shows_what_was_predicted_wrongly(run: Path, colours: Path, tmp_path: Path, kind: str) -> None:
    """The label of one image is wrong on purpose."""
    data = tmp_path / "data"
    for label in ("a [b]", "정상"):
        (data / label).mkdir(parents=True)
        for file in sorted((colours / label).glob("*.png"))[:4]:
            (data / label / file.name).write_bytes(file.read_bytes())
    (data / "정상" / "wrong.png").write_bytes((data / "a [b]" / "000.png").read_bytes())
    out = tmp_path / "out"

    result = explain(config(), GradCamRequest(out, weights=WeightsRequest(run), data=data, report=kind))

    table = read_rows(out / "explanations.csv")
    wrong = {row["path"] for row in table if row["predicted"] != row["label"]}
    assert "정상/wrong.png" in wrong
    assert result.report.startswith(f"{len(wrong)} mistake")
    page = (out / "failures.html").read_text(encoding="utf-8")
    assert all(path.rpartition("/")[2] in page for path in wrong)
    assert "data set taken whole" in page
    assert "its reflections" in page
    assert ("003.png" in page) == (kind == "all" or any("003" in path for path in wrong))
    assert {row["path"] for row in table if row["overlay"]} == (
        wrong if kind == "mistakes" else {row["path"] for row in table}
    )
    with Image.open(out / "failures.png") as sheet:
        assert sheet.width > 500
    assert not (out / "failures.partial").exists()


FACTORY = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Conv2d(3, 4, 3, stride=8)
        self.head = nn.Linear(4, 3)

    def forward(self, images):
        return self.head(self.body(images).relu().mean((2, 3)))

def factory():
    return Net()

def spread(output):
    return output.max(1).values - output.min(1).values
"""


def test_an_own_model_and_an_own_target_are_explained(image: Path, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(FACTORY, encoding="utf-8")
    own = f"{tmp_path / 'own.py'}:"
    settings = config("gradcam.layer=body", "data.image_size=64")

    (row,) = explain(settings, GradCamRequest(tmp_path / "one", (image,), model=f"{own}factory")).rows
    (scored,) = explain(
        settings, GradCamRequest(tmp_path / "two", (image,), model=f"{own}factory", target=f"{own}spread")
    ).rows

    assert row.class_name.startswith("output ")
    assert row.probability is not None
    assert (scored.class_name, scored.probability, scored.predicted) == ("target", None, "")
    assert scored.logit > 0
    with pytest.raises(UsageError, match="has no layer4 to explain"):
        explain(config("data.image_size=64"), GradCamRequest(tmp_path / "three", (image,), model=f"{own}factory"))


def test_maps_are_scored_and_methods_checked(run: Path, colours: Path, tmp_path: Path) -> None:
    """Guided backpropagation hardly changes when the head is randomised (Adebayo et al. 2018): its pictures say so."""
    out = tmp_path / "out"
    request = GradCamRequest(out, tuple(sorted((colours / "정상").glob("*.png"))[:3]), WeightsRequest(run), score=True)

    result = explain(config("gradcam.method=gradcam,guided-backprop"), request)

    rows = read_rows(out / "scores.csv")
    assert [row["method"] for row in rows] == ["gradcam", "guided-backprop"] * 3
    means = json.loads((out / "scores.json").read_text(encoding="utf-8"))
    deletion = [float(row["deletion"]) for row in rows if row["method"] == "guided-backprop"]
    assert means["guided-backprop"]["deletion"]["score"]["estimate"] == pytest.approx(np.mean(deletion))
    sanity = json.loads((out / "sanity.json").read_text(encoding="utf-8"))
    assert sanity["guided-backprop"]["sentence"] == result.verdicts["guided-backprop"]
    assert set(sanity) == {"gradcam", "guided-backprop"}
    assert sanity["guided-backprop"]["stages"][0]["randomised"] == "the head"


def test_an_own_model_that_fails_is_blamed(image: Path, tmp_path: Path) -> None:
    """It passes the trial with images of the mean colour, and fails on a real one."""
    (tmp_path / "own.py").write_text(
        FACTORY.replace(
            "return self.head", "assert not images.abs().sum() > 0, 'only darkness'\n        return self.head"
        ),
        encoding="utf-8",
    )
    request = GradCamRequest(tmp_path / "out", (image,), model=f"{tmp_path / 'own.py'}:factory")

    with pytest.raises(UsageError, match=r"the model failed\n(.|\n)*only darkness(.|\n)*own.py, line 12"):
        explain(config("gradcam.layer=body", "data.image_size=64"), request)

    assert not (tmp_path / "out").exists()


def test_the_logit_beside_a_counterfactual_map_is_the_class_s_own(run: Path, image: Path, tmp_path: Path) -> None:
    logits = {}
    for methods in ("gradcam", "counterfactual,gradcam"):
        request = GradCamRequest(tmp_path / methods, (image,), WeightsRequest(run))

        rows = explain(config(f"gradcam.method={methods}", "gradcam.class=all"), request).rows

        logits[methods] = [row.logit for row in rows]

    assert logits["counterfactual,gradcam"] == pytest.approx(2 * logits["gradcam"], rel=1e-5)


def test_resuming_with_another_target_or_other_boxes_is_refused(run: Path, image: Path, tmp_path: Path) -> None:
    target, boxes = tmp_path / "own.py", tmp_path / "boxes.csv"
    weights = WeightsRequest(run)

    def write(factor: int, side: int) -> None:
        target.write_text(f"def score(logits):\n    return {factor} * logits[:, 0]\n", encoding="utf-8")
        write_boxes(boxes, [("000.png", label, 0, 0, side, side) for label in ("a [b]", "정상")])

    requests = {
        "target": GradCamRequest(tmp_path / "1", (image,), weights, target=f"{target}:score"),
        "boxes": GradCamRequest(tmp_path / "2", (image,), weights, boxes=boxes),
    }
    write(1, 8)
    for one in requests.values():
        explain(config(), one)
        explain(config(), replace(one, resume=True))

    write(2, 9)

    for one in requests.values():
        with pytest.raises(UsageError, match="--resume"):
            explain(config(), replace(one, resume=True))


def test_a_map_that_is_not_defined_is_said_and_stops_nothing(run: Path, image: Path, tmp_path: Path) -> None:
    """Ablation-CAM divides by the score: that of a class against itself is 0."""
    rows = explain(
        config("gradcam.method=ablationcam,gradcam", "gradcam.class=all", "gradcam.against=0"),
        GradCamRequest(tmp_path / "out", (image,), WeightsRequest(run), find_boxes=True),
    ).rows

    itself, other, *_ = rows
    assert (itself.logit, itself.map_min, itself.map_max, itself.empty, itself.peak_x) == (0, None, None, True, None)
    assert other.map_max is not None
    assert (tmp_path / "out" / itself.overlay).exists()
    assert np.isnan(read_map(tmp_path / "out", itself.map)).all()
    assert len(list(read_manifest(tmp_path / "out"))) == 4
