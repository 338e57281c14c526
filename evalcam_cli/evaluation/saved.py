"""Predictions read from files: any classifier's CSV, or a folder that `evalcam evaluate` wrote."""

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, NoReturn, cast

import numpy as np
from numpy.typing import NDArray

from evalcam_cli.documents import read_json
from evalcam_cli.errors import DataError
from evalcam_cli.evaluation.operating_point import point_from_document
from evalcam_cli.evaluation.predictions import Predictions, row_blocks
from evalcam_cli.evaluation.score_table import SCORES, ScoreTable, read_score_table
from evalcam_cli.evaluation.stated import LOG_PROBABILITIES, StatedProbabilities
from evalcam_cli.evaluation.temperature import HIGHEST, LOWEST, is_temperature
from evalcam_cli.inputs import opened
from evalcam_cli.text import counted, csv_text, did_you_mean, listed, shown

PREDICTIONS_NAME = "predictions.csv"
LOGITS_NAME = "logits.npy"
METRICS_NAME = "metrics.json"
SCHEMA_VERSION = 1
"""Of `metrics.json`."""
OWN_COLUMNS = ("path", "subset", "group", "target", "predicted", "correct", "confidence")
"""Of `predictions.csv`, before the further columns of the manifest."""

_LOOKS_LIKE_SCORE = re.compile(r"(?i)(p|probs?|proba|probability|logits?|scores?)[ _.\-:/]+(.+)")
_SUM_TOLERANCE = 1e-3 + 1e-9  # 0.999 as a sum of rounded numbers is 1 within 0.001
_RANGE_TOLERANCE = 1e-6


def read_predictions(path: Path) -> Predictions:
    """Read saved predictions; classes are in the order of their columns, or of `metrics.json`.

    Two forms. A CSV with `target` (a class name) and `p:<class>` or `logit:<class>` for every class, optionally with
    `path`, `group`, `subset` and further columns; probabilities are used as stated. Or evalcam's own `predictions.csv`,
    or its folder, with `logits.npy` and `metrics.json` beside it. Rows are counted as in a spreadsheet: the header is
    row 1, and rows without a path are called by their number.

    Raises:
        UsageError: There is no such file.
        DataError: The content cannot be evaluated.
    """
    if path.is_dir():
        path = path / PREDICTIONS_NAME
    table = read_score_table(path)
    if table.score_names:
        return _from_scores(table)
    if (path.parent / LOGITS_NAME).exists() and "target" in table.header:
        return _from_own_files(table)
    _refuse_header(table)


def stored_positive(path: Path) -> str | None:
    """The positive class that `metrics.json` beside evalcam's own predictions names; None where there is none."""
    place = (path if path.is_dir() else path.parent) / METRICS_NAME
    if not place.exists() or not (place.parent / LOGITS_NAME).exists():
        return None
    positive = _document(place).get("positive")
    return positive if isinstance(positive, str) else None


def _refuse_header(table: ScoreTable) -> NoReturn:
    named = f"its columns are {listed(map(repr, table.header), 8)[:300]}"
    wanted = "expected target and, for every class, p:<class> or logit:<class>"
    if len(table.header) == 1 and re.search("[;\t]", table.header[0]):
        raise DataError(f"{table.place} is separated by something else than commas; save it as CSV with commas")
    if "target" not in table.header:
        near = [
            name for name in table.header if did_you_mean(name.strip().lower(), ["target", "true", "label", "truth"])
        ]
        hint = f"; rename {shown(near[0])[:80]!r}?" if near else ""
        raise DataError(f"{table.place} has no column 'target'{hint}\n{wanted};\n{named}")
    guesses = [(name, match[2]) for name in table.header if (match := _LOOKS_LIKE_SCORE.fullmatch(name))]
    hint = f"; did you mean 'p:{shown(guesses[0][1])[:80]}' by {shown(guesses[0][0])[:80]!r}?" if guesses else ""
    raise DataError(f"{table.place} has no column p:<class> or logit:<class>{hint}\n{wanted};\n{named}")


