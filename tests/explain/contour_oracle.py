"""The published box protocol, written a second time from its description, threshold by threshold.

Choe et al., "Evaluating weakly supervised object localization methods right", CVPR 2020, section 3.3: scale the map
from its minimum to its maximum, bring it to 0 ... 255, keep what lies above the threshold, draw contours (outer ones
and the rims of holes), take the one of the largest area, or all.
"""

from collections import deque
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

Box = tuple[int, int, int, int]
Contour = tuple[float, Box]
"""Enclosed area, and the box with exclusive ends."""
Mask = NDArray[np.bool_]
_AROUND = ((0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1))  # clockwise on the screen
_SIDES = _AROUND[::2]


def grey_steps(heat: NDArray[np.floating]) -> NDArray[np.uint8]:
    low, high = heat.min(), heat.max()
    scaled = (heat - low) / (high - low) if high > low else np.zeros_like(heat)
    return (scaled * 255).astype(np.uint8)


def boxes_by_threshold(
    heat: NDArray[np.floating], thresholds: NDArray[np.float64], contours_of: Callable[[Mask], list[Contour]]
) -> list[tuple[list[Box], list[Box]]]:
    """For every threshold the box of the largest contour, or none, and the boxes of all contours."""
    grey = grey_steps(heat)
    found = []
    for threshold in thresholds:
        contours = contours_of(grey > int(threshold * grey.max()))
        largest = [max(contours, key=lambda one: one[0])[1]] if contours else []
        found.append((largest, [box for _, box in contours]))
    return found


def opencv_contours(mask: Mask) -> list[Contour]:
    import cv2

    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
    sides = map(cv2.boundingRect, contours)
    return [(cv2.contourArea(one), (x, y, x + w, y + h)) for one, (x, y, w, h) in zip(contours, sides, strict=True)]


def walked_contours(mask: Mask) -> list[Contour]:
    """By flood fill and a walk along the border; the last found comes first, as in OpenCV."""
    components = list(_floods(mask, _AROUND))
    padded = np.pad(mask, 1)
    holes = list(_floods(~padded, _SIDES))[1:]  # the first is the outside
    contours = [(_walked_area(set(one)), _box(one)) for one in reversed(components)]
    for hole in holes:
        rim = {(y + dy, x + dx) for y, x in hole for dy, dx in _SIDES} - set(hole)
        contours.append((0.0, _box([(y - 1, x - 1) for y, x in rim])))  # never larger than what encloses it
    return contours


def _floods(mask: Mask, steps: tuple[tuple[int, int], ...]) -> Iterator[list[tuple[int, int]]]:
    """The pixels (y, x) of every component, in reading order of their first pixels."""
    left = mask.copy()
    for start in zip(*np.nonzero(mask), strict=True):
        if not left[start]:
            continue
        left[start] = False
        queue, pixels = deque([(int(start[0]), int(start[1]))]), []
        while queue:
            y, x = queue.popleft()
            pixels.append((y, x))
            for dy, dx in steps:
                place = y + dy, x + dx
                if 0 <= place[0] < mask.shape[0] and 0 <= place[1] < mask.shape[1] and left[place]:
                    left[place] = False
                    queue.append(place)
        yield pixels


def _walked_area(pixels: set[tuple[int, int]]) -> float:
    """Area of the polygon through the pixels met on a clockwise walk around the outside, by the shoelace formula."""
    start = min(pixels)
    path = [start]
    here, coming = start, 4  # from the left of the first pixel in reading order, where nothing is
    first: tuple[tuple[int, int], int] | None = None
    while True:
        for turn in range(1, 9):
            direction = (coming + turn) % 8
            place = here[0] + _AROUND[direction][0], here[1] + _AROUND[direction][1]
            if place in pixels:
                break
        else:
            return 0.0  # a single pixel
        if (here, direction) == first:
            break
        first = first or (here, direction)
        path.append(place)
        here = place
        coming = (direction + 4) % 8  # back to where it came from, then on clockwise
    ys, xs = np.array(path).T
    return abs(float((xs[:-1] * ys[1:] - xs[1:] * ys[:-1]).sum())) / 2


def _box(pixels: list[tuple[int, int]]) -> Box:
    ys, xs = np.array(pixels).T
    return int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1


def overlap(one: Box, other: Box) -> float:
    """Intersection over union by counting in the plane, ends exclusive."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    both = width * height if width > 0 and height > 0 else 0
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return both / (sum(areas) - both)
