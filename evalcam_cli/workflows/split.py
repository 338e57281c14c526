"""From DATA to an honest division: list, group, identify, check for leaks, divide, write - and read it back."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from evalcam_cli.config import RunConfig
from evalcam_cli.data.disk import FILE, nfc, walk
from evalcam_cli.data.groups import with_groups
from evalcam_cli.data.identity import Identity, hash_files, identify
from evalcam_cli.data.images import is_candidate
from evalcam_cli.data.leakage import GROUP, Leak, find_crossings, find_leaks
from evalcam_cli.data.listing import Listing, list_samples
from evalcam_cli.data.manifest import read_manifest
from evalcam_cli.data.samples import SETS, Sample, Split, sorted_classes
from evalcam_cli.data.split_file import (
    is_repeat_column,
    is_split_file,
    json_path,
    located,
    read_split,
    recorded_classes,
    write_split,
)
from evalcam_cli.data.splitting import assign, units
from evalcam_cli.errors import DataError, UsageError
from evalcam_cli.files import refuse_inside
from evalcam_cli.progress import Progress, silent
from evalcam_cli.text import counted, listed, shown
from evalcam_cli.workflows.intake import Images, Notes, place_for, read_images, settle_leaks

VAL_SHARE = 0.15
"""Of the training part, where DATA or a fold's round brings no validation images of its own."""

_log = logging.getLogger("evalcam")


@dataclass(frozen=True)
class PreparedSplit:
    """A division ready for use."""

    split: Split
    identities: dict[str, Identity]
    """By path, of every sample of the split."""
    notes: tuple[str, ...] = ()
    """What was said on the way, for reports."""


def make_split(
    data: Path,
    config: RunConfig,
    *,
    report_beside: Path,
    explicit_ratios: bool = False,
    progress: Progress = silent,
) -> PreparedSplit:
    """Divide DATA as the config says, or check and keep the division that it brings.

    Args:
        data: Class folders, divided folders or a manifest.
        config: Its `seed`, `data` and `split` count.
        report_beside: The output; `leaks.csv` and `unreadable.csv` are written in the folder that holds it.
        explicit_ratios: The user asked for `split.ratios`, which a given division contradicts.
        progress: Told `reading images`.

    Raises:
        UsageError: DATA is not there, or what is asked for contradicts it.
        DataError: DATA leaks, is unreadable or cannot be divided so.
    """
    notes = Notes()
    if config.split.repeats > 1 and config.split.folds is None:
        raise UsageError("split.repeats is for cross-validation folds; add --folds K (config split.folds)")
    listing = list_samples(data)
    refuse_inside(report_beside, [listing.root])
    given = listing.divided and config.split.leaks != "resplit"
    if explicit_ratios and config.split.folds is not None:
        raise UsageError("choose one of --ratios and --folds; folds are equally large")
    if given and explicit_ratios:
        raise UsageError(
            f"{shown(data.absolute())} comes divided, so ratios have no effect; add --resplit to ignore its division"
        )
    _refuse_repeat_columns(listing, config)
    for note in listing.notes:
        notes.warn(note)
    grouped = with_groups(listing, config.split.group_by, config.split.ungrouped)
    for note in grouped.notes[len(listing.notes) :]:
        notes.say(note)
    images = read_images(grouped.root, _pooled(grouped, given, config), config, report_beside, progress, notes)
    images = settle_leaks(images, config, find_leaks, report_beside, notes)
    samples = _divide(images, given, config, notes)
    split = Split(
        root=listing.root,
        samples=samples,
        classes=sorted_classes(samples),
        seed=config.seed,
        ratios=None if given or config.split.folds else config.split.ratios,
        folds=config.split.folds,
        repeats=config.split.repeats,
        extra_columns=listing.extra_columns,
        left_out=listing.left_out + images.left_out,
        source=listing.source,
    )
    _warn_of_absent(split, notes)
    return PreparedSplit(split, images.identities, tuple(notes))


