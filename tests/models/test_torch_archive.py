"""What `torch.save` wrote comes back as torch itself reads it, and nothing else comes back at all."""

import io
import pickle
import struct
import warnings
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torchvision.models as zoo
from torch import Tensor, nn

from evalcam_cli.config import ARCHS
from evalcam_cli.models.architectures import build_model
from evalcam_cli.models.pickled import PlacedTensor, read_pickle
from evalcam_cli.models.torch_archive import Saved, is_saved, read_saved, to_tensors


def saved_bytes(value: object, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def as_torch_loads(content: bytes) -> Any:
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


def as_read(content: bytes) -> Any:
    """The whole value, every tensor built."""
    saved = read_saved(content)
    return _built(saved, saved.value)


def _built(saved: Saved, value: Any) -> Any:
    if isinstance(value, PlacedTensor):
        return to_tensors(saved, {"": value})[""]
    if isinstance(value, dict):
        return {key: _built(saved, one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_built(saved, one) for one in value)
    return value


def differences(mine: Any, theirs: Any, place: str = "value") -> list[str]:
    """Where two values differ: in kind, order of keys, shape, strides or one bit."""
    if isinstance(theirs, Tensor):
        alike = (
            isinstance(mine, Tensor)
            and (mine.dtype, mine.shape, mine.stride()) == (theirs.dtype, theirs.shape, theirs.stride())
            and torch.equal(mine.nan_to_num(7) if mine.is_floating_point() else mine,
                            theirs.nan_to_num(7) if theirs.is_floating_point() else theirs)
        )  # fmt: skip
        return [] if alike else [place]
    if isinstance(theirs, dict):
        if not isinstance(mine, dict) or list(mine) != list(theirs):
            return [place]
        return [found for key in theirs for found in differences(mine[key], theirs[key], f"{place}[{key!r}]")]
    if isinstance(theirs, list | tuple):
        if not isinstance(mine, list | tuple) or len(mine) != len(theirs):
            return [place]
        pairs = zip(mine, theirs, strict=True)
        return [found for index, pair in enumerate(pairs) for found in differences(*pair, f"{place}[{index}]")]
    return [] if type(mine) is type(theirs) and mine == theirs else [place]


def small(state: dict[str, Tensor]) -> "OrderedDict[str, Tensor]":
    """A state dict with the same names, kinds and numbers of dimensions, but at most three of each side."""
    generator = torch.Generator().manual_seed(0)
    shapes = {name: [min(side, 3) for side in tensor.shape] for name, tensor in state.items()}
    return OrderedDict(
        (name, (torch.randn(shapes[name], generator=generator) * 9).to(tensor.dtype)) for name, tensor in state.items()
    )


def trained() -> dict[str, Any]:
    """A training checkpoint as many write it: model, optimiser, scheduler, random state and plain values."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.LazyLinear(2))
    model(torch.randn(2, 3, 8, 8)).sum().backward()
    model = model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), amsgrad=True)
    optimizer.step()
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [3, 5, 5])
    return {
        "state_dict": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
        "rng": torch.get_rng_state(),
        "epoch": 2**40,
        "best": float("inf"),
        "names": ["정상", "b"],
        "done": False,
        "nothing": None,
        "shape": torch.Size([2, 3]),
        "parts": (1, 2, 3, 4),
    }  # fmt: skip


def shared() -> dict[str, Tensor]:
    flat = torch.arange(24.0)
    return {"a": flat[:8].view(2, 4), "b": flat[8:], "all": flat, "again": flat[:8].view(2, 4)}


RESNET18 = small(build_model("resnet18", 5).state_dict())

VALUES: dict[str, Callable[[], Any]] = {
    "a state dict with its metadata": lambda: nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2)).state_dict(),
    "fp16": lambda: {name: tensor.half() for name, tensor in RESNET18.items()},
    "bf16": lambda: {name: tensor.bfloat16() for name, tensor in RESNET18.items()},
    "fp64": lambda: {name: tensor.double() for name, tensor in RESNET18.items()},
    "channels last": lambda: {
        name: tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor
        for name, tensor in RESNET18.items()
    },
    "transposed": lambda: {"a": torch.arange(6.0).view(2, 3).t()},
    "parameters": lambda: dict(nn.Linear(3, 2).named_parameters()),
    "module.": lambda: {"module." + name: tensor for name, tensor in RESNET18.items()},
    "a training checkpoint": trained,
    "shared storages": shared,
    "every kind of number": lambda: {
        str(dtype): torch.tensor([0, 1, 1]).to(dtype)
        for dtype in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)
    },
    "empty and without dimensions": lambda: {"a": torch.zeros(0, 3), "b": torch.tensor(3.0), "c": torch.zeros(0)},
    "NaN": lambda: {"a": torch.tensor([float("nan"), 1.0])},
    "a counter": lambda: {"milestones": Counter([3, 5, 5])},
    "large numbers": lambda: {"a": [2**31, -(2**31), 2**62, -1, 255, 256, 65536]},
}
FORMS: dict[str, dict[str, Any]] = {
    "zip": {},
    "before 1.6": {"_use_new_zipfile_serialization": False},
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("what", VALUES)
def test_it_reads_what_torch_reads(what: str, form: str) -> None:
    content = saved_bytes(VALUES[what](), **FORMS[form])

    assert differences(as_read(content), as_torch_loads(content)) == []


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("arch", ARCHS)
def test_it_reads_the_state_dict_of_every_architecture(arch: str, form: str) -> None:
    with torch.device("meta"):
        model = zoo.get_model(arch)
    content = saved_bytes(small(model.state_dict()), **FORMS[form])

    assert differences(as_read(content), as_torch_loads(content)) == []


@pytest.mark.parametrize("protocol", [3, 4, 5])
@pytest.mark.parametrize("form", FORMS)
def test_it_reads_later_protocols_of_pickle(form: str, protocol: int) -> None:
    content = saved_bytes(trained()["state_dict"], pickle_protocol=protocol, **FORMS[form])

    assert differences(as_read(content), torch.load(io.BytesIO(content), weights_only=False)) == []


def test_it_reads_an_ordered_dict_of_python_2() -> None:
    """Whose text keys were byte strings, and whose pairs came at once."""
    pairs = b"](]q\x02(U\x01aq\x03K\x01e]q\x04(U\x01bq\x05K\x02ee\x85q\x06Rq\x07."

    assert read_pickle(io.BytesIO(b"\x80\x02ccollections\nOrderedDict\nq\x00" + pairs), {}) == {"a": 1, "b": 2}


def test_tensors_of_one_storage_share_it() -> None:
    saved = read_saved(saved_bytes(shared()))

    tensors = to_tensors(saved, saved.value)

    tensors["all"][0] = 99
    assert tensors["a"][0, 0] == 99
    assert tensors["again"][0, 0] == 99


@pytest.mark.parametrize("form", FORMS)
def test_its_forms_are_told_by_their_first_bytes(form: str) -> None:
    assert is_saved(saved_bytes({"a": torch.ones(1)}, **FORMS[form])[:64])
    assert not is_saved(b"<!DOCTYPE html>")
    assert not is_saved(pickle.dumps({"a": 1}))


def craft(program: bytes, **members: bytes) -> bytes:
    """An archive as torch would write it around a pickle."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in {"data.pkl": program, "version": b"3\n", "byteorder": b"little", **members}.items():
            archive.writestr(f"a/{name}", content)
    return buffer.getvalue()


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


MEMO_BOMB = (
    b"\x80\x02]q\x00" + b"(" + b"K\x01" * 10 + b"e"
    + b"".join(
        b"]q" + bytes([level]) + b"(" + (b"h" + bytes([level - 1])) * 10 + b"e" for level in range(1, 10)
    ) + b"\x94" * 0
)  # fmt: skip
STORAGE = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + b"K\x04tQ"


def tensor(shape: bytes, stride: bytes, offset: bytes = b"K\x00") -> bytes:
    build = b"(" + STORAGE + offset + shape + stride + b"\x89ccollections\nOrderedDict\n)RtR."
    return b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n" + build


PROGRAMS: dict[str, tuple[bytes, str]] = {
    "a function": (b"\x80\x02cposix\nsystem\nX\x02\x00\x00\x00ls\x85R.", "asks for 'posix.system'"),
    "a function from the stack": (b"\x80\x04" + text("posix") + text("system") + b"\x93.", "asks for 'posix.system'"),
    "a text integer that scanners misread": (b"\x80\x02I0x10\n0cbuiltins\nexec\n.", "0x10"),
    "a deep key": (b"\x80\x02}" + b")" + b"\x85" * 200_000 + b"K\x01s.", "neither texts nor numbers"),
    "a deep value": (b"\x80\x02)" + b"\x85" * 100_000 + b".", "deeper"),
    "a memo bomb": (MEMO_BOMB + b".", "ends too early"),
    "a memo bomb in one value": (MEMO_BOMB + b"\x86" * 9 + b".", "over 1,000,000 values"),
    "a list in itself": (b"\x80\x02]q\x00h\x00a.", "contains itself"),
    "a key twice": (b"\x80\x02}(K\x01K\x02K\x01K\x03u.", "twice"),
    "one and true": (b"\x80\x02}(K\x01K\x02\x88K\x03u.", "twice"),
    "no mark": (b"\x80\x02]K\x01e.", "mark"),
    "what is below the mark": (b"\x80\x02K\x01(\x85.", "not there"),
    "an empty stack": (b"\x80\x02.", "not there"),
    "what was never kept": (b"\x80\x02h\x05.", "never kept"),
    "a set": (b"\x80\x04\x8f.", "EMPTY_SET"),
    "an object": (b"\x80\x02ctorch\nSize\n)\x81.", "NEWOBJ"),
    "a number of 80 bits": (b"\x80\x02\x8a\x0a" + b"\xff" * 9 + b"\x0f.", "64 bits"),
    "a long text": (b"\x80\x02" + text("x" * 100_001) + b".", "characters"),
    "attributes of a list": (b"\x80\x02]}b.", "attributes"),
    "a call of a number": (b"\x80\x02K\x01)R.", "no function"),
    "a call of a storage": (b"\x80\x02ctorch\nFloatStorage\n)R.", "no function"),
    "too few arguments": (b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)R.", "0 arguments"),
    "a stride of 0": (tensor(b"K\x04\x85", b"K\x00\x85"), "gaps or repeats"),
    "a gap": (tensor(b"K\x02\x85", b"K\x02\x85"), "gaps or repeats"),
    "too large": (tensor(b"K\x05\x85", b"K\x01\x85"), "larger than its storage"),
    "behind the end": (tensor(b"K\x04\x85", b"K\x01\x85", b"K\x01"), "larger than its storage"),
    "a negative place": (tensor(b"K\x04\x85", b"K\x01\x85", b"J\xff\xff\xff\xff"), "whole number"),
    "a side that is true": (tensor(b"\x88\x85", b"K\x01\x85"), "whole number"),
    "a shape that is a list": (tensor(b"]K\x04a", b"K\x01\x85"), "shape"),
    "nine dimensions": (tensor(b"(" + b"K\x01" * 9 + b"t", b"(" + b"K\x01" * 9 + b"t"), "dimensions"),
    "strides of another length": (tensor(b"K\x04\x85", b"K\x01K\x01\x86"), "gaps or repeats"),
    "a tensor of no storage": (
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(K\x00K\x00))\x89NtR.",
        "no plain one",
    ),
    "a reference to a module": (b"\x80\x02(" + text("module") + b"K\x00K\x00K\x00K\x00tQ.", "no plain storage"),
    "something behind": (b"\x80\x02}.}", "behind"),
    "no end": (b"\x80\x02}", "STOP|exhausted"),
}  # fmt: skip


@pytest.mark.parametrize("what", PROGRAMS)
def test_a_pickle_of_anything_else_is_refused_for_its_reason(what: str) -> None:
    program, reason = PROGRAMS[what]

    with pytest.raises(ValueError, match=reason):
        read_saved(craft(program, **{"data/0": b"\0" * 16}))


def test_a_step_too_many_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evalcam_cli.models.pickled.MAX_OPCODES", 1000)

    with pytest.raises(ValueError, match="steps"):
        read_pickle(io.BytesIO(b"\x80\x02" + b"N" * 1000 + b"."), {})


def test_the_crafted_tensor_is_right_but_for_what_a_case_changes() -> None:
    content = craft(tensor(b"K\x04\x85", b"K\x01\x85"), **{"data/0": struct.pack("<4f", 1, 2, 3, 4)})

    assert as_read(content).tolist() == [1, 2, 3, 4]


def rezipped(content: bytes, change: Callable[[str, bytes], tuple[str, bytes] | None], **options: Any) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(buffer, "w", **options) as new:
        for entry in old.infolist():
            changed = change(entry.filename, old.read(entry))
            if changed is not None:
                new.writestr(*changed)
    return buffer.getvalue()


def with_member(content: bytes, name: str, data: bytes) -> bytes:
    buffer = io.BytesIO(content)
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "a") as archive:
        warnings.simplefilter("ignore")  # of a name that is there twice
        archive.writestr(name, data)
    return buffer.getvalue()


