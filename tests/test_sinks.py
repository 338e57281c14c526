"""Names from outside that try to be more than names stay text wherever a command shows or writes them.

The commands are the real ones, over images whose folders, files, classes, groups and columns have hostile names.
"""

import csv
import json
import re
import shutil
import subprocess
import unicodedata
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, NoReturn, cast

import matplotlib.backends.backend_agg
import matplotlib.mathtext
import numpy as np
import pytest
from PIL import Image

from evalcam_cli.config_sources import load_config
from evalcam_cli.documents import read_csv
from evalcam_cli.report import reproduce
from evalcam_cli.text import csv_cell, shown
from tests.cli.commands import Outcome, run_command
from tests.conftest import TINY

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("sinks")]

CLASSES = (
    '=HYPERLINK("http://evil.example","x")<script>document.title="owned"</script>',
    "$\\frac{1}{0}$ \\input{/etc/passwd} % & _ # ^ ~ {{7*7}}",
    "\x1b]0;owned\x07\x9b31m\u202egnp\u200b|`x`]]>\nFORGED: all is well\r",
    "</style></title><img src=x onerror=document.title='owned'>[bold red]:smile:[/red]",
    "www.evil.example https://evil.example @here #1 [x](javascript:alert(1)) ::error::x",
    "n" * 200,
    "_nolegend_",
)
GROUPS = ("+1|cmd", "\x1b[2J<b>", "a\nFORGED: b", "$g_{", "%00", "\u202e'\"", "@SUM(1)", "-2", "`", "ÿ\x85", "g", "h")
SITES = ("=1+1", "<i onclick=alert(1)>\x1b[31m", "$\\alpha$|x\nFORGED: site")
COLUMN = "site<b>|\x1b[1m"
FILES = (
    "\x1b[31mred.png", "a\nFORGED: file.png", "=1+1.png", "$x_{.png", "<img src=x onerror=alert(1)>.png", "\x9b2J.png",
    "a\rb.png", "[bold]:smile:.png", "%s&_#.png", "bad\udcff.png", "\u202egnp.exe.png", "`|`.png", "z\u200b\ufeff.png",
    "n" * 251 + ".png", "-rf.png", "a\u2028b.png",
)  # fmt: skip
ROOT = "$r_{\x1b[1m <u>\n%"  # of the data

TEXTS = {".md", ".tex", ".json", ".html", ".xml", ".yaml", ".csv", ".py"}


@dataclass(frozen=True)
class World:
    """What was run over the hostile names, and what came of it."""

    root: Path
    outcomes: dict[str, Outcome]
    typeset: list[str]
    """What matplotlib was told to set as mathematics."""
    drawn: list[str]
    """What it was told to draw as it is."""

    def files(self, *suffixes: str) -> list[Path]:
        """Those that the commands wrote."""
        found = [path for path in sorted((self.root / "out").rglob("*")) if path.is_file()]
        return [path for path in found if not suffixes or path.suffix in suffixes]


def draw_images(root: Path) -> Path:
    """A manifest of six images per class and, beside it, a folder for files with hostile names; the manifest."""
    generator = np.random.default_rng(0)
    (root / "images").mkdir(parents=True)
    rows = [["path", "label", "group", COLUMN]]
    names = [f"images/{name}" for name in FILES if "\udcff" not in name]
    for number in range(6 * len(CLASSES)):
        name = names[number] if number < len(names) else f"images/{number}.png"
        index = number % len(CLASSES)
        pixels = generator.integers(0, 120, (24, 28, 3)).astype(np.uint8)
        pixels[..., index % 3] += np.uint8(40 * (index % 4))
        Image.fromarray(pixels).save(root / name)
        rows.append([name, CLASSES[index], GROUPS[number % len(GROUPS)], SITES[number % len(SITES)]])
    manifest = root / "list.csv"
    with manifest.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows(rows)
    folders = root.parent / "folders"
    for index, label in enumerate(("=cat\x1b[1m", "do\ng<b>\udcff")):
        (folders / label).mkdir(parents=True)
        for name in (*FILES, "copy.png"):
            pixels = generator.integers(0, 255, (24, 28, 3)).astype(np.uint8)
            pixels[0, 0, 0] = index
            Image.fromarray(pixels if name != "copy.png" else np.full_like(pixels, 7)).save(folders / label / name)
    return manifest


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    root = tmp_path_factory.mktemp("sinks")
    typeset: list[str] = []
    drawn: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        _listen(patch, typeset, drawn)
        patch.setenv("GITHUB_STEP_SUMMARY", str(root / "out" / "summary.md"))
        patch.setenv("GITHUB_ACTIONS", "true")
        (root / "out").mkdir()
        outcomes = {name: run_command(*words) for name, words in _commands(root)}
    yield World(root, outcomes, typeset, drawn)
    shutil.rmtree(root)


