"""The whole zoo on all cores, and what came of it in numbers."""

import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from tests.zoo.cases import Case, Kit

WRONGS = {
    "tracebacks": "a traceback",
    "hangs": "it hangs",
    "crashes": "it crashed",
    "changed inputs": "the input was changed",
    "code run": "code from the input was run",
    "wrong outcomes": "",  # any other fault
}
"""What counts as what, by how the driver's sentence begins."""
OUTCOMES = ("accept", "warn", "skip", "refuse")


@dataclass(frozen=True)
class Tally:
    """What came of the cases."""

    counts: dict[str, dict[str, int]]
    """Cases by kind (`images`, …) and by what must happen."""
    wrong: dict[str, int]
    """Cases by what is wrong with them; all 0 when the zoo holds."""
    faults: dict[str, list[str]]
    """What is wrong with each case that is not as it must be."""
    seconds: float


def run_zoo(
    words: Sequence[str] = (),
    *,
    every: int = 1,
    jobs: int | None = None,
    tell: Callable[[str, list[str]], None] = lambda *_: None,
) -> Tally:
    """Run all cases, or every n-th, of those whose names contain one of the words.

    `tell` hears of each that is not as it must be.
    """
    chosen = [number for number, case in enumerate(_all_cases()) if not words or any(word in case.id for word in words)]
    chosen = chosen[::every]
    begun = time.monotonic()
    with (
        tempfile.TemporaryDirectory() as folder,
        ProcessPoolExecutor(jobs or os.cpu_count(), get_context("spawn"), _begin, (folder,)) as pool,
    ):
        cases = [_all_cases()[number] for number in chosen]
        found = []
        for case, faults in zip(cases, pool.map(_outcome, chosen), strict=True):
            found.append(faults)
            if faults:
                tell(case.id, faults)
    counts: dict[str, Counter[str]] = {}
    for case in cases:
        counts.setdefault(case.id.partition("/")[0], Counter())[case.outcome] += 1
    faulty = {case.id: each for case, each in zip(cases, found, strict=True) if each}
    wrong = Counter(name for each in faulty.values() for name in {_sort_of(one) for one in each[:-1]})
    return Tally(
        {kind: {name: count[name] for name in OUTCOMES} for kind, count in counts.items()},
        {name: wrong[name] for name in WRONGS},
        faulty,
        time.monotonic() - begun,
    )


def _sort_of(fault: str) -> str:
    return next(name for name, beginning in WRONGS.items() if fault.startswith(beginning))


def _all_cases() -> list[Case]:
    from tests.test_zoo import CASES

    return CASES


_kit: Kit
_folder: Path


def _begin(folder: str) -> None:
    """In each worker process: its own good inputs."""
    import torch

    from tests.zoo.driver import make_kit

    global _kit, _folder  # noqa: PLW0603 (the only way to hand a worker something once)
    torch.set_num_threads(1)
    _folder = Path(folder) / str(os.getpid())
    _kit = make_kit(_folder / "kit")


def _outcome(number: int) -> list[str]:
    from tests.zoo.driver import faults, tree

    before = tree(_kit.root)
    found = faults(_all_cases()[number], _kit, _folder / "scratch")
    if tree(_kit.root) != before:
        found = ["the input was changed", *found, ""]
    return found
