"""Weights files that try to run code: each creates the canary where a reader lets it."""

import io
import os
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tests.zoo.cases import CANARY

CODE = f"import os; open(os.environ[{CANARY!r}], 'w').close()"
PROTOCOLS = (0, 2, 4)


class Call:
    """Unpickles by calling a function."""

    def __init__(self, function: Callable[..., Any], *arguments: object) -> None:
        self.answer = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[object, ...]]:
        return self.answer


class Attributed:
    """Unpickles by calling a function with the attributes it is to be given."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[object, ...], object]:
        return dict, (), Call(exec, CODE)


CALLS: dict[str, Callable[[], object]] = {
    "exec": lambda: Call(exec, CODE),
    "system": lambda: Call(os.system, f'touch "${CANARY}"'),
    "eval": lambda: Call(eval, f"exec({CODE!r})"),
    "getattr": lambda: Call(_apply, CODE),
    "attributes": Attributed,
}


def _apply(code: str) -> None:
    """Stands for a function of any module that can be imported where the file is read."""
    exec(code)  # noqa: S102 (the point)


def craft(program: bytes, *more: tuple[str, bytes]) -> bytes:
    """An archive as torch would write it around a pickle."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in (("data.pkl", program), ("version", b"3\n"), ("byteorder", b"little"), *more):
            archive.writestr(f"a/{name}", content)
    return buffer.getvalue()


def as_zip(value: object, protocol: int = 2) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, pickle_protocol=protocol)
    return buffer.getvalue()


def as_legacy(value: object, protocol: int = 2) -> bytes:
    """The form before torch 1.6."""
    buffer = io.BytesIO()
    torch.save(value, buffer, pickle_protocol=protocol, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


def as_tar(value: object, protocol: int = 2) -> bytes:
    """The form before torch 0.2; the storages are unpickled first (CVE-2025-32434)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in ("sys_info", "storages", "tensors", "pickle"):
            content = pickle.dumps(value if name == "storages" else 0, protocol=protocol)
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def _state() -> dict[str, Any]:
    return {"conv1.weight": torch.ones(2, 3), "bn1.bias": torch.zeros(2)}


def _places(call: Callable[[], object]) -> dict[str, object]:
    """Values that hide the call in a place each."""
    with_attribute = torch.nn.Linear(2, 2).state_dict()
    vars(with_attribute)["_metadata"] = call()
    return {
        "alone": call(),
        "extra": {"state_dict": _state(), "extra": call()},
        "weight": _state() | {"fc.weight": call()},
        "optimizer": {"model": _state(), "optimizer": {"state": {0: {"exp_avg": call()}}, "param_groups": []}},
        "key": {"state_dict": _state(), "a": [{(1, (call(),)): 2}]},
        "metadata": with_attribute,
    }


def _text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def _exec(code: str = CODE) -> bytes:
    return b"cbuiltins\nexec\n" + _text(code) + b"\x85R"


def _second_pickle() -> bytes:
    """The call in the list of storages, which stands behind the first program."""
    good = as_legacy(_state())
    position = good.rindex(b"\x80\x02]")
    return good[:position] + b"\x80\x02" + _exec() + b"." + good[position:]


def _reference() -> bytes:
    """The call as the kind of a storage."""
    return craft(b"\x80\x02(" + _text("storage") + _exec() + _text("0") + _text("cpu") + b"K\x04tQ.")


def contents() -> dict[str, bytes]:
    """All of them by name; at least one of each call, protocol, wrapping and place."""
    found = {
        # protocol 0 cannot refer to tensors
        f"{name}_{wrap.__name__[3:]}_{protocol}": wrap(
            {"state_dict": _state() if protocol else {}, "extra": call()}, protocol
        )
        for name, call in CALLS.items()
        for wrap, protocols in ((as_zip, PROTOCOLS), (as_legacy, (0, 4) if name == "exec" else (2,)))
        for protocol in protocols
    }
    found |= {f"raw_{protocol}": pickle.dumps(CALLS["exec"](), protocol=protocol) for protocol in PROTOCOLS}
    found |= {f"tar_{protocol}": as_tar(CALLS["exec"](), protocol) for protocol in (0, 2)}
    found |= {f"place_{place}": as_zip(value) for place, value in _places(CALLS["exec"]).items()}
    return found | {
        "int_desync": craft(b"\x80\x02I0x10\n0" + _exec() + b"."),
        "inst": craft(b"(" + _text(CODE) + b"ibuiltins\nexec\n."),
        "obj": craft(b"(cbuiltins\nexec\n" + _text(CODE) + b"o."),
        "stack_global": craft(b"\x80\x04" + _text("builtins") + _text("exec") + b"\x93" + _text(CODE) + b"\x85R."),
        "popped": craft(b"\x80\x02" + _exec() + b"0}."),
        "before_the_end": craft(b"\x80\x02}" + _exec() + b"0."),
        "storage_kind": _reference(),
        "second_pickle": _second_pickle(),
    }


def unsafe_load(path: Path) -> None:
    """Read a file as careless tools do."""
    torch.load(path, weights_only=False)
