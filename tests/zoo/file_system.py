"""Names and things that a data folder may hold."""

import contextlib
import json
import os
import socket
import stat
import unicodedata
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from tests.conftest import TINY, draw_classes
from tests.zoo.cases import Case, Result, expected
from tests.zoo.formats import encoded, picture
from tests.zoo.images import table
from tests.zoo.settings import without_privileges

_SPLIT = ("split", "{here}", "--out", "{out}.csv")
_PREDICT = ("predict", "{here}/cat", "--ckpt", "{ckpt}", "--out", "{out}.csv")
_EVALUATE = ("evaluate", "--data", "{here}", "--ckpt", "{ckpt}", "--out", "{out}", "--set", "evaluate.bootstrap=100")
_GRADCAM = ("gradcam", "{here}/cat", "--ckpt", "{ckpt}", "--out", "{out}")
_TRAIN = ("train", "{here}", "--out", "{out}", "--epochs", "1", "--device", "cpu", *TINY)

_NAMES = {
    "space": "my cat 1.jpg",
    "lead_space": " cat.jpg",
    "trail_space": "cat .jpg",
    "quote": "a'b\"c.jpg",
    "back_quote": "`touch x`.jpg",
    "newline": "a\nb.jpg",
    "carriage_return": "a\rb.jpg",
    "tab": "a\tb.jpg",
    "bell": "a\x07b.jpg",
    "delete": "a\x7fb.jpg",
    "backspaces": "evil\x08\x08\x08\x08good.jpg",
    "dash": "-rf.jpg",
    "dashdash": "--help.jpg",
    "nfc": "caf\u00e9.jpg",
    "nfd": "cafe\u0301.jpg",
    "hangul_nfd": unicodedata.normalize("NFD", "고양이.jpg"),
    "emoji": "猫😺.jpg",
    "family": "👩\u200d👩\u200d👧.jpg",
    "rtl": "gpj.\u202egnp.exe.jpg",
    "zero_width": "a\u200bb\ufeffc.jpg",
    "line_separator": "a\u2028b\u2029c.jpg",
    "long255": "n" * 251 + ".jpg",
    "long255_emoji": "猫" * 83 + "ab.jpg",
    "esc_title": "a\x1b]0;PWNED\x07b.jpg",
    "esc_clear": "a\x1b[2J\x1b[1;1Hb.jpg",
    "esc_link": "a\x1b]8;;http:x\x1b\\b.jpg",
    "esc_c1": "a\u009b2Jb.jpg",
    "rich_open": "[bold red]x.jpg",
    "rich_close": "img[\u2215red].jpg",
    "rich_link": "[link=file:x]y.jpg",
    "html": "<img src=x onerror=alert(1)>.jpg",
    "html_entity": "a&lt;b&amp;.jpg",
    "script_end": "<" + "\\" + "script>.jpg",
    "formula": "=HYPERLINK(1,2).jpg",
    "formula_plus": "+1+1.jpg",
    "formula_at": "@SUM(1).jpg",
    "formula_quote": "'=1.jpg",
    "comma": "a,b.jpg",
    "semicolon": "a;b.jpg",
    "brace": "{0.__class__}.jpg",
    "percent": "%s%n%d.jpg",
    "dollar": "$(touch x).jpg",
    "dollar_math": "$\\frac{a}{b$.jpg",
    "star": "*.jpg",
    "question": "a?.jpg",
    "backslash": "a\\b.jpg",
    "drive": "C:\\x.jpg",
    "url": "http:x.jpg",
    "tilde": "~root.jpg",
    "hash": "#x.jpg",
    "pipe": "|x.jpg",
    "win_con": "CON.jpg",
    "dots": "a...jpg",
    "number": "007.jpg",
    "nan": "nan.jpg",
    "upper_suffix": "A.JPG",
    "two_suffixes": "a.png.jpg",
    "non_utf8": "bad\udcff\udcfe.jpg",
    "latin1": "caf\udce9.jpg",
}
_EVALUATED = ("html", "esc_title", "newline", "dollar_math", "rich_open", "non_utf8", "formula")  # it takes longest
_CLASSES = (
    "no", "1e3", "nan", "null", "007", "<script>alert(1)<", "=1+1", "[bold]", "a,b", "__proto__", "train", "caf\u00e9",
    "-v", "c" * 200, "true", "two words", " lead", "a\nb", "\x1b[31mred", "$x$", "bad\udcff",
)  # fmt: skip


