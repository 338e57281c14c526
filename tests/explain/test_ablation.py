"""Ablation-CAM against its definition, channel by channel, and against two peers."""

from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import resnet18

from evalcam_cli.explain.ablation import ablation_cam
from evalcam_cli.explain.layers import LayerError
from evalcam_cli.explain.targets import Combination, Target, class_scores, of_classes
from tests.explain.test_maps import assert_same_state, state_of


class Small(nn.Module):
    """Two layers, global pooling, and a head that is linear or not; class 0 scores above 0, class 3 below."""

    def __init__(self, *, linear: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.ReLU())
        self.layer = nn.Sequential(nn.Conv2d(6, 9, 3, padding=1), nn.ReLU())
        self.head = nn.Linear(9, 4) if linear else nn.Sequential(nn.Linear(9, 8), nn.Tanh(), nn.Linear(8, 4))
        last = self.head if isinstance(self.head, nn.Linear) else cast(nn.Linear, self.head[-1])
        last.bias.data = torch.tensor([1.0, 0.5, 0.5, -1.0])
        cast(nn.Conv2d, self.layer[0]).bias.data[2] = -100  # type: ignore[union-attr]  # a channel that is always 0
        self.rows = 0

    def forward(self, images: Tensor) -> Tensor:
        features = self.layer(self.stem(images))
        self.rows += len(features)
        return cast(Tensor, self.head(features.mean(dim=(2, 3))))


