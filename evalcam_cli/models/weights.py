"""Weights from elsewhere: torchvision's downloads and foreign state dicts, read without running code from them."""

import contextlib
import io
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
from evalcam_cli.models.checkpoint import is_native, parse_checkpoint, parse_safetensors, read_file
from evalcam_cli.text import listed, shown

_PREFIXES = ("module.", "_orig_mod.", "model.")
_WRAPPERS = ("state_dict", "model", "model_state_dict")


def imagenet_weights(arch: str) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Torchvision's best ImageNet weights for the architecture, and the 1000 class names.

    Raises:
        MachineError: They are not in the cache and cannot be downloaded.
    """
    weights = zoo.get_model_weights(arch).DEFAULT
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


def read_weights(path: Path) -> dict[str, Tensor]:
    """The state dict in a file: evalcam's checkpoint, a safetensors file, or what `torch.save` wrote.

    Wrappers such as `{"state_dict": …}` and one common prefix (`module.`) are taken off.

    Raises:
        UsageError: There is no such file.
        CheckpointError: It is damaged, holds something else than tensors, or asks to run code.
    """
    content = read_file(path)
    if is_native(content):
        return parse_checkpoint(content, path).weights
    if content[8:9] == b"{":
        return _without_prefix(parse_safetensors(content, path))
    return _without_prefix(_unwrapped(_load_archive(content, path), path))


def _load_archive(content: bytes, path: Path) -> Any:
    try:
        # the flag is written out because an environment variable can change its default
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:
        # torch raises nine kinds of exception here, and its advice (weights_only=False) must not reach a user
        raise CheckpointError(
            f"{shown(path.absolute())} is refused: it is damaged, no weights file, or asks to run code;\n"
            "save `model.state_dict()` with torch.save, or better as .safetensors, and use that"
        ) from error


def _unwrapped(value: Any, path: Path) -> dict[str, Tensor]:
    for name in _WRAPPERS:
        if isinstance(value, Mapping) and isinstance(value.get(name), Mapping):
            value = value[name]
    if not isinstance(value, Mapping) or not value:
        raise CheckpointError(f"{shown(path.absolute())} holds no state dict; save `model.state_dict()` instead")
    strangers = [str(name) for name, tensor in value.items() if not (isinstance(name, str) and _is_plain(tensor))]
    if strangers:
        raise CheckpointError(
            f"{shown(path.absolute())} holds other things than plain tensors ({listed(strangers)}); "
            "save `model.state_dict()` instead"
        )
    return dict(value)


def _is_plain(tensor: object) -> bool:
    return (
        isinstance(tensor, Tensor) and tensor.layout == torch.strided and not tensor.is_quantized and not tensor.is_meta
    )


def _without_prefix(state: dict[str, Tensor]) -> dict[str, Tensor]:
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in state):
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
    for name, tensor in given.items():
        if not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(f"{place}: {shown(name)} holds NaN or infinite weights")
    model.load_state_dict({**own, **{name: tensor.to(own[name].dtype) for name, tensor in given.items()}})
    return keeps_head


def _require_match(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor], place: str) -> None:
    missing, strange = [sorted(set(a) - set(b)) for a, b in ((wanted, given), (given, wanted))]
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
