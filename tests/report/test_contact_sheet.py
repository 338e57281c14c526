import numpy as np
import pytest
from PIL import Image

from evalcam_cli.report.contact_sheet import SheetPair, Side, draw_contact_sheet


def pair(path: str = "a/b.png", colour: tuple[int, int, int] = (0, 0, 255), **options: bool) -> SheetPair:
    image = Image.new("RGB", (300, 200), colour)
    return SheetPair(Side(image, "test, a", path), Side(image, "train, a", path), "0.99", **options)


def count(sheet: Image.Image, colour: tuple[int, int, int]) -> int:
    return int((np.asarray(sheet) == colour).all(axis=-1).sum())


def test_every_image_of_every_pair_is_on_the_sheet() -> None:
    sheet = draw_contact_sheet("title", [("few", [pair()] * 4), ("none", [])])

    assert count(sheet, (0, 0, 255)) == 8 * 200 * 133


def test_the_sheet_grows_by_rows_of_three() -> None:
    heights = [draw_contact_sheet("title", [("pairs", [pair()] * number)]).height for number in (1, 3, 4)]

    assert heights[0] == heights[1] < heights[2]


def test_tiny_images_are_enlarged() -> None:
    tiny = Image.new("RGB", (8, 8), (0, 0, 255))
    side = Side(tiny, "test, a", "a.png")

    assert count(draw_contact_sheet("", [("", [SheetPair(side, side, "")])]), (0, 0, 255)) == 2 * 200 * 200


@pytest.mark.parametrize("path", ["x" * 500, "a\x1b[31m\n\u202eb.png", "정상/뇌 MRI.png", "\udcff.png", "🧠.png", ""])
def test_any_name_can_be_drawn_and_keeps_to_its_place(path: str) -> None:
    plain = draw_contact_sheet("title", [("pairs", [pair(), pair()])])

    sheet = draw_contact_sheet("title", [("pairs", [pair(path), pair()])])

    assert sheet.size == plain.size
    right = (440, 0, *plain.size)  # the second pair is untouched by the first one's name
    if path.isascii():
        np.testing.assert_array_equal(np.asarray(sheet.crop(right)), np.asarray(plain.crop(right)))


def test_an_image_that_is_gone_leaves_a_remark() -> None:
    gone = SheetPair(Side(None, "test, a", "a.png"), Side(None, "train, a", "b.png"), "")

    sheet = draw_contact_sheet("title", [("pairs", [gone])])

    assert count(sheet, (190, 0, 0)) > 0


def test_two_labels_are_red() -> None:
    plain, alarming = (draw_contact_sheet("", [("", [pair(alarm=alarm)])]) for alarm in (False, True))

    assert count(plain, (190, 0, 0)) == 0
    assert count(alarming, (190, 0, 0)) > 50


def test_the_same_pairs_give_the_same_pixels() -> None:
    one, other = (draw_contact_sheet("title", [("pairs", [pair()] * 2)]) for _ in range(2))

    assert one.tobytes() == other.tobytes()
