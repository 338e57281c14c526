"""Changed inputs for `fuzz_readers`: bytes, pieces, lines, cells, values, and structures with right checksums."""

import hashlib
import json
import random
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from tests.benchmarks.damaged_checkpoints import mutated as restructured
from tests.benchmarks.fuzz_targets import JOINT, Target

_NUMBERS = (0, 1, 127, 128, 255, 256, 65_535, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**64 - 1)
_VALUES: tuple[Any, ...] = (
    None, True, False, -1, 0, 1, 2, 101, 2**63, 10**400, 0.5, -1.5, 1e308, "", "..", "/", "a", "\x1b[31m", "\ud800",
    "x" * 3000, [], [[]], {}, {"a": 1}, [None], ["cat", "dog"], ["cat", "cat"], [0.5, 0.5, 0.0], [1e999],
)  # fmt: skip


def mutant(target: Target, corpus: Sequence[bytes], generator: random.Random) -> bytes:
    """A changed input, of at most the target's length."""
    return changed(generator.choice(corpus), target, corpus, generator)


def changed(content: bytes, target: Target, corpus: Sequence[bytes], generator: random.Random) -> bytes:
    """The input after one to four changes, of which about half respect what the reader looks for."""
    for _ in range(generator.choice((1, 1, 1, 2, 2, 3, 4))):
        if generator.random() < 0.5:
            content = _in_structure(content, target.name, generator)
        else:
            content = _in_bytes(content, target.tokens, corpus, generator)
    return content[: target.most]


def _in_bytes(  # noqa: PLR0911 (one return per kind of change)
    content: bytes, tokens: Sequence[bytes], corpus: Sequence[bytes], generator: random.Random
) -> bytes:
    begin = generator.randrange(len(content) + 1)
    end = min(len(content), begin + int(2 ** generator.uniform(0, 12)))
    before, piece, after = content[:begin], content[begin:end], content[end:]
    match generator.randrange(9):
        case 0 if piece:
            return before + bytes([piece[0] ^ 1 << generator.randrange(8)]) + piece[1:] + after
        case 1:
            return before
        case 2:
            return before + after
        case 3:
            return before + piece * generator.choice((2, 2, 3, 50)) + after
        case 4:
            return before + generator.choice(tokens) + piece + after
        case 5:
            return before + generator.choice(tokens) + content[begin + generator.randrange(12) :]
        case 6:
            other = generator.choice(corpus)
            return before + other[generator.randrange(len(other) + 1) :]
        case 7:
            number = generator.choice(_NUMBERS)
            return before + number.to_bytes(8, "little")[: generator.choice((1, 2, 4, 8))] + content[begin + 4 :]
        case _:
            return before + generator.randbytes(generator.randrange(1, 9)) + after


def _in_structure(content: bytes, kind: str, generator: random.Random) -> bytes:
    if kind == "config":
        return _lines(content, b":", (b"train", b"data", b"model"), generator)
    if kind == "split":
        table, joint, facts = content.partition(JOINT)
        if joint and generator.random() < 0.5:
            return table + joint + _json(facts, generator)
        return (
            _lines(table, b",", (b"", b"cat", b"train", b"val", b"0", b"1", b"../x", b"cat/001.png"), generator)
            + joint
            + facts
        )
    return _weights(content, generator)


def _lines(content: bytes, mark: bytes, words: Sequence[bytes], generator: random.Random) -> bytes:
    """A line taken out, doubled, moved, shifted, or with another word between two marks."""
    lines = content.split(b"\n")
    place, other = generator.randrange(len(lines)), generator.randrange(len(lines))
    line = lines[place]
    match generator.randrange(6):
        case 0:
            del lines[place]
        case 1:
            lines.insert(other, line)
        case 2:
            lines[place], lines[other] = lines[other], line
        case 3:
            lines[place] = b" " * generator.randrange(1, 5) + line
        case 4:
            cells, others = line.split(mark), lines[other].split(mark)
            cells[generator.randrange(len(cells))] = generator.choice((*others, *words))
            lines[place] = mark.join(cells)
        case _:
            cells = line.split(mark)
            value = generator.choice(_VALUES[:-1])
            cells[generator.randrange(len(cells))] = b" " + json.dumps(value)[:500].encode()
            lines[place] = mark.join(cells)
    return b"\n".join(lines)


def _json(text: bytes, generator: random.Random) -> bytes:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return json.dumps(_replaced(value, generator)).encode()


def _replaced(value: Any, generator: random.Random) -> Any:
    """The value with one value somewhere in it exchanged, taken out or added."""
    if not isinstance(value, dict | list) or not value or generator.random() < 0.1:
        return generator.choice(_VALUES)
    items = value if isinstance(value, dict) else dict(enumerate(value))
    key = generator.choice(list(items))
    items = dict(items)
    if generator.random() < 0.1:
        del items[key]
    else:
        items[key] = _replaced(items[key], generator)
    return items if isinstance(value, dict) else list(items.values())


def _weights(content: bytes, generator: random.Random) -> bytes:
    form = "zip" if content[:2] == b"PK" else "legacy" if content[:1] == b"\x80" else "native"
    try:
        if form == "native" and generator.random() < 0.7:
            return _signed_again(content, generator)
        return restructured(content, form, np.random.default_rng(generator.getrandbits(32)))
    except Exception:  # it is too far from a file for that
        return content[:: generator.choice((1, 1, 2))]


def _signed_again(content: bytes, generator: random.Random) -> bytes:
    """A native file with a value of its description or its table exchanged, and digests to match."""
    length = struct.unpack_from("<Q", content)[0]
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    document = json.loads(header.pop("__metadata__")["evalcam"])
    if generator.random() < 0.75:
        document = _replaced(document, generator)
    else:
        header = _replaced(header, generator)
    if generator.random() < 0.2:
        data = generator.randbytes(generator.randrange(99)) + data[: -generator.randrange(1, 99)]
    if isinstance(document, dict):
        document.pop("document_sha256", None)
        document["tensors_sha256"] = hashlib.sha256(data).hexdigest()
        signed = json.dumps([document, header], sort_keys=True)
        document["document_sha256"] = hashlib.sha256(signed.encode()).hexdigest()
    table = header if isinstance(header, dict) else {"x": header}
    raw = json.dumps({"__metadata__": {"evalcam": json.dumps(document)}} | table, separators=(",", ":")).encode()
    return struct.pack("<Q", len(raw)) + raw + data