def _listen(patch: pytest.MonkeyPatch, typeset: list[str], drawn: list[str]) -> None:
    parser, renderer = matplotlib.mathtext.MathTextParser, matplotlib.backends.backend_agg.RendererAgg
    parse, draw = parser.parse, cast(Any, renderer.draw_text)

    def parsed(self: Any, text: str, *arguments: Any, **options: Any) -> Any:
        typeset.append(text)
        return parse(self, text, *arguments, **options)

    def drew(self: Any, gc: Any, x: Any, y: Any, text: str, *arguments: Any, **options: Any) -> Any:
        drawn.append(text)
        return draw(self, gc, x, y, text, *arguments, **options)

    patch.setattr(parser, "parse", parsed)
    patch.setattr(renderer, "draw_text", drew)


def _commands(root: Path) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The words of each command; what they need of each other is there when the next one is asked for."""
    manifest, out = draw_images(root / ROOT), root / "out"
    split, run, evaluation = f"{out}/split.csv", f"{out}/run", f"{out}/evaluation"
    yield "split", ("split", f"{manifest}", "--out", split, "--ratios", "0.5,0.25,0.25")
    yield "folders", ("split", f"{root}/folders", "--out", f"{out}/folders.csv")
    yield "train", ("train", "--split", split, "--out", run, "--epochs", "1", *TINY, "--device", "cpu")
    measure = ("--split", split, "--by", COLUMN, "--set", "evaluate.bootstrap=100", "--conformal", "0.2")
    gates = ("--fail-under", f"recall[{CLASSES[2]}]=1", "--fail-over", f"recall[{CLASSES[2]}]=0")
    yield "gates", (*("evaluate", "--ckpt", run, "--out", evaluation, "--junit", f"{out}/gates.xml"), *measure, *gates)
    saved = f"{out}/{CLASSES[1][:9]}<b>\n"
    yield "json", ("evaluate", "--predictions", f"{evaluation}/predictions.csv", "--out", saved, "--json")
    recall = ("--metric", f"recall[{CLASSES[2]}]", "--metric", "accuracy", "--non-inferior", "accuracy:0.1")
    yield "compare", ("compare", evaluation, evaluation, saved, "--out", f"{out}/comparison", *recall)
    yield "gradcam", ("gradcam", "--all", "--split", split, "--ckpt", run, "--out", f"{out}/maps", "--find-boxes")
    yield "predict", ("predict", f"{root}/folders", "--ckpt", run, "--out", f"{out}/predicted.csv")
    yield "predict json", ("predict", f"{root}/folders", "--ckpt", run, "--out", f"{out}/predicted2.csv", "--json")
    yield "audit", ("audit", split, "--out", f"{out}/audit")
    yield "calibrate", ("calibrate", run, "--positive", CLASSES[2], "--allow-few", "--operating-point", "youden")
    yield "no such class", ("evaluate", "--ckpt", run, "--split", split, "--fail-under", "recall[\x1b[1mx]=1")
    yield "no such option", ("split", "\x1b[31m-x", "--\x1b]0;owned\x07\nFORGED: x")
    yield "no such command", ("\x1b[31m\x9b1m",)
    yield "no such image", ("predict", f"{root}/\x1b[31m\nFORGED: x.png", "--ckpt", run, "--out", f"{out}/none.csv")
    yield "no such folder", ("split", f"{root}/\x1b[31m\nFORGED: x", "--out", f"{out}/none.csv")


CODES = {"gates": 4, "no such class": 2, "no such option": 2, "no such command": 2, "no such image": 2}
CODES |= {"no such folder": 2, "folders": 3}


def test_every_command_ends_as_it_does_with_harmless_names(world: World) -> None:
    wrong = {
        name: (one.code, one.err[-800:])
        for name, one in world.outcomes.items()
        if one.code != CODES.get(name, 0) or "Traceback" in one.err
    }

    assert not wrong


# The terminal


def test_what_is_printed_cannot_steer_a_terminal_and_forges_no_line(world: World) -> None:
    for name, one in world.outcomes.items():
        for stream in (one.out, one.err):
            assert hidden(stream) == set(), name
            assert not [line for line in stream.splitlines() if line.lstrip(" │|").startswith("FORGED")], name
            assert "😄" not in stream, name  # of `:smile:`


def hidden(text: str) -> set[str]:
    """Characters of a text, line ends excepted, that steer what shows it or are not seen."""
    characters = set(text) - {"\n"}
    return {one for one in characters if unicodedata.category(one)[0] == "C" or one in "\u2028\u2029"}


def test_a_workflow_command_is_begun_by_evalcam_alone(world: World) -> None:
    commands = [line for line in world.outcomes["gates"].err.splitlines() if line.startswith("::")]

    assert len(commands) >= 1
    assert all(line.startswith("::error title=gate ") and line.count("::") == 2 for line in commands)


# Files of texts


def test_files_to_be_read_are_utf_8_without_hidden_characters(world: World) -> None:
    for path in world.files(*TEXTS - {".csv"}):
        assert hidden(path.read_bytes().decode()) == set(), path.name


def test_what_a_run_leaves_has_names_that_a_terminal_can_show(world: World) -> None:
    for path in (world.root / "out").rglob("*"):
        inside = path.relative_to(world.root / "out")
        assert hidden("/".join(inside.parts[1:])) == set()  # the first one was given with --out


# CSV


def test_no_cell_of_a_table_is_a_formula(world: World) -> None:
    for path in world.files(".csv"):
        for row in raw_rows(path):
            assert not [cell for cell in row if re.match(r"[=+\-@\t\r\n]", cell) and not is_number(cell)], path.name


def raw_rows(path: Path) -> list[list[str]]:
    """As a spreadsheet reads them."""
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as stream:
        return list(csv.reader(stream, strict=True))


def is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def test_names_come_back_from_tables_byte_for_byte(world: World) -> None:
    header, rows = read_csv(world.root / "out" / "split.csv")
    saved = read_csv(world.root / "out" / "evaluation" / "predictions.csv")
    paths = [row[header.index("path")] for row in rows]
    foreign = [Path(row[0]).name for row in read_csv(world.root / "out" / "predicted.csv")[1]]

    assert header[-1] == COLUMN
    assert {row[header.index("label")] for row in rows} == set(CLASSES)
    assert {row[header.index("group")] for row in rows} == set(GROUPS)
    assert set(FILES) - {path.rpartition("/")[2] for path in paths} == {"bad\udcff.png"}
    assert {row[saved[0].index("target")] for row in saved[1]} <= set(CLASSES)
    assert sorted(foreign) == sorted([*FILES, "copy.png"] * 2)


# JSON, YAML, XML


def test_json_is_strict_and_says_the_names(world: World) -> None:
    for path in world.files(".json"):
        json.loads(path.read_bytes().decode(), parse_constant=refuse_constant)

    metrics = json.loads((world.root / "out" / "evaluation" / "metrics.json").read_text(encoding="utf-8"))
    assert set(metrics["classes"]) == set(CLASSES)
    assert {entry["value"] for entry in metrics["slices"]} <= set(SITES)


def refuse_constant(text: str) -> NoReturn:
    raise AssertionError(f"{text} is no JSON")


def test_a_document_on_stdout_is_strict_ascii(world: World) -> None:
    for name in ("json", "predict json"):
        document = world.outcomes[name].out
        assert document.isascii()
        json.loads(document, parse_constant=refuse_constant)

    paths = [entry["path"] for entry in json.loads(world.outcomes["predict json"].out)]
    assert sorted(Path(path).name for path in paths) == sorted([*FILES, "copy.png"] * 2)


def test_a_config_reads_back_with_its_paths(world: World) -> None:
    config = load_config(world.root / "out" / "run" / "config.yaml")

    assert config.train.epochs == 1


def test_the_junit_file_is_xml_with_the_names_in_attributes(world: World) -> None:
    root = ET.parse(world.root / "out" / "gates.xml").getroot()
    names = {one.tag for one in root.iter()}
    cases = [one.get("name", "") for one in root.iter("testcase")]

    assert names <= {"testsuites", "testsuite", "properties", "property", "testcase", "failure", "error", "system-out"}
    assert any(shown(CLASSES[2]) in case for case in cases)


# HTML


class Page(HTMLParser):
    """Elements and attributes of a page, its addresses, and its texts by element."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[tuple[str, str]] = set()
        self.addresses: list[str] = []
        self.policies: list[str] = []
        self.styles: list[str] = []
        self.open: list[str] = []
        self.texts: dict[str, str] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        values = dict(attrs)
        self.attributes |= {(tag, name) for name in values}
        self.addresses += [values[name] or "" for name in ("src", "href") if name in values]
        self.styles += [values["style"] or ""] if "style" in values else []
        if values.get("http-equiv") == "Content-Security-Policy":
            self.policies.append(values["content"] or "")
        if tag not in {"meta", "img", "input", "wbr", "br"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts[self.open[-1] if self.open else ""] = self.texts.get(self.open[-1] if self.open else "", "") + data


_TAGS = {
    *("html", "head", "meta", "title", "style", "body", "header", "main", "nav", "section", "article", "details"),
    *(
        "summary",
        "h1",
        "h2",
        "h3",
        "h4",
        "p",
        "b",
        "i",
        "small",
        "span",
        "bdi",
        "wbr",
        "br",
        "div",
        "a",
        "ol",
        "li",
        "dl",
    ),
    *("dt", "dd", "table", "thead", "tbody", "tr", "th", "td", "figure", "figcaption", "img", "fieldset", "legend"),
    *("label", "input"),
}
_ATTRIBUTES = {
    *("class", "id", "style", "lang", "charset", "http-equiv", "content", "name", "scope", "role", "tabindex"),
    *("aria-label", "aria-labelledby", "href", "src", "alt", "width", "height", "loading", "decoding", "type"),
    "checked",
}


def test_a_page_has_no_element_attribute_or_address_but_its_own(world: World) -> None:
    assert [path.name for path in world.files(".html")] == ["failures.html"]
    for path in world.files(".html"):
        check_page(path.read_text(encoding="utf-8"), path.parent)


def check_page(document: str, folder: Path) -> Page:
    page = Page()
    page.feed(document)
    page.close()
    assert page.tags <= _TAGS
    assert {name for _, name in page.attributes} <= _ATTRIBUTES
    assert all(re.fullmatch(r"(--[a-z]+:[\d.]+;?|[a-z]+:[\d.]+%?;?)+", style) for style in page.styles), page.styles
    for address in page.addresses:
        assert re.match(r"data:image/(png|jpeg|webp);base64,|#[\w-]+$|\./[\w%./~-]+$", address), address[:200]
    assert page.texts["style"].count("{") == page.texts["style"].count("}") > 50
    return page


def test_the_policy_of_a_page_lets_nothing_in(world: World) -> None:
    for path in world.files(".html"):
        page = check_page(path.read_text(encoding="utf-8"), path.parent)
        (policy,) = page.policies
        rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))

        assert rules["default-src"] == "'none'"
        assert rules["img-src"] == "data:"
        assert rules["base-uri"] == rules["form-action"] == "'none'"
        assert not {"script-src", "connect-src", "object-src"} & set(rules)


