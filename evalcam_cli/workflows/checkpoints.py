"""Which weights a command uses: those named, the newest run nearby, or torchvision's ImageNet ResNet-50."""

import logging
import os
import re
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from evalcam_cli.config import RunConfig
from evalcam_cli.data.dataset import ImageDataset
from evalcam_cli.data.preprocessing import Preprocessing
from evalcam_cli.data.split_file import read_split
from evalcam_cli.distributed import count_processes, in_each, together
from evalcam_cli.errors import CheckpointError, DataError, UsageError
from evalcam_cli.inputs import read_bytes
from evalcam_cli.models.architectures import HEAD, build_model
from evalcam_cli.models.checkpoint import Checkpoint, is_native, parse_checkpoint, read_file
from evalcam_cli.models.device import choose_device, use_full_precision, worker_count
from evalcam_cli.models.inference import Classifier, compute_logits, ready, to_classifier
from evalcam_cli.models.weights import fit_weights, imagenet_weights, parse_weights
from evalcam_cli.progress import Progress, silent
from evalcam_cli.text import counted, listed, shown

log = logging.getLogger("evalcam")

BEST = Path("checkpoints", "best.safetensors")
FALLBACK_ARCH = "resnet50"
_MAX_CLASSES_BYTES = 10_000_000


@dataclass(frozen=True)
class WeightsRequest:
    """Which weights a command was asked to use."""

    ckpt: Path | None = None
    arch: str | None = None
    """Needed for weights that are not evalcam's."""
    classes_file: Path | None = None
    """Class names of such weights, one per line, in output order."""


@dataclass(frozen=True)
class LoadedClassifier:
    """A classifier and where it came from."""

    classifier: Classifier
    place: str
    run: Path | None
    """The run folder around the checkpoint, if it lies in one."""
    sha256: str


def checkpoint_file(path: Path) -> Path:
    """The weights file for a path that may also name a run folder (its best).

    Raises:
        UsageError: There is neither.
    """
    if not path.is_dir():
        return path
    for candidate in (path / BEST, path / "train" / BEST):
        if candidate.is_file():
            return candidate
    raise UsageError(
        f"{shown(path.absolute())} holds no {BEST.as_posix()}; name a run folder of `evalcam train` or a file"
    )


def fold_runs(path: Path) -> list[Path]:
    """The run folders `fold-0`, `fold-1`, … in a folder that `train --all-folds` made; none in another."""
    if not path.is_dir() or (path / BEST).is_file():
        return []
    found = {
        int(entry.name.removeprefix("fold-")): entry
        for entry in path.glob("fold-*")
        if entry.name.removeprefix("fold-").isdecimal() and (entry / BEST).is_file()
    }
    if not found:
        return []
    rounds = read_split(next(iter(found.values())) / "split.csv")[0].rounds
    strange = sorted(set(found) - set(range(rounds)))
    if strange:
        raise DataError(
            f"{shown(path.absolute())}: the split has {rounds} rounds, but there is fold-{strange[0]}; remove it"
        )
    missing = sorted(set(range(rounds)) - set(found))
    if missing:
        log.warning("%s of %d rounds are not there (fold-%s); the rest is evaluated", len(missing), rounds, missing[0])
    return [found[fold] for fold in sorted(found)]


def load_classifier(request: WeightsRequest, config: RunConfig) -> LoadedClassifier:
    """The classifier that was asked for, on the configured device.

    Raises:
        UsageError: It is not there, or not enough is said about foreign weights.
        CheckpointError: The file cannot be used.
        MachineError: There is no CUDA, or ImageNet weights cannot be had.
    """
    device = choose_device(config.device)
    use_full_precision()
    path = _chosen(request)
    if path is None:
        return _imagenet(device, config)
    path = checkpoint_file(path)
    content = read_file(path)
    if is_native(content):
        stored = parse_checkpoint(content, path)
        if request.ckpt is None:
            log.info("its classes: %s", listed(stored.checkpoint.classes, 8))
        classifier = to_classifier(stored, device, place=shown(path.absolute()))
        run = path.parent.parent if path.parent.name == "checkpoints" else None
        return LoadedClassifier(classifier, shown(path.absolute()), run, stored.tensors_sha256)
    return _foreign(content, path, request, config, device)


def logits_of(
    classifier: Classifier, root: Path, paths: Sequence[str], config: RunConfig, progress: Progress
) -> NDArray[np.float32]:
    """(N, K) float32, what the classifier says about images, in their order; tells `predicting`.

    In a job of `on_first` all processes share the images.
    """
    dataset = ImageDataset(root, paths, classifier.preprocessing, max_pixels=config.data.max_pixels)
    return together(_logits, (classifier.model, dataset, config), progress)


