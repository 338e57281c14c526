"""Average maps, and the warning of a class that looks at the border or into a corner."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats

from evalcam_cli.data.preprocessing import Geometry, Preprocessing
from evalcam_cli.explain.attention import (
    BORDER,
    EXCESS,
    FALSE_ALARMS,
    GRID,
    REGIONS,
    AttentionAverages,
    ClassAttention,
    Region,
    describe,
    find_region,
    images_needed,
    positive_on_grid,
)

WHOLE = Preprocessing(224, "squash").geometry(640, 480)
TESTS = 4 * len(REGIONS)


def averaged(*maps: NDArray[np.floating], geometry: Geometry = WHOLE) -> ClassAttention:
    averages = AttentionAverages(1)
    for one in maps:
        averages.add(0, one, geometry)
    (found,) = averages.summarise()
    return found


def spread(region_name: str, share: float) -> NDArray[np.float64]:
    """An average with this share evenly in the region and the rest evenly elsewhere."""
    region = next(region for region in REGIONS if region.name == region_name)
    inside = region.mask
    return np.asarray(np.where(inside, share / inside.sum(), (1 - share) / (~inside).sum()))


def test_the_grid_is_bilinear_interpolation_of_the_map() -> None:
    class_map = np.random.default_rng(0).random((7, 5))
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(class_map)[None, None], (GRID, GRID), mode="bilinear", align_corners=False
    )

    np.testing.assert_allclose(positive_on_grid(class_map, WHOLE), expected[0, 0].numpy(), atol=1e-12)


def test_a_map_finer_than_the_grid_is_averaged() -> None:
    class_map = np.random.default_rng(0).random((224, 224))
    expected = class_map.reshape(GRID, 7, GRID, 7).mean(axis=(1, 3))

    np.testing.assert_allclose(positive_on_grid(class_map, WHOLE), expected, atol=1e-12)


def test_an_even_map_has_the_shares_of_the_areas_and_never_a_warning() -> None:
    attention = averaged(np.full((7, 7), 3.0))

    assert [attention.share(region) for region in REGIONS] == pytest.approx([region.area for region in REGIONS])
    assert attention.average is not None
    assert find_region(attention.average, 1_000_000, TESTS) is None


def test_the_border_is_its_four_edges() -> None:
    edges = np.any([region.mask for region in REGIONS[4:8]], axis=0)

    np.testing.assert_array_equal(BORDER.mask, edges)
    assert BORDER.area == 1 - 0.75**2
    assert {region.area for region in REGIONS[:4]} == {1 / 16}


def test_every_image_counts_the_same_whatever_the_scale_of_its_map() -> None:
    left, right = np.zeros((2, 7, 7))
    left[3, 0], right[3, 6] = 1, 1

    attention = averaged(left, 1000 * right)

    assert attention.average is not None
    np.testing.assert_allclose(attention.average, attention.average[:, ::-1])
    assert attention.average.sum() == pytest.approx(1)


def test_what_speaks_against_the_class_is_left_out_and_an_empty_map_counted() -> None:
    signed = np.zeros((7, 7))
    signed[0, 0], signed[6, 6] = 1, -5

    attention = averaged(signed, -np.ones((7, 7)))

    assert (attention.images, attention.empty) == (1, 1)
    assert attention.share(REGIONS[0]) == pytest.approx(1)


def test_a_class_with_empty_maps_alone_has_no_average() -> None:
    attention = averaged(np.zeros((7, 7)))

    assert attention.average is None
    assert attention.share(BORDER) is None
    assert attention.finding is None
    assert attention.undecided


def test_mass_on_the_padding_is_not_on_the_image() -> None:
    padded = Preprocessing(224, "pad").geometry(200, 100)  # rows 56 to 168 of the input
    above = np.zeros((8, 8))
    above[0] = 1

    assert averaged(above, geometry=padded).empty == 1


def test_a_crop_is_looked_at_in_the_part_that_the_model_saw() -> None:
    corner = np.zeros((7, 7))
    corner[0, 0] = 1

    attention = averaged(corner, geometry=Preprocessing(224, "crop").geometry(400, 200))

    assert attention.share(REGIONS[0]) == pytest.approx(1)


@pytest.mark.parametrize("region", REGIONS, ids=lambda region: str(region.name))
def test_a_region_is_found_from_the_number_of_images_on_that_the_rule_needs(region: Region) -> None:
    needed = int(images_needed(0.9, region.area, TESTS))

    found, too_few = (find_region(spread(region.name, 0.9), images, TESTS) for images in (needed, needed - 1))

    assert found is not None
    assert found.region == region
    assert found.share == pytest.approx(0.9)
    assert too_few is None


def test_a_small_excess_is_no_finding_however_many_images_there_are() -> None:
    corner = 1 / 16 + EXCESS * 15 / 16

    assert find_region(spread("top-left corner", corner - 0.01), 10**6, TESTS) is None
    assert find_region(spread("top-left corner", corner + 0.01), 10**6, TESTS) is not None


def test_the_numbers_of_images_in_the_docstring() -> None:
    corner = [images_needed(share, 1 / 16, TESTS) for share in (1, 0.8, 0.5, 0.3)]
    border = [images_needed(share, BORDER.area, TESTS) for share in (1, 0.8)]

    assert corner == [3, 5, 12, 31]
    assert border == [10, 30]
    assert images_needed(0.05, 1 / 16, TESTS) == np.inf


@pytest.mark.parametrize("share", [0.3, 0.5, 0.8, 1.0])
@pytest.mark.parametrize("images", [5, 20, 100])
def test_the_chance_is_never_below_that_of_coins(share: float, images: int) -> None:
    """Maps that lie wholly inside a region or wholly outside are the worst case of a given mean share."""
    average = spread("top-left corner", share)
    found = find_region(average, images, 1)
    successes = np.ceil(share * images - 1e-9)

    exact = stats.binom.sf(successes - 1, images, 1 / 16)

    assert found is None or exact * (1 - 1e-9) <= found.chance <= FALSE_ALARMS


def test_attention_at_random_places_raises_no_alarm_and_a_marker_does() -> None:
    generator = np.random.default_rng(0)
    reports = 60
    alarms = found = 0
    for _ in range(reports):
        averages = AttentionAverages(2)
        for image in range(24):
            random_place = np.zeros((7, 7))
            random_place[tuple(generator.integers(0, 7, 2))] = 1
            averages.add(0, random_place, WHOLE)
            marked = np.zeros((7, 7))
            marked[(6, 0) if image % 4 else tuple(generator.integers(1, 6, 2))] = 1  # the marker in three of four
            averages.add(1, marked, WHOLE)
        random, shortcut = averages.summarise()
        alarms += random.finding is not None
        found += shortcut.finding is not None and shortcut.finding.region.name == "bottom-left corner"

    assert alarms == 0
    assert found == reports


def test_averages_continue_from_what_was_saved() -> None:
    maps = np.random.default_rng(0).standard_normal((6, 7, 7))
    whole, first = AttentionAverages(3), AttentionAverages(3)
    for number, one in enumerate(maps):
        whole.add(number % 2, one, WHOLE)
        if number < 3:
            first.add(number % 2, one, WHOLE)

    continued = AttentionAverages.from_arrays(first.to_arrays())
    for number, one in enumerate(maps[3:], start=3):
        continued.add(number % 2, one, WHOLE)

    for name, values in whole.to_arrays().items():
        np.testing.assert_array_equal(values, continued.to_arrays()[name])
    assert [attention.class_index for attention in continued.summarise()] == [0, 1]


def test_the_warning_says_where_how_much_and_over_how_many() -> None:
    corner = np.zeros((7, 7))
    corner[0, 6] = 1
    few, many = averaged(*[corner] * 2), averaged(*[corner] * 8)

    assert describe(few, "a") is None
    assert few.undecided
    warning = describe(many, "a\n")
    assert warning is not None
    assert r"attention of a\n sits at the top-right corner: 100% of it, over 8 images" in warning
    assert "6% of the area" in warning
