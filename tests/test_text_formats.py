"""Config, split, manifest: of any bytes a checked value or one kind of refusal; what is written is read back."""

import unicodedata
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evalcam_cli.config import RunConfig, config_keys
from evalcam_cli.config_sources import load_config
from evalcam_cli.data.disk import inside, nfc
from evalcam_cli.data.manifest import read_manifest
from evalcam_cli.data.samples import Sample, Split, sorted_classes
from evalcam_cli.data.split_file import read_split, write_split
from evalcam_cli.documents import yaml_text
from evalcam_cli.errors import DataError, UsageError
from evalcam_cli.strict_yaml import is_text, parse_yaml
from tests.conftest import draw_classes

MAX_BYTES = 4_000
_per_example = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)

# any text that a file name or a UTF-8 file can hold: bytes that are not UTF-8 come as U+DC80 to U+DCFF
names = st.text(
    st.characters(exclude_categories=["Cs"]) | st.characters(min_codepoint=0xDC80, max_codepoint=0xDCFF), max_size=8
)
awkward = st.sampled_from(
    ["", " ", "'", "''=", "=1+1", "@a", "\t", "\r", "\n", "\r\n", "\0", '"', ",", ";", "\u2028", "\ufeff", "e\u0301",
     "..", "/etc/passwd", "cat/000.png", "cat/001.png", "dog/000.png", "cat", "train", "test", "Val", "path",
     "label", "0", "-1"]
)  # fmt: skip
cells = awkward | names

column_names = names.filter(lambda name: "\0" not in name)


def refused(read: Callable[[], object], *, expected: type[Exception]) -> str:
    """The refusal, of the one kind that is allowed and fit to be printed; empty when the text is read."""
    try:
        read()
    except expected as error:
        message = str(error)
        assert len(message.encode("utf-8")) <= MAX_BYTES
        assert not any(unicodedata.category(one)[0] == "C" for one in message if one != "\n"), message
        return message
    return ""


def test_any_bytes_are_a_config_or_one_refusal(tmp_path: Path) -> None:
    @_per_example
    @given(st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass")))
    def holds(content: bytes) -> None:
        (tmp_path / "c.yaml").write_bytes(content)

        message = refused(lambda: load_config(tmp_path / "c.yaml"), expected=UsageError)

        assert not message or "line" in message or "expected a map of sections" in message

    holds()


values = st.sampled_from(
    ["1", "-1", "0", ".nan", ".inf", "1e-3", "true", "no", "~", "''", "[1, 2]", "{a: b}", "[[]]", "&a 1", "*a",
     "!!str 1", "resnet18", "'\\ud800'", '"\\ud800"', "[0.5, 0.25, 0.25]", "{train.lr: [1, 2]}", "9" * 401,
     "\x1b[31m", "- a"]
)  # fmt: skip
keys = st.sampled_from([*config_keys(), "train.lr.x", "lr", "<<", "trian.lr", "", "__class__", "\u202etrain", "? a"])


def test_any_keys_with_any_values_are_a_config_or_one_refusal(tmp_path: Path) -> None:
    @_per_example
    @given(st.lists(st.tuples(keys, values), min_size=1, max_size=4))
    def holds(pairs: list[tuple[str, str]]) -> None:
        (tmp_path / "c.yaml").write_text("\n".join(map(nested, *zip(*pairs, strict=True))), encoding="utf-8")
        read: list[RunConfig] = []
        message = refused(lambda: read.append(load_config(tmp_path / "c.yaml")), expected=UsageError)

        assert (
            read or "line" in message or "train." in message or "model." in message
        )  # of two keys, no one line is at fault

    holds()


def test_any_texts_in_a_config_are_read_back() -> None:
    """Also those that PyYAML writes as what YAML 1.2 reads as a number, such as `1e-3`."""
    texts = cells.filter(is_text) | values | st.from_regex(r"[-+]?[0-9.]{1,4}([eE][-+]?[0-9]{1,2})?", fullmatch=True)

    @_per_example
    @given(st.dictionaries(st.sampled_from(["a", "b"]), texts | st.lists(texts) | st.floats(allow_nan=False)))
    def holds(value: dict[str, object]) -> None:
        assert parse_yaml(yaml_text({"k": value}), "c").value == {"k": value}

    holds()


def nested(key: str, value: str) -> str:
    """`train: {lr: value}` for `train.lr`."""
    *sections, name = key.split(".")
    for section in reversed(sections):
        name, value = section, f"{{{name}: {value}}}"
    return f"{name}: {value}"


def test_any_rows_are_a_split_or_one_refusal(tmp_path: Path) -> None:
    root = draw_classes(tmp_path / "data", {"cat": 2, "dog": 2})

    @_per_example
    @given(rows_of(6))
    def holds(content: bytes) -> None:
        (tmp_path / "s.csv").write_bytes(b"path,label,set,group,fold,sha256\n" + content)

        message = refused(lambda: read_split(tmp_path / "s.csv", root=root), expected=DataError)

        assert not message or "row" in message or "lists no images" in message or "no images in fold" in message

    holds()


def test_any_rows_are_a_manifest_or_one_refusal(tmp_path: Path) -> None:
    root = draw_classes(tmp_path / "data", {"cat": 2, "dog": 2})

    @_per_example
    @given(rows_of(4))
    def holds(content: bytes) -> None:
        (root / "m.csv").write_bytes(b"path,label,set,site\n" + content)

        message = refused(lambda: read_manifest(root / "m.csv"), expected=DataError)

        assert not message or "row" in message

    holds()


def rows_of(width: int) -> st.SearchStrategy[bytes]:
    """Lines of a CSV file with mostly so many cells, quoted or not, and at times any bytes."""
    quoted = cells.map(lambda cell: '"' + cell.replace('"', '""') + '"')
    row = st.lists(cells | quoted, min_size=width, max_size=width) | st.lists(cells, max_size=width + 1)
    text = st.lists(row.map(",".join), max_size=4).map("\n".join)
    return text.map(lambda lines: lines.encode("utf-8", "surrogateescape")) | st.binary(max_size=60)


paths = st.lists(names.filter(lambda name: name and "/" not in name), min_size=1, max_size=3).map("/".join)
samples = st.builds(
    Sample,
    path=paths.filter(lambda path: inside(path) == path),
    label=cells.filter(bool),
    set=st.sampled_from(["train", "val", "test"]),
    group=cells,
    sha256=st.sampled_from(["", "0" * 64]),
    extra=st.tuples(cells, cells),
)


def test_a_split_with_any_texts_is_read_back_to_itself(tmp_path: Path) -> None:
    @_per_example
    @given(st.lists(samples, min_size=1, max_size=4, unique_by=lambda sample: sample.path), column_names)
    def holds(rows: list[Sample], column: str) -> None:
        ordered = tuple(sorted(rows, key=lambda sample: (nfc(sample.path), sample.path)))
        split = Split(
            tmp_path, ordered, sorted_classes(ordered), ratios=(0.5, 0.25, 0.25), extra_columns=(f"a{column}", "=b")
        )
        write_split(split, tmp_path / "s.csv")

        read, edited = read_split(tmp_path / "s.csv")

        assert not edited
        assert replace(read, source=split.source) == split

    holds()


@pytest.mark.parametrize("path", ["a/../b", "./a", "a//b", "/a", "..", "a\0"])
def test_the_paths_left_out_above_are_those_that_are_not_kept_as_they_stand(path: str) -> None:
    assert inside(path) != path
