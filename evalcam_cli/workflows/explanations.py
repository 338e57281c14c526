"""The rows of `explanations.csv`, and the ledger of a run under way that `--resume` continues."""

import contextlib
import csv
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, astuple, dataclass, fields
from pathlib import Path
from typing import IO, Any

from evalcam_cli.documents import csv_bytes, csv_lines, read_json
from evalcam_cli.errors import UsageError
from evalcam_cli.files import OutputFolder
from evalcam_cli.text import csv_text, shown
from evalcam_cli.writing import write_error

TABLE, LEDGER, SETTINGS = "explanations.csv", "explanations.partial.jsonl", "gradcam.json"


@dataclass(frozen=True)
class Explanation:
    """One row of `explanations.csv`: the map of one class on one image by one method."""

    path: str
    label: str
    predicted: str
    class_name: str
    class_index: int
    probability: float | None
    """None when the output is not a classifier's."""
    logit: float
    """Of the class; with `--against` the difference of two; of an own target its score."""
    method: str
    layer: str
    """Empty when the method explains pixels."""
    map_min: float | None
    """Of the signed map at its own resolution, in the unit of the method; None where the method is not defined."""
    map_max: float | None
    empty: bool
    """Whether nothing in the map speaks for the class."""
    peak_x: int | None
    """Of the strongest point, in pixels of the upright original; None in an empty map."""
    peak_y: int | None
    overlay: str
    """File of the picture; empty when none was drawn."""
    map: str
    """File of the raw map; in a bundle, after `#`, its name there."""

    def to_dict(self) -> dict[str, Any]:
        return {"class" if key == "class_name" else key: value for key, value in asdict(self).items()}


HEADER = tuple("class" if entry.name == "class_name" else entry.name for entry in fields(Explanation))


@dataclass(frozen=True)
class Entry:
    """What is kept of one finished image: one line of the ledger."""

    path: str
    sha256: str
    """Of the image's bytes."""
    size: tuple[int, int]
    """Width and height of the upright original."""
    loss: float | None
    """Cross-entropy of the true class, in nats; None without label."""
    probabilities: tuple[float, ...]
    """Of all classes; empty when the output is not a classifier's."""
    rows: tuple[Explanation, ...]
    extra: dict[str, Any]
    """What `--score` and `--boxes` found, by name."""

    def line(self) -> str:
        return json.dumps({**vars(self), "rows": [astuple(row) for row in self.rows]}) + "\n"


def _entry(line: bytes) -> Entry:
    values = json.loads(line)
    rows = tuple(Explanation(*row) for row in values["rows"])
    return Entry(**{
        **values, "rows": rows, "size": tuple(values["size"]), "probabilities": tuple(values["probabilities"])
    })  # fmt: skip


class Ledger:
    """The finished images of a run, each with all its maps, kept line by line so that a killed run loses none.

    In memory are only their names and places in the file. The file is begun with the first image: a run that is refused
    leaves nothing behind.
    """

    def __init__(self, folder: OutputFolder, settings: dict[str, Any], *, resume: bool) -> None:
        self.folder = folder
        self.settings: dict[str, Any] = json.loads(json.dumps(settings))  # as they are read again: tuples become lists
        self._offsets: dict[str, int] = {}
        self._stream: IO[bytes] | None = None
        if resume:
            self._continue()

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(self, *_: object) -> None:
        if self._stream is not None:
            with contextlib.suppress(OSError):  # what could not be written was told when it was tried
                self._stream.close()

    def __contains__(self, path: str) -> bool:
        return path in self._offsets

    def __len__(self) -> int:
        return len(self._offsets)

    def paths(self) -> list[str]:
        """Of all images, as they were finished."""
        return list(self._offsets)

    def add(self, entry: Entry) -> None:
        """Keep one more image, whose files are written."""
        if self._stream is None:
            self.folder.write_json(SETTINGS, self.settings)
            self._stream = self.folder.write(LEDGER, b"").open("r+b")
        try:
            offset = self._stream.seek(0, os.SEEK_END)
            self._stream.write(entry.line().encode())
            self._stream.flush()
        except OSError as error:
            raise write_error(self.folder.path / LEDGER, error) from error
        self._offsets[entry.path] = offset

    def read(self, path: str) -> Entry:
        """What is kept of an image."""
        assert self._stream is not None  # or nothing would be known
        self._stream.seek(self._offsets[path])
        return _entry(self._stream.readline())

    def entries(self, paths: Iterable[str]) -> Iterator[Entry]:
        """What is kept of these images, in their order; others are skipped."""
        return (self.read(path) for path in paths if path in self)

    def _continue(self) -> None:
        """Take up what an earlier run finished."""
        settings, ledger = self.folder.path / SETTINGS, self.folder.path / LEDGER
        if not settings.exists():
            return
        if read_json(settings) != self.settings:
            raise UsageError(
                f"--resume: {shown(self.folder.path.absolute())} was begun with other images, classes, methods, layer "
                "or checkpoint;\nuse the same, or another --out"
            )
        if not ledger.exists():
            return
        self._stream = self.folder.claim(LEDGER).open("r+b")
        end = 0
        for line in self._stream:
            if not line.endswith(b"\n"):
                break  # cut off by the interruption, perhaps only by this
            try:
                self._offsets[_entry(line).path] = end
            except (ValueError, TypeError, KeyError):
                break
            end += len(line)
        self._stream.truncate(end)


def write_table(folder: OutputFolder, entries: Iterable[Entry]) -> None:
    """Write `explanations.csv`, row by row."""
    with folder.stream(TABLE) as stream:
        stream.write(csv_bytes(HEADER, ()))
        for entry in entries:
            stream.write(csv_lines([_cells(row) for row in entry.rows]))


def _cells(row: Explanation) -> tuple[object, ...]:
    """The row as CSV takes it."""
    return tuple(str(value).lower() if isinstance(value, bool) else value for value in astuple(row))


def read_table(path: Path) -> Iterator[Explanation]:
    """The rows of an `explanations.csv` that evalcam wrote, one by one."""
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as stream:
        rows = csv.reader(stream)
        next(rows)
        for row in rows:
            yield _from_cells([csv_text(cell) for cell in row])


def _from_cells(row: Sequence[str]) -> Explanation:
    """The inverse of `_cells`, from texts."""
    readers: dict[Any, Callable[[str], Any]] = {
        int: int,
        float: float,
        bool: "true".__eq__,
        int | None: lambda cell: int(cell) if cell else None,
        float | None: lambda cell: float(cell) if cell else None,
    }
    values = [readers.get(entry.type, str)(cell) for entry, cell in zip(fields(Explanation), row, strict=True)]
    return Explanation(*values)
