"""A comparison as rows of short texts, and as files: JSON, CSV, Markdown, a picture, the images in dispute."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from evalcam_cli.evaluation.comparison import Comparison, Difference, Pair
from evalcam_cli.evaluation.non_inferiority import LEVEL, NonInferiorityResult
from evalcam_cli.files import OutputFolder
from evalcam_cli.report.markup import escaped, table
from evalcam_cli.report.methods import method_text
from evalcam_cli.report.plots_comparison import plot_differences
from evalcam_cli.report.tables import number_text
from evalcam_cli.text import counted

SCHEMA_VERSION = 1
MODELS_HEADER = ("model", "predictions", "images")
_TIDY_HEADER = (
    *("a", "b", "metric", "better", "value_a", "value_b", "difference", "ci_low", "ci_high", "ci_method"),
    *("p_value", "p_holm", "test", "statistic", "only_a_right", "only_b_right", "n", "undefined_reason"),
)


def write_comparison(folder: OutputFolder, comparison: Comparison, gates: Sequence[NonInferiorityResult]) -> list[Path]:
    """Write everything that a comparison is; the same input gives the same bytes.

    Returns:
        The files, in the order written; `comparison.json` is last, so whoever finds it finds the others.
    """
    files = [folder.write_csv("comparison.csv", _TIDY_HEADER, _tidy_rows(comparison))]
    if comparison.paired:
        files.append(folder.write_csv("disagreements.csv", *disagreements(comparison)))
    return [
        *files,
        folder.write("differences.png", plot_differences(comparison)),
        folder.write("comparison.md", comparison_text(comparison, gates).encode("utf-8", "surrogateescape")),
        folder.write_json("comparison.json", comparison_document(comparison, gates)),
    ]


def comparison_document(comparison: Comparison, gates: Sequence[NonInferiorityResult] = ()) -> dict[str, Any]:
    """The content of `comparison.json` and of `--json`: JSON values only, None where undefined."""
    cochran = comparison.cochran
    return {
        "schema_version": SCHEMA_VERSION,
        "paired": comparison.paired,
        "classes": list(comparison.classes),
        "positive": comparison.positive,
        "groups": comparison.groups,
        "bootstrap": comparison.bootstrap,
        "permutations": comparison.permutations,
        "seed": comparison.seed,
        "difference": "b - a",
        "models": [
            {"name": model.name, "source": model.source, "n": len(model.predictions.targets)}
            for model in comparison.models
        ],
        "pairs": [
            {
                "a": pair.a,
                "b": pair.b,
                "disagreements": pair.disagreements,
                "identical_decisions": pair.identical_decisions,
                "identical_scores": pair.identical_scores,
                "metrics": {one.metric: _difference_document(one) for one in pair.differences},
            }
            for pair in comparison.pairs
        ],
        "cochran_q": None
        if cochran is None
        else {"statistic": cochran.statistic, "p_value": cochran.p_value, "test": cochran.test},
        "gates": [
            {
                "gate": gate.demand.text,
                "a": gate.a,
                "b": gate.b,
                "metric": gate.metric,
                "margin": gate.demand.margin,
                "level": LEVEL,
                "passed": gate.passed,
                "limit": gate.limit,
                "undefined_reason": gate.reason,
            }
            for gate in gates
        ],
        "warnings": [{"code": caution.code, "message": caution.message} for caution in comparison.cautions],
    }


def _difference_document(one: Difference) -> dict[str, Any]:
    only_a, only_b = one.discordant or (None, None)
    return {
        "a": one.a,
        "b": one.b,
        "difference": one.estimate.estimate,
        "ci_low": one.estimate.ci_low,
        "ci_high": one.estimate.ci_high,
        "ci_method": one.estimate.ci_method,
        "ci_note": one.estimate.ci_note,
        "undefined_reason": one.estimate.undefined_reason,
        "better": one.better,
        "p_value": one.p_value,
        "p_holm": one.p_holm,
        "p_undefined_reason": one.p_reason,
        "test": one.test,
        "statistic": one.statistic,
        "only_a_right": only_a,
        "only_b_right": only_b,
        "n": one.estimate.n,
    }


def _tidy_rows(comparison: Comparison) -> Iterator[tuple[object, ...]]:
    for pair in comparison.pairs:
        for one in pair.differences:
            estimate = one.estimate
            yield (
                *(pair.a, pair.b, one.metric, one.better, one.a, one.b),
                *(estimate.estimate, estimate.ci_low, estimate.ci_high, estimate.ci_method),
                *(one.p_value, one.p_holm, one.test, one.statistic, *(one.discordant or (None, None))),
                *(estimate.n, estimate.undefined_reason or estimate.ci_note or one.p_reason),
            )


def disagreements(comparison: Comparison) -> tuple[tuple[str, ...], Iterator[tuple[str, ...]]]:
    """Header and rows of the images on which the decisions of any two models differ."""
    models, classes = comparison.models, comparison.classes
    first = models[0].predictions
    decided = [model.predictions.predicted for model in models]
    groups = first.groups
    header = ("path", *(("group",) if groups else ()), "target", *(f"predicted_{model.name}" for model in models))
    rows = (
        (
            path,
            *((groups[index],) if groups else ()),
            classes[first.targets[index]],
            *(classes[predicted[index]] for predicted in decided),
        )
        for index, path in enumerate(first.paths)
        if len({int(predicted[index]) for predicted in decided}) > 1
    )
    return header, rows


# short texts, for the terminal and for the page


def model_rows(comparison: Comparison) -> list[tuple[str, str, str]]:
    """Name, file and number of images of every model."""
    return [(one.name, one.source, f"{len(one.predictions.targets):,}") for one in comparison.models]


def pair_title(comparison: Comparison, pair: Pair) -> str:
    """What the table of a pair is about."""
    if pair.identical_scores:
        what = "identical scores"
    elif pair.disagreements is None:
        what = "independent sets"
    elif pair.identical_decisions:
        what = "identical decisions, other scores"
    else:
        what = f"decisions differ on {counted(pair.disagreements, 'image')}"
    by = f", by {counted(comparison.groups, 'group')}" if comparison.groups else ""
    return f"{pair.b} against {pair.a}: {what}{by}"


def pair_header(comparison: Comparison, pair: Pair) -> tuple[str, ...]:
    """Of `pair_rows`; Holm's p has a column when there are several pairs."""
    corrected = ("Holm p",) if len(comparison.pairs) > 1 else ()
    return ("metric", f"{pair.b} − {pair.a}", "95 % interval", "p", *corrected, pair.a, pair.b, "reading")


