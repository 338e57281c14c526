import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from evalcam_cli.data.boxes import read_boxes
from evalcam_cli.documents import json_text, write_csv
from evalcam_cli.explain.localisation import localise, truth_of_boxes
from evalcam_cli.explain.localisation_numbers import MEANINGS, Localisation, summarise
from evalcam_cli.report.localisation import (
    BOXES_HEADER,
    LOCALISATION_HEADER,
    FoundObject,
    box_rows,
    coco_annotation,
    coco_image,
    coco_pieces,
    localisation_document,
    localisation_rows,
    localisation_section,
    run_lengths,
)


def some_numbers() -> Localisation:
    records = []
    for index in range(4):
        heat = np.zeros((20, 30))
        heat[5:15, 3 + 2 * index : 13 + 2 * index] = 1
        truth = truth_of_boxes([(3, 5, 13, 15)], 20, 30)
        seen = np.ones(heat.shape, dtype=bool)
        records.append(localise(heat, seen, truth, peak=(3 + 2 * index, 5), unit=str(index), label="cat", rank=0))
    return summarise(records)


def decoded(encoded: dict[str, Any]) -> NDArray[np.bool_]:
    """As the COCO format says: runs of off and on by turns, down the columns."""
    height, width = encoded["size"]
    values: list[bool] = []
    for position, count in enumerate(encoded["counts"]):
        values += [position % 2 == 1] * count
    return np.array(values).reshape(width, height).T


@pytest.mark.parametrize("seed", range(20))
def test_run_lengths_decode_to_the_mask(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random(rng.integers(1, 9, 2)) < rng.random()

    np.testing.assert_array_equal(decoded(run_lengths(mask)), mask)


def test_run_lengths_by_hand() -> None:
    mask = np.array([[True, False, True], [True, False, False]])

    assert run_lengths(mask) == {"size": [2, 3], "counts": [0, 2, 2, 1, 1]}
    assert run_lengths(~np.zeros((2, 2), dtype=bool))["counts"] == [0, 4]
    assert run_lengths(np.zeros((2, 2), dtype=bool))["counts"] == [4]


def test_found_boxes_read_back_as_true_boxes(tmp_path: Path) -> None:
    found = FoundObject("a/b.png", "cat", (1, 2, 10, 20), 99, 0.9)
    write_csv(tmp_path / "boxes.csv", BOXES_HEADER, box_rows([found, found]))

    (box,) = read_boxes(tmp_path / "boxes.csv").of("a/b.png", 10, 20)

    assert (box.label, box.corners) == ("cat", (1, 2, 10, 20))


def test_a_coco_document_names_images_categories_and_annotations() -> None:
    mask = np.zeros((8, 9), dtype=bool)
    mask[2:5, 1:7] = True
    found = FoundObject("b.png", "dog", (1, 2, 7, 5), 18, 0.75, mask)

    pieces = coco_pieces(["cat", "dog"], [coco_image(1, "b.png", 9, 8)], [coco_annotation(1, 1, 2, found)], "maps")
    document = json.loads(b"".join(pieces))

    assert list(document) == ["info", "categories", "images", "annotations"]
    assert document["info"] == {"description": "maps"}
    assert document["images"] == [{"id": 1, "file_name": "b.png", "width": 9, "height": 8}]
    assert [(one["id"], one["name"]) for one in document["categories"]] == [(1, "cat"), (2, "dog")]
    (annotation,) = document["annotations"]
    assert annotation["bbox"] == [1, 2, 6, 3]
    assert annotation["area"] == mask.sum()
    assert (annotation["image_id"], annotation["category_id"], annotation["score"]) == (1, 2, 0.75)
    np.testing.assert_array_equal(decoded(annotation["segmentation"]), mask)


def test_a_coco_document_of_no_image_is_whole() -> None:
    document = json.loads(b"".join(coco_pieces(["a\u2028"], [], [])))

    assert (document["images"], document["annotations"]) == ([], [])
    assert document["categories"][0]["name"] == "a\u2028"


def test_an_annotation_without_a_mask_has_no_segmentation() -> None:
    assert "segmentation" not in coco_annotation(1, 1, 1, FoundObject("b.png", "dog", (1, 2, 7, 5), 18, 0.75))


def test_the_table_has_a_row_per_number_for_all_classes_and_for_each() -> None:
    numbers = some_numbers()

    rows = localisation_rows("gradcam", numbers, {"cat": numbers})

    assert {len(row) for row in rows} == {len(LOCALISATION_HEADER)}
    assert len(rows) == 2 * len(numbers.numbers)
    assert rows[0][:4] == ("gradcam", "iou_50", "", 0.5)  # of 1, 2/3, 3/7, 1/4: boxes of 10 pixels moved by 0, 2, 4, 6


def test_the_document_is_json_with_undefined_numbers_as_null() -> None:
    document = json.loads(json_text(localisation_document({"gradcam": some_numbers(), "none": summarise([])})))

    assert document["gradcam"]["maps"] == 4
    assert document["none"]["numbers"]["iou_50"]["estimate"] is None
    assert document["none"]["numbers"]["iou_50"]["undefined_reason"]


def test_the_section_shows_every_number_with_its_meaning() -> None:
    text = "\n".join(localisation_section({"grad_cam": some_numbers()}))

    assert "### grad\\_cam" in text
    assert "4 maps of 4 images" in text
    for name in MEANINGS:
        assert (f"- `{name}`: " in text) == (name != "pixel_iou_mean")


def test_the_section_of_no_maps_says_why() -> None:
    text = "\n".join(localisation_section({"gradcam": summarise([])}))

    assert "n/a (there are no maps with a known object)" in text
    assert "Best thresholds" not in text
