"""Are the boxes those of the published protocol? 1,000 random maps, 1,000 thresholds each, against OpenCV's contours.

    python -m tests.benchmarks.boxes [--maps 1000] [--size 224]

The maps are smoothed noise and enlarged random cells, signed or without their negative part; each has one to three
objects near contours of its own. Prints how many boxes differ, the largest difference of an IoU, MaxBoxAcc and V2 by
both, and the time. The last rows repeat the convention of the published code, which takes ends as inclusive although
they are exclusive: boxes are a pixel larger there, except at the right and the lower border.
"""

import argparse
import time
from collections.abc import Iterator, Sequence

import numpy as np
import scipy.ndimage
from numpy.typing import NDArray

from evalcam_cli.data.preprocessing import Preprocessing
from evalcam_cli.explain.boxes import Boxes, iou, stack_boxes
from evalcam_cli.explain.levels import Contours, LevelBoxes, find_contours, level_of, scale_steps
from evalcam_cli.report.enlarging import enlarge
from tests.explain.contour_oracle import Box, boxes_by_threshold, grey_steps, opencv_contours, overlap

Floats = NDArray[np.float64]
THRESHOLDS = np.arange(0, 1, 0.001)
OVERLAPS = (0.3, 0.5, 0.7)
Best = tuple[Floats, Floats]
"""(1000,) best IoU of the largest contour and of any, by threshold."""


def random_maps(count: int, size: int, seed: int = 0) -> Iterator[tuple[Floats, list[Box]]]:
    """(S, S) maps and the objects of each."""
    rng = np.random.default_rng(seed)
    geometry = Preprocessing(size, "squash").geometry(size, size)
    for index in range(count):
        if index % 2:
            cells = int(rng.choice([7, 14]))
            heat = enlarge(rng.standard_normal((cells, cells)).astype(np.float32), geometry)[0].astype(np.float64)
        else:
            heat = scipy.ndimage.gaussian_filter(rng.standard_normal((size, size)), rng.uniform(4, size / 6))
        heat = np.maximum(heat, 0) if index % 4 > 1 else heat
        yield heat, [_near(box, size, rng) for box in _some_boxes(heat, rng)]


def _some_boxes(heat: Floats, rng: np.random.Generator) -> list[Box]:
    """One to three contours at a threshold that is often a good one."""
    contours = opencv_contours(grey_steps(heat) > int(255 * rng.uniform(0.1, 0.7)))
    return [box for _, box in sorted(contours, reverse=True)[: int(rng.integers(1, 4))]]


