"""A model ready to be asked, and its answers for many images."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from evalcam_cli.data.dataset import ImageDataset, make_loader, normalise
from evalcam_cli.data.images import UnreadableImage
from evalcam_cli.data.order import Draw
from evalcam_cli.data.preprocessing import Preprocessing
from evalcam_cli.distributed import count_processes, on_each, share
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

    Several processes share the images, batch by batch, and all get all logits. Where there are enough images, the
    batches are those of one process alone, and so are the logits to the last bit.

    Raises:
        DataError: A logit is not finite.
    """
    size = count_processes()
    batch_size = max(1, min(batch_size, -(-len(dataset) // size)))
    batches = range(0, len(dataset), batch_size)  # where each begins
    part = dataset if size == 1 else _Part(dataset, [batches[place] for place in share(len(batches))], batch_size)

    def told(done: int) -> None:
        progress(task, min(done * size, len(dataset)), len(dataset))

    def own() -> NDArray[np.float32]:
        return _own_logits(model, part, device=device, batch_size=batch_size, workers=workers, progress=told)

    return _in_order(on_each(own), len(dataset), batch_size)


class _Part(ImageDataset):
    """Some batches of a data set, as a data set; an item keeps its index in the whole."""

    def __init__(self, whole: ImageDataset, starts: Sequence[int], batch_size: int) -> None:
        vars(self).update(vars(whole))
        self._whole = whole
        ends = [min(start + batch_size, len(whole)) for start in starts]
        spans = [np.arange(start, end) for start, end in zip(starts, ends, strict=True)]
        self._places = np.concatenate([np.zeros(0, np.int64), *spans])

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, draw: Draw | int) -> tuple[Tensor, int] | UnreadableImage:
        return self._whole[int(self._places[draw.index if isinstance(draw, Draw) else draw])]


def _own_logits(
    model: nn.Module, dataset: ImageDataset, *, device: torch.device, batch_size: int, workers: int,
    progress: Callable[[int], None],
) -> NDArray[np.float32]:  # fmt: skip
    """(n, K) of the images that are this process's work."""
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
                progress(done)
    finally:
        model.train(was_training)
    return found


def _in_order(parts: Sequence[NDArray[np.float32]], total: int, batch_size: int) -> NDArray[np.float32]:
    """(total, K), from what each process has of the batches, which they take in turn."""
    if len(parts) == 1:
        return parts[0]
    found = np.empty((total, parts[0].shape[1]), np.float32)  # the first process has work when there is any
    for number, start in enumerate(range(0, total, batch_size)):
        row = number // len(parts) * batch_size
        found[start : start + batch_size] = parts[number % len(parts)][row : row + batch_size]
    return found


def _require_finite(logits: NDArray[np.float32], paths: Sequence[str]) -> None:
    strange = [path for path, row in zip(paths, logits, strict=True) if not np.isfinite(row).all()]
    if strange:
        raise DataError(f"the model answers NaN or infinity for {listed(strange)}; its weights are not usable")
