"""Whether the model uses what a map marks: five metrics, each beside that of a random map of the same kind."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from evalcam_cli.explain.deletion import delete_and_insert
from evalcam_cli.explain.perturbing import Baseline, Floats, ask, enlarge
from evalcam_cli.explain.road import NOISE, PERCENTILES, road


@dataclass(frozen=True)
class Metric:
    """How a number is read."""

    higher_is_better: bool
    meaning: str


METRICS = {
    "deletion": Metric(False, "area under the probability while the most relevant pixels are deleted first"),
    "insertion": Metric(True, "area under the probability while the most relevant pixels are inserted first"),
    "road": Metric(True, "half the change of probability by removing the least minus the most relevant pixels"),
    "average_drop": Metric(False, "part of the probability that is lost when the image is multiplied by the map"),
    "average_increase": Metric(True, "share of images with more probability when multiplied by the map"),
}
CONSTANT = "the map has the same value everywhere and ranks nothing"
NOT_FINITE = "the map is not finite"
NOTHING_POSITIVE = "nothing in the map speaks for the class"


@dataclass(frozen=True)
class Beside:
    """A metric of a map and of the random map beside it; NaN, with a reason, where it is undefined."""

    score: float
    random: float
    undefined_reason: str | None = None


@dataclass(frozen=True)
class Faithfulness:
    """What the metrics say of one map of one image."""

    key: str
    class_index: int
    probability: float
    """Of the class, in the image as it is."""
    scores: dict[str, Beside]
    """By the names in `METRICS`."""

    def document(self) -> dict[str, float | str | None]:
        """A row: each metric, `<metric>_random` beside it, and why something is undefined."""
        row: dict[str, float | str | None] = {"probability": self.probability}
        for name, beside in self.scores.items():
            defined = beside.undefined_reason is None
            row[name] = beside.score if defined else None
            row[f"{name}_random"] = beside.random if defined else None
        reasons = dict.fromkeys(beside.undefined_reason for beside in self.scores.values() if beside.undefined_reason)
        row["undefined_reason"] = "; ".join(reasons) or None
        return row


@dataclass(frozen=True)
class Scoring:
    """How maps are scored."""

    steps: int = 20
    """Steps of deletion and insertion."""
    deletion_baseline: Baseline = "zero"
    insertion_baseline: Baseline = "blur"
    percentiles: tuple[int, ...] = PERCENTILES
    """Of ROAD."""
    noise: float = NOISE
    """Standard deviation of ROAD's noise, in units of the normalised image."""
    seed: int = 0
    """Of the random maps and of the noise."""
    batch_size: int = 32
    """Images per forward pass; decides nothing but speed and memory."""


def score_maps(
    model: nn.Module,
    images: Tensor,
    class_indices: Tensor,
    maps: Tensor,
    *,
    keys: Sequence[str],
    scoring: Scoring | None = None,
) -> list[Faithfulness]:
    """The metrics of each map, beside those of a random map.

    The random map has the values of the map itself in random order, at its own resolution: if it does not matter where
    the map has its values, either of the two is equally likely the better one. The order, and ROAD's noise, depend on
    the seed and the image's key alone, so not on the other images. One image costs 1 + 4 (steps + percentiles + 2)
    forward passes, 125 by default, and 4 sparse systems per percentile.

    Args:
        model: From (N, 3, H, W) images to (N, K) logits.
        images: (N, 3, H, W), normalised as the model expects, on its device.
        class_indices: (N,)
        maps: (N, h, w) of any resolution: what is high speaks for the class. Maps whose sign has no reading are given
            as magnitudes.
        keys: What names each image wherever it stands: its path, or a digest of its pixels.
        scoring: Steps, baselines, percentiles, noise, seed.
    """
    scoring = scoring or Scoring()
    if not len(images) == len(class_indices) == len(maps) == len(keys):
        raise ValueError(f"{len(images)} images, {len(class_indices)} classes, {len(maps)} maps, {len(keys)} keys")
    maps = maps.detach().to(images.device)
    reasons = [_reason(values) for values in maps]
    usable = [place for place, reason in enumerate(reasons) if reason is None]
    chosen = [keys[place] for place in usable]
    images_used, indices_used, maps_used = images[usable], class_indices[usable], maps[usable]
    ours = _measure(model, images_used, indices_used, maps_used, chosen, scoring)
    theirs = _measure(
        model, images_used, indices_used, random_maps(maps_used, chosen, seed=scoring.seed), chosen, scoring
    )
    pairs = list(zip(images, class_indices.tolist(), strict=True))
    probabilities = ask(model, pairs, batch_size=scoring.batch_size)
    rows = {place: row for row, place in enumerate(usable)}
    return [
        Faithfulness(
            keys[place],
            index,
            float(probabilities[place]),
            {name: _beside(ours[name], theirs[name], rows.get(place), reasons[place]) for name in METRICS},
        )
        for place, (_, index) in enumerate(pairs)
    ]


