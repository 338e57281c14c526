"""Split files that were edited, damaged or made to mislead, with every command that takes one."""

import csv
import io
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from tests.data.pictures import picture, save
from tests.zoo.cases import Case, Kit
from tests.zoo.manifests import NOWHERE, OUTSIDE

_TRAIN = ("train", "--split", "{here}/s.csv", "--out", "{out}")
_EVALUATE = ("evaluate", "--ckpt", "{ckpt}", "--split", "{here}/s.csv", "--out", "{out}")
_GRADCAM = ("gradcam", "--ckpt", "{ckpt}", "--split", "{here}/s.csv", "--out", "{out}")
_CHECK = ("split", "--check", "{here}/s.csv")

Rows = list[list[str]]
Change = Callable[[Rows], object]


def cases() -> list[Case]:
    return [*_paths(), *_rows(), *_tables(), *_facts(), *_lying_facts(), *_own_data(), *_own_sets(), *_files()]


def _paths() -> list[Case]:
    """Rows that lead elsewhere, with one command after the other."""
    commands = (_TRAIN, _EVALUATE, _GRADCAM)
    found = []
    for place, (name, path) in enumerate((OUTSIDE | NOWHERE).items()):
        row = [path, "cat", "test", "", "", ""]
        words = ("row 22", "leaves the data folder") if name in OUTSIDE else ()
        found.append(_refused(name, lambda rows, row=row: rows.append(row), *words, command=commands[place % 3]))  # type: ignore[misc]
    return found


def _rows() -> list[Case]:
    """Rows that contradict others or themselves; the first ten are cats, row 2 is one of them."""

    def cell(column: int, text: str) -> Change:
        return lambda rows: rows[1].__setitem__(column, text)

    def again(path: str, label: str = "cat", part: str = "test") -> Change:
        return lambda rows: rows.append([path, label, part, "", "", ""])

    return [
        _refused("no_path", cell(0, ""), "row 2", "empty"),
        _refused("no_label", cell(1, ""), "row 2", "no label"),
        _refused("no_set", cell(2, ""), "row 2", "neither set nor fold"),
        _refused("unknown_set", cell(2, "tset"), "row 2", "did you mean 'test'"),
        _refused("upper_case_set", cell(2, "Train"), "row 2", "did you mean 'train'"),
        _refused("fold_without_folds", cell(4, "0"), "fold"),
        _refused("fold_negative", cell(4, "-1"), "row 2", "no fold"),
        _refused("fold_fraction", cell(4, "0.5"), "row 2", "no fold"),
        _refused("fold_text", cell(4, "one"), "row 2", "no fold"),
        _refused("fold_100", cell(4, "100"), "row 2", "no fold"),
        _refused("fold_5000_digits", cell(4, "00000" + "9" * 5000), "row 2", "no fold"),
        _refused("fold_other_digits", cell(4, "٣"), "row 2", "no fold"),
        _refused("hash_mismatch", lambda rows: [row.__setitem__(5, "0" * 64) for row in rows[1:]], "changed"),
        _refused("hash_nonsense", cell(5, "abc"), "changed"),
        _refused("leak_same_path", again("cat/000.png"), "row 22", "again"),
        _refused("leak_same_path_otherwise", again("./cat//000.png"), "row 22", "again"),
        _refused("two_labels", again("cat/000.png", "dog"), "row 22", "two labels"),
        _refused("leak_case", again("CAT/000.PNG"), "CAT/000.PNG"),
        _refused("unknown_class_in_test", again("dog/000.png", "bird"), "row 22", "two labels"),
        _refused(
            "unknown_class", lambda rows: next(row for row in rows if row[2] == "test").__setitem__(1, "bird"), "bird"
        ),
        _refused("missing_file", again("cat/none.png"), "cat/none.png"),
        _refused("missing_all", lambda rows: [row.__setitem__(0, f"no/{row[0]}") for row in rows[1:]], "20 of 20"),
        _refused("no_train", lambda rows: [row.__setitem__(2, "test") for row in rows[1:]], "train"),
        _refused(
            "no_test",
            lambda rows: [row.__setitem__(2, "train") for row in rows[1:]],
            "no test images",
            command=_EVALUATE,
        ),
        _refused(
            "unknown_to_checkpoint",
            lambda rows: [row.__setitem__(1, row[1] + "s") for row in rows[1:]],
            "does not know",
            command=_EVALUATE,
        ),
        _refused("check_missing", again("cat/none.png"), "missing", command=_CHECK),
    ]