def cases() -> list[Case]:
    return [*_names(), *_odd_names(), *_odd_classes(), *_no_files(), *_links(), *_rights(), *_shapes(), *_named()]


def _case(
    name: str,
    make: Callable[[Path], None],
    outcome: str,
    *words: str,
    command: tuple[str, ...] = _SPLIT,
    check: Callable[[Result], str] | None = None,
    setting: Callable[[Path, Path], None] | None = None,
) -> Case:
    """A case whose outcome is written as `expected` reads it."""
    kind, code = expected(outcome)
    return Case(
        f"file_system/{name}", lambda here, kit: make(here), command, kind, code, words, check, 15, setting=setting
    )


def _classes(here: Path) -> None:
    draw_classes(here, {"cat": 4, "dog": 4})


def _image(path: Path, number: int = 7) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(picture(number)))


# Names


def _names() -> Iterator[Case]:
    """Each name with `split` and, in turn, one of the other commands: it comes back byte for byte."""
    others = {"predict": _PREDICT, "gradcam": _GRADCAM, "evaluate": _EVALUATE}
    for number, (what, name) in enumerate(_NAMES.items()):
        make = partial(_with_name, name)
        yield _case(f"name_{what}-split", make, "accept", check=partial(_comes_back, f"cat/{name}"))
        other = "evaluate" if what in _EVALUATED else ("predict", "gradcam")[number % 2]
        path = name if other == "gradcam" else f"cat/{name}"
        check = partial(_comes_back_from, other, path)
        yield _case(f"name_{what}-{other}", make, "accept", command=others[other], check=check)
    check = partial(_in_json, "cat/")
    for what in ("non_utf8", "esc_title", "newline"):
        make = partial(_with_name, _NAMES[what])
        yield _case(
            f"name_{what}-json", make, "accept", command=(*_PREDICT, "--json"), check=partial(_in_json, _NAMES[what])
        )


def _with_name(name: str, here: Path) -> None:
    draw_classes(here, {"cat": 2, "dog": 3})
    _image(here / "cat" / name)


def _comes_back(path: str, result: Result) -> str:
    found = [row["path"] for row in table(result.output.with_name("out.csv"))]
    written = result.output.with_name("out.csv").read_bytes()
    return (
        ""
        if _plain(path) in found and os.fsencode(path)[:40] in written.replace(b'""', b'"')
        else f"{path!r} is not among {found}"
    )


def _plain(path: str) -> str:
    """As it stands in a CSV file: guarded against spreadsheets."""
    return "'" + path if path.lstrip("'")[:1] in ("=", "+", "-", "@", "\t", "\r", "\n") else path


def _comes_back_from(command: str, path: str, result: Result) -> str:
    file = {"predict": "out.csv", "gradcam": "out/explanations.csv", "evaluate": "out/predictions.csv"}[command]
    rows = table(result.output.parent / file)
    found = [row["path"] for row in rows]
    if not any(one == _plain(path) or one.endswith("/" + path) for one in found):
        return f"{path!r} is not among {found}"
    lost = [
        row["overlay"] for row in rows if "overlay" in row and not (result.output / row["overlay"].lstrip("'")).exists()
    ]
    return f"there is no {lost!r}" if lost else ""


def _in_json(name: str, result: Result) -> str:
    found = [row["path"] for row in json.loads(result.out)]
    return "" if any(path.endswith(name) for path in found) else f"{name!r} is not among {found}"


def _odd_names() -> Iterator[Case]:
    """Names that differ in little, and names of what is no image."""

    def twins(*names: str) -> Callable[[Path], None]:
        def make(here: Path) -> None:
            _classes(here)
            for number, name in enumerate(names):
                _image(here / "cat" / name, number)

        return make

    yield _case("name_case_twins", twins("Same.png", "same.png"), "warn", "differ only in case")
    yield _case("name_form_twins", twins("caf\u00e9.png", "cafe\u0301.png"), "warn", "differ only in case")
    yield _case("name_suffix_twins", twins("a.png", "a.jpg", "a.PNG"), "warn", "differ only in case")
    yield _case("name_suffix_twins-gradcam", twins("a.png", "a.jpg", "a"), "accept", command=_GRADCAM)
    ignored = twins(
        ".jpg", "..jpg", "a.jpg.part", "._a.png", ".hidden.png", "a.png~", "notes.txt", "Thumbs.db", "png", "a.psd"
    )
    yield _case("name_no_images", ignored, "warn", "4 files left out", "hidden", check=partial(_counts, 8))
    yield _case("name_no_images-predict", ignored, "accept", command=_PREDICT, check=partial(_counts, 4))
    yield _case("markup_across_folders", _markup, "accept", check=partial(_counts, 11))
    yield _case(
        "folder_of_escapes", lambda here: _nest(here, "cat/\x1b[2Jdeep", "x.png"), "accept", check=partial(_counts, 9)
    )
    yield _case(
        "folder_named_as_an_image",
        lambda here: _nest(here, "cat/folder.jpg", "x.png"),
        "accept",
        check=partial(_counts, 9),
    )
    yield _case(
        "folder_with_blank_end", lambda here: _nest(here, "cat/a ", "x.png"), "accept", check=partial(_counts, 9)
    )
    yield _case("folder_hidden", lambda here: _nest(here, "cat/.cache", "x.png"), "accept", check=partial(_counts, 8))
    yield _case("class_hidden", lambda here: _nest(here, ".cache", "x.png"), "accept", check=partial(_counts, 8))


