"""The arithmetic of dividing, by hand: whole numbers of images, orders to begin with, and what cannot be divided."""

from collections.abc import Sequence

import numpy as np
import pytest

from evalcam_cli.data.splitting import _orders, assign, class_targets, units
from evalcam_cli.errors import DataError
from tests.data.test_splitting import HOLD_OUT, counts, divided, grouped, singles

# ---- numbers per class and part


@pytest.mark.parametrize(
    ("total", "weights", "row"),
    [
        (10, (60, 30, 10), [6, 3, 1]),  # exact
        (11, (60, 25, 15), [6, 3, 2]),  # 6.6, 2.75, 1.65: the largest remainders are rounded up
        (7, (50, 50), [4, 3]),  # equal ones in turn
        (5, (100, 0), [5, 0]),  # nothing where there is no weight
        (0, (1, 1), [0, 0]),
        (1, (1, 1, 1), [1, 0, 0]),
        (2, (1, 1, 1), [1, 1, 0]),  # nobody can spare one
        (3, (90, 5, 5), [1, 1, 1]),  # 2.7, 0.15, 0.15: at least one each
        (4, (60, 35, 5), [2, 1, 1]),  # 2.4, 1.4, 0.2
        (10, (48, 47, 5), [5, 4, 1]),  # 4.8, 4.7, 0.5 -> 5, 5, 0: the second got more beyond its share than the first
        (10, (56, 39, 5), [5, 4, 1]),  # 5.6, 3.9, 0.5 -> 6, 4, 0: the first did
        (6, (80, 10, 10), [4, 1, 1]),  # 4.8, 0.6, 0.6 -> 5, 1, 0: the second keeps its only one
        (3, (30, 60, 10), [1, 1, 1]),  # 0.9, 1.8, 0.3 -> 1, 2, 0: two are one to spare
        (20, (90, 0, 5, 5), [18, 0, 1, 1]),
        (9, (80, 0, 10, 10), [7, 0, 1, 1]),
    ],
)
def test_one_class_is_divided_by_largest_remainders_with_at_least_one_each(
    total: int, weights: Sequence[int], row: list[int]
) -> None:
    assert class_targets(np.array([total]), np.array(weights)).tolist() == [row]


def test_classes_of_equal_size_take_turns_in_their_order() -> None:
    targets = class_targets(np.full(40, 10), np.array([70, 15, 15]))

    assert targets.tolist() == [[7, 2, 1], [7, 1, 2]] * 20
    among_others = class_targets(np.tile([20, 10], 30), np.array([70, 15, 15]))
    assert among_others.tolist() == [[14, 3, 3], [7, 2, 1], [14, 3, 3], [7, 1, 2]] * 15


def test_a_part_that_got_too_little_of_a_small_class_is_served_first_by_a_larger_one() -> None:
    """Of 3 each part gets one, so the first is owed 1.1 and is served before the others, whose remainders are larger:
    0.7, 0.15 and 0.15 of 12 are 8.4, 1.8 and 1.8."""
    assert class_targets(np.array([12, 3]), np.array([70, 15, 15])).tolist() == [[9, 2, 1], [1, 1, 1]]
    assert class_targets(np.array([12]), np.array([70, 15, 15])).tolist() == [[8, 2, 2]]


def test_many_small_classes_leave_each_part_near_its_share() -> None:
    samples = singles(**{f"c{index}": 11 + index % 3 for index in range(20)})

    parts = divided(samples, HOLD_OUT)

    assert [parts.count(part) for part in range(3)] == [167, 36, 36]  # of 167.3, 35.85 and 35.85


def test_shares_are_kept_as_millionths() -> None:
    """A class of two images is in both parts if both have a weight: half a millionth is rounded up or down."""
    assert divided(singles(a=2), (1 - 4.999_997_5e-7, 4.999_997_5e-7)) == [0, 0]
    assert divided(singles(a=2), (1 - 5.000_002_5e-7, 5.000_002_5e-7)) == [0, 1]
    samples = singles(a=10, b=4)
    assert divided(samples, (70, 30)) == divided(samples, (7e-5, 3e-5)) == divided(samples, (0.7, 0.3))


def test_a_millionth_is_a_share_like_another() -> None:
    shares = (999_999, 1)

    with pytest.raises(DataError, match="'a' has 1 image, too few for 2 parts"):
        divided(singles(a=1, b=2), shares)
    with pytest.raises(DataError, match="cannot be divided so that each of the parts has images of the class"):
        divided(grouped("ab", "ac", "bc"), shares)


# ---- single images beside groups that overshoot


@pytest.mark.parametrize(
    ("groups", "parts", "expected"),
    [
        (("aaaaaa", *"aaaa"), 2, [4, 6]),
        (("aaaaaa", *"aaa"), 3, [1, 2, 6]),  # of 3 and 3 that are lacking, spread evenly
        (("aaaaaaaa", *"aaaa"), 4, [1, 1, 2, 8]),
        (("aaaa", "aaaa", *"aaaa"), 3, [4, 4, 4]),
        (("a" * 3000, *"a" * 1500), 3, [750, 750, 3000]),  # more than exchanges of two could mend
    ],
)
def test_single_images_go_evenly_where_groups_left_room(groups: Sequence[str], parts: int, expected: list[int]) -> None:
    samples = grouped(*groups)

    found = counts(samples, divided(samples, [1] * parts))

    assert sorted(found.values()) == expected


