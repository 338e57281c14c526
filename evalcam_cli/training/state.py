"""The exact state of training as tensors, so that a continued run reaches the same bits as an uninterrupted one."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from evalcam_cli.training.trainer import Trainer


def training_tensors(trainer: Trainer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Everything besides the weights that the next step depends on: tensors, and plain data for JSON.

    The order of the images and their augmentation are functions of (seed, epoch, image) and need no state.
    """
    tensors = {"rng/cpu": torch.get_rng_state()}
    if trainer.device.type == "cuda":
        tensors["rng/cuda"] = torch.cuda.get_rng_state(trainer.device)
    for index, parameter_state in trainer.optimizer.state_dict()["state"].items():
        for name, value in parameter_state.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer/{index}/{name}"] = value
    document: dict[str, Any] = {"scaler": trainer.scaler.state_dict(), "at_once": trainer.at_once}
    if trainer.average is not None:
        document["averages"] = trainer.average.updates
        tensors |= {f"average/{name}": value for name, value in trainer.average.model.state_dict().items()}
    return tensors, document


def state_bytes(trainer: Trainer) -> tuple[int, int]:
    """About how many bytes a checkpoint of the weights takes, and one of the whole state once it is complete.

    AdamW keeps two numbers per weight that moves, SGD with momentum one: the optimiser makes them as it goes.
    """
    weights = sum(value.nbytes for value in trainer.model.state_dict().values())
    moving = sum(one.nbytes for group in trainer.optimizer.param_groups for one in group["params"])
    kept = 2 if isinstance(trainer.optimizer, torch.optim.AdamW) else 1
    averages = weights if trainer.average is not None else 0
    return weights, weights + kept * moving + averages


def restore_training(trainer: Trainer, tensors: Mapping[str, Tensor], document: Mapping[str, Any]) -> None:
    """Put the trainer where `training_tensors` found it; the weights are restored elsewhere."""
    torch.set_rng_state(tensors["rng/cpu"])
    if trainer.device.type == "cuda" and "rng/cuda" in tensors:
        torch.cuda.set_rng_state(tensors["rng/cuda"], trainer.device)
    parameters = [parameter for group in trainer.optimizer.param_groups for parameter in group["params"]]
    states: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        kind, _, rest = key.partition("/")
        if kind == "optimizer":
            index, _, name = rest.partition("/")
            states.setdefault(int(index), {})[name] = _laid_out_like(parameters[int(index)], value)
    layout = trainer.optimizer.state_dict()
    trainer.optimizer.load_state_dict({"state": states, "param_groups": layout["param_groups"]})
    # what did not fit will not fit now
    trainer.at_once = min(trainer.at_once, document.get("at_once", trainer.at_once))
    if trainer.average is not None:
        trainer.average.restore(
            {key.removeprefix("average/"): value for key, value in tensors.items() if key.startswith("average/")},
            document["averages"],
        )
    if document["scaler"]:  # empty when the run began without fp16, on a CPU say
        trainer.scaler.load_state_dict(document["scaler"])


def _laid_out_like(parameter: Tensor, value: Tensor) -> Tensor:
    """The value in the parameter's memory format: another layout takes another kernel, which rounds differently."""
    if value.shape != parameter.shape:
        return value
    return torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)
