"""How the scores depend on the pixels: the gradient, its mean over noisy copies, its integral from a baseline."""

import hashlib
from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from evalcam_cli.errors import UsageError
from evalcam_cli.explain.copies import Attributions, Question, ask, filled
from evalcam_cli.explain.maps import Maps, full
from evalcam_cli.explain.targets import Target
from evalcam_cli.explain.untouched import Inputs, as_tuple, untouched

Rule = Literal["gauss-legendre", "midpoint"]
"""Where an integral is sampled and how the samples weigh."""


def gradient(model: nn.Module, inputs: Inputs, target: Target) -> Maps:
    """(N, T, H, W): `gradient_attributions`, summed over the channels."""
    return gradient_attributions(model, inputs, target).maps()


def gradient_attributions(model: nn.Module, inputs: Inputs, target: Target) -> Attributions:
    """The derivatives of each score by the image.

    Simonyan et al., "Deep Inside Convolutional Networks", 2014, https://arxiv.org/abs/1312.6034, section 3. In units of
    the score per unit of the normalised image.

    Args:
        model: Called as `model(*inputs)`.
        inputs: (N, 3, H, W) images, normalised as the model expects, on its device, and what else it takes.
        target: What is explained.

    Raises:
        UsageError: A score cannot be differentiated by the image.
        ValueError: The target does not fit the output.
    """
    return differentiate(model, inputs, target)


def differentiate(
    model: nn.Module, inputs: Inputs, target: Target, prepare: Callable[[Tensor], str] = lambda scores: ""
) -> Attributions:
    """As `gradient_attributions`, after `prepare` has seen, and perhaps altered, the graph of the (N, T) scores.

    What it returns becomes the note.
    """
    with untouched(model):
        leaf = as_tuple(inputs)[0].clone().requires_grad_()
        question = ask(model, inputs, target, leaf=leaf)
        _require_graph(question.scores)
        note = prepare(question.scores)
        return question.answer(_derivatives(question.scores, leaf), note)


def smooth_grad(
    model: nn.Module,
    inputs: Inputs,
    target: Target,
    *,
    copies: int = 25,
    noise: float = 0.15,
    seed: int = 0,
    rows: int = 8,
) -> Maps:
    """(N, T, H, W): `smooth_grad_attributions`, summed over the channels."""
    return smooth_grad_attributions(model, inputs, target, copies=copies, noise=noise, seed=seed, rows=rows).maps()


def smooth_grad_attributions(
    model: nn.Module,
    inputs: Inputs,
    target: Target,
    *,
    copies: int = 25,
    noise: float = 0.15,
    seed: int = 0,
    rows: int = 8,
) -> Attributions:
    """The mean gradient over copies of the image with Gaussian noise.

    Smilkov et al., "SmoothGrad", 2017, https://arxiv.org/abs/1706.03825, section 3. The noise is drawn from the seed
    and the image's own values: the same image has the same maps alone, in any batch and in any order.

    Args:
        model: Called as `model(*inputs)`.
        inputs: (N, 3, H, W) images, normalised as the model expects, on its device, and what else it takes.
        target: What is explained. A class chosen by the output is chosen by that of the image without noise.
        copies: Number of noisy copies.
        noise: Standard deviation, as a share of the difference between the image's largest and smallest value; the
            paper finds 0.1 to 0.2 to balance sharpness against noise.
        seed: Of the noise.
        rows: Number of copies that are differentiated together, with one copy of each image at least.

    Raises:
        UsageError: A score cannot be differentiated by the image, or an option is out of range.
        ValueError: The target does not fit the output.
    """
    if copies < 1 or noise < 0:
        raise UsageError(f"SmoothGrad with {copies} copies and noise {noise:g}; at least 1, and noise from 0 up")
    with untouched(model):
        with torch.no_grad():
            question = ask(model, inputs, target)
        values = _weighted_gradients(question, _noisy(question.images, copies, noise, seed), rows)
    return question.answer(values, f"mean of {copies} noisy copies, noise {noise:g} of the image's range, seed {seed}")


def _noisy(images: Tensor, copies: int, noise: float, seed: int) -> Iterator[tuple[float, Tensor]]:
    """Each noisy copy of all images, and the weight of its gradient."""
    deviations = noise * (images.amax(dim=(1, 2, 3), keepdim=True) - images.amin(dim=(1, 2, 3), keepdim=True))
    generators = [np.random.default_rng([seed, *_digest(image)]) for image in images]
    for _ in range(copies):
        drawn = [generator.standard_normal(images.shape[1:], dtype=np.float32) for generator in generators]
        yield 1 / copies, images + deviations * torch.from_numpy(np.stack(drawn)).to(images)


def _digest(image: Tensor) -> NDArray[np.uint32]:
    """Numbers that stand for the image's values, whatever its precision and device."""
    values = np.ascontiguousarray(image.float().cpu().numpy())
    return np.frombuffer(hashlib.sha256(values.tobytes()).digest(), dtype="<u4")


