import itertools
import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest

from evalcam_cli.data.identity import Identity
from evalcam_cli.data.samples import Sample
from evalcam_cli.data.splitting import assign, class_targets, units
from evalcam_cli.errors import DataError

HOLD_OUT = (0.7, 0.15, 0.15)


def singles(**classes: int) -> list[Sample]:
    return [Sample(f"{label}/{index}.png", label) for label, count in classes.items() for index in range(count)]


def grouped(*groups: str) -> list[Sample]:
    """One sample per letter; `aab` is a group with two images of class a and one of b."""
    return [
        Sample(f"{number}-{index}.png", label, group=str(number))
        for number, group in enumerate(groups)
        for index, label in enumerate(group)
    ]


def divided(samples: Sequence[Sample], shares: Sequence[float], seed: int = 0) -> list[int]:
    return assign(samples, units(samples), shares, seed=seed)


def counts(samples: Sequence[Sample], parts: Sequence[int]) -> Counter[tuple[str, int]]:
    return Counter((sample.label, part) for sample, part in zip(samples, parts, strict=True))


def deviation(samples: Sequence[Sample], parts: Sequence[int], shares: Sequence[float]) -> float:
    """Sum of squared differences between the class counts of the parts and their exact shares."""
    found = counts(samples, parts)
    totals = Counter(sample.label for sample in samples)
    return sum(
        (found[label, part] - totals[label] * share) ** 2 for label in totals for part, share in enumerate(shares)
    )


def identity(pixels: str, sha256: str = "") -> Identity:
    return Identity(sha256 or pixels, pixels, 1, 1)


def test_ten_and_twenty_images_divide_as_a_person_would() -> None:
    samples = singles(cat=10, dog=20)

    found = counts(samples, divided(samples, HOLD_OUT))

    assert [found["dog", part] for part in range(3)] == [14, 3, 3]
    assert found["cat", 0] == 7
    assert {found["cat", 1], found["cat", 2]} == {1, 2}


@pytest.mark.parametrize("shares", [HOLD_OUT, (0.8, 0.1, 0.1), (0.6, 0.4, 0), [0.2] * 5])
def test_every_class_count_is_within_one_of_its_share(shares: Sequence[float]) -> None:
    samples = singles(a=23, b=101, c=17, d=50, e=1000)

    parts = divided(samples, shares)

    totals = Counter(sample.label for sample in samples)
    for label, total in totals.items():
        for part, share in enumerate(shares):
            assert abs(counts(samples, parts)[label, part] - total * share) < 1
    sizes = Counter(parts)
    assert all(abs(sizes[part] - len(samples) * share) <= 1 for part, share in enumerate(shares))


def test_the_roundings_of_many_classes_make_up_for_each_other() -> None:
    targets = class_targets(np.full(20, 10), np.array([70, 15, 15]))

    assert targets.sum(axis=0).tolist() == [140, 30, 30]
    assert set(targets[:, 1].tolist()) == {1, 2}


def test_a_class_with_as_many_images_as_sets_is_in_each() -> None:
    samples = singles(a=3, b=4, c=5)

    found = counts(samples, divided(samples, HOLD_OUT))

    assert all(found[label, part] for label in "abc" for part in range(3))


def test_a_class_with_too_few_images_is_named_with_the_remedy() -> None:
    samples = singles(cat=2, dog=20)

    with pytest.raises(DataError, match=r"'cat' has 2 images, too few for 3 folds.*fewer folds"):
        assign(samples, units(samples), [1, 1, 1], seed=0, parts="folds")


def test_a_class_in_too_few_groups_is_named() -> None:
    with pytest.raises(DataError, match="'a' has 6 images in 2 groups that must stay together"):
        divided(grouped("aaa", "aaa", "b", "b", "b"), (1, 1, 1))


def test_a_part_with_share_zero_stays_empty() -> None:
    samples = singles(a=10, b=11)

    assert set(divided(samples, (0.8, 0, 0.2))) == {0, 2}


def test_the_order_of_the_samples_does_not_matter_and_the_seed_does() -> None:
    samples = singles(a=40, b=30)
    by_path = dict(zip((s.path for s in samples), divided(samples, HOLD_OUT), strict=True))
    backwards = samples[::-1]

    assert dict(zip((s.path for s in backwards), divided(backwards, HOLD_OUT), strict=True)) == by_path
    assert divided(samples, HOLD_OUT, seed=1) != divided(samples, HOLD_OUT)


