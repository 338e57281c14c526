"""Whether a method explains the model at all: does its map change when the model forgets what it learned?

Adebayo et al., "Sanity Checks for Saliency Maps", NeurIPS 2018, https://arxiv.org/abs/1810.03292, section 3: the model
parameter randomisation test. A map that stays the same when the head, which alone knows the classes, is drawn anew
shows the image, not the reason for the class.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import Tensor, nn

from evalcam_cli.explain.randomising import Stage, find_stages, randomised

Floats = NDArray[np.float64]
Explain = Callable[[nn.Module, Tensor, Tensor], Tensor]
"""From a model, (N, 3, S, S) images and (N,) class indices to (N, h, w) maps, as they are drawn: magnitudes where the
sign has no reading."""
Outcome = Literal["passes", "fails", "undecided"]

BOUND = 0.8
"""Rank correlation above which a map hardly changes.

Measured with trained ResNet-18 on three sets of images, head randomised: Guided Backpropagation 0.97 to 0.99, a map
without any class in it 1; magnitudes of gradients, integrated gradients and SmoothGrad 0.50 to 0.77; Grad-CAM -0.2 to
0.2."""
SEEDS = (0, 1, 2)

_TILE = 8  # pixels; within it the maps of coarse methods hardly vary
_FINE = 4 * _TILE  # a map of fewer cells on a side has no fine detail
_LEAST_SHARE = 0.05  # of all tiles, below which the detail of a map is not compared


@dataclass(frozen=True)
class Change:
    """How alike the maps are before and after one stage was randomised: 1 when nothing changed."""

    stage: Stage
    whole: Floats
    """(seeds, N) Spearman's rank correlation of all values of a map; NaN where either map is constant."""
    detail: Floats
    """(seeds, N) the same within tiles of 8 x 8 pixels without a 0, averaged over them; NaN for maps without detail."""

    @property
    def by_seed(self) -> Floats:
        """(seeds,) means over images of the whole or of the detail, whichever changes less."""
        return np.fmax(_mean(self.whole), _mean(self.detail))

    @property
    def kept(self) -> float:
        """The mean of `by_seed`; NaN where no map could be compared."""
        return float(_mean(self.by_seed[None])[0])

    @property
    def kept_detail(self) -> bool:
        """Whether it is the detail that changes less."""
        whole, detail = _mean(self.whole.reshape(1, -1))[0], _mean(self.detail.reshape(1, -1))[0]
        return bool(detail > whole)


@dataclass(frozen=True)
class Verdict:
    """Whether a method passes the check."""

    outcome: Outcome
    sentence: str
    """To stand on a picture, e.g. "fails the sanity check: hardly changes when the head is randomised (Spearman
    0.93)"."""
    changes: tuple[Change, ...]
    """Of each stage, the head first."""


def check_sanity(
    explain: Explain,
    model: nn.Module,
    images: Tensor,
    class_indices: Tensor,
    *,
    stages: Sequence[Stage] | None = None,
    seeds: Sequence[int] = SEEDS,
) -> Verdict:
    """Compare the maps of the model with those of copies that forgot.

    A stage is failed when with every seed the maps before and after have a mean rank correlation above `BOUND`; passed
    when with fewer than half of the seeds; else undecided. Two correlations are taken, of the whole maps and of their
    fine detail, and the higher one counts: the product of a coarse map that changes and fine edges that do not still
    shows the same edges (Guided Grad-CAM). The classes are those given, for all copies. The verdict is that of the
    worst stage. Costs as many maps as 1 + stages x seeds.

    Args:
        explain: The method; it must not keep anything from one call to the next.
        model: Not changed.
        images: (N, 3, S, S), normalised as the model expects; a handful, 8 or more, of several classes.
        class_indices: (N,) the explained classes.
        stages: What is randomised; by default the head, then cascading down to all layers.
        seeds: Of the random weights.
    """
    chosen = find_stages(model, images) if stages is None else tuple(stages)
    before = _maps(explain, model, images, class_indices)
    changes = []
    for stage in chosen:
        found = [
            compare(before, _maps(explain, randomised(model, stage, images, seed=seed), images, class_indices))
            for seed in seeds
        ]
        whole, detail = zip(*found, strict=True)
        changes.append(Change(stage, np.stack(whole), np.stack(detail)))
    return judge(changes)


