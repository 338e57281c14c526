import os
from pathlib import Path

import pytest

from evalcam_cli.data.listing import Listing, list_samples
from evalcam_cli.data.samples import Sample
from evalcam_cli.errors import DataError, UsageError


def touch(root: Path, *paths: str) -> Path:
    """Files that are never opened by a listing."""
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"x")
    return root


def classes(root: Path) -> Path:
    return touch(root, *(f"{label}/{index}.png" for label in ("cat", "dog") for index in range(3)))


def manifest(root: Path, text: str | bytes) -> Path:
    path = classes(root) / "list.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def paths(listing: Listing) -> list[str]:
    return [sample.path for sample in listing.samples]


def fails(data: Path) -> str:
    with pytest.raises(DataError) as caught:
        list_samples(data)
    assert len(str(caught.value).splitlines()) <= 8
    return str(caught.value)


# ---- class folders


def test_class_folders_name_the_labels(tmp_path: Path) -> None:
    listing = list_samples(classes(tmp_path))

    assert listing.samples[0] == Sample("cat/0.png", "cat")
    assert [sample.label for sample in listing.samples] == ["cat"] * 3 + ["dog"] * 3
    assert (listing.root, listing.divided, listing.source, listing.left_out) == (tmp_path, False, "folder", ())


def test_images_in_deeper_folders_belong_to_the_class(tmp_path: Path) -> None:
    listing = list_samples(touch(classes(tmp_path), "cat/patient 1/day/9.png"))

    assert Sample("cat/patient 1/day/9.png", "cat") in listing.samples


def test_hidden_files_and_other_files_are_no_images(tmp_path: Path) -> None:
    touch(
        classes(tmp_path),
        "cat/.x.png",
        "cat/notes.txt",
        "cat/.git/x.png",
        ".hidden/x.png",
        "README.md",
        "cat/x.png.part",
    )

    assert len(list_samples(tmp_path).samples) == 6


def test_hidden_images_are_left_out_and_counted_and_other_hidden_files_are_not_spoken_of(tmp_path: Path) -> None:
    touch(classes(tmp_path), "cat/.jpg", "cat/..jpg", "dog/._0.png", "dog/.DS_Store", ".cache/x.png", "dog/.deep/y.png")

    listing = list_samples(tmp_path)

    assert dict(listing.left_out) == dict.fromkeys(("cat/.jpg", "cat/..jpg", "dog/._0.png"), "hidden")
    assert len(listing.samples) == 6


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="POSIX only")
def test_links_and_pipes_are_left_out_with_a_reason_and_no_loop_is_walked(tmp_path: Path) -> None:
    root = classes(tmp_path / "data")
    os.mkfifo(root / "cat/pipe.jpg")
    (root / "cat/link.png").symlink_to("0.png")
    (root / "cat/dangling.png").symlink_to("nowhere")
    (root / "cat/loop").symlink_to(".")
    (root / "up").symlink_to("..")
    (root / "cat/readme").symlink_to("/etc/hostname")  # no image by its name

    listing = list_samples(root)

    assert len(listing.samples) == 6
    assert dict(listing.left_out) == {
        "cat/pipe.jpg": "not a regular file",
        "cat/link.png": "a symbolic link",
        "cat/dangling.png": "a symbolic link",
        "cat/loop": "a symbolic link",
        "up": "a symbolic link",
    }
    assert "5 files left out" in listing.notes[0]


@pytest.mark.parametrize(
    "name",
    [
        "고양이.png",
        "[bold].png",
        "a'b\"c.png",
        "a\nb.png",
        "bad\udcff\udcfe.png",
        "cafe\u0301.png",
        " x .png",
        "=1+1.png",
    ],
)
def test_names_survive_as_they_are(tmp_path: Path, name: str) -> None:
    listing = list_samples(touch(classes(tmp_path), f"cat/{name}"))

    assert f"cat/{name}" in paths(listing)
    assert (tmp_path / f"cat/{name}").exists()


