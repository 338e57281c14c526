"""Manifests: paths that lead elsewhere, leaks, labels that mean something elsewhere, and tables that are none."""

import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from tests.conftest import read_rows
from tests.zoo.cases import Case, Kit, Result

HEADER = "path,label,set"
ROWS = [
    f"{label}/{number:03}.png,{label},{'train' if number < 6 else 'val' if number < 8 else 'test'}"
    for label in ("cat", "dog")
    for number in range(10)
]
"""20 images, so that a row added is row 22."""
OUTSIDE = {
    "trav_up": "../../../../../../etc/passwd",
    "trav_mid": "cat/../../../../../../etc/passwd",
    "trav_abs": "/etc/passwd",
    "trav_proc": "/proc/self/environ",
    "trav_device": "/dev/zero",
    "trav_file_url": "file:///etc/passwd",
    "trav_http": "http://169.254.169.254/latest/meta-data",
    "trav_nul": "cat/000.png\0.png",
    "trav_double_slash": "//server/share/x.png",
    "trav_up_alone": "..",
    "trav_above_and_back": "../data/cat/000.png",
}
"""Paths that are refused for what they say."""
NOWHERE = {
    "trav_home": "~/.ssh/id_rsa",
    "trav_win": "..\\..\\windows\\win.ini",
    "trav_drive": "C:\\Windows\\win.ini",
    "trav_share": "\\\\server\\share\\x.png",
    "trav_glob": "cat/*.png",
    "trav_variable": "$HOME/x.png",
    "trav_command": "$(touch $EVALCAM_CANARY).png",
    "trav_percent": "%2e%2e/%2e%2e/etc/passwd",
    "trav_wide_dots": "․․/etc/passwd",
    "trav_dir": "cat",
    "trav_root": ".",
    "trav_below_file": "cat/000.png/x.png",
    "trav_long": "a" * 5000,
    "trav_many_folders": "a/" * 5000 + "x.png",
    "trav_escape": "cat/\x1b[31m.png",
}
"""Paths that are looked up as they stand, below the data root, where nothing of that name is."""
_SPLIT = ("split", "{here}/m.csv", "--out", "{out}.csv")

Prepare = Callable[[Path], object]


def cases() -> list[Case]:
    return [*_paths(), *_disk(), *_leaks(), *_divisions(), *_labels(), *_tables()]


def _paths() -> list[Case]:
    named = OUTSIDE | NOWHERE
    found = [_refused(name, _with(f'"{path}",cat,train'), "row 22") for name, path in named.items()]
    return [*found, _refused("trav_empty", _with(",cat,train"), "row 22", "the path is empty")]


def _disk() -> list[Case]:
    """Rows whose file is something else on the disk."""
    secret = Path(__file__).parents[1] / "sample"

    def link_out(here: Path) -> None:
        (here / "cat" / "x.png").symlink_to(secret)

    def link_folder_out(here: Path) -> None:
        shutil.copytree(here / "cat", here.parent / "elsewhere")
        (here / "linked").symlink_to(here.parent / "elsewhere")

    def link_folder_in(here: Path) -> None:
        (here / "linked").symlink_to("cat")

    def loop(here: Path) -> None:
        (here / "cat" / "x.png").symlink_to("x.png")

    added, through = _with("cat/x.png,cat,train"), _with("linked/000.png,cat,train")
    return [
        _refused("link_out", added, "row 22", "leaves the data folder", prepare=link_out),
        _refused("link_folder_out", through, "row 22", "leaves the data folder", prepare=link_folder_out),
        _warned("link_folder_in", through, "left out", prepare=link_folder_in),
        _warned("link_loop", added, "left out", prepare=loop),
        _refused("fifo_row", added, "row 22", prepare=lambda here: os.mkfifo(here / "cat" / "x.png")),
        _refused("folder_row", added, "row 22", "a folder", prepare=lambda here: (here / "cat" / "x.png").mkdir()),
        _refused("missing_file", added, "row 22", "1 of 21"),
        _refused("missing_all", "\n".join([HEADER, *(f"no/{row}" for row in ROWS)]), "20 of 20"),
        Case("manifests/corrupt_row", _made(added, lambda here: (here / "cat" / "x.png").write_bytes(b"\x89PNG")),
             _SPLIT, "skip", 3, ("cat/x.png", "cannot be read")),
        _refused("unicode_twice", _with("caf\u00e9/x.png,cat,train", "cafe\u0301/x.png,cat,test"), "row 23", "two sets",
                 prepare=_accented),
        Case("manifests/manifest_is_fifo", lambda here, kit: os.mkfifo(here / "m.csv"), _SPLIT, "refuse", 2,
             ("neither a folder nor a CSV file",), seconds=10),
    ]  # fmt: skip


def _accented(here: Path) -> None:
    (here / "café").mkdir()
    Image.linear_gradient("L").resize((32, 32)).save(here / "café" / "x.png")


