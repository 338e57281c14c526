"""Measure what docs/reliability.md says, and write that page.

    python -m tests.benchmarks.reliability [--quick] [--only PART]... [--page]

The parts (`reliability_parts.PARTS`) run one after the other, each in a process of its own. After each its numbers go
to reliability.json, beside those of the other parts and of the other form, and the page is written from them; so a run
that is stopped loses no more than the part it was at. `--page` only writes the page. Exit 1 when a goal is missed or a
part left no numbers.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from evalcam_cli import __version__
from tests.benchmarks.reliability_parts import PARTS, ROWS, Row
from tests.conftest import REPOSITORY

PAGE = REPOSITORY / "docs" / "reliability.md"
STORE = Path(__file__).with_suffix(".json")
QUICK, WHOLE = "quick", "whole"
_PACKAGES = ("torch", "torchvision", "numpy", "pillow")


@dataclass(frozen=True)
class Result:
    """What a part came to."""

    form: str
    date: str
    seconds: float
    machine: str
    load: float
    """Processes that wanted to run when it began, on average over a minute."""
    versions: dict[str, str]
    code: int
    """The exit code."""
    numbers: dict[str, Any] | None
    """None where the command left none."""


Results = dict[str, dict[str, Result]]
"""By part and form."""


def read(store: Path) -> Results:
    if not store.exists():
        return {}
    document = json.loads(store.read_text(encoding="utf-8"))
    return {name: {form: Result(**one) for form, one in forms.items()} for name, forms in document.items()}


def write(store: Path, results: Results) -> None:
    """Replace the file in one step."""
    document = {name: {form: asdict(one) for form, one in forms.items()} for name, forms in results.items()}
    draft = store.with_suffix(".json.tmp")
    draft.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    draft.replace(store)


def measured(command: Sequence[str], form: str) -> Result:
    """Run a part, whose output is shown."""
    load, begun, date = os.getloadavg()[0], time.monotonic(), datetime.now(UTC).date().isoformat()
    with tempfile.TemporaryDirectory() as folder:
        left = Path(folder) / "numbers"
        is_pytest = command[0] == "pytest"
        more = ["-q", "-p", "no:cacheprovider", f"--junitxml={left}"] if is_pytest else ["--json", str(left)]
        code = subprocess.run([sys.executable, "-m", *command, *more], cwd=REPOSITORY, check=False).returncode
        numbers = None
        if left.exists():
            text = left.read_text(encoding="utf-8")
            numbers = outcomes_of_tests(text) if is_pytest else json.loads(text)
    seconds = time.monotonic() - begun
    return Result(form, date, round(seconds, 1), machine(), round(load, 1), versions(), code, numbers)


def outcomes_of_tests(junit: str) -> dict[str, Any]:
    """How many tests passed, failed and were skipped, from pytest's own report."""
    suites = list(ET.fromstring(junit).iter("testsuite"))
    tests, failed, errors, skipped = (
        sum(int(suite.get(name, "0")) for suite in suites) for name in ("tests", "failures", "errors", "skipped")
    )
    return {"passed": tests - failed - errors - skipped, "failed": failed + errors, "skipped": skipped}


def machine() -> str:
    """The processor and how many cores it gives."""
    model = platform.processor() or platform.machine()
    described = Path("/proc/cpuinfo")
    if described.exists():
        lines = described.read_text(encoding="utf-8", errors="replace").splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), model)
    return f"{model}, {os.cpu_count()} cores"


def versions() -> dict[str, str]:
    found = {"evalcam": __version__, "python": platform.python_version()}
    return found | {name: version(name) for name in _PACKAGES}


def shown(row: Row, forms: dict[str, Result]) -> list[Result]:
    """The whole form where it was run, else the quick one; and a quick one that missed the goal in any case."""
    found = [forms[WHOLE]] if WHOLE in forms else []
    quick = forms.get(QUICK)
    if quick and (not found or verdict(row, quick) != "held"):
        found.append(quick)
    return found


