"""Damaged and mutated weights files: none may load as other weights, and only one kind of error may come of them.

`python -m tests.benchmarks.damaged_checkpoints [--quick]`; the quick form is what the tests run.

Damage is what disks and networks do: flipped bits, cut ends, zeroed, swapped and doubled blocks. Mutation is what an
attacker would try: instructions of the pickle, keys of the table and bytes of the headers exchanged, inserted and taken
out, with the checksums put right again, so that the mutant reaches the inner readers. A mutant may then hold other
weights, as any rewritten file may; a damaged file may not. The form before torch 1.6 has no checksum, so of it only the
kind of error is counted.

Result (3,000 damaged, 10,020 mutated; 2 shared cores, under 0.6 s for any file): no file with checksums gave other
weights, and every refusal was a CheckpointError. Damaged: native 1,000 of 1,000 refused; ZIP 932 refused, 66 the same
weights (padding, dates); the form before 1.6: 602 refused, 371 other weights, of which the reader warns. Mutated:
native 3,179 refused, 161 the same; ZIP 3,220 refused, 29 the same, 91 that fit no model; the form before
1.6: 3,247 refused, 29 the same, 64 that fit no model.
"""

import argparse
import hashlib
import io
import json
import logging
import struct
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from evalcam_cli.data.preprocessing import Preprocessing
from evalcam_cli.errors import CheckpointError, EvalcamError
from evalcam_cli.models.checkpoint import Checkpoint, require_start, save_checkpoint
from evalcam_cli.models.weights import parse_weights
from tests.zoo.malicious import as_legacy, as_zip

HERE = Path("weights")


@dataclass(frozen=True)
class Result:
    """What came of the files."""

    outcomes: Counter[str] = field(default_factory=Counter)
    """`refused`; the `same` weights; `unfit`: other names or shapes, which no model takes; `other` weights."""
    errors: Counter[str] = field(default_factory=Counter)
    """Exceptions by class; only CheckpointError is right."""
    slowest: float = 0.0
    """Seconds of one file."""


def weights() -> dict[str, Tensor]:
    """A small state dict with all that a ResNet's has: four dimensions, none, and counters."""
    generator = torch.Generator().manual_seed(0)
    state = {f"layer{n}.conv.weight": torch.randn(8, 4, 3, 3, generator=generator) for n in range(6)}
    state |= {f"layer{n}.bn.running_var": torch.rand(8, generator=generator) for n in range(6)}
    return state | {f"layer{n}.bn.num_batches_tracked": torch.tensor(n) for n in range(6)}


def files(folder: Path) -> dict[str, bytes]:
    """The same weights in each form that is read."""
    state, path = weights(), folder / "native"
    preprocessing = Preprocessing(32, "squash")
    checkpoint = Checkpoint("resnet18", 2, ("a", "b"), preprocessing, training_pixels=frozenset({"ab" * 8}))
    save_checkpoint(path, checkpoint, state, {"rng/cpu": torch.arange(99, dtype=torch.uint8)}, {"epoch": 3})
    return {"native": path.read_bytes(), "zip": as_zip({"state_dict": state, "epoch": 3}), "legacy": as_legacy(state)}


def damaged(content: bytes, generator: np.random.Generator) -> bytes:
    """The content after one accident."""
    changed, size = bytearray(content), len(content)
    begin = int(generator.integers(size))
    length = min(2 ** int(generator.integers(0, 13)), size - begin)
    match int(generator.integers(8)):
        case 0 | 1:
            changed[begin] ^= 1 << int(generator.integers(8))
        case 2:
            return content[:begin]
        case 3:
            changed[begin : begin + length] = bytes(length)
        case 4:
            changed[begin : begin + length] = generator.bytes(length)
        case 5:
            del changed[begin : begin + length]
        case 6:
            changed[begin:begin] = content[begin : begin + length]
        case _:
            other = int(generator.integers(size - length + 1))
            changed[begin : begin + length], changed[other : other + length] = (
                content[other : other + length],
                content[begin : begin + length],
            )
    return bytes(changed)


def mutated(content: bytes, form: str, generator: np.random.Generator) -> bytes:
    """The content with its structure changed and its checksums put right."""
    if form == "zip":
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = {entry.filename: archive.read(entry) for entry in archive.infolist()}
        program = next(name for name in members if name.endswith("data.pkl"))
        members[program] = _spliced(members[program], generator)
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for name, data in members.items():
                archive.writestr(name, data)
        return buffer.getvalue()
    if form == "legacy":
        end = content.rindex(b".", 0, len(content) - sum(t.numel() * t.itemsize + 8 for t in weights().values()))
        return content[:16] + _spliced(content[16:end], generator) + content[end:]
    return _mutated_native(content, generator)


def _mutated_native(content: bytes, generator: np.random.Generator) -> bytes:
    length = struct.unpack_from("<Q", content)[0]
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    text = header["__metadata__"]["evalcam"]
    if generator.integers(2):  # the table of tensors or the description, as text
        table = {name: entry for name, entry in header.items() if name != "__metadata__"}
        raw = _spliced(json.dumps(table, separators=(",", ":")).encode(), generator)
        raw = b'{"__metadata__":' + json.dumps({"evalcam": text}).encode() + b"," + raw[1:]
    else:
        changed = _spliced(text.encode(), generator).decode("utf-8", "replace")
        header["__metadata__"]["evalcam"] = _signed(changed, header)
        raw = json.dumps(header, separators=(",", ":")).encode()
    return struct.pack("<Q", len(raw)) + raw + data


