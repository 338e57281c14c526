"""evalcam audit."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evalcam_cli.cli import options
from evalcam_cli.cli.terminal import screen, write_json, write_out, write_table
from evalcam_cli.text import counted, shown

if TYPE_CHECKING:
    from evalcam_cli.workflows.audit import Audit


def audit(
    split: Annotated[Path, typer.Argument(help="Split file made by `evalcam split`, with sets or folds.")],
    data: Annotated[Path | None, typer.Option("--data", help="The data folder here, if it moved.")] = None,
    out: options.OutFolder = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit 3 when anything is found; without it findings exit 0.")
    ] = False,
    config: options.Config = None,
    assignments: options.Assignments = None,
    seed: options.Seed = None,
    overwrite: options.Overwrite = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Find images that have a copy in another set: encoded anew, resized, turned, mirrored, slightly cropped."""
    settings = options.read_config(config, assignments, {"seed": seed})
    import evalcam_cli.workflows.audit as workflow  # noqa: PLC0415

    request = workflow.AuditRequest(
        split_file=split, out=options.default_out("audit", out), data=data, overwrite=overwrite
    )
    with screen(quiet=quiet) as view:
        found = workflow.audit(settings, request, view.progress)
    if json:
        write_json(found.document)
    else:
        print_audit(found)
        write_out(shown(request.out))
    if strict:
        found.require_clean()


def print_audit(found: "Audit") -> None:
    """How many images leak between which sets, and what to make of it."""
    document = found.document
    leaking = f"{document['leaking']:,} of {counted(document['compared'], 'image')} have a copy in another set"
    if found.pairs:
        rows = [[one["set"], one["other_set"], one["kind"], f"{one['images']:,}"] for one in document["between"]]
        write_table(["set", "copy in", "kind", "images"], rows, title=leaking, texts=(0, 1, 2))
    else:
        write_out(leaking)
    if document["two_labels"]:
        write_out(f"{len(document['two_labels']):,} of them stand under another label there")
    expected = document["threshold"]["expected_false_pairs"]
    said = "n/a (too few images)" if expected is None else f"{expected:.3f}"
    write_out(f"expected false pairs: {said}; {document['close_calls']:,} similar pairs stayed below their threshold")
    write_out("look at contact_sheet.png before you drop anything")
