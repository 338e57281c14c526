import csv
import logging
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evalcam_cli.config import RunConfig
from evalcam_cli.config_sources import load_config
from evalcam_cli.data.samples import Split
from evalcam_cli.errors import DataError, EvalcamError, UsageError
from evalcam_cli.workflows.split import (
    PreparedSplit,
    check_split,
    fold_round,
    load_split,
    make_split,
    refuse_bad_out,
    write_split_file,
)

MRI = Path(__file__).parents[2].parent / "shared" / "data" / "brain_tumor_mri"


def settings(**options: object) -> RunConfig:
    """`split_leaks="drop"` sets `split.leaks`."""
    return load_config(options={key.replace("_", ".", 1): value for key, value in options.items()})


def image(path: Path, number: int) -> Path:
    """The same number gives the same pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 256, (4, 4, 3), np.uint8)
    with path.open("wb") as stream:
        Image.fromarray(pixels).save(stream, "BMP" if path.suffix == ".bmp" else "PNG")
    return path


def classes(root: Path, *, count: int = 10, first: int = 0) -> Path:
    for position, label in enumerate(("cat", "dog")):
        for index in range(count):
            image(root / label / f"{index}.png", first + 1000 * position + index)
    return root


def division(root: Path, **counts: int) -> Path:
    for position, (name, count) in enumerate(counts.items()):
        classes(root / name, count=count, first=10_000 * position)
    return root


def prepared(data: Path, out: Path, **options: object) -> PreparedSplit:
    return make_split(data, settings(**options), report_beside=out / "split.csv")


def sets(split: Split) -> dict[str, int]:
    return {name: sum(row.values()) for name, row in split.counts().items()}


def fails(data: Path, out: Path, **options: object) -> str:
    with pytest.raises(EvalcamError) as caught:
        prepared(data, out, **options)
    assert len(str(caught.value).splitlines()) <= 8
    return str(caught.value)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def tree(root: Path) -> dict[str, tuple[bytes, int]]:
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in root.rglob("*") if path.is_file()}


# ---- making


def test_class_folders_are_divided_by_the_ratios(tmp_path: Path) -> None:
    made = prepared(classes(tmp_path / "data", count=20), tmp_path)

    assert made.split.counts() == {
        "train": {"cat": 14, "dog": 14},
        "val": {"cat": 3, "dog": 3},
        "test": {"cat": 3, "dog": 3},
    }
    assert made.split.ratios == (0.7, 0.15, 0.15)
    assert all(sample.sha256 == made.identities[sample.path].sha256 for sample in made.split.samples)


def test_the_same_seed_gives_the_same_bytes_and_the_data_stay_untouched(tmp_path: Path) -> None:
    data = classes(tmp_path / "data")
    before = tree(data)

    for name in ("a", "b"):
        write_split_file(prepared(data, tmp_path), tmp_path / "out" / name / "split.csv")

    assert (tmp_path / "out/a/split.csv").read_bytes() == (tmp_path / "out/b/split.csv").read_bytes()
    assert (tmp_path / "out/a/split.json").read_bytes() == (tmp_path / "out/b/split.json").read_bytes()
    assert prepared(data, tmp_path, seed=1).split.samples != prepared(data, tmp_path).split.samples
    assert tree(data) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "out"]


def test_copies_stay_in_one_set(tmp_path: Path) -> None:
    data = classes(tmp_path / "data", count=20)
    for index in range(10):
        image(data / "cat" / f"copy{index}.bmp", index)
        image(data / "cat" / f"twin{index}.png", index)

    for options in ({}, {"split_folds": 4}):
        split = prepared(data, tmp_path, **options).split
        home = {sample.path: (sample.set, sample.fold) for sample in split.samples}
        for index in range(10):
            assert len({home[f"cat/{name}"] for name in (f"{index}.png", f"copy{index}.bmp", f"twin{index}.png")}) == 1


def test_groups_by_expression_stay_in_one_set(tmp_path: Path) -> None:
    for position, label in enumerate(("cat", "dog")):
        for index in range(24):
            image(tmp_path / f"data/{label}/p{index // 3}_{index}.png", 1000 * position + index)

    made = prepared(tmp_path / "data", tmp_path, split_group_by=r"/(p\d+)_")

    homes = Counter(group for group, _ in {(sample.group, sample.set) for sample in made.split.samples})
    assert set(homes.values()) == {1}
    assert len(homes) == 8
    assert any("8 groups" in note for note in made.notes)


def test_folds_hold_each_image_once_and_every_class(tmp_path: Path) -> None:
    split = prepared(classes(tmp_path / "data"), tmp_path, split_folds=5).split

    assert split.counts() == {f"fold {fold}": {"cat": 2, "dog": 2} for fold in range(5)}
    assert (split.folds, split.ratios) == (5, None)
    assert {sample.set for sample in split.samples} == {""}


def test_too_many_folds_say_so(tmp_path: Path) -> None:
    assert "'cat' has 3 images, too few for 5 folds" in fails(
        classes(tmp_path / "data", count=3), tmp_path, split_folds=5
    )


# ---- given divisions


def test_a_given_division_is_kept_and_val_is_drawn_when_missing(tmp_path: Path) -> None:
    made = prepared(division(tmp_path / "data", Training=20, Testing=5), tmp_path)

    assert made.split.counts() == {
        "train": {"cat": 17, "dog": 17},
        "val": {"cat": 3, "dog": 3},
        "test": {"cat": 5, "dog": 5},
    }
    assert all(sample.path.startswith("Testing/") == (sample.set == "test") for sample in made.split.samples)
    assert "DATA has no val images: 6 of its 40 training images are taken for it" in made.notes
    assert made.split.ratios is None


def test_a_missing_test_set_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    split = prepared(division(tmp_path / "data", train=10, valid=3), tmp_path).split

    assert sets(split) == {"train": 20, "val": 6}
    assert "no test images" in caplog.text


def test_ratios_contradict_a_given_division(tmp_path: Path) -> None:
    data = division(tmp_path / "data", train=10, test=5)

    with pytest.raises(UsageError, match="--resplit"):
        make_split(data, settings(), report_beside=tmp_path / "s.csv", explicit_ratios=True)
    resplit = settings(split_leaks="resplit")
    made = make_split(data, resplit, report_beside=tmp_path / "s.csv", explicit_ratios=True)
    assert sets(made.split) == {"train": 21, "val": 5, "test": 4}


def test_folds_of_a_given_division_leave_its_test_set_alone(tmp_path: Path) -> None:
    data = division(tmp_path / "data", train=8, val=2, test=5)
    image(data / "val/cat/copy.png", 0)  # of a training image: no leak, for both are pooled

    split = prepared(data, tmp_path, split_folds=5).split

    assert sets(split)["test"] == 10
    assert all((sample.set == "test") == (sample.fold is None) for sample in split.samples)
    assert not (tmp_path / "leaks.csv").exists()


def leaking(root: Path) -> Path:
    division(root, train=12, val=4, test=6)
    image(root / "test/cat/a.bmp", 0)  # of train/cat/0.png
    image(root / "test/cat/b.bmp", 20_001)  # of test/cat/1.png: no leak
    image(root / "val/dog/c.bmp", 1001)  # of train/dog/1.png
    image(root / "val/dog/d.bmp", 21_000)  # of test/dog/0.png
    return root


def test_leaks_are_refused_with_counts_a_table_and_the_ways_out(tmp_path: Path) -> None:
    message = fails(leaking(tmp_path / "data"), tmp_path / "out")

    assert "1 of 14 test images is a pixel copy of training images" in message
    assert "1 of 10 val images is a pixel copy of test images" in message
    assert "1 of 10 val images is a pixel copy of training images" in message
    assert all(
        way in message for way in ("--drop-leaks", "--resplit", "--allow-leaks", str(tmp_path / "out/leaks.csv"))
    )
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["leaks.csv"]
    assert [(row["path"], row["other"], row["kind"]) for row in rows(tmp_path / "out/leaks.csv")] == [
        ("test/cat/a.bmp", "train/cat/0.png", "identical pixels"),
        ("val/dog/c.bmp", "train/dog/1.png", "identical pixels"),
        ("val/dog/d.bmp", "test/dog/0.png", "identical pixels"),
    ]


def test_dropped_leaks_leave_val_and_test(tmp_path: Path) -> None:
    made = prepared(leaking(tmp_path / "data"), tmp_path, split_leaks="drop")

    assert sets(made.split) == {"train": 24, "val": 8, "test": 13}
    assert [path for path, _ in made.split.left_out] == ["test/cat/a.bmp", "val/dog/c.bmp", "val/dog/d.bmp"]
    assert set(made.identities) == {sample.path for sample in made.split.samples}
    assert (tmp_path / "leaks.csv").exists()


def test_allowed_leaks_stay_and_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert sets(prepared(leaking(tmp_path / "data"), tmp_path, split_leaks="allow").split) == {
        "train": 24,
        "val": 10,
        "test": 14,
    }
    assert "1 of 14 test images is a pixel copy" in caplog.text


def test_resplitting_ignores_the_division_and_keeps_copies_together(tmp_path: Path) -> None:
    split = prepared(leaking(tmp_path / "data"), tmp_path, split_leaks="resplit").split

    home = {sample.path: sample.set for sample in split.samples}
    assert home["test/cat/a.bmp"] == home["train/cat/0.png"]
    assert home["val/dog/d.bmp"] == home["test/dog/0.png"]
    assert split.ratios == (0.7, 0.15, 0.15)
    assert not (tmp_path / "leaks.csv").exists()


def test_a_group_on_both_sides_is_a_leak(tmp_path: Path) -> None:
    data = division(tmp_path / "data", train=6, test=3)

    assert "6 of 6 test images share a group with training images" in fails(
        data, tmp_path, split_group_by=r"(\d+)\.png"
    )


def test_a_set_that_loses_a_class_by_dropping_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = division(tmp_path / "data", train=6, test=1)
    image(data / "test/cat/0.png", 0)

    prepared(data, tmp_path, split_leaks="drop")

    assert "the test set has no images of cat" in caplog.text


# ---- two labels


def test_copies_under_two_labels_are_refused_dropped_or_kept_together(tmp_path: Path) -> None:
    data = classes(tmp_path / "data")
    image(data / "dog/cat.bmp", 0)

    message = fails(data, tmp_path)
    assert "2 images have a pixel copy under another label" in message
    assert "--drop-leaks" in message
    assert [row["kind"] for row in rows(tmp_path / "leaks.csv")] == ["two labels"] * 2

    dropped = prepared(data, tmp_path, split_leaks="drop").split
    assert [path for path, _ in dropped.left_out] == ["cat/0.png", "dog/cat.bmp"]

    for policy in ("allow", "resplit"):
        home = {sample.path: sample.set for sample in prepared(data, tmp_path, split_leaks=policy).split.samples}
        assert home["cat/0.png"] == home["dog/cat.bmp"]


# ---- unreadable


def test_unreadable_images_stop_the_split_and_are_listed(tmp_path: Path) -> None:
    data = classes(tmp_path / "data")
    for index in range(4):
        (data / f"cat/{index}.png").write_bytes(b"")
    (data / "dog/x.jpg").write_bytes(b"<html>")

    message = fails(data, tmp_path)

    assert "5 of 21 images" in message
    assert "cat/2.png: the file is empty" in message
    assert "cat/3.png" not in message
    assert "--allow-unreadable 5" in message
    assert {row["path"]: row["reason"] for row in rows(tmp_path / "unreadable.csv")}["dog/x.jpg"].startswith("an HTML")
    assert "5 of 21" in fails(data, tmp_path, data_allow_unreadable=4)

    made = prepared(data, tmp_path, data_allow_unreadable=5)
    assert sum(sets(made.split).values()) == 16
    assert ("cat/0.png", "unreadable: the file is empty") in made.split.left_out


def test_a_class_without_readable_images_never_vanishes(tmp_path: Path) -> None:
    data = classes(tmp_path / "data")
    for index in range(10):
        (data / f"cat/{index}.png").write_bytes(b"")

    assert "1 class with no readable images: cat" in fails(data, tmp_path, data_allow_unreadable=10)


def test_a_strangers_report_is_not_replaced_and_an_own_one_is(tmp_path: Path) -> None:
    data = classes(tmp_path / "data")
    (data / "cat/0.png").write_bytes(b"")
    (tmp_path / "unreadable.csv").write_text("mine\n")

    assert "did not write it" in fails(data, tmp_path)
    assert (tmp_path / "unreadable.csv").read_text() == "mine\n"

    (tmp_path / "unreadable.csv").write_text("path,reason\nold,old\n")
    fails(data, tmp_path)
    assert [row["path"] for row in rows(tmp_path / "unreadable.csv")] == ["cat/0.png"]


# ---- writing


def test_the_data_folder_is_never_written_to(tmp_path: Path) -> None:
    data = classes(tmp_path / "data")

    assert "data folder" in fails(data, data)
    with pytest.raises(UsageError, match="data folder"):
        write_split_file(prepared(data, tmp_path), data / "cat" / "split.csv")


def test_an_existing_file_is_replaced_only_when_asked_and_own(tmp_path: Path) -> None:
    made = prepared(classes(tmp_path / "data"), tmp_path)
    out = tmp_path / "new/folder/split.csv"
    write_split_file(made, out)

    with pytest.raises(UsageError, match="--overwrite"):
        write_split_file(made, out)
    write_split_file(made, out, overwrite=True)

    out.with_suffix(".json").write_text("{}")
    with pytest.raises(UsageError, match="did not write it"):
        write_split_file(made, out, overwrite=True)
    assert out.with_suffix(".json").read_text() == "{}"


@pytest.mark.parametrize("name", ["folder", "split.json"])
def test_an_impossible_place_is_refused_before_any_work(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()

    with pytest.raises(UsageError):
        refuse_bad_out(tmp_path / name)


# ---- rounds


def test_a_round_tests_its_fold_and_draws_val_from_the_others(tmp_path: Path) -> None:
    made = prepared(classes(tmp_path / "data", count=25), tmp_path, split_folds=5)

    rounds = [fold_round(made.split, fold, made.identities, seed=0) for fold in range(5)]

    for fold, one in enumerate(rounds):
        assert one.counts() == {
            "train": {"cat": 17, "dog": 17},
            "val": {"cat": 3, "dog": 3},
            "test": {"cat": 5, "dog": 5},
        }
        assert {sample.fold for sample in one.subset("test")} == {fold}
        assert [sample.path for sample in one.samples] == [sample.path for sample in made.split.samples]
    tested = Counter(sample.path for one in rounds for sample in one.subset("test"))
    assert set(tested.values()) == {1}
    assert fold_round(made.split, 1, made.identities, 0) == rounds[1]
    assert fold_round(made.split, 1, made.identities, 1) != rounds[1]


def test_copies_do_not_cross_within_a_round(tmp_path: Path) -> None:
    data = classes(tmp_path / "data", count=15)
    for index in range(15):
        (data / f"cat/twin{index}.png").write_bytes((data / f"cat/{index}.png").read_bytes())
    made = prepared(data, tmp_path, split_folds=3)

    for identities in (made.identities, None):
        home = {sample.path: sample.set for sample in fold_round(made.split, 0, identities, 0).samples}
        assert all(home[f"cat/{index}.png"] == home[f"cat/twin{index}.png"] for index in range(15))


def test_a_fixed_test_set_stays_out_of_the_rounds(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "evalcam")
    made = prepared(division(tmp_path / "data", train=10, test=5), tmp_path, split_folds=5)

    one = fold_round(made.split, 0, made.identities, 0)

    assert len(one.samples) == 20
    assert not any(sample.path.startswith("test/") for sample in one.samples)
    assert "10 images of the fixed test set stay out of fold 0" in caplog.text


def test_a_fold_that_is_not_there_is_wrong_usage(tmp_path: Path) -> None:
    made = prepared(classes(tmp_path / "data"), tmp_path, split_folds=2)

    with pytest.raises(UsageError, match="0 to 1"):
        fold_round(made.split, 2, None, 0)
    with pytest.raises(UsageError, match="no folds"):
        fold_round(replace(made.split, folds=None), 0, None, 0)


# ---- repeats


def grouped_table(folder: Path, seed: int) -> Path:
    """A manifest of some 40 images in groups of 1 to 4, with a copy of another group's image."""
    draw = np.random.default_rng(seed)
    rows = ["path,label,patient"]
    group, number = 0, 0
    while number < 40:
        label = ("cat", "dog")[int(draw.integers(2))]
        for _ in range(int(draw.integers(1, 5))):
            image(folder / f"{number}.png", 1000 * seed + (0 if number == 7 else number))
            rows.append(f"{number}.png,{'cat' if number in (0, 7) else label},p{group}")
            number += 1
        group += 1
    (folder / "images.csv").write_text("\n".join(rows) + "\n")
    return folder / "images.csv"


