"""The analyses of an evaluation as files, as parts of `metrics.json` and as sections of the report."""

from collections.abc import Iterator
from pathlib import Path

from evalcam_cli.evaluation import conformal, decision, folds, selective, slices
from evalcam_cli.evaluation.analyses import Analyses, WithoutLeaks
from evalcam_cli.evaluation.conformal import ConformalResult
from evalcam_cli.evaluation.decision import DecisionCurve, PredictiveValues
from evalcam_cli.evaluation.folds import FoldTable
from evalcam_cli.evaluation.metrics import MAIN_METRICS
from evalcam_cli.evaluation.predictions import Predictions
from evalcam_cli.evaluation.selective import RiskCoverage
from evalcam_cli.evaluation.slices import ImageSlice
from evalcam_cli.files import OutputFolder
from evalcam_cli.report.markup import escaped, table
from evalcam_cli.report.tables import estimate_text, interval_text, named_rows, number_text
from evalcam_cli.text import counted

LABEL_ERRORS_HEADER = ("path", "target", "suggested", "self_confidence", "margin")
_SUSPECTS = 10
_ROUNDS = 10  # more are too many columns for a page
_SLICED = ("accuracy", "balanced_accuracy", "roc_auc", "roc_auc_ovr_macro")


def write_analyses(folder: OutputFolder, predictions: Predictions, analyses: Analyses) -> list[Path]:
    """The tables of the analyses as CSV."""
    files = [folder.write_csv("label_errors.csv", LABEL_ERRORS_HEADER, _suspect_rows(predictions, analyses))]
    if analyses.folds is not None:
        files.append(folder.write_csv("folds.csv", folds.FOLD_HEADER, analyses.folds.fold_rows()))
        files.append(folder.write_csv("folds_summary.csv", folds.HEADER, analyses.folds.rows()))
    if analyses.slices:
        rows = (row for one in analyses.slices for row in one.rows())
        files.append(folder.write_csv("slices.csv", slices.HEADER, rows))
    if analyses.decision is not None:
        files.append(folder.write_csv("decision_curve.csv", decision.HEADER, analyses.decision.rows()))
    if analyses.selective is not None:
        files.append(folder.write_csv("risk_coverage.csv", selective.HEADER, analyses.selective.rows()))
    if analyses.conformal is not None:
        files.append(folder.write_csv("conformal.csv", conformal.HEADER, analyses.conformal.rows()))
        files.append(folder.write_csv("conformal_sizes.csv", conformal.SIZE_HEADER, analyses.conformal.size_rows()))
    return files


def _suspect_rows(predictions: Predictions, analyses: Analyses) -> Iterator[tuple[object, ...]]:
    for one in analyses.label_errors:
        names = predictions.classes[one.given], predictions.classes[one.suggested]
        yield (predictions.paths[one.index], *names, one.self_confidence, one.margin)


def analyses_document(analyses: Analyses) -> dict[str, object]:
    """What the analyses add to `metrics.json`; absent where they do not apply."""
    parts: dict[str, object | None] = {
        "folds": analyses.folds and analyses.folds.document(),
        "slices": [one.document() for one in analyses.slices] or None,
        "decision_curve": analyses.decision and analyses.decision.document(),
        "predictive_values": analyses.predictive_values and analyses.predictive_values.document(),
        "risk_coverage": analyses.selective and analyses.selective.document(),
        "conformal": analyses.conformal and analyses.conformal.document(),
        "without_leaks": analyses.without_leaks and _without_document(analyses.without_leaks),
        "likely_label_errors": len(analyses.label_errors),
    }
    return {name: part for name, part in parts.items() if part is not None}


def _without_document(without: WithoutLeaks) -> dict[str, object]:
    metrics = without.metrics
    numbers = {} if metrics is None else metrics.overall
    return {
        "leaked": without.leaked,
        "n": 0 if metrics is None else metrics.n,
        "metrics": {name: one.document() for name, one in numbers.items()},
    }


def analysis_sections(predictions: Predictions, analyses: Analyses) -> Iterator[list[str]]:
    """Sections of `report.md`, each for what was asked for or applies."""
    if analyses.without_leaks is not None:
        yield ["## Without leaked images", "", *_without_section(analyses.without_leaks)]
    if analyses.folds is not None:
        yield ["## Folds", "", *_fold_section(analyses.folds)]
    if analyses.slices:
        yield ["## Slices", "", *_slice_section(analyses.slices)]
    if analyses.decision is not None:
        yield ["## Decisions", "", *_decision_section(analyses.decision)]
    if analyses.predictive_values is not None:
        yield ["## Where the class shares differ", "", *_prevalence_section(analyses.predictive_values)]
    if analyses.conformal is not None:
        yield ["## Prediction sets", "", *_conformal_section(analyses.conformal)]
    if analyses.selective is not None:
        yield ["## Leaving doubtful images to a person", "", *_selective_section(analyses.selective)]
    if analyses.label_errors:
        yield ["## Labels to look at", "", *_label_section(predictions, analyses)]


def _without_section(without: WithoutLeaks) -> Iterator[str]:
    yield (
        f"{counted(without.leaked, 'image')} of this set {'was' if without.leaked == 1 else 'were'} trained on, or "
        "copied in another set."
    )
    yield ""
    if without.metrics is None:
        yield "No image is left without them."
        return
    yield f"On the {counted(without.metrics.n, 'image')} that are left:"
    yield ""
    yield from table(("metric", "estimate", "95 % interval"), named_rows(without.metrics.overall, MAIN_METRICS))


