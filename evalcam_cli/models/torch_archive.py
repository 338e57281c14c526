"""What `torch.save` wrote, read without unpickling: the ZIP archive of today and the form before torch 1.6.

The archive is held against rules that every file of torch's keeps: nothing is compressed, all lies in one folder, no
name is there twice, and each record is as long as its storage. Its CRC is checked, which torch itself leaves out. The
older form has no checksum.
"""

import io
import struct
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from evalcam_cli.models.pickled import ITEM_BYTES, PlacedTensor, Storage, read_pickle

_MAX_MEMBERS = 20_000
_MAX_PICKLE = 64_000_000
_ZIP = b"PK\x03\x04"
_ENTRY = b"PK\x01\x02"
"""Begins each entry of a ZIP archive's list of members."""
_LEGACY = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
"""The magic number of the form before 1.6 as a pickled number, and the end of that pickle."""
_LEGACY_PROTOCOL = 1001

_DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


@dataclass(frozen=True)
class Saved:
    """The content of a file of `torch.save`."""

    value: Any
    """Plain values, with a `PlacedTensor` for each tensor."""
    read: Callable[[Storage], bytes]
    """The numbers of a storage; raises as `read_saved` does."""
    has_checksums: bool


def is_saved(start: bytes) -> bool:
    """Whether a file that starts so is of `torch.save`, or at least of one of its two forms."""
    return start.startswith(_ZIP) or _is_legacy(start)


def _is_legacy(start: bytes) -> bool:
    return start.startswith(b"\x80") and _LEGACY in start[:32]


def read_saved(content: bytes) -> Saved:
    """The structure of a file of `torch.save`, in either form.

    Raises:
        ValueError: It is damaged, breaks a rule, or asks for more than plain values and dense tensors.
    """
    try:
        return _read_legacy(content) if _is_legacy(content) else _read_zip(content)
    except (zipfile.BadZipFile, NotImplementedError, EOFError, OverflowError, struct.error) as error:
        raise ValueError(f"damaged (cut off?): {error}") from error


def to_tensors(saved: Saved, placed: Mapping[str, PlacedTensor]) -> dict[str, Tensor]:
    """The tensors by name; those of one storage share it.

    Raises:
        ValueError: The numbers are damaged.
    """
    storages: dict[str, Tensor] = {}
    tensors = {}
    for name, one in placed.items():
        if one.storage.key not in storages:
            storages[one.storage.key] = _numbers(one.storage, saved.read(one.storage))
        tensors[name] = storages[one.storage.key].as_strided(one.shape, one.stride, one.offset)
    return tensors


def _numbers(storage: Storage, content: bytes) -> Tensor:
    """The (n,) numbers of a storage."""
    if not content:
        return torch.zeros(0, dtype=_DTYPES[storage.kind])
    plain = torch.frombuffer(bytearray(content), dtype=torch.uint8)
    return plain != 0 if storage.kind == "BoolStorage" else plain.view(_DTYPES[storage.kind])


def _read_zip(content: bytes) -> Saved:
    if content.count(_ENTRY) > _MAX_MEMBERS:  # before a list of them is built
        raise ValueError(f"it is an archive of more than {_MAX_MEMBERS:,} members")
    archive = zipfile.ZipFile(io.BytesIO(content))
    members = _members(archive, len(content))
    if "data.pkl" not in members:
        raise ValueError("it is a ZIP archive, but not one of torch.save: it lacks data.pkl")
    if members["data.pkl"].file_size > _MAX_PICKLE:
        raise ValueError("its structure is larger than 64 MB")

    def read(name: str) -> bytes:
        try:
            return archive.read(members[name])
        except (zipfile.BadZipFile, NotImplementedError, EOFError, RuntimeError) as error:
            raise ValueError(f"damaged: {error}") from error

    if "byteorder" in members and read("byteorder") != b"little":
        raise ValueError("its numbers are not in little-endian order")
    storages: dict[str, Storage] = {}
    value = _whole_pickle(read("data.pkl"), storages)
    for storage in storages.values():
        member = members.get(f"data/{storage.key}")
        if member is None or member.file_size != storage.count * ITEM_BYTES[storage.kind]:
            raise ValueError(f"damaged: the record of storage {storage.key} is missing or has another length")
    return Saved(value, lambda storage: read(f"data/{storage.key}"), has_checksums=True)


def _whole_pickle(content: bytes, storages: dict[str, Storage]) -> Any:
    stream = io.BytesIO(content)
    value = read_pickle(stream, storages)
    if stream.tell() != len(content):
        raise ValueError("damaged: something stands behind its structure")
    return value


def _members(archive: zipfile.ZipFile, size: int) -> dict[str, zipfile.ZipInfo]:
    """The members by their name inside the one folder that holds them all."""
    entries = archive.infolist()
    if not 0 < len(entries) <= _MAX_MEMBERS:
        raise ValueError(f"it is an archive of {len(entries):,} members")
    if len({entry.filename.casefold() for entry in entries}) < len(entries):
        raise ValueError("it is an archive with a name that is there twice")
    if any(entry.filename.endswith("/constants.pkl") for entry in entries):
        raise ValueError("it is a TorchScript archive, a program and not weights")
    for entry in entries:
        if (
            entry.compress_type != zipfile.ZIP_STORED
            or entry.flag_bits & 0x41
            or entry.file_size != entry.compress_size
        ):
            raise ValueError("it is an archive with a compressed or encrypted member")
        parts = entry.orig_filename.split("/")
        if entry.orig_filename != entry.filename or "\\" in entry.filename or not {"", ".", ".."}.isdisjoint(parts):
            raise ValueError("it is an archive with a path for a name")
    if sum(entry.file_size for entry in entries) > size:
        raise ValueError("it is an archive that claims more bytes than it has")
    root = entries[0].filename.partition("/")[0] + "/"
    if not all(entry.filename.startswith(root) for entry in entries):
        raise ValueError("it is an archive of several folders")
    return {entry.filename.removeprefix(root): entry for entry in entries}


def _read_legacy(content: bytes) -> Saved:
    stream = io.BytesIO(content)
    stream.seek(content.index(_LEGACY) + len(_LEGACY))
    storages: dict[str, Storage] = {}
    protocol, system = read_pickle(stream, storages), read_pickle(stream, storages)
    if protocol != _LEGACY_PROTOCOL or type(system) is not dict or system.get("little_endian") is not True:
        raise ValueError("damaged: its head is not one of torch.save")
    value, keys = read_pickle(stream, storages), read_pickle(stream, storages)
    if type(keys) is not list or not all(isinstance(key, str) for key in keys) or sorted(keys) != sorted(storages):
        raise ValueError("damaged: its list of storages is not that of its structure")
    records = {}
    position = stream.tell()
    for key in keys:
        count = struct.unpack_from("<q", content, position)[0]
        length = storages[key].count * ITEM_BYTES[storages[key].kind]
        if count != storages[key].count or position + 8 + length > len(content):
            raise ValueError(f"damaged (cut off?): the record of storage {key} is missing or has another length")
        records[key] = memoryview(content)[position + 8 : position + 8 + length]
        position += 8 + length
    if position != len(content):
        raise ValueError("damaged: something stands behind its numbers")
    return Saved(value, lambda storage: bytes(records[storage.key]), has_checksums=False)
