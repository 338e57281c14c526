"""Traps in the numbers of a map: what comes after the layer, units, precision, and maps of nothing."""

import copy
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from evalcam_cli.explain.maps import layer_maps
from evalcam_cli.explain.targets import of_classes
from tests.benchmarks.explanation_parity import grad_cam_pp, x_grad_cam
from tests.benchmarks.explanation_parity_others import score_cam
from tests.benchmarks.explanation_peers import Tool, activations_and_gradients, largest_difference
from tests.explain.trap_models import (
    CLASSES,
    Rectified,
    Small,
    four_images,
    guided_gradients,
    plain_grad_cam,
    pooled,
    require_close,
    small,
)
from tests.explain.traps_state import explain


def right_after(after: Callable[[Small, Tensor], Tensor], tool: Tool) -> None:
    """The map of the block, whatever follows it."""
    model = small(after)
    require_close(explain(tool, model), plain_grad_cam(model, model.block, four_images(), CLASSES))


def second_relu(model: Small, features: Tensor) -> Tensor:
    """Leaves the logits, but stops gradients where the first ReLU gave 0."""
    return pooled(model, features.relu())  # type: ignore[no-any-return]


def scaled_in_place(model: Small, features: Tensor) -> Tensor:
    found: Tensor = pooled(model, features).div_(1.7)
    return found


def written_over(tool: Tool, *, functional_relu: bool) -> None:
    """The output of the layer itself is explained, not what an in-place operation makes of it."""
    relu = functional.relu if functional_relu else functional.leaky_relu

    def after(model: Small, features: Tensor) -> Tensor:
        relu(features, inplace=True)
        found: Tensor = pooled(model, features)
        return found

    model = small(after)
    model.block = nn.Sequential(*list(model.block)[:2])  # ends with the batch norm
    require_close(explain(tool, model), plain_grad_cam(model, model.block, four_images(), CLASSES))


def added_to(tool: Tool) -> None:
    """As a ResNet adds its shortcut to the output of the last batch norm."""

    def after(model: Small, features: Tensor) -> Tensor:
        features += torch.linspace(0, 1, 12)[:, None, None]
        found: Tensor = pooled(model, features)
        return found

    model = small(after)
    model.block = nn.Sequential(*list(model.block)[:2])
    require_close(explain(tool, model), plain_grad_cam(model, model.block, four_images(), CLASSES))


def no_pooling(tool: Tool) -> None:
    """As VGG: the head has weights for each place."""
    right_after(
        lambda model, features: functional.linear(features.flatten(1), torch.linspace(-1, 1, 5 * 768).view(5, -1)), tool
    )


def deeper_head(tool: Tool) -> None:
    mixing = torch.linspace(-1, 1, 144).view(12, 12)

    def after(model: Small, features: Tensor) -> Tensor:
        found: Tensor = model.fc(functional.gelu(functional.linear(features.mean(dim=(2, 3)), mixing)))
        return found

    right_after(after, tool)


def convolution_as_head(tool: Tool) -> None:
    """As SqueezeNet: classes are made at each place, then averaged."""
    right_after(
        lambda model, features: functional.conv2d(features, model.fc.weight[:, :, None, None]).relu().mean(dim=(2, 3)),
        tool,
    )


def all_classes_of_a_sparse_head(tool: Tool) -> None:
    """Class 0 has no weights, so its gradient says nothing about what follows the layer."""
    model = small(second_relu)
    with torch.no_grad():
        model.fc.weight[0] = 0
    maps = layer_maps(model, [model.block], four_images(), of_classes([[0, 1]] * 4))["gradcam"].maps
    assert not maps[:, 0].any(), "a map of nothing"
    require_close(maps[:, 1], plain_grad_cam(model, model.block, four_images(), [1] * 4))


def exact_grad_cam_pp(tool: Tool) -> None:
    """At the small gradients that global average pooling makes."""
    model = small()
    recorded = activations_and_gradients(model, model.block, four_images(), CLASSES)
    wanted = grad_cam_pp(*(each.double() for each in recorded))
    require_close(tool.maps["gradcam++"](model, model.block, four_images(), CLASSES), wanted, 1e-5)


def units_of_the_layer(tool: Tool) -> None:
    """Features a million times smaller and weights a million times larger: the same model, so the same map."""
    scale = 2.0**-20
    model = small(lambda model, features: pooled(model, features) / scale)
    with torch.no_grad():
        for parameter in model.block[1].parameters():  # the batch norm
            parameter.mul_(scale)
    recorded = activations_and_gradients(model, model.block, four_images(), CLASSES)
    wanted = x_grad_cam(*(each.double() for each in recorded))
    require_close(tool.maps["xgradcam"](model, model.block, four_images(), CLASSES), wanted)


def dead_channels(tool: Tool) -> None:
    """Channels that are 0 everywhere have no mean gradient, and add nothing."""
    model = small()
    with torch.no_grad():
        model.block[1].get_parameter("bias")[:4] = -1e3
    found = tool.maps["xgradcam"](model, model.block, four_images(), CLASSES)
    assert found.isfinite().all(), "NaN"
    require_close(found, plain_grad_cam(model, model.block, four_images(), CLASSES))  # with one slope per channel


def broken_image(tool: Tool) -> None:
    """A NaN in one image makes its map NaN, or is refused; it is not a map of zeros, and stays in that image."""
    model, images = small(), four_images()
    images[2, 0, 5, 5] = torch.nan
    expected = plain_grad_cam(model, model.block, four_images(), CLASSES)
    try:
        found = explain(tool, model, images)
    except (ValueError, FloatingPointError):
        return
    assert not found[2].isfinite().all(), "NaN is taken for 0"
    require_close(found[[0, 1, 3]], expected[[0, 1, 3]])


