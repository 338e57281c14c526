import copy
from collections.abc import Callable
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from evalcam_cli.errors import UsageError
from evalcam_cli.explain.guided import (
    guided_backprop,
    guided_backprop_attributions,
    guided_grad_cam,
    guided_grad_cam_attributions,
)
from evalcam_cli.explain.maps import layer_maps
from evalcam_cli.explain.pixel_gradients import gradient
from evalcam_cli.explain.targets import of_classes
from tests.explain.networks import NETWORKS, Capped, Functional, build, difference, make_images

CLASS_INDICES = torch.tensor([[0, 3], [4, 1], [2, 2]])


class Applied(nn.Module):
    """A function of the images, weighed per pixel and summed: the score of one class."""

    def __init__(self, activation: Callable[[Tensor], Tensor], weights: Tensor) -> None:
        super().__init__()
        self.activation = activation
        self.weights = weights

    def forward(self, images: Tensor) -> Tensor:
        return (self.activation(images) * self.weights).sum(dim=(1, 2, 3))[:, None]


def seen_by_captum(model: nn.Module) -> nn.Module:
    """A copy whose ReLU6 are of the class that captum looks for."""
    model = copy.deepcopy(model)
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.ReLU6):
                setattr(parent, name, Capped(inplace=True))
    return model


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
@pytest.mark.parametrize("name", NETWORKS)
def test_equals_captum_on_a_whole_batch(name: str, dtype: torch.dtype, tolerance: float) -> None:
    captum = pytest.importorskip("captum.attr")
    model, images = build(name, dtype), make_images(side=32, dtype=dtype)

    found = guided_backprop_attributions(model, images, of_classes(CLASS_INDICES))

    for place in range(2):
        wanted = captum.GuidedBackprop(seen_by_captum(model)).attribute(images, target=CLASS_INDICES[:, place])
        assert difference(found.values[:, place], wanted) <= tolerance
    torch.testing.assert_close(found.maps().maps, found.values.sum(dim=2))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["ResNet-18", "VGG-16"])
def test_guided_grad_cam_equals_captum_with_bilinear_enlargement(name: str) -> None:
    captum = pytest.importorskip("captum.attr")
    model, images = build(name), make_images()
    layer = model.get_submodule("layer3" if name == "ResNet-18" else "0.28")

    found = guided_grad_cam_attributions(model, images, of_classes(CLASS_INDICES), layers=[layer])

    for place in range(2):
        peer = captum.GuidedGradCam(model, layer)
        wanted = peer.attribute(images, target=CLASS_INDICES[:, place], interpolate_mode="bilinear")
        assert difference(found.values[:, place], wanted) <= 1e-7  # captum guides in double and weighs in float


def test_guided_grad_cam_is_zero_where_grad_cam_is_not_positive() -> None:
    model, images = build("residual"), make_images()
    layers = [model.get_submodule("layer2")]
    coarse = layer_maps(model, layers, images, of_classes(CLASS_INDICES))["gradcam"].maps
    enlarged = functional.interpolate(coarse.clamp(min=0), (40, 40), mode="bilinear", align_corners=False)

    found = guided_grad_cam(model, images, of_classes(CLASS_INDICES), layers=layers).maps

    assert (enlarged == 0).any()
    assert (found[enlarged == 0] == 0).all()
    torch.testing.assert_close(found, enlarged * guided_backprop(model, images, of_classes(CLASS_INDICES)).maps)


@pytest.mark.parametrize(
    "activation",
    [
        nn.ReLU(), nn.ReLU(inplace=True), functional.relu, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_,
        lambda values: functional.relu(values, inplace=True), lambda values: values.clamp(min=0),
        lambda values: values.clamp_min(0), lambda values: values.clamp(min=torch.tensor(0.0)),
        lambda values: functional.threshold(values, 0, 0), lambda values: functional.relu(functional.relu(values)),
    ],
)  # fmt: skip
def test_a_relu_is_guided_however_it_is_spelled(activation: Callable[[Tensor], Tensor]) -> None:
    """Springenberg et al. 2015, figure 1: R * [f > 0] * [R > 0]."""
    images, weights = make_images(side=5), make_images(count=1, side=5).flip(3)

    found = guided_backprop_attributions(Applied(activation, weights), images, of_classes([[0]] * 3)).values[:, 0]

    torch.testing.assert_close(found, weights.clamp(min=0) * (images > 0))


