"""Weights files that are whole, and say or hold what cannot be, or what is not meant."""

import argparse
import io
import json
import struct
import warnings
from collections.abc import Callable
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from tests.zoo.cases import Case, Kit, Outcome, Result
from tests.zoo.malicious import as_legacy, as_zip
from tests.zoo.weights_files import COMMANDS, Make, forged, good_state, joined, parts, refused, writing

State = dict[str, Any]


def cases() -> list[Case]:
    return [*_foreign(), *_native(), *_tables()]


def _changed(change: Callable[[State], Any], wrap: Callable[[Any], bytes] = as_zip) -> Make:
    """The good weights as torch saves them, changed; the change returns them where they become another object."""

    def make(kit: Kit) -> bytes:
        state: State = dict(good_state(kit))
        answer = change(state)
        return wrap(state if answer is None else answer)

    return make


def _all(convert: Callable[[Tensor], Tensor]) -> Callable[[State], State]:
    return lambda state: {
        name: convert(tensor) if tensor.is_floating_point() else tensor for name, tensor in state.items()
    }


def _first(name: str, value: float) -> Callable[[State], None]:
    """One number of a tensor replaced."""

    def change(state: State) -> None:
        state[name].view(-1)[0] = value

    return change


def _scripted(state: State) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings(action="ignore"):
        torch.jit.save(torch.jit.script(nn.Linear(2, 2)), buffer)
    return buffer.getvalue()


