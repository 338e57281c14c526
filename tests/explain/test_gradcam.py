import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import resnet18

from evalcam_cli.errors import UsageError
from evalcam_cli.explain.gradcam import LayerError, find_layer, grad_cam, positive


class Small(nn.Module):
    """Stem, batch norm, a layer, an in-place ReLU, global pooling, dropout and a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 5, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(5)
        self.layer4 = nn.Conv2d(5, 7, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.activated = nn.Identity()
        self.dropout = nn.Dropout(0.5)
        self.fc = nn.Linear(7, 4)
        self.spare = nn.Conv2d(3, 3, 1)

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.activated(self.relu(self.layer4(self.relu(self.norm(self.stem(images))))))
        logits: Tensor = self.fc(self.dropout(features.mean(dim=(2, 3))))
        return logits


@pytest.fixture
def small() -> Small:
    torch.manual_seed(0)
    return Small().eval()


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    """A ResNet-18 with random weights, batch-norm statistics of noise and logits that differ between images."""
    torch.manual_seed(0)
    model: nn.Module = resnet18(weights=None, num_classes=6)
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(8, 3, 64, 64))
        nn.init.normal_(model.get_parameter("fc.weight"), std=0.05)
        nn.init.normal_(model.get_parameter("fc.bias"))
    return model.eval()


@pytest.fixture
def images() -> Tensor:
    return torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def output_of(layer: nn.Module, model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Logits and the layer's output, with the graph of the whole network."""
    kept: list[Tensor] = []

    def keep(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
        kept.append(output)
        return output.clone()

    handle = layer.register_forward_hook(keep)
    logits: Tensor = model(images)
    handle.remove()
    return logits, kept[0]


def plain_grad_cam(model: nn.Module, layer: nn.Module, images: Tensor, class_indices: Tensor) -> Tensor:
    """Equations 1 and 2 as they stand, image by image and class by class."""
    maps = []
    for image, indices in zip(images, class_indices, strict=True):
        for index in indices:
            logits, activations = output_of(layer, model, image[None])
            (gradients,) = torch.autograd.grad(logits[0, index], activations)
            alphas = gradients[0].sum(dim=(1, 2)) / gradients[0, 0].numel()
            maps.append(torch.einsum("k,khw->hw", alphas, activations[0]).detach())
    return torch.stack(maps).reshape(*class_indices.shape, *maps[0].shape)


def state_of(model: nn.Module) -> dict[str, object]:
    """Everything an explanation could leave behind."""
    modules = dict(model.named_modules())
    return {
        "tensors": {name: value.clone() for name, value in model.state_dict().items()},
        "modes": {name: module.training for name, module in modules.items()},
        "in place": {name: getattr(module, "inplace", None) for name, module in modules.items()},
        "identities": {name: id(module) for name, module in modules.items()},
        "hooks": {name: (len(m._forward_hooks), len(m._forward_pre_hooks)) for name, m in modules.items()},
        "trainable": {name: parameter.requires_grad for name, parameter in model.named_parameters()},
        "gradients": {name: parameter.grad for name, parameter in model.named_parameters()},
        "autograd": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
    }


def assert_same_state(before: dict[str, object], after: dict[str, object]) -> None:
    torch.testing.assert_close(after.pop("tensors"), before.pop("tensors"), rtol=0, atol=0)
    assert after == before


def test_equals_cam_when_global_pooling_and_one_linear_layer_follow(resnet: nn.Module, images: Tensor) -> None:
    """Grad-CAM generalises CAM: Selvaraju et al. 2017, section 3.1."""
    class_indices = torch.tensor([[0], [4], [2], [2]])
    layer = resnet.get_submodule("layer4")
    activations = output_of(layer, resnet, images)[1].detach()
    head = resnet.get_parameter("fc.weight").detach()[class_indices[:, 0]]
    cam = torch.einsum("nc,nchw->nhw", head, activations) / activations[0, 0].numel()

    result = grad_cam(resnet, layer, images, class_indices)

    torch.testing.assert_close(result.maps[:, 0], cam, rtol=1e-5, atol=1e-6)
    assert result.maps.dtype == torch.float32


def test_a_signed_map_sums_to_logit_minus_bias_at_a_linear_head(resnet: nn.Module, images: Tensor) -> None:
    every_class = torch.arange(6).expand(len(images), -1)

    result = grad_cam(resnet, resnet.get_submodule("layer4"), images, every_class)

    contributions = result.logits - resnet.get_parameter("fc.bias").detach()
    torch.testing.assert_close(result.maps.sum(dim=(2, 3)), contributions, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["layer1.0", "layer2", "layer3", "layer3.1.conv1", "layer4", "maxpool"])
def test_equals_a_plain_implementation_at_any_layer(resnet: nn.Module, images: Tensor, name: str) -> None:
    class_indices = torch.tensor([[0, 1], [4, 0], [2, 5], [3, 3]])
    layer = resnet.get_submodule(name)
    expected = plain_grad_cam(resnet, layer, images, class_indices)

    result = grad_cam(resnet, layer, images, class_indices)

    assert (result.maps - expected).abs().max() <= 2e-5 * expected.abs().max()
    with torch.no_grad():
        torch.testing.assert_close(result.logits, resnet(images))


def test_equals_a_plain_implementation_to_rounding_in_double_precision(images: Tensor) -> None:
    torch.manual_seed(0)
    model = resnet18(weights=None, num_classes=3).double().eval()
    class_indices = torch.tensor([[0, 1, 2]] * len(images))
    expected = plain_grad_cam(model, model.layer3, images.double(), class_indices)

    maps = grad_cam(model, model.layer3, images.double(), class_indices).maps

    assert (maps - expected).abs().max() <= 1e-12 * expected.abs().max()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_an_image_has_the_same_map_alone_and_in_a_batch(
    resnet: nn.Module, dtype: torch.dtype, tolerance: float
) -> None:
    images = torch.randn(8, 3, 64, 64, generator=torch.Generator().manual_seed(2)).to(dtype)
    class_indices = torch.arange(8)[:, None] % 6
    model = copy.deepcopy(resnet).to(dtype)
    layer = model.get_submodule("layer3")

    together = grad_cam(model, layer, images, class_indices).maps
    alone = [grad_cam(model, layer, images[i : i + 1], class_indices[i : i + 1]).maps for i in range(8)]

    # Not bit for bit: the convolution of a batch may add in another order than that of one image.
    assert (together - torch.cat(alone)).abs().max() <= tolerance * together.abs().max()


def test_classes_can_be_chosen_from_the_logits(resnet: nn.Module, images: Tensor) -> None:
    layer = resnet.get_submodule("layer4")

    result = grad_cam(resnet, layer, images, lambda logits: logits.topk(2).indices)

    assert result.class_indices.tolist() == result.logits.topk(2).indices.tolist()
    torch.testing.assert_close(result.maps, grad_cam(resnet, layer, images, result.class_indices.tolist()).maps)


def test_the_model_runs_once_for_all_classes(small: Small, images: Tensor) -> None:
    runs: list[int] = []
    small.stem.register_forward_hook(lambda module, inputs, output: runs.append(1))

    grad_cam(small, small.layer4, images, lambda logits: logits.argsort())

    assert len(runs) == 1


def test_nothing_before_the_layer_is_recorded_for_differentiation(small: Small, images: Tensor) -> None:
    recorded: list[bool] = []
    small.stem.register_forward_hook(lambda module, inputs, output: recorded.append(output.requires_grad))

    grad_cam(small, small.layer4, images.requires_grad_(), [[0]] * 4)

    assert recorded == [False]
    assert images.grad is None


def test_a_frozen_model_has_the_same_maps(small: Small, images: Tensor) -> None:
    expected = grad_cam(small, small.layer4, images, [[1]] * 4).maps

    maps = grad_cam(small.requires_grad_(False), small.layer4, images, [[1]] * 4).maps

    torch.testing.assert_close(maps, expected, rtol=0, atol=0)
    assert not any(parameter.requires_grad for parameter in small.parameters())


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_the_callers_autograd_mode_does_not_matter(small: Small, mode: Callable[[], Any], images: Tensor) -> None:
    expected = grad_cam(small, small.layer4, images, [[1]] * 4).maps

    with mode():
        before = state_of(small)
        result = grad_cam(small, small.layer4, images + 0, lambda logits: torch.ones(4, 1, dtype=torch.int64))
        after = state_of(small)

    torch.testing.assert_close(result.maps, expected, rtol=0, atol=0)
    assert_same_state(before, after)


def test_a_model_that_turns_gradients_off_itself_is_explained_too(small: Small, images: Tensor) -> None:
    expected = grad_cam(small, small.layer4, images, [[1]] * 4).maps
    small.forward = torch.no_grad()(small.forward)  # type: ignore[method-assign]

    maps = grad_cam(small, small.layer4, images, [[1]] * 4).maps

    torch.testing.assert_close(maps, expected, rtol=0, atol=0)


@pytest.mark.parametrize("training", [False, True])
def test_the_model_is_left_as_it_was(small: Small, images: Tensor, training: bool) -> None:
    small.train(training)
    small.norm.eval()  # a mode of its own
    small.stem.requires_grad_(False)
    small.fc.weight.grad = torch.ones(4, 7)
    before = state_of(small)

    grad_cam(small, small.layer4, images, [[0, 3]] * 4)

    assert_same_state(before, state_of(small))
    assert torch.equal(small.fc.weight.grad, torch.ones(4, 7))


def test_a_model_in_training_mode_is_explained_as_it_predicts(small: Small, images: Tensor) -> None:
    expected = grad_cam(small, small.layer4, images, [[0]] * 4)

    result = grad_cam(small.train(), small.layer4, images, [[0]] * 4)

    torch.testing.assert_close(result, expected, rtol=0, atol=0)


def test_the_model_is_left_as_it_was_when_it_raises(small: Small, images: Tensor) -> None:
    class Failing(nn.Linear):
        def forward(self, features: Tensor) -> Tensor:
            raise ZeroDivisionError

    small.fc = Failing(7, 4)
    before = state_of(small.train())

    with pytest.raises(ZeroDivisionError):
        grad_cam(small, small.layer4, images, [[0]] * 4)

    assert_same_state(before, state_of(small))


def test_the_images_are_left_as_they_were(small: Small, images: Tensor) -> None:
    copy = images.clone()

    grad_cam(small, small.layer4, images, [[0]] * 4)

    assert torch.equal(images, copy)
    assert not images.requires_grad


def test_an_in_place_operation_after_the_layer_does_not_change_its_map(small: Small, images: Tensor) -> None:
    in_place = grad_cam(small, small.layer4, images, [[2]] * 4).maps
    small.relu = nn.ReLU(inplace=False)

    torch.testing.assert_close(grad_cam(small, small.layer4, images, [[2]] * 4).maps, in_place, rtol=0, atol=0)
    torch.testing.assert_close(in_place, plain_grad_cam(small, small.layer4, images, torch.full((4, 1), 2)))


def test_where_nothing_speaks_for_a_class_the_positive_map_is_all_zeros(small: Small, images: Tensor) -> None:
    with torch.no_grad():
        small.fc.weight[1] = -small.fc.weight[1].abs()

    result = grad_cam(small, small.activated, images, [[1]] * 4)

    assert (result.maps < 0).any()
    assert positive(result.maps).eq(0).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_half_precision_model_has_full_precision_maps(resnet: nn.Module, images: Tensor, dtype: torch.dtype) -> None:
    expected = grad_cam(resnet, resnet.get_submodule("layer4"), images, [[0, 5]] * 4).maps
    half = copy.deepcopy(resnet).to(dtype)

    result = grad_cam(half, half.get_submodule("layer4"), images.to(dtype), [[0, 5]] * 4)

    assert result.maps.dtype == result.logits.dtype == torch.float32
    assert (result.maps - expected).abs().max() <= 0.1 * expected.abs().max()


def test_autocast_has_full_precision_maps(resnet: nn.Module, images: Tensor) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        result = grad_cam(resnet, resnet.get_submodule("layer4"), images, [[0, 5]] * 4)

    assert result.maps.dtype == result.logits.dtype == torch.float32
    contributions = (result.logits - resnet.get_parameter("fc.bias").detach())[:, [0, 5]]
    torch.testing.assert_close(result.maps.sum(dim=(2, 3)), contributions, rtol=0.05, atol=0.05)


@pytest.mark.parametrize(
    ("class_indices", "message"),
    [
        pytest.param([[0]], r"shape \(1, 1\); expected \(4, at least 1\)", id="fewer rows than images"),
        pytest.param([0, 1, 2, 3], "shape", id="no column"),
        pytest.param([[]] * 4, "shape", id="no class"),
        pytest.param([[0], [1], [2], [4]], "0 to 4; there are 4 classes", id="no such class"),
        pytest.param([[0], [1], [2], [-1]], "-1 to 2", id="negative"),
        pytest.param(torch.zeros(4, 1), "float32, not integers", id="fractions"),
        pytest.param(lambda logits: logits.argmax(dim=1), "shape", id="chosen without column"),
    ],
)
def test_class_indices_that_do_not_fit_are_refused(
    small: Small, images: Tensor, class_indices: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        grad_cam(small, small.layer4, images, class_indices)


def test_a_layer_without_feature_map_is_refused_by_name(small: Small, images: Tensor) -> None:
    with pytest.raises(LayerError, match=r"layer 'fc' is a tensor of shape \(4, 4\), not a feature map"):
        grad_cam(small, small.fc, images, [[0]] * 4)


def test_a_layer_that_did_not_run_is_refused(small: Small, images: Tensor) -> None:
    with pytest.raises(LayerError, match="layer 'spare' did not run"):
        grad_cam(small, small.spare, images, [[0]] * 4)


def test_a_layer_that_ran_twice_is_refused(small: Small, images: Tensor) -> None:
    with pytest.raises(LayerError, match="layer 'relu' ran 2 times"):
        grad_cam(small, small.relu, images, [[0]] * 4)


def test_a_layer_beside_the_way_to_the_logits_is_refused(small: Small, images: Tensor) -> None:
    def run_beside(inputs: tuple[Tensor]) -> None:
        small.spare(inputs[0])

    small.stem.register_forward_hook(lambda module, inputs, output: run_beside(inputs))

    with pytest.raises(LayerError, match="the logits do not depend on layer 'spare'"):
        grad_cam(small, small.spare, images, [[0]] * 4)


def test_the_last_stage_is_the_default_layer(resnet: nn.Module) -> None:
    assert find_layer(resnet) == ("layer4", resnet.get_submodule("layer4"))
    assert find_layer(resnet, "layer3.1.conv2") == ("layer3.1.conv2", resnet.get_submodule("layer3.1.conv2"))


@pytest.mark.parametrize("name", ["layer44", ""])
def test_an_unknown_layer_is_refused(resnet: nn.Module, name: str) -> None:
    with pytest.raises(UsageError, match=f"no layer '{name}'"):
        find_layer(resnet, name)


def test_the_nearest_layer_is_proposed(resnet: nn.Module) -> None:
    with pytest.raises(UsageError, match=r"no layer 'layr4'; did you mean 'layer4'\?"):
        find_layer(resnet, "layr4")


def test_a_model_without_layer4_needs_a_layer() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4, 2))

    with pytest.raises(UsageError, match=r"Sequential has no layer4 to explain; choose a layer with --layer, e.g. '0'"):
        find_layer(model)