def pair_rows(comparison: Comparison, pair: Pair) -> list[tuple[str, ...]]:
    """A row per metric, the difference first; undefined is `n/a`."""
    several = len(comparison.pairs) > 1
    return [
        (
            one.metric + (" (lower is better)" if one.better == "lower" else ""),
            signed(one.estimate.estimate),
            _interval(one),
            p_text(one.p_value),
            *((p_text(one.p_holm),) if several else ()),
            number_text(one.a),
            number_text(one.b),
            reading(one, pair),
        )
        for one in pair.differences
    ]


def reading(one: Difference, pair: Pair) -> str:
    """The result in words: which is better, or that there is no evidence; why a number is not there."""
    if one.estimate.estimate is None:
        return one.estimate.undefined_reason or ""
    if one.p_value is None:
        return f"no test: {one.p_reason}"
    if pair.identical_scores:
        return "identical scores"
    if one.favours:
        return f"{pair.b if one.favours > 0 else pair.a} better"
    if one.better is None and (one.p_holm or 0.0) < 0.05:
        return "different"
    return "no evidence of a difference" + (f"; no interval: {one.estimate.ci_note}" if one.estimate.ci_note else "")


def signed(value: float | None) -> str:
    """`+0.034`, `−0.012`, `0.000`, or `n/a`."""
    if value is None:
        return "n/a"
    text = f"{value:+.3f}"
    return "0.000" if float(text) == 0 else text.replace("-", "−")