def _signed(text: str, header: dict[str, object]) -> str:
    """The description with the digest of what it now says, when it still says anything."""
    try:
        document = json.loads(text)
        content = {key: value for key, value in document.items() if key != "document_sha256"}
        table = {name: entry for name, entry in header.items() if name != "__metadata__"}
        signed = json.dumps([content, table], sort_keys=True)
        return json.dumps(content | {"document_sha256": hashlib.sha256(signed.encode()).hexdigest()})
    except (ValueError, AttributeError):
        return text


_PIECES = (
    b"(", b")", b"}", b"]", b"t", b"R", b"b", b"Q", b"0", b"2", b"h\x01", b"q\x01", b"\x85", b"\x86", b"\x87", b"s",
    b"u", b"a", b"e", b".", b"K\xff", b"J\xff\xff\xff\xff", b"M\x00\x10", b"\x8a\x08" + b"\xff" * 7 + b"\x7f",
    b"cbuiltins\nexec\n", b"X\x04\x00\x00\x00exec", b"\x88", b"N", b"G" + b"\x7f\xf0" + b"\0" * 6, b"c", b"I9\n",
    b"{", b",", b":", b'"', b"null", b"-1", b"1e999", b"99999999999999999999", b"true", b"[[[[", b"\\ud800", b"\xff",
)  # fmt: skip


def _spliced(content: bytes, generator: np.random.Generator) -> bytes:
    """One to three pieces inserted, taken out, doubled, moved or replaced."""
    for _ in range(int(generator.integers(1, 4))):
        begin = int(generator.integers(len(content) + 1))
        length = int(generator.integers(1, 12))
        other = int(generator.integers(len(content) + 1))
        piece = _PIECES[int(generator.integers(len(_PIECES)))]
        content = (
            content[:begin] + piece + content[begin:],
            content[:begin] + piece + content[begin + len(piece) :],
            content[:begin] + content[begin + length :],
            content[:begin] + content[begin : begin + length] + content[begin:],
            content[:begin] + content[other : other + length] + content[begin + length :],
        )[int(generator.integers(5))]
    return content


def judge(contents: Iterator[bytes]) -> Result:
    """Read each of them as evalcam reads a file."""
    outcomes, errors, slowest = Counter[str](), Counter[str](), 0.0
    right = weights()
    for content in contents:
        begun = time.perf_counter()
        try:
            require_start(content[:64], len(content), HERE)
            state = parse_weights(content, HERE)
        except CheckpointError as error:
            outcomes["refused"] += 1
            errors[_sort_of(error)] += 1
        except EvalcamError as error:
            errors[type(error).__name__] += 1
        except Exception as error:
            errors[f"{type(error).__name__}: {error}"] += 1
        else:
            outcomes[_compared(state, right)] += 1
        slowest = max(slowest, time.perf_counter() - begun)
    return Result(outcomes, errors, slowest)


def _compared(state: dict[str, Tensor], right: dict[str, Tensor]) -> str:
    if {name: tensor.shape for name, tensor in state.items()} != {name: tensor.shape for name, tensor in right.items()}:
        return "unfit"
    alike = all(state[name].dtype == right[name].dtype and torch.equal(state[name], right[name]) for name in right)
    return "same" if alike else "other"


def _sort_of(error: CheckpointError) -> str:
    text = str(error)
    wrong = len(text) > 4000 or text.count("\n") > 7 or not text.replace("\n", "").isprintable()
    return "a message that is too long or not printable" if wrong else "CheckpointError"


def damage(content: bytes, count: int, seed: int) -> Result:
    """Accidents to one file."""
    generators = (np.random.default_rng([seed, number]) for number in range(count))
    return judge(changed for generator in generators if (changed := damaged(content, generator)) != content)


def mutate(content: bytes, form: str, count: int, seed: int) -> Result:
    """Changes of structure of one file."""
    return judge(mutated(content, form, np.random.default_rng([seed, number])) for number in range(count))


def numbers(result: Result) -> dict[str, Any]:
    return {"outcomes": dict(result.outcomes), "errors": dict(result.errors), "slowest": result.slowest}


def _main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="a tenth of the files")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    asked = parser.parse_args()
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        contents = files(Path(folder))
    scale = 1 if asked.quick else 10
    found: dict[str, dict[str, Any]] = {"damaged": {}, "mutated": {}}
    for form, content in contents.items():
        for what, result in (
            ("damaged", damage(content, 101 * scale, 0)),
            ("mutated", mutate(content, form, 334 * scale, 1)),
        ):
            _print(f"{form:6} {what}", result)
            found[what][form] = numbers(result)
    if asked.json:
        asked.json.write_text(json.dumps(found))


def _print(what: str, result: Result) -> None:
    print(f"{what}: {dict(result.outcomes)}; errors {dict(result.errors)}; slowest {result.slowest:.2f} s")


if __name__ == "__main__":
    _main()
