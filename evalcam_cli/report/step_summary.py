"""What a CI job shows of an evaluation on GitHub: a summary of the step, and annotations for missed gates."""

import logging
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from evalcam_cli.evaluation.gates import GateResult
from evalcam_cli.evaluation.metrics import Metrics
from evalcam_cli.report.markup import escaped
from evalcam_cli.report.tables import CLASS_HEADER, METRICS_HEADER, class_table_rows, interval_text, metrics_table_rows
from evalcam_cli.text import counted, shown

SUMMARY_LIMIT = 900 * 1024
"""Bytes that a step may leave: GitHub drops the whole summary of a step above 1,024 KiB."""
ANNOTATIONS = 10
"""Annotations of a kind that GitHub shows per step."""
_NOTE_BYTES = 150  # more than the sentence has that says what was left out
_CELL = 300  # characters kept of a cell: names can be of any length

log = logging.getLogger("evalcam")


def step_summary(
    metrics: Metrics,
    gates: Sequence[GateResult] = (),
    *,
    subset: str = "",
    looks: str = "",
    title: str = "Evaluation",
    limit: int = SUMMARY_LIMIT,
) -> str:
    """The evaluation in Markdown, at most `limit` bytes in UTF-8.

    What matters most comes first: headline, gates (missed ones on top), warnings, all classes together, each class.
    What does not fit any more is left out, rows from the end of a table, and the text says how many.

    Args:
        metrics: What was found.
        gates: Their results.
        subset: The set evaluated.
        looks: A sentence about how often this set was evaluated; none by default.
        title: The heading.
        limit: Bytes; at least 1,000.
    """
    page = _Page(limit)
    page.add(_headline(metrics, gates, subset, looks, title))
    missed_first = sorted(gates, key=lambda result: result.passed)
    page.add_table("Gates", ("", "demand", "found"), [_gate_row(result) for result in missed_first], "gate")
    page.add_list("Warnings", [f"`{caution.code}`: {_cell(caution.message)}" for caution in metrics.warnings])
    page.add_table("All classes together", METRICS_HEADER, metrics_table_rows(metrics), "metric")
    page.add_table("Each class against the rest", CLASS_HEADER, class_table_rows(metrics), "class")
    return page.text


class _Page:
    """Lines up to a number of bytes, with room kept to say of each of four lists what was left out."""

    def __init__(self, limit: int) -> None:
        self._left = limit - 4 * _NOTE_BYTES
        self._parts: list[str] = []

    @property
    def text(self) -> str:
        return "".join(self._parts)

    def add(self, lines: Sequence[str]) -> bool:
        """Add all lines, or none when they do not fit."""
        part = "".join(f"{line}\n" for line in lines)
        size = len(part.encode("utf-8", "surrogatepass"))
        if size > self._left:
            return False
        self._left -= size
        self._parts.append(part)
        return True

    def add_table(self, title: str, header: Sequence[str], rows: Sequence[Sequence[str]], noun: str) -> None:
        head = ["", f"### {title}", "", _row(header), "|" + " --- |" * len(header)]
        self._add_rows(head, [_row([_cell(cell) for cell in row]) for row in rows], noun)

    def add_list(self, title: str, items: Sequence[str]) -> None:
        self._add_rows(["", f"### {title}", ""], [f"- {item}" for item in items], "warning")

    def _add_rows(self, head: Sequence[str], rows: Sequence[str], noun: str) -> None:
        if not rows or self.add([*head, *rows]):
            return
        kept = 0
        if self.add(head):
            while kept < len(rows) and self.add([rows[kept]]):
                kept += 1
        rest = counted(len(rows) - kept, noun)
        self._parts.append(f"\n{rest} left out: the summary of a step is limited; all are in `metrics.json`.\n")


def _headline(metrics: Metrics, gates: Sequence[GateResult], subset: str, looks: str, title: str) -> list[str]:
    accuracy = metrics.overall["accuracy"]
    value = "n/a" if accuracy.estimate is None else f"{accuracy.estimate:.3f}"
    interval = f" (95 % interval {interval_text(accuracy)})" if accuracy.ci_low is not None else ""
    where = f" of the set {_cell(subset)}" if subset not in ("", "all") else ""
    missed = sum(not result.passed for result in gates)
    verdict = f"{missed} of {counted(len(gates), 'gate')} missed" if missed else f"{counted(len(gates), 'gate')} passed"
    lines = [f"## {_cell(title)}", ""]
    lines += [f"**{'❌' if missed else '✅'} {verdict}**", ""] if gates else []
    lines += [f"**Accuracy {value}**{interval} on {counted(metrics.n, 'image')}{where}."]
    return [*lines, "", _cell(looks)] if looks else lines


def _gate_row(result: GateResult) -> tuple[str, str, str]:
    return ("✅ passed" if result.passed else "❌ FAILED", result.gate.demand, result.found)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _cell(text: str) -> str:
    return escaped(text, _CELL)


def append_step_summary(text: str, *, limit: int = SUMMARY_LIMIT) -> bool:
    """Append a text to the file that `$GITHUB_STEP_SUMMARY` names; do nothing when it is not set.

    Whatever is in the file already counts towards the limit: lines that do not fit are left out, and the text says so.
    A summary is an extra: what cannot be written is a warning, never an error.

    Returns:
        Whether something was appended.
    """
    name = os.environ.get("GITHUB_STEP_SUMMARY")
    if not name:
        return False
    try:
        return _append(Path(name), text, limit)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        log.warning("no step summary: cannot write $GITHUB_STEP_SUMMARY %s: %s", shown(name), reason)
        return False


def _append(path: Path, text: str, limit: int) -> bool:
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    if path.exists() and not path.is_file():  # before it is opened: a pipe without a reader would block
        raise ValueError("not a regular file")
    descriptor = os.open(path, flags, 0o644)
    try:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode):
            raise ValueError("not a regular file")
        start = "\n" if facts.st_size else ""
        data = _fitted(start + text, limit - facts.st_size)
        if not data:
            log.warning("no step summary: %s is full (%s bytes)", shown(path), f"{facts.st_size:,}")
            return False
        while data:
            data = data[os.write(descriptor, data) :]
        return True
    finally:
        os.close(descriptor)


def _fitted(text: str, limit: int) -> bytes:
    """The text in UTF-8, whole lines from its start up to the limit; empty when not even a few lines fit."""
    data = text.encode("utf-8", "backslashreplace")
    if len(data) <= limit:
        return data
    note = b"\n\nThe rest is left out: the summary of a step is limited; all is in `metrics.json`.\n"
    kept = data[: max(0, limit - len(note))]
    end = kept.rfind(b"\n")
    return kept[:end] + note if end > 0 else b""


def gate_annotations(results: Sequence[GateResult]) -> Iterator[str]:
    """A line per missed gate, at most ten, that GitHub shows as an error of the job.

    To be printed to stderr when `$GITHUB_ACTIONS` is `true`. Percent signs and line ends are escaped as workflow
    commands want it, so that a name cannot begin a command of its own.
    """
    missed = [result for result in results if not result.passed]
    for result in missed[:ANNOTATIONS]:
        title = f"gate {shown(result.gate.demand)}".replace("%", "%25").replace(":", "%3A").replace(",", "%2C")
        yield f"::error title={title}::{result.line.replace('%', '%25')}"
