"""What follows a layer, run alone, gives what the whole model gives."""

from collections.abc import Callable
from typing import cast

import pytest
import torch
import torchvision.models as zoo
from torch import Tensor, nn
from torch.nn import functional

from evalcam_cli.explain.layers import LayerError
from evalcam_cli.explain.tail import Tail, record_tail
from tests.explain.test_maps import assert_same_state, state_of


@pytest.fixture
def images() -> Tensor:
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def replaced(model: nn.Module, layer: nn.Module, inputs: tuple[Tensor, ...], activations: Tensor) -> Tensor:
    """The output of the whole model with the layer's output replaced by a hook."""
    with layer.register_forward_hook(lambda module, inputs, output: activations.clone()), torch.no_grad():
        return cast(Tensor, model(*inputs))


def runs_of(module: nn.Module, run: Callable[[], object]) -> int:
    """How often a module computes."""
    count = 0

    def add(module: nn.Module, inputs: object, output: object) -> None:
        nonlocal count
        count += 1

    inner = next(module.children(), module)  # a hook on a stand-in's inside does not fire
    with inner.register_forward_hook(add):
        run()
    return count


def small_vgg() -> nn.Module:
    features = zoo.vgg.make_layers([8, "M", 16, 16, "M", 16], batch_norm=True)
    return nn.Sequential(features, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, 9), nn.ReLU(), nn.Linear(9, 5))


NETWORKS: list[tuple[Callable[[], nn.Module], str]] = [
    (lambda: zoo.resnet18(num_classes=5), "layer4"),
    (lambda: zoo.resnet18(num_classes=5), "layer3.1.conv2"),  # inside a block whose input is still needed
    (lambda: zoo.resnet18(num_classes=5), "conv1"),
    (lambda: zoo.mobilenet_v2(num_classes=5, width_mult=0.25), "features.12.conv.1"),
    (lambda: zoo.DenseNet(8, (2, 3), 16, num_classes=5), "features.denseblock2.denselayer2.conv2"),
    (lambda: zoo.DenseNet(8, (2, 3), 16, num_classes=5), "features"),  # a functional in-place ReLU follows
    (small_vgg, "0.7"),
]


@pytest.mark.parametrize(("build", "name"), NETWORKS, ids=[name for _, name in NETWORKS])
def test_the_tail_equals_the_whole_model_with_the_layer_replaced(
    images: Tensor, build: Callable[[], nn.Module], name: str
) -> None:
    torch.manual_seed(0)
    model = build().eval().double()
    layer = model.get_submodule(name)
    images = images.double()

    tail = record_tail(model, layer, images)

    changed = tail.activations[1] * torch.rand(4, *tail.activations.shape[1:], dtype=torch.float64)
    wanted = replaced(model, layer, (images[1:2].repeat(4, 1, 1, 1),), changed)
    torch.testing.assert_close(tail(changed, 1), wanted, rtol=1e-12, atol=1e-12)
    assert tail.calls or name in ("conv1", "features")  # before which nothing runs
    assert not tail.cloned


def test_nothing_before_the_layer_runs_again(images: Tensor) -> None:
    torch.manual_seed(0)
    model = zoo.resnet18(num_classes=5).eval()
    tail = record_tail(model, model.get_submodule("layer4.1.conv1"), images)

    def run() -> object:
        return tail(tail.activations[:1], 0)

    assert [runs_of(model.get_submodule(name), run) for name in ("layer1", "layer3", "layer4.0", "layer4.1")] == [
        0, 0, 0, 1,
    ]  # fmt: skip


def test_the_model_and_the_images_are_as_they_were(images: Tensor) -> None:
    torch.manual_seed(0)
    model = zoo.resnet18(num_classes=5).train()
    before, kept = state_of(model), images.clone()

    tail = record_tail(model, model.get_submodule("layer3"), images)
    tail(tail.activations[:1].repeat(2, 1, 1, 1), 0)

    assert_same_state(before, state_of(model))
    assert not any("forward" in module.__dict__ for module in model.modules())
    assert torch.equal(images, kept)


class Odd(nn.Module):
    """A stem, a layer and a head, joined in a way that makes the tail hard to run alone."""

    def __init__(self, way: str) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.way = way
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.layer = nn.Conv2d(4, 4, 3, padding=1)
        self.question = nn.Linear(2, 4)
        self.head = nn.Linear(4, 5)
        self.fail = False

    def forward(self, images: Tensor, *others: Tensor) -> Tensor:
        features = self.norm(self.stem(images))
        if self.way == "relu in place":
            functional.relu_(features)
        if self.way == "adds in place":
            features += 1
        if self.way == "writes its input":
            images.mul_(2)
            features = features * images.mean(dim=(1, 2, 3), keepdim=True)
        if self.way == "mixes the batch" and len(images) > 2:
            features = features + images.mean()
        if self.way == "chance":
            features = features + torch.rand(())
        if self.way == "two inputs":
            features = features * self.question(others[0])[:, :, None, None]
        found = self.layer(features)
        if self.fail:
            raise RuntimeError("out of order")
        return cast(Tensor, self.head((found + features).relu_().mean(dim=(2, 3))))


