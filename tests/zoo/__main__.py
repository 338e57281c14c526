"""`python -m tests.zoo [WORD]... [--quick] [--json FILE]`: run the whole zoo, and print numbers.

With words only the cases whose names contain one of them; `--quick` runs every eleventh. Ends with 1 when anything is
wrong.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from tests.zoo.tally import OUTCOMES, run_zoo


def _main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.zoo")
    parser.add_argument("words", nargs="*")
    parser.add_argument("--quick", action="store_true", help="every eleventh case")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    asked = parser.parse_args(arguments)
    tally = run_zoo(asked.words, every=11 if asked.quick else 1, tell=_tell)
    if asked.json:
        asked.json.write_text(json.dumps(asdict(tally)))
    print(f"{'':16}" + "".join(f"{name:>9}" for name in (*OUTCOMES, "all")))
    for kind, counts in tally.counts.items():
        print(f"{kind:16}" + "".join(f"{number:9}" for number in (*counts.values(), sum(counts.values()))))
    print(", ".join(f"{count} {name}" for name, count in tally.wrong.items()) + f"; {tally.seconds:.0f} s")
    return 1 if tally.faults else 0


def _tell(name: str, faults: Sequence[str]) -> None:
    print(f"{name}: " + "\n  ".join(faults) + "\n", flush=True)


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
