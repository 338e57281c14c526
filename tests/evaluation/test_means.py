import numpy as np
import pytest
import scipy.stats

from evalcam_cli.evaluation.means import mean_interval


def test_independent_values_have_students_interval() -> None:
    values = np.random.default_rng(0).random(12)
    expected = scipy.stats.t.interval(0.95, 11, loc=values.mean(), scale=scipy.stats.sem(values))

    found = mean_interval(values, np.arange(12), low=0, high=1)

    assert (found.low, found.high) == pytest.approx(expected)
    assert found.method == "t"


def test_groups_of_equal_size_count_as_their_means() -> None:
    values = np.random.default_rng(1).random(30)
    means = values.reshape(10, 3).mean(axis=1)
    expected = scipy.stats.t.interval(0.95, 9, loc=means.mean(), scale=scipy.stats.sem(means))

    found = mean_interval(values, np.repeat(np.arange(10), 3), low=0, high=1)

    assert (found.low, found.high) == pytest.approx(expected)
    assert found.method == "clustered_t"


def test_limits_stay_within_the_range_of_the_values() -> None:
    found = mean_interval(np.array([0.0, 0.0, 0.9]), np.arange(3), low=0, high=1)

    assert (found.low, found.high) == (0, 1)


@pytest.mark.parametrize("values", [[0.5], [0.5, 0.5, 0.5]])
def test_too_little_to_tell_from_gives_a_reason(values: list[float]) -> None:
    found = mean_interval(np.array(values), np.arange(len(values)), low=0, high=1)

    assert found.low is None
    assert found.note