@pytest.fixture
def images() -> Tensor:
    return torch.randn(3, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    torch.manual_seed(0)
    model: nn.Module = resnet18(num_classes=6)
    with torch.no_grad():
        for _ in range(2):
            model(torch.randn(4, 3, 64, 64))
        nn.init.normal_(model.get_parameter("fc.weight"), std=0.05)
    return model.eval()


CLASSES = [[0, 3], [1, 0], [2, 2]]


def by_definition(model: nn.Module, layer: nn.Module, images: Tensor, classes: list[list[int]]) -> Tensor:
    """The sum of (y - y_k) / y times A_k, by as many whole forward passes as there are channels."""
    kept: list[Tensor] = []
    with layer.register_forward_hook(lambda module, inputs, output: kept.append(output.detach())):
        logits = model(images).detach()
    (activations,) = kept
    y = logits.gather(1, torch.tensor(classes))
    maps = torch.zeros(*y.shape, *activations.shape[2:], dtype=images.dtype)
    for k in range(activations.shape[1]):
        without = activations.clone()
        without[:, k] = 0
        with layer.register_forward_hook(lambda module, inputs, output, new=without: new.clone()), torch.no_grad():
            y_k = model(images).gather(1, torch.tensor(classes))
        maps += ((y - y_k) / y)[..., None, None] * activations[:, None, k]
    return maps


@pytest.mark.parametrize("linear", [True, False], ids=["closed form", "forward passes"])
def test_equals_the_definition(images: Tensor, linear: bool) -> None:
    model = Small(linear=linear).double().eval()

    found = ablation_cam(model, model.layer, images, of_classes(CLASSES), rows=4)

    wanted = by_definition(model, model.layer, images, CLASSES)
    torch.testing.assert_close(found.maps, wanted, rtol=0, atol=1e-12 * float(wanted.abs().max()))


def test_an_inner_layer_equals_the_definition(images: Tensor) -> None:
    model = Small(linear=True).double().eval()

    found = ablation_cam(model, model.stem, images, of_classes(CLASSES))

    wanted = by_definition(model, model.stem, images, CLASSES)
    torch.testing.assert_close(found.maps, wanted, rtol=0, atol=1e-12 * float(wanted.abs().max()))


def test_a_linear_head_costs_one_forward_pass(images: Tensor) -> None:
    model = Small(linear=True).double().eval()

    ablation_cam(model, model.layer, images, of_classes(CLASSES))

    assert model.rows == len(images)


def test_all_scores_come_from_the_same_forward_passes_and_dead_channels_need_none(images: Tensor) -> None:
    model = Small(linear=False).double().eval()
    done: list[tuple[int, int]] = []

    ablation_cam(
        model, model.layer, images, of_classes([[0, 1, 2, 3]] * 3), rows=4,
        progress=lambda task, now, total, note="": done.append((now, total)),
    )  # fmt: skip

    looks, trials = 2 * len(images), 2 * len(images)
    assert model.rows == looks + trials + 8 * len(images)  # 8 of 9 channels are not always 0
    assert done == [(4, 8), (8, 8)]


def test_the_closed_form_is_the_share_of_the_logit_that_a_channel_has(resnet: nn.Module) -> None:
    """With a linear head, w_k = weight_k x mean(A_k) / y, so the weights sum to (y - bias) / y."""
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    weight, bias = resnet.get_parameter("fc.weight").detach(), resnet.get_parameter("fc.bias").detach()
    kept: list[Tensor] = []
    with resnet.get_submodule("layer4").register_forward_hook(lambda *seen: kept.append(seen[2].detach())):
        logits = resnet(images).detach()

    found = ablation_cam(resnet, resnet.get_submodule("layer4"), images, of_classes([[4], [1]]))

    features, y = kept[0].mean(dim=(2, 3)), logits[[0, 1], [4, 1]]
    shares = weight[[4, 1]] * features / y[:, None]
    torch.testing.assert_close(shares.sum(dim=1), (y - bias[[4, 1]]) / y)
    torch.testing.assert_close(found.maps[:, 0], torch.einsum("nc,nchw->nhw", shares, kept[0]))


@pytest.mark.parametrize("linear", [True, False], ids=["closed form", "forward passes"])
def test_a_score_below_0_turns_the_sign_and_the_note_says_so(images: Tensor, linear: bool) -> None:
    """Dividing by the score, the method cannot tell a score from its negative."""
    model = Small(linear=linear).double().eval()

    def negated(logits: Any) -> Combination:
        return class_scores(CLASSES, logits).negated()

    plain = ablation_cam(model, model.layer, images, of_classes(CLASSES))
    negative = ablation_cam(model, model.layer, images, negated)

    below = int((plain.scores < 0).sum())
    assert below > 0
    assert plain.note.startswith(f"{below} of 6 scores are below 0")
    torch.testing.assert_close(negative.maps, plain.maps)


def test_a_score_of_exactly_0_has_no_map(images: Tensor) -> None:
    model = Small(linear=True).double().eval()
    head = cast(nn.Linear, model.head)
    head.weight.data[1], head.bias.data[1] = 0, 0

    found = ablation_cam(model, model.layer, images, of_classes([[1, 0]] * 3))

    assert found.maps[:, 0].isnan().all()
    assert found.maps[:, 1].isfinite().all()
    assert found.note == "3 of 6 scores are 0, by which the method cannot divide: no map"


def test_any_scalar_is_explained_and_equals_the_class_when_it_is_one(images: Tensor) -> None:
    model = Small(linear=False).double().eval()
    target: Target = lambda logits: logits[:, [0]]  # noqa: E731

    found = ablation_cam(model, model.layer, images, target, rows=5)

    wanted = ablation_cam(model, model.layer, images, of_classes([[0]] * 3))
    torch.testing.assert_close(found.maps, wanted.maps)


def test_an_output_that_is_no_tensor_is_explained(images: Tensor) -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Small(linear=False)

        def forward(self, images: Tensor) -> dict[str, Tensor]:
            return {"logits": self.inner(images), "loss": torch.zeros(())}

    model = Named().double().eval()

    found = ablation_cam(model, model.inner.layer, images, lambda output: output["logits"][:, [0]])

    wanted = ablation_cam(model.inner, model.inner.layer, images, of_classes([[0]] * 3))
    torch.testing.assert_close(found.maps, wanted.maps)


def test_a_class_chosen_by_the_output_stays_the_class_in_every_copy(images: Tensor) -> None:
    model = Small(linear=False).double().eval()
    predicted = model(images).argmax(dim=1, keepdim=True)

    found = ablation_cam(
        model, model.layer, images, lambda logits: class_scores(logits.argmax(dim=1, keepdim=True), logits)
    )

    torch.testing.assert_close(found.maps, ablation_cam(model, model.layer, images, of_classes(predicted)).maps)


def test_an_image_has_the_same_map_alone_and_in_a_batch(images: Tensor) -> None:
    model = Small(linear=False).double().eval()
    together = ablation_cam(model, model.layer, images, of_classes(CLASSES))

    for place, image in enumerate(images):
        alone = ablation_cam(model, model.layer, image[None], of_classes([CLASSES[place]]))
        torch.testing.assert_close(alone.maps[0], together.maps[place])


@pytest.mark.parametrize("linear", [True, False], ids=["closed form", "forward passes"])
def test_the_model_is_left_as_it_was_and_the_callers_mode_does_not_matter(images: Tensor, linear: bool) -> None:
    model = Small(linear=linear).double().train()
    wanted = ablation_cam(model, model.layer, images, of_classes(CLASSES)).maps
    before = state_of(model)

    with torch.inference_mode():
        found = ablation_cam(model, model.layer, images.clone(), of_classes(CLASSES)).maps

    assert_same_state(before, state_of(model))
    torch.testing.assert_close(found, wanted)


def test_a_layer_without_feature_map_is_refused(images: Tensor) -> None:
    model = Small(linear=True).double().eval()

    with pytest.raises(LayerError, match="not a feature map"):
        ablation_cam(model, model.head, images, of_classes(CLASSES))


def test_equals_captum_in_double_precision(images: Tensor) -> None:
    captum = pytest.importorskip("captum.attr")
    model = Small(linear=False).double().eval()
    method = captum.LayerFeatureAblation(model, model.layer)
    channels = torch.arange(9).view(1, 9, 1, 1).expand(1, 9, 8, 8)
    kept: list[Tensor] = []
    with model.layer.register_forward_hook(lambda module, inputs, output: kept.append(output.detach())):
        logits = model(images).detach()
    indices = torch.tensor([0, 1, 2])

    found = ablation_cam(model, model.layer, images, of_classes(indices[:, None]))

    falls = method.attribute(images, target=indices, layer_baselines=0.0, layer_mask=channels)
    y = logits.gather(1, indices[:, None])[..., None, None]
    wanted = (falls / y * kept[0]).sum(dim=1)
    torch.testing.assert_close(found.maps[:, 0], wanted, rtol=0, atol=1e-8 * float(wanted.abs().max()))


@pytest.mark.parametrize("linear", [True, False], ids=["linear head", "other head"])
def test_equals_pytorch_grad_cam_where_the_smallest_activation_is_0(linear: bool) -> None:
    """Elsewhere it puts something near -1e7 in place of 0, which is not the paper's method."""
    pytest.importorskip("pytorch_grad_cam")
    model = Small(linear=linear).eval()
    images = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(3))

    for layer in (model.layer, model.stem):
        found = ablation_cam(model, layer, images, of_classes([[0], [3]])).maps[:, 0]

        wanted = of_grad_cam(model, layer, images, [0, 3])
        torch.testing.assert_close(found, wanted, rtol=0, atol=2e-5 * float(wanted.abs().max()))


