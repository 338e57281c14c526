"""Tables and documents as texts."""

import csv
import io
from pathlib import Path

import pytest

from evalcam_cli.documents import csv_bytes, csv_pieces, json_text, read_csv, read_json, write_csv, yaml_text
from evalcam_cli.errors import UsageError
from evalcam_cli.strict_yaml import parse_yaml


def test_a_table_reads_back_as_it_was(tmp_path: Path) -> None:
    rows = [["=1+1", '정상, "x"'], ["'-quoted", "line\nbreak"], ["bad\udcff", ""], ["a\rb", "\r"], ["\r\n", " x "]]
    write_csv(tmp_path / "t.csv", ["a", "b"], rows)

    assert read_csv(tmp_path / "t.csv") == (["a", "b"], rows)


def test_numbers_are_written_in_full_and_nothing_as_an_empty_cell() -> None:
    assert csv_bytes(["x"], [[0.1 + 0.2], [None], [-3]]) == b"x\n0.30000000000000004\n\n-3\n".replace(
        b"\n\n", b'\n""\n'
    )


def test_a_long_table_comes_in_pieces_that_are_together_what_the_library_reads() -> None:
    rows = [[f"image-{number}.png", f"{number}"] for number in range(1_201)]
    rows[700] = ["a\rb.png", "x"]
    pieces = list(csv_pieces(iter(rows)))

    text = b"".join(pieces).decode()
    assert len(pieces) == 3
    assert list(csv.reader(io.StringIO(text, newline=""))) == rows
    assert '\n"a\rb.png","x"\nimage-701.png,701\n' in text  # only the row that must be is quoted


def test_five_hundred_rows_are_a_piece() -> None:
    assert [len(list(csv_pieces([["x"]] * rows))) for rows in (499, 500, 501)] == [1, 1, 2]


def test_only_rows_with_a_return_are_quoted_whatever_else_they_hold() -> None:
    assert csv_bytes(["a", "b", "c"], [[1, "\r", None], [2, "x", 0.5]]) == b'a,b,c\n"1","\'\r",""\n2,x,0.5\n'


def test_no_rows_are_an_empty_table(tmp_path: Path) -> None:
    assert b"".join(csv_pieces([])) == b""
    assert csv_bytes(["a", "b"], []) == b"a,b\n"
    (tmp_path / "t.csv").write_bytes(b"")
    assert read_csv(tmp_path / "t.csv") == ([], [])


def test_json_keeps_the_order_of_keys_and_refuses_what_json_has_not() -> None:
    assert json_text({"b": 1, "a": "é\x1b"}) == '{\n "b": 1,\n "a": "é\\u001b"\n}\n'
    with pytest.raises(ValueError, match="not JSON compliant"):
        json_text({"x": float("nan")})


def test_yaml_keeps_the_order_of_keys_and_reads_back_without_aliases() -> None:
    shared = [1, "1e-3"]
    value = {"b": shared, "a": shared, "word": "정상", "text": "no", "sign": "=", "merge": "<<", "=": "", "no": "~"}
    text = yaml_text(value)

    assert text.index("b:") < text.index("a:") < text.index("word:")
    assert parse_yaml(text, source="it").value == value
    assert "정상" in text
    assert "&" not in text


def test_hidden_characters_in_yaml_are_escaped() -> None:
    value = {"name": "정상\u202e", "a": "1e-3", "list": [same := ["=", "true"], same]}
    text = yaml_text(value)

    assert text.isascii()
    assert text.startswith("name:")
    assert parse_yaml(text, source="it").value == value


def test_a_json_file_is_read_with_and_without_a_mark_and_refused_when_it_is_none(tmp_path: Path) -> None:
    file = tmp_path / "facts.json"
    for start in (b"", b"\xef\xbb\xbf"):
        file.write_bytes(start + b'{"a": 1}')
        assert read_json(file) == {"a": 1}
    file.write_bytes(b'{"a": "\xff"}')
    assert read_json(file) == {"a": "\udcff"}
    file.write_text("[" * 100_000)
    with pytest.raises(ValueError, match="nested too deeply"):
        read_json(file)
    with pytest.raises(UsageError, match="cannot read"):
        read_json(tmp_path / "absent.json")


class Claiming(bytes):
    """A few bytes that say that they are many."""

    size: int

    def __len__(self) -> int:
        return self.size


def test_a_json_file_has_up_to_two_hundred_million_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = Claiming(b"{}")
    monkeypatch.setattr("evalcam_cli.documents.read_bytes", lambda path, limit: content)

    content.size = 200_000_000
    assert read_json(tmp_path / "large.json") == {}
    content.size = 200_000_001
    with pytest.raises(ValueError, match="it has more than 200,000,000 bytes"):
        read_json(tmp_path / "large.json")
