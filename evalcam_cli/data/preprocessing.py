"""One way from an image to the square that the model sees, and back; training, evaluation and Grad-CAM share it."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # channel means and deviations that torchvision's weights expect
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Geometry:
    """Where an image lies in the model's input square.

    Coordinates are continuous, in pixels: pixel i covers the interval from i to i + 1. An image point (x, y) stands at
    (x * scale_x + left, y * scale_y + top) of the input.
    """

    width: int
    """Of the upright original, in pixels."""
    height: int
    image_size: int
    """Side of the input square, in pixels."""
    scale_x: float
    scale_y: float
    left: float
    """Negative where the image was cropped."""
    top: float

    def to_input(self, x: float, y: float) -> tuple[float, float]:
        """Input coordinates of a point of the original."""
        return x * self.scale_x + self.left, y * self.scale_y + self.top

    def to_original(self, x: float, y: float) -> tuple[float, float]:
        """Original coordinates of a point of the input; outside the image where the input is padding."""
        return (x - self.left) / self.scale_x, (y - self.top) / self.scale_y


@dataclass(frozen=True)
class Preprocessing:
    """How an upright RGB image becomes the model's input; stored in the checkpoint."""

    image_size: int
    """Side of the input square, in pixels."""
    resize: str
    """`pad`: all of the image, the rest filled; `crop`: the centre square; `squash`: sides scaled apart."""
    mean: tuple[float, float, float] = IMAGENET_MEAN
    """Subtracted from the channels after scaling to [0, 1]."""
    std: tuple[float, float, float] = IMAGENET_STD
    """Divides the channels after that; above 0."""

    @property
    def fill(self) -> tuple[int, int, int]:
        """RGB of the padding: the mean colour, which the normalisation turns into nothing."""
        red, green, blue = (round(255 * channel) for channel in self.mean)
        return red, green, blue

    def geometry(self, width: int, height: int) -> Geometry:
        """Where an upright image of this size lies in the input."""
        size = self.image_size
        if self.resize == "squash":
            return Geometry(width, height, size, size / width, size / height, 0, 0)
        if self.resize == "crop":
            side = min(width, height)
            scale = size / side
            left, top = (width - side) // 2, (height - side) // 2
            return Geometry(width, height, size, scale, scale, -left * scale, -top * scale)
        longest = max(width, height)
        inner_width = max(1, round(width * size / longest))
        inner_height = max(1, round(height * size / longest))
        left, top = (size - inner_width) // 2, (size - inner_height) // 2
        return Geometry(width, height, size, inner_width / width, inner_height / height, left, top)

    def apply(self, image: Image.Image) -> NDArray[np.uint8]:
        """(S, S, 3) uint8 RGB from an upright RGB image; bilinear with antialiasing."""
        size, place = self.image_size, self.geometry(*image.size)
        if self.resize == "pad":
            inner_size = round(image.width * place.scale_x), round(image.height * place.scale_y)
            square = Image.new("RGB", (size, size), self.fill)
            square.paste(image.resize(inner_size, Image.Resampling.BILINEAR), (int(place.left), int(place.top)))
        elif self.resize == "crop":
            left, top = -place.left / place.scale_x, -place.top / place.scale_y
            side = min(image.size)
            square = image.resize((size, size), Image.Resampling.BILINEAR, (left, top, left + side, top + side))
        else:
            square = image.resize((size, size), Image.Resampling.BILINEAR)
        return np.asarray(square)

    def to_dict(self) -> dict[str, Any]:
        """As kept in a checkpoint."""
        return asdict(self)
