"""CSV files from outside, read strictly: every row counted, none swallowed, none guessed."""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from evalcam_cli.errors import DataError, UsageError
from evalcam_cli.inputs import read_bytes
from evalcam_cli.text import did_you_mean, listed, shown

MAX_BYTES = 1_000_000_000
MAX_COLUMNS = 1_000
_DELIMITERS = ",;\t"


@dataclass(frozen=True)
class Table:
    """Header and rows of a CSV file, all cells text exactly as written."""

    place: str
    """Absolute path of the file, for messages."""
    columns: tuple[str, ...]
    rows: tuple[tuple[int, tuple[str, ...]], ...]
    """(row number, cells); the header is row 1, as a spreadsheet counts."""

    def fault(self, row: int, message: str) -> DataError:
        """The error that names a row."""
        return DataError(f"{self.place}, row {row}: {message}")

    def column(self, name: str) -> Iterator[str]:
        """The cells of a column, empty ones when there is none of that name."""
        if name not in self.columns:
            return ("" for _ in self.rows)
        index = self.columns.index(name)
        return (cells[index] for _, cells in self.rows)


def read_table(path: Path, required: Sequence[str], *, errors: str = "strict") -> Table:
    """A CSV table with these columns among others; delimited by `,`, `;` or tab, whichever gives the header sense.

    Args:
        path: A UTF-8 file, with or without byte order mark, lines ended by LF or CRLF; UTF-16 only with its mark.
        required: Columns that must be there.
        errors: How bytes that are not UTF-8 are read: `strict` refuses, `surrogateescape` keeps them.

    Raises:
        UsageError: The file cannot be opened.
        DataError: It is not such a table; the message names the row.
    """
    place = shown(path.absolute())
    text = _text(path, place, errors)
    rows = _rows(text, _delimiter(text, required, place), place)
    number, columns = next(rows)
    if len(columns) > MAX_COLUMNS:
        raise DataError(f"{place} has {len(columns):,} columns; a list of images has at most {MAX_COLUMNS:,}")
    repeated = {name for name in columns if columns.count(name) > 1}
    if repeated:
        raise DataError(
            f"{place}, row {number}: the column {listed(sorted(repeated))[:300]} stands twice in the header"
        )
    return Table(place, columns, tuple(_even(rows, len(columns), place)))


def _text(path: Path, place: str, errors: str) -> str:
    try:
        data = read_bytes(path, MAX_BYTES)
    except OSError as error:
        raise UsageError(f"cannot read {place}: {error.strerror}") from error
    if len(data) > MAX_BYTES:
        raise DataError(f"{place} is larger than {MAX_BYTES:,} bytes; that is no list of images")
    wide = data.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        return data.decode("utf-16") if wide else data.decode("utf-8-sig", errors)
    except UnicodeDecodeError as error:
        row = data.count(b"\n", 0, error.start) + 1
        name = "UTF-16" if wide else "UTF-8"
        raise DataError(f"{place}, row {row}: byte {error.start} is not {name} text; save the file as UTF-8") from error


def _delimiter(text: str, required: Sequence[str], place: str) -> str:
    first = re.match(r"[^\r\n]*", text)[0]  # type: ignore[index]
    if not first.strip() or "\0" in first:
        raise DataError(f"{place} has no header; its first row must name the columns {', '.join(required)}")
    if len(first) > csv.field_size_limit():
        raise DataError(f"{place}, row 1: a header of {len(first):,} characters; that is no list of images")
    headers = {delimiter: next(csv.reader([first], delimiter=delimiter), []) for delimiter in _DELIMITERS}
    for delimiter, names in headers.items():
        if set(required) <= set(names):
            return delimiter
    names = max(headers.values(), key=len)
    missing = [name for name in required if name not in names]
    raise DataError(
        f"{place} has no column {listed(map(repr, missing))} in its header ({listed(names, 8)[:300]})"
        + did_you_mean(missing[0], names)
    )


def _rows(text: str, delimiter: str, place: str) -> Iterator[tuple[int, tuple[str, ...]]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    number = 0
    while True:
        number += 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(f"{place}, row {number}: {error}; are its quotes closed?") from error
        if cells:  # blank lines are counted but hold nothing
            yield number, tuple(cells)


def _even(rows: Iterator[tuple[int, tuple[str, ...]]], width: int, place: str) -> Iterator[tuple[int, tuple[str, ...]]]:
    for number, cells in rows:
        if len(cells) != width:
            raise DataError(f"{place}, row {number}: {len(cells)} cells, but the header has {width}")
        yield number, cells
