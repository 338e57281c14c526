"""A font that can draw the names at hand, in plots (matplotlib) and on images (Pillow), or names that can be drawn."""

import functools
import os
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

from evalcam_cli.text import shown

# Beginnings of file names without spaces, `-` and `_`, in lower case, best first.
_CJK_FONTS = (
    *("notosanscjk", "notosanskr", "notosansjp", "notosanssc", "notosanstc", "notosanshk", "sourcehansans"),
    *("applesdgothicneo", "malgun", "nanumgothic", "nanumbarungothic", "nanum", "undotum", "baekmuk", "gulim"),
    *("pingfang", "hiraginosansgb", "stheiti", "msyh", "microsoftyahei", "simhei", "simsun", "wqy", "wenquanyi"),
    *("hiragino", "yugoth", "meiryo", "msgothic", "ipaexg", "ipag", "ipa", "takao", "vlgothic"),
    *("droidsansfallback", "arialunicode", "applegothic", "notoserifcjk", "sourcehanserif", "unifont"),
)
_FONT_SUFFIXES = (".ttf", ".otf", ".ttc")
_WEIGHTS = ("thin", "light", "medium", "demi", "bold", "black", "heavy")


def display_names(names: Sequence[str], numbers: Sequence[int] | None = None) -> tuple[list[str], str | None, str]:
    """What to draw for each name, the font file to draw it with, and a legend to print beside it.

    The labels are the names with control characters made visible and composed letters (NFC). The font is None where
    matplotlib's own DejaVu Sans has every character, else the first font of this machine that has. Where none does,
    the names that DejaVu Sans lacks become `#0`, `#1`… (their position, or their entry in `numbers`) and the legend,
    otherwise empty, says in ASCII escapes which is which.

    The labels are plain text: draw them with `parse_math=False` in matplotlib.
    """
    labels = [unicodedata.normalize("NFC", shown(name)) for name in names]
    characters = frozenset("".join(labels))
    if characters <= _characters(None):
        return labels, None, ""
    for path in _cjk_fonts(_font_folders()):
        if characters <= _characters(path):
            return labels, path, ""
    return _numbered(labels, range(len(labels)) if numbers is None else numbers)


def font_file(names: Sequence[str]) -> str:
    """The font file to draw the labels of `display_names` with, for Pillow's `ImageFont.truetype`."""
    return display_names(names)[1] or _dejavu_sans()


def _numbered(labels: list[str], numbers: Sequence[int]) -> tuple[list[str], None, str]:
    drawable = _characters(None)
    drawn = [
        label if drawable.issuperset(label) else f"#{number}" for number, label in zip(numbers, labels, strict=True)
    ]
    legend = ", ".join(
        f"{number} = {label.encode('unicode_escape').decode()}"
        for number, label in zip(drawn, labels, strict=True)
        if number != label
    )
    return drawn, None, legend


@functools.cache
def _characters(path: str | None) -> frozenset[str]:
    """The characters of a font (None: DejaVu Sans); none for a file that is no font."""
    from matplotlib.ft2font import FT2Font  # noqa: PLC0415 - costs as much as the rest of a short command

    try:
        return frozenset(map(chr, FT2Font(path or _dejavu_sans()).get_charmap()))
    except (OSError, RuntimeError, ValueError):
        return frozenset()


@functools.cache
def _dejavu_sans() -> str:
    import matplotlib  # noqa: PLC0415 - see above

    return str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"))


def _font_folders() -> tuple[Path, ...]:
    """Where Linux, macOS and Windows keep fonts, the user's own first."""
    home = _home()
    places = (
        os.environ.get("XDG_DATA_HOME", home / ".local/share"),
        *os.environ.get("XDG_DATA_DIRS", "/usr/local/share:/usr/share").split(os.pathsep),
        *("/usr/local/share", "/usr/share", "/usr/share/X11"),
    )
    folders = [home / ".fonts", *(Path(place, "fonts") for place in places)]
    folders += [home / "Library/Fonts", Path("/Library/Fonts"), Path("/System/Library/Fonts")]
    folders += [Path(os.environ.get("LOCALAPPDATA", home / "AppData/Local"), "Microsoft/Windows/Fonts")]
    folders += [Path(os.environ.get("WINDIR", "C:/Windows"), "Fonts")]
    return tuple(dict.fromkeys(folders))


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError:  # a container's user without an entry in the list of users
        return Path("/nonexistent")


@functools.cache
def _cjk_fonts(folders: tuple[Path, ...]) -> tuple[str, ...]:
    """Font files of these folders that are known for Chinese, Japanese or Korean, best first."""
    found = {path for folder in folders for path in _files(folder) if _family_rank(path) < len(_CJK_FONTS)}
    return tuple(map(str, sorted(found, key=lambda path: (_family_rank(path), _is_weighted(path), str(path)))))


def _files(folder: Path) -> Iterator[Path]:
    for parent, _, names in os.walk(folder):  # an absent or forbidden folder has no files
        for name in names:
            if name.lower().endswith(_FONT_SUFFIXES):
                yield Path(parent, name)


def _family_rank(path: Path) -> int:
    """Position in the list of known families; its length for all others."""
    stem = path.stem.lower().translate({ord(mark): None for mark in " -_"})
    return next((rank for rank, family in enumerate(_CJK_FONTS) if stem.startswith(family)), len(_CJK_FONTS))


def _is_weighted(path: Path) -> bool:
    return any(weight in path.stem.lower() for weight in _WEIGHTS)
