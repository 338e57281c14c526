"""`split.csv` and `split.json`: a division that can be read, edited and carried to another machine."""

import hashlib
import itertools
import json
import os
import re
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from evalcam_cli.data.disk import FILE, DiskIndex, inside, nfc
from evalcam_cli.data.repeats import Shared, repeated
from evalcam_cli.data.samples import SETS, Sample, Split, in_order, sorted_classes
from evalcam_cli.data.tables import Table, read_table
from evalcam_cli.documents import csv_pieces, json_text
from evalcam_cli.errors import DataError, UsageError
from evalcam_cli.inputs import read_bytes
from evalcam_cli.text import csv_text, did_you_mean, shown
from evalcam_cli.writing import write_parts, write_whole

COLUMNS = ("path", "label", "set", "group", "fold", "sha256")
SCHEMA_VERSION = 1
MAX_FOLDS = 100
MAX_REPEATS = 100
_MAX_JSON_BYTES = 200_000_000
_REPEAT_COLUMN = re.compile(r"fold_[1-9][0-9]*")


def split_bytes(split: Split) -> tuple[bytes, bytes]:
    """The contents of `split.csv` and of the JSON file beside it."""
    return b"".join(_csv(split.samples, split.extra_columns)), _json(split)


def write_split(split: Split, csv_path: Path) -> None:
    """Write the two files, the CSV last, so that one that is there is complete."""
    write_whole(json_path(csv_path), _json(split))
    write_parts(csv_path, _csv(split.samples, split.extra_columns))


def json_path(csv_path: Path) -> Path:
    """Where the JSON file beside a split file stands."""
    return csv_path.with_suffix(".json")


def repeat_columns(repeats: int) -> tuple[str, ...]:
    """The columns of the second and each further division into folds: `fold_1`, `fold_2`, …"""
    return tuple(f"fold_{repeat}" for repeat in range(1, repeats))


def is_repeat_column(name: str) -> bool:
    """Whether a column is called as one of a further division is, so that a manifest's would be taken for it."""
    return _REPEAT_COLUMN.fullmatch(name) is not None


def fingerprint(samples: Sequence[Sample]) -> str:
    """SHA-256, hexadecimal, of the split's CSV with its paths in NFC: the same on every machine.

    Of further columns the cells count, not the names; without such columns, and with all paths in NFC, it is the
    SHA-256 of the file.
    """
    digest = hashlib.sha256()
    for piece in _csv((sample.at(nfc(sample.path)) for sample in samples), ()):
        digest.update(piece)
    return digest.hexdigest()


def _csv(samples: Iterable[Sample], extra_columns: Sequence[str]) -> Iterator[bytes]:
    """The CSV in pieces."""
    ordered = in_order(samples)
    more = max((len(sample.more_folds) for sample in ordered), default=0)
    rows = (
        (
            *(sample.path, sample.label, sample.set, sample.group, sample.fold, sample.sha256),
            *(sample.more_folds or (None,) * more),
            *sample.extra,
        )
        for sample in ordered
    )
    return csv_pieces(itertools.chain([(*COLUMNS, *repeat_columns(1 + more), *extra_columns)], rows))


def _json(split: Split) -> bytes:
    facts = {
        "schema_version": SCHEMA_VERSION,
        "root": str(split.root.absolute()),
        "source": split.source,
        "classes": list(split.classes),
        "seed": split.seed,
        "ratios": None if split.ratios is None else list(split.ratios),
        "folds": split.folds,
        **({"repeats": split.repeats} if split.repeats > 1 else {}),
        "counts": split.counts(),
        "fingerprint": fingerprint(split.samples),
        "left_out": [{"path": path, "reason": reason} for path, reason in split.left_out],
    }
    return json_text(facts).encode()


