import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from evalcam_cli.data.samples import Sample, Split
from evalcam_cli.data.split_file import (
    fingerprint,
    is_split_file,
    json_path,
    located,
    read_split,
    split_bytes,
    write_split,
)
from evalcam_cli.errors import DataError, EvalcamError, UsageError


def hold_out(root: Path) -> Split:
    samples = tuple(
        Sample(f"{label}/{index}.png", label, set_name, sha256="0" * 64)
        for label in ("cat", "dog")
        for index, set_name in enumerate(["test"] * 2 + ["train"] * 6 + ["val"] * 2)
    )
    return Split(root, samples, ("cat", "dog"), seed=3, ratios=(0.6, 0.2, 0.2))


def written(tmp_path: Path, split: Split | None = None) -> Path:
    write_split(split or hold_out(tmp_path), tmp_path / "split.csv")
    return tmp_path / "split.csv"


def edit(path: Path, old: str, new: str) -> Path:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    return path


def fails(path: Path, root: Path | None = None) -> str:
    with pytest.raises(EvalcamError) as caught:
        read_split(path, root=root)
    assert len(str(caught.value).splitlines()) <= 8
    return str(caught.value)


def test_the_files_are_as_documented(tmp_path: Path) -> None:
    samples = (Sample("a/0.png", "a", "", "p1", 0, "ab", ("Rome",)), Sample("b/0.png", "b", "test", extra=("",)))
    split = Split(tmp_path, samples, ("a", "b"), 7, folds=2, extra_columns=("site",), left_out=(("c.png", "leak"),))

    table, facts = split_bytes(split)

    assert table == b"path,label,set,group,fold,sha256,site\na/0.png,a,,p1,0,ab,Rome\nb/0.png,b,test,,,,\n"
    assert json.loads(facts) == {
        "schema_version": 1,
        "root": str(tmp_path),
        "source": "folder",
        "classes": ["a", "b"],
        "seed": 7,
        "ratios": None,
        "folds": 2,
        "counts": {"test": {"a": 0, "b": 1}, "fold 0": {"a": 1, "b": 0}},
        "fingerprint": fingerprint(samples),
        "left_out": [{"path": "c.png", "reason": "leak"}],
    }


def test_the_fingerprint_is_the_hash_of_the_file(tmp_path: Path) -> None:
    split = hold_out(tmp_path)

    assert fingerprint(split.samples) == hashlib.sha256(written(tmp_path).read_bytes()).hexdigest()
    assert fingerprint(split.samples[::-1]) == fingerprint(split.samples)
    assert fingerprint((replace(split.samples[0], set="val"), *split.samples[1:])) != fingerprint(split.samples)


def test_the_fingerprint_is_the_same_where_names_are_decomposed() -> None:
    assert fingerprint([Sample("caf\u00e9.png", "a")]) == fingerprint([Sample("cafe\u0301.png", "a")])


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    odd = [
        "고양이 [1].png",
        "a'b\"c,d;e.png",
        "a\nb\r.png",
        "bad\udcff.png",
        "=1+1.png",
        "'=x.png",
        "caf\u00e9.png",
        "-v.png",
    ]
    samples = [
        Sample(name, label, set_name, "=g", sha256="0" * 64, extra=("@x", ""))
        for name, label in zip(odd, ["a", "=b"] * 4, strict=True)
        for set_name in ["train"]
    ]
    ordered = tuple(sorted(samples, key=lambda sample: sample.path))
    split = Split(
        tmp_path,
        ordered,
        ("=b", "a"),
        5,
        (0.7, 0.15, 0.15),
        extra_columns=("=col", "é"),
        left_out=(("x\udcff", "leak"),),
    )

    assert read_split(written(tmp_path, split)) == (split, False)


def test_folds_are_read_back(tmp_path: Path) -> None:
    samples = tuple(Sample(f"{index}.png", "ab"[index % 2], fold=index % 3) for index in range(6))
    split = Split(tmp_path, (*samples, Sample("9.png", "a", "test")), ("a", "b"), folds=3)

    assert read_split(written(tmp_path, split)) == (split, False)


def test_the_spreadsheet_that_only_saves_it_again_does_not_edit(tmp_path: Path) -> None:
    path = written(tmp_path)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n").replace(b",", b";"))

    assert read_split(path) == (hold_out(tmp_path), False)


