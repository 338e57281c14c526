"""The `.safetensors` form: a table of tensors before their numbers, held against the file before anything is built.

The library that reads the numbers takes a key that is there twice, numbers of any kind and hundreds of thousands of
empty tensors; evalcam does not.
"""

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from evalcam_cli.errors import CheckpointError
from evalcam_cli.text import shown

MAX_TENSORS = 10_000
_MAX_HEADER = 100_000_000
_MAX_TABLE = 1_000_000
"""Bytes of the table without the metadata; a ResNet-152 with Adam needs a third of that."""
_MAX_JSON_PARTS = 1_000_000
"""Brackets and commas; each may cost a hundred bytes of memory."""
_MAX_DEPTH = 64
_MAX_DIMENSIONS = 8
_METADATA = "__metadata__"

_DTYPES = {
    "I64": torch.int64,
    "F64": torch.float64,
    "F32": torch.float32,
    "I32": torch.int32,
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""By the format's names, in the order in which the library lays their tensors out."""

Table = dict[str, dict[str, Any]]
"""For each tensor its `dtype`, `shape` and `data_offsets`."""


@dataclass(frozen=True)
class SplitFile:
    """The parts of a file."""

    table: Table
    metadata: dict[str, Any]
    data: memoryview
    """All numbers, as the table's offsets count them."""


def is_safetensors(start: bytes, size: int) -> bool:
    """Whether a file of so many bytes that starts so can be one."""
    return start[8:9] == b"{" and 2 <= _header_length(start) <= min(_MAX_HEADER, size - 8)


def names_key(content: bytes, key: str) -> bool:
    """Whether the key is in the header of what may be a safetensors file."""
    return is_safetensors(content, len(content)) and f'"{key}"'.encode() in content[8 : 8 + _header_length(content)]


def _header_length(start: bytes) -> int:
    return int(struct.unpack_from("<Q", start)[0]) if len(start) >= 8 else 0


def split_file(content: bytes, place: str) -> SplitFile:
    """The parts of a file whose table agrees with the file.

    Args:
        content: Of the file.
        place: Its name in a message.

    Raises:
        CheckpointError: It is damaged, too large, or no such file.
    """
    length = _header_length(content)
    if not 2 <= length <= _MAX_HEADER or content[8:9] != b"{":
        raise CheckpointError(f"{place} is not a safetensors file")
    if 8 + length > len(content):
        raise CheckpointError(f"{place} is damaged (cut off?): its header is longer than the file")
    header = content[8 : 8 + length].rstrip(b" ")  # the format fills up with spaces
    if not header.endswith(b"}"):
        raise CheckpointError(f"{place} is damaged: its header does not end as it must")
    try:
        table = parse_object(header.decode(), f"{place} is damaged: its header")
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{place} is damaged: its header is not text in UTF-8") from error
    metadata = table.pop(_METADATA, {})
    if type(metadata) is not dict or not all(isinstance(value, str) for value in metadata.values()):
        raise CheckpointError(f"{place} is damaged: its metadata are no texts")
    data = memoryview(content)[8 + length :]
    _require_sound(table, len(data), place)
    return SplitFile(table, metadata, data)


def parse_object(text: str, place: str) -> dict[str, Any]:
    """The value of a JSON object, in which no key is there twice.

    Raises:
        CheckpointError: It is none, or has too many parts; the message begins with the place.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({key for key, _ in pairs}) < len(pairs):
            raise ValueError("a key is there twice")
        return dict(pairs)

    def refuse(word: str) -> None:
        raise ValueError(f"{word} is no JSON")

    if sum(text.count(mark) for mark in "{[,") > _MAX_JSON_PARTS:  # before anything is built of it
        raise CheckpointError(f"{place} has more than {_MAX_JSON_PARTS:,} parts")
    try:
        value = json.loads(text, object_pairs_hook=unique, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{place} is not JSON as it must be") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{place} is not a map")
    if not _is_shallow(value):
        raise CheckpointError(f"{place} is nested deeper than {_MAX_DEPTH} levels")
    return value


def _is_shallow(value: Any) -> bool:
    level = [value]
    for _ in range(_MAX_DEPTH):
        level = [child for one in level for child in (one.values() if isinstance(one, dict) else one)]
        level = [child for child in level if isinstance(child, dict | list)]
        if not level:
            return True
    return False


def _require_sound(table: dict[str, Any], size: int, place: str) -> None:
    """Hold each entry against the format, and all of them against the bytes that are there."""
    if len(table) > MAX_TENSORS:
        raise CheckpointError(f"{place} claims {len(table):,} tensors; at most {MAX_TENSORS:,} are read")
    if len(json.dumps(table)) > _MAX_TABLE:
        raise CheckpointError(f"{place} has a table of tensors of more than {_MAX_TABLE:,} bytes")
    spans = sorted(_span(name, entry, place) for name, entry in table.items())
    position = 0
    for begin, end in spans:
        if begin != position:
            raise CheckpointError(f"{place} is damaged: its tensors overlap or leave gaps")
        position = end
    if position != size:
        raise CheckpointError(f"{place} is damaged (cut off?): {position:,} bytes of weights claimed, {size:,} there")


def _span(name: str, entry: Any, place: str) -> tuple[int, int]:
    """Where a tensor begins and ends."""
    where = f"{place}: {shown(name)[:200]}"
    if type(entry) is not dict or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise CheckpointError(f"{where} is damaged: its entry in the table cannot be read")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise CheckpointError(f"{where} holds numbers of the kind {shown(dtype)[:20]}; known are {', '.join(_DTYPES)}")
    if not _is_sizes(shape) or len(shape) > _MAX_DIMENSIONS or not _is_sizes(offsets) or len(offsets) != 2:
        raise CheckpointError(f"{where} is damaged: its shape or its place cannot be")
    begin, end = offsets
    if end - begin != math.prod(shape) * _DTYPES[dtype].itemsize:
        raise CheckpointError(f"{where} is damaged: its shape {shape} does not take {end - begin:,} bytes")
    return begin, end


def _is_sizes(value: Any) -> bool:
    return type(value) is list and all(type(size) is int and 0 <= size < 2**48 for size in value)


def load_tensors(content: bytes, place: str) -> dict[str, Tensor]:
    """The tensors of a file that `split_file` accepts.

    Raises:
        CheckpointError: The library refuses it all the same.
    """
    try:
        return safetensors.torch.load(content)
    except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{place} is damaged: {shown(error)[:200]}") from error


def lay_out(tensors: Mapping[str, Tensor]) -> Table:
    """The table of a file with these tensors, in the order of their numbers, which is the library's own."""
    names = {dtype: name for name, dtype in _DTYPES.items()}
    order = list(_DTYPES.values())
    table: Table = {}
    position = 0
    for name in sorted(tensors, key=lambda name: (order.index(tensors[name].dtype), name.encode())):
        tensor = tensors[name]
        end = position + tensor.numel() * tensor.dtype.itemsize
        table[name] = {
            "dtype": names[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [position, end],
        }
        position = end
    return table


def numbers(tensor: Tensor) -> memoryview:
    """The bytes of a tensor, row by row; a copy only where the tensor is elsewhere or in another order."""
    plain = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return memoryview(cast(Any, plain.numpy()))


def start_of_file(table: Table, metadata: Mapping[str, str]) -> bytes:
    """What stands before the numbers."""
    header = json.dumps({_METADATA: metadata} | table, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)  # the format wants the data aligned
    return struct.pack("<Q", len(header)) + header