def verdict(row: Row, result: Result) -> str:
    if result.numbers is None:
        return "**missed**"
    enough = result.form == QUICK or row.count(result.numbers) >= row.least
    return "held" if row.held(result.numbers) and enough else "**missed**"


def _lines(row: Row, forms: dict[str, Result]) -> Iterator[str]:
    head = f"| {row.what} | `{PARTS[row.part].shown()}` | {row.goal} |"
    results = shown(row, forms)
    if not results:
        yield f"{head} not run yet | |"
    for result in results:
        found = f"no numbers, exit code {result.code}" if result.numbers is None else row.found(result.numbers)
        yield f"{head} {_cell(found)} ({result.form}, {result.date}) | {verdict(row, result)} |"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def page(results: Results) -> str:
    """docs/reliability.md."""
    lines = [
        "# Reliability in figures\n",
        "What evalcam promises of bad input and bad moments is in [SECURITY.md](../SECURITY.md). Here is how each",
        "promise is measured, and what came of it. One command measures all and writes this page:\n",
        "    python -m tests.benchmarks.reliability\n",
        f"Its quick form, `--quick`, {_takes(results, QUICK)}.",
        f"The whole form {_takes(results, WHOLE)}.",
        "`--only PART` runs one part. Numbers are of the whole form where it was run, else of the quick one, which",
        "looks at less; a quick run that misses a goal is always shown.",
    ]  # fmt: skip
    for section, rows in ROWS.items():
        lines += [f"\n## {section}\n", "| what | how it is measured | goal | found | |", "|---|---|---|---|---|"]
        lines += [line for row in rows for line in _lines(row, results.get(row.part, {}))]
    lines += ["\n## When and where\n", "| part | form | date | minutes | load | machine | versions |"]
    lines += ["|---|---|---|--:|--:|---|---|"]
    for name in PARTS:
        for one in results.get(name, {}).values():
            installed = ", ".join(f"{package} {number}" for package, number in one.versions.items())
            cells = (name, one.form, one.date, f"{one.seconds / 60:.1f}", str(one.load), _cell(one.machine), installed)
            lines.append(f"| {' | '.join(cells)} |")
        if name not in results:
            lines.append(f"| {name} | not run yet | | | | | |")
    lines.append("\nThe load is the number of processes that wanted to run when the part began.")
    return "\n".join(lines) + "\n"


def _takes(results: Results, form: str) -> str:
    """How long a form takes, as far as it is known."""
    known = [forms[form].seconds for forms in results.values() if form in forms]
    if not known:
        return "was not run yet"
    parts = (
        "" if len(known) == len(PARTS) else f" for {len(known)} of its {len(PARTS)} parts; the others were not run yet"
    )
    return f"took {sum(known) / 60:.1f} minutes{parts}"


def missed(results: Results, form: str, names: Sequence[str]) -> list[str]:
    """What the rows of these parts found that is not the goal."""
    rows = [row for each in ROWS.values() for row in each if row.part in names]
    return [row.what for row in rows if verdict(row, results[row.part][form]) != "held"]


def main(arguments: Sequence[str] | None = None, *, store: Path = STORE, document: Path = PAGE) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.reliability")
    parser.add_argument("--quick", action="store_true", help="the short form of each part")
    parser.add_argument("--only", action="append", choices=[*PARTS], help="this part; may be given several times")
    parser.add_argument("--page", action="store_true", help="run nothing, write the page")
    asked = parser.parse_args(arguments)
    form, names = (QUICK if asked.quick else WHOLE), [] if asked.page else (asked.only or [*PARTS])
    for name in names:
        command = PARTS[name].command(quick=asked.quick)
        print(f"\n{name}: python -m {' '.join(command)}", flush=True)
        result = measured(command, form)
        results = read(store)
        results.setdefault(name, {})[form] = result
        write(store, results)
        document.write_text(page(results), encoding="utf-8")
    results = read(store)
    document.write_text(page(results), encoding="utf-8")
    wrong = missed(results, form, names)
    print("\n".join(f"missed: {what}" for what in wrong) or f"{len(names)} parts run, no goal missed")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
