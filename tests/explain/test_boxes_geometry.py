"""From the original to the model's input and back, for 200 random sizes and the three resize policies."""

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from evalcam_cli.data.preprocessing import Geometry, Preprocessing
from evalcam_cli.explain.boxes import Box, find_segments, iou, stack_boxes
from evalcam_cli.report.enlarging import enlarge, peak

POLICIES = ("pad", "crop", "squash")
Case = tuple[Preprocessing, Geometry, np.random.Generator]


def cases(count: int, seed: int) -> list[Case]:
    rng = np.random.default_rng(seed)
    found = []
    for index in range(count):
        width, height = (int(side) for side in rng.integers(100, 2001, 2))
        preprocessing = Preprocessing(int(rng.choice([128, 224, 256])), POLICIES[index % 3])
        found.append((preprocessing, preprocessing.geometry(width, height), rng))
    return found


def visible(geometry: Geometry) -> tuple[float, float, float, float]:
    """The part of the original that the model sees."""
    size = geometry.image_size
    x0, y0 = geometry.to_original(0, 0)
    x1, y1 = geometry.to_original(size, size)
    return max(x0, 0), max(y0, 0), min(x1, geometry.width), min(y1, geometry.height)


def found_box(cells: NDArray[np.float32], geometry: Geometry, largest: float) -> Box:
    heat, seen = enlarge(cells, geometry)
    return find_segments((heat > largest / 2) & seen)[0].box


@pytest.mark.parametrize("grid", [7, 14])
def test_a_peak_planted_in_a_cell_returns_within_that_cell(grid: int) -> None:
    for _, geometry, rng in cases(200, seed=grid):
        left, top, right, bottom = visible(geometry)
        x, y = geometry.to_input(rng.uniform(left, right), rng.uniform(top, bottom))
        column, row = (min(int(place * grid / geometry.image_size), grid - 1) for place in (x, y))
        cells = np.zeros((grid, grid), dtype=np.float32)
        cells[row, column] = 1

        peak_x, peak_y = peak(cells, geometry)

        back = geometry.to_input(peak_x + 0.5, peak_y + 0.5)
        for place, cell in zip(back, (column, row), strict=True):
            assert abs(place * grid / geometry.image_size - (cell + 0.5)) <= 1


@pytest.mark.parametrize("grid", [7, 28])
def test_a_block_of_cells_returns_within_half_a_pixel_of_its_share_of_the_original(grid: int) -> None:
    for _, geometry, rng in cases(200, seed=100 + grid):
        left, top, right, bottom = visible(geometry)
        cell = geometry.image_size / grid
        centre = geometry.to_input((left + right) / 2, (top + bottom) / 2)
        middle = [min(int(place / cell), grid - 1) for place in centre]  # a cell over the image
        column, row = (int(rng.integers(0, max(place, 1))) for place in middle)  # and its neighbours, so that the
        end_column, end_row = (int(rng.integers(min(place + 2, grid), grid + 1)) for place in middle)  # top is flat
        cells = np.zeros((grid, grid), dtype=np.float32)
        cells[row:end_row, column:end_column] = 3
        x0, y0 = geometry.to_original(column * cell, row * cell)
        x1, y1 = geometry.to_original(end_column * cell, end_row * cell)
        expected = max(x0, left), max(y0, top), min(x1, right), min(y1, bottom)

        box = found_box(cells, geometry, 3)

        assert max(abs(one - other) for one, other in zip(box, expected, strict=True)) <= 0.5 + 1e-9
        if min(expected[2] - expected[0], expected[3] - expected[1]) >= 200:  # else half a pixel weighs more
            x0, y0, x1, y1 = (round(corner) for corner in expected)
            assert iou(stack_boxes([box]), stack_boxes([(x0, y0, x1, y1)]))[0, 0] >= 0.99


def test_a_bright_rectangle_of_a_photograph_is_found_where_it_is() -> None:
    overlaps = []
    for preprocessing, geometry, rng in cases(60, seed=5):
        left, top, right, bottom = visible(geometry)
        width, height = (int(side * rng.uniform(0.3, 0.9)) for side in (right - left, bottom - top))
        x0 = int(rng.integers(int(np.ceil(left)), int(right) - width))
        y0 = int(rng.integers(int(np.ceil(top)), int(bottom) - height))
        truth = x0, y0, x0 + width, y0 + height
        pixels = np.zeros((geometry.height, geometry.width, 3), dtype=np.uint8)
        pixels[y0 : y0 + height, x0 : x0 + width] = 255
        brightness = preprocessing.apply(Image.fromarray(pixels))[:, :, 0].astype(np.float32)

        box = found_box(brightness, geometry, 255)

        scales = (geometry.scale_x, geometry.scale_y) * 2
        errors = [abs(one - other) * scale for one, other, scale in zip(box, truth, scales, strict=True)]
        assert max(errors) <= max(1, *scales)  # a pixel of the input, or of the image where that is wider
        overlaps.append(iou(stack_boxes([box]), stack_boxes([truth]))[0, 0])
    assert np.mean(overlaps) >= 0.99
    assert np.quantile(overlaps, 0.05) >= 0.99
