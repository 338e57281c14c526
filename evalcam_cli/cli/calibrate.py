"""evalcam calibrate."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evalcam_cli.cli import options
from evalcam_cli.cli.terminal import screen, write_json, write_out, write_table
from evalcam_cli.text import counted, shown

if TYPE_CHECKING:
    from evalcam_cli.workflows.calibrate import CalibratedRun


def calibrate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder of `evalcam train`, or of all its rounds.")],
    operating_point: Annotated[
        str | None,
        typer.Option(
            metavar="RULE", help="Choose a threshold: youden, sensitivity=0.95, specificity=0.9 or cost=1:5 (FP:FN)."
        ),
    ] = None,
    positive: Annotated[
        str | None, typer.Option(metavar="CLASS", help="Class that the threshold calls; of two, default the last one.")
    ] = None,
    temperature: Annotated[
        bool, typer.Option("--temperature/--no-temperature", help="Fit a temperature; default yes.")
    ] = True,
    allow_few: Annotated[
        bool, typer.Option("--allow-few", help="Fit a temperature on fewer than 50 validation images.")
    ] = False,
    data: Annotated[Path | None, typer.Option("--data", help="Another copy of the run's images.")] = None,
    allow_unreadable: options.AllowUnreadable = None,
    config: options.Config = None,
    assignments: options.Assignments = None,
    seed: options.Seed = None,
    device: options.Device = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Choose a temperature and a threshold on a run's own validation images, and store them in its checkpoint."""
    settings = options.read_config(
        config,
        assignments,
        {"evaluate.positive": positive, "data.allow_unreadable": allow_unreadable, "seed": seed, "device": device},
    )
    from evalcam_cli.workflows.calibrate import CalibrateRequest, calibrate  # noqa: PLC0415

    request = CalibrateRequest(run, operating_point, temperature, data, allow_few)
    with screen(quiet=quiet) as view:
        results = calibrate(settings, request, view.progress)
    if json:
        write_json({"runs": [{"folder": str(result.folder), **result.document} for result in results]})
        return
    for result in results:
        _print(result)


def _print(result: "CalibratedRun") -> None:
    found = result.calibration
    title = f"{counted(sum(found.counts.values()), 'validation image')}"
    rows = [
        (name, f"{getattr(found.before, name):.3f}", f"{getattr(found.after, name):.3f}")
        for name in ("log_loss", "ece")
    ]
    write_table(("", "before", "after"), rows, title=title)
    write_out(f"temperature  {'none' if found.temperature is None else f'{found.temperature:.4g}'}")
    point = found.operating_point
    if point is None:
        write_out("operating point  none")
    else:
        write_out(f"operating point  {shown(point.positive)} when p >= {point.threshold:.4g} ({point.rule})")
        write_out("on the validation images that chose it, and so optimistic:")
        for name, rate in found.rates.items():
            hits = round((rate.estimate or 0.0) * (rate.n or 0))
            write_out(f"  {name}  {rate.estimate:.3f} ({rate.ci_low:.3f} to {rate.ci_high:.3f}), {hits} of {rate.n}")
    write_out(shown(result.checkpoint))
