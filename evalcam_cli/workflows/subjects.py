"""The images that a command looks at: of a run's own split, another split, a data set, or named one by one."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from evalcam_cli.data.disk import FILE, walk
from evalcam_cli.data.images import is_candidate
from evalcam_cli.data.listing import list_samples
from evalcam_cli.data.samples import Sample, Split
from evalcam_cli.data.split_file import fingerprint, located, read_split
from evalcam_cli.errors import DataError, UsageError
from evalcam_cli.text import counted, listed, shown

log = logging.getLogger("evalcam")


@dataclass(frozen=True)
class Subjects:
    """Images to look at."""

    root: Path
    samples: tuple[Sample, ...]
    subset: str
    """`train`, `val`, `test`, or `all` for a data set taken whole."""
    extra_columns: tuple[str, ...] = ()
    split_file: Path | None = None
    """The split that they are a set of."""
    split_fingerprint: str | None = None


def from_split(path: Path, *, data: Path | None, subset: str) -> Subjects:
    """One set of a split file, from the folder it names or from another copy of the data.

    Raises:
        DataError: The set is empty, or the split cannot be used.
    """
    split, edited = read_split(path, root=data)
    if edited:
        log.warning("%s was edited since evalcam wrote it; it is used as it stands", shown(path))
    return _subset(split, subset, path)


def _subset(split: Split, subset: str, path: Path) -> Subjects:
    if split.folds and subset == "test" and not split.subset("test"):
        raise DataError(f"{shown(path.absolute())} has folds and no test set; evaluate the run folders of its rounds")
    here, missing = located(replace(split, samples=split.subset(subset)))
    if missing:
        raise DataError(
            f"{len(missing):,} of {counted(len(split.subset(subset)), 'image')} are not under "
            f"{shown(split.root.absolute())} ({listed(missing)});\nname the data folder here with --data"
        )
    samples = tuple(here)
    if not samples:
        there = ", ".join(f"{counted(sum(row.values()), 'image')} in {part}" for part, row in split.counts().items())
        raise DataError(f"{shown(path.absolute())} has no {subset} images ({there}); choose another --subset")
    return Subjects(split.root, samples, subset, split.extra_columns, path, fingerprint(split.samples))


def from_data(data: Path, subset: str | None) -> Subjects:
    """A data set taken whole, or one set of one that comes divided.

    Raises:
        DataError: There are no such images.
    """
    listing = list_samples(data, for_training=False)
    if subset is None:
        samples = tuple(replace(sample, set=sample.set or "all") for sample in listing.samples)
        return Subjects(listing.root, samples, "all", listing.extra_columns)
    samples = tuple(sample for sample in listing.samples if sample.set == subset)
    if not samples:
        raise DataError(
            f"{shown(data.absolute())} has no {subset} images" + ("" if listing.divided else "; it is not divided")
        )
    return Subjects(listing.root, samples, subset, listing.extra_columns)


def from_run(run: Path | None, place: str, *, subset: str) -> Subjects:
    """One set of the split that a run was trained with.

    Raises:
        UsageError: The checkpoint does not lie in a run folder.
    """
    if run is None or not (run / "split.csv").is_file():
        raise UsageError(
            f"{place} does not lie in a run folder with a split.csv; say what to look at with --split or --data"
        )
    return from_split(run / "split.csv", data=None, subset=subset)


def choose_subjects(
    run: Path | None, place: str, *, split_file: Path | None, data: Path | None, subset: str | None, default: str
) -> Subjects:
    """What a command was asked to look at: a split, a data set, else the run's own split.

    Args:
        run: The run folder of the checkpoint, if it lies in one.
        place: The checkpoint, for messages.
        split_file: As given to `--split`.
        data: As given to `--data`: with a split the place of its images, alone a data set taken whole.
        subset: As given to `--subset`.
        default: The set to take when none was given.
    """
    if split_file is not None:
        return from_split(split_file, data=data, subset=subset or default)
    if data is not None:
        return from_data(data, subset)
    return from_run(run, place, subset=subset or default)


@dataclass(frozen=True, slots=True)
class NamedImage:
    """One image file named on the command line, or found in a folder named there."""

    folder: Path
    """The folder named, or that of the file named."""
    relative: str
    """To the folder it was found in, or its name; POSIX."""
    label: str = ""
    """The name of its class folder when an argument was a folder of class folders."""

    @property
    def path(self) -> Path:
        """As typed."""
        return self.folder / self.relative

    @property
    def file(self) -> Path:
        """The file itself: a symbolic link that the user named is meant, unlike one that lies in a data folder."""
        return self.path.resolve()


def named_images(arguments: Sequence[Path]) -> list[NamedImage]:
    """The files named, and the images in the folders named, in order.

    Raises:
        UsageError: Something named is not there.
        DataError: A folder holds no image.
    """
    found: list[NamedImage] = []
    for argument in arguments:
        if argument.is_dir():
            names = [
                name for name, kind in walk(argument, "") if kind == FILE and is_candidate(PurePosixPath(name).name)
            ]
            if not names:
                raise DataError(f"no images under {shown(argument.absolute())}")
            found += [NamedImage(argument, name, _class_folder(name)) for name in sorted(names)]
        elif argument.exists():
            found.append(NamedImage(argument.parent, argument.name))
        else:
            raise UsageError(f"there is no image {shown(argument.absolute())}")
    if not found:
        raise UsageError("no image named; name files or folders")
    return found


def _class_folder(relative: str) -> str:
    first, slash, _ = relative.partition("/")
    return first if slash else ""


def in_turn(samples: Sequence[Sample], count: int | None) -> list[Sample]:
    """At most `count` samples, taken from each class in turn so that every class is shown."""
    if count is None or count >= len(samples):
        return list(samples)
    by_class: dict[str, list[Sample]] = {}
    for sample in samples:
        by_class.setdefault(sample.label, []).append(sample)
    rounds = max(map(len, by_class.values()))
    turns = [group[turn] for turn in range(rounds) for group in by_class.values() if turn < len(group)]
    chosen = set(map(id, turns[:count]))
    return [sample for sample in samples if id(sample) in chosen]
