import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import resnet18

from evalcam_cli.errors import UsageError
from evalcam_cli.explain.formulas import FORMULAS, positive
from evalcam_cli.explain.layers import LayerError, find_layers
from evalcam_cli.explain.look import look
from evalcam_cli.explain.maps import Maps, layer_maps
from evalcam_cli.explain.targets import ClassIndices, Combination, class_scores, of_classes


def grad_cam(
    model: nn.Module, layer: nn.Module, images: Tensor, class_indices: ClassIndices | Callable[[Tensor], ClassIndices]
) -> Maps:
    """Grad-CAM of these classes, or of those that a function chooses from the logits."""

    def target(logits: Tensor) -> Combination:
        return class_scores(class_indices(logits) if callable(class_indices) else class_indices, logits)

    return layer_maps(model, [layer], images, target)["gradcam"]


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


class Twice(nn.Module):
    """A second ReLU after the layer's own, then global pooling and a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.layer4 = nn.Sequential(nn.Conv2d(3, 6, 3, stride=4), nn.ReLU())
        self.fc = nn.Linear(6, 3)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.layer4(images).relu().mean(dim=(2, 3)))
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

    contributions = result.output - resnet.get_parameter("fc.bias").detach()
    torch.testing.assert_close(result.maps.sum(dim=(2, 3)), contributions, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["layer1.0", "layer2", "layer3", "layer3.1.conv1", "layer4", "maxpool"])
def test_equals_a_plain_implementation_at_any_layer(resnet: nn.Module, images: Tensor, name: str) -> None:
    class_indices = torch.tensor([[0, 1], [4, 0], [2, 5], [3, 3]])
    layer = resnet.get_submodule(name)
    expected = plain_grad_cam(resnet, layer, images, class_indices)

    result = grad_cam(resnet, layer, images, class_indices)

    assert (result.maps - expected).abs().max() <= 2e-5 * expected.abs().max()
    with torch.no_grad():
        torch.testing.assert_close(result.output, resnet(images))


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

    best = result.output.topk(2)
    torch.testing.assert_close(result.scores, best.values)
    torch.testing.assert_close(result.maps, grad_cam(resnet, layer, images, best.indices.tolist()).maps)


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
        chosen = torch.ones(4, 1, dtype=torch.int64)  # chosen in that mode too
        result = grad_cam(small, small.layer4, images + 0, chosen)
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

    torch.testing.assert_close((result.output, result.maps), (expected.output, expected.maps), rtol=0, atol=0)


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


def test_a_model_that_normalises_in_place_leaves_the_images_as_they_were(small: Small, images: Tensor) -> None:
    copy = images.clone()
    small.register_forward_pre_hook(lambda module, inputs: inputs[0].sub_(1))

    grad_cam(small, small.layer4, images, [[0]] * 4)

    assert torch.equal(images, copy)


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

    assert result.maps.dtype == result.output.dtype == torch.float32
    assert (result.maps - expected).abs().max() <= 0.1 * expected.abs().max()


def test_autocast_has_full_precision_maps(resnet: nn.Module, images: Tensor) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        result = grad_cam(resnet, resnet.get_submodule("layer4"), images, [[0, 5]] * 4)

    assert result.maps.dtype == result.output.dtype == torch.float32
    contributions = (result.output - resnet.get_parameter("fc.bias").detach())[:, [0, 5]]
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

    with pytest.raises(LayerError, match="the score does not depend on layer 'spare'"):
        grad_cam(small, small.spare, images, [[0]] * 4)


def test_the_last_stage_is_the_default_layer(resnet: nn.Module) -> None:
    assert find_layers(resnet) == ("layer4", (resnet.get_submodule("layer4"),))
    assert find_layers(resnet, "layer3.1.conv2") == ("layer3.1.conv2", (resnet.get_submodule("layer3.1.conv2"),))


@pytest.mark.parametrize("name", ["layer44", ""])
def test_an_unknown_layer_is_refused(resnet: nn.Module, name: str) -> None:
    with pytest.raises(UsageError, match=f"no layer '{name}'"):
        find_layers(resnet, name)


def test_the_nearest_layer_is_proposed(resnet: nn.Module) -> None:
    with pytest.raises(UsageError, match=r"no layer 'layr4'; did you mean 'layer4'\?"):
        find_layers(resnet, "layr4")


def test_a_model_without_layer4_needs_a_layer() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4, 2))

    with pytest.raises(UsageError, match=r"Sequential has no layer4 to explain; choose a layer with --layer, e.g. '0'"):
        find_layers(model)


def test_several_layers_are_named_with_a_plus(resnet: nn.Module) -> None:
    assert find_layers(resnet, "layer3+layer4")[1] == (resnet.get_submodule("layer3"), resnet.get_submodule("layer4"))

    with pytest.raises(UsageError, match="named twice"):
        find_layers(resnet, "layer3+layer3")


@pytest.mark.parametrize("method", [name for name, formula in FORMULAS.items() if formula.dense])
def test_the_closed_form_is_what_differentiation_gives(resnet: nn.Module, images: Tensor, method: str) -> None:
    """Selvaraju et al. 2017, section 3.1, and its like for the other methods; the gradients are autograd's own."""
    model, inputs = copy.deepcopy(resnet).double(), images.double()
    class_indices = [[0, 5], [1, 4], [2, 3], [3, 3]]
    with look(model, [model.get_submodule("layer4")], inputs, of_classes(class_indices)) as seen:
        assert seen.slopes is not None
        formula = FORMULAS[method].dense
        assert formula is not None
        expected = torch.stack([formula(seen.activations[0], *seen.gradients(place)) for place in range(2)], dim=1)

    maps = layer_maps(model, [model.get_submodule("layer4")], inputs, of_classes(class_indices), [method])[method].maps

    assert (maps - expected).abs().max() <= 1e-13 * expected.abs().max()


