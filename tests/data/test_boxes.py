from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from evalcam_cli.data.boxes import COLUMNS, MaskFolder, ObjectBox, read_boxes, read_mask
from evalcam_cli.documents import write_csv
from evalcam_cli.errors import DataError, UsageError

HEADER = "path,label,x0,y0,x1,y1\n"


def written(folder: Path, rows: str, header: str = HEADER) -> Path:
    path = folder / "boxes.csv"
    path.write_text(header + rows, encoding="utf-8")
    return path


def saved_mask(path: Path, mask: NDArray[np.bool_]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask.astype(np.uint8) * 255).save(path)
    return path


def square(height: int = 20, width: int = 30) -> NDArray[np.bool_]:
    mask = np.zeros((height, width), dtype=bool)
    mask[5:10, 6:12] = True
    return mask


def test_every_object_of_an_image_is_read_in_order(tmp_path: Path) -> None:
    table = read_boxes(written(tmp_path, "a/b.png,dog,1,2,3,4\nc.png,cat,0,0,9,9\na/b.png,cat,5,6,30,20\n"))

    assert table.of("a/b.png", 30, 20) == (ObjectBox("dog", 1, 2, 3, 4, 2), ObjectBox("cat", 5, 6, 30, 20, 4))
    assert table.of("other.png", 30, 20) == ()
    assert table.paths == ("a/b.png", "c.png")
    assert table.labels == ("cat", "dog")


def test_what_evalcam_writes_reads_back(tmp_path: Path) -> None:
    rows = [("-é=b.png", "=cat", 0, 1, 2, 3)]
    write_csv(tmp_path / "boxes.csv", COLUMNS, rows)

    (box,) = read_boxes(tmp_path / "boxes.csv").of("-é=b.png", 9, 9)

    assert (box.label, box.corners) == ("=cat", (0, 1, 2, 3))


def test_a_name_in_another_unicode_form_is_the_same_image(tmp_path: Path) -> None:
    table = read_boxes(written(tmp_path, "e\u0301.png,cat,0,0,1,1\n"))

    assert len(table.of("\u00e9.png", 5, 5)) == 1


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a.png,cat,0,0,0,5", "row 3: the box 0,0,0,5 is empty"),
        ("a.png,cat,4,5,9,2", "row 3: the box 4,5,9,2 is empty"),
        ("a.png,cat,-1,0,5,5", "row 3: the box -1,0,5,5 begins outside the image"),
        ("a.png,cat,0,0,5.5,5", "row 3: x1 is '5.5'; expected a whole number of pixels"),
        ("a.png,cat,0,,5,5", "row 3: y0 is ''; expected a whole number of pixels"),
        ("a.png,cat,0,0,9999999999,5", "row 3: x1 is '9999999999'"),
        ("a.png,cat,0,0,٣,5", "row 3: x1 is"),
        (",cat,0,0,5,5", "row 3: the path is empty"),
        ("../a.png,cat,0,0,5,5", "row 3: the path '../a.png' leaves the data folder"),
        ("a.png,,0,0,5,5", "row 3: a.png has no label"),
        ("ok.png,cat,0,0,5,5", "row 3: the same object as in row 2"),
        ("a.png,cat,0,0,5", "row 3: 5 cells, but the header has 6"),
    ],
)
def test_a_row_that_cannot_be_used_is_named_with_its_file(tmp_path: Path, row: str, message: str) -> None:
    path = written(tmp_path, f"ok.png,cat,0,0,5,5\n{row}\n")

    with pytest.raises(DataError) as caught:
        read_boxes(path)

    assert str(caught.value).startswith(f"{path}, ")
    assert message in str(caught.value)


def test_a_column_that_is_not_known_is_named(tmp_path: Path) -> None:
    path = written(tmp_path, "a.png,cat,0,0,5,5,1\n", header=HEADER.replace("\n", ",width\n"))

    with pytest.raises(DataError, match=r"boxes\.csv, row 1: unknown column 'width'; expected path,label,x0,y0,x1,y1"):
        read_boxes(path)


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no column 'y1'"):
        read_boxes(written(tmp_path, "", header="path,label,x0,y0,x1\n"))