def _tables() -> list[Case]:
    def text(change: Callable[[str], str | bytes]) -> Callable[[Path, Kit], None]:
        def make(here: Path, kit: Kit) -> None:
            _copy(here, kit)
            changed = change((here / "s.csv").read_text(encoding="utf-8"))
            (here / "s.csv").write_bytes(changed.encode() if isinstance(changed, str) else changed)

        return make

    refused: dict[str, tuple[Callable[[str], str | bytes], str]] = {
        "empty": (lambda _: "", "no header"),
        "header_only": (lambda good: good.partition("\n")[0], "lists no images"),
        "no_header": (lambda good: good.partition("\n")[2], "no column"),
        "col_typo": (lambda good: good.replace("label", "lable"), "did you mean"),
        "column_twice": (lambda good: good.replace("group", "path"), "stands twice"),
        "ragged": (lambda good: good + "cat/x.png,cat\n", "row 22"),
        "field_200k": (lambda good: good + f"{'x' * 200_000},cat,test,,,\n", "row 22"),
        "quote_open": (lambda good: good + '"cat/x.png,cat,test,,,\n', "row 22"),
        "truncated": (lambda good: good[: len(good) - 80], "row 21"),
        "utf16_without_mark": (lambda good: good.encode("utf-16-le"), "no header"),
        "pickle": (pickle.dumps, "no header"),
        "zip": (lambda _: b"PK\3\4" + bytes(100), "no header"),
    }
    warned: dict[str, Callable[[str], str | bytes]] = {
        "rows_moved": lambda good: "\n".join([*good.splitlines()[:1], *reversed(good.splitlines()[1:])]),
        "bom": lambda good: "\ufeff" + good,
        "crlf": lambda good: good.replace("\n", "\r\n"),
        "semicolon": lambda good: good.replace(",", ";"),
    }
    return [
        Case(f"splits/{name}", text(change), (_TRAIN, _GRADCAM)[place % 2], "refuse", 3, (word,))
        for place, (name, (change, word)) in enumerate(refused.items())
    ] + [Case(f"splits/{name}", text(change), (*_CHECK, "--quiet"), "accept", 0) for name, change in warned.items()]


def _facts() -> list[Case]:
    """The JSON file beside a split: damaged."""
    raw = {
        "cut": lambda good: good[:40],
        "nothing": lambda _: b"",
        "text": lambda _: b"hello",
        "nul": lambda _: bytes(50),
        "list": lambda good: b"[" + good + b"]",
        "null": lambda _: b"null",
        "utf16": lambda good: good.decode().encode("utf-16"),
        "deep": lambda _: b"[" * 100_000,
        "deep_map": lambda _: b'{"a":' * 100_000,
        "huge_int": lambda good: good.replace(b'"seed": 0', b'"seed": ' + b"9" * 5000),
        "comma": lambda good: good.replace(b",", b"", 1),
        "pickle": pickle.dumps,
    }
    values: dict[str, dict[str, Any]] = {
        "seed_text": {"seed": "0"},
        "seed_true": {"seed": True},
        "seed_negative": {"seed": -1},
        "seed_nan": {"seed": float("nan")},
        "seed_400_digits": {"seed": 10**400},
        "root_list": {"root": ["a"]},
        "root_nul": {"root": "a\0b"},
        "classes_text": {"classes": "cat"},
        "classes_numbers": {"classes": [1, 2]},
        "classes_none": {"classes": None},
        "ratios_two": {"ratios": [0.5, 0.5]},
        "ratios_text": {"ratios": "half"},
        "folds_one": {"folds": 1},
        "folds_million": {"folds": 1_000_000},
        "folds_text": {"folds": "5"},
        "repeats": {"repeats": 3},
        "left_out_text": {"left_out": "none"},
        "left_out_rows": {"left_out": [{"path": 1}]},
        "schema_text": {"schema_version": "1"},
        "schema_newer": {"schema_version": 2},
        "schema_none": {"schema_version": None},
        "source_up": {"source": "../m.csv"},
        "source_absolute": {"source": "/etc/passwd"},
        "source_nothing": {"source": ""},
        "fingerprint_number": {"fingerprint": 5},
    }

    def rewritten(change: Callable[[bytes], bytes]) -> Callable[[Path, Kit], None]:
        def make(here: Path, kit: Kit) -> None:
            _copy(here, kit)
            (here / "s.json").write_bytes(change((here / "s.json").read_bytes()))

        return make

    return [
        Case(f"splits/json_{name}", rewritten(change), _EVALUATE, "refuse", 3, ("s.json",))
        for name, change in raw.items()
    ] + [
        Case(f"splits/json_{name}", _stating(**facts), _TRAIN, "refuse", 3, ("s.json",))
        for name, facts in values.items()
    ]


