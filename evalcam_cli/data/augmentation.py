"""Random changes of training images, each a function of (seed, epoch, image) and of nothing else.

No global random state is used, so the number of workers, a crash or a resume cannot change what the model sees.
"""

import hashlib
import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from evalcam_cli.config import AugmentConfig


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
        """(3, S, S) uint8 from (3, S, S) uint8."""
        config = self.config
        draws = torch.rand(
            14, generator=generator, dtype=torch.float64
        ).tolist()  # always all: a fixed stream per image
        if draws[0] < config.hflip:
            image = functional.horizontal_flip(image)
        if draws[1] < config.vflip:
            image = functional.vertical_flip(image)
        image = self._moved(image, draws[2:6])
        image = self._recoloured(image, draws[6:10])
        if draws[10] < config.erase:
            image = self._erased(image, draws[11:14])
        return image

    def _moved(self, image: Tensor, draws: list[float]) -> Tensor:
        config = self.config
        if not (config.rotate or config.translate or config.scale):
            return image
        angle, right, down, grow = (2 * draw - 1 for draw in draws)
        side = image.shape[-1] * config.translate
        moved: Tensor = functional.affine(
            image,
            angle=angle * config.rotate,
            translate=[right * side, down * side],
            scale=1 + grow * config.scale,
            shear=[0.0, 0.0],
            interpolation=v2.InterpolationMode.BILINEAR,
            fill=list(map(float, self.fill)),
        )
        return moved

    def _recoloured(self, image: Tensor, draws: list[float]) -> Tensor:
        config = self.config
        light, contrast, colour, turn = (2 * draw - 1 for draw in draws)
        if config.brightness:
            image = functional.adjust_brightness(image, 1 + light * config.brightness)
        if config.contrast:
            image = functional.adjust_contrast(image, 1 + contrast * config.contrast)
        if config.saturation:
            image = functional.adjust_saturation(image, 1 + colour * config.saturation)
        if config.hue:
            image = functional.adjust_hue(image, turn * config.hue)
        return image

    def _erased(self, image: Tensor, draws: list[float]) -> Tensor:
        """A square of 2 to 20 % of the area, of the fill colour (Zhong et al. 2020, "Random Erasing")."""
        side = image.shape[-1]
        edge = max(1, round(side * math.sqrt(0.02 + 0.18 * draws[0])))
        left, top = (int(draw * (side - edge + 1)) for draw in draws[1:3])
        image = image.clone()
        image[:, top : top + edge, left : left + edge] = torch.tensor(self.fill, dtype=image.dtype).view(3, 1, 1)
        return image