def _from_scores(table: ScoreTable) -> Predictions:
    kinds = {kind: [name for name in table.score_names if name.startswith(kind)] for kind in SCORES}
    if kinds["p:"] and kinds["logit:"]:
        raise DataError(f"{table.place} has columns p:<class> and logit:<class>; keep one kind")
    if "target" not in table.header:
        _refuse_header(table)
    kind, names = next((kind, names) for kind, names in kinds.items() if names)
    classes = tuple(name.removeprefix(kind) for name in names)
    _refuse_classes(classes, table)
    scores = table.require_numbers()
    if kind == "p:":
        return _stated(table, classes, _checked_probabilities(table, scores))
    _refuse_rows(table, ~(np.abs(scores) <= np.finfo(np.float32).max).all(axis=1), "logits that are NaN or infinite")
    # In float64, which holds every digit of the file.
    return Predictions(classes, cast("NDArray[np.float32]", scores), *_facts(table, classes))


def _stated(table: ScoreTable, classes: tuple[str, ...], probabilities: NDArray[np.float64]) -> Predictions:
    with np.errstate(divide="ignore"):
        logits = cast("NDArray[np.float32]", np.log(probabilities))  # in float64, as below
    return StatedProbabilities(classes, logits, *_facts(table, classes), stated=probabilities)


def _from_own_files(table: ScoreTable) -> Predictions:
    folder = table.path.parent
    document = _document(folder / METRICS_NAME)
    classes = document.get("classes")
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise DataError(
            f"{shown((folder / METRICS_NAME).absolute())} does not list the classes, so logits have no names"
        )
    classes = tuple(classes)
    _refuse_classes(classes, table)
    logits = _logits(folder / LOGITS_NAME, (len(table.rows), len(classes)))
    if document.get("scores") == LOG_PROBABILITIES:
        return _stated(table, classes, _checked_probabilities(table, np.exp(logits.astype(np.float64))))
    _refuse_rows(table, ~np.isfinite(logits).all(axis=1), f"logits in {LOGITS_NAME} that are NaN or infinite")
    predictions = _calibrated(Predictions(classes, logits, *_facts(table, classes)), document, folder)
    _refuse_shuffled(table, predictions)
    return predictions


def _calibrated(predictions: Predictions, document: dict[str, object], folder: Path) -> Predictions:
    """The predictions with the temperature and the operating point that `metrics.json` says were applied."""
    stored = document.get("calibration")
    if stored is None:
        return predictions
    try:
        if not isinstance(stored, dict):
            raise ValueError("it is no map")
        temperature, point = stored.get("temperature"), stored.get("operating_point")
        if temperature is not None and not is_temperature(temperature):
            raise ValueError(f"the temperature must be a number from {LOWEST:g} to {HIGHEST:g}")
        return replace(
            predictions,
            temperature=1.0 if temperature is None else float(temperature),
            operating_point=None if point is None else point_from_document(point, predictions.classes),
        )
    except ValueError as error:
        place = shown((folder / METRICS_NAME).absolute())
        raise DataError(f"{place}: its calibration cannot be used: {shown(error)[:200]}") from error


def _document(path: Path) -> dict[str, object]:
    if not path.exists():
        raise DataError(f"{shown(path.absolute())} is missing; it says which class each column of {LOGITS_NAME} is")
    try:
        document = read_json(path)
    except ValueError as error:
        raise DataError(f"{shown(path.absolute())} is not JSON: {shown(error)[:200]}") from error
    if not isinstance(document, dict):
        raise DataError(f"{shown(path.absolute())} is not what `evalcam evaluate` writes")
    return document


def _logits(path: Path, shape: tuple[int, int]) -> NDArray[np.float32]:
    place = shown(path.absolute())
    try:
        with opened(path) as stream:
            logits = np.load(stream, allow_pickle=False)
    except OSError as error:
        raise DataError(f"cannot read {place}: {error.strerror or error}") from error
    except Exception as error:  # of many kinds; NumPy would advise to unpickle it, which may run code
        raise DataError(f"cannot read {place}: it is no .npy file of numbers, or not all of it is there") from error
    if not isinstance(logits, np.ndarray) or logits.dtype.kind != "f":
        raise DataError(f"{place} does not hold floating-point numbers")
    if logits.shape != shape:
        raise DataError(f"{place} has the shape {logits.shape}; rows and classes beside it make it {shape}")
    return logits if logits.dtype in (np.float32, np.float64) else logits.astype(np.float64)


