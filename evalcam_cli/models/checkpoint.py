"""Checkpoints: one `.safetensors` file that carries the weights and all that is needed to use them elsewhere.

The file is a plain safetensors file with one metadata entry, `evalcam`, a JSON document. Two digests guard it: one over
the tensor data, one over the document and the table of tensors. They find accidents, not forgers.
"""

import base64
import hashlib
import json
import math
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import chain
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from evalcam_cli.config import ARCHS
from evalcam_cli.data.preprocessing import Preprocessing
from evalcam_cli.errors import CheckpointError, DataError, DivergedError, MachineError, UsageError
from evalcam_cli.evaluation.operating_point import OperatingPoint, point_from_document
from evalcam_cli.evaluation.temperature import HIGHEST, LOWEST, is_temperature
from evalcam_cli.inputs import opened
from evalcam_cli.models.safetensors_file import (
    Table,
    is_safetensors,
    lay_out,
    load_tensors,
    names_key,
    numbers,
    parse_object,
    split_file,
    start_of_file,
)
from evalcam_cli.models.torch_archive import is_saved
from evalcam_cli.text import shown
from evalcam_cli.writing import write_parts

FORMAT_VERSION = 1
_KEY = "evalcam"
_TRAINING = "training/"  # prefix of tensors that only the continuation of training needs
_HASH_BYTES = 8
_MAX_BYTES = 4 * 2**30
"""Of a weights file."""


@dataclass(frozen=True)
class Checkpoint:
    """What a set of weights means."""

    arch: str
    last_stride: int
    classes: tuple[str, ...]
    """In output order."""
    preprocessing: Preprocessing
    epoch: int = 0
    """Epochs of training behind these weights."""
    positive: str | None = None
    """Positive class of two, when it was chosen."""
    temperature: float | None = None
    """Divides the logits before the softmax, when it was fitted on the validation set."""
    operating_point: OperatingPoint | None = None
    """Decision threshold, when it was chosen on the validation set."""
    config: dict[str, Any] = field(default_factory=dict)
    """The resolved config of the training run."""
    split_fingerprint: str = ""
    training_pixels: frozenset[str] = frozenset()
    """Short hashes (`Identity.pixels`) of the images that the weights were fitted to."""
    versions: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Stored:
    """A checkpoint file's content."""

    checkpoint: Checkpoint
    weights: dict[str, Tensor]
    training_tensors: dict[str, Tensor]
    """Optimiser and random state; empty in a file that is only for use."""
    training_document: dict[str, Any]
    tensors_sha256: str


def save_checkpoint(
    path: Path,
    checkpoint: Checkpoint,
    weights: Mapping[str, Tensor],
    training_tensors: Mapping[str, Tensor] | None = None,
    training_document: Mapping[str, Any] | None = None,
    *,
    previous: Path | None = None,
) -> None:
    """Write the file, whole or not at all; equal content gives equal bytes.

    What was under the path is kept as `previous`, in the same folder, when that is named.

    Raises:
        DivergedError: A weight is not finite; such a model must not replace a usable one.
        MachineError: The file cannot be written.
    """
    require_usable(weights, "the weights to save", DivergedError)
    tensors = {**weights, **{_TRAINING + name: tensor for name, tensor in (training_tensors or {}).items()}}
    table = lay_out(tensors)
    digest = hashlib.sha256()
    for name in table:  # one tensor at a time here and below: a copy of all would double the memory of the training
        digest.update(numbers(tensors[name]))
    document = _document(checkpoint) | {"training": dict(training_document or {})}
    document["tensors_sha256"] = digest.hexdigest()
    document["document_sha256"] = _document_digest(document, table)
    text = json.dumps(document, sort_keys=True, allow_nan=False)
    start: Sequence[bytes | memoryview] = [start_of_file(table, {_KEY: text})]
    write_parts(path, chain(start, (numbers(tensors[name]) for name in table)), previous=previous)


def load_checkpoint(path: Path) -> Stored:
    """Read and verify one of evalcam's own checkpoints.

    Raises:
        UsageError: There is no such file.
        CheckpointError: It is damaged, not evalcam's, or made by a later version.
    """
    content = read_file(path)
    return parse_checkpoint(content, path)


