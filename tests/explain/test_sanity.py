from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from evalcam_cli.explain.guided import guided_backprop
from evalcam_cli.explain.randomising import Stage, find_stages, randomised, single_stages
from evalcam_cli.explain.sanity import BOUND, DETAIL_BOUND, Change, check_sanity, compare, judge
from evalcam_cli.explain.targets import of_classes

SCENES = Path(__file__).parents[2] / "sample_data" / "scenes"
SIDE = 32
HEAD = Stage("the head", ("fc",))


class Deep(nn.Module):
    """Ten convolutions with batch norm and in-place ReLUs: deep enough for guided gradients to be all alike."""

    def __init__(self) -> None:
        super().__init__()
        widths = [3] + [16] * 10
        self.layers = nn.Sequential(
            *(
                nn.Sequential(
                    nn.Conv2d(before, after, 3, 2 if place in {2, 4, 7} else 1, 1), nn.BatchNorm2d(after), nn.ReLU(True)
                )
                for place, (before, after) in enumerate(pairwise(widths))
            )
        )
        self.fc = nn.Linear(16, 4)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.layers(images).mean(dim=(2, 3)))
        return logits


def read_scenes(count: int) -> tuple[Tensor, Tensor]:
    """The first images of each class, classes by turns."""
    pixels, targets = [], []
    folders = sorted(folder for folder in SCENES.iterdir() if folder.is_dir())
    for place in range(count):
        for index, folder in enumerate(folders):
            with Image.open(sorted(folder.iterdir())[place]) as image:
                pixels.append(np.asarray(image.convert("RGB").resize((SIDE, SIDE))).copy())
            targets.append(index)
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2) / 127.5 - 1, torch.tensor(targets)


@pytest.fixture(scope="module")
def scenes() -> tuple[Tensor, Tensor]:
    return read_scenes(20)


@pytest.fixture(scope="module")
def trained(scenes: tuple[Tensor, Tensor]) -> nn.Module:
    torch.manual_seed(0)
    images, targets = scenes
    model = Deep()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(12):
        for batch in torch.randperm(len(images)).view(-1, 16):
            optimizer.zero_grad()
            torch.autograd.backward(functional.cross_entropy(model(images[batch]), targets[batch]))
            optimizer.step()
    return model.eval()


