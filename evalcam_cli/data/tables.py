"""CSV files from outside, read strictly and row by row: every row counted, none swallowed, none guessed."""

import codecs
import csv
import io
import itertools
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

from evalcam_cli.errors import DataError, UsageError
from evalcam_cli.inputs import opened
from evalcam_cli.text import did_you_mean, listed, shown

MAX_BYTES = 1_000_000_000
MAX_COLUMNS = 1_000
MAX_LINE = 1_000_000
"""Characters."""
_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs"}
_PIECE = 1 << 18  # bytes read at a time

_log = logging.getLogger("evalcam")

Rows = Iterator[tuple[int, Sequence[str]]]


@dataclass(frozen=True)
class Table:
    """Header and rows of a CSV file, all cells text exactly as written."""

    place: str
    """Absolute path of the file, for messages."""
    columns: tuple[str, ...]
    rows: Rows
    """(row number, cells), read from the file as they are asked for, once; the header is row 1, as a spreadsheet
    counts. What is wrong with the file further down is raised when it is reached."""

    def fault(self, row: int, message: str) -> DataError:
        """The error that names a row."""
        return DataError(f"{self.place}, row {row}: {message}")

    def cells(self, *names: str) -> Iterator[tuple[int, list[str]]]:
        """Of each row the number and the cells of these columns, empty ones where there is no column of a name."""
        places = [self.columns.index(name) if name in self.columns else len(self.columns) for name in names]
        for number, cells in self.rows:
            all_cells = (*cells, "")
            yield number, [all_cells[place] for place in places]


def read_table(path: Path, required: Sequence[str], *, errors: str = "strict") -> Table:
    """A CSV table with these columns among others; delimited by `,`, `;` or tab, whichever gives the header sense.

    A warning says so where it is not by commas, or not UTF-8.

    Args:
        path: A UTF-8 file, with or without byte order mark, lines ended by LF or CRLF; UTF-16 only with its mark.
        required: Columns that must be there.
        errors: How bytes that are not UTF-8 are read: `strict` refuses, `surrogateescape` keeps them.

    Raises:
        UsageError: The file cannot be opened.
        DataError: It is not such a table; the message names the row. So do those of `Table.rows`.
    """
    place = shown(path.absolute())
    lines = _lines(_texts(path, place, errors), place)
    first = next(lines, "")
    delimiter = _delimiter(first.rstrip("\r\n"), required, place)
    if delimiter != ",":
        _log.warning("%s is taken for a table with %s between its cells", place, _DELIMITERS[delimiter])
    rows = _rows(itertools.chain([first], lines), delimiter, place)
    number, columns = next(rows)
    if len(columns) > MAX_COLUMNS:
        raise DataError(f"{place} has {len(columns):,} columns; a list of images has at most {MAX_COLUMNS:,}")
    repeated = {name for name in columns if columns.count(name) > 1}
    if repeated:
        raise DataError(
            f"{place}, row {number}: the column {listed(sorted(repeated))[:300]} stands twice in the header"
        )
    return Table(place, tuple(columns), _even(rows, len(columns), place))


def _texts(path: Path, place: str, errors: str) -> Iterator[str]:
    """The file's text in pieces.

    Raises:
        UsageError: It cannot be opened.
        DataError: It is no text, or too large.
    """
    try:
        with opened(path) as stream:
            yield from _decoded(stream, place, errors)
    except OSError as error:
        raise UsageError(f"cannot read {place}: {error.strerror}") from error


def _decoded(stream: BufferedReader, place: str, errors: str) -> Iterator[str]:
    too_large = DataError(f"{place} is larger than {MAX_BYTES:,} bytes; that is no list of images")
    if os.fstat(stream.fileno()).st_size > MAX_BYTES:
        raise too_large
    data = stream.read(_PIECE)
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    if wide:
        _log.warning("%s is read as UTF-16, as its first bytes say", place)
    decoder = codecs.getincrementaldecoder("utf-16" if wide else "utf-8")("strict" if wide else errors)
    seen, row = 3 if data.startswith(codecs.BOM_UTF8) else 0, 1
    data = data[seen:]
    while True:
        try:
            yield decoder.decode(data, final=not data)
        except UnicodeDecodeError as error:
            kept = len(error.object) - len(data)  # bytes of a character that began in the piece before
            row += data.count(b"\n", 0, max(0, error.start - kept))
            name = "UTF-16" if wide else "UTF-8"
            raise DataError(
                f"{place}, row {row}: byte {seen - kept + error.start} is not {name} text; save the file as UTF-8"
            ) from error
        if not data:
            return
        seen += len(data)
        row += data.count(b"\n")
        if seen > MAX_BYTES:
            raise too_large
        data = stream.read(_PIECE)


def _lines(texts: Iterable[str], place: str) -> Iterator[str]:
    """The lines with their ends: LF, CRLF or CR."""
    last = ""
    for text in texts:
        pending = io.StringIO(last + text, newline="")
        last = ""
        for line in pending:
            if last:
                yield last
            last = line  # the last one of a piece may go on in the next
        if len(last) > MAX_LINE:
            raise DataError(f"{place} has a line of more than {MAX_LINE:,} characters; that is no list of images")
    if last:
        yield last


def _delimiter(first: str, required: Sequence[str], place: str) -> str:
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


def _rows(lines: Iterable[str], delimiter: str, place: str) -> Rows:
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
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
            yield number, cells


def _even(rows: Rows, width: int, place: str) -> Rows:
    for number, cells in rows:
        if len(cells) != width:
            raise DataError(f"{place}, row {number}: {len(cells)} cells, but the header has {width}")
        yield number, cells
