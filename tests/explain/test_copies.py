"""What all methods at the input's resolution have in common."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from evalcam_cli.explain.guided import guided_backprop, guided_grad_cam
from evalcam_cli.explain.maps import Maps
from evalcam_cli.explain.occlusion import occlusion
from evalcam_cli.explain.pixel_gradients import gradient, integrated_gradients, smooth_grad
from evalcam_cli.explain.targets import of_classes
from tests.explain.networks import Conditioned, Functional, build, difference, make_images, state_of


def _guided_grad_cam(model: nn.Module, *arguments: Any) -> Maps:
    name = {"Residual": "layer2", "Functional": "first", "Conditioned": "convolution"}[type(model).__name__]
    return guided_grad_cam(model, *arguments, layers=[model.get_submodule(name)])


METHODS: dict[str, Callable[..., Maps]] = {
    "guided backprop": guided_backprop,
    "guided Grad-CAM": _guided_grad_cam,
    "gradient": gradient,
    "SmoothGrad": partial(smooth_grad, copies=3),
    "integrated gradients": partial(integrated_gradients, steps=3),
    "occlusion": partial(occlusion, window=20, stride=15),
}
CLASS_INDICES = torch.tensor([[0, 3], [4, 1], [2, 2]])
each_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)


@each_method
@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_the_model_is_left_as_it_was(method: Callable[..., Maps], mode: Callable[[], Any]) -> None:
    model = build("residual", torch.float32).train()
    model.get_submodule("layer1").eval()
    model.get_parameter("fc.bias").requires_grad_(False)
    images = make_images(dtype=torch.float32)
    with mode():
        before, unseen = state_of(model), (images.clone(), torch.get_rng_state())
        result = method(model, images.clone(), of_classes(CLASS_INDICES))
        after = state_of(model)

    assert after == before
    assert result.maps.shape == (3, 2, 40, 40)
    assert result.maps.abs().max() > 0
    assert not (result.maps.requires_grad)
    assert not (result.scores.requires_grad)
    assert not (result.output.requires_grad)
    torch.testing.assert_close(images, unseen[0], rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), unseen[1])


@each_method
def test_the_model_is_left_as_it_was_after_an_exception(method: Callable[..., Maps]) -> None:
    model = build("residual", torch.float32).train()
    calls: list[int] = []

    def target(output: Tensor) -> Tensor:
        calls.append(len(output))
        if len(calls) == 2 or method in (guided_backprop, gradient):
            raise RuntimeError("in the middle")
        return output[:, :1]

    before = state_of(model)
    with pytest.raises(RuntimeError, match="in the middle"):
        method(model, make_images(dtype=torch.float32), target)

    assert state_of(model) == before


@each_method
def test_an_image_has_the_same_maps_alone_and_in_a_batch(method: Callable[..., Maps]) -> None:
    model, images = build("residual"), make_images()

    together = method(model, images, of_classes(CLASS_INDICES))

    alone = [method(model, images[n : n + 1], of_classes(CLASS_INDICES[n : n + 1])).maps for n in range(3)]
    assert difference(torch.cat(alone), together.maps) < 1e-10


@each_method
def test_a_model_that_writes_into_its_input_changes_neither_the_images_nor_the_maps(
    method: Callable[..., Maps],
) -> None:
    torch.manual_seed(0)
    model, images = Functional().double(), make_images()
    before = images.clone()

    found = method(model, images, of_classes(CLASS_INDICES))

    assert torch.equal(images, before)
    torch.testing.assert_close(found.scores, model(before.clone()).gather(1, CLASS_INDICES).detach())
    assert torch.equal(found.maps, method(model, images, of_classes(CLASS_INDICES)).maps)


@each_method
def test_further_inputs_go_with_their_image_and_any_scalars_are_explained(method: Callable[..., Maps]) -> None:
    torch.manual_seed(0)
    model, images = Conditioned().double(), make_images()
    scale = torch.tensor([[1.0], [2.0], [0.0]]).double()

    def target(output: dict[str, Tensor]) -> Tensor:
        answers = output["answers"]
        return torch.stack([answers[:, 0], answers[:, 1] - answers[:, 2]], dim=1)

    found = method(model, (images, scale), target)

    wanted = method(model, (images, torch.ones_like(scale)), target)
    factors = scale[:, :, None, None] ** (2 if method is _guided_grad_cam else 1)
    torch.testing.assert_close(found.maps, factors * wanted.maps)
    assert (found.maps[2] == 0).all() or method is METHODS["occlusion"]


@each_method
def test_a_scalar_of_a_tensor_output_is_explained_like_the_class_that_it_is(method: Callable[..., Maps]) -> None:
    model, images = build("residual"), make_images()

    found = method(model, images, lambda logits: logits.gather(1, CLASS_INDICES))

    assert difference(found.maps, method(model, images, of_classes(CLASS_INDICES)).maps) < 1e-10
