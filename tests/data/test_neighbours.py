import numpy as np
import pytest
from numpy.typing import NDArray

from evalcam_cli.data.neighbours import SCALE, VARIANTS, encode, likely_variants, nearest, turned

Pictures = NDArray[np.float64]


def pictures(count: int, seed: int = 0) -> Pictures:
    """Smooth random (count, 32, 32) pictures."""
    rng = np.random.default_rng(seed)
    cells = rng.normal(size=(count, 8, 8))
    return np.kron(cells, np.ones((4, 4))) + 0.1 * rng.normal(size=(count, 32, 32))


@pytest.mark.parametrize("variant", range(VARIANTS))
def test_a_turned_copy_is_the_nearest_and_its_variant_is_known(variant: int) -> None:
    originals = pictures(40)
    copies = turned(originals, variant)
    codes = encode(np.concatenate([originals, copies]))

    found = nearest(codes, np.arange(40, 80), np.arange(40), most=1, floor=0.0)

    np.testing.assert_array_equal(found.index[:, 0], np.arange(40))
    np.testing.assert_allclose(found.score[:, 0], 1, atol=0.01)
    undone = [v for v, rows in likely_variants(codes[40:], codes[:40], within=0.01) if len(rows) == 40]
    assert len(undone) == 1
    np.testing.assert_array_equal(turned(copies, undone[0]), originals)


def test_equals_comparing_everything_with_everything_in_eight_ways() -> None:
    all_pictures = pictures(300, seed=1)
    turns = [encode(turned(all_pictures, variant)) for variant in range(VARIANTS)]
    queries, targets = np.arange(200), np.arange(200, 300)
    scores = np.max(
        [turn[queries].astype(np.float64) @ turns[0][targets].T.astype(np.float64) for turn in turns], axis=0
    )
    order = np.argsort(-scores, axis=1, kind="stable")[:, :5]

    found = nearest(turns[0], queries, targets, most=5, floor=-2)

    best = np.take_along_axis(scores, order, axis=1) / SCALE**2
    np.testing.assert_allclose(found.score, best, atol=2e-3)  # codes are rounded before or after the turn


def test_blocks_do_not_change_what_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    codes = encode(pictures(500, seed=2))
    whole = nearest(codes, np.arange(300), np.arange(300, 500), most=4, floor=0.1)

    monkeypatch.setattr("evalcam_cli.data.neighbours._QUERIES", 7)
    monkeypatch.setattr("evalcam_cli.data.neighbours._TARGETS", 11)
    small = nearest(codes, np.arange(300), np.arange(300, 500), most=4, floor=0.1)

    np.testing.assert_array_equal(whole.index, small.index)
    np.testing.assert_array_equal(whole.score, small.score)


def test_the_products_are_exact_in_float32() -> None:
    codes = encode(pictures(200, seed=3))

    floats = codes.astype(np.float32)
    exact = codes.astype(np.int64) @ codes.astype(np.int64).T

    np.testing.assert_array_equal((floats @ floats.T).astype(np.int64), exact)
    assert np.abs(exact).max() <= 2**24


def test_nothing_below_the_floor_is_told() -> None:
    codes = encode(pictures(50, seed=4))

    found = nearest(codes, np.arange(25), np.arange(25, 50), most=3, floor=0.99)

    assert (found.index == -1).all()
    assert (found.score == -1).all()


def test_of_equal_targets_the_earlier_comes_first() -> None:
    one = pictures(6, seed=5)
    codes = encode(np.concatenate([one, one[:1], one[:1]]))

    found = nearest(codes, np.arange(1), np.arange(8), most=3, floor=0.5)

    np.testing.assert_array_equal(found.index[0], [0, 6, 7])


def test_what_all_pictures_share_tells_none_apart() -> None:
    """A bright frame in every picture would make all alike."""
    frame = np.zeros((32, 32))
    frame[[0, -1]], frame[:, [0, -1]] = 50, 50
    inner = pictures(60, seed=6)

    plain, framed = encode(inner), encode(inner + frame)

    def typical(codes: NDArray[np.int16]) -> float:
        return float(np.median(nearest(codes, np.arange(30), np.arange(30, 60), most=1, floor=-2).score))

    assert typical(framed) < typical(plain) + 0.05
