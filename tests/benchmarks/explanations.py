"""evalcam's explanations beside those of the installed peers.

    python -m tests.benchmarks.explanations parity [--side 224] [--images 2] [--networks ResNet-18,VGG-16]
    python -m tests.benchmarks.explanations speed [--quick] [--runs 7] [--only ResNet-18] [--saved TIMES.json]
    python -m tests.benchmarks.explanations memory [--images 16]

Needs the extra `bench`. Networks have random weights, batch-norm statistics of noise, and heads whose logits differ.
`parity` ends with 1 when a map differs by more than rounding and the reason is not known.
"""

import argparse
import json
import sys
from pathlib import Path

import torch

from tests.benchmarks.explanation_memory import measure, print_memory
from tests.benchmarks.explanation_parity import print_parity
from tests.benchmarks.explanation_parity_others import print_others
from tests.benchmarks.explanation_peers import NETWORKS
from tests.benchmarks.explanation_speed import contests, print_speed


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    parity, speed, memory = (commands.add_parser(name) for name in ("parity", "speed", "memory"))
    for command in (parity, speed, memory):
        command.add_argument("--side", type=int, default=224, help="of the images, in pixels")
    parity.add_argument("--images", type=int, default=2)
    parity.add_argument("--networks", type=lambda text: text.split(","), default=list(NETWORKS))
    speed.add_argument("--runs", type=int, default=7)
    speed.add_argument("--batch", type=int, default=8)
    speed.add_argument("--quick", action="store_true", help="two images and three runs, to see that all works")
    speed.add_argument("--only", default="", help="contests whose title has this text")
    speed.add_argument("--saved", type=Path, help="JSON file of times: what it has is not measured again")
    memory.add_argument("--images", type=int, default=16)
    memory.add_argument("--only", help="one tool, in this process: its MB as JSON")
    options = parser.parse_args()
    torch.set_num_threads(1)
    return {"parity": run_parity, "speed": run_speed, "memory": run_memory}[options.command](options)


def run_parity(options: argparse.Namespace) -> int:
    fine = print_parity(side=options.side, count=options.images, networks=options.networks)
    return 0 if print_others(side=64, count=options.images) and fine else 1


def run_speed(options: argparse.Namespace) -> int:
    runs, batch = (3, 2) if options.quick else (options.runs, options.batch)
    every = contests(runs=runs, batch=batch, side=options.side)
    print_speed([each for each in every if options.only in each.title], saved=options.saved)
    return 0


def run_memory(options: argparse.Namespace) -> int:
    if options.only is not None:
        print(json.dumps(measure(options.only, images=options.images, side=options.side)))
        return 0
    return 0 if print_memory(images=options.images, side=options.side) else 1


if __name__ == "__main__":
    sys.exit(main())
