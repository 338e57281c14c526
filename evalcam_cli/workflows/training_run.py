"""A run on a split that has been checked: from random weights, given ones or a stored state to a run folder."""

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from evalcam_cli.config import RunConfig, resolved
from evalcam_cli.data.augmentation import Augmentation
from evalcam_cli.data.cache import ImageCache, image_caches
from evalcam_cli.data.dataset import ImageDataset
from evalcam_cli.data.preprocessing import Preprocessing
from evalcam_cli.data.samples import Sample, Split
from evalcam_cli.data.split_file import fingerprint, split_bytes
from evalcam_cli.distributed import on_first
from evalcam_cli.documents import yaml_text
from evalcam_cli.errors import CheckpointError, DataError, UsageError
from evalcam_cli.evaluation.counts import confusion_matrix
from evalcam_cli.evaluation.metrics import Metrics, compute_metrics
from evalcam_cli.evaluation.predictions import Predictions
from evalcam_cli.files import OutputFolder
from evalcam_cli.models.architectures import build_model
from evalcam_cli.models.checkpoint import Checkpoint, Stored, load_checkpoint, save_checkpoint
from evalcam_cli.models.device import choose_device, make_repeatable, use_full_precision, worker_count
from evalcam_cli.models.inference import compute_logits
from evalcam_cli.models.weights import fit_weights, imagenet_weights, read_weights
from evalcam_cli.progress import Progress
from evalcam_cli.report.plots_training import plot_curves
from evalcam_cli.text import did_you_mean, listed, shown
from evalcam_cli.training import history as history_file
from evalcam_cli.training.diagnosis import Diagnosis, diagnose
from evalcam_cli.training.event_log import log_history, require_tensorboard
from evalcam_cli.training.history import EpochRecord
from evalcam_cli.training.loop import fit
from evalcam_cli.training.memory import keep_freed_memory
from evalcam_cli.training.position import TrainingState, state_document, state_from_document
from evalcam_cli.training.state import restore_training, state_bytes, training_tensors
from evalcam_cli.training.trainer import Trainer
from evalcam_cli.workflows.calibrate import fit_after_training
from evalcam_cli.workflows.environment import environment, versions
from evalcam_cli.workflows.split import PreparedSplit
from evalcam_cli.writing import require_space

log = logging.getLogger("evalcam")

BEST, LAST = "checkpoints/best.safetensors", "checkpoints/last.safetensors"
PREVIOUS = "checkpoints/previous.safetensors"
"""The state that was saved before the last one, as long as the run is not finished."""
_DIAGNOSIS_IMAGES = 500  # training images measured for the diagnosis, at least as many as there are for validation


@dataclass(frozen=True)
class TrainResult:
    """What a training run left behind."""

    folder: Path
    checkpoint: Path
    diagnosis: Diagnosis | None
    best_epoch: int
    epochs: int
    weights_sha256: str
    """Of the last epoch's tensors, training state included."""


@dataclass(frozen=True)
class Start:
    """Weights to start from."""

    state: dict[str, torch.Tensor]
    place: str


def starting_weights(config: RunConfig) -> Start | None:
    """What `model.weights` names; None for random weights."""
    weights = config.model.weights
    if weights == "none":
        return None
    if weights == "default":
        state, _ = imagenet_weights(config.model.arch)
        return Start(state, f"torchvision's ImageNet weights for {config.model.arch}")
    path = Path(weights)
    return Start(read_weights(path), shown(path.absolute()))


