"""Images taken in: decoded, and cleared of leaks or refused, with a report of everything that is wrong."""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from evalcam_cli.config import RunConfig
from evalcam_cli.data.identity import Identity, identify
from evalcam_cli.data.images import REMARKS
from evalcam_cli.data.leakage import LEAK_COLUMNS, TWO_LABELS, Leak, drop_leaks, find_conflicts, leak_sentences
from evalcam_cli.data.samples import Sample
from evalcam_cli.documents import write_csv
from evalcam_cli.errors import DataError, UsageError
from evalcam_cli.progress import Progress
from evalcam_cli.text import counted, listed, shown
from evalcam_cli.writing import make_folder, sweep_abandoned

_log = logging.getLogger("evalcam")
LEAKS, UNREADABLE = "leaks.csv", "unreadable.csv"
LeakFinder = Callable[[Sequence[Sample], Mapping[str, Identity]], tuple[Leak, ...]]


@dataclass(frozen=True)
class Images:
    """Samples on their way into a split."""

    root: Path
    samples: tuple[Sample, ...]
    identities: dict[str, Identity]
    left_out: tuple[tuple[str, str], ...]


class Notes(list[str]):
    """What was said, also to the log."""

    def say(self, message: str) -> None:
        _log.info(message)
        self.append(message)

    def warn(self, message: str) -> None:
        _log.warning(message)
        self.append(message)


def read_images(
    root: Path,
    samples: Sequence[Sample],
    config: RunConfig,
    report_beside: Path | None,
    progress: Progress,
    notes: Notes,
) -> Images:
    """Decode every image; those that cannot be read stop the run or, when so many are allowed, are left out."""
    paths = [sample.path for sample in samples]
    identities, unreadable = identify(root, paths, max_pixels=config.data.max_pixels, progress=progress)
    settle_unreadable(unreadable, len(paths), config, report_beside, notes.warn)
    tell_remarks(identities, notes.warn)
    kept = tuple(_with_hash(sample, identities) for sample in samples if sample.path in identities)
    refuse_vanished(samples, kept, "no readable images")
    left_out = tuple((path, f"unreadable: {reason}") for path, reason in unreadable.items())
    return Images(root, kept, identities, left_out)


def _with_hash(sample: Sample, identities: Mapping[str, Identity]) -> Sample:
    sha256 = identities[sample.path].sha256
    return sample if sample.sha256 == sha256 else replace(sample, sha256=sha256)


def settle_unreadable(
    unreadable: Mapping[str, str],
    total: int,
    config: RunConfig,
    report_beside: Path | None,
    warn: Callable[[str], None] = _log.warning,
) -> None:
    """List unreadable images in `unreadable.csv` beside the output, and refuse to go on when there are too many.

    Raises:
        DataError: More than `data.allow_unreadable` of `total` images are unreadable, or all.
    """
    if not unreadable:
        return
    place = write_report(report_beside, UNREADABLE, ("path", "reason"), list(unreadable.items()))
    first = "\n".join(f"{shown(path)[:200]}: {reason}" for path, reason in list(unreadable.items())[:3])
    message = f"{len(unreadable):,} of {counted(total, 'image')} cannot be read"
    if len(unreadable) > config.data.allow_unreadable or len(unreadable) == total:
        raise DataError(
            f"{message}:\n{first}\n{f'all are listed in {place}; ' if place else ''}mend or remove them, "
            f"or go on without them: --allow-unreadable {len(unreadable)}"
        )
    warn(f"{message} and are left out: {listed(unreadable)}")


def tell_remarks(identities: Mapping[str, Identity], warn: Callable[[str], None] = _log.warning) -> None:
    """Say which images are used in part only, as the first frame of an animation."""
    for remark in REMARKS:
        paths = [path for path, identity in identities.items() if identity.remark == remark]
        if paths:
            warn(f"{counted(len(paths), 'image')} with {remark}: {listed(paths)}")


