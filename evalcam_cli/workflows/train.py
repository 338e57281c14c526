"""From a config and images to a run folder with a trained model."""

import contextlib
import logging
import math
from dataclasses import dataclass, replace
from pathlib import Path

from evalcam_cli.config import RunConfig, resolved
from evalcam_cli.data.split_file import fingerprint
from evalcam_cli.distributed import in_each, joined, on_first
from evalcam_cli.errors import DataError, UsageError
from evalcam_cli.files import LOCK_NAME, OutputFolder, output_folder
from evalcam_cli.models.checkpoint import Stored
from evalcam_cli.models.device import choose_device
from evalcam_cli.progress import Progress, silent
from evalcam_cli.text import counted, listed, shown
from evalcam_cli.workflows.resuming import is_begun, stored_run
from evalcam_cli.workflows.split import PreparedSplit, chosen_round, load_split, make_split
from evalcam_cli.workflows.training_run import (
    BEST,
    PREVIOUS,
    Start,
    TrainResult,
    require_trainable,
    starting_weights,
    stored_state,
    train_prepared,
)
from evalcam_cli.world import is_of_this_launch

log = logging.getLogger("evalcam")


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


@dataclass(frozen=True)
class _Beginning:
    """What a training begins with: a split, and weights or a state."""

    prepared: PreparedSplit
    start: Start | None = None
    stored: Stored | None = None
    finished: TrainResult | None = None
    """Of a run that needs no training any more."""


def train(config: RunConfig, request: TrainRequest, progress: Progress = silent) -> TrainResult:
    """Train one model into the run folder `request.out`.

    Of several processes the first one reads and checks the images and writes the folder. Once torchrun has started all
    of them anew, the run that they had begun is resumed.

    Raises:
        EvalcamError: As the exit codes say; what was finished before is kept.
    """
    with joined() as here, contextlib.ExitStack() as stack:
        in_each(lambda: choose_device(config.device))
        if here.restarts and is_of_this_launch(request.out / LOCK_NAME):  # begun, by the attempt before this one
            request = replace(request, resume=True, overwrite=False)
        folder: OutputFolder | None = None

        def begin() -> _Beginning:
            nonlocal folder
            owned = output_folder(
                request.out, overwrite=request.overwrite, resume=request.resume, inputs=request.inputs
            )
            folder = stack.enter_context(owned)
            return _beginning(config, request, folder, progress)

        beginning = on_first(begin)
        return beginning.finished or train_prepared(
            config, beginning.prepared, folder, progress, start=beginning.start, stored=beginning.stored
        )


def _beginning(config: RunConfig, request: TrainRequest, folder: OutputFolder, progress: Progress) -> _Beginning:
    if request.resume and is_begun(folder.path):
        return _resumed(config, request, folder, progress)
    prepared = prepare(config, request, progress)
    if request.fold is not None:
        prepared = chosen_round(prepared, request.fold, config.seed)
    elif prepared.split.folds is not None and not prepared.split.subset("train"):
        raise UsageError(f"the split has {prepared.split.folds} folds; choose a round with --fold I, or --all-folds")
    require_trainable(prepared.split, config)
    return _Beginning(prepared, starting_weights(config))


def prepare(config: RunConfig, request: TrainRequest, progress: Progress) -> PreparedSplit:
    """The split that the request names, or one made of its data; every image read and hashed."""
    beside = request.report_beside or request.out
    if request.split_file is not None:
        return load_split(request.split_file, data=request.data, config=config, report_beside=beside, progress=progress)
    if request.data is None:
        raise UsageError("nothing to train on: name DATA, --split FILE, or data.path in the config")
    return make_split(request.data, config, report_beside=beside, progress=progress)


def _resumed(config: RunConfig, request: TrainRequest, folder: OutputFolder, progress: Progress) -> _Beginning:
    stored = stored_run(folder)
    require_same_config(config, stored.checkpoint.config, folder.path)
    prepared = load_split(folder.path / "split.csv", data=request.data, config=config, progress=progress)
    if request.split_file is not None or request.fold is not None:
        asked = prepare(config, request, progress)
        if request.fold is not None:
            asked = chosen_round(asked, request.fold, config.seed)
        if fingerprint(asked.split.samples) != stored.checkpoint.split_fingerprint:
            raise _other_split(folder)
    if fingerprint(prepared.split.samples) != stored.checkpoint.split_fingerprint:
        raise DataError(
            f"{shown(folder.path.absolute())}/split.csv is not the split that this run began with;\n"
            "restore it, or start anew with another --out"
        )
    return _continued(config, prepared, folder, stored)