def _leaks() -> list[Case]:
    def copy(here: Path) -> None:
        shutil.copy(here / "cat" / "000.png", here / "cat" / "x.png")

    def other_format(here: Path) -> None:
        Image.open(here / "cat" / "000.png").save(here / "cat" / "x.bmp")

    def link(here: Path) -> None:
        (here / "cat" / "x.png").symlink_to("000.png")

    return [
        _refused("leak_same_path", _with("cat/000.png,cat,test"), "row 22", "two sets"),
        _refused("leak_same_path_otherwise", _with("./dog//../cat/000.png,cat,test"), "row 22", "two sets"),
        _refused("leak_same_content", _with("cat/x.png,cat,test"), "--drop-leaks", prepare=copy),
        _refused("leak_same_pixels", _with("cat/x.bmp,cat,test"), "--drop-leaks", prepare=other_format),
        _refused("leak_copy_with_other_label", _with("cat/x.png,dog,train"), "under another label", prepare=copy),
        _refused("leak_case", _with("CAT/000.PNG,cat,test"), "row 22"),
        _warned("leak_symlink", _with("cat/x.png,cat,test"), "left out", prepare=link),
        _refused("two_labels", _with("cat/000.png,dog,train"), "row 22", "two labels"),
        _refused(
            "two_groups", "path,label,group\ncat/000.png,cat,a\ndog/000.png,dog,b\ncat/000.png,cat,c", "two groups"
        ),
        _warned("dup_row", _with(ROWS[0]), "row 22"),
    ]


def _divisions() -> list[Case]:
    unknown = _with("cat/009.png,bird,test").replace("cat/009.png,cat,test\n", "")
    return [
        _refused("unknown_class", unknown, "bird", "no training images"),
        _warned("no_test", "\n".join([HEADER, *(row for row in ROWS if "test" not in row)]), "no test images"),
        _refused("no_train", "\n".join([HEADER, *(row for row in ROWS if "train" not in row)]), "no training images"),
        _refused("one_class", "\n".join([HEADER, *ROWS[:10]]), "single class"),
        _refused("unknown_set", _with("cat/000.png,cat,trian"), "row 22", "did you mean 'train'"),
        _refused("half_divided", _with("cat/009.png,cat,").replace(ROWS[9] + "\n", ""), "has no set"),
        _refused("no_label", _with("cat/009.png,,test").replace(ROWS[9] + "\n", ""), "has no label"),
        _refused("fold_columns", _columns("fold_1", "0"), "fold_1", "rename it", more=("--folds", "2", "--resplit")),
        _refused("regex_groups_missing", _with(), "no group by", more=("--group-by", "(x+)y")),
        Case("manifests/regex_bad", _made(_with()), (*_SPLIT, "--group-by", "("), "refuse", 2, ("regular expression",)),
        Case("manifests/regex_bomb", _made(_with("a" * 40 + ".png,cat,train"), lambda here: shutil.copy(
             here / "cat" / "000.png", here / ("a" * 40 + ".png"))), (*_SPLIT, "--group-by", "((?:a+)+)b"), "refuse", 2,
             ("takes too long",), seconds=20),
    ]  # fmt: skip


def _columns(name: str, value: str) -> str:
    return "\n".join([f"{HEADER},{name}", *(f"{row},{value}" for row in ROWS)])


def _labels() -> list[Case]:
    """Labels that other programs take for something else: text stays text."""
    pairs = {
        "nan": ("nan", "null"), "numbers": ("007", "7"), "bools": ("True", "no"),
        "formula": ("=cmd|' /C calc'!A0", "@x"),
        "guarded": ("'=a", "=a"), "escape": ("\x1b[31mred", "b\x07"), "html": ("<script>alert(1)</script>", "a&b"),
        "direction": ("\u202ecat", "a\u200bb"), "blanks": (" cat", "cat "), "slashes": ("../x", "a/b"),
        "nul": ("a\0b", "c"), "lines": ("one\ntwo", "a\r\nb"), "long": ("x" * 5000, "y" * 5000),
        "quotes": ('say ""a""', "it's"), "emoji": ("🐱", "🐶"), "reserved": ("CON", "NUL"),
    }  # fmt: skip
    return [
        Case(
            f"manifests/label_{name}", _made(_relabelled(*both)), (*_SPLIT, "--quiet"), "accept", 0, check=_kept(*both)
        )
        for name, both in pairs.items()
    ]


def _relabelled(cat: str, dog: str) -> str:
    names = {"cat": cat, "dog": dog}
    cells = [row.split(",") for row in ROWS]
    return "\n".join([HEADER, *(f'{path},"{names[label]}",{part}' for path, label, part in cells)])


