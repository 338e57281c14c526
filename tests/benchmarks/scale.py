"""How long a large evaluation takes and how much memory: 50,000 images of 1,000 classes from saved logits.

    python tests/benchmarks/scale.py [--images 50000] [--classes 1000]

Prints the seconds of the metrics with all intervals that have a formula, the peak memory of the process beside the
logits' own size, and one-vs-rest AUC against scikit-learn's in alternating runs of the same process.
"""

import argparse
import resource
import statistics
import time
from collections.abc import Callable

import numpy as np

from evalcam_cli.evaluation.auc import placements
from evalcam_cli.evaluation.metrics import compute_metrics
from evalcam_cli.evaluation.predictions import Predictions


def make_predictions(images: int, classes: int) -> Predictions:
    """Logits of a fair classifier, made in blocks."""
    generator = np.random.default_rng(0)
    targets = generator.integers(0, classes, images)
    logits = np.empty((images, classes), dtype=np.float32)
    for start in range(0, images, 1000):
        block = generator.standard_normal((min(1000, images - start), classes), dtype=np.float32)
        block[np.arange(len(block)), targets[start : start + 1000]] += 4
        logits[start : start + 1000] = block
    return Predictions(tuple(f"class {k}" for k in range(classes)), logits, targets, tuple(map(str, range(images))))


def peak() -> float:
    """Peak memory of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def one_vs_rest(predictions: Predictions) -> float:
    """Mean AUC of the classes against the rest."""
    found = [placements(scores, predictions.targets == index) for index, scores in predictions.each_class()]
    return float(np.mean([one.auc for one in found if one is not None]))


def scikit_learn(predictions: Predictions) -> float:
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(predictions.targets, predictions.probabilities, multi_class="ovr"))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--classes", type=int, default=1_000)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    predictions = make_predictions(options.images, options.classes)
    before = peak()
    seconds = timed(lambda: compute_metrics(predictions, bootstrap=1000))
    print(f"{options.images:,} images, {options.classes:,} classes, logits {predictions.logits.nbytes / 2**20:.0f} MB")
    print(f"all metrics with their intervals: {seconds:.1f} s, peak {peak():.0f} MB ({before:.0f} MB before)")
    ours, theirs = [], []
    for _ in range(options.runs):
        ours.append(timed(lambda: one_vs_rest(predictions)))
        theirs.append(timed(lambda: scikit_learn(predictions)))
    a, b = statistics.median(ours), statistics.median(theirs)
    print(f"one-vs-rest AUC, median of {options.runs}: {a:.2f} s, scikit-learn {b:.2f} s, {b / a:.1f} times as fast")


if __name__ == "__main__":
    main()
