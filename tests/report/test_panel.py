from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image, ImageChops, ImageDraw

from evalcam_cli.data.preprocessing import Preprocessing
from evalcam_cli.report import fonts
from evalcam_cli.report.captions import ALARM
from evalcam_cli.report.colours import Scale
from evalcam_cli.report.panel import PICTURE, Cell, Row, draw_panel

METHODS = [
    *("CAM", "Grad-CAM", "Grad-CAM++", "HiResCAM", "XGradCAM", "LayerCAM", "Eigen-CAM", "Score-CAM", "Ablation-CAM"),
    *("Guided Backpropagation", "Guided Grad-CAM", "Occlusion", "Integrated gradients", "SmoothGrad"),
]
MAP = np.array([[0, 0.5], [-1, 2]], dtype=np.float32)


def photo(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def cells(methods: Sequence[str] = METHODS) -> list[Cell]:
    return [Cell(f"{method}, layer4", MAP, Scale()) for method in methods]


def draw(image: Image.Image, rows: Sequence[Row], resize: str = "pad", title: str = "") -> Image.Image:
    return draw_panel(image, rows, Preprocessing(128, resize).geometry(*image.size), title=title)


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, tuple[float, ...]]]:
    """The texts that are drawn from now on, and their boxes."""
    found: list[tuple[str, tuple[float, ...]]] = []
    draw_text = ImageDraw.ImageDraw.text

    def recorded(self: ImageDraw.ImageDraw, xy: tuple[float, float], text: str, **options: object) -> None:
        box = self.textbbox(xy, text, font=options["font"], anchor=options.get("anchor"))  # type: ignore[arg-type]
        found.append((text, box))
        draw_text(self, xy, text, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", recorded)
    return found


def test_every_method_of_every_class_has_its_title_and_its_bar(written: list[tuple[str, tuple[float, ...]]]) -> None:
    rows = [Row(f"{label}  p = 0.5", label, cells()) for label in ("cat", "dog")]

    draw(photo(400, 300), rows, title="a/b.png")

    texts = [text for text, _ in written]
    assert texts[0] == "a/b.png"
    assert [text for text in texts if "layer4" in text] == 2 * [f"{method}, layer4" for method in METHODS]
    assert [text for text in texts if "p =" in text] == ["cat  p = 0.5", "dog  p = 0.5"]
    assert texts.count("2 logit units") == 2 * len(METHODS)


@pytest.mark.parametrize("size", [(400, 300), (20, 28), (3000, 30), (30, 3000), (1, 1)])
def test_no_text_is_clipped_or_runs_into_another(
    size: tuple[int, int], written: list[tuple[str, tuple[float, ...]]]
) -> None:
    long = "a very long name of a class or a layer " * 4
    wordy = [
        Cell(f"{method}, {long}", MAP, Scale("signed", 0.5, long), (long, "identical"), f"fails: {long}")
        for method in METHODS[:6]
    ]

    panel = draw(photo(*size), [Row(f"{long}  p = 0.5", long, wordy)] * 2, "crop", title=long)

    boxes = np.array([box for _, box in written])
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2] <= panel.width).all()
    assert (boxes[:, 3] <= panel.height).all()
    for place, box in enumerate(boxes):
        others = boxes[place + 1 :]
        overlap_x = np.minimum(others[:, 2], box[2]) - np.maximum(others[:, 0], box[0])
        overlap_y = np.minimum(others[:, 3], box[3]) - np.maximum(others[:, 1], box[1])
        assert not ((overlap_x > 1) & (overlap_y > 1)).any()


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((640, 480), (320, 240)),
        ((320, 100), (320, 100)),
        ((100, 150), (200, 300)),
        ((20, 28), (220, 308)),
        ((3000, 30), (320, 3)),
        ((4000, 1), (320, 1)),
    ],
)
def test_pictures_keep_the_proportions_and_whole_pixels(size: tuple[int, int], expected: tuple[int, int]) -> None:
    red = Image.new("RGB", size, (255, 0, 0))

    panel = np.asarray(draw(red, [Row("cat", "cat", [Cell("m", None, Scale(), ("not computed",))])]))

    ys, xs = np.nonzero((panel == (255, 0, 0)).all(axis=-1))
    assert (xs.max() - xs.min() + 1, ys.max() - ys.min() + 1) == expected
    assert max(expected) <= PICTURE


