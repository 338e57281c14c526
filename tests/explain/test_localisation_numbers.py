from dataclasses import replace

import numpy as np
import pytest

from evalcam_cli.evaluation.intervals import wilson_interval
from evalcam_cli.explain.localisation import Localised
from evalcam_cli.explain.localisation_numbers import MEANINGS, summarise


def hits(**rows: tuple[int, int]) -> bytes:
    """Rows v1, v30, v50 and v70, each the range of levels that hit."""
    bits = np.zeros((4, 255), dtype=bool)
    for row, name in enumerate(("v1", "v30", "v50", "v70")):
        start, stop = rows.get(name, (0, 0))
        bits[row, start:stop] = True
    return np.packbits(bits).tobytes()


def record(unit: str = "a", iou: float = 0.6, **changes: object) -> Localised:
    plain = Localised(
        unit=unit, label="cat", rank=0, empty=False, box=(0, 0, 4, 4), iou=iou, pixel_iou=None, distance=0.0,
        centre_distance=3.0, energy=0.5, share=0.2, hits=hits(), overlaps=bytes(510),
    )  # fmt: skip
    return replace(plain, **changes)  # type: ignore[arg-type]


def test_rates_and_means_of_three_maps_by_hand() -> None:
    records = [
        record("a", 0.5),
        record("b", 0.4, rank=1, distance=14.9, energy=0.1),
        record("c", 0.9, rank=6, distance=15.0, energy=0.9, centre_distance=40.0),
    ]

    numbers = {name: one.estimate for name, one in summarise(records).numbers.items()}

    assert numbers["iou_50"] == pytest.approx(2 / 3)
    assert numbers["iou_mean"] == pytest.approx(0.6)
    assert numbers["localisation_error_top1"] == pytest.approx(2 / 3)
    assert numbers["localisation_error_top5"] == pytest.approx(2 / 3)
    assert numbers["classification_error_top1"] == pytest.approx(2 / 3)
    assert numbers["classification_error_top5"] == pytest.approx(1 / 3)
    assert numbers["pointing_game"] == pytest.approx(2 / 3)  # 15 pixels away is a miss
    assert numbers["pointing_game_0px"] == pytest.approx(1 / 3)
    assert numbers["pointing_game_centre"] == pytest.approx(2 / 3)
    assert numbers["energy"] == pytest.approx(0.5)
    assert numbers["object_share"] == pytest.approx(0.2)
    assert numbers["empty"] == 0
    assert "pixel_iou_mean" not in numbers


def test_the_localisation_error_is_never_below_the_classification_error() -> None:
    rng = np.random.default_rng(0)
    records = [record(str(i), float(rng.random()), rank=int(rng.integers(0, 9))) for i in range(50)]

    numbers = summarise(records).numbers

    for top in ("top1", "top5"):
        localisation = numbers[f"localisation_error_{top}"].estimate
        classification = numbers[f"classification_error_{top}"].estimate
        assert localisation is not None
        assert classification is not None
        assert localisation >= classification


def test_the_threshold_is_one_for_the_whole_set_not_one_per_map() -> None:
    records = [
        record("a", hits=hits(v1=(10, 40))),
        record("b", hits=hits(v1=(30, 60))),
        record("c", hits=hits(v1=(90, 99))),
    ]

    found = summarise(records)

    assert found.numbers["max_box_acc"].estimate == pytest.approx(2 / 3)  # the best of each map would give 1
    assert found.thresholds["max_box_acc"] == 30 / 255


def test_the_second_version_averages_three_overlaps_each_at_its_own_threshold() -> None:
    records = [
        record("a", hits=hits(v30=(0, 50), v50=(100, 120), v70=(200, 210))),
        record("b", hits=hits(v30=(40, 90), v50=(150, 160))),
    ]

    found = summarise(records)

    assert found.numbers["max_box_acc_v2"].estimate == pytest.approx((1 + 0.5 + 0.5) / 3)
    assert found.thresholds["max_box_acc_v2 at 0.3"] == 40 / 255
    assert found.thresholds["max_box_acc_v2 at 0.7"] == 200 / 255


def test_the_best_mean_iou_is_at_one_threshold_for_all_maps() -> None:
    curves = np.zeros((2, 255), dtype="<f2")
    curves[0, 50:120] = 0.5
    curves[1, 100:] = 0.75
    curves[1, 200] = 1

    found = summarise([record(str(i), overlaps=curve.tobytes()) for i, curve in enumerate(curves)])

    assert found.numbers["iou_mean_best"].estimate == 0.625  # the best of each map would give 0.75
    assert found.thresholds["iou_mean_best"] == 100 / 255


def test_empty_maps_are_misses_but_have_no_energy() -> None:
    empty = record("b", 0.0, empty=True, box=None, distance=None, energy=None)

    numbers = summarise([record("a"), empty]).numbers

    assert numbers["pointing_game"].estimate == numbers["iou_50"].estimate == numbers["empty"].estimate == 0.5
    assert (numbers["energy"].estimate, numbers["energy"].n) == (0.5, 1)


def test_rates_of_independent_images_have_wilsons_interval() -> None:
    records = [record(str(i), 0.6 if i < 7 else 0.1) for i in range(10)]
    wilson = wilson_interval(7, 10)

    found = summarise(records).numbers["iou_50"]

    assert (found.ci_low, found.ci_high, found.ci_method, found.n) == (wilson.low, wilson.high, "wilson", 10)


def test_maps_of_one_image_make_the_interval_wider_than_as_many_images() -> None:
    apart = [record(str(i), 0.6 if i < 20 else 0.1) for i in range(40)]
    together = [record(str(i // 2), 0.6 if i < 20 else 0.1) for i in range(40)]

    one, other = (summarise(records).numbers["iou_50"] for records in (apart, together))

    assert one.estimate == other.estimate == 0.5
    assert one.ci_low is not None
    assert other.ci_low is not None
    assert other.ci_low < one.ci_low
    assert other.ci_method == "clustered_wilson"
    assert summarise(together).numbers["iou_mean"].ci_method == "clustered_t"


def test_the_numbers_chosen_on_the_same_maps_say_so() -> None:
    numbers = summarise([record("a"), record("b"), record("c", hits=hits(v1=(0, 9), v30=(0, 9)))]).numbers

    for name in ("max_box_acc", "max_box_acc_v2"):
        assert "chosen on these maps" in (numbers[name].ci_note or "")


def test_without_maps_everything_is_undefined_with_a_reason() -> None:
    found = summarise([])

    assert found.maps == found.units == 0
    assert all(one.estimate is None and one.undefined_reason for one in found.numbers.values())


def test_errors_are_undefined_where_no_rank_is_known() -> None:
    numbers = summarise([record("a", rank=None), record("b", rank=None)]).numbers

    assert numbers["localisation_error_top1"].estimate is None
    assert numbers["localisation_error_top1"].undefined_reason


def test_two_maps_of_one_image_alone_have_no_interval() -> None:
    found = summarise([record("a", 0.1), record("a", 0.9)]).numbers

    assert found["iou_50"].ci_low is None
    assert found["iou_50"].ci_note == found["iou_mean"].ci_note == "needs at least 2 images"


def test_masks_add_the_pixel_iou_and_every_number_has_a_meaning() -> None:
    numbers = summarise([record("a", pixel_iou=0.25), record("b", pixel_iou=0.75)]).numbers

    assert numbers["pixel_iou_mean"].estimate == 0.5
    assert set(numbers) == set(MEANINGS)
