"""The committed sample data: what the scripts make, and as balanced, small and fair as sample_data/README.md says."""

import csv
import importlib.util
import math
import sys
from collections import Counter, defaultdict
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.neighbors import NearestCentroid

ROOT = Path(__file__).parents[2] / "sample_data"
DIGITS = sorted((ROOT / "digits").glob("*/*.png"))
SHAPES = ["circle", "square", "star", "triangle"]


class Object(NamedTuple):
    label: str
    x0: int
    y0: int
    x1: int
    y1: int


def load_script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def read_boxes(folder: Path) -> dict[str, list[Object]]:
    objects = defaultdict(list)
    with (folder / "boxes.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            x0, y0, x1, y1 = (int(row[key]) for key in ("x0", "y0", "x1", "y1"))
            objects[row["path"]].append(Object(row["label"], x0, y0, x1, y1))
    return dict(objects)


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def read_pixels(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.asarray(image)


def as_jpeg(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    file = BytesIO()
    Image.fromarray(pixels).save(file, format="JPEG", quality=80)
    with Image.open(file) as image:
        return np.asarray(image)


@pytest.fixture(scope="module")
def make_scenes() -> ModuleType:
    return load_script("make_scenes")


@pytest.fixture(scope="module")
def scenes() -> dict[str, list[Object]]:
    return read_boxes(ROOT / "scenes")


@pytest.fixture(scope="module")
def pairs() -> dict[str, list[Object]]:
    return read_boxes(ROOT / "scene_pairs")


# What is committed


def test_the_folder_stays_below_5_megabytes() -> None:
    kept = {".csv", ".jpg", ".md", ".png", ".py"}  # not the caches that Python leaves beside the scripts

    assert sum(path.stat().st_size for path in ROOT.rglob("*") if path.suffix in kept) <= 5_000_000


def test_every_class_has_a_hundred_scenes_and_a_box_for_each(scenes: dict[str, list[Object]]) -> None:
    committed = {path.relative_to(ROOT / "scenes").as_posix() for path in (ROOT / "scenes").rglob("*.jpg")}

    assert set(scenes) == committed
    assert all(path.split("/")[0] == label for path, [(label, *_)] in scenes.items())
    assert Counter(label for [(label, *_)] in scenes.values()) == dict.fromkeys(SHAPES, 100)


def test_the_pairs_hold_every_ordered_pair_of_classes_side_by_side_and_one_above_the_other(
    pairs: dict[str, list[Object]],
) -> None:
    layouts: Counter[tuple[str, str, str]] = Counter()
    for path, objects in pairs.items():
        width, height = size_of(ROOT / "scene_pairs" / path)
        axis = "x" if index_of(path) % 24 < 12 else "y"
        middle = (width if axis == "x" else height) / 2
        first, second = sorted(objects, key=lambda box: box.x0 if axis == "x" else box.y0)
        assert (first.x1 if axis == "x" else first.y1) <= middle <= (second.x0 if axis == "x" else second.y0)
        layouts[axis, first.label, second.label] += 1

    assert set(pairs) == {path.name for path in (ROOT / "scene_pairs").glob("*.jpg")}
    assert layouts == {(axis, one, other): 1 for axis in "xy" for one in SHAPES for other in SHAPES if one != other}


@pytest.mark.parametrize("folder", ["scenes", "scene_pairs"])
def test_every_box_lies_in_its_picture_and_covers_8_to_15_percent(folder: str) -> None:
    for path, objects in read_boxes(ROOT / folder).items():
        width, height = size_of(ROOT / folder / path)
        for _, x0, y0, x1, y1 in objects:
            assert 0 <= x0 < x1 <= width
            assert 0 <= y0 < y1 <= height
            assert 0.08 <= (x1 - x0) * (y1 - y0) / (width * height) <= 0.15


def test_sizes_vary_between_120_and_320_pixels_and_are_rarely_square(scenes: dict[str, list[Object]]) -> None:
    sizes = np.array([size_of(ROOT / "scenes" / path) for path in scenes])

    assert sizes.min() >= 120
    assert sizes.max() <= 320
    assert (sizes[:, 0] != sizes[:, 1]).mean() > 0.95


def test_guessing_the_middle_of_the_picture_rarely_hits_the_object(scenes: dict[str, list[Object]]) -> None:
    hits = 0
    for path, [(_, x0, y0, x1, y1)] in scenes.items():
        width, height = size_of(ROOT / "scenes" / path)
        hits += x0 <= width / 2 < x1 and y0 <= height / 2 < y1

    assert hits / len(scenes) < 0.2


def test_the_colour_of_an_object_does_not_tell_its_class(scenes: dict[str, list[Object]]) -> None:
    colours, labels = [], []
    for path, [(label, x0, y0, x1, y1)] in scenes.items():
        x, y = (x0 + x1) // 2, (y0 + y1) // 2
        colours.append(read_pixels(ROOT / "scenes" / path)[y - 3 : y + 4, x - 3 : x + 4].mean(axis=(0, 1)))
        labels.append(label)

    classifier = NearestCentroid().fit(colours[::2], labels[::2])

    # Chance is 0.25, with a standard error of 0.03 over 200 scenes.
    assert classifier.score(colours[1::2], labels[1::2]) < 0.35


# What the scripts make


def index_of(path: str) -> int:
    return int(Path(path).stem.split("_")[1])


def test_the_committed_scenes_are_those_of_seed_0(make_scenes: ModuleType, scenes: dict[str, list[Object]]) -> None:
    for path in sorted(scenes, key=index_of)[::83]:
        scene = make_scenes.draw_single(0, index_of(path), make_scenes.Area(0.08, 0.15))

        assert list(scene.boxes) == scenes[path]
        # Another version of the JPEG library may round differently.
        difference = as_jpeg(scene.pixels).astype(float) - read_pixels(ROOT / "scenes" / path)
        assert np.abs(difference).mean() < 2


def test_the_committed_pairs_are_those_of_seed_0(make_scenes: ModuleType, pairs: dict[str, list[Object]]) -> None:
    for path in sorted(pairs)[::11]:
        scene = make_scenes.draw_pair(0, index_of(path), make_scenes.Area(0.08, 0.15))

        assert sorted(scene.boxes) == pairs[path]
        difference = as_jpeg(scene.pixels).astype(float) - read_pixels(ROOT / "scene_pairs" / path)
        assert np.abs(difference).mean() < 2


def make(make_scenes: ModuleType, monkeypatch: pytest.MonkeyPatch, out: Path, *options: str) -> dict[str, bytes]:
    monkeypatch.setattr(sys, "argv", ["make_scenes.py", "--out", str(out), *options])
    make_scenes.main()
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(
    make_scenes: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    once = make(make_scenes, monkeypatch, tmp_path / "once", "--seed", "7", "--count", "1", "--pairs", "1")
    again = make(make_scenes, monkeypatch, tmp_path / "again", "--seed", "7", "--count", "1", "--pairs", "1")
    other = make(make_scenes, monkeypatch, tmp_path / "other", "--seed", "8", "--count", "1", "--pairs", "1")

    assert once == again
    assert set(once) == set(other)
    assert not set(once.values()) & set(other.values())


def test_pictures_are_not_mixed_with_older_ones(
    make_scenes: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(make_scenes, monkeypatch, tmp_path, "--count", "1", "--pairs", "0")

    with pytest.raises(SystemExit, match="2"):
        make(make_scenes, monkeypatch, tmp_path, "--count", "2", "--pairs", "0")

    assert "scenes is not empty" in capsys.readouterr().err


@pytest.mark.parametrize("label", SHAPES)
@pytest.mark.parametrize("area", [(0.08, 0.15), (0.18, 0.2)])
def test_the_box_holds_exactly_the_pixels_that_the_object_changes(
    make_scenes: ModuleType, label: str, area: tuple[float, float]
) -> None:
    everywhere = make_scenes.Region(0, 0, 210, 130)
    background = np.rint(make_scenes.draw_background(np.random.default_rng(5), 130, 210))

    scene = make_scenes.compose(np.random.default_rng(5), 210, 130, [(label, everywhere)], make_scenes.Area(*area))

    changed = (scene.pixels != background).any(axis=2)
    rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
    assert scene.boxes == ((label, columns[0], rows[0], columns[-1] + 1, rows[-1] + 1),)


@pytest.mark.parametrize(
    ("label", "rotation", "width", "height", "area"),
    [
        pytest.param("circle", 0.3, 84, 84, math.pi * 42**2, id="circle"),
        pytest.param("square", 0, 84, 84, 2 * 42**2, id="square-on-its-corner"),
        pytest.param("square", math.pi / 4, 2 * 30, 2 * 30, 2 * 42**2, id="square-on-its-side"),  # 42 / sqrt(2) = 29.7
        pytest.param("triangle", 0, 42 + 21, 2 * 37, 0.75 * math.sqrt(3) * 42**2, id="triangle"),  # 42 sin 120° = 36.4
        # Ten triangles with sides 1 and 0.42 at an angle of 36°; 42 cos 144° = -34.0 and 42 sin 72° = 39.9.
        pytest.param("star", 0, 42 + 34, 2 * 40, 5 * 0.42 * math.sin(math.pi / 5) * 42**2, id="star"),
    ],
)
def test_a_shape_with_radius_42_has_the_extent_and_area_that_geometry_says(
    make_scenes: ModuleType, label: str, rotation: float, width: int, height: int, area: float
) -> None:
    coverage = make_scenes.draw_coverage(label, radius=42, rotation=rotation)

    assert coverage.shape == (height, width)
    assert coverage.sum() == pytest.approx(area, rel=0.01)
    assert coverage.min() >= 0
    assert coverage.max() == 1


# The digits


def test_every_digit_has_a_hundred_scans_with_the_pixels_and_the_class_of_load_digits() -> None:
    bunch = load_digits()

    for path in DIGITS:
        row = index_of(path.name)
        np.testing.assert_array_equal(read_pixels(path), np.rint(bunch.images[row] * 255 / 16))
        assert path.parent.name == str(bunch.target[row])
    assert Counter(path.parent.name for path in DIGITS) == {str(digit): 100 for digit in range(10)}


def test_no_two_digits_have_the_same_pixels() -> None:
    assert len({read_pixels(path).tobytes() for path in DIGITS}) == len(DIGITS)


def test_the_grey_levels_give_the_scanned_levels_back() -> None:
    levels = np.arange(17)

    greys = load_script("make_digits").to_grey(levels.astype(float))

    np.testing.assert_array_equal(np.rint(greys * (16 / 255)), levels)
    assert (greys[0], greys[-1]) == (0, 255)