def test_class_names_are_text_whatever_they_look_like(tmp_path: Path) -> None:
    odd = ["no", "1e3", "nan", "null", "007", "7", "=1+1", "[bold]", "a,b", "train", "-v", "고양이 'x'"]

    listing = list_samples(touch(tmp_path, *(f"{label}/0.png" for label in odd)))

    assert sorted(sample.label for sample in listing.samples) == sorted(odd)
    assert not listing.divided


def test_samples_are_sorted_by_their_composed_form(tmp_path: Path) -> None:
    touch(tmp_path, "a/e\u0301.png", "a/f.png", "a/z.png", "b/0.png")

    assert paths(list_samples(tmp_path)) == ["a/f.png", "a/z.png", "a/e\u0301.png", "b/0.png"]  # é comes after z


def test_names_that_collide_elsewhere_are_noted(tmp_path: Path) -> None:
    notes = list_samples(touch(classes(tmp_path), "cat/Same.png", "cat/same.png", "Cat/0.png")).notes

    assert any("Same.png" in note for note in notes)
    assert any("'Cat', 'cat'" in note for note in notes)


def test_nothing_there_is_wrong_usage_with_the_nearest_name(tmp_path: Path) -> None:
    classes(tmp_path / "photos")

    with pytest.raises(UsageError, match="did you mean 'photos'"):
        list_samples(tmp_path / "fotos")
    with pytest.raises(UsageError):
        list_samples(Path("a\0b"))


def test_an_empty_folder_says_what_is_expected(tmp_path: Path) -> None:
    assert fails(tmp_path) == f"no images under {tmp_path}; expected {tmp_path}/<class>/<image>"


def test_images_without_a_class_folder_are_refused(tmp_path: Path) -> None:
    assert "2 images directly in" in fails(touch(classes(tmp_path), "a.jpg", "b.jpg"))


def test_an_empty_class_folder_is_named(tmp_path: Path) -> None:
    (classes(tmp_path) / "bird").mkdir()

    assert f"{tmp_path}/bird holds no images" in fails(tmp_path)


def test_a_single_class_is_refused_unless_nothing_is_to_be_learned(tmp_path: Path) -> None:
    touch(tmp_path, "cat/0.png")

    assert "single class, 'cat'" in fails(tmp_path)
    assert len(list_samples(tmp_path, for_training=False).samples) == 1


# ---- divided folders


@pytest.mark.parametrize(
    "names", [("train", "val", "test"), ("Training", "valid", "Testing"), ("TRAIN", "Validation", "TEST")]
)
def test_sets_are_known_by_many_names(tmp_path: Path, names: tuple[str, str, str]) -> None:
    for name in names:
        classes(tmp_path / name)

    listing = list_samples(tmp_path)

    assert (listing.divided, listing.source) == (True, "divided")
    for name, expected in zip(names, ("train", "val", "test"), strict=True):
        assert Sample(f"{name}/cat/0.png", "cat", expected) in listing.samples


def test_a_training_folder_alone_is_a_division(tmp_path: Path) -> None:
    classes(tmp_path / "train")

    assert {sample.set for sample in list_samples(tmp_path).samples} == {"train"}


def test_a_class_of_test_without_training_images_is_named(tmp_path: Path) -> None:
    classes(tmp_path / "train")
    touch(tmp_path, "test/dogs/0.png")

    assert "class 'dogs' of the test set has no training images" in fails(tmp_path)
    assert "did you mean 'dog'" in fails(tmp_path)


def test_a_class_missing_from_test_is_no_fault(tmp_path: Path) -> None:
    classes(tmp_path / "train")
    touch(tmp_path, "test/dog/0.png")

    assert len(list_samples(tmp_path).samples) == 7


@pytest.mark.parametrize(
    ("extra", "word"),
    [("extra/cat/0.png", "beside them extra"), ("training/cat/0.png", "two folders for the set train")],
)
def test_ambiguous_divisions_are_refused(tmp_path: Path, extra: str, word: str) -> None:
    for name in ("train", "test"):
        classes(tmp_path / name)

    assert word in fails(touch(tmp_path, extra))


