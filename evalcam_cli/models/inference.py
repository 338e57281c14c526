"""A model ready to be asked, and its answers for many images."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from evalcam_cli.data.dataset import ImageDataset, make_loader, normalise
from evalcam_cli.data.preprocessing import Preprocessing
from evalcam_cli.errors import DataError
from evalcam_cli.models.architectures import build_model
from evalcam_cli.models.checkpoint import Checkpoint, Stored
from evalcam_cli.models.weights import fit_weights
from evalcam_cli.progress import Progress, silent
from evalcam_cli.text import listed


@dataclass(frozen=True)
class Classifier:
    """A model in evaluation mode with what its outputs mean."""

    model: nn.Module
    checkpoint: Checkpoint
    device: torch.device

    @property
    def classes(self) -> tuple[str, ...]:
        return self.checkpoint.classes

    @property
    def preprocessing(self) -> Preprocessing:
        return self.checkpoint.preprocessing


def to_classifier(stored: Stored, device: torch.device, *, place: str) -> Classifier:
    """The model of a checkpoint on a device.

    Raises:
        CheckpointError: The weights do not fit the architecture that the checkpoint names.
    """
    checkpoint = stored.checkpoint
    model = build_model(checkpoint.arch, len(checkpoint.classes), last_stride=checkpoint.last_stride)
    fit_weights(model, stored.weights, place=place, new_head=False)
    return Classifier(ready(model, device), checkpoint, device)


def ready(model: nn.Module, device: torch.device) -> nn.Module:
    """The model in evaluation mode, channels last, on the device."""
    return model.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload, no-any-return]


def compute_logits(
    model: nn.Module,
    dataset: ImageDataset,
    *,
    device: torch.device,
    batch_size: int,
    workers: int,
    progress: Progress = silent,
    task: str = "predicting",
) -> NDArray[np.float32]:
    """(N, K) float32 logits in the order of the data set, always in full precision and evaluation mode.

    Raises:
        DataError: A logit is not finite.
    """
    was_training = model.training
    model.eval()
    found, done = np.zeros((0, 0), np.float32), 0
    try:
        with torch.inference_mode():
            loader = make_loader(
                dataset, batch_size, workers=workers if len(dataset) > 2 * batch_size else 0, device=device
            )
            for images, indices in loader:
                logits = model(normalise(images, dataset.preprocessing, device)).float().cpu().numpy()
                _require_finite(logits, [dataset.paths[int(index)] for index in indices])
                if not done:
                    found = np.empty((len(dataset), logits.shape[1]), np.float32)
                found[done : done + len(logits)] = logits
                done += len(logits)
                progress(task, done, len(dataset))
    finally:
        model.train(was_training)
    return found


def _require_finite(logits: NDArray[np.float32], paths: Sequence[str]) -> None:
    strange = [path for path, row in zip(paths, logits, strict=True) if not np.isfinite(row).all()]
    if strange:
        raise DataError(f"the model answers NaN or infinity for {listed(strange)}; its weights are not usable")
