"""How often do the 95 % intervals cover the truth? Simulations whose tables stand in docs/coverage.md.

    python tests/benchmarks/coverage.py [--runs 10000] [--quick]

Writes the tables between the markers of docs/coverage.md; --quick makes 500 runs a cell and prints them only. The
peers (Wald-DeLong, logit-t, Newcombe's method 5, design-effect Wilson) are written out here, for comparison alone.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import scipy.optimize
import scipy.special
import scipy.stats
from numpy.typing import NDArray

from evalcam_cli.evaluation.auc import Evidence, score_limits
from evalcam_cli.evaluation.clustered import clustered_limits
from evalcam_cli.evaluation.intervals import clopper_pearson, wilson

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Limits = tuple[Floats, Floats]
Scores = tuple[Floats, Floats]
Draw = Callable[[np.random.Generator, int, int, int, float], Scores]

PAGE = Path(__file__).parents[2] / "docs" / "coverage.md"
START, END = "<!-- tables: start -->", "<!-- tables: end -->"
AUCS = (0.5, 0.75, 0.9, 0.97, 0.99)
SIZES = ((10, 50), (30, 30), (25, 200), (100, 100))
ICCS = (0.0, 0.2, 0.5, 0.8)
RATES = (0.85, 0.95)
CLUSTERED_AUCS = (0.75, 0.9, 0.97)
MOST_IMAGES = 10
SHARE = 0.4  # of patients, or of images, that are of the class
BLOCK = 2000
Z = scipy.special.ndtri(0.975)


# Scores: (runs, m) of positives and (runs, n) of negatives with a given true AUC


def normal_scores(spread: float) -> Draw:
    """Negatives N(0, 1), positives N(d, spread^2)."""

    def draw(generator: np.random.Generator, runs: int, m: int, n: int, auc: float) -> Scores:
        shift = np.hypot(1, spread) * scipy.special.ndtri(auc)
        return generator.normal(shift, spread, (runs, m)), generator.normal(0, 1, (runs, n))

    return draw


def exponential_scores(generator: np.random.Generator, runs: int, m: int, n: int, auc: float) -> Scores:
    """Exponential with different means: skewed to the right, the positives spread wider."""
    mean = auc / (1 - auc)
    return mean * generator.exponential(size=(runs, m)), generator.exponential(size=(runs, n))


def shifted_scores(generator: np.random.Generator, runs: int, m: int, n: int, auc: float) -> Scores:
    """Exponential with the positives shifted: skewed to the right, with a sharp lower end."""
    shift = -np.log(2 * (1 - auc))
    return generator.exponential(size=(runs, m)) + shift, generator.exponential(size=(runs, n))


def mirrored(draw: Draw) -> Draw:
    """The same with positives and negatives in each other's place: skewed to the left."""

    def swapped(generator: np.random.Generator, runs: int, m: int, n: int, auc: float) -> Scores:
        positives, negatives = draw(generator, runs, n, m, auc)
        return -negatives, -positives

    return swapped


def missed_scores(generator: np.random.Generator, runs: int, m: int, n: int, auc: float) -> Scores:
    """One in fifty positives scores like a negative; the others are N(d, 1)."""
    shift = np.sqrt(2) * scipy.special.ndtri((auc - 0.01) / 0.98)
    missed = generator.random((runs, m)) < 0.02
    return generator.normal(0, 1, (runs, m)) + np.where(missed, 0, shift), generator.normal(0, 1, (runs, n))


def ordinal_scores(generator: np.random.Generator, runs: int, m: int, n: int, auc: float) -> Scores:
    """Five grades: normal scores cut at -0.5, 0.3, 1 and 1.8."""
    cuts = np.array([-0.5, 0.3, 1.0, 1.8])

    def grades(mean: float) -> Floats:
        return np.diff(scipy.special.ndtr(np.concatenate([[-np.inf], cuts - mean, [np.inf]])))

    below = np.cumsum(grades(0)) - grades(0) / 2
    mean = scipy.optimize.brentq(lambda shift: float((grades(shift) * below).sum()) - auc, -1, 12)
    sides = (generator.choice(5, (runs, size), p=grades(at)) for size, at in ((m, mean), (n, 0.0)))
    positives, negatives = (side.astype(np.float64) for side in sides)
    return positives, negatives


SHAPES: dict[str, tuple[Draw, float]] = {  # and the highest AUC that it can have
    "normal, equal variance": (normal_scores(1), 1),
    "normal, positives twice as wide": (normal_scores(2), 1),
    "normal, positives half as wide": (normal_scores(0.5), 1),
    "exponential, skewed right": (exponential_scores, 1),
    "exponential, skewed left": (mirrored(exponential_scores), 1),
    "shifted exponential, right": (shifted_scores, 1),
    "shifted exponential, left": (mirrored(shifted_scores), 1),
    "2 % of the positives look negative": (missed_scores, 0.98),
    "five grades (many ties)": (ordinal_scores, 0.98),
}


