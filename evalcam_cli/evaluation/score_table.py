"""A CSV of saved predictions: texts and, apart from them, scores as numbers, which take a tenth of their text."""

import csv
import io
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from evalcam_cli.errors import DataError, UsageError
from evalcam_cli.inputs import opened
from evalcam_cli.text import counted, csv_text, listed, shown

SCORES = ("p:", "logit:")
"""What the names of columns with scores begin with; the class follows."""

_PLAIN = frozenset("0123456789.+-eE \tinfatyINFATY")
"""Characters of numbers, infinity and NaN; Python also reads `1_0` as 10, and digits of other scripts."""


@dataclass(frozen=True)
class ScoreTable:
    """The cells of the file. Rows are called by their number in a spreadsheet: the header is row 1."""

    path: Path
    header: list[str]
    rows: list[list[str]]
    """Without the cells that are scores."""
    scores: NDArray[np.float64]
    """(N, S) of the columns `score_names`."""
    fault: str = ""
    """What is wrong with the first score that is no number."""

    @property
    def place(self) -> str:
        return shown(self.path.absolute())

    @cached_property
    def score_names(self) -> list[str]:
        """The columns with scores, in their order."""
        return [name for name in self.header if name.startswith(SCORES)]

    @cached_property
    def places(self) -> dict[str, int]:
        """Where in a row each other column is."""
        others = [name for name in self.header if not name.startswith(SCORES)]
        return {name: index for index, name in enumerate(others)}

    def column(self, name: str) -> tuple[str, ...]:
        """The texts of a column; empty when the table lacks it."""
        if name not in self.places:
            return ()
        index = self.places[name]
        return tuple(csv_text(row[index]) for row in self.rows)

    def columns(self, names: Sequence[str]) -> tuple[tuple[str, ...], ...]:
        """(N,) rows of some columns."""
        indices = [self.places[name] for name in names]
        return tuple(tuple(csv_text(row[index]) for index in indices) for row in self.rows) if names else ()

    def require_numbers(self) -> NDArray[np.float64]:
        """The scores.

        Raises:
            DataError: One is no number; the message names its row and column.
        """
        if self.fault:
            raise DataError(self.fault)
        return self.scores

    def numbers(self, name: str) -> NDArray[np.float64]:
        """(N,) numbers of a column that is not one of scores.

        Raises:
            DataError: A cell is no number; the message names its row.
        """
        index = self.places[name]
        numbers = np.empty(len(self.rows))
        for place, row in enumerate(self.rows):
            found = _floats([row[index]])
            if found is None:
                raise DataError(_no_number(self.path, place + 2, [name], [row[index]]))
            numbers[place] = found[0]
        return numbers


def read_score_table(path: Path) -> ScoreTable:
    """Read the file row by row.

    Raises:
        UsageError: It cannot be opened.
        DataError: It is no CSV with a header, and as many cells in each row.
    """
    place, count = shown(path.absolute()), 0
    body = None
    try:
        with opened(path) as stream:
            text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")
            for row in csv.reader(text, strict=True):
                count += 1
                if row and body is None:
                    body = _Body(path, _header(path, row))
                elif row and body is not None:
                    body.take(row)
    except OSError as error:
        raise UsageError(f"cannot read the predictions {place}: {error.strerror}") from error
    except csv.Error as error:
        raise DataError(
            f"{place}, row {count + 1}: {error}; is it a CSV in UTF-8, and are its quotes closed?"
        ) from error
    if body is None:
        raise DataError(f"{place} is empty; expected a header and a row per image")
    return body.table()


def _header(path: Path, row: Sequence[str]) -> list[str]:
    place = shown(path.absolute())
    if any("\0" in name for name in row):
        raise DataError(f"{place} is not in UTF-8 (UTF-16?); save it as CSV in UTF-8")
    header = [csv_text(name.lstrip()) for name in row]
    twice = [name for name, times in Counter(header).items() if times > 1]
    if twice:
        raise DataError(f"{place} has several columns named {listed(map(repr, twice))[:300]}; names must differ")
    return header


class _Body:
    """The rows below the header, as they are read."""

    def __init__(self, path: Path, header: list[str]) -> None:
        self.path = path
        self.header = header
        self._scores = [index for index, name in enumerate(header) if name.startswith(SCORES)]
        self._others = [index for index, name in enumerate(header) if not name.startswith(SCORES)]
        self._names = [header[index] for index in self._scores]
        self._rows: list[list[str]] = []
        self._numbers = array("d")
        self._fault = ""
        self._ragged: list[str] = []
        self._count = 0

    def take(self, row: Sequence[str]) -> None:
        """One more row; what is wrong with it is told in the end."""
        self._count += 1
        if len(row) != len(self.header):
            self._ragged.append(str(self._count + 1))
            return
        self._rows.append([row[index] for index in self._others])
        cells = [row[index] for index in self._scores]
        numbers = _floats(cells)
        if numbers is None:
            self._fault = self._fault or _no_number(self.path, self._count + 1, self._names, cells)
            numbers = [np.nan] * len(cells)
        self._numbers.extend(numbers)

    def table(self) -> ScoreTable:
        """All that was read.

        Raises:
            DataError: There is nothing, or rows are not as long as the header.
        """
        place = shown(self.path.absolute())
        if self._ragged:
            raise DataError(
                f"{place}: {counted(len(self._ragged), 'row')} with another number of cells than the header's "
                f"{len(self.header)}: row {listed(self._ragged)}"
            )
        if not self._rows:
            raise DataError(f"{place} has a header but no rows")
        scores = np.frombuffer(self._numbers) if self._numbers else np.empty(0)
        return ScoreTable(
            self.path, self.header, self._rows, scores.reshape(len(self._rows), len(self._names)), self._fault
        )


def _floats(cells: Sequence[str]) -> list[float] | None:
    """The numbers; None where a cell is none."""
    try:
        numbers = [float(cell) for cell in cells]
    except ValueError:
        return None
    return numbers if _PLAIN.issuperset("".join(cells)) else None


def _no_number(path: Path, row: int, names: Sequence[str], cells: Sequence[str]) -> str:
    name, cell = next(pair for pair in zip(names, cells, strict=True) if _floats([pair[1]]) is None)
    return f"{shown(path.absolute())}, row {row}: {shown(name)[:80]} is {shown(cell)[:80]!r}, which is no number"
