"""Every degenerate input gets the right number, null with a reason, or a refusal that says what is wrong."""

import re

import pytest

from tests.conftest import REPOSITORY
from tests.evaluation.degenerate_cases import CASES, Case
from tests.evaluation.degenerate_numbers import NUMBERS


@pytest.mark.parametrize("case", [pytest.param(case, id=f"{case.name}-{case.asked}") for case in (*CASES, *NUMBERS)])
def test_evalcam_is_right_or_says_why_not(case: Case) -> None:
    assert re.fullmatch(case.expected, case.ours(), re.DOTALL)


def test_there_are_at_least_forty() -> None:
    assert len({(case.name, case.asked) for case in (*CASES, *NUMBERS)}) >= 40


def test_the_page_says_what_evalcam_says() -> None:
    page = (REPOSITORY / "docs" / "degenerate.md").read_text(encoding="utf-8")

    for case in (*CASES, *NUMBERS):
        assert f"| {case.name} | {case.asked} | {case.ours()} |" in page, "run `python -m tests.benchmarks.degenerate`"