def unchanged_images(
    root: Path,
    samples: Sequence[Sample],
    config: RunConfig,
    report_beside: Path | None,
    progress: Progress,
    *,
    noun: str = "image",
) -> tuple[list[Sample], dict[str, Identity]]:
    """The samples that can be read, all as they were when the split was made, with what they are by path.

    Raises:
        DataError: Too many are unreadable (`settle_unreadable`), or one was changed.
    """
    paths = [sample.path for sample in samples]
    identities, unreadable = identify(root, paths, max_pixels=config.data.max_pixels, progress=progress)
    settle_unreadable(unreadable, len(samples), config, report_beside)
    tell_remarks(identities)
    there = [sample for sample in samples if sample.path in identities]
    changed = [one.path for one in there if one.sha256 and one.sha256 != identities[one.path].sha256]
    if changed:
        raise DataError(
            f"{counted(len(changed), noun)} changed since the split was made ({listed(changed)});\n"
            "restore the images, or make a new split"
        )
    return there, identities


def refuse_vanished(before: Sequence[Sample], after: Sequence[Sample], why: str) -> None:
    lost = sorted({sample.label for sample in before} - {sample.label for sample in after})
    if lost:
        raise DataError(f"{counted(len(lost), 'class')} with {why}: {listed(lost)}; add images or remove the class")
    trained = {sample.label for sample in after if sample.set == "train"}
    untrained = sorted({sample.label for sample in after if sample.set} - trained) if trained else []
    if untrained:
        raise DataError(
            f"{counted(len(untrained), 'class')} in val or test without training images: {listed(untrained)}"
        )


def settle_leaks(
    images: Images, config: RunConfig, find: LeakFinder, report_beside: Path | None, notes: Notes
) -> Images:
    """Refuse, drop or allow images that leak and copies under two labels, as `split.leaks` says; all are reported."""
    policy = config.split.leaks
    conflicts = find_conflicts(images.samples, images.identities)
    leaks = find(images.samples, images.identities)
    if not leaks and not conflicts:
        return images
    place = write_report(report_beside, LEAKS, LEAK_COLUMNS, [leak.row() for leak in leaks + conflicts])
    sentences = leak_sentences(images.samples, leaks) + _conflict_sentences(conflicts)
    if policy == "refuse":
        raise DataError("\n".join([*sentences[:4], *_ways_out(bool(leaks), place)]))
    for sentence in sentences:
        notes.warn(sentence)
    if policy != "drop":
        notes.warn("they are kept as asked" if leaks else "copies are kept in one set")
        return images
    samples, dropped = drop_leaks(images.samples, conflicts)
    samples, more = drop_leaks(samples, find(samples, images.identities))
    refuse_vanished(images.samples, samples, "no images left once leaks are dropped")
    notes.warn(f"{counted(len(dropped + more), 'image')} dropped")
    identities = {sample.path: images.identities[sample.path] for sample in samples}
    return replace(images, samples=samples, identities=identities, left_out=images.left_out + dropped + more)


def _conflict_sentences(conflicts: Sequence[Leak]) -> list[str]:
    if not conflicts:
        return []
    pairs = [f"{leak.path} and {leak.other}" for leak in conflicts]
    return [f"{counted(len(conflicts), 'image')} have a pixel copy under another label ({TWO_LABELS}): {listed(pairs)}"]


def _ways_out(leaks: bool, place: str) -> list[str]:
    ways = [f"all are listed in {place}"] if place else []
    if leaks:
        ways.append("--drop-leaks leaves such images out of val and test, --resplit ignores the given division,")
        ways.append("--allow-leaks goes on with it as it is")
    else:
        ways.append(
            "remove the wrong ones, or use --drop-leaks to leave out all their copies, --allow-leaks to keep them"
        )
    return ways


def write_report(beside: Path | None, name: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Write a CSV report in the folder that holds the output; its absolute path, or nothing when there is none.

    Raises:
        UsageError: A file of that name is there and evalcam did not write it.
    """
    if beside is None:
        return ""
    path = beside.parent / name
    own = path.is_file() and not path.is_symlink() and _first_line(path) == ",".join(header)
    if os.path.lexists(path) and not own:
        raise UsageError(f"{shown(path.absolute())} is there already and evalcam did not write it; move it away")
    make_folder(path.parent)
    write_csv(path, header, rows)
    return shown(path.absolute())


def _first_line(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return stream.readline(1000).decode(errors="replace").rstrip("\r\n")
    except OSError:
        return ""


def place_for(out: Path) -> None:
    """Make the folder of a file to be written, and remove what killed processes left of it and of its reports.

    Raises:
        MachineError: The system reports a fault.
        UsageError: A file stands in the way.
    """
    make_folder(out.parent)
    sweep_abandoned(out, *(out.parent / name for name in (LEAKS, UNREADABLE)))