def test_an_edit_is_noticed_and_used(tmp_path: Path) -> None:
    split, edited = read_split(edit(written(tmp_path), "cat/0.png,cat,test", "cat/0.png,cat,train"))

    assert edited
    assert split.samples[0].set == "train"


def test_a_new_class_in_an_edited_split_joins_the_classes(tmp_path: Path) -> None:
    split, _ = read_split(edit(written(tmp_path), "cat/5.png,cat", "cat/5.png,bird"))

    assert split.classes == ("bird", "cat", "dog")


def test_without_json_the_root_must_be_given(tmp_path: Path) -> None:
    path = written(tmp_path)
    json_path(path).unlink()

    assert "--data" in fails(path)
    split, edited = read_split(path, root=tmp_path)
    assert edited
    assert (split.samples, split.classes) == (hold_out(tmp_path).samples, ("cat", "dog"))


def test_three_columns_are_enough(tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text("path,label,set\ncat/0.png,cat,train\n")

    assert read_split(tmp_path / "s.csv", root=tmp_path)[0].samples == (Sample("cat/0.png", "cat", "train"),)


def test_another_root_wins_and_a_missing_one_is_wrong_usage(tmp_path: Path) -> None:
    path = written(tmp_path, hold_out(tmp_path / "gone"))
    (tmp_path / "here").mkdir()

    assert read_split(path, root=tmp_path / "here")[0].root == tmp_path / "here"
    with pytest.raises(UsageError, match="gone, recorded in"):
        read_split(path)


@pytest.mark.parametrize(
    ("row", "word"),
    [
        ("../../etc/passwd,cat,train,,,", "leaves the data folder"),
        ("/etc/passwd,cat,train,,,", "leaves the data folder"),
        ("http://x/y.png,cat,train,,,", "leaves the data folder"),
        ("cat/0.png\0.png,cat,train,,,", "leaves the data folder"),
        (",cat,train,,,", "the path is empty"),
        ("cat/99.png,,train,,,", "has no label"),
        ("cat/99.png,cat,Train,,,", "unknown set 'Train'; did you mean 'train'"),
        ("cat/99.png,cat,holdout,,,", "expected train, val or test"),
        ("cat/99.png,cat,,,,", "neither set nor fold"),
        ("cat/99.png,cat,,,-1,", "'-1' is no fold"),
        ("cat/99.png,cat,,,1.0,", "'1.0' is no fold"),
        ("cat/99.png,cat,,,99999999999999999999,", "is no fold"),
        ("cat/0.png,cat,train,,,", "cat/0.png of row 2 again"),
        ("./cat/0.png,dog,train,,,", "with two labels"),
        ("cat/99.png,cat,train", "3 cells, but the header has 6"),
    ],
    ids=str,
)
def test_a_bad_row_is_named(tmp_path: Path, row: str, word: str) -> None:
    path = written(tmp_path)
    with path.open("a", newline="") as stream:
        stream.write(row + "\n")

    message = fails(path)

    assert "row 22" in message
    assert word in message


def test_folds_must_be_whole(tmp_path: Path) -> None:
    samples = tuple(Sample(f"{index}.png", "ab"[index % 2], fold=index % 3) for index in range(6))
    path = written(tmp_path, Split(tmp_path, samples, ("a", "b"), folds=3))

    assert "row 2: fold 3 of a split into 3" in fails(edit(path, "0.png,a,,,0", "0.png,a,,,3"))
    assert "row 2: the set is train, but" in fails(edit(path, "0.png,a,,,3", "0.png,a,train,,"))
    path.write_text("".join(line for line in path.read_text().splitlines(keepends=True) if not line.endswith(",2,\n")))
    assert "no images in fold 2 of 3" in fails(edit(path, "0.png,a,train,,", "0.png,a,,,0"))


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [
        ("path,label,set", "path,lable,set", "did you mean 'lable'"),
        ("path,label", "label,label", "no column 'path'"),
    ],
)
def test_wrong_columns_are_named(tmp_path: Path, old: str, new: str, word: str) -> None:
    assert word in fails(edit(written(tmp_path), old, new))


