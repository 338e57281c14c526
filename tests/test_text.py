"""Names from outside, made safe."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalcam_cli.text import counted, csv_cell, csv_text, did_you_mean, file_stem, listed, shown


@given(st.text())
def test_the_guard_of_a_csv_cell_can_be_undone(text: str) -> None:
    assert csv_text(csv_cell(text)) == text


@given(st.text(alphabet="'=+-@\t\r\na"))
def test_no_guarded_cell_starts_like_a_formula(text: str) -> None:
    assert csv_cell(text)[:1] not in ("=", "+", "-", "@", "\t", "\r", "\n")
    assert csv_text(csv_cell(text)) == text


@given(st.text())
def test_a_shown_text_has_no_control_character(text: str) -> None:
    assert (
        shown(text).isprintable()
        or shown(text) == ""
        or all(c == " " or not c.isspace() or c == "\xa0" or c > "\x7f" for c in shown(text))
    )
    assert "\x1b" not in shown(text)
    assert "\n" not in shown(text)


def test_letters_of_every_script_are_shown_as_they_are() -> None:
    assert shown("café 정상 猫😺") == "café 정상 猫😺"
    assert shown("a\x1b[2Jb\u202e\udcff") == "a\\x1b[2Jb\\u202e\\udcff"


@pytest.mark.parametrize(("name", "stem"), [("a b[c]", "a_b_c_"), ("정상-1", "정상-1"), ("../x", "___x"), ("", "_")])
def test_a_class_becomes_part_of_a_file_name(name: str, stem: str) -> None:
    assert file_stem(name) == stem


def test_the_nearest_spelling_is_offered_only_when_near() -> None:
    assert did_you_mean("glioma", ["glioma_tumor", "no_tumor"]) == "; did you mean 'glioma_tumor'?"
    assert did_you_mean("zzz", ["glioma"]) == ""


def test_lists_and_counts_read_as_sentences() -> None:
    assert listed(["a", "b"]) == "a, b"
    assert listed("abcde") == "a, b, c and 2 more"
    assert counted(1, "image") == "1 image"
    assert counted(2870, "image") == "2,870 images"
    assert counted(2, "class") == "2 classes"