def evidence(positives: Floats, negatives: Floats) -> Evidence:
    """Of independent images, a run in each row."""
    m, n = positives.shape[1], negatives.shape[1]
    pooled = scipy.stats.rankdata(np.concatenate([positives, negatives], axis=1), axis=1)
    beaten = (pooled[:, :m] - scipy.stats.rankdata(positives, axis=1)) / n
    beating = 1 - (pooled[:, m:] - scipy.stats.rankdata(negatives, axis=1)) / m
    parts = beaten.var(axis=1, ddof=1) / m, beating.var(axis=1, ddof=1) / n
    imperfect = np.min([fewer(side) for side in (beaten, beating)], axis=0)
    sizes = np.array(float(m)), np.array(float(n))
    auc = np.rint(2 * n * beaten.sum(axis=1)) / (2 * m * n)
    return Evidence(auc, parts[0] + parts[1], parts, sizes, sizes, imperfect)


def fewer(side: Floats) -> Floats:
    """Of the placements in each row, how many are below 1, or above 0, whichever are fewer."""
    below, above = (side < 1 - 1e-12).sum(axis=1), (side > 1e-12).sum(axis=1)
    found: Floats = np.minimum(below, above).astype(np.float64)
    return found


# The peers


def wald(found: Evidence) -> Limits:
    """pROC's default: DeLong's variance, clipped."""
    half = Z * np.sqrt(found.variance)
    return np.clip(found.auc - half, 0, 1), np.clip(found.auc + half, 0, 1)


def logit_t(found: Evidence) -> Limits:
    """On the logit scale, Student's t with Satterthwaite's degrees of freedom; method 5 where the variance is 0."""
    (x, y), (m, n) = found.parts, found.images
    freedom = (x + y) ** 2 / np.maximum(x**2 / (m - 1) + y**2 / (n - 1), 1e-300)
    inside = (found.auc > 0) & (found.auc < 1) & (found.variance > 0)
    auc = np.where(inside, found.auc, 0.5)
    half = scipy.special.stdtrit(np.where(inside, freedom, 1), 0.975) * np.sqrt(found.variance) / (auc * (1 - auc))
    low, high = newcombe(found)
    centre = scipy.special.logit(auc)
    return (
        np.where(inside, scipy.special.expit(centre - half), low),
        np.where(inside, scipy.special.expit(centre + half), high),
    )


def newcombe(found: Evidence) -> Limits:
    """Method 5 of Newcombe 2006, by bisection."""
    m, n = found.images

    def reach(auc: Floats) -> Floats:
        mean = (m + n) / 2
        spread = auc * (1 - auc) / (m * n) * (2 * mean - 1 - 3 * (mean - 1) / ((2 - auc) * (1 + auc)))
        half: Floats = Z * np.sqrt(spread)
        return half

    limits = []
    for end in (0.0, 1.0):
        outer, inner = np.full_like(found.auc, end), found.auc
        for _ in range(50):
            middle = (outer + inner) / 2
            outside = np.abs(found.auc - middle) > reach(middle)
            outer, inner = np.where(outside, middle, outer), np.where(outside, inner, middle)
        limits.append(outer)
    return limits[0], limits[1]


def design_effect(hits: Floats, images: Floats) -> Limits:
    """Wilson with n over the design effect of Rao and Scott 1992, as it is estimated."""
    n, count = images.sum(axis=1), (images > 0).sum(axis=1)
    p = hits.sum(axis=1) / n
    spread = ((hits - images * p[:, None]) ** 2).sum(axis=1) * count / (count - 1)
    effect = np.maximum(spread / np.where((p > 0) & (p < 1), n * p * (1 - p), 1), 1)
    return wilson(p * n / effect, n / effect)


def naive(hits: Floats, images: Floats) -> Limits:
    return wilson(hits.sum(axis=1), images.sum(axis=1))


# Patients of 1 to 10 images: arrays of (runs, patients, 10) of which `there` marks the images that exist


def draw_hits(generator: np.random.Generator, runs: int, patients: int, rate: float, icc: float, of: str) -> Scores:
    """Beta-binomial hits and images of the (runs, patients); `of` all, or those of the class by patient or by image."""
    images = generator.integers(1, MOST_IMAGES + 1, (runs, patients))
    if of == "patient":
        images = np.where(generator.random((runs, patients)) < SHARE, images, 0)
    elif of == "image":
        images = generator.binomial(images, SHARE)
    scale = (1 - icc) / max(icc, 1e-9)
    rates = generator.beta(rate * scale, (1 - rate) * scale, images.shape) if icc else np.full(images.shape, rate)
    kept = (images > 0).sum(axis=1) >= 2
    return generator.binomial(images, rates)[kept].astype(np.float64), images[kept].astype(np.float64)