def parse_checkpoint(content: bytes, path: Path) -> Stored:
    """As `load_checkpoint`, from bytes already read."""
    place = _place(path)
    parts = split_file(content, place)
    text = parts.metadata.get(_KEY)
    if text is None:
        raise CheckpointError(
            f"{place} holds weights but not evalcam's description of them;\n"
            "say what they are with --arch NAME and --classes FILE (one class name per line, in output order)"
        )
    document = parse_object(text, f"{place} is damaged: its description")
    version = document.get("format_version")
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise CheckpointError(f"{place} was made by a later version of evalcam; upgrade evalcam to read it")
    if document.get("tensors_sha256") != hashlib.sha256(parts.data).hexdigest():
        raise CheckpointError(f"{place} is damaged: its weights do not have the SHA-256 written when it was made")
    if document.get("document_sha256") != _document_digest(document, parts.table):
        raise CheckpointError(f"{place} is damaged: its description does not have the SHA-256 written with it")
    checkpoint = _checkpoint(document, path)
    tensors = load_tensors(content, place)
    weights = {name: tensor for name, tensor in tensors.items() if not name.startswith(_TRAINING)}
    training = {name.removeprefix(_TRAINING): tensors[name] for name in tensors if name.startswith(_TRAINING)}
    require_usable(weights, place)
    return Stored(checkpoint, weights, training, document.get("training") or {}, document["tensors_sha256"])


def is_native(content: bytes) -> bool:
    """Whether the bytes are a safetensors file with evalcam's description in its header."""
    return names_key(content, _KEY)


def read_file(path: Path) -> bytes:
    """The bytes of a weights file, once its beginning shows that it is one.

    Raises:
        UsageError: There is no such file.
        CheckpointError: It cannot be read, or holds no weights.
        MachineError: It does not fit into the memory.
    """
    try:
        with opened(path) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise CheckpointError(f"the checkpoint {_place(path)} is a pipe; name a file")
            require_start(file.peek(64)[:64], status.st_size, path)
            return file.read(status.st_size)
    except FileNotFoundError as error:
        raise UsageError(f"there is no checkpoint {_place(path)}; run `evalcam train` first or name another") from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise CheckpointError(f"cannot read the checkpoint {_place(path)}: {reason}") from error
    except MemoryError as error:
        raise MachineError(f"{_place(path)} does not fit into the memory") from error


def require_start(start: bytes, size: int, path: Path) -> None:
    """Refuse a file of so many bytes that cannot be a weights file, by its first 64.

    Raises:
        CheckpointError: Saying what it is instead.
    """
    if not start:
        raise CheckpointError(f"the checkpoint {_place(path)} is empty")
    if start.startswith(b"version https://git-lfs"):
        raise CheckpointError(f"{_place(path)} is a Git LFS pointer, not the weights; run `git lfs pull`")
    if size > _MAX_BYTES:
        raise CheckpointError(f"{_place(path)} has {size:,} bytes; at most {_MAX_BYTES:,} are read")
    if start[8:9] == b"{" and not is_safetensors(start, size):
        raise CheckpointError(f"{_place(path)} is damaged (cut off?): its header is longer than the file")
    if not is_safetensors(start, size) and not is_saved(start):
        raise CheckpointError(
            f"{_place(path)} is refused: it is no weights file, or damaged from its first bytes on;\n"
            "read are .safetensors and what `torch.save(model.state_dict(), FILE)` writes"
        )


def _document_digest(document: Mapping[str, Any], table: Table) -> str:
    content = {key: value for key, value in document.items() if key != "document_sha256"}
    return hashlib.sha256(json.dumps([content, table], sort_keys=True).encode()).hexdigest()


def _document(checkpoint: Checkpoint) -> dict[str, Any]:
    document = {entry.name: getattr(checkpoint, entry.name) for entry in fields(checkpoint)}
    hashes = b"".join(bytes.fromhex(pixels) for pixels in sorted(checkpoint.training_pixels))
    point = checkpoint.operating_point
    return document | {
        "format_version": FORMAT_VERSION,
        "operating_point": None if point is None else point.to_dict(),
        "classes": list(checkpoint.classes),
        "preprocessing": checkpoint.preprocessing.to_dict(),
        "training_pixels": base64.b64encode(hashes).decode(),
    }