@pytest.mark.parametrize("seed", range(6))
def test_no_group_and_no_copy_crosses_within_any_division(tmp_path: Path, seed: int) -> None:
    made = prepared(
        grouped_table(tmp_path / "data", seed),
        tmp_path,
        split_folds=3,
        split_repeats=3,
        split_group_by="patient",
        seed=seed,
    )

    for repeat in range(3):
        home = {sample.group: sample.fold_in(repeat) for sample in made.split.samples}
        assert all(sample.fold_in(repeat) == home[sample.group] for sample in made.split.samples)
        folds = {sample.path: sample.fold_in(repeat) for sample in made.split.samples}
        assert folds["0.png"] == folds["7.png"]
    for number in range(9):
        one = fold_round(made.split, number, made.identities, seed)
        sets = {sample.group: sample.set for sample in one.samples}
        assert all(sample.set == sets[sample.group] for sample in one.samples)
        assert len({sample.set for sample in one.samples if sample.path in ("0.png", "7.png")}) == 1


def test_every_division_is_stratified_and_another_one(tmp_path: Path) -> None:
    made = prepared(classes(tmp_path / "data", count=12), tmp_path, split_folds=3, split_repeats=4)

    assert made.split.counts() == {f"fold {number}": {"cat": 4, "dog": 4} for number in range(12)}
    divisions = {tuple(sample.fold_in(repeat) for sample in made.split.samples) for repeat in range(4)}
    assert len(divisions) == 4


