"""Texts and tables in Markdown."""

import html
import re
from collections.abc import Iterable, Iterator, Sequence

from evalcam_cli.text import shown


def escaped(text: object) -> str:
    """The text as Markdown that shows it literally, in tables too, whatever HTML or Markdown it contains."""
    return re.sub(r"([\\`*_\[\]|~$])", r"\\\1", html.escape(shown(text), quote=False))


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Lines of a Markdown table; every cell is shown literally."""
    yield "| " + " | ".join(escaped(cell) for cell in header) + " |"
    yield "|" + " --- |" * len(header)
    for row in rows:
        yield "| " + " | ".join(escaped(cell) for cell in row) + " |"
