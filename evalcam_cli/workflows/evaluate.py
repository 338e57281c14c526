"""From a classifier, or saved predictions, and images to numbers that can be defended."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evalcam_cli.config import RunConfig
from evalcam_cli.distributed import joined, on_first
from evalcam_cli.errors import GateError, UsageError
from evalcam_cli.evaluation.analyses import Analyses, analyse
from evalcam_cli.evaluation.folds import of_rounds
from evalcam_cli.evaluation.gates import Gate, GateResult, check_gates, parse_gate
from evalcam_cli.evaluation.limits import IntervalChoice
from evalcam_cli.evaluation.metrics import Metrics, compute_metrics
from evalcam_cli.evaluation.predictions import Predictions
from evalcam_cli.evaluation.quantities import refuse_unknown
from evalcam_cli.evaluation.regression import Regression, check_regressions, read_regression
from evalcam_cli.files import OutputFolder, output_folder
from evalcam_cli.progress import Progress, silent
from evalcam_cli.report.contents import Report
from evalcam_cli.report.evaluation import metrics_document, write_evaluation
from evalcam_cli.workflows.ci import refuse_junit_place, tell_github, write_junit
from evalcam_cli.workflows.ledger import Look, Looks, record_look
from evalcam_cli.workflows.predictions import Evaluated, EvaluateRequest, obtain


@dataclass(frozen=True)
class Evaluation:
    """Metrics of one set of predictions, and where they were written."""

    metrics: Metrics
    predictions: Predictions
    subset: str
    gates: tuple[GateResult, ...]
    document: dict[str, Any]
    """As written to `metrics.json`."""
    analyses: Analyses
    looks: Looks | None = None
    annotations: tuple[str, ...] = ()
    """Lines for stderr that a CI system turns into annotations."""

    def require_gates(self) -> None:
        """Refuse when a gate was missed.

        Raises:
            GateError: Naming every gate that was missed.
        """
        missed = [result.line for result in self.gates if not result.passed]
        if missed:
            raise GateError("\n".join(missed[:7]))


@dataclass(frozen=True)
class Demands:
    """What an evaluation must reach."""

    gates: tuple[Gate, ...]
    regressions: tuple[Regression, ...]
    by: tuple[str, ...]

    @classmethod
    def of(cls, config: RunConfig) -> "Demands":
        """Those of the config.

        Raises:
            UsageError: One cannot be read.
        """
        under = [parse_gate(text, "under") for text in config.evaluate.fail_under]
        over = [parse_gate(text, "over") for text in config.evaluate.fail_over]
        earlier = [read_regression(text) for text in config.evaluate.no_regression]
        return cls((*under, *over), tuple(earlier), config.evaluate.by)

    def refuse_unknown(self, classes: Sequence[str]) -> None:
        """Refuse demands that do not fit the classes, before the work is done."""
        refuse_unknown(self.gates, classes, by=self.by)
        refuse_unknown(self.regressions, classes)

    def check(self, metrics: Metrics, analyses: Analyses, source: Evaluated) -> tuple[GateResult, ...]:
        """Hold the numbers against all demands, in the order given."""
        return check_gates(self.gates, metrics, slices=analyses.slices) + check_regressions(
            self.regressions,
            metrics,
            subset=source.subset,
            split_fingerprint=source.meta.get("split_fingerprint"),
        )


def evaluate(config: RunConfig, request: EvaluateRequest, progress: Progress = silent) -> Evaluation:
    """Evaluate a classifier on one set of images and write everything about it to `request.out`.

    Of several processes the first one does it all; only for the predictions the others help. Gates are checked by the
    caller (`Evaluation.require_gates`), after the numbers have been shown.

    Raises:
        EvalcamError: As the exit codes say; then nothing is written.
    """
    with joined():
        return on_first(lambda: _evaluate(config, request, progress))


def _evaluate(config: RunConfig, request: EvaluateRequest, progress: Progress) -> Evaluation:
    demands = Demands.of(config)
    if request.ckpt is None and request.predictions is None:
        raise UsageError("nothing to evaluate: name --ckpt FILE or RUN, or --predictions FILE")
    inputs = [request.data] if request.data is not None and request.data.is_dir() else []
    refuse_junit_place(request.junit, inputs, request.out)
    with contextlib.ExitStack() as stack:
        folder = None
        if request.out is not None:  # first: a place that is taken is found out before the work is done
            folder = stack.enter_context(output_folder(request.out, overwrite=request.overwrite, inputs=inputs))
        source = obtain(config, request, progress, demands.refuse_unknown)
        return _report(config, folder, request.junit, source, demands)


def _report(
    config: RunConfig, folder: OutputFolder | None, junit: Path | None, source: Evaluated, demands: Demands
) -> Evaluation:
    wanted = config.evaluate
    metrics = compute_metrics(
        source.predictions,
        positive=wanted.positive or source.positive,
        bootstrap=wanted.bootstrap,
        seed=config.seed,
        choice=_choice(config),
    )
    analyses = analyse(
        source.predictions,
        metrics,
        choice=_choice(config),
        by=wanted.by,
        prevalence=wanted.prevalence,
        folds=source.folds,
        validation=source.validation,
        alpha=wanted.conformal,
        leaked=source.leaked,
    )
    if analyses.folds is not None:
        metrics = of_rounds(metrics, analyses.folds)
    results = demands.check(metrics, analyses, source)
    looks = _record(metrics, source)
    said = looks.sentence if looks else ""
    report = Report(source.predictions, metrics, analyses, source.subset, results, source.meta, said)
    if folder is not None:
        write_evaluation(folder, report)
    write_junit(junit, folder, results, metrics, source.subset)
    annotations = tell_github(results, metrics, subset=source.subset, looks=said)
    return Evaluation(
        metrics, source.predictions, source.subset, results, metrics_document(report), analyses, looks,
        tuple(annotations),
    )  # fmt: skip


def _choice(config: RunConfig) -> IntervalChoice:
    return IntervalChoice(config.evaluate.proportion_interval, config.evaluate.auc_interval)


def _record(metrics: Metrics, source: Evaluated) -> Looks | None:
    names = ("accuracy", "balanced_accuracy")
    look = Look(
        source.meta.get("checkpoint_sha256"),
        source.meta.get("split_fingerprint") or "",
        source.subset,
        metrics.n,
        {name: metrics.overall[name].estimate for name in names},
    )
    return record_look(source.split_file, source.data_root, look)
