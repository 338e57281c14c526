"""The training and validation images of a split file, its test images unopened."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from evalcam_cli.config import RunConfig
from evalcam_cli.data.disk import nfc
from evalcam_cli.data.leakage import find_leaks
from evalcam_cli.data.split_file import located, read_split
from evalcam_cli.errors import DataError, UsageError
from evalcam_cli.files import refuse_inside
from evalcam_cli.progress import Progress, silent
from evalcam_cli.text import counted, listed, shown
from evalcam_cli.workflows.intake import Images, Notes, settle_leaks, unchanged_images
from evalcam_cli.workflows.split import PreparedSplit


def load_training_part(
    path: Path, sets: Sequence[str], *, data: Path | None, config: RunConfig, report_beside: Path,
    progress: Progress = silent,
) -> PreparedSplit:  # fmt: skip
    """As `load_split`, but only the images of some sets are opened: found, unchanged and decoded.

    The split keeps the rows of the other sets as they stand in the file; their images have no identities here.

    Args:
        path: The CSV.
        sets: Such as train and val; each must have images.
        data: The data folder here; by default the one recorded.
        config: Its `data` and `split.leaks` count.
        report_beside: The output; `leaks.csv` and `unreadable.csv` are written in the folder that holds it.
        progress: Told `reading images`.

    Raises:
        UsageError: The file or the data folder is not there, or the split has folds.
        DataError: Images are missing, changed or unreadable, or an edited split leaks between these sets.
    """
    split, edited = read_split(path, root=data)
    refuse_inside(report_beside, [split.root])
    if split.folds is not None:
        raise UsageError(
            f"{shown(path.absolute())} has {split.folds} folds; give one with train and val, as `evalcam split` makes"
        )
    for name in sets:
        if not split.subset(name):
            raise DataError(f"{shown(path.absolute())} has no {name} images; make a split that has some")
    part = replace(split, samples=tuple(sample for sample in split.samples if sample.set in sets))
    found, missing = located(part)
    if missing:
        raise DataError(
            f"{counted(len(missing), 'image')} of {shown(path.absolute())} are not there in "
            f"{shown(split.root.absolute())}: {listed(missing)};\nname the folder with DATA, or make a new split"
        )
    there, identities = unchanged_images(split.root, found, config, report_beside, progress)
    samples = [replace(sample, sha256=identities[sample.path].sha256) for sample in there]
    notes = Notes()
    if edited:
        notes.warn(
            f"{shown(path.absolute())} was edited, or has no JSON file beside it; {' and '.join(sets)} are checked"
        )
        images = Images(split.root, tuple(samples), identities, ())
        samples = list(settle_leaks(images, config, find_leaks, report_beside, notes).samples)
    others = [sample for sample in split.samples if sample.set not in sets]
    kept = sorted([*samples, *others], key=lambda sample: (nfc(sample.path), sample.path))
    return PreparedSplit(replace(split, samples=tuple(kept)), identities, tuple(notes))
