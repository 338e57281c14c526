"""Traps in drawing a map over a photograph."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from evalcam_cli.data.preprocessing import Preprocessing
from tests.benchmarks.explanation_peers import Tool


def drawn(tool: Tool, class_map: NDArray[Any], width: int, height: int) -> NDArray[np.float64]:
    """(H, W): how far each pixel of a grey photograph is from that of a map of zeros."""
    assert tool.overlay is not None
    photograph, preprocessing = Image.new("RGB", (width, height), (128, 128, 128)), Preprocessing(224, "crop")
    cut = (slice(height), slice(width))
    found = tool.overlay(photograph, class_map, preprocessing)[cut].astype(np.float64)
    plain = tool.overlay(photograph, np.zeros_like(class_map), preprocessing)[cut]
    return np.asarray(np.abs(found - plain).sum(axis=2))


def on_the_right_pixels(tool: Tool) -> None:
    """A peak in the left column of what a crop kept is drawn there, not at the left of the photograph."""
    class_map = np.zeros((7, 7), dtype=np.float32)
    class_map[3, 0] = 1
    columns = drawn(tool, class_map, 600, 300).sum(axis=0)
    middle = float((columns * np.arange(600)).sum() / columns.sum())
    wanted = 150 + 300 / 7 / 2  # the crop begins at 150 and a cell is 300 / 7 pixels wide
    error = abs(middle - wanted)
    assert error <= 300 / 7, f"off by {error:.0f} px, {100 * error / 600:.0f} % of the width"


def any_number_type(tool: Tool) -> None:
    """The same map in another number type gives the same picture; bytes from 0 to 255, too."""
    ramp = np.repeat(np.linspace(0, 1, 8), 8).reshape(8, 8)
    wanted = drawn(tool, ramp.astype(np.float32), 64, 64)
    others: dict[str, NDArray[Any]] = {
        "uint8": (255 * ramp).round().astype(np.uint8),
        "float64": ramp.astype(np.float64),
    }
    for name, other in others.items():
        difference = np.abs(drawn(tool, other, 64, 64) - wanted).max() / wanted.max()
        assert difference <= 0.05, f"{name} is drawn otherwise, by {100 * difference:.0f} %"