def _checkpoint(document: dict[str, Any], path: Path) -> Checkpoint:
    try:
        _require_kinds(document)
        hashes = base64.b64decode(document["training_pixels"], validate=True)
        if len(hashes) % _HASH_BYTES:
            raise ValueError("training_pixels is no row of hashes")
        values = {entry.name: document[entry.name] for entry in fields(Checkpoint) if entry.name in document}
        values["classes"] = tuple(document["classes"])
        values["preprocessing"] = _preprocessing(document["preprocessing"])
        values["training_pixels"] = frozenset(
            hashes[start : start + _HASH_BYTES].hex() for start in range(0, len(hashes), _HASH_BYTES)
        )
        if values.get("operating_point") is not None:
            values["operating_point"] = point_from_document(values["operating_point"], values["classes"])
        checkpoint = Checkpoint(**values)
        _require_sound(checkpoint)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{_place(path)}: its description cannot be used: {shown(error)[:200]}") from error
    return checkpoint


_KINDS: Mapping[str, type | tuple[type, ...]] = {
    "arch": str,
    "last_stride": int,
    "classes": list,
    "preprocessing": dict,
    "epoch": int,
    "positive": (str, type(None)),
    "config": dict,
    "split_fingerprint": str,
    "training_pixels": str,
    "versions": dict,
    "training": (dict, type(None)),
}
"""What each entry of the document is; the rest is checked where it is read."""


def _require_kinds(document: Mapping[str, Any]) -> None:
    for name, kind in _KINDS.items():
        value = document.get(name)
        if name in document and (not isinstance(value, kind) or isinstance(value, bool)):
            raise ValueError(f"{name} is of another kind")
    # what no file could be written with; names of files may hold bytes that are no UTF-8
    json.dumps(document, ensure_ascii=False).encode("utf-8", "surrogateescape")


def _preprocessing(entry: dict[str, Any]) -> Preprocessing:
    mean, std = (tuple(float(channel) for channel in entry[key]) for key in ("mean", "std"))
    if len(mean) != 3 or len(std) != 3 or not all(0 < channel <= 10 for channel in std):
        raise ValueError("mean and std need three channels, std above 0")
    if not all(math.isfinite(channel) and abs(channel) <= 10 for channel in mean):
        raise ValueError("mean is out of range")
    size = entry["image_size"]
    if entry["resize"] not in ("pad", "crop", "squash") or type(size) is not int or not 1 <= size <= 8192:
        raise ValueError("unknown preprocessing")
    return Preprocessing(size, entry["resize"], cast(Any, mean), cast(Any, std))


def _require_sound(checkpoint: Checkpoint) -> None:
    names = checkpoint.classes
    if not names or len(set(names)) != len(names) or not all(isinstance(name, str) and name for name in names):
        raise ValueError("class names must be distinct texts")
    if checkpoint.arch not in ARCHS:
        raise ValueError(f"unknown architecture {shown(checkpoint.arch)!r}")
    if checkpoint.last_stride not in (1, 2):
        raise ValueError("last_stride must be 1 or 2")
    if checkpoint.positive is not None and checkpoint.positive not in names:
        raise ValueError(f"positive: no class {shown(checkpoint.positive)!r}")
    point = checkpoint.operating_point
    if point is not None and checkpoint.positive not in (None, point.positive):
        raise ValueError("positive and the operating point are about different classes")
    if checkpoint.temperature is not None and not is_temperature(checkpoint.temperature):
        raise ValueError(f"the temperature must be a number from {LOWEST:g} to {HIGHEST:g}")


def require_usable(weights: Mapping[str, Tensor], place: str, kind: type[DataError] = CheckpointError) -> None:
    """Refuse weights with which a model answers NaN, which reads as its first class.

    Raises:
        CheckpointError: A weight is not finite, or a running variance is negative; `kind` in its place.
    """
    for name, tensor in weights.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise kind(f"{place}: {shown(name)[:200]} holds NaN or infinite weights")
        if name.endswith("running_var") and bool((tensor < 0).any()):
            raise kind(f"{place}: {shown(name)[:200]} holds a negative variance")


def _place(path: Path) -> str:
    return shown(path.absolute())