def _markup(here: Path) -> None:
    _classes(here)
    for number in range(3):
        _image(here / "cat[" / f"red]{number}.png", number)


def _nest(here: Path, folder: str, name: str) -> None:
    _classes(here)
    (here / folder).mkdir(parents=True)
    _image(here / folder / name)


def _counts(number: int, result: Result) -> str:
    found = len(table(result.output.with_name("out.csv")))
    return "" if found == number else f"{found} images instead of {number}"


def _odd_classes() -> Iterator[Case]:
    def make(here: Path) -> None:
        for number, label in enumerate(_CLASSES):
            for copy in range(3):
                _image(here / label / f"{copy}.png", 3 * number + copy)

    def alike(*labels: str) -> Callable[[Path], None]:
        def make(here: Path) -> None:
            draw_classes(here, dict.fromkeys(labels, 4))

        return make

    yield _case("class_names_odd", make, "accept", check=_classes_come_back)
    yield _case("class_names_odd-train", make, "accept", command=_TRAIN)
    yield _case("class_case_twins", alike("Cat", "cat", "dog"), "warn", "differ only in case")
    yield _case("class_form_twins", alike("caf\u00e9", "cafe\u0301"), "warn", "differ only in case")
    yield _case("class_blank_twins", alike("cat", "cat ", "dog"), "warn", "differ only in case")
    yield _case("class_train_of_images", alike("train", "bus"), "accept")


def _classes_come_back(result: Result) -> str:
    written = json.loads(result.output.with_name("out.json").read_text(encoding="utf-8", errors="surrogateescape"))
    labels = {row["label"] for row in table(result.output.with_name("out.csv"))}
    right = sorted(written["classes"]) == sorted(_CLASSES) and labels == set(map(_plain, _CLASSES))
    return "" if right else f"classes: {written['classes']}; labels: {labels}"


# What is no regular file


def _no_files() -> Iterator[Case]:
    left = ("left out", "not a regular file")
    yield _case("fifo", _beside(lambda cat: os.mkfifo(cat / "pipe.jpg")), "warn", *left, check=partial(_counts, 8))
    yield _case("fifo-evaluate", _beside(lambda cat: os.mkfifo(cat / "pipe.jpg")), "accept", command=_EVALUATE)
    yield _case("fifo-predict", _beside(lambda cat: os.mkfifo(cat / "pipe.jpg")), "accept", command=_PREDICT)
    yield _case(
        "fifo_as_class", _beside(lambda cat: os.mkfifo(cat.parent / "bird")), "accept", check=partial(_counts, 8)
    )
    yield _case("socket", _beside(lambda cat: _socket(cat / "s.jpg")), "warn", *left, check=partial(_counts, 8))
    if os.geteuid() == 0:
        device = _beside(lambda cat: os.mknod(cat / "zero.jpg", 0o600 | stat.S_IFCHR, os.makedev(1, 5)))
        yield _case("device", device, "warn", *left, check=partial(_counts, 8))
    for name, size in {"of_300_mb": 300 * 2**20, "of_1_tb": 2**40}.items():
        yield _case(f"sparse_file_{name}", _beside(partial(_sparse, size)), "skip", "more than 256 MB")
    yield _case("times_of_1901_and_2200", _beside(_strange_times), "accept", check=partial(_counts, 8))


def _beside(add: Callable[[Path], object]) -> Callable[[Path], None]:
    """Class folders, and something in the folder `cat`."""

    def make(here: Path) -> None:
        _classes(here)
        add(here / "cat")

    return make


