"""Does a map stand on the object? What one map says, kept as a small record.

Everything is in pixels of the upright original. A map is what speaks for the class: only its positive part counts, and
only pixels that the model saw. A map that is nowhere positive finds nothing, so it misses wherever a hit is counted.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evalcam_cli.explain.boxes import (
    ILSVRC_FRACTION,
    Bools,
    Box,
    Boxes,
    binarise,
    find_segments,
    iou,
    largest_segment,
    stack_boxes,
)
from evalcam_cli.explain.levels import LEVELS, LevelBoxes, find_contours, scale_steps

Floats = NDArray[np.float64]

V2_OVERLAPS = (0.3, 0.5, 0.7)
"""Choe et al., "Evaluating weakly supervised object localization methods right", CVPR 2020, section 3.3."""
V1_OVERLAP = 0.5
_LONGEST_SIDE = 256
"""The published protocol brings every image to 224 pixels; here to every k-th pixel, at most so many."""


@dataclass(frozen=True)
class Truth:
    """Where the objects of one class are in one image."""

    boxes: Boxes
    """(T, 4), of one object each."""
    mask: Bools
    """(H, W), the pixels of all of them."""
    outlined: bool
    """Whether the mask is finer than the boxes."""


@dataclass(frozen=True)
class Localised:
    """What the map of one class on one image says about the place of that class's objects."""

    unit: str
    """The image, or what its images belong to: maps of one unit depend on each other."""
    label: str
    """The class."""
    rank: int | None
    """Classes that the model puts before this one, 0 for the predicted class; None where that is not asked."""
    empty: bool
    """Whether nothing in the map speaks for the class."""
    box: Box | None
    """Of the largest segment above 15 % (or another fraction) of the maximum; None in an empty map."""
    iou: float
    """Of that box and the nearest object's; 0 in an empty map."""
    pixel_iou: float | None
    """Of that segment and the mask; None where only boxes are known."""
    distance: float | None
    """From the strongest point to the nearest pixel of an object, between centres; 0 on it, None in an empty map."""
    centre_distance: float
    """The same from the centre of the image."""
    energy: float | None
    """Share of the positive part that lies on the objects; None in an empty map."""
    share: float
    """Share of the seen pixels that are the objects': the energy of a map that is the same everywhere."""
    hits: bytes
    """Whether a box overlaps enough at each of the 255 levels, as `unpack_hits` reads it."""
    overlaps: bytes
    """IoU of the largest contour at each level, as `unpack_overlaps` reads it."""


def truth_of_boxes(boxes: Iterable[Box], height: int, width: int) -> Truth:
    """Objects known by at least one box inside the image."""
    stacked = stack_boxes(boxes)
    mask = np.zeros((height, width), dtype=bool)
    for x0, y0, x1, y1 in stacked.tolist():
        mask[y0:y1, x0:x1] = True
    return _known(Truth(stacked, mask, outlined=False))


def truth_of_mask(mask: Bools) -> Truth:
    """Objects known by their (H, W) pixels; every segment counts as an object of its own."""
    return _known(Truth(stack_boxes(segment.box for segment in find_segments(mask)), mask, outlined=True))


def _known(truth: Truth) -> Truth:
    if not truth.mask.any():
        raise ValueError("there is no object; leave the image out")
    return truth


