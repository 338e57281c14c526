"""Recompute the numbers of this report with numpy, scipy and scikit-learn alone.

    python reproduce.py [FOLDER] [--all]

FOLDER holds `predictions.csv`, `logits.npy` and `metrics.json`; by default it is the one this file lies in. Prints a
line for every number and a summary; the exit code is 1 when one differs.

* To 1e-9: every metric, the counts, the p-values, the intervals by formula (Wilson, Clopper-Pearson, Simel, DeLong,
  Obuchowski, and evalcam's score intervals solved anew by `scipy.optimize.brentq`), and the bootstrap intervals of
  count metrics, log loss and Brier score, whose resamples are drawn again from the seed.
* To 1e-6: calibration slope and intercept with their intervals, which are fits.
* Only with `--all`, as it takes minutes: the bootstrap intervals of metrics of rank (AUC, average precision).
* Not at all: what stands outside `metrics`, `per_class` and `tests`.

A number that is null must be undefined here, too, or scikit-learn's must be one of those in `INTENDED`.

This is one file, long as it is, because a copy of it must run alone beside each report.
"""

import argparse
import csv
import json
import math
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import sklearn.metrics as sk
from numpy.typing import NDArray
from scipy import optimize, special, stats
from sklearn.linear_model import LogisticRegression

INTENDED = {
    "mcc": "0 where truth or prediction knows one class only",
    "top_3_accuracy": "1 where there are no more classes than that",
    "top_5_accuracy": "1 where there are no more classes than that",
    "log_loss": "a probability of 0 is raised to 2.2e-16",
}
"""Where scikit-learn has a number and evalcam says null."""
EPSILON = 2.220446049250313e-16  # to which scikit-learn raises probabilities in its log loss
TOLERANCE, FIT_TOLERANCE = 1e-9, 1e-6
FITTED = ("calibration_slope", "calibration_intercept")
NULL_RESAMPLES, BINS, PARTIAL_FPR = 1000, 15, 0.1
Z = float(stats.norm.ppf(0.975))

Array = NDArray[Any]
Limits = tuple[float, float]


@dataclass(frozen=True)
class Saved:
    """What the three files say."""

    document: dict[str, Any]
    classes: list[str]
    truth: Array
    """(N,) index of the true class."""
    said: Array
    """(N,) index of the class that predictions.csv calls predicted."""
    groups: Array | None
    """(N,) group of each image as a number, in order of appearance; an image without one is its own."""
    scores: Array
    """(N, K) what decides which class comes first."""
    log_p: Array
    folds: Array | None = None
    """(N,) number of the fold of each image, in a report of a cross-validation."""

    def of_fold(self, number: int) -> "Saved":
        """The images of one fold."""
        own = self.folds == number
        groups = None if self.groups is None else self.groups[own]
        return Saved(
            self.document, self.classes, self.truth[own], self.said[own], groups, self.scores[own], self.log_p[own]
        )

    @cached_property
    def p(self) -> Array:
        return np.exp(self.log_p)

    @cached_property
    def point(self) -> tuple[int, Array] | None:
        """The positive class of the operating point and (N,) whether each image is called so."""
        stored = (self.document.get("calibration") or {}).get("operating_point")
        if stored is None:
            return None
        index = self.classes.index(stored["positive"])
        return index, self.p[:, index] >= stored["threshold"]

    @cached_property
    def predicted(self) -> Array:
        if self.point is None or len(self.classes) != 2:
            return np.asarray(self.scores.argmax(axis=1))
        positive, called = self.point
        return np.where(called, positive, 1 - positive)


