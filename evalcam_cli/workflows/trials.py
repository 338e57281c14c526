"""One trial of a search: a training run like any other, watched, and ended when it is not worth its time."""

import json
import logging
import math
from contextlib import suppress
from pathlib import Path
from typing import Any

from safetensors import safe_open

from evalcam_cli.config import RunConfig, SearchConfig
from evalcam_cli.config_sources import with_values
from evalcam_cli.errors import DataError, DivergedError, EvalcamError, MemoryTooSmallError, UsageError
from evalcam_cli.files import OutputFolder, output_folder
from evalcam_cli.progress import Progress
from evalcam_cli.text import shown
from evalcam_cli.training.history import EpochRecord, read_history
from evalcam_cli.training.trainer import is_out_of_memory
from evalcam_cli.workflows.resuming import is_begun, stored_run
from evalcam_cli.workflows.split import PreparedSplit
from evalcam_cli.workflows.study import Study, Trial
from evalcam_cli.workflows.training_run import BEST, LAST, PREVIOUS, starting_weights, stored_state, train_prepared

log = logging.getLogger("evalcam")


class _Pruned(Exception):  # noqa: N818 (not an error)
    """The trial is not worth its time."""


def trial_folder(out: Path, number: int) -> Path:
    """Where a trial's run is kept, in the folder of the search."""
    return out / "trials" / f"trial-{number:04}"


def trial_config(config: RunConfig, trial: Trial, root: Path) -> RunConfig:
    """The config of a trial: that of the search with the trial's values, and nothing left to search.

    Args:
        config: Of the search.
        trial: With its values.
        root: The data folder.

    Raises:
        UsageError: The values do not go together.
    """
    drawn = with_values(config.model_copy(update={"search": SearchConfig()}), trial.params)
    # not by way of `with_values`: the name of a folder need not be valid text
    return drawn.model_copy(update={"data": drawn.data.model_copy(update={"path": str(root.absolute())})})


def run_trial(study: Study, trial: Trial, prepared: PreparedSplit, out: Path, progress: Progress) -> None:
    """Train with the trial's values, on from where an interrupted process left it, and close it in the study.

    A loss that is not finite and a batch that fits no memory are the fault of the values: the trial has failed, and the
    search goes on. Whatever else is raised leaves the trial to be taken up again.

    Args:
        study: Told the best value so far after each epoch.
        trial: Given to this process.
        prepared: The split of all trials; of its images only those of train and val are used.
        out: Folder of the search.
        progress: Of the training.
    """
    config = trial_config(study.config, trial, prepared.split.root)
    with output_folder(trial_folder(out, trial.number), resume=True) as folder:
        try:
            _train(study, trial.number, config, prepared, folder, progress)
        except _Pruned:
            study.finish(trial.number, "pruned", seconds=_seconds(folder.path))
        except UsageError as error:
            values = ", ".join(f"{key}: {shown(value)}" for key, value in trial.params.items())
            raise UsageError(f"trial {trial.number} ({values}): {error}") from error
        except Exception as error:
            if not _is_of_the_values(error):
                raise
            reason = shown(str(error).partition(";")[0])[:300]
            study.finish(trial.number, "failed", reason=reason, seconds=_seconds(folder.path))
        else:
            value, epoch = _best_so_far(folder.path, study)
            study.finish(trial.number, "complete", value=value, best_epoch=epoch, seconds=_seconds(folder.path))


def _train(
    study: Study, number: int, config: RunConfig, prepared: PreparedSplit, folder: OutputFolder, progress: Progress
) -> None:
    def watch(record: EpochRecord) -> None:
        value, _ = _best_so_far(folder.path, study)
        if study.report(number, record.epoch, value) and record.epoch < config.train.epochs:
            raise _Pruned

    stored = stored_run(folder) if is_begun(folder.path) else None
    if stored is None:
        train_prepared(config, prepared, folder, progress, start=starting_weights(config), watch=watch)
        return
    history = stored_state(stored, folder).history
    log.info("trial %d goes on after %d of %d epochs", number, len(history), config.train.epochs)
    if history:
        watch(history[-1])  # the process may have died between saving the epoch and telling it
    train_prepared(config, prepared, folder, progress, stored=stored, watch=watch)


def _best_so_far(folder: Path, study: Study) -> tuple[float | None, int]:
    """The best value of the monitored metric up to the last epoch saved, and its epoch."""
    with safe_open(folder / LAST, framework="np") as file:  # the header alone
        best: dict[str, Any] = json.loads(file.metadata()["evalcam"])["training"]["state"]["best"]
    score = best["score"]
    return None if score is None else score if study.maximise else -score, best["epoch"]


def _is_of_the_values(error: Exception) -> bool:
    settings = isinstance(error, DivergedError | MemoryTooSmallError)
    return settings or (not isinstance(error, EvalcamError) and is_out_of_memory(error))


def _seconds(folder: Path) -> float | None:
    """Of all epochs that are saved."""
    with suppress(DataError):
        return math.fsum(record.seconds for record in read_history(folder / "history.csv"))
    return None


def drop_weights(out: Path, trial: Trial) -> None:
    """Remove the weights of a trial that is not the best, 180 MB for a ResNet-18. The rest stays."""
    for name in (BEST, LAST, PREVIOUS):
        with suppress(OSError):
            (trial_folder(out, trial.number) / name).unlink()