def test_the_first_division_is_that_of_a_split_without_repeats(tmp_path: Path) -> None:
    data = classes(tmp_path / "data", count=12)

    once = prepared(data, tmp_path, split_folds=3).split
    twice = prepared(data, tmp_path, split_folds=3, split_repeats=2).split

    assert [sample.fold for sample in once.samples] == [sample.fold for sample in twice.samples]


def test_the_rounds_of_each_division_test_every_image_once(tmp_path: Path) -> None:
    made = prepared(classes(tmp_path / "data", count=12), tmp_path, split_folds=3, split_repeats=2)

    for repeat in range(2):
        rounds = [fold_round(made.split, 3 * repeat + fold, made.identities, 0) for fold in range(3)]
        tested = Counter(sample.path for one in rounds for sample in one.subset("test"))
        assert set(tested.values()) == {1}
        assert len(tested) == 24
    with pytest.raises(UsageError, match=r"0 to 5 \(2 divisions into 3 folds\)"):
        fold_round(made.split, 6, None, 0)


def test_repeats_without_folds_are_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="add --folds"):
        prepared(classes(tmp_path / "data"), tmp_path, split_repeats=2)


def test_a_manifest_with_a_column_of_a_division_is_refused(tmp_path: Path) -> None:
    classes(tmp_path / "data", count=4)
    rows = [f"{label}/{index}.png,{label},1" for label in ("cat", "dog") for index in range(4)]
    manifest = tmp_path / "data" / "images.csv"
    manifest.write_text("\n".join(["path,label,fold_2", *rows]) + "\n")

    with pytest.raises(DataError, match="column 'fold_2', which in a split file"):
        prepared(manifest, tmp_path, split_folds=2)
    assert prepared(manifest, tmp_path).split.extra_columns == ("fold_2",)


