"""A CSV manifest: `path,label` and optionally `set,group` and further columns, one row per image."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from evalcam_cli.data.disk import FILE, LINK, DiskIndex, inside
from evalcam_cli.data.samples import SET_NAMES, Sample
from evalcam_cli.data.tables import Table, read_table
from evalcam_cli.errors import DataError
from evalcam_cli.text import counted, did_you_mean, listed, shown

_OWN = ("path", "label", "set", "group")
_SPLIT_ONLY = ("fold", "sha256")  # columns of split.csv that evalcam fills itself


@dataclass(frozen=True)
class Manifest:
    """What a manifest says, checked against the disk."""

    samples: tuple[Sample, ...]
    """In the order of the rows."""
    extra_columns: tuple[str, ...]
    left_out: tuple[tuple[str, str], ...]
    """(path, reason) of rows that name a symbolic link."""
    notes: tuple[str, ...]


def read_manifest(path: Path) -> Manifest:
    """The rows of a manifest as samples; paths are relative to its folder and spelled as on disk.

    Raises:
        DataError: A row cannot be used; the message names it.
    """
    table = read_table(path, ("path", "label"))
    extra_columns = tuple(name for name in table.columns if name not in _OWN + _SPLIT_ONLY)
    if not all(extra_columns):
        raise DataError(f"{table.place}, row 1: a column has no name")
    rows, left_out = _on_disk(table, list(_samples(table, extra_columns)), path.parent)
    samples, doubled = _without_doubles(table, rows)
    _refuse_half_division(table, samples)
    notes = []
    if doubled:
        notes.append(f"{counted(len(doubled), 'row')} repeat an image and are dropped ({listed(doubled)})")
    unused = [name for name in _SPLIT_ONLY if name in table.columns]
    if unused:
        notes.append(f"the manifest's columns {listed(unused)} are not used")
    return Manifest(tuple(sample for _, sample in samples), extra_columns, tuple(left_out), tuple(notes))


def _samples(table: Table, extra_columns: Sequence[str]) -> Iterator[tuple[int, Sample]]:
    """Each row as it stands, with its number."""
    extras = [table.columns.index(name) for name in extra_columns]
    columns = (table.column(name) for name in _OWN)
    for (number, cells), path, label, set_name, group in zip(table.rows, *columns, strict=True):
        tidy = inside(path)
        if not path:
            raise table.fault(number, "the path is empty")
        if tidy is None:
            raise table.fault(number, f"the path {shown(path)[:200]!r} leaves the data folder")
        if not label:
            raise table.fault(number, f"{shown(path)[:200]} has no label")
        if set_name.strip() and set_name.strip().lower() not in SET_NAMES:
            hint = did_you_mean(set_name, SET_NAMES) or "; expected train, val or test"
            raise table.fault(number, f"unknown set {shown(set_name)[:80]!r}{hint}")
        extra = tuple(cells[index] for index in extras)
        yield number, Sample(tidy, label, SET_NAMES.get(set_name.strip().lower(), ""), group, extra=extra)


def _on_disk(
    table: Table, rows: Sequence[tuple[int, Sample]], root: Path
) -> tuple[list[tuple[int, Sample]], list[tuple[str, str]]]:
    """The rows whose file is there, spelled as on disk, and the links left out."""
    index = DiskIndex(root)
    kept, left_out, missing = [], [], []
    for number, sample in rows:
        path, kind = index.find(sample.path)
        if kind == FILE:
            kept.append((number, sample.at(path)))
        elif kind == LINK:
            # not `Path.resolve`, which fails on links that lead round in a circle
            if not Path(os.path.realpath(root / path)).is_relative_to(os.path.realpath(root)):
                raise table.fault(number, f"the path {shown(path)[:200]!r} leaves the data folder by a symbolic link")
            left_out.append((path, kind))
        else:
            missing.append(f"row {number}: {shown(path)[:200]}" + (f" is {kind}" if kind else ""))
    if missing:
        raise DataError(
            f"{len(missing):,} of {counted(len(rows), 'file')} named in {table.place} cannot be used:\n"
            + "\n".join(missing[:3])
            + "\npaths are relative to the manifest's folder and must name regular files"
        )
    return kept, left_out


def _without_doubles(table: Table, rows: Sequence[tuple[int, Sample]]) -> tuple[list[tuple[int, Sample]], list[str]]:
    first: dict[str, tuple[int, Sample]] = {}
    doubled = []
    for number, sample in rows:
        before, other = first.setdefault(sample.path, (number, sample))
        if before == number:
            continue
        for name, mine, its in (
            ("labels", sample.label, other.label),
            ("sets", sample.set, other.set),
            ("groups", sample.group, other.group),
        ):
            if mine != its:
                raise table.fault(
                    number,
                    f"{shown(sample.path)[:200]} has two {name}: {shown(its)[:80]!r} in row {before}, "
                    f"here {shown(mine)[:80]!r}",
                )
        doubled.append(f"row {number}")
    return list(first.values()), doubled


def _refuse_half_division(table: Table, samples: Sequence[tuple[int, Sample]]) -> None:
    if any(sample.set for _, sample in samples):
        for number, sample in samples:
            if not sample.set:
                raise table.fault(number, f"{shown(sample.path)[:200]} has no set although other rows have one")
