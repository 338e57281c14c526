"""How often the tests of `evalcam compare` find a difference where there is none: at most 0.065 at the 5 % level.

    python tests/benchmarks/error_rates.py [--runs N] [--quick]

Every row draws many data sets in which both classifiers are equally good, runs one test, and counts p < 0.05. Writes
the table between the markers of docs/comparison.md, in about 6 minutes on one core; --quick takes a tenth of the runs
and prints it only.
"""

import argparse
import functools
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.stats
from numpy.typing import NDArray

from evalcam_cli.evaluation import counts
from evalcam_cli.evaluation.auc import placements
from evalcam_cli.evaluation.comparison import CompareOptions, compare, parse_metric
from evalcam_cli.evaluation.folds import nadeau_bengio_test
from evalcam_cli.evaluation.matching import Model
from evalcam_cli.evaluation.paired import McNemar, auc_influence, compare_auc, compare_macro_auc, compare_proportions
from evalcam_cli.evaluation.paired import mcnemar as mcnemar_test
from evalcam_cli.evaluation.predictions import Predictions
from evalcam_cli.evaluation.several import cochran
from evalcam_cli.evaluation.swaps import count_swaps, mean_swaps
from evalcam_cli.evaluation.unpaired import compare_aucs_apart, compare_shares

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Generator = np.random.Generator

MOST, LEAST = 0.065, 0.035
PERMUTATIONS, RESAMPLES = 999, 400
DOCUMENT = Path(__file__).parents[2] / "docs" / "comparison.md"
START, END = "<!-- error rates: start -->", "<!-- error rates: end -->"


@dataclass(frozen=True)
class Design:
    """One row of the table."""

    test: str
    what: str
    draw: Callable[[Generator, int], float | None]
    """p of one data set; the number seeds the test's own draws."""
    runs: int
    at_least: float = 0.0


# McNemar: right and wrong of two classifiers with the same accuracy


def mcnemar(n: int, discordant: float, method: McNemar) -> Callable[[Generator, int], float]:
    p_value = functools.cache(lambda b, c: mcnemar_test(b, c, method)[0])

    def draw(generator: Generator, _: int) -> float:
        b, c, _rest = generator.multinomial(n, [discordant / 2, discordant / 2, 1 - discordant]).tolist()
        return p_value(b, c)

    return draw


# scores: two binormal classifiers of the same AUC


def scores(generator: Generator, labels: NDArray[np.bool_], auc: float, rho: float, patients: Ints | None) -> Floats:
    """(2, N) scores of variance 1, correlated by rho; with patients 0.3 of it is theirs, 0.3 theirs by model."""
    n = len(labels)
    shift = np.sqrt(2) * scipy.stats.norm.ppf(auc)
    if patients is None:
        shared, own = generator.normal(size=n), generator.normal(size=(2, n))
        noise = np.sqrt(rho) * shared + np.sqrt(1 - rho) * own
    else:
        count = patients.max() + 1
        common, by_model = generator.normal(size=count)[patients], generator.normal(size=(2, count))[:, patients]
        noise = np.sqrt(0.3) * common + np.sqrt(0.3) * by_model + np.sqrt(0.4) * generator.normal(size=(2, n))
    return np.asarray(noise + shift * labels)


def some_patients(generator: Generator, count: int) -> Ints:
    """The patient of each image, 1 to 10 images each."""
    return np.repeat(np.arange(count), generator.integers(1, 11, count))


def delong(positives: int, negatives: int, auc: float, rho: float) -> Callable[[Generator, int], float | None]:
    labels = np.arange(positives + negatives) < positives

    def draw(generator: Generator, _: int) -> float | None:
        a, b = scores(generator, labels, auc, rho, None)
        return compare_auc(placements(a, labels), placements(b, labels)).p_value

    return draw


def obuchowski(patients: int, auc: float, *, mixed: bool) -> Callable[[Generator, int], float | None]:
    """Patients with images of both sides, or of one."""

    def draw(generator: Generator, _: int) -> float | None:
        codes = some_patients(generator, patients)
        labels = generator.random(len(codes)) < 0.4 if mixed else codes < 0.4 * patients
        a, b = scores(generator, labels, auc, 0, codes)
        return compare_auc(placements(a, labels), placements(b, labels), (codes[labels], codes[~labels])).p_value

    return draw


