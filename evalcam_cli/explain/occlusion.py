"""How far the scores fall when a window of the image is covered, for all scores from the same forward passes."""

import itertools
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from evalcam_cli.errors import UsageError
from evalcam_cli.explain.copies import Question, ask, filled
from evalcam_cli.explain.maps import Maps, detached, full
from evalcam_cli.explain.targets import Target
from evalcam_cli.explain.untouched import Inputs, untouched


def occlusion(
    model: nn.Module,
    inputs: Inputs,
    target: Target,
    *,
    window: int | None = None,
    stride: int | None = None,
    baseline: float | Tensor = 0.0,
    rows: int = 8,
) -> Maps:
    """Slide a window over the image and see how far each score falls.

    Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks", ECCV 2014,
    https://arxiv.org/abs/1311.2901, section 4.2. The value of a pixel is the mean of score(image) - score(covered) over
    the windows that cover it: positive where covering takes from the score. All channels are covered together, so there
    is one value per pixel and nothing to sum. Windows begin every `stride` pixels; the last in a row or column is cut
    at the border. The model runs once more than there are windows (`count_windows`), whatever the number of scores, and
    nothing is differentiated: any model and any target will do.

    Args:
        model: Called as `model(*inputs)`.
        inputs: (N, 3, H, W) images, normalised as the model expects, on its device, and what else it takes.
        target: What is explained. A class chosen by the output is chosen by that of the uncovered image.
        window: Side in pixels of the input; by default a fifth of its shorter side.
        stride: In pixels of the input; by default half a window.
        baseline: What covers, of a shape that broadcasts to the images; 0 is the mean colour of the normalisation.
        rows: Number of covered images in a forward pass, with one of each image at least.

    Returns:
        (N, T, H, W) maps.

    Raises:
        UsageError: The window is larger than the image, or the stride larger than the window.
        ValueError: The target does not fit the output.
    """
    with untouched(model), torch.no_grad():
        question = ask(model, inputs, target)
        sides = question.images.shape[2:]
        window, stride = _checked_window(sides, window, stride)
        tops, lefts = (_starts(side, window, stride) for side in sides)
        cover = filled(question.images, baseline)
        falls = _falls(question, list(itertools.product(tops, lefts)), window, cover, rows)
    by_place = falls.view(*falls.shape[:2], len(tops), len(lefts))
    down, across = (_shares(side, starts, window) for side, starts in zip(sides, (tops, lefts), strict=True))
    maps = full(torch.einsum("yi,ntij,xj->ntyx", down, by_place, across).to(question.scores.dtype))
    note = f"{window} x {window} px window every {stride} px, {len(tops) * len(lefts)} windows"
    return Maps(detached(question.output), full(question.scores).cpu(), maps, note=note)


def count_windows(height: int, width: int, *, window: int | None = None, stride: int | None = None) -> int:
    """How many windows cover an image of the model's input size."""
    window, stride = _checked_window((height, width), window, stride)
    return len(_starts(height, window, stride)) * len(_starts(width, window, stride))


def _checked_window(sides: Sequence[int], window: int | None, stride: int | None) -> tuple[int, int]:
    side = max(1, min(sides) // 5) if window is None else window
    step = max(1, side // 2) if stride is None else stride
    if not 1 <= side <= min(sides):
        raise UsageError(f"an occlusion window of {side} px does not fit an input of {sides[0]} x {sides[1]} px")
    if not 1 <= step <= side:
        raise UsageError(
            f"an occlusion stride of {step} px must be from 1 to the window of {side} px, to miss no pixel"
        )
    return side, step


def _starts(side: int, window: int, stride: int) -> list[int]:
    """The first pixels of the windows along a side; only the last may reach beyond its end."""
    return [step * stride for step in range(-(-(side - window) // stride) + 1)]


def _falls(question: Question, corners: Sequence[tuple[int, int]], window: int, cover: Tensor, rows: int) -> Tensor:
    """(N, T, windows) float64 on the CPU: score(image) - score(covered)."""
    found = []
    for some in _batched(corners, question.copies_per_pass(rows)):
        copies = question.images.repeat(len(some), 1, 1, 1, 1)
        for copy, (top, left) in zip(copies, some, strict=True):
            covered = (..., slice(top, top + window), slice(left, left + window))
            copy[covered] = cover[covered]
        found.append(question.scores - question.scores_of(copies))
    return torch.cat(found).permute(1, 2, 0).cpu().double().contiguous()


def _batched(corners: Sequence[tuple[int, int]], size: int) -> Iterator[Sequence[tuple[int, int]]]:
    for begin in range(0, len(corners), size):
        yield corners[begin : begin + size]


def _shares(side: int, starts: Sequence[int], window: int) -> Tensor:
    """(pixels, windows) float64: of each pixel, an equal share to each window that covers it along this side.

    A pixel is covered by a window when its row and its column are, so its mean over windows is a mean over rows of
    means over columns.
    """
    pixels, begins = torch.arange(side)[:, None], torch.tensor(starts)[None]
    covers = ((pixels >= begins) & (pixels < begins + window)).double()
    return covers / covers.sum(dim=1, keepdim=True)