def localise(
    heat: NDArray[np.floating], seen: Bools, truth: Truth, *, peak: tuple[int, int] | None, unit: str, label: str = "",
    rank: int | None = None, fraction: float = ILSVRC_FRACTION,
) -> Localised:  # fmt: skip
    """Hold one map against the truth.

    Box: Selvaraju et al., "Grad-CAM", ICCV 2017, https://arxiv.org/abs/1610.02391, section 4.1 (15 % of the maximum,
    largest segment). Strongest point: Zhang et al., "Top-down neural attention by excitation backprop", IJCV 2018, the
    pointing game. Energy: Wang et al., "Score-CAM", CVPR workshops 2020, section 4.3. Levels: `levels`.

    Args:
        heat: (H, W) signed, finite, on the original's pixels.
        seen: (H, W), which pixels the model saw.
        truth: Of the explained class.
        peak: (x, y) of the strongest point; None for an empty map.
        unit: The image, or what its images belong to.
        label: The explained class.
        rank: Classes that the model puts before it.
        fraction: Of the maximum, above which the box is drawn.
    """
    positive = np.where(seen, np.maximum(heat, 0), 0).astype(np.float64)
    total = float(positive.sum())
    found = largest_segment(binarise(positive, fraction))
    box = None if found is None else found[1].box
    height, width = heat.shape
    largest, every = _level_overlaps(positive, seen, truth.boxes)
    hits = np.stack([largest >= V1_OVERLAP, *(every >= overlap for overlap in V2_OVERLAPS)])
    return Localised(
        unit=unit,
        label=label,
        rank=rank,
        empty=found is None,
        box=box,
        iou=0.0 if box is None else float(iou(stack_boxes([box]), truth.boxes).max()),
        pixel_iou=_pixel_iou(found[0] if found else np.zeros_like(seen), truth.mask) if truth.outlined else None,
        distance=None if peak is None or found is None else distance_to(truth.mask, *peak),
        centre_distance=distance_to(truth.mask, width // 2, height // 2),
        energy=float(positive[truth.mask].sum()) / total if total > 0 else None,
        share=float((truth.mask & seen).sum() / seen.sum()),
        hits=np.packbits(hits).tobytes(),
        overlaps=largest.astype("<f2").tobytes(),
    )


def distance_to(mask: Bools, x: int, y: int) -> float:
    """From a pixel to the nearest one of a mask, in pixels between their centres; 0 on the mask."""
    if mask[y, x]:
        return 0.0
    ys, xs = np.nonzero(mask)
    return math.sqrt(int(((ys - y) ** 2 + (xs - x) ** 2).min()))


def _pixel_iou(found: Bools, mask: Bools) -> float:
    return float((found & mask).sum() / (found | mask).sum())


def _level_overlaps(positive: Floats, seen: Bools, truths: Boxes) -> tuple[Floats, Floats]:
    """(255,) best IoU with an object at every level: of the largest contour, and of any contour."""
    stride = -(-max(positive.shape) // _LONGEST_SIDE)
    picked = tuple(slice(min(stride // 2, side - 1), side, stride) for side in positive.shape)
    contours = find_contours(scale_steps(positive[picked], seen[picked]))
    largest, every = (_spread(one, stride, positive.shape) for one in (contours.largest, contours.every))
    return _best_overlaps(largest, truths), _best_overlaps(every, truths)


def _spread(found: LevelBoxes, stride: int, shape: tuple[int, ...]) -> LevelBoxes:
    """Boxes of every `stride`-th pixel as boxes of all pixels, each with its share of the pixels left out."""
    height, width = shape
    limits = np.array([width, height, width, height])
    counts = -(-(limits - np.minimum(stride // 2, limits - 1)) // stride)  # picked pixels along each side
    boxes = np.where(found.boxes >= counts, limits, found.boxes * stride)
    return LevelBoxes(found.levels, boxes)


def _best_overlaps(found: LevelBoxes, truths: Boxes) -> Floats:
    """(255,) the best IoU of any box with any object at each level; 0 without boxes."""
    best = np.zeros(LEVELS)
    np.maximum.at(best, found.levels, iou(found.boxes, truths).max(axis=1, initial=0))
    return best


def unpack_overlaps(records: Iterable[Localised]) -> Floats:
    """(N, 255): of the largest contour at every level, to three digits."""
    packed = np.frombuffer(b"".join(record.overlaps for record in records), dtype="<f2")
    return packed.reshape(-1, LEVELS).astype(np.float64)


def unpack_hits(records: Iterable[Localised]) -> Bools:
    """(N, 4, 255): with the largest contour at IoU 0.5, then with any contour at IoU 0.3, 0.5 and 0.7."""
    shape = (1 + len(V2_OVERLAPS), LEVELS)
    packed = np.frombuffer(b"".join(record.hits for record in records), dtype=np.uint8)
    bits = np.unpackbits(packed.reshape(-1, -(-math.prod(shape) // 8)), axis=1, count=math.prod(shape))
    return bits.reshape(-1, *shape).astype(bool)
