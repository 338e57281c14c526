"""evalcam compare."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evalcam_cli.cli import options
from evalcam_cli.cli.terminal import screen, write_json, write_out, write_table
from evalcam_cli.text import shown

if TYPE_CHECKING:
    from evalcam_cli.workflows.compare import ComparisonResult


def compare(
    inputs: Annotated[
        list[Path],
        typer.Argument(metavar="A B [C]...", help="Saved predictions (CSV), or folders that `evaluate` wrote."),
    ],
    metric: Annotated[
        list[str] | None,
        typer.Option("--metric", metavar="NAME", help="Compare this, e.g. recall[CLASS], not the usual; repeatable."),
    ] = None,
    non_inferior: Annotated[
        list[str] | None,
        typer.Option(
            "--non-inferior",
            metavar="METRIC:MARGIN",
            help="Exit 4 unless the 95 % interval shows that no model is worse than A by the margin; repeatable.",
        ),
    ] = None,
    unpaired: Annotated[
        bool, typer.Option("--unpaired", help="The sets are independent: other images, other patients.")
    ] = False,
    all_pairs: Annotated[bool, typer.Option("--all-pairs", help="Every pair of models, not only with A.")] = False,
    mcnemar: Annotated[
        str, typer.Option(metavar="auto|exact|midp", help="McNemar's test; auto is exact below 25 discordant images.")
    ] = "auto",
    positive: Annotated[
        str | None, typer.Option(metavar="CLASS", help="Positive class of two; default the stored or the last one.")
    ] = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Output folder; default none, only print.")] = None,
    config: options.Config = None,
    assignments: options.Assignments = None,
    seed: options.Seed = None,
    overwrite: options.Overwrite = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Compare classifiers on the same images: differences with intervals, then p-values; writes only to --out."""
    settings = options.read_config(config, assignments, {"evaluate.positive": positive, "seed": seed})
    from evalcam_cli.workflows.compare import CompareRequest, compare_predictions  # noqa: PLC0415

    request = CompareRequest(
        inputs=tuple(inputs),
        out=out,
        metrics=tuple(metric or ()),
        non_inferior=tuple(non_inferior or ()),
        paired=not unpaired,
        all_pairs=all_pairs,
        mcnemar=mcnemar,
        overwrite=overwrite,
    )
    with screen(quiet=quiet) as view:
        result = compare_predictions(settings, request)
        for caution in result.comparison.cautions:
            if not quiet:
                view.note(f"note: {caution.message}")
    if json:
        write_json(result.document)
    else:
        print_comparison(result)
        if out is not None:
            write_out(shown(out))
    result.require_gates()


def print_comparison(result: "ComparisonResult") -> None:
    """The models, one table per pair, and the gates that were met."""
    from evalcam_cli.report.comparison import (  # noqa: PLC0415
        MODELS_HEADER,
        cochran_text,
        model_rows,
        pair_header,
        pair_rows,
        pair_title,
    )

    comparison = result.comparison
    write_table(MODELS_HEADER, model_rows(comparison), texts=(0, 1))
    for pair in comparison.pairs:
        write_out("")
        write_table(
            pair_header(comparison, pair), pair_rows(comparison, pair), title=pair_title(comparison, pair),
            texts=(0, len(pair_header(comparison, pair)) - 1),
        )  # fmt: skip
    if comparison.cochran is not None:
        write_out("")
        write_out(cochran_text(comparison))
    for gate in result.gates:
        if gate.passed:  # one that was not is the error that the command ends with
            write_out(gate.line)
