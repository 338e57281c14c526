"""evalcam evaluate."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evalcam_cli.cli import options
from evalcam_cli.cli.terminal import screen, write_err, write_json, write_out, write_table
from evalcam_cli.errors import UsageError
from evalcam_cli.text import shown

if TYPE_CHECKING:
    from evalcam_cli.workflows.evaluate import Evaluation


_CLASSES = 20
"""Classes that are printed; the files hold all."""


def evaluate(
    ckpt: options.Ckpt = None,
    split: options.SplitFile = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="Data set to evaluate whole, or another copy of the split's.")
    ] = None,
    subset: options.Subset = None,
    out: options.OutFolder = None,
    predictions: Annotated[
        Path | None, typer.Option("--predictions", help="Saved predictions (CSV) to evaluate instead.")
    ] = None,
    fail_under: Annotated[
        list[str] | None,
        typer.Option("--fail-under", metavar="METRIC=VALUE", help="Exit 4 when the metric is lower; repeatable."),
    ] = None,
    fail_over: Annotated[
        list[str] | None,
        typer.Option("--fail-over", metavar="METRIC=VALUE", help="Exit 4 when the metric is higher; repeatable."),
    ] = None,
    no_regression: Annotated[
        list[str] | None,
        typer.Option(
            "--no-regression",
            metavar="FILE:METRIC[:MARGIN]",
            help="Exit 4 when the metric is worse than in an earlier metrics.json; repeatable.",
        ),
    ] = None,
    junit: Annotated[
        Path | None, typer.Option("--junit", metavar="FILE", help="Write the gates as JUnit XML for CI.")
    ] = None,
    by: Annotated[
        list[str] | None,
        typer.Option(
            "--by", metavar="COLUMN", help="Evaluate the images of each value of a manifest column too; repeatable."
        ),
    ] = None,
    leaks: Annotated[
        Path | None,
        typer.Option("--leaks", metavar="CSV", help="near_duplicates.csv of an audit: show metrics without them too."),
    ] = None,
    prevalence: Annotated[
        float | None,
        typer.Option(metavar="SHARE", help="Share of the positive class in use: predictive values for it."),
    ] = None,
    conformal: Annotated[
        float | None,
        typer.Option(metavar="ALPHA", help="Prediction sets with this error rate, from the validation images."),
    ] = None,
    positive: Annotated[
        str | None, typer.Option(metavar="CLASS", help="Positive class of two; default the last one.")
    ] = None,
    map_class: Annotated[
        list[str] | None, typer.Option("--map-class", metavar="OLD=NEW", help="Rename a class of the data; repeatable.")
    ] = None,
    arch: options.Arch = None,
    classes: options.Classes = None,
    drop_leaks: options.DropLeaks = False,
    allow_leaks: options.AllowLeaks = False,
    allow_unreadable: options.AllowUnreadable = None,
    config: options.Config = None,
    assignments: options.Assignments = None,
    seed: options.Seed = None,
    device: options.Device = None,
    overwrite: options.Overwrite = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Measure a checkpoint, or any classifier's saved predictions, with intervals."""
    settings = options.read_config(
        config,
        assignments,
        {
            "evaluate.fail_under": fail_under,
            "evaluate.fail_over": fail_over,
            "evaluate.no_regression": no_regression,
            "evaluate.by": by,
            "evaluate.prevalence": prevalence,
            "evaluate.conformal": conformal,
            "evaluate.positive": positive,
            "evaluate.subset": subset,
            "split.leaks": options.leak_policy(drop_leaks, False, allow_leaks),
            "data.allow_unreadable": allow_unreadable,
            "seed": seed,
            "device": device,
        },
    )
    if ckpt is not None and predictions is not None:
        raise UsageError("choose one of --ckpt and --predictions")
    if predictions is not None:
        of_images = {
            "--split": split, "--data": data, "--subset": subset, "--map-class": map_class, "--arch": arch,
            "--classes": classes, "--drop-leaks": drop_leaks, "--allow-leaks": allow_leaks,
            "--allow-unreadable": allow_unreadable is not None,
        }  # fmt: skip
        if given := [name for name, value in of_images.items() if value]:
            raise UsageError(f"--predictions are evaluated as they are: without {', '.join(given)}")
    from evalcam_cli.workflows.evaluate import evaluate  # noqa: PLC0415
    from evalcam_cli.workflows.predictions import EvaluateRequest  # noqa: PLC0415

    request = EvaluateRequest(
        out=options.default_out("evaluate", out),
        ckpt=ckpt,
        arch=arch,
        classes_file=classes,
        split_file=split,
        data=data,
        subset=subset,
        predictions=predictions,
        map_class=tuple(map_class or ()),
        leaks=leaks,
        junit=junit,
        overwrite=overwrite,
    )
    with screen(quiet=quiet) as view:
        evaluation = evaluate(settings, request, view.progress)
    if json:
        write_json(evaluation.document)
    else:
        print_evaluation(evaluation)
        write_out(shown(request.out))
    for line in evaluation.annotations:
        write_err(line)
    evaluation.require_gates()


def print_evaluation(evaluation: "Evaluation") -> None:
    """The headline, the overall metrics and the classes, each as a short table."""
    from evalcam_cli.report.tables import (  # noqa: PLC0415
        CLASS_HEADER,
        METRICS_HEADER,
        class_table_rows,
        metrics_table_rows,
    )

    folds = evaluation.analyses.folds is not None
    title = f"{evaluation.metrics.n:,} {evaluation.subset} images"
    title += ", of all folds together; ranks and F1 are means over folds" if folds else ""
    write_table(METRICS_HEADER, metrics_table_rows(evaluation.metrics), title=title)
    write_out("")
    rows = class_table_rows(evaluation.metrics)
    write_table(CLASS_HEADER, rows[:_CLASSES], title="Of all folds together" if folds else "")
    if len(rows) > _CLASSES:
        write_out(f"and {len(rows) - _CLASSES:,} more classes, in per_class.csv")
    _print_analyses(evaluation)
    for gate in evaluation.gates:
        if gate.passed:  # a missed one is the error that the command ends with
            write_out(gate.line)


def _print_analyses(evaluation: "Evaluation") -> None:
    """What was asked for beside the metrics, in short."""
    from evalcam_cli.report.tables import (  # noqa: PLC0415
        FOLDS_HEADER,
        METRICS_HEADER,
        SLICES_HEADER,
        fold_table_rows,
        named_rows,
        slice_table_rows,
    )

    found = evaluation.analyses
    if found.folds is not None:
        write_out("")
        write_table(FOLDS_HEADER, fold_table_rows(found.folds), title=f"Over {found.folds.title}")
    if found.slices:
        write_out("")
        write_table(SLICES_HEADER, slice_table_rows(found.slices), title="Slices")
    if found.without_leaks is not None and found.without_leaks.metrics is not None:
        rest = found.without_leaks.metrics
        write_out("")
        title = f"Without {found.without_leaks.leaked:,} leaked images, {rest.n:,} are left"
        write_table(METRICS_HEADER, named_rows(rest.overall, ("accuracy", "balanced_accuracy")), title=title)
    if evaluation.looks is not None and evaluation.looks.times > 1:
        write_out(evaluation.looks.sentence)