@pytest.mark.parametrize("way", ["relu in place", "adds in place", "writes its input"])
def test_a_model_that_writes_into_recorded_values_is_given_copies(images: Tensor, way: str) -> None:
    model = Odd(way).eval()
    kept = images.clone()

    tail = record_tail(model, model.layer, images)

    assert tail.cloned
    assert tail.calls
    changed = torch.rand(4, *tail.activations.shape[1:])
    for _ in range(2):  # the first run has left the recorded values as they were
        wanted = replaced(model, model.layer, (kept[2:].repeat(4, 1, 1, 1),), changed)
        torch.testing.assert_close(tail(changed, 2), wanted)
    assert torch.equal(images, kept)


def test_further_inputs_go_with_their_image(images: Tensor) -> None:
    model, question = Odd("two inputs").eval(), torch.randn(3, 2)

    tail = record_tail(model, model.layer, (images, question))

    changed = torch.rand(2, *tail.activations.shape[1:])
    wanted = replaced(model, model.layer, (images[2:].repeat(2, 1, 1, 1), question[2:].repeat(2, 1)), changed)
    torch.testing.assert_close(tail(changed, 2), wanted)
    assert [module for module, _ in tail.calls] == [model.stem, model.norm, model.question]


def test_a_module_changed_by_a_hook_is_run_whole(images: Tensor) -> None:
    """The recorded value has the hook's change in it, and the hook would change it again."""
    model = Odd("plain").eval()
    with model.norm.register_forward_hook(lambda module, inputs, output: output * 2):
        tail = record_tail(model, model.layer, images)

        changed = torch.rand(2, *tail.activations.shape[1:])
        wanted = replaced(model, model.layer, (images[:1].repeat(2, 1, 1, 1),), changed)
        torch.testing.assert_close(tail(changed, 0), wanted)

    assert tail.calls == ()


def test_an_output_that_is_no_tensor_is_given_for_all_images(images: Tensor) -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Odd("plain")

        def forward(self, images: Tensor) -> dict[str, Tensor]:
            return {"logits": self.inner(images), "loss": torch.zeros(())}

    model = Named().eval()

    tail = record_tail(model, model.inner.layer, images)

    assert not tail.divisible
    assert tail.calls
    changed = tail.activations * 2
    wanted = replaced(model.inner, model.inner.layer, (images,), changed)
    torch.testing.assert_close(tail(changed)["logits"], wanted)


@pytest.mark.parametrize("way", ["mixes the batch", "chance"])
def test_an_output_that_is_not_the_images_own_is_refused(images: Tensor, way: str) -> None:
    model = Odd(way).eval()

    with pytest.raises(LayerError, match="depends on chance, or on the other images"):
        record_tail(model, model.layer, images)


def test_the_model_is_as_it_was_when_it_raises(images: Tensor) -> None:
    model = Odd("plain").train()
    tail = record_tail(model, model.layer, images)
    before = state_of(model)

    model.fail = True
    with pytest.raises(RuntimeError, match="out of order"):
        tail(tail.activations[:1], 0)
    with pytest.raises(RuntimeError, match="out of order"):
        record_tail(model, model.layer, images)

    assert_same_state(before, state_of(model))
    assert not any("forward" in module.__dict__ for module in model.modules())


def test_a_layer_that_does_not_run_once_is_refused(images: Tensor) -> None:
    model = Odd("plain").eval()
    relu = nn.ReLU()

    with pytest.raises(LayerError, match="'question' did not run"):
        record_tail(model, model.question, images)
    with pytest.raises(LayerError, match="ran 2 times"):
        record_tail(nn.Sequential(relu, relu), relu, images)
    with pytest.raises(LayerError, match="not a feature map"):
        record_tail(model, model.head, images)


def test_an_own_forward_of_an_instance_is_there_again(images: Tensor) -> None:
    model = Odd("plain").eval()
    own = model.stem.forward
    model.stem.forward = own  # type: ignore[method-assign]

    tail: Tail = record_tail(model, model.layer, images)
    tail(tail.activations[:1], 0)

    assert model.stem.__dict__["forward"] is own