def delong_apart(sizes: tuple[int, int, int, int], auc: float) -> Callable[[Generator, int], float | None]:
    def draw(generator: Generator, _: int) -> float | None:
        placed = []
        for positives, negatives in (sizes[:2], sizes[2:]):
            labels = np.arange(positives + negatives) < positives
            placed.append(placements(scores(generator, labels, auc, 0, None)[0], labels))
        return compare_aucs_apart((placed[0], placed[1])).p_value

    return draw


def obuchowski_apart(patients: int, auc: float) -> Callable[[Generator, int], float | None]:
    def draw(generator: Generator, _: int) -> float | None:
        placed, sides = [], []
        for _set in range(2):
            codes = some_patients(generator, patients)
            labels = codes < 0.4 * patients
            placed.append(placements(scores(generator, labels, auc, 0, codes)[0], labels))
            sides.append((codes[labels], codes[~labels]))
        return compare_aucs_apart((placed[0], placed[1]), (sides[0], sides[1])).p_value

    return draw


def macro_auc(each: int, classes: int, skill: float, patients: int = 0) -> Callable[[Generator, int], float | None]:
    def draw(generator: Generator, _: int) -> float | None:
        codes = some_patients(generator, patients) if patients else None
        n = each * classes if codes is None else len(codes)
        targets = np.repeat(np.arange(classes), each) if codes is None else generator.integers(0, classes, n)
        noise = [scores(generator, np.zeros(n, dtype=bool), 0.5, 0.4, codes) for _class in range(classes)]
        changes = []
        for index in range(classes):
            positive = targets == index
            placed = [placements(noise[index][model] + skill * positive, positive) for model in range(2)]
            one, two = placed
            if one is not None and two is not None:
                changes.append((two.auc - one.auc, auc_influence(two, positive) - auc_influence(one, positive)))
        return compare_macro_auc(changes, codes).p_value

    return draw


# decisions


def decisions(generator: Generator, targets: Ints, recalls: Floats, shared: float, patients: Ints | None) -> Ints:
    """(2, N) decisions: model m is right on an image of class c with chance recalls[m, c]; errors fall on any class.

    A share of the difficulty is common to both models; with patients half of each part is the patient's.
    """
    n, classes = len(targets), recalls.shape[1]

    def normal(rows: int) -> Floats:
        noise = generator.normal(size=(rows, n))
        if patients is None:
            return noise
        effects = generator.normal(size=(rows, patients.max() + 1))[:, patients]
        return np.asarray(np.sqrt(0.5) * noise + np.sqrt(0.5) * effects)

    difficulty = np.sqrt(shared) * normal(1) + np.sqrt(1 - shared) * normal(2)
    right = difficulty < scipy.stats.norm.ppf(recalls)[:, targets]
    wrong = (targets + generator.integers(1, classes, (2, n))) % classes
    return np.where(right, targets, wrong)


def f1_macro(tally: counts.Counts) -> Floats:
    return counts.macro(counts.f1(tally))


def balanced_accuracy(tally: counts.Counts) -> Floats:
    return counts.macro(counts.recall(tally))


def swapped(
    metric: Callable[[counts.Counts], Floats], each: tuple[int, ...], recalls: list[list[float]], patients: int = 0
) -> Callable[[Generator, int], float]:
    def draw(generator: Generator, seed: int) -> float:
        codes = some_patients(generator, patients) if patients else None
        classes = len(each)
        targets = np.repeat(np.arange(classes), each) if codes is None else generator.integers(0, classes, len(codes))
        a, b = decisions(generator, targets, np.array(recalls), 0.5, codes)
        p, _ = count_swaps(
            targets, (a, b), classes, [metric], groups=codes, seed=seed, permutations=PERMUTATIONS
        )  # fmt: skip
        return p[0]

    return draw


def swapped_losses(n: int, shape: float, patients: int = 0) -> Callable[[Generator, int], float]:
    """A's losses are exponential, B's gamma with the same mean and another shape: as skewed as log losses."""

    def draw(generator: Generator, seed: int) -> float:
        codes = some_patients(generator, patients) if patients else None
        size = n if codes is None else patients
        a, b = generator.exponential(1, size), generator.gamma(shape, 1 / shape, size)
        if codes is not None:
            a, b = (part[codes] * generator.exponential(1, len(codes)) for part in (a, b))
        return mean_swaps(b - a, groups=codes, seed=seed, permutations=PERMUTATIONS)[0]

    return draw