def _near(box: Box, size: int, rng: np.random.Generator) -> Box:
    """The box with its sides moved by up to a sixth of the image."""
    x0, y0, x1, y1 = (
        int(corner) for corner in np.clip(np.array(box) + rng.integers(-size // 6, size // 6, 4), 0, size)
    )
    x0, y0 = min(x0, size - 10), min(y0, size - 10)
    return x0, y0, max(x1, x0 + 10), max(y1, y0 + 10)


def best_overlaps(found: Contours, truths: Boxes) -> Best:
    """By the package, for every threshold."""
    return _by_threshold(found.largest, truths), _by_threshold(found.every, truths)


def _by_threshold(found: LevelBoxes, truths: Boxes) -> Floats:
    best = np.zeros(255)
    np.maximum.at(best, found.levels, iou(found.boxes, truths).max(axis=1, initial=0))
    return best[[level_of(threshold) for threshold in THRESHOLDS]]


def inclusive(boxes: Boxes, size: int) -> Boxes:
    """As the published code counts them: x1 and y1 cut to the last pixel and taken as part of the box."""
    return np.concatenate([boxes[:, :2], np.minimum(boxes[:, 2:], size - 1) + 1], axis=1)


def published(found: Contours, size: int) -> Contours:
    parts = (LevelBoxes(one.levels, inclusive(one.boxes, size)) for one in (found.largest, found.every))
    return Contours(*parts)


def plain_overlaps(boxes: Sequence[tuple[list[Box], list[Box]]], truths: list[Box]) -> Best:
    """By counting, box by box."""
    rows = [[max((overlap(b, t) for b in part for t in truths), default=0.0) for part in parts] for parts in boxes]
    largest, every = np.array(rows).T
    return largest, every


def plain_inclusive(boxes: list[Box], size: int, cut: bool) -> list[Box]:
    if not cut:
        return [(x0, y0, x1 + 1, y1 + 1) for x0, y0, x1, y1 in boxes]
    return [(x0, y0, min(x1, size - 1) + 1, min(y1, size - 1) + 1) for x0, y0, x1, y1 in boxes]


def differing(found: Contours, expected: Sequence[tuple[list[Box], list[Box]]]) -> int:
    """At how many thresholds the boxes are not the same integers."""
    by_level = [
        (sorted(map(tuple, found.largest.boxes[found.largest.levels == level].tolist())),
         sorted(map(tuple, found.every.boxes[found.every.levels == level].tolist())))
        for level in range(255)
    ]  # fmt: skip
    return sum(
        by_level[level_of(threshold)] != (largest, sorted(every))
        for threshold, (largest, every) in zip(THRESHOLDS, expected, strict=True)
    )


def max_box_acc(best: Sequence[Best]) -> tuple[float, float]:
    """MaxBoxAcc and V2 in percent, each overlap at one threshold for all maps."""
    largest, every = (np.stack(part) for part in zip(*best, strict=True))
    v2 = [(every >= wanted).mean(axis=0).max() for wanted in OVERLAPS]
    return 100 * float((largest >= 0.5).mean(axis=0).max()), 100 * float(np.mean(v2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--maps", type=int, default=1000)
    parser.add_argument("--size", type=int, default=224)
    options = parser.parse_args()
    wrong, worst, ours_seconds, peer_seconds = 0, 0.0, 0.0, 0.0
    results: dict[str, list[Best]] = {"evalcam": [], "OpenCV": [], "evalcam, inclusive": [], "OpenCV, inclusive": []}
    for heat, truths in random_maps(options.maps, options.size):
        started = time.process_time()
        found = find_contours(scale_steps(heat))
        ours_seconds += time.process_time() - started
        started = time.process_time()
        expected = boxes_by_threshold(heat, THRESHOLDS, opencv_contours)
        peer_seconds += time.process_time() - started
        wrong += differing(found, expected)
        wider = [tuple(plain_inclusive(part, options.size, cut=True) for part in parts) for parts in expected]
        results["evalcam"].append(best_overlaps(found, stack_boxes(truths)))
        results["OpenCV"].append(plain_overlaps(expected, truths))
        larger_truths = stack_boxes(truths) + np.array([0, 0, 1, 1])
        results["evalcam, inclusive"].append(best_overlaps(published(found, options.size), larger_truths))
        results["OpenCV, inclusive"].append(
            plain_overlaps([(one, all_) for one, all_ in wider], plain_inclusive(truths, options.size, cut=False))
        )
        for name in ("", ", inclusive"):
            pairs = zip(results[f"evalcam{name}"][-1], results[f"OpenCV{name}"][-1], strict=True)
            worst = max(worst, *(float(np.abs(one - other).max()) for one, other in pairs))
    print(f"{options.maps:,} maps of {options.size} x {options.size} pixels, {len(THRESHOLDS):,} thresholds each")
    print(f"thresholds at which a box differs: {wrong:,} of {options.maps * len(THRESHOLDS):,}")
    print(f"largest difference of an IoU:      {worst:.2g}")
    print(f"{'':22}  MaxBoxAcc  MaxBoxAccV2")
    for name, best in results.items():
        print(f"{name:22}  {max_box_acc(best)[0]:9.4f}  {max_box_acc(best)[1]:11.4f}")
    print(f"CPU time per map: {1000 * ours_seconds / options.maps:.1f} ms; "
          f"OpenCV, threshold by threshold: {1000 * peer_seconds / options.maps:.1f} ms")  # fmt: skip


if __name__ == "__main__":
    main()
