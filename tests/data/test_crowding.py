import numpy as np
import pytest

from evalcam_cli.data.crowding import FALSE_PAIRS, LEAST_SIMILARITY, Crowd, Crowding, distances, measure_crowding
from evalcam_cli.data.neighbours import encode
from evalcam_cli.data.registration import normalised
from tests.data.test_neighbours import Pictures, pictures


def alike(count: int, spread: float, seed: int = 0) -> Pictures:
    """One picture with small differences in `count` versions."""
    return np.asarray(normalised(pictures(1, seed) + spread * pictures(count, seed + 1)), dtype=np.float64)


@pytest.fixture(autouse=True)
def small_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evalcam_cli.data.crowding.SAMPLE", 20)


def test_a_crowded_data_set_demands_more_similarity_than_a_sparse_one() -> None:
    limits = []
    for structures in (alike(150, 0.3), alike(150, 3.0)):
        crowding = measure_crowding(structures, encode(structures), seed=0)
        limits.append(np.median(crowding.thresholds(crowding.sample, 100.0, 50)))

    assert limits[0] > limits[1] >= LEAST_SIMILARITY


def test_the_thresholds_spend_the_allowed_number_of_false_pairs() -> None:
    crowd = Crowd(np.array([0.3, 0.5]), np.array([6.0, 8.0]))
    crowding = Crowding(dimension=8.0, sample=crowd, neighbours=10, images=1001)

    limits = crowding.thresholds(crowd, 400, 200)
    expected = crowding.expected(distances(limits), crowd, 400)

    np.testing.assert_allclose(expected, FALSE_PAIRS / 200)


def test_as_many_chance_neighbours_are_expected_within_the_kth_distance_as_there_are() -> None:
    crowd = Crowd(np.array([0.4]), np.array([6.0]))
    crowding = Crowding(dimension=6.0, sample=crowd, neighbours=10, images=101)

    assert crowding.expected(0.4, crowd, 100)[0] == pytest.approx(10)
    assert crowding.expected(0.2, crowd, 100)[0] == pytest.approx(10 / 2**6)


def test_a_few_copies_do_not_change_how_crowded_it_is() -> None:
    structures = alike(200, 1.0)
    doubled = np.concatenate([structures, structures[:60]])

    alone = measure_crowding(structures, encode(structures), seed=0)
    with_copies = measure_crowding(doubled, encode(doubled), seed=0)

    assert with_copies.dimension == pytest.approx(alone.dimension, rel=0.35)


@pytest.mark.parametrize("count", [0, 1, 10])
def test_of_too_few_images_nothing_is_measured(count: int) -> None:
    structures = pictures(12)[:count]

    crowding = measure_crowding(structures, encode(structures), seed=0)

    assert crowding.neighbours == 0
    assert crowding.sample.distance.size == 0


def test_the_same_seed_gives_the_same_measure() -> None:
    structures = alike(150, 1.0)
    codes = encode(structures)

    one, other = (measure_crowding(structures, codes, seed=3) for _ in range(2))

    assert one.dimension == other.dimension
    np.testing.assert_array_equal(one.sample.distance, other.sample.distance)
