"""Score-CAM: a channel weighs as much as the score of the image seen through it."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from evalcam_cli.explain.copies import Question
from evalcam_cli.explain.look import look
from evalcam_cli.explain.maps import Maps, detached, full
from evalcam_cli.explain.targets import Target
from evalcam_cli.explain.untouched import Inputs, as_tuple, untouched
from evalcam_cli.progress import Progress, silent


def score_cam(
    model: nn.Module, layer: nn.Module, inputs: Inputs, target: Target, *, rows: int = 16, progress: Progress = silent
) -> Maps:
    """Weigh the channels of a layer by the scores of the image masked with each of them.

    Wang et al., "Score-CAM", CVPR Workshops 2020, https://arxiv.org/abs/1910.01279, algorithm 1, before the ReLU: each
    channel is enlarged to the image (bilinear, pixel areas aligned as everywhere here), then scaled to reach from 0 to
    1, and multiplied with the image; the weights are the softmax over channels of the scores of the masked images. (The
    score of the black image, which the paper takes off, cancels in that softmax.) The scores are those of the target,
    as a rule logits. A channel that is the same at all places cannot be scaled; its mask is 0.

    The model runs once per image and channel, whatever the number of scores; channels that are constant in all images
    share one run.

    Args:
        model: Called as `model(*inputs)`.
        layer: A module of it that runs once, with an (N, C, h, w) output.
        inputs: (N, 3, H, W) images, normalised as the model expects, on its device, and what else it takes. A masked
            pixel is 0, the mean colour of the normalisation.
        target: What is explained. A class chosen by the output is chosen by that of the whole image.
        rows: Number of masked images in a forward pass, with one of each image at least.
        progress: Told the number of channels done.

    Returns:
        (N, T, h, w) maps, in units of the activations: each a mean over channels. Weights are never negative, so that
        what speaks against a class does not show.

    Raises:
        LayerError: The layer is not fit to be explained.
        ValueError: The target does not fit the output.
    """
    with look(model, [layer], inputs, target) as seen:
        activations = full(seen.activations[0])
        question = Question(model, as_tuple(inputs), target, seen.output, seen.scores.detach(), seen.combination)
    with untouched(model), torch.no_grad():
        scores = _masked_scores(question, activations, rows, progress)
    weights = scores.softmax(dim=2)
    maps = torch.bmm(weights, activations.flatten(2)).view(*weights.shape[:2], *activations.shape[2:])
    return Maps(detached(question.output), full(question.scores).cpu(), full(maps).cpu())


def _masked_scores(question: Question, activations: Tensor, rows: int, progress: Progress) -> Tensor:
    """(N, T, C) scores of each image masked with each channel."""
    images = question.images
    varied = (activations.amax(dim=(2, 3)) > activations.amin(dim=(2, 3))).any(dim=0).nonzero()[:, 0]
    scores = full(question.scores).new_empty(*question.scores.shape, activations.shape[1])
    if len(varied) < activations.shape[1]:
        scores[:] = full(question.scores_of(torch.zeros_like(images)[None]))[0, ..., None]
    done = 0
    for some in torch.split(varied, question.copies_per_pass(rows)) if len(varied) else ():
        masks = _masks(activations[:, some], images.shape[2:]).to(images.dtype)
        found = question.scores_of(masks.transpose(0, 1)[:, :, None] * images)
        scores[..., some] = full(found).permute(1, 2, 0)
        done += len(some)
        progress("masking with channels", done, len(varied))
    return scores


def _masks(activations: Tensor, sides: torch.Size) -> Tensor:
    """(N, C, H, W) from 0 to 1: channels at the size of the image; 0 where a channel is the same everywhere."""
    enlarged = functional.interpolate(activations, tuple(sides), mode="bilinear", align_corners=False)
    lowest, highest = enlarged.amin(dim=(2, 3), keepdim=True), enlarged.amax(dim=(2, 3), keepdim=True)
    # told before enlarging, whose rounding makes a constant vary
    varied = activations.amax(dim=(2, 3), keepdim=True) > activations.amin(dim=(2, 3), keepdim=True)
    return torch.where(varied & (highest > lowest), (enlarged - lowest) / (highest - lowest), 0)
