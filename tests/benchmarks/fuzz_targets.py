"""What `fuzz_readers` feeds: three readers, how each is given an input, and good and bad inputs to begin with."""

import contextlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from evalcam_cli.config import RunConfig, config_keys, resolved
from evalcam_cli.config_sources import load_config
from evalcam_cli.data.listing import Listing, list_samples
from evalcam_cli.data.preprocessing import Preprocessing
from evalcam_cli.data.samples import Sample, Split
from evalcam_cli.data.split_file import located, read_split, split_bytes
from evalcam_cli.errors import CheckpointError, DataError, EvalcamError, UsageError
from evalcam_cli.models.checkpoint import Checkpoint, Stored, load_checkpoint, save_checkpoint
from evalcam_cli.models.weights import read_weights
from tests.benchmarks import damaged_checkpoints
from tests.zoo import checkpoint_values, configs, malicious, manifests, splits
from tests.zoo.cases import Case, Kit

ROOT = b"@ROOT@"
"""Stands for the data folder in the JSON file of a split, so that inputs are the same on every machine."""
JOINT = b"\n@JSON@\n"
"""Between the two files of a split."""
_MAX_SEED_BYTES = 65_536
_NAMES = [*(f"{label}/{number:03}.png" for label in ("cat", "dog") for number in range(10)), "cat/é.png", "dog/a b.png"]


@dataclass(frozen=True)
class Target:
    """A reader of bytes from outside."""

    name: str
    read: Callable[[bytes, Path], None]
    """Reads an input, given a folder to write it to; raises AssertionError where the result is no valid object."""
    allowed: tuple[type[EvalcamError], ...]
    """The classes, themselves and not their children, that may be raised."""
    corpus: Callable[[], list[bytes]]
    tokens: tuple[bytes, ...]
    """Pieces that mean something to the reader."""
    most: int = 65_536
    """Bytes of an input."""


def _read_config(data: bytes, folder: Path) -> None:
    path = folder / "c.yaml"
    path.write_bytes(data)
    config = load_config(path)
    assert isinstance(config, RunConfig), "not a config"
    again = folder / "again.yaml"
    again.write_text(json.dumps(resolved(config), allow_nan=False), encoding="utf-8")
    assert load_config(again) == config, "the config kept for a run is another one"


def _read_split(data: bytes, folder: Path) -> None:
    """The first byte says how: `m` a manifest, `n` one that is not for training, `r` a split with the root given."""
    root = folder / "data"
    if not root.exists():
        for name in _NAMES:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).touch()
    kind, content = data[:1], data[1:]
    if kind in (b"m", b"n"):
        (root / "m.csv").write_bytes(content)
        listing = list_samples(root / "m.csv", for_training=kind == b"m")
        assert isinstance(listing, Listing), "no list of images"
        assert listing.samples, "no list of images"
        _require_inside(listing.samples)
        return
    table, joint, facts = content.partition(JOINT)
    path, beside = folder / "s.csv", folder / "s.json"
    path.write_bytes(table)
    if joint:
        beside.write_bytes(facts.replace(ROOT, str(root).encode()))
    else:
        beside.unlink(missing_ok=True)
    split, _ = read_split(path, root=root if kind == b"r" else None)
    assert isinstance(split, Split), "no split"
    assert split.samples, "no split"
    _require_inside(split.samples)
    located(split)
    _require_same_again(split, folder)


def _require_inside(samples: Iterable[Sample]) -> None:
    for sample in samples:
        assert sample.path, "a path leads out"
        assert not sample.path.startswith(("/", "../")), "a path leads out"
        assert "\0" not in sample.path, "a path leads out"
        assert sample.label, "a sample without meaning"
        assert sample.set in ("", "train", "val", "test"), "a sample without meaning"


def _require_same_again(split: Split, folder: Path) -> None:
    table, facts = split_bytes(split)
    (folder / "w.csv").write_bytes(table)
    (folder / "w.json").write_bytes(facts)
    again, edited = read_split(folder / "w.csv")
    assert again.samples == split.samples, "what is written of the split is read as another one"
    assert not edited, "what is written of the split is read as another one"