def _maps(explain: Explain, model: nn.Module, images: Tensor, class_indices: Tensor) -> Tensor:
    return explain(model, images, class_indices).detach().cpu().double()


def compare(before: Tensor, after: Tensor) -> tuple[Floats, Floats]:
    """(N,) rank correlations of two (N, h, w) sets of maps: of whole maps, and of their fine detail.

    NaN where a map is constant or not finite, and for the detail of maps that are too coarse to have any.
    """
    whole = _correlate(before.flatten(1).numpy(), after.flatten(1).numpy())
    return whole, np.array([_detail(one, other) for one, other in zip(before, after, strict=True)])


def _detail(before: Tensor, after: Tensor) -> float:
    """Mean over tiles in which neither map is 0: zeros are what a mask left out, and say nothing of what it let in."""
    if min(before.shape) < _FINE:
        return float("nan")
    one, other = _tiles(before), _tiles(after)
    full = (one != 0).all(axis=1) & (other != 0).all(axis=1)
    correlations = _correlate(one[full], other[full])
    correlations = correlations[~np.isnan(correlations)]
    enough = len(correlations) >= max(4, _LEAST_SHARE * len(one))
    return float(correlations.mean()) if enough else float("nan")


def _tiles(values: Tensor) -> Floats:
    """(tiles, pixels) of an (h, w) map; what is left at the right and lower border is left out."""
    tiles = values.unfold(0, _TILE, _TILE).unfold(1, _TILE, _TILE).reshape(-1, _TILE * _TILE)
    return np.asarray(tiles.numpy(), dtype=np.float64)


def _correlate(one: Floats, other: Floats) -> Floats:
    """(R,) Spearman's rank correlation of each of R rows; ties have their mean rank."""
    if not one.size:
        return np.zeros(len(one))
    usable = np.isfinite(one).all(axis=1) & np.isfinite(other).all(axis=1)
    usable &= (np.ptp(one, axis=1) > 0) & (np.ptp(other, axis=1) > 0)
    found = np.full(len(one), np.nan)
    if usable.any():
        ranks = [rankdata(values[usable], axis=1) for values in (one, other)]
        first, second = (values - values.mean(axis=1, keepdims=True) for values in ranks)
        products = (first * second).sum(axis=1)
        found[usable] = products / np.sqrt((first**2).sum(axis=1) * (second**2).sum(axis=1))
    return found


def judge(changes: Sequence[Change]) -> Verdict:
    """The verdict of the worst stage."""
    judged = [(_outcome(change), change) for change in changes]
    for outcome in ("fails", "undecided", "passes"):
        worst = [change for found, change in judged if found == outcome]
        if worst:
            return Verdict(outcome, _sentence(outcome, worst), tuple(changes))
    raise ValueError("no stage was randomised")


def _outcome(change: Change) -> Outcome:
    compared = ~np.isnan(change.whole)
    if compared.mean() < 0.5:  # NaN is not a change
        return "undecided"
    above = int((change.by_seed > BOUND).sum())
    if above == len(change.by_seed):
        return "fails"
    return "passes" if 2 * above < len(change.by_seed) else "undecided"


def _sentence(outcome: Outcome, stages: Sequence[Change]) -> str:
    """About the first stage for what fails, which says most; else about the one that changed least."""
    change = stages[0] if outcome == "fails" else max(stages, key=lambda each: np.nan_to_num(each.kept, nan=2))
    what = f"{change.stage.name} {'is' if change.stage.name == 'the head' else 'are'} randomised"
    number = f"{'Spearman of the fine detail' if change.kept_detail else 'Spearman'} {change.kept:.2f}"
    if outcome == "fails":
        return f"fails the sanity check: hardly changes when {what} ({number})"
    if outcome == "passes":
        return f"passes the sanity check: changes when {what} ({number})"
    if np.isnan(change.whole).mean() > 0.5:
        return f"sanity undecided: too many maps are constant when {what}"
    low, high = change.by_seed.min(), change.by_seed.max()
    return f"sanity undecided: depends on the random weights when {what} (Spearman {low:.2f} to {high:.2f})"


def _mean(values: Floats) -> Floats:
    """(R,) means of the rows of (R, C) without NaN; NaN for a row of nothing else."""
    defined = ~np.isnan(values)
    counts = defined.sum(axis=1)
    sums = np.where(defined, values, 0).sum(axis=1)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
