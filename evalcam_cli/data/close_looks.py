"""The closer look at a pair that may be one picture: both read again, larger, and cut to what they have in common."""

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from evalcam_cli.data.fingerprints import SIDE, close_look, structure_of
from evalcam_cli.data.neighbours import turned
from evalcam_cli.data.parallel import map_files
from evalcam_cli.data.registration import Registration, correlation, register
from evalcam_cli.progress import Progress, silent

Doubles = NDArray[np.float64]
Greys = NDArray[np.floating]
_Span = tuple[float, float]

_PAIRS = 1000  # looked at together, which bounds the memory


def look_closely(
    root: Path,
    pairs: Sequence[tuple[str, str, int]],
    warps: Doubles,
    *,
    max_pixels: int,
    progress: Progress = silent,
    jobs: int | None = None,
) -> Registration:
    """How alike the pictures of each pair are where they overlap, and exactly how the first lies on the second.

    A fingerprint's filters see past the border of a crop, its cells are large, and interpolating them costs a few
    percent of similarity. Here both pictures are cut to the common part before they are made small, twice: with the
    warp of the fingerprints, then with the one improved by it. The best of the three comparisons counts.

    Args:
        root: The folder that the paths are relative to.
        pairs: (path, path, variant): the variant in which the first lies like the second.
        warps: (B, 4) of these pairs, as in `Registration`.
        max_pixels: Larger images cannot be read.
        progress: Told `looking closely`.
        jobs: Worker processes.

    Returns:
        Of the pairs; similarity -1 where an image can no longer be read.
    """
    similarity, better = np.full(len(pairs), -1.0), warps.copy()
    for start in range(0, len(pairs), _PAIRS):
        batch = pairs[start : start + _PAIRS]
        paths = sorted({path for first, second, _ in batch for path in (first, second)})
        job = functools.partial(close_look, max_pixels=max_pixels)
        greys = dict(
            zip(paths, map_files(job, root, paths, task="looking closely", progress=progress, jobs=jobs), strict=True)
        )
        for row, (first, second, variant) in enumerate(batch, start):
            one, other = greys[first], greys[second]
            if one is not None and other is not None:
                similarity[row], better[row] = _look(turned(one, variant), other, warps[row])
    return Registration(similarity, better)


def _look(first: Greys, second: Greys, warp: Doubles) -> tuple[float, Doubles]:
    spans = [_common(warp[0], warp[1]), _common(warp[2], warp[3])]
    one, other = _structures(first, second, spans)
    fitted = register(one, other)
    improved = np.array(
        [
            number
            for axis, (ours, theirs) in enumerate(spans)
            for number in _outer(ours, theirs, fitted.warp[0, 2 * axis], fitted.warp[0, 2 * axis + 1])
        ]
    )
    again = _structures(first, second, [_common(improved[0], improved[1]), _common(improved[2], improved[3])])
    best = max(correlation(one, other)[0], fitted.similarity[0], correlation(*again)[0])
    return float(best), improved


def _common(scale: float, shift: float) -> tuple[_Span, _Span]:
    """What of one axis (-0.5 to 0.5) lies on the other picture, and where there."""
    low, high = max(-0.5, (-0.5 - shift) / scale), min(0.5, (0.5 - shift) / scale)
    return (low, high), (scale * low + shift, scale * high + shift)


def _outer(ours: _Span, theirs: _Span, scale: float, shift: float) -> tuple[float, float]:
    """The scale and shift between two pictures, from those between their parts."""
    stretch = (theirs[1] - theirs[0]) * scale / (ours[1] - ours[0])
    middle = (theirs[0] + theirs[1]) / 2 + (theirs[1] - theirs[0]) * shift
    return stretch, middle - stretch * (ours[0] + ours[1]) / 2


def _structures(first: Greys, second: Greys, spans: Sequence[tuple[_Span, _Span]]) -> tuple[Greys, Greys]:
    (rows, other_rows), (columns, other_columns) = spans
    parts = np.stack([_part(first, rows, columns), _part(second, other_rows, other_columns)])
    both = structure_of(parts)
    return both[:1], both[1:]


def _part(grey: Greys, rows: _Span, columns: _Span) -> NDArray[np.float32]:
    """(SIDE, SIDE) of a part of the picture."""
    side = len(grey)
    left, top, right, bottom = (
        min(max((edge + 0.5) * side, 0.0), float(side)) for edge in (columns[0], rows[0], columns[1], rows[1])
    )
    picture = Image.fromarray(np.ascontiguousarray(grey, dtype=np.float32))
    return np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR, box=(left, top, right, bottom)))