def test_no_file_and_no_rows_are_told_apart(tmp_path: Path) -> None:
    assert "No such file" in fails(tmp_path / "none.csv", tmp_path)
    (tmp_path / "s.csv").write_text("path,label,set\n")
    assert "lists no images" in fails(tmp_path / "s.csv", tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"schema_version": 1}',
        '{"schema_version": 2}',
        "[" * 100_000,
        '{"schema_version": true, "root": 3}',
    ],
    ids=["empty", "cut", "list", "bare", "newer", "deep", "types"],
)
def test_a_damaged_json_file_is_refused(tmp_path: Path, text: str) -> None:
    path = written(tmp_path)
    json_path(path).write_text(text)

    with pytest.raises(DataError, match=r"split\.json"):
        read_split(path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("classes", [1]),
        ("folds", 1),
        ("folds", True),
        ("ratios", [1, 2]),
        ("seed", "0"),
        ("root", None),
        ("left_out", [1]),
    ],
)
def test_a_json_file_with_other_types_is_refused(tmp_path: Path, key: str, value: object) -> None:
    path = written(tmp_path)
    facts = json.loads(json_path(path).read_text())
    json_path(path).write_text(json.dumps(facts | {key: value}))

    assert "not what evalcam writes" in fails(path)


def test_a_file_of_equal_composed_form_is_found(tmp_path: Path) -> None:
    (tmp_path / "cafe\u0301").mkdir()
    (tmp_path / "cafe\u0301/x.png").write_bytes(b"")
    (tmp_path / "link.png").symlink_to("cafe\u0301/x.png")
    names = ("caf\u00e9/x.png", "link.png", "none.png")
    split = Split(tmp_path, tuple(Sample(name, "a", "train") for name in names), ("a",))

    found, missing = located(split)

    assert [sample.path for sample in found] == ["cafe\u0301/x.png"]
    assert missing == ["link.png (a symbolic link)", "none.png"]


def test_own_files_are_told_from_a_strangers(tmp_path: Path) -> None:
    path = written(tmp_path)
    (tmp_path / "other.csv").write_text("path,label\n")
    (tmp_path / "other.json").write_text('{"root": 1}')

    assert is_split_file(path)
    assert is_split_file(json_path(path))
    assert not is_split_file(tmp_path / "other.csv")
    assert not is_split_file(tmp_path / "other.json")
    assert not is_split_file(tmp_path / "none.csv")


# ---- repeats


