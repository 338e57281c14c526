"""Lists that stand beside `--out`: unreadable images and leaks."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from evalcam_cli.errors import DataError, UsageError
from evalcam_cli.files import csv_bytes, write_csv
from evalcam_cli.text import counted, listed, shown

log = logging.getLogger("evalcam")


def write_beside(out: Path, name: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> Path:
    """Write a list into the folder in which `out` stands; only an older list of the same kind is replaced.

    Raises:
        UsageError: A file of that name is there and evalcam did not write it.
    """
    path = out.parent / name
    if path.exists():
        with path.open("rb") as stream:
            if stream.readline() != csv_bytes(header, []):
                raise UsageError(f"{shown(path.absolute())} is there and evalcam did not write it; move it away")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_csv(path, header, rows)
    return path


def write_unreadable(unreadable: Mapping[str, str], out: Path, allowed: int) -> None:
    """List the unreadable images in `unreadable.csv` beside `out`, and refuse to go on when there are too many.

    Raises:
        DataError: More than `allowed` images are unreadable; the message names the first three.
    """
    listing = write_beside(out, "unreadable.csv", ("path", "reason"), list(unreadable.items()))
    first = listed(f"{path} ({reason})" for path, reason in unreadable.items())
    what = f"{counted(len(unreadable), 'image')} cannot be read: {first}"
    if len(unreadable) > allowed:
        raise DataError(
            f"{what};\nall are listed in {shown(listing.absolute())}; mend or remove them, "
            "or go on without with --allow-unreadable N"
        )
    log.warning("%s; left out, listed in %s", what, shown(listing))