@pytest.mark.parametrize("activation", [functional.relu6, nn.ReLU6(inplace=True), lambda values: values.clamp(0, 6)])
def test_a_capped_relu_is_guided_and_passes_nothing_above_its_cap(activation: Callable[[Tensor], Tensor]) -> None:
    images, weights = 6 * make_images(side=5), make_images(count=1, side=5).flip(3)

    found = guided_backprop_attributions(Applied(activation, weights), images, of_classes([[0]] * 3)).values[:, 0]

    assert (images > 6).any()
    torch.testing.assert_close(found, weights.clamp(min=0) * ((images > 0) & (images < 6)))


def test_only_the_way_through_the_relu_is_guided_when_there_is_one_around_it() -> None:
    """As in a residual block that begins with its activation, where captum guides both ways."""
    images, weights = make_images(side=5), make_images(count=1, side=5).flip(3)
    model = Applied(lambda values: functional.relu(values) + 2 * values, weights)

    found = guided_backprop_attributions(model, images, of_classes([[0]] * 3)).values[:, 0]

    torch.testing.assert_close(found, weights.clamp(min=0) * (images > 0) + 2 * weights)


def test_functional_relus_give_what_modules_give() -> None:
    torch.manual_seed(0)
    functions, shared = Functional().double(), Functional(nn.ReLU(inplace=True)).double()
    shared.load_state_dict(functions.state_dict())
    images, target = make_images(side=9), of_classes(CLASS_INDICES)

    found = guided_backprop(functions, images, target)

    torch.testing.assert_close(found.maps, guided_backprop(shared, images, target).maps, rtol=0, atol=0)
    assert difference(found.maps, gradient(functions, images, target).maps) > 0.01
    assert found.note == "guided at 2 ReLUs"


def test_another_activation_keeps_its_own_gradient_and_is_named() -> None:
    model = Applied(lambda values: functional.gelu(functional.relu(values)), torch.ones(3, 5, 5).double())
    images = make_images(side=5)

    found = guided_backprop(model, images, of_classes([[0]] * 3))

    assert found.note == "guided at 1 ReLU; 1 GELU with the plain gradient"
    torch.testing.assert_close(found.maps, gradient(model, images, of_classes([[0]] * 3)).maps)


@pytest.mark.parametrize("activation", [functional.silu, functional.hardtanh, lambda values: values.clamp(min=0.1)])
def test_refused_where_there_is_no_relu(activation: Callable[[Tensor], Tensor]) -> None:
    model = Applied(activation, torch.ones(3, 5, 5).double())

    with pytest.raises(UsageError, match="no ReLU between image and score"):
        guided_backprop(model, make_images(side=5), of_classes([[0]] * 3))


class _Secret(torch.autograd.Function):
    """A ReLU that autograd cannot look into."""

    @staticmethod
    def forward(context: Any, values: Tensor) -> Tensor:
        context.save_for_backward(values)
        return values.clamp(min=0)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        (values,) = context.saved_tensors
        return gradients[0] * (cast(Tensor, values) > 0)


def _on_a_view(values: Tensor) -> Tensor:
    copied = values.clone()
    copied[:, :1].relu_()
    return functional.relu(copied)


def _on_a_reshaped_view(values: Tensor) -> Tensor:
    return functional.relu(values.clone().flatten(1), inplace=True).view_as(values)


def _secret(values: Tensor) -> Tensor:
    return functional.relu(cast(Tensor, _Secret.apply(values)))


@pytest.mark.parametrize(
    ("activation", "reason"),
    [(_on_a_view, "in place on a part"), (_on_a_reshaped_view, "in place on a part"), (_secret, "its own .*Secret")],
)
def test_refused_where_a_relu_may_hide(activation: Callable[[Tensor], Tensor], reason: str) -> None:
    model = Applied(activation, torch.ones(3, 5, 5).double())

    with pytest.raises(UsageError, match=reason):
        guided_backprop(model, make_images(side=5), of_classes([[0]] * 3))


@pytest.mark.filterwarnings("ignore")
def test_a_compiled_model_is_refused() -> None:
    model = torch.compile(Applied(functional.relu, torch.ones(3, 5, 5).double()), backend="aot_eager")

    with pytest.raises(UsageError, match=r"torch\.compile"):
        guided_backprop(cast(nn.Module, model), make_images(side=5), of_classes([[0]] * 3))
