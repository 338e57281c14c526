"""Every bad input of the zoo, with the real commands: no traceback, no hang, no crash, no wrong outcome."""

from pathlib import Path

import pytest

from tests.zoo import checkpoints, configs, environment, file_system, images, manifests, predictions, splits
from tests.zoo.cases import Case, Kit
from tests.zoo.driver import faults, make_kit, tree

pytestmark = pytest.mark.slow

CASES = [
    *images.cases(),
    *file_system.cases(),
    *environment.cases(),
    *checkpoints.cases(),
    *configs.cases(),
    *manifests.cases(),
    *predictions.cases(),
    *splits.cases(),
]


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Kit:
    return make_kit(tmp_path_factory.mktemp("kit"))


@pytest.mark.parametrize("case", CASES, ids=[case.id for case in CASES])
def test_a_bad_input_ends_as_it_must(case: Case, kit: Kit, tmp_path: Path) -> None:
    before = tree(kit.root)

    found = faults(case, kit, tmp_path / "scratch")

    assert found == []
    assert tree(kit.root) == before
