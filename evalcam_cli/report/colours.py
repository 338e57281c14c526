"""From the values of a map to colours over an image: two palettes, three readings, one scale or each map its own."""

import functools
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from evalcam_cli.data.preprocessing import Geometry
from evalcam_cli.report.enlarging import Floats, enlarge, enlarged_bands, is_finer, seen

Kind = Literal["positive", "magnitude", "signed"]
"""`positive`: what speaks for a class; `magnitude`: |value|, where the sign of a pixel has no reading; `signed`: both
sides, as in the difference of two maps."""

# Every tenth of matplotlib's "inferno" (CC0): from black over red to light yellow, in even steps of lightness.
_INFERNO = (
    *((0, 0, 4), (24, 12, 60), (66, 10, 104), (106, 23, 110), (147, 38, 103), (188, 55, 84)),
    *((221, 81, 58), (243, 118, 27), (252, 165, 10), (246, 215, 70), (252, 255, 164)),
)
_AGAINST, _FOR = (25, 115, 255), (255, 85, 10)
"""Blue and vermilion, told apart with every kind of colour blindness; each alone, more opaque where more is."""
_PAPER = (250, 250, 250)
HATCHED = "hatched: cut off, not seen by the model"
"""The remark on what a crop left out."""


@dataclass(frozen=True)
class Scale:
    """How the values of a map become colours."""

    kind: Kind = "positive"
    full: float | None = None
    """The value of the strongest colour, above 0 and the same in every picture that is to be compared; larger values
    look like it. None: each map's own largest."""
    unit: str = "logit units"


@dataclass(frozen=True)
class Painted:
    """An image under a map, and what must be said about it."""

    image: Image.Image
    ends: tuple[str, str, str] | None
    """What stands at the left end, the middle and the right end of the colour bar; None for an empty map."""
    remarks: tuple[str, ...]


def own_full(class_map: Floats, geometry: Geometry, kind: Kind = "positive") -> float:
    """The value of the strongest colour when a map has its own scale; 0 or less when nothing is to be coloured.

    The map's largest value if `positive`. Else the 99.5th percentile of its absolute values, taken from above, because
    a map with one value per pixel is pale beside a few isolated pixels; up to 200 values this is the largest, and it is
    the largest where the percentile is 0. Of a map that is finer than the image, whose pixels show means: of the means.
    The scale of several maps is the largest of theirs.
    """
    shown = _shown(class_map, geometry, kind)
    if kind == "positive":
        return float(shown.max())
    sizes = np.abs(shown).ravel()
    return float(np.quantile(sizes, 0.995, method="higher")) or float(sizes.max())


def _shown(class_map: Floats, geometry: Geometry, kind: Kind) -> Floats:
    """The values that can be seen, in any shape: those of the map or, if it is finer than the image, of its pixels."""
    values = _read(class_map, kind)
    if not is_finer(values, geometry):
        return values
    heat, visible = enlarge(values, geometry)
    return heat[visible]


def paint(
    image: Image.Image, class_map: Floats, geometry: Geometry, scale: Scale, label: str = "this class"
) -> Painted:
    """The image under the map, pixel on pixel; where the map is 0 (or, if `positive`, below) it is untouched.

    What a crop kept from the model is paled and hatched. An empty map is called so and leaves the image plain.

    Args:
        image: The upright RGB original, as `geometry` describes it.
        class_map: (h, w), signed.
        geometry: Where the original lies in the model's input.
        scale: How values become colours.
        label: The explained class, for the sentence about an empty map.

    Raises:
        ValueError: The map is not finite, or the scale's full value not above 0.
    """
    if not np.isfinite(class_map).all():
        raise ValueError("the map has values that are not finite")
    own = own_full(class_map, geometry, scale.kind)
    full = own if scale.full is None else scale.full
    empty = not own > 0
    if not empty and not (math.isfinite(full) and full > 0):
        raise ValueError(f"the full value of the scale must be above 0, not {full}")
    painted = image.copy()
    if not empty:
        _cover(painted, _levels(class_map, geometry, full, scale.kind), scale.kind)
    remarks: tuple[str, ...] = (_emptiness(scale.kind, label),) if empty else ()
    rows, columns = seen(geometry)
    if not (rows.all() and columns.all()):
        _hatch(painted, ~(rows[:, None] & columns))
        remarks += (HATCHED,)
    if empty:
        return Painted(painted, None, remarks)
    shown = _shown(class_map, geometry, scale.kind)
    return Painted(painted, _ends(shown, full, scale), (*_extremes(shown, full, scale), *remarks))


def _emptiness(kind: Kind, label: str) -> str:
    return f"empty map: {f'nothing speaks for {label}' if kind == 'positive' else 'zero everywhere'}"


def _extremes(shown: Floats, full: float, scale: Scale) -> tuple[str, ...]:
    """What the map reaches, where the colour bar does not say it."""
    low, high = float(shown.min()), float(shown.max())
    if scale.kind == "signed":
        return () if scale.full is None and max(-low, high) <= full else (f"from {low:.3g} to {high:.3g} here",)
    return () if scale.full is None and high <= full else (f"up to {high:.3g} here",)


