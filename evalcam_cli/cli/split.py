"""evalcam split."""

from pathlib import Path
from typing import Annotated

import typer

from evalcam_cli.cli import options
from evalcam_cli.cli.terminal import screen, write_json, write_out, write_table
from evalcam_cli.errors import DataError, UsageError
from evalcam_cli.text import counted, listed, shown


def split(
    data: Annotated[Path | None, typer.Argument(help="Class folders, a divided folder, or a CSV manifest.")] = None,
    out: Annotated[Path, typer.Option("-o", "--out", help="The split file to write.")] = Path("split.csv"),
    ratios: Annotated[str | None, typer.Option(metavar="TRAIN,VAL,TEST", help="Shares; default 0.7,0.15,0.15.")] = None,
    folds: Annotated[int | None, typer.Option(metavar="K", help="Make K cross-validation folds instead.")] = None,
    repeats: Annotated[
        int | None, typer.Option(metavar="R", help="Divide into folds R times, each time anew; default 1.")
    ] = None,
    group_by: Annotated[
        str | None,
        typer.Option(metavar="COLUMN|REGEX", help="What images of one patient share; they never cross sets."),
    ] = None,
    ungrouped: Annotated[str | None, typer.Option(metavar="refuse|single", help="Images without a group.")] = None,
    check: Annotated[
        Path | None, typer.Option(metavar="SPLIT", help="Verify a split file against the disk instead.")
    ] = None,
    drop_leaks: options.DropLeaks = False,
    resplit: options.Resplit = False,
    allow_leaks: options.AllowLeaks = False,
    allow_unreadable: options.AllowUnreadable = None,
    config: options.Config = None,
    assignments: options.Assignments = None,
    seed: options.Seed = None,
    overwrite: options.Overwrite = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Divide images into train, val and test so that no image stands on two sides."""
    settings = options.read_config(
        config,
        assignments,
        {
            "split.ratios": _numbers(ratios),
            "split.folds": folds,
            "split.repeats": repeats,
            "split.group_by": group_by,
            "split.ungrouped": ungrouped,
            "split.leaks": options.leak_policy(drop_leaks, resplit, allow_leaks),
            "data.allow_unreadable": allow_unreadable,
            "seed": seed,
        },
    )
    if repeats is not None and settings.split.folds is None:
        raise UsageError("--repeats is for cross-validation folds; add --folds K")
    import evalcam_cli.workflows.split as workflow  # noqa: PLC0415

    place = options.data_path(data, settings)
    with screen(quiet=quiet) as view:
        if check is not None:
            result = workflow.check_split(check, data=place, config=settings, progress=view.progress)
            _report_check(result, check, json=json)
            return
        if place is None:
            raise UsageError("nothing to split: name DATA, or data.path in the config")
        workflow.refuse_bad_out(out, overwrite=overwrite)
        prepared = workflow.make_split(
            place, settings, report_beside=out, explicit_ratios=ratios is not None, progress=view.progress
        )
        workflow.write_split_file(prepared, out, overwrite=overwrite)
    counts = prepared.split.counts()
    if json:
        write_json(
            {"split": str(out), "root": str(prepared.split.root), "classes": prepared.split.classes, "counts": counts}
        )
        return
    _print_counts(counts, of_repeats=prepared.split.repeats > 1)
    write_out(shown(out))


def _numbers(text: str | None) -> list[float] | None:
    if text is None:
        return None
    try:
        return [float(part) for part in text.replace(";", ",").split(",")]
    except ValueError as error:
        raise UsageError(f"--ratios takes three numbers such as 0.7,0.15,0.15, got {shown(text)!r}") from error


def _print_counts(counts: dict[str, dict[str, int]], *, of_repeats: bool) -> None:
    """A column per set or fold; a row for each where several divisions make many."""
    parts = list(counts)
    classes = list(counts[parts[0]]) if parts else []
    if of_repeats:
        lines = [[part, *[f"{counts[part][label]:,}" for label in classes]] for part in parts]
        sums = [f"{sum(counts[part].values()):,}" for part in parts]
        write_table(["", *classes, "all"], [[*line, total] for line, total in zip(lines, sums, strict=True)])
        return
    rows: list[list[object]] = [[label, *[f"{counts[part][label]:,}" for part in parts]] for label in classes]
    rows.append(["all", *[f"{sum(counts[part].values()):,}" for part in parts]])
    write_table(["class", *parts], rows)


def _report_check(result: object, path: Path, *, json: bool) -> None:
    problems = {
        name.replace("_", " "): list(getattr(result, name))
        for name in ("missing", "changed", "added", "crossing_groups", "crossing_copies")
    }
    if json:
        write_json({"split": str(path), "ok": not any(problems.values()), **problems})
    else:
        write_table(
            ["problem", "count", "first"],
            [[name, len(found), listed(found)] for name, found in problems.items()],
            texts=(0, 2),
        )
    if any(problems.values()):
        summary = ", ".join(f"{counted(len(found), 'entry')} {name}" for name, found in problems.items() if found)
        raise DataError(f"{shown(path.absolute())} does not match the disk: {summary}")
