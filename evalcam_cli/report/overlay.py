"""A class map laid over the original image: on the right pixels, at the image's own size, with a readable scale."""

from collections.abc import Sequence

from PIL import Image

from evalcam_cli.data.preprocessing import Geometry
from evalcam_cli.report.captions import ALARM, PAPER, Paragraph, drawable, lettering
from evalcam_cli.report.colours import Kind, Painted, Scale, colorize, colour_bar, paint
from evalcam_cli.report.enlarging import Floats, enlarge, peak
from evalcam_cli.report.png import png_bytes

__all__ = ["Floats", "colorize", "draw_overlay", "enlarge", "peak", "png_bytes"]

_STRIP_WIDTH = 240
"""Least width in pixels of the strip below the image."""


def draw_overlay(
    image: Image.Image,
    class_map: Floats,
    geometry: Geometry,
    *,
    caption_lines: Sequence[str] = (),
    label: str = "this class",
    unit: str = "logit units",
    kind: Kind = "positive",
    full_scale: float | None = None,
    warning: str | None = None,
) -> Image.Image:
    """The image under the map, pixel on pixel at the top left, and below it a strip to read it by.

    Without a `full_scale` the map is divided by its own largest value, which stands at the right end of the colour
    bar; with one, equal values have equal colours in all pictures, and where larger ones are cut the bar says `>=`.
    Where the map is 0, or not positive if that is its kind, the image is untouched. What a crop kept from the model is
    paled and hatched. A map with nothing to colour is called empty and leaves the image plain.

    Args:
        image: The upright RGB original, as `geometry` describes it.
        class_map: (h, w) signed map, coarser or finer than the image.
        geometry: Where the original lies in the model's input.
        caption_lines: Class and probability, method and layer, and what else to say; long lines are wrapped, then
            shortened in the middle.
        label: The explained class, for the sentence about an empty map.
        unit: Of the map's values.
        kind: Which values are coloured, and how.
        full_scale: The value of the strongest colour; None: the map's own largest (`colours.own_full`).
        warning: Shown as a band right below the image, as for a method that fails the sanity check.

    Raises:
        ValueError: The map has values that are not finite, or the scale is not above 0.
    """
    painted = paint(image, class_map, geometry, Scale(kind, full_scale, unit), label)
    warnings = [] if warning is None else [warning]
    strip = _draw_strip(max(image.width, _STRIP_WIDTH), warnings, [*caption_lines, *painted.remarks], painted, kind)
    canvas = Image.new("RGB", (strip.width, image.height + strip.height), PAPER)
    canvas.paste(painted.image, (0, 0))
    canvas.paste(strip, (0, image.height))
    return canvas


def _draw_strip(width: int, warnings: Sequence[str], lines: Sequence[str], painted: Painted, kind: Kind) -> Image.Image:
    """Warnings on bands, the lines and, unless the map is empty, the colour bar with its ends."""
    size = min(max(width // 30, 12), 40)
    margin, inner = size // 2, width - 2 * (size // 2)
    letters = lettering([*warnings, *lines], size)
    texts = drawable([*warnings, *lines])
    bands = [Paragraph(text, PAPER, ALARM, most=4) for text in texts[: len(warnings)]]
    paragraphs = [Paragraph(text) for text in texts[len(warnings) :]]
    top, step = letters.height(bands, width) + margin // 2, letters.step
    bar = 0 if painted.ends is None else 2 * step
    strip = Image.new("RGB", (width, top + letters.height(paragraphs, inner) + bar + margin - margin // 2), PAPER)
    letters.write(strip, bands, (0, 0), width)
    top = letters.write(strip, paragraphs, (margin, top), inner)
    if painted.ends is not None:
        strip.paste(colour_bar(inner, step * 2 // 3, kind), (margin, top + step // 4))
        letters.write_ends(strip, painted.ends, (margin, top + step), inner)
    return strip
