"""One step of training: what accumulation, lack of memory, frozen stages and averages make of it."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from evalcam_cli.config import RunConfig
from evalcam_cli.config_sources import load_config
from evalcam_cli.data.dataset import ImageDataset
from evalcam_cli.data.preprocessing import Preprocessing
from evalcam_cli.errors import MachineError, UsageError
from evalcam_cli.models.architectures import build_model
from evalcam_cli.training.position import TrainingState
from evalcam_cli.training.trainer import Trainer, is_out_of_memory
from evalcam_cli.world import World
from tests.conftest import TINY

CPU = torch.device("cpu")


def config(*assignments: str) -> RunConfig:
    tiny = [one for one in TINY if one != "--set"]
    return load_config(assignments=[*tiny, "train.epochs=3", *assignments])


def trainer_of(colours: Path, settings: RunConfig, model: nn.Module | None = None) -> Trainer:
    torch.manual_seed(0)
    paths = sorted(path.relative_to(colours).as_posix() for path in colours.rglob("*.png"))
    targets = [int("정상" in path) for path in paths]
    model = model or build_model("resnet18", 2)
    dataset = ImageDataset(colours, paths, Preprocessing(32, "pad"), max_pixels=10**6)
    return Trainer(model, dataset, targets, 2, settings, device=CPU, workers=0)


def weights_after(trainer: Trainer, epochs: int = 1) -> dict[str, torch.Tensor]:
    for epoch in range(epochs):
        trainer.train_epoch(TrainingState(epoch=epoch))
    return {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}


def without_batch_norm(model: nn.Module) -> nn.Module:
    """A network in which images do not meet, so that halves of a batch add up to the whole."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                setattr(parent, name, nn.GroupNorm(8, child.num_features))
    return model


def test_accumulated_batches_move_the_weights_as_one_batch_of_the_same_size(colours: Path) -> None:
    torch.manual_seed(0)
    start = without_batch_norm(build_model("resnet18", 2)).state_dict()
    found = []
    for settings in ("train.batch_size=16", "train.batch_size=4"):
        accumulate = f"train.accumulate={16 // int(settings[-2:].strip('='))}"
        model = without_batch_norm(build_model("resnet18", 2))
        model.load_state_dict(start)
        found.append(
            weights_after(
                trainer_of(colours, config(settings, accumulate, "train.optimizer=sgd", "train.lr=0.01"), model)
            )
        )

    for name, tensor in found[0].items():
        torch.testing.assert_close(tensor, found[1][name], rtol=1e-4, atol=1e-5)
    assert not torch.equal(found[0]["fc.weight"], start["fc.weight"])


