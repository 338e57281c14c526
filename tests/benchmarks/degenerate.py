"""What evalcam, scikit-learn and torchmetrics say of degenerate inputs, as a table in docs/degenerate.md.

    python -m tests.benchmarks.degenerate        needs the extra `bench`

Ends with 1, and writes nothing, when evalcam says something else than the cases expect.
"""

import importlib.metadata
import re
import sys
import warnings

import numpy as np

from tests.conftest import REPOSITORY
from tests.evaluation.degenerate_cases import CASES, Case, Peer
from tests.evaluation.degenerate_numbers import NUMBERS

PAGE = REPOSITORY / "docs" / "degenerate.md"
_TABLE = re.compile(r"(<!-- table -->\n).*?(<!-- end table -->)", re.DOTALL)


def answer(peer: Peer | None) -> str:
    """The number, the warning or the error of another tool; a dash where it has no such function."""
    if peer is None:
        return "–"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            found = peer.ask()
        except Exception as error:  # of any kind: that is the answer
            return f"`{peer.function}`: {type(error).__name__}: {_short(str(error))}"
    return f"`{peer.function}`: {_number(found)}" + (" with a warning" if caught else "")


def _number(found: object) -> str:
    values = np.atleast_1d(np.asarray(found, dtype=np.float64))
    return ", ".join(f"{value:.6g}" for value in values)


def _short(text: str) -> str:
    line = re.sub(r"0x[0-9a-f]+", "…", text.strip().partition("\n")[0])
    return line if len(line) <= 70 else line[:69] + "…"


def row(number: int, case: Case) -> str:
    cells = (case.name, case.asked, case.ours(), answer(case.scikit_learn), answer(case.torchmetrics))
    return f"| {number} | " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def table() -> str:
    versions = [f"{name} {importlib.metadata.version(name)}" for name in ("scikit-learn", "torchmetrics")]
    lines = [f"| | input | asked | evalcam | {' | '.join(versions)} |", "|--:|---|---|---|---|---|"]
    lines += [row(number, case) for number, case in enumerate((*CASES, *NUMBERS), 1)]
    return "\n".join(lines) + "\n"


def main() -> int:
    wrong = [case for case in (*CASES, *NUMBERS) if not re.fullmatch(case.expected, case.ours(), re.DOTALL)]
    for case in wrong:
        print(f"{case.name}, {case.asked}: {case.ours()!r} is not {case.expected!r}", file=sys.stderr)
    if wrong:
        return 1
    text = table()
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(_TABLE.sub(lambda match: match[1] + text + match[2], page), encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
