"""Copies of a model whose layers, from the head down, have forgotten what they learned."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from evalcam_cli.explain.untouched import untouched

BLOCKS = 4
"""Steps in which the layers below the head are randomised by default."""


@dataclass(frozen=True)
class Stage:
    """Layers that are randomised together."""

    name: str
    """In a sentence: "the head"."""
    layers: tuple[str, ...]
    """As in `model.named_modules()`."""


def find_stages(model: nn.Module, images: Tensor, *, blocks: int = BLOCKS) -> tuple[Stage, ...]:
    """The head alone, then cascading to all layers, `blocks` steps in all (Adebayo et al. 2018, section 3).

    Layers stand in the order in which they run. The head is the last one with weights; those before it are divided into
    runs of about equal length. What normalises (batch norm and the like) goes with the layer before it. With 0 blocks
    only the head is randomised.

    Raises:
        ValueError: No layer of the model can be initialised anew (`reset_parameters`).
    """
    ran = _in_order(model, images)
    if not ran:
        raise ValueError("no layer of the model has weights and reset_parameters, so none can be randomised")
    starts = [place for place, (_, layer) in enumerate(ran) if not _normalises(layer)] or [0]
    names = [name for name, _ in ran]
    head = tuple(names[starts[-1] :])
    stages = [Stage("the head", head)]
    below = starts[:-1]
    steps = min(blocks, len(below))
    for step in range(1, steps + 1):
        first = below[len(below) - len(below) * step // steps]
        first = 0 if step == steps else first
        what = "all layers are" if step == steps else f"the layers from {names[first]} up are"
        stages.append(Stage(what.removesuffix(" are"), tuple(names[first:])))
    return tuple(stages)


def single_stages(model: nn.Module, images: Tensor, *, blocks: int = BLOCKS) -> tuple[Stage, ...]:
    """The same steps, each randomised alone while all other layers keep their weights (the independent test)."""
    stages = find_stages(model, images, blocks=blocks)
    alone = [stages[0]]
    for above, stage in pairwise(stages):
        layers = tuple(name for name in stage.layers if name not in above.layers)
        alone.append(Stage(f"the layers from {layers[0]} to {layers[-1]}", layers))
    return tuple(alone)


def randomised(model: nn.Module, stage: Stage, images: Tensor, *, seed: int) -> nn.Module:
    """A copy of the model in which the layers of a stage are as before training.

    Each layer draws its weights anew by its own `reset_parameters`. Batch norms that run with or after the first of
    them then take the statistics of `images`: those of the trained network no longer fit what reaches them, and the
    signal would die out or drown in offsets, so that maps would differ because nothing arrives any more and not because
    the layers have forgotten. This is the network at the start of its training. The given model is not changed; the
    global generator of torch is as before afterwards.
    """
    twin = copy.deepcopy(model)
    layers = dict(twin.named_modules())
    chosen = [layers[name] for name in stage.layers]
    with torch.inference_mode(False), _seeded(seed, twin):
        for layer in chosen:
            layer.reset_parameters()  # only layers that have it are chosen
    names = [name for name, _ in _in_order(twin, images)]
    first = min(names.index(name) for name in stage.layers)
    norms = [layers[name] for name in names[first:]]
    _recalibrate(twin, [norm for norm in norms if isinstance(norm, _BatchNorm) and norm.track_running_stats], images)
    return twin


def _in_order(model: nn.Module, images: Tensor) -> list[tuple[str, nn.Module]]:
    """Layers with own weights that can be initialised anew, in the order in which they first run."""
    names = {
        module: name
        for name, module in model.named_modules()
        if hasattr(module, "reset_parameters") and any(True for _ in module.parameters(recurse=False))
    }
    ran: dict[str, nn.Module] = {}
    hooks = [
        module.register_forward_pre_hook(lambda module, _: ran.setdefault(names[module], module) and None)
        for module in names
    ]
    try:
        with untouched(model), torch.inference_mode():
            model(images[:1])
    finally:
        for hook in hooks:
            hook.remove()
    return list(ran.items())


def _normalises(layer: nn.Module) -> bool:
    return isinstance(layer, _BatchNorm | nn.GroupNorm | nn.LayerNorm | nn.InstanceNorm2d)


def _recalibrate(model: nn.Module, norms: Sequence[_BatchNorm], images: Tensor) -> None:
    """Give batch norms the mean and variance that reach them from the images."""
    if not norms:
        return
    model.eval()
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average, not one that forgets
        norm.train()
    with torch.no_grad():
        model(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()


@contextmanager
def _seeded(seed: int, model: nn.Module) -> Iterator[None]:
    """The global generator, from which `reset_parameters` draws, seeded; as before afterwards."""
    devices = {parameter.device for parameter in model.parameters() if parameter.device.type == "cuda"}
    with torch.random.fork_rng(sorted(devices, key=str)):
        torch.manual_seed(seed)
        yield