def draw_clusters(
    generator: np.random.Generator, runs: int, patients: int, auc: float, icc: float, by: str
) -> tuple[Floats, Bools, Bools]:
    """Scores, which are positive, and which are there; `icc` is the patient's share of the variance of the scores."""
    shape = runs, patients, MOST_IMAGES
    there = np.arange(MOST_IMAGES) < generator.integers(1, MOST_IMAGES + 1, shape[:2])[..., None]
    labels = generator.random(shape if by == "image" else (*shape[:2], 1)) < SHARE
    shift = np.sqrt(2) * scipy.special.ndtri(auc)
    own, shared = generator.normal(size=shape), generator.normal(size=(*shape[:2], 1))
    positive = labels & there
    scores = np.sqrt(1 - icc) * own + np.sqrt(icc) * shared + shift * positive
    kept = np.minimum(*(side.any(axis=2).sum(axis=1) for side in (positive, there & ~positive))) >= 2
    return scores[kept], positive[kept], there[kept]


def clustered_evidence(scores: Floats, positive: Bools, there: Bools) -> tuple[Evidence, Floats]:
    """Of scores without ties, all runs at once; and DeLong's variance, which takes the images as independent."""
    sides = positive, there & ~positive
    m, n = (side.sum(axis=(1, 2)).astype(np.float64) for side in sides)
    placed = placements_of_runs(scores, *sides)
    auc = np.where(positive, placed, 0).sum(axis=(1, 2)) / m
    off = [np.where(side, placed - auc[:, None, None], 0) for side in sides]
    sums = [one.sum(axis=2) for one in off]
    patients = [side.any(axis=2).sum(axis=1) for side in (*sides, there)]
    x, y = (k / (k - 1) * (a**2).sum(axis=1) / size**2 for k, a, size in zip(patients[:2], sums, (m, n), strict=True))
    crossed = 2 * patients[2] / (patients[2] - 1) * (sums[0] * sums[1]).sum(axis=1) / (m * n)
    k, j = (size**2 / (side.sum(axis=2) ** 2).sum(axis=1) for side, size in zip(sides, (m, n), strict=True))
    imperfect = [(side & mask).any(axis=2).sum(axis=1) for side in sides for mask in (placed < 1, placed > 0)]
    delong = sum((a**2).sum(axis=(1, 2)) / (size - 1) / size for a, size in zip(off, (m, n), strict=True))
    found = Evidence(auc, np.maximum(x + y + crossed, 0), (x, y), (m, n), (k, j), np.min(imperfect, axis=0) * 1.0)
    return found, np.asarray(delong)


def placements_of_runs(scores: Floats, positive: Bools, negative: Bools) -> Floats:
    """Of all images of all runs, in the shape of the scores; exact at 0 and 1."""
    flat = np.where(positive | negative, scores, np.inf).reshape(len(scores), -1)
    order = np.argsort(flat, axis=1)
    p, n = (np.take_along_axis(side.reshape(flat.shape), order, axis=1) for side in (positive, negative))
    lower, above = np.cumsum(n, axis=1), p.sum(axis=1)[:, None] - np.cumsum(p, axis=1)
    placed = np.empty_like(flat)
    shares = np.where(p, lower / n.sum(axis=1)[:, None], above / p.sum(axis=1)[:, None])
    np.put_along_axis(placed, order, shares, axis=1)
    return placed.reshape(scores.shape)


# The tables


def covered(limits: Limits, truth: float) -> tuple[float, float]:
    """Share of the intervals that hold the truth, and their mean width."""
    low, high = limits
    return float(((low <= truth) & (truth <= high)).mean()), float((high - low).mean())


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def show(share: float, width: float | None = None) -> str:
    digits = f"{share:.3f}".removeprefix("0") if share < 1 else "1"
    return digits if width is None else f"{digits} ({width:.3f})"


AUC_METHODS: dict[str, Callable[[Evidence], Limits]] = {
    "evalcam (default)": score_limits,
    "DeLong, Wald (pROC)": wald,
    "logit-t": logit_t,
    "Newcombe, method 5": newcombe,
}


def cells(draw: Draw, highest: float, runs: int, seed: int) -> Iterator[tuple[float, int, int, Evidence]]:
    for auc in AUCS:
        for index, (m, n) in enumerate(SIZES):
            if auc <= highest:
                generator = np.random.default_rng([seed, round(1000 * auc), index])
                yield auc, m, n, evidence(*draw(generator, runs, m, n, auc))