GOOD = saved_bytes({"a": torch.arange(100.0)})

ARCHIVES: dict[str, tuple[Callable[[], bytes], str]] = {
    "compressed": (lambda: rezipped(GOOD, lambda *one: one, compression=zipfile.ZIP_DEFLATED), "compressed"),
    "a second pickle": (lambda: with_member(GOOD, "archive/data.pkl", b"\x80\x02}."), "twice"),
    "a pickle in capitals beside": (lambda: with_member(GOOD, "archive/DATA.PKL", b"\x80\x02}."), "twice"),
    "a pickle in capitals": (
        lambda: rezipped(GOOD, lambda name, data: (name.replace("data.pkl", "DATA.PKL"), data)),
        "lacks data.pkl",
    ),
    "a short record": (
        lambda: rezipped(GOOD, lambda name, data: (name, data[:-8] if name.endswith("data/0") else data)),
        "another length",
    ),
    "no record": (
        lambda: rezipped(GOOD, lambda name, data: None if name.endswith("data/0") else (name, data)),
        "another length",
    ),
    "two folders": (lambda: with_member(GOOD, "other/data.pkl", b"\x80\x02}."), "several folders"),
    "a way out": (lambda: with_member(GOOD, "archive/../../x", b""), "path for a name"),
    "a backslash": (lambda: with_member(GOOD, "archive/a\\b", b""), "path for a name"),
    "a program": (lambda: with_member(GOOD, "archive/constants.pkl", b""), "TorchScript"),
    "big-endian": (
        lambda: rezipped(GOOD, lambda name, data: (name, b"big" if name.endswith("byteorder") else data)),
        "little-endian",
    ),
    "many members": (lambda: GOOD + b"PK\x01\x02" * 20_001, "members"),
    "no members": (lambda: b"PK\x03\x04" + b"PK\x05\x06" + b"\0" * 18, "members"),
    "cut off": (lambda: GOOD[: len(GOOD) // 2], "cut off"),
}


@pytest.mark.parametrize("what", ARCHIVES)
def test_an_archive_unlike_those_of_torch_is_refused_for_its_reason(what: str) -> None:
    make, reason = ARCHIVES[what]

    with pytest.raises(ValueError, match=reason):
        as_read(make())


@pytest.mark.parametrize("place", [b"\0\0\x80\x3f", b"cpu"])
def test_a_flipped_bit_is_found(place: bytes) -> None:
    changed = bytearray(GOOD)
    changed[GOOD.index(place)] ^= 1

    with pytest.raises(ValueError, match="damaged"):
        as_read(bytes(changed))


LEGACY = saved_bytes({"a": torch.arange(100.0), "b": torch.ones(3)}, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize("length", [30, 60, 200, len(LEGACY) - 13, len(LEGACY) - 1])
def test_the_older_form_cut_anywhere_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match=r"cut off|STOP|exhausted|expected|not enough|EOF"):
        as_read(LEGACY[:length])


def test_the_older_form_claims_no_more_than_it_has() -> None:
    numbers = struct.pack("<q", 100)
    assert LEGACY.count(numbers) == 1

    with pytest.raises(ValueError, match="another length"):
        as_read(LEGACY.replace(numbers, struct.pack("<q", 2**40)))


def test_a_second_program_in_the_older_form_is_not_run() -> None:
    """Scanners looked at the first pickle of a file only."""
    keys = LEGACY.rindex(b"\x80\x02]")

    with pytest.raises(ValueError, match=r"posix\.system"):
        as_read(LEGACY[:keys] + b"\x80\x02cposix\nsystem\nX\x02\x00\x00\x00ls\x85R." + LEGACY[keys:])


def test_the_older_form_ends_with_its_numbers() -> None:
    with pytest.raises(ValueError, match="behind"):
        as_read(LEGACY + b"\0")


STRANGE: dict[str, Callable[[], object]] = {
    "sparse": lambda: torch.sparse_coo_tensor(torch.tensor([[0]]), torch.tensor([1.0]), (4,), check_invariants=True),
    "expanded": lambda: torch.zeros(1).expand(2**40),
    "complex": lambda: torch.tensor([1j]),
    "meta": lambda: torch.zeros(3, device="meta"),
    "a whole module": lambda: nn.Linear(2, 2),
    "quantised": lambda: torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8),
    "with gaps": lambda: torch.arange(6.0)[::2],
    "a conjugate": lambda: torch.tensor([1j]).conj(),
    "a function": lambda: print,
    "an array": lambda: torch.ones(2).numpy(),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("what", STRANGE)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_what_is_no_dense_tensor_is_refused(what: str, form: str) -> None:
    content = saved_bytes({"a": STRANGE[what]()}, **FORMS[form])

    with pytest.raises(ValueError, match=r"asks for|gaps or repeats|plain|whole number"):
        read_saved(content)
