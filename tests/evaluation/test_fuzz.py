"""A few of the ten thousand cases of `tests/benchmarks/fuzz_metrics.py`."""

import pytest

from tests.benchmarks.fuzz_metrics import TOLERANCE, differences, random_case


@pytest.mark.parametrize("block", range(4))
def test_random_cases_equal_scikit_learn_in_every_metric_that_it_has(block: int) -> None:
    for seed in range(100_000 + 20 * block, 100_020 + 20 * block):
        wrong = {name: found for name, found in differences(random_case(seed)).items() if found > TOLERANCE}

        assert not wrong, seed
