"""From a config and images to a run folder with a trained model."""

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import torch
import yaml
from torch import nn

from evalcam_cli.config import RunConfig, resolved
from evalcam_cli.data.augmentation import Augmentation
from evalcam_cli.data.dataset import ImageDataset
from evalcam_cli.data.preprocessing import Preprocessing
from evalcam_cli.data.samples import Sample, Split
from evalcam_cli.data.split_file import fingerprint, split_bytes
from evalcam_cli.errors import DataError, UsageError
from evalcam_cli.evaluation.metrics import Metrics, compute_metrics
from evalcam_cli.evaluation.predictions import Predictions
from evalcam_cli.files import OutputFolder, output_folder
from evalcam_cli.models.architectures import build_model
from evalcam_cli.models.checkpoint import Checkpoint, Stored, load_checkpoint, save_checkpoint
from evalcam_cli.models.device import choose_device, make_repeatable, use_full_precision, worker_count
from evalcam_cli.models.inference import compute_logits
from evalcam_cli.models.weights import fit_weights, imagenet_weights, read_weights
from evalcam_cli.progress import Progress, silent
from evalcam_cli.report.plots_training import plot_curves
from evalcam_cli.text import counted, did_you_mean, listed, shown
from evalcam_cli.training import history as history_file
from evalcam_cli.training.diagnosis import Diagnosis, diagnose
from evalcam_cli.training.loop import Trainer, TrainingState, fit, state_document, state_from_document
from evalcam_cli.training.state import restore_training, training_tensors
from evalcam_cli.workflows.calibrate import fit_after_training
from evalcam_cli.workflows.environment import environment, versions
from evalcam_cli.workflows.split import PreparedSplit, fold_round, load_split, make_split

log = logging.getLogger("evalcam")

BEST, LAST = "checkpoints/best.safetensors", "checkpoints/last.safetensors"
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
class TrainRequest:
    """What a training command was asked for, besides the config."""

    out: Path
    data: Path | None = None
    split_file: Path | None = None
    fold: int | None = None
    resume: bool = False
    overwrite: bool = False
    report_beside: Path | None = None
    """The output that leaks.csv and unreadable.csv stand beside; by default `out`."""

    @property
    def inputs(self) -> list[Path]:
        """Folders that are only read."""
        if self.data is None:
            return []
        return [self.data if self.data.is_dir() else self.data.parent]


def train(config: RunConfig, request: TrainRequest, progress: Progress = silent) -> TrainResult:
    """Train one model into the run folder `request.out`.

    Raises:
        EvalcamError: As the exit codes say; what was finished before is kept.
    """
    choose_device(config.device)
    with output_folder(
        request.out, overwrite=request.overwrite, resume=request.resume, inputs=request.inputs
    ) as folder:
        if request.resume and (folder.path / LAST).exists():
            return _resume(config, request, folder, progress)
        prepared = _prepared(config, request, progress)
        if request.fold is not None:
            prepared = _round(prepared, request.fold, config.seed)
        elif prepared.split.folds is not None and not prepared.split.subset("train"):
            raise UsageError(
                f"the split has {prepared.split.folds} folds; choose a round with --fold I, or --all-folds"
            )
        return train_prepared(config, prepared, folder, progress, start=_starting_weights(config))


def train_all_folds(config: RunConfig, request: TrainRequest, progress: Progress = silent) -> list[TrainResult]:
    """Train one model per fold into `request.out/fold-0`, `fold-1`, …, one after the other."""
    choose_device(config.device)
    owned = partial(output_folder, overwrite=request.overwrite, resume=request.resume, inputs=request.inputs)
    with owned(request.out):
        prepared = _prepared(config, request, progress)
        if prepared.split.folds is None:
            raise UsageError("--all-folds needs a split with folds; make one with --folds K (config split.folds)")
        start = _starting_weights(config)
        results = []
        for fold in range(prepared.split.folds):
            log.info("fold %d of %d", fold, prepared.split.folds)
            with owned(request.out / f"fold-{fold}") as folder:
                if request.resume and (folder.path / LAST).exists():
                    results.append(_resume(config, request, folder, progress))
                else:
                    part = _round(prepared, fold, config.seed)
                    results.append(train_prepared(config, part, folder, progress, start=start))
        return results


def _prepared(config: RunConfig, request: TrainRequest, progress: Progress) -> PreparedSplit:
    beside = request.report_beside or request.out
    if request.split_file is not None:
        return load_split(request.split_file, data=request.data, config=config, report_beside=beside, progress=progress)
    if request.data is None:
        raise UsageError("nothing to train on: name DATA, --split FILE, or data.path in the config")
    return make_split(request.data, config, report_beside=beside, progress=progress)


