import io
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image, ImageChops
from torch.nn import functional

from evalcam_cli.data.preprocessing import Geometry, Preprocessing
from evalcam_cli.report import fonts
from evalcam_cli.report.captions import ALARM
from evalcam_cli.report.colours import Kind, own_full
from evalcam_cli.report.overlay import Floats, colorize, draw_overlay, enlarge, peak, png_bytes

CAPTION = ["cat  p = 0.912", "Grad-CAM, layer4"]


def photo(width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def place(width: int, height: int, resize: str = "pad", image_size: int = 128) -> Geometry:
    return Preprocessing(image_size, resize).geometry(width, height)


def one_hot_cell(shape: tuple[int, int], row: int, column: int) -> Floats:
    cells = np.zeros(shape, dtype=np.float32)
    cells[row, column] = 2
    return cells


def test_a_hotter_pixel_is_never_darker() -> None:
    ramp = np.linspace(0, 1, 1000, dtype=np.float32)

    brightness = colorize(ramp[None])[0].astype(int).sum(axis=-1)

    assert (np.diff(brightness) >= 0).all()
    assert brightness[-1] > brightness[0] + 500


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_heat_has_the_same_colour_in_every_number_type(dtype: type[np.floating]) -> None:
    heat = np.array([[-0.5, 0, 0.25, 0.5, 1, 1.5]])

    assert (colorize(heat.astype(dtype)) == colorize(heat)).all()
    assert (colorize(heat)[0, 0] == colorize(heat)[0, 1]).all()
    assert (colorize(heat)[0, -1] == colorize(heat)[0, -2]).all()


@pytest.mark.parametrize(("shape", "size"), [((7, 7), 224), ((4, 6), 100), ((1, 1), 32), ((8, 8), 8)])
def test_enlarging_equals_bilinear_interpolation_without_aligned_corners(shape: tuple[int, int], size: int) -> None:
    class_map = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    expected = functional.interpolate(
        torch.from_numpy(class_map.astype(np.float64))[None, None], (size, size), mode="bilinear", align_corners=False
    )

    heat, seen = enlarge(class_map, place(size, size, "squash", image_size=size))

    assert heat.dtype == np.float32
    np.testing.assert_allclose(heat, expected[0, 0].numpy(), atol=1e-6)
    assert seen.all()


@pytest.mark.parametrize(("cells", "size"), [(7, 224), (28, 28), (8, 5), (64, 17), (224, 31), (224, 1)])
def test_enlarging_equals_opencv_coarser_and_finer(cells: int, size: int) -> None:
    cv2 = pytest.importorskip("cv2")
    class_map = np.random.default_rng(2).standard_normal((cells, cells)).astype(np.float32)
    how = cv2.INTER_AREA if size < cells else cv2.INTER_LINEAR
    expected = cv2.resize(class_map.astype(np.float64), (size, size), interpolation=how)

    heat, _ = enlarge(class_map, place(size, size, "squash", image_size=224))

    np.testing.assert_allclose(heat, expected, atol=1e-6)


def test_nothing_of_a_fine_map_falls_between_the_pixels_of_a_small_image() -> None:
    class_map = one_hot_cell((224, 224), 100, 37)

    heat, _ = enlarge(class_map, place(20, 20, image_size=224))

    assert heat[100 * 20 // 224, 37 * 20 // 224] == heat.max()
    assert heat.sum() * (224 / 20) ** 2 == pytest.approx(2, rel=1e-6)


def test_averaging_goes_over_into_interpolation_without_a_step() -> None:
    class_map = np.random.default_rng(2).standard_normal((100, 100)).astype(np.float32)

    finer, coarser = (
        enlarge(class_map, Geometry(100, 100, 100, scale, scale, 0, 0))[0] for scale in (1 + 1e-6, 1 - 1e-6)
    )

    np.testing.assert_allclose(finer, coarser, atol=1e-3)


def test_squashing_stretches_the_map_over_the_whole_image() -> None:
    class_map = np.random.default_rng(1).standard_normal((4, 4)).astype(np.float32)
    expected = functional.interpolate(
        torch.from_numpy(class_map)[None, None], (90, 300), mode="bilinear", align_corners=False
    )

    heat, _ = enlarge(class_map, place(300, 90, "squash"))

    np.testing.assert_allclose(heat, expected[0, 0].numpy(), atol=1e-5)


@pytest.mark.parametrize("resize", ["pad", "crop", "squash"])
def test_a_constant_map_is_constant_heat(resize: str) -> None:
    heat, _ = enlarge(np.full((7, 5), 0.3, dtype=np.float32), place(211, 97, resize))

    assert (heat == np.float32(0.3)).all()
    assert heat.shape == (97, 211)


def test_a_crop_sees_the_centre_square_only() -> None:
    _, seen = enlarge(np.ones((4, 4), dtype=np.float32), place(100, 40, "crop"))

    assert seen[:, 30:70].all()
    assert not seen[:, :30].any()
    assert not seen[:, 70:].any()


@pytest.mark.parametrize("resize", ["pad", "crop", "squash"])
@pytest.mark.parametrize(("width", "height"), [(100, 100), (333, 500), (999, 617), (640, 101), (127, 2000)])
@pytest.mark.parametrize("cells", [4, 7])
def test_a_hot_cell_peaks_over_the_same_place_of_the_original(resize: str, width: int, height: int, cells: int) -> None:
    geometry = place(width, height, resize)
    cell = geometry.image_size / cells
    for row, column in np.ndindex(cells, cells):
        centre = geometry.to_original((column + 0.5) * cell, (row + 0.5) * cell)
        if not (0 <= centre[0] < width and 0 <= centre[1] < height):
            continue  # a cell of padding

        x, y = peak(one_hot_cell((cells, cells), row, column), geometry)

        # A pixel of the original is all that sampling at pixel centres can cost.
        assert abs(x + 0.5 - centre[0]) <= 1
        assert abs(y + 0.5 - centre[1]) <= 1


def test_the_peak_of_a_patch_found_by_the_preprocessing_lies_on_the_patch() -> None:
    for resize, (width, height) in [("pad", (500, 200)), ("crop", (500, 200)), ("squash", (200, 500))]:
        image = Image.new("RGB", (width, height))
        image.paste((255, 255, 255), (width // 2 + 20, 80, width // 2 + 60, 120))
        preprocessing = Preprocessing(128, resize)
        seen_by_model = preprocessing.apply(image)[..., 0].astype(np.float32)
        cells = seen_by_model.reshape(16, 8, 16, 8).mean(axis=(1, 3))

        x, y = peak(cells, preprocessing.geometry(width, height))

        assert width // 2 + 20 <= x < width // 2 + 60, resize
        assert 80 <= y < 120, resize


def test_the_peak_is_never_where_the_model_saw_nothing() -> None:
    geometry = place(300, 100, "crop")

    x, y = peak(one_hot_cell((4, 4), 0, 0), geometry)

    assert 100 <= x < 200
    assert 0 <= y < 100


def test_the_peak_of_a_map_that_is_hottest_in_the_padding_lies_in_the_image() -> None:
    x, y = peak(one_hot_cell((4, 4), 0, 1), place(400, 200, "pad"))

    assert (x, y) == (149, 0)


def test_the_peak_along_a_border_lies_at_the_middle_of_its_cell() -> None:
    assert peak(one_hot_cell((4, 4), 3, 0), place(400, 400)) == (49, 350)


def test_the_peak_of_a_negative_map_is_its_largest_value() -> None:
    assert peak(one_hot_cell((4, 4), 1, 2) - 5, place(400, 400)) == (249, 149)


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (3000, 30), (30, 3000), (320, 200)])
@pytest.mark.parametrize("resize", ["pad", "crop", "squash"])
def test_every_size_keeps_its_pixels_at_the_top_left(size: tuple[int, int], resize: str) -> None:
    image = photo(*size)

    overlay = draw_overlay(
        image, one_hot_cell((4, 4), 2, 2) - 3, place(*size, resize="squash"), caption_lines=CAPTION, label="cat"
    )
    drawn = draw_overlay(image, one_hot_cell((4, 4), 2, 2), place(*size, resize), caption_lines=CAPTION)

    assert ImageChops.difference(overlay.crop((0, 0, *size)), image).getbbox() is None
    assert drawn.width == overlay.width == max(size[0], 240)
    assert min(drawn.height, overlay.height) >= size[1] + 30


def test_pixels_without_heat_are_those_of_the_original() -> None:
    image = photo(200, 150)
    class_map = one_hot_cell((8, 8), 4, 4) - one_hot_cell((8, 8), 2, 2)
    geometry = place(200, 150)
    cold = enlarge(class_map, geometry)[0] <= 0

    drawn = np.asarray(draw_overlay(image, class_map, geometry, caption_lines=CAPTION))[:150, :200]

    assert (drawn[cold] == np.asarray(image)[cold]).all()
    assert (drawn[~cold] != np.asarray(image)[~cold]).any()


def test_a_hotter_pixel_of_a_black_image_is_never_darker() -> None:
    black = Image.new("RGB", (256, 256))
    ramp = np.linspace(0, 1, 64, dtype=np.float32)[None]

    drawn = np.asarray(draw_overlay(black, ramp, place(256, 256)))[128, :256].astype(int).sum(axis=-1)

    assert (np.diff(drawn) >= -1).all()
    assert drawn[-1] > 300


def test_the_colours_do_not_depend_on_the_unit_of_the_map() -> None:
    class_map = np.random.default_rng(3).standard_normal((7, 7)).astype(np.float32)
    image, geometry = photo(150, 150), place(150, 150)

    drawn = [np.asarray(draw_overlay(image, class_map * scale, geometry))[:150, :150] for scale in (1, 2**-60, 2**60)]

    assert all((one == other).all() for one, other in pairwise(drawn))


@pytest.mark.parametrize("kind", ["positive", "magnitude"])
def test_each_palette_rises_in_lightness(kind: Kind) -> None:
    colours = colorize(np.linspace(0, 1, 256), kind) / 255

    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)  # sRGB
    lightness = linear @ (0.2126, 0.7152, 0.0722)

    assert (np.diff(lightness) > -2e-3).all()
    assert lightness[-1] > lightness[0] + 0.8


@pytest.mark.parametrize("ground", [(0, 0, 0), (128, 128, 128), (255, 255, 255), (10, 200, 90)])
def test_signed_colours_have_the_side_of_their_sign_and_depart_further_the_larger_the_value(
    ground: tuple[int, int, int],
) -> None:
    image = Image.new("RGB", (400, 40), ground)
    ramp = np.linspace(-1, 1, 401, dtype=np.float32)[None]

    pixels = np.asarray(draw_overlay(image, ramp, place(400, 40, "squash"), kind="signed"))[20, :400].astype(int)

    red_less_blue = (pixels[:, 0] - ground[0]) - (pixels[:, 2] - ground[2])
    away = np.abs(pixels - ground).sum(axis=-1)
    assert (red_less_blue[:190] < 0).all()
    assert (red_less_blue[210:] > 0).all()
    assert (np.diff(away[:200]) <= 0).all()
    assert (np.diff(away[201:]) >= 0).all()


def test_signed_colours_are_symmetric() -> None:
    class_map = np.random.default_rng(3).standard_normal((7, 7)).astype(np.float32)
    image, geometry = photo(150, 150), place(150, 150)

    one, other = (
        np.asarray(draw_overlay(image, sign * class_map, geometry, kind="signed"))[:150, :150] for sign in (1, -1)
    )
    untouched = np.asarray(image)

    assert ((one == untouched).all(axis=-1) == (other == untouched).all(axis=-1)).mean() > 0.99


@pytest.mark.parametrize("kind", ["positive", "magnitude", "signed"])
@pytest.mark.parametrize("full_scale", [None, 0.5])
def test_zero_leaves_the_image_untouched_in_all_kinds(kind: Kind, full_scale: float | None) -> None:
    image, geometry = photo(200, 150), place(200, 150)
    class_map = one_hot_cell((8, 8), 4, 4) - one_hot_cell((8, 8), 2, 2)
    zero = enlarge(np.abs(class_map), geometry)[0] == 0

    drawn = np.asarray(draw_overlay(image, class_map, geometry, kind=kind, full_scale=full_scale))[:150, :200]

    assert zero.mean() > 0.3
    assert (drawn[zero] == np.asarray(image)[zero]).all()
    assert (drawn[~zero] != np.asarray(image)[~zero]).any()


@pytest.mark.parametrize("kind", ["positive", "magnitude", "signed"])
def test_on_a_shared_scale_equal_values_have_equal_colours(kind: Kind) -> None:
    image, geometry = Image.new("RGB", (80, 80), (90, 90, 90)), place(80, 80)
    halves = np.array([[0.25, 0.75]], dtype=np.float32)
    others = np.array([[0.25, 3.0]], dtype=np.float32)

    one, other = (
        np.asarray(draw_overlay(image, cells, geometry, kind=kind, full_scale=2.0))[40] for cells in (halves, others)
    )

    assert (one[5] == other[5]).all()
    assert (one[75] != other[75]).any()


def test_values_above_a_given_scale_are_cut_and_the_bar_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    image, geometry = Image.new("RGB", (300, 80), (90, 90, 90)), place(300, 80, "squash")
    said = drawn_texts(monkeypatch)

    drawn = [
        np.asarray(draw_overlay(image, np.full((2, 2), value, dtype=np.float32), geometry, full_scale=1))[:80, :300]
        for value in (1.0, 3.2)
    ]

    assert (drawn[0] == drawn[1]).all()
    assert said == ["up to 1 here", "0", "1 logit units", "up to 3.2 here", "0", ">= 1 logit units"]


def test_a_signed_bar_goes_from_minus_to_plus_the_largest(monkeypatch: pytest.MonkeyPatch) -> None:
    said = drawn_texts(monkeypatch)
    class_map = one_hot_cell((4, 4), 0, 0) - 2 * one_hot_cell((4, 4), 1, 1)

    draw_overlay(photo(300, 200), class_map, place(300, 200), kind="signed")
    draw_overlay(photo(300, 200), class_map, place(300, 200), kind="signed", full_scale=3)

    assert said == ["-4", "0", "4 logit units", "from -4 to 2 here", "<= -3", "0", "3 logit units"]


def test_a_few_isolated_pixels_do_not_make_the_rest_of_a_fine_map_pale(monkeypatch: pytest.MonkeyPatch) -> None:
    said = drawn_texts(monkeypatch)
    class_map = np.full((64, 64), 0.5, dtype=np.float32)
    class_map[30, 30] = -100

    draw_overlay(photo(300, 300), class_map, place(300, 300), kind="magnitude")

    assert said == ["up to 100 here", "0", ">= 0.5 logit units"]


def test_one_pixel_in_an_empty_fine_map_is_the_scale() -> None:
    assert own_full(one_hot_cell((64, 64), 3, 3), place(300, 300), "magnitude") == 2


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_map_that_is_not_finite_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="not finite"):
        draw_overlay(photo(30, 30), np.array([[0, value]], dtype=np.float32), place(30, 30))


