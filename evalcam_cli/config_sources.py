"""A RunConfig from defaults, YAML, `--set` and named options, and what to say when it is wrong."""

import json
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from evalcam_cli.config import RunConfig, config_keys, default_of, resolved
from evalcam_cli.errors import UsageError
from evalcam_cli.inputs import read_bytes
from evalcam_cli.strict_yaml import MAX_CHARACTERS, Document, Value, is_text, parse_yaml
from evalcam_cli.text import counted, did_you_mean, shown


def load_config(
    path: Path | None = None, *, assignments: Iterable[str] = (), options: Mapping[str, object] | None = None
) -> RunConfig:
    """The config from its sources; later ones win: defaults, YAML file, `section.key=value`, named options.

    Args:
        path: YAML file.
        assignments: As given to `--set`.
        options: Dotted key to value; None means not given.

    Raises:
        UsageError: A key is unknown or a value impossible; the message names the key, the place and the remedy.
    """
    document = _read(path) if path else Document(None)
    source = shown(path.absolute()) if path else "config"
    values = _sections(document, source)
    for assignment in assignments:
        key, value = _assignment(assignment)
        _put(values, key, value, f"--set {shown(assignment)[:200]}")
        _forget_lines(document, key)
    for key, option in (options or {}).items():
        if option is not None:
            _refuse_half_characters(key, option)
            _put(values, key, option, f"option for {key}")
            _forget_lines(document, key)
    return _validated(values, document, source)


def with_values(config: RunConfig, values: Mapping[str, object], source: str = "config") -> RunConfig:
    """The config with other values under some dotted keys, all of it checked again.

    Raises:
        UsageError: As `load_config`.
    """
    changed = resolved(config)
    for key, value in values.items():
        _put(changed, key, value, source)
    return _validated(changed, Document(None), source)


def _forget_lines(document: Document, key: str) -> None:
    """A value given elsewhere replaces what the file says: what is wrong with it does not stand in a line there."""
    path = tuple(key.split("."))
    for other in [other for other in document.lines if other[: len(path)] == path]:
        del document.lines[other]


def _refuse_half_characters(key: str, option: object) -> None:
    """Refuse names that are not UTF-8: they could not be written into the config that a run keeps."""
    for text in option if isinstance(option, list | tuple) else [option]:
        if isinstance(text, str) and not is_text(text):
            raise UsageError(f"option for {key}: {shown(text)[:200]} is not UTF-8 text; rename it")


def _read(path: Path) -> Document:
    place = shown(path.absolute())
    try:
        data = read_bytes(path, 4 * MAX_CHARACTERS)
        if len(data) > 4 * MAX_CHARACTERS:
            raise UsageError(f"the config {place} has more than {4 * MAX_CHARACTERS:,} bytes; that is no config")
        text = data.decode("utf-8-sig")
    except IsADirectoryError as error:
        raise UsageError(f"the config {place} is a folder; name a YAML file") from error
    except OSError as error:
        raise UsageError(f"cannot read the config {place}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UsageError(
            f"the config {place}, line {line}, is not UTF-8 text (byte {error.start}); save it as UTF-8"
        ) from error
    document = parse_yaml(text, place)
    if document.value is None:
        raise UsageError(f"{place}: expected a map of sections, found nothing; leave -c away for the defaults")
    return document


def _sections(document: Document, source: str) -> dict[str, Any]:
    if document.value is None:
        return {}
    if not isinstance(document.value, dict):
        found = "a list" if isinstance(document.value, list) else shown(repr(document.value))[:80]
        raise UsageError(f"{source}: expected a map of sections, found {found}")
    return document.value


def _assignment(assignment: str) -> tuple[str, Value]:
    key, equals, text = assignment.partition("=")
    if not equals or not key.strip():
        raise UsageError(f"--set takes section.key=value, got {shown(assignment)[:200]!r}")
    key = key.strip()
    value = parse_yaml(text, f"--set {shown(key)[:80]}").value
    if isinstance(value, str) and _is_tuple(key):
        value = parse_yaml(f"[{text}]", f"--set {key}").value
    return key, value


def _is_tuple(key: str) -> bool:
    return key in config_keys() and isinstance(default_of(key), tuple)


def _put(values: dict[str, Any], key: str, value: object, origin: str) -> None:
    known = config_keys()
    if key not in known:
        raise UsageError(f"{origin}: unknown config key {shown(key)[:80]!r}{nearest_key(key)}")
    *sections, name = key.split(".")
    for section in sections:
        inner = values.setdefault(section, {})
        if inner is None:
            inner = values[section] = {}
        if not isinstance(inner, dict):
            raise UsageError(f"{origin}: {section} is not a section in the config file")
        values = inner
    values[name] = value


