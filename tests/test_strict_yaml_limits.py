"""Which plain scalars are what, how much a document may hold, and the lines that messages name."""

import math

import pytest

from evalcam_cli.errors import UsageError
from evalcam_cli.strict_yaml import Document, is_text, parse_yaml, scalar


@pytest.mark.parametrize(
    ("texts", "value"),
    [
        ("~ null Null NULL", None),
        ("true True TRUE", True),
        ("false False FALSE", False),
        (".inf .Inf .INF +.inf", math.inf),
        ("-.inf -.Inf -.INF", -math.inf),
        ("0 +0 -0", 0),
        ("7 +7", 7),
        ("100", 100),
        ("-30", -30),
        ("1. 1.0 1e0 10e-1 +1.0 .1E1 0.1e+1 01.0", 1.0),
        ("-2.5 -.25e1", -2.5),
    ],
)
def test_every_spelling_of_a_value_in_yaml_1_2_is_read(texts: str, value: object) -> None:
    for text in texts.split():
        assert (scalar(text), type(scalar(text))) == (value, type(value))
    assert scalar("") is None


@pytest.mark.parametrize("text", [".nan", ".NaN", ".NAN"])
def test_not_a_number_has_three_spellings(text: str) -> None:
    assert math.isnan(scalar(text))  # type: ignore[arg-type]


def test_all_else_is_text() -> None:
    texts = (
        "nULL none tRUE yes on off y no inf nan -.nan .iNF infinity 007 -010 00 +- - + . e5 .e5 1e 1e+ 1.2.3 ..5 --1"
    )

    for text in [*texts.split(), "0x1F", "0o17", "0b1", "1_000", "1,5", "12:30", "1 2", " 1", "\u0663"]:
        assert scalar(text) == text


@pytest.mark.parametrize("text", ["a: ''", 'a: ""', "a: ! ", "a: |\n"])
def test_an_empty_text_that_is_written_as_one_is_no_null(text: str) -> None:
    assert parse_yaml(text, "c").value == {"a": ""}


@pytest.mark.parametrize("text", ["a: '3'", 'a: "3"', "a: ! 3", "a: ! '3'", "a: |-\n  3", "a: >-\n  3"])
def test_what_is_quoted_in_any_way_is_text(text: str) -> None:
    assert parse_yaml(text, "c").value == {"a": "3"}


def test_an_empty_text_is_no_document() -> None:
    assert parse_yaml("", "c") == parse_yaml("# nothing\n", "c") == Document(None)
    assert parse_yaml("---\n", "c").value is None


@pytest.mark.parametrize("text", ["a: 1\nb: 2", "{a: 1, b: 2}", "# x\na: 1\nb: 2", "---\n'a': 1\nb: 2", ""])
def test_a_byte_order_mark_changes_nothing(text: str) -> None:
    """Some editors write one; YAML allows it."""
    assert parse_yaml(f"\ufeff{text}", "c") == parse_yaml(text, "c")


def test_a_key_is_text_whatever_it_looks_like_and_is_known_in_its_own_map_only() -> None:
    value = {"1": {"x": 1}, "~": {"x": 2}, "true": [{"x": 3}]}

    assert parse_yaml("1: {x: 1}\n~: {x: 2}\ntrue: [{x: 3}]", "c").value == value


def test_each_path_has_the_line_of_its_key_or_of_its_place_in_a_list() -> None:
    document = parse_yaml("a: 1\nb:\n  c:\n    - 2\n    - 3\n  d:\n    e:\n      4\nf: [5,\n  6]\n", "c")

    assert document.lines == {
        (): 1,
        ("a",): 1,
        ("b",): 2,
        ("b", "c"): 3,
        ("b", "c", 0): 4,
        ("b", "c", 1): 5,
        ("b", "d"): 6,
        ("b", "d", "e"): 7,
        ("f",): 9,
        ("f", 0): 9,
        ("f", 1): 10,
    }