def train_round(
    config: RunConfig,
    prepared: PreparedSplit,
    folder: OutputFolder,
    progress: Progress,
    *,
    start: Start | None = None,
    resume: bool = False,
) -> TrainResult:
    """Train on a split that has been checked; with `resume`, on from where the run in the folder stands."""
    if not (resume and is_begun(folder.path)):
        return train_prepared(config, prepared, folder, progress, start=start)
    stored = stored_run(folder)
    require_same_config(config, stored.checkpoint.config, folder.path)
    if fingerprint(prepared.split.samples) != stored.checkpoint.split_fingerprint:
        raise _other_split(folder)
    beginning = _continued(config, prepared, folder, stored)
    return beginning.finished or train_prepared(config, prepared, folder, progress, stored=stored)


def _other_split(folder: OutputFolder) -> DataError:
    return DataError(
        f"--resume with another split or fold than {shown(folder.path.absolute())} was begun with;\n"
        "use the same, or another --out for a new run"
    )


def _continued(config: RunConfig, prepared: PreparedSplit, folder: OutputFolder, stored: Stored) -> _Beginning:
    state = stored_state(stored, folder)
    if state.finished(config) and (folder.path / "diagnosis.json").exists():
        log.info("%s is finished already: %s", shown(folder.path), counted(state.epoch, "epoch"))
        folder.remove(PREVIOUS)  # of a process that was killed at the very end
        done = TrainResult(folder.path, folder.path / BEST, None, state.best.epoch, state.epoch, stored.tensors_sha256)
        return _Beginning(prepared, finished=done)
    where = f"after epoch {state.epoch} of {config.train.epochs}"
    log.info("resuming %s", where if not state.step else f"{where}, step {state.step} of the next")
    return _Beginning(prepared, stored=stored)


# What a resumed run may change: where it runs, and what happens after training.
_FREE_KEYS = (
    "device",
    "data.path",
    "data.workers",
    "data.cache",
    "evaluate.fail",
    "evaluate.subset",
    "evaluate.bootstrap",
    "gradcam",
    "search",
    "train.logger",
)


_STEP_KEYS = ("train.batch_size", "train.accumulate")


def require_same_config(
    config: RunConfig, before: object, folder: Path, *, free: tuple[str, ...] = _FREE_KEYS, steps: bool = True
) -> None:
    """Refuse to go on with a run that was begun with a config that gives other weights.

    Args:
        config: Of now.
        before: The resolved config that the run in the folder was begun with.
        folder: For the message.
        free: Beginnings of the keys that may differ.
        steps: A step may be divided into other batches.

    Raises:
        UsageError: Naming the keys that differ.
    """
    now = _flat(resolved(config))
    then = _flat(resolved(RunConfig())) | _flat(before)  # a run of an earlier version knows fewer keys
    free += _STEP_KEYS if steps and _step_size(now) == _step_size(then) else ()
    keys = sorted(key for key in now.keys() | then.keys() if now.get(key) != then.get(key))
    changed = [key for key in keys if not key.startswith(free)]
    if changed:
        pairs = [f"{key}: {then.get(key)} then, {now.get(key)} now" for key in changed]
        raise UsageError(
            f"{shown(folder.absolute())} was begun with another config\n"
            f"({listed(pairs)});\nuse the same (it is in config.yaml there), or another --out"
        )


def _step_size(values: dict[str, object]) -> int:
    """Images per optimiser step; in smaller batches, more of them, a step that did not fit into memory may."""
    return math.prod(value for key in _STEP_KEYS if isinstance(value := values.get(key), int))


def _flat(value: object, prefix: str = "") -> dict[str, object]:
    if isinstance(value, dict):
        return {name: inner for key in value for name, inner in _flat(value[key], f"{prefix}{key}.").items()}
    return {prefix.removesuffix("."): value}