def _validated(values: dict[str, Any], document: Document, source: str) -> RunConfig:
    values = {key: {} if value is None and key in _section_names() else value for key, value in values.items()}
    try:
        # JSON mode: strict about types (no "3" for 3, no yes for 1), yet lists serve as tuples
        return RunConfig.model_validate_json(json.dumps(values, default=list), strict=True)
    except ValidationError as error:
        raise UsageError(_explained(error, document, source)) from error


def _section_names() -> list[str]:
    return [name for name, field in RunConfig.model_fields.items() if "." in "".join(_keys_of(name, field.annotation))]


def _keys_of(name: str, kind: object) -> list[str]:
    return (
        [f"{name}.{key}" for key in kind.model_fields] if isinstance(kind, type) and issubclass(kind, BaseModel) else []
    )


def _explained(error: ValidationError, document: Document, source: str) -> str:
    problems: dict[tuple[str | int, ...], list[Any]] = {}
    for problem in error.errors(include_url=False):
        path = _known_path(problem["loc"])
        if path[:2] == ("gradcam", "method"):  # the place in a list that may have been a text means nothing
            path = path[:2]
            if path in problems:  # a list without its wrong values is also too short
                continue
        if problem["type"] == "missing":  # of a list that must have so many values
            path = path[:-1]
        problems.setdefault(path, []).append(problem)
    messages = []
    for path, those in list(problems.items())[:_MAX_PROBLEMS]:
        found = [_problem(shown(".".join(map(str, path)))[:200], problem) for problem in those]
        above = (path[:length] for length in range(len(path), min(2, len(path)) - 1, -1))
        line = next((document.lines[one] for one in above if one in document.lines), None)
        place = f"{source}, line {line}: " if line else ""
        # the branches of a union each complain: `must be 'auto', got x` or `must be a whole number, got x`
        first = (
            found[0]
            if len(set(found)) == 1
            else f"{found[0].rpartition(', got')[0]} or {found[1].partition(' must be ')[2]}"
        )
        messages.append(place + first)
    more = len(problems) - len(messages)
    return "\n".join(messages + ([f"and {more:,} more"] if more else []))


def _known_path(location: tuple[str | int, ...]) -> tuple[str | int, ...]:
    """The location without the branch names that pydantic adds for unions and validators."""
    return tuple(
        part
        for part in location
        if isinstance(part, int) or not re.match(r"literal\[|constrained-|function-|int$|float$", part)
    )


_MAX_PROBLEMS = 5

_MESSAGES = {
    "int_type": "a whole number",
    "float_type": "a number",
    "string_type": "a text",
    "bool_type": "true or false",
    "finite_number": "a finite number",
    "model_type": "a section with keys",
    "tuple_type": "a list",
    "string_too_short": "a text that is not empty",
    "string_too_long": "a shorter text",
}


def _problem(key: str, problem: Any) -> str:  # noqa: PLR0911 (one return per kind of problem)
    value, kind, context = problem.get("input"), problem["type"], problem.get("ctx", {})
    if kind == "extra_forbidden":
        return f"unknown config key {key[:80]!r}{nearest_key(key)}"
    if kind == "value_error":
        return f"{key + ': ' if key else ''}{shown(context['error'])}"
    if kind == "missing":
        return f"{key} must have {len(default_of(key))} values, got {shown(value)[:80]}"  # type: ignore[arg-type]
    if kind == "too_short":
        return f"{key} must have at least {counted(context['min_length'], 'value')}"
    if kind == "too_long":
        return f"{key} must have at most {counted(context['max_length'], 'value')}, got {context['actual_length']}"
    not_a_number = isinstance(value, float) and math.isnan(value)
    got = "NaN" if not_a_number else "nothing" if value is None else shown(repr(value))[:80]
    if kind == "literal_error":
        expected = context["expected"]
        choice = "one of " if "," in expected or " or " in expected else ""
        return f"{key} must be {choice}{expected}, got {got}{did_you_mean(str(value)[:200], _choices(expected))}"
    message = problem["msg"].removeprefix("Input should be ").removeprefix("Input ")
    return f"{key} must be {_MESSAGES.get(kind, shown(message))}, got {got}"


def _choices(expected: str) -> list[str]:
    return [word.strip(" '") for part in expected.split(" or ") for word in part.split(",")]


def nearest_key(key: str) -> str:
    """`; did you mean 'train.lr'?` with the config key that an unknown one is nearest to, or nothing."""
    key = key[:200]
    known = list(config_keys())
    if "." not in key and (hint := did_you_mean(key, RunConfig.model_fields)):
        return hint
    by_name = [other for other in known if other.rpartition(".")[2] == key.rpartition(".")[2]]
    if by_name:
        return f"; did you mean {by_name[0]!r}?"
    hint = did_you_mean(key, known)
    if hint:
        return hint
    names = {other.rpartition(".")[2]: other for other in known}
    near = did_you_mean(key.rpartition(".")[2], names)
    return f"; did you mean {names[near.split(chr(39))[1]]!r}?" if near else ""
