"""Names from outside, made safe."""

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalcam_cli.text import (
    counted,
    csv_cell,
    csv_text,
    did_you_mean,
    file_path,
    file_stem,
    json_escaped,
    listed,
    shown,
    shown_lines,
)


@given(st.text())
def test_the_guard_of_a_csv_cell_can_be_undone(text: str) -> None:
    assert csv_text(csv_cell(text)) == text


@given(st.text(alphabet="'=+-@\t\r\na"))
def test_no_guarded_cell_starts_like_a_formula(text: str) -> None:
    assert csv_cell(text)[:1] not in ("=", "+", "-", "@", "\t", "\r", "\n")
    assert csv_text(csv_cell(text)) == text


@pytest.mark.parametrize("first", ["=", "+", "-", "@", "\t", "\r", "\n"])
def test_whatever_begins_a_formula_is_guarded(first: str) -> None:
    assert csv_cell(f"{first}1") == f"'{first}1"
    assert csv_cell(f"''{first}1") == f"'''{first}1"
    assert csv_text(f"'{first}1") == f"{first}1"


@pytest.mark.parametrize("text", ["", "a=1", "'a", "'", "''", " =1"])
def test_another_text_stays_as_it_is(text: str) -> None:
    assert csv_cell(text) == text
    assert csv_text(text) == text


@given(st.text())
def test_what_is_not_seen_is_escaped_and_all_else_stays(text: str) -> None:
    pieces = [ascii(one)[1:-1] if unicodedata.category(one)[0] == "C" or one in "\u2028\u2029" else one for one in text]

    assert shown(text) == "".join(pieces)
    assert shown(shown(text)) == shown(text)


def test_letters_of_every_script_are_shown_as_they_are() -> None:
    assert shown("café 정상 猫😺") == "café 정상 猫😺"
    assert shown("a\x1b[2Jb\u202e\udcff\n\u2028") == "a\\x1b[2Jb\\u202e\\udcff\\n\\u2028"
    assert shown(3) == "3"


def test_lines_stay_lines() -> None:
    assert shown_lines("a\x1b\nb\r\n") == "a\\x1b\nb\\r\n"


@given(st.recursive(st.text() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_a_json_document_says_the_same_with_nothing_hidden(value: object) -> None:
    document = json_escaped(json.dumps(value, ensure_ascii=False))

    assert json.loads(document) == value
    assert shown(document) == document
    document.encode()


def test_letters_stay_in_a_json_document_and_what_is_beyond_16_bits_is_two_escapes() -> None:
    assert json_escaped('"정상 ~ 😺\x7f\x9b\U000e0001\n"') == '"정상 ~ 😺\\u007f\\u009b\\udb40\\udc01\n"'


@pytest.mark.parametrize(
    ("name", "stem"),
    [("a b[c]", "a_b_c_"), ("정상-1_é", "정상-1_é"), ("../x", "___x"), ("", "_"), ("n" * 90, "n" * 80)],
)
def test_a_class_becomes_part_of_a_file_name(name: str, stem: str) -> None:
    assert file_stem(name) == stem


def test_a_path_of_a_file_to_write_keeps_all_that_is_seen() -> None:
    assert file_path("정상 [1]/a\x1b[2J\n\u202eb\udcff.png") == "정상 [1]/a_[2J__b_.png"


def test_the_nearest_spelling_is_offered_only_when_near() -> None:
    assert did_you_mean("glioma", ["glioma_tumor", "no_tumor"]) == "; did you mean 'glioma_tumor'?"
    assert did_you_mean("zzz", ["glioma"]) == ""
    assert did_you_mean("abcd", ["abxy"]) == ""
    assert did_you_mean("abcde", ["abcxy", "abxyz"]) == "; did you mean 'abcxy'?"
    assert did_you_mean("ca\x1b", ["cat\x1b"]) == "; did you mean 'cat\\x1b'?"


def test_lists_and_counts_read_as_sentences() -> None:
    assert listed(["a", "b"]) == "a, b"
    assert listed("abcde") == "a, b, c and 2 more"
    assert listed(["a\n", "b", "c"]) == "a\\n, b, c"
    assert listed(iter("abc"), 2) == "a, b and 1 more"
    assert listed([]) == ""
    assert counted(1, "image") == "1 image"
    assert counted(0, "image") == "0 images"
    assert counted(2870, "image") == "2,870 images"
    assert counted(2, "class") == "2 classes"
    assert counted(3, "box") == "3 boxes"
    assert counted(3, "entry") == "3 entries"
    assert counted(3, "day") == "3 days"
    assert counted(3, "array") == "3 arrays"
