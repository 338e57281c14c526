"""The worst mistakes on one picture."""

import dataclasses
import io

import numpy as np
import pytest
from PIL import Image

from evalcam_cli.report.failure_entries import FailureEntry
from evalcam_cli.report.failure_sheet import draw_failure_sheet
from evalcam_cli.report.failures_page import Legend

COLOURS = ((0, 0, 255), (0, 160, 0), (160, 0, 160), (0, 160, 160))
"""Of the original, the two maps and the difference."""


def png(colour: tuple[int, int, int], size: tuple[int, int] = (208, 156)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


def entry(path: str = "a/1.png", label: str = "a", predicted: str = "b") -> FailureEntry:
    original, true_map, predicted_map, difference = (png(colour) for colour in COLOURS)
    return FailureEntry(
        path, label, predicted, 2.5, ((label, 0.1), (predicted, 0.9)), original, true_map, predicted_map, difference,
        true_max=1.0, predicted_max=-1.0, difference_max=2.0,
    )  # fmt: skip


def count(sheet: Image.Image, colour: tuple[int, int, int]) -> int:
    return int((np.asarray(sheet) == colour).all(axis=-1).sum())


def test_every_picture_of_every_entry_is_on_the_sheet_at_one_size() -> None:
    sheet = draw_failure_sheet("title", [entry(f"{number}.png") for number in range(5)])

    assert [count(sheet, colour) for colour in COLOURS] == [5 * 176 * 132] * 4


def test_the_pictures_of_a_row_stand_in_the_order_of_their_headings() -> None:
    sheet = np.asarray(draw_failure_sheet("title", [entry()]))

    lefts = [int(np.nonzero((sheet == colour).all(axis=-1).any(axis=0))[0][0]) for colour in COLOURS]

    assert lefts == sorted(lefts)


def test_eight_mistakes_have_the_shape_of_a_slide() -> None:
    legend = Legend(png((9, 9, 9), (288, 14)), "0", "most", "")

    sheet = draw_failure_sheet("title", [entry()] * 12, legends=[legend])

    assert count(sheet, COLOURS[0]) == 8 * 176 * 132
    assert sheet.width / sheet.height == pytest.approx(16 / 9, rel=0.15)
    assert count(sheet, (9, 9, 9)) > 1000


def test_a_right_prediction_has_two_pictures() -> None:
    right = dataclasses.replace(entry(predicted="a"), predicted_map=None, difference=None)

    sheet = draw_failure_sheet("title", [right])

    assert [count(sheet, colour) > 0 for colour in COLOURS] == [True, True, False, False]


def test_a_sheet_without_mistakes_is_not_blank() -> None:
    sheet = draw_failure_sheet("title", [])

    assert np.asarray(sheet.crop((0, 70, *sheet.size))).std() > 0  # below the title


@pytest.mark.parametrize("name", ["x" * 500, "a b " * 90, "a\x1b[31m\n\u202eb", "정상/뇌 MRI", "\udcff", "🧠", ""])
def test_any_name_can_be_drawn_and_keeps_to_its_place(name: str) -> None:
    plain = np.asarray(draw_failure_sheet("title", [entry(), entry()]))

    sheet = np.asarray(draw_failure_sheet("title", [entry(name, name, name + "2"), entry()]))

    assert sheet.shape == plain.shape
    if name.isascii():
        left, below = 254, 93 + 216  # where the pictures begin, and the second row
        np.testing.assert_array_equal(sheet[:, left:], plain[:, left:])
        np.testing.assert_array_equal(sheet[below:], plain[below:])


def test_the_same_entries_give_the_same_pixels() -> None:
    one, other = (draw_failure_sheet("title", [entry()] * 2) for _ in range(2))

    assert one.tobytes() == other.tobytes()
