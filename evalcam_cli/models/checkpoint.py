"""Checkpoints: one `.safetensors` file that carries the weights and all that is needed to use them elsewhere.

The file is a plain safetensors file with one metadata entry, `evalcam`, a JSON document. Two digests guard it: one over
the tensor data, one over the document and the table of tensors. They find accidents, not forgers.
"""

import base64
import hashlib
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, cast

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from evalcam_cli.config import ARCHS
from evalcam_cli.data.preprocessing import Preprocessing
from evalcam_cli.errors import CheckpointError, DataError, DivergedError, UsageError
from evalcam_cli.evaluation.operating_point import OperatingPoint, point_from_document
from evalcam_cli.evaluation.temperature import HIGHEST, LOWEST, is_temperature
from evalcam_cli.files import write_whole
from evalcam_cli.text import shown

FORMAT_VERSION = 1
_KEY = "evalcam"
_TRAINING = "training/"  # prefix of tensors that only the continuation of training needs
_MAX_HEADER = 100_000_000
_MAX_TENSORS = 10_000
_HASH_BYTES = 8


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
) -> None:
    """Write the file, whole or not at all; equal content gives equal bytes.

    Raises:
        DivergedError: A weight is not finite; such a model must not replace a usable one.
        MachineError: The file cannot be written.
    """
    _require_finite(weights, "the weights to save", DivergedError)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    for name, tensor in (training_tensors or {}).items():
        tensors[_TRAINING + name] = tensor.detach().cpu().contiguous()
    plain = safetensors.torch.save(tensors)
    table, data = _split_file(plain, path)
    document = _document(checkpoint) | {"training": dict(training_document or {})}
    document["tensors_sha256"] = hashlib.sha256(data).hexdigest()
    document["document_sha256"] = _document_digest(document, table)
    text = json.dumps(document, sort_keys=True, allow_nan=False)
    header = json.dumps({"__metadata__": {_KEY: text}} | table, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)  # the format wants the data aligned
    write_whole(path, struct.pack("<Q", len(header)) + header + data)


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
    table, data = _split_file(content, path)
    metadata = table.pop("__metadata__", None)
    text = metadata.get(_KEY) if isinstance(metadata, dict) else None
    if not isinstance(text, str):
        raise CheckpointError(
            f"{_place(path)} holds weights but not evalcam's description of them;\n"
            "say what they are with --arch NAME and --classes FILE (one class name per line, in output order)"
        )
    document = _parse_json(text, path)
    version = document.get("format_version")
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise CheckpointError(f"{_place(path)} was made by a later version of evalcam; upgrade evalcam to read it")
    if document.get("tensors_sha256") != hashlib.sha256(data).hexdigest():
        raise CheckpointError(
            f"{_place(path)} is damaged: its weights do not have the SHA-256 written when it was made"
        )
    if document.get("document_sha256") != _document_digest(document, table):
        raise CheckpointError(f"{_place(path)} is damaged: its description does not have the SHA-256 written with it")
    tensors = _tensors(content, path)
    weights = {name: tensor for name, tensor in tensors.items() if not name.startswith(_TRAINING)}
    training = {name.removeprefix(_TRAINING): tensors[name] for name in tensors if name.startswith(_TRAINING)}
    _require_finite(weights, _place(path))
    checkpoint = _checkpoint(document, path)
    return Stored(checkpoint, weights, training, document.get("training") or {}, document["tensors_sha256"])


def is_native(content: bytes) -> bool:
    """Whether the bytes are a safetensors file with evalcam's description in its header."""
    length = struct.unpack_from("<Q", content)[0] if len(content) >= 8 else 0
    return bool(0 < length <= min(_MAX_HEADER, len(content) - 8)) and f'"{_KEY}"'.encode() in content[8 : 8 + length]