def _fold_section(found: FoldTable) -> Iterator[str]:
    shown = found.folds if len(found.folds) <= _ROUNDS else ()
    header = ("metric", *(f"fold {number}" for number in shown), "mean", "SD", "95 % interval")
    rows = []
    if found.repeats > 1:
        yield f"{found.title}: fold I is the round with the number I, repeat * folds + fold."
        yield ""
    for name in MAIN_METRICS:
        one = found.summaries.get(name)
        if one is not None:
            numbers = map(number_text, (*one.values[: len(shown)], one.mean, one.sd))
            rows.append((name, *numbers, interval_text(one.estimate())))
    yield from table(header, rows)
    yield ""
    if not shown:
        yield "The values of each round are in `folds.csv`."
        yield ""
    yield "![Folds](folds.png)"
    yield ""
    yield (
        "The intervals are Nadeau and Bengio's: folds share training images, so SD / √rounds would be far too small. "
        "They speak of the average over training sets, not of one shipped model. In the first table ranks and F1 are "
        "means over the folds; those of all out-of-fold predictions together are called `…_pooled_oof`, because scores "
        "of different models are not on one scale. All other numbers there are of all out-of-fold predictions together."
    )


def repeats_sentence(repeats: int) -> str:
    """What several predictions of each image mean for the intervals."""
    return (
        f"each image has {repeats} predictions, by models of {repeats} divisions, which are no independent "
        "observations. Intervals are by image, or by group where there are groups, drawn and counted as wholes."
    )


def _slice_section(found: tuple[ImageSlice, ...]) -> Iterator[str]:
    names = [name for name in _SLICED if any(one.metrics and name in one.metrics for one in found)]
    rows = []
    for one in found:
        cells = [one.suppressed_reason or ""] + [""] * (len(names) - 1)
        if one.metrics is not None:
            pairs = [(one.metrics[name], name) for name in names]
            cells = [f"{estimate_text(number)} ({interval_text(number)})".replace(" ()", "") for number, _ in pairs]
        rows.append(
            (f"{one.column} = {one.value}", f"{one.n:,}", *cells, number_text(one.p_holm) if one.metrics else "")
        )
    yield from table(("slice", "images", *(names or [""]), "p, Holm"), rows)
    yield ""
    yield "p: of the hypothesis that the accuracy of the slice is that of all other images, adjusted for the slices."


def _prevalence_section(found: PredictiveValues) -> Iterator[str]:
    yield f"Where {found.prevalence:.1%} of the images are {escaped(found.positive)}:"
    yield ""
    named = (("positive predictive value", found.ppv), ("negative predictive value", found.npv))
    rows = [(name, estimate_text(one), interval_text(one)) for name, one in named]
    yield from table(("", "estimate", "95 % interval"), rows)


def _conformal_section(found: ConformalResult) -> Iterator[str]:
    coverage = found.coverage
    yield (
        f"Sets meant to hold the true class in {1 - found.rule.alpha:.0%} of images hold it in "
        f"{estimate_text(coverage)} ({interval_text(coverage)}), with {estimate_text(found.mean_size)} classes on "
        f"average; the rule comes from {counted(found.rule.n, 'validation image')}."
    )
    yield ""
    yield from table(("classes in the set", "images"), [(str(k), f"{n:,}") for k, n in found.sizes.items()])
    for caution in found.cautions:
        yield ""
        yield f"- `{caution.code}`: {escaped(caution.message)}"


def _selective_section(found: RiskCoverage) -> Iterator[str]:
    rows = [(f"{risk:.0%}", f"{coverage:.1%}") for risk, coverage in found.coverage_at_risk.items()]
    yield from table(("share wrong at most", "share of images decided, the most confident first"), rows)
    yield ""
    yield (
        f"AURC {estimate_text(found.aurc)} (best possible with these errors {found.aurc_optimal:.3f}), AUGRC "
        f"{estimate_text(found.augrc)}. These shares are read off this set; to use a limit, choose it on other images."
    )


def _decision_section(found: DecisionCurve) -> Iterator[str]:
    where = f"at the thresholds {runs}" if (runs := _runs(found)) else "at no threshold"
    yield (
        f"Acting on p of {escaped(found.positive)} is surely better than acting on all and on none {where}; "
        "all are in `decision_curve.csv`."
    )
    for caution in found.cautions:
        yield ""
        yield f"- `{caution.code}`: {escaped(caution.message)}"


def _runs(found: DecisionCurve) -> str:
    """The useful thresholds as `0.05–0.12, 0.3`."""
    useful = set(found.useful)
    runs: list[list[float]] = []
    joined = False
    for point in found.points:
        if point.threshold in useful:
            runs = [*runs[:-1], [*runs[-1], point.threshold]] if joined else [*runs, [point.threshold]]
        joined = point.threshold in useful
    return ", ".join(f"{run[0]:g}" if len(run) == 1 else f"{run[0]:g}–{run[-1]:g}" for run in runs)


def _label_section(predictions: Predictions, analyses: Analyses) -> Iterator[str]:
    total = len(analyses.label_errors)
    yield (
        f"In {counted(total, 'image')} the model is confident of another class than the label's (confident learning). "
        "Look at them; do not remove them because of this list: that would make the numbers better than they are."
    )
    yield ""
    rows = []
    for one in analyses.label_errors[:_SUSPECTS]:
        names = predictions.classes[one.given], predictions.classes[one.suggested]
        rows.append((predictions.paths[one.index], *names, f"{one.self_confidence:.3f}"))
    yield from table(("image", "label", "suggested", "p of the label"), rows)
    if total > _SUSPECTS:
        yield ""
        yield f"The first {_SUSPECTS} of {total:,}; all are in `label_errors.csv`."
