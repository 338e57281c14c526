"""evalcam gradcam."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evalcam_cli.cli import options
from evalcam_cli.cli.terminal import screen, write_json, write_out, write_table
from evalcam_cli.text import shown

if TYPE_CHECKING:
    from evalcam_cli.workflows.explanations import Explanation

_SHOWN = 20  # rows of the table on the terminal; all are in explanations.csv


def gradcam(
    images: Annotated[list[Path] | None, typer.Argument(metavar="[IMAGE]...", help="Image files or folders.")] = None,
    ckpt: options.Ckpt = None,
    class_: Annotated[
        list[str] | None,
        typer.Option(
            "--class",
            metavar="CLASS",
            help="Name, index, predicted, true, top:K or all; repeatable; default predicted.",
        ),
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option("--method", metavar="METHOD,...", help="How maps are computed; several make a panel."),
    ] = None,
    layer: Annotated[
        str | None, typer.Option("--layer", help="Module to explain, e.g. layer3; default the last stage.")
    ] = None,
    split: options.SplitFile = None,
    data: Annotated[Path | None, typer.Option("--data", help="Data set, or another copy of the split's.")] = None,
    subset: options.Subset = None,
    max_images: Annotated[
        int | None, typer.Option(metavar="N", help="Stop after N images; default 16 of a split.")
    ] = None,
    out: options.OutFolder = None,
    arch: options.Arch = None,
    classes: options.Classes = None,
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
    """Show which pixels speak for a class, on the original image."""
    settings = options.read_config(
        config,
        assignments,
        {
            "evaluate.subset": subset,
            "gradcam.class": class_,
            "gradcam.method": method,
            "gradcam.layer": layer,
            "gradcam.max_images": max_images,
            "data.allow_unreadable": allow_unreadable,
            "seed": seed,
            "device": device,
        },
    )
    options.refuse_both(resume, overwrite)
    from evalcam_cli.workflows.checkpoints import WeightsRequest  # noqa: PLC0415
    from evalcam_cli.workflows.gradcam import GradCamRequest, explain  # noqa: PLC0415

    request = GradCamRequest(
        out=options.default_out("gradcam", out),
        images=tuple(images or ()),
        weights=WeightsRequest(ckpt, arch, classes),
        split_file=split,
        data=data,
        subset=subset,
        overwrite=overwrite,
        resume=resume,
    )
    with screen(quiet=quiet) as view:
        result = explain(settings, request, view.progress)
    if json:
        write_json([row.to_dict() for row in result.rows])
        return
    print_explanations(result.rows, result.folder)


def print_explanations(rows: "Sequence[Explanation]", folder: Path) -> None:
    """The first overlays and where the rest is."""
    table = [
        [
            row.path,
            row.class_name,
            f"{row.probability:.3f}",
            "empty" if row.empty else f"{row.peak_x}, {row.peak_y}",
            row.overlay,
        ]
        for row in rows[:_SHOWN]
    ]
    write_table(["image", "class", "p", "peak x, y", "overlay"], table, texts=(0, 1, 4))
    if len(rows) > _SHOWN:
        write_out(f"and {len(rows) - _SHOWN:,} more in explanations.csv")
    write_out(shown(folder))