def test_a_check_finds_what_crosses_in_a_further_division(tmp_path: Path) -> None:
    data = classes(tmp_path / "data", count=6)
    (data / "cat/twin.png").write_bytes((data / "cat/0.png").read_bytes())
    made = prepared(data, tmp_path, split_folds=2, split_repeats=2)
    samples = tuple(
        replace(sample, more_folds=(1 - sample.more_folds[0],)) if sample.path == "cat/twin.png" else sample
        for sample in made.split.samples
    )
    edited = replace(made, split=replace(made.split, samples=samples))
    write_split_file(edited, tmp_path / "split.csv")

    found = check_split(tmp_path / "split.csv", data=None, config=settings())

    (crossing,) = found.crossing_copies
    assert "twin.png (fold " in crossing
    assert {int(word[0]) for word in crossing.split("fold ")[1:]} == {2, 3}


# ---- reading back


def loaded(path: Path, data: Path | None = None, **options: object) -> PreparedSplit:
    return load_split(path, data=data, config=settings(**options), report_beside=path.parent / "out")


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_a_split_is_taken_up_as_it_was_made(tmp_path: Path) -> None:
    made = prepared(leaking(tmp_path / "data"), tmp_path, split_leaks="allow")
    write_split_file(made, tmp_path / "s.csv")

    again = loaded(tmp_path / "s.csv")

    assert (again.split, again.identities, again.notes) == (made.split, made.identities, ())


