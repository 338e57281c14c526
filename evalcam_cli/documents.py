"""Tables and documents as texts: CSV, JSON and YAML."""

import csv
import io
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from evalcam_cli.errors import UsageError
from evalcam_cli.inputs import read_bytes
from evalcam_cli.text import csv_cell, csv_text, json_escaped, shown, shown_lines
from evalcam_cli.writing import write_parts

_CSV_ROWS = 500
_MAX_JSON_BYTES = 200_000_000


def json_text(value: object) -> str:
    """Strict JSON (no NaN) that is valid UTF-8, keys in the order given, ending with a newline."""
    return json_escaped(json.dumps(value, ensure_ascii=False, allow_nan=False, indent=1)) + "\n"


def yaml_text(value: Mapping[str, object]) -> str:
    """YAML that `parse_yaml` reads back equal, keys in the order given; letters of all scripts stay.

    Where a text holds characters that `shown` makes visible, all but ASCII is escaped: they would be hidden.
    """
    import yaml  # noqa: PLC0415 (most commands write none)

    from evalcam_cli.strict_yaml import scalar  # noqa: PLC0415

    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: object) -> bool:
            return True

    def text_node(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
        plain = scalar(text) == text  # PyYAML would write the text `1e-3` as it stands
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if plain else "'")

    Dumper.add_representer(str, text_node)
    readable = str(yaml.dump(dict(value), Dumper=Dumper, sort_keys=False, allow_unicode=True))
    if shown_lines(readable) == readable:
        return readable
    return str(yaml.dump(dict(value), Dumper=Dumper, sort_keys=False))


def csv_bytes(header: Sequence[str], rows: Iterable[Sequence[object]]) -> bytes:
    """A CSV table in UTF-8 with LF line ends; texts are guarded against spreadsheets, None is an empty cell.

    Floats are written in full (the shortest text that reads back to the same number).
    """
    return csv_lines(itertools.chain([header], rows))


def csv_lines(rows: Iterable[Sequence[object]]) -> bytes:
    """Rows as `csv_bytes` writes them."""
    return b"".join(csv_pieces(rows))


def csv_pieces(rows: Iterable[Sequence[object]]) -> Iterator[bytes]:
    """Rows as `csv_bytes` writes them, some at a time: however many there are, a few are in memory."""
    rest = iter(rows)
    while some := [[_cell(value) for value in row] for row in itertools.islice(rest, _CSV_ROWS)]:
        text = _csv_text(some, csv.QUOTE_MINIMAL)
        if "\r" in text:  # before Python 3.13 it was not quoted, and a reader takes one for the end of a line
            text = "".join(_csv_text([row], csv.QUOTE_ALL if _holds_return(row) else csv.QUOTE_MINIMAL) for row in some)
        yield text.encode("utf-8", "surrogateescape")


def _cell(value: object) -> object:
    return csv_cell(value) if isinstance(value, str) else value


def _holds_return(row: Iterable[object]) -> bool:
    return any(isinstance(cell, str) and "\r" in cell for cell in row)


def _csv_text(rows: Iterable[Iterable[object]], quoting: Literal[0, 1]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n", quoting=quoting).writerows(rows)
    return buffer.getvalue()


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a table as `csv_bytes` makes it, whole or not at all, while its rows are made."""
    write_parts(path, csv_pieces(itertools.chain([header], rows)))


def read_csv(path: Path) -> tuple[list[str], list[list[str]]]:
    """Header and rows of a table that `write_csv` wrote, texts as they were before the guard."""
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as stream:
        rows = [[csv_text(cell) for cell in row] for row in csv.reader(stream)]
    return (rows[0], rows[1:]) if rows else ([], [])


def read_json(path: Path) -> Any:
    """The value of a JSON file.

    Raises:
        UsageError: It is not there.
        ValueError: It is not JSON.
    """
    try:
        data = read_bytes(path, _MAX_JSON_BYTES)
        if len(data) > _MAX_JSON_BYTES:
            raise ValueError(f"it has more than {_MAX_JSON_BYTES:,} bytes")
        return json.loads(data.decode("utf-8-sig", "surrogateescape"))
    except OSError as error:
        raise UsageError(f"cannot read {shown(path.absolute())}: {error.strerror}") from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
