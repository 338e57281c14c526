"""evalcam predict."""

from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from evalcam_cli.cli import options
from evalcam_cli.cli.terminal import screen, write_json_list, write_out, write_table
from evalcam_cli.text import shown

_SHOWN = 20


def predict(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Image files or folders.")],
    ckpt: options.Ckpt = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="CSV file; default runs/predict-TIME/predictions.csv.")
    ] = None,
    arch: options.Arch = None,
    classes: options.Classes = None,
    allow_unreadable: options.AllowUnreadable = None,
    config: options.Config = None,
    assignments: options.Assignments = None,
    seed: options.Seed = None,
    device: options.Device = None,
    overwrite: options.Overwrite = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Write the probabilities of every class for unlabelled images."""
    settings = options.read_config(
        config, assignments, {"data.allow_unreadable": allow_unreadable, "seed": seed, "device": device}
    )
    from evalcam_cli.workflows.checkpoints import WeightsRequest  # noqa: PLC0415
    from evalcam_cli.workflows.predict import predict  # noqa: PLC0415

    out = out if out is not None else options.default_out("predict", None) / "predictions.csv"
    with screen(quiet=quiet) as view:
        weights = WeightsRequest(ckpt, arch, classes)
        result = predict(settings, weights, images, out, overwrite=overwrite, progress=view.progress)
    if json:
        write_json_list(dict(zip(result.header(), row, strict=True)) for row in result.rows())
        return
    first = [[row[0], row[1], f"{row[2]:.3f}"] for row in islice(result.rows(), _SHOWN)]
    write_table(["image", "predicted", "confidence"], first, texts=(0, 1))
    if len(result) > _SHOWN:
        write_out(f"and {len(result) - _SHOWN:,} more")
    write_out(shown(out))
