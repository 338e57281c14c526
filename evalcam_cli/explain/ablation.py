"""Ablation-CAM: a channel weighs as much as the score falls without it."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from evalcam_cli.explain.look import look
from evalcam_cli.explain.maps import Maps, detached, full
from evalcam_cli.explain.tail import Tail, record_tail
from evalcam_cli.explain.targets import Combination, Target, compute_scores
from evalcam_cli.explain.untouched import Inputs
from evalcam_cli.progress import Progress, silent


def ablation_cam(
    model: nn.Module, layer: nn.Module, inputs: Inputs, target: Target, *, rows: int = 32, progress: Progress = silent
) -> Maps:
    """Weigh the channels of a layer by the share of the score that is lost when a channel is set to 0.

    Desai and Ramaswamy, "Ablation-CAM: Visual Explanations for Deep Convolutional Network via Gradient-free
    Localization", WACV 2020, before the ReLU: with y the score and y_k the score without channel k, the map is the sum
    over channels of (y - y_k) / y times A_k. Where global average pooling and one linear layer follow, which is tried
    out on every batch, y - y_k is the slope of the score times the mean of the channel, for all scores at once and from
    a single forward pass. Elsewhere the model runs from the layer on, once per image and channel that is not 0
    everywhere, whatever the number of scores.

    The score divides, as in the paper, which has scores above 0 in mind. Below 0 this turns the sign: what speaks for
    the class is negative then, and the note says so. Near 0 the values grow without bound, and a score of exactly 0 has
    a map of NaN.

    Args:
        model: Called as `model(*inputs)`.
        layer: A module of it that runs once, with an (N, C, h, w) output.
        inputs: (N, 3, H, W) images, normalised as the model expects, on its device, and what else it takes.
        target: What is explained. A class chosen by the output is chosen by that of the whole layer.
        rows: Number of ablated copies in a forward pass.
        progress: Told the number of channels done.

    Returns:
        (N, T, h, w) maps, in units of the activations.

    Raises:
        LayerError: The layer is not fit to be explained.
        ValueError: The target does not fit the output.
    """
    with look(model, [layer], inputs, target) as seen:
        output, scores, combination = seen.output, seen.scores.detach(), seen.combination
        activations = seen.activations[0]
        falls = None
        if seen.slopes is not None:
            falls = full(seen.slopes) * full(activations).mean(dim=(2, 3))[:, None]
    if falls is None:
        tail = record_tail(model, layer, inputs)
        falls = _falls(tail, full(scores), target, combination, rows, progress)
    scores, activations = full(scores), full(activations)
    weights = falls / scores[..., None]
    maps = torch.bmm(weights, activations.flatten(2)).view(*weights.shape[:2], *activations.shape[2:])
    return Maps(detached(output), scores.cpu(), full(maps).cpu(), note=_note(scores))


def _falls(
    tail: Tail, scores: Tensor, target: Target, combination: Combination | None, rows: int, progress: Progress
) -> Tensor:
    """(N, T, C): by how much each score falls without each channel; 0 for a channel that is 0 anyway."""
    images, channels = tail.activations.shape[:2]
    falls = scores.new_zeros(images, scores.shape[1], channels)
    alive = (tail.activations != 0).any(dim=3).any(dim=2).any(dim=0).nonzero()[:, 0]
    done = 0
    for some in torch.split(alive, rows if tail.divisible else 1) if len(alive) else ():
        for channel, output in zip(some, _outputs(tail, some), strict=True):
            found = combination.scores(output) if combination else compute_scores(target, output, images)[0]
            falls[:, :, channel] = scores - full(found)
        done += len(some)
        progress("leaving out channels", done, len(alive))
    return falls


def _outputs(tail: Tail, channels: Tensor) -> Iterator[Any]:
    """The model's output for all images without each of these channels."""
    if not tail.divisible:
        (channel,) = channels
        activations = tail.activations.clone()
        activations[:, channel] = 0
        yield tail(activations)
        return
    copies = torch.arange(len(channels), device=channels.device)
    by_image = []
    for image, own in enumerate(tail.activations):
        activations = own.repeat(len(channels), 1, 1, 1)
        activations[copies, channels] = 0
        by_image.append(tail(activations, image))
    yield from torch.stack(by_image, dim=1)


def _note(scores: Tensor) -> str:
    below, zero = int((scores < 0).sum()), int((scores == 0).sum())
    parts = []
    if below:
        parts.append(
            f"{below} of {scores.numel()} scores are below 0; the method divides by the score, so that in their maps "
            "negative values speak for the class"
        )
    if zero:
        parts.append(f"{zero} of {scores.numel()} scores are 0, by which the method cannot divide: no map")
    return "; ".join(parts)
