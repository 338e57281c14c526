"""evalcam gradcam."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evalcam_cli.cli import options
from evalcam_cli.cli.terminal import screen, write_json_list, write_out, write_table
from evalcam_cli.errors import UsageError
from evalcam_cli.text import counted, shown

if TYPE_CHECKING:
    from evalcam_cli.evaluation.estimates import Estimate
    from evalcam_cli.workflows.gradcam import GradCamResultFiles

_LOCALISATION = (
    "pointing_game",
    "pointing_game_0px",
    "iou_mean",
    "iou_mean_best",
    "iou_50",
    "max_box_acc_v2",
    "energy",
)
_SHOWN = 20  # rows of the table on the terminal; all are in explanations.csv


def gradcam(
    images: Annotated[list[Path] | None, typer.Argument(metavar="IMAGE", help="Image files or folders.")] = None,
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
    against: Annotated[
        str | None, typer.Option(metavar="CLASS", help="Show what speaks for the classes and not for this one.")
    ] = None,
    norm: Annotated[
        str | None,
        typer.Option(metavar="image|shared|raw", help="What full colour means: of each map, of the run, fixed."),
    ] = None,
    flips: Annotated[
        bool | None, typer.Option("--flips/--no-flips", help="Average over reflections; default in a failure report.")
    ] = None,
    split: options.SplitFile = None,
    data: Annotated[Path | None, typer.Option("--data", help="Data set, or another copy of the split's.")] = None,
    subset: options.Subset = None,
    mistakes: Annotated[
        bool, typer.Option("--mistakes", help="Failure report: every misclassified image of the set on one page.")
    ] = False,
    all_: Annotated[bool, typer.Option("--all", help="The same with the right predictions as well.")] = False,
    boxes: Annotated[
        Path | None,
        typer.Option(metavar="FILE|DIR", help="Known objects (boxes.csv or masks): how well do the maps find them?"),
    ] = None,
    find_boxes: Annotated[bool, typer.Option("--find-boxes", help="Write boxes.csv and coco.json.")] = False,
    score: Annotated[
        bool, typer.Option("--score", help="Hold each map against a random one, and check each method's sanity.")
    ] = False,
    max_images: Annotated[
        int | None, typer.Option(metavar="N", help="Stop after N images; default 16 of a split.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(metavar="FILE.py:FACTORY", help="Your own network; the file is run.")
    ] = None,
    target: Annotated[
        str | None, typer.Option(metavar="FILE.py:FUNCTION", help="Your own score of the output; the file is run.")
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
            "gradcam.against": against,
            "gradcam.norm": norm,
            "gradcam.flips": flips,
            "gradcam.max_images": max_images,
            "data.allow_unreadable": allow_unreadable,
            "seed": seed,
            "device": device,
        },
    )
    options.refuse_both(resume, overwrite)
    if mistakes and all_:
        raise UsageError("--mistakes or --all, not both")
    from evalcam_cli.workflows.checkpoints import WeightsRequest  # noqa: PLC0415
    from evalcam_cli.workflows.gradcam import GradCamRequest, explain  # noqa: PLC0415

    request = GradCamRequest(
        out=options.default_out("gradcam", out),
        images=tuple(images or ()),
        weights=WeightsRequest(ckpt, arch, classes),
        split_file=split,
        data=data,
        subset=subset,
        model=model,
        target=target,
        boxes=boxes,
        find_boxes=find_boxes,
        score=score,
        report="mistakes" if mistakes else "all" if all_ else None,
        overwrite=overwrite,
        resume=resume,
    )
    with screen(quiet=quiet) as view:
        result = explain(settings, request, view.progress)
    if json:
        write_json_list(row.to_dict() for row in result.read_rows())
        return
    print_explanations(result)


def print_explanations(result: "GradCamResultFiles") -> None:
    """The first overlays and where the rest is; how well maps found known objects."""
    rows = result.first(_SHOWN + 1)
    table = [
        [
            row.path,
            row.class_name,
            f"score {row.logit:.3g}" if row.probability is None else f"{row.probability:.3f}",
            "empty" if row.empty else f"{row.peak_x}, {row.peak_y}",
            row.overlay,
        ]
        for row in rows[:_SHOWN]
    ]
    columns = ["image", "class", "p", "peak x, y", "overlay"]
    if len({row.method for row in rows}) > 1:  # else the column would say nothing
        columns.insert(2, "method")
        table = [[*cells[:2], row.method, *cells[2:]] for cells, row in zip(table, rows, strict=False)]
    write_table(columns, table, texts=(0, 1, 2, len(columns) - 1) if "method" in columns else (0, 1, len(columns) - 1))
    if len(rows) > _SHOWN:
        write_out("and more in explanations.csv")
    for method, found in result.localisation.items():
        write_out(f"localisation of {method} over {counted(found.maps, 'map')}:")
        numbers = [[name, *_with_interval(found.numbers[name])] for name in _LOCALISATION if name in found.numbers]
        write_table(["number", "estimate", "95 % interval"], numbers, texts=(0,))
    for method, scores in result.scores.items():
        write_out(f"{method}: {result.verdicts.get(method, 'not checked')}")
        beside = [
            [name, *_with_interval(one.score)[:1], *_with_interval(one.random)[:1], one.verdict]
            for name, one in scores.items()
        ]
        write_table(["metric", "maps", "random maps", "verdict"], beside, texts=(0, 3))
    if result.report:
        write_out(result.report)
    write_out(shown(result.folder))


def _with_interval(estimate: "Estimate") -> tuple[str, str]:
    if estimate.estimate is None:
        return "undefined", estimate.undefined_reason or ""
    low, high = estimate.ci_low, estimate.ci_high
    return f"{estimate.estimate:.3f}", "" if low is None or high is None else f"{low:.3f} to {high:.3f}"
