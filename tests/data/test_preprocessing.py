"""One way from an image to the model's input square, and back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from evalcam_cli.data.preprocessing import Preprocessing

sizes = st.integers(1, 2000)
policies = st.sampled_from(["pad", "crop", "squash"])


@given(width=sizes, height=sizes, policy=policies, x=st.floats(0, 1), y=st.floats(0, 1))
def test_a_point_goes_to_the_input_and_back(width: int, height: int, policy: str, x: float, y: float) -> None:
    geometry = Preprocessing(128, policy).geometry(width, height)

    there_and_back = geometry.to_original(*geometry.to_input(x * width, y * height))

    assert there_and_back == pytest.approx((x * width, y * height), abs=1e-6 * max(width, height))


@given(width=sizes, height=sizes)
def test_padding_keeps_all_of_the_image_and_cropping_fills_all_of_the_square(width: int, height: int) -> None:
    pad, crop = (Preprocessing(128, policy).geometry(width, height) for policy in ("pad", "crop"))

    assert min(*pad.to_input(0, 0)) >= 0
    assert max(*pad.to_input(width, height)) <= 128 + 1e-9
    assert max(*crop.to_input(0, 0)) <= 1e-9
    assert min(*crop.to_input(width, height)) >= 128 - 1e-9


@pytest.mark.parametrize("policy", ["pad", "crop", "squash"])
@pytest.mark.parametrize("size", [(320, 120), (121, 300), (64, 64), (50, 31)])
def test_a_bright_spot_is_found_where_the_geometry_says(policy: str, size: tuple[int, int]) -> None:
    """The pixels and the geometry are two computations of the same thing."""
    width, height = size
    spot = width // 2 + 3, height // 2 - 4
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[spot[1] - 2 : spot[1] + 3, spot[0] - 2 : spot[0] + 3] = 255
    preprocessing = Preprocessing(96, policy, mean=(0, 0, 0))

    square = preprocessing.apply(Image.fromarray(pixels))[..., 0].astype(float)

    rows, columns = np.mgrid[0:96, 0:96] + 0.5
    centre = (square * columns).sum() / square.sum(), (square * rows).sum() / square.sum()
    expected = preprocessing.geometry(width, height).to_input(spot[0] + 0.5, spot[1] + 0.5)
    assert centre == pytest.approx(expected, abs=0.35)


def test_padding_has_the_mean_colour() -> None:
    square = Preprocessing(64, "pad").apply(Image.new("RGB", (64, 16), (255, 0, 0)))

    assert tuple(square[0, 0]) == (124, 116, 104)
    assert tuple(square[32, 32]) == (255, 0, 0)


@pytest.mark.parametrize("size", [(1, 1), (1, 100), (3000, 30)])
@pytest.mark.parametrize("policy", ["pad", "crop", "squash"])
def test_extreme_sizes_give_a_full_square(size: tuple[int, int], policy: str) -> None:
    preprocessing = Preprocessing(64, policy)

    square = preprocessing.apply(Image.new("RGB", size, (10, 20, 30)))

    assert square.shape == (64, 64, 3)
    x, y = (min(63, int(place)) for place in preprocessing.geometry(*size).to_input(size[0] / 2, size[1] / 2))
    assert tuple(square[y, x]) == (10, 20, 30)