def _lying_facts() -> list[Case]:
    """The JSON file beside a split: sound and wrong."""
    roots = {
        "root_gone": "/no/such/folder",
        "root_relative": "data",
        "root_empty": "",
        "root_up": "../data",
        "root_long": "/" + "x" * 5000,
        "root_windows": "C:\\data",
        "root_file": "/etc/passwd",
        "root_half_character": "/\ud800",
    }
    classes = {
        "classes_turned": ["dog", "cat"],
        "classes_missing": ["cat"],
        "classes_more": ["bird", "cat", "dog"],
        "classes_none": [],
        "classes_twice": ["cat", "cat", "dog"],
    }
    return (
        [
            Case(f"splits/{name}", _stating(root=root), _EVALUATE, "refuse", 2, ("--data",))
            for name, root in roots.items()
        ]
        + [
            Case(
                f"splits/{name}",
                _stating(classes=names),
                (*_GRADCAM, "--set", "gradcam.max_images=1"),
                "warn",
                0,
                ("was edited",),
            )
            for name, names in classes.items()
        ]
        + [
            Case("splits/root_elsewhere", _stating(root="/etc"), _GRADCAM, "refuse", 3, ("not under /etc",)),
            Case(
                "splits/fingerprint_other",
                _stating(fingerprint="0" * 64),
                (*_GRADCAM, "--set", "gradcam.max_images=1"),
                "warn",
                0,
                ("was edited",),
            ),
            Case("splits/folds_lying", _stating(folds=3, ratios=None), _TRAIN, "refuse", 3, ("this row none",)),
            Case("splits/repeats_lying", _stating(folds=3, repeats=2, ratios=None), _TRAIN, "refuse", 3, ("fold_1",)),
            Case(
                "splits/json_gone",
                _without_json,
                _TRAIN,
                "refuse",
                2,
                ("--data",),
            ),
            Case("splits/json_bom", _with_mark, _CHECK, "accept", 0),
            Case("splits/json_is_folder", _json_as(Path.mkdir), _TRAIN, "refuse", 2, ("s.json",)),
            Case("splits/json_is_fifo", _json_as(os.mkfifo), _TRAIN, "refuse", 3, ("s.json",), seconds=15),
            Case(
                "splits/json_is_device",
                _json_as(lambda path: path.symlink_to("/dev/zero")),
                _TRAIN,
                "refuse",
                2,
                ("not a regular file",),
                seconds=15,
                megabytes=600,
            ),
        ]
    )


def _own_data() -> list[Case]:
    """Splits of images that lie beside them and are no plain files any more."""

    def link_folder(here: Path) -> None:
        (here / "data" / "cat").rename(here / "elsewhere")
        (here / "data" / "cat").symlink_to(here / "elsewhere")

    def link(here: Path) -> None:
        (here / "data" / "cat" / "000.png").rename(here / "x.png")
        (here / "data" / "cat" / "000.png").symlink_to(here / "x.png")

    def fifo(here: Path) -> None:
        (here / "data" / "cat" / "000.png").unlink()
        os.mkfifo(here / "data" / "cat" / "000.png")

    def corrupt(here: Path) -> None:
        for path in (here / "data").rglob("*.png"):
            path.write_bytes(path.read_bytes()[:200])

    def other_form(here: Path) -> None:
        (here / "data" / "café.png").write_bytes((here / "data" / "cat" / "000.png").read_bytes())
        with (here / "s.csv").open("a", encoding="utf-8") as stream:
            stream.write("caf\u00e9.png,cat,train,,,\ncafe\u0301.png,cat,test,,,\n")

    def same_pixels(here: Path) -> None:
        with (here / "s.csv").open(encoding="utf-8", newline="") as stream:
            trained = next(row for row in csv.DictReader(stream) if row["set"] == "train")
        Image.open(here / "data" / trained["path"]).save(here / "data" / "x.bmp")
        with (here / "s.csv").open("a", encoding="utf-8") as stream:
            stream.write(f"x.bmp,{trained['label']},test,,,\n")

    changes = {
        "folder_became_link": (link_folder, 3, "a symbolic link"),
        "file_became_link": (link, 3, "a symbolic link"),
        "file_became_fifo": (fifo, 3, "not a regular file"),
        "corrupt_row": (corrupt, 3, "cannot be read"),
        "unicode_twice": (other_form, 3, "same file"),
        "leak_same_pixels": (same_pixels, 3, "--drop-leaks"),
    }
    return [
        Case(
            f"splits/{name}-{command[0]}",
            _of_copy(change),
            command,
            "skip" if name == "corrupt_row" else "refuse",
            code,
            (word,),
            seconds=20,
        )
        for name, (change, code, word) in changes.items()
        for command in ((_TRAIN,) if name.startswith(("leak", "unicode")) else (_TRAIN, _EVALUATE))
    ]