@pytest.mark.parametrize(("methods", "columns"), [(1, 2), (4, 5), (5, 3), (14, 5)])
def test_columns_wrap_evenly(methods: int, columns: int) -> None:
    image = Image.new("RGB", (320, 10), (255, 0, 0))
    empty = [Cell("m", np.zeros((2, 2), dtype=np.float32), Scale())] * methods

    panel = np.asarray(draw(image, [Row("cat", "cat", empty)]))

    red = (panel == (255, 0, 0)).all(axis=-1)
    assert red.sum(axis=1).max() == columns * 320
    assert red.sum() == (methods + 1) * 3200


def test_the_original_stands_first_and_untouched_beside_every_class() -> None:
    image = photo(320, 200)

    panel = draw(image, [Row("cat", "cat", cells(["Grad-CAM"])), Row("dog", "dog", cells(["Grad-CAM"]))])

    places = [top for top in range(panel.height - 200) if same(panel.crop((16, top, 336, top + 200)), image)]
    assert len(places) == 2


def same(one: Image.Image, other: Image.Image) -> bool:
    return ImageChops.difference(one, other).getbbox() is None


def test_warnings_notes_and_empty_maps_are_said(written: list[tuple[str, tuple[float, ...]]]) -> None:
    shown = [
        Cell("HiResCAM", MAP, Scale(), ("identical to Grad-CAM here",)),
        Cell("Guided Backpropagation", MAP, Scale("magnitude"), (), "fails the sanity check"),
        Cell("XGradCAM", -np.abs(MAP), Scale()),
        Cell("Score-CAM", None, Scale(), ("not computed",)),
    ]

    panel = draw(photo(320, 200), [Row("cat", "cat", shown)], "crop")

    texts = [text for text, _ in written]
    for expected in ("identical to Grad-CAM here", "fails the sanity check", "not computed"):
        assert texts.count(expected) == 1
    assert "empty map: nothing speaks for cat" in texts
    assert texts.count("hatched: cut off, not seen by the model") == 1
    assert ALARM in {colour for _, colour in panel.getcolors(2**24) or ()}


def test_names_that_no_font_can_draw_are_drawn_as_escapes(
    monkeypatch: pytest.MonkeyPatch, written: list[tuple[str, tuple[float, ...]]]
) -> None:
    monkeypatch.setattr(fonts, "_font_folders", lambda: ())

    draw(photo(30, 20), [Row("정상", "정상", cells(["Grad-CAM"]))])

    assert r"\uc815\uc0c1" in [text for text, _ in written]


def test_the_strongest_place_is_where_it_is_in_the_image() -> None:
    image = Image.new("RGB", (1600, 400))
    one = np.zeros((8, 8), dtype=np.float32)
    one[3, 6] = 1

    panel = np.asarray(draw(image, [Row("cat", "cat", [Cell("Grad-CAM", one, Scale())])]).convert("L")).astype(int)

    # in the second column, whose picture begins at 16 + 320 + 16: 6.5 of 8 cells right, 3.5 - 3 of 2 cells down
    picture = panel[:, 352:672]
    top = int(np.nonzero((picture == 0).sum(axis=1) > 200)[0][0])
    y, x = np.unravel_index(picture[top : top + 80].argmax(), (80, 320))
    assert abs(x - 6.5 * 40) <= 1
    assert abs(y - 0.5 * 40) <= 1


def test_a_panel_without_classes_is_its_title() -> None:
    assert draw(photo(30, 20), [], title="a.png").height < 100
