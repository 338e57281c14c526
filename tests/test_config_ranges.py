"""Where a search may look: what a range of `search.space` takes, and what is refused with which words."""

import pytest

from evalcam_cli.config import Range
from evalcam_cli.config_sources import load_config
from evalcam_cli.errors import UsageError


def span(text: str) -> Range:
    """The range that a config gives for one key."""
    return load_config(assignments=[f"search.space={{train.lr: {text}}}"]).search.space["train.lr"]


@pytest.mark.parametrize(
    "text",
    [
        "{low: 1, high: 2}",
        "{low: -1, high: 0}",
        "{low: -1e15, high: 1e15}",
        "{low: -1000000000000000, high: 1000000000000000}",
        "{low: 1e-9, high: 1, log: true}",
        "{low: 2, high: 3, step: 1}",  # a single step
        "{low: -3, high: -2, step: 1}",
        "{low: 0, high: 1, step: 1e-9}",
        "{low: 1, high: 1000000001, step: 1}",  # a billion steps
        "{low: 0, high: 1, log: false}",
    ],
)
def test_two_numbers_and_what_lies_between_them_are_a_range(text: str) -> None:
    assert span(text).choices is None


@pytest.mark.parametrize("text", ["[1, 2]", "{choices: [1, 2]}"])
def test_a_list_is_of_choices(text: str) -> None:
    assert span(text) == Range(choices=(1, 2))


@pytest.mark.parametrize("text", ["[1, true]", "[null, layer1]", "[[1, 2], [2, 1]]", "['1', 1]"])
def test_choices_differ_by_their_type_too(text: str) -> None:
    assert len(span(text).choices or ()) == 2


def test_there_are_at_most_a_hundred_choices() -> None:
    assert len(span(str(list(range(100)))).choices or ()) == 100
    with pytest.raises(UsageError, match="must have at most 100 values"):
        span(str(list(range(101))))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{choices: [1, 2], low: 0}", "give choices, or low and high, not both"),
        ("{choices: [1, 2], high: 0}", "give choices, or low and high, not both"),
        ("{choices: [1, 2], log: true}", "give choices, or low and high, not both"),
        ("{choices: [1, 2], step: 1}", "give choices, or low and high, not both"),
        ("[]", "at least two"),
        ("[1]", "at least two"),
        ("[1, 2, 1]", "all different"),
        ("{}", "give low and high, or choices"),
        ("{low: 1}", "give low and high, or choices"),
        ("{high: 1}", "give low and high, or choices"),
        ("{low: 2, high: 1}", r"low \(2\) must be below high \(1\)"),
        ("{low: 1, high: 1}", r"low \(1\) must be below high \(1\)"),
        ("{low: 0, high: 1, log: true}", "a logarithmic scale needs low above 0"),
        ("{low: -1, high: 1, log: true}", "a logarithmic scale needs low above 0"),
        ("{low: 1, high: 2, log: true, step: 1}", "a logarithmic scale takes no step"),
        ("{low: 0, high: 1, step: 0}", r"step \(0\) must be above 0 and at most high - low"),
        ("{low: 0, high: 1, step: -1}", r"step \(-1\) must be above 0 and at most high - low"),
        ("{low: 0, high: 1, step: 1.5}", r"step \(1.5\) must be above 0 and at most high - low"),
        ("{low: 2, high: 3, step: 1.5}", r"step \(1.5\) must be above 0 and at most high - low"),
        ("{low: 0, high: 1000000001, step: 1}", r"step \(1\) makes more than 1,000,000,000 values; leave it away"),
        ("{low: 0, high: 2, step: 1e-9}", r"step \(1e-09\) makes more than 1,000,000,000 values; leave it away"),
        ("{low: -1.1e15, high: 1}", "train.lr.low must be greater than or equal to -1000000000000000"),
        ("{low: 1, high: 1.1e15}", "train.lr.high must be less than or equal to 1000000000000000"),
        ("{low: -1000000000000001, high: 1}", "train.lr.low must be greater than or equal to -1000000000000000"),
        ("{low: 1, high: 1000000000000001}", "train.lr.high must be less than or equal to 1000000000000000"),
        ("{low: .nan, high: 1}", "train.lr.low must be a finite number"),
        ("{low: 1, high: .inf}", "train.lr.high must be a finite number"),
        ("3", "train.lr must be"),
        ("{choices: 3}", "train.lr.choices must be a list"),
        ("{low: 1, high: 2, steps: 1}", "unknown config key"),
    ],
)
def test_what_is_no_range_is_refused(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        span(text)


def test_a_range_draws_evenly_and_without_steps_unless_it_says_so() -> None:
    plain = span("{low: 1, high: 2}")

    assert (plain.low, plain.high, plain.log, plain.step) == (1, 2, False, None)
    assert span("{low: 1, high: 2, log: true}").log
    assert span("{low: 1, high: 2, step: 0.5}").step == 0.5
