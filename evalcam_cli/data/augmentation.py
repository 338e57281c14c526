"""Random changes of training images, each a function of (seed, epoch, image) and of nothing else.

No global random state is used, so the number of workers, a crash or a resume cannot change what the model sees. The
number of threads cannot either: there is no sum here whose order depends on them.
"""

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import grid_sample
from torchvision.transforms.v2 import functional

from evalcam_cli.config import AugmentConfig

_GREY = (0.2989, 0.587, 0.114)  # ITU-R BT.601 luma, with the digits of torchvision


def keyed_generator(*key: int) -> torch.Generator:
    """A generator whose stream depends on the whole key; keys are hashed, so neighbours share nothing."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


@dataclass(frozen=True)
class Augmentation:
    """Changes one image of the model's input size."""

    config: AugmentConfig
    fill: tuple[int, int, int]
    """RGB of pixels that come from outside the image."""

    def __call__(self, image: Tensor, generator: torch.Generator) -> Tensor:
        """(3, S, S) uint8 from (3, S, S) uint8.

        Mirrored, moved, recoloured, erased, and then what RandAugment does. Moving and recolouring are computed in
        floating point and rounded once.
        """
        config = self.config
        draws = torch.rand(
            14, generator=generator, dtype=torch.float64
        ).tolist()  # always all: a fixed stream per image
        if draws[0] < config.hflip:
            image = image.flip(-1)
        if draws[1] < config.vflip:
            image = image.flip(-2)
        moves = config.rotate or config.translate or config.scale
        if moves or config.brightness or config.contrast or config.saturation or config.hue:
            exact = _as_float(image)
            exact = self._moved(exact, draws[2:6]) if moves else exact
            image = _as_bytes(self._recoloured(exact, draws[6:10]))
        if draws[10] < config.erase:
            image = self._erased(image, draws[11:14])
        return self._randomly_changed(image, generator)

    def _moved(self, image: Tensor, draws: list[float]) -> Tensor:
        config = self.config
        angle, right, down, grow = (2 * draw - 1 for draw in draws)
        turn = math.radians(angle * config.rotate)
        cos, sin = (part / (1 + grow * config.scale) for part in (math.cos(turn), math.sin(turn)))
        right, down = 2 * right * config.translate, 2 * down * config.translate  # in half sides
        source = Source(cos, sin, -cos * right - sin * down, -sin, cos, sin * right - cos * down)
        return warped(image, source, self.fill)

    def _recoloured(self, image: Tensor, draws: list[float]) -> Tensor:
        config = self.config
        light, contrast, colour, turn = (2 * draw - 1 for draw in draws)
        if config.brightness:
            image = brightened(image, 1 + light * config.brightness)
        if config.contrast:
            image = contrasted(image, 1 + contrast * config.contrast)
        if config.saturation:
            image = saturated(image, 1 + colour * config.saturation)
        if config.hue:
            image = functional.adjust_hue(image.div_(255), turn * config.hue).mul_(255)
        return image

    def _erased(self, image: Tensor, draws: list[float]) -> Tensor:
        """A square of 2 to 20 % of the area, of the fill colour (Zhong et al. 2020, "Random Erasing")."""
        side = image.shape[-1]
        edge = max(1, round(side * math.sqrt(0.02 + 0.18 * draws[0])))
        left, top = (int(draw * (side - edge + 1)) for draw in draws[1:3])
        image = image.clone()
        image[:, top : top + edge, left : left + edge] = torch.tensor(self.fill, dtype=image.dtype).view(3, 1, 1)
        return image

    def _randomly_changed(self, image: Tensor, generator: torch.Generator) -> Tensor:
        """RandAugment: operations drawn with replacement, all equally likely, either sign equally likely."""
        names = tuple(OPERATIONS)
        for _ in range(self.config.randaugment):
            which, sign = torch.rand(2, generator=generator, dtype=torch.float64).tolist()
            strength = self.config.randaugment_magnitude / 10
            name = names[int(which * len(names))]
            image = OPERATIONS[name](image, strength if sign < 0.5 else -strength, self.fill)
        return image


class Source(NamedTuple):
    """Where the pixels of a warped image come from: output (x, y) shows input (a x + b y + c, d x + e y + f).

    The middle of the image is (0, 0), its edges are at -1 and 1; x grows to the right and y downwards.
    """

    a: float = 1.0
    b: float = 0.0
    c: float = 0.0
    d: float = 0.0
    e: float = 1.0
    f: float = 0.0


def warped(image: Tensor, source: Source, fill: tuple[int, int, int]) -> Tensor:
    """(3, S, S) float32 from the same, which is overwritten: bilinear, amid a plane of the fill colour."""
    side = image.shape[-1]
    middles = torch.arange(1, 2 * side, 2, dtype=torch.float32).div_(side).sub_(1)
    places = torch.empty(2, side, side)  # x and y
    torch.add(middles * source.a, (middles * source.b + source.c).unsqueeze(1), out=places[0])
    torch.add(middles * source.d, (middles * source.e + source.f).unsqueeze(1), out=places[1])
    colour = torch.tensor(fill, dtype=torch.float32).view(3, 1, 1)
    grid = places.permute(1, 2, 0).unsqueeze(0)
    moved = grid_sample(image.sub_(colour).unsqueeze(0), grid, padding_mode="zeros", align_corners=False)
    return moved[0].add_(colour)  # where there is no image, 0 + fill


