"""Weights from elsewhere, read without running code from them."""

import os
import pickle
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from evalcam_cli.errors import CheckpointError, MachineError
from evalcam_cli.models.architectures import build_model
from evalcam_cli.models.weights import fit_weights, imagenet_weights, read_weights

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


class Canary:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[object, tuple[str, int]]:
        return os.open, (self.path, os.O_CREAT)


@pytest.mark.parametrize("wrapping", ["torch.save", "in a state dict", "raw pickle"])
def test_a_pickle_that_would_run_code_is_refused_and_not_run(
    tmp_path: Path, wrapping: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")  # switches torch's own protection off where it can
    canary = tmp_path / "canary"
    path = tmp_path / "w.pt"
    if wrapping == "raw pickle":
        path.write_bytes(pickle.dumps(Canary(canary)))
    else:
        torch.save(Canary(canary) if wrapping == "torch.save" else {"a": torch.ones(1), "b": Canary(canary)}, path)

    with pytest.raises(CheckpointError, match="refused") as caught:
        read_weights(path)

    assert not canary.exists()
    assert "weights_only" not in str(caught.value)


def test_the_canary_sings_when_the_file_is_loaded_the_unsafe_way(tmp_path: Path) -> None:
    torch.save(Canary(tmp_path / "canary"), tmp_path / "w.pt")

    torch.load(tmp_path / "w.pt", weights_only=False)

    assert (tmp_path / "canary").exists()


@pytest.mark.parametrize("value", [[1, 2], {}, {"a": 3}, torch.ones(2), {"a": SPARSE}])
def test_what_is_no_state_dict_is_refused(tmp_path: Path, value: object) -> None:
    torch.save(value, tmp_path / "w.pt")

    with pytest.raises(CheckpointError, match=r"no state dict|other things|refused"):
        read_weights(tmp_path / "w.pt")


def test_non_finite_weights_are_refused(state: dict[str, Tensor]) -> None:
    broken = state | {"conv1.weight": torch.full_like(state["conv1.weight"], float("nan"))}

    with pytest.raises(CheckpointError, match="NaN"):
        fit_weights(build_model("resnet18", 5), broken, place="here", new_head=False)


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
