"""A training state that was rewritten, digests and all, is refused and never a traceback."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from tests.cli.commands import run_command
from tests.conftest import TINY
from tests.zoo.weights_files import parts, signed

pytestmark = pytest.mark.slow

LAST = Path("checkpoints", "last.safetensors")


@pytest.fixture(scope="module")
def begun(colours: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one epoch."""
    out = tmp_path_factory.mktemp("begun") / "run"
    made = run_command("train", str(colours), "--out", str(out), "--epochs", "1", *TINY)
    assert made.code == 0, made.err
    return out


def state(key: str, value: object) -> Callable[[dict[str, Any], dict[str, torch.Tensor]], object]:
    return lambda document, tensors: document["training"]["state"].update({key: value})


CHANGES: dict[str, Callable[[dict[str, Any], dict[str, torch.Tensor]], object]] = {
    "no training": lambda document, tensors: document.update(training={}),
    "no state": lambda document, tensors: document["training"].pop("state"),
    "a state that is a list": lambda document, tensors: document["training"].update(state=[1]),
    "an epoch in words": state("epoch", "one"),
    "an epoch below 0": state("epoch", -1),
    "a billion epochs": state("epoch", 10**9),
    "a step in words": state("step", "x"),
    "a best that is null": state("best", None),
    "a loss in words": state("loss_sum", "x"),
    "no random state": lambda document, tensors: tensors.pop("training/rng/cpu"),
    "a short random state": lambda document, tensors: tensors.update({"training/rng/cpu": torch.zeros(3).byte()}),
    "an optimiser of nothing": lambda document, tensors: tensors.update({"training/optimizer/x/y": torch.ones(1)}),
    "an optimiser of too much": lambda document, tensors: tensors.update({"training/optimizer/999/y": torch.ones(1)}),
    "no head": lambda document, tensors: tensors.pop("fc.bias"),
    "another split": lambda document, tensors: document.update(split_fingerprint="0" * 64),
    "a config of another kind": lambda document, tensors: document.update(config={"train": 3}),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_forged_state_is_refused(begun: Path, colours: Path, tmp_path: Path, what: str) -> None:
    out = tmp_path / "run"
    shutil.copytree(begun, out)
    for path in out.glob("checkpoints/*prev*"):
        path.unlink()
    (out / "diagnosis.json").unlink()  # as if the run had been interrupted at its end
    header, _ = parts((out / LAST).read_bytes())
    document, tensors = json.loads(header["__metadata__"]["evalcam"]), safetensors.torch.load_file(out / LAST)
    CHANGES[what](document, tensors)
    (out / LAST).write_bytes(signed(document, tensors))

    result = run_command("train", str(colours), "--out", str(out), "--resume", *TINY, "--epochs", "1")

    assert result.code in (2, 3), result.err
    assert "evalcam: error" in result.err
    assert "Traceback" not in result.err