def _reason(values: Tensor) -> str | None:
    """Why a map cannot be scored."""
    if not bool(values.isfinite().all()):
        return NOT_FINITE
    return CONSTANT if bool(values.max() == values.min()) else None


def _beside(ours: Floats, theirs: Floats, row: int | None, reason: str | None) -> Beside:
    if row is None:
        return Beside(np.nan, np.nan, reason)
    score, random = float(ours[row]), float(theirs[row])
    undefined = np.isnan(score) or np.isnan(random)  # of a map without positive values, so is its random map's
    return Beside(score, random, NOTHING_POSITIVE if undefined else None)


def _measure(
    model: nn.Module, images: Tensor, class_indices: Tensor, maps: Tensor, keys: Sequence[str], scoring: Scoring
) -> dict[str, Floats]:
    """(N,) of each metric."""
    if not len(images):
        return {name: np.zeros(0) for name in METRICS}
    curves = delete_and_insert(
        model,
        images,
        class_indices,
        maps,
        steps=scoring.steps,
        deletion_baseline=scoring.deletion_baseline,
        insertion_baseline=scoring.insertion_baseline,
        batch_size=scoring.batch_size,
    )
    noise = _noise(images, keys, scoring) if scoring.noise else None
    removed = road(
        model,
        images,
        class_indices,
        maps,
        percentiles=scoring.percentiles,
        noise=noise,
        batch_size=scoring.batch_size,
    )
    drop, increase = drop_and_increase(model, images, class_indices, maps, batch_size=scoring.batch_size)
    return {
        "deletion": curves.deletion_auc,
        "insertion": curves.insertion_auc,
        "road": removed.combined,
        "average_drop": drop,
        "average_increase": increase,
    }


def drop_and_increase(
    model: nn.Module, images: Tensor, class_indices: Tensor, maps: Tensor, *, batch_size: int = 32
) -> tuple[Floats, Floats]:
    """(N,) drops in [0, 1] and (N,) increases, 0 or 1, of the probability when the image is multiplied by the map.

    Chattopadhay et al., "Grad-CAM++", WACV 2018, https://arxiv.org/abs/1710.11063, section 4.1: max(0, Y - O) / Y and
    Y < O for the probabilities Y of the image and O of the image times the positive part of the map, which is brought
    to [0, 1] at its own resolution by its least and largest value, then enlarged. Their means over images are the
    paper's Average Drop and Increase in Confidence (there in %). NaN for a map whose positive part is constant.
    """
    visible, defined = _to_masks(maps.to(images.device))
    masks = enlarge(visible, (images.shape[2], images.shape[3]))[:, None]
    given = class_indices.tolist()
    variants = (pair for image, mask, index in zip(images, masks, given, strict=True)
                for pair in ((image, index), (image * mask, index)))  # fmt: skip
    before, after = ask(model, variants, batch_size=batch_size).reshape(-1, 2).T
    defined &= before > 0
    drop = np.maximum(before - after, 0) / np.where(before > 0, before, 1)
    return np.where(defined, drop, np.nan), np.where(defined, after > before, np.nan)


def _to_masks(maps: Tensor) -> tuple[Tensor, NDArray[np.bool_]]:
    """(N, h, w) in [0, 1], and which of the N are defined."""
    positive = maps.clamp(min=0)
    least, largest = positive.amin(dim=(1, 2), keepdim=True), positive.amax(dim=(1, 2), keepdim=True)
    spread = largest - least
    masks = torch.where(spread > 0, (positive - least) / spread, 0)
    return masks, (spread > 0).flatten().cpu().numpy()


def random_maps(maps: Tensor, keys: Sequence[str], *, seed: int) -> Tensor:
    """(N, h, w): the values of each map in an order that depends on the seed and its key alone."""
    shuffled = [
        values.flatten()[torch.from_numpy(_generator(seed, "map", key).permutation(values.numel())).to(maps.device)]
        for values, key in zip(maps, keys, strict=True)
    ]
    return torch.stack(shuffled).view_as(maps) if shuffled else maps


def _noise(images: Tensor, keys: Sequence[str], scoring: Scoring) -> Tensor:
    drawn = [_generator(scoring.seed, "noise", key).standard_normal(images.shape[1:], np.float32) for key in keys]
    return scoring.noise * torch.from_numpy(np.stack(drawn)).to(images)


def _generator(seed: int, purpose: str, key: str) -> np.random.Generator:
    digest = hashlib.sha256(f"{seed} {purpose} {key}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))
