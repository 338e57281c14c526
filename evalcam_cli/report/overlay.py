"""A class map laid over the original image: on the right pixels, at the image's own size, with a readable scale."""

import bisect
import functools
import io
import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from evalcam_cli.data.preprocessing import Geometry
from evalcam_cli.report.fonts import display_names, font_file

Floats = NDArray[np.float32]

# Every tenth of matplotlib's "inferno" (CC0): from black over red to light yellow, in even steps of lightness.
_INFERNO = (
    *((0, 0, 4), (24, 12, 60), (66, 10, 104), (106, 23, 110), (147, 38, 103), (188, 55, 84)),
    *((221, 81, 58), (243, 118, 27), (252, 165, 10), (246, 215, 70), (252, 255, 164)),
)
_STRONGEST = 0.7
"""Opacity of the hottest pixel; the image stays visible below it."""
_STRIP_WIDTH = 240
"""Least width in pixels of the strip below the image."""
_PAPER, _INK = (250, 250, 250), (20, 20, 20)


def enlarge(class_map: Floats, geometry: Geometry) -> tuple[Floats, NDArray[np.bool_]]:
    """A map of the model's input, on the pixels of the original image.

    Cell (i, j) of an (h, w) map covers the pixels [j * S/w, (j + 1) * S/w) x [i * S/h, (i + 1) * S/h) of the input of
    side S. Each original pixel takes the value at its own centre, linearly between the centres of the cells and
    constant beyond the outermost (as `interpolate(mode="bilinear", align_corners=False)` does), so a cell stands over
    its own share of the image whatever the resize policy. What a cell looked at is wider, and in a ResNet, whose
    strides begin at the first pixel, centred half a stride further up and left.

    Args:
        class_map: (h, w), finite, of any sign.
        geometry: Where the (H, W) original lies in the input.

    Returns:
        The (H, W) float32 heat and, as (H, W) booleans, which pixels the model saw; a crop leaves out the others,
        whose heat is that of the nearest seen pixel.
    """
    size = geometry.image_size
    rows = _centres(geometry.height, geometry.scale_y, geometry.top)
    columns = _centres(geometry.width, geometry.scale_x, geometry.left)
    wide = np.ascontiguousarray(_interpolate(class_map.astype(np.float32).T, columns / size).T)  # (h, W)
    heat = _interpolate(wide, rows / size)
    return heat, ((rows >= 0) & (rows < size))[:, None] & ((columns >= 0) & (columns < size))


def _centres(pixels: int, scale: float, offset: float) -> NDArray[np.float64]:
    """Where the centres of the original's pixels stand in the input, in input pixels along one axis."""
    return np.asarray((np.arange(pixels) + 0.5) * scale + offset, dtype=np.float64)


def _interpolate(cells: Floats, places: NDArray[np.float64]) -> Floats:
    """(P, ...) values at P places along the first axis of (h, ...) cells, which together reach from 0 to 1.

    Without a matrix product: its threads wait for each other when the machine is busy, fifty times as long as it takes.
    """
    last = len(cells) - 1
    positions = np.clip(places * len(cells) - 0.5, 0, last)  # 0 at the centre of the first cell
    lower = positions.astype(np.intp)
    share = (positions - lower).astype(np.float32)[:, None]
    below, above = cells[lower], cells[np.minimum(lower + 1, last)]
    values: Floats = below + share * (above - below)  # exactly the cell's value where all are equal
    return values


def peak(class_map: Floats, geometry: Geometry) -> tuple[int, int]:
    """Pixel (x, y) of the upright original where the enlarged map is largest among the pixels that the model saw.

    Where several are, as along the image's border, the one nearest to the centre of the cell below them.
    """
    heat, seen = enlarge(class_map, geometry)
    largest = heat[seen].max()
    ys, xs = np.nonzero(seen & (heat >= largest - 1e-6 * abs(largest)))  # equal but for rounding
    to_centre = np.hypot(
        xs + 0.5 - _cell_centre(xs[0], class_map.shape[1], geometry.scale_x, geometry.left, geometry.image_size),
        ys + 0.5 - _cell_centre(ys[0], class_map.shape[0], geometry.scale_y, geometry.top, geometry.image_size),
    )
    nearest = int(to_centre.argmin())
    return int(xs[nearest]), int(ys[nearest])


def _cell_centre(pixel: int, cells: int, scale: float, offset: float, size: int) -> float:
    """Centre of the cell over this pixel, in the original's coordinates of one axis."""
    cell = min(max(int(((pixel + 0.5) * scale + offset) * cells / size), 0), cells - 1)
    return ((cell + 0.5) * size / cells - offset) / scale


def colorize(heat: NDArray[np.floating]) -> NDArray[np.uint8]:
    """(..., 3) RGB of heat in [0, 1], in 256 steps; a hotter pixel is never darker."""
    return np.take(_colour_table(), _steps(heat), axis=0)


def _steps(heat: NDArray[np.floating]) -> NDArray[np.uint8]:
    return np.asarray(np.clip(heat, 0, 1) * 255 + 0.5, dtype=np.uint8)


@functools.cache
def _colour_table() -> NDArray[np.uint8]:
    """(256, 3), linear between the anchors."""
    places = np.linspace(0, 255, len(_INFERNO))
    channels = [np.interp(np.arange(256), places, channel) for channel in zip(*_INFERNO, strict=True)]
    return np.asarray(np.stack(channels, axis=1).round(), dtype=np.uint8)


@functools.cache
def _opacity_table() -> NDArray[np.uint8]:
    """(256,) from 0, where the heat is 0, to the strongest; steeper at the beginning."""
    return np.asarray((255 * _STRONGEST * np.linspace(0, 1, 256) ** 0.7).round(), dtype=np.uint8)


