import logging
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from evalcam_cli.data import tables
from evalcam_cli.data.manifest import read_manifest
from evalcam_cli.data.samples import Sample, Split
from evalcam_cli.data.split_file import fingerprint, read_split, split_bytes, write_split
from evalcam_cli.data.tables import Table, read_table
from evalcam_cli.errors import DataError


def table(tmp_path: Path, content: bytes, *, errors: str = "strict") -> Table:
    (tmp_path / "t.csv").write_bytes(content)
    return read_table(tmp_path / "t.csv", ("path", "label"), errors=errors)


def fails(tmp_path: Path, content: bytes) -> str:
    with pytest.raises(DataError) as caught:
        list(table(tmp_path, content).rows)
    return str(caught.value)


def small_pieces(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(tables, "_PIECE", size)


@pytest.mark.parametrize("size", [4, 5, 7, 1000])
@pytest.mark.parametrize(
    "content",
    [
        "path,label\na.png,é\nb.png,😀\n".encode(),
        "\ufeffpath;label\r\na.png;é\r\nb.png;😀".encode(),
        "path\tlabel\ra.png\té\rb.png\t😀\r".encode(),
        "path,label\na.png,é\nb.png,😀\n".encode("utf-16"),
    ],
)
def test_it_is_the_same_in_pieces_of_any_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, size: int
) -> None:
    small_pieces(monkeypatch, size)

    assert list(table(tmp_path, content).cells("label", "path", "set")) == [
        (2, ["é", "a.png", ""]),
        (3, ["😀", "b.png", ""]),
    ]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"path,label\na;b.png,x\n", []),
        (b"path;label\na.png;x\n", ["semicolons"]),
        ("path\tlabel\na.png\tx\n".encode("utf-16"), ["UTF-16", "tabs"]),
    ],
)
def test_what_was_guessed_of_a_table_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes, said: list[str]
) -> None:
    with caplog.at_level(logging.WARNING, "evalcam"):
        table(tmp_path, content)

    assert [record.levelname for record in caplog.records] == ["WARNING"] * len(said)
    assert all(word in record.message for word, record in zip(said, caplog.records, strict=True))


@pytest.mark.parametrize("size", [1, 2, 5, 1000])
def test_a_quoted_line_break_and_blank_lines_are_counted_as_a_spreadsheet_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    small_pieces(monkeypatch, size)
    read = table(tmp_path, b'path,label\n"a\r\nb.png",x\n\nc.png,y\n')

    assert [(number, list(cells)) for number, cells in read.rows] == [(2, ["a\r\nb.png", "x"]), (4, ["c.png", "y"])]


@pytest.mark.parametrize("size", [4, 5, 10, 1000])
def test_a_byte_that_is_no_text_is_named_wherever_a_piece_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    small_pieces(monkeypatch, size)
    content = "\ufeffpath,label\nä.png,x\nb.png,".encode() + b"\xe9\n"

    assert f"row 3: byte {len(content) - 2} is not UTF-8" in fails(tmp_path, content)
    assert "row 2: byte 17 is not UTF-8" in fails(tmp_path, b"path,label\na.png,\xc3")  # cut off


def test_bytes_that_are_no_text_are_kept_where_they_may_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_pieces(monkeypatch, 1)
    read = table(tmp_path, b"path,label\n\xe9\xc3.png,x\n", errors="surrogateescape")

    assert list(read.cells("path", "label")) == [(2, ["\udce9\udcc3.png", "x"])]


def test_an_endless_line_is_refused_before_it_fills_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MAX_LINE", 1000)
    small_pieces(monkeypatch, 100)

    assert "more than 1,000 characters" in fails(tmp_path, b"path,label\na.png," + b"x" * 5000)


def test_a_file_that_is_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MAX_BYTES", 20)

    assert "larger than 20 bytes" in fails(tmp_path, b"path,label\n" + b"a.png,x\n" * 5)


# ---- a million rows


def peak_of(work: Callable[[], object]) -> int:
    """Bytes of Python objects at the peak, the result included."""
    tracemalloc.start()
    try:
        kept = work()
        return tracemalloc.get_traced_memory()[1] + 0 * (kept is None)
    finally:
        tracemalloc.stop()


def links(folder: Path, count: int) -> Path:
    """A manifest of so many names of one file."""
    (folder / "a").mkdir(parents=True)
    (folder / "a/image-000000.png").write_bytes(b"x")
    for number in range(1, count):
        os.link(folder / "a/image-000000.png", folder / f"a/image-{number:06}.png")
    rows = "".join(f"a/image-{number:06}.png,a,patient {number // 10}\n" for number in range(count))
    (folder / "list.csv").write_text("path,label,group\n" + rows)
    return folder / "list.csv"


def slope(few: Path, many: Path, work: Callable[[Path], object], more: int) -> float:
    work(few)  # what is loaded at the first time is no part of it
    return (peak_of(lambda: work(many)) - peak_of(lambda: work(few))) / more


def test_a_row_of_a_manifest_takes_little_memory(tmp_path: Path) -> None:
    few, many = links(tmp_path / "few", 500), links(tmp_path / "many", 4500)

    assert slope(few, many, read_manifest, 4000) < 600  # bytes


def test_a_row_of_a_split_takes_little_memory(tmp_path: Path) -> None:
    def written(count: int) -> Path:
        samples = tuple(
            Sample(f"a/image-{number:06}.png", "a", "test", f"patient {number // 10}", sha256=f"{number:064x}")
            for number in range(count)
        )
        folder = tmp_path / str(count)
        folder.mkdir()
        write_split(Split(folder, samples, ("a",), ratios=(0.0, 0.0, 1.0)), folder / "split.csv")
        return folder / "split.csv"

    few, many = written(500), written(4500)

    assert slope(few, many, read_split, 4000) < 700
    assert slope(few, many, lambda path: fingerprint(read_split(path)[0].samples), 4000) < 700


def test_a_split_is_written_in_pieces_as_it_is_whole(tmp_path: Path) -> None:
    samples = tuple(
        Sample(f"{number:05}.png", "ab"[number % 2], "train", extra=(f"=é{number}",)) for number in range(5000)
    )
    split = Split(tmp_path, samples, ("a", "b"), extra_columns=("x",))

    write_split(split, tmp_path / "split.csv")

    assert (tmp_path / "split.csv").read_bytes() == split_bytes(split)[0]
    assert read_split(tmp_path / "split.csv") == (split, False)