def brightened(image: Tensor, factor: float) -> Tensor:
    """In place, values from 0 to 255: towards black (0), or brighter (above 1)."""
    return image.mul_(factor).clamp_(0, 255)


def contrasted(image: Tensor, factor: float) -> Tensor:
    """In place, values from 0 to 255: towards the image's mean grey (0), or away from it (above 1)."""
    channels = image.numpy().reshape(3, -1).mean(axis=1).tolist()  # numpy: torch's order depends on the threads
    grey = sum(weight * channel for weight, channel in zip(_GREY, channels, strict=True))
    return image.mul_(factor).add_(grey * (1 - factor)).clamp_(0, 255)


def saturated(image: Tensor, factor: float) -> Tensor:
    """In place, values from 0 to 255: towards each pixel's own grey (0), or away from it (above 1)."""
    red, green, blue = (channel * weight for channel, weight in zip(image, _GREY, strict=True))
    grey = red.add_(green).add_(blue)
    return image.mul_(factor).add_(grey.mul_(1 - factor)).clamp_(0, 255)


def _as_float(image: Tensor) -> Tensor:
    """A copy."""
    return image.to(torch.float32, memory_format=torch.contiguous_format)


def _as_bytes(image: Tensor) -> Tensor:
    """Rounded, from values between 0 and 255, which are overwritten."""
    return image.add_(0.5).int().byte()  # straight to bytes takes three times as long


Operation = Callable[[Tensor, float, tuple[int, int, int]], Tensor]
"""(3, S, S) uint8 from the same, a strength from -1 to 1, and the fill colour."""


def _autocontrast(image: Tensor, _: float, __: tuple[int, int, int]) -> Tensor:
    changed: Tensor = functional.autocontrast(image)
    return changed


def _equalize(image: Tensor, _: float, __: tuple[int, int, int]) -> Tensor:
    changed: Tensor = functional.equalize(image)
    return changed


def _posterize(image: Tensor, strength: float, _: tuple[int, int, int]) -> Tensor:
    """Keeps 8 bits, down to 4."""
    dropped = round(4 * abs(strength))
    return (image >> dropped) << dropped


def _solarize(image: Tensor, strength: float, _: tuple[int, int, int]) -> Tensor:
    """Inverts what is as bright as a threshold of 256, down to 0."""
    return torch.where(image < 256 * (1 - abs(strength)), image, 255 - image)


def _sharpness(image: Tensor, strength: float, _: tuple[int, int, int]) -> Tensor:
    changed: Tensor = functional.adjust_sharpness(image, 1 + 0.9 * strength)
    return changed


def _recolouring(change: Callable[[Tensor, float], Tensor]) -> Operation:
    """By a factor of up to 0.1 or 1.9."""
    return lambda image, strength, fill: _as_bytes(change(_as_float(image), 1 + 0.9 * strength))


def _warping(source: Callable[[float], Source]) -> Operation:
    return lambda image, strength, fill: _as_bytes(warped(_as_float(image), source(strength), fill))


def _turned(strength: float) -> Source:
    turn = math.radians(30 * strength)
    return Source(math.cos(turn), math.sin(turn), 0, -math.sin(turn), math.cos(turn), 0)


_FARTHEST = 150 / 331  # of the side: 150 pixels of the 331 in AutoAugment

OPERATIONS: dict[str, Operation] = {
    "identity": lambda image, strength, fill: image,
    "autocontrast": _autocontrast,
    "equalize": _equalize,
    "rotate": _warping(_turned),
    "solarize": _solarize,
    "color": _recolouring(saturated),
    "posterize": _posterize,
    "contrast": _recolouring(contrasted),
    "brightness": _recolouring(brightened),
    "sharpness": _sharpness,
    "shear_x": _warping(lambda strength: Source(b=0.3 * strength)),
    "shear_y": _warping(lambda strength: Source(d=0.3 * strength)),
    "translate_x": _warping(lambda strength: Source(c=2 * _FARTHEST * strength)),
    "translate_y": _warping(lambda strength: Source(f=2 * _FARTHEST * strength)),
}
"""The 14 of RandAugment, by name.

Cubuk et al. 2020, "RandAugment: Practical Automated Data Augmentation with a Reduced Search Space", section 3; strength
1 (magnitude 10) is the end of the ranges in Cubuk et al. 2019, "AutoAugment", table 6: 30 degrees, a shear of 0.3, 150
of 331 pixels, factors of 0.1 and 1.9, 4 bits. At strength 0 all but autocontrast and equalize leave the image as it is.
"""