@pytest.mark.parametrize("full_scale", [0, -1, np.nan, np.inf])
def test_a_scale_that_is_not_above_zero_is_refused(full_scale: float) -> None:
    with pytest.raises(ValueError, match="scale must be above 0"):
        draw_overlay(photo(30, 30), one_hot_cell((2, 2), 0, 0), place(30, 30), full_scale=full_scale)


def test_a_warning_stands_in_a_band_right_below_the_image() -> None:
    plain, warned = (
        draw_overlay(photo(300, 200), one_hot_cell((4, 4), 1, 1), place(300, 200), warning=warning)
        for warning in (None, "fails the sanity check: does not depend on what the model learned")
    )

    assert warned.height > plain.height
    assert warned.getpixel((0, 200)) == warned.getpixel((299, 200)) == ALARM
    assert ALARM not in {colour for _, colour in plain.crop((0, 200, 300, plain.height)).getcolors(9999) or ()}


def test_what_a_crop_cut_off_is_paled_and_explained() -> None:
    image = Image.new("RGB", (300, 100), (40, 60, 80))
    class_map = np.full((4, 4), 0.5, dtype=np.float32)

    crop = draw_overlay(image, class_map, place(300, 100, "crop"), caption_lines=CAPTION)
    whole = draw_overlay(image, class_map, place(300, 100, "squash"), caption_lines=CAPTION)

    pixels = np.asarray(crop)[:100]
    assert (pixels[:, :100] > np.asarray(image)[:, :100]).all()
    assert (pixels[:, 100:200] == np.asarray(whole)[:100, 100:200]).all()
    assert crop.height > whole.height  # a line more