def _foreign() -> list[Case]:
    usable: dict[str, tuple[Make, Outcome, tuple[str, ...]]] = {
        "plain": (_changed(lambda state: None), "accept", ()),
        "safetensors": (_changed(lambda state: None, safetensors.torch.save), "accept", ("checksum",)),
        "legacy": (_changed(lambda state: None, as_legacy), "warn", ("checksum",)),
        "module_prefix": (_changed(lambda state: {f"module.{k}": v for k, v in state.items()}), "warn", ("module.",)),
        "lightning_prefix": (
            _changed(lambda state: {"state_dict": {f"model.{k}": v for k, v in state.items()}, "epoch": 3}),
            "warn",
            ("model.",),
        ),
        "compiled_prefix": (
            _changed(lambda state: {f"module._orig_mod.{k}": v for k, v in state.items()}),
            "warn",
            ("_orig_mod.",),
        ),
        "half": (_changed(_all(Tensor.half)), "warn", ("float16",)),
        "double": (_changed(_all(Tensor.double)), "warn", ("float64",)),
    }
    bad: dict[str, tuple[Make, tuple[str, ...]]] = {
        "nan_one": (_changed(_first("conv1.weight", float("nan"))), ("conv1.weight", "NaN")),
        "nan_all": (_changed(_all(lambda tensor: tensor * float("nan"))), ("NaN",)),
        "nan_half": (_changed(_all(lambda tensor: (tensor * float("inf")).half())), ("NaN or infinite",)),
        "too_large": (_changed(_all(lambda tensor: tensor.double() * 1e300)), ("NaN or infinite",)),
        "neg_var": (_changed(_first("bn1.running_var", -1)), ("bn1.running_var", "negative")),
        "nan_safetensors": (_changed(_first("fc.bias", float("nan")), safetensors.torch.save), ("fc.bias", "NaN")),
        "nan_legacy": (_changed(_first("fc.bias", float("nan")), as_legacy), ("fc.bias", "NaN")),
        "foreign_arch": (
            _changed(lambda state: {f"features.{number}.weight": torch.ones(3) for number in range(20)}),
            ("another architecture",),
        ),
        "no_fc": (_changed(lambda state: {k: v for k, v in state.items() if k[:2] != "fc"}), ("lacks fc.bias",)),
        "one_too_many": (_changed(lambda state: state | {"fc2.bias": torch.ones(2)}), ("fc2.bias", "too many")),
        "int_keys": (_changed(lambda state: dict(enumerate(state.values()))), ("other things than tensors",)),
        "long_keys": (_changed(lambda state: {"x" * 90_000 + k: v for k, v in state.items()}), ("architecture",)),
        "odd_keys": (_changed(lambda state: {f"\x1b[31m{k}\n": v for k, v in state.items()}), ("\\x1b",)),
        "integers": (_changed(_all(lambda tensor: tensor.long())), ("int64",)),
        "booleans": (_changed(lambda state: state | {"fc.bias": torch.ones(2).bool()}), ("bool",)),
        "shape": (_changed(lambda state: state | {"conv1.weight": torch.ones(64, 3, 3, 3)}), ("(64, 3, 3, 3)",)),
        "namespace": (_changed(lambda state: {"state_dict": state, "args": argparse.Namespace(lr=1)}), ("argparse",)),
        "numpy": (_changed(lambda state: {"state_dict": state, "best": torch.ones(1).numpy()[0]}), ("numpy",)),
        "full_module": (_changed(lambda state: nn.Linear(2, 2)), ("state_dict()",)),
        "torchscript": (_changed(_scripted, lambda content: content), ("TorchScript",)),
        "complex": (_changed(lambda state: state | {"fc.bias": torch.ones(2) * 1j}), ("refused",)),
        "meta": (_changed(lambda state: state | {"fc.bias": torch.ones(2, device="meta")}), ("refused",)),
        "a_list": (_changed(lambda state: list(state.values())), ("no state dict",)),
        "a_number": (_changed(lambda state: 3), ("no state dict",)),
        "nothing": (_changed(lambda state: {}), ("no state dict",)),
    }  # fmt: skip
    names = [*COMMANDS]
    found = [
        Case(f"checkpoints/{name}", writing(make), COMMANDS[names[turn % 3]], outcome, 0, words)
        for turn, (name, (make, outcome, words)) in enumerate(usable.items())
    ]
    found += [refused(name, make, names[turn % 4], *words) for turn, (name, (make, words)) in enumerate(bad.items())]
    head = _changed(lambda state: state | {"fc.weight": torch.ones(1000, 512), "fc.bias": torch.ones(1000)})
    bare = tuple(word for word in COMMANDS["predict"] if word not in ("--arch", "resnet18"))
    return [
        *found,
        refused("wrong_classes", head, "predict", "1000", "2"),
        Case("checkpoints/wrong_classes-train", writing(head), COMMANDS["train"], "accept", 0),
        Case("checkpoints/bare_state", writing(_changed(lambda state: None)), bare, "refuse", 3, ("--arch",)),
        Case("checkpoints/no_classes", writing(_changed(lambda state: None), "\n"), COMMANDS["predict"], "refuse", 2),
        refused("overflow_logits", _changed(_all(lambda tensor: tensor.abs() * 1e30)), "predict", "NaN or infinity"),
        refused("overflow_logits", _changed(_all(lambda tensor: tensor.abs() * 1e30)), "evaluate", "NaN or infinity"),
        refused("overflow_logits", _changed(_all(lambda tensor: tensor.abs() * 1e30)), "gradcam", "NaN or infinity"),
    ]


