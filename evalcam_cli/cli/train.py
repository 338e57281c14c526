"""evalcam train."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evalcam_cli.cli import options
from evalcam_cli.cli.terminal import Screen, screen, write_json, write_out, write_table
from evalcam_cli.errors import UsageError
from evalcam_cli.text import shown

if TYPE_CHECKING:
    from evalcam_cli.config import RunConfig
    from evalcam_cli.training.diagnosis import Diagnosis
    from evalcam_cli.training.rounds import RoundTable
    from evalcam_cli.workflows.cross_validation import CrossValidation
    from evalcam_cli.workflows.train import TrainRequest
    from evalcam_cli.workflows.training_run import TrainResult


def train(
    data: Annotated[Path | None, typer.Argument(help="Class folders, a divided folder, or a CSV manifest.")] = None,
    out: options.OutFolder = None,
    split: options.SplitFile = None,
    fold: Annotated[int | None, typer.Option(metavar="I", help="Train the round whose test fold is I.")] = None,
    all_folds: Annotated[
        bool, typer.Option("--all-folds", help="Train every round, into --out/fold-0, fold-1, …")
    ] = False,
    jobs: Annotated[
        int | None, typer.Option(metavar="N", help="Rounds of --all-folds at a time, each in a process; default 1.")
    ] = None,
    folds: Annotated[int | None, typer.Option(metavar="K", help="Number of folds when DATA is split here.")] = None,
    repeats: Annotated[
        int | None, typer.Option(metavar="R", help="Divide DATA into folds R times, each time anew; default 1.")
    ] = None,
    arch: Annotated[str | None, typer.Option(help="Architecture, e.g. resnet18; default resnet18.")] = None,
    weights: Annotated[
        str | None,
        typer.Option(metavar="default|none|FILE", help="Start from ImageNet weights, random ones, or a file."),
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training images; default 20.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images per step; default 32.")] = None,
    lr: Annotated[float | None, typer.Option(help="Highest learning rate; default 0.0003.")] = None,
    image_size: Annotated[int | None, typer.Option(help="Side of the model's input, in pixels; default 224.")] = None,
    group_by: Annotated[
        str | None,
        typer.Option(metavar="COLUMN|REGEX", help="What images of one patient share; they never cross sets."),
    ] = None,
    ungrouped: Annotated[str | None, typer.Option(metavar="refuse|single", help="Images without a group.")] = None,
    drop_leaks: options.DropLeaks = False,
    resplit: options.Resplit = False,
    allow_leaks: options.AllowLeaks = False,
    allow_unreadable: options.AllowUnreadable = None,
    config: options.Config = None,
    assignments: options.Assignments = None,
    seed: options.Seed = None,
    device: options.Device = None,
    resume: options.Resume = False,
    overwrite: options.Overwrite = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Train a ResNet and keep the best weights by a validation metric."""
    settings = options.read_config(
        config,
        assignments,
        {
            "split.folds": folds,
            "split.repeats": repeats,
            "split.group_by": group_by,
            "split.ungrouped": ungrouped,
            "split.leaks": options.leak_policy(drop_leaks, resplit, allow_leaks),
            "data.allow_unreadable": allow_unreadable,
            "data.image_size": image_size,
            "model.arch": arch,
            "model.weights": weights,
            "train.epochs": epochs,
            "train.batch_size": batch_size,
            "train.lr": lr,
            "seed": seed,
            "device": device,
        },
    )
    if fold is not None and all_folds:
        raise UsageError("choose one of --fold and --all-folds")
    if jobs is not None and not all_folds:
        raise UsageError("--jobs trains several rounds at a time; add --all-folds")
    if repeats is not None and settings.split.folds is None:
        raise UsageError("--repeats is for cross-validation folds; add --folds K")
    options.refuse_both(resume, overwrite)
    from evalcam_cli.workflows.train import TrainRequest, train  # noqa: PLC0415

    request = TrainRequest(
        out=options.default_out("train", out),
        data=options.data_path(data, settings) if split is None or data is not None else None,
        split_file=split,
        fold=fold,
        resume=resume,
        overwrite=overwrite,
    )
    with screen(quiet=quiet) as view:
        if all_folds:
            found = _train_all_folds(settings, request, view, jobs=1 if jobs is None else jobs)
            results = found.results
        else:
            found, results = None, (train(settings, request, view.progress),)
    if json:
        document: dict[str, object] = {"out": str(request.out), "runs": [_document(result) for result in results]}
        write_json(document if found is None else document | {"summary": found.table.document()})
    elif found is None:
        _print(results[0])
    else:
        _print_rounds(found.table)
        write_out(shown(request.out))


def _train_all_folds(settings: "RunConfig", request: "TrainRequest", view: Screen, *, jobs: int) -> "CrossValidation":
    from evalcam_cli.workflows.cross_validation import train_all_folds  # noqa: PLC0415

    return train_all_folds(settings, request, view.progress, jobs=jobs)


def _document(result: "TrainResult") -> dict[str, object]:
    return {
        "folder": str(result.folder),
        "checkpoint": str(result.checkpoint),
        "weights_sha256": result.weights_sha256,
        "epochs": result.epochs,
        "best_epoch": result.best_epoch,
        "diagnosis": result.diagnosis.to_dict() if result.diagnosis else None,
    }


def print_diagnosis(diagnosis: "Diagnosis") -> None:
    """The verdict, what to do, and what else was found."""
    write_out(f"{diagnosis.sentence}\nAdvice: {diagnosis.advice}.")
    for finding in diagnosis.findings[1:]:
        write_out(f"Also: {finding.sentence}. Advice: {finding.advice}.")


def _print(result: "TrainResult") -> None:
    if result.diagnosis is not None:
        print_diagnosis(result.diagnosis)
    write_out(f"weights  {shown(result.checkpoint)} (epoch {result.best_epoch} of {result.epochs})")
    write_out(f"sha256   {result.weights_sha256} (final state)")
    write_out(shown(result.folder))


def _print_rounds(table: "RoundTable") -> None:
    """A row per round with the validation metrics of its best epoch, and their mean and SD."""
    header = (
        "fold",
        "epochs",
        "best epoch",
        "val loss",
        "val accuracy",
        "val balanced accuracy",
        "diagnosis",
        "sha256",
    )
    rows = []
    for number, _, _, epochs, best, *validation, diagnosis, sha256 in table.rows():
        numbers = ["" if one is None else f"{one:.3f}" for one in validation]
        rows.append([number, epochs, best, *numbers, diagnosis, str(sha256 or "")[:12]])
    times = f", {table.repeats} repeats" if table.repeats > 1 else ""
    title = (
        f"{len(table.rounds)} rounds{times}: validation images at the best epoch; `evaluate` measures the test folds"
    )
    write_table(header, rows, title=title, texts=(0, 6, 7))
