"""A CSV manifest: `path,label` and optionally `set,group` and further columns, one row per image."""

import os
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from evalcam_cli.data.disk import FILE, LINK, DiskIndex, inside
from evalcam_cli.data.repeats import Shared, repeated
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
    rows, left_out = _on_disk(table, _samples(table, extra_columns), path.parent)
    doubled = _drop_doubles(table, rows)
    _refuse_half_division(table, rows)
    notes = []
    if doubled:
        notes.append(f"{counted(len(doubled), 'row')} repeat an image and are dropped ({listed(doubled)})")
    unused = [name for name in _SPLIT_ONLY if name in table.columns]
    if unused:
        notes.append(f"the manifest's columns {listed(unused)} are not used")
    return Manifest(tuple(rows.samples), extra_columns, tuple(left_out), tuple(notes))


@dataclass
class _Rows:
    """Samples and where they stand; of a million of them there should be one copy."""

    samples: list[Sample] = field(default_factory=list)
    numbers: "array[int]" = field(default_factory=lambda: array("Q"))
    """The row of each sample."""

    def __iter__(self) -> Iterator[tuple[int, Sample]]:
        return zip(self.numbers, self.samples, strict=True)

    def add(self, number: int, sample: Sample) -> None:
        self.samples.append(sample)
        self.numbers.append(number)


def _samples(table: Table, extra_columns: Sequence[str]) -> Iterator[tuple[int, Sample]]:
    """Each row as it stands, with its number."""
    shared = Shared()
    for number, (path, label, set_name, group, *extra) in table.cells(*_OWN, *extra_columns):
        tidy = inside(path)
        if not path:
            raise table.fault(number, "the path is empty")
        if tidy is None:
            raise table.fault(number, f"the path {shown(path)[:200]!r} leaves the data folder")
        if not label:
            raise table.fault(number, f"{shown(path)[:200]} has no label")
        part = set_name.strip().lower()
        if part and part not in SET_NAMES:
            hint = did_you_mean(set_name, SET_NAMES) or "; expected train, val or test"
            raise table.fault(number, f"unknown set {shown(set_name)[:80]!r}{hint}")
        further = tuple(map(shared, extra))
        yield number, Sample(tidy, shared(label), SET_NAMES.get(part, ""), shared(group), extra=further)


def _on_disk(table: Table, rows: Iterable[tuple[int, Sample]], root: Path) -> tuple[_Rows, list[tuple[str, str]]]:
    """The rows whose file is there, spelled as on disk, and the links left out."""
    index = DiskIndex(root)
    kept = _Rows()
    left_out, first_missing, missing = [], [], 0
    for number, sample in rows:
        path, kind = index.find(sample.path)
        if kind == FILE:
            kept.add(number, sample.at(path))
        elif kind == LINK:
            # not `Path.resolve`, which fails on links that lead round in a circle
            if not Path(os.path.realpath(root / path)).is_relative_to(os.path.realpath(root)):
                raise table.fault(number, f"the path {shown(path)[:200]!r} leaves the data folder by a symbolic link")
            left_out.append((path, kind))
        else:
            missing += 1
            if missing <= 3:
                first_missing.append(f"row {number}: {shown(path)[:200]}" + (f" is {kind}" if kind else ""))
    if missing:
        total = missing + len(left_out) + len(kept.samples)
        raise DataError(
            f"{missing:,} of {counted(total, 'file')} named in {table.place} cannot be used:\n"
            + "\n".join(first_missing)
            + "\npaths are relative to the manifest's folder and must name regular files"
        )
    return kept, left_out


def _drop_doubles(table: Table, rows: _Rows) -> list[str]:
    """Take out rows that say again what another one said, and name them."""
    twice = repeated(lambda: (sample.path for sample in rows.samples))
    if not twice:
        return []
    first: dict[str, tuple[int, Sample]] = {}
    kept, doubled = _Rows(), []
    for number, sample in rows:
        before, other = first.setdefault(sample.path, (number, sample)) if sample.path in twice else (number, sample)
        if before == number:
            kept.add(number, sample)
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
    rows.samples, rows.numbers = kept.samples, kept.numbers
    return doubled


def _refuse_half_division(table: Table, rows: _Rows) -> None:
    if any(sample.set for sample in rows.samples):
        for number, sample in rows:
            if not sample.set:
                raise table.fault(number, f"{shown(sample.path)[:200]} has no set although other rows have one")
