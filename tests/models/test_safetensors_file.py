"""The table of a safetensors file agrees with the file, or nothing is built of it; and what is written is that form."""

import json
import struct
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor

from evalcam_cli.errors import CheckpointError, MachineError
from evalcam_cli.models.checkpoint import read_file
from evalcam_cli.models.safetensors_file import lay_out, load_tensors, numbers, parse_object, split_file, start_of_file

MIXED = {
    "z": torch.arange(6, dtype=torch.float32).view(2, 3),
    "a": torch.tensor(3, dtype=torch.int64),
    "é": torch.ones(3, dtype=torch.float16),
    "e": torch.ones(5, dtype=torch.bfloat16),
    "b": torch.tensor([True, False]),
    "i": torch.arange(3, dtype=torch.int32),
    "h": torch.arange(3, dtype=torch.int16),
    "c": torch.arange(3, dtype=torch.int8),
    "u": torch.arange(3, dtype=torch.uint8),
    "d": torch.arange(3, dtype=torch.float64),
    "empty": torch.zeros(0, 4),
    "last": torch.arange(48.0).view(2, 3, 2, 4).contiguous(memory_format=torch.channels_last),
    "a/b": torch.arange(2.0),
}


def written(tensors: dict[str, Tensor], metadata: dict[str, str]) -> bytes:
    table = lay_out(tensors)
    return b"".join([start_of_file(table, metadata), *(bytes(numbers(tensors[name])) for name in table)])


def test_what_is_written_has_the_bytes_that_the_library_writes() -> None:
    plain = {name: tensor.contiguous() for name, tensor in MIXED.items()}
    ascii_only = {name: tensor for name, tensor in plain.items() if name.isascii()}  # json escapes the others

    assert written(ascii_only, {"evalcam": "x"}) == safetensors.torch.save(ascii_only, {"evalcam": "x"})


def test_what_is_written_comes_back_from_the_library() -> None:
    loaded = safetensors.torch.load(written(MIXED, {}))

    assert loaded.keys() == MIXED.keys()
    assert all(torch.equal(loaded[name], MIXED[name]) for name in MIXED)


def test_what_the_library_writes_is_accepted() -> None:
    content = safetensors.torch.save({name: tensor.contiguous() for name, tensor in MIXED.items()}, {"a": "b"})

    parts = split_file(content, "here")

    assert parts.metadata == {"a": "b"}
    assert parts.table.keys() == MIXED.keys()
    assert all(torch.equal(load_tensors(content, "here")[name], MIXED[name]) for name in MIXED)


def test_numbers_of_a_plain_tensor_are_not_copied() -> None:
    tensor = torch.zeros(4)

    view = numbers(tensor)

    tensor[0] = 1.0
    assert bytes(view[:4]) == struct.pack("<f", 1.0)


def test_a_large_document_does_not_count_as_table() -> None:
    """A run on a million images keeps eight bytes of each."""
    content = written({"a": torch.ones(2)}, {"evalcam": "x" * 12_000_000})

    assert split_file(content, "here").table.keys() == {"a"}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"a": 1, "a": 2}', "JSON"),
        ('{"a": {"b": 1, "b": 1}}', "JSON"),
        ('{"a": NaN}', "JSON"),
        ('{"a": Infinity}', "JSON"),
        ('{"a": 1} 2', "JSON"),
        ("[1]", "map"),
        ('{"a": ' + "[" * 70 + "]" * 70 + "}", "deeper than 64"),
        ('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}", "JSON"),
        ('{"a": [' + "0," * 1_000_000 + "0]}", "parts"),
        ('{"a": ' + "9" * 5000 + "}", "JSON"),
    ],
    ids=["key twice", "inner key twice", "NaN", "infinity", "two values", "list", "deep", "endless", "many", "number"],
)
def test_json_that_is_ambiguous_or_too_large_is_refused(text: str, reason: str) -> None:
    with pytest.raises(CheckpointError, match=reason):
        parse_object(text, "here")


def test_a_table_of_more_than_a_megabyte_is_refused() -> None:
    names = {f"{number:0>300}": torch.zeros(0) for number in range(4000)}

    with pytest.raises(CheckpointError, match="1,000,000 bytes"):
        split_file(written(names, {}), "here")


@pytest.mark.parametrize("length", [0, 1, 7, 8, 9, 10])
def test_a_file_of_a_few_bytes_is_refused(length: int) -> None:
    content = written({"a": torch.ones(2)}, {})[:length]

    with pytest.raises(CheckpointError):
        split_file(content, "here")


def test_a_file_larger_than_any_weights_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "w"
    with path.open("wb") as file:
        file.write(b"PK\x03\x04")
        file.truncate(2**40)  # takes no room on the disk

    with pytest.raises(CheckpointError, match="at most"):
        read_file(path)


def test_weights_larger_than_the_memory_are_a_matter_of_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> None:
        raise MemoryError

    monkeypatch.setattr("evalcam_cli.models.checkpoint.opened", refuse)

    with pytest.raises(MachineError, match="memory"):
        read_file(tmp_path / "w")


def test_a_header_with_anything_but_spaces_behind_it_is_refused() -> None:
    header = json.dumps({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    good, bad = header + b"   ", header + b"\n  "

    assert split_file(struct.pack("<Q", len(good)) + good + bytes(8), "here").table
    with pytest.raises(CheckpointError, match="does not end"):
        split_file(struct.pack("<Q", len(bad)) + bad + bytes(8), "here")
