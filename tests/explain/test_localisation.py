import math

import numpy as np
import pytest
import scipy.ndimage
from numpy.typing import NDArray

from evalcam_cli.explain.levels import level_of
from evalcam_cli.explain.localisation import (
    Localised,
    distance_to,
    localise,
    truth_of_boxes,
    truth_of_mask,
    unpack_hits,
    unpack_overlaps,
)
from tests.explain.contour_oracle import boxes_by_threshold, overlap, walked_contours


def hot(height: int, width: int, box: tuple[int, int, int, int], value: float = 1.0) -> NDArray[np.float64]:
    x0, y0, x1, y1 = box
    heat = np.zeros((height, width))
    heat[y0:y1, x0:x1] = value
    return heat


def judged(
    heat: NDArray[np.float64], box: tuple[int, int, int, int], peak: tuple[int, int] | None = (0, 0)
) -> Localised:
    seen = np.ones(heat.shape, dtype=bool)
    return localise(heat, seen, truth_of_boxes([box], *heat.shape), peak=peak, unit="a.png")


def test_a_map_that_is_its_object_is_right_in_every_way() -> None:
    box = (5, 3, 15, 12)

    found = judged(hot(20, 30, box), box, peak=(7, 7))

    assert (found.box, found.iou, found.distance, found.energy, found.empty) == (box, 1, 0, 1, False)
    assert found.share == 90 / 600
    assert unpack_hits([found]).all()


def test_a_map_beside_its_object_is_wrong_in_every_way() -> None:
    found = judged(hot(20, 30, (0, 0, 4, 4)), (10, 3, 15, 12), peak=(2, 2))

    assert (found.iou, found.distance, found.energy) == (0, math.hypot(8, 1), 0)
    assert not unpack_hits([found]).any()


def test_an_empty_map_finds_nothing_and_has_no_energy() -> None:
    found = judged(np.full((9, 9), -1.0), (2, 2, 5, 5), peak=None)

    assert (found.empty, found.box, found.iou, found.distance, found.energy) == (True, None, 0, None, None)
    assert not unpack_hits([found]).any()


def test_what_speaks_against_the_class_does_not_count() -> None:
    box = (5, 3, 15, 12)
    heat = hot(20, 30, box)
    against = np.where(heat > 0, heat, -7.0)

    assert judged(against, box) == judged(heat, box)


def test_the_best_of_several_objects_counts_and_their_energy_is_counted_once() -> None:
    heat = hot(20, 40, (0, 0, 10, 10)) + hot(20, 40, (30, 0, 34, 10))
    truth = truth_of_boxes([(0, 0, 10, 12), (0, 0, 10, 10), (20, 0, 32, 10)], 20, 40)

    found = localise(heat, np.ones((20, 40), dtype=bool), truth, peak=(2, 2), unit="a.png")

    assert found.iou == 1
    assert found.energy == pytest.approx(120 / 140)


def test_what_the_model_did_not_see_has_no_part_in_energy_or_share() -> None:
    heat = hot(10, 20, (0, 0, 10, 10)) + hot(10, 20, (15, 0, 20, 10))
    seen = np.zeros((10, 20), dtype=bool)
    seen[:, :10] = True

    found = localise(heat, seen, truth_of_boxes([(0, 0, 5, 10), (15, 0, 20, 10)], 10, 20), peak=(0, 0), unit="a.png")

    assert (found.energy, found.share, found.box) == (0.5, 0.5, (0, 0, 10, 10))


def test_a_mask_gives_boxes_of_its_segments_and_is_compared_pixel_by_pixel() -> None:
    mask = np.zeros((20, 40), dtype=bool)
    mask[2:8, 2:8] = mask[5:15, 20:30] = True
    mask[5, 20] = False
    heat = hot(20, 40, (20, 5, 30, 15))

    found = localise(heat, np.ones_like(mask), truth_of_mask(mask), peak=(25, 9), unit="a.png")

    assert found.iou == 1
    assert found.pixel_iou == pytest.approx(99 / (100 + 36))
    assert found.energy == pytest.approx(0.99)


def test_boxes_alone_say_nothing_about_single_pixels() -> None:
    assert judged(hot(9, 9, (2, 2, 5, 5)), (2, 2, 5, 5)).pixel_iou is None


def test_a_higher_fraction_draws_a_smaller_box() -> None:
    heat = hot(20, 30, (5, 3, 15, 12), 0.4) + hot(20, 30, (6, 4, 9, 8), 0.6)
    truth = truth_of_boxes([(6, 4, 9, 8)], 20, 30)

    found = localise(heat, np.ones((20, 30), dtype=bool), truth, peak=(7, 5), unit="a.png", fraction=0.5)

    assert (found.box, found.iou) == ((6, 4, 9, 8), 1)


def test_a_truth_without_an_object_is_refused() -> None:
    with pytest.raises(ValueError, match="no object"):
        truth_of_mask(np.zeros((3, 3), dtype=bool))
    with pytest.raises(ValueError, match="no object"):
        truth_of_boxes([], 3, 3)


def test_the_distance_is_between_centres_of_pixels() -> None:
    mask = np.zeros((50, 60), dtype=bool)
    mask[10:20, 30:40] = True

    assert distance_to(mask, 33, 12) == distance_to(mask, 39, 19) == 0
    assert distance_to(mask, 40, 15) == 1
    assert distance_to(mask, 27, 6) == 5


@pytest.mark.parametrize("seed", range(6))
def test_hits_at_every_threshold_equal_the_published_protocol(seed: int) -> None:
    rng = np.random.default_rng(seed)
    heat = scipy.ndimage.gaussian_filter(rng.standard_normal((33, 40)), 3)
    positive = np.maximum(heat, 0)
    truths = [(4, 4, 20, 22), (18, 10, 36, 30)]
    thresholds = np.arange(0, 1, 0.025)

    found = localise(heat, np.ones(heat.shape, dtype=bool), truth_of_boxes(truths, 33, 40), peak=(0, 0), unit="a.png")

    (hits,) = unpack_hits([found])
    expected = boxes_by_threshold(positive, thresholds, walked_contours)
    for threshold, (largest, every) in zip(thresholds, expected, strict=True):
        best = [
            max((overlap(box, truth) for box in boxes for truth in truths), default=0) for boxes in (largest, every)
        ]
        wanted = [best[0] >= 0.5, best[1] >= 0.3, best[1] >= 0.5, best[1] >= 0.7]
        assert hits[:, level_of(threshold)].tolist() == wanted
        assert unpack_overlaps([found])[0, level_of(threshold)] == pytest.approx(best[0], abs=1e-3)


@pytest.mark.parametrize(("height", "width"), [(900, 1400), (1300, 257), (20, 2000), (3, 1025)])
def test_large_maps_are_thinned_for_the_levels_without_moving_the_boxes(height: int, width: int) -> None:
    box = (width // 4, 0, width, height)  # to the end of the image
    heat = hot(height, width, box)

    found = judged(heat, box)

    assert unpack_hits([found])[0, 3].all()  # IoU of at least 0.7 at all levels
    assert len(found.hits) == 128