def test_a_box_beyond_its_image_is_refused_when_the_size_is_known(tmp_path: Path) -> None:
    table = read_boxes(written(tmp_path, "a.png,cat,0,0,5,5\na.png,cat,0,0,31,20\n"))

    with pytest.raises(DataError, match=r"row 3: the box 0,0,31,20 reaches beyond a\.png, which is 30 x 20 pixels"):
        table.of("a.png", 30, 20)


def test_a_class_that_the_model_does_not_know_is_refused_with_the_nearest(tmp_path: Path) -> None:
    table = read_boxes(written(tmp_path, "a.png,cat,0,0,5,5\na.png,cow,0,0,5,5\n"))

    table.require_classes(["cat", "cow"])
    with pytest.raises(DataError, match=r"row 3: no class 'cow'; did you mean 'crow'\?"):
        table.require_classes(["cat", "crow"])


def test_a_table_that_is_not_there_is_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        read_boxes(tmp_path / "boxes.csv")


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGB", "RGBA", "I;16"])
def test_pixels_that_are_not_zero_are_the_object_in_every_kind_of_png(tmp_path: Path, mode: str) -> None:
    mask = square()
    if mode == "I;16":
        image = Image.fromarray(mask.astype(np.uint16) * 256)  # the low byte is 0
    elif mode == "P":
        image = Image.fromarray(mask.astype(np.uint8), mode="L").convert("P")
        image.putpalette([0, 0, 0] * 256)  # the colour says nothing
        image.frombytes(mask.astype(np.uint8).tobytes())
    else:
        image = Image.fromarray(mask.astype(np.uint8) * 255).convert(mode)
    image.save(tmp_path / "a.png")

    np.testing.assert_array_equal(read_mask(tmp_path / "a.png", 30, 20), mask)


def test_transparent_pixels_are_no_object(tmp_path: Path) -> None:
    pixels = np.full((20, 30, 4), 255, dtype=np.uint8)
    pixels[..., 3] = square() * 255
    Image.fromarray(pixels).save(tmp_path / "a.png")

    np.testing.assert_array_equal(read_mask(tmp_path / "a.png", 30, 20), square())


def test_a_mask_of_another_size_is_refused_with_both_sizes(tmp_path: Path) -> None:
    path = saved_mask(tmp_path / "a.png", square())

    with pytest.raises(DataError, match=r"a\.png is 30 x 20 pixels, but its image 20 x 30 upright"):
        read_mask(path, 20, 30)


def test_a_mask_that_shows_nothing_is_refused(tmp_path: Path) -> None:
    path = saved_mask(tmp_path / "a.png", np.zeros((4, 4), dtype=bool))

    with pytest.raises(DataError, match="shows no object"):
        read_mask(path, 4, 4)


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n", b"GIF89a"])
def test_a_mask_that_cannot_be_read_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.png").write_bytes(content)

    with pytest.raises(DataError, match=r"a\.png"):
        read_mask(tmp_path / "a.png", 4, 4)


def test_a_mask_has_the_relative_path_of_its_image_whatever_the_suffix(tmp_path: Path) -> None:
    saved_mask(tmp_path / "a" / "b.c.png", square())

    folder = MaskFolder(tmp_path)

    assert folder.read("a/b.c.jpg", "cat", 30, 20, only=True) is not None
    assert folder.read("b.c.jpg", "cat", 30, 20, only=True) is None


def test_the_mask_of_a_class_comes_first_and_another_class_has_none(tmp_path: Path) -> None:
    whole, own = np.ones((20, 30), dtype=bool), square()
    saved_mask(tmp_path / "b.png", whole)
    saved_mask(tmp_path / "b.big_cat.png", own)

    folder = MaskFolder(tmp_path)

    np.testing.assert_array_equal(folder.read("b.jpg", "big cat", 30, 20, only=False), own)
    np.testing.assert_array_equal(folder.read("b.jpg", "dog", 30, 20, only=True), whole)
    assert folder.read("b.jpg", "dog", 30, 20, only=False) is None  # it may show something else


def test_a_folder_of_masks_that_is_not_there_is_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no folder"):
        MaskFolder(tmp_path / "masks")