def train_prepared(
    config: RunConfig,
    prepared: PreparedSplit,
    folder: OutputFolder | None,
    progress: Progress,
    *,
    start: Start | None = None,
    stored: Stored | None = None,
    watch: Callable[[EpochRecord], None] | None = None,
) -> TrainResult:
    """Train on a split that has been checked: from random weights, from given ones, or on from a stored state.

    Args:
        config: Of the run.
        prepared: The split; it needs training images of every class.
        folder: Where the run is kept; None in a process that is not the first of several.
        progress: Told of each step.
        start: Weights to start from.
        stored: `last.safetensors` of a run to be continued.
        watch: Called with the record of each epoch once it is saved; what it raises ends the run.
    """
    counts = {name: len(prepared.split.subset(name)) for name in ("train", "val")}
    with image_caches(config.data.cache, counts, image_size=config.data.image_size, folder=folder) as caches:
        run = TrainingRun(config, prepared, folder, progress, choose_device(config.device), caches)
        return _train(run, start, stored, watch)


def _train(
    run: "TrainingRun", start: Start | None, stored: Stored | None, watch: Callable[[EpochRecord], None] | None
) -> TrainResult:
    config, prepared, folder = run.config, run.prepared, run.folder
    require_trainable(prepared.split, config)
    if not prepared.split.subset("val"):
        log.warning("no validation images: the last epoch counts as the best, and the run cannot be diagnosed")
    if config.train.logger == "tensorboard":
        require_tensorboard()
    make_repeatable(config.seed, deterministic=config.train.deterministic)
    use_full_precision()  # validation must see what evaluation will see
    if run.device.type == "cpu":
        keep_freed_memory()
    trainer = run.trainer(start, stored)
    state = TrainingState()
    if stored is not None:
        with _fitting_state():
            restore_training(trainer, stored.training_tensors, stored.training_document)
        state = on_first(lambda: stored_state(stored, run.there))
    on_first(lambda: _require_space(run.there, trainer))
    if stored is None and folder is not None:
        _write_beginning(config, prepared.split, folder, run.device)

    def validate(progress: Progress) -> Metrics | None:
        val = prepared.split.subset("val")
        if not val:
            return None
        said = run.predict(trainer.for_use, val, "validating", progress, run.caches["val"])
        return on_first(lambda: compute_metrics(said))

    def save(state: TrainingState, is_best: bool) -> None:
        if folder is not None:
            run.save(trainer, state, is_best=is_best)

    state = fit(trainer, config, state, validate=validate, save=save, progress=run.progress, watch=watch)
    return run.finish(trainer, state)