def test_a_page_says_every_class_by_its_name(world: World) -> None:
    for path in world.files(".html"):
        page = check_page(path.read_text(encoding="utf-8"), path.parent)
        text = "".join(page.texts.values())
        assert not [label for label in CLASSES if shown(label) not in text]


@pytest.mark.skipif(shutil.which("chromium") is None, reason="there is no browser to ask")
def test_a_browser_sees_the_same_elements_and_runs_nothing(world: World, tmp_path: Path) -> None:
    options = (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={tmp_path}",
        "--virtual-time-budget=500",
    )
    for path in world.files(".html"):
        command = ["chromium", *options, "--dump-dom", path.as_uri()]
        document = subprocess.run(command, capture_output=True, check=True, timeout=120).stdout.decode()
        page = check_page(document, path.parent)
        assert "owned" not in page.texts["title"].partition("Failures")[0]
        assert page.texts["title"].startswith("Failures of ")


# LaTeX and Markdown


def test_the_tables_for_a_paper_hold_no_command_but_their_own(world: World) -> None:
    for path in world.files(".tex"):
        for line in path.read_text(encoding="utf-8").splitlines():
            if not line.startswith("%"):
                check_latex(line)


def check_latex(line: str) -> None:
    own = r"\\(begin|end)\{tabular\}(\{[lr]+\})?|\\(top|mid|bottom)rule"
    letters = r"|\\text(backslash|ascii(tilde|circum)|less|greater|bar)\{\}"
    rest = re.sub(own + letters + r"|\{\\symbol\{\d+\}\}|\{[][*]\}|[-',]\{\}|\\[{}$&#_%]|\\\\$|\$-[\d.]+\$", "", line)
    assert not re.search(r"[\\{}$#_%~^<>|\"`*]|\[|\]", rest), line
    assert rest.count("&") in (0, 1, 6), line