def p_text(p: float | None) -> str:
    """Three decimals, more where fewer would decide otherwise; `<0.001`; `n/a`."""
    if p is None:
        return "n/a"
    if p < 0.001:
        return "<0.001"
    text = f"{p:.3f}"
    return f"{p:.4f}" if text == "0.050" else text


def cochran_text(comparison: Comparison) -> str:
    """The result of Cochran's test in one line."""
    test = comparison.cochran
    if test is None:
        return ""
    names = "".join(model.name for model in comparison.models)
    if test.statistic is None:
        return f"accuracy of {', '.join(names)}: no image tells them apart (Cochran's Q, p = 1)"
    by = ", models shuffled within groups" if test.test != "cochran_q" else ""
    return f"accuracy of all models alike: Cochran's Q = {test.statistic:.3f}, p {_equals(p_text(test.p_value))}{by}"


def _equals(text: str) -> str:
    return text if text.startswith("<") else f"= {text}"


def _interval(one: Difference) -> str:
    low, high = one.estimate.ci_low, one.estimate.ci_high
    return "" if low is None or high is None else f"{signed(low)} to {signed(high)}"


# the page


def comparison_text(comparison: Comparison, gates: Sequence[NonInferiorityResult]) -> str:
    """The comparison in Markdown: models, a table per pair, gates, warnings, tests, files."""
    same = "the same images" if comparison.paired else "independent sets of images"
    parts = [
        ["# Comparison", "", f"{counted(len(comparison.models), 'model')} on {same}.", "",
         *table(MODELS_HEADER, model_rows(comparison))],
        *([f"## {escaped(pair_title(comparison, pair))}", "", *table(pair_header(comparison, pair),
           pair_rows(comparison, pair))] for pair in comparison.pairs),
        [escaped(cochran_text(comparison))] if comparison.cochran else [],
        ["![Differences](differences.png)"],
        ["## Gates", "", *(f"- {escaped(gate.line)}" for gate in gates)] if gates else [],
        ["## Warnings", "", *(f"- `{one.code}`: {escaped(one.message)}" for one in comparison.cautions)]
        if comparison.cautions
        else [],
        ["## How to read this", "", *_explanations(comparison)],
        ["## Files", "", *_files(comparison)],
    ]  # fmt: skip
    return "\n\n".join("\n".join(part) for part in parts if part) + "\n"


def _explanations(comparison: Comparison) -> Iterator[str]:
    yield (
        "A difference is the second model minus the first, with its 95 % interval: what the images are compatible "
        "with. p tests that there is no difference. A large p is no evidence of a difference, which is not evidence of "
        "equality; `--non-inferior METRIC:MARGIN` shows that a model is not worse."
    )
    yield ""
    if len(comparison.pairs) > 1:
        yield (
            "Holm p holds for all pairs of a metric together; `better` goes by it. Nothing corrects for the number of "
            "metrics: choose the one that matters before looking."
        )
    else:
        yield "Nothing corrects for the number of metrics: choose the one that matters before looking."
    yield ""
    used = dict.fromkeys((one.test, one.estimate.ci_method) for pair in comparison.pairs for one in pair.differences)
    names = dict.fromkeys(name for pair in used for name in pair if name not in (None, "none"))
    for name in names:
        yield f"- `{name}`: {escaped(method_text(str(name)))}"
    yield (
        f"- Bootstrap: {comparison.bootstrap:,} resamples; permutations: {comparison.permutations:,} or all there are; "
        f"seed {comparison.seed}."
    )


def _files(comparison: Comparison) -> Iterator[str]:
    yield "- `comparison.json`: everything in full precision, with methods and reasons"
    yield "- `comparison.csv`: one row per pair and metric"
    yield "- `differences.png`: differences with intervals"
    if comparison.paired:
        yield "- `disagreements.csv`: images on which the decisions differ"
