from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image, ImageEnhance, ImageOps

from evalcam_cli.data.fingerprints import take_fingerprints
from evalcam_cli.data.near_duplicates import NEAR, PAIR_COLUMNS, Findings, find_near_duplicates, near_duplicate_paths
from evalcam_cli.data.samples import Sample
from evalcam_cli.documents import write_csv
from evalcam_cli.errors import DataError, UsageError
from tests.conftest import REPOSITORY, SHARED
from tests.data.pictures import cropped, picture, save

LIMIT = 10_000_000


@pytest.fixture(autouse=True)
def small_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evalcam_cli.data.crowding.SAMPLE", 25)


def found_in(root: Path, samples: list[Sample], seed: int = 0) -> Findings:
    prints, unreadable = take_fingerprints(root, [sample.path for sample in samples], max_pixels=LIMIT, jobs=1)
    assert not unreadable
    return find_near_duplicates(root, samples, prints, max_pixels=LIMIT, seed=seed, jobs=1)


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve different pictures."""
    root = tmp_path_factory.mktemp("pictures")
    for number in range(12):
        save(picture(number, 300, 200), root / f"train/{number:02d}.jpg", quality=90)
    return root


def train_samples() -> list[Sample]:
    return [Sample(f"train/{number:02d}.jpg", "a", "train") for number in range(12)]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda image: image, "re-encoding"),
        (lambda image: image.resize((150, 100)), "resize"),
        (lambda image: image.resize((600, 404)), "resize"),
        (ImageOps.mirror, "flip"),
        (ImageOps.flip, "flip vertical"),
        (lambda image: image.transpose(Image.Transpose.ROTATE_270), "turn 90"),
        (lambda image: image.transpose(Image.Transpose.ROTATE_180), "turn 180"),
        (lambda image: image.transpose(Image.Transpose.ROTATE_90), "turn 270"),
        (lambda image: ImageOps.mirror(image.transpose(Image.Transpose.ROTATE_270)), "turn 90 + flip"),
        (lambda image: ImageOps.flip(image.transpose(Image.Transpose.ROTATE_270)), "turn 90 + flip vertical"),
        (lambda image: ImageEnhance.Brightness(image).enhance(0.9), "brightness"),
        (lambda image: cropped(image, 0.025, 0.025, 0.025, 0.025), "crop"),
        (lambda image: cropped(image, 0.05, 0.05, 0, 0), "crop"),
        (lambda image: ImageOps.mirror(cropped(image, 0.025, 0.025, 0.025, 0.025)), "flip + crop"),
    ],
)
def test_finds_the_copy_its_original_and_what_was_done(
    training: Path, change: Callable[[Image.Image], Image.Image], said: str
) -> None:
    with Image.open(training / "train/07.jpg") as image:
        save(change(image), training / "test/copy.jpg", quality=70)

    (pair,) = found_in(training, [*train_samples(), Sample("test/copy.jpg", "b", "test")]).pairs

    assert (pair.path, pair.set, pair.label, pair.kind) == ("test/copy.jpg", "test", "b", NEAR)
    assert (pair.other, pair.other_set, pair.other_label) == ("train/07.jpg", "train", "a")
    assert pair.transformation == said
    assert pair.similarity > 0.98
    assert pair.has_two_labels


def test_different_pictures_are_not_paired(training: Path) -> None:
    for number in range(20, 26):
        save(picture(number, 300, 200), training / f"other/{number}.jpg")
    others = [Sample(f"other/{number}.jpg", "a", "test") for number in range(20, 26)]

    findings = found_in(training, [*train_samples(), *others])

    assert findings.pairs == ()
    assert findings.comparisons == 6
    assert findings.expected_false_pairs <= 0.1 + 1e-9


def test_equal_bytes_and_equal_pixels_are_named_as_such(training: Path) -> None:
    (training / "bytes.jpg").write_bytes((training / "train/03.jpg").read_bytes())
    with Image.open(training / "train/04.jpg") as image:
        save(image, training / "pixels.png")
    same = [Sample("bytes.jpg", "a", "test"), Sample("pixels.png", "a", "val")]

    pairs = found_in(training, [*train_samples(), *same]).pairs

    assert [(pair.path, pair.kind, pair.other, pair.transformation) for pair in pairs] == [
        ("bytes.jpg", "identical bytes", "train/03.jpg", ""),
        ("pixels.png", "identical pixels", "train/04.jpg", ""),
    ]
    assert {pair.similarity for pair in pairs} == {1.0}


def test_images_without_structure_are_compared_by_their_pixels(tmp_path: Path) -> None:
    for name, level in (("a.png", 0), ("b.bmp.png", 0), ("c.png", 9), ("d.png", 9)):
        save(Image.new("RGB", (30, 20), (level, 0, 0)), tmp_path / name, compress_level=len(name) % 9)
    samples = [
        Sample("a.png", "x", "train"),
        Sample("b.bmp.png", "x", "test"),
        Sample("c.png", "x", "test"),
        Sample("d.png", "x", "test"),
    ]

    findings = found_in(tmp_path, samples)

    assert [(pair.path, pair.kind) for pair in findings.pairs] == [("b.bmp.png", "identical pixels")]
    assert len(findings.plain) == 4


def test_of_train_val_and_test_the_image_named_is_the_one_that_should_leave(training: Path) -> None:
    with Image.open(training / "train/05.jpg") as image:
        save(image, training / "one.jpg", quality=60)
    save(picture(40, 300, 200), training / "two.jpg")
    save(picture(40, 300, 200).resize((200, 133)), training / "three.jpg")
    samples = [Sample("one.jpg", "a", "val"), Sample("two.jpg", "a", "val"), Sample("three.jpg", "a", "test")]

    pairs = found_in(training, [*train_samples(), *samples]).pairs

    assert [(pair.path, pair.other, pair.other_set) for pair in pairs] == [
        ("one.jpg", "train/05.jpg", "train"),
        ("two.jpg", "three.jpg", "test"),
    ]


def test_between_folds_both_images_are_named(training: Path) -> None:
    with Image.open(training / "train/05.jpg") as image:
        save(image, training / "one.jpg", quality=60)
    samples = [Sample(f"train/{number:02d}.jpg", "a", fold=number % 2) for number in range(12)]

    pairs = found_in(training, [*samples, Sample("one.jpg", "a", fold=0)]).pairs

    assert [(pair.path, pair.set, pair.other_set) for pair in pairs] == [
        ("train/05.jpg", "fold 1", "fold 0"),
        ("one.jpg", "fold 0", "fold 1"),
    ]


def test_copies_within_one_set_are_no_leak(training: Path) -> None:
    with Image.open(training / "train/05.jpg") as image:
        save(image, training / "one.jpg", quality=60)
    other = Sample("train/00.jpg", "a", "test")

    assert found_in(training, [*train_samples()[1:], Sample("one.jpg", "a", "train"), other]).pairs == ()


def test_a_second_search_finds_the_same(training: Path) -> None:
    with Image.open(training / "train/05.jpg") as image:
        save(cropped(image, 0, 0.03, 0.03, 0), training / "one.jpg", quality=60)
    samples = [*train_samples(), Sample("one.jpg", "a", "test")]

    assert found_in(training, samples).pairs == found_in(training, samples).pairs


@pytest.mark.skipif(not (REPOSITORY / "sample_data/digits").is_dir(), reason="no digits")
def test_handwritten_digits_do_not_flood_it() -> None:
    root = REPOSITORY / "sample_data/digits"
    paths = sorted(str(path.relative_to(root).as_posix()) for path in root.rglob("*.png"))[::8]
    samples = [Sample(path, path[0], "test" if place % 4 == 0 else "train") for place, path in enumerate(paths)]

    assert found_in(root, samples).pairs == ()


@pytest.mark.skipif(not (SHARED / "data/photos").is_dir(), reason="the photographs are not here")
def test_no_two_of_the_photographs_are_paired() -> None:
    root = SHARED / "data/photos"
    paths = sorted(path.name for path in root.iterdir())
    samples = [Sample(path, "a", "test" if place % 2 else "train") for place, path in enumerate(paths)]

    findings = found_in(root, samples)

    assert findings.pairs == findings.close_calls == ()


def test_the_list_of_near_duplicates_reads_back(tmp_path: Path) -> None:
    names = ("=a/é.png", "test", "x", NEAR, "b/c.png", "train", "x", 0.99, 0.95, "flip")
    write_csv(tmp_path / "pairs.csv", PAIR_COLUMNS, [names, (*names[:4], "later.png", *names[5:])])

    assert near_duplicate_paths(tmp_path / "pairs.csv") == {"=a/é.png": "b/c.png"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("path,kind\na,b\n", "no column 'other'"),
        ("path,other\na,\n", "row 2"),
        ("path,other\n../a,b\n", "leaves the data folder"),
        ("path,other\na,/etc/passwd\n", "leaves the data folder"),
        ("", "no header"),
    ],
)
def test_a_list_that_makes_no_sense_is_refused_with_the_row(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "pairs.csv").write_text(text)

    with pytest.raises(DataError, match=said):
        near_duplicate_paths(tmp_path / "pairs.csv")


def test_a_list_that_is_not_there_is_a_mistake_of_the_command_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        near_duplicate_paths(tmp_path / "pairs.csv")
