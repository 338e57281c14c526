"""evalcam lr-find."""

from pathlib import Path
from typing import Annotated

import typer

from evalcam_cli.cli import options
from evalcam_cli.cli.terminal import screen, write_json, write_out
from evalcam_cli.text import shown


def lr_find(
    data: Annotated[Path | None, typer.Argument(help="Class folders, a divided folder, or a CSV manifest.")] = None,
    out: options.OutFolder = None,
    split: options.SplitFile = None,
    low: Annotated[float, typer.Option("--min", help="First learning rate.")] = 1e-7,
    high: Annotated[float, typer.Option("--max", help="Last learning rate.")] = 10.0,
    steps: Annotated[int, typer.Option(min=20, max=100_000, help="Optimiser steps from first to last.")] = 100,
    drop_leaks: options.DropLeaks = False,
    resplit: options.Resplit = False,
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
    """Train a few steps at ever higher learning rates, and suggest one."""
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
    from evalcam_cli.workflows.lr_find import RangeTestRequest, lr_find  # noqa: PLC0415

    request = RangeTestRequest(
        out=options.default_out("lr-find", out),
        data=options.data_path(data, settings) if split is None or data is not None else None,
        split_file=split,
        low=low,
        high=high,
        steps=steps,
        overwrite=overwrite,
    )
    with screen(quiet=quiet) as view:
        result = lr_find(settings, request, view.progress)
    if json:
        write_json({"out": str(request.out), **result.document})
        return
    said = result.suggestion
    write_out(f"steepest descent at        {_rate(said.steepest)}")
    write_out(f"a tenth of the minimum's   {_rate(said.tenth_of_minimum)}")
    write_out(f"train.lr: {_rate(said.recommended)}")
    write_out(f"({said.reason})")
    write_out(shown(request.out))


def _rate(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.2g}"