@pytest.mark.parametrize("value", [0, -1])
def test_an_empty_map_leaves_the_image_and_says_so(value: float, monkeypatch: pytest.MonkeyPatch) -> None:
    image = photo(300, 200)
    said = drawn_texts(monkeypatch)

    drawn = draw_overlay(
        image, np.full((4, 4), value, dtype=np.float32), place(300, 200), caption_lines=CAPTION, label="cat"
    )

    assert ImageChops.difference(drawn.crop((0, 0, 300, 200)), image).getbbox() is None
    assert "empty map: nothing speaks for cat" in said
    assert not any("logit" in text for text in said)


def test_the_strip_says_class_probability_method_layer_and_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    said = drawn_texts(monkeypatch)

    draw_overlay(photo(300, 200), one_hot_cell((4, 4), 1, 1), place(300, 200), caption_lines=CAPTION)

    assert said == [*CAPTION, "0", "2 logit units"]


@pytest.mark.parametrize("width", [10, 240, 500, 2000])
@pytest.mark.parametrize(
    "name", ["x" * 300, "a long name of many words " * 20, "W W", "'quoted' [name] $x^2$ \n\t\u202e"]
)
@pytest.mark.parametrize("warning", [None, "fails the sanity check: does not depend on what the model learned " * 3])
def test_no_text_is_clipped_and_the_probability_stays(
    width: int, name: str, warning: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    boxes: list[tuple[float, ...]] = []
    said = drawn_texts(monkeypatch, boxes)

    drawn = draw_overlay(
        photo(width, 20),
        one_hot_cell((4, 4), 1, 1),
        place(width, 20),
        caption_lines=[f"{name}  p = 0.912"],
        warning=warning,
    )

    left, top, right, bottom = map(list, zip(*boxes, strict=True))
    assert min(left) >= 0
    assert min(top) >= 0
    assert max(right) <= drawn.width
    assert max(bottom) <= drawn.height - 20
    assert said[-3].endswith("p = 0.912")
    assert len(said) <= (4 if warning is None else 8)


def test_names_that_no_font_can_draw_are_drawn_as_escapes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts, "_font_folders", lambda: ())
    said = drawn_texts(monkeypatch)

    draw_overlay(photo(300, 200), one_hot_cell((4, 4), 1, 1), place(300, 200), caption_lines=["[정상]  p = 1.000", "x"])

    assert said[:2] == [r"[\uc815\uc0c1]  p = 1.000", "x"]