def _round(prepared: PreparedSplit, fold: int, seed: int) -> PreparedSplit:
    folds = prepared.split.folds
    if folds is None or not 0 <= fold < folds:
        there = f"the split has folds 0 to {folds - 1}" if folds else "the split has no folds; make some with --folds K"
        raise UsageError(f"--fold {fold}: {there}")
    return PreparedSplit(
        fold_round(prepared.split, fold, prepared.identities, seed), prepared.identities, prepared.notes
    )


def _resume(config: RunConfig, request: TrainRequest, folder: OutputFolder, progress: Progress) -> TrainResult:
    stored = load_checkpoint(folder.path / LAST)
    _require_same_config(config, stored.checkpoint.config, folder.path)
    state = _stored_state(stored, folder)
    prepared = load_split(folder.path / "split.csv", data=request.data, config=config, progress=progress)
    if request.split_file is not None or request.fold is not None:
        asked = _prepared(config, request, progress)
        if request.fold is not None:
            asked = _round(asked, request.fold, config.seed)
        if fingerprint(asked.split.samples) != stored.checkpoint.split_fingerprint:
            raise DataError(
                f"--resume with another split or fold than {shown(folder.path.absolute())} was begun with;\n"
                "use the same, or another --out for a new run"
            )
    if fingerprint(prepared.split.samples) != stored.checkpoint.split_fingerprint:
        raise DataError(
            f"{shown(folder.path.absolute())}/split.csv is not the split that this run began with;\n"
            "restore it, or start anew with another --out"
        )
    if state.finished(config) and (folder.path / "diagnosis.json").exists():
        log.info("%s is finished already: %s", shown(folder.path), counted(state.epoch, "epoch"))
        return TrainResult(folder.path, folder.path / BEST, None, state.best.epoch, state.epoch, stored.tensors_sha256)
    log.info("resuming after epoch %d of %d", state.epoch, config.train.epochs)
    return train_prepared(config, prepared, folder, progress, stored=stored)


def _stored_state(stored: Stored, folder: OutputFolder) -> TrainingState:
    history = history_file.read_history(folder.path / "history.csv")
    return state_from_document(stored.training_document["state"], history)


# What a resumed run may change: where it runs, and what happens after training.
_FREE_KEYS = (
    "device",
    "data.path",
    "data.workers",
    "evaluate.fail",
    "evaluate.subset",
    "evaluate.bootstrap",
    "gradcam",
)


def _require_same_config(config: RunConfig, before: object, folder: Path) -> None:
    now = _flat(resolved(config))
    then = _flat(before)
    keys = sorted(key for key in now.keys() | then.keys() if now.get(key) != then.get(key))
    changed = [key for key in keys if not key.startswith(_FREE_KEYS)]
    if changed:
        pairs = [f"{key}: {then.get(key)} then, {now.get(key)} now" for key in changed]
        raise UsageError(
            f"--resume with another config than {shown(folder.absolute())} was begun with\n"
            f"({listed(pairs)});\nuse the same config, or another --out for a new run"
        )


def _flat(value: object, prefix: str = "") -> dict[str, object]:
    if isinstance(value, dict):
        return {name: inner for key in value for name, inner in _flat(value[key], f"{prefix}{key}.").items()}
    return {prefix.removesuffix("."): value}


def train_prepared(
    config: RunConfig,
    prepared: PreparedSplit,
    folder: OutputFolder,
    progress: Progress,
    *,
    start: "_Start | None" = None,
    stored: Stored | None = None,
) -> TrainResult:
    """Train on a split that has been checked: from random weights, from given ones, or on from a stored state."""
    split, device = prepared.split, choose_device(config.device)
    _require_trainable(split, config)
    make_repeatable(config.seed, deterministic=config.train.deterministic)
    use_full_precision()  # validation must see what evaluation will see
    preprocessing = Preprocessing(config.data.image_size, config.data.resize)
    model = build_model(config.model.arch, len(split.classes), last_stride=config.model.last_stride)
    if stored is not None:
        model.load_state_dict(stored.weights)
    elif start is not None and fit_weights(model, start.state, place=start.place, new_head=True):
        log.info("the head is new: %s has other classes", start.place)
    if stored is None:
        _write_beginning(config, split, folder, device)
    model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    trainer = Trainer(
        model,
        ImageDataset(
            split.root,
            [sample.path for sample in split.subset("train")],
            preprocessing,
            max_pixels=config.data.max_pixels,
            augmentation=Augmentation(config.train.augment, preprocessing.fill),
            seed=config.seed,
        ),
        _targets(split.subset("train"), split.classes),
        len(split.classes),
        config,
        device=device,
        workers=worker_count(config.data.workers),
    )
    state = TrainingState()
    if stored is not None:
        restore_training(trainer, stored.training_tensors, stored.training_document)
        state = _stored_state(stored, folder)
    template = _checkpoint(config, prepared, preprocessing)
    val = split.subset("val")

    def validate() -> Metrics | None:
        if not val:
            return None
        return compute_metrics(_predict(model, split, val, template, config, device, "validating", progress))

    def save(state: TrainingState, is_best: bool) -> None:
        _save(folder, template, trainer, state, is_best=is_best)

    state = fit(trainer, config, state, validate=validate, save=save, progress=progress)
    return _finish(config, prepared, folder, model, template, state, device, progress)