def test_missing_and_changed_images_are_counted(tmp_path: Path) -> None:
    data = classes(tmp_path / "data")
    write_split_file(prepared(data, tmp_path), tmp_path / "s.csv")
    image(data / "cat/3.png", 99)
    with pytest.raises(DataError, match=r"1 of 20 images of the split have changed.*\ncat/3.png"):
        loaded(tmp_path / "s.csv")

    for index in range(5):
        (data / f"dog/{index}.png").unlink()
    with pytest.raises(DataError, match=r"5 of 20 images of the split are not there.*\ndog/0.png.* and 2 more"):
        loaded(tmp_path / "s.csv")


def test_the_same_images_elsewhere_will_do(tmp_path: Path) -> None:
    data = classes(tmp_path / "data")
    write_split_file(prepared(data, tmp_path), tmp_path / "s.csv")
    data.rename(tmp_path / "moved")

    with pytest.raises(UsageError, match="--data"):
        loaded(tmp_path / "s.csv")
    assert loaded(tmp_path / "s.csv", tmp_path / "moved").split.root == tmp_path / "moved"


def test_an_edited_split_is_used_said_and_checked(tmp_path: Path) -> None:
    data = classes(tmp_path / "data")
    image(data / "cat/copy.bmp", 0)
    write_split_file(prepared(data, tmp_path), tmp_path / "s.csv")
    home = {sample.path: sample for sample in prepared(data, tmp_path).split.samples}
    other = {"train": "test", "val": "train", "test": "train"}[home["cat/copy.bmp"].set]
    edit(tmp_path / "s.csv", f"cat/copy.bmp,cat,{home['cat/copy.bmp'].set}", f"cat/copy.bmp,cat,{other}")

    with pytest.raises(DataError, match="is a pixel copy of training images"):
        loaded(tmp_path / "s.csv")
    assert (tmp_path / "leaks.csv").exists()
    allowed = loaded(tmp_path / "s.csv", split_leaks="allow")
    assert any("was edited" in note for note in allowed.notes)
    assert {sample.path: sample.set for sample in allowed.split.samples}["cat/copy.bmp"] == other


