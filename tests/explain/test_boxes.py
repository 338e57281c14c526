from itertools import pairwise

import numpy as np
import pytest

from evalcam_cli.explain.boxes import binarise, find_segments, iou, label_segments, largest_segment, stack_boxes
from tests.explain.contour_oracle import overlap


def test_pixels_above_15_percent_of_the_maximum_are_kept() -> None:
    heat = np.array([[-5.0, 0.0, 1.5, 1.6, 10.0]])

    assert binarise(heat).tolist() == [[False, False, False, True, True]]


@pytest.mark.parametrize("heat", [[[0.0, 0.0]], [[-1.0, -2.0]]])
def test_a_map_without_anything_positive_has_no_box(heat: list[list[float]]) -> None:
    mask = binarise(np.array(heat))

    assert not mask.any()
    assert largest_segment(mask) is None
    assert find_segments(mask) == ()


def test_what_the_model_did_not_see_is_neither_hot_nor_the_maximum() -> None:
    heat = np.array([[100.0, 1.0, 0.1]])

    assert binarise(heat, 0.5, np.array([[False, True, True]])).tolist() == [[False, True, False]]


def test_the_scale_of_a_map_does_not_change_its_mask() -> None:
    heat = np.random.default_rng(0).standard_normal((30, 40)).astype(np.float32)

    for factor in (2.0**-20, 2.0**20):
        np.testing.assert_array_equal(binarise(heat * np.float32(factor)), binarise(heat))


def test_a_higher_fraction_keeps_less() -> None:
    heat = np.random.default_rng(0).standard_normal((30, 40))

    masks = [binarise(heat, fraction) for fraction in (0, 0.2, 0.5, 0.99)]

    for wider, narrower in pairwise(masks):
        assert (wider | ~narrower).all()
    assert (masks[0] == (heat > 0)).all()


@pytest.mark.parametrize("fraction", [-0.1, 1.0, float("nan")])
def test_a_fraction_that_keeps_nothing_or_everything_is_refused(fraction: float) -> None:
    with pytest.raises(ValueError, match="fraction"):
        binarise(np.ones((2, 2)), fraction)


def test_segments_touch_at_corners_and_come_largest_first() -> None:
    rows = ["#.....##", ".#....##", "......##", "#......."]
    mask = np.array([[cell == "#" for cell in row] for row in rows])

    segments = find_segments(mask)

    assert [segment.box for segment in segments] == [(6, 0, 8, 3), (0, 0, 2, 2), (0, 3, 1, 4)]
    assert [segment.pixels for segment in segments] == [6, 2, 1]


def test_every_pixel_of_the_mask_belongs_to_the_one_segment_whose_number_it_bears() -> None:
    mask = np.random.default_rng(1).random((40, 50)) < 0.3

    labels, segments = label_segments(mask)

    assert ((labels > 0) == mask).all()
    for segment in segments:
        ys, xs = np.nonzero(labels == segment.number)
        assert segment.box == (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
        assert segment.pixels == len(xs)


def test_the_largest_segment_comes_without_the_others() -> None:
    mask = np.zeros((5, 9), dtype=bool)
    mask[0, 0] = mask[2:4, 5:8] = True

    found = largest_segment(mask)

    assert found is not None
    assert found[1].box == (5, 2, 8, 4)
    assert found[0].sum() == 6
    assert not found[0][0, 0]


def test_iou_of_boxes_by_hand() -> None:
    boxes = stack_boxes([(0, 0, 10, 10), (5, 5, 15, 15), (10, 0, 20, 10), (3, 3, 3, 9)])

    found = iou(boxes, boxes[:1])

    np.testing.assert_array_equal(found[:, 0], [1, 25 / 175, 0, 0])  # touching is no overlap, nor is an empty box


def test_iou_equals_the_count_of_pixels() -> None:
    rng = np.random.default_rng(2)
    corners = np.sort(rng.integers(0, 30, (60, 2, 2)), axis=2) + np.array([0, 1])
    boxes = [(int(x[0]), int(y[0]), int(x[1]), int(y[1])) for x, y in corners]

    found = iou(stack_boxes(boxes[:30]), stack_boxes(boxes[30:]))

    for row, one in zip(found, boxes[:30], strict=True):
        np.testing.assert_allclose(row, [overlap(one, other) for other in boxes[30:]], atol=1e-12)


def test_no_boxes_stack_to_none() -> None:
    assert stack_boxes([]).shape == (0, 4)
    assert iou(stack_boxes([]), stack_boxes([(0, 0, 1, 1)])).shape == (0, 1)
