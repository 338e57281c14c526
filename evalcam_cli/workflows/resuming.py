"""Where a run that was begun goes on: from its last state, or from the one before it when that one is damaged."""

import logging
from pathlib import Path

from evalcam_cli.errors import CheckpointError, UsageError
from evalcam_cli.files import OutputFolder
from evalcam_cli.models.checkpoint import Stored, load_checkpoint
from evalcam_cli.text import shown
from evalcam_cli.training.position import require_state
from evalcam_cli.workflows.training_run import BEST, LAST, PREVIOUS
from evalcam_cli.writing import put_back

log = logging.getLogger("evalcam")


def is_begun(folder: Path) -> bool:
    """Whether a run folder holds a state to go on from, be it damaged."""
    return any((folder / name).exists() for name in (LAST, PREVIOUS))


def stored_run(folder: OutputFolder) -> Stored:
    """The state that a begun run goes on from.

    That is the last one; when it is damaged, or when the best weights are and were made after the previous one, it is
    the previous one, which leads to the same bits. `last.safetensors` is then what was taken.

    Raises:
        CheckpointError: What is damaged cannot be made again.
    """
    last = _read_state(folder.path / LAST)
    fault = _best_fault(folder.path, last) if isinstance(last, Stored) else last
    if fault is None and isinstance(last, Stored):
        return last
    previous = _read_state(folder.path / PREVIOUS) if (folder.path / PREVIOUS).exists() else None
    if not isinstance(previous, Stored) or not _leads_to_best(folder.path, previous, last):
        raise CheckpointError(f"{fault};\nrestore it, or start anew with another --out")
    log.warning("%s", fault)
    log.warning("going on with the state before it, %s", shown(folder.path / PREVIOUS))
    put_back(folder.claim(LAST), folder.path / PREVIOUS)
    return previous


def _read(path: Path) -> Stored | CheckpointError:
    try:
        return load_checkpoint(path)
    except UsageError as error:  # it is not there
        return CheckpointError(str(error))
    except CheckpointError as error:
        return error


def _read_state(path: Path) -> Stored | CheckpointError:
    """As `_read`, of a file that a run can go on from."""
    stored = _read(path)
    try:
        if isinstance(stored, Stored):
            require_state(stored.training_document.get("state"))
    except CheckpointError as error:
        return CheckpointError(f"{shown(path.absolute())} cannot be gone on from: {error}")
    return stored


def _best_fault(folder: Path, stored: Stored) -> CheckpointError | None:
    """What is wrong with the best weights that a state needs to be there."""
    if not _best_epoch(stored):
        return None
    best = _read(folder / BEST)
    return best if isinstance(best, CheckpointError) else None


def _leads_to_best(folder: Path, previous: Stored, last: Stored | CheckpointError) -> bool:
    """Whether the best weights are whole, or will be made again on the way on from the previous state."""
    again = isinstance(last, Stored) and _best_epoch(last) > previous.training_document["state"]["epoch"]
    return again or _best_fault(folder, previous) is None


def _best_epoch(stored: Stored) -> int:
    """The epoch, from 1, of the best weights that a state knows of; 0 for none."""
    return int(stored.training_document["state"]["best"]["epoch"])