def _read_checkpoint(data: bytes, folder: Path) -> None:
    path = folder / "w"
    path.write_bytes(data)
    refused: CheckpointError | None = None
    try:
        stored = load_checkpoint(path)
        assert isinstance(stored, Stored), "no checkpoint"
        assert stored.checkpoint.classes, "no checkpoint"
    except CheckpointError as error:
        refused = error
        if type(error) is not CheckpointError:
            raise
    weights = read_weights(path)
    assert all(isinstance(tensor, torch.Tensor) for tensor in weights.values()), "not a tensor"
    for tensor in weights.values():
        tensor.sum()  # touches every number: one outside its storage would crash
    if refused is not None:
        raise refused


def _made(cases: Iterable[Case], names: tuple[str, ...]) -> list[tuple[Path, bytes]]:
    """What the zoo's cases write under these names, as far as it is small."""
    found = []
    with tempfile.TemporaryDirectory() as scratch:
        kit = _small_kit(Path(scratch, "kit"))
        for case in cases:
            here = Path(scratch, "here")
            here.mkdir()
            # a few cases need more than the small kit has
            with contextlib.suppress(OSError, KeyError, ValueError, IndexError, AssertionError, RuntimeError):
                case.make(here, kit)
            for name in names:
                path = here / name
                if path.is_file() and not path.is_symlink() and path.stat().st_size <= _MAX_SEED_BYTES:
                    beside = path.with_suffix(".json")
                    more = JOINT + beside.read_bytes() if name.endswith("s.csv") and beside.is_file() else b""
                    content = path.read_bytes() + more
                    for root in (kit.data, here):
                        content = content.replace(str(root).encode(), ROOT)
                    found.append((path, content))
            shutil.rmtree(here)
    return found


def _small_kit(root: Path) -> Kit:
    """As the zoo's, without images and with a model of a few weights."""
    kit = Kit(root)
    for name in _NAMES[:20]:
        (kit.data / name).parent.mkdir(parents=True, exist_ok=True)
        (kit.data / name).touch()
    table, facts = _good_split(kit.data)
    kit.split.write_bytes(table)
    kit.split.with_suffix(".json").write_bytes(facts)
    state = {"conv1.weight": torch.ones(2, 3, 1, 1), "bn1.bias": torch.zeros(2), "bn1.running_var": torch.ones(2)}
    state |= {"bn1.num_batches_tracked": torch.tensor(3), "fc.weight": torch.ones(2, 2), "fc.bias": torch.zeros(2)}
    save_checkpoint(kit.checkpoint, Checkpoint("resnet18", 2, ("cat", "dog"), Preprocessing(32, "squash")), state)
    return kit


def _good_split(root: Path, *, folds: int | None = None) -> tuple[bytes, bytes]:
    samples = []
    for number, name in enumerate(_NAMES[:20]):
        part = ("train", "train", "train", "val", "test")[number % 5] if folds is None else ""
        fold = None if folds is None else number % folds
        more = () if folds is None else ((number + 1) % folds,)
        samples.append(Sample(name, name[:3], part, f"g{number}", fold, "ab" * 32, (), more))
    ratios = (0.6, 0.2, 0.2) if folds is None else None
    repeats = 1 if folds is None else 2
    return split_bytes(Split(root, tuple(samples), ("cat", "dog"), 0, ratios, folds, repeats=repeats, source="data"))


def _config_corpus() -> list[bytes]:
    odd = [b"", configs.GOOD.encode(), b"train: {lr: 1e-3, epochs: 2}\nevaluate: {by: [site]}\n"]
    full = json.dumps(resolved(load_config())).encode()
    return _distinct([*odd, full, *(content for _, content in _made(configs.cases(), ("c.yaml",)))])


