"""Saved predictions, boxes and lists of class names that cannot be trusted."""

import functools
import io
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors.torch import load_file, save_file

from tests.zoo.cases import CANARY, Case, Kit

_QUICK = ("--set", "evaluate.bootstrap=100")
_PREDICTIONS = ("evaluate", "--predictions", "{here}/p.csv", "--out", "{out}", *_QUICK)
_FOLDER = ("evaluate", "--predictions", "{here}", "--out", "{out}", *_QUICK)
_BOXES = ("gradcam", "--ckpt", "{ckpt}", "--split", "{split}", "--boxes", "{here}/boxes.csv", "--out", "{out}")
_FOREIGN = (
    "evaluate",
    "--ckpt",
    "{here}/w.safetensors",
    "--arch",
    "resnet18",
    "--classes",
    "{here}/names.txt",
    "--split",
    "{split}",
    "--out",
    "{out}",
    "--set",
    "data.image_size=32",
    *_QUICK,
)
_EXPLAIN = (
    "gradcam", "{data}/cat/000.png", "--ckpt", "{here}/w.safetensors", "--arch", "resnet18",
    "--classes", "{here}/names.txt", "--out", "{out}", "--set", "data.image_size=32",
)  # fmt: skip
HEADER = "path,target,p:cat,p:dog"
ROWS = ["a.png,cat,0.9,0.1", "b.png,cat,0.4,0.6", "c.png,dog,0.2,0.8", "d.png,dog,0.3,0.7"]


def cases() -> list[Case]:
    return [*_scores(), *_tables(), *_files(), *_own_files(), *_boxes(), *_class_names()]


def _scores() -> list[Case]:
    """Rows 6: cells that are no probabilities, or none of this image."""
    rows = {
        "nan": ("e.png,cat,nan,1", "row 6"),
        "infinite": ("e.png,cat,inf,0", "row 6"),
        "sum": ("e.png,cat,0.5,0.4", "do not sum to 1"),
        "negative": ("e.png,cat,-0.5,1.5", "row 6"),
        "percent": ("e.png,cat,90,10", "logit:<class>"),
        "empty_cell": ("e.png,cat,,1", "p:cat is ''"),
        "text": ("e.png,cat,high,low", "p:cat is 'high'"),
        "comma": ('e.png,cat,"0,9","0,1"', "p:cat is '0,9'"),
        "underscore": ("e.png,cat,0_0.5,0.5", "is no number"),
        "other_digits": ("e.png,cat,٠.5,0.5", "is no number"),
        "hexadecimal": ("e.png,cat,0x1,0", "is no number"),
        "huge": (f"e.png,cat,{'9' * 5000},0", "row 6"),
        "unknown_target": ("e.png,bird,1,0", "target 'bird' is none"),
        "no_target": ("e.png,,1,0", "row 6"),
        "target_index": ("e.png,0,1,0", "target '0' is none"),
        "doubled_path": ("a.png,cat,1,0", "in several rows"),
        "formula_number": ("e.png,cat,=1+0,0", "p:cat is '=1+0'"),
        "huge_cell": (f"{'x' * 200_000},cat,1,0", "row 6"),
        "huge_target": (f"e.png,{'x' * 100_000},1,0", "row 6"),
        "ragged_short": ("e.png,cat,1", "row 6"),
        "ragged_long": ("e.png,cat,1,0,0", "row 6"),
        "quote_open": ('"e.png,cat,1,0', "row 6"),
        "escape_target": ("e.png,\x1b[31mred,1,0", "\\x1b[31m"),
    }
    return [_refused(f"row_{name}", "\n".join([HEADER, *ROWS, row]), word) for name, (row, word) in rows.items()]


def _tables() -> list[Case]:
    good = "\n".join([HEADER, *ROWS])
    refused: dict[str, tuple[str | bytes, str]] = {
        "empty": ("", "is empty"),
        "header_only": (HEADER, "no rows"),
        "no_header": ("\n".join(ROWS), "no column"),
        "no_target": (good.replace("target", "taget"), "rename 'taget'"),
        "no_scores": ("path,target\na,cat", "no column p:"),
        "score_names": (good.replace("p:", "prob_"), "did you mean 'p:cat'"),
        "one_class": ("target,p:cat\ncat,1", "two are needed"),
        "unnamed_class": (good.replace("p:dog", "p:"), "without a name"),
        "class_twice": (good.replace("p:dog", "p:cat"), "several columns"),
        "both_kinds": (good.replace("p:dog", "logit:dog"), "keep one kind"),
        "logit_nan": ("target,logit:a,logit:b\na,nan,0", "NaN or infinite"),
        "logit_overflow": ("target,logit:a,logit:b\na,1e400,0", "NaN or infinite"),
        "semicolon": (good.replace(",", ";"), "commas"),
        "utf16": (good.encode("utf-16"), "UTF-8"),
        "utf16_without_mark": (good.encode("utf-16-le"), "UTF-8"),
        "pickle": (pickle.dumps({"target": [0]}), "UTF-8"),
        "png": (b"\x89PNG\r\n\x1a\n" + bytes(40), "no column"),
        "json": ('[{"target": "cat"}]', "no rows"),
        "long_header": (f"target,p:{'x' * 100_000}\n", "no rows"),
    }
    hostile = ("=cmd|' /C calc'!A0", "<script>alert(1)</script>", "\x1b[31mdog", "\\input{/etc/passwd}")
    names = ",".join(f"p:{name}" for name in hostile)
    accepted: dict[str, str | bytes] = {
        "bom_crlf_blank_lines": b"\xef\xbb\xbf" + good.replace("\n", "\r\n\r\n").encode(),
        "latin1_path": good.replace("a.png", "caf\u00e9.png").encode("latin-1"),
        "hostile_names": "\n".join([f"path,target,{names}", *(f"=1+1{name},{name},1,0,0,0" for name in hostile)]),
    }
    return [_refused(name, *case) for name, case in refused.items()] + [
        Case(f"predictions/{name}", _written("p.csv", content), _PREDICTIONS, "accept", 0, seconds=90)
        for name, content in accepted.items()
    ]


