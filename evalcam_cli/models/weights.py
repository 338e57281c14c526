"""Weights from elsewhere: torchvision's downloads and foreign state dicts, read without running code from them."""

import contextlib
import hashlib
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
import torchvision.models as zoo
from torch import Tensor, nn

from evalcam_cli.errors import CheckpointError, MachineError
from evalcam_cli.models.architectures import HEAD
from evalcam_cli.models.checkpoint import is_native, parse_checkpoint, read_file, require_usable
from evalcam_cli.models.pickled import PlacedTensor
from evalcam_cli.models.safetensors_file import load_tensors, split_file
from evalcam_cli.models.torch_archive import is_saved, read_saved, to_tensors
from evalcam_cli.text import listed, shown

log = logging.getLogger("evalcam")

_PREFIXES = ("module.", "_orig_mod.", "model.")
_WRAPPERS = ("state_dict", "model", "model_state_dict")


def imagenet_weights(arch: str) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Torchvision's best ImageNet weights for the architecture, and the 1000 class names.

    Raises:
        MachineError: They are not in the cache and cannot be downloaded.
    """
    weights = zoo.get_model_weights(arch).DEFAULT
    _require_whole(Path(torch.hub.get_dir(), "checkpoints", Path(weights.url).name))
    try:
        with contextlib.redirect_stdout(sys.stderr):  # torch announces its download on stdout, which is for results
            state = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (URLError, OSError, RuntimeError, ValueError) as error:
        raise MachineError(
            f"cannot get torchvision's ImageNet weights for {arch}: {shown(error)[:150]}\n"
            f"  to train from scratch: --weights none\n"
            f"  to start from a file: --weights FILE (a state dict of {arch}, from any machine)\n"
            f"  to use them offline: put {Path(weights.url).name} into {shown(torch.hub.get_dir())}/checkpoints"
        ) from error
    return dict(state), tuple(weights.meta["categories"])


def _require_whole(cached: Path) -> None:
    """Hold an earlier download against the beginning of its SHA-256, which its name ends with; torch does not."""
    if not cached.is_file():
        return
    with cached.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if not digest.startswith(cached.stem.rpartition("-")[2]):
        raise CheckpointError(f"{shown(cached)} is damaged (an interrupted download?): remove it and run again")


def read_weights(path: Path) -> dict[str, Tensor]:
    """The state dict in a file: evalcam's checkpoint, a safetensors file, or what `torch.save` wrote.

    Wrappers such as `{"state_dict": …}` and one common prefix (`module.`) are taken off.

    Raises:
        UsageError: There is no such file.
        CheckpointError: It is damaged, holds something else than tensors, or asks to run code.
    """
    return parse_weights(read_file(path), path)


def parse_weights(content: bytes, path: Path) -> dict[str, Tensor]:
    """As `read_weights`, from bytes already read."""
    if is_native(content):
        return parse_checkpoint(content, path).weights
    place = shown(path.absolute())
    if is_saved(content[:64]):
        return _without_prefix(_saved_tensors(content, place), place)
    if any("tensors_sha256" in text for text in split_file(content, place).metadata.values()):
        raise CheckpointError(f"{place} is damaged: its description is evalcam's, but not under its name")
    log.info("%s: the form has no checksum, so damage to its weights cannot be seen", place)
    return _without_prefix(load_tensors(content, place), place)


def _saved_tensors(content: bytes, place: str) -> dict[str, Tensor]:
    """The state dict in what `torch.save` wrote."""
    try:
        saved = read_saved(content)
        placed = _state_dict(saved.value, place)
        if not saved.has_checksums:
            log.warning(
                "%s: the form before torch 1.6 has no checksum, so damage to its weights cannot be seen; "
                "load and save it with torch again",
                place,
            )
        return to_tensors(saved, placed)
    except ValueError as error:
        raise CheckpointError(
            f"{place} is refused: {shown(error)[:300]};\n"
            "save `model.state_dict()` with torch.save, or better as .safetensors, and use that"
        ) from error


def _state_dict(value: Any, place: str) -> dict[str, PlacedTensor]:
    for name in _WRAPPERS:
        if isinstance(value, dict) and isinstance(value.get(name), dict):
            value = value[name]
    if not isinstance(value, dict) or not value:
        raise CheckpointError(f"{place} holds no state dict; save `model.state_dict()` instead")
    strangers = [
        str(name)[:80]
        for name, tensor in value.items()
        if not (isinstance(name, str) and isinstance(tensor, PlacedTensor))
    ]
    if strangers:
        raise CheckpointError(
            f"{place} holds other things than tensors by name ({listed(strangers)}); save `model.state_dict()` instead"
        )
    return value


def _without_prefix(state: dict[str, Tensor], place: str) -> dict[str, Tensor]:
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in state):
            log.warning("%s: %r is taken off the names of its weights", place, prefix)
            state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return state


def fit_weights(model: nn.Module, state: Mapping[str, Tensor], *, place: str, new_head: bool) -> bool:
    """Copy the weights into the model; everything must fit, except a head that may be replaced.

    Args:
        model: From `build_model`.
        state: From `read_weights` or `imagenet_weights`.
        place: Where they come from, for messages.
        new_head: Keep the model's own head when the number of classes differs.

    Returns:
        Whether the model kept its own, untrained head.

    Raises:
        CheckpointError: Names, shapes or values do not fit; the model is unchanged.
    """
    own = model.state_dict()
    given = {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}
    wanted = {name: tensor for name, tensor in own.items() if not name.endswith("num_batches_tracked")}
    head = [name for name in wanted if name.startswith(HEAD + ".")]
    keeps_head = new_head and any(name not in given or given[name].shape != wanted[name].shape for name in head)
    if keeps_head:
        given = {name: tensor for name, tensor in given.items() if name not in head}
        wanted = {name: tensor for name, tensor in wanted.items() if name not in head}
    _require_match(wanted, given, place)
    fitting = {name: tensor.to(own[name].dtype) for name, tensor in given.items()}
    require_usable(fitting, place)  # after the conversion: a float64 may be too large for a float32
    others = sorted({str(tensor.dtype) for name, tensor in given.items() if tensor.dtype != own[name].dtype})
    if others:
        log.warning("%s: its weights are %s; they are used as float32", place, listed(others))
    model.load_state_dict({**own, **fitting})
    return keeps_head


def _require_match(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor], place: str) -> None:
    missing, strange = [sorted(name[:80] for name in set(a) - set(b)) for a, b in ((wanted, given), (given, wanted))]
    if missing or strange:
        differences = [f"lacks {listed(missing)}"] if missing else []
        differences += [f"has {listed(strange)} too many"] if strange else []
        raise CheckpointError(
            f"{place} is of another architecture: it {' and '.join(differences)}; check the architecture"
        )
    for name in wanted:
        if wanted[name].shape != given[name].shape:
            raise CheckpointError(
                f"{place} does not fit: {shown(name)} has shape {tuple(given[name].shape)}, "
                f"the model needs {tuple(wanted[name].shape)}"
            )
        if wanted[name].is_floating_point() != given[name].is_floating_point():
            raise CheckpointError(
                f"{place} does not fit: {shown(name)} is of {given[name].dtype}, the model needs {wanted[name].dtype}"
            )