def read_split(path: Path, *, root: Path | None = None) -> tuple[Split, bool]:
    """A split file and whether somebody edited it since it was written.

    Args:
        path: The CSV; it needs no JSON file beside it when the root is given.
        root: The data folder here; by default the one recorded.

    Returns:
        The split, its paths as written (`DiskIndex` finds them on this machine), and True when the rows differ from
        those that evalcam wrote, or from the classes recorded, or nothing is recorded about them. Classes of an edited
        split are those of its rows.

    Raises:
        UsageError: The file or the data folder is not there.
        DataError: A row or the JSON file makes no sense.
    """
    table = _unguarded(read_table(path, COLUMNS[:3], errors="surrogateescape"))
    facts = _facts(path)
    root = _root(path, facts, root)
    table, more = _with_repeat_columns(table, facts)
    extra_columns = tuple(name for name in table.columns if name not in (*COLUMNS, *more))
    numbers: array[int] = array("Q")
    rows: list[Sample] = []
    for number, sample in _samples(table, more, extra_columns):
        numbers.append(number)
        rows.append(sample)
    _refuse_doubles(table, numbers, rows)
    samples = tuple(in_order(rows))
    if not samples:
        raise DataError(f"{table.place} lists no images")
    folds = _folds(table, numbers, rows, facts, more)
    classes = sorted_classes(samples)
    edited = facts.get("fingerprint") != fingerprint(samples) or tuple(facts["classes"]) != classes
    split = Split(
        root=root,
        samples=samples,
        classes=classes,
        seed=facts.get("seed", 0),
        ratios=None if facts.get("ratios") is None else tuple(facts["ratios"]),
        folds=folds,
        repeats=1 + len(more),
        extra_columns=extra_columns,
        left_out=tuple((entry["path"], entry["reason"]) for entry in facts.get("left_out", ())),
        source=facts.get("source", path.name),
    )
    return split, edited


def _with_repeat_columns(table: Table, facts: dict[str, Any]) -> tuple[Table, tuple[str, ...]]:
    """The table, and the columns that hold further divisions: as recorded; where nothing is, those of such a name.

    Raises:
        DataError: One is not there.
    """
    wanted = repeat_columns(facts.get("repeats", 1))
    if not facts:
        named = tuple(itertools.takewhile(table.columns.__contains__, repeat_columns(MAX_REPEATS)))
        if named:  # only whoever looks at all rows knows whether there are folds
            place, rows = table.columns.index("fold") if "fold" in table.columns else None, list(table.rows)
            table = replace(table, rows=iter(rows))
            wanted = named if place is not None and any(cells[place] for _, cells in rows) else ()
    missing = [name for name in wanted if name not in table.columns]
    if missing:
        raise DataError(
            f"{table.place} was divided {1 + len(wanted)} times and has no column {missing[0]!r}; bring it back"
        )
    return table, wanted


def recorded_classes(path: Path) -> tuple[str, ...]:
    """The classes in the JSON file beside a split file; none when there is no such file."""
    return tuple(_facts(path).get("classes", ()))


def _unguarded(table: Table) -> Table:
    rows = ((number, [csv_text(cell) for cell in cells]) for number, cells in table.rows)
    return replace(table, columns=tuple(csv_text(name) for name in table.columns), rows=rows)


def _root(path: Path, facts: dict[str, Any], given: Path | None) -> Path:
    if given is not None:
        root = given.parent if given.is_file() else given
    elif Path(facts.get("root", "")).is_absolute():  # evalcam writes no other; one of Windows is none on Linux
        root = Path(facts["root"])
    else:
        raise UsageError(
            f"there is no {shown(json_path(path).absolute())} that says where on this machine the images of "
            f"{shown(path.name)} are; name their folder with --data"
        )
    if not os.path.isdir(root):  # noqa: PTH112 (unlike `Path.is_dir`, it bears names that are too long)
        whence = "" if given is not None else f", recorded in {shown(json_path(path).absolute())},"
        raise UsageError(
            f"the data folder {shown(root.absolute())[:300]}{whence} is not there; name it here: as DATA, or with "
            "--data"
        )
    return root


