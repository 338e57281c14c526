"""Files that stand under an image's name."""

from pathlib import Path

from tests.conftest import draw_classes
from tests.zoo.cases import Case, Kit


def cases() -> list[Case]:
    return [
        Case("images/zero_byte", _zero_byte, ("split", "{here}", "--out", "{out}.csv"), "skip", 3, ("empty",)),
    ]


def _zero_byte(here: Path, kit: Kit) -> None:
    draw_classes(here, {"cat": 5, "dog": 5})
    (here / "cat" / "x.jpg").write_bytes(b"")