@pytest.mark.parametrize("size", [(40, 30), (1, 1), (1, 70_000), (70_000, 2), (257, 300)])
def test_a_png_is_exact_and_carries_no_metadata(size: tuple[int, int]) -> None:
    image = photo(*size)
    image.info.update({"icc_profile": b"profile", "comment": "secret"})

    loaded = Image.open(io.BytesIO(png_bytes(image)))

    assert ImageChops.difference(loaded.convert("RGB"), image).getbbox() is None
    assert loaded.info == {}
    assert png_bytes(image) == png_bytes(image)


def test_opencv_reads_the_same_pixels_from_a_png() -> None:
    cv2 = pytest.importorskip("cv2")
    image = photo(123, 45)

    loaded = cv2.imdecode(np.frombuffer(png_bytes(image), np.uint8), cv2.IMREAD_UNCHANGED)

    assert (loaded[..., ::-1] == np.asarray(image)).all()


def drawn_texts(monkeypatch: pytest.MonkeyPatch, boxes: list[tuple[float, ...]] | None = None) -> list[str]:
    """What is drawn from now on, and where."""
    from PIL import ImageDraw

    texts: list[str] = []
    draw_text = ImageDraw.ImageDraw.text

    def recorded(self: ImageDraw.ImageDraw, xy: tuple[float, float], text: str, **options: object) -> None:
        texts.append(text)
        if boxes is not None:
            boxes.append(self.textbbox(xy, text, font=options["font"], anchor=options.get("anchor")))  # type: ignore[arg-type]
        draw_text(self, xy, text, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", recorded)
    return texts
