from pathlib import Path

import pytest

from evalcam_cli.data.groups import with_groups
from evalcam_cli.data.listing import Listing
from evalcam_cli.data.samples import Sample
from evalcam_cli.errors import DataError, UsageError

PATHS = ("cat/p1_a.png", "cat/p1_b.png", "dog/p2_a.png")


def listing(*, group: bool = False, sites: tuple[str, str, str] = ("", "", "")) -> Listing:
    samples = tuple(
        Sample(path, path[:3], group=f"g{index}" if group else "", extra=(site,))
        for index, (path, site) in enumerate(zip(PATHS, sites, strict=True))
    )
    return Listing(Path(), samples, divided=False, source="x.csv", extra_columns=("site",), has_group=group)


def groups(grouped: Listing) -> list[str]:
    return [sample.group for sample in grouped.samples]


def test_an_expression_takes_the_group_from_the_path() -> None:
    grouped = with_groups(listing(), r"/(p\d+)_")

    assert groups(grouped) == ["p1", "p1", "p2"]
    assert "2 groups" in grouped.notes[-1]


def test_a_column_is_preferred_to_an_expression() -> None:
    assert groups(with_groups(listing(sites=("Rome", "Bern", "Rome")), "site")) == ["Rome", "Bern", "Rome"]


def test_the_group_column_is_used_by_itself_and_said() -> None:
    grouped = with_groups(listing(group=True), None)

    assert groups(grouped) == groups(with_groups(listing(group=True), "group")) == ["g0", "g1", "g2"]
    assert "3 groups of images by 'group'" in grouped.notes[-1]


def test_without_groups_nothing_is_done() -> None:
    plain = listing()

    assert with_groups(plain, None) is plain


@pytest.mark.parametrize("by", ["sit", "(", r"(p)(\d)", "p", "[a-", "group", "*"])
def test_what_is_neither_column_nor_expression_is_wrong_usage(by: str) -> None:
    with pytest.raises(UsageError, match="--group-by") as caught:
        with_groups(listing(), by)

    assert "columns: site" in str(caught.value)


def test_images_without_a_group_are_refused_with_count_and_names() -> None:
    with pytest.raises(DataError, match=r"2 of 3 images have no group .*cat/p1_a.png, cat/p1_b.png;"):
        with_groups(listing(), r"dog/(p\d)")
    with pytest.raises(DataError, match="1 of 3 images"):
        with_groups(listing(sites=("Rome", "", "Bern")), "site")


def test_or_each_is_a_group_of_its_own() -> None:
    assert groups(with_groups(listing(), r"dog/(p\d)", "single")) == ["", "", "p2"]


def test_the_expression_sees_the_composed_path() -> None:
    decomposed = Listing(Path(), (Sample("a/e\u0301.png", "a"),), divided=False, source="folder")

    assert groups(with_groups(decomposed, "(\u00e9)")) == ["\u00e9"]
    assert groups(with_groups(decomposed, "(e\u0301)")) == ["\u00e9"]


def test_an_expression_that_would_take_years_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evalcam_cli.data.groups._SECONDS", 0.1)
    long_name = Listing(Path(), (Sample("a" * 40 + ".png", "a"),), divided=False, source="folder")

    with pytest.raises(UsageError, match="takes too long"):
        with_groups(long_name, "((?:a+)+)b")
