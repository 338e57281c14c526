"""Measure the warning of attention at the border or in a corner: false alarms without a reason, and planted markers.

    python -m tests.benchmarks.attention [--reports 400]

Simulated 7 x 7 maps, four classes per report. A false alarm is a report with any warning, a find a class with the right
region named. It takes about two minutes on one core.
"""

import argparse
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from evalcam_cli.data.preprocessing import Geometry
from evalcam_cli.explain.attention import REGIONS, find_region, positive_on_grid

CLASSES, CELLS = 4, 7
TESTS = CLASSES * len(REGIONS)
WHOLE = Geometry(224, 224, 224, 1.0, 1.0, 0.0, 0.0)
NUMBERS = (5, 10, 30, 100, 300)
Maps = NDArray[np.float64]
Draw = Callable[[np.random.Generator, int], Maps]


def blobs(x: Maps, y: Maps, spread: Maps | float) -> Maps:
    """(n, 7, 7) bumps with their middles at x and y, in shares of the image."""
    places = (np.arange(CELLS) + 0.5) / CELLS
    wide = 2 * np.broadcast_to(spread, x.shape)[:, None] ** 2
    across = np.exp(-((places - x[:, None]) ** 2) / wide)
    down = np.exp(-((places - y[:, None]) ** 2) / wide)
    return np.asarray(down[:, :, None] * across[:, None, :])


def shares(maps: Maps) -> Maps:
    return np.asarray(maps / maps.sum(axis=(1, 2), keepdims=True))


def even(generator: np.random.Generator, n: int) -> Maps:
    return np.ones((n, CELLS, CELLS)) + 0.3 * generator.standard_normal((n, CELLS, CELLS))


def noise(generator: np.random.Generator, n: int) -> Maps:
    return generator.standard_normal((n, CELLS, CELLS))


def anywhere(generator: np.random.Generator, n: int) -> Maps:
    return blobs(generator.random(n), generator.random(n), generator.uniform(0.06, 0.2, n))


def centred(generator: np.random.Generator, n: int) -> Maps:
    x, y = 0.5 + 0.12 * generator.standard_normal((2, n))
    return blobs(x, y, generator.uniform(0.1, 0.25, n)) + 0.1 * generator.standard_normal((n, CELLS, CELLS))


def off_centre(generator: np.random.Generator, n: int) -> Maps:
    """As of an organ that lies a third from the top and from the left in every image."""
    x, y = 0.33 + 0.08 * generator.standard_normal((2, n))
    return blobs(x, y, generator.uniform(0.1, 0.2, n)) + 0.1 * generator.standard_normal((n, CELLS, CELLS))


def low(generator: np.random.Generator, n: int) -> Maps:
    """As of animals on the ground, in the lower part of photographs."""
    x, y = 0.5 + 0.15 * generator.standard_normal(n), 0.68 + 0.12 * generator.standard_normal(n)
    return blobs(x, y, generator.uniform(0.1, 0.25, n)) + 0.1 * generator.standard_normal((n, CELLS, CELLS))


def marked(where: str, *, prevalence: float, strength: float) -> Draw:
    """Attention around the middle, and in a part of the images a share of it at a marker."""

    def draw(generator: np.random.Generator, n: int) -> Maps:
        base = shares(np.maximum(centred(generator, n), 0))
        jitter = 0.08 + 0.02 * generator.standard_normal(n)
        along = generator.random(n)
        if where == "corner":
            marks = blobs(jitter, 1 - jitter, 0.06)
        elif where == "edge":
            marks = blobs(np.full(n, 0.5), 1 - jitter, 0.06) + blobs(along, 1 - jitter, 0.1)
        else:
            sides = generator.integers(0, 4, n)
            x = np.select([sides == 0, sides == 1], [jitter, 1 - jitter], along)
            y = np.select([sides == 2, sides == 3], [jitter, 1 - jitter], along)
            marks = blobs(x, y, 0.06)
        share = strength * (generator.random(n) < prevalence)[:, None, None]
        return (1 - share) * base + share * shares(marks)

    return draw


NOTHING: dict[str, Draw] = {
    "even": even, "noise": noise, "anywhere": anywhere, "centred": centred, "off-centre": off_centre,
    "low": low,
}  # fmt: skip
EXPECTED = {"corner": "bottom-left corner", "edge": "bottom edge", "border": "border"}


def found(draw: Draw, n: int, reports: int, seed: int) -> Iterator[str]:
    """The region named for each class of each report, or nothing."""
    generator = np.random.default_rng(seed)
    for _ in range(reports * CLASSES):
        average = np.zeros((32, 32))
        for one in draw(generator, n):
            grid = positive_on_grid(one, WHOLE)
            average += grid / grid.sum()
        finding = find_region(average / n, n, TESTS)
        yield "" if finding is None else finding.region.name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reports", type=int, default=400)
    reports = parser.parse_args().reports
    print(f"{'':34}" + "".join(f"{f'n={n}':>9}" for n in NUMBERS))
    for name, draw in NOTHING.items():
        row = []
        for n in NUMBERS:
            names = list(found(draw, n, max(20, reports * 10 // n), seed=n))
            alarms = [any(names[start : start + CLASSES]) for start in range(0, len(names), CLASSES)]
            row.append(np.mean(alarms))
        print(f"false alarms per report, {name:10}" + "".join(f"{value:9.4f}" for value in row), flush=True)
    for where, expected in EXPECTED.items():
        for prevalence, strength in ((1.0, 0.8), (1.0, 0.5), (0.5, 0.8), (0.3, 0.8), (0.1, 0.8)):
            draw = marked(where, prevalence=prevalence, strength=strength)
            row = []
            for n in NUMBERS:
                names = list(found(draw, n, max(5, reports // n), seed=n))
                row.append(np.mean([one == expected for one in names]))
            label = f"{where} {strength:.0%} in {prevalence:.0%} of images"
            print(f"{label:34}" + "".join(f"{value:9.3f}" for value in row), flush=True)


if __name__ == "__main__":
    main()
