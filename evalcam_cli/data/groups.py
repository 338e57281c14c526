"""Which images belong to one patient, site or scene: a manifest column, or a pattern on the path."""

import contextlib
import re
import signal
import threading
from collections.abc import Iterator
from dataclasses import replace
from types import FrameType
from typing import NoReturn

from evalcam_cli.data.disk import nfc
from evalcam_cli.data.listing import Listing
from evalcam_cli.data.samples import Sample
from evalcam_cli.errors import DataError, UsageError
from evalcam_cli.text import counted, did_you_mean, listed, shown

_SECONDS = 10.0
"""For a search in all paths; a million take one. A pattern such as `((a+)+)b` may need years for a single one."""


def with_groups(listing: Listing, group_by: str | None, ungrouped: str = "refuse") -> Listing:
    """The listing with every sample's group filled in, and a note that says whence.

    Args:
        listing: As listed.
        group_by: A manifest column, else a regular expression with one pair of parentheses searched in the relative
            path, whose text is the group. None takes the manifest's column `group` when it has one.
        ungrouped: `refuse` images without a group, or make each `single`.

    Raises:
        UsageError: `group_by` is neither a column nor such an expression, or one that takes for ever.
        DataError: Images without a group, and they are refused.
    """
    if group_by is None and not listing.has_group:
        return listing
    by = "group" if group_by is None else group_by
    samples = tuple(_grouped(listing, by))
    _refuse_missing(samples, by, ungrouped)
    groups = len({sample.group for sample in samples if sample.group})
    note = f"{counted(groups, 'group')} of images by {shown(by)!r}; no group is divided"
    return replace(listing, samples=samples, notes=(*listing.notes, note), has_group=True)


def _grouped(listing: Listing, by: str) -> Iterator[Sample]:
    if by == "group" and listing.has_group:
        yield from listing.samples
    elif by in listing.extra_columns:
        index = listing.extra_columns.index(by)
        for sample in listing.samples:
            yield replace(sample, group=sample.extra[index])
    else:
        pattern = _pattern(listing, by)
        try:
            with _limited(_SECONDS):
                found = [pattern.search(nfc(sample.path)) for sample in listing.samples]
        except TimeoutError as error:
            raise UsageError(
                f"--group-by {shown(by)[:200]!r} takes too long (more than {_SECONDS:g} s); a repeat "
                "within a repeat may take years"
            ) from error
        for sample, match in zip(listing.samples, found, strict=True):
            yield replace(sample, group=match[1] or "" if match else "")


@contextlib.contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """End the block with a TimeoutError after so long; not on Windows, nor in another thread than the main one."""
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(signum: int, frame: FrameType | None) -> NoReturn:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _pattern(listing: Listing, by: str) -> re.Pattern[str]:
    columns = [*listing.extra_columns, *(["group"] if listing.has_group else [])]
    known = f" (columns: {listed(columns, 8)})" if columns else ""
    try:
        pattern = re.compile(nfc(by))
    except (re.error, OverflowError, RecursionError) as error:
        raise UsageError(
            f"--group-by {shown(by)[:200]!r} is neither a manifest column{known} nor a regular expression: {error}"
        ) from error
    if pattern.groups != 1:
        raise UsageError(
            f"--group-by {shown(by)[:200]!r} is no manifest column{known}{did_you_mean(by, columns)};\n"
            f"as a regular expression it needs exactly one pair of parentheses for the group, it has {pattern.groups}"
        )
    return pattern


def _refuse_missing(samples: tuple[Sample, ...], by: str, ungrouped: str) -> None:
    missing = [sample.path for sample in samples if not sample.group]
    if missing and ungrouped == "refuse":
        raise DataError(
            f"{len(missing):,} of {counted(len(samples), 'image')} have no group by {shown(by)!r}: {listed(missing)};\n"
            "mend the column or the expression, or make each a group of its own: --ungrouped single (split.ungrouped)"
        )
