"""The part that sees: a small convolutional network that the captioner and the answerer share."""

import torch
from torch import Tensor, nn

IMAGE_SIZE = 64
"""Side of the square that the networks see, in pixels; pictures are squashed to it."""
CHANNELS = 64


def convolution(inputs: int, outputs: int, *, stride: int = 1) -> nn.Sequential:
    """A 3 x 3 convolution, batch norm and ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


class Encoder(nn.Module):
    """From (N, 3, 64, 64) images to (N, 64) vectors: the scaled means of 8 x 8 feature maps, which `features` returns.

    Two of the maps that `features` starts from say where they are: without them, the mean could not tell left from
    right (Liu et al., "CoordConv", NeurIPS 2018, https://arxiv.org/abs/1807.03247).
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            convolution(3, 24, stride=2),
            convolution(24, 48, stride=2),
            convolution(48, 48),
            convolution(48, CHANNELS, stride=2),
        )
        self.features = nn.Sequential(convolution(CHANNELS + 2, CHANNELS), nn.Conv2d(CHANNELS, CHANNELS, 1), nn.ReLU())
        self.norm = nn.BatchNorm1d(CHANNELS)  # means over the picture differ little from picture to picture

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.features(with_places(self.stem(images)))
        pooled: Tensor = self.norm(found.mean(dim=(2, 3)))
        return pooled


def with_places(activations: Tensor) -> Tensor:
    """(N, C + 2, h, w): two further channels, the column and the row of each position from -1 to 1."""
    n, _, h, w = activations.shape
    columns = torch.linspace(-1, 1, w, dtype=activations.dtype, device=activations.device).expand(n, 1, h, w)
    rows = torch.linspace(-1, 1, h, dtype=activations.dtype, device=activations.device)[:, None].expand(n, 1, h, w)
    return torch.cat([activations, columns, rows], dim=1)