def half_precision(dtype: torch.dtype, tool: Tool) -> None:
    model = small()
    expected = plain_grad_cam(model, model.block, four_images(), CLASSES)
    found = explain(tool, copy.deepcopy(model).to(dtype), four_images().to(dtype))
    require_close(found.float(), expected, 0.1)
    found.numpy()  # which knows no bfloat16


def double_precision(tool: Tool) -> None:
    model = small().double()
    expected = plain_grad_cam(model, model.block, four_images().double(), CLASSES)
    require_close(explain(tool, model, four_images().double()), expected, 1e-8)


def channels_last(tool: Tool) -> None:
    model = small()
    expected = plain_grad_cam(model, model.block, four_images(), CLASSES)
    model = model.to(memory_format=torch.channels_last)
    require_close(explain(tool, model, four_images().to(memory_format=torch.channels_last)), expected)


def not_square(tool: Tool) -> None:
    model, images = small(), four_images(24, width=56)
    expected = plain_grad_cam(model, model.block, images, CLASSES)
    require_close(explain(tool, model, images), expected)
    assert tool.pictures(model, model.block, images, CLASSES).shape[1:] in ((24, 56), expected.shape[1:]), "transposed"


def one_by_one(tool: Tool) -> None:
    model = small()
    images = torch.randn(16, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    classes = [place % 5 for place in range(16)]
    together = tool.maps["gradcam"](model, model.block, images, classes)
    alone = [tool.maps["gradcam"](model, model.block, images[[place]], [classes[place]]) for place in range(16)]
    require_close(together, torch.cat(alone), 1e-6)


def units_of_the_score(tool: Tool) -> None:
    """A score in other units gives the same picture."""
    model = small()
    picture = tool.pictures(model, model.block, four_images(), CLASSES)
    model.fc.weight.data *= 2.0**-20
    found = tool.pictures(model, model.block, four_images(), CLASSES)
    difference = largest_difference(found, picture)
    assert difference <= 1e-3, f"off by {100 * difference:.2g} %"


def nothing_positive(tool: Tool) -> None:
    """The picture is plain, without NaN and without an exception."""
    model = small()
    model.fc.weight.data = -model.fc.weight.data.abs()
    picture = tool.pictures(model, model.block, four_images(), CLASSES)
    assert picture.isfinite().all(), "NaN"
    assert (picture.amax(dim=(1, 2)) == picture.amin(dim=(1, 2))).all(), "not plain"


def channels_in_another_order(tool: Tool) -> None:
    """The same network, so the same map; a singular vector has either sign."""
    wanted = tool.maps["eigencam"](model := small(), model.block, four_images(), CLASSES)
    for seed in range(4):
        order = torch.randperm(12, generator=torch.Generator().manual_seed(seed))
        model = small()
        convolution, norm = list(model.block)[:2]
        for parameter in (*convolution.parameters(), *norm.parameters(), norm.running_mean, norm.running_var):
            assert isinstance(parameter, Tensor)
            parameter.data = parameter.data[order]
        model.fc.weight.data = model.fc.weight.data[:, order]
        require_close(tool.maps["eigencam"](model, model.block, four_images(), CLASSES), wanted, 1e-3)


def ablation_of_signed_channels(tool: Tool) -> None:
    """A channel that is left out is 0, also where channels are negative."""
    model, images = small(), four_images()
    model.block = nn.Sequential(*list(model.block)[:2])  # ends with the batch norm
    found = tool.maps["ablationcam"](model, model.block, images, CLASSES)
    places = torch.arange(4)
    with torch.no_grad():
        activations = model.block(model.relu(model.norm(model.conv(model.stem(images)))))
        scores, weights = pooled(model, activations)[places, CLASSES], torch.zeros(4, 12)
        for channel in range(12):
            without = activations.clone()
            without[:, channel] = 0
            weights[:, channel] = (scores - pooled(model, without)[places, CLASSES]) / scores
    require_close(found, torch.einsum("nc,nchw->nhw", weights, activations), 1e-4)


def score_cam_masks(tool: Tool) -> None:
    """Enlarged over the pixels they stand for, then scaled to [0, 1]: algorithm 1 of the paper."""
    asked = (model := small()), model.block, four_images(), CLASSES
    require_close(tool.maps["scorecam"](*asked), score_cam(*asked))


def guided_batch(tool: Tool) -> None:
    wanted = guided_gradients(four_images(), CLASSES)
    require_close(
        tool.maps["guided-backprop"](model := Rectified(nn.ReLU()).eval(), model, four_images(), CLASSES), wanted
    )


def guided_one_image(rectify: Callable[[Tensor], Tensor], tool: Tool) -> None:
    """Right, or refused."""
    model, images = Rectified(rectify).eval(), four_images()[:1]
    try:
        found = tool.maps["guided-backprop"](model, model, images, CLASSES[:1])
    except Exception as error:
        raise AssertionError(f"{type(error).__name__}") from error
    plain = largest_difference(found.detach(), _gradient(model, images))
    assert plain > 1e-3, "the plain gradient without a word"
    require_close(found, guided_gradients(images, CLASSES[:1]))


def _gradient(model: nn.Module, images: Tensor) -> Tensor:
    leaf = images.detach().clone().requires_grad_()
    (found,) = torch.autograd.grad(model(leaf)[0, CLASSES[0]], leaf)
    return found


in_place_function = partial(functional.relu, inplace=True)
