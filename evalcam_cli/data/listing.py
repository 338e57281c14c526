"""From DATA as the user names it - class folders, divided folders or a manifest - to a list of samples."""

import errno
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from evalcam_cli.data import manifest
from evalcam_cli.data.disk import FILE, FOLDER, HIDDEN, LINK, entries, nfc, walk
from evalcam_cli.data.images import is_candidate
from evalcam_cli.data.repeats import repeated
from evalcam_cli.data.samples import SET_NAMES, Sample, in_order, sorted_classes
from evalcam_cli.errors import DataError, UsageError
from evalcam_cli.text import counted, did_you_mean, listed, shown


@dataclass(frozen=True)
class Listing:
    """The images of DATA, not yet opened."""

    root: Path
    """The folder that the paths are relative to."""
    samples: tuple[Sample, ...]
    """Sorted by the NFC form of the path; each with a set when DATA comes divided, else without."""
    divided: bool
    source: str
    """`folder`, `divided` or the manifest's file name."""
    extra_columns: tuple[str, ...] = ()
    left_out: tuple[tuple[str, str], ...] = ()
    """(path, reason) of what looked like an image and is not used: links, pipes, hidden files."""
    has_group: bool = False
    """The manifest has a column `group` with something in it."""
    notes: tuple[str, ...] = ()
    """What a user should know about how DATA was read."""


def list_samples(data: Path, *, for_training: bool = True) -> Listing:
    """The images of DATA, in whichever of its three forms.

    Args:
        data: A folder of class folders, a folder of sets of class folders, or a CSV manifest.
        for_training: Demand what a classifier needs to learn: two classes, none empty or without training images.

    Raises:
        UsageError: There is nothing of that name.
        DataError: It holds no usable list of images.
    """
    try:
        is_folder, is_there = data.is_dir(), data.exists()
    except (OSError, ValueError) as error:
        raise UsageError(f"the data {shown(data)[:200]} cannot be opened: {_why(error)}") from error
    if not is_there:
        raise UsageError(f"there is no data folder or manifest {shown(data.absolute())}{_nearest(data)}")
    listing = _list_folder(data, for_training) if is_folder else _list_manifest(data)
    if not listing.samples:
        reasons = f" ({counted(len(listing.left_out), 'entry')} left out: {listed(_left(listing))})"
        raise DataError(_no_images(data) + (reasons if listing.left_out else ""))
    if for_training:
        _check_classes(listing, data)
    return replace(
        listing,
        samples=tuple(in_order(listing.samples)),
        notes=(*listing.notes, *_notes(listing)),
    )


def _why(error: OSError | ValueError) -> str:
    return error.strerror or "" if isinstance(error, OSError) and error.errno != errno.EINVAL else "no possible path"


def _nearest(data: Path) -> str:
    return did_you_mean(data.name, [entry.name for entry in data.parent.iterdir()]) if data.parent.is_dir() else ""


def _left(listing: Listing) -> Iterable[str]:
    return (f"{path} is {reason}" for path, reason in listing.left_out)


def _no_images(root: Path) -> str:
    place = shown(root.absolute())
    if not root.is_dir():
        return f"no images in the manifest {place}; expected a row per image under the header path,label"
    return f"no images under {place}; expected {place}/<class>/<image>"


def _list_manifest(data: Path) -> Listing:
    if not data.is_file():
        raise UsageError(f"{shown(data.absolute())} is neither a folder nor a CSV file")
    read = manifest.read_manifest(data)
    return Listing(
        root=data.parent,
        samples=read.samples,
        divided=any(sample.set for sample in read.samples),
        source=data.name,
        extra_columns=read.extra_columns,
        left_out=read.left_out,
        has_group=any(sample.group for sample in read.samples),
        notes=read.notes,
    )


def _list_folder(root: Path, for_training: bool) -> Listing:
    found = {name: kind for name, kind in entries(root).items() if not name.startswith(".")}
    _refuse_loose_images(root, found)
    folders = [name for name, kind in found.items() if kind == FOLDER]
    sets = _set_folders(root, folders)
    left_out = [(name, kind) for name, kind in found.items() if _is_lost_link(root, name, kind)]
    samples: list[Sample] = []
    for folder, set_name in sets.items():
        found_here, left_here = _list_classes(root, folder, set_name, for_training)
        samples += found_here
        left_out += left_here
    if not sets:
        samples, left_here = _list_classes(root, "", "", for_training)
        left_out += left_here
    source = "divided" if sets else "folder"
    return Listing(root, tuple(samples), bool(sets), source, left_out=tuple(left_out))


