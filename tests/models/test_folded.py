"""The inference form of a model: the same numbers under the same names, or a refusal."""

from collections.abc import Callable
from typing import cast

import pytest
import torch
import torchvision.models as zoo
from torch import Tensor, nn

from evalcam_cli.models.folded import folded


def trained(model: nn.Module, *, seed: int = 0) -> nn.Module:
    """With batch-norm statistics and weights that are far from 0 and 1."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean = 0.3 * torch.randn(module.num_features, generator=generator)
            module.running_var = 0.5 + torch.rand(module.num_features, generator=generator)
            if module.affine:
                module.weight.data = 0.5 + torch.rand(module.num_features, generator=generator)
                module.bias.data = 0.1 * torch.randn(module.num_features, generator=generator)
    return model.eval()


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def resnet() -> nn.Module:
    torch.manual_seed(0)
    return trained(zoo.resnet18(num_classes=5))


def vgg_bn() -> nn.Module:
    """VGG-11 without the two large layers of its head."""
    features = zoo.vgg.make_layers(zoo.vgg.cfgs["A"], batch_norm=True)
    return nn.Sequential(features, nn.AdaptiveAvgPool2d(7), nn.Flatten(), nn.Linear(512 * 49, 5))


NETWORKS: list[tuple[str, Callable[[], nn.Module], int]] = [
    ("resnet18", lambda: zoo.resnet18(num_classes=5), 20),  # every batch norm follows a convolution
    ("vgg11_bn", vgg_bn, 8),
    ("mobilenet_v2", lambda: zoo.mobilenet_v2(num_classes=5), 52),
    # norm0 and each layer's norm2; before each norm1 stand concatenated or pooled features
    ("densenet", lambda: zoo.DenseNet(8, (2, 3), 16, num_classes=5), 1 + 5),
    ("squeezenet", lambda: zoo.squeezenet1_1(num_classes=5), 0),  # no batch norm at all
]


@pytest.mark.parametrize(("name", "build", "pairs"), NETWORKS, ids=[name for name, _, _ in NETWORKS])
def test_torchvision_networks_give_the_same_logits(
    images: Tensor, name: str, build: Callable[[], nn.Module], pairs: int
) -> None:
    torch.manual_seed(0)
    model = trained(build())

    quick = folded(model, images)

    with torch.no_grad():
        wanted, found = model(images + 0.5), quick.model(images + 0.5)
    assert quick.pairs == pairs
    assert quick.note == ""
    assert quick.largest_difference < 1e-5
    torch.testing.assert_close(found, wanted, rtol=0, atol=2e-5 * float(wanted.abs().max()))


def test_folding_is_exact_to_rounding_in_double_precision(resnet: nn.Module, images: Tensor) -> None:
    quick = folded(resnet.double(), images.double())

    assert 0 < quick.largest_difference < 1e-13


def test_a_folded_layer_is_what_was_worked_out_by_hand() -> None:
    """3 x + 1, then 2 (y - 4) / sqrt(0.25) + 7, is 12 x - 5."""
    convolution, norm = nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1, eps=0.0)
    for parameter, value in ((convolution.weight, 3), (convolution.bias, 1), (norm.weight, 2), (norm.bias, 7)):
        assert parameter is not None
        parameter.data.fill_(value)
    norm.running_mean, norm.running_var = torch.tensor([4.0]), torch.tensor([0.25])

    quick = folded(nn.Sequential(convolution, norm), torch.ones(1, 1, 1, 1))

    assert quick.model.get_parameter("0.weight").item() == 12
    assert quick.model.get_parameter("0.bias").item() == -5
    assert quick.model(torch.ones(1, 1, 1, 1)).item() == 7


def test_every_module_keeps_its_name_and_its_output(resnet: nn.Module, images: Tensor) -> None:
    quick = folded(resnet, images).model
    names = [name for name, _ in resnet.named_modules()]

    assert [name for name, _ in quick.named_modules()] == names
    for name in ("bn1", "layer1.0.bn1", "layer3.0.downsample", "layer4"):
        torch.testing.assert_close(output_of(quick, name, images), output_of(resnet, name, images), rtol=0, atol=1e-4)


def test_a_convolution_that_will_be_looked_at_is_kept(resnet: nn.Module, images: Tensor) -> None:
    name = "layer4.1.conv2"
    wanted = output_of(resnet, name, images)

    kept, lost = folded(resnet, images, keep=(name,)), folded(resnet, images)

    assert (kept.pairs, lost.pairs) == (19, 20)
    torch.testing.assert_close(output_of(kept.model, name, images), wanted, rtol=0, atol=1e-4)
    assert (output_of(lost.model, name, images) - wanted).abs().max() > 0.1


def output_of(model: nn.Module, name: str, images: Tensor) -> Tensor:
    found: list[Tensor] = []
    with model.get_submodule(name).register_forward_hook(lambda module, inputs, output: found.append(output.clone())):
        model(images)
    return found[0].detach()


def test_the_model_itself_is_as_it_was(resnet: nn.Module, images: Tensor) -> None:
    resnet.train()
    resnet.get_submodule("layer2").eval()
    before = {name: tensor.clone() for name, tensor in resnet.state_dict().items()}
    modes = [module.training for module in resnet.modules()]
    layouts = [parameter.is_contiguous() for parameter in resnet.parameters()]

    with torch.inference_mode():
        quick = folded(resnet, images)

    assert quick.pairs == 20
    assert [module.training for module in resnet.modules()] == modes
    assert [parameter.is_contiguous() for parameter in resnet.parameters()] == layouts
    assert all(parameter.requires_grad and parameter.grad is None for parameter in resnet.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in resnet.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in resnet.state_dict().items())


def test_the_copy_can_be_differentiated_and_holds_no_hook(resnet: nn.Module, images: Tensor) -> None:
    quick = folded(resnet, images).model
    asked = images.clone().requires_grad_()
    wanted = images.clone().requires_grad_()

    quick(asked).sum().backward()
    resnet(wanted).sum().backward()

    assert asked.grad is not None
    assert wanted.grad is not None
    torch.testing.assert_close(asked.grad, wanted.grad, rtol=0, atol=1e-4 * float(wanted.grad.abs().max()))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in quick.modules())
    assert not any(
        parameter.requires_grad or module.training for module in quick.modules() for parameter in module.parameters()
    )
    assert quick.get_parameter("layer4.0.conv1.weight").is_contiguous(memory_format=torch.channels_last)


class Odd(nn.Module):
    """A convolution and a batch norm between which something happens."""

    def __init__(self, way: str) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.way = way
        self.convolution = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4, affine=way != "plain norm", track_running_stats=way != "no statistics")
        self.second = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 2)

    def forward(self, images: Tensor) -> Tensor:
        features = self.convolution(images)
        if self.way == "in place":
            features.relu_()
        if self.way == "view":
            features = features.flip(1)
        normed = self.norm(features)
        if self.way == "two norms":
            normed = normed + self.second(features)
        if self.way == "norm twice":
            normed = self.norm(normed)
        if self.way == "convolution twice":
            normed = normed + self.convolution(images)
        if self.way == "second use":
            normed = normed + features
        return cast(Tensor, self.head(normed.relu().mean(dim=(2, 3))))


WAYS = ["in place", "view", "two norms", "norm twice", "convolution twice", "no statistics"]


@pytest.mark.parametrize("way", WAYS)
def test_what_does_not_belong_together_is_not_folded(images: Tensor, way: str) -> None:
    model = Odd(way).eval()
    if way != "no statistics":
        trained(model)

    quick = folded(model, images)

    assert (quick.pairs, quick.note) == (0, "")
    torch.testing.assert_close(quick.model(images), model(images), rtol=0, atol=1e-5)


def test_a_batch_norm_without_weights_of_its_own_is_folded(images: Tensor) -> None:
    model = trained(Odd("plain norm"))

    quick = folded(model, images)

    assert quick.pairs == 1
    torch.testing.assert_close(quick.model(images), model(images), rtol=0, atol=1e-5)


def test_a_second_use_of_the_convolution_is_found_by_the_check(images: Tensor) -> None:
    model = trained(Odd("second use"))

    quick = folded(model, images)

    assert quick.pairs == 0
    assert quick.note.startswith("not folded: the output would differ by 0.")
    assert isinstance(quick.model.get_submodule("norm"), nn.BatchNorm2d)
    assert quick.largest_difference < 1e-5
    torch.testing.assert_close(quick.model(images), model(images), rtol=0, atol=1e-5)


def test_a_convolution_with_a_weight_made_from_others_or_a_hook_is_left(images: Tensor) -> None:
    hooked, made = trained(Odd("plain")), trained(Odd("plain"))
    hooked.get_submodule("convolution").register_forward_hook(lambda module, inputs, output: 2 * output)
    nn.utils.parametrizations.spectral_norm(made.get_submodule("convolution"))

    for model in (hooked, made.eval()):
        quick = folded(model, images)

        assert (quick.pairs, quick.note) == (0, "")
        torch.testing.assert_close(quick.model(images), model(images), rtol=0, atol=1e-5)


def test_a_model_that_returns_no_tensor_is_not_folded(images: Tensor) -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = trained(Odd("plain"))

        def forward(self, images: Tensor, offset: Tensor) -> tuple[Tensor, Tensor]:
            logits = self.inner(images)
            return logits, logits + offset

    quick = folded(Pair(), (images, torch.ones(2, 2)))

    assert quick.pairs == 0
    assert quick.note == "not folded: the model returns a tuple, not one tensor"


def test_logits_that_are_not_finite_are_never_taken_for_equal(images: Tensor) -> None:
    quick = folded(trained(Odd("plain")), images * float("nan"))

    assert quick.pairs == 0
    assert "nan" in quick.note