@pytest.fixture(scope="module")
def asked(scenes: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return scenes[0][:8], scenes[1][:8]


def gradient(model: nn.Module, images: Tensor, class_indices: Tensor) -> Tensor:
    pixels = images.clone().requires_grad_()
    (found,) = torch.autograd.grad(model(pixels).gather(1, class_indices[:, None]).sum(), pixels)
    return found


def integrated(model: nn.Module, images: Tensor, class_indices: Tensor) -> Tensor:
    steps = [gradient(model, images * (step + 0.5) / 8, class_indices) for step in range(8)]
    return (images * torch.stack(steps).mean(dim=0)).sum(dim=1)


def grad_cam(model: nn.Module, images: Tensor, class_indices: Tensor) -> Tensor:
    assert isinstance(model, Deep)
    activations: Tensor = model.layers(images)
    return (activations * model.fc.weight[class_indices][..., None, None]).sum(dim=1).detach()


def guided(model: nn.Module, images: Tensor, class_indices: Tensor) -> Tensor:
    return guided_backprop(model, images, of_classes(class_indices[:, None])).maps[:, 0].abs()


def guided_cam(model: nn.Module, images: Tensor, class_indices: Tensor) -> Tensor:
    coarse = grad_cam(model, images, class_indices).clamp(min=0)[:, None]
    return guided(model, images, class_indices) * functional.interpolate(coarse, (SIDE, SIDE), mode="bilinear")[:, 0]


def brightness(model: nn.Module, images: Tensor, class_indices: Tensor) -> Tensor:
    """No explanation at all: the picture."""
    return images.mean(dim=1)


def mean_activation(model: nn.Module, images: Tensor, class_indices: Tensor) -> Tensor:
    """Like Eigen-CAM, a map without any score in it."""
    assert isinstance(model, Deep)
    activations: Tensor = model.layers(images)
    return activations.mean(dim=1).detach()


def test_grad_cam_and_integrated_gradients_pass(trained: nn.Module, asked: tuple[Tensor, Tensor]) -> None:
    stages = find_stages(trained, asked[0], blocks=1)
    for method in (grad_cam, integrated):
        verdict = check_sanity(method, trained, *asked, stages=stages)

        assert verdict.outcome == "passes", verdict.sentence
        assert verdict.sentence.startswith("passes the sanity check: changes when the head is randomised (Spearman")


def test_guided_backpropagation_fails_and_says_so(trained: nn.Module, asked: tuple[Tensor, Tensor]) -> None:
    verdict = check_sanity(guided, trained, *asked, stages=[HEAD])

    assert verdict.outcome == "fails", verdict.sentence
    assert verdict.sentence.startswith("fails the sanity check: hardly changes when the head is randomised (Spearman")


def test_guided_grad_cam_keeps_its_detail_while_its_coarse_map_changes(
    trained: nn.Module, asked: tuple[Tensor, Tensor]
) -> None:
    verdict = check_sanity(guided_cam, trained, *asked, stages=[HEAD])

    (changed,) = verdict.changes
    assert np.nanmean(changed.whole) < BOUND
    assert np.nanmean(changed.detail) > DETAIL_BOUND
    assert verdict.outcome != "passes"
    assert "fine detail" in verdict.sentence


def test_a_map_without_the_score_fails_at_the_head_and_one_without_the_model_everywhere(
    trained: nn.Module, asked: tuple[Tensor, Tensor]
) -> None:
    scoreless = check_sanity(mean_activation, trained, *asked)
    picture = check_sanity(brightness, trained, *asked)

    assert scoreless.sentence.endswith("when the head is randomised (Spearman 1.00)")
    assert [round(float(change.whole.mean()), 6) for change in picture.changes] == [1.0] * 5
    assert np.nanmean(scoreless.changes[-1].whole) < 0.9


def test_the_model_and_the_generator_are_as_before(trained: nn.Module, asked: tuple[Tensor, Tensor]) -> None:
    before = {name: value.clone() for name, value in trained.state_dict().items()}
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)

    check_sanity(grad_cam, trained, *asked, seeds=(0,))

    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(value, before[name]) for name, value in trained.state_dict().items())
    assert not any(module._forward_pre_hooks for module in trained.modules())


def test_the_same_seed_gives_the_same_verdict(trained: nn.Module, asked: tuple[Tensor, Tensor]) -> None:
    first, again = (check_sanity(grad_cam, trained, *asked, stages=[HEAD], seeds=(7,)) for _ in range(2))
    other = check_sanity(grad_cam, trained, *asked, stages=[HEAD], seeds=(8,))

    np.testing.assert_array_equal(first.changes[0].whole, again.changes[0].whole)
    assert not np.allclose(first.changes[0].whole, other.changes[0].whole)


def test_stages_begin_with_the_head_and_end_with_all_layers(trained: nn.Module, asked: tuple[Tensor, Tensor]) -> None:
    stages = find_stages(trained, asked[0])

    assert stages[0] == HEAD
    assert [len(stage.layers) for stage in stages] == sorted(len(stage.layers) for stage in stages)
    assert stages[-1].name == "all layers"
    assert len(stages[-1].layers) == 21  # 10 convolutions, 10 batch norms, 1 linear layer
    for above, below in pairwise(stages):
        assert below.layers[-len(above.layers) :] == above.layers
        assert below.layers[0].endswith(".0")  # a batch norm goes with its convolution


def test_single_stages_divide_the_layers(trained: nn.Module, asked: tuple[Tensor, Tensor]) -> None:
    alone = single_stages(trained, asked[0], blocks=3)

    names = [name for stage in alone for name in stage.layers]
    assert len(names) == len(set(names)) == 21
    assert len(alone[0].layers) == 1


def test_only_the_head_of_a_copy_changes(trained: nn.Module, asked: tuple[Tensor, Tensor]) -> None:
    twin = randomised(trained, HEAD, asked[0], seed=0)

    changed = [
        name
        for (name, value), other in zip(trained.state_dict().items(), twin.state_dict().values(), strict=True)
        if not torch.equal(value, other)
    ]
    assert changed == ["fc.weight", "fc.bias"]


