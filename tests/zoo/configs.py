"""Configs that are wrong, hostile or merely odd; all but the odd ones are refused before an image is read."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

from evalcam_cli.config import config_keys, default_of
from tests.zoo.cases import CANARY, Case, Kit, Result

GOOD = """\
data:
  image_size: 32
train:
  epochs: 1
  lr: 1e-3
  batch_size: 4
"""
_TRAIN = ("train", "{data}", "-c", "{here}/c.yaml", "--out", "{out}")
_SPLIT = ("split", "{data}", "-c", "{here}/c.yaml", "--out", "{out}.csv")
_TUNE = ("tune", "{here}/c.yaml", "{data}", "--out", "{out}")


def cases() -> list[Case]:
    return [
        *_odd(), *_documents(), *_values(), *_every_key(), *_spellings(), *_bombs(), *_code(), *_encodings(),
        *_files(), *_outputs(), *_searches(), *_assignments(), *_gates(),
    ]  # fmt: skip


def _odd() -> list[Case]:
    """Right, although other readers stumble over them."""
    texts = {
        "lr_1e3": GOOD.replace("1e-3", "1E-3"),
        "quoted_keys": "\"train\": {'lr': 0.001}",
        "flow": "{train: {lr: 0.001, epochs: 1}}",
        "empty_section": "train:\ndata:\n",
        "json": '{"train": {"lr": 0.001}, "evaluate": {"by": ["site"]}}',
    }
    raw = {
        "bom": b"\xef\xbb\xbf" + GOOD.encode(),
        "crlf": GOOD.replace("\n", "\r\n").encode(),
        "cr": GOOD.replace("\n", "\r").encode(),
    }
    contents = {name: text.encode() for name, text in texts.items()} | raw
    return [
        Case(f"configs/{name}", _written(content), _SPLIT, "accept", 0, check=_has_split)
        for name, content in contents.items()
    ]


def _has_split(result: Result) -> str:
    return "" if result.output.with_suffix(".csv").is_file() else "no split was written"


def _documents() -> list[Case]:
    """Other things than one map of sections."""
    return [
        _refused("empty", "", "found nothing"),
        _refused("comments_only", "# nothing\n\n", "found nothing"),
        _refused("null", "~", "found nothing"),
        _refused("scalar", "just text", "found 'just text'"),
        _refused("number", "12", "found 12"),
        _refused("list_root", "- a", "found a list"),
        _refused("two_docs", f"{GOOD}---\n{GOOD}", "line 7", "second document"),
        _refused("section_is_text", "train: fast", "line 1", "train must be a section"),
        _refused("section_is_list", "train: [lr]", "line 1", "train must be a section"),
        _refused("unclosed", "train: {lr: 1", "line 1", "not valid YAML"),
        _refused("tab", "train:\n\tlr: 1", "line 2", "not valid YAML"),
        _refused("half_character", 'data: {path: "\\ud800"}', "line 1", "half a character"),
        _refused("complex_key", "? [train, lr]\n: 1", "line 1", "a key must be a plain word"),
    ]


def _values() -> list[Case]:
    """Values that look right to somebody, or that no key takes."""
    lr, size = "train: {lr: %s}", "train: {batch_size: %s}"
    wrong = {
        "lr_nan": lr % ".nan", "lr_infinite": lr % ".inf", "lr_overflow": lr % "1e999", "lr_neg": lr % "-0.1",
        "lr_zero": lr % "0", "lr_bool": lr % "yes", "lr_true": lr % "true", "lr_comma": lr % "'0,001'",
        "lr_list": lr % "[0.1]", "lr_map": lr % "{a: 1}", "lr_text": lr % "fast", "lr_none": lr % "",
        "lr_huge": lr % "1000000000000", "lr_400_digits": lr % ("1" + "0" * 399), "lr_percent": lr % "1%",
        "bs_octal": size % "020", "bs_sexagesimal": size % "1:30", "bs_huge": size % "1000000000000",
        "bs_hexadecimal": size % "0x20", "bs_underscore": size % "1_000", "bs_fraction": size % "4.5",
        "bs_whole_fraction": size % "4.0", "bs_quoted": size % "'4'", "bs_400_digits": size % ("9" * 400),
    }  # fmt: skip
    together = {
        "warmup_too_long": ("train: {epochs: 2, warmup_epochs: 3}", "is longer than"),
        "focal_mixup": ("train: {loss: focal, mixup: 0.2}", "do not go together"),
        "nothing_to_thaw": ("model: {thaw_every: 2}", "nothing is frozen"),
        "ratios_sum": ("split: {ratios: [0.5, 0.5, 0.5]}", "must sum to 1"),
        "ratios_two": ("split: {ratios: [0.5, 0.5]}", "must have 3 values"),
        "ratios_negative": ("split: {ratios: [1.5, -0.5, 0]}", "split.ratios"),
        "ratios_nan": ("split: {ratios: [.nan, 0.5, 0.5]}", "split.ratios"),
        "batch_norm_of_one": ("{train: {batch_size: 1}, data: {image_size: 32}}", "single value"),
        "arch_is_code": ("model: {arch: \"__import__('os')\"}", "model.arch must be one of"),
        "methods_are_maps": ("gradcam: {method: [{a: b}, [c]]}", "gradcam.method must be"),
        "path_nul": ('data: {path: "a\\0b"}', "a\\x00b"),
    }
    commands = {"path_nul": ("train", "-c", "{here}/c.yaml", "--out", "{out}")}
    return [
        _refused(name, text, "line 1", f"train.{text[8:].partition(':')[0]} must be") for name, text in wrong.items()
    ] + [_refused(name, *words, command=commands.get(name, _TRAIN)) for name, words in together.items()]


def _every_key() -> list[Case]:
    """A key of each kind with a value that it cannot have; tests/test_config.py has all values of all keys."""
    wrong = ["{a: 1}", "[[1]]", "-1e9", "9" * 400, ".nan", "-.inf", "1000000000000"]
    never = {"seed": "-1", "evaluate.by": "{a: 1}", "gradcam.class": "{a: 1}"}
    texts = {
        key: never.get(key, wrong[place % 2] if _takes_text(key) else wrong[place % len(wrong)])
        for place, key in enumerate(config_keys())
    }
    return [_refused(f"key_{key}", _nested(key, text), key) for key, text in list(texts.items())[::5]]


def _takes_text(key: str) -> bool:
    return not isinstance(default_of(key), int | float) or isinstance(default_of(key), bool)


def _nested(key: str, value: str) -> str:
    """`train: {lr: value}` for `train.lr`."""
    *sections, name = key.split(".")
    for section in reversed(sections):
        name, value = section, f"{{{name}: {value}}}"
    return f"{name}: {value}\n"


def _spellings() -> list[Case]:
    return [
        _refused("typo_key", "train: {batchsize: 4}", "line 1", "did you mean 'train.batch_size'"),
        _refused("typo_section", "trian: {lr: 1}", "line 1", "did you mean 'train'"),
        _refused("wrong_section", "data:\n  lr: 1", "line 2", "did you mean 'train.lr'"),
        _refused("no_section", "lr: 1", "line 1", "did you mean 'train.lr'"),
        _refused("upper_case", "Train: {lr: 1}", "line 1", "did you mean 'train'"),
        _refused("output_key", "output: /", "unknown config key 'output'"),
        _refused("dunder", "__class__: {__init__: 1}", "unknown config key '__class__'"),
        _refused("dup_lr", "train:\n  lr: 1\n  epochs: 2\n  lr: 2", "line 4", "first on line 2"),
        _refused("dup_key", GOOD + GOOD, "line 7", "first on line 1"),
        _refused("escape_in_key", '"tr\\e[31main": 1', "\\x1b"),
        _refused("long_key", f"{'k' * 1000}: 1", "unknown config key"),
        _refused("9000_unknown_keys", "".join(f"k{number}: 1\n" for number in range(9000)), "and 8,995 more"),
    ]


def _bombs() -> list[Case]:
    levels = ["a0: &a0 [" + ", ".join(["lol"] * 9) + "]"]
    levels += [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]" for level in range(1, 10)]
    big = ", ".join(f"k{number}: 1" for number in range(2000))
    merged = f"a: &a {{{big}}}\nb: {{<<: [{', '.join(['*a'] * 2000)}]}}"
    texts = {
        "alias_bomb": ("\n".join(levels), "line 1", "anchors"),
        "alias_alone": ("a: *b", "line 1", "aliases"),
        "merge_blowup": (merged, "line 1", "anchors"),
        "merge_plain": ("train: {<<: {lr: 1}}", "line 1", "merge keys"),
        "deep_list": ("[" * 900, "line 1", "nested"),
        "deep_map": ("a: " + "{a: " * 900, "line 1", "nested"),
        "deep_block": ("\n".join(" " * level + "a:" for level in range(500)), "line 22", "nested"),
        "huge_int": (f"seed: {'9' * 5000}", "line 1", "400 digits"),
        "huge_version": (f"%YAML 1.{'9' * 5000}\n---\n{GOOD}", "too large"),
        "huge_escape": ('seed: "\\UFFFFFFFF"', "line 1", "too large"),
        "many_values": (f"a: [{'1,' * 400_000}]", "more than 10,000 values"),
        "many_characters": ("#" + "x" * 1_000_001, "at most 1,000,000"),
        "five_megabytes": ("#" * 5_000_000, "that is no config"),
        "many_directives": ("%A b\n" * 150_000, "not valid YAML"),
    }
    return [_refused(name, *words, seconds=15, megabytes=300) for name, words in texts.items()]


def _code() -> list[Case]:
    """Tags that make other readers run something."""
    touch = f"touch ${CANARY}"
    texts = {
        "yaml_exec": f'!!python/object/apply:os.system ["{touch}"]',
        "yaml_exec_in_key": f'train: {{? !!python/object/apply:os.system ["{touch}"] : 1}}',
        "yaml_exec_in_value": f'train: {{lr: !!python/object/apply:os.system ["{touch}"]}}',
        "yaml_exec_new": f"!!python/object/new:os.system [{touch}]",
        "yaml_exec_handle": f'%TAG !p! tag:yaml.org,2002:python/\n---\n!p!object/apply:os.system ["{touch}"]',
        "yaml_exec_verbatim": f'!<tag:yaml.org,2002:python/object/apply:os.system> ["{touch}"]',
        "yaml_subprocess": f'!!python/object/apply:subprocess.check_output [["sh", "-c", "{touch}"]]',
        "yaml_tag_name": "train: !!python/name:os.system",
        "yaml_module": "train: !!python/module:json.tool",
        "yaml_binary": "train: !!binary aGVsbG8=",
        "yaml_own_tag": "train: !include /etc/passwd",
    }
    return [
        _refused(name, text, "not allowed" if "in_key" not in name else "plain word") for name, text in texts.items()
    ]


def _encodings() -> list[Case]:
    contents: dict[str, tuple[Any, ...]] = {
        "latin1": ("# café\n".encode("latin-1") + GOOD.encode(), "line 1", "not UTF-8"),
        "utf16": (GOOD.encode("utf-16"), "not UTF-8"),
        "utf16_without_mark": (GOOD.encode("utf-16-le"), "U+0000"),
        "utf32": (GOOD.encode("utf-32"), "not UTF-8"),
        "nul": (b"train:\n  lr: 1\0", "line 2", "U+0000"),
        "control": (b"train: {lr: 1}\n# \x1b[31m", "line 2", "U+001B"),
        "bad_utf8_later": (GOOD.encode() + b"# \xc3\x28", "line 7", "not UTF-8"),
        "overlong": (b"train: \xc0\xaf", "not UTF-8"),
        "png": (b"\x89PNG\r\n\x1a\n" + bytes(100), "not UTF-8"),
        "pickle": (pickle.dumps({"train": {"lr": 1}}), "not UTF-8"),
    }
    return [_refused(name, content, *words) for name, (content, *words) in contents.items()]


def _files() -> list[Case]:
    """What stands where a config should."""

    def other(make: Callable[[Path], None]) -> Callable[[Path, Kit], None]:
        return lambda here, kit: make(here / "c.yaml")

    return [
        Case("configs/missing", _nothing, _TRAIN, "refuse", 2, ("cannot read the config",)),
        Case("configs/folder", other(Path.mkdir), _TRAIN, "refuse", 2, ("is a folder",)),
        Case("configs/fifo", other(os.mkfifo), _TRAIN, "refuse", 2, ("found nothing",), seconds=10),
        Case("configs/link_loop", other(lambda path: path.symlink_to(path)), _TRAIN, "refuse", 2, ("cannot read",)),
        Case("configs/link_nowhere", other(lambda path: path.symlink_to("no")), _TRAIN, "refuse", 2, ("cannot read",)),
        Case("configs/device", _nothing, ("train", "{data}", "-c", "/dev/zero", "--out", "{out}"), "refuse", 2,
             ("not a regular file",), seconds=10, megabytes=300),
    ]  # fmt: skip


def _outputs() -> list[Case]:
    places = {
        "out_root": ("/", "not a place for results"),
        "out_data": ("{data}/run", "never writes to"),
        "out_traversal": ("{data}/cat/../run", "never writes to"),
        "out_file": ("{here}/c.yaml", "is a file"),
        "out_long": ("{out}/" + "x" * 300, "too long"),
    }
    return [
        Case(f"configs/{name}", _written(GOOD), (*_TRAIN[:-1], out), "refuse", 2, (word,))
        for name, (out, word) in places.items()
    ]


def _searches() -> list[Case]:
    spaces = {
        "nothing": ("{}", "nothing to search"),
        "unknown_key": ("{train.learning: [1, 2]}", "unknown config key"),
        "not_searched": ("{data.path: [a, b]}", "cannot be searched"),
        "itself": ("{search.pruner: [median, none]}", "cannot be searched"),
        "upside_down": ("{train.lr: {low: 1, high: 0.1}}", "must be below"),
        "low_only": ("{train.lr: {low: 1}}", "give low and high"),
        "nan": ("{train.lr: {low: .nan, high: 1}}", "finite"),
        "infinite": ("{train.lr: {low: 0.1, high: .inf}}", "finite"),
        "400_digits": ("{train.epochs: {low: 1, high: %s}}" % ("9" * 400), "less than or equal"),
        "log_from_zero": ("{train.lr: {low: 0, high: 1, log: true}}", "low above 0"),
        "step_zero": ("{train.epochs: {low: 1, high: 9, step: 0}}", "above 0"),
        "step_tiny": ("{train.lr: {low: 0.1, high: 1, step: 1e-300}}", "more than"),
        "step_fraction": ("{train.epochs: {low: 1, high: 9, step: 0.5}}", "whole numbers"),
        "beyond_the_key": ("{train.lr: {low: 1e-5, high: 1e9}}", "no config does"),
        "one_choice": ("{train.lr: [0.1]}", "at least two"),
        "equal_choices": ("{train.lr: [0.1, 0.1]}", "all different"),
        "wrong_choice": ("{train.optimizer: [sgd, adam]}", "no config does"),
        "choice_is_map": ("{train.lr: [{a: 1}, [2]]}", "no config does"),
        "range_of_text": ("{train.optimizer: {low: 1, high: 2}}", "no low and high"),
        "text": ("{train.lr: fast}", "search.space.train.lr"),
        "misspelt": ("{train.lr: {lo: 1, high: 2}}", "unknown config key"),
        "many_choices": (f"{{train.epochs: [{','.join(map(str, range(1, 200)))}]}}", "at most 100"),
    }
    return [
        _refused(f"search_{name}", f"search: {{space: {space}}}", word, command=_TUNE, seconds=20)
        for name, (space, word) in spaces.items()
    ]


def _assignments() -> list[Case]:
    texts = {
        "nothing": ("", "is empty"),
        "no_equals": ("train.lr", "section.key=value"),
        "no_key": ("=1", "section.key=value"),
        "unknown": ("train.rate=1", "unknown config key"),
        "section": ("train=1", "unknown config key"),
        "deeper": ("train.lr.x=1", "unknown config key"),
        "dunder": ("__class__.__init__=1", "unknown config key"),
        "tag": ("train.lr=!!python/name:os.system", "not allowed"),
        "anchor": ("train.lr=&a 1", "not allowed"),
        "escape": ("train.\x1b[31m=1", "\\x1b[31m"),
        "escape_in_value": ("train.lr=\x1b[31m", "U+001B"),
        "lines": ("train.optimizer=a\nb\nc", "train.optimizer"),
        "long": ("train.lr=" + "9" * 100_000, "more than 400 digits"),
        "deep": ("train.lr=" + "[" * 1000, "nested"),
        "nan": ("train.lr=nan", "train.lr must be"),
        "not_utf8": ("data.path=caf\udce9", "U+DCE9"),
        "code": ("model.arch=__import__('os').system('touch $EVALCAM_CANARY')", "model.arch must be"),
    }
    return [
        Case(f"configs/set_{name}", _nothing, (*_TRAIN[:2], "--set", text, *_TRAIN[4:]), "refuse", 2, (word,))
        for name, (text, word) in texts.items()
    ] + [
        Case("configs/weights_not_utf8", _nothing, (*_TRAIN[:2], "--weights", "caf\udce9.pt", *_TRAIN[4:]), "refuse", 2,
             ("not UTF-8",)),
        Case("configs/set_beats_file", _written("train:\n  lr: 1e-3\n"), (*_TRAIN, "--set", "train.lr=-1"), "refuse", 2,
             ("train.lr must be",), lambda result: "the wrong line is blamed" if "line 2" in result.err else ""),
    ]  # fmt: skip


def _gates() -> list[Case]:
    texts = {
        "bare": ("accuracy", "no operator"), "nothing": ("", "is empty"), "operator": (">=", "no metric"),
        "no_metric": ("=0.9", "no operator"), "no_number": ("accuracy=", "is no number"),
        "nan": ("accuracy=nan", "is no number"), "infinite": ("accuracy=inf", "is no number"),
        "percent": ("accuracy=90%", "is no number"), "beyond": ("accuracy=90", "decides nothing"),
        "negative": ("accuracy=-1", "decides nothing"), "unknown": ("acuracy=0.9", "did you mean"),
        "turned": ("accuracy<=0.9", "contradicts"), "no_class": ("recall[bird]=0.9", "no class"),
        "per_class": ("recall=0.9", "number per class"), "code": ("__import__('os').getcwd()=0.9", "no metric"),
        "bad_part": ("accuracy.__class__=0.9", "no part"), "brackets": ("accuracy[[[=0.9", ""),
        "escape": ("\x1b[31m=0.9", "\\x1b"), "slice": ("accuracy{site}=0.9", "names no slice"),
        "spaces": ("a" + " " * 100_000 + "=", "at most 1,000"), "long": ("accuracy" * 10_000 + "=0.9", "at most 1,000"),
        "equals": ("=" * 100_000, "at most 1,000"), "400_digits": ("accuracy=" + "9" * 400, "is no number"),
    }  # fmt: skip
    command = ("evaluate", "--ckpt", "{ckpt}", "--split", "{split}", "--out", "{out}")
    return [
        Case(f"configs/gate_{name}", _nothing, (*command, "--fail-under", text), "refuse", 2, (word,), seconds=15)
        for name, (text, word) in texts.items()
    ] + [
        Case("configs/gate_in_config", _written(f"evaluate: {{fail_over: ['ece{' ' * 50_000}x']}}"),
             (*command, "-c", "{here}/c.yaml"), "refuse", 2, ("at most 1,000",), seconds=15),
        Case("configs/gate_over_unknown", _nothing, (*command, "--fail-over", "loss=1"), "refuse", 2, ("no metric",)),
    ]  # fmt: skip


def _refused(
    name: str,
    content: str | bytes,
    *words: str,
    command: tuple[str, ...] = _TRAIN,
    seconds: float = 30,
    megabytes: int = 1500,
) -> Case:
    make = _written(content)
    return Case(f"configs/{name}", make, command, "refuse", 2, words, seconds=seconds, megabytes=megabytes)


def _written(content: str | bytes) -> Callable[[Path, Kit], None]:
    data = content.encode() if isinstance(content, str) else content

    def make(here: Path, kit: Kit) -> None:
        (here / "c.yaml").write_bytes(data)

    return make


def _nothing(here: Path, kit: Kit) -> None:
    """The command line itself is the bad input."""
