"""What an evaluation leaves for the CI system that ran it: a JUnit file, the step's summary, annotations."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from evalcam_cli.errors import UsageError
from evalcam_cli.evaluation.gates import GateResult
from evalcam_cli.evaluation.metrics import Metrics
from evalcam_cli.files import OutputFolder
from evalcam_cli.report.junit import is_junit_file, junit_bytes
from evalcam_cli.report.step_summary import append_step_summary, gate_annotations, step_summary
from evalcam_cli.text import shown
from evalcam_cli.writing import make_folder, write_whole


def refuse_junit_place(path: Path | None, inputs: Iterable[Path], out: Path | None = None) -> None:
    """Find out before the work whether `--junit` can be written.

    Args:
        path: As typed; None when not asked for.
        inputs: Folders that are only read.
        out: The output folder, which need not be there yet.

    Raises:
        UsageError: It is a folder or will be one, lies in an input folder, or a file that is no JUnit file of evalcam's
            is there.
    """
    if path is None:
        return
    place = shown(path.absolute())
    try:
        if path.is_dir():
            raise UsageError(f"--junit {place} is a folder; name a file")
        if os.path.lexists(path) and not is_junit_file(path):
            raise UsageError(f"--junit {place} is there already and evalcam did not write it; move it away")
        resolved = path.resolve()
        if out is not None and out.resolve().is_relative_to(resolved):
            raise UsageError(f"--junit {place} is the output folder; name a file, e.g. {place}/junit.xml")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"--junit {place[:300]} cannot be used: {reason}") from error
    for folder in inputs:
        if folder.is_dir() and resolved.is_relative_to(folder.resolve()):
            raise UsageError(f"--junit {place} lies in the data folder, which evalcam never writes to; choose another")


def write_junit(
    path: Path | None, folder: OutputFolder | None, results: Sequence[GateResult], metrics: Metrics, subset: str
) -> None:
    """Write the JUnit file, if asked for, into the output folder or anywhere else; its folder is made.

    Raises:
        MachineError: It cannot be written.
        UsageError: The path cannot be one.
    """
    if path is None:
        return
    data = junit_bytes(results, metrics, f"evalcam {subset}".strip())
    if folder is not None and path.resolve().parent == folder.path.resolve():
        folder.write(path.name, data)
        return
    make_folder(path.parent)
    write_whole(path, data)


def tell_github(results: Sequence[GateResult], metrics: Metrics, *, subset: str = "", looks: str = "") -> list[str]:
    """Append the step's summary where `$GITHUB_STEP_SUMMARY` says; nothing elsewhere.

    Returns:
        Lines to print to stderr, which GitHub shows as errors of the job; none outside of GitHub Actions.
    """
    if os.environ.get("GITHUB_STEP_SUMMARY"):
        append_step_summary(step_summary(metrics, results, subset=subset, looks=looks))
    return list(gate_annotations(results)) if os.environ.get("GITHUB_ACTIONS") == "true" else []
