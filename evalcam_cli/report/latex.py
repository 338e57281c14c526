r"""Tables for a paper: `report.tex`, with booktabs.

Row values are `0.824 (0.736--0.887)`, undefined is `n/a`. Whole `tabular` environments are written, since LaTeX does
not take a rule after an `\input` inside of one.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from evalcam_cli.evaluation.estimates import Estimate
from evalcam_cli.evaluation.metrics import Metrics
from evalcam_cli.report.tables import metric_text
from evalcam_cli.text import shown

CLASS_COLUMNS = ("precision", "recall", "specificity", "f1", "roc_auc")
_SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "_": r"\_",
    "%": r"\%",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"{\symbol{34}}",  # active in some languages of babel
    "`": r"{\symbol{96}}",  # `?` and `!` before it would make one sign of the two
    "[": "{[}",  # after the end of a row it would begin an argument
    "]": "{]}",
    "*": "{*}",
}


def latex_escaped(text: object) -> str:
    """The text as LaTeX that prints it literally; letters of all scripts stay (they need XeLaTeX or LuaLaTeX)."""
    escaped = "".join(_SPECIAL.get(character, character) for character in shown(text))
    return re.sub(r"([-',])(?=\1)", r"\1{}", escaped)  # no dash of two hyphens, no quote of two apostrophes


def latex_text(metrics: Metrics) -> str:
    """The content of `report.tex`: all classes together, then each class against the rest.

    Reasons for `n/a` are comments after the table.
    """
    overall = [
        (latex_escaped(metric_text(name, estimate, len(metrics.classes))), latex_number(estimate))
        for name, estimate in metrics.overall.items()
    ]
    classes = [
        (latex_escaped(label), str(entry.support), *(latex_number(entry.estimates[name]) for name in CLASS_COLUMNS))
        for label, entry in metrics.per_class.items()
    ]
    lines = [
        r"% Needs \usepackage{booktabs}; names beyond Latin letters need XeLaTeX or LuaLaTeX.",
        f"% {metrics.n} images, 95 % intervals.",
        *_tabular("lr", ("metric", "estimate (95 % interval)"), overall),
        *_reasons(metrics.overall),
        "",
        *_tabular("lr" + "r" * len(CLASS_COLUMNS), ("class", "images", *CLASS_COLUMNS), classes),
    ]
    for label, entry in metrics.per_class.items():
        lines += _reasons({f"{name}[{label}]": entry.estimates[name] for name in CLASS_COLUMNS})
    return "\n".join(lines) + "\n"


def latex_comparison_rows(models: Iterable[tuple[str, Metrics]], names: Sequence[str]) -> list[str]:
    r"""One row per model, ending in `\\`: its name, then the metrics named, each with its interval.

    A metric that a model does not have is `n/a`.
    """
    missing = Estimate(None)
    return [
        _row((latex_escaped(model), *(latex_number(metrics.overall.get(name, missing)) for name in names)))
        for model, metrics in models
    ]


def latex_comparison(models: Sequence[tuple[str, Metrics]], names: Sequence[str]) -> str:
    """The rows of `latex_comparison_rows` as a table, under their names."""
    rules = _framed("l" + "r" * len(names), ("model", *names), latex_comparison_rows(models, names))
    return "\n".join(rules) + "\n"


def latex_number(estimate: Estimate) -> str:
    """`0.824 (0.736--0.887)`, `0.824` without an interval, `n/a` when undefined; a minus sign is one."""
    if estimate.estimate is None:
        return "n/a"
    if estimate.ci_low is None or estimate.ci_high is None:
        return _fixed(estimate.estimate)
    return f"{_fixed(estimate.estimate)} ({_fixed(estimate.ci_low)}--{_fixed(estimate.ci_high)})"


def _fixed(value: float) -> str:
    text = f"{value:.3f}"
    return f"${text}$" if text.startswith("-") else text


def _tabular(columns: str, header: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    return _framed(columns, header, map(_row, rows))


def _framed(columns: str, header: Sequence[str], rows: Iterable[str]) -> Iterator[str]:
    yield rf"\begin{{tabular}}{{{columns}}}"
    yield r"\toprule"
    yield _row([latex_escaped(name) for name in header])
    yield r"\midrule"
    yield from rows
    yield r"\bottomrule"
    yield r"\end{tabular}"


def _row(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"


def _reasons(estimates: Mapping[str, Estimate]) -> list[str]:
    return [
        f"% {shown(name)}: n/a, {shown(estimate.undefined_reason)}"
        for name, estimate in estimates.items()
        if estimate.estimate is None
    ]