def _set(*path: str, to: object) -> Make:
    """The good checkpoint with one entry of its description replaced."""

    def change(document: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        for key in path[:-1]:
            document = document[key]
        document[path[-1]] = to

    return forged(change)


def _weights(change: Callable[[State], object]) -> Make:
    return forged(lambda document, tensors: change(tensors))


def _native() -> list[Case]:
    document: dict[str, tuple[Make, tuple[str, ...]]] = {
        "std_zero": (_set("preprocessing", "std", to=[0, 0, 0]), ("std",)),
        "std_text": (_set("preprocessing", "std", to="abc"), ("cannot be used",)),
        "mean_infinite": (_set("preprocessing", "mean", to=[1e300, 0, 0]), ("mean",)),
        "size_huge": (_set("preprocessing", "image_size", to=10**9), ("preprocessing",)),
        "size_true": (_set("preprocessing", "image_size", to=True), ("preprocessing",)),
        "size_float": (_set("preprocessing", "image_size", to=32.5), ("preprocessing",)),
        "resize_unknown": (_set("preprocessing", "resize", to="os.system"), ("preprocessing",)),
        "no_preprocessing": (_set("preprocessing", to=None), ("preprocessing",)),
        "format_future": (_set("format_version", to=99), ("later version", "upgrade")),
        "arch_code": (_set("arch", to="os.system"), ("os.system",)),
        "arch_list": (_set("arch", to=["resnet18"]), ("arch",)),
        "arch_other": (_set("arch", to="resnet50"), ("another architecture",)),
        "classes_short": (_set("classes", to=["cat"]), ("fc.",)),
        "classes_type": (_set("classes", to=[1, None]), ("distinct texts",)),
        "classes_text": (_set("classes", to="cd"), ("classes",)),
        "classes_twice": (_set("classes", to=["cat", "cat"]), ("distinct",)),
        "classes_none": (_set("classes", to=[]), ("distinct",)),
        "classes_surrogate": (_set("classes", to=["cat", "\ud800"]), ("cannot be used",)),
        "classes_many": (_set("classes", to=[str(number) for number in range(100_000)]), ("fc.",)),
        "stride_true": (_set("last_stride", to=True), ("last_stride",)),
        "config_list": (_set("config", to=[1]), ("config",)),
        "training_list": (_set("training", to=[1]), ("training",)),
        "pixels_odd": (_set("training_pixels", to="AAAA"), ("training_pixels",)),
        "pixels_text": (_set("training_pixels", to="!!!"), ("cannot be used",)),
        "temperature_zero": (_set("temperature", to=0), ("temperature",)),
        "temperature_text": (_set("temperature", to="2"), ("temperature",)),
        "positive_other": (_set("positive", to="bird"), ("bird",)),
        "point_list": (_set("operating_point", to=[1]), ("cannot be used",)),
        "nan_native": (_weights(_first("conv1.weight", float("nan"))), ("conv1.weight", "NaN")),
        "inf_native": (_weights(_first("fc.bias", float("inf"))), ("fc.bias",)),
        "neg_var_native": (_weights(_first("bn1.running_var", -1)), ("bn1.running_var",)),
        "no_fc_native": (_weights(lambda state: state.pop("fc.bias")), ("lacks fc.bias",)),
        "int_native": (_weights(lambda state: state.update({"fc.bias": torch.ones(2).int()})), ("int32",)),
    }
    names = ["predict", "evaluate", "gradcam"]
    found = [
        refused(name, make, names[turn % 3], *words) for turn, (name, (make, words)) in enumerate(document.items())
    ]

    def check(result: Result) -> str:
        strangers = [
            path for path in result.output.parent.parent.rglob("x*") if result.output.parent not in path.parents
        ]
        return f"written outside: {strangers}" if strangers else ""

    path, page = _set("classes", to=["../../x", "dog"]), _set("classes", to=["<script>alert(1)</script>", "dog"])
    other = _set("classes", to=["bird", "dog"])
    return [
        *found,
        Case("checkpoints/classes_path", writing(path), COMMANDS["gradcam"], "accept", 0, check=check),
        Case("checkpoints/classes_html", writing(page), COMMANDS["gradcam"], "accept", 0, check=_no_tags),
        Case(
            "checkpoints/classes_order", writing(_set("classes", to=["dog", "cat"])), COMMANDS["evaluate"], "accept", 0
        ),
        refused("classes_other", other, "evaluate", "cat", "--map-class"),
        Case("checkpoints/config_odd", writing(_set("config", to={"train": 3})), COMMANDS["gradcam"], "accept", 0),
    ]


def _no_tags(result: Result) -> str:
    pages = [path for path in result.output.rglob("*.html") if b"<script>alert" in path.read_bytes()]
    return f"a class name became a script in {pages}" if pages else ""


def _table(**changes: object) -> Make:
    """A file of one tensor of eight bytes whose entry is changed."""
    entry = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} | changes
    return lambda kit: joined({"fc.bias": entry}, bytes(8))