def _refuse_repeat_columns(listing: Listing, config: RunConfig) -> None:
    taken = [name for name in listing.extra_columns if is_repeat_column(name)]
    if config.split.folds is not None and taken:
        raise DataError(
            f"{shown(listing.source)} has the column {listed(map(repr, taken))}, which in a split file is a further "
            "division into folds;\nrename it"
        )


def _pooled(listing: Listing, given: bool, config: RunConfig) -> tuple[Sample, ...]:
    """The samples with the sets that will be respected: none of a division to be ignored, no val beside folds."""
    if not given:
        return tuple(replace(sample, set="") if sample.set else sample for sample in listing.samples)
    if config.split.folds is None:
        return listing.samples
    return tuple(replace(sample, set="train") if sample.set == "val" else sample for sample in listing.samples)


def _divide(images: Images, given: bool, config: RunConfig, notes: Notes) -> tuple[Sample, ...]:
    samples, identities, folds = images.samples, images.identities, config.split.folds
    if folds is not None:
        fixed = [sample for sample in samples if sample.set == "test"]
        free = [sample for sample in samples if sample.set != "test"]
        if fixed:
            notes.say(f"{counted(len(fixed), 'image')} stay the test set of every fold, as DATA comes divided")
        together = units(free, identities)
        seeds: list[int | str] = [
            config.seed,
            *(f"{config.seed}/repeat {repeat}" for repeat in range(1, config.split.repeats)),
        ]
        divisions = [assign(free, together, [1] * folds, seed=seed, parts="folds") for seed in seeds]
        in_folds = [
            replace(sample, set="", fold=first, more_folds=tuple(more))
            for sample, first, *more in zip(free, *divisions, strict=True)
        ]
        return _in_order(samples, in_folds + fixed)
    if not given:
        ratios = config.split.ratios
        chosen = assign(samples, units(samples, identities), ratios, seed=config.seed, parts="sets")
        return tuple(replace(sample, set=SETS[part]) for sample, part in zip(samples, chosen, strict=True))
    if not any(sample.set == "test" for sample in samples):
        notes.warn("DATA has no test images: the split has none, so there will be nothing to evaluate")
    if any(sample.set == "val" for sample in samples):
        return samples
    train = [sample for sample in samples if sample.set == "train"]
    drawn = with_validation(train, identities, config.seed)
    count = sum(sample.set == "val" for sample in drawn)
    notes.say(f"DATA has no val images: {count:,} of its {counted(len(train), 'training image')} are taken for it")
    return _in_order(samples, [*drawn, *(sample for sample in samples if sample.set == "test")])


def with_validation(
    samples: Sequence[Sample], identities: Mapping[str, Identity] | None, seed: int | str
) -> list[Sample]:
    """The samples as `train` and, for 15 % of them (stratified, groups and copies together), `val`."""
    parts = assign(samples, units(samples, identities), [1 - VAL_SHARE, VAL_SHARE], seed=seed, parts="sets")
    return [replace(sample, set=SETS[part]) for sample, part in zip(samples, parts, strict=True)]


def _in_order(order: Sequence[Sample], changed: Sequence[Sample]) -> tuple[Sample, ...]:
    by_path = {sample.path: sample for sample in changed}
    return tuple(by_path[sample.path] for sample in order)


def _warn_of_absent(split: Split, notes: Notes) -> None:
    for part, counts in split.counts().items():
        absent = [label for label, count in counts.items() if not count]
        if absent:
            notes.warn(f"the {part} set has no images of {listed(absent, 5)}")


