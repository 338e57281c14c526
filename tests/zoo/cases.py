"""A bad input, the command that meets it, and what must happen."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Outcome = Literal["accept", "warn", "skip", "refuse"]
"""Used and right; used, or left out, with a warning; an image not used and listed; nothing done but the message."""

CANARY = "EVALCAM_CANARY"
"""The environment variable that names the file which code in a malicious input would create."""


def expected(text: str) -> tuple[Outcome, int]:
    """Outcome and exit code: of accept, warn and skip as they are, of a refusal as `R` with its exit code."""
    outcomes: dict[str, tuple[Outcome, int]] = {"accept": ("accept", 0), "warn": ("warn", 0), "skip": ("skip", 3)}
    return outcomes[text] if text in outcomes else ("refuse", int(text.removeprefix("R")))


@dataclass(frozen=True)
class Kit:
    """Good inputs that cases build on, made once; none of them may ever change."""

    root: Path

    @property
    def data(self) -> Path:
        """Class folders `cat` and `dog` of ten PNG images each."""
        return self.root / "data"

    @property
    def split(self) -> Path:
        """A split of the data into 12, 4 and 4 images."""
        return self.root / "split.csv"

    @property
    def checkpoint(self) -> Path:
        """A ResNet-18 of the classes `cat` and `dog` with random weights, for images of 32 pixels."""
        return self.root / "good.safetensors"


@dataclass(frozen=True)
class Result:
    """What a shell would see, and where the files are."""

    code: int
    """The exit code; minus the signal that ended the process."""
    out: str
    err: str
    seconds: float
    """Infinite when it did not end."""
    here: Path
    """The bad input."""
    output: Path
    """What the command was told to write to, in a folder of its own."""


@dataclass(frozen=True)
class Case:
    """One bad input with one command."""

    id: str
    """Unique: `kind/what` or `kind/what-command`."""
    make: Callable[[Path, Kit], None]
    """Writes the input into an empty folder; nothing there may change afterwards."""
    command: tuple[str, ...]
    """Words of the command line; `{here}`, `{out}`, `{data}`, `{split}` and `{ckpt}` stand for paths."""
    outcome: Outcome
    code: int
    words: tuple[str, ...] = ()
    """Texts that the messages must contain, in any case of letters."""
    check: Callable[[Result], str] | None = None
    """Says what else is wrong with the result, or nothing (an empty text)."""
    seconds: float = 30
    """After which it counts as hanging; longer where the machine has other work."""
    megabytes: int = 1500
    """What it may take beyond the memory of a process that has imported everything."""
    setting: Callable[[Path, Path], None] | None = None
    """Changes the world of the command's own process, given the input and the folder of results; importable."""

    def arguments(self, here: Path, output: Path, kit: Kit) -> list[str]:
        """The command line with its paths filled in."""
        places = {"here": here, "out": output, "data": kit.data, "split": kit.split, "ckpt": kit.checkpoint}
        filled = []
        for word in self.command:
            for name, path in places.items():
                word = word.replace("{" + name + "}", os.fspath(path))  # noqa: PLW2901 (filled step by step)
            filled.append(word)
        return filled
