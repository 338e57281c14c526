"""Weights from elsewhere, read without running code from them."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from evalcam_cli.data.preprocessing import Preprocessing
from evalcam_cli.errors import CheckpointError, MachineError
from evalcam_cli.models.architectures import build_model
from evalcam_cli.models.checkpoint import Checkpoint, save_checkpoint
from evalcam_cli.models.weights import fit_weights, imagenet_weights, read_weights
from tests.benchmarks import damaged_checkpoints
from tests.zoo import malicious
from tests.zoo.cases import CANARY

SPARSE = torch.sparse_coo_tensor(torch.tensor([[0]]), torch.tensor([1.0]), (4,), check_invariants=True)


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    torch.manual_seed(1)
    return build_model("resnet18", 5).state_dict()


@pytest.mark.parametrize("form", ["plain", "module.", "_orig_mod.", "state_dict", "model", "safetensors"])
def test_every_usual_form_of_a_state_dict_gives_the_same_weights(
    state: dict[str, Tensor], tmp_path: Path, form: str
) -> None:
    path = tmp_path / "w.pt"
    if form == "safetensors":
        save_file(state, path)
    elif form.endswith("."):
        torch.save({form + name: tensor for name, tensor in state.items()}, path)
    else:
        torch.save(state if form == "plain" else {form: state, "epoch": 3}, path)
    model = build_model("resnet18", 5)

    kept_own_head = fit_weights(model, read_weights(path), place="here", new_head=False)

    assert not kept_own_head
    assert all(torch.equal(model.state_dict()[name], state[name]) for name in state)


def test_a_head_for_other_classes_is_replaced_and_the_rest_is_copied(state: dict[str, Tensor]) -> None:
    model = build_model("resnet18", 3)
    head = model.state_dict()["fc.weight"].clone()

    kept_own_head = fit_weights(model, state, place="here", new_head=True)

    assert kept_own_head
    assert torch.equal(model.state_dict()["fc.weight"], head)
    assert torch.equal(model.state_dict()["layer4.1.conv2.weight"], state["layer4.1.conv2.weight"])


def test_a_head_for_other_classes_is_refused_where_it_matters(state: dict[str, Tensor]) -> None:
    with pytest.raises(CheckpointError, match=r"fc.* has shape \(5"):
        fit_weights(build_model("resnet18", 3), state, place="here", new_head=False)


def test_another_architecture_is_refused_and_the_model_unchanged(state: dict[str, Tensor]) -> None:
    model = build_model("resnet34", 5)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    with pytest.raises(CheckpointError, match="another architecture"):
        fit_weights(model, state, place="here", new_head=True)

    assert all(torch.equal(model.state_dict()[name], before[name]) for name in before)


def test_half_precision_weights_are_widened(state: dict[str, Tensor], tmp_path: Path) -> None:
    half = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    torch.save(half, tmp_path / "w.pt")
    model = build_model("resnet18", 5)

    fit_weights(model, read_weights(tmp_path / "w.pt"), place="here", new_head=False)

    assert model.state_dict()["conv1.weight"].dtype == torch.float32


@pytest.mark.parametrize("unsafe", ["0", "1"])
def test_a_file_that_would_run_code_is_refused_and_not_run(
    tmp_path: Path, unsafe: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", unsafe)  # switches torch's own protection off where it can
    monkeypatch.setenv(CANARY, str(tmp_path / "canary"))
    path = tmp_path / "w.pt"
    for name, content in malicious.contents().items():
        path.write_bytes(content)

        with pytest.raises(CheckpointError, match="refused") as caught:
            read_weights(path)

        assert not (tmp_path / "canary").exists(), name
        assert "weights_only" not in str(caught.value)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_the_canary_is_there_whenever_such_a_file_is_loaded_the_unsafe_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = malicious.contents()
    path, canary = tmp_path / "w.pt", tmp_path / "canary"
    monkeypatch.setenv(CANARY, str(canary))
    run = []
    for name, content in contents.items():
        path.write_bytes(content)
        with contextlib.suppress(Exception):  # what the code leaves behind is often no value
            malicious.unsafe_load(path)
        if canary.exists():
            run.append(name)
            canary.unlink()

    assert run == [*contents]
    assert len(run) >= 20


@pytest.mark.parametrize("value", [[1, 2], {}, {"a": 3}, torch.ones(2), {"a": SPARSE}])
def test_what_is_no_state_dict_is_refused(tmp_path: Path, value: object) -> None:
    torch.save(value, tmp_path / "w.pt")

    with pytest.raises(CheckpointError, match=r"no state dict|other things|refused"):
        read_weights(tmp_path / "w.pt")


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("conv1.weight", lambda tensor: tensor * float("nan"), "NaN"),
        ("conv1.weight", lambda tensor: tensor.double() * 1e300, "NaN or infinite"),
        ("bn1.running_var", lambda tensor: -tensor, "negative variance"),
        ("conv1.weight", Tensor.long, "int64"),
        ("fc.bias", Tensor.bool, "bool"),
    ],
    ids=["NaN", "too large for a float32", "negative variance", "whole numbers", "booleans"],
)
def test_weights_that_make_no_sense_are_refused(
    state: dict[str, Tensor], name: str, change: Callable[[Tensor], Tensor], reason: str
) -> None:
    model = build_model("resnet18", 5)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    with pytest.raises(CheckpointError, match=reason):
        fit_weights(model, state | {name: change(state[name])}, place="here", new_head=False)

    assert all(torch.equal(model.state_dict()[name], before[name]) for name in before)


@pytest.mark.parametrize(
    ("form", "words"),
    [("module.", "'module.'"), ("before 1.6", "no checksum"), ("half", "float16"), ("plain", None)],
)
def test_what_was_done_to_foreign_weights_is_said(
    state: dict[str, Tensor], tmp_path: Path, caplog: pytest.LogCaptureFixture, form: str, words: str | None
) -> None:
    given = {
        "module.": {f"module.{name}": tensor for name, tensor in state.items()},
        "half": {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in state.items()},
    }.get(form, state)
    torch.save(given, tmp_path / "w.pt", _use_new_zipfile_serialization=form != "before 1.6")
    place = str(tmp_path / "w.pt")

    fit_weights(build_model("resnet18", 5), read_weights(tmp_path / "w.pt"), place=place, new_head=False)

    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == (words is not None)
    assert all(place in warning and str(words) in warning for warning in warnings)


def test_a_checkpoint_whose_description_lost_its_name_is_not_taken_for_foreign_weights(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_checkpoint(path, Checkpoint("resnet18", 2, ("a", "b"), Preprocessing(32, "pad")), {"a": torch.ones(2)})
    path.write_bytes(path.read_bytes().replace(b'"evalcam"', b'"evalcan"', 1))

    with pytest.raises(CheckpointError, match="damaged"):
        read_weights(path)


@pytest.mark.parametrize("form", ["native", "zip", "legacy"])
def test_damage_never_gives_other_weights_and_only_one_kind_of_error(tmp_path: Path, form: str) -> None:
    content = damaged_checkpoints.files(tmp_path)[form]

    result = damaged_checkpoints.damage(content, 100, seed=2)

    assert [*result.errors] == ["CheckpointError"]
    assert result.outcomes["other"] == 0 or form == "legacy"  # which has no checksum
    assert sum(result.outcomes.values()) >= 90


@pytest.mark.parametrize("form", ["native", "zip", "legacy"])
def test_mutants_give_only_one_kind_of_error(tmp_path: Path, form: str) -> None:
    content = damaged_checkpoints.files(tmp_path)[form]

    result = damaged_checkpoints.mutate(content, form, 334, seed=3)

    assert [*result.errors] == ["CheckpointError"]
    assert result.outcomes["other"] <= 2  # where a mutant names another tensor, with all checksums right
    assert result.slowest < 5


def test_a_damaged_download_is_found_before_it_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    cached = tmp_path / "hub" / "checkpoints" / "resnet18-f37072fd.pth"
    cached.parent.mkdir(parents=True)
    cached.write_bytes(b"PK\x03\x04")

    with pytest.raises(CheckpointError, match=r"resnet18-f37072fd.pth is damaged"):
        imagenet_weights("resnet18")


def test_a_refused_download_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def refuse(*args: object, **kwargs: object) -> None:
        raise URLError("no network")

    monkeypatch.setattr("torch.hub.download_url_to_file", refuse)

    with pytest.raises(MachineError) as caught:
        imagenet_weights("resnet18")

    assert "--weights none" in str(caught.value)
    assert "--weights FILE" in str(caught.value)


def test_cached_imagenet_weights_are_used_without_a_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The download cannot be made in a test; the way from the cache to the model can."""
    state = build_model("resnet18", 1000).state_dict()
    monkeypatch.setattr("torch.hub.load_state_dict_from_url", lambda *args, **kwargs: state)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *args, **kwargs: state)

    given, classes = imagenet_weights("resnet18")

    assert len(classes) == 1000
    assert classes[281] == "tabby"
    assert given.keys() == state.keys()
