"""Weights files: damaged, hostile, foreign, lying about themselves, or with weights that make no sense."""

import io
import os
import struct
import warnings
import zipfile
from itertools import cycle
from pathlib import Path

import torch
from torch import Tensor

from tests.zoo import checkpoint_values, malicious
from tests.zoo.cases import Case, Kit
from tests.zoo.malicious import as_legacy, as_zip, craft
from tests.zoo.settings import unsafe_loading
from tests.zoo.weights_files import COMMANDS, Make, good_state, refused, writing


def cases() -> list[Case]:
    return [*_damaged(), *_malicious(), *_bombs(), *checkpoint_values.cases()]


def _damaged() -> list[Case]:
    def zipped(kit: Kit) -> bytes:
        return as_zip(good_state(kit))

    def cut(make: Make, part: float) -> Make:
        return lambda kit: (content := make(kit))[: int(len(content) * part)]

    def flipped(make: Make, part: float) -> Make:
        def flip(kit: Kit) -> bytes:
            content = bytearray(make(kit))
            content[int(len(content) * part)] ^= 4
            return bytes(content)

        return flip

    def native(kit: Kit) -> bytes:
        return kit.checkpoint.read_bytes()

    files: dict[str, tuple[Make, str]] = {
        "zero": (lambda kit: b"", "empty"),
        "zeros": (lambda kit: bytes(100_000), "no weights file"),
        "html": (lambda kit: b"<!DOCTYPE html><title>404</title>" * 99, "no weights file"),
        "lfs": (lambda kit: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs pull"),
        "trunc_02": (cut(zipped, 0.02), "cut off"),
        "trunc_50": (cut(zipped, 0.5), "cut off"),
        "trunc_native_02": (cut(native, 0.0002), "cut off"),
        "trunc_native_50": (cut(native, 0.5), "cut off"),
        "trunc_legacy_50": (cut(lambda kit: as_legacy(good_state(kit)), 0.5), "cut off"),
        "bitflip_weights": (flipped(zipped, 0.7), "damaged"),
        "bitflip_native": (flipped(native, 0.7), "SHA-256"),
        "one_byte": (lambda kit: b"P", "no weights file"),
        "appended": (lambda kit: native(kit) + b"\0", "cut off"),
        "text": (lambda kit: b"cat,dog\n" * 100, "no weights file"),
    }
    return [
        refused(name, make, command, word)
        for (name, (make, word)), command in zip(files.items(), cycle(COMMANDS), strict=False)
    ]


def _malicious() -> list[Case]:
    found = []
    for (name, content), command in zip(malicious.contents().items(), cycle(COMMANDS), strict=False):
        make = writing(_constantly(content))
        found.append(Case(f"checkpoints/evil_{name}-{command}", make, COMMANDS[command], "refuse", 3, ("refused",)))
        found.append(
            Case(
                f"checkpoints/evil_{name}-{command}-unsafe", make, COMMANDS[command], "refuse", 3, ("refused",),
                setting=unsafe_loading,
            )
        )  # fmt: skip
    return found


def _constantly(content: bytes) -> Make:
    return lambda kit: content


def _compressed(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
    return buffer.getvalue()


def _memo_bomb() -> bytes:
    levels = b"".join(b"]q" + bytes([level]) + b"(" + (b"h" + bytes([level - 1])) * 10 + b"e" for level in range(1, 10))
    return b"\x80\x02]q\x00(" + b"K\x01" * 10 + b"e" + levels + b"\x86" * 9 + b"."


def _sparse() -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        indices = torch.tensor([0, 2**20])
        return torch.sparse_csr_tensor(indices, torch.tensor([0]), torch.tensor([1.0]), (1, 4), check_invariants=False)


def _text(length: int) -> bytes:
    return b"X" + struct.pack("<I", length) + b"x" * length


def _bombs() -> list[Case]:
    legacy = as_legacy({"w": torch.ones(1000)})
    files: dict[str, tuple[Make, str]] = {
        "deep_tuple_key": (lambda kit: craft(b"\x80\x02}" + b")" + b"\x85" * 200_000 + b"K\x01s."), "refused"),
        "deep_value": (lambda kit: craft(b"\x80\x02}" + _text(1) + b")" + b"\x85" * 50_000 + b"s."), "deeper"),
        "memo_bomb": (lambda kit: craft(_memo_bomb()), "values"),
        "self": (lambda kit: craft(b"\x80\x02}q\x00" + _text(1) + b"h\x00s."), "contains itself"),
        "zip_bomb": (lambda kit: _compressed(as_zip({"w": torch.zeros(64 << 20)})), "compressed"),
        "expand_bomb": (lambda kit: as_zip({"fc.weight": torch.zeros(1).expand(2**40)}), "refused"),
        "expand_small": (lambda kit: as_zip({"fc.weight": torch.zeros(1).expand(2**20)}), "larger than its storage"),
        "sparse_oob": (lambda kit: as_zip({"fc.weight": _sparse()}), "refused"),
        "many_steps": (lambda kit: craft(b"\x80\x02" + b"N" * 20_000_000 + b"."), "steps"),
        "many_members": (lambda kit: craft(b"\x80\x02}.", *((f"data/{i}", b"") for i in range(30_000))), "members"),
        "long_text": (lambda kit: craft(b"\x80\x02}" + _text(50_000_000) + b"Ns."), "characters"),
        "many_aliases": (lambda kit: as_zip({str(i): torch.ones(1000) for i in range(5000)}), "architecture"),
        "legacy_claims": (lambda kit: legacy.replace(struct.pack("<q", 1000), struct.pack("<q", 2**39)), "refused"),
        "legacy_many_steps": (lambda kit: legacy[:200] + b"N" * 20_000_000, "refused"),
        "integer": (lambda kit: craft(b"\x80\x02\x8b" + struct.pack("<i", 9_000_000) + b"\x7f" * 9_000_000 + b"."), ""),
        "decimal": (lambda kit: craft(b"I" + b"9" * 2_000_000 + b"\n."), "refused"),
    }
    found = [
        refused(name, make, command, word or "refused", megabytes=500, seconds=10)
        for (name, (make, word)), command in zip(files.items(), cycle(COMMANDS), strict=False)
    ]
    return [
        *found,
        Case("checkpoints/fifo", _fifo, COMMANDS["predict"], "refuse", 3, ("pipe",), seconds=10),
        Case("checkpoints/endless", _endless, COMMANDS["train"], "refuse", 3, ("not a regular file",), seconds=10),
        Case("checkpoints/folder", lambda here, kit: (here / "w").mkdir(), COMMANDS["evaluate"], "refuse", 2),
    ]


def _fifo(here: Path, kit: Kit) -> None:
    os.mkfifo(here / "w")
    (here / "classes.txt").write_text("cat\ndog\n")


def _endless(here: Path, kit: Kit) -> None:
    (here / "w").symlink_to("/dev/zero")