def independent_aucs(runs: int, seed: int) -> str:
    rows = []
    for auc, m, n, found in cells(normal_scores(1), 1, runs, seed):
        numbers = [show(*covered(method(found), auc)) for method in AUC_METHODS.values()]
        rows.append([f"{auc:g}", f"{m} / {n}", *numbers])
    return table(["true AUC", "positives / negatives", *AUC_METHODS], rows)


def other_shapes(runs: int, seed: int) -> str:
    rows = []
    for name, (draw, highest) in SHAPES.items():
        shares = [
            [covered(method(found), auc)[0] for method in AUC_METHODS.values()]
            for auc, _, _, found in cells(draw, highest, runs, seed)
        ]
        columns = zip(*shares, strict=True)
        rows.append([name, str(len(shares)), *(f"{show(min(column))} to {show(max(column))}" for column in columns)])
    return table(["scores", "cells", *AUC_METHODS], rows)


def proportions() -> str:
    """By summation over all counts, for 400 true rates from 0.5 to 0.995."""
    rates = np.linspace(0.5, 0.995, 400)
    rows = []
    for n in (10, 20, 50, 100, 400):
        counts = np.arange(n + 1)
        chances = scipy.stats.binom.pmf(counts, n, rates[:, None])
        row = [str(n)]
        for low, high in (wilson(counts, n), clopper_pearson(counts, n)):
            held = (chances * ((low <= rates[:, None]) & (rates[:, None] <= high))).sum(axis=1)
            width = (chances * (high - low)).sum(axis=1).mean()
            row += [show(held.mean()), show(held.min()), f"{width:.3f}"]
        rows.append(row)
    methods = [f"{name}: {what}" for name in ("Wilson", "Clopper-Pearson") for what in ("mean", "lowest", "mean width")]
    return table(["images", *methods], rows)


def clustered_rates(runs: int, seed: int, patients: int) -> str:
    names = {"all": "accuracy", "patient": "sensitivity, patients of the class", "image": "sensitivity, images of it"}
    methods = {"evalcam": clustered_limits, "Wilson, images independent": naive, "Wilson, design effect": design_effect}
    rows = []
    for place, of in enumerate(names):
        for rate in RATES:
            for icc in ICCS:
                generator = np.random.default_rng([seed, place, round(100 * rate), round(100 * icc), patients])
                drawn = draw_hits(generator, runs, patients, rate, icc, of)
                numbers = [show(*covered(method(*drawn), rate)) for method in methods.values()]
                rows.append([names[of], f"{rate:g}", f"{icc:g}", *numbers])
    return table(["number", "true rate", "ICC", *methods], rows)


def clustered_aucs(runs: int, seed: int, patients: int) -> str:
    rows = []
    for by in ("patient", "image"):
        for auc in CLUSTERED_AUCS:
            for icc in ICCS:
                generator = np.random.default_rng([seed, len(by), round(1000 * auc), round(100 * icc), patients])
                limits: list[list[Limits]] = []
                for start in range(0, runs, BLOCK):
                    drawn = draw_clusters(generator, min(BLOCK, runs - start), patients, auc, icc, by)
                    found, delong = clustered_evidence(*drawn)
                    independent = replace(found, variance=delong)
                    limits.append([score_limits(found), wald(independent), wald(found)])
                joined = (np.concatenate(method, axis=1) for method in zip(*limits, strict=True))
                rows.append([by, f"{auc:g}", f"{icc:g}", *(show(*covered((low, high), auc)) for low, high in joined)])
    return table(["label of the", "true AUC", "ICC", "evalcam", "DeLong, images independent", "Obuchowski, Wald"], rows)


def tables(runs: int, seed: int) -> Iterator[str]:
    yield f"{runs:,} runs a cell, seed {seed}; coverage, and in brackets the mean width.\n"
    yield f"### AUC, independent images, normal scores of equal variance\n\n{independent_aucs(runs, seed)}"
    yield f"### AUC, independent images, other scores: lowest to highest coverage\n\n{other_shapes(runs, seed)}"
    yield f"### Proportions, independent images (exact, by summation)\n\n{proportions()}"
    for patients in (50, 20):
        yield f"### Proportions, {patients} patients of 1 to 10 images\n\n{clustered_rates(runs, seed, patients)}"
        yield f"### AUC, {patients} patients of 1 to 10 images\n\n{clustered_aucs(runs, seed, patients)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="500 runs, printed only")
    options = parser.parse_args()
    start = time.monotonic()
    made = []
    for part in tables(500 if options.quick else options.runs, options.seed):
        print(part, flush=True)
        made.append(part)
    print(f"{time.monotonic() - start:.0f} s")
    if not options.quick:
        text = PAGE.read_text(encoding="utf-8")
        before, after = text.split(START)[0], text.split(END)[1]
        PAGE.write_text(f"{before}{START}\n\n{chr(10).join(made)}\n{END}{after}", encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
