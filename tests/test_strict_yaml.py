"""YAML as plain data."""

import math
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from evalcam_cli.errors import UsageError
from evalcam_cli.strict_yaml import parse_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),  # a string for PyYAML's own loader
        ("-2.5E+2", -250.0),
        (".5", 0.5),
        ("12", 12),
        ("-0", 0),
        ("no", "no"),  # False in YAML 1.1
        ("010", "010"),  # 8 in YAML 1.1, 10 in 1.2: text, so that a number field refuses it
        ("1:30", "1:30"),  # 90 in YAML 1.1
        ("1_000", "1_000"),
        ("0x10", "0x10"),
        ("true", True),
        ("'12'", "12"),
        ("~", None),
        ("2026-11-23", "2026-11-23"),
    ],
)
def test_a_plain_scalar_is_read_as_yaml_1_2_does(text: str, value: object) -> None:
    assert parse_yaml(f"key: {text}", "c").value == {"key": value}


def test_infinity_and_not_a_number_are_floats() -> None:
    value = parse_yaml("[.inf, -.inf, .nan]", "c").value

    assert isinstance(value, list)
    assert value[:2] == [math.inf, -math.inf]
    assert isinstance(value[2], float)
    assert math.isnan(value[2])


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: 1\nb: 2\na: 3", "line 3: the key 'a' is there twice .first on line 1."),
        ("a: !!python/object/apply:os.system [ls]", "line 1: tags"),
        ("a: !!str 3", "line 1: tags"),
        ("a: &x 3", "line 1: anchors"),
        ("a: *x", "line 1: aliases"),
        ("a: {<<: {b: 1}}", "merge keys"),
        ("---\na: 1\n---\nb: 2", "line 3: a second document"),
        ("a: [1, 2", "line 1: not valid YAML"),
        ("a: \x01", r"line 1: the character U\+0001 is not allowed"),
        ("a: 1\nb: \ufffe", r"line 2: the character U\+FFFE"),
        ('a: "\\ud800"', "line 1: half a character"),
        ('"\\ud800": 1', "line 1: half a character"),
        ('a: "\\UFFFFFFFF"', "line 1 or below: .* too large"),
        ("%YAML 1." + "9" * 5000 + "\n---\na: 1", "too large"),
        ("[" + "1," * 10_001 + "]", "line 1: more than 10,000 values"),
        ("[" * 900, "nested"),
        ("a: " + "9" * 5000, "more than 400 digits"),
        ("? [a]\n: 3", "a key must be a plain word"),
        ("x" * 1_000_001, "at most 1,000,000"),
    ],
)
def test_anything_but_plain_data_is_refused_with_its_line(text: str, problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        parse_yaml(text, "c.yaml")


def test_every_key_knows_its_line() -> None:
    document = parse_yaml("a: 1\nb:\n  c:\n    - 2\n    - 3\n", "c")

    assert document.lines[("a",)] == 1
    assert document.lines[("b", "c")] == 3
    assert document.lines[("b", "c", 1)] == 5


def outcome(text: str) -> object:
    """The value that is read, or the refusal."""
    try:
        return parse_yaml(text, "c").value
    except UsageError as error:
        return error


words = st.text(st.characters(exclude_categories=("C", "Z")), max_size=8)  # PyYAML itself loses some line breaks
json_like = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.floats(allow_nan=False) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=12,
)


@given(json_like)
def test_what_pyyaml_writes_is_read_back(value: object) -> None:
    text = yaml.safe_dump(value, allow_unicode=True)

    # PyYAML writes `<<` as a key, equal lists as aliases, and texts like `=` with a tag: refused, never misread
    refusals = ("merge", "alias", "anchor", "tag")
    read = outcome(text)
    assert read == value or (isinstance(read, UsageError) and any(word in str(read) for word in refusals))


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused_in_a_few_lines(text: str) -> None:
    refusal = str(outcome(text)) if isinstance(outcome(text), UsageError) else ""
    assert len(refusal) < 1000
    assert refusal.count("\n") < 3


@pytest.mark.parametrize(
    "text",
    [
        '!!python/object/apply:os.system ["touch {canary}"]',
        "!!python/object/new:os.system [touch {canary}]",
        '!<tag:yaml.org,2002:python/object/apply:os.system> ["touch {canary}"]',
        '%TAG !p! tag:yaml.org,2002:python/\n---\n!p!object/apply:os.system ["touch {canary}"]',
        'a: {{? !!python/object/apply:os.system ["touch {canary}"] : 1}}',
    ],
)
def test_what_makes_another_reader_run_code_is_refused_unread(tmp_path: Path, text: str) -> None:
    canary = tmp_path / "canary"
    text = text.format(canary=canary)

    with pytest.raises(UsageError, match=r"tags|plain word"):
        parse_yaml(text, "c.yaml")
    assert not canary.exists()

    yaml.unsafe_load(text)  # the control: it does run
    assert canary.exists()