def _socket(path: Path) -> None:
    before = Path.cwd()
    os.chdir(path.parent)  # the whole path would be too long for a socket
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
    finally:
        os.chdir(before)


def _sparse(size: int, cat: Path) -> None:
    with (cat / "big.jpg").open("wb") as stream:
        stream.truncate(size)


def _strange_times(cat: Path) -> None:
    os.utime(cat / "000.png", (-(2**31), -(2**31)))
    os.utime(cat / "001.png", (7_258_118_400, 7_258_118_400))


# Links


def _links() -> Iterator[Case]:
    left = ("left out", "a symbolic link")
    for name, target in {
        "dangling": "nothing", "outside": "/etc/passwd", "dev_zero": "/dev/zero", "itself": "link.jpg",
        "image": "000.png", "proc": "/proc/self/mem", "terminal": "/dev/tty", "random": "/dev/urandom",
    }.items():  # fmt: skip
        make = _beside(partial(_link, "link.jpg", target))
        yield _case(f"symlink_{name}", make, "warn", *left, check=partial(_counts, 8))
    for name, target in {"outside": "/etc", "loop_dot": ".", "loop_up": "..", "root": "/"}.items():
        make = _beside(partial(_link, "loop", target))
        yield _case(f"symlink_folder_{name}", make, "warn", *left, check=partial(_counts, 8))
    yield _case("symlink_loop_mutual", _mutual, "warn", *left, check=partial(_counts, 8))
    yield _case("symlink_chain", _beside(_chain), "warn", *left, check=partial(_counts, 8))
    yield _case(
        "symlink_class",
        _beside(lambda cat: (cat.parent / "bird").symlink_to("cat")),
        "warn",
        *left,
        check=partial(_counts, 8),
    )
    yield _case("symlinks-evaluate", _mutual, "accept", command=_EVALUATE)
    yield _case("symlinks-predict", _mutual, "accept", command=_PREDICT, check=partial(_counts, 4))
    yield _case("hard_link_in_a_class", _beside(lambda cat: os.link(cat / "000.png", cat / "copy.png")), "accept")
    two = _beside(lambda cat: os.link(cat / "000.png", cat.parent / "dog" / "copy.png"))
    yield _case("same_image_two_classes", two, "R3", "under another label", "cat/000.png")
    data = ("split", "{here}/link", "--out", "{out}.csv")
    yield _case("data_is_a_link", lambda here: _moved(here, "there", "link"), "accept", command=data)
    yield _case("data_is_a_dangling_link", lambda here: (here / "link").symlink_to("none"), "R2", command=data)
    yield _case("data_is_a_loop", lambda here: (here / "link").symlink_to("link"), "R2", command=data)


def _link(name: str, target: str, cat: Path) -> None:
    (cat / name).symlink_to(target)


def _mutual(here: Path) -> None:
    _classes(here)
    for label in ("cat", "dog"):
        (here / label / "up").symlink_to("..")


def _chain(cat: Path) -> None:
    for number in range(60):
        (cat / f"l{number}.jpg").symlink_to(f"l{number + 1}.jpg")


def _moved(here: Path, folder: str, link: str) -> None:
    _classes(here / folder)
    (here / link).symlink_to(folder)


# Permissions


def _rights() -> Iterator[Case]:
    def mode(path: str, bits: int) -> Callable[[Path], None]:
        def make(here: Path) -> None:
            _classes(here)
            (here / path).chmod(bits)

        return make

    denied = ("Permission denied",)
    for command, words in {"split": _SPLIT, "predict": _PREDICT, "gradcam": _GRADCAM, "evaluate": _EVALUATE}.items():
        make = mode("cat/000.png", 0)
        yield _case(
            f"unreadable_file-{command}", make, "skip", "000.png", *denied, command=words, setting=without_privileges
        )
    allowed = (*_SPLIT, "--allow-unreadable", "1")
    yield _case(
        "unreadable_file-allowed",
        mode("cat/000.png", 0),
        "warn",
        "000.png",
        command=allowed,
        setting=without_privileges,
    )
    for name, bits in {"unreadable": 0o300, "unsearchable": 0o600, "closed": 0}.items():
        yield _case(f"{name}_class", mode("cat", bits), "R3", "cat", *denied, setting=without_privileges)
        root = ("R3", *denied) if name == "unsearchable" else ("R2", "not readable")
        yield _case(f"{name}_root", mode(".", bits), *root, setting=without_privileges)
    yield _case("read_only_data", mode("cat", 0o500), "accept", setting=without_privileges)
    yield _case("writable_by_all", mode("cat", 0o777), "accept")