def test_markdown_shows_names_literally(world: World) -> None:
    texts = world.files(".md")
    assert {"report.md", "comparison.md", "summary.md"} <= {path.name for path in texts}
    for path in texts:
        for line in path.read_text(encoding="utf-8").splitlines():
            check_markdown(line)


def check_markdown(line: str) -> None:
    """No HTML, no link but to own files, no address, no mention; a row of a table has its cells."""
    literal = re.sub(r"\\[!-/:-@\[-`{-~]", "", line)
    loose = re.sub(r"!\[[\w -]+\]\([\w.]+\)|`[^`]*`", "", literal)  # without own pictures and own code
    assert not re.search(r"<|\]\(|\[|://|www\.|[@`$~{}]|(?<!^)(?<!^#)#(?=[\d#])", loose), line
    assert not line.lstrip("|- ").startswith("FORGED"), line


def test_the_summary_of_a_step_has_tables_of_even_rows(world: World) -> None:
    for path in world.files(".md"):
        width = 0
        for line in path.read_text(encoding="utf-8").splitlines():
            cells = re.sub(r"\\.", "", line).count("|") if line.startswith("|") else 0
            assert not width or not cells or cells == width, line
            width = cells


# Pictures


def test_no_name_is_typeset_as_mathematics_and_none_is_missing_in_a_legend(world: World) -> None:
    assert not [text for text in world.typeset if "frac" in text or "alpha" in text]
    assert [text for text in world.drawn if text.strip().startswith("_nolegend_: AUC")]
    assert any("$\\frac" in text for text in world.drawn)
    assert all(hidden(text) == set() for text in world.drawn)


# The script that recomputes


def test_the_script_beside_a_report_reads_the_names_and_prints_ascii(
    world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["reproduce.py", str(world.root / "out" / "evaluation")])

    code = reproduce.main()

    printed = capsys.readouterr()
    assert code == 0, printed.err
    assert printed.out.isascii()
    assert hidden(printed.out) == set()


@pytest.mark.parametrize("name", [*CLASSES, *GROUPS, *SITES, *FILES, "'=1", "''-"])
def test_the_guard_of_the_script_is_the_same(name: str) -> None:
    assert reproduce.unguarded(csv_cell(name)) == name
