"""Every metric that a resample can be drawn of, for any number of resamples at once.

The images are reduced once to what the metrics need; weights (how often a resample holds each image) give the rest.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evalcam_cli.evaluation import counts
from evalcam_cli.evaluation.counts import Counts, Floats
from evalcam_cli.evaluation.predictions import Predictions, row_blocks
from evalcam_cli.evaluation.ranking import RankedClass, Ranking, hand_till, micro_metrics, rank, ranked_metrics

BY_CLASS = {
    "precision": counts.precision,
    "recall": counts.recall,
    "specificity": counts.specificity,
    "npv": counts.npv,
    "f1": counts.f1,
    "lr_positive": counts.lr_positive,
    "lr_negative": counts.lr_negative,
}
AVERAGED = ("precision", "recall", "specificity", "npv", "f1")
"""Count metrics of a class that are averaged over classes as `_macro`, `_weighted` and `_micro`."""
RANKED = ("roc_auc", "partial_roc_auc", "average_precision")
TOGETHER = {
    "accuracy": counts.accuracy,
    "mcc": counts.mcc,
    "cohen_kappa": counts.cohen_kappa,
    "precision_micro": counts.accuracy,
    "recall_micro": counts.accuracy,
    "f1_micro": counts.accuracy,
    "specificity_micro": counts.specificity_micro,
    "npv_micro": counts.specificity_micro,  # Σ fp = Σ fn, so the two are the same number
}
"""Count metrics of all classes together that are no averages over classes."""
TOP_K = (3, 5)
_POOLED_WEIGHTS = 2_000_000
"""Weights of pooled scores held at a time; some 20 bytes go with each."""


@dataclass(frozen=True)
class Facts:
    """What a pass over all scores leaves of each image."""

    losses: Floats
    """(N,) minus the log probability of the true class, in nats; infinite where that is 0."""
    truth: Floats
    """(N,) probability of the true class."""
    squares: Floats
    """(N,) sum over classes of (p - y)², halved for two classes."""
    truth_rank: NDArray[np.int64]
    """(N,) classes that come before the true one, by falling score and, among equals, by index."""

    @classmethod
    def of(cls, predictions: Predictions) -> "Facts":
        n, k = predictions.logits.shape
        losses, truth, squares = (np.empty(n) for _ in range(3))
        truth_rank = np.empty(n, dtype=np.int64)
        for start, stop in row_blocks(n, k):
            targets = predictions.targets[start:stop]
            places = np.arange(stop - start), targets
            rows = predictions.log_rows(start, stop)
            losses[start:stop] = 0.0 - rows[places]  # not -0.0 for a sure hit
            rows = predictions.rows(start, stop)
            own = truth[start:stop] = rows[places]
            squares[start:stop] = np.einsum("nk,nk->n", rows, rows) - own**2 + (1 - own) ** 2
            scores = predictions.scores(start, stop)
            mine = scores[places][:, None]
            earlier = np.arange(k) < targets[:, None]
            truth_rank[start:stop] = (scores > mine).sum(axis=1) + ((scores == mine) & earlier).sum(axis=1)
        return cls(losses, truth, squares / 2 if k == 2 else squares, truth_rank)


@dataclass(frozen=True)
class Sample:
    """The images of one set as the metrics need them."""

    predictions: Predictions
    facts: Facts

    @classmethod
    def of(cls, predictions: Predictions) -> "Sample":
        return cls(predictions, Facts.of(predictions))

    def points(self) -> dict[str, Floats]:
        """Every metric of the images as they are: () values, (K,) by class."""
        weights = np.ones((1, len(self.predictions.targets)), dtype=np.int32)
        values = {name: value for name, (value,) in self.statistics(weights, pooled=False).items()}
        auc, average_precision = micro_metrics(self._class_blocks(), self.facts.truth)
        values["roc_auc_ovr_micro"], values["average_precision_micro"] = np.asarray(auc), np.asarray(average_precision)
        (values["roc_auc_ovo_macro"],) = self._hand_till(weights)
        return values

    def statistics(self, weights: NDArray[np.int32], *, ranked: bool = True, pooled: bool = True) -> dict[str, Floats]:
        """Metrics for each row of (B, N) weights: (B,) values, (B, K) for metrics by class; NaN where undefined.

        Args:
            weights: How often each resample holds each image.
            ranked: With AUC and average precision; they take longest.
            pooled: With the micro averages of these and Hand and Till's AUC, which take as long again.
        """
        values = self._count_statistics(weights)
        if ranked:
            values |= self._ranked_statistics(weights, pooled=pooled)
        return values

    def _count_statistics(self, weights: NDArray[np.int32]) -> dict[str, Floats]:
        predictions, facts = self.predictions, self.facts
        k = predictions.logits.shape[1]
        tally = _tally(weights, predictions.targets, predictions.predicted, k)
        values: dict[str, Floats] = {name: of(tally) for name, of in BY_CLASS.items()}
        for name in AVERAGED:
            values[f"{name}_macro"] = counts.macro(values[name])
            values[f"{name}_weighted"] = counts.weighted(values[name], tally.support)
        values["balanced_accuracy"] = values["recall_macro"]
        values |= {name: of(tally) for name, of in TOGETHER.items()}
        values["no_information_rate"] = counts.ratio(tally.support.max(axis=-1), tally.total)
        for top in TOP_K:
            hits = weighted_mean((facts.truth_rank < top).astype(np.float64), weights)
            values[f"top_{top}_accuracy"] = hits if top < k else np.full(len(weights), np.nan)
        values["log_loss"] = weighted_mean(facts.losses, weights)
        values["brier"] = weighted_mean(facts.squares, weights)
        if predictions.at_point is not None:
            positive, called = predictions.at_point
            point = _tally(weights, positive.astype(np.int64), called.astype(np.int64), 2)
            values |= {f"{name}@op": of(point)[..., 1] for name, of in BY_CLASS.items()}
            values["accuracy@op"] = counts.accuracy(point)
        return values

    def _ranked_statistics(self, weights: NDArray[np.int32], *, pooled: bool) -> dict[str, Floats]:
        # Sorted anew in each call: keeping the orders of 1,000 classes would cost more memory than the logits.
        found = [ranked_metrics(ranking, weights) for ranking in self.rankings()]
        by_class = {name: np.stack([getattr(one, name) for one in found], axis=1) for name in RANKED}
        support = sum_by_label(weights, self.predictions.targets, len(found))
        values = by_class | {
            "roc_auc_ovr_macro": counts.macro(by_class["roc_auc"]),
            "roc_auc_ovr_weighted": counts.weighted(by_class["roc_auc"], support),
            "average_precision_macro": counts.macro(by_class["average_precision"]),
            "average_precision_weighted": counts.weighted(by_class["average_precision"], support),
        }
        if pooled:
            micro = self._micro(weights)
            values["roc_auc_ovr_micro"], values["average_precision_micro"] = micro.roc_auc, micro.average_precision
            values["roc_auc_ovo_macro"] = self._hand_till(weights)
        return values

    def _hand_till(self, weights: NDArray[np.int32]) -> Floats:
        return hand_till((scores for _, scores in self.predictions.each_class()), self.predictions.targets, weights)

    def _class_blocks(self) -> Iterator[Floats]:
        n, k = self.predictions.logits.shape
        for start, stop in row_blocks(k, n):
            yield self.predictions.columns(start, stop)

    def rankings(self) -> Iterator[Ranking]:
        """Each class's images in the order of its scores."""
        for index, scores in self.predictions.each_class():
            yield rank(scores, self.predictions.targets == index)

    def _micro(self, weights: NDArray[np.int32]) -> RankedClass:
        """Of the flattened matrix of scores: every image is a positive of its class and a negative of all others."""
        n, k = self.predictions.logits.shape
        truth = np.zeros((k, n), dtype=bool)
        truth[self.predictions.targets, np.arange(n)] = True
        ranking = rank(self.predictions.columns(0, k).ravel(), truth.ravel())
        rows = max(1, _POOLED_WEIGHTS // (n * k))  # every resample weighs all N K scores
        parts = [
            ranked_metrics(ranking, np.tile(weights[start : start + rows], k)) for start in range(0, len(weights), rows)
        ]
        return RankedClass(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in RANKED})


def _tally(
    weights: NDArray[np.int32], targets: NDArray[np.int64], predicted: NDArray[np.int64], classes: int
) -> Counts:
    correct = predicted == targets
    return Counts(
        sum_by_label(weights, targets, classes),
        sum_by_label(weights, predicted, classes),
        sum_by_label(weights[:, correct], targets[correct], classes),
    )


def sum_by_label(weights: NDArray[np.int32], labels: NDArray[np.int64], k: int) -> Floats:
    """(B, K) sum of the weights of each class's images."""
    order = np.argsort(labels)
    present, starts = np.unique(labels[order], return_index=True)
    sums = np.zeros((len(weights), k))
    sums[:, present] = np.add.reduceat(weights[:, order], starts, axis=1)
    return sums


def weighted_mean(values: Floats, weights: NDArray[np.int32]) -> Floats:
    """(B,) mean of (N,) values under each row of (B, N) weights."""
    # No matrix product: its rounding may depend on the number of threads.
    used = np.where(weights > 0, values * np.where(np.isinf(values), 1, weights), 0.0)
    return np.asarray(used.sum(axis=1) / weights.sum(axis=1))