def fold_round(split: Split, number: int, identities: Mapping[str, Identity] | None, seed: int) -> Split:
    """The split of one cross-validation round: its fold is `test`, 15 % of the others `val`, the rest `train`.

    Images of a fixed test set stay out of the round, untouched for a last evaluation.

    Args:
        split: With folds.
        number: Of the round, from 0: repeat * folds + fold.
        identities: To keep copies together; without them equal bytes are recognised by sha256 only.
        seed: Of the draw of validation images, together with the number.

    Raises:
        UsageError: The split has no such round.
    """
    if split.folds is None:
        raise UsageError("the split has no folds; make one with `evalcam split DATA --folds K`")
    if not 0 <= number < split.rounds:
        repeated = "" if split.repeats == 1 else f" ({split.repeats} divisions into {split.folds} folds)"
        raise UsageError(f"there is no fold {number}; the split has the folds 0 to {split.rounds - 1}{repeated}")
    fixed = [sample for sample in split.samples if sample.fold is None]
    if fixed:
        _log.info("%s of the fixed test set stay out of fold %d", counted(len(fixed), "image"), number)
    repeat, fold = divmod(number, split.folds)
    test = [replace(sample, set="test") for sample in split.samples if sample.fold_in(repeat) == fold]
    others = [sample for sample in split.samples if sample.fold_in(repeat) not in (fold, None)]
    drawn = with_validation(others, identities, f"{seed}/fold {number}")
    order = [sample for sample in split.samples if sample.fold is not None]
    return replace(split, samples=_in_order(order, test + drawn))


def chosen_round(prepared: PreparedSplit, number: int, seed: int) -> PreparedSplit:
    """One cross-validation round of a split that has been checked.

    Raises:
        UsageError: The split has no such round.
    """
    if prepared.split.folds is None:
        raise UsageError(f"--fold {number}: the split has no folds; make some with --folds K")
    return replace(prepared, split=fold_round(prepared.split, number, prepared.identities, seed))


def write_split_file(prepared: PreparedSplit, out: Path, *, overwrite: bool = False) -> None:
    """Write `out` and the JSON file beside it, whole or not at all; folders in between are made.

    Raises:
        UsageError: The place is taken or lies in the data folder.
        MachineError: It is not writable.
    """
    refuse_bad_out(out, overwrite=overwrite)
    refuse_inside(out, [prepared.split.root])
    place_for(out)
    write_split(prepared.split, out)


def refuse_bad_out(out: Path, *, overwrite: bool = False) -> None:
    """Refuse a place for a split file before any work is done.

    Raises:
        UsageError: It is a folder, ends in .json, or is taken - by anything, or with `overwrite` by a stranger's file.
    """
    if out.suffix.lower() == ".json":
        raise UsageError(f"--out {shown(out.absolute())} names the CSV file; the JSON file is written beside it")
    for path in (out, json_path(out)):
        if path.is_dir():
            raise UsageError(f"--out {shown(path.absolute())} is a folder; name a file such as split.csv")
        if path.is_symlink() or path.exists():
            if not overwrite:
                raise UsageError(f"{shown(path.absolute())} is there already; use --overwrite or another --out")
            if not is_split_file(path):
                raise UsageError(f"{shown(path.absolute())} is there already and evalcam did not write it")


def load_split(
    path: Path,
    *,
    data: Path | None,
    config: RunConfig,
    report_beside: Path | None = None,
    progress: Progress = silent,
) -> PreparedSplit:
    """A split file taken up again, every image found, unchanged and decoded.

    One that was edited, or that has no JSON file beside it, is checked for leaks as a given division is.

    Args:
        path: The CSV.
        data: The data folder (or manifest) here; by default the one recorded.
        config: Its `data` and `split.leaks` count.
        report_beside: The output; `leaks.csv` and `unreadable.csv` are written in the folder that holds it.
        progress: Told `reading images`.

    Raises:
        UsageError: The file or the data folder is not there.
        DataError: Images are missing, changed or unreadable, or an edited split leaks.
    """
    notes = Notes()
    split, edited = read_split(path, root=data)
    if report_beside is not None:
        refuse_inside(report_beside, [split.root])
    if edited:
        recorded = recorded_classes(path)
        notes.warn(
            f"{shown(path.absolute())} {'was edited' if recorded else 'has no JSON file beside it'}; checked again"
        )
        if recorded and recorded != split.classes:
            notes.warn(f"its classes are now {listed(split.classes, 8)}")
    found, missing = located(split)
    _refuse_lost(missing, len(split.samples), "are not there", split.root)
    images = read_images(split.root, found, config, report_beside, progress, notes)
    recorded_hashes = {sample.path: sample.sha256 for sample in found}
    changed = [s.path for s in images.samples if recorded_hashes[s.path] not in ("", s.sha256)]
    _refuse_lost(changed, len(split.samples), "have changed since the split was made", split.root)
    if edited:
        images = settle_leaks(
            images, config, partial(_crossings, split) if split.folds else find_leaks, report_beside, notes
        )
    split = replace(split, samples=images.samples, left_out=split.left_out + images.left_out)
    return PreparedSplit(split, images.identities, tuple(notes))