class _Small(nn.Module):
    """A network for which memory is enough for so many images only."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.network, self.limit, self.calls = without_batch_norm(build_model("resnet18", 2)), limit, list[int]()

    def forward(self, images: torch.Tensor) -> Any:
        self.calls.append(len(images))
        if len(images) > self.limit:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried")
        return self.network(images)


def test_a_batch_that_does_not_fit_is_halved_and_the_steps_stay_what_they_are(
    colours: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torch.manual_seed(0)
    small, large = _Small(5), _Small(99)
    large.load_state_dict(small.state_dict())
    settings = config("train.batch_size=16", "train.optimizer=sgd", "train.lr=0.01")
    halved, whole = trainer_of(colours, settings, small), trainer_of(colours, settings, large)

    ends = [weights_after(one) for one in (halved, whole)]

    assert halved.at_once == 4
    assert halved.order.steps == whole.order.steps == 3
    assert small.calls == [16, 8, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4]
    assert [record.getMessage() for record in caplog.records] == [
        f"out of memory: going on with {count} images at a time and their gradients added up; "
        "steps still have 16 images"
        for count in (8, 4)
    ]
    for name, tensor in ends[0].items():
        torch.testing.assert_close(tensor, ends[1][name], rtol=1e-4, atol=1e-5)


def test_an_attempt_that_failed_leaves_no_trace_in_batch_norm(colours: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = trainer_of(colours, config("train.batch_size=8"))
    other = trainer_of(colours, config("train.batch_size=8"))
    other.at_once = 4
    loss, calls = trainer._loss, []

    def failing(*arguments: Any, **more: Any) -> torch.Tensor:
        calls.append(1)
        result = loss(*arguments, **more)
        if len(calls) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return result

    monkeypatch.setattr(trainer, "_loss", failing)

    ends = [weights_after(one) for one in (trainer, other)]

    assert all(torch.equal(tensor, ends[1][name]) for name, tensor in ends[0].items())


def test_when_not_even_one_image_fits_the_advice_says_what_to_lower(colours: Path) -> None:
    with pytest.raises(MachineError, match=r"1 images of 32 px.*\n.*batch_size.*image_size"):
        weights_after(trainer_of(colours, config("train.batch_size=4"), _Small(0)))


def test_other_errors_are_not_taken_for_lack_of_memory() -> None:
    assert not is_out_of_memory(RuntimeError("shape '[2]' is invalid"))
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried to"))


def test_stages_are_freed_one_after_the_other(colours: Path) -> None:
    trainer = trainer_of(colours, config("model.freeze=layer4", "model.thaw_every=1"))
    before = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}

    first = weights_after(trainer)
    trainer.train_epoch(TrainingState(epoch=1))
    second = trainer.model.state_dict()

    moved = [{name.split(".")[0] for name in before if not torch.equal(a[name], b[name])}
             for a, b in ((before, first), (first, second))]  # fmt: skip
    assert moved == [{"fc"}, {"fc", "layer4"}]


def test_a_stage_with_a_smaller_share_of_the_rate_moves_less(colours: Path) -> None:
    def moved(share: float) -> float:
        trainer = trainer_of(colours, config(f"train.stage_lr={share}"))
        before = trainer.model.get_parameter("layer1.0.conv1.weight").detach().clone()
        after = weights_after(trainer)["layer1.0.conv1.weight"]
        return (after - before).abs().mean().item()

    assert moved(0.5) < 0.2 * moved(1.0)


def test_the_average_is_what_is_used_and_lags_behind_the_weights(colours: Path) -> None:
    trainer = trainer_of(colours, config("train.ema=0.9"))

    weights = weights_after(trainer, 2)

    assert trainer.for_use is not trainer.model
    average = trainer.for_use.state_dict()
    assert set(average) == set(weights)
    assert not torch.equal(average["fc.weight"], weights["fc.weight"])
    plain = trainer_of(colours, config())
    assert plain.for_use is plain.model


@pytest.mark.parametrize(
    ("assignment", "text"),
    [("train.precision=fp16", "fp16 needs CUDA")],
)
def test_what_the_cpu_cannot_do_is_refused(colours: Path, assignment: str, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        trainer_of(colours, config(assignment))


@pytest.mark.parametrize(
    ("count", "processes", "at_once", "passes"),
    [
        (32, 1, 32, 1),
        (33, 1, 32, 1),
        (64, 1, 32, 2),
        (3, 1, 2, 1),
        (5, 1, 2, 2),
        (7, 1, 1, 7),
        (16, 8, 4, 2),
        (39, 8, 32, 1),
    ],
)
def test_a_step_is_made_in_passes_of_which_none_is_left_with_one_image(
    colours: Path, count: int, processes: int, at_once: int, passes: int
) -> None:
    trainer = trainer_of(colours, config())
    trainer.world, trainer.at_once = World(size=processes), at_once

    assert trainer._passes(count) == passes


def test_all_processes_make_equally_many_passes_and_none_is_empty(colours: Path) -> None:
    trainer = trainer_of(colours, config())
    for processes, at_once, count in itertools.product((1, 2, 3, 8), (1, 2, 4, 32), range(2, 100)):
        if count < 2 * processes:
            continue
        trainer.world, trainer.at_once = World(size=processes), at_once

        passes = trainer._passes(count)

        shares = [torch.arange(count)[rank::processes] for rank in range(processes)]
        parts = [[len(part) for part in share.tensor_split(passes)] for share in shares]
        assert min(map(min, parts)) >= 1, (processes, at_once, count)
        assert max(map(max, parts)) <= max(1, at_once // processes) + 1 + (passes == count // processes) * at_once


def test_a_joined_last_step_of_three_images_is_one_pass(colours: Path) -> None:
    """With 32 pixels batch norm cannot learn from a pass of one."""
    trainer = trainer_of(colours, config("train.batch_size=2"))
    trainer.order.targets = trainer.order.targets[:31]

    state = trainer.train_epoch(TrainingState())

    assert (state.step, state.seen) == (15, 31)


def test_compiled_the_step_is_the_same_but_for_rounding(colours: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[str] = []
    real = torch.compile

    def traced_only(network: Any) -> Any:  # no C++ compiler needed
        compiled.append(type(network).__name__)
        return real(network, backend="eager")

    monkeypatch.setattr(torch, "compile", traced_only)
    losses = []
    for assignment in ("train.compile=false", "train.compile=true"):
        trainer = trainer_of(colours, config(assignment))
        losses.append(trainer.train_epoch(TrainingState(), interrupted=lambda: True).loss_sum)

    assert compiled == ["ResNet"]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


def test_the_plain_layout_makes_the_same_step_but_for_rounding(colours: Path) -> None:
    def first_step(layout: str) -> tuple[float, torch.Tensor]:
        trainer = trainer_of(colours, config(f"train.channels_last={layout}"))
        state = trainer.train_epoch(TrainingState(), interrupted=lambda: True)
        gradient = trainer.model.get_parameter("layer1.0.conv1.weight").grad
        assert gradient is not None
        return state.loss_sum, gradient

    (fast_loss, fast), (plain_loss, plain) = first_step("true"), first_step("false")

    assert fast_loss == pytest.approx(plain_loss, rel=1e-3)
    assert torch.nn.functional.cosine_similarity(fast.flatten(), plain.flatten(), dim=0) > 0.999


def test_left_in_the_middle_and_taken_up_the_epoch_has_the_same_steps(colours: Path) -> None:
    whole, halves = (trainer_of(colours, config("train.mixup=0.4", "train.sampling=balanced")) for _ in range(2))
    expected = whole.train_epoch(TrainingState())
    asked = []

    def third_step() -> bool:
        asked.append(1)
        return len(asked) == 3

    middle = halves.train_epoch(TrainingState(), interrupted=third_step)
    end = halves.train_epoch(middle)

    assert middle.step == 3
    assert end == expected
    assert all(
        torch.equal(tensor, halves.model.state_dict()[name]) for name, tensor in whole.model.state_dict().items()
    )


def test_frozen_batch_norm_keeps_its_statistics_and_trains_its_weights(colours: Path) -> None:
    trainer = trainer_of(colours, config("model.freeze_batch_norm=true"))
    before = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}

    after = weights_after(trainer)

    assert torch.equal(after["layer2.0.bn1.running_mean"], before["layer2.0.bn1.running_mean"])
    assert not torch.equal(after["layer2.0.bn1.weight"], before["layer2.0.bn1.weight"])
