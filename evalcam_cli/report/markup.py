"""Texts and tables in Markdown."""

import html
import re
from collections.abc import Iterable, Iterator, Sequence

from evalcam_cli.text import shown

_MARKS = re.compile(r"[\\`*_\[\]|~$@#{}]|:(?=\S)|(?<=www)\.", re.IGNORECASE)


def escaped(text: object, most: int | None = None) -> str:
    """The text as Markdown that shows it literally, in tables too, whatever HTML or Markdown it contains.

    No address becomes a link and no `@name` or `#1` a mention, as on GitHub, and no `{{` a template's.

    Args:
        text: Anything.
        most: Characters kept, the last one then being an ellipsis; all by default.
    """
    visible = shown(text if most is None else str(text)[: most + 1])
    if most is not None and len(visible) > most:
        visible = visible[: most - 1] + "…"
    return _MARKS.sub(r"\\\g<0>", html.escape(visible, quote=False))


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Lines of a Markdown table; every cell is shown literally."""
    yield "| " + " | ".join(escaped(cell) for cell in header) + " |"
    yield "|" + " --- |" * len(header)
    for row in rows:
        yield "| " + " | ".join(escaped(cell) for cell in row) + " |"
