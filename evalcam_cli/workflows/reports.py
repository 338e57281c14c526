"""Images that cannot be read, in commands that only look at them."""

import logging
from collections.abc import Mapping
from pathlib import Path

from evalcam_cli.errors import DataError
from evalcam_cli.text import counted, listed
from evalcam_cli.workflows.intake import write_report

log = logging.getLogger("evalcam")


def settle_unreadable(unreadable: Mapping[str, str], out: Path | None, allowed: int) -> None:
    """List unreadable images in `unreadable.csv` beside `out`, and refuse to go on when there are too many.

    Raises:
        DataError: More than `allowed` images are unreadable; the message names the first three.
    """
    if not unreadable:
        return
    place = write_report(out, "unreadable.csv", ("path", "reason"), list(unreadable.items()))
    first = listed(f"{path} ({reason})" for path, reason in unreadable.items())
    what = f"{counted(len(unreadable), 'image')} cannot be read: {first}"
    if len(unreadable) > allowed:
        raise DataError(
            f"{what};\nall are listed in {place}; mend or remove them,\n"
            f"or go on without them: --allow-unreadable {len(unreadable)}"
        )
    log.warning("%s; left out, listed in %s", what, place)
