import numpy as np
import pytest
import scipy.ndimage
from numpy.typing import NDArray

from evalcam_cli.explain.levels import Contours, LevelBoxes, find_contours, level_of, scale_steps
from tests.explain.contour_oracle import Box, boxes_by_threshold, opencv_contours, walked_contours

THRESHOLDS = np.arange(0, 1, 0.001)


def at_level(found: LevelBoxes, level: int) -> list[Box]:
    return sorted(map(tuple, found.boxes[found.levels == level].tolist()))


def smooth_map(seed: int, height: int, width: int, sigma: float) -> NDArray[np.float64]:
    noise = np.random.default_rng(seed).standard_normal((height, width))
    return np.asarray(scipy.ndimage.gaussian_filter(noise, sigma))


def coarse_map(seed: int) -> NDArray[np.float64]:
    """Small, of few values: plateaus, ties, holes, components in holes."""
    rng = np.random.default_rng(seed)
    height, width, values = rng.integers(1, 15), rng.integers(1, 15), rng.integers(2, 8)
    return rng.integers(0, values, (height, width)).astype(np.float64)


def contours(heat: NDArray[np.float64]) -> Contours:
    return find_contours(scale_steps(heat))


def assert_equal_at_all_thresholds(
    heat: NDArray[np.float64], expected: list[tuple[list[Box], list[Box]]], thresholds: NDArray[np.float64]
) -> None:
    found = contours(heat)
    for threshold, (largest, every) in zip(thresholds, expected, strict=True):
        level = level_of(threshold)
        assert at_level(found.largest, level) == largest
        assert at_level(found.every, level) == sorted(every)


@pytest.mark.parametrize("seed", range(120))
def test_boxes_of_coarse_maps_equal_those_of_a_flood_fill_and_a_walk_along_the_border(seed: int) -> None:
    heat = coarse_map(seed)
    thresholds = THRESHOLDS[::40]

    expected = boxes_by_threshold(heat, thresholds, walked_contours)

    assert_equal_at_all_thresholds(heat, expected, thresholds)


@pytest.mark.parametrize("seed", range(12))
def test_boxes_of_smooth_maps_equal_those_of_a_flood_fill_and_a_walk_along_the_border(seed: int) -> None:
    heat = smooth_map(seed, 30, 41, sigma=1 + seed % 4)
    thresholds = THRESHOLDS[::50]

    expected = boxes_by_threshold(heat, thresholds, walked_contours)

    assert_equal_at_all_thresholds(heat, expected, thresholds)


@pytest.mark.parametrize("sigma", [4, 10, 30])
def test_boxes_of_large_smooth_maps_equal_those_of_opencv_at_a_thousand_thresholds(sigma: float) -> None:
    pytest.importorskip("cv2")
    heat = smooth_map(int(sigma), 224, 224, sigma)

    expected = boxes_by_threshold(heat, THRESHOLDS, opencv_contours)

    assert_equal_at_all_thresholds(heat, expected, THRESHOLDS)


def test_boxes_of_many_coarse_maps_equal_those_of_opencv() -> None:
    pytest.importorskip("cv2")
    thresholds = THRESHOLDS[::40]
    for seed in range(1000, 1150):
        heat = coarse_map(seed)

        expected = boxes_by_threshold(heat, thresholds, opencv_contours)

        assert_equal_at_all_thresholds(heat, expected, thresholds)


def test_a_thousand_thresholds_are_255_levels() -> None:
    assert {level_of(threshold) for threshold in THRESHOLDS} == set(range(255))


def test_the_largest_contour_is_the_one_that_encloses_most_even_if_it_is_a_thin_ring() -> None:
    heat = np.zeros((20, 40))
    heat[2:15, 2:15] = 1
    heat[3:14, 3:14] = 0  # a ring of 48 pixels, enclosing 144
    heat[2:12, 20:30] = 1  # a block of 100 pixels, enclosing 81

    found = contours(heat)

    assert at_level(found.largest, 0) == [(2, 2, 15, 15)]
    assert at_level(found.every, 0) == [(2, 2, 15, 15), (2, 2, 15, 15), (20, 2, 30, 12)]  # the ring has two rims


def test_of_equally_large_contours_the_last_in_reading_order_is_taken() -> None:
    heat = np.zeros((12, 12))
    heat[1:4, 1:4] = heat[1:4, 8:11] = heat[7:10, 4:7] = 1

    assert at_level(contours(heat).largest, 100) == [(4, 7, 7, 10)]


def test_pixels_that_touch_at_a_corner_belong_together_and_close_a_hole() -> None:
    heat = np.zeros((7, 7))
    for y, x in ((1, 3), (2, 2), (2, 4), (3, 1), (3, 5), (4, 2), (4, 4), (5, 3)):
        heat[y, x] = 1

    assert at_level(contours(heat).every, 50) == [(1, 1, 6, 6), (1, 1, 6, 6)]


def test_a_hill_is_two_boxes_above_its_pass_and_one_below() -> None:
    heat = np.array([[0, 255, 100, 200, 0]], dtype=float)

    found = contours(heat)

    assert at_level(found.every, 99) == [(1, 0, 4, 1)]
    assert at_level(found.every, 100) == [(1, 0, 2, 1), (3, 0, 4, 1)]
    assert at_level(found.every, 200) == [(1, 0, 2, 1)]


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (8, 8)])
def test_a_map_that_is_the_same_everywhere_has_no_boxes(shape: tuple[int, int]) -> None:
    found = contours(np.full(shape, 0.3))

    assert len(found.largest.boxes) == len(found.every.boxes) == 0


def test_pixels_that_the_model_did_not_see_are_never_hot_and_do_not_set_the_scale() -> None:
    heat = np.array([[9, 1, 2, 3, 99]], dtype=np.float32)
    seen = np.array([[False, True, True, True, False]])

    assert scale_steps(heat, seen).tolist() == [[0, 0, 127, 255, 0]]


def test_turning_the_map_turns_the_boxes() -> None:
    heat = smooth_map(3, 40, 60, sigma=3)
    turned = contours(heat[::-1, ::-1])

    found = contours(heat)

    for level in range(255):
        mirrored = sorted((60 - x1, 40 - y1, 60 - x0, 40 - y0) for x0, y0, x1, y1 in at_level(turned.every, level))
        assert at_level(found.every, level) == mirrored
