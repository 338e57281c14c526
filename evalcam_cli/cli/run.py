"""evalcam run."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evalcam_cli.cli import options
from evalcam_cli.cli.evaluate import print_evaluation
from evalcam_cli.cli.gradcam import print_explanations
from evalcam_cli.cli.terminal import screen, write_json, write_out
from evalcam_cli.cli.train import print_diagnosis
from evalcam_cli.text import shown

if TYPE_CHECKING:
    from evalcam_cli.training.diagnosis import Diagnosis


def run(
    config: Annotated[Path, typer.Argument(help="YAML file, e.g. configs/quickstart.yaml.")],
    data: Annotated[Path | None, typer.Argument(help="Images; default data.path of the config.")] = None,
    out: options.OutFolder = None,
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
    """Split, train, evaluate and explain in one go."""
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
    from evalcam_cli.workflows.run import run_all  # noqa: PLC0415

    place = options.default_out("run", out)
    with screen(quiet=quiet) as view:
        result = run_all(
            settings,
            data=options.data_path(data, settings),
            out=place,
            resume=resume,
            overwrite=overwrite,
            progress=view.progress,
        )
    if json:
        rows = [row.to_dict() for row in result.explanations.rows]
        diagnosis = result.training.diagnosis
        write_json(
            {
                "out": str(place),
                "diagnosis": diagnosis.to_dict() if diagnosis else None,
                "evaluation": result.evaluation.document,
                "explanations": rows,
            }
        )
    else:
        print_evaluation(result.evaluation)
        write_out("")
        print_explanations(result.explanations)
        _print_summary(result.training.diagnosis, place)
    result.evaluation.require_gates()


def _print_summary(diagnosis: "Diagnosis | None", place: Path) -> None:
    if diagnosis is not None:
        print_diagnosis(diagnosis)
    folder = shown(place)
    write_out(
        f"Everything is in {folder}: train (weights, curves.png), evaluate (report.md), gradcam (overlays).\n"
        "Next:\n"
        f"  evalcam gradcam IMAGE --ckpt {folder}/train --class all\n"
        f"  evalcam evaluate --ckpt {folder}/train --data OTHER_IMAGES\n"
        f"  evalcam predict IMAGE... --ckpt {folder}/train --out predictions.csv\n"
        f"{folder}"
    )
