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
"""Rank correlation of whole maps above which they hardly changed.

Measured with trained ResNet-18 on brain slices and on drawn scenes, head randomised: Guided Backpropagation 0.97 to
0.99, a map without any class in it 1, Grad-CAM++ and LayerCAM of the last layer, which use positive slopes only, 0.90
to 0.96 (0.7 with larger images); magnitudes of gradients, integrated gradients and SmoothGrad 0.41 to 0.77; Grad-CAM,
HiResCAM, XGradCAM and occlusion -0.2 to 0.
"""
DETAIL_BOUND = 0.65
"""The same for the fine detail. Measured likewise: Guided Backpropagation 0.92 to 0.98, Guided Grad-CAM 0.72 to 0.96;
magnitudes of gradients and integrated gradients 0.27 to 0.52."""
SEEDS = (0, 1, 2)

_TILE = 4  # pixels; within it the maps of coarse methods hardly vary
_FINE = 32  # a map of fewer cells on a side has no fine detail
_LEAST_SHARE = 0.05  # of all tiles, below which the detail of a map is not compared


@dataclass(frozen=True)
class Change:
    """How alike the maps are before and after one stage was randomised: 1 when nothing changed."""

    stage: Stage
    whole: Floats
    """(seeds, N) Spearman's rank correlation of all values of a map; NaN where either map is constant."""
    detail: Floats
    """(seeds, N) the same within tiles of 4 x 4 pixels without a 0, averaged over them; NaN for maps without detail."""

    @property
    def shown(self) -> tuple[str, float, Floats]:
        """The correlation that speaks most against the method: its name, mean, and (seeds,) means over images.

        That of the detail only where it exceeds its bound with more seeds.
        """
        whole, detail = _mean(self.whole), _mean(self.detail)
        if (detail > DETAIL_BOUND).sum() > (whole > BOUND).sum():
            return "Spearman of the fine detail", float(_mean(detail[None])[0]), detail
        return "Spearman", float(_mean(whole[None])[0]), whole

    @property
    def unchanged(self) -> NDArray[np.bool_]:
        """(seeds,) whether the maps hardly changed; what is not defined counts as no evidence of that."""
        return np.asarray((_mean(self.whole) > BOUND) | (_mean(self.detail) > DETAIL_BOUND))


@dataclass(frozen=True)
class Verdict:
    """Whether a method passes the check."""

    outcome: Outcome
    sentence: str
    """To stand on a picture: "fails the sanity check: hardly changes when the head is randomised (Spearman 0.93)"."""
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

    A stage is failed when with every seed the maps hardly change: their mean rank correlation is above `BOUND`, or that
    of their fine detail above `DETAIL_BOUND`. It is passed when that is so with fewer than half of the seeds; else
    undecided. The detail is looked at because the product of a coarse map that changes and fine edges that do not
    (Guided Grad-CAM) still shows the same edges; it stands in the place of the paper's SSIM. The classes are those
    given, for all copies. The verdict is that of the worst stage. Costs as many maps as 1 + stages x seeds.

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
    unchanged = int(change.unchanged.sum())
    if unchanged == len(change.unchanged):
        return "fails"
    return "passes" if 2 * unchanged < len(change.unchanged) else "undecided"


def _sentence(outcome: Outcome, stages: Sequence[Change]) -> str:
    """About the first of these stages, the one nearest to the head, which says most."""
    change = stages[0]
    what = f"{change.stage.name} {'is' if change.stage.name == 'the head' else 'are'} randomised"
    name, mean, by_seed = change.shown
    if outcome == "fails":
        return f"fails the sanity check: hardly changes when {what} ({name} {mean:.2f})"
    if outcome == "passes":
        return f"passes the sanity check: changes when {what} ({name} {mean:.2f})"
    if np.isnan(change.whole).mean() > 0.5:
        return f"sanity undecided: too many maps are constant when {what}"
    spread = f"{name} {np.nanmin(by_seed):.2f} to {np.nanmax(by_seed):.2f}"
    return f"sanity undecided: depends on the random weights when {what} ({spread})"


def _mean(values: Floats) -> Floats:
    """(R,) means of the rows of (R, C) without NaN; NaN for a row of nothing else."""
    defined = ~np.isnan(values)
    counts = defined.sum(axis=1)
    sums = np.where(defined, values, 0).sum(axis=1)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