def test_a_second_relu_is_not_taken_for_a_linear_head(images: Tensor) -> None:
    """The logits are the same with and without it, the gradients are not: it stops them where the first gave 0."""

    torch.manual_seed(0)
    model = Twice().double()
    class_indices = torch.zeros(4, 1, dtype=torch.int64)

    with look(model, [model.layer4], images.double(), of_classes(class_indices)) as seen:
        assert seen.slopes is None
    maps = grad_cam(model, model.layer4, images.double(), class_indices).maps

    torch.testing.assert_close(maps, plain_grad_cam(model, model.layer4, images.double(), class_indices))


def test_the_head_is_tried_out_with_every_score(images: Tensor) -> None:
    """A class without weights has the same gradient whatever follows the layer: it must not vouch for the others."""

    torch.manual_seed(0)
    model = Twice().double()
    with torch.no_grad():
        model.fc.weight[0] = 0
        model.fc.weight[1] *= 1e-6
    class_indices = torch.tensor([[0, 1, 2]] * 4)

    maps = grad_cam(model, model.layer4, images.double(), class_indices).maps

    torch.testing.assert_close(maps, plain_grad_cam(model, model.layer4, images.double(), class_indices))


def test_cam_is_grad_cam_times_the_number_of_positions(resnet: nn.Module, images: Tensor) -> None:
    """Selvaraju et al. 2017, section 3.1; Zhou et al. 2016, equation 2, whose F is here the mean."""
    found = layer_maps(resnet, [resnet.get_submodule("layer4")], images, of_classes([[1]] * 4), ["cam", "gradcam"])

    torch.testing.assert_close(found["cam"].maps, 4 * found["gradcam"].maps)


def test_cam_needs_a_linear_head(resnet: nn.Module, images: Tensor) -> None:
    with pytest.raises(LayerError, match="not so after layer 'layer3'"):
        layer_maps(resnet, [resnet.get_submodule("layer3")], images, of_classes([[1]] * 4), ["cam"])


def test_the_gap_of_the_sum_is_told_where_there_is_a_promise(resnet: nn.Module, images: Tensor) -> None:
    at_the_head = layer_maps(
        resnet, [resnet.get_submodule("layer4")], images, of_classes([[1, 2]] * 4), ["gradcam", "layercam"]
    )
    inside = layer_maps(resnet, [resnet.get_submodule("layer3")], images, of_classes([[1, 2]] * 4))

    gap = at_the_head["gradcam"].gap
    assert gap is not None
    assert gap.shape == (4, 2)
    assert 0 < gap.abs().max() < 1e-5
    assert at_the_head["layercam"].gap is inside["gradcam"].gap is None


