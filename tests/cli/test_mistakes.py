"""Planted mistakes: one clear message, the right exit code, nothing half-written, the data untouched."""

import hashlib
import os
import pickle
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from evalcam_cli.config_sources import load_config
from evalcam_cli.models.architectures import build_model
from evalcam_cli.workflows.train import TrainRequest, train
from tests.cli.commands import run_command
from tests.conftest import TINY, draw_classes


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `data` (two classes) and a run trained on it."""
    root = tmp_path_factory.mktemp("mistakes")
    data = draw_classes(root / "data", {"cat": 14, "dog": 14})
    config = load_config(assignments=[*(one for one in TINY if one != "--set"), "train.epochs=1"])
    train(config, TrainRequest(root / "run", data))
    return root


def png_bomb(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds almost nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )


class RunsCode:
    def __init__(self, canary: Path) -> None:
        self.canary = str(canary)

    def __reduce__(self) -> tuple[object, tuple[str, int]]:
        return os.open, (self.canary, os.O_CREAT)


Plant = Callable[[Path, Path], list[str]]
"""From a scratch folder (with a copy of the data in `data`) and the trained root to the command's arguments."""


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def with_config(text: str | bytes) -> Plant:
    return lambda here, root: ["train", f"{here}/data", "--out", f"{here}/out", "-c", str(write(here / "c.yaml", text))]


def with_image(name: str, content: bytes) -> Plant:
    def plant(here: Path, root: Path) -> list[str]:
        write(here / "data" / "cat" / name, content)
        return ["split", f"{here}/data", "--out", f"{here}/s.csv"]

    return plant


