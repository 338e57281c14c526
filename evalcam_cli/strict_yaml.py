"""YAML as plain data: maps, lists and YAML 1.2 scalars; no tags, anchors, aliases, merges or doubled keys.

PyYAML's own SafeLoader turns `1e-3` into a string, `no` into False and `010` into 8, lets the last of two equal keys
win, and builds alias bombs; so only its event stream is used here, and everything is checked before a value is built.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from evalcam_cli.errors import UsageError
from evalcam_cli.text import shown

MAX_CHARACTERS = 1_000_000
MAX_VALUES = 10_000
MAX_DEPTH = 20
_MAX_DIGITS = 400

_INTEGER = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_INFINITY = re.compile(r"[-+]?\.(inf|Inf|INF)")

Value = None | bool | int | float | str | list["Value"] | dict[str, "Value"]


@dataclass(frozen=True)
class Document:
    """The value of a YAML text and the line on which each key stands."""

    value: Value
    lines: dict[tuple[str | int, ...], int] = field(default_factory=dict)
    """Line (from 1) of the value at each path of keys and list positions."""


def parse_yaml(text: str, source: str) -> Document:
    """The value of the one document in the text; None for an empty text.

    Args:
        text: At most a million characters and 10,000 values.
        source: Where it comes from, for messages.

    Raises:
        UsageError: The text is not such a document; the message names the line.
    """
    if len(text) > MAX_CHARACTERS:
        raise UsageError(f"{source} has {len(text):,} characters; a config has at most {MAX_CHARACTERS:,}")
    builder = _Builder(source)
    try:
        return builder.document(yaml.parse(text, Loader=yaml.SafeLoader))
    except yaml.MarkedYAMLError as error:
        line = _line(error.problem_mark)
        raise UsageError(f"{source}, line {line}: not valid YAML: {shown(error.problem)[:200]}") from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        character = f"U+{error.character:04X}"
        raise UsageError(
            f"{source}, line {line}: the character {character} is not allowed; remove it, or save as UTF-8"
        ) from error
    except (ValueError, OverflowError) as error:  # PyYAML turns `"\UFFFFFFFF"` and `%YAML 1.999…` into numbers
        raise UsageError(
            f"{source}, line {builder.line} or below: not valid YAML: a number or an escape that is too large"
        ) from error


class _Builder:
    def __init__(self, source: str) -> None:
        self.source = source
        self.lines: dict[tuple[str | int, ...], int] = {}
        self.line = 1
        self.values = 0

    def document(self, events: Iterator[yaml.Event]) -> Document:
        value: Value = None
        documents = 0
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise self._error(event, "a second document begins here; one config is one document")
                value = self._value(next(events), events, ())
        return Document(value, self.lines)

    def _value(self, event: yaml.Event, events: Iterator[yaml.Event], path: tuple[str | int, ...]) -> Value:
        if len(path) > MAX_DEPTH:
            raise self._error(event, f"nested more than {MAX_DEPTH} levels deep")
        if isinstance(event, yaml.AliasEvent):
            raise self._error(event, "aliases (*name) are not allowed; write the value out")
        if getattr(event, "anchor", None) is not None:
            raise self._error(event, "anchors (&name) are not allowed; write the value out")
        tag = getattr(event, "tag", None)
        if tag not in (None, "!"):
            raise self._error(event, f"tags ({shown(tag)[:80]}) are not allowed; a config is plain data")
        self.line = self.lines[path] = _line(event.start_mark)
        self.values += 1
        if self.values > MAX_VALUES:
            raise self._error(event, f"more than {MAX_VALUES:,} values; that is no config")
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event)
        if isinstance(event, yaml.SequenceStartEvent):
            return self._list(events, path)
        return self._map(events, path)

    def _list(self, events: Iterator[yaml.Event], path: tuple[str | int, ...]) -> list[Value]:
        values: list[Value] = []
        while not isinstance(event := next(events), yaml.SequenceEndEvent):
            values.append(self._value(event, events, (*path, len(values))))
        return values

    def _map(self, events: Iterator[yaml.Event], path: tuple[str | int, ...]) -> dict[str, Value]:
        values: dict[str, Value] = {}
        while not isinstance(event := next(events), yaml.MappingEndEvent):
            if not isinstance(event, yaml.ScalarEvent) or event.tag or event.anchor:
                raise self._error(event, "a key must be a plain word")
            key = self._text(event)
            if key in values:
                first = self.lines[(*path, key)]
                raise self._error(event, f"the key {shown(key)[:80]!r} is there twice (first on line {first})")
            if key == "<<":
                raise self._error(event, "merge keys (<<) are not allowed; write the values out")
            values[key] = self._value(next(events), events, (*path, key))
            self.lines[(*path, key)] = _line(event.start_mark)
        return values

    def _scalar(self, event: yaml.ScalarEvent) -> Value:
        text = self._text(event)
        if event.style is not None or event.tag == "!":
            return text
        if len(text) > _MAX_DIGITS and _INTEGER.fullmatch(text):
            raise self._error(event, f"a number of more than {_MAX_DIGITS} digits")
        return scalar(text)

    def _text(self, event: yaml.ScalarEvent) -> str:
        text = str(event.value)
        if not is_text(text):
            raise self._error(event, f"half a character ({shown(text)[:80]})")
        return text

    def _error(self, event: yaml.Event, problem: str) -> UsageError:
        return UsageError(f"{self.source}, line {_line(event.start_mark)}: {problem}")


def is_text(text: str) -> bool:
    """Whether UTF-8 can express it: halves of surrogate pairs, as `"\\ud800"` makes them, are no characters."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _line(mark: Any) -> int:
    """From 1; PyYAML's parser marks every event and every error."""
    return int(mark.line) + 1


def scalar(text: str) -> bool | int | float | str | None:  # noqa: PLR0911 (one return per kind of scalar)
    """A plain scalar as the YAML 1.2 core schema reads it, decimal numbers only: `1e-3` is a number, `no` a string."""
    if text in ("", "~", "null", "Null", "NULL"):
        return None
    if text in ("true", "True", "TRUE"):
        return True
    if text in ("false", "False", "FALSE"):
        return False
    if _INTEGER.fullmatch(text):
        # `010` is 8 in YAML 1.1 and 10 in 1.2: a number that two readers read differently stays text, and is refused
        return int(text) if text.lstrip("+-") == "0" or not text.lstrip("+-").startswith("0") else text
    if _FLOAT.fullmatch(text):
        return float(text)
    if _INFINITY.fullmatch(text):
        return -math.inf if text.startswith("-") else math.inf
    return math.nan if text in (".nan", ".NaN", ".NAN") else text