def read_saved(folder: Path) -> Saved:
    document = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    logits = np.load(folder / "logits.npy", allow_pickle=False).astype(np.float64)
    with (folder / "predictions.csv").open(encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
        rows = list(csv.DictReader(stream))
    classes = document["classes"]
    place = {name: index for index, name in enumerate(classes)}
    temperature = (document.get("calibration") or {}).get("temperature") or 1.0
    stated = document["scores"] == "log_probabilities"
    return Saved(
        document,
        classes,
        np.array([place[unguarded(row["target"])] for row in rows]),
        np.array([place[unguarded(row["predicted"])] for row in rows]),
        group_codes([unguarded(row["group"]) for row in rows]),
        np.exp(logits) if stated else logits,
        logits if stated else special.log_softmax(logits / temperature, axis=1),
        np.array([int(row["fold"]) for row in rows]) if "folds" in document else None,
    )


def unguarded(cell: str) -> str:
    """Without the ' that keeps a spreadsheet from reading a formula."""
    return cell[1:] if cell[:1] == "'" and cell.lstrip("'")[:1] in tuple("=+-@\t\r\n") else cell


def group_codes(names: list[str]) -> Array | None:
    if not any(names):
        return None
    codes: dict[str, int] = {}
    found = np.array([codes.setdefault(name or f"\0{index}", len(codes)) for index, name in enumerate(names)])
    return found if len(codes) < len(names) else None  # groups of one image are independent images


# --- metrics


def point_values(saved: Saved) -> dict[str, float]:
    """Every metric, `name` or `name[class]`."""
    truth, predicted, labels = saved.truth, saved.predicted, list(range(len(saved.classes)))
    own = saved.log_p[np.arange(len(truth)), truth]
    flags = np.eye(len(labels))[truth]
    squares = sk.mean_squared_error(flags, saved.p) * len(labels)  # sum over classes, mean over images
    clipped = own.min() < math.log(EPSILON) or np.abs(saved.p.sum(axis=1) - 1).max() > EPSILON * 100
    values = count_values(truth, predicted, labels) | rank_values(truth, saved.p, labels) | calibration_values(saved)
    values |= {
        "brier": squares / 2 if len(labels) == 2 else squares,
        "log_loss": -own.mean() if np.isfinite(own).all() and clipped else sk.log_loss(truth, saved.p, labels=labels),
    }
    places = np.argsort(np.argsort(-saved.scores, axis=1, kind="stable"), axis=1)  # equal scores in class order
    for k in (3, 5):
        values[f"top_{k}_accuracy"] = 1.0 if k >= len(labels) else sk.top_k_accuracy_score(
            truth, -places.astype(float), k=k, labels=labels
        )  # fmt: skip
    if saved.point is not None:
        positive, called = saved.point
        found = count_values((truth == positive).astype(int), called.astype(int), [0, 1])
        values |= {f"{name[:-3]}@op": value for name, value in found.items() if name.endswith("[1]")}
        values["accuracy@op"] = found["accuracy"]
    if len(labels) == 2 and saved.document["positive"] in saved.classes:
        values["roc_auc"] = values[f"roc_auc[{saved.classes.index(saved.document['positive'])}]"]
    return values


def count_values(truth: Array, predicted: Array, labels: list[int]) -> dict[str, float]:
    tn, fp, fn, tp = sk.multilabel_confusion_matrix(truth, predicted, labels=labels).reshape(-1, 4).T
    precision, recall, f1, support = sk.precision_recall_fscore_support(
        truth, predicted, labels=labels, average=None, zero_division=np.nan
    )
    micro = sk.precision_recall_fscore_support(truth, predicted, labels=labels, average="micro")
    columns = {
        "precision": precision,
        "recall": recall,
        "f1": f1,
        "specificity": tn / (tn + fp),
        "npv": tn / (tn + fn),
        "lr_positive": np.where(fp > 0, tp * (tn + fp) / (fp * (tp + fn)), math.nan),
        "lr_negative": np.where(tn > 0, fn * (tn + fp) / (tn * (tp + fn)), math.nan),
    }
    values = {
        "accuracy": sk.accuracy_score(truth, predicted),
        "balanced_accuracy": sk.balanced_accuracy_score(truth, predicted),
        "mcc": sk.matthews_corrcoef(truth, predicted),
        "cohen_kappa": sk.cohen_kappa_score(truth, predicted),
        "no_information_rate": support.max() / len(truth),
        "precision_micro": micro[0],
        "recall_micro": micro[1],
        "f1_micro": micro[2],
        "specificity_micro": tn.sum() / (tn + fp).sum(),
        "npv_micro": tn.sum() / (tn + fn).sum(),
    }
    for name in ("precision", "recall", "f1", "specificity", "npv"):
        values |= averages(name, columns[name], support)
    columns |= {"support": support, "tp": tp, "fp": fp, "fn": fn, "tn": tn}
    return values | {f"{name}[{i}]": column[i] for name, column in columns.items() for i in labels}


def averages(name: str, column: Array, support: Array) -> dict[str, float]:
    """Over the classes where the metric is defined; scikit-learn would count the others as 0."""
    used = ~np.isnan(column)
    weights = support[used]
    return {
        f"{name}_macro": column[used].mean() if used.any() else math.nan,
        f"{name}_weighted": np.average(column[used], weights=weights) if weights.sum() else math.nan,
    }


def rank_values(truth: Array, p: Array, labels: list[int]) -> dict[str, float]:
    support = np.bincount(truth, minlength=len(labels))
    two_sided = [i for i in labels if 0 < support[i] < len(truth)]
    columns = {name: np.full(len(labels), math.nan) for name in ("roc_auc", "partial_roc_auc", "average_precision")}
    for i in two_sided:
        columns["roc_auc"][i] = sk.roc_auc_score(truth == i, p[:, i])
        columns["partial_roc_auc"][i] = sk.roc_auc_score(truth == i, p[:, i], max_fpr=PARTIAL_FPR)
        columns["average_precision"][i] = sk.average_precision_score(truth == i, p[:, i])
    flat = np.eye(len(labels))[truth].ravel()
    pairs = [(i, j) for i in two_sided for j in two_sided if i != j]
    areas = [
        sk.roc_auc_score(truth[chosen] == i, p[chosen, i]) for i, j in pairs for chosen in [np.isin(truth, (i, j))]
    ]
    values = {
        "roc_auc_ovr_micro": sk.roc_auc_score(flat, p.ravel()),
        "average_precision_micro": sk.average_precision_score(flat, p.ravel()),
        "roc_auc_ovo_macro": np.mean(areas) if areas else math.nan,
    }
    values |= averages("roc_auc_ovr", columns["roc_auc"], support)
    values |= averages("average_precision", columns["average_precision"], support)
    return values | {f"{name}[{i}]": column[i] for name, column in columns.items() for i in labels}


def calibration_values(saved: Saved) -> dict[str, float]:
    confidence, right = saved.p.max(axis=1), saved.scores.argmax(axis=1) == saved.truth
    places = equal_width(confidence)
    gaps = [abs(right[places == b].mean() - confidence[places == b].mean()) for b in np.unique(places)]
    bins = min(BINS, len(right))
    upper = np.sort(confidence)[np.arange(1, bins) * len(right) // bins - 1]
    mass = np.searchsorted(upper, confidence)
    values = {"ece": ece(confidence, right, places), "mce": max(gaps), "ece_equal_mass": ece(confidence, right, mass)}
    return values | {name: fitted[0] for name, fitted in fits(saved).items()}


def equal_width(confidence: Array) -> Array:
    """Bins closed on the right, the first one on both sides."""
    return np.clip(np.digitize(confidence, np.linspace(0, 1, BINS + 1), right=True) - 1, 0, BINS - 1)


def ece(confidence: Array, right: Array, places: Array) -> float:
    return float(np.abs(np.bincount(places, right) - np.bincount(places, confidence)).sum() / len(right))


def fits(saved: Saved) -> dict[str, tuple[float, float]]:
    """Calibration slope and intercept with standard errors: scikit-learn's fit, and scipy's root of the score."""
    positive = saved.document["positive"]
    if len(saved.classes) != 2 or positive not in saved.classes:
        return {}
    index = saved.classes.index(positive)
    y, p = (saved.truth == index).astype(float), saved.p[:, index]
    if len(set(y)) < 2 or p.min() <= 0 or p.max() >= 1 or np.ptp(special.logit(p)) == 0:
        return {}
    x = special.logit(p)
    if min(x[y == 1]) >= max(x[y == 0]) or max(x[y == 1]) <= min(x[y == 0]):
        return {}  # separated
    model = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-12, max_iter=1000).fit(x[:, None], y)
    shift = optimize.brentq(lambda a: (y - special.expit(a + x)).sum(), -1000, 1000, xtol=1e-13)
    sloped, ones = np.stack([np.ones_like(x), x], axis=1), np.ones((len(x), 1))
    fitted = special.expit(model.intercept_[0] + model.coef_[0, 0] * x)
    return {
        "calibration_slope": (float(model.coef_[0, 0]), standard_error(sloped, y, fitted, saved.groups)),
        "calibration_intercept": (float(shift), standard_error(ones, y, special.expit(shift + x), saved.groups)),
    }


def standard_error(design: Array, y: Array, fitted: Array, groups: Array | None) -> float:
    """Of the last coefficient, from the information; with groups from the sandwich, factor G / (G - 1)."""
    inverse = np.linalg.inv((design.T * (fitted * (1 - fitted))) @ design)
    if groups is None:
        return math.sqrt(inverse[-1, -1])
    sums = np.stack([np.bincount(groups, column * (y - fitted)) for column in design.T])
    middle = sums @ sums.T * sums.shape[1] / max(sums.shape[1] - 1, 1)
    return math.sqrt((inverse @ middle @ inverse)[-1, -1])


# --- intervals


def limits(saved: Saved, *, everything: bool) -> dict[str, dict[str, Limits]]:
    """The 95 % interval of every metric, by method and `name` or `name[class]`."""
    found: dict[str, dict[str, Limits]] = {}
    for name, (hits, tried) in fractions(saved).items():
        if tried.any():
            found[name] = proportion_limits(hits & tried, tried, saved.groups)
    sides = {f"roc_auc[{i}]": saved.truth == i for i in range(len(saved.classes))}
    for i, (name, positive) in enumerate(sides.items()):
        found[name] = auc_limits(saved.p[:, i], positive, saved.groups)
        if saved.document["positive"] == saved.classes[i]:
            found["roc_auc"] = found[name]
    for name, (value, error) in fits(saved).items():
        quantile = Z if saved.groups is None else special.stdtrit(max(saved.groups.max(), 1), 0.975)
        found[name] = dict.fromkeys(("wald", "patient_sandwich"), (value - quantile * error, value + quantile * error))
    found |= ratio_limits(saved)
    for name, column in resampled(saved, everything=everything).items():
        defined = column[~np.isnan(column)]
        if len(defined):
            low, high = np.quantile(defined, [0.025, 0.975])
            found.setdefault(name, {}).update(dict.fromkeys(("bootstrap", "patient_bootstrap"), (low, high)))
    return found


def fractions(saved: Saved) -> dict[str, tuple[Array, Array]]:
    """(N,) which images hit, and which are tried, of every proportion."""
    everything = np.ones(len(saved.truth), dtype=bool)
    places = np.argsort(np.argsort(-saved.scores, axis=1, kind="stable"), axis=1)
    rank = places[np.arange(len(places)), saved.truth]
    found = {f"top_{k}_accuracy": (rank < k, everything) for k in (3, 5)}
    for name in ("accuracy", "precision_micro", "recall_micro", "f1_micro", "recall_weighted"):
        found[name] = saved.predicted == saved.truth, everything
    tables = {f"[{i}]": (saved.truth == i, saved.predicted == i) for i in range(len(saved.classes))}
    if saved.point is not None:
        tables["@op"] = saved.truth == saved.point[0], saved.point[1]
        found["accuracy@op"] = tables["@op"][0] == tables["@op"][1], everything
    for end, (positive, called) in tables.items():
        found |= {f"precision{end}": (positive, called), f"recall{end}": (called, positive)}
        found |= {f"npv{end}": (~positive, ~called), f"specificity{end}": (~called, ~positive)}
    return found


def proportion_limits(hits: Array, tried: Array, groups: Array | None) -> dict[str, Limits]:
    test = stats.binomtest(int(hits.sum()), int(tried.sum()))
    pairs = {name: test.proportion_ci(method=of) for name, of in (("wilson", "wilson"), ("clopper_pearson", "exact"))}
    found = {name: (float(pair.low), float(pair.high)) for name, pair in pairs.items()}
    if groups is not None and len(sizes := np.unique(groups[tried], return_counts=True)[1]) > 1:
        x = np.bincount(groups[tried], hits[tried])[np.unique(groups[tried])]
        n, p = sizes.sum(), hits.sum() / sizes.sum()
        k = n**2 / (sizes**2).sum()
        spread = ((x - sizes * p) ** 2).sum() * k / (k - 1)
        data = max(1.0, spread / (n * p * (1 - p))) if 0 < p < 1 else 1.0
        told = min((x > 0).sum(), (x < sizes).sum())
        effect = (told * data + n / k) / (told + 1)
        quantile = stats.t.ppf(0.975, max(k - 1, 1))
        found["clustered_wilson"] = wilson(p, n / effect, quantile)
    return found


def wilson(p: float, n: float, z: float) -> Limits:
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low, high = ((p + z * z / (2 * n) + sign * half) / (1 + z * z / n) for sign in (-1, 1))
    return max(0.0, low), min(1.0, high)


def auc_limits(scores: Array, positive: Array, groups: Array | None) -> dict[str, Limits]:
    """DeLong's interval with scipy's ranks, and evalcam's score interval; with groups by Obuchowski's variance."""
    m, n = int(positive.sum()), int((~positive).sum())
    if min(m, n) < 2:
        return {}
    ranks = stats.rankdata(scores)
    v = (
        (ranks[positive] - stats.rankdata(scores[positive])) / n,
        1 - (ranks[~positive] - stats.rankdata(scores[~positive])) / m,
    )
    codes = (np.arange(m), np.arange(n)) if groups is None else (groups[positive], groups[~positive])
    shared = np.intersect1d(*codes) if groups is not None else np.array([], dtype=int)
    kinds = [np.unique(code) for code in codes]
    if min(map(len, kinds)) < 2:
        return {}
    auc = float(v[0].mean())
    sums = [np.bincount(code, side - side.mean(), minlength=max(map(max, codes)) + 1) for code, side in zip(codes, v)]  # noqa: B905
    parts = [len(k) / (len(k) - 1) * (s**2).sum() / len(side) ** 2 for k, s, side in zip(kinds, sums, v)]  # noqa: B905
    either = len(np.union1d(*codes)) if groups is not None else m + n
    crossed = 2 * either / (either - 1) * (sums[0][shared] * sums[1][shared]).sum() / (m * n)
    variance = max(0.0, sum(parts) + crossed)
    half = Z * math.sqrt(variance)
    patients = [len(code) ** 2 / (np.unique(code, return_counts=True)[1] ** 2).sum() for code in codes]
    told = min(len(np.unique(code[mask])) for code, side in zip(codes, v) for mask in (side < 1 - 1e-12, side > 1e-12))  # noqa: B905
    names = ("delong", "delong_score") if groups is None else ("obuchowski", "obuchowski_score")
    score = score_limits(auc, variance, parts, (m, n), patients, told)
    return {names[0]: (max(0.0, auc - half), min(1.0, auc + half)), names[1]: score}


def score_limits(
    auc: float, variance: float, parts: list[float], images: tuple[int, int], patients: list[float], told: int
) -> Limits:
    """All T with (A - T)^2 <= z^2 F V(T), by Brent's method; evalcam's docs/coverage.md says what F and V are."""
    m, n = images
    inside = float(special.ndtri((auc * m * n + 0.5) / (m * n + 1)))
    freedom = sum(parts) ** 2 / sum(x**2 / max(k - 1, 1) for x, k in zip(parts, patients)) if sum(parts) else math.inf  # noqa: B905
    quantile = stats.t.ppf(0.975, max(freedom, 1)) if sum(parts) else Z
    votes = told * variance + 2 * max(variance, model_variance(inside, *patients))
    factor = max(1.0, (quantile / Z) ** 2 * votes / (told + 2) / model_variance(inside, m, n))

    def excess(probit: float, side: int) -> float:
        distance = side * (auc - special.ndtr(probit))
        return float(distance - Z * math.sqrt(factor * model_variance(probit, m, n)))

    low, high = (optimize.brentq(excess, inside, -9.0 * side, (side,), xtol=1e-13) if open_ else None
                 for side, open_ in ((1, auc > 0), (-1, auc < 1)))  # fmt: skip
    return 0.0 if low is None else float(special.ndtr(low)), 1.0 if high is None else float(special.ndtr(high))


def model_variance(probit: float, m: float, n: float) -> float:
    auc = special.ndtr(probit)
    spread = auc * special.ndtr(-probit)
    normal, exponential = spread - 2 * special.owens_t(probit, 3**-0.5), spread * (1 - 1.5 / ((2 - auc) * (1 + auc)))
    return float((spread + (m + n - 2) * (2 * normal + exponential) / 3) / (m * n))


def ratio_limits(saved: Saved) -> dict[str, dict[str, Limits]]:
    """Simel 1991; where a count is 0 a half is added to all."""
    tables = {f"[{i}]": (saved.truth == i, saved.predicted == i) for i in range(len(saved.classes))}
    if saved.point is not None:
        tables["@op"] = saved.truth == saved.point[0], saved.point[1]
    found: dict[str, dict[str, Limits]] = {}
    for end, (positive, called) in tables.items():
        tp, fn = int((positive & called).sum()), int((positive & ~called).sum())
        fp, tn = int((~positive & called).sum()), int((~positive & ~called).sum())
        for name, a, b in (("lr_positive", tp, fp), ("lr_negative", fn, tn)):
            if (a or b) and tp + fn and fp + tn:
                add = 0.0 if min(tp, fn, fp, tn) else 0.5
                k, m, j, n = a + add, tp + fn + 2 * add, b + add, fp + tn + 2 * add
                middle, width = math.log(k / m / (j / n)), Z * math.sqrt((1 - k / m) / k + (1 - j / n) / j)
                pair = math.exp(middle - width) if a else 0.0, math.exp(middle + width) if b else math.nan
                found[name + end] = {"simel": pair}
    return found


def resampled(saved: Saved, *, everything: bool) -> dict[str, Array]:
    """(B,) values of metrics in the resamples that the seed gives: images, or with groups whole groups, drawn again."""
    resamples, labels = saved.document["bootstrap"] or 0, list(range(len(saved.classes)))
    units = len(saved.truth) if saved.groups is None else int(saved.groups.max()) + 1
    rows = np.arange(len(saved.truth))
    losses, squares = -saved.log_p[rows, saved.truth], ((saved.p - np.eye(len(labels))[saved.truth]) ** 2).sum(axis=1)
    tables = {"": (saved.truth, saved.predicted, len(labels))}
    if saved.point is not None:
        tables["@op"] = (saved.truth == saved.point[0]).astype(int), saved.point[1].astype(int), 2
    margins: dict[str, list[Array]] = {end: [] for end in tables}
    columns: dict[str, list[float]] = {"log_loss": [], "brier": []}
    generator = np.random.default_rng(np.random.SeedSequence(saved.document["seed"]))
    for _ in range(resamples):
        weights = np.bincount(generator.integers(0, units, units), minlength=units)
        weights = weights if saved.groups is None else weights[saved.groups]
        for end, (truth, predicted, k) in tables.items():
            three = (truth, weights), (predicted, weights), (truth, weights * (truth == predicted))
            margins[end].append(np.stack([np.bincount(labels_, w, k) for labels_, w in three]))
        drawn = np.repeat(rows, weights)
        columns["log_loss"].append(losses[drawn].mean())
        columns["brier"].append(squares[drawn].mean() / (2 if len(labels) == 2 else 1))
        for name, value in (rank_values(saved.truth[drawn], saved.p[drawn], labels) if everything else {}).items():
            columns.setdefault(name, []).append(value)
    found = {name: np.array(column) for name, column in columns.items()}
    for end, tallies in margins.items() if resamples else ():
        values = margin_values(*np.moveaxis(np.array(tallies), 1, 0))
        if end:
            found |= {f"{name[:-3]}{end}": column for name, column in values.items() if name.endswith("[1]")}
        else:
            found |= values
    return found


def margin_values(t: Array, p: Array, c: Array) -> dict[str, Array]:
    """Count metrics of (B, K) images true, predicted, and both."""
    n = t.sum(axis=1, keepdims=True)
    tn, fp, fn = n - t - p + c, p - c, t - c
    columns = {
        "precision": c / p,
        "recall": c / t,
        "specificity": tn / (n - t),
        "npv": tn / (n - p),
        "f1": 2 * c / (t + p),
        "lr_positive": np.where(fp > 0, c * (n - t) / (fp * t), math.nan),
        "lr_negative": np.where(tn > 0, fn * (n - t) / (tn * t), math.nan),
    }
    s, hits, chance = n[:, 0], c.sum(axis=1), (t * p).sum(axis=1)
    spread = np.sqrt(s**2 - (p**2).sum(axis=1)) * np.sqrt(s**2 - (t**2).sum(axis=1))
    found = {
        "mcc": np.where(spread > 0, (hits * s - chance) / spread, math.nan),
        "cohen_kappa": 1 - (s * s - hits * s) / (s * s - chance),
        "no_information_rate": t.max(axis=1) / s,
        "specificity_micro": tn.sum(axis=1) / (n - t).sum(axis=1),
        "npv_micro": tn.sum(axis=1) / (n - p).sum(axis=1),
    }
    for name in ("precision", "recall", "specificity", "npv", "f1"):
        used = ~np.isnan(columns[name])
        filled, weights = np.where(used, columns[name], 0), np.where(used, t, 0)
        found[f"{name}_macro"] = filled.sum(axis=1) / used.sum(axis=1)
        found[f"{name}_weighted"] = (filled * weights).sum(axis=1) / weights.sum(axis=1)
    found["balanced_accuracy"] = found["recall_macro"]
    return found | {f"{name}[{i}]": column[:, i] for name, column in columns.items() for i in range(t.shape[1])}


def calibrated_eces(saved: Saved) -> Array:
    """ECE if every image were right with the probability stated, drawn anew from the seed."""
    confidence = np.sort(saved.p.max(axis=1), kind="stable")
    generator, places = (
        np.random.default_rng(np.random.SeedSequence([saved.document["seed"], 1])),
        equal_width(confidence),
    )
    outcomes = (generator.random(len(confidence)) < confidence for _ in range(NULL_RESAMPLES))
    return np.array([ece(confidence, right, places) for right in outcomes])


# --- comparison


@dataclass(frozen=True)
class Row:
    name: str
    ours: float | None
    theirs: float | None
    """None when it was not recomputed, NaN when it is undefined."""

    @property
    def note(self) -> str:
        """Why the two are not held against each other."""
        if self.theirs is None:
            return "not recomputed"
        base = self.name.partition("[")[0]
        return INTENDED[base] if self.ours is None and base in INTENDED and not math.isnan(self.theirs) else ""

    @property
    def difference(self) -> float:
        """Absolute, or relative to numbers above 1; 0 where both are undefined."""
        if self.note or (self.ours is None and math.isnan(self.theirs or 0.0)):
            return 0.0
        if self.ours is None or self.theirs is None or math.isnan(self.theirs):
            return math.inf
        return abs(self.ours - self.theirs) / max(1.0, abs(self.theirs))

    @property
    def wrong(self) -> bool:
        return self.difference > (FIT_TOLERANCE if self.name.startswith(FITTED) else TOLERANCE)


def compare(saved: Saved, *, everything: bool) -> Iterator[Row]:
    """A row for every number of `metrics.json`."""
    document, values = saved.document, point_values(saved)
    with_intervals = document["bootstrap"] is not None
    bounds = limits(saved, everything=everything) if with_intervals else {}
    if with_intervals:
        eces = calibrated_eces(saved)
        low, high = np.quantile(eces, [0.025, 0.975])
        if saved.document.get("folds", {}).get("repeats", 1) == 1:  # else the predictions are not independent
            values["ece_expected_if_calibrated"] = eces.mean()
            bounds["ece_expected_if_calibrated"] = {"consistency_resampling": (low, high)}
    if saved.folds is not None:
        by_fold(saved, values, bounds)
    yield Row("images predicted otherwise than predictions.csv says", 0, float((saved.said != saved.predicted).sum()))
    for name, entry in document["metrics"].items():
        yield from entry_rows(name, entry, values.get(name), bounds.get(name, {}))
    for index, (label, entries) in enumerate(document["per_class"].items()):
        for base, entry in entries.items():
            key, shown = f"{base}[{index}]", f"{base}[{label}]"
            if isinstance(entry, dict):
                yield from entry_rows(shown, entry, values.get(key), bounds.get(key, {}))
            else:
                yield Row(shown, entry, float(values[key]))
    for name, test in document["tests"].items():
        theirs = None
        if name == "ece_consistency" and with_intervals:
            theirs = float(1 + (eces >= values["ece"] - 1e-12).sum()) / (1 + NULL_RESAMPLES)
        if name == "accuracy_above_no_information_rate":
            hits, n = int((saved.truth == saved.predicted).sum()), len(saved.truth)
            theirs = stats.binomtest(hits, n, values["no_information_rate"], alternative="greater").pvalue
        yield Row(f"{name} p", test["p_value"], math.nan if test["p_value"] is None else theirs)


def by_fold(saved: Saved, values: dict[str, float], bounds: dict[str, dict[str, Limits]]) -> None:
    """Ranks and F1 are means over folds, with Nadeau and Bengio's interval; those of all images have other names."""
    metrics, sizes = saved.document["metrics"], saved.document["folds"]
    parts = [point_values(saved.of_fold(number)) for number in sizes["folds"]]
    for pooled in [name for name in metrics if name.endswith("_pooled_oof")]:
        stem = pooled.removesuffix("_pooled_oof")
        name = stem if stem in values else stem.replace("auc", "roc_auc", 1)
        values[pooled], bounds[pooled] = values[name], bounds.get(name, {})
        places = [place for place, part in enumerate(parts) if not math.isnan(part[name])]
        defined = np.array([parts[place][name] for place in places])
        values[name] = defined.mean() if len(defined) else math.nan
        if len(defined) > 1:
            ratio = sum(sizes["n_test"][i] for i in places) / sum(sizes["n_train"][i] for i in places)
            half = stats.t.ppf(0.975, len(defined) - 1) * defined.std(ddof=1) * math.sqrt(1 / len(defined) + ratio)
            low, high = values[name] - half, values[name] + half
            bounds[name] = {"nadeau_bengio": (low, high), "nadeau_bengio_clipped": (max(low, 0.0), min(high, 1.0))}


def entry_rows(name: str, entry: dict[str, Any], value: float | None, bounds: dict[str, Limits]) -> Iterator[Row]:
    ours = entry["estimate"]
    undefined = value is None and ours is None
    yield Row(name, ours, math.nan if undefined else None if value is None else float(value))
    if entry["ci_method"] is not None:
        found = bounds.get(entry["ci_method"])
        for index, end in enumerate(("ci_low", "ci_high")):
            yield Row(f"{name} {end}", entry[end], None if found is None else float(found[index]))


def main() -> int:
    parser = argparse.ArgumentParser(description="Recompute the numbers of a report without evalcam.")
    parser.add_argument("folder", nargs="?", type=Path, default=Path(__file__).resolve().parent)
    parser.add_argument("--all", action="store_true", help="the bootstrap intervals of metrics of rank, too: minutes")
    options = parser.parse_args()
    with warnings.catch_warnings(), np.errstate(divide="ignore", invalid="ignore"):
        warnings.simplefilter("ignore")  # scikit-learn warns of what is undefined
        rows = list(compare(read_saved(options.folder), everything=options.all))
    width = max(len(ascii(row.name)) for row in rows)
    print(f"{'metric':<{width}} {'ours':>24} {'theirs':>24} difference")
    for row in rows:
        shown = ["null" if x is None else "undefined" if math.isnan(x) else repr(x) for x in (row.ours, row.theirs)]
        last = row.note or f"{row.difference:.1e}" + (" MISMATCH" if row.wrong else "")
        print(f"{ascii(row.name)[1:-1]:<{width}} {shown[0]:>24} {'' if row.theirs is None else shown[1]:>24} {last}")
    return summary(rows)


def summary(rows: list[Row]) -> int:
    held = [row for row in rows if not row.note]
    worst, wrong = max(held, key=lambda row: row.difference), [ascii(row.name)[1:-1] for row in held if row.wrong]
    print(
        f"\nrecomputed {len(held)} of {len(rows)} numbers, largest difference {worst.difference:.0e} "
        f"({ascii(worst.name)[1:-1]})"
    )
    intended = [f"{row.name} ({row.note})" for row in rows if row.note and row.theirs is not None]
    skipped = [row.name for row in rows if row.theirs is None]
    for names, what in (
        (intended, "null on purpose, where scikit-learn says"),
        (skipped, "not recomputed (try --all):"),
    ):
        if names:
            print(f"{what} {ascii(', '.join(names))[1:-1]}")
    if wrong:
        print(f"MISMATCH: {', '.join(wrong)}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
