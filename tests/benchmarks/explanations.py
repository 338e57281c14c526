"""evalcam's explanations beside those of the installed peers.

    python -m tests.benchmarks.explanations parity [--side 224] [--images 2] [--networks ResNet-18,VGG-16]
    python -m tests.benchmarks.explanations speed [--quick] [--runs 7]
    python -m tests.benchmarks.explanations memory [--images 16]

Needs the extra `bench`. Networks have random weights, batch-norm statistics of noise, and heads whose logits differ.
`parity` ends with 1 when a map differs by more than rounding and the reason is not known.
"""

import argparse
import sys

import torch

from tests.benchmarks.explanation_parity import print_parity
from tests.benchmarks.explanation_peers import NETWORKS


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    parity = commands.add_parser("parity")
    parity.add_argument("--side", type=int, default=224)
    parity.add_argument("--images", type=int, default=2)
    parity.add_argument("--networks", type=lambda text: text.split(","), default=list(NETWORKS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    return 0 if print_parity(side=options.side, count=options.images, networks=options.networks) else 1


if __name__ == "__main__":
    sys.exit(main())
