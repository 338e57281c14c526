"""What a split's two files may hold, value by value, and what is said of another."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from evalcam_cli.data.samples import Sample, Split
from evalcam_cli.data.split_file import (
    fingerprint,
    is_repeat_column,
    is_split_file,
    json_path,
    located,
    read_split,
    recorded_classes,
    split_bytes,
)
from evalcam_cli.errors import DataError, UsageError
from tests.data.test_split_file import edit, fails, hold_out, stating, written

# ---- the JSON file

TAKEN: dict[str, list[object]] = {
    "root": ["", "/", "C:\\data"],
    "source": ["folder", "divided", "m.csv", "a b\n.csv", "..."],
    "fingerprint": ["", "x"],
    "seed": [0, 2**63 - 1],
    "classes": [[], ["b", "a"], [""]],
    "ratios": [None, [1, 0, 0], [0.5, 0.25, 0.25]],
    "folds": [None, 2, 100],
    "left_out": [[], [{"path": "a", "reason": "leak"}], [{"path": "a", "reason": "", "more": 1}]],
    "counts": [None, 1],  # for readers only
    "note": ["by hand"],
}
REFUSED: dict[str, list[object]] = {
    "schema_version": [None, 0, -1, 1000, "1", [], 1.5],
    "root": [None, 1, [], "/da\0ta"],
    "source": [None, 1, "", "..", ".", "a/b", "/", "a/"],
    "fingerprint": [None, 1],
    "seed": [None, -1, 2**63, True, 1.0, "1"],
    "classes": [None, "ab", {"a": 1}, [1], ["a", None]],
    "ratios": [0, "abc", {"a": 1, "b": 2, "c": 3}, [], [1, 0], [1, 0, 0, 0], [True, 0, 0], ["1", 0, 0], [None] * 3],
    "folds": [0, 1, 101, True, 2.0, "2"],
    "repeats": [None, 0, 2, True, 1.0, "1"],
    "left_out": [None, {}, "", [1], [["a", "leak"]], [{"path": "a"}], [{"reason": "a"}],
                 [{"path": 1, "reason": "a"}], [{"path": "a", "reason": None}]],
}  # fmt: skip


@pytest.mark.parametrize("key", TAKEN)
def test_a_value_of_its_kind_is_taken(tmp_path: Path, key: str) -> None:
    path = written(tmp_path)

    for value in TAKEN[key]:
        assert recorded_classes(stating(path, **{key: value})) == tuple(value if key == "classes" else ("cat", "dog"))  # type: ignore[arg-type]


@pytest.mark.parametrize("key", REFUSED)
def test_a_value_of_another_kind_is_refused(tmp_path: Path, key: str) -> None:
    path = written(tmp_path)

    for value in REFUSED[key]:
        message = fails(stating(path, **{key: value}), tmp_path)
        assert message == f"{json_path(path)} is not what evalcam writes; remove it and use --data"


@pytest.mark.parametrize("key", ["schema_version", "root", "source", "fingerprint", "seed", "classes", "left_out"])
def test_what_every_split_records_is_not_missing(tmp_path: Path, key: str) -> None:
    path = written(tmp_path)
    facts = json.loads(json_path(path).read_text())
    del facts[key]
    json_path(path).write_text(json.dumps(facts))

    assert "is not what evalcam writes" in fails(path, tmp_path)


@pytest.mark.parametrize(("folds", "repeats", "sound"), [(2, 1, True), (2, 100, True), (2, 101, False), (2, 0, False)])
def test_there_are_up_to_a_hundred_divisions_and_only_into_folds(
    tmp_path: Path, folds: int, repeats: int, sound: bool
) -> None:
    path = stating(written(tmp_path), folds=folds, repeats=repeats)

    if sound:
        assert recorded_classes(path) == ("cat", "dog")
    else:
        assert "is not what evalcam writes" in fails(path)
    assert recorded_classes(stating(path, folds=None, repeats=1)) == ("cat", "dog")


@pytest.mark.parametrize("version", [2, 999])
def test_a_later_version_asks_for_an_update(tmp_path: Path, version: int) -> None:
    path = stating(written(tmp_path), schema_version=version)

    assert fails(path) == f"{json_path(path)} was written by a newer evalcam; update evalcam"


def test_a_mark_at_the_start_and_bytes_that_are_not_utf8_are_read(tmp_path: Path) -> None:
    path = written(tmp_path)
    beside = json_path(path)
    beside.write_bytes(b"\xef\xbb\xbf" + beside.read_bytes().replace(b'"cat"', b'"c\xff"'))

    assert recorded_classes(path) == ("c\udcff", "dog")


def test_no_json_file_records_no_classes(tmp_path: Path) -> None:
    assert recorded_classes(tmp_path / "split.csv") == ()


def test_a_json_file_that_cannot_be_read_is_wrong_usage(tmp_path: Path) -> None:
    path = written(tmp_path)
    json_path(path).unlink()
    json_path(path).mkdir()

    with pytest.raises(UsageError, match=r"cannot read .*split\.json: Is a directory"):
        read_split(path)


def test_a_damaged_json_file_is_called_so(tmp_path: Path) -> None:
    path = written(tmp_path)
    json_path(path).write_text("{")

    assert "split.json is damaged (Expecting" in fails(path)
    assert fails(path).endswith("remove it and use --data")


class Claiming(bytes):
    """A few bytes that say that they are many."""

    size: int

    def __len__(self) -> int:
        return self.size


def test_a_json_file_has_up_to_two_hundred_million_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path)
    content = Claiming(json_path(path).read_bytes())
    monkeypatch.setattr("evalcam_cli.data.split_file.read_bytes", lambda path, limit: content)

    content.size = 200_000_000
    assert recorded_classes(path) == ("cat", "dog")
    content.size = 200_000_001
    with pytest.raises(DataError, match=r"is damaged \(more than 200,000,000 bytes\); remove it and use --data"):
        recorded_classes(path)


# ---- where the images are


def test_a_file_given_as_data_stands_for_its_folder(tmp_path: Path) -> None:
    path = written(tmp_path, hold_out(tmp_path / "gone"))
    (tmp_path / "m.csv").write_text("")

    assert read_split(path, root=tmp_path / "m.csv")[0].root == tmp_path


def test_a_root_that_is_not_there_is_said_to_be_recorded_or_given(tmp_path: Path) -> None:
    path = written(tmp_path, hold_out(tmp_path / "gone"))
    remedy = "is not there; name it here: as DATA, or with --data"

    assert fails(path) == f"the data folder {tmp_path}/gone, recorded in {json_path(path)}, {remedy}"
    assert fails(path, tmp_path / "other") == f"the data folder {tmp_path}/other {remedy}"
    json_path(path).unlink()
    assert fails(path).startswith(f"there is no {json_path(path)} that says where on this machine the images of split")


# ---- the table


def bare(tmp_path: Path, text: str) -> tuple[Split, bool]:
    """A table without a JSON file, read."""
    (tmp_path / "s.csv").write_text(text)
    return read_split(tmp_path / "s.csv", root=tmp_path)


def test_of_a_table_alone_all_but_the_rows_is_the_default(tmp_path: Path) -> None:
    split, edited = bare(tmp_path, "path,label,set\nb.png,y,test\na.png,x,train\n")

    samples = (Sample("a.png", "x", "train"), Sample("b.png", "y", "test"))
    assert split == Split(tmp_path, samples, ("x", "y"), seed=0, source="s.csv")
    assert edited


def test_a_table_of_folds_alone_has_as_many_as_its_rows_name(tmp_path: Path) -> None:
    split, _ = bare(tmp_path, "path,label,set,fold\n0,x,,00000\n1,x,,00002\n2,x,,1\n3,y,test,\n")

    assert (split.folds, split.repeats) == (3, 1)
    assert [sample.fold for sample in split.samples] == [0, 2, 1, None]


@pytest.mark.parametrize("missing", ["path", "label", "set"])
def test_three_columns_are_needed(tmp_path: Path, missing: str) -> None:
    with pytest.raises(DataError, match=f"no column '{missing}'"):
        bare(tmp_path, "path,label,set\n".replace(missing, "other") + "a,b,c\n")


def test_there_are_up_to_a_hundred_folds(tmp_path: Path) -> None:
    rows = "".join(f"{fold:03},x,,{fold}\n" for fold in range(101))
    hundred = rows.removesuffix("100,x,,100\n")

    assert bare(tmp_path, f"path,label,set,fold\n{hundred}")[0].folds == 100
    with pytest.raises(DataError, match="row 102: '100' is no fold; expected a whole number from 0"):
        bare(tmp_path, f"path,label,set,fold\n{rows}")


def test_up_to_ninety_nine_further_columns_are_divisions(tmp_path: Path) -> None:
    names = ",".join(f"fold_{number}" for number in range(1, 101))
    rows = "".join(f"{fold},x,,{fold}{f',{fold}' * 100}\n" for fold in range(2))

    split, _ = bare(tmp_path, f"path,label,set,fold,{names}\n{rows}")

    assert (split.repeats, split.extra_columns) == (100, ("fold_100",))
    assert [sample.extra for sample in split.samples] == [("0",), ("1",)]


@pytest.mark.parametrize("columns", ["path,label,set,fold_1", "path,label,set,fold,fold_1", "path,label,set,fold_2"])
def test_without_folds_no_column_is_a_division(tmp_path: Path, columns: str) -> None:
    split, _ = bare(tmp_path, f"{columns}\na,x,train{',,left' if ',fold,' in columns else ',left'}\n")

    assert (split.repeats, split.folds, split.extra_columns) == (1, None, (columns.rpartition(",")[2],))
    assert split.samples[0].extra == ("left",)


def test_divisions_end_where_a_number_is_left_out(tmp_path: Path) -> None:
    text = "path,label,set,fold,fold_1,fold_3\na,x,,0,1,left\nb,x,,1,0,right\n"

    split, _ = bare(tmp_path, text)

    assert (split.repeats, split.extra_columns) == (2, ("fold_3",))
    assert [(sample.more_folds, sample.extra) for sample in split.samples] == [((1,), ("left",)), ((0,), ("right",))]


@pytest.mark.parametrize(
    ("name", "taken"),
    [("fold_1", True), ("fold_99", True), ("fold_100", True), ("fold_0", False), ("fold_01", False), ("fold_", False),
     ("fold", False), ("fold_1a", False), ("a_fold_1", False), ("Fold_1", False), ("fold_1\n", False)],
)  # fmt: skip
def test_a_column_is_called_like_a_division(name: str, taken: bool) -> None:
    assert is_repeat_column(name) is taken


def test_divisions_and_further_columns_are_written_and_read_side_by_side(tmp_path: Path) -> None:
    samples = tuple(
        Sample(f"{index}.png", "ab"[index % 2], fold=index // 2, more_folds=(1 - index // 2,), extra=(f"e{index}", ""))
        for index in range(4)
    )
    fixed = Sample("9.png", "a", "test", extra=("e9", "x"))
    split = Split(tmp_path, (*samples, fixed), ("a", "b"), folds=2, repeats=2, extra_columns=("=site", "note"))

    assert split_bytes(split)[0].splitlines()[-1] == b"9.png,a,test,,,,,e9,x"
    assert read_split(written(tmp_path, split)) == (split, False)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("cat/1.png,cat,test", "cat/0.png,dog,test",
         "row 3: cat/0.png of row 2 with two labels: 'cat' there, 'dog' here"),
        ("cat/1.png,cat,test", "./cat/0.png,cat,test", "row 3: cat/0.png of row 2 again"),
        ("dog/9.png,dog,val", "dog/8.png,dog,val", "row 21: dog/8.png of row 20 again"),
        ("cat/1.png,cat,test", "cat/1.png,cat,tset", "row 3: unknown set 'tset'; did you mean 'test'?"),
        ("cat/1.png,cat,test", "cat/1.png,cat, VAL ", "row 3: unknown set ' VAL '; did you mean 'val'?"),
        ("cat/1.png,cat,test", "cat/1.png,cat,none", "row 3: unknown set 'none'; expected train, val or test"),
        ("cat/1.png,cat,test", "cat/1.png,,test", "row 3: cat/1.png has no label"),
        ("cat/1.png,cat,test", "../1.png,cat,test", "row 3: the path '../1.png' leaves the data folder"),
        ("cat/1.png,cat,test", ",cat,test", "row 3: the path is empty"),
        ("cat/1.png,cat,test", "cat/1.png,cat,", "row 3: neither set nor fold is given"),
    ],
)  # fmt: skip
def test_a_bad_row_is_named_with_its_number_and_the_reason(tmp_path: Path, old: str, new: str, said: str) -> None:
    path = edit(written(tmp_path), old, new)

    assert fails(path) == f"{path}, {said}"


@pytest.mark.parametrize("name", ["train", "val"])
def test_of_folds_only_test_images_are_left_out(tmp_path: Path, name: str) -> None:
    text = f"path,label,set,fold\n0,x,,0\n1,x,,1\n2,x,{name},\n"

    with pytest.raises(DataError, match=f"row 4: the set is {name}, but the split has folds and this row none"):
        bare(tmp_path, text)
    assert bare(tmp_path, text.replace(name, "test"))[0].folds == 2


def test_every_fold_that_is_recorded_has_images(tmp_path: Path) -> None:
    samples = tuple(Sample(f"{index}.png", "a", fold=index % 2) for index in range(4))
    path = written(tmp_path, Split(tmp_path, samples, ("a",), folds=2))

    assert fails(stating(path, folds=4)) == f"{path} has no images in fold 2, 3 of 4"
    json_path(path).unlink()
    path.write_text(path.read_text().replace(",0,", ",2,"))
    assert fails(path, tmp_path) == f"{path} has no images in fold 0 of 3"


def test_a_fold_beyond_those_recorded_is_named_by_its_column(tmp_path: Path) -> None:
    samples = tuple(Sample(f"{index}.png", "a", fold=index % 3) for index in range(6))
    path = stating(written(tmp_path, Split(tmp_path, samples, ("a",), folds=3)), folds=2)

    assert fails(path) == f"{path}, row 4: fold 2 of a split into 2 folds (0 to 1)"


# ---- the fingerprint, the disk, files of its own


def test_the_fingerprint_of_no_samples_is_that_of_the_header() -> None:
    header = b"path,label,set,group,fold,sha256\n"

    assert fingerprint(()) == hashlib.sha256(header).hexdigest()
    assert fingerprint([Sample("a", "x")]) == hashlib.sha256(header + b"a,x,,,,\n").hexdigest()


def test_either_contradiction_is_an_edit(tmp_path: Path) -> None:
    path = written(tmp_path)
    fact = json.loads(json_path(path).read_text())["fingerprint"]

    assert read_split(path)[1] is False
    assert read_split(stating(path, fingerprint="0" * 64))[1] is True
    assert read_split(stating(path, fingerprint=fact, classes=["dog", "cat"]))[1] is True


def test_two_spellings_that_both_stand_for_one_file_are_refused(tmp_path: Path) -> None:
    """Three forms of one letter: composed, as on the disk, decomposed, and the sign of a unit."""
    (tmp_path / "\u00c5.png").write_bytes(b"")
    split = Split(tmp_path, (Sample("A\u030a.png", "a", "train"), Sample("\u212b.png", "a", "test")), ("a",))

    with pytest.raises(DataError, match="two rows of the split name the same file, in two Unicode forms: \u00c5"):
        located(split)
    one = replace(split, samples=split.samples[:1])
    assert located(one) == ([Sample("\u00c5.png", "a", "train")], [])


@pytest.mark.parametrize(
    ("name", "content", "own"),
    [
        ("s.csv", b"path,label,set,group,fold,sha256\n", True),
        ("s.csv", b"path,label,set,group,fold,sha256,site\n", True),
        ("s.csv", b"\npath,label,set,group,fold,sha256\n", False),
        ("s.csv", b"path,label,set,group,fold\n", False),
        ("s.csv", b'{\n "schema_version": 1,\n "root": "/"', False),
        ("s.json", b'{\n "schema_version": 1,\n "root": "/"', True),
        ("s.JSON", b'{\n "schema_version": 1,\n "root": "/"', True),
        ("s.json", b'{\n "schema_version": 1,\n "task": "/"', False),
        ("s.json", b'{\n "version": 1,\n "root": "/"', False),
        ("s.json", b"path,label,set,group,fold,sha256\n", False),
    ],
)
def test_only_a_file_that_begins_like_a_split_may_be_replaced(
    tmp_path: Path, name: str, content: bytes, own: bool
) -> None:
    (tmp_path / name).write_bytes(content)

    assert is_split_file(tmp_path / name) is own
    assert is_split_file(tmp_path / f"none{name}") is False