def patient_accuracy(patients: int, accuracy: float) -> Callable[[Generator, int], float | None]:
    def draw(generator: Generator, seed: int) -> float | None:
        codes = some_patients(generator, patients)
        targets = np.zeros(len(codes), dtype=np.int64)
        right = decisions(generator, targets, np.full((2, 2), accuracy), 0.3, codes) == 0
        return compare_proportions(right[0], right[1], groups=codes, seed=seed, permutations=PERMUTATIONS).p_value

    return draw


def shares(sizes: tuple[int, int], share: float) -> Callable[[Generator, int], float | None]:
    def draw(generator: Generator, _: int) -> float | None:
        hits = generator.random(sizes[0]) < share, generator.random(sizes[1]) < share
        return compare_shares(hits).p_value

    return draw


def patient_shares(patients: tuple[int, int], share: float) -> Callable[[Generator, int], float | None]:
    def draw(generator: Generator, seed: int) -> float | None:
        codes = some_patients(generator, patients[0]), some_patients(generator, patients[1])
        hits = [
            decisions(generator, np.zeros(len(c), dtype=np.int64), np.full((2, 2), share), 0, c)[0] == 0 for c in codes
        ]
        return compare_shares((hits[0], hits[1]), groups=codes, seed=seed, permutations=PERMUTATIONS).p_value

    return draw


def cochran_q(n: int, models: int, accuracy: float, patients: int = 0) -> Callable[[Generator, int], float]:
    def draw(generator: Generator, seed: int) -> float:
        codes = some_patients(generator, patients) if patients else np.arange(n)
        size = len(codes)
        effects = generator.normal(size=(models, codes.max() + 1))[:, codes]
        noise = np.sqrt(0.5) * effects + np.sqrt(0.5) * generator.normal(size=(models, size))
        difficulty = np.sqrt(0.4) * generator.normal(size=codes.max() + 1)[codes] + np.sqrt(0.6) * noise
        correct = (difficulty < scipy.stats.norm.ppf(accuracy)).T
        groups = codes if patients else None
        return cochran(correct, groups=groups, seed=seed, permutations=PERMUTATIONS).p_value

    return draw


# accuracies of the rounds of a cross-validation


def over_folds(n: int, folds: int, repeats: int) -> Callable[[Generator, int], float | None]:
    """Two nearest-centroid classifiers, each trained on its own two features, which tell the classes equally well."""

    def draw(generator: Generator, _: int) -> float | None:
        targets = np.arange(n) % 2
        features = generator.normal(size=(2, n, 2)) + 0.7 * targets[:, None]
        found = []
        for _repeat in range(repeats):
            fold = generator.permutation(n) % folds
            for index in range(folds):
                a, b = (centroid_accuracy(own, targets, fold == index) for own in features)
                found.append(b - a)
        return nadeau_bengio_test(found, 1 / (folds - 1))[1]

    return draw


def centroid_accuracy(features: Floats, targets: Ints, held_out: NDArray[np.bool_]) -> float:
    centres = [features[~held_out & (targets == label)].mean(axis=0) for label in (0, 1)]
    away = [((features[held_out] - centre) ** 2).sum(axis=1) for centre in centres]
    return float(((away[1] < away[0]) == targets[held_out]).mean())


# the bootstrap's own p-value, through the whole of `compare`


def through_compare(
    metric: str, n: int, *, paired: bool, patients: int = 0, sizes: int = 1
) -> Callable[[Generator, int], float | None]:
    chosen = parse_metric(metric, "")

    def images(generator: Generator, size: int) -> tuple[Ints | None, Floats]:
        codes = some_patients(generator, patients) if patients else None
        return codes, generator.normal(size=size if codes is None else len(codes))

    def one(generator: Generator, codes: Ints | None, common: Floats) -> Predictions:
        size = len(common)
        targets = np.arange(size) % 2
        effects = 0 if codes is None else generator.normal(size=codes.max() + 1)[codes]
        logit = 2.0 * (targets - 0.5) * 1.5 + 0.8 * common + 0.8 * generator.normal(size=size) + 0.8 * effects
        names = () if codes is None else tuple(f"p{code}" for code in codes)
        logits = np.stack([np.zeros(size), logit], axis=1).astype(np.float32)
        return Predictions(("a", "b"), logits, targets, tuple(map(str, range(size))), groups=names)

    def draw(generator: Generator, seed: int) -> float | None:
        first = images(generator, n)
        second = first if paired else images(generator, n * sizes)
        models = [Model("A", "A", one(generator, *first)), Model("B", "B", one(generator, *second))]
        found = compare(models, CompareOptions((chosen,), paired=paired, bootstrap=RESAMPLES, seed=seed))
        return found.pairs[0].differences[0].p_value

    return draw


