"""Score-CAM against its algorithm, written out channel by channel, and against two peers."""

from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from evalcam_cli.explain.layers import LayerError
from evalcam_cli.explain.score_cam import score_cam
from evalcam_cli.explain.targets import class_scores, of_classes
from tests.explain.test_maps import assert_same_state, state_of


class Small(nn.Module):
    """Layers at the image's size and at a quarter of it; two channels of `layer` are the same everywhere."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fine = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.Tanh())
        self.layer = nn.Sequential(nn.Conv2d(6, 9, 5, stride=4, padding=2), nn.ReLU())
        self.head = nn.Sequential(nn.Linear(9, 8), nn.Tanh(), nn.Linear(8, 4))
        coarse = cast(nn.Conv2d, self.layer[0])
        coarse.weight.data[3] = coarse.weight.data[6] = 0
        assert coarse.bias is not None
        coarse.bias.data[3], coarse.bias.data[6] = 0.7, -1
        self.rows = 0

    def forward(self, images: Tensor) -> Tensor:
        self.rows += len(images)
        return cast(Tensor, 3 * self.head(self.layer(self.fine(images)).mean(dim=(2, 3))))


@pytest.fixture
def images() -> Tensor:
    return torch.randn(3, 3, 16, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def model() -> Small:
    return Small().double().eval()


CLASSES = [[0, 3], [1, 0], [2, 2]]


def by_algorithm(model: nn.Module, layer: nn.Module, images: Tensor, classes: list[list[int]]) -> Tensor:
    """Algorithm 1 of the paper, one image, class and channel at a time, with its baseline."""
    maps = []
    for image, indices in zip(images, classes, strict=True):
        kept: list[Tensor] = []
        with layer.register_forward_hook(lambda module, inputs, output, into=kept: into.append(output[0])):
            model(image[None])
        (activations,) = kept
        black = model(torch.zeros_like(image)[None])[0]
        for index in indices:
            raised = []
            for channel in activations:
                mask = functional.interpolate(channel[None, None], image.shape[1:], mode="bilinear")[0]
                if channel.max() > channel.min():
                    mask = (mask - mask.min()) / (mask.max() - mask.min())
                else:
                    mask = torch.zeros_like(mask)
                raised.append(model((image * mask)[None])[0, index] - black[index])
            weights = torch.stack(raised).exp() / torch.stack(raised).exp().sum()
            maps.append((weights[:, None, None] * activations).sum(dim=0).detach())
    return torch.stack(maps).view(len(images), -1, *maps[0].shape)


@pytest.mark.parametrize("name", ["layer", "fine"])
def test_equals_the_algorithm(model: Small, images: Tensor, name: str) -> None:
    layer = model.get_submodule(name)

    found = score_cam(model, layer, images, of_classes(CLASSES), rows=7)

    wanted = by_algorithm(model, layer, images, CLASSES)
    torch.testing.assert_close(found.maps, wanted, rtol=0, atol=1e-12 * float(wanted.abs().max()))


def test_all_scores_come_from_the_same_forward_passes_and_constant_channels_share_one(
    model: Small, images: Tensor
) -> None:
    done: list[tuple[int, int]] = []

    score_cam(
        model, model.layer, images, of_classes([[0, 1, 2, 3]] * 3), rows=9,
        progress=lambda task, now, total, note="": done.append((now, total)),
    )  # fmt: skip

    assert model.rows == len(images) * (1 + 7 + 1)  # as they are, 7 varied channels, the black image
    assert done == [(3, 7), (6, 7), (7, 7)]


def test_a_map_is_a_mean_of_the_channels(model: Small, images: Tensor) -> None:
    activations = model.layer(model.fine(images)).detach()

    found = score_cam(model, model.layer, images, of_classes(CLASSES))

    assert (found.maps >= activations.amin(dim=1, keepdim=True)).all()
    assert (found.maps <= activations.amax(dim=1, keepdim=True)).all()


def test_any_scalar_is_explained_and_equals_the_class_when_it_is_one(model: Small, images: Tensor) -> None:
    found = score_cam(model, model.layer, images, lambda logits: logits[:, [0]])

    wanted = score_cam(model, model.layer, images, of_classes([[0]] * 3))
    torch.testing.assert_close(found.maps, wanted.maps)


def test_a_class_chosen_by_the_output_stays_the_class_in_every_copy(model: Small, images: Tensor) -> None:
    predicted = model(images).argmax(dim=1, keepdim=True)

    found = score_cam(
        model, model.layer, images, lambda logits: class_scores(logits.argmax(dim=1, keepdim=True), logits)
    )

    torch.testing.assert_close(found.maps, score_cam(model, model.layer, images, of_classes(predicted)).maps)


def test_an_image_has_the_same_map_alone_and_in_a_batch(model: Small, images: Tensor) -> None:
    together = score_cam(model, model.layer, images, of_classes(CLASSES))

    for place, image in enumerate(images):
        alone = score_cam(model, model.layer, image[None], of_classes([CLASSES[place]]), rows=3)
        torch.testing.assert_close(alone.maps[0], together.maps[place])


def test_a_constant_channel_in_one_image_only_is_masked_away_there(model: Small, images: Tensor) -> None:
    """A flat image has flat channels but for the padded border, which a convolution without padding does not see."""
    flat = nn.Sequential(nn.Conv2d(3, 5, 4, stride=4), nn.ReLU()).double()
    whole = nn.Sequential(flat, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 4)).double().eval()
    both = images[:2].clone()
    both[0] = 0.3

    found = score_cam(whole, flat, both, of_classes([[0], [1]]))

    wanted = by_algorithm(whole, flat, both, [[0], [1]])
    torch.testing.assert_close(found.maps, wanted)
    assert found.maps[0, 0].std() < 1e-12


def test_the_model_and_the_images_are_left_as_they_were(model: Small, images: Tensor) -> None:
    wanted = score_cam(model, model.layer, images, of_classes(CLASSES)).maps
    model.train()
    before, kept = state_of(model), images.clone()

    with torch.inference_mode():
        found = score_cam(model, model.layer, images, of_classes(CLASSES)).maps

    assert_same_state(before, state_of(model))
    assert torch.equal(images, kept)
    torch.testing.assert_close(found, wanted)


def test_a_layer_without_feature_map_is_refused(model: Small, images: Tensor) -> None:
    with pytest.raises(LayerError, match="not a feature map"):
        score_cam(model, model.head, images, of_classes(CLASSES))


def test_equals_torchcam_where_nothing_is_enlarged(model: Small, images: Tensor) -> None:
    """Where it enlarges, it scales to 0 and 1 before that; the algorithm says after."""
    methods: Any = pytest.importorskip("torchcam.methods")
    indices = [row[0] for row in CLASSES]

    with methods.ScoreCAM(model, "fine", batch_size=5, input_shape=(3, 16, 24)) as extractor:
        model(images)
        (wanted,) = extractor(indices, normalized=False)

    found = score_cam(model, model.fine, images, of_classes(CLASSES)).maps[:, 0]
    torch.testing.assert_close(found.clamp(min=0), wanted, rtol=0, atol=1e-8 * float(wanted.abs().max()))


def test_equals_pytorch_grad_cam_when_it_aligns_pixel_areas(
    model: Small, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It enlarges with align_corners=True, which moves a mask by up to half a cell; put right, the maps agree.

    But for a constant channel above 0: it scales the rounding errors of enlarging it to a mask from 0 to 1.
    """
    peer: Any = pytest.importorskip("pytorch_grad_cam")
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    model, images, raw = model.float(), images.float(), []
    cast(Tensor, cast(nn.Conv2d, model.layer[0]).bias).data[3] = -1  # a channel of zeros, which it masks away too

    def keep(self: Any, *args: Any, **kwargs: Any) -> Any:
        raw.append(peer.base_cam.BaseCAM.get_cam_image(self, *args, **kwargs))
        return raw[-1]

    monkeypatch.setattr(peer.ScoreCAM, "get_cam_image", keep)
    monkeypatch.setattr(nn, "UpsamplingBilinear2d", lambda size: nn.Upsample(tuple(size), mode="bilinear"))
    with peer.ScoreCAM(model, [model.layer]) as cam:
        cam(images, targets=[ClassifierOutputTarget(row[0]) for row in CLASSES])

    found = score_cam(model, model.layer, images, of_classes(CLASSES)).maps[:, 0]
    wanted = torch.from_numpy(raw[0])
    torch.testing.assert_close(found, wanted, rtol=0, atol=2e-5 * float(wanted.abs().max()))


def test_where_all_channels_are_constant_all_weigh_the_same(model: Small, images: Tensor) -> None:
    """As after a layer that has a single place left: all masks are 0, so all masked images are the same."""
    pooled = nn.Sequential(model.fine, model.layer, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(9, 4).double())

    found = score_cam(pooled, pooled[2], images, of_classes(CLASSES))

    mean = model.layer(model.fine(images)).mean(dim=(1, 2, 3)).detach()
    torch.testing.assert_close(found.maps, mean[:, None, None, None].expand(3, 2, 1, 1))
