"""How well one small picture lies on another once a slight crop, a shift and a change of light are undone."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Flags = NDArray[np.bool_]

MIN_OVERLAP = 0.75
"""Share of the first picture that must lie on the second."""
_STEPS = 5
_BORDER = 1  # cells along the border that are not compared: a filter has no neighbours there
_LARGEST_STEP = np.array([0.08, 1.5 / 32, 0.08, 1.5 / 32])
_SCALES = (0.8, 1.25)
_SHIFT = 0.1


@dataclass(frozen=True)
class Registration:
    """Of B pairs of pictures."""

    similarity: Doubles
    """(B,) correlation of the cells that lie on each other, -1 to 1."""
    warp: Doubles
    """(B, 4): a point at (y, x) of the first lies at (a*y + b, c*x + d) of the second, measured from the centres in
    units of the side; columns a, b, c, d."""


def register(first: NDArray[np.floating], second: NDArray[np.floating]) -> Registration:
    """Lay each of (B, n, n) pictures onto its partner by stretching and shifting it along both axes.

    Gauss-Newton steps on the squared difference of the normalised pictures: the inverse compositional algorithm of
    Baker and Matthews, "Lucas-Kanade 20 Years On", 2004, section 3.2, https://doi.org/10.1023/B:VISI.0000011205.11775.fd,
    from no stretch and no shift. The best of all steps counts, so the result is never worse than the start.
    """
    template, image = normalised(first), second.astype(np.float32)
    count, side, _ = template.shape
    directions = _steepest_descent(template, side)
    hessian = np.einsum("bip,bjp->bij", directions, directions).astype(np.float64) + 1e-6 * np.eye(4)
    warp = np.tile(np.array([1.0, 0.0, 1.0, 0.0]), (count, 1))
    best, best_warp = np.full(count, -1.0), warp.copy()
    for step in range(_STEPS + 1):
        warped, inside = _warped(image, warp, side)
        similarity = _correlation(template, warped, inside)
        better = similarity > best
        best[better], best_warp[better] = similarity[better], warp[better]
        if step < _STEPS:
            error = (normalised(warped) - template).reshape(count, -1) * inside.reshape(count, -1)
            slope = np.einsum("bip,bp->bi", directions, error).astype(np.float64)
            warp = _composed(warp, np.linalg.solve(hessian, slope[..., None])[..., 0])
    return Registration(best, best_warp)


def normalised(pictures: NDArray[np.floating]) -> Floats:
    """(B, n, n) float32 with zero mean and unit norm; zeros where a picture has no structure."""
    centred = pictures.astype(np.float32) - pictures.mean(axis=(1, 2), keepdims=True, dtype=np.float32)
    norm = np.sqrt((centred * centred).sum(axis=(1, 2), keepdims=True))
    return np.asarray(centred / np.maximum(norm, np.float32(1e-9)), dtype=np.float32)


def correlation(first: NDArray[np.floating], second: NDArray[np.floating]) -> Doubles:
    """(B,) correlation of (B, n, n) pictures as they lie."""
    return np.asarray((normalised(first) * normalised(second)).sum(axis=(1, 2)), dtype=np.float64)


def _grid(side: int) -> Doubles:
    """Centres of the cells from the centre of the picture, in units of the side."""
    return (np.arange(side) - (side - 1) / 2) / side


def _steepest_descent(template: Floats, side: int) -> Floats:
    """(B, 4, n*n): how each cell changes with a, b, c, d; free of what a change of light would explain."""
    down, right = np.gradient(template, axis=(1, 2))  # per cell
    grid = _grid(side).astype(np.float32)
    stacked = np.stack([down * grid[:, None], down, right * grid, right], axis=1) * np.float32(side)
    directions = stacked.reshape(len(template), 4, -1)
    flat = template.reshape(len(template), 1, -1)
    directions = directions - directions.mean(axis=2, keepdims=True)
    return np.asarray(directions - (directions * flat).sum(axis=2, keepdims=True) * flat, dtype=np.float32)


def _composed(warp: Doubles, change: Doubles) -> Doubles:
    """The warp after the inverse of a small one, kept within what a slight crop can be."""
    change = np.clip(change, -_LARGEST_STEP, _LARGEST_STEP)
    result = np.empty_like(warp)
    for scale, shift in ((0, 1), (2, 3)):
        result[:, scale] = np.clip(warp[:, scale] / (1 + change[:, scale]), *_SCALES)
        result[:, shift] = np.clip(warp[:, shift] - result[:, scale] * change[:, shift], -_SHIFT, _SHIFT)
    return result


def _warped(image: Floats, warp: Doubles, side: int) -> tuple[Floats, Flags]:
    """(B, n, n) values of the image where the template's cells lie, and which of them can be compared."""
    rows = _places(warp[:, 0], warp[:, 1], side)
    columns = _places(warp[:, 2], warp[:, 3], side)
    # products of matrices this small run on one thread: their digits do not depend on the number of threads
    values = _weights(rows, side) @ image @ _weights(columns, side).swapaxes(1, 2)
    return values.astype(np.float32, copy=False), _within(rows, side)[:, :, None] & _within(columns, side)[:, None, :]


def _places(scale: Doubles, shift: Doubles, side: int) -> Doubles:
    """(B, n) positions in the image, in cells."""
    return np.asarray((scale[:, None] * _grid(side) + shift[:, None]) * side + (side - 1) / 2)


def _within(places: Doubles, side: int) -> Flags:
    inner = np.zeros(side, dtype=bool)
    inner[_BORDER : side - _BORDER] = True
    return np.asarray((places >= _BORDER) & (places <= side - 1 - _BORDER) & inner)


def _weights(places: Doubles, side: int) -> Floats:
    """(B, P, n) weights of n cells at P places, by Catmull-Rom cubics; places beyond the outer cells are on them."""
    places = np.clip(places, 0, side - 1)
    away = np.abs(places[:, :, None].astype(np.float32) - np.arange(side, dtype=np.float32))
    near = (1.5 * away - 2.5) * away * away + 1
    far = ((-0.5 * away + 2.5) * away - 4) * away + 2
    weights = np.where(away < 1, near, np.where(away < 2, far, np.float32(0)))
    # at the border a cubic lacks a neighbour; its weight goes to the others
    return np.asarray(weights / weights.sum(axis=2, keepdims=True), dtype=np.float32)


def _correlation(template: Floats, image: Floats, inside: Flags) -> Doubles:
    """(B,) over the cells that can be compared; -1 where too few can."""
    weights = inside.astype(np.float32)
    count = weights.sum(axis=(1, 2), keepdims=True)
    enough = count[:, 0, 0] >= MIN_OVERLAP * (template.shape[1] - 2 * _BORDER) ** 2
    count = np.maximum(count, 1)
    first = (template - (template * weights).sum(axis=(1, 2), keepdims=True) / count) * weights
    second = (image - (image * weights).sum(axis=(1, 2), keepdims=True) / count) * weights
    norms = (first * first).sum(axis=(1, 2)) * (second * second).sum(axis=(1, 2))
    products = (first * second).sum(axis=(1, 2))
    return np.where(enough, products / np.sqrt(np.maximum(norms, 1e-12)), -1.0).astype(np.float64)