def _split_corpus() -> list[bytes]:
    found = [b"mpath,label\ncat/000.png,cat\ndog/000.png,dog\n", b"spath,label,set\ncat/000.png,cat,train\n"]
    for folds in (None, 3):
        table, facts = _good_split(Path("/root-of-data"), folds=folds)
        facts = facts.replace(b"/root-of-data", ROOT)
        found += [b"s" + table + JOINT + facts, b"r" + table, b"r" + table + JOINT + facts]
    for path, content in _made([*splits.cases(), *manifests.cases()], ("s.csv", "m.csv")):
        found += [b"r" + content, b"s" + content] if path.name == "s.csv" else [b"m" + content, b"n" + content]
    return _distinct(found)


def _checkpoint_corpus() -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        good = list(damaged_checkpoints.files(Path(folder)).values())
    small = [content for _, content in _made(checkpoint_values.cases(), ("w",))]
    return _distinct([*good, *small, *malicious.contents().values()])


def _distinct(contents: Iterable[bytes]) -> list[bytes]:
    return list(dict.fromkeys(content for content in contents if len(content) <= _MAX_SEED_BYTES))


_PLAIN = (
    b"null", b"~", b"true", b"-1", b"0", b"1e999", b".nan", b"-.inf", b"9" * 401, b"NaN", b"\xff", b"\0",
    b"\x1b[31m",
)  # fmt: skip
_YAML = (
    b"&a ", b"*a", b"!!python/name:os.system ", b"<<: ", b"? ", b"- ", b"{", b"}", b"[", b"]", b"|\n ", b">\n ",
    b'"\\ud800"', b'"\\UFFFFFFFF"', b"%YAML 1.999999999\n---\n", b"---\n", b"...\n", b"\t", b"#", b": ",
    b"\xef\xbb\xbf", b"\xe2\x80\xa8", b"\xc2\x85", b"'", b'"', b"\xff\xfe", b"0x10", b"1_000", b"1:30",
    b"\n" + b" " * 40,
)  # fmt: skip
_CSV = (
    b"path,label,set,group,fold,sha256\n", b"fold_1", b"fold", b"train", b"val", b"test", b'"', b'""', b"\r",
    b"\n", b"\r\n", b";", b"\t", b",", b"../", b"/", b"//", b"./", b"cat/000.png", b"e\xcc\x81", b"\xc3\xa9",
    b"'=", b"=", b"'''+", b"\xff\xfe", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\xe2\x80\xae", b"99999", b"2", b"99",
    b'"schema_version": 2', b'"repeats": 3', b'"folds": 2', b'"root": "/"', b'"\\ud800"', b"{" * 50,
    b"[" * 5000, ROOT, JOINT,
)  # fmt: skip
_WEIGHTS = (
    b"\x80\x02", b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06", b"PK\x06\x06", b"data.pkl", b"cbuiltins\nexec\n",
    b"ctorch._utils\n_rebuild_tensor_v2\n", b"X\xff\xff\xff\x7f", b"\x8a\xff", b"\x8b\xff\xff\xff\x7f",
    b"(" * 99, b"I9\n", b"F1e999\n", b"L9L\n", b"S'\\x'\n", b"V\\ud800\n", b"r\xff\xff\xff\xff",
    b"__metadata__", b'"evalcam"', b'"data_offsets"', b'"shape":[1099511627776,0]', b'"F8_E4M3"', b'"BF16"',
    b"[" * 3000, b"\\ud800", b"NaN",
)  # fmt: skip

TARGETS = {
    target.name: target
    for target in (
        Target(
            "config", _read_config, (UsageError,), _config_corpus,
            (*_PLAIN, *_YAML, *(part.encode() for key in config_keys() for part in key.split("."))),
        ),
        Target("split", _read_split, (UsageError, DataError), _split_corpus, _PLAIN + _CSV),
        Target("checkpoint", _read_checkpoint, (CheckpointError,), _checkpoint_corpus, _PLAIN + _WEIGHTS),
    )
}  # fmt: skip
