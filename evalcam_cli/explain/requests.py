"""Which classes to explain: names, indices, `predicted`, `true`, `top:K` or `all`, turned into class indices."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from evalcam_cli.errors import UsageError
from evalcam_cli.text import did_you_mean, listed, shown


@dataclass(frozen=True)
class ClassRequest:
    """One `--class`: a fixed index, or a rule that depends on the image."""

    index: int | None = None
    rule: str | None = None
    """`predicted`, `true`, `top` or `all`."""
    count: int = 1
    """K of `top:K`."""


def parse_class(text: str, classes: Sequence[str], option: str = "--class") -> ClassRequest:
    """The request behind a `--class`: a class name, else a rule, else an index from 0.

    Raises:
        UsageError: It is none of these, or two readings differ (`name:3` and `index:3` decide).
    """
    kind, colon, rest = text.partition(":")
    if colon and kind == "name" and text not in classes:
        return ClassRequest(index=_named(rest, classes, option))
    if colon and kind == "index" and text not in classes:
        return ClassRequest(index=_numbered(rest, classes, option))
    readings = _readings(text, classes)
    if not readings:
        if text.lstrip("-").isdecimal():
            raise UsageError(f"{option} {shown(text)}: the classes are numbered 0 to {len(classes) - 1}")
        raise UsageError(
            f"{option} {shown(text)!r}: no such class{did_you_mean(text, [*classes, 'predicted', 'true', 'all'])} "
            f"(classes: {listed(classes, 8)})"
        )
    if len(set(readings.values())) > 1:
        ways = " or ".join(f"{way}:{shown(text)}" for way in readings if way in ("name", "index"))
        raise UsageError(f"{option} {shown(text)} can be read in two ways; write {ways}")
    return next(iter(readings.values()))


def _readings(text: str, classes: Sequence[str]) -> dict[str, ClassRequest]:
    readings = {}
    if text in classes:
        readings["name"] = ClassRequest(index=classes.index(text))
    if text in ("predicted", "true", "all"):
        readings["rule"] = ClassRequest(rule=text)
    top, colon, count = text.partition(":")
    if colon and top == "top" and _is_number(count) and int(count) >= 1:
        readings["rule"] = ClassRequest(rule="top", count=min(int(count), len(classes)))
    if _is_number(text) and int(text) < len(classes):
        readings["index"] = ClassRequest(index=int(text))
    return readings


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 10


def _named(name: str, classes: Sequence[str], option: str) -> int:
    if name not in classes:
        raise UsageError(f"{option} name:{shown(name)}: no such class{did_you_mean(name, classes)}")
    return list(classes).index(name)


def _numbered(text: str, classes: Sequence[str], option: str) -> int:
    if not _is_number(text) or int(text) >= len(classes):
        raise UsageError(f"{option} index:{shown(text)}: the classes are numbered 0 to {len(classes) - 1}")
    return int(text)


def choose_classes(requests: Sequence[ClassRequest], logits: Tensor, targets: Sequence[int | None]) -> list[list[int]]:
    """The classes to explain in each image, in the order asked for, each once.

    Args:
        requests: From `parse_class`.
        logits: (N, K).
        targets: (N,) index of the true class, None when unknown.

    Raises:
        UsageError: `true` was asked for an image without a label.
    """
    ranked = torch.argsort(logits, dim=1, descending=True, stable=True).tolist()
    chosen = []
    for ranking, target in zip(ranked, targets, strict=True):
        indices: list[int] = []
        for request in requests:
            indices += _indices(request, ranking, target)
        chosen.append(list(dict.fromkeys(indices)))
    return chosen


def _indices(request: ClassRequest, ranking: list[int], target: int | None) -> list[int]:
    if request.index is not None:
        return [request.index]
    if request.rule == "all":
        return sorted(ranking)
    if request.rule == "true":
        if target is None:
            raise UsageError("--class true needs labels: name a --split, or a folder with class folders inside")
        return [target]
    return ranking[: request.count]  # predicted is top:1


def rectangular(chosen: Sequence[Sequence[int]]) -> list[list[int]]:
    """The lists made equally long by repeating their last entry, as one batch needs."""
    longest = max(map(len, chosen))
    return [[*row, *[row[-1]] * (longest - len(row))] for row in chosen]