def _kept(cat: str, dog: str) -> Callable[[Result], str]:
    wanted = {cat.replace('""', '"'), dog.replace('""', '"')}

    def check(result: Result) -> str:
        labels = {row["label"] for row in read_rows(result.output.with_suffix(".csv"))}
        if any(label.startswith(("=", "@", "+", "-")) for label in labels):
            return "a spreadsheet would run a label"
        plain = {label[1:] if label.lstrip("'")[:1] in ("=", "@") else label for label in labels}
        return "" if plain == wanted else f"labels became {labels}"

    return check


def _tables() -> list[Case]:
    """Tables that are cut, coded or quoted in other ways, and files that are no tables."""
    good = "\n".join([HEADER, *ROWS])
    wide = ",".join(f"c{number}" for number in range(2000))
    refused: dict[str, tuple[str | bytes, str]] = {
        "empty": ("", "no header"), "blank": ("\n\n\n", "no header"), "header_only": (HEADER, "no images"),
        "no_header": ("\n".join(ROWS), "no column 'path'"),
        "col_typo": (good.replace("label", "lable"), "did you mean"),
        "ragged_short": (_with("cat/000.png,cat"), "row 22"),
        "ragged_long": (_with("cat/000.png,cat,test,x"), "row 22"),
        "field_200k": (_with(f"{'x' * 200_000},cat,test"), "row 22"),
        "header_200k": (f"path,label,{'x' * 200_000}\n", "row 1"),
        "latin1": (_with("café.png,cat,test").encode("latin-1"), "row 22"),
        "utf16_without_mark": (good.encode("utf-16-le"), "no header"),
        "utf16_cut": (good.encode("utf-16")[:-1], "UTF-16"),
        "utf16_half_character": (b"\xff\xfe" + good.encode("utf-16-le") + b"\x00\xd8", "UTF-16"),
        "pickle": (pickle.dumps({"path": "cat/000.png"}), "row 1"), "png": (b"\x89PNG\r\n\x1a\n" + bytes(50), "row 1"),
        "json": ('[{"path": "cat/000.png", "label": "cat"}]', "no column"),
        "quote_open": (_with('"cat/000.png,cat,test'), "row 22"),
        "quote_inside": (_with('"cat"/0.png,cat,test'), "row 22"),
        "column_twice": (good.replace(HEADER, "path,label,label"), "stands twice"),
        "column_unnamed": (_columns("", "x"), "has no name"), "columns_2000": (f"path,label,{wide}\n", "2,002 columns"),
        "nul_rows": (_with("\0\0\0,cat,test"), "row 22"), "two_headers": (_with(HEADER), "row 22"),
    }  # fmt: skip
    accepted: dict[str, str | bytes] = {
        "bom": b"\xef\xbb\xbf" + good.encode(), "crlf": good.replace("\n", "\r\n"), "cr": good.replace("\n", "\r"),
        "blank_lines": good.replace("\n", "\n\n"), "quoted": "\n".join([HEADER, *(_quoted(row) for row in ROWS)]),
        "upper_case_sets": good.replace("train", "Training"), "column_of_lines": _columns("note", '"a\nb"'),
    }  # fmt: skip
    guessed: dict[str, tuple[str | bytes, str]] = {
        "semicolon": (good.replace(",", ";"), "semicolons"), "tab": (good.replace(",", "\t"), "tabs"),
        "utf16": (good.encode("utf-16"), "UTF-16"),
    }  # fmt: skip
    return (
        [_refused(name, *case) for name, case in refused.items()]
        + [
            Case(f"manifests/{name}", _made(content), _SPLIT, "accept", 0, check=_whole)
            for name, content in accepted.items()
        ]
        + [
            Case(f"manifests/{name}", _made(content), _SPLIT, "warn", 0, (word,), check=_whole)
            for name, (content, word) in guessed.items()
        ]
    )


def _quoted(row: str) -> str:
    return ",".join(f'"{cell}"' for cell in row.split(","))


def _whole(result: Result) -> str:
    count = len(read_rows(result.output.with_suffix(".csv")))
    return "" if count == len(ROWS) else f"{count} rows came out"


def _with(*rows: str) -> str:
    return "\n".join([HEADER, *ROWS, *rows]) + "\n"


def _refused(
    name: str, content: str | bytes, *words: str, prepare: Prepare | None = None, more: tuple[str, ...] = ()
) -> Case:
    return Case(f"manifests/{name}", _made(content, prepare), (*_SPLIT, *more), "refuse", 3, words)


def _warned(name: str, content: str, *words: str, prepare: Prepare | None = None) -> Case:
    return Case(f"manifests/{name}", _made(content, prepare), _SPLIT, "warn", 0, words)


def _made(content: str | bytes, prepare: Prepare | None = None) -> Callable[[Path, Kit], None]:
    def make(here: Path, kit: Kit) -> None:
        shutil.copytree(kit.data, here, dirs_exist_ok=True)
        if prepare is not None:
            prepare(here)
        data = content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content
        (here / "m.csv").write_bytes(data)

    return make