def _files() -> list[Case]:
    def nothing(here: Path, kit: Kit) -> None:
        pass

    return [
        Case("predictions/missing", nothing, _PREDICTIONS, "refuse", 2, ("cannot read",)),
        Case("predictions/empty_folder", nothing, _FOLDER, "refuse", 2, ("cannot read",)),
        Case(
            "predictions/fifo",
            lambda here, kit: os.mkfifo(here / "p.csv"),
            _PREDICTIONS,
            "refuse",
            3,
            ("is empty",),
            seconds=15,
        ),
        Case(
            "predictions/device",
            lambda here, kit: (here / "p.csv").symlink_to("/dev/zero"),
            _PREDICTIONS,
            "refuse",
            2,
            ("not a regular file",),
            seconds=15,
            megabytes=300,
        ),
    ]


def _own_files() -> list[Case]:
    """A folder as `evalcam evaluate` writes it, of which one file was damaged."""

    class Malicious:
        def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
            return os.system, (f"touch ${CANARY}",)

    logits = np.array([[2, 0], [0, 1], [0, 2], [0, 3]], np.float32)

    def lying(shape: str) -> Callable[[Path], object]:
        return lambda path: path.write_bytes(_npy(logits).replace(b"(4, 2), }", f"({shape}), }}".encode()))

    arrays: dict[str, tuple[Callable[[Path], object], str]] = {
        "pickled": (lambda path: path.write_bytes(pickle.dumps(Malicious())), "no .npy file"),
        "pickled_objects": (
            lambda path: np.save(path, np.array([Malicious()], object), allow_pickle=True),
            "no .npy file",
        ),
        "cut": (lambda path: path.write_bytes(_npy(logits)[:-5]), "no .npy file"),
        "empty": (lambda path: path.write_bytes(b""), "no .npy file"),
        "header_only": (lambda path: path.write_bytes(_npy(logits)[:30]), "no .npy file"),
        "header_code": (lambda path: path.write_bytes(_npy(logits).replace(b"False", b"open ")), "no .npy file"),
        "header_deep": (lambda path: path.write_bytes(b"\x93NUMPY\1\0\xff\x1f" + b"(" * 8191), "no .npy file"),
        "terabytes": (lying("99999999, 99999"), "no .npy file"),
        "negative": (lying("-4, 2"), ""),
        "zip": (
            lambda path: path.write_bytes(_npz(logits)),
            "does not hold",
        ),
        "integers": (lambda path: np.save(path, logits.astype(np.int64)), "floating-point"),
        "complex": (lambda path: np.save(path, logits.astype(np.complex64)), "floating-point"),
        "shape": (lambda path: np.save(path, logits[:3]), "shape"),
        "flat": (lambda path: np.save(path, logits.ravel()), "shape"),
        "nan": (lambda path: np.save(path, logits * np.nan), "NaN or infinite"),
        "moved": (lambda path: np.save(path, logits[::-1]), "rows were moved"),
        "fifo": (os.mkfifo, "no .npy file"),
        "folder": (Path.mkdir, "cannot read"),
    }
    documents: dict[str, tuple[bytes, str]] = {
        "cut": (b'{"classes": ["cat"', "not JSON"),
        "list": (b"[]", "not what"),
        "deep": (b"[" * 100_000, "not JSON"),
        "no_classes": (b"{}", "does not list"),
        "classes_text": (b'{"classes": "ab"}', "does not list"),
        "classes_numbers": (b'{"classes": [0, 1]}', "does not list"),
        "classes_twice": (b'{"classes": ["cat", "cat"]}', "same name"),
        "classes_other": (b'{"classes": ["cow", "dog"]}', "none of"),
        "classes_more": (b'{"classes": ["cat", "dog", "x"]}', "shape"),
        "huge_int": (b'{"classes": ' + b"9" * 5000 + b"}", "not JSON"),
        "temperature": (b'{"classes": ["cat", "dog"], "calibration": {"temperature": NaN}}', "temperature"),
        "calibration": (b'{"classes": ["cat", "dog"], "calibration": [1]}', "no map"),
    }

    def folder(here: Path, kit: Kit, *, make: Callable[[Path], object], document: bytes) -> None:
        rows = ["a.png,test,,cat,cat", "b.png,test,,cat,dog", "c.png,test,,dog,dog", "d.png,test,,dog,dog"]
        (here / "predictions.csv").write_text(
            "\n".join(["path,subset,group,target,predicted", *rows]), encoding="utf-8"
        )
        (here / "metrics.json").write_bytes(document)
        make(here / "logits.npy")

    good = json.dumps({"classes": ["cat", "dog"]}).encode()
    return [
        Case(
            f"predictions/logits_{name}",
            functools.partial(folder, make=make, document=good),
            _FOLDER,
            "refuse",
            3,
            (word,),
            seconds=20,
        )
        for name, (make, word) in arrays.items()
    ] + [
        Case(
            f"predictions/metrics_{name}",
            functools.partial(folder, make=lambda path: np.save(path, logits), document=content),
            _FOLDER,
            "refuse",
            3,
            (word,),
        )
        for name, (content, word) in documents.items()
    ]