def _tables() -> list[Case]:
    def many(kit: Kit) -> bytes:
        entry = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
        return joined({str(number): entry for number in range(200_000)}, b"")

    def doubled(kit: Kit) -> bytes:
        entry = '"fc.bias":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}'
        return joined("{" + entry + "," + entry + "}", bytes(8))

    def doubled_description(kit: Kit) -> bytes:
        header, data = parts(kit.checkpoint.read_bytes())
        text = header.pop("__metadata__")["evalcam"]
        table = str(joined(header, b"")[9:], "utf-8")
        return joined('{"__metadata__":{"evalcam":' + json.dumps(text) + ',"evalcam":"{}"},' + table, data)

    two = {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}
    files: dict[str, tuple[Make, str]] = {
        "st_good": (_table(), "architecture"),
        "st_len_huge": (lambda kit: struct.pack("<Q", 2**62) + b"{" + bytes(90), "cut off"),
        "st_len_past": (lambda kit: struct.pack("<Q", 5000) + b"{" + bytes(91), "cut off"),
        "st_len_0": (lambda kit: struct.pack("<Q", 0) + b"{" + bytes(91), "w"),
        "st_not_json": (lambda kit: joined("{not json", b""), "damaged"),
        "st_not_utf8": (lambda kit: joined(b'{"\xff":1}', b""), "UTF-8"),
        "st_dtype": (_table(dtype="F99"), "F99"),
        "st_complex": (_table(dtype="C64", shape=[1]), "C64"),
        "st_dtype_list": (_table(dtype=["F32"]), "kind"),
        "st_overlap": (
            lambda kit: joined(two | {"b": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}}, bytes(12)),
            "overlap",
        ),
        "st_gap": (
            lambda kit: joined(two | {"b": {"dtype": "F32", "shape": [1], "data_offsets": [12, 16]}}, bytes(16)),
            "gaps",
        ),
        "st_past_end": (_table(shape=[200], data_offsets=[0, 800]), "cut off"),
        "st_backwards": (_table(data_offsets=[8, 0]), "does not take"),
        "st_shape_mismatch": (_table(shape=[3]), "does not take"),
        "st_shape_overflow": (_table(shape=[2**33, 2**33]), "does not take"),
        "st_shape_negative": (_table(shape=[-1, -2]), "cannot be"),
        "st_shape_true": (_table(shape=[True, 2]), "cannot be"),
        "st_shape_float": (_table(shape=[2.0]), "cannot be"),
        "st_dimensions": (_table(shape=[1] * 69 + [2]), "cannot be"),
        "st_extra_key": (_table(more=1), "cannot be read"),
        "st_entry_list": (lambda kit: joined({"fc.bias": [1]}, bytes(8)), "cannot be read"),
        "st_metadata": (lambda kit: joined({"__metadata__": {"evalcam": {}}}, b""), "metadata"),
        "st_space_first": (lambda kit: joined(" {}", b""), "no weights file"),
        "st_line_last": (lambda kit: joined("{}\n", b""), "does not end"),
        "st_nothing": (lambda kit: joined("{}", b""), "architecture"),
        "st_dup": (doubled, "JSON"),
        "st_dup_description": (doubled_description, "JSON"),
        "st_nested": (lambda kit: joined('{"a":' + "[" * 100_000 + "]" * 100_000 + "}", b""), "JSON"),
        "st_deep": (lambda kit: joined('{"a":' + "[" * 100 + "]" * 100 + "}", b""), "deeper"),
        "st_brackets": (lambda kit: joined('{"a":[' + "[]," * 8_000_000 + "1]}", b""), "parts"),
        "st_many": (many, "parts"),
        "st_some": (
            lambda kit: joined(
                {str(i): {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(11_000)}, b""
            ),
            "11,000",
        ),
        "st_number": (lambda kit: joined('{"a":' + "9" * 10_000_000 + "}", b""), "JSON"),
        "st_nan": (_table(shape=[float("nan")]), "JSON"),
    }
    names = [*COMMANDS]
    return [
        refused(name, make, names[turn % 4], word, seconds=5 if name == "st_many" else 10, megabytes=500)
        for turn, (name, (make, word)) in enumerate(files.items())
    ]
