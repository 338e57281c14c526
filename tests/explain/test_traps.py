import pytest

from tests.benchmarks.explanation_peers import GRAD_CAM, OURS, PEERS, Tool
from tests.explain.traps import TRAPS, Trap


@pytest.mark.parametrize("trap", [pytest.param(trap, id=trap.name) for trap in TRAPS])
def test_evalcam_is_not_caught(trap: Trap) -> None:
    trap.check(OURS)


def test_traps_have_names_of_their_own() -> None:
    assert len({trap.name for trap in TRAPS}) == len(TRAPS) >= 20


@pytest.mark.parametrize(
    ("tool", "name"),
    [
        (GRAD_CAM, "fewer classes than images"),
        (GRAD_CAM, "IndexError in the model"),
        (GRAD_CAM, "guided backpropagation: a whole batch"),
        (PEERS[0], "model in training mode: batch-norm statistics"),
        (PEERS[1], "Grad-CAM++ at small gradients"),
        (PEERS[1], "map of a crop over the whole photograph"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_a_trap_can_catch(tool: Tool, name: str) -> None:
    """As some release of a peer once did; a later one that does better is told by its version."""
    pytest.importorskip(tool.module)
    (trap,) = (trap for trap in TRAPS if trap.name == name)

    with pytest.raises(AssertionError):
        trap.check(tool)
