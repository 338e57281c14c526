"""From saved predictions of several classifiers to what can be said about their differences."""

import string
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evalcam_cli.config import RunConfig
from evalcam_cli.errors import GateError, UsageError
from evalcam_cli.evaluation.comparison import CompareOptions, Comparison, compare, parse_metric
from evalcam_cli.evaluation.matching import Model
from evalcam_cli.evaluation.non_inferiority import (
    NonInferiorityResult,
    check_non_inferiority,
    parse_non_inferiority,
)
from evalcam_cli.evaluation.paired import McNemar
from evalcam_cli.evaluation.saved import read_predictions, stored_positive
from evalcam_cli.files import output_folder
from evalcam_cli.report.comparison import comparison_document, write_comparison
from evalcam_cli.text import shown

MCNEMAR: tuple[McNemar, ...] = ("auto", "exact", "midp")


@dataclass(frozen=True)
class CompareRequest:
    """What a comparison was asked for, besides the config."""

    inputs: tuple[Path, ...]
    """Files of predictions, or folders of `evalcam evaluate`; the first is A."""
    out: Path | None = None
    """Nothing is written without it."""
    metrics: tuple[str, ...] = ()
    non_inferior: tuple[str, ...] = ()
    paired: bool = True
    all_pairs: bool = False
    mcnemar: str = "auto"
    overwrite: bool = False


@dataclass(frozen=True)
class ComparisonResult:
    """A comparison with its gates, and as a document."""

    comparison: Comparison
    gates: tuple[NonInferiorityResult, ...]
    document: dict[str, Any]
    """As written to `comparison.json`."""

    def require_gates(self) -> None:
        """Refuse when non-inferiority was not shown.

        Raises:
            GateError: Naming every demand that was not met.
        """
        missed = [result.line for result in self.gates if not result.passed]
        if missed:
            raise GateError("\n".join(missed[:7]))


def compare_predictions(config: RunConfig, request: CompareRequest) -> ComparisonResult:
    """Compare saved predictions and, with `out`, write everything about it.

    Gates are checked by the caller (`ComparisonResult.require_gates`), after the numbers have been shown.

    Raises:
        EvalcamError: As the exit codes say; then nothing is written.
    """
    if len(request.inputs) < 2:
        raise UsageError("compare needs two or more predictions: evalcam compare A B, files or `evaluate` folders")
    mcnemar = next((name for name in MCNEMAR if name == request.mcnemar), None)
    if mcnemar is None:
        raise UsageError(f"--mcnemar must be one of {', '.join(MCNEMAR)}, got {request.mcnemar}")
    demands = [parse_non_inferiority(text) for text in request.non_inferior]
    metrics = tuple(parse_metric(text, f"--metric {text}") for text in request.metrics)
    models = _read(request.inputs)
    options = CompareOptions(
        metrics=metrics,
        further=tuple(demand.quantity for demand in demands),
        paired=request.paired,
        all_pairs=request.all_pairs,
        positive=config.evaluate.positive or _stored_positive(request.inputs, models),
        mcnemar=mcnemar,
        bootstrap=config.evaluate.bootstrap,
        seed=config.seed,
    )
    if request.out is None:
        return _result(models, options, demands)
    inputs = [path for path in request.inputs if path.is_dir()]
    with output_folder(request.out, overwrite=request.overwrite, inputs=inputs) as folder:
        result = _result(models, options, demands)
        write_comparison(folder, result.comparison, result.gates)
        return result


def _result(models: Sequence[Model], options: CompareOptions, demands: Sequence[Any]) -> ComparisonResult:
    comparison = compare(models, options)
    gates = tuple(check_non_inferiority(demands, comparison))
    return ComparisonResult(comparison, gates, comparison_document(comparison, gates))


def _read(paths: Sequence[Path]) -> list[Model]:
    letters = string.ascii_uppercase
    names = [letters[index] if index < len(letters) else f"M{index + 1}" for index in range(len(paths))]
    return [Model(name, str(path), read_predictions(path)) for name, path in zip(names, paths, strict=True)]


def _stored_positive(paths: Sequence[Path], models: Sequence[Model]) -> str | None:
    """The positive class of two that the evaluations were about; the files must not contradict each other."""
    if len(models[0].predictions.classes) != 2:  # then it is that of an operating point, and changes nothing here
        return None
    found = {path: positive for path in paths if (positive := stored_positive(path)) is not None}
    if len(set(found.values())) > 1:
        named = ", ".join(f"{shown(positive)} in {shown(path)}" for path, positive in found.items())
        raise UsageError(f"the evaluations have different positive classes ({named}); name one with --positive")
    return next(iter(found.values()), None)
