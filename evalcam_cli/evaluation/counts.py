"""Metrics that follow from how often each class is true, predicted, and both.

Every function takes arrays of shape (..., K), so one definition serves the point estimate and all resamples at once,
and returns NaN where a quotient has the denominator 0. With t true, p predicted, c both, per class, and s images in
all: tp = c, fp = p - c, fn = t - c, tn = s - t - p + c, one class against the rest.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Counts:
    """What a confusion matrix says about each class: all count metrics need no more than its margins and diagonal."""

    support: Floats
    """(..., K) images of the class: sums of the rows."""
    predicted: Floats
    """(..., K) images predicted as the class: sums of the columns."""
    hits: Floats
    """(..., K) images of the class predicted as it: the diagonal."""

    @property
    def total(self) -> Floats:
        """(...,) images."""
        return np.asarray(self.support.sum(axis=-1))


def count(confusion: NDArray[np.int64]) -> Counts:
    """Margins and diagonal of confusion matrices of shape (..., K, K), rows truth, columns predictions."""
    cells = confusion.astype(np.float64)
    return Counts(cells.sum(axis=-1), cells.sum(axis=-2), np.diagonal(cells, axis1=-2, axis2=-1).copy())


def confusion_matrix(targets: NDArray[np.int64], predicted: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """(K, K) counts: row i, column j is the number of images of class i predicted as class j."""
    cells = np.bincount(targets * classes + predicted, minlength=classes * classes)
    return np.asarray(cells.reshape(classes, classes), dtype=np.int64)


def ratio(numerator: Floats, denominator: Floats) -> Floats:
    """The quotient, NaN where the denominator is 0."""
    quotient = np.full(np.shape(denominator), np.nan)
    np.divide(numerator, denominator, out=quotient, where=denominator != 0)
    return quotient


def macro(values: Floats) -> Floats:
    """(...,) mean over the classes where (..., K) is defined; NaN when it is for none."""
    defined = ~np.isnan(values)
    return ratio(np.where(defined, values, 0.0).sum(axis=-1), defined.sum(axis=-1).astype(np.float64))


def weighted(values: Floats, support: Floats) -> Floats:
    """(...,) mean over the classes where (..., K) is defined, each weighing as many images as it has."""
    defined = ~np.isnan(values)
    return ratio(np.where(defined, values * support, 0.0).sum(axis=-1), np.where(defined, support, 0.0).sum(axis=-1))


def accuracy(counts: Counts) -> Floats:
    """(...,) Σ tp / s."""
    return ratio(counts.hits.sum(axis=-1), counts.total)


def precision(counts: Counts) -> Floats:
    """(..., K) tp / (tp + fp). A class never predicted has none; one predicted without truth has 0."""
    return ratio(counts.hits, counts.predicted)


def recall(counts: Counts) -> Floats:
    """(..., K) tp / (tp + fn), also called sensitivity. A class without images has none."""
    return ratio(counts.hits, counts.support)


def specificity(counts: Counts) -> Floats:
    """(..., K) tn / (tn + fp). None for a class when there are no images of other classes."""
    return ratio(_tn(counts), counts.total[..., None] - counts.support)


def npv(counts: Counts) -> Floats:
    """(..., K) tn / (tn + fn), the negative predictive value. None when all images are predicted as the class."""
    return ratio(_tn(counts), counts.total[..., None] - counts.predicted)


def f1(counts: Counts) -> Floats:
    """(..., K) 2 tp / (2 tp + fp + fn). None for a class neither true nor predicted.

    Its macro average is the mean of the F1s, not the harmonic mean of macro precision and macro recall (Opitz and
    Burst, "Macro F1 and Macro F1", 2019, https://arxiv.org/abs/1911.03347).
    """
    return ratio(2 * counts.hits, counts.support + counts.predicted)


def specificity_micro(counts: Counts) -> Floats:
    """(...,) Σ tn / Σ (tn + fp), sums over the classes."""
    return ratio(_tn(counts).sum(axis=-1), (counts.total[..., None] - counts.support).sum(axis=-1))


def lr_positive(counts: Counts) -> Floats:
    """(..., K) recall / (1 - specificity), the positive likelihood ratio. Infinite, so NaN, at specificity 1.

    Of whole numbers, tp (tn + fp) / (fp (tp + fn)): 1 - specificity would lose digits where it is near 0.
    """
    negatives, fp = counts.total[..., None] - counts.support, counts.predicted - counts.hits
    return ratio(counts.hits * negatives, fp * counts.support)


def lr_negative(counts: Counts) -> Floats:
    """(..., K) (1 - recall) / specificity, the negative likelihood ratio. Infinite, so NaN, at specificity 0."""
    negatives, fn = counts.total[..., None] - counts.support, counts.support - counts.hits
    return ratio(fn * negatives, _tn(counts) * counts.support)


def mcc(counts: Counts) -> Floats:
    """(...,) Matthews' correlation for K classes: (c s - Σ p t) / √((s² - Σ p²)(s² - Σ t²)), in [-1, 1].

    Gorodkin, "Comparing two K-category assignments by a K-category correlation coefficient", 2004, R_K. None when truth
    or prediction knows only one class.
    """
    s, c = counts.total, counts.hits.sum(axis=-1)
    covariance = c * s - (counts.predicted * counts.support).sum(axis=-1)
    spread_predicted = s**2 - (counts.predicted**2).sum(axis=-1)
    spread_true = s**2 - (counts.support**2).sum(axis=-1)
    return ratio(covariance, np.sqrt(spread_predicted * spread_true))  # the root of a square is exact, so at most 1


def cohen_kappa(counts: Counts) -> Floats:
    """(...,) 1 - (1 - p_o) / (1 - p_e), p_o the accuracy, p_e = Σ p t / s²; at most 1.

    Cohen, "A coefficient of agreement for nominal scales", 1960, equation 1. None when truth and prediction are one and
    the same class throughout.
    """
    s, c = counts.total, counts.hits.sum(axis=-1)
    by_chance = (counts.predicted * counts.support).sum(axis=-1)
    return 1 - ratio(s * s - c * s, s * s - by_chance)


def _tn(counts: Counts) -> Floats:
    return counts.total[..., None] - counts.support - counts.predicted + counts.hits
