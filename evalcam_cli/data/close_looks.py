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
_Spans = tuple[tuple[_Span, _Span], tuple[_Span, _Span]]  # rows and columns; of the first picture and of the second

_PAIRS = 512  # looked at together, which bounds the memory


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
        job = functools.partial(close_look, max_pixels=max_pixels, root=root)
        read = map_files(job, root, paths, task="looking closely", progress=progress, jobs=jobs)
        greys = {path: grey for path, grey in zip(paths, read, strict=True) if grey is not None}
        rows = [row for row, (one, other, _) in enumerate(batch) if one in greys and other in greys]
        if rows:
            ours = [turned(greys[batch[row][0]], batch[row][2]) for row in rows]
            theirs = [greys[batch[row][1]] for row in rows]
            places = start + np.array(rows)
            similarity[places], better[places] = _look(ours, theirs, warps[places])
    return Registration(similarity, better)


def _look(first: Sequence[Greys], second: Sequence[Greys], warps: Doubles) -> tuple[Doubles, Doubles]:
    spans = [_spans(warp) for warp in warps]
    ours, theirs = _structures(first, second, spans)
    fitted = register(ours, theirs)
    improved = np.array([_outer(*pair) for pair in zip(spans, fitted.warp, strict=True)])
    again = _structures(first, second, [_spans(warp) for warp in improved])
    best = np.maximum(np.maximum(correlation(ours, theirs), fitted.similarity), correlation(*again))
    return best, improved


def _spans(warp: Doubles) -> _Spans:
    return _common(warp[0], warp[1]), _common(warp[2], warp[3])


def _common(scale: float, shift: float) -> tuple[_Span, _Span]:
    """What of one axis (-0.5 to 0.5) lies on the other picture, and where there."""
    low, high = max(-0.5, (-0.5 - shift) / scale), min(0.5, (0.5 - shift) / scale)
    return (low, high), (scale * low + shift, scale * high + shift)


def _outer(spans: _Spans, warp: Doubles) -> list[float]:
    """The warp between two pictures, from that between their parts."""
    result = []
    for (ours, theirs), (scale, shift) in zip(spans, (warp[:2], warp[2:]), strict=True):
        stretch = (theirs[1] - theirs[0]) * scale / (ours[1] - ours[0])
        middle = (theirs[0] + theirs[1]) / 2 + (theirs[1] - theirs[0]) * shift
        result += [stretch, middle - stretch * (ours[0] + ours[1]) / 2]
    return result


def _structures(first: Sequence[Greys], second: Sequence[Greys], spans: Sequence[_Spans]) -> tuple[Greys, Greys]:
    """(B, SIDE, SIDE) each, of the common parts."""
    ours = np.stack([_part(grey, rows[0], columns[0]) for grey, (rows, columns) in zip(first, spans, strict=True)])
    theirs = np.stack([_part(grey, rows[1], columns[1]) for grey, (rows, columns) in zip(second, spans, strict=True)])
    return structure_of(ours), structure_of(theirs)


def _part(grey: Greys, rows: _Span, columns: _Span) -> NDArray[np.float32]:
    """(SIDE, SIDE) of a part of the picture."""
    side = len(grey)
    left, top, right, bottom = (
        min(max((edge + 0.5) * side, 0.0), float(side)) for edge in (columns[0], rows[0], columns[1], rows[1])
    )
    picture = Image.fromarray(np.ascontiguousarray(grey, dtype=np.float32))
    return np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR, box=(left, top, right, bottom)))
