"""torchvision's ResNets by name."""

import pytest
import torch
import torchvision

from evalcam_cli.config import ARCHS
from evalcam_cli.errors import UsageError
from evalcam_cli.models.architectures import build_model, frozen_modules


@pytest.mark.parametrize("arch", ARCHS)
def test_every_name_builds_torchvision_s_network(arch: str) -> None:
    with torch.device("meta"):
        ours, theirs = build_model(arch, 1000), getattr(torchvision.models, arch)()

    assert {name: tensor.shape for name, tensor in ours.state_dict().items()} == {
        name: tensor.shape for name, tensor in theirs.state_dict().items()
    }


@pytest.mark.parametrize("arch", ["resnet18", "resnet50"])
def test_a_last_stride_of_one_doubles_the_side_of_the_maps(arch: str) -> None:
    sides = []
    for stride in (1, 2):
        model = build_model(arch, 3, last_stride=stride).eval()
        model.get_submodule("layer4").register_forward_hook(lambda _, __, output: sides.append(output.shape[-1]))
        with torch.inference_mode():
            model(torch.zeros(1, 3, 64, 64))

    assert sides == [4, 2]


def test_unknown_names_get_the_nearest_spelling() -> None:
    with pytest.raises(UsageError, match="did you mean 'resnet50'"):
        build_model("resnet5O", 2)


@pytest.mark.parametrize(("upto", "count"), [(None, 0), ("stem", 2), ("layer1", 3), ("layer4", 6)])
def test_freezing_counts_from_the_input(upto: str | None, count: int) -> None:
    assert len(frozen_modules(build_model("resnet18", 2), upto)) == count
