"""`python -m tests.zoo [WORD]...`: run the whole zoo, or the cases whose names contain a word, and print numbers.

Ends with 1 when anything is wrong.
"""

import sys
from collections.abc import Sequence

from tests.zoo.tally import OUTCOMES, run_zoo


def _main(words: Sequence[str]) -> int:
    tally = run_zoo(words, tell=lambda name, faults: print(f"{name}: " + "\n  ".join(faults) + "\n", flush=True))
    print(f"{'':16}" + "".join(f"{name:>9}" for name in (*OUTCOMES, "all")))
    for kind, counts in tally.counts.items():
        print(f"{kind:16}" + "".join(f"{number:9}" for number in (*counts.values(), sum(counts.values()))))
    print(", ".join(f"{count} {name}" for name, count in tally.wrong.items()) + f"; {tally.seconds:.0f} s")
    return 1 if tally.faults else 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
