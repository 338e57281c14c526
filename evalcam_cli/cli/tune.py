"""evalcam tune."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evalcam_cli.cli import options
from evalcam_cli.cli.terminal import screen, write_json, write_out, write_table
from evalcam_cli.errors import UsageError
from evalcam_cli.text import counted, shown

if TYPE_CHECKING:
    from evalcam_cli.workflows.search_files import TuneResult


def tune(
    config: Annotated[Path, typer.Argument(help="YAML file with a section `search`, e.g. configs/tune.yaml.")],
    data: Annotated[Path | None, typer.Argument(help="Images; default data.path of the config.")] = None,
    out: options.OutFolder = None,
    trials: Annotated[int | None, typer.Option(min=1, metavar="N", help="Trials in all; default 20.")] = None,
    split: options.SplitFile = None,
    jobs: Annotated[int, typer.Option(min=1, max=64, metavar="J", help="Trials at a time, each a process.")] = 1,
    join: Annotated[
        bool,
        typer.Option("--join", help="Take part in the search that runs in --out, from another terminal or machine."),
    ] = False,
    drop_leaks: options.DropLeaks = False,
    resplit: options.Resplit = False,
    allow_leaks: options.AllowLeaks = False,
    allow_unreadable: options.AllowUnreadable = None,
    assignments: options.Assignments = None,
    seed: options.Seed = None,
    device: options.Device = None,
    resume: options.Resume = False,
    overwrite: options.Overwrite = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Search for the settings that validate best; the test images stay unopened."""
    settings = options.read_config(
        config,
        assignments,
        {
            "split.leaks": options.leak_policy(drop_leaks, resplit, allow_leaks),
            "data.allow_unreadable": allow_unreadable,
            "seed": seed,
            "device": device,
        },
    )
    options.refuse_both(resume, overwrite)
    if join and (resume or overwrite or jobs > 1 or out is None):
        raise UsageError("--join takes the --out of a running search, and neither --resume, --overwrite nor --jobs")
    from evalcam_cli.workflows.tune import TuneRequest, tune  # noqa: PLC0415

    # a split knows where its images are: one that is named, and that of a search which has begun
    divided = split is not None or ((join or resume) and out is not None and (out / "split.csv").exists())
    request = TuneRequest(
        out=options.default_out("tune", out),
        data=data if divided else options.data_path(data, settings),
        split_file=split,
        trials=trials,
        jobs=jobs,
        resume=resume,
        overwrite=overwrite,
        join=join,
    )
    with screen(quiet=quiet) as view:
        result = tune(settings, request, view.progress)
    if json:
        write_json({"out": str(request.out), **result.document})
    else:
        _print(result)


def _print(result: "TuneResult") -> None:
    from evalcam_cli.workflows.tune import value_text  # noqa: PLC0415

    document, best = result.document, result.best
    shares = document["importances"] or {}
    states = ", ".join(f"{count} {state}" for state, count in document["trials"].items() if count)
    title = (
        f"best of {counted(len(result.trials), 'trial')} ({states}): trial {best.number}, "
        f"validation {document['metric']} {best.value:.4g} at epoch {best.best_epoch}"
    )
    write_out(title)
    rows = [
        (key, value_text(value), f"{shares[key]:.2f}" if key in shares else "n/a") for key, value in best.params.items()
    ]
    write_table(("key", "value", "importance"), sorted(rows, key=lambda row: -shares.get(row[0], 0.0)))
    if document["importances"] is None:
        write_out(f"importance n/a ({document['importances_undefined_reason']})")
    for warning in document["warnings"]:
        write_out(f"note: {warning['message']}")
    folder = shown(result.folder)
    write_out(f"Next: evalcam train -c {folder}/best.yaml --split {folder}/split.csv --out RUN")
    write_out(folder)
