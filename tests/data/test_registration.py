import numpy as np
import pytest
from numpy.typing import NDArray

from evalcam_cli.data.registration import correlation, register


def waves(scale: float, shift_y: float, shift_x: float, side: int = 32) -> NDArray[np.float64]:
    """A smooth picture, sampled where the warp (scale, shifts) puts the cells."""
    grid = (np.arange(side) - (side - 1) / 2) / side
    rng = np.random.default_rng(0)
    y, x = (scale * grid + shift_y)[:, None], scale * grid + shift_x
    total = np.zeros((side, side))
    for _ in range(12):
        u, v = rng.uniform(-4, 4, 2)
        total += rng.normal() * np.cos(2 * np.pi * (u * y + v * x) + rng.uniform(0, 6))
    return total


@pytest.mark.parametrize(("scale", "y", "x"), [(1, 0, 0), (0.95, 0, 0), (0.95, 0.025, -0.025), (1.04, 0.01, 0.02)])
def test_finds_the_warp_that_made_the_second_picture(scale: float, y: float, x: float) -> None:
    first, second = waves(scale, y, x), waves(1, 0, 0)

    found = register(first[None], second[None])

    assert found.similarity[0] > 0.999
    np.testing.assert_allclose(found.warp[0], [scale, y, scale, x], atol=3e-3)


def test_is_never_worse_than_leaving_the_pictures_as_they_lie() -> None:
    rng = np.random.default_rng(1)
    first, second = rng.normal(size=(2, 20, 32, 32))
    second[:10] += first[:10]
    inner = np.s_[:, 1:-1, 1:-1]

    found = register(first, second)

    assert (found.similarity >= correlation(first[inner], second[inner]) - 1e-5).all()


def test_gain_and_offset_do_not_matter() -> None:
    first, second = waves(0.97, 0, 0), waves(1, 0, 0)

    plain = register(first[None], second[None])
    lit = register(first[None], 7 * second[None] + 100)

    np.testing.assert_allclose(lit.similarity, plain.similarity, atol=1e-4)


def test_the_result_of_a_pair_does_not_depend_on_its_company() -> None:
    pictures = np.stack([waves(scale, 0, 0) for scale in (0.95, 1.0, 1.03)])

    together = register(pictures, pictures[::-1])

    for place in range(3):
        alone = register(pictures[place][None], pictures[::-1][place][None])
        np.testing.assert_allclose(alone.similarity[0], together.similarity[place], atol=1e-6)


def test_a_picture_without_structure_is_like_nothing() -> None:
    found = register(np.zeros((1, 32, 32)), waves(1, 0, 0)[None])

    assert found.similarity[0] == pytest.approx(0, abs=1e-3)
