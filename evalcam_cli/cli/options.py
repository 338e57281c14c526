"""Options that mean the same in every command."""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evalcam_cli.errors import UsageError

if TYPE_CHECKING:
    from evalcam_cli.config import RunConfig

Config = Annotated[Path | None, typer.Option("-c", "--config", help="YAML file with further settings.")]
Assignments = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Set any config key, e.g. train.lr=1e-3; repeatable."),
]
Seed = Annotated[int | None, typer.Option(help="Seed of every random choice; default 0.")]
Device = Annotated[str | None, typer.Option(metavar="auto|cpu|cuda", help="Where the model runs; default auto.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress and no notes, only results and errors.")]
OutFolder = Annotated[
    Path | None, typer.Option("-o", "--out", help="Output folder, used as typed; default runs/COMMAND-TIME.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what evalcam wrote to --out before.")]
Resume = Annotated[bool, typer.Option("--resume", help="Continue an interrupted run in --out.")]
Ckpt = Annotated[Path | None, typer.Option("--ckpt", help="Checkpoint file, or run folder (its best checkpoint).")]
Arch = Annotated[str | None, typer.Option("--arch", help="Architecture; needed for weights that are not evalcam's.")]
Classes = Annotated[
    Path | None, typer.Option("--classes", help="Text file with the class names of foreign weights, in output order.")
]
SplitFile = Annotated[Path | None, typer.Option("--split", help="Split file made by `evalcam split`.")]
Subset = Annotated[
    str | None, typer.Option("--subset", metavar="train|val|test", help="Which set of the split; default test.")
]
DropLeaks = Annotated[
    bool, typer.Option("--drop-leaks", help="Leave out val and test images that are copies of training images.")
]
Resplit = Annotated[
    bool, typer.Option("--resplit", help="Ignore the division that DATA comes with and make a new one.")
]
AllowLeaks = Annotated[bool, typer.Option("--allow-leaks", help="Go on in spite of leaks.")]
AllowUnreadable = Annotated[
    int | None, typer.Option(metavar="N", help="Go on without up to N unreadable images; default 0.")
]


def leak_policy(drop: bool, resplit: bool, allow: bool) -> str | None:
    """The value of `split.leaks` for the three flags.

    Raises:
        UsageError: More than one was given.
    """
    given = [name for name, flag in (("drop", drop), ("resplit", resplit), ("allow", allow)) if flag]
    if len(given) > 1:
        raise UsageError("choose one of --drop-leaks, --resplit and --allow-leaks")
    return given[0] if given else None


def refuse_both(resume: bool, overwrite: bool) -> None:
    """Refuse to continue a run and to replace it at once."""
    if resume and overwrite:
        raise UsageError("choose one of --resume and --overwrite")


def read_config(path: Path | None, assignments: list[str] | None, options: Mapping[str, object]) -> "RunConfig":
    """The config from file, `--set` and named options."""
    from evalcam_cli.config_sources import load_config  # noqa: PLC0415 (pydantic is not needed for --help)

    return load_config(path, assignments=assignments or (), options=options)


def data_path(argument: Path | None, config: "RunConfig") -> Path | None:
    """DATA: the argument, else `data.path`."""
    if argument is not None:
        return argument
    return None if config.data.path is None else Path(config.data.path)


def default_out(command: str, out: Path | None) -> Path:
    """`--out`, else a new folder named after the command and the time."""
    return out if out is not None else Path("runs") / f"{command}-{datetime.now().astimezone():%Y%m%d-%H%M%S}"