def _logits(what: tuple[nn.Module, ImageDataset, RunConfig], progress: Progress | None) -> NDArray[np.float32]:
    model, dataset, config = what
    use_full_precision()
    device = in_each(lambda: choose_device(config.device))
    return compute_logits(
        model,
        dataset,
        device=device,
        batch_size=config.evaluate.batch_size,
        workers=worker_count(config.data.workers, device=device, images=len(dataset) // count_processes()),
        progress=progress or silent,
    )


def _chosen(request: WeightsRequest) -> Path | None:
    if request.ckpt is not None:
        return request.ckpt
    named = os.environ.get("EVALCAM_CKPT")
    found = Path(named) if named else newest_checkpoint(Path())
    if found is not None:
        _announce(found, "from $EVALCAM_CKPT" if named else "the newest here")
    return found


def newest_checkpoint(folder: Path) -> Path | None:
    """The checkpoint written last in the folder, its folders, theirs, or the `train` folder that `run` made in one."""
    found = [
        path
        for depth in ("", "*/", "*/*/", "*/*/train/")
        for path in folder.glob(depth + BEST.as_posix())
        if path.is_file()
    ]
    return max(found, key=lambda path: (path.stat().st_mtime_ns, str(path)), default=None)


def _announce(path: Path, why: str) -> None:
    file = checkpoint_file(path)
    if file.is_file():
        age = max(0.0, time.time() - file.stat().st_mtime)
        unit, size = next(
            (u, s) for u, s in (("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1)) if age >= s or s == 1
        )
        log.info("using %s (%s, %s old)", shown(file.absolute()), why, counted(int(age // size), unit))


def _imagenet(device: torch.device, config: RunConfig) -> LoadedClassifier:
    log.info("no checkpoint named or found here: using torchvision's ImageNet ResNet-50 (1000 classes)")
    state, classes = imagenet_weights(FALLBACK_ARCH)
    model = build_model(FALLBACK_ARCH, len(classes))
    fit_weights(model, state, place="torchvision's ImageNet weights", new_head=False)
    # torchvision names a few classes alike ("crane", "maillot"); outputs must be distinct
    names = tuple(name if classes.count(name) == 1 else f"{name} ({index})" for index, name in enumerate(classes))
    checkpoint = Checkpoint(FALLBACK_ARCH, 2, names, Preprocessing(config.data.image_size, config.data.resize))
    return LoadedClassifier(
        Classifier(ready(model, device), checkpoint, device), "torchvision ImageNet ResNet-50", None, ""
    )


def _foreign(
    content: bytes, path: Path, request: WeightsRequest, config: RunConfig, device: torch.device
) -> LoadedClassifier:
    place = shown(path.absolute())
    state = parse_weights(content, path)
    if request.arch is None or request.classes_file is None:
        raise CheckpointError(
            f"{place} is not one of evalcam's checkpoints; say what its weights are:\n"
            "--arch NAME and --classes FILE (one class name per line, in output order)"
        )
    classes = read_classes(request.classes_file)
    head = state.get(f"{HEAD}.weight")
    if head is not None and head.ndim == 2 and head.shape[0] != len(classes):
        raise CheckpointError(
            f"{place} has {head.shape[0]} outputs, {shown(request.classes_file)} names {len(classes)} classes"
        )
    model = build_model(request.arch, len(classes), last_stride=config.model.last_stride)
    fit_weights(model, state, place=place, new_head=False)
    preprocessing = Preprocessing(config.data.image_size, config.data.resize)
    checkpoint = Checkpoint(request.arch, config.model.last_stride, classes, preprocessing)
    log.info("foreign weights: images become %d px squares by `%s`", preprocessing.image_size, preprocessing.resize)
    return LoadedClassifier(Classifier(ready(model, device), checkpoint, device), place, None, "")


def read_classes(path: Path) -> tuple[str, ...]:
    """Class names from a text file, one per line, in output order.

    Raises:
        UsageError: The file is not there or names a class twice.
    """
    try:
        text = read_bytes(path, _MAX_CLASSES_BYTES).decode("utf-8-sig")
    except OSError as error:
        raise UsageError(f"cannot read the class names {shown(path.absolute())}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{shown(path.absolute())} is not UTF-8 text (byte {error.start}); save it as UTF-8"
        ) from error
    names = tuple(line for line in re.split(r"\r\n|[\r\n]", text) if line.strip())
    if len(text) >= _MAX_CLASSES_BYTES or "\0" in text:
        raise UsageError(
            f"{shown(path.absolute())} is no list of class names: it is too large, or holds a NUL character"
        )
    if not names or len(set(names)) < len(names):
        twice = [name for name, count in Counter(names).items() if count > 1]
        what = f" ({listed(twice)[:200]} stands twice)" if twice else " (it is empty)"
        raise UsageError(f"{shown(path.absolute())} must name every class once, one per line, in output order{what}")
    return names


def rename_classes(labels: Sequence[str], pairs: Sequence[str], known: Sequence[str]) -> list[str]:
    """The labels in the checkpoint's words.

    Args:
        labels: As the data spell them.
        pairs: `old=new`, as given to `--map-class`.
        known: The checkpoint's classes.

    Raises:
        UsageError: A pair is malformed, or its new name is not one of the checkpoint's.
        DataError: A label is unknown to the checkpoint.
    """
    names: dict[str, str] = {}
    for pair in pairs:
        old, equals, new = pair.partition("=")
        if not equals or new not in known:
            raise UsageError(f"--map-class {shown(pair)!r}: expected old=new with new one of {listed(known, 8)}")
        names[old] = new
    renamed = [names.get(label, label) for label in labels]
    strange = sorted(set(renamed) - set(known))
    if strange:
        raise DataError(
            f"the checkpoint does not know the {'class' if len(strange) == 1 else 'classes'} {listed(strange)}; "
            f"it knows {listed(known, 8)};\nrename with --map-class old=new, or leave those images out"
        )
    return renamed