def test_composed_and_decomposed_names_draw_alike() -> None:
    composed = [Sample(f"é{index}", "ab"[index % 2]) for index in range(30)]
    decomposed = [Sample(f"e\u0301{index}", "ab"[index % 2]) for index in range(30)]

    assert divided(composed, HOLD_OUT) == divided(decomposed, HOLD_OUT)


def test_the_draw_is_the_same_for_ever() -> None:
    """Splits must be repeatable by later versions: a change here breaks that."""
    assert divided(singles(a=5, b=5), (1, 1)) == [0, 1, 1, 0, 0, 0, 0, 1, 1, 1]


def test_units_join_groups_pixels_and_bytes_across_each_other() -> None:
    samples = [
        Sample("0", "a", group="g"),
        Sample("1", "a", group="g"),
        Sample("2", "a"),
        Sample("3", "a", group="h"),
        Sample("4", "a", sha256="s"),
        Sample("5", "a", sha256="s"),
        Sample("6", "a"),
    ]
    identities = {"1": identity("p", "s1"), "2": identity("p", "s2"), "3": identity("q", "s2"), "6": identity("r")}

    assert units(samples, identities) == [[0, 1, 2, 3], [4, 5], [6]]


def test_units_stay_whole() -> None:
    rng = np.random.default_rng(0)
    samples = [Sample(f"{i}.png", "abc"[rng.integers(3)], group=f"g{rng.integers(40)}") for i in range(300)]

    parts = divided(samples, HOLD_OUT)

    homes = {(sample.group, part) for sample, part in zip(samples, parts, strict=True)}
    assert len(homes) == len({sample.group for sample in samples})


def test_groups_that_fit_exactly_are_found() -> None:
    samples = grouped("aaab", "abbb", "aabb", "ab", "ab", "aabb")

    parts = divided(samples, (1, 1))

    assert deviation(samples, parts, (0.5, 0.5)) == 0


def test_a_rare_class_in_large_groups_still_reaches_every_part() -> None:
    samples = grouped("aaaaa", "aaaaa", "aaaaa", *["b"] * 30)

    found = counts(samples, divided(samples, HOLD_OUT))

    assert [found["a", part] for part in range(3)] == [5, 5, 5]


def test_small_cases_are_nearly_as_good_as_brute_force() -> None:
    rng = np.random.default_rng(1)
    gaps = []
    for case in range(40):
        shares = (0.5, 0.5) if case % 2 else (0.6, 0.2, 0.2)
        samples = grouped(*("".join(rng.choice(list("ab"), rng.integers(1, 5))) for _ in range(6)), "ab", "ab")
        members = units(samples)
        best = math.inf
        for choice in itertools.product(range(len(shares)), repeat=len(members)):
            home = {index: part for unit, part in zip(members, choice, strict=True) for index in unit}
            parts = [home[index] for index in range(len(samples))]
            if len(counts(samples, parts)) == 2 * len(shares):  # both classes everywhere
                best = min(best, deviation(samples, parts, shares))

        gaps.append(deviation(samples, divided(samples, shares), shares) - best)

    assert sum(gap < 1e-9 for gap in gaps) >= 38  # of 40
    assert max(gaps) < 3


def test_grouped_folds_are_no_worse_than_scikit_learns() -> None:
    from sklearn.model_selection import StratifiedGroupKFold

    rng = np.random.default_rng(0)
    ours, theirs = [], []
    for case in range(25):
        folds = int(rng.integers(2, 6))
        samples = [Sample(f"{i}.png", "abcd"[rng.integers(4)], group=f"g{int(rng.gamma(2, 15))}") for i in range(300)]
        parts = assign(samples, units(samples), [1] * folds, seed=case, parts="folds")
        ours.append(deviation(samples, parts, [1 / folds] * folds))
        labels, groups = [sample.label for sample in samples], [sample.group for sample in samples]
        reference = [0] * len(samples)
        splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=case)
        for fold, (_, test) in enumerate(splitter.split(labels, labels, groups)):
            for index in test:
                reference[index] = fold
        theirs.append(deviation(samples, reference, [1 / folds] * folds))

    assert np.mean(ours) <= np.mean(theirs)
    assert np.mean(np.array(ours) <= np.array(theirs) + 1e-9) > 0.9


def test_a_hundred_thousand_images_are_divided_as_asked() -> None:
    samples = [Sample(f"{i}.png", f"c{i % 10}", group=f"g{i // 3}") for i in range(100_000)]

    parts = divided(samples, HOLD_OUT)

    assert abs(parts.count(0) - 70_000) <= 10