def test_the_map_of_one_class_against_another_is_the_difference_of_their_maps(
    resnet: nn.Module, images: Tensor
) -> None:
    layer = resnet.get_submodule("layer3")
    one, other = (grad_cam(resnet, layer, images, [[index]] * 4) for index in (1, 4))

    def target(logits: Tensor) -> Combination:
        return class_scores([[1]] * 4, logits).against(class_scores([[4]] * 4, logits))

    contrast = layer_maps(resnet, [layer], images, target)["gradcam"]

    torch.testing.assert_close(contrast.maps, one.maps - other.maps, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(contrast.scores, one.scores - other.scores)


def test_the_counterfactual_map_is_the_negative_of_the_map(resnet: nn.Module, images: Tensor) -> None:
    """Selvaraju et al. 2017, section 3.3: the gradients are negated."""
    layer = resnet.get_submodule("layer4")

    negated = layer_maps(resnet, [layer], images, lambda logits: class_scores([[1]] * 4, logits).negated())["gradcam"]

    torch.testing.assert_close(negated.maps, -grad_cam(resnet, layer, images, [[1]] * 4).maps)


def test_any_scalar_of_the_output_can_be_explained(resnet: nn.Module, images: Tensor) -> None:
    layer = resnet.get_submodule("layer4")

    def log_probability(logits: Tensor) -> Tensor:
        return logits.log_softmax(dim=1)[:, :1]

    result = layer_maps(resnet, [layer], images, log_probability)["gradcam"]

    maps = grad_cam(resnet, layer, images, [list(range(6))] * 4).maps
    probabilities = result.output.softmax(dim=1)
    expected = maps[:, 0] - torch.einsum("nk,nkhw->nhw", probabilities, maps)  # d log p_0 / d logits = e_0 - p
    torch.testing.assert_close(result.maps[:, 0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (lambda output: output.sum(), r"shape \(\) instead of \(N, T\)"),
        (lambda output: output[:2], r"shape \(2, 6\) for 4 images"),
        (lambda output: output.argmax(dim=1, keepdim=True), "instead of"),
        (lambda output: "score", "a str"),
    ],
)
def test_a_target_without_one_row_of_scores_per_image_is_refused(
    resnet: nn.Module, images: Tensor, target: Callable[[Tensor], Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        layer_maps(resnet, [resnet.get_submodule("layer4")], images, target)


def test_maps_of_several_layers_are_fused_at_the_finest_resolution(resnet: nn.Module, images: Tensor) -> None:
    layers = [resnet.get_submodule(name) for name in ("layer4", "layer3")]
    alone = [grad_cam(resnet, layer, images, [[1]] * 4).maps for layer in layers]

    fused = layer_maps(resnet, layers, images, of_classes([[1]] * 4))["gradcam"].maps

    coarse, fine = (each / each.abs().amax(dim=(2, 3), keepdim=True) for each in alone)
    enlarged = torch.nn.functional.interpolate(coarse, (4, 4), mode="bilinear", align_corners=False)
    torch.testing.assert_close(fused, (enlarged + fine) / 2, rtol=1e-4, atol=1e-5)


def test_further_inputs_go_to_the_model(images: Tensor) -> None:
    """A model that takes images and something else with a row per image."""

    class Asked(Small):
        def forward(self, images: Tensor, factors: Tensor) -> Tensor:  # type: ignore[override]
            return super().forward(images) * factors

    torch.manual_seed(0)
    model = Asked().eval()
    factors = torch.tensor([[1.0], [2.0], [3.0], [4.0]])

    result = layer_maps(model, [model.layer4], (images, factors), of_classes([[1]] * 4))["gradcam"]

    plain = layer_maps(model, [model.layer4], (images, torch.ones(4, 1)), of_classes([[1]] * 4))["gradcam"]
    torch.testing.assert_close(result.maps, plain.maps * factors[:, :, None, None])
