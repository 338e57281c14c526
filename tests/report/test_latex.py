"""LaTeX tables: the numbers, the escapes, and that every table is well formed."""

import re
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalcam_cli.evaluation.estimates import Estimate
from evalcam_cli.evaluation.metrics import Metrics, compute_metrics
from evalcam_cli.evaluation.predictions import Predictions
from evalcam_cli.report.latex import (
    latex_comparison,
    latex_comparison_rows,
    latex_escaped,
    latex_number,
    latex_text,
)

_TOKEN = re.compile(r"\\(?:[A-Za-z]+|.)|%[^\n]*\n|.", re.DOTALL)
KNOWN = {
    *("begin", "end", "toprule", "midrule", "bottomrule", "symbol", "textbackslash", "textasciitilde"),
    *("textasciicircum", "textless", "textgreater", "textbar", *"\\{}$&#_%"),
}


def tokens(source: str) -> Iterator[str]:
    """Control sequences and characters as TeX reads them, without comments."""
    for match in _TOKEN.finditer(source):
        if not match[0].startswith("%"):
            yield match[0]


def refuse_malformed(source: str) -> list[list[int]]:
    """The number of columns of every row of every table; fails where TeX would."""
    depth, columns = 0, 1
    tables: list[list[int]] = []
    for token in tokens(source):
        if token.startswith("\\"):
            assert token[1:] in KNOWN, token
        assert token not in ("#", "^", "~", '"', "_"), token
        depth += {"{": 1, "}": -1}.get(token, 0)
        assert depth >= 0
        columns += token == "&"
        if token == "\\begin":
            tables.append([])
        if token == "\\\\":
            assert depth == 0
            tables[-1].append(columns)
            columns = 1
    assert depth == 0
    assert source.count("\\begin{tabular}") == source.count("\\end{tabular}") == len(tables)
    return tables


def measured(classes: tuple[str, ...] = ("cat", "dog", "cow")) -> Metrics:
    logits = np.eye(3, dtype=np.float32)[[0, 0, 0, 0, 1, 1, 1, 0]]
    targets = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    return compute_metrics(Predictions(classes, logits, targets, ("",) * 8), bootstrap=100)


@pytest.mark.parametrize(
    ("estimate", "text"),
    [
        (Estimate(0.8244, 0.7355, 0.8874), "0.824 (0.736--0.887)"),
        (Estimate(0.5), "0.500"),
        (Estimate(-0.25, -0.5, 0.1), "$-0.250$ ($-0.500$--0.100)"),
        (Estimate(None, undefined_reason="no images"), "n/a"),
        (Estimate(1.0, 0.7, 1.0), "1.000 (0.700--1.000)"),
    ],
)
def test_numbers_have_three_decimals_and_their_interval(estimate: Estimate, text: str) -> None:
    assert latex_number(estimate) == text


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a_b & 5% of $10 #1 {x}", r"a\_b \& 5\% of \$10 \#1 \{x\}"),
        ("C:\\new~^", r"C:\textbackslash{}new\textasciitilde{}\textasciicircum{}"),
        ("<p|q>", r"\textless{}p\textbar{}q\textgreater{}"),
        ("[1]*", "{[}1{]}{*}"),
        ("a--b---c", "a-{}-b-{}-{}-c"),
        ("it''s ?`", r"it'{}'s ?{\symbol{96}}"),
        ('"q"', r"{\symbol{34}}q{\symbol{34}}"),
        ("뇌종양 é Ω 🧠", "뇌종양 é Ω 🧠"),
        ("a\nb\x1b", r"a\textbackslash{}nb\textbackslash{}x1b"),
    ],
)
def test_every_special_character_is_printed_as_itself(name: str, text: str) -> None:
    assert latex_escaped(name) == text


def test_the_tables_hold_every_metric_and_every_class() -> None:
    metrics = measured()

    source = latex_text(metrics)

    overall, classes = refuse_malformed(source)
    assert overall == [2] * (1 + len(metrics.overall))
    assert classes == [7] * 4
    accuracy = metrics.overall["accuracy"]
    assert f"accuracy & 0.875 ({accuracy.ci_low:.3f}--{accuracy.ci_high:.3f}) \\\\" in source
    assert "balanced\\_accuracy (2 of 3 classes) & " in source
    assert source.count("\\toprule") == source.count("\\midrule") == source.count("\\bottomrule") == 2


def test_undefined_is_n_a_and_the_reason_is_a_comment() -> None:
    source = latex_text(measured(("cat", "dog", "a\nb & c")))

    assert "\na\\textbackslash{}nb \\& c & 0 & n/a & n/a & " in source
    assert "\n% recall[a\\nb & c]: n/a, no images of this class\n" in source


def test_models_are_rows_and_what_a_model_lacks_is_n_a() -> None:
    metrics = measured()
    other = replace(metrics, overall={"accuracy": Estimate(0.5, 0.4, 0.6)})

    rows = latex_comparison_rows([("ResNet_18", metrics), ("[34]", other)], ["accuracy", "mcc"])

    assert rows[0].startswith("ResNet\\_18 & 0.875 (")
    assert rows[1] == r"{[}34{]} & 0.500 (0.400--0.600) & n/a \\"
    assert refuse_malformed(latex_comparison([("a", metrics), ("b", other)], ["accuracy", "mcc"])) == [[3, 3, 3]]


@settings(deadline=None, max_examples=50)
@given(st.text(st.characters(codec=None), max_size=30))
def test_no_name_breaks_the_table(name: str) -> None:
    metrics = measured(("cat", "dog", "x" + name))

    assert refuse_malformed(latex_text(metrics))[1] == [7] * 4