def cut_jpeg() -> bytes:
    import io

    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()[: len(buffer.getvalue()) // 2]


def wide_png() -> bytes:
    import io

    buffer = io.BytesIO()
    Image.new("RGB", (50_000, 1)).save(buffer, "PNG")
    return buffer.getvalue()


def with_checkpoint(content: Callable[[Path, Path], object]) -> Plant:
    def plant(here: Path, root: Path) -> list[str]:
        made = content(here, root)
        if isinstance(made, bytes):
            write(here / "w.safetensors", made)
            return ["evaluate", "--ckpt", f"{here}/w.safetensors", "--data", f"{here}/data", "--out", f"{here}/out"]
        torch.save(made, here / "w.pt")
        return ["evaluate", "--ckpt", f"{here}/w.pt", "--data", f"{here}/data", "--out", f"{here}/out"]

    return plant


def few_images(here: Path, root: Path) -> list[str]:
    for number in range(2, 14):
        (here / "data" / "dog" / f"{number:03}.png").unlink()
    return ["split", f"{here}/data", "--out", f"{here}/s.csv"]


def leaking(here: Path, root: Path) -> list[str]:
    data = here / "divided"
    for part in ("train", "test"):
        draw_classes(data / part, {"cat": 6, "dog": 6}, seed=len(part))
    write(data / "test" / "cat" / "copy.png", (data / "train" / "cat" / "000.png").read_bytes())
    return ["split", str(data), "--out", f"{here}/s.csv"]


def empty_folder(here: Path, root: Path) -> list[str]:
    (here / "empty").mkdir()
    return ["split", f"{here}/empty", "--out", f"{here}/s.csv"]


def not_empty(here: Path, root: Path) -> list[str]:
    write(here / "out" / "thesis.txt", "mine")
    return ["train", f"{here}/data", "--out", f"{here}/out", *TINY]


def unknown_class(here: Path, root: Path) -> list[str]:
    draw_classes(here / "new", {"cat": 2, "bird": 2}, seed=5)
    return ["evaluate", "--ckpt", f"{root}/run", "--data", f"{here}/new", "--out", f"{here}/out"]


def ragged_predictions(here: Path, root: Path) -> list[str]:
    write(here / "p.csv", "target,p:cat,p:dog\ncat,0.5,0.5\ndog,0.5\n")
    return ["evaluate", "--predictions", f"{here}/p.csv", "--out", f"{here}/out"]


def options_of_images(here: Path, root: Path) -> list[str]:
    write(here / "p.csv", "target,p:cat,p:dog\ncat,0.5,0.5\ndog,0.5,0.5\n")
    return ["evaluate", "--predictions", f"{here}/p.csv", "--subset", "val", "--drop-leaks", "--out", f"{here}/out"]


MISTAKES: dict[str, tuple[Plant, int, str]] = {
    # the command line
    "an unknown command": (lambda h, r: ["trian"], 2, "No such command 'trian'"),
    "an unknown option": (lambda h, r: ["split", f"{h}/data", "--foldz", "3"], 2, "No such option"),
    "options that predictions cannot obey": (options_of_images, 2, "without --subset, --drop-leaks"),
    "data that is not there": (lambda h, r: ["split", f"{h}/dta", "--out", f"{h}/s.csv"], 2, "did you mean"),
    "no data at all": (lambda h, r: ["train", "--out", f"{h}/out"], 2, "name DATA"),
    "ratios that do not sum to one": (
        lambda h, r: ["split", f"{h}/data", "--ratios", "0.5,0.2,0.2", "--out", f"{h}/s.csv"],
        2,
        "must sum to 1",
    ),
    "ratios that are no numbers": (lambda h, r: ["split", f"{h}/data", "--ratios", "a,b,c"], 2, "three numbers"),
    "a regular expression without parentheses": (
        lambda h, r: ["split", f"{h}/data", "--group-by", r"p\d+", "--out", f"{h}/s.csv"],
        2,
        "parenthes",
    ),
    "a group that no image has": (
        lambda h, r: ["split", f"{h}/data", "--group-by", r"patient(\d+)", "--out", f"{h}/s.csv"],
        3,
        "28 of 28",
    ),
    "two ways out at once": (lambda h, r: ["split", f"{h}/data", "--drop-leaks", "--resplit"], 2, "choose one of"),
    "CUDA where there is none": (
        lambda h, r: ["train", f"{h}/data", "--device", "cuda", "--out", f"{h}/out"],
        5,
        "no usable CUDA device",
    ),
    "a checkpoint that is not there": (
        lambda h, r: ["evaluate", "--ckpt", f"{h}/none.safetensors"],
        2,
        "there is no checkpoint",
    ),
    "a folder without a checkpoint": (lambda h, r: ["evaluate", "--ckpt", f"{h}/data"], 2, "name a run folder"),
    "a gate whose operator the shell took": (
        lambda h, r: ["evaluate", "--ckpt", f"{r}/run", "--fail-under", "accuracy"],
        2,
        "quote it, the shell",
    ),
    "a gate on an unknown metric": (
        lambda h, r: ["evaluate", "--ckpt", f"{r}/run", "--fail-under", "acuracy=0.9"],
        2,
        "did you mean",
    ),
    "a class that there is not": (
        lambda h, r: ["gradcam", f"{h}/data/cat/000.png", "--ckpt", f"{r}/run", "--class", "cta"],
        2,
        "did you mean 'cat'",
    ),
    "a class number too high": (
        lambda h, r: ["gradcam", f"{h}/data/cat/000.png", "--ckpt", f"{r}/run", "--class", "7"],
        2,
        "numbered 0 to 1",
    ),
    "a layer that there is not": (
        lambda h, r: ["gradcam", f"{h}/data/cat/000.png", "--ckpt", f"{r}/run", "--layer", "layer5"],
        2,
        "did you mean",
    ),
    "a layer that is no feature map": (
        lambda h, r: ["gradcam", f"{h}/data/cat/000.png", "--ckpt", f"{r}/run", "--layer", "fc", "--out", f"{h}/out"],
        2,
        "not a feature map",
    ),
    "an image that is not there": (
        lambda h, r: ["gradcam", f"{h}/x.png", "--ckpt", f"{r}/run"],
        2,
        "there is no image",
    ),
    "an output folder that is not empty": (not_empty, 2, "not empty (thesis.txt)"),
    "an output path that is a file": (
        lambda h, r: ["train", f"{h}/data", "--out", str(write(h / "out.txt", "x")), *TINY],
        2,
        "is a file",
    ),
    "an output folder in the data": (
        lambda h, r: ["train", f"{h}/data", "--out", f"{h}/data/out", *TINY],
        2,
        "never writes to",
    ),
    # the config
    "a misspelt key": (with_config("train: {learning_rte: 1}"), 2, "unknown config key"),
    "a key in the wrong place": (with_config("lr: 1"), 2, "did you mean 'train.lr'"),
    "a wrong type": (with_config("train: {epochs: many}"), 2, "whole number"),
    "a rate that is no number": (with_config("train: {lr: .nan}"), 2, "finite number, got NaN"),
    "a negative rate": (with_config("train: {lr: -0.1}"), 2, "greater than 0"),
    "a doubled key": (with_config("seed: 1\nseed: 2"), 2, "twice (first on line 1)"),
    "another encoding": (with_config(b"# caf\xe9\n"), 2, "not UTF-8"),
    "YAML that constructs objects": (with_config("seed: !!python/object/apply:os.system ['true']"), 2, "tags"),
    "weights that need a network": (
        lambda h, r: [
            "train",
            f"{h}/data",
            "--out",
            f"{h}/out",
            "--weights",
            f"{h}/none.pt",
            "--set",
            "data.workers=0",
        ],
        2,
        "there is no checkpoint",
    ),
    # the data
    "a class with too few images": (few_images, 3, "dog"),
    "an empty folder": (empty_folder, 3, "no images under"),
    "a truncated image": (with_image("cut.jpg", cut_jpeg()), 3, "cut.jpg"),
    "an empty image file": (with_image("zero.jpg", b""), 3, "zero.jpg"),
    "a text named like an image": (with_image("x.jpg", b"hello"), 3, "x.jpg"),
    "a bomb": (with_image("bomb.png", png_bomb(50_000, 50_000)), 3, "pixels"),
    "an image of 50000x1": (with_image("wide.png", wide_png()), 3, "wide.png"),
    "a leak": (leaking, 3, "--drop-leaks"),
    "a class that the checkpoint does not know": (unknown_class, 3, "bird"),
    "a table of predictions with a short row": (ragged_predictions, 3, "row"),
    # the checkpoint
    "a truncated checkpoint": (
        with_checkpoint(lambda h, r: (r / "run/checkpoints/best.safetensors").read_bytes()[:100_000]),
        3,
        "damaged",
    ),
    "a flipped bit in a checkpoint": (
        with_checkpoint(lambda h, r: flipped((r / "run/checkpoints/best.safetensors").read_bytes())),
        3,
        "damaged",
    ),
    "a checkpoint of another architecture": (
        lambda h, r: [
            *with_checkpoint(lambda h, r: build_model("resnet34", 2).state_dict())(h, r),
            "--arch",
            "resnet18",
            "--classes",
            str(write(h / "classes.txt", "cat\ndog\n")),
        ],
        3,
        "another architecture",
    ),
    "a checkpoint that says nothing of itself": (
        with_checkpoint(lambda h, r: build_model("resnet18", 2).state_dict()),
        3,
        "--arch NAME and --classes FILE",
    ),
    "a pickle that would run code": (with_checkpoint(lambda h, r: RunsCode(h / "canary")), 3, "refused"),
    "a raw pickle": (with_checkpoint(lambda h, r: pickle.dumps(RunsCode(h / "canary"))), 3, "refused"),
}


def flipped(content: bytes) -> bytes:
    return content[:-500] + bytes([content[-500] ^ 1]) + content[-499:]


def fingerprint(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        digest.update(str(path.relative_to(folder)).encode() + (path.read_bytes() if path.is_file() else b""))
    return digest.hexdigest()


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_gets_a_clear_message_and_its_exit_code(
    name: str, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant, code, words = MISTAKES[name]
    draw_classes(tmp_path / "data", {"cat": 14, "dog": 14})
    monkeypatch.chdir(tmp_path)
    arguments = plant(tmp_path, trained)
    before = fingerprint(tmp_path / "data")

    result = run_command(*arguments)

    assert result.code == code, result.err
    assert words in result.err
    assert result.out == ""
    assert len(result.err.splitlines()) <= 8
    assert "Traceback" not in result.err
    assert "\x1b" not in result.err
    assert fingerprint(tmp_path / "data") == before
    assert not (tmp_path / "canary").exists()
    written = {path.name for path in tmp_path.iterdir()} & {"out", "s.csv", "s.json", "runs"}
    assert written <= ({"out"} if name == "an output folder that is not empty" else set())
    assert not list(tmp_path.rglob("*.tmp"))


def test_there_are_at_least_thirty_mistakes() -> None:
    assert len(MISTAKES) >= 30