def repeated(root: Path) -> Split:
    samples = tuple(
        Sample(f"{label}/{index}.png", label, fold=index % 2, sha256="0" * 64, more_folds=(index // 2 % 2,))
        for label in ("cat", "dog")
        for index in range(4)
    )
    return Split(root, samples, ("cat", "dog"), folds=2, repeats=2)


def test_each_further_division_is_a_column(tmp_path: Path) -> None:
    table, facts = split_bytes(repeated(tmp_path))

    lines = table.decode().splitlines()
    assert lines[0] == "path,label,set,group,fold,sha256,fold_1"
    assert [line.split(",")[4::2] for line in lines[1:5]] == [["0", "0"], ["1", "0"], ["0", "1"], ["1", "1"]]
    assert json.loads(facts)["repeats"] == 2
    assert json.loads(facts)["fingerprint"] == hashlib.sha256(table).hexdigest()


def test_a_repeated_split_reads_back(tmp_path: Path) -> None:
    split = repeated(tmp_path)

    assert read_split(written(tmp_path, split)) == (split, False)


def test_a_single_division_says_nothing_of_repeats(tmp_path: Path) -> None:
    once = replace(repeated(tmp_path), repeats=1)
    once = replace(once, samples=tuple(replace(sample, more_folds=()) for sample in once.samples))

    table, facts = split_bytes(once)

    assert table.startswith(b"path,label,set,group,fold,sha256\n")
    assert "repeats" not in json.loads(facts)


def test_fixed_test_images_are_in_no_division(tmp_path: Path) -> None:
    split = repeated(tmp_path)
    split = replace(split, samples=(*split.samples, Sample("test/0.png", "dog", "test")))

    back, _ = read_split(written(tmp_path, split))

    assert back.samples[-1].more_folds == ()
    assert back == split


def test_moving_an_image_in_a_further_division_is_an_edit(tmp_path: Path) -> None:
    path = edit(
        written(tmp_path, repeated(tmp_path)), f"cat/0.png,cat,,,0,{'0' * 64},0", f"cat/0.png,cat,,,0,{'0' * 64},1"
    )

    _, edited = read_split(path)

    assert edited


def test_without_the_json_file_the_names_of_the_columns_tell_the_divisions(tmp_path: Path) -> None:
    path = written(tmp_path, repeated(tmp_path))
    json_path(path).unlink()

    split, _ = read_split(path, root=tmp_path)

    assert (split.folds, split.repeats, split.extra_columns) == (2, 2, ())


def test_a_column_that_is_recorded_as_no_division_stays_a_further_column(tmp_path: Path) -> None:
    split = hold_out(tmp_path)
    split = replace(
        split, extra_columns=("fold_1",), samples=tuple(replace(sample, extra=("left",)) for sample in split.samples)
    )

    assert read_split(written(tmp_path, split)) == (split, False)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (",fold_1", ",note", "divided 2 times and has no column 'fold_1'"),
        ("0.png,cat,,,0,", "0.png,cat,test,,,", "fold_1 is given and fold is not"),
        (f"{'0' * 64},0\n", f"{'0' * 64},\n", "fold is given and fold_1 is not"),
        (f"{'0' * 64},0\n", f"{'0' * 64},2\n", "fold_1 2 of a split into 2 folds"),
        (f"{'0' * 64},0\n", f"{'0' * 64},left\n", "'left' is no fold"),
    ],
)
def test_a_damaged_division_is_named(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert said in fails(edit(written(tmp_path, repeated(tmp_path)), old, new))


def test_every_fold_of_every_division_needs_images(tmp_path: Path) -> None:
    path = written(tmp_path, repeated(tmp_path))
    path.write_text(
        "\n".join(
            line.removesuffix(",1") + (",0" if line.endswith(",1") else "") for line in path.read_text().splitlines()
        )
    )

    assert "no images in fold 1 of 2 of the column fold_1" in fails(path)


def test_counts_name_the_rounds_of_all_divisions(tmp_path: Path) -> None:
    assert repeated(tmp_path).counts() == {f"fold {number}": {"cat": 2, "dog": 2} for number in range(4)}


def stating(path: Path, **facts: object) -> Path:
    """The split file, with other values in the JSON file beside it."""
    beside = json_path(path)
    beside.write_text(json.dumps(json.loads(beside.read_text()) | facts))
    return path


@pytest.mark.parametrize("classes", [["dog", "cat"], ["cat"], [], ["bird", "cat", "dog"], ["cat", "cat", "dog"]])
def test_classes_that_the_rows_contradict_count_as_an_edit(tmp_path: Path, classes: list[str]) -> None:
    """The order of the classes is the order of a model's outputs, and the fingerprint does not hold it."""
    split, edited = read_split(stating(written(tmp_path), classes=classes))

    assert edited
    assert split.classes == ("cat", "dog")


@pytest.mark.parametrize("source", ["/etc/passwd", "../m.csv", "a/m.csv", "", ".."])
def test_a_source_that_is_no_bare_name_is_refused(tmp_path: Path, source: str) -> None:
    """`split --check` reads it as the manifest."""
    assert "not what evalcam writes" in fails(stating(written(tmp_path), source=source))


@pytest.mark.parametrize("root", ["data", "", "../data", "C:\\data", "/" + "x" * 5000, "/\ud800"])
def test_a_root_that_is_not_on_this_machine_is_asked_for(tmp_path: Path, root: str) -> None:
    assert "--data" in fails(stating(written(tmp_path), root=root))


@pytest.mark.parametrize("seed", [-1, 2**63, True, 0.5, None])
def test_a_seed_that_no_run_has_is_refused(tmp_path: Path, seed: object) -> None:
    assert "not what evalcam writes" in fails(stating(written(tmp_path), seed=seed))


@pytest.mark.parametrize("fold", ["100", "000007", "00000" + "9" * 5000, "\u0663", "1.0", " 1"])
def test_a_fold_is_a_short_whole_number(tmp_path: Path, fold: str) -> None:
    path = edit(written(tmp_path), "cat/0.png,cat,test,,,", f"cat/0.png,cat,test,,{fold},")

    assert "row 2" in fails(path)
    assert "is no fold" in fails(path)


def test_two_rows_for_one_file_are_refused(tmp_path: Path) -> None:
    """One in composed, one in decomposed form, of which the disk has one."""
    (tmp_path / "caf\u00e9.png").write_bytes(b"")
    samples = (Sample("cafe\u0301.png", "a", "train"), Sample("caf\u00e9.png", "a", "test"))

    with pytest.raises(DataError, match="same file"):
        located(Split(tmp_path, samples, ("a",)))
