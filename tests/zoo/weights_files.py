"""How a case hands a weights file to a command."""

import hashlib
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from tests.zoo.cases import Case, Kit

Make = Callable[[Kit], bytes]
"""The content of a weights file."""

FOREIGN = ("--arch", "resnet18", "--classes", "{here}/classes.txt", "--set", "data.image_size=32")
COMMANDS = {
    "predict": ("predict", "{data}/cat/000.png", "--ckpt", "{here}/w", "--out", "{out}.csv", *FOREIGN),
    "evaluate": (
        "evaluate", "--split", "{split}", "--subset", "val", "--ckpt", "{here}/w", "--out", "{out}",
        "--set", "evaluate.bootstrap=100", *FOREIGN,
    ),
    "gradcam": ("gradcam", "{data}/cat/000.png", "--ckpt", "{here}/w", "--out", "{out}", *FOREIGN),
    "train": (
        "train", "--split", "{split}", "--weights", "{here}/w", "--out", "{out}", "--epochs", "1",
        "--image-size", "32", "--set", "data.workers=0", "--set", "train.warmup_epochs=0",
    ),
}  # fmt: skip
"""By name, each with a weights file `w` and its classes, which native files do without.

The validation images are asked for because a look at the test images is written down beside the split.
"""


def refused(name: str, make: Make, command: str, *words: str, megabytes: int = 1500, seconds: float = 30) -> Case:
    """A file that the command must refuse."""
    return Case(
        f"checkpoints/{name}-{command}", writing(make), COMMANDS[command], "refuse", 3, words,
        megabytes=megabytes, seconds=seconds,
    )  # fmt: skip


def writing(make: Make, classes: str = "cat\ndog\n") -> Callable[[Path, Kit], None]:
    """Puts the file and a list of classes into the folder."""

    def write(here: Path, kit: Kit) -> None:
        (here / "w").write_bytes(make(kit))
        (here / "classes.txt").write_text(classes)

    return write


def good_state(kit: Kit) -> dict[str, Tensor]:
    return safetensors.torch.load_file(kit.checkpoint)


def parts(content: bytes) -> tuple[dict[str, Any], bytes]:
    """The header of a safetensors file and its numbers."""
    length = struct.unpack_from("<Q", content)[0]
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def joined(header: dict[str, Any] | str | bytes, data: bytes) -> bytes:
    """The inverse; a header may be given as a text, also one that is wrong."""
    text = json.dumps(header) if isinstance(header, dict) else header
    raw = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(raw)) + raw + data


def forged(change: Callable[[dict[str, Any], dict[str, Tensor]], object]) -> Make:
    """The good checkpoint with another description or other tensors, and digests to match."""

    def make(kit: Kit) -> bytes:
        header, _ = parts(kit.checkpoint.read_bytes())
        document, tensors = json.loads(header["__metadata__"]["evalcam"]), good_state(kit)
        change(document, tensors)
        return signed(document, tensors)

    return make


def signed(document: dict[str, Any], tensors: dict[str, Tensor]) -> bytes:
    """A checkpoint as evalcam writes it, without its checks."""
    table, data = parts(safetensors.torch.save(tensors))
    document.pop("document_sha256", None)
    document["tensors_sha256"] = hashlib.sha256(data).hexdigest()
    content = json.dumps([document, table], sort_keys=True)
    document["document_sha256"] = hashlib.sha256(content.encode()).hexdigest()
    return joined({"__metadata__": {"evalcam": json.dumps(document, sort_keys=True)}} | table, data)