@contextlib.contextmanager
def _fitting_state() -> Iterator[None]:
    """A stored state that does not fit the training is the file's fault."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError) as error:
        raise CheckpointError(
            f"{LAST} does not fit this training: {shown(error)[:200]};\nstart anew with another --out"
        ) from error


def stored_state(stored: Stored, folder: OutputFolder) -> TrainingState:
    """Where the run in a folder stands."""
    history = (
        history_file.read_history(folder.path / "history.csv") if stored.training_document["state"]["epoch"] else []
    )
    return state_from_document(stored.training_document["state"], history)


@dataclass(frozen=True)
class TrainingRun:
    """What all parts of a run share."""

    config: RunConfig
    prepared: PreparedSplit
    folder: OutputFolder | None
    progress: Progress
    device: torch.device
    caches: dict[str, ImageCache | None]
    """Of the training and of the validation images."""

    @property
    def there(self) -> OutputFolder:
        """The folder, in the process that has it."""
        if self.folder is None:
            raise ValueError("only the first process writes")
        return self.folder

    @property
    def split(self) -> Split:
        return self.prepared.split

    @property
    def preprocessing(self) -> Preprocessing:
        return Preprocessing(self.config.data.image_size, self.config.data.resize)

    @property
    def template(self) -> Checkpoint:
        """What is true of every checkpoint of the run."""
        return _checkpoint(self.config, self.prepared, self.preprocessing)

    def trainer(self, start: Start | None, stored: Stored | None) -> Trainer:
        """The model with its weights, and what moves them."""
        config, split = self.config, self.split
        model = build_model(config.model.arch, len(split.classes), last_stride=config.model.last_stride)
        if stored is not None:
            with _fitting_state():
                model.load_state_dict(stored.weights)
        elif start is not None and fit_weights(model, start.state, place=start.place, new_head=True):
            log.info("the head is new: %s has other classes", start.place)
        layout = torch.channels_last if config.train.channels_last else torch.contiguous_format
        model = model.to(self.device, memory_format=layout)  # type: ignore[call-overload]
        train = split.subset("train")
        dataset = ImageDataset(
            split.root,
            [sample.path for sample in train],
            self.preprocessing,
            max_pixels=config.data.max_pixels,
            augmentation=Augmentation(config.train.augment, self.preprocessing.fill),
            seed=config.seed,
            cache=self.caches["train"],
        )
        return Trainer(
            model, dataset, _targets(train, split.classes), len(split.classes), config,
            device=self.device, workers=worker_count(config.data.workers, device=self.device, images=len(train)),
        )  # fmt: skip

    def predict(
        self, model: torch.nn.Module, samples: Sequence[Sample], task: str, progress: Progress,
        cache: ImageCache | None = None,
    ) -> Predictions:  # fmt: skip
        """What a model says, with evaluation transforms."""
        paths = [sample.path for sample in samples]
        dataset = ImageDataset(
            self.split.root, paths, self.preprocessing, max_pixels=self.config.data.max_pixels, cache=cache
        )
        logits = compute_logits(
            model, dataset, device=self.device, batch_size=self.config.evaluate.batch_size,
            workers=worker_count(self.config.data.workers, device=self.device, images=len(samples)),
            progress=progress, task=task,
        )  # fmt: skip
        targets = torch.tensor(_targets(samples, self.split.classes)).numpy()
        return Predictions(self.split.classes, logits, targets, tuple(paths))

    def save(self, trainer: Trainer, state: TrainingState, *, is_best: bool) -> None:
        """Keep the state, and the weights when they are the best."""
        folder, checkpoint = self.there, replace(self.template, epoch=state.epoch)
        if is_best:
            save_checkpoint(folder.claim(BEST), checkpoint, trainer.for_use.state_dict())
        tensors, document = training_tensors(trainer)
        document["state"] = state_document(state)
        if state.history:
            folder.write_csv("history.csv", history_file.HEADER, history_file.rows(state.history))
        if self.config.train.logger == "tensorboard":
            log_history(folder, resolved(self.config), state.history)
        # last: a resume continues from here
        path = folder.claim(LAST, PREVIOUS)
        before = folder.path / PREVIOUS
        save_checkpoint(path, checkpoint, trainer.model.state_dict(), tensors, document, previous=before)

    def finish(self, trainer: Trainer, state: TrainingState) -> TrainResult:
        """Calibrate and diagnose the best weights, and draw the curves."""
        best = on_first(lambda: load_checkpoint(self.there.path / BEST))
        model = trainer.model
        model.load_state_dict(best.weights)
        train, val = self.split.subset("train"), self.split.subset("val")
        said = self.predict(model, val, "calibrating", self.progress, self.caches["val"]) if val else None
        if said is not None and self.config.train.temperature:
            on_first(lambda: self._calibrate(best, said))
        part = _fixed_part(len(train), max(_DIAGNOSIS_IMAGES, len(val)))
        cache = self.caches["train"] and self.caches["train"].part(part)
        seen = self.predict(model, [train[position] for position in part], "diagnosing", self.progress, cache)
        return on_first(lambda: self._conclude(state, seen, said))

    def _calibrate(self, best: Stored, said: Predictions) -> None:
        """Fit a temperature to the validation images that are no copies of training images."""
        seen, val = best.checkpoint.training_pixels, self.split.subset("val")
        unseen = [row for row, one in enumerate(val) if self.prepared.identities[one.path].pixels not in seen]
        if unseen:
            fit_after_training(self.there, best, said.take(unseen), [val[row] for row in unseen])

    def _conclude(self, state: TrainingState, seen: Predictions, said: Predictions | None) -> TrainResult:
        folder, classes = self.there, self.split.classes
        labels = [sample.label for sample in self.split.subset("train")]
        diagnosis = diagnose(
            history=state.history,
            best_epoch=state.best.epoch,
            classes=classes,
            train_counts=[labels.count(label) for label in classes],
            train_confusion=_confusion(seen),
            val_confusion=None if said is None else _confusion(said),
            lr=self.config.train.lr,
            loss=self.config.train.loss,
        )
        curves = plot_curves([asdict(record) for record in state.history], best_epoch=state.best.epoch)
        last = load_checkpoint(folder.path / LAST)
        folder.write("curves.png", curves)
        folder.write_json("diagnosis.json", diagnosis.to_dict())
        folder.remove(PREVIOUS)
        return TrainResult(
            folder.path, folder.path / BEST, diagnosis, state.best.epoch, state.epoch, last.tensors_sha256
        )


def _confusion(predictions: Predictions) -> NDArray[np.int64]:
    """(K, K) counts: row i, column j is the number of images of class i predicted as class j."""
    return confusion_matrix(predictions.targets, predictions.predicted, len(predictions.classes))


def require_trainable(split: Split, config: RunConfig) -> None:
    """Refuse a split that nothing can be learned from, before weights are fetched for it.

    Raises:
        DataError: A class has no training images, or there is but one class.
        UsageError: The positive class of the config is none of the split's.
    """
    present = {sample.label for sample in split.subset("train")}
    absent = [label for label in split.classes if label not in present]
    if absent:
        raise DataError(f"no training images of {listed(absent)}; every class needs some")
    if len(split.classes) < 2:
        raise DataError(f"only one class ({listed(split.classes)}); a classifier needs at least two")
    if len(split.subset("train")) < 2:
        raise DataError("a single training image is too few to train on")
    positive = config.evaluate.positive
    if positive is not None and len(split.classes) != 2:
        raise UsageError(f"evaluate.positive needs two classes; there are {len(split.classes)}")
    if positive is not None and positive not in split.classes:
        raise UsageError(f"evaluate.positive: no class {shown(positive)!r}{did_you_mean(positive, split.classes)}")


def _require_space(folder: OutputFolder, trainer: Trainer) -> None:
    """Find out before any training whether the disk holds the best weights and, while one is written, three states."""
    weights, state = state_bytes(trainer)
    there = [path.stat().st_size for name in (BEST, LAST, PREVIOUS) if (path := folder.path / name).exists()]
    require_space(folder.path, max(state, weights + 3 * state - sum(there)), "the checkpoints of the run")


def _write_beginning(config: RunConfig, split: Split, folder: OutputFolder, device: torch.device) -> None:
    table, description = split_bytes(split)
    folder.write("split.csv", table)
    folder.write("split.json", description)
    folder.write("config.yaml", yaml_text(resolved(config)).encode())
    folder.write_json("environment.json", environment(device))


def _checkpoint(config: RunConfig, prepared: PreparedSplit, preprocessing: Preprocessing) -> Checkpoint:
    split = prepared.split
    return Checkpoint(
        arch=config.model.arch,
        last_stride=config.model.last_stride,
        classes=split.classes,
        preprocessing=preprocessing,
        positive=config.evaluate.positive,
        config=resolved(config),
        split_fingerprint=fingerprint(split.samples),
        training_pixels=frozenset(prepared.identities[sample.path].pixels for sample in split.subset("train")),
        versions=versions(),
    )


def _targets(samples: Sequence[Sample], classes: tuple[str, ...]) -> list[int]:
    index = {label: position for position, label in enumerate(classes)}
    return [index[sample.label] for sample in samples]


def _fixed_part(total: int, count: int) -> list[int]:
    """At most `count` positions, spread evenly over so many: the same ones in every run."""
    count = min(count, total)
    return [position * total // count for position in range(count)]
