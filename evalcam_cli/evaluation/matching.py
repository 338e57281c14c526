"""The same images in several sets of predictions: brought into one order, or refused with the reason."""

import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from evalcam_cli.errors import DataError
from evalcam_cli.evaluation.estimates import Caution
from evalcam_cli.evaluation.predictions import Predictions
from evalcam_cli.evaluation.stated import StatedProbabilities
from evalcam_cli.text import counted, listed, shown

_DIGEST = "sha256"


@dataclass(frozen=True)
class Model:
    """One classifier of a comparison."""

    name: str
    """A, B, C, …: what tables call it."""
    source: str
    """Where its predictions were read from, as the user wrote it."""
    predictions: Predictions


def match_models(models: Sequence[Model]) -> tuple[list[Model], list[Caution]]:
    """The models with the images and the classes of each in the order of the first.

    Images are matched by path (composed and decomposed accents are the same) and, where all files have a column
    `sha256`, that must agree. Files without paths are matched row by row. Patients that only one
    file knows hold for all.

    Raises:
        DataError: The images, their true classes, their patients or the classes differ.
    """
    first = models[0]
    if len({_is_numbered(model.predictions) for model in models}) > 1:
        without = next(model for model in models if _is_numbered(model.predictions))
        raise DataError(
            f"{shown(without.source)} has no column path, so its images cannot be found in the other file; add the "
            "column, or use --unpaired for independent test sets"
        )
    matched = [first, *(_matched(first, model) for model in models[1:])]
    cautions = []
    if _is_numbered(first.predictions):
        cautions.append(
            Caution("matched_by_row", "the files have no column path; row by row is taken as the same image")
        )
    groups = _groups(matched)
    return [replace(one, predictions=replace(one.predictions, groups=groups)) for one in matched], cautions


def same_classes(models: Sequence[Model]) -> list[Model]:
    """The models with their classes in the order of the first.

    Raises:
        DataError: They do not have the same classes.
    """
    return [models[0], *(_reordered(models[0], model) for model in models[1:])]


def shared_paths(a: Predictions, b: Predictions) -> int:
    """Images that stand in both sets, by path; 0 for files without paths."""
    return 0 if _is_numbered(a) or _is_numbered(b) else len(set(_keys(a)) & set(_keys(b)))


def _is_numbered(predictions: Predictions) -> bool:
    """Whether the file had no paths, so that rows are called by their number."""
    return all(path == f"row {number}" for number, path in enumerate(predictions.paths, 2))


def _keys(predictions: Predictions) -> list[str]:
    return [unicodedata.normalize("NFC", path) for path in predictions.paths]


def _matched(first: Model, other: Model) -> Model:
    other = _reordered(first, other)
    if _is_numbered(first.predictions):
        if len(first.predictions.targets) != len(other.predictions.targets):
            raise DataError(
                f"{shown(first.source)} has {counted(len(first.predictions.targets), 'row')} and {shown(other.source)} "
                f"{len(other.predictions.targets):,}; without a column path both must have the "
                "same images in the same order"
            )
    else:
        other = _in_order(first, other)
    _refuse_other_truth(first, other)
    _refuse_other_digests(first, other)
    return other


def _in_order(first: Model, other: Model) -> Model:
    """The other model with its images in the first one's order."""
    places = []
    for model in (first, other):
        keys = _keys(model.predictions)
        twice = [key for key, times in Counter(keys).items() if times > 1]
        if twice:
            raise DataError(f"{shown(model.source)} has several rows for {listed(twice)}; an image may stand once")
        places.append({key: index for index, key in enumerate(keys)})
    here, there = places
    only_first, only_other = ([key for key in x if key not in y] for x, y in ((here, there), (there, here)))
    if only_first or only_other:
        lines = [
            f"{counted(len(paths), 'image')} only in {shown(model.source)}: {listed(paths)}"
            for model, paths in ((first, only_first), (other, only_other))
            if paths
        ]
        raise DataError(
            "\n".join(
                [
                    f"{first.name} and {other.name} are not predictions for the same images",
                    *lines,
                    "evaluate both on the same split; --unpaired compares results of independent test sets",
                ]
            )
        )
    order = [there[key] for key in here]
    return replace(other, predictions=other.predictions.take(order))


def _refuse_other_truth(first: Model, other: Model) -> None:
    classes = first.predictions.classes
    differs = np.flatnonzero(first.predictions.targets != other.predictions.targets)
    if len(differs):
        index = differs[0]
        one, two = (shown(classes[model.predictions.targets[index]]) for model in (first, other))
        raise DataError(
            f"{counted(len(differs), 'image')} with another target in {other.name} than in {first.name}: the first is "
            f"{shown(first.predictions.paths[index])}, "
            f"{one} in {shown(first.source)} and {two} in {shown(other.source)}"
        )


def _refuse_other_digests(first: Model, other: Model) -> None:
    here, there = (model.predictions.column(_DIGEST) for model in (first, other))
    if here is None or there is None:
        return
    rows = zip(first.predictions.paths, here, there, strict=True)
    differs = [path for path, one, two in rows if one and two and one.lower() != two.lower()]
    if differs:
        raise DataError(
            f"{counted(len(differs), 'image')} with another sha256 in {other.name} than in {first.name}: "
            f"{listed(differs)}; the files changed between the two evaluations"
        )


def _groups(models: Sequence[Model]) -> tuple[str, ...]:
    """The patients, on which all files that know them must agree."""
    known = [model for model in models if any(model.predictions.groups)]
    for model in known[1:]:
        rows = zip(known[0].predictions.paths, known[0].predictions.groups, model.predictions.groups, strict=True)
        differs = [path for path, one, two in rows if one != two]
        if differs:
            raise DataError(
                f"{counted(len(differs), 'image')} with another group in {model.name} than in {known[0].name}: "
                f"{listed(differs)}"
            )
    return known[0].predictions.groups if known else ()


def _reordered(first: Model, other: Model) -> Model:
    """The other model with its classes in the first one's order."""
    wanted, found = first.predictions.classes, other.predictions.classes
    if set(wanted) != set(found):
        lacking = [(a, [name for name in y if name not in x]) for a, x, y in
                   ((first, wanted, found), (other, found, wanted))]  # fmt: skip
        lines = [f"{shown(model.source)} has no {listed(map(repr, names))}" for model, names in lacking if names]
        raise DataError("\n".join([f"{first.name} and {other.name} do not have the same classes", *lines]))
    if wanted == found:
        return other
    order = np.array([found.index(name) for name in wanted])
    places = np.argsort(order)
    predictions = other.predictions
    changed = replace(
        predictions, classes=wanted, logits=predictions.logits[:, order], targets=places[predictions.targets]
    )
    if isinstance(changed, StatedProbabilities):
        changed = replace(changed, stated=changed.stated[:, order])
    return replace(other, predictions=changed)