def _require_trainable(split: Split, config: RunConfig) -> None:
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
    if not split.subset("val"):
        log.warning("no validation images: the last epoch counts as the best, and the run cannot be diagnosed")


def _write_beginning(config: RunConfig, split: Split, folder: OutputFolder, device: torch.device) -> None:
    table, description = split_bytes(split)
    folder.write("split.csv", table)
    folder.write("split.json", description)
    folder.write("config.yaml", yaml.safe_dump(resolved(config), sort_keys=False, allow_unicode=True).encode())
    folder.write_json("environment.json", environment(device))


@dataclass(frozen=True)
class _Start:
    """Weights to start from."""

    state: dict[str, torch.Tensor]
    place: str


def _starting_weights(config: RunConfig) -> _Start | None:
    weights = config.model.weights
    if weights == "none":
        return None
    if weights == "default":
        state, _ = imagenet_weights(config.model.arch)
        return _Start(state, f"torchvision's ImageNet weights for {config.model.arch}")
    path = Path(weights)
    return _Start(read_weights(path), shown(path.absolute()))


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


def _predict(
    model: nn.Module, split: Split, samples: Sequence[Sample], template: Checkpoint, config: RunConfig,
    device: torch.device, task: str, progress: Progress,
) -> Predictions:  # fmt: skip
    """What the current weights say, with evaluation transforms."""
    paths = [sample.path for sample in samples]
    dataset = ImageDataset(split.root, paths, template.preprocessing, max_pixels=config.data.max_pixels)
    logits = compute_logits(
        model, dataset, device=device, batch_size=config.evaluate.batch_size,
        workers=worker_count(config.data.workers), progress=progress, task=task,
    )  # fmt: skip
    targets = torch.tensor(_targets(samples, split.classes)).numpy()
    return Predictions(split.classes, logits, targets, tuple(paths))


def _save(folder: OutputFolder, template: Checkpoint, trainer: Trainer, state: TrainingState, *, is_best: bool) -> None:
    checkpoint = replace(template, epoch=state.epoch)
    weights = trainer.model.state_dict()
    if is_best:
        save_checkpoint(folder.claim(BEST), checkpoint, weights)
    tensors, document = training_tensors(trainer)
    document["state"] = state_document(state)
    folder.write_csv("history.csv", history_file.HEADER, history_file.rows(state.history))
    save_checkpoint(folder.claim(LAST), checkpoint, weights, tensors, document)  # last: a resume continues from here


def _finish(
    config: RunConfig, prepared: PreparedSplit, folder: OutputFolder, model: nn.Module, template: Checkpoint,
    state: TrainingState, device: torch.device, progress: Progress,
) -> TrainResult:  # fmt: skip
    """Calibrate and diagnose the best weights, and draw the curves."""
    best = load_checkpoint(folder.path / BEST)
    model.load_state_dict(best.weights)
    split = prepared.split
    train, val = split.subset("train"), split.subset("val")
    unseen = [s for s in val if prepared.identities[s.path].pixels not in template.training_pixels]
    if config.train.temperature and unseen:
        said = _predict(model, split, unseen, template, config, device, "calibrating", progress)
        fit_after_training(folder, best, said, unseen)
    part = _fixed_part(train, max(_DIAGNOSIS_IMAGES, len(val)))
    measured = compute_metrics(_predict(model, split, part, template, config, device, "diagnosing", progress))
    record = state.history[state.best.epoch - 1]
    frequency = max(sum(sample.label == label for sample in train) for label in split.classes)
    diagnosis = diagnose(
        train_accuracy=measured.overall["accuracy"].estimate or 0.0,
        val_accuracy=record.val_accuracy,
        train_images=len(part),
        val_images=len(val),
        chance=frequency / len(train),
        best_epoch=state.best.epoch,
        history=state.history,
    )
    folder.write("curves.png", plot_curves([asdict(record) for record in state.history], best_epoch=state.best.epoch))
    folder.write("diagnosis.json", (json.dumps(diagnosis.to_dict(), indent=1) + "\n").encode())
    last = load_checkpoint(folder.path / LAST)
    return TrainResult(folder.path, folder.path / BEST, diagnosis, state.best.epoch, state.epoch, last.tensors_sha256)


def _fixed_part(samples: Sequence[Sample], count: int) -> list[Sample]:
    """At most `count` samples, spread evenly over the list: the same ones in every run."""
    count = min(count, len(samples))
    return [samples[position * len(samples) // count] for position in range(count)]