def _is_lost_link(root: Path, name: str, kind: str) -> bool:
    return kind == LINK and (is_candidate(name) or (root / name).is_dir())


def _refuse_loose_images(root: Path, found: dict[str, str]) -> None:
    loose = [name for name, kind in found.items() if kind == FILE and is_candidate(name)]
    if loose:
        place = shown(root.absolute())
        raise DataError(
            f"{counted(len(loose), 'image')} directly in {place} ({listed(loose)});\n"
            f"move each into a folder named after its class: {place}/<class>/<image>"
        )


def _set_folders(root: Path, folders: list[str]) -> dict[str, str]:
    """The set that each folder stands for, or nothing when the folders are classes.

    A folder named `train` that holds images, not folders, is a class of trains.
    """
    sets = {name: SET_NAMES[name.lower()] for name in folders if name.lower() in SET_NAMES}
    sets = {name: set_name for name, set_name in sets.items() if _holds_folders_only(root / name)}
    others = [name for name in folders if name not in sets]
    if not sets or (len(sets) == 1 and others):
        return {}
    place = shown(root.absolute())
    strangers = [name for name in others if _holds_images(root / name)]
    if strangers:
        raise DataError(f"{place} has sets ({listed(sets)}) and beside them {listed(strangers)}; move those away")
    for set_name, count in Counter(sets.values()).items():
        if count > 1:
            doubled = [name for name, other in sets.items() if other == set_name]
            raise DataError(f"{place} has two folders for the set {set_name} ({listed(doubled)}); keep one")
    if "train" not in sets.values():
        raise DataError(f"{place} has {listed(sets)} but no folder `train` or `Training`")
    return sets


def _holds_folders_only(folder: Path) -> bool:
    found = entries(folder)
    images = any(kind == FILE and is_candidate(name) for name, kind in found.items())
    return not images and FOLDER in found.values()


def _looks_like_image(name: str) -> bool:
    """By its ending, also when it is hidden or nothing but an ending."""
    return is_candidate("x" + name)


def _holds_images(folder: Path) -> bool:
    return any(kind != HIDDEN and is_candidate(path) for path, kind in walk(folder, ""))


def _list_classes(
    root: Path, folder: str, set_name: str, for_training: bool
) -> tuple[list[Sample], list[tuple[str, str]]]:
    """The samples of the class folders in one folder, and what was left out."""
    samples: list[Sample] = []
    left_out: list[tuple[str, str]] = []
    here = root / folder
    prefix = f"{folder}/" if folder else ""
    for label, kind in entries(here).items():
        if label.startswith("."):
            continue
        if kind == LINK and folder and _is_lost_link(here, label, kind):
            left_out.append((prefix + label, kind))
        if kind != FOLDER:
            continue
        before = len(samples)
        for path, inner in walk(here / label, f"{prefix}{label}/"):
            name = path.rpartition("/")[2]
            if inner == FILE and is_candidate(name):
                samples.append(Sample(path, label, set_name))
            elif inner != FILE and (_looks_like_image(name) or _is_lost_link(root, path, inner)):
                left_out.append((path, inner))
        if for_training and len(samples) == before:
            raise DataError(
                f"the class folder {shown((here / label).absolute())} holds no images; add some or remove it"
            )
    return samples, left_out


def _check_classes(listing: Listing, data: Path) -> None:
    classes = sorted_classes(listing.samples)
    place = shown(data.absolute())
    if len(classes) < 2:
        raise DataError(f"{place} has a single class, {shown(classes[0])!r}; a classifier needs two or more")
    if not listing.divided:
        return
    trained = {sample.label for sample in listing.samples if sample.set == "train"}
    for sample in listing.samples:
        if sample.label not in trained:
            raise DataError(
                f"the class {shown(sample.label)!r} of the {sample.set} set has no training images in {place}"
                + did_you_mean(sample.label, trained)
            )


def _notes(listing: Listing) -> Iterable[str]:
    if listing.left_out:
        yield f"{counted(len(listing.left_out), 'file')} left out: {listed(_left(listing))}"
    alike: dict[str, set[str]] = defaultdict(set)
    for label in {sample.label for sample in listing.samples}:
        alike[nfc(label).strip().casefold()].add(label)
    for labels in alike.values():
        if len(labels) > 1:
            yield f"the classes {listed(map(repr, sorted(labels)), 5)} differ only in case, blanks or Unicode form"
    twice = repeated(lambda: (nfc(sample.path).casefold() for sample in listing.samples))
    if twice:
        doubled = [sample.path for sample in listing.samples if nfc(sample.path).casefold() in twice]
        yield f"{counted(len(doubled), 'name')} differ only in case or Unicode form ({listed(doubled)})"