# Shapes of a data folder


def _shapes() -> Iterator[Case]:
    yield _case("empty_root", lambda here: None, "R3", "no images")
    yield _case("empty_class", _beside(lambda cat: (cat.parent / "bird").mkdir()), "R3", "bird")
    yield _case("one_class", _one_class, "R3", "single class")
    yield _case("flat_folder", _flat, "R3", "move each into a folder")
    yield _case("class_of_links_only", _beside(_linked_class), "R3", "bird")
    yield _case("class_of_damaged_only", _beside(_damaged_class), "skip", "bird")
    allowed = (*_SPLIT, "--allow-unreadable", "9")
    yield _case("class_of_damaged_only-allowed", _beside(_damaged_class), "R3", "bird", command=allowed)
    yield _case(
        "deep_folders", _beside(lambda cat: _image(cat / ("d/" * 60) / "x.png")), "accept", check=partial(_counts, 9)
    )
    yield _case("1000_empty_folders", _beside(_many_folders), "accept")
    yield _case("two_folders_of_a_set", _sets("train", "val", "valid"), "R3", "valid")
    yield _case("no_train_folder", _sets("val", "test"), "R3", "train")
    yield _case("sets_upper_case", _sets("Training", "Testing"), "accept")
    yield _case("set_with_another_class", _another_class, "R3", "bird")
    yield _case("few_images", lambda here: (draw_classes(here, {"cat": 1, "dog": 1}), None)[1], "R3")


def _many_folders(cat: Path) -> None:
    for number in range(1000):
        (cat / f"d{number}").mkdir()


def _one_class(here: Path) -> None:
    draw_classes(here, {"cat": 4})


def _flat(here: Path) -> None:
    _classes(here)
    for path in (here / "cat").iterdir():
        path.rename(here / path.name)


def _linked_class(cat: Path) -> None:
    (cat.parent / "bird").mkdir()
    (cat.parent / "bird" / "a.png").symlink_to("../cat/000.png")


def _damaged_class(cat: Path) -> None:
    (cat.parent / "bird").mkdir()
    (cat.parent / "bird" / "a.png").write_bytes(b"damaged")


def _sets(*names: str) -> Callable[[Path], None]:
    def make(here: Path) -> None:
        for seed, name in enumerate(names):
            draw_classes(here / name, {"cat": 4, "dog": 4}, seed=seed)

    return make


def _another_class(here: Path) -> None:
    _sets("train", "test")(here)
    _image(here / "test" / "bird" / "x.png")


# Named on the command line


def _named() -> Iterator[Case]:
    def make(here: Path) -> None:
        _image(here / "good.png")
        (here / "link.png").symlink_to("good.png")
        (here / "lost.png").symlink_to("none")
        (here / "loop.png").symlink_to("loop.png")
        (here / "folder").mkdir()
        (here / "closed.png").write_bytes(encoded())
        (here / "closed.png").chmod(0)
        with contextlib.suppress(OSError):
            os.mkfifo(here / "pipe.png")

    expected = {
        "link.png": "accept", "lost.png": "R2", "loop.png": "R2", "folder": "R3", "pipe.png": "skip", "none.png": "R2",
        "closed.png": "R2", "n" * 300: "R2", "good.png/x.png": "R2",
    }  # fmt: skip
    for name, outcome in expected.items():
        for command in ("predict", "gradcam"):
            out = "{out}.csv" if command == "predict" else "{out}"
            words = (command, "{here}/" + name, "--ckpt", "{ckpt}", "--out", out)
            what = name.replace("/", "_").replace(".", "_")[:20]
            yield _case(f"named_{what}-{command}", make, outcome, command=words, setting=without_privileges)
    for device in ("/dev/zero", "/dev/null", "/dev/tty", "/proc/self/mem"):
        of_device = ("predict", device, "--ckpt", "{ckpt}", "--out", "{out}.csv")
        yield _case(f"named_{device[1:].replace('/', '_')}", make, "skip", command=of_device)
    for name in ("pipe.png", "good.png", "none"):
        of_data = ("split", "{here}/" + name, "--out", "{out}.csv")
        outcome = "R3" if name == "good.png" else "R2"
        yield _case(f"data_is_{name.replace('.', '_')}", make, outcome, command=of_data)
    long = ("split", "/" + "x" * 5000, "--out", "{out}.csv")
    yield _case("data_too_long", make, "R2", command=long)
    empty = ("split", "", "--out", "{out}.csv")
    yield _case("data_empty", make, "R2", command=empty)