def test_a_signal_still_arrives_when_all_layers_are_random(trained: nn.Module, asked: tuple[Tensor, Tensor]) -> None:
    images, class_indices = asked

    twin = randomised(trained, find_stages(trained, images)[-1], images, seed=0)

    assert not twin.training
    spread = twin.get_submodule("layers")(images).std(dim=0).mean()
    assert 0.1 < float(spread.detach()) < 1  # ReLUs of standardised values differ between images
    assert float(gradient(twin, images, class_indices).abs().amax(dim=(1, 2, 3)).min()) > 0


def test_batch_norms_above_a_randomised_layer_take_new_statistics(
    trained: nn.Module, asked: tuple[Tensor, Tensor]
) -> None:
    twin = randomised(trained, Stage("one layer", ("layers.4.0",)), asked[0], seed=0)

    before, after = (
        [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)] for model in (trained, twin)
    )
    for place, (one, other) in enumerate(zip(before, after, strict=True)):
        assert one.running_mean is not None
        assert other.running_mean is not None
        assert torch.equal(one.running_mean, other.running_mean) == (place < 4)
        assert torch.equal(one.weight, other.weight)
        assert other.momentum == one.momentum


def test_a_model_without_layers_that_can_be_randomised_is_refused() -> None:
    with pytest.raises(ValueError, match="none can be randomised"):
        find_stages(nn.Flatten(), torch.zeros(1, 3, 4, 4))


def test_whole_correlations_are_spearmans() -> None:
    generator = torch.Generator().manual_seed(0)
    one = torch.randint(0, 9, (3, 6, 5), generator=generator).double()  # with ties
    other = torch.randint(0, 9, (3, 6, 5), generator=generator).double()

    whole, detail = compare(one, other)

    expected = [scipy.stats.spearmanr(a.ravel(), b.ravel()).statistic for a, b in zip(one, other, strict=True)]
    np.testing.assert_allclose(whole, expected)
    assert np.isnan(detail).all()  # too coarse


def test_detail_is_blind_to_what_varies_slowly_and_to_what_is_masked() -> None:
    generator = torch.Generator().manual_seed(0)
    texture = torch.rand(1, 32, 32, generator=generator).double() + 1
    tiles = torch.rand(1, 8, 8, generator=generator).double() + 0.1
    tiles[0, :2] = 0
    masked = texture * tiles.repeat_interleave(4, dim=1).repeat_interleave(4, dim=2)

    whole, detail = compare(texture, masked)

    assert detail == pytest.approx(1)
    assert whole[0] < 0.7


def test_constant_maps_are_not_compared() -> None:
    whole, detail = compare(torch.zeros(2, 32, 32), torch.rand(2, 32, 32))

    assert np.isnan(whole).all()
    assert np.isnan(detail).all()


def change(whole: Sequence[float], detail: Sequence[float] = (), name: str = "the head") -> Change:
    """Of one image, by seed."""
    of_detail = np.array(detail)[:, None] if detail else np.full((len(whole), 1), np.nan)
    return Change(Stage(name, ("fc",)), np.array(whole)[:, None], of_detail)


@pytest.mark.parametrize(
    ("changes", "outcome", "sentence"),
    [
        ([change([0.9, 0.92, 0.97])], "fails", "hardly changes when the head is randomised (Spearman 0.93)"),
        ([change([0.1, 0.9, 0.2])], "passes", "changes when the head is randomised (Spearman 0.40)"),
        ([change([0.9, 0.7, 0.9])], "undecided", "random weights when the head is randomised (Spearman 0.70 to 0.90)"),
        ([change([-0.9, -1.0])], "passes", "changes when the head is randomised (Spearman -0.95)"),
        ([change([0.1] * 2, [0.7] * 2)], "fails", "(Spearman of the fine detail 0.70)"),
        ([change([np.nan] * 3)], "undecided", "too many maps are constant when the head is randomised"),
        (
            [change([0.1] * 3), change([0.9] * 3, name="all layers")],
            "fails",
            "hardly changes when all layers are randomised (Spearman 0.90)",
        ),
        ([change([0.95] * 3), change([0.1] * 3, name="all layers")], "fails", "the head is randomised (Spearman 0.95)"),
    ],
)
def test_the_verdict_is_that_of_the_worst_stage(changes: list[Change], outcome: str, sentence: str) -> None:
    verdict = judge(changes)

    assert verdict.outcome == outcome
    assert sentence in verdict.sentence