# ---- orders in which groups are placed


@pytest.mark.parametrize(("count", "orders"), [(1, 16), (50, 16), (51, 2), (5_000, 2), (5_001, 1)])
def test_the_fewer_units_the_more_beginnings(count: int, orders: int) -> None:
    """Sizes up to 3 have two binary digits; few units are begun with at eight places."""
    assert len(_orders(np.full(count, 3))) == orders


@pytest.mark.parametrize("count", [9, 50, 51, 300])
def test_every_order_is_from_large_to_small_but_for_its_last_digits(count: int) -> None:
    sizes = np.random.default_rng(count).integers(1, 7, count)
    several = [index for index in range(count) if sizes[index] > 1]
    turns = 8 if count <= 50 else 1

    expected = []
    for digit in range(3):
        for turn in range(turns):
            cut = len(several) - turn * len(several) // turns
            rolled = several[cut:] + several[:cut]
            expected.append(sorted(rolled, key=lambda index: -(sizes[index] >> digit)))

    assert [order.tolist() for order in _orders(sizes)] == expected


def test_of_very_many_units_there_is_one_order_from_large_to_small() -> None:
    sizes = np.random.default_rng(0).integers(1, 7, 6_000)

    (order,) = _orders(sizes)

    assert order.tolist() == sorted(np.flatnonzero(sizes > 1), key=lambda index: -sizes[index])


def test_single_images_are_in_no_order() -> None:
    (order,) = _orders(np.ones(9, np.int64))

    assert order.tolist() == []


# ---- what cannot be divided


@pytest.mark.parametrize(
    ("groups", "shares", "message"),
    [
        (("a", "a", "b", "b", "b"), HOLD_OUT,
         "the class 'a' has 2 images, too few for 3 parts with at least one each; add images"),
        (("a", "b", "b"), (1, 1),
         "the class 'a' has 1 image, too few for 2 parts with at least one each; add images"),
        (("aaa", "ab", "b", "b"), (1, 1, 1),
         "the class 'a' has 4 images in 2 groups that must stay together, "
         "too few for 3 parts with at least one each; add images"),
        (("aab", "b"), (1, 1),
         "the class 'a' has 2 images in 1 group that must stay together, "
         "too few for 2 parts with at least one each; add images"),
        (("ab", "ac", "bc"), (1, 1),
         "the groups cannot be divided so that each of the parts has images of the class 'c'; "
         "use fewer parts, smaller groups or another --seed"),
    ],
)  # fmt: skip
def test_a_class_that_cannot_be_everywhere_is_named_with_the_reason(
    groups: Sequence[str], shares: Sequence[float], message: str
) -> None:
    with pytest.raises(DataError) as caught:
        divided(grouped(*groups), shares)

    assert str(caught.value) == message


@pytest.mark.parametrize(("parts", "remedy"), [("folds", "ask for fewer folds or add images"), ("sets", "add images")])
def test_fewer_folds_can_be_asked_for_and_fewer_sets_cannot(parts: str, remedy: str) -> None:
    samples = singles(a=1, b=4)

    with pytest.raises(DataError, match=f"too few for 2 {parts} with at least one each; {remedy}$"):
        assign(samples, units(samples), (1, 1), seed=0, parts=parts)


def test_only_parts_with_a_share_need_every_class() -> None:
    assert set(divided(singles(a=2, b=9), (0.8, 0, 0.2))) == {0, 2}
    assert divided(singles(a=1), (1, 0)) == [0]
    assert set(divided(grouped("ab", "ac", "bc"), (1, 0))) == {0}


# ---- the same for ever


MIXED = ("ab", "aab", "c", "bc", "a", "b", "c", "abc", "cc", "a", "bb", "a", "c", "b")


@pytest.mark.parametrize(
    ("times", "shares", "parts"),
    [
        (2, HOLD_OUT, "0000000002200000011222 0000010021000000100110"),
        (2, (1, 1, 1), "0022202202200011011222 2211111111000022100101"),
        (5, HOLD_OUT,
         "0000000002200000022212 1100010021000000100110 0000010001000000200021 "
         "0000020001200000100202 0000000001200000100212"),
        (5, [1] * 5,
         "2222212213444400133434 4411120032033322222220 4400023303000011311041 "
         "0044444402322244111314 3333310011311133200414"),
    ],
)  # fmt: skip
def test_groups_are_divided_the_same_for_ever(times: int, shares: Sequence[float], parts: str) -> None:
    """Splits must be repeatable by later versions: a change here breaks that."""
    samples = grouped(*MIXED * times)

    assert divided(samples, shares) == [int(part) for part in parts.replace(" ", "")]


def test_names_that_are_not_utf8_are_drawn_too() -> None:
    samples = [type(sample)(f"\udcff{sample.path}", sample.label) for sample in singles(a=6, b=6)]

    assert sorted(divided(samples, (1, 1))) == [0] * 6 + [1] * 6