def test_a_division_needs_a_training_folder(tmp_path: Path) -> None:
    for name in ("val", "test"):
        classes(tmp_path / name)

    assert "no folder `train`" in fails(tmp_path)


def test_pictures_of_trains_are_a_class(tmp_path: Path) -> None:
    listing = list_samples(touch(tmp_path, "train/0.png", "plane/0.png"))

    assert {sample.label for sample in listing.samples} == {"train", "plane"}


# ---- manifests


def test_a_manifest_gives_labels_sets_groups_and_further_columns(tmp_path: Path) -> None:
    path = manifest(
        tmp_path,
        "path,label,set,group,site\ncat/0.png,a,Training,p1,Rome\ndog/0.png,b,train,p2,Bern\ncat/1.png,a,VALIDATION,p3,\n",
    )

    listing = list_samples(path)

    assert listing.samples == (
        Sample("cat/0.png", "a", "train", "p1", extra=("Rome",)),
        Sample("cat/1.png", "a", "val", "p3", extra=("",)),
        Sample("dog/0.png", "b", "train", "p2", extra=("Bern",)),
    )
    assert (listing.root, listing.source, listing.divided, listing.has_group) == (tmp_path, "list.csv", True, True)
    assert listing.extra_columns == ("site",)


ROWS = ["path,label", "cat/0.png,007", "dog/0.png,7"]


@pytest.mark.parametrize(
    "text",
    [
        "\n".join(ROWS),
        "\r\n".join(ROWS) + "\r\n",
        "\ufeff" + "\n".join(ROWS),
        "\n".join(ROWS).replace(",", ";"),
        "\n".join(ROWS).replace(",", "\t"),
        "\n\n".join(ROWS) + "\n\n",
        '"path","label"\n"cat/0.png","007"\n"dog/0.png","7"\n',
        "\n".join(ROWS).encode("utf-16"),
    ],
    ids=["lf", "crlf", "bom", "semicolon", "tab", "blank-lines", "quoted", "utf-16"],
)
def test_the_dialects_of_spreadsheets_are_read_and_labels_stay_text(tmp_path: Path, text: str | bytes) -> None:
    listing = list_samples(manifest(tmp_path, text))

    assert [(sample.path, sample.label) for sample in listing.samples] == [("cat/0.png", "007"), ("dog/0.png", "7")]


@pytest.mark.parametrize("label", ["nan", "null", "1e3", "=cmd|' /C calc'!A0", "'=x", "고양이", "[b]", " "])
def test_a_label_is_taken_byte_for_byte(tmp_path: Path, label: str) -> None:
    path = manifest(tmp_path, f'path,label\ncat/0.png,"{label}"\ndog/0.png,b\n')

    assert list_samples(path).samples[0].label == label


