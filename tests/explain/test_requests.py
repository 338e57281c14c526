"""Which classes to explain."""

import pytest
import torch

from evalcam_cli.errors import UsageError
from evalcam_cli.explain.requests import ClassRequest, choose_classes, parse_class, rectangular

DIGITS = tuple("0123456789")
ANIMALS = ("1", "cat", "dog", "predicted", "top:1")


def test_a_name_an_index_and_a_rule() -> None:
    assert parse_class("cat", ("cat", "dog")) == ClassRequest(index=0)
    assert parse_class("1", ("cat", "dog")) == ClassRequest(index=1)
    assert parse_class("true", ("cat", "dog")) == ClassRequest(rule="true")
    assert parse_class("top:9", ("cat", "dog")) == ClassRequest(rule="top", count=2)


def test_a_digit_that_is_name_and_index_of_the_same_class_is_no_question() -> None:
    assert parse_class("3", DIGITS) == ClassRequest(index=3)


@pytest.mark.parametrize(
    ("text", "ways"), [("1", "name:1 or index:1"), ("predicted", "name:predicted"), ("top:1", "name:top:1")]
)
def test_two_readings_that_differ_are_a_question(text: str, ways: str) -> None:
    with pytest.raises(UsageError, match=ways):
        parse_class(text, ANIMALS)

    assert parse_class(f"name:{text}", ANIMALS).index == ANIMALS.index(text)
    assert parse_class("index:1", ANIMALS) == ClassRequest(index=1)


@pytest.mark.parametrize(
    ("text", "problem"),
    [("cta", "did you mean 'cat'"), ("7", "numbered 0 to 1"), ("-1", "numbered 0 to 1"), ("index:x", "numbered 0 to 1"),
     ("name:dgo", "did you mean 'dog'"), ("top:0", "no such class"), ("", "no such class")],
)  # fmt: skip
def test_anything_else_is_refused(text: str, problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        parse_class(text, ("cat", "dog"))


def test_requests_are_answered_per_image_in_order_and_once() -> None:
    logits = torch.tensor([[0.1, 0.9, 0.5], [2.0, 1.0, 3.0]])
    requests = [parse_class(text, ("a", "b", "c")) for text in ("predicted", "true", "top:2", "a")]

    chosen = choose_classes(requests, logits, [1, 0])

    assert chosen == [[1, 2, 0], [2, 0]]
    assert rectangular(chosen) == [[1, 2, 0], [2, 0, 0]]
    assert choose_classes([ClassRequest(rule="all")], logits, [None, None]) == [[0, 1, 2]] * 2


def test_the_true_class_needs_a_label() -> None:
    with pytest.raises(UsageError, match="needs labels"):
        choose_classes([ClassRequest(rule="true")], torch.zeros(1, 2), [None])