def test_an_edited_cross_validation_is_checked_across_folds(tmp_path: Path) -> None:
    data = classes(tmp_path / "data")
    image(data / "cat/copy.bmp", 0)
    made = prepared(data, tmp_path, split_folds=3)
    write_split_file(made, tmp_path / "s.csv")
    fold = {sample.path: sample.fold for sample in made.split.samples}["cat/copy.bmp"]
    assert fold is not None
    edit(tmp_path / "s.csv", f"cat/copy.bmp,cat,,,{fold}", f"cat/copy.bmp,cat,,,{(fold + 1) % 3}")

    with pytest.raises(DataError, match="is a pixel copy of"):
        loaded(tmp_path / "s.csv")


def test_a_split_written_by_hand_needs_three_columns(tmp_path: Path) -> None:
    data = classes(tmp_path / "data", count=2)
    lines = ["path,label,set", "cat/0.png,cat,train", "cat/1.png,cat,test", "dog/0.png,dog,train", "dog/1.png,dog,test"]
    (tmp_path / "s.csv").write_text("\n".join(lines))

    split = loaded(tmp_path / "s.csv", data).split

    assert sets(split) == {"train": 2, "test": 2}
    assert all(sample.sha256 for sample in split.samples)


# ---- checking


def test_a_check_finds_what_is_missing_changed_added_and_crossing(tmp_path: Path) -> None:
    data = leaking(tmp_path / "data")
    made = prepared(data, tmp_path, split_leaks="allow", split_group_by=r"cat/(5)\.png", split_ungrouped="single")
    write_split_file(made, tmp_path / "s.csv")
    (data / "train/cat/3.png").unlink()
    (data / "train/cat/4.png").write_bytes(b"")
    image(data / "train/cat/new.png", 77)

    found = check_split(tmp_path / "s.csv", data=None, config=settings())

    assert found.missing == ("train/cat/3.png",)
    assert found.changed == ("train/cat/4.png",)
    assert found.added == ("train/cat/new.png",)
    assert found.crossing_groups == ("train/cat/5.png (train) and test/cat/5.png (test)",)
    assert found.crossing_copies == (
        "train/cat/0.png (train) and test/cat/a.bmp (test)",
        "val/dog/c.bmp (val) and train/dog/1.png (train)",
        "val/dog/d.bmp (val) and test/dog/0.png (test)",
    )