def of_grad_cam(model: nn.Module, layer: nn.Module, images: Tensor, classes: list[int]) -> Tensor:
    """The map of pytorch-grad-cam before it is normalised."""
    from pytorch_grad_cam import AblationCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    raw: list[Any] = []

    class Raw(AblationCAM):  # type: ignore[misc, unused-ignore]
        def get_cam_image(self, *args: Any, **kwargs: Any) -> Any:
            raw.append(super().get_cam_image(*args, **kwargs))
            return raw[-1]

    with Raw(model, [layer]) as cam:
        cam(images, targets=[ClassifierOutputTarget(index) for index in classes])
    return torch.from_numpy(raw[0])


class _Named(nn.Module):
    """The logits in a dictionary, so that images cannot be run in copies."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"logits": self.inner(images)}


def test_where_nothing_is_active_nothing_can_be_left_out(images: Tensor) -> None:
    model = Small(linear=False).double().eval()
    cast(nn.Conv2d, model.layer[0]).bias.data[:] = -100  # type: ignore[union-attr]

    plain = ablation_cam(model, model.layer, images, of_classes(CLASSES))
    named = ablation_cam(_Named(model), model.layer, images, lambda output: output["logits"][:, :2])

    assert plain.maps.shape == named.maps.shape
    assert not plain.maps.any()
    assert not named.maps.any()