def _npz(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, array)
    return stream.getvalue()


def _npy(array: np.ndarray) -> bytes:

    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def _boxes() -> list[Case]:
    header = "path,label,x0,y0,x1,y1"
    rows = {
        "outside": ("../../etc/passwd,cat,1,1,9,9", "leaves the data folder"),
        "absolute": ("/etc/passwd,cat,1,1,9,9", "row 2"),
        "no_path": (",cat,1,1,9,9", "empty"),
        "no_label": ("cat/000.png,,1,1,9,9", "no label"),
        "unknown_class": ("cat/000.png,bird,1,1,9,9", "no class 'bird'"),
        "upside_down": ("cat/000.png,cat,9,9,1,1", "is empty"),
        "negative": ("cat/000.png,cat,-1,1,9,9", "begins outside"),
        "fraction": ("cat/000.png,cat,0.5,1,9,9", "whole number"),
        "huge": ("cat/000.png,cat,1,1,9999999999999,9", "whole number"),
        "nan": ("cat/000.png,cat,nan,1,9,9", "whole number"),
        "other_digits": ("cat/000.png,cat,1,1,٩,9", "whole number"),
        "formula": ("cat/000.png,cat,=1,1,9,9", "whole number"),
        "ragged": ("cat/000.png,cat,1,1,9", "5 cells"),
        "nul": ("cat/000.png\0,cat,1,1,9,9", "row 2"),
        "twice": ("cat/000.png,cat,1,1,9,9\ncat/000.png,cat,1,1,9,9", "row 3"),
    }
    tables = {
        "empty": ("", "no header"),
        "columns": ("path,label,x,y,w,h\n", "no column"),
        "more_columns": (header + ",note\n", "unknown column"),
    }
    texts = {name: (f"{header}\n{row}\n", word) for name, (row, word) in rows.items()} | tables
    return [
        Case(f"predictions/boxes_{name}", _written("boxes.csv", text), _BOXES, "refuse", 3, (word,))
        for name, (text, word) in texts.items()
    ]


def _class_names() -> list[Case]:
    contents: dict[str, tuple[bytes, str]] = {
        "empty": (b"\n\n", "it is empty"),
        "twice": (b"cat\ncat\n", "cat stands twice"),
        "one": (b"cat\n", "names 1 class"),
        "three": (b"cat\ndog\nbird\n", "names 3"),
        "latin1": ("café\ndog".encode("latin-1"), "not UTF-8"),
        "utf16": ("cat\ndog".encode("utf-16"), "not UTF-8"),
        "nul": (b"cat\0\ndog", "NUL"),
        "huge": (b"x" * 10_000_001, "too large"),
    }

    def made(make: Callable[[Path], object]) -> Callable[[Path, Kit], None]:
        def both(here: Path, kit: Kit) -> None:
            save_file(load_file(kit.checkpoint), here / "w.safetensors")
            make(here / "names.txt")

        return both

    return [
        Case(
            f"predictions/names_{name}",
            made(functools.partial(Path.write_bytes, data=content)),
            _FOREIGN,
            "refuse",
            2 if name not in ("one", "three") else 3,
            (word,),
        )
        for name, (content, word) in contents.items()
    ] + [
        Case(
            "predictions/names_good",
            made(lambda path: path.write_bytes(b"\xef\xbb\xbfcat\r\ndog\r\n")),
            _EXPLAIN,
            "accept",
            0,
            seconds=90,
        ),
        Case("predictions/names_fifo", made(os.mkfifo), _FOREIGN, "refuse", 2, ("it is empty",), seconds=20),
        Case("predictions/names_folder", made(Path.mkdir), _FOREIGN, "refuse", 2, ("cannot read",)),
    ]


def _refused(name: str, content: str | bytes, word: str) -> Case:
    return Case(f"predictions/{name}", _written("p.csv", content), _PREDICTIONS, "refuse", 3, (word,))


def _written(name: str, content: str | bytes) -> Callable[[Path, Kit], None]:
    data = content.encode() if isinstance(content, str) else content

    def make(here: Path, kit: Kit) -> None:
        (here / name).write_bytes(data)

    return make