def test_a_fresh_split_has_nothing_to_report(tmp_path: Path) -> None:
    data = classes(tmp_path / "data")
    image(data / "cat/link.png", 1).rename(tmp_path / "elsewhere.png")
    (data / "cat/link.png").symlink_to(tmp_path / "elsewhere.png")
    (data / "list.csv").write_text(
        "path,label\n" + "".join(f"{c}/{i}.png,{c}\n" for c in ("cat", "dog") for i in range(6))
    )

    for name, count in (("data", 20), ("data/list.csv", 12)):
        made = prepared(tmp_path / name, tmp_path)
        assert len(made.split.samples) == count
        write_split_file(made, tmp_path / "s.csv", overwrite=True)
        found = check_split(tmp_path / "s.csv", data=None, config=settings())
        assert (found.missing, found.changed, found.added) == ((), (), ())


@pytest.mark.parametrize("name", ["고양이 [1]", "a'b\"c", "a\nb", "bad\udcff", "=1+1", "e\u0301"])
def test_strange_names_go_through_everything(tmp_path: Path, name: str) -> None:
    data = classes(tmp_path / "data")
    for index in range(3):
        image(data / f"{name}!/{name}{index}.png", 500 + index)

    write_split_file(prepared(data, tmp_path), tmp_path / "s.csv")
    split = loaded(tmp_path / "s.csv").split

    assert f"{name}!" in split.classes
    assert f"{name}!/{name}0.png" in {sample.path for sample in split.samples}


# ---- the real thing


@pytest.mark.skipif(not MRI.is_dir(), reason="the MRI set is not here")
def test_the_mri_set_leaks_251_of_its_394_test_images(tmp_path: Path) -> None:
    message = fails(MRI, tmp_path)

    assert "251 of 394 test images are pixel copies of training images" in message
    leaks = rows(tmp_path / "leaks.csv")
    assert len(leaks) == 251
    assert Counter(row["label"] for row in leaks)["no_tumor"] == 105
    assert Counter(row["kind"] for row in leaks) == {"identical bytes": 88, "identical pixels": 251 - 88}
    assert all(row["label"] == row["other_label"] for row in leaks)
    assert os.listdir(tmp_path) == ["leaks.csv"]  # noqa: PTH208 (names only)
