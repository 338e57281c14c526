"""Markdown that shows whatever a name holds, and nothing more."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalcam_cli.report.markup import escaped, table
from evalcam_cli.text import shown


@pytest.mark.parametrize(
    ("text", "literal"),
    [
        ("a_b *c* `d` ~e~", r"a\_b \*c\* \`d\` \~e\~"),
        ("[x](y)", r"\[x\](y)"),
        ("<b>&amp;", "&lt;b&gt;&amp;amp;"),
        ("a|b\\c", r"a\|b\\c"),
        ("$x$ {{7*7}}", r"\$x\$ \{\{7\*7\}\}"),
        ("https://a.example", r"https\://a.example"),
        ("WWW.a.example 0.5", r"WWW\.a.example 0.5"),
        ("one: two", "one: two"),
        ("me@a.example #1", r"me\@a.example \#1"),
        ("\"quoted\" 'too'", "\"quoted\" 'too'"),
        ("line\nbreak\x1b", r"line\\nbreak\\x1b"),
        (3, "3"),
    ],
)
def test_a_text_is_shown_literally(text: object, literal: str) -> None:
    assert escaped(text) == literal


@given(st.text())
def test_without_its_backslashes_and_entities_it_is_the_text_again(text: str) -> None:
    plain = escaped(text).replace("\\\\", "\0")
    for mark in "`*_[]|~$@#{}:.":
        plain = plain.replace("\\" + mark, mark)

    assert plain.replace("\0", "\\").replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&") == shown(text)


def test_a_long_text_is_cut_with_an_ellipsis_before_it_is_escaped() -> None:
    assert escaped("abc", 3) == "abc"
    assert escaped("abcd", 3) == "ab…"
    assert escaped("__________", 4) == r"\_\_\_…"
    assert escaped("\x1bbcd", 5) == r"\\x1b…"


def test_every_cell_of_a_table_is_literal() -> None:
    assert list(table(("a|b", "c"), [("1", "|"), ("<", "")])) == [
        r"| a\|b | c |",
        "| --- | --- |",
        r"| 1 | \| |",
        "| &lt; |  |",
    ]