def read_file(path: Path) -> bytes:
    """The bytes of a weights file.

    Raises:
        UsageError: There is no such file.
        CheckpointError: It cannot be read, or is empty.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise UsageError(f"there is no checkpoint {_place(path)}; run `evalcam train` first or name another") from error
    except OSError as error:
        raise CheckpointError(f"cannot read the checkpoint {_place(path)}: {error.strerror}") from error
    if not content:
        raise CheckpointError(f"the checkpoint {_place(path)} is empty")
    if content.startswith(b"version https://git-lfs"):
        raise CheckpointError(f"{_place(path)} is a Git LFS pointer, not the weights; run `git lfs pull`")
    return content


def parse_safetensors(content: bytes, path: Path) -> dict[str, Tensor]:
    """The tensors of any safetensors file, after its table has been checked against the file."""
    _split_file(content, path)
    return _tensors(content, path)


def _tensors(content: bytes, path: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load(content)
    except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{_place(path)} is damaged: {shown(error)[:200]}") from error


def _split_file(content: bytes, path: Path) -> tuple[dict[str, Any], bytes]:
    """The table and the data of a safetensors file; the table's claims are held against the file first."""
    length = struct.unpack_from("<Q", content)[0] if len(content) >= 8 else 0
    if not 2 <= length <= _MAX_HEADER or not content[8:9] == b"{":
        raise CheckpointError(f"{_place(path)} is not a safetensors file")
    if 8 + length > len(content):
        raise CheckpointError(f"{_place(path)} is damaged (cut off?): its header is longer than the file")
    table = _parse_json(content[8 : 8 + length].decode("utf-8", "replace"), path)
    data = content[8 + length :]
    _check_table(table, len(data), path)
    return table, data


def _check_table(table: dict[str, Any], size: int, path: Path) -> None:
    entries = {name: entry for name, entry in table.items() if name != "__metadata__"}
    if len(entries) > _MAX_TENSORS:
        raise CheckpointError(f"{_place(path)} claims {len(entries):,} tensors; at most {_MAX_TENSORS:,} are read")
    try:
        spans = sorted((int(entry["data_offsets"][0]), int(entry["data_offsets"][1])) for entry in entries.values())
    except (TypeError, KeyError, IndexError, ValueError) as error:
        raise CheckpointError(f"{_place(path)} is damaged: its table of tensors cannot be read") from error
    position = 0
    for begin, end in spans:
        if begin != position or end < begin:
            raise CheckpointError(f"{_place(path)} is damaged: its tensors overlap or leave gaps")
        position = end
    if position != size:
        raise CheckpointError(
            f"{_place(path)} is damaged (cut off?): {position:,} bytes of weights claimed, {size:,} there"
        )


def _parse_json(text: str, path: Path) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({key for key, _ in pairs}) < len(pairs):
            raise ValueError("a key is there twice")
        return dict(pairs)

    try:
        value = json.loads(text, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{_place(path)} is damaged: its header is not JSON") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{_place(path)} is damaged: its header is not a map")
    return value


def _document_digest(document: Mapping[str, Any], table: Mapping[str, Any]) -> str:
    content = {key: value for key, value in document.items() if key != "document_sha256"}
    tensors = {name: entry for name, entry in table.items() if name != "__metadata__"}
    return hashlib.sha256(json.dumps([content, tensors], sort_keys=True).encode()).hexdigest()


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
        hashes = base64.b64decode(document["training_pixels"], validate=True)
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
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{_place(path)}: its description cannot be used: {shown(error)[:200]}") from error
    return checkpoint


def _preprocessing(entry: dict[str, Any]) -> Preprocessing:
    mean, std = (tuple(float(channel) for channel in entry[key]) for key in ("mean", "std"))
    if len(mean) != 3 or len(std) != 3 or not all(0 < channel <= 10 for channel in std):
        raise ValueError("mean and std need three channels, std above 0")
    if entry["resize"] not in ("pad", "crop", "squash") or not 1 <= int(entry["image_size"]) <= 8192:
        raise ValueError("unknown preprocessing")
    return Preprocessing(int(entry["image_size"]), entry["resize"], cast(Any, mean), cast(Any, std))


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


def _require_finite(weights: Mapping[str, Tensor], place: str, kind: type[DataError] = CheckpointError) -> None:
    for name, tensor in weights.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise kind(f"{place}: {shown(name)} holds NaN or infinite weights")
        if name.endswith("running_var") and bool((tensor < 0).any()):
            raise kind(f"{place}: {shown(name)} holds a negative variance")


def _place(path: Path) -> str:
    return shown(path.absolute())
