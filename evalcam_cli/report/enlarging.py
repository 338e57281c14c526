"""A map of the model's input on the pixels of the original image, and where it is largest there. NumPy only."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from evalcam_cli.data.preprocessing import Geometry

Floats = NDArray[np.float32]

_BAND = 1 << 16
"""Pixels that are worked on together: few enough for the processor's cache."""


def enlarge(class_map: Floats, geometry: Geometry) -> tuple[Floats, NDArray[np.bool_]]:
    """A map of the model's input, on the pixels of the original image.

    Cell (i, j) of an (h, w) map covers the pixels [j * S/w, (j + 1) * S/w) x [i * S/h, (i + 1) * S/h) of the input of
    side S. Each original pixel takes the mean of the map over a window around its own centre, which is as wide as one
    cell, or as the pixel where that is wider; beyond the outermost cells the map goes on unchanged. So a cell stands
    over its own share of the image whatever the resize policy. What a cell looked at is wider, and in a ResNet, whose
    strides begin at the first pixel, centred half a stride further up and left.

    Where cells are wider than pixels this is linear between the centres of the cells (as
    `interpolate(mode="bilinear", align_corners=False)`); a map finer than the image, as one value per input pixel over
    a small original, is averaged, so that nothing falls between two pixels and the sum over an area stays.

    Args:
        class_map: (h, w), finite, of any sign.
        geometry: Where the (H, W) original lies in the input.

    Returns:
        The (H, W) float32 heat and, as (H, W) booleans, which pixels the model saw; a crop leaves out the others,
        whose heat is that of the nearest seen pixel.
    """
    heat = np.empty((geometry.height, geometry.width), dtype=np.float32)
    for rows, band in enlarged_bands(class_map, geometry):
        heat[rows] = band
    rows_seen, columns_seen = seen(geometry)
    return heat, rows_seen[:, None] & columns_seen


def enlarged_bands(class_map: Floats, geometry: Geometry) -> Iterator[tuple[slice, Floats]]:
    """The heat of `enlarge`, some rows at a time from the top, for which little memory is needed.

    Yields:
        Which rows, and their (rows, W) values, which may be written to.
    """
    size = geometry.image_size
    across = np.ascontiguousarray(class_map.astype(np.float32).T)  # (w, h)
    columns = _centres(geometry.width, geometry.scale_x, geometry.left) / size
    wide = np.ascontiguousarray(_resampled(across, columns, geometry.scale_x / size).T)  # (h, W)
    places = _centres(geometry.height, geometry.scale_y, geometry.top) / size
    step = max(1, _BAND // geometry.width)
    for start in range(0, geometry.height, step):
        rows = slice(start, min(start + step, geometry.height))
        yield rows, _resampled(wide, places[rows], geometry.scale_y / size)


def seen(geometry: Geometry) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which rows (H,) and which columns (W,) of the original lie in the model's input; a crop leaves some out."""
    rows = _centres(geometry.height, geometry.scale_y, geometry.top)
    columns = _centres(geometry.width, geometry.scale_x, geometry.left)
    size = geometry.image_size
    return (rows >= 0) & (rows < size), (columns >= 0) & (columns < size)


def is_finer(class_map: Floats, geometry: Geometry) -> bool:
    """Whether cells are narrower than pixels along an axis, so that `enlarge` averages."""
    height, width = class_map.shape
    size = geometry.image_size
    return bool(geometry.scale_x * width > size or geometry.scale_y * height > size)


def _centres(pixels: int, scale: float, offset: float) -> NDArray[np.float64]:
    """Where the centres of the original's pixels stand in the input, in input pixels along one axis."""
    return np.asarray((np.arange(pixels) + 0.5) * scale + offset, dtype=np.float64)


def _resampled(cells: Floats, places: NDArray[np.float64], pixel: float) -> Floats:
    """(P, n) means around P places of (h, n) cells, which together reach from 0 to 1, as a pixel's width does."""
    if pixel * len(cells) > 1 + 1e-9:  # not for a pixel as wide as a cell, but for rounding
        return _averaged(cells, places, pixel)
    return _interpolated(cells, places)


def _interpolated(cells: Floats, places: NDArray[np.float64]) -> Floats:
    """Linear between the centres of the cells: the mean over a window as wide as a cell.

    Without a matrix product: its threads wait for each other when the machine is busy, fifty times as long as it takes.
    """
    last = len(cells) - 1
    positions = np.clip(places * len(cells) - 0.5, 0, last)  # 0 at the centre of the first cell
    lower = positions.astype(np.intp)
    share = (positions - lower).astype(np.float32)[:, None]
    values = np.take(cells, np.minimum(lower + 1, last), axis=0)
    below = np.take(cells, lower, axis=0)
    values -= below
    values *= share
    values += below  # exactly the cell's value where all are equal
    return values


def _averaged(cells: Floats, places: NDArray[np.float64], pixel: float) -> Floats:
    """The mean over a window as wide as a pixel: a difference of the map's integral, in float64."""
    integral = np.zeros((len(cells) + 1, cells.shape[1]))
    np.cumsum(cells, axis=0, dtype=np.float64, out=integral[1:])
    start, end = (_integral_to(places + side * pixel / 2, cells, integral) for side in (-1, 1))
    return np.asarray((end - start) / (pixel * len(cells)), dtype=np.float32)


def _integral_to(places: NDArray[np.float64], cells: Floats, integral: NDArray[np.float64]) -> NDArray[np.float64]:
    """(P, n) integrals from 0 to P places, in cells; beyond the ends the outermost cells go on."""
    positions = places * len(cells)
    whole = np.clip(np.floor(positions), 0, len(cells) - 1).astype(np.intp)
    return integral[whole] + (positions - whole)[:, None] * cells[whole]


def peak(class_map: Floats, geometry: Geometry) -> tuple[int, int]:
    """Pixel (x, y) of the upright original where the enlarged map is largest among the pixels that the model saw.

    Where several are, as along the image's border, the one nearest to the centre of the cell below them.
    """
    heat, visible = enlarge(class_map, geometry)
    largest = heat[visible].max()
    ys, xs = np.nonzero(visible & (heat >= largest - 1e-6 * abs(largest)))  # equal but for rounding
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
