"""What a person sees: progress and notes on stderr, results on stdout, names harmless on both."""

import io
import json
import logging
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from evalcam_cli.cli.signals import raise_swallowed
from evalcam_cli.text import shown, shown_lines
from evalcam_cli.world import world


def write_out(text: str) -> None:
    """Print a result, of one or more lines, to stdout."""
    sys.stdout.write(shown_lines(text) + "\n")


def write_err(text: str) -> None:
    """Print a line, or more, to stderr."""
    with suppress(OSError, ValueError):  # the terminal is gone, or the reader: the work is not lost for it
        sys.stderr.write(shown_lines(text) + "\n")


def write_json(value: object) -> None:
    """Print one strict JSON document to stdout."""
    sys.stdout.write(json.dumps(value, ensure_ascii=True, allow_nan=False, indent=1) + "\n")


def write_json_list(values: Iterable[object]) -> None:
    """Print one strict JSON document, a list, as `write_json` does, while its values are made."""
    between = "["
    for value in values:
        text = json.dumps(value, ensure_ascii=True, allow_nan=False, indent=1)
        sys.stdout.write(f"{between}\n {text.replace(chr(10), chr(10) + ' ')}")
        between = ","
    sys.stdout.write("[]\n" if between == "[" else "\n]\n")


def write_table(
    header: Sequence[str], rows: Sequence[Sequence[object]], *, title: str = "", texts: Sequence[int] = (0,)
) -> None:
    """Print an aligned table to stdout; the columns in `texts` are aligned to the left, numbers to the right."""
    # rich is loaded here: --help does not need it
    from rich import box  # noqa: PLC0415
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    heading = Text(shown(title), style="bold") if title else None  # a str would be searched for `:emoji:`
    table = Table(box=box.SIMPLE_HEAD, title=heading, title_justify="left", title_style="bold", pad_edge=False)
    for index, name in enumerate(header):
        table.add_column(Text(shown(name)), justify="left" if index in texts else "right", overflow="fold")
    for row in rows:
        table.add_row(*[Text(shown("" if cell is None else cell)) for cell in row])
    buffer = io.StringIO()
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    width = None if sys.stdout.isatty() else 120
    Console(
        file=buffer, force_terminal=colour, color_system="auto" if colour else None, width=width, markup=False
    ).print(table)
    sys.stdout.write("\n".join(line.rstrip() for line in buffer.getvalue().splitlines()).strip("\n") + "\n")


class _Notes(logging.Handler):
    """Log records as lines on stderr, above a progress bar when there is one."""

    def __init__(self, screen: "Screen") -> None:
        super().__init__()
        self.screen = screen

    def emit(self, record: logging.LogRecord) -> None:
        prefix = "warning: " if record.levelno >= logging.WARNING else ""
        self.screen.note(f"{prefix}{record.getMessage()}")


class Screen:
    """Draws progress: a live bar on a terminal, else a line every ten seconds, nothing when quiet."""

    def __init__(self, *, quiet: bool) -> None:
        self.quiet = quiet
        self.live = not quiet and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self._bar: Any = None
        self._task: Any = None
        self._name = ""
        self._last = time.monotonic()

    def note(self, message: str) -> None:
        """Show a line on stderr."""
        lines = shown_lines(message)
        if self._bar is not None:
            from rich.text import Text  # noqa: PLC0415 (loaded with the bar)

            with self._harmless():
                self._bar.console.print(Text(lines), highlight=False, soft_wrap=True)  # a str would become `:emoji:`
        else:
            write_err(lines)

    def progress(self, task: str, done: int, total: int, note: str = "") -> None:
        """The callback that workflows are given."""
        raise_swallowed()
        if self.quiet or total <= 1:
            return
        if self.live:
            with self._harmless():
                self._draw(task, done, total, note)
        elif time.monotonic() - self._last >= 10:
            self._last = time.monotonic()
            self.note(f"{task}: {done:,} of {total:,}{', ' + note if note else ''}")

    def _draw(self, task: str, done: int, total: int, note: str) -> None:
        if self._bar is None:
            self._bar = _new_bar()
            self._bar.start()
        if task != self._name:
            if self._task is not None:
                self._bar.remove_task(self._task)
            self._task, self._name = self._bar.add_task(shown(task), total=total, note=""), task
        self._bar.update(self._task, completed=done, total=total, note=shown(note))
        if time.monotonic() - self._last >= 0.1 or done == total:
            self._last = time.monotonic()
            self._bar.refresh()

    @contextmanager
    def _harmless(self) -> Iterator[None]:
        """Go on without a bar when the terminal is gone."""
        try:
            yield
        except (OSError, ValueError):
            self._bar, self.live, self.quiet = None, False, True

    def close(self) -> None:
        """Take the bar off the screen."""
        if self._bar is not None:
            with self._harmless():
                self._bar.stop()
            self._bar = None


def _new_bar() -> Any:
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    # no refresh thread: worker processes are forked while the bar is shown
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        console=Console(file=sys.stderr),
        auto_refresh=False,
        transient=True,
    )


@contextmanager
def screen(*, quiet: bool) -> Iterator[Screen]:
    """Notes of the `evalcam` logger and progress, for the time of one command; of several processes the first's."""
    log = logging.getLogger("evalcam")
    view = Screen(quiet=quiet or not world().first)
    handler = _Notes(view) if world().first else logging.NullHandler()
    previous = log.level
    log.setLevel(logging.WARNING if quiet else logging.INFO)
    log.addHandler(handler)
    try:
        yield view
    finally:
        view.close()
        log.removeHandler(handler)
        log.setLevel(previous)
