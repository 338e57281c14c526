import random
from collections import Counter

from evalcam_cli.data.repeats import Shared, repeated


def test_texts_that_occur_more_than_once_are_found() -> None:
    generator = random.Random(0)
    for amount in (0, 1, 2, 10, 1000):
        texts = [f"é{generator.randrange(amount * 3)}" for _ in range(amount)]

        assert repeated(lambda: texts) == {text for text, count in Counter(texts).items() if count > 1}  # noqa: B023


def test_texts_of_one_hash_are_told_apart() -> None:
    class Text(str):
        __slots__ = ()

        def __hash__(self) -> int:
            return 7

    texts = [Text("a"), Text("b"), Text("a"), Text("c")]

    assert list(repeated(lambda: texts)) == ["a"]


def test_equal_texts_become_one_object() -> None:
    shared = Shared()
    first, again = "".join(["tum", "our"]), "".join(["tumo", "ur"])

    assert first is not again
    assert shared(first) is shared(again) is first


def test_very_many_different_texts_are_not_all_kept() -> None:
    shared = Shared()
    shared("label")
    for number in range(70_000):
        shared(f"group {number}")

    assert shared("".join(["lab", "el"])) == "label"
    assert len(shared._known) < 70_000
