"""A part of `python -m tests.benchmarks.explanations parity` that is quick: small images and few layers."""

import copy

import pytest
import torch
from torch import nn

from tests.benchmarks.explanation_parity import FORMULA, compare
from tests.benchmarks.explanation_parity_others import LIMITS, score_cam
from tests.benchmarks.explanation_peers import (
    CAPTUM,
    NETWORKS,
    OURS,
    PEERS,
    TORCHCAM,
    build,
    largest_difference,
    noise,
    quiet,
)
from tests.explain.trap_models import CLASSES, four_images, small

SIDE = 48
QUICK = [
    ("ResNet-18", "layer4", torch.float64),
    ("ResNet-18", "layer3", torch.float64),
    ("ResNet-50", "layer4", torch.float32),
    ("VGG-16", "features.23", torch.float32),
    ("MobileNet-V2", "features.18", torch.float64),
    ("MobileNet-V2", "features.6", torch.float32),
]
WRONG = {("gradcam++", "torchcam"), ("gradcam++", "pytorch-grad-cam")}
"""Methods that a peer computes otherwise than its paper says; `parity` prints how."""


@pytest.fixture(scope="module")
def networks() -> dict[str, nn.Module]:
    for tool in PEERS:
        pytest.importorskip(tool.module)
    models = {name: build(name, side=SIDE) for name in NETWORKS if name != "VGG-16"}
    models["VGG-16"] = vgg_of_a_small_head()
    return models


def vgg_of_a_small_head() -> nn.Module:
    """Its convolutions, and a head of three layers without the hundred million weights."""
    torch.manual_seed(0)
    full = NETWORKS["VGG-16"].build(weights=None, init_weights=False)
    head = nn.Sequential(nn.Flatten(), nn.Linear(512, 32), nn.ReLU(), nn.Linear(32, 10))
    model = nn.Sequential()
    model.add_module("features", full.get_submodule("features"))
    model.add_module("classifier", head)
    for convolution in model.modules():
        if isinstance(convolution, nn.Conv2d):
            nn.init.kaiming_normal_(convolution.weight)
    return model.eval()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "layer", "dtype"), QUICK)
def test_maps_are_those_of_three_peers(
    networks: dict[str, nn.Module], name: str, layer: str, dtype: torch.dtype
) -> None:
    model = copy.deepcopy(networks[name]).to(dtype)
    pooled = NETWORKS[name].pooled and layer == NETWORKS[name].last

    found = list(compare(model, model.get_submodule(layer), noise(2, SIDE).to(dtype), [3, 8], pooled=pooled))

    assert {each.other for each in found} == {*(tool.name for tool in PEERS), FORMULA}
    assert [each for each in found if not each.held and not each.reason] == []
    assert {(each.method, each.other) for each in found if each.difference > 1e-4} <= WRONG


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("method", ["guided-backprop", "occlusion"])
def test_a_whole_batch_is_captums(networks: dict[str, nn.Module], method: str) -> None:
    model, images, classes = networks["ResNet-18"], noise(3, SIDE), [3, 8, 0]

    found = OURS.maps[method](model, model, images, classes)

    with quiet():
        wanted = CAPTUM.maps[method](model, model, images, classes)
    assert largest_difference(found, wanted) <= LIMITS[method]


@pytest.mark.filterwarnings("ignore")
def test_score_cam_scales_masks_after_enlarging_them_as_in_the_paper_and_torchcam_before() -> None:
    pytest.importorskip(TORCHCAM.module)
    model = small()
    asked = model, model.block, four_images(), CLASSES

    found = OURS.maps["scorecam"](*asked)

    with quiet():
        torchcam = TORCHCAM.maps["scorecam"](*asked)
    assert largest_difference(found, score_cam(*asked)) <= 1e-5
    assert largest_difference(torchcam, score_cam(*asked, scaled="before")) <= 1e-5
    assert largest_difference(found, torchcam) > 1e-4