@pytest.mark.parametrize(
    ("row", "word"),
    [
        ("../../etc/passwd,a", "leaves the data folder"),
        ("cat/../../x.png,a", "leaves the data folder"),
        ("/etc/passwd,a", "leaves the data folder"),
        ("file:///etc/passwd,a", "leaves the data folder"),
        ("http://169.254.169.254/x,a", "leaves the data folder"),
        ("cat/0.png\0.png,a", "leaves the data folder"),
        ("~/.ssh/id_rsa,a", "row 3: ~/.ssh/id_rsa"),
        ("cat/*.png,a", "row 3: cat/*.png"),
        ("cat,a", "cat is a folder"),
        (",a", "the path is empty"),
        ("x" * 5000 + ",a", "row 3: xxx"),
        ("cat/1.png,", "has no label"),
        ("cat/1.png", "1 cells, but the header has 2"),
        ("cat/1.png,a,b", "3 cells, but the header has 2"),
        ("cat/0.png,b", "two labels: 'a' in row 2, here 'b'"),
        ('"cat/1.png,a', "quotes"),
        ('"cat/1.png"x,a', "quotes"),
        ("y" * 200_000 + ",a", "field larger than field limit"),
    ],
    ids=str,
)
def test_a_bad_row_is_named(tmp_path: Path, row: str, word: str) -> None:
    message = fails(manifest(tmp_path, f"path,label\ncat/0.png,a\n{row}\ndog/0.png,b\n"))

    assert "row 3" in message
    assert word in message
    assert len(message) < 1000


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "no header"),
        ("\n", "no header"),
        ("cat/0.png,a\n", "no column 'path', 'label'"),
        ("path,lable\ncat/0.png,a\n", "did you mean 'lable'"),
        ("path,label,label\ncat/0.png,a,a\n", "stands twice"),
        ("path,label,\ncat/0.png,a,x\n", "a column has no name"),
        ("path,label\n", "no images in the manifest"),
        ("path,label\ncat/0.png,caf\xe9\n".encode("latin-1"), "row 2: byte 24 is not UTF-8"),
        (b"\x80\x04\x95pickle", "not UTF-8"),
        ("path,label,set\ncat/0.png,a,trian\n", "row 2: unknown set 'trian'; did you mean 'train'"),
        ("path,label,set\ncat/0.png,a,train\ndog/0.png,b,\n", "row 3: dog/0.png has no set"),
        ("path,label,set\ncat/0.png,a,train\ncat/0.png,a,test\n", "two sets: 'train' in row 2, here 'test'"),
    ],
    ids=str,
)
def test_a_bad_manifest_is_refused(tmp_path: Path, text: str | bytes, word: str) -> None:
    assert word in fails(manifest(tmp_path, text))


def test_missing_files_are_counted_and_three_are_named(tmp_path: Path) -> None:
    rows = "".join(f"none/{index}.png,a\n" for index in range(5))

    message = fails(manifest(tmp_path, f"path,label\ncat/0.png,a\n{rows}"))

    assert "5 of 6 files" in message
    assert message.count("none/") == 3


def test_a_repeated_row_is_dropped_with_a_note(tmp_path: Path) -> None:
    listing = list_samples(manifest(tmp_path, "path,label\ncat/0.png,a\n./cat/0.png,a\ndog/0.png,b\n"))

    assert paths(listing) == ["cat/0.png", "dog/0.png"]
    assert "1 row repeat an image and are dropped (row 3)" in listing.notes


def test_a_link_in_a_manifest_is_left_out_inside_and_refused_outside(tmp_path: Path) -> None:
    path = manifest(tmp_path / "data", "path,label\ncat/0.png,a\ndog/0.png,b\ncat/link.png,a\n")
    (tmp_path / "data/cat/link.png").symlink_to("1.png")
    assert list_samples(path).left_out == (("cat/link.png", "a symbolic link"),)

    (tmp_path / "data/cat/link.png").unlink()
    (tmp_path / "data/cat/link.png").symlink_to("/etc/hostname")
    assert "row 4" in fails(path)

    (tmp_path / "data/cat/link.png").unlink()
    (tmp_path / "outside").mkdir()
    (tmp_path / "data/away").symlink_to(tmp_path / "outside")
    path.write_text("path,label\ncat/0.png,a\ndog/0.png,b\naway/x.png,a\n")
    assert "row 4" in fails(path)


def test_a_manifest_finds_a_file_under_another_unicode_form(tmp_path: Path) -> None:
    touch(tmp_path, "cafe\u0301/e\u0301.png")
    path = manifest(tmp_path, "path,label\ncaf\u00e9/\u00e9.png,a\ncat/0.png,b\n")

    assert "cafe\u0301/e\u0301.png" in paths(list_samples(path))


def test_the_columns_of_a_split_file_do_not_collide(tmp_path: Path) -> None:
    listing = list_samples(
        manifest(tmp_path, "path,label,set,group,fold,sha256\ncat/0.png,a,,,1,00\ndog/0.png,b,,,0,00\n")
    )

    assert listing.extra_columns == ()
    assert "fold, sha256 are not used" in listing.notes[0]