def _refuse_shuffled(table: ScoreTable, predictions: Predictions) -> None:
    """The CSV says which class each row was predicted as: one look tells whether the rows still belong together."""
    named = table.column("predicted")
    if not named:
        return
    logits = predictions.logits
    places = {name: index for index, name in enumerate(predictions.classes)}
    said = np.array([places.get(name, -1) for name in named])
    if predictions.operating_point is not None and len(places) == 2:
        agrees = said == predictions.predicted
    else:
        agrees = logits[np.arange(len(said)), said] == logits.max(axis=1)
    _refuse_rows(table, (said < 0) | ~agrees, f"a predicted class that {LOGITS_NAME} contradicts; the rows were moved")
    if "confidence" in table.header:  # tells apart rows that were predicted alike
        stated = table.numbers("confidence")
        moved = np.concatenate(
            [
                ~np.isclose(rows[np.arange(len(rows)), said[start:stop]], stated[start:stop], rtol=0, atol=1e-6)
                for start, stop in row_blocks(*logits.shape)
                for rows in (predictions.rows(start, stop),)
            ]
        )
        _refuse_rows(table, moved, f"a confidence that {LOGITS_NAME} contradicts; the rows were moved")


def _refuse_classes(classes: tuple[str, ...], table: ScoreTable) -> None:
    if len(classes) < 2:
        raise DataError(f"{table.place} has scores for {counted(len(classes), 'class')}; two are needed at least")
    if "" in classes or len(set(classes)) < len(classes):
        raise DataError(
            f"{table.place} has classes without a name or with the same name: {listed(map(repr, classes))[:300]}"
        )


def _checked_probabilities(table: ScoreTable, probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """The probabilities with rounding beyond 0 and 1 cut off."""
    inside = (probabilities >= -_RANGE_TOLERANCE) & (probabilities <= 1 + _RANGE_TOLERANCE)  # False for NaN
    _refuse_rows(table, ~inside.all(axis=1), "probabilities that are not from 0 to 1 (write logits as logit:<class>)")
    sums = probabilities.sum(axis=1)
    _refuse_rows(table, np.abs(sums - 1) > _SUM_TOLERANCE, "probabilities that do not sum to 1")
    return np.clip(probabilities, 0.0, 1.0)


def _refuse_rows(table: ScoreTable, broken: NDArray[np.bool_] | np.bool_, what: str) -> None:
    rows = np.flatnonzero(broken)
    if len(rows):
        named = listed(str(row + 2) for row in rows)
        raise DataError(f"{table.place}: {counted(len(rows), 'row')} with {what}: row {named}")


class _Facts(NamedTuple):
    """What predictions know of their images beside the scores, in the order of the fields of `Predictions`."""

    targets: NDArray[np.int64]
    paths: tuple[str, ...]
    subsets: tuple[str, ...]
    groups: tuple[str, ...]
    extra_columns: tuple[str, ...]
    extra: tuple[tuple[str, ...], ...]


def _facts(table: ScoreTable, classes: tuple[str, ...]) -> _Facts:
    further = [name for name in table.places if name not in OWN_COLUMNS]
    paths = table.column("path") or tuple(f"row {number}" for number in range(2, len(table.rows) + 2))
    twice = [path for path, times in Counter(paths).items() if path and times > 1]
    if twice:
        raise DataError(
            f"{table.place} has {counted(len(twice), 'path')} in several rows ({listed(twice)[:300]}); "
            "an image that counts twice makes intervals too narrow"
        )
    targets = _targets(table, classes)
    return _Facts(targets, paths, table.column("subset"), table.column("group"), tuple(further), table.columns(further))


def _targets(table: ScoreTable, classes: tuple[str, ...]) -> NDArray[np.int64]:
    places = {name: index for index, name in enumerate(classes)}
    index = table.places["target"]
    targets = np.empty(len(table.rows), dtype=np.int64)
    for number, row in enumerate(table.rows):
        name = row[index] if row[index] in places else csv_text(row[index])
        if name not in places:
            raise DataError(
                f"{table.place}, row {number + 2}: target {shown(name)[:80]!r} is none of the {len(classes)} classes"
                f"{did_you_mean(name[:200], classes)}; there are {listed(classes, 10)[:300]}"
            )
        targets[number] = places[name]
    return targets
