"""evalcam train."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evalcam_cli.cli import options
from evalcam_cli.cli.terminal import screen, write_json, write_out
from evalcam_cli.errors import UsageError
from evalcam_cli.text import shown

if TYPE_CHECKING:
    from evalcam_cli.workflows.training_run import TrainResult


def train(
    data: Annotated[Path | None, typer.Argument(help="Class folders, a divided folder, or a CSV manifest.")] = None,
    out: options.OutFolder = None,
    split: options.SplitFile = None,
    fold: Annotated[int | None, typer.Option(metavar="I", help="Train the round whose test fold is I.")] = None,
    all_folds: Annotated[
        bool, typer.Option("--all-folds", help="Train every round, into --out/fold-0, fold-1, …")
    ] = False,
    folds: Annotated[int | None, typer.Option(metavar="K", help="Number of folds when DATA is split here.")] = None,
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
    options.refuse_both(resume, overwrite)
    from evalcam_cli.workflows.cross_validation import train_all_folds  # noqa: PLC0415
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
            results = train_all_folds(settings, request, view.progress)
        else:
            results = [train(settings, request, view.progress)]
    if json:
        write_json({"out": str(request.out), "runs": [_document(result) for result in results]})
        return
    for result in results:
        _print(result)
    if all_folds:
        write_out(shown(request.out))


def _document(result: "TrainResult") -> dict[str, object]:
    return {
        "folder": str(result.folder),
        "checkpoint": str(result.checkpoint),
        "weights_sha256": result.weights_sha256,
        "epochs": result.epochs,
        "best_epoch": result.best_epoch,
        "diagnosis": result.diagnosis.to_dict() if result.diagnosis else None,
    }


def _print(result: "TrainResult") -> None:
    if result.diagnosis is not None:
        write_out(result.diagnosis.sentence)
        write_out(f"Advice: {result.diagnosis.advice}.")
    write_out(f"weights  {shown(result.checkpoint)} (epoch {result.best_epoch} of {result.epochs})")
    write_out(f"sha256   {result.weights_sha256} (final state)")
    write_out(shown(result.folder))
