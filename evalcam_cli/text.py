"""Names from outside, made safe for the place where they are shown, and near misses of a spelling."""

import difflib
import re
import unicodedata
from collections.abc import Iterable

_FORMULA = frozenset("=+-@\t\r\n")
_GUARDED = _FORMULA | {"'"}
_BEYOND_ASCII = re.compile("[^\n -~]")


def shown(text: object) -> str:
    """The text with control, format and surrogate characters as visible escapes; accents and emoji stay."""
    return "".join(
        character
        if unicodedata.category(character)[0] != "C" and character not in "\u2028\u2029"
        else character.encode("unicode_escape").decode()
        for character in str(text)
    )


def shown_lines(text: str) -> str:
    """Each line of the text as `shown` shows it."""
    return "\n".join(map(shown, text.split("\n")))


def json_escaped(document: str) -> str:
    """A JSON document with JSON's own escapes for all that `shown` makes visible; it says the same.

    So it is UTF-8 whatever bytes a file name held, and harmless on a terminal, while letters of all scripts stay.
    """
    return _BEYOND_ASCII.sub(_json_escape, document)


def _json_escape(found: re.Match[str]) -> str:
    character = found[0]
    if shown(character) == character:
        return character
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[place : place + 2].hex()}" for place in range(0, len(units), 2))


def csv_cell(text: str) -> str:
    """The text with `'` before anything that a spreadsheet would take for a formula; `csv_text` undoes it."""
    return "'" + text if text[:1] in _GUARDED and text.lstrip("'")[:1] in _FORMULA else text


def csv_text(cell: str) -> str:
    """The text that `csv_cell` was given."""
    return cell[1:] if cell[:1] == "'" and cell.lstrip("'")[:1] in _FORMULA else cell


def file_stem(name: str) -> str:
    """The name with everything but letters, digits, `-` and `_` replaced by `_`, at most 80 characters."""
    return re.sub(r"[^\w-]", "_", name)[:80] or "_"


def file_path(path: str) -> str:
    """The path with `_` for every character that `shown` would escape."""
    return "".join(character if shown(character) == character else "_" for character in path)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` with the nearest known spelling, or nothing when none is near."""
    near = difflib.get_close_matches(word, list(known))
    return f"; did you mean {near[0]!r}?" if near else ""


def listed(names: Iterable[str], limit: int = 3) -> str:
    """The first names and how many more there are: `a, b, c and 4 more`."""
    names = list(names)
    first = ", ".join(shown(name) for name in names[:limit])
    return first if len(names) <= limit else f"{first} and {len(names) - limit} more"


def counted(count: int, noun: str) -> str:
    """`1 image`, `2,870 images`; the plural is regular: s, es after s or x, ies after a consonant's y."""
    if noun.endswith("y") and noun[-2:-1] not in "aeiou":
        plural = noun[:-1] + "ies"
    else:
        plural = noun + ("es" if noun.endswith(("s", "x")) else "s")
    return f"{count:,} {noun if count == 1 else plural}"
