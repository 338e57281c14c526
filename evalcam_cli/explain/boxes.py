"""From a map on the original's pixels to masks and boxes at one threshold."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import scipy.ndimage
from numpy.typing import NDArray

Bools = NDArray[np.bool_]
Boxes = NDArray[np.int64]
"""(M, 4) pixels x0, y0, x1, y1 with exclusive ends."""
Box = tuple[int, int, int, int]
"""One of them."""

ILSVRC_FRACTION = 0.15
"""Of the map's maximum; Selvaraju et al., "Grad-CAM", ICCV 2017, https://arxiv.org/abs/1610.02391, section 4.1."""
_EIGHT = np.ones((3, 3), dtype=bool)  # pixels that touch at a corner belong together


@dataclass(frozen=True)
class Segment:
    """Pixels that touch each other, at a side or at a corner."""

    box: Box
    """The tight one: x0, y0, x1, y1 with exclusive ends."""
    pixels: int
    number: int
    """Of its pixels in the labels that `label_segments` returns."""


def binarise(heat: NDArray[np.floating], fraction: float = ILSVRC_FRACTION, seen: Bools | None = None) -> Bools:
    """Which pixels are hotter than this fraction of the hottest.

    Args:
        heat: (H, W), finite, of any sign; only its positive part counts.
        fraction: From 0 (all that is positive) to below 1.
        seen: (H, W), which pixels the model saw; the others are never hot. All of them by default.

    Returns:
        (H, W). All False where nothing is positive: an empty map has no box.
    """
    if not 0 <= fraction < 1:
        raise ValueError(f"fraction = {fraction}; expected 0 to below 1")
    hottest = float(heat.max() if seen is None else heat.max(where=seen, initial=-np.inf))
    if not hottest > 0:
        return np.zeros(heat.shape, dtype=bool)
    hot = heat > fraction * hottest
    return hot if seen is None else hot & seen


def label_segments(mask: Bools) -> tuple[NDArray[np.int32], tuple[Segment, ...]]:
    """The segments of an (H, W) mask, largest first, and an (H, W) array with the number of each pixel's, 0 outside.

    Of equally large ones the first in reading order comes first.
    """
    labels, count = scipy.ndimage.label(mask, structure=_EIGHT, output=np.int32)
    pixels = np.bincount(labels.ravel(), minlength=count + 1)
    segments = [
        Segment((columns.start, rows.start, columns.stop, rows.stop), int(pixels[number]), number)
        for number, (rows, columns) in enumerate(scipy.ndimage.find_objects(labels), 1)
    ]
    return labels, tuple(sorted(segments, key=lambda one: (-one.pixels, one.number)))


def find_segments(mask: Bools) -> tuple[Segment, ...]:
    """The segments of an (H, W) mask, largest first."""
    return label_segments(mask)[1]


def largest_segment(mask: Bools) -> tuple[Bools, Segment] | None:
    """The (H, W) mask of the largest segment alone, and the segment; None where the mask is empty."""
    labels, segments = label_segments(mask)
    return (labels == segments[0].number, segments[0]) if segments else None


def stack_boxes(boxes: Iterable[Box]) -> Boxes:
    """(M, 4) of any number of boxes, 0 included."""
    return np.array(list(boxes), dtype=np.int64).reshape(-1, 4)


def iou(boxes: Boxes, others: Boxes) -> NDArray[np.float64]:
    """(M, T) area of the intersection over that of the union, for each of M boxes and T others.

    Everingham et al., "The PASCAL visual object classes challenge", IJCV 2010, equation 3. An area is the number of
    pixels, ends exclusive. A box without area overlaps with nothing.
    """
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    both = np.prod(np.maximum(high - low, 0), axis=2)
    union = _areas(boxes)[:, None] + _areas(others) - both
    return np.asarray(both / np.maximum(union, 1), dtype=np.float64)


def _areas(boxes: Boxes) -> Boxes:
    sides: Boxes = np.maximum(boxes[:, 2:] - boxes[:, :2], 0)
    return np.asarray(sides[:, 0] * sides[:, 1])