def refusal(text: str) -> str:
    with pytest.raises(UsageError) as caught:
        parse_yaml(text, "c.yaml")
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a:\n  b: 1\n  b: 2", "line 3: the key 'b' is there twice (first on line 2)"),
        ("a: 1\nb: [1,\n  &x 2]", "line 3: anchors (&name) are not allowed; write the value out"),
        ("a: 1\nb: *x", "line 2: aliases (*name) are not allowed; write the value out"),
        ("a: 1\nb: !c 2", "line 2: tags (!c) are not allowed; a config is plain data"),
        ("a: 1\nb: !!map {}", "line 2: tags (tag:yaml.org,2002:map) are not allowed; a config is plain data"),
        ("a: 1\n<<: {b: 1}", "line 2: merge keys (<<) are not allowed; write the values out"),
        ("a: 1\n!!str b: 1", "line 2: a key must be a plain word"),
        ("a: 1\n! b: 1", "line 2: a key must be a plain word"),
        ("a: 1\n&x b: 1", "line 2: a key must be a plain word"),
        ("a: 1\n*x : 1", "line 2: a key must be a plain word"),
        ("a: 1\n? {b: 1}\n: 2", "line 2: a key must be a plain word"),
        ("a: 1\n--- b", "line 2: a second document begins here; one config is one document"),
        ("---\n...\n---\n", "line 3: a second document begins here; one config is one document"),
        ("a: 1\nb: [1, 2\n", "line 3: not valid YAML: expected ',' or ']', but got '<stream end>'"),
        ("a: @b", "line 1: not valid YAML: found character '@' that cannot start any token"),
        ("a: 1\n\tb: 1", "line 2: not valid YAML: found character '\\t' that cannot start any token"),
        ("\n\x01", "line 2: the character U+0001 is not allowed; remove it, or save as UTF-8"),
        ("\ufeff\n\n\x01", "line 3: the character U+0001 is not allowed; remove it, or save as UTF-8"),
        ("a: 1\nb: \ufffe\n", "line 2: the character U+FFFE is not allowed; remove it, or save as UTF-8"),
        ("\ud800", "line 1: the character U+D800 is not allowed; remove it, or save as UTF-8"),
        ('"\\UFFFFFFFF"', "line 1 or below: not valid YAML: a number or an escape that is too large"),
        ('a: 1\nb: "\\UFFFFFFFF"', "line 1 or below: not valid YAML: a number or an escape that is too large"),
        ('a: 1\nb: 2\nc: "\\UFFFFFFFF"', "line 2 or below: not valid YAML: a number or an escape that is too large"),
        ('a: 1\nb: "x\\udfff"', "line 2: half a character (x\\udfff)"),
    ],
)
def test_a_refusal_names_the_line_and_the_reason(text: str, message: str) -> None:
    assert refusal(text) == f"c.yaml, {message}"


def test_long_words_are_cut_in_messages() -> None:
    word = "w" * 5_000

    for text in (f"a: !{word} 1", f"{word}: 1\n{word}: 1", f"a: %{word}", f'a: "{word}\\ud800"'):
        assert len(refusal(text)) < 300


def test_a_million_characters_are_read_and_one_more_is_not() -> None:
    assert "U+0001" in refusal("\x01" + "#" * 999_999)  # it was read
    assert refusal("\x01" + "#" * 1_000_000) == "c.yaml has 1,000,001 characters; a config has at most 1,000,000"


def test_ten_thousand_values_are_read_and_one_more_is_not() -> None:
    text = "k: [\n" + "1,\n" * 9_998
    assert len(parse_yaml(text + "]", "c").lines) == 10_000  # with the map and the list

    assert refusal(text + "1]") == "c.yaml, line 10000: more than 10,000 values; that is no config"


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ("{a: ", "}"), ("[{a: ", "}]")])
def test_twenty_levels_are_read_and_one_more_is_not(opening: str, closing: str) -> None:
    levels = 20 // opening.count("[") if "{" not in opening else 20 // (1 + opening.count("["))
    parse_yaml(opening * levels + "1" + closing * levels, "c")

    assert refusal(f"[{opening * levels}1{closing * levels}]") == "c.yaml, line 1: nested more than 20 levels deep"


def test_whole_numbers_have_up_to_400_digits_and_texts_no_such_limit() -> None:
    assert parse_yaml("a: " + "9" * 400, "c").value == {"a": 10**400 - 1}
    assert parse_yaml("a: " + "x" * 401, "c").value == {"a": "x" * 401}
    assert parse_yaml("a: '" + "9" * 401 + "'", "c").value == {"a": "9" * 401}

    assert refusal("a: " + "9" * 401) == "c.yaml, line 1: a number of more than 400 digits"


def test_only_halves_of_surrogate_pairs_are_no_text() -> None:
    assert is_text("")
    assert is_text("a\ud7ff\ue000\U0001f63a")
    assert not any(is_text(f"a{half}") for half in ("\ud800", "\udbff", "\udc00", "\udfff"))
