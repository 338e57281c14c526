"""Hold evalcam's metrics to scikit-learn's on thousands of random cases.

    python -m tests.benchmarks.fuzz_metrics [--cases 10000] [--seed 0]

Cases have 2 to 50 classes and 2 to 2,000 images, mostly few; ties, classes without images or never predicted, logits
and stated probabilities, probabilities down to 0, temperatures and operating points. Prints the largest difference for
each metric (relative to numbers above 1) and ends with 1 when one is above 1e-12 or is defined on one side only.
"""

import argparse
import sys
import time
from collections import Counter
from dataclasses import replace

import numpy as np

from evalcam_cli.evaluation.metrics import compute_metrics
from evalcam_cli.evaluation.operating_point import OperatingPoint
from evalcam_cli.evaluation.predictions import Predictions
from evalcam_cli.evaluation.stated import StatedProbabilities
from tests.evaluation.oracle import NOT_IN_SCIKIT_LEARN, scikit_learn_values, values

TOLERANCE = 1e-12


def random_case(seed: int) -> Predictions:
    """Any kind of predictions that evalcam takes."""
    generator = np.random.default_rng(np.random.SeedSequence([20240, seed]))
    k = int(generator.choice([2, 3, 4, 5, 6, 10, 20, 50], p=[0.46, 0.24, 0.12, 0.08, 0.05, 0.03, 0.015, 0.005]))
    n = round(2 * 10 ** (3 * generator.random() ** 2))  # 2 to 2,000
    present = generator.choice(k, size=generator.integers(1, k + 1), replace=False)
    targets = generator.choice(present, size=n)
    logits = generator.normal(size=(n, k)) * generator.choice([0.1, 1.0, 3.0, 30.0, 300.0])
    if generator.random() < 0.3:
        logits = logits.round()  # ties
    if generator.random() < 0.2:
        logits[:, 0] -= generator.choice([15.0, 1000.0])  # hardly ever predicted
    logits[np.arange(n), targets] += generator.choice([0.0, 1.0, 3.0])
    names, paths = tuple(f"class {index}" for index in range(k)), tuple(map(str, range(n)))
    case = Predictions(names, logits.astype(np.float32), targets, paths)
    kind = generator.random()
    if kind < 0.25:
        case = replace(case, temperature=float(generator.choice([0.3, 1.7, 4.0])))
    elif kind < 0.5:
        case = _stated(case, digits=int(generator.choice([2, 4, 17])))
    if generator.random() < 0.25:
        index = int(generator.integers(k))
        threshold = float(generator.choice(case.probability_of(index)))
        point = OperatingPoint(names[index], threshold, "youden", 50, 50, 0.8, 0.8)
        case = replace(case, operating_point=point) if threshold > 0 else case
    return case


def _stated(case: Predictions, *, digits: int) -> StatedProbabilities:
    """The probabilities as a file would state them; the last class takes what rounding left over."""
    stated = case.probabilities.round(digits)
    stated[:, -1] = np.clip(1 - stated[:, :-1].sum(axis=1), 0, 1)
    with np.errstate(divide="ignore"):
        logits = np.log(stated).astype(np.float32)
    return StatedProbabilities(case.classes, logits, case.targets, case.paths, stated=stated)


def differences(case: Predictions) -> dict[str, float]:
    """Largest difference of each metric, its classes together; infinite where only one side defines it."""
    found, wanted = values(compute_metrics(case)), scikit_learn_values(case)
    unheld = {name.partition("[")[0] for name in set(found) - set(wanted)} - set(NOT_IN_SCIKIT_LEARN)
    largest = dict.fromkeys(unheld, np.inf)
    for name, value in wanted.items():
        ours = found.get(name, None)
        if ours is None or np.isnan(value):
            difference = 0.0 if ours is None and np.isnan(value) else np.inf
        else:
            difference = abs(ours - value) / max(1.0, abs(value))
        base = name.partition("[")[0]
        largest[base] = max(largest.get(base, 0.0), difference)
    return largest


def main() -> int:
    parser = argparse.ArgumentParser(description="Hold evalcam's metrics to scikit-learn's on random cases.")
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0, help="number of the first case")
    options = parser.parse_args()
    start, largest, times, bad = time.perf_counter(), dict[str, float](), Counter[str](), list[str]()
    for seed in range(options.seed, options.seed + options.cases):
        for name, difference in differences(random_case(seed)).items():
            largest[name] = max(largest.get(name, 0.0), difference)
            times[name] += 1
            if difference > TOLERANCE:
                bad.append(f"case {seed}: {name} differs by {difference:.1e}")
    for name in sorted(largest, key=lambda name: -largest[name]):
        print(f"{name:<28} {times[name]:>6} cases  largest difference {largest[name]:.1e}")
    print(*bad[:20], sep="\n", file=sys.stderr)
    print(f"{options.cases:,} cases in {time.perf_counter() - start:.0f} s, {len(bad)} differences above {TOLERANCE}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