def _own_sets() -> list[Case]:
    """Data that came divided."""

    def one_per_class(here: Path, kit: Kit) -> None:
        for number, name in enumerate(("train", "test")):
            for label in ("cat", "dog"):
                (here / "data" / name / label).mkdir(parents=True)
                shutil.copy(kit.data / label / f"00{number}.png", here / "data" / name / label)

    def near_copy(here: Path, kit: Kit) -> None:
        for number in range(40):
            label = ("cat", "dog")[number % 2]
            save(
                picture(number),
                here / "data" / ("test" if number > 30 else "train") / label / f"{number}.jpg",
                quality=95,
            )
        with Image.open(here / "data" / "train" / "cat" / "0.jpg") as image:
            save(image, here / "data" / "test" / "cat" / "again.jpg", quality=60)
        paths = sorted(path.relative_to(here / "data") for path in (here / "data").rglob("*.jpg"))
        rows = [f"{path.as_posix()},{path.parts[1]},{path.parts[0]}\n" for path in paths]
        (here / "s.csv").write_text("path,label,set\n" + "".join(rows), encoding="utf-8")

    audit = ("audit", "{here}/s.csv", "--data", "{here}/data", "--out", "{out}", "--strict")
    return [
        Case(
            "splits/one_per_class", one_per_class, ("split", "{here}/data", "--out", "{out}/s.csv"), "refuse", 3,
            ("'cat' has 1 image", "too few"),
        ),
        Case("splits/leak_near", near_copy, audit, "skip", 3, ("1 image has a copy in another set",)),
    ]  # fmt: skip


def _of_copy(change: Callable[[Path], None]) -> Callable[[Path, Kit], None]:
    def make(here: Path, kit: Kit) -> None:
        shutil.copytree(kit.data, here / "data")
        _copy(here, kit)
        facts = json.loads((here / "s.json").read_text(encoding="utf-8"))
        (here / "s.json").write_text(json.dumps(facts | {"root": str(here / "data")}), encoding="utf-8")
        change(here)

    return make


def _files() -> list[Case]:
    """What stands where a split file should."""

    def nothing(here: Path, kit: Kit) -> None:
        pass

    return [
        Case("splits/missing", nothing, _EVALUATE, "refuse", 2, ("cannot read",)),
        Case("splits/folder", lambda here, kit: (here / "s.csv").mkdir(), _GRADCAM, "refuse", 2, ("cannot read",)),
        Case(
            "splits/fifo",
            lambda here, kit: os.mkfifo(here / "s.csv"),
            _EVALUATE,
            "refuse",
            3,
            ("no header",),
            seconds=15,
        ),
        Case(
            "splits/device",
            lambda here, kit: (here / "s.csv").symlink_to("/dev/zero"),
            _TRAIN,
            "refuse",
            2,
            ("not a regular file",),
            seconds=15,
            megabytes=300,
        ),
        Case(
            "splits/link_loop",
            lambda here, kit: (here / "s.csv").symlink_to("s.csv"),
            _TRAIN,
            "refuse",
            2,
            ("cannot read",),
        ),
    ]


def _without_json(here: Path, kit: Kit) -> None:
    _copy(here, kit)
    (here / "s.json").unlink()


def _copy(here: Path, kit: Kit) -> None:
    shutil.copy(kit.split, here / "s.csv")
    shutil.copy(kit.split.with_suffix(".json"), here / "s.json")


def _stating(**facts: Any) -> Callable[[Path, Kit], None]:
    def make(here: Path, kit: Kit) -> None:
        _copy(here, kit)
        before = json.loads((here / "s.json").read_text(encoding="utf-8"))
        (here / "s.json").write_text(json.dumps(before | facts), encoding="utf-8")

    return make


def _json_as(make_other: Callable[[Path], object]) -> Callable[[Path, Kit], None]:
    def make(here: Path, kit: Kit) -> None:
        _copy(here, kit)
        (here / "s.json").unlink()
        make_other(here / "s.json")

    return make


def _with_mark(here: Path, kit: Kit) -> None:
    _copy(here, kit)
    (here / "s.json").write_bytes(b"\xef\xbb\xbf" + (here / "s.json").read_bytes())


def _refused(name: str, change: Change, *words: str, command: tuple[str, ...] = _TRAIN) -> Case:
    def make(here: Path, kit: Kit) -> None:
        _copy(here, kit)
        rows = list(csv.reader(io.StringIO((here / "s.csv").read_text(encoding="utf-8"), newline="")))
        change(rows)
        with (here / "s.csv").open("w", encoding="utf-8", newline="") as stream:
            csv.writer(stream, lineterminator="\n").writerows(rows)

    return Case(f"splits/{name}", make, command, "refuse", 3, words)
