"""Images blended with each other: mixup and CutMix."""

import hashlib
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from evalcam_cli.config import TrainConfig


@dataclass(frozen=True)
class Mixture:
    """A batch after mixing."""

    images: Tensor
    """(N, 3, S, S)."""
    partners: Tensor
    """(N,) position, in the batch, of the image that was mixed into each."""
    share: float
    """Of each image's own target; the rest is its partner's."""


def mix(images: Tensor, config: TrainConfig, key: tuple[int, ...]) -> Mixture | None:
    """The batch blended with itself in another order; None when neither mixup nor CutMix is asked for.

    Mixup: share * x_i + (1 - share) * x_j with share ~ Beta(alpha, alpha) (Zhang et al. 2018, equation 1). CutMix: a
    rectangle with the sides of the image times sqrt(1 - share), centred anywhere, comes from x_j; what of it lies
    inside the image counts (Yun et al. 2019, section 3.1 and equation 2). With both, a fair coin decides. One share
    and one rectangle serve the whole batch.

    Args:
        images: (N, 3, S, S), normalised; not changed.
        config: Its `mixup` and `cutmix` count.
        key: What the draw depends on: seed, epoch, step, process.
    """
    if not (config.mixup or config.cutmix):
        return None
    digest = hashlib.sha256(repr(("mix", *key)).encode()).digest()
    generator = np.random.default_rng(int.from_bytes(digest[:16], "big"))
    coin, side = generator.random(), images.shape[-1]
    cut = bool(config.cutmix) and (not config.mixup or coin < 0.5)
    alpha = config.cutmix if cut else config.mixup
    share = float(generator.beta(alpha, alpha))
    partners = torch.from_numpy(generator.permutation(len(images))).to(images.device)
    if not cut:
        return Mixture(torch.lerp(images[partners], images, share), partners, share)
    x, y = generator.random(2) * side
    half = side * math.sqrt(1 - share) / 2
    left, right, top, bottom = (min(side, max(0, round(edge))) for edge in (x - half, x + half, y - half, y + half))
    mixed = images.clone()
    mixed[:, :, top:bottom, left:right] = images[partners][:, :, top:bottom, left:right]
    return Mixture(mixed, partners, 1 - (right - left) * (bottom - top) / side**2)
