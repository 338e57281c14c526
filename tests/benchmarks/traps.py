"""The traps of the tests, put to evalcam and to the peers that are installed, as a table in Markdown.

    python -m tests.benchmarks.traps [--quick]        needs the extra `bench`

Ends with 1 when evalcam is caught.
"""

import argparse
import re
import sys

import torch

from tests.benchmarks.explanation_peers import OURS, PEERS, Tool, quiet
from tests.explain.traps import TRAPS, Trap


def outcome(trap: Trap, tool: Tool, *, quick: bool) -> str:
    """`ok`, or what the tool does instead; a dash where it is not asked."""
    if not trap.concerns(tool):
        return "–"
    check = trap.check if quick or trap.thorough is None else trap.thorough
    try:
        with quiet():
            check(tool)
    except AssertionError as error:
        return f"**{_short(error) or 'AssertionError'}**"
    except Exception as error:  # of any kind: that is the outcome
        return f"**{type(error).__name__}**: {_short(error)}"
    return "ok"


def _short(error: Exception) -> str:
    line = re.sub(r"0x[0-9a-f]+", "…", str(error).strip().partition("\n")[0]).replace("|", "\\|")
    return line if len(line) <= 60 else line[:59] + "…"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer repetitions")
    options = parser.parse_args()
    torch.set_num_threads(1)
    tools = (OURS, *(peer for peer in PEERS if peer.installed()))
    print(f"| | trap | must | {' | '.join(tool.title for tool in tools)} |\n|--:|---|---|{'---|' * len(tools)}")
    caught = dict.fromkeys((tool.name for tool in tools), 0)
    asked = dict.fromkeys(caught, 0)
    for number, trap in enumerate(TRAPS, 1):
        outcomes = {tool.name: outcome(trap, tool, quick=options.quick) for tool in tools}
        print(f"| {number} | {trap.name} | {trap.must} | {' | '.join(outcomes.values())} |", flush=True)
        for name, said in outcomes.items():
            asked[name] += said != "–"
            caught[name] += said not in ("ok", "–")
    sums = (f"{caught[name]} of {asked[name]}" for name in caught)
    print(f"| | caught by | | {' | '.join(sums)} |")
    return int(caught[OURS.name] > 0)


if __name__ == "__main__":
    sys.exit(main())