def _facts(path: Path) -> dict[str, Any]:
    """What the JSON file beside a split says; empty when there is none."""
    beside = json_path(path)
    try:
        data = read_bytes(beside, _MAX_JSON_BYTES)
        if len(data) > _MAX_JSON_BYTES:
            raise ValueError(f"more than {_MAX_JSON_BYTES:,} bytes")
        facts = json.loads(data.decode("utf-8-sig", "surrogateescape"))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise UsageError(f"cannot read {shown(beside.absolute())}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{shown(beside.absolute())} is damaged ({shown(error)[:200]}); remove it and use --data"
        ) from error
    if isinstance(facts, dict) and facts.get("schema_version") in range(SCHEMA_VERSION + 1, 1000):
        raise DataError(f"{shown(beside.absolute())} was written by a newer evalcam; update evalcam")
    if not _is_sound(facts):
        raise DataError(f"{shown(beside.absolute())} is not what evalcam writes; remove it and use --data")
    return dict(facts)


def _is_sound(facts: Any) -> bool:
    """Whether the values have the types that `_json` gives them."""
    if not isinstance(facts, dict) or facts.get("schema_version") != SCHEMA_VERSION:
        return False
    ratios, folds, left_out = facts.get("ratios"), facts.get("folds"), facts.get("left_out")
    repeats = facts.get("repeats", 1)
    return (
        all(isinstance(facts.get(key), str) for key in ("root", "source", "fingerprint"))
        and "\0" not in facts["root"]
        and facts["source"] not in ("", "..")
        and Path(facts["source"]).name == facts["source"]  # else a hostile one could name a manifest anywhere
        and type(facts.get("seed")) is int
        and 0 <= facts["seed"] < 2**63
        and isinstance(facts.get("classes"), list)
        and all(isinstance(label, str) for label in facts["classes"])
        and (
            ratios is None
            or (isinstance(ratios, list) and [type(ratio) in (int, float) for ratio in ratios] == [True] * 3)
        )
        and (folds is None or (type(folds) is int and 2 <= folds <= MAX_FOLDS))
        and type(repeats) is int
        and 1 <= repeats <= (1 if folds is None else MAX_REPEATS)
        and isinstance(left_out, list)
        and all(
            isinstance(entry, dict) and isinstance(entry.get("path"), str) and isinstance(entry.get("reason"), str)
            for entry in left_out
        )
    )


def _samples(table: Table, more: Sequence[str], extra_columns: Sequence[str]) -> Iterator[tuple[int, Sample]]:
    """Each row with its number."""
    shared = Shared()
    parts = {name: name for name in ("", *SETS)}
    names = (*COLUMNS, *more, *extra_columns)
    for number, (path, label, set_name, group, fold, sha256, *further) in table.cells(*names):
        tidy = inside(path)
        if not path:
            raise table.fault(number, "the path is empty")
        if tidy is None:
            raise table.fault(number, f"the path {shown(path)[:200]!r} leaves the data folder")
        if not label:
            raise table.fault(number, f"{shown(path)[:200]} has no label")
        if set_name not in parts:
            hint = did_you_mean(set_name.strip().lower(), SETS) or "; expected train, val or test"
            raise table.fault(number, f"unknown set {shown(set_name)[:80]!r}{hint}")
        repeats, extra = further[: len(more)], tuple(map(shared, further[len(more) :]))
        yield number, Sample(
            tidy, shared(label), parts[set_name], shared(group), _fold(table, number, fold), sha256.lower(), extra,
            _more_folds(table, number, fold, repeats),
        )  # fmt: skip


def _refuse_doubles(table: Table, numbers: Sequence[int], samples: Sequence[Sample]) -> None:
    twice = repeated(lambda: (sample.path for sample in samples))
    first: dict[str, tuple[int, str]] = {}
    for number, sample in zip(numbers, samples, strict=True) if twice else ():
        if sample.path not in twice:
            continue
        before, other_label = first.setdefault(sample.path, (number, sample.label))
        if before != number:
            two = f"with two labels: {shown(other_label)[:80]!r} there, {shown(sample.label)[:80]!r} here"
            what = "again" if other_label == sample.label else two
            raise table.fault(number, f"{shown(sample.path)[:200]} of row {before} {what}")


