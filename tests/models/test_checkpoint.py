"""Checkpoints: what is saved is what is loaded, or a refusal."""

import json
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor

from evalcam_cli.data.preprocessing import Preprocessing
from evalcam_cli.errors import CheckpointError, DivergedError, UsageError
from evalcam_cli.evaluation.operating_point import OperatingPoint
from evalcam_cli.models.architectures import build_model
from evalcam_cli.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from evalcam_cli.models.inference import to_classifier

CHECKPOINT = Checkpoint(
    arch="resnet18",
    last_stride=1,
    classes=("정상", "a [b] 'c'", "007"),
    preprocessing=Preprocessing(64, "crop"),
    epoch=3,
    config={"train": {"lr": 0.001}},
    split_fingerprint="f" * 64,
    training_pixels=frozenset({"00112233445566ff", "a" * 16}),
    versions={"torch": "x"},
)

POINT = OperatingPoint("007", 0.25, "youden", 60, 70, 0.9, 0.8)


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return build_model("resnet18", 3, last_stride=1).state_dict()


@pytest.fixture(scope="module")
def content(weights: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("ckpt") / "good.safetensors"
    save_checkpoint(path, CHECKPOINT, weights, {"rng/cpu": torch.arange(5, dtype=torch.uint8)}, {"epoch": 3})
    return path.read_bytes()


def test_everything_comes_back(content: bytes, weights: dict[str, Tensor], tmp_path: Path) -> None:
    (tmp_path / "c.safetensors").write_bytes(content)

    stored = load_checkpoint(tmp_path / "c.safetensors")

    assert stored.checkpoint == CHECKPOINT
    assert stored.weights.keys() == weights.keys()
    assert all(torch.equal(stored.weights[name], weights[name]) for name in weights)
    assert torch.equal(stored.training_tensors["rng/cpu"], torch.arange(5, dtype=torch.uint8))
    assert stored.training_document == {"epoch": 3}


def test_temperature_and_operating_point_come_back_and_leave_the_tensors(
    weights: dict[str, Tensor], tmp_path: Path
) -> None:
    save_checkpoint(tmp_path / "plain", CHECKPOINT, weights)
    calibrated = replace(CHECKPOINT, temperature=1.75, operating_point=POINT)
    stored = load_checkpoint(tmp_path / "plain")

    save_checkpoint(tmp_path / "calibrated", calibrated, stored.weights)

    again = load_checkpoint(tmp_path / "calibrated")
    assert again.checkpoint == calibrated
    assert again.tensors_sha256 == stored.tensors_sha256


def test_equal_content_gives_equal_bytes(content: bytes, weights: dict[str, Tensor], tmp_path: Path) -> None:
    again = {
        name: tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor
        for name, tensor in weights.items()
    }
    save_checkpoint(tmp_path / "c", CHECKPOINT, again, {"rng/cpu": torch.arange(5, dtype=torch.uint8)}, {"epoch": 3})

    assert (tmp_path / "c").read_bytes() == content


def test_other_tools_can_read_the_weights(content: bytes, weights: dict[str, Tensor]) -> None:
    loaded = safetensors.torch.load(content)

    assert torch.equal(loaded["fc.weight"], weights["fc.weight"])


def test_a_loaded_model_gives_the_same_logits(content: bytes, weights: dict[str, Tensor], tmp_path: Path) -> None:
    (tmp_path / "c.safetensors").write_bytes(content)
    model = build_model("resnet18", 3, last_stride=1).eval()
    model.load_state_dict(weights)
    images = torch.randn(2, 3, 64, 64)

    classifier = to_classifier(load_checkpoint(tmp_path / "c.safetensors"), torch.device("cpu"), place="here")

    with torch.inference_mode():
        torch.testing.assert_close(classifier.model(images), model(images), atol=1e-5, rtol=1e-4)


def damaged(content: bytes, how: str) -> bytes:
    length = struct.unpack_from("<Q", content)[0]
    header = json.loads(content[8 : 8 + length])
    table = {name: entry for name, entry in header.items() if name != "__metadata__"}
    text = header["__metadata__"]["evalcam"]

    def rebuilt(metadata: str, entries: dict[str, object]) -> bytes:
        head = json.dumps({"__metadata__": {"evalcam": metadata}} | entries).encode()
        return struct.pack("<Q", len(head)) + head + content[8 + length :]

    flips: dict[str, Callable[[], bytes]] = {
        "empty": lambda: b"",
        "a web page": lambda: b"<!DOCTYPE html><title>404</title>" * 9,
        "a Git LFS pointer": lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:00",
        "cut in the header": lambda: content[:500],
        "cut in the weights": lambda: content[: len(content) // 2],
        "one byte too many": lambda: content + b"\0",
        "a flipped bit in the weights": lambda: content[:-1000] + bytes([content[-1000] ^ 16]) + content[-999:],
        "other classes in the description": lambda: rebuilt(text.replace("007", "008"), table),
        "tensors that swapped names": lambda: rebuilt(
            text,
            table | {"layer1.0.bn1.bias": table["layer1.0.bn2.bias"], "layer1.0.bn2.bias": table["layer1.0.bn1.bias"]},
        ),
        "no description": lambda: rebuilt("", table),
        "a header that is no JSON": lambda: content[:8] + b"{" + b"x" * (length - 1) + content[8 + length :],
        "a header length beyond all": lambda: struct.pack("<Q", 2**62) + content[8:],
        "a deeply nested description": lambda: rebuilt("[" * 100_000, table),
    }
    return flips[how]()


@pytest.mark.parametrize(
    "how",
    [
        "empty",
        "a web page",
        "a Git LFS pointer",
        "cut in the header",
        "cut in the weights",
        "one byte too many",
        "a flipped bit in the weights",
        "other classes in the description",
        "tensors that swapped names",
        "no description",
        "a header that is no JSON",
        "a header length beyond all",
        "a deeply nested description",
    ],
)
def test_a_damaged_file_is_refused(content: bytes, tmp_path: Path, how: str) -> None:
    path = tmp_path / "c.safetensors"
    path.write_bytes(damaged(content, how))

    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path)

    assert str(path) in str(caught.value)
    assert str(caught.value).count("\n") < 7


def test_random_damage_never_loads_as_other_weights(content: bytes, weights: dict[str, Tensor], tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    path = tmp_path / "c.safetensors"
    header_end = 8 + struct.unpack_from("<Q", content)[0]
    for attempt in range(40):
        position = int(generator.integers(0, header_end if attempt % 2 else len(content)))
        changed = bytearray(content)
        changed[position] ^= 1 << int(generator.integers(0, 8))
        path.write_bytes(changed)
        try:
            stored = load_checkpoint(path)
        except CheckpointError:
            continue
        # only white space between the header's parts may change without consequence
        assert stored.checkpoint == CHECKPOINT
        assert all(torch.equal(stored.weights[name], weights[name]) for name in weights)


def test_a_later_format_asks_for_an_upgrade(
    weights: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evalcam_cli.models.checkpoint.FORMAT_VERSION", 2)
    save_checkpoint(tmp_path / "c", CHECKPOINT, weights)
    monkeypatch.undo()

    with pytest.raises(CheckpointError, match="later version"):
        load_checkpoint(tmp_path / "c")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"classes": ("a", "a", "b")}, "distinct"),
        ({"arch": "os.system"}, "unknown architecture"),
        ({"last_stride": 3}, "last_stride"),
        ({"preprocessing": Preprocessing(64, "crop", std=(0, 1, 1))}, "std"),
        ({"preprocessing": Preprocessing(64, "stretch")}, "preprocessing"),
        ({"preprocessing": Preprocessing(64, "crop", mean=(1e300, 0, 0))}, "mean"),
        ({"preprocessing": Preprocessing(True, "crop")}, "preprocessing"),
        ({"last_stride": True}, "last_stride"),
        ({"epoch": "3"}, "epoch"),
        ({"config": [1]}, "config"),
        ({"versions": "x"}, "versions"),
        ({"classes": ("a", "\ud800", "b")}, "cannot be used"),
        ({"temperature": 0.01}, "temperature"),
        ({"temperature": 100.0}, "temperature"),
        ({"temperature": "2"}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"positive": "unknown"}, "positive"),
        ({"operating_point": replace(POINT, positive="unknown")}, "no class"),
        ({"operating_point": replace(POINT, threshold=0.0)}, "threshold"),
        ({"operating_point": replace(POINT, threshold=1.1)}, "threshold"),
        ({"operating_point": replace(POINT, positives=0)}, "positives"),
        ({"operating_point": POINT, "positive": "정상"}, "different classes"),
    ],
)
def test_a_description_that_makes_no_sense_is_refused(
    weights: dict[str, Tensor], tmp_path: Path, change: dict[str, object], problem: str
) -> None:
    save_checkpoint(tmp_path / "c", replace(CHECKPOINT, **change), weights)  # type: ignore[arg-type]

    with pytest.raises(CheckpointError, match=problem):
        load_checkpoint(tmp_path / "c")


@pytest.mark.parametrize(("name", "value"), [("conv1.weight", float("nan")), ("bn1.running_var", -1.0)])
def test_broken_weights_are_neither_saved_nor_kept_quiet(
    weights: dict[str, Tensor], tmp_path: Path, name: str, value: float
) -> None:
    broken = {key: tensor.clone() for key, tensor in weights.items()}
    broken[name].view(-1)[0] = value

    with pytest.raises(DivergedError, match=name.replace(".", r"\.")):
        save_checkpoint(tmp_path / "c", CHECKPOINT, broken)

    assert not (tmp_path / "c").exists()


def test_weights_of_another_architecture_do_not_fit(weights: dict[str, Tensor], tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "c", replace(CHECKPOINT, arch="resnet50"), weights)

    with pytest.raises(CheckpointError, match="another architecture"):
        to_classifier(load_checkpoint(tmp_path / "c"), torch.device("cpu"), place="here")


def test_a_missing_file_is_a_matter_of_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no checkpoint"):
        load_checkpoint(tmp_path / "none.safetensors")