def draw_overlay(
    image: Image.Image,
    class_map: Floats,
    geometry: Geometry,
    *,
    caption_lines: Sequence[str] = (),
    label: str = "this class",
    unit: str = "logit units",
) -> Image.Image:
    """The image under the positive part of the map, pixel on pixel at the top left, and below it a strip to read it by.

    The map is divided by its own maximum, which stands at the right end of the colour bar; where the map is not
    positive the image is untouched. What a crop kept from the model is paled and hatched. A map that is nowhere
    positive is called empty and leaves the image plain.

    Args:
        image: The upright RGB original, as `geometry` describes it.
        class_map: (h, w) signed map, finite.
        geometry: Where the original lies in the model's input.
        caption_lines: Class and probability, method and layer, and what else to say; long lines are wrapped, then
            shortened in the middle.
        label: The explained class, for the sentence about an empty map.
        unit: Of the map's values.
    """
    heat, seen = enlarge(class_map, geometry)
    largest = float(class_map.max())
    painted = _blend(image, np.where(seen, heat, 0) / largest) if largest > 0 else image
    remarks = [] if largest > 0 else [f"empty map: nothing speaks for {label}"]
    if not seen.all():
        painted = _hatch(painted, ~seen)
        remarks.append("hatched: cut off, not seen by the model")
    scale = f"{largest:.3g} {unit}" if largest > 0 else None
    strip = _draw_strip(max(image.width, _STRIP_WIDTH), [*caption_lines, *remarks], scale)
    canvas = Image.new("RGB", (strip.width, image.height + strip.height), _PAPER)
    canvas.paste(painted, (0, 0))
    canvas.paste(strip, (0, image.height))
    return canvas


def png_bytes(image: Image.Image) -> bytes:
    """The image as PNG, quickly rather than tightly packed, without metadata."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1, icc_profile=None)
    return buffer.getvalue()


def _blend(image: Image.Image, heat: NDArray[np.floating]) -> Image.Image:
    opacity = np.take(_opacity_table(), _steps(heat))
    return Image.composite(Image.fromarray(colorize(heat)), image, Image.fromarray(opacity))


def _hatch(image: Image.Image, where: NDArray[np.bool_]) -> Image.Image:
    """Paled there, under diagonal lines."""
    period = max(8, min(image.size) // 24)
    diagonals = np.add.outer(np.arange(image.height), np.arange(image.width)) % period < max(1, period // 8)
    opacity = np.where(diagonals, 220, 130).astype(np.uint8) * where
    return Image.composite(Image.new("RGB", image.size, _PAPER), image, Image.fromarray(opacity))


def _draw_strip(width: int, lines: Sequence[str], scale: str | None) -> Image.Image:
    """The caption lines and, unless `scale` is None, the colour bar from 0 to it."""
    size = min(max(width // 30, 12), 40)
    margin, step = size // 2, size * 4 // 3
    font = _font(font_file(lines), size)
    rows = [row for line in _drawable(lines) for row in _wrapped(line, font, width - 2 * margin)]
    bar = 0 if scale is None else 2 * step
    strip = Image.new("RGB", (width, len(rows) * step + bar + margin), _PAPER)
    draw = ImageDraw.Draw(strip)
    for index, row in enumerate(rows):
        draw.text((margin, margin // 2 + index * step), row, fill=_INK, font=font)
    if scale is not None:
        top = margin // 2 + len(rows) * step + step // 4
        strip.paste(_colour_bar(width - 2 * margin, step * 2 // 3), (margin, top))
        draw.text((margin, top + step * 3 // 4), "0", fill=_INK, font=font)
        draw.text((width - margin, top + step * 3 // 4), scale, fill=_INK, font=font, anchor="ra")
    return strip


@functools.lru_cache(maxsize=16)
def _font(path: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size)


def _colour_bar(width: int, height: int) -> Image.Image:
    """The colours as they look over a middle grey, from no heat to the most."""
    ramp = np.broadcast_to(np.linspace(0, 1, width, dtype=np.float32), (height, width))
    return _blend(Image.new("RGB", (width, height), (128, 128, 128)), ramp)


def _drawable(lines: Sequence[str]) -> list[str]:
    """The lines, in ASCII escapes where no font has all their characters."""
    labels, _, legend = display_names(lines)
    if not legend:
        return labels
    return [
        line if line == label else line.encode("unicode_escape").decode()
        for line, label in zip(lines, labels, strict=True)
    ]


def _wrapped(line: str, font: ImageFont.FreeTypeFont, width: int, most: int = 2) -> list[str]:
    """The line on at most so many rows of this width in pixels; shortened in the middle where that is not enough."""
    if font.getlength(line) <= width:
        return [line]
    if most == 1:
        return [_shortened(line, font, width)]
    fitting = _most_fitting(lambda count: line[:count], len(line), font, width)
    gaps = (line.rfind(gap, 0, fitting + 1) for gap in ("  ", " "))  # two spaces stand between parts of a line
    cut = next((gap for gap in gaps if gap > fitting // 2), fitting)
    return [line[:cut].rstrip(), *_wrapped(line[cut:].lstrip(), font, width, most - 1)]


def _shortened(line: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    def kept(count: int) -> str:
        return f"{line[: count - count // 2]}...{line[len(line) - count // 2 :]}"

    return kept(_most_fitting(kept, len(line), font, width))


def _most_fitting(text: Callable[[int], str], limit: int, font: ImageFont.FreeTypeFont, width: int) -> int:
    """The largest count below the limit whose text is at most so wide, in pixels; 0 when none is."""
    wider = bisect.bisect_right(range(limit), width, key=lambda count: math.ceil(font.getlength(text(count))))
    return max(wider - 1, 0)