def _ends(shown: Floats, full: float, scale: Scale) -> tuple[str, str, str]:
    """Values along the colour bar; `>=` where larger ones look the same."""
    last = f"{'>= ' if shown.max() > full else ''}{full:.3g} {scale.unit}"
    if scale.kind == "signed":
        return f"{'<= ' if shown.min() < -full else ''}-{full:.3g}", "0", last
    return "0", "", last


def colorize(heat: NDArray[np.floating], kind: Kind = "positive") -> NDArray[np.uint8]:
    """(..., 3) RGB of heat in units of the strongest colour, clipped there, in 256 steps.

    From 0 to 1 a hotter pixel is never darker. Signed heat from -1 to 1 is blue below 0 and vermilion above.
    """
    return np.take(_colours(kind), _quantised(np.array(heat, dtype=np.float64), kind), axis=0)


def colour_bar(width: int, height: int, kind: Kind = "positive") -> Image.Image:
    """The colours as they look over a middle grey, from the least to the strongest."""
    return _colour_bar(width, height, kind).copy()


@functools.lru_cache(maxsize=16)
def _colour_bar(width: int, height: int, kind: Kind) -> Image.Image:
    ramp = np.linspace(-1 if kind == "signed" else 0, 1, width)
    levels = np.ascontiguousarray(np.broadcast_to(_quantised(ramp, kind), (height, width)))
    bar = Image.new("RGB", (width, height), (128, 128, 128))
    _cover(bar, levels, kind)
    return bar


def _read(class_map: Floats, kind: Kind) -> Floats:
    return np.abs(class_map) if kind == "magnitude" else class_map


def _levels(class_map: Floats, geometry: Geometry, full: float, kind: Kind) -> NDArray[np.uint8]:
    """(H, W) rows of the palette; that of 0 where the model saw nothing."""
    scaled = (_read(class_map, kind) / full).astype(np.float32)
    levels = np.empty((geometry.height, geometry.width), dtype=np.uint8)
    for rows, heat in enlarged_bands(scaled, geometry):
        levels[rows] = _quantised(heat, kind)
    rows_seen, columns_seen = seen(geometry)
    nothing = 128 if kind == "signed" else 0
    levels[~rows_seen] = nothing
    levels[:, ~columns_seen] = nothing
    return levels


def _quantised(heat: NDArray[np.floating], kind: Kind) -> NDArray[np.uint8]:
    """Rows of the palette: 0 for 0 to 255 for 1; signed, 1 for -1 over 128 for 0 to 255 for 1. Overwrites the heat."""
    low, steps, nothing = (-1, 127, 128) if kind == "signed" else (0, 255, 0)
    np.clip(heat, low, 1, out=heat)
    heat *= steps
    heat += nothing + 0.5
    return heat.astype(np.uint8)


def _cover(image: Image.Image, levels: NDArray[np.uint8], kind: Kind) -> None:
    """Lay the palette's colours over the image."""
    colours = Image.fromarray(levels)
    opacity = colours.point(_opacities(kind).tolist())
    colours.putpalette(_colours(kind).tobytes())
    image.paste(colours.convert("RGB"), (0, 0), opacity)


@functools.cache
def _colours(kind: Kind) -> NDArray[np.uint8]:
    """(256, 3)"""
    if kind == "signed":
        return np.repeat(np.array([_AGAINST, _FOR], dtype=np.uint8), 128, axis=0)
    places = np.linspace(0, 1, len(_INFERNO))
    heat = np.linspace(0.3 if kind == "magnitude" else 0, 1, 256)  # points in black would be lost on a dark image
    channels = [np.interp(heat, places, channel) for channel in zip(*_INFERNO, strict=True)]
    return np.asarray(np.stack(channels, axis=1).round(), dtype=np.uint8)


@functools.cache
def _opacities(kind: Kind) -> NDArray[np.uint8]:
    """(256,) from 0, where the heat is 0, to the strongest; steeper at the beginning."""
    strongest, exponent = {"positive": (0.7, 0.7), "magnitude": (0.9, 0.6), "signed": (0.7, 0.6)}[kind]
    heat = np.abs(np.arange(-128, 128)) / 127 if kind == "signed" else np.linspace(0, 1, 256)
    return np.asarray((255 * strongest * np.minimum(heat, 1) ** exponent).round(), dtype=np.uint8)


def _hatch(image: Image.Image, where: NDArray[np.bool_]) -> None:
    """Pale it there, under diagonal lines."""
    period = max(8, min(image.size) // 24)
    diagonals = np.add.outer(np.arange(image.height), np.arange(image.width)) % period < max(1, period // 8)
    opacity = np.where(diagonals, np.uint8(220), np.uint8(130)) * where
    image.paste(_PAPER, (0, 0, *image.size), Image.fromarray(opacity))