def designs(runs: int) -> Iterator[Design]:
    """All rows; `runs` is that of a test by permutation."""
    yield from _mcnemar_designs(10 * runs)
    yield from _auc_designs(2 * runs)
    yield from _swap_designs(runs)
    yield from _unpaired_designs(runs)
    for n, models, patients in ((50, 3, 0), (200, 3, 0), (200, 5, 0), (0, 3, 20), (0, 4, 50)):
        what = f"{patients} patients" if patients else f"{n} images"
        name = "Cochran's Q, models shuffled by patient" if patients else "Cochran's Q"
        yield Design(name, f"{models} models, {what}, accuracy 0.85", cochran_q(n, models, 0.85, patients), runs)
    few = max(runs // 2, 100)
    for n in (60, 200):
        what = f"average precision, {n} images"
        yield Design("bootstrap, paired", what, through_compare("average_precision_macro", n, paired=True), few)
    what = "average precision, 40 patients"
    yield Design(
        "bootstrap, paired, by patient",
        what,
        through_compare("average_precision_macro", 0, paired=True, patients=40),
        few,
    )
    for metric in ("f1_macro", "log_loss"):
        name = "shuffled, unpaired" if metric == "log_loss" else "bootstrap, unpaired"
        for n, ratio in ((60, 1), (100, 3)):
            what = f"{metric}, {n} and {n * ratio} images"
            yield Design(name, what, through_compare(metric, n, paired=False, sizes=ratio), few)
        what = f"{metric}, 40 and 40 patients"
        yield Design(f"{name}, by patient", what, through_compare(metric, 0, paired=False, patients=40), few)
    yield from _fold_designs(2 * runs)


def _mcnemar_designs(runs: int) -> Iterator[Design]:
    for n, discordant in ((50, 0.1), (100, 0.1), (200, 0.1), (400, 0.2), (1000, 0.3)):
        what = f"{n} images, {n * discordant:.0f} discordant on average"
        yield Design("McNemar exact", what, mcnemar(n, discordant, "exact"), runs)
        least = LEAST if n * discordant >= 60 else 0.0
        yield Design("McNemar mid-p", what, mcnemar(n, discordant, "midp"), runs, least)
        yield Design("McNemar as `auto` chooses", what, mcnemar(n, discordant, "auto"), runs, least)


def _auc_designs(runs: int) -> Iterator[Design]:
    for positives, negatives in ((30, 30), (30, 200), (100, 100)):
        for auc in (0.5, 0.75, 0.9):
            for rho in (0.0, 0.6):
                what = f"{positives} positives, {negatives} negatives, AUC {auc}, correlation {rho}"
                yield Design("DeLong, paired", what, delong(positives, negatives, auc, rho), runs, LEAST)
    for auc in (0.75, 0.97):
        yield Design("DeLong, paired", f"10 positives, 50 negatives, AUC {auc}", delong(10, 50, auc, 0.6), runs)
    for patients in (20, 50):
        for mixed in (True, False):
            what = f"{patients} patients with images of {'both classes' if mixed else 'one class'}, AUC 0.85"
            yield Design("Obuchowski, paired", what, obuchowski(patients, 0.85, mixed=mixed), runs)
    for each, classes in ((15, 4), (50, 4), (20, 10)):
        what = f"{classes} classes of {each} images"
        yield Design("DeLong of a macro AUC", what, macro_auc(each, classes, 1.2), runs // 2)
    for patients in (20, 50):
        what = f"4 classes, {patients} patients"
        yield Design("macro AUC by patient", what, macro_auc(0, 4, 1.2, patients), runs // 2)


def _swap_designs(runs: int) -> Iterator[Design]:
    equal, crossed = [[0.85] * 3] * 2, [[0.9, 0.7], [0.7, 0.9]]
    for name, metric in (("f1_macro", f1_macro), ("balanced_accuracy", balanced_accuracy)):
        for each in ((15, 15, 15), (100, 40, 20)):
            what = f"{name}, {'+'.join(map(str, each))} images of 3 classes"
            yield Design("swaps", what, swapped(metric, each, equal), runs)
        what = f"{name}, 60+60 images, A better on one class, B on the other"
        yield Design("swaps", what, swapped(metric, (60, 60), crossed), runs)
        for patients in (20, 50):
            what = f"{name}, 3 classes, {patients} patients"
            yield Design("swaps by patient", what, swapped(metric, (1, 1, 1), equal, patients), runs)
    for n in (30, 100, 400):
        yield Design("swaps", f"skewed losses of other shape, {n} images", swapped_losses(n, 0.5), runs)
    for patients in (20, 50):
        what = f"skewed losses of other shape, {patients} patients"
        yield Design("swaps by patient", what, swapped_losses(0, 0.5, patients), runs)
        for accuracy in (0.85, 0.95):
            what = f"accuracy {accuracy}, {patients} patients"
            yield Design("swaps by patient", what, patient_accuracy(patients, accuracy), runs)


def _unpaired_designs(runs: int) -> Iterator[Design]:
    for sizes in ((50, 50), (100, 300)):
        for share in (0.85, 0.95):
            what = f"accuracy {share}, {sizes[0]} and {sizes[1]} images"
            yield Design("chi-squared with N - 1, unpaired", what, shares(sizes, share), 2 * runs)
    for patients in ((30, 30), (20, 60)):
        what = f"accuracy 0.9, {patients[0]} and {patients[1]} patients"
        yield Design("patients shuffled, unpaired", what, patient_shares(patients, 0.9), runs)
    for images in ((30, 30, 30, 30), (20, 50, 60, 200)):
        for auc in (0.75, 0.9):
            what = f"{images[0]}/{images[1]} and {images[2]}/{images[3]} images, AUC {auc}"
            yield Design("DeLong, unpaired", what, delong_apart(images, auc), 2 * runs)
    for count in (30, 60):
        yield Design(
            "Obuchowski, unpaired", f"{count} and {count} patients, AUC 0.85", obuchowski_apart(count, 0.85), 2 * runs
        )


def _fold_designs(runs: int) -> Iterator[Design]:
    for n, folds, repeats in ((100, 5, 1), (100, 10, 1), (300, 10, 1), (100, 10, 5)):
        what = f"nearest centroids, {n} images, {folds} folds" + (f", {repeats} times" if repeats > 1 else "")
        yield Design("Nadeau-Bengio over folds", what, over_folds(n, folds, repeats), runs)


def measure(design: Design, seed: int) -> float:
    generator = np.random.default_rng([seed, 20])
    found = [design.draw(generator, run) for run in range(design.runs)]
    return float(np.mean([p is not None and p < 0.05 for p in found]))


def _renewed(table: list[str], rows: list[str]) -> list[str]:
    """The table with the rows of the same tests and designs replaced."""
    new = {row.rsplit("|", 3)[0]: row for row in rows}
    return [new.get(row.rsplit("|", 3)[0], row) for row in table]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3000, help="data sets for a test by permutation")
    parser.add_argument("--only", metavar="TEST", help="only the rows of this test, put in the place of the old ones")
    parser.add_argument("--quick", action="store_true", help="a tenth of the runs, only printed")
    options = parser.parse_args()
    runs = max(options.runs // 10, 100) if options.quick else options.runs
    lines = ["| test | no difference between | error rate | runs |", "| --- | --- | --- | --- |"]
    failed, started = 0, time.monotonic()
    sys.stdout.write("\n".join(lines) + "\n")
    for seed, design in enumerate(designs(runs)):
        if options.only not in (None, design.test):
            continue
        rate = measure(design, seed)
        good = design.at_least <= rate <= MOST
        failed += not good
        mark = "" if good else " (!)"
        lines.append(f"| {design.test} | {design.what} | {rate:.4f}{mark} | {design.runs:,} |")
        sys.stdout.write(lines[-1] + "\n")
        sys.stdout.flush()
    sys.stderr.write(f"{len(lines) - 2} designs, {failed} outside the limits, {time.monotonic() - started:.0f} s\n")
    if not options.quick:
        text = DOCUMENT.read_text(encoding="utf-8")
        if options.only:
            lines = _renewed(text.split(START)[1].split(END)[0].strip().splitlines(), lines[2:])
        head, rest = text.split(START)
        DOCUMENT.write_text(f"{head}{START}\n{chr(10).join(lines)}\n{END}{rest.split(END)[1]}", encoding="utf-8")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