def _refuse_lost(paths: Sequence[str], total: int, what: str, root: Path) -> None:
    if paths:
        raise DataError(
            f"{len(paths):,} of {counted(total, 'image')} of the split {what} in {shown(root.absolute())}:\n"
            f"{listed(paths)};\nbring back the data of the split, name its folder with --data, or make a new split"
        )


@dataclass(frozen=True)
class SplitCheck:
    """How a split file compares with the disk and with itself; all empty when it holds."""

    missing: tuple[str, ...]
    """Paths that are no regular files on the disk."""
    changed: tuple[str, ...]
    """Paths whose bytes are not those recorded."""
    added: tuple[str, ...]
    """Images in the data folder (or its manifest) that the split neither lists nor left out."""
    crossing_groups: tuple[str, ...]
    """Images in another set or fold than the first image of their group, as `a.png (test) and b.png (train)`."""
    crossing_copies: tuple[str, ...]
    """Images in another set or fold than the first copy of them, likewise."""


def check_split(path: Path, *, data: Path | None, config: RunConfig, progress: Progress = silent) -> SplitCheck:
    """Compare a split file with the images on disk and look for groups and copies that cross its sets.

    Raises:
        UsageError: The file or the data folder is not there.
        DataError: The file is no split.
    """
    split, _ = read_split(path, root=data)
    found, missing = located(split)
    paths = [sample.path for sample in found]
    identities, unreadable = identify(split.root, paths, max_pixels=config.data.max_pixels, progress=progress)
    hashes = hash_files(split.root, list(unreadable)) | {path: same.sha256 for path, same in identities.items()}
    changed = [sample.path for sample in found if sample.sha256 and hashes.get(sample.path) != sample.sha256]
    crossings = _crossings(split, found, identities)
    return SplitCheck(
        missing=tuple(missing),
        changed=tuple(changed),
        added=tuple(_added(split, data)),
        crossing_groups=tuple(_pair(leak) for leak in crossings if leak.kind == GROUP),
        crossing_copies=tuple(_pair(leak) for leak in crossings if leak.kind != GROUP),
    )


def _crossings(split: Split, samples: Sequence[Sample], identities: Mapping[str, Identity]) -> tuple[Leak, ...]:
    """What `find_crossings` finds in each division into folds; a fold of a further division by its round's number."""
    found: dict[tuple[object, ...], Leak] = {}
    for repeat in range(split.repeats):
        begin = repeat * (split.folds or 0)
        divided = [
            sample if sample.fold is None else replace(sample, fold=begin + (sample.fold_in(repeat) or 0))
            for sample in samples
        ]
        for leak in find_crossings(divided, identities):
            found.setdefault((leak.path, leak.kind, leak.set, leak.other_set), leak)
    return tuple(found.values())


def _pair(leak: Leak) -> str:
    return f"{leak.path} ({leak.set}) and {leak.other} ({leak.other_set})"


def _added(split: Split, data: Path | None) -> list[str]:
    known = {nfc(sample.path) for sample in split.samples} | {nfc(path) for path, _ in split.left_out}
    manifest = data if data is not None and data.is_file() else split.root / split.source
    if manifest.is_file():
        present = [sample.path for sample in read_manifest(manifest).samples]
    else:
        names = (path for path, kind in walk(split.root, "") if kind == FILE)
        present = sorted(path for path in names if is_candidate(path.rpartition("/")[2]))
    return [path for path in present if nfc(path) not in known]