def _more_folds(table: Table, number: int, first: str, cells: Sequence[str]) -> tuple[int, ...]:
    """The folds in the further divisions: one in each for a row that has one in the first, else none."""
    found = [_fold(table, number, cell) for cell in cells]
    for repeat, fold in enumerate(found, 1):
        if (fold is None) != (not first):
            lacking, given = (f"fold_{repeat}", "fold") if fold is None else ("fold", f"fold_{repeat}")
            raise table.fault(number, f"{given} is given and {lacking} is not; an image is in a fold of each division")
    return tuple(fold for fold in found if fold is not None)


def _fold(table: Table, number: int, cell: str) -> int | None:
    if not cell:
        return None
    if not (cell.isascii() and cell.isdecimal() and len(cell) <= 5 and int(cell) < MAX_FOLDS):
        raise table.fault(number, f"{shown(cell)[:80]!r} is no fold; expected a whole number from 0")
    return int(cell)


def _folds(
    table: Table, numbers: Sequence[int], samples: Sequence[Sample], facts: dict[str, Any], more: Sequence[str]
) -> int | None:
    """The number of folds; None for a hold-out split.

    Args:
        table: For messages.
        numbers: Of the rows.
        samples: In the order of the rows.
        facts: What is recorded.
        more: Columns of further divisions.
    """
    columns = ("fold", *more)
    used = [{sample.fold_in(repeat) for sample in samples} - {None} for repeat in range(len(columns))]
    highest = max((one for found in used for one in found if one is not None), default=None)
    folds: int | None = facts.get("folds") or (None if highest is None else highest + 1)
    for repeat, column in enumerate(columns):
        for number, sample in zip(numbers, samples, strict=True):
            fold = sample.fold_in(repeat)
            if fold is not None and folds is not None and fold >= folds:
                raise table.fault(number, f"{column} {fold} of a split into {folds} folds (0 to {folds - 1})")
    for number, sample in zip(numbers, samples, strict=True):
        if sample.fold is None and not sample.set:
            raise table.fault(number, "neither set nor fold is given")
        if folds is not None and sample.fold is None and sample.set in ("train", "val"):
            raise table.fault(number, f"the set is {sample.set}, but the split has folds and this row none")
    for column, found in zip(columns, used, strict=True):
        empty = sorted(set(range(folds or 0)) - found)
        if empty:
            where = "" if column == "fold" else f" of the column {column}"
            raise DataError(f"{table.place} has no images in fold {', '.join(map(str, empty))} of {folds}{where}")
    return folds


def located(split: Split) -> tuple[list[Sample], list[str]]:
    """The samples under their names on this disk, and the paths of those that are no regular files here.

    A name that is absent stands for the file whose name has an equal NFC form.

    Raises:
        DataError: Two samples are the same file.
    """
    index = DiskIndex(split.root)
    found: list[Sample] = []
    missing = []
    respelled = False
    for sample in split.samples:
        path, kind = index.find(sample.path)
        if kind != FILE:
            missing.append(f"{path} ({kind})" if kind else path)
            continue
        respelled = respelled or path != sample.path
        found.append(sample.at(path))
    twice = repeated(lambda: (sample.path for sample in found)) if respelled else ()
    if twice:
        raise DataError(f"two rows of the split name the same file, in two Unicode forms: {shown(min(twice))[:200]}")
    return found, missing


def is_split_file(path: Path) -> bool:
    """Whether a file is a split's CSV or JSON as evalcam writes them, and so may be replaced by another."""
    try:
        start = read_bytes(path, 200)
    except OSError:
        return False
    if path.suffix.lower() == ".json":
        return start.startswith(b'{\n "schema_version": ') and b'\n "root": ' in start
    return start.startswith(",".join(COLUMNS).encode())