def integrated_gradients(
    model: nn.Module,
    inputs: Inputs,
    target: Target,
    *,
    baseline: float | Tensor = 0.0,
    steps: int = 32,
    rule: Rule = "gauss-legendre",
    rows: int = 8,
) -> Maps:
    """(N, T, H, W): `integrated_gradient_attributions`, summed over the channels."""
    return integrated_gradient_attributions(
        model, inputs, target, baseline=baseline, steps=steps, rule=rule, rows=rows
    ).maps()


def integrated_gradient_attributions(
    model: nn.Module,
    inputs: Inputs,
    target: Target,
    *,
    baseline: float | Tensor = 0.0,
    steps: int = 32,
    rule: Rule = "gauss-legendre",
    rows: int = 8,
) -> Attributions:
    """What each value of the image adds to the score on the straight way from a baseline to the image.

    Sundararajan et al., "Axiomatic Attribution for Deep Networks", ICML 2017, https://arxiv.org/abs/1703.01365,
    equation 1, the integral as a weighted sum of gradients. With enough steps the attributions sum to score(image) -
    score(baseline), proposition 1; by how much they miss it is said in `gap` and in the note.

    Args:
        model: Called as `model(*inputs)`.
        inputs: (N, 3, H, W) images, normalised as the model expects, on its device, and what else it takes.
        target: What is explained. A class chosen by the output is chosen by that of the image itself.
        baseline: Where the way begins, of a shape that broadcasts to the images; 0 is the mean colour of the
            normalisation.
        steps: Number of places at which the gradient is taken.
        rule: `gauss-legendre`, or `midpoint`: the centres of equal parts, all of equal weight.
        rows: Number of places that are differentiated together, with one of each image at least.

    Raises:
        UsageError: A score cannot be differentiated by the image, or an option is out of range.
        ValueError: The target does not fit the output.
    """
    if steps < 1:
        raise UsageError(f"integrated gradients with {steps} steps; at least 1")
    with untouched(model):
        with torch.no_grad():
            question = ask(model, inputs, target)
            start = filled(question.images, baseline)
            gained = question.scores - question.scores_of(start[None])[0]
        way = question.images - start
        gradients = _weighted_gradients(question, _on_the_way(start, way, rule, steps), rows)
        values = gradients * way[:, None]
    gap = (values.sum(dim=(2, 3, 4)) - full(gained)).cpu()
    note = (
        f"integral over {steps} {rule} steps; sums to score - score of the baseline (up to "
        f"{float(gained.abs().max()):.3g}) within {float(gap.abs().max()):.2g}"
    )
    return question.answer(values, note, gap)


def _on_the_way(start: Tensor, way: Tensor, rule: Rule, steps: int) -> Iterator[tuple[float, Tensor]]:
    """The images at each step between start and end, and the weight of its gradient."""
    if rule == "midpoint":
        shares, weights = (np.arange(steps) + 0.5) / steps, np.full(steps, 1 / steps)
    else:
        nodes, halves = np.polynomial.legendre.leggauss(steps)  # between -1 and 1
        shares, weights = (nodes + 1) / 2, halves / 2
    for share, weight in zip(shares.tolist(), weights.tolist(), strict=True):
        yield weight, start + share * way


def _weighted_gradients(question: Question, weighted: Iterator[tuple[float, Tensor]], rows: int) -> Tensor:
    """(N, T, 3, H, W): the sum over copies of all images of weight x derivatives, so many rows at a time."""
    total: Tensor | None = None
    for weights, copies in _batched(weighted, question.copies_per_pass(rows)):
        leaf = copies.requires_grad_()
        scores = question.scores_of(leaf)
        _require_graph(scores)
        weighed = (torch.tensor(weights).to(scores)[:, None, None] * scores).sum(dim=0)
        summed = _derivatives(weighed, leaf, over_copies=True)
        total = summed if total is None else total + summed
    assert total is not None  # there is at least one copy
    return total


def _batched(weighted: Iterator[tuple[float, Tensor]], size: int) -> Iterator[tuple[list[float], Tensor]]:
    weights, copies = [], []
    for weight, copy in weighted:
        weights.append(weight)
        copies.append(copy)
        if len(copies) == size:
            yield weights, torch.stack(copies)
            weights, copies = [], []
    if copies:
        yield weights, torch.stack(copies)


def _derivatives(scores: Tensor, leaf: Tensor, *, over_copies: bool = False) -> Tensor:
    """(N, T, 3, H, W): derivatives of each of the (N, T) scores by the leaf, or their sum over its first dimension."""
    found = []
    for place in range(scores.shape[1]):  # one score at a time: all together might not fit
        # in evaluation mode images do not mix, so the gradient of the sum over images is each image's own
        (slopes,) = torch.autograd.grad(scores[:, place].sum(), leaf, retain_graph=True, allow_unused=True)
        if slopes is None:
            raise _not_differentiable()
        found.append(full(slopes).sum(dim=0) if over_copies else full(slopes))
    return torch.stack(found, dim=1)


def _require_graph(scores: Tensor) -> None:
    if not scores.requires_grad:
        raise _not_differentiable()


def _not_differentiable() -> UsageError:
    return UsageError(
        "the score cannot be differentiated by the image: the model or the target turns gradients off on the way; "
        "occlusion needs none: --method occlusion"
    )
