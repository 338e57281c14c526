"""The rows of `explanations.csv`, and the ledger of a run under way that `--resume` continues."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, astuple, dataclass, fields
from pathlib import Path
from typing import IO, Any

from evalcam_cli.errors import UsageError
from evalcam_cli.files import OutputFolder, read_csv, read_json
from evalcam_cli.text import shown

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
    map_min: float
    """Of the signed map at its own resolution, in the unit of the method."""
    map_max: float
    empty: bool
    """Whether nothing in the map speaks for the class."""
    peak_x: int | None
    """Of the strongest point, in pixels of the upright original; None in an empty map."""
    peak_y: int | None
    overlay: str
    """Empty when none was drawn."""
    map: str

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


def _entry(line: str) -> Entry:
    values = json.loads(line)
    rows = tuple(Explanation(*row) for row in values["rows"])
    return Entry(**{
        **values, "rows": rows, "size": tuple(values["size"]), "probabilities": tuple(values["probabilities"])
    })  # fmt: skip


class Ledger:
    """The finished images of a run, each with all its maps, kept line by line so that a killed run loses none.

    The file is begun with the first image: a run that is refused leaves nothing behind.
    """

    def __init__(self, folder: OutputFolder, settings: dict[str, Any], *, resume: bool) -> None:
        self.folder, self.settings = folder, settings
        self.known = _known(folder, settings) if resume else []
        """What an earlier run finished."""
        self._stream: IO[str] | None = None

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(self, *_: object) -> None:
        if self._stream is not None:
            self._stream.close()

    def add(self, entry: Entry) -> None:
        """Keep one more image, whose files are written."""
        if self._stream is None:
            self.folder.write_json(SETTINGS, self.settings)
            kept = "".join(one.line() for one in self.known).encode()
            self._stream = self.folder.write(LEDGER, kept).open("a", encoding="utf-8")
        self._stream.write(entry.line())
        self._stream.flush()


def _known(folder: OutputFolder, settings: dict[str, Any]) -> list[Entry]:
    file = folder.path / SETTINGS
    if not file.exists():
        return []
    if read_json(file) != settings:
        raise UsageError(
            f"--resume: {shown(folder.path.absolute())} was begun with other images, classes, methods, layer or "
            "checkpoint;\nuse the same, or another --out"
        )
    source = folder.path / LEDGER
    return list(_entries(source)) if source.exists() else []


def _entries(source: Path) -> Iterator[Entry]:
    for line in source.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        try:
            yield _entry(line)
        except (ValueError, TypeError, KeyError):
            return  # cut off by the interruption


def cells(row: Explanation) -> tuple[object, ...]:
    """The row as CSV takes it."""
    return tuple(str(value).lower() if isinstance(value, bool) else value for value in astuple(row))


def read_table(path: Path) -> list[Explanation]:
    """The rows of an `explanations.csv` that evalcam wrote."""
    return [_from_cells(row) for row in read_csv(path)[1]]


def _from_cells(row: Sequence[str]) -> Explanation:
    """The inverse of `cells`, from texts."""
    readers: dict[Any, Callable[[str], Any]] = {
        int: int,
        float: float,
        bool: "true".__eq__,
        int | None: lambda cell: int(cell) if cell else None,
        float | None: lambda cell: float(cell) if cell else None,
    }
    values = [readers.get(entry.type, str)(cell) for entry, cell in zip(fields(Explanation), row, strict=True)]
    return Explanation(*values)
