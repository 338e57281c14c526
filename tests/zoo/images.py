"""Files that stand under an image's name, with the commands that read images."""

import csv
import json
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.conftest import draw_classes
from tests.zoo import other_files, specimens
from tests.zoo.cases import Case, Kit, Result
from tests.zoo.formats import SUFFIXES, encoded, picture
from tests.zoo.specimens import Specimen

_SPLIT = ("split", "{here}", "--out", "{out}.csv")
_ALLOWED = (*_SPLIT, "--allow-unreadable", "1")
_PREDICT = ("predict", "{here}", "--ckpt", "{ckpt}", "--out", "{out}.csv")
_EVALUATE = ("evaluate", "--data", "{here}", "--ckpt", "{ckpt}", "--out", "{out}", "--set", "evaluate.bootstrap=100")
_GRADCAM = ("gradcam", "{here}", "--ckpt", "{ckpt}", "--out", "{out}")


def cases() -> list[Case]:
    found = []
    for number, specimen in enumerate([*specimens.specimens(), *other_files.specimens()]):
        found.append(_case(specimen, "split", _SPLIT, _in_class_folder, _taken_into_split))
        if specimen.reference is not None:
            found.append(_case(specimen, "predict", _PREDICT, _beside_reference, _seen_as_reference))
        elif number % 8 == 0 and specimen.outcome == "skip":
            found.append(_left_out(specimen))
        elif number % 32 in _SECOND:
            found.append(_case(specimen, *_SECOND[number % 32]))
    return found + [_many_damaged(kind, suffix) for kind, suffix in SUFFIXES.items()]


def _case(
    specimen: Specimen,
    name: str,
    command: tuple[str, ...],
    make: Callable[[Specimen, Path, Kit], None],
    check: Callable[[Specimen, Result], str] | None,
) -> Case:
    return Case(
        f"images/{specimen.name}-{name}",
        partial(make, specimen),
        command,
        specimen.outcome,
        3 if specimen.outcome == "skip" else 0,
        specimen.words + ((specimen.file,) if specimen.outcome in ("warn", "skip") else ()),
        partial(check, specimen) if check is not None and specimen.outcome != "skip" else None,
        specimen.seconds,
        specimen.megabytes,
    )


def _left_out(specimen: Specimen) -> Case:
    """The image that cannot be used with the permission to go on without it."""
    words = ("left out", specimen.file)
    make, check = partial(_in_class_folder, specimen), partial(_listed_as_left_out, specimen)
    return Case(f"images/{specimen.name}-allowed", make, _ALLOWED, "warn", 0, words, check, specimen.seconds)


def _in_class_folder(specimen: Specimen, here: Path, kit: Kit) -> None:
    draw_classes(here, {"cat": 5, "dog": 5})
    (here / "cat" / specimen.file).write_bytes(specimen.content())


def _in_small_class_folder(specimen: Specimen, here: Path, kit: Kit) -> None:
    draw_classes(here, {"cat": 2, "dog": 2})
    (here / "dog" / specimen.file).write_bytes(specimen.content())


def _beside_good(specimen: Specimen, here: Path, kit: Kit) -> None:
    (here / "good.png").write_bytes(encoded(picture(4)))
    (here / specimen.file).write_bytes(specimen.content())


def _beside_reference(specimen: Specimen, here: Path, kit: Kit) -> None:
    assert specimen.reference is not None
    (here / "reference.png").write_bytes(encoded(specimen.reference()))
    (here / specimen.file).write_bytes(specimen.content())


_SECOND = {  # what else some of the specimens meet
    **dict.fromkeys((2, 10, 18, 26), ("predict", _PREDICT, _beside_good, None)),
    **dict.fromkeys((4, 12, 20), ("gradcam", _GRADCAM, _beside_good, None)),
    6: ("evaluate", _EVALUATE, _in_small_class_folder, None),  # the dearest
}


def table(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file that evalcam wrote."""
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as stream:
        return list(csv.DictReader(stream))


def _taken_into_split(specimen: Specimen, result: Result) -> str:
    paths = [row["path"] for row in table(result.output.with_name("out.csv"))]
    return "" if f"cat/{specimen.file}" in paths else f"it is not in the split: {paths}"


def _listed_as_left_out(specimen: Specimen, result: Result) -> str:
    path = f"cat/{specimen.file}"
    left = json.loads(result.output.with_name("out.json").read_text(encoding="utf-8"))["left_out"]
    listed = [row["path"] for row in table(result.output.with_name("unreadable.csv"))]
    return "" if listed == [path] == [one["path"] for one in left] else f"left out: {left}; listed: {listed}"


def _seen_as_reference(specimen: Specimen, result: Result) -> str:
    found = {Path(row["path"]).name: float(row["p:cat"]) for row in table(result.output.with_name("out.csv"))}
    difference = abs(found[specimen.file] - found["reference.png"])
    return "" if difference <= specimen.within else f"its probability is {difference:.2g} away from the reference's"


def _many_damaged(kind: str, suffix: str) -> Case:
    """Sixty files of a format with a few random bytes changed: each is an image or has a reason."""

    def make(here: Path, kit: Kit) -> None:
        generator = random.Random(kind)
        draw_classes(here, {"cat": 5, "dog": 5})
        for number in range(60):
            data = bytearray(encoded(picture(number), kind))
            for _ in range(generator.choice((1, 3, 20))):
                data[generator.randrange(len(data) if number % 2 else min(100, len(data)))] = generator.randrange(256)
            (here / "cat" / f"x{number:02}.{suffix}").write_bytes(data)

    def check(result: Result) -> str:
        used = [row["path"] for row in table(result.output.with_name("out.csv")) if "x" in row["path"]]
        beside = result.output.with_name("unreadable.csv")
        left = [row["path"] for row in table(beside)] if beside.exists() else []
        return "" if len(used) + len(left) == 60 else f"{len(used)} are used and {len(left)} left out"

    command = (*_SPLIT, "--allow-unreadable", "60", "--allow-leaks")
    return Case(f"images/{suffix}_60_damaged", make, command, "accept", 0, (), check)
