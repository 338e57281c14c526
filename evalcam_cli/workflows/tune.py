"""A search for better settings: one study, one split, and as many processes as one likes."""

import contextlib
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from evalcam_cli.config import RunConfig, resolved
from evalcam_cli.data.split_file import fingerprint, split_bytes
from evalcam_cli.documents import yaml_text
from evalcam_cli.errors import DataError, MachineError, UsageError
from evalcam_cli.files import OutputFolder, discard_folder, output_folder
from evalcam_cli.models.device import choose_device
from evalcam_cli.progress import Progress, silent
from evalcam_cli.search_space import Dimension, search_space
from evalcam_cli.text import counted, shown
from evalcam_cli.workflows.presence import present
from evalcam_cli.workflows.search_files import FILES, TuneResult, write_end, write_state
from evalcam_cli.workflows.search_helpers import helpers
from evalcam_cli.workflows.split import PreparedSplit, make_split
from evalcam_cli.workflows.study import Study, Trial, Wait, require_optuna
from evalcam_cli.workflows.train import require_same_config
from evalcam_cli.workflows.training_part import load_training_part
from evalcam_cli.workflows.trials import drop_weights, run_trial
from evalcam_cli.world import world

log = logging.getLogger("evalcam")

STUDY = "study.db"
DEFAULT_TRIALS = 20
_SETS = ("train", "val")
_WORKERS = "workers"
_WAIT_SECONDS = 0.5


@dataclass(frozen=True)
class TuneRequest:
    """What a search was asked for, besides the config."""

    out: Path
    data: Path | None = None
    split_file: Path | None = None
    trials: int | None = None
    """In all; by default 20, or as many as the search has already been asked for."""
    jobs: int = 1
    """Processes on this machine."""
    resume: bool = False
    overwrite: bool = False
    join: bool = False
    """Take part in a search that another process has begun."""

    @property
    def inputs(self) -> list[Path]:
        """Folders that are only read."""
        return [] if self.data is None else [self.data if self.data.is_dir() else self.data.parent]


def tune(config: RunConfig, request: TuneRequest, progress: Progress = silent) -> TuneResult:
    """Train with different values of what `search.space` names, and keep the best by `train.monitor`.

    Only training and validation images are used; of a given split no test image is opened.

    Raises:
        EvalcamError: As the exit codes say; finished trials are kept.
    """
    require_optuna()
    if world().size > 1:
        raise UsageError("a search does not run under torchrun; use --jobs N, or start it again elsewhere with --join")
    space = search_space(config)
    choose_device(config.device)
    if request.join:
        study = _joined(config, space, request)
        prepared = _stored_split(config, request, progress)
        _require_same_split(study, prepared, request, progress)
        return _work(study, prepared, request, progress)
    with _own_folder(request) as folder:
        begun = Study(request.out / STUDY, space, config) if request.resume and (request.out / STUDY).exists() else None
        if begun is not None and "config" in begun.facts:
            study, prepared = begun, _resumed(begun, request, progress)
        else:
            study, prepared = _begun(config, space, request, folder, progress)
        with helpers(request.out, prepared.split.root, request.jobs, config.device):
            return _work(study, prepared, request, progress)


@contextlib.contextmanager
def _own_folder(request: TuneRequest) -> Iterator[OutputFolder]:
    with contextlib.ExitStack() as stack:
        owned = output_folder(request.out, overwrite=request.overwrite, resume=request.resume, inputs=request.inputs)
        try:
            folder = stack.enter_context(owned)
        except MachineError as error:
            if (request.out / STUDY).exists():
                raise MachineError(f"{error};\n`--join` takes part in its search") from error
            raise
        yield folder


def _begun(
    config: RunConfig, space: tuple[Dimension, ...], request: TuneRequest, folder: OutputFolder, progress: Progress
) -> tuple[Study, PreparedSplit]:
    prepared = _divided(config, request, progress)
    if request.overwrite:
        _remove_trials(request.out)
    table, facts = split_bytes(prepared.split)
    folder.write("split.json", facts)
    folder.write("split.csv", table)
    folder.write("config.yaml", yaml_text(resolved(config)).encode())
    for name in (*FILES, f"{STUDY}-journal", f"{_WORKERS}/turn.lock"):
        folder.claim(name)
    study = Study(folder.claim(STUDY), space, config)
    study.state(
        {
            "trials": request.trials or DEFAULT_TRIALS,
            "split_fingerprint": fingerprint(prepared.split.samples),
            "config": resolved(config),  # last: with it the search has begun
        }
    )
    return study, prepared


def _divided(config: RunConfig, request: TuneRequest, progress: Progress) -> PreparedSplit:
    """The split that the request names, or a new one of its data."""
    if request.split_file is not None:
        return load_training_part(
            request.split_file, _SETS, data=request.data, config=config, report_beside=request.out, progress=progress
        )
    if request.data is None:
        raise UsageError("nothing to train on: name DATA, --split FILE, or data.path in the config")
    if config.split.folds is not None:
        raise UsageError("a search compares trials on one split with train and val; leave out split.folds")
    prepared = make_split(request.data, config, report_beside=request.out, progress=progress)
    log.info("all images were read once, to divide them honestly; from here on no test image is opened")
    for name in _SETS:
        if not prepared.split.subset(name):
            raise DataError(f"the split has no {name} images; a search needs some (split.ratios)")
    return prepared


def _resumed(study: Study, request: TuneRequest, progress: Progress) -> PreparedSplit:
    _require_same_config(study, request.out)
    prepared = _stored_split(study.config, request, progress)
    _require_same_split(study, prepared, request, progress)
    if request.trials is not None:
        study.state({"trials": request.trials})
    finished = sum(trial.state != "unfinished" for trial in study.trials())
    log.info("resuming a search: %d of %s are finished", finished, counted(study.facts["trials"], "trial"))
    return prepared


def _joined(config: RunConfig, space: tuple[Dimension, ...], request: TuneRequest) -> Study:
    if not (request.out / STUDY).exists():
        raise UsageError(
            f"there is no search in {shown(request.out.absolute())} to join; start one without --join first"
        )
    study = Study(request.out / STUDY, space, config)
    if "config" not in study.facts:
        raise UsageError(f"the search in {shown(request.out.absolute())} has not begun yet; join it in a moment")
    _require_same_config(study, request.out)
    if request.trials not in (None, study.facts["trials"]):
        log.warning("the search is of %s, and joining it changes that no more", counted(study.facts["trials"], "trial"))
    return study


def _stored_split(config: RunConfig, request: TuneRequest, progress: Progress) -> PreparedSplit:
    return load_training_part(
        request.out / "split.csv", _SETS, data=request.data, config=config, report_beside=request.out, progress=progress
    )


def _require_same_split(study: Study, prepared: PreparedSplit, request: TuneRequest, progress: Progress) -> None:
    place = shown(request.out.absolute())
    if fingerprint(prepared.split.samples) != study.facts["split_fingerprint"]:
        raise DataError(f"{place}/split.csv is not the split that this search began with; restore it, or start anew")
    if request.split_file is not None:
        asked = _divided(study.config, request, progress)  # with its hashes, and without what is left out, as then
        if fingerprint(asked.split.samples) != study.facts["split_fingerprint"]:
            raise DataError(
                f"the search in {place} was begun with another split;\nuse the same, or another --out for a new search"
            )


# What may differ between processes and from one day to the next: where a search runs, and what comes after it.
_FREE_KEYS = ("device", "data.path", "data.workers", "data.cache", "evaluate.", "gradcam.", "train.logger")


def _require_same_config(study: Study, out: Path) -> None:
    require_same_config(study.config, study.facts["config"], out, free=_FREE_KEYS, steps=False)


def _work(study: Study, prepared: PreparedSplit, request: TuneRequest, progress: Progress) -> TuneResult:
    """Run trials until the search has all it was asked for, and write what it found."""
    out, root = request.out, prepared.split.root
    with present(out / _WORKERS) as here:
        while True:
            count = study.facts["trials"]
            with here.alone():
                trial = study.claim(here.name, here.is_alive, count)
            if trial is None:
                break
            if isinstance(trial, Wait):
                time.sleep(_WAIT_SECONDS)
                continue
            run_trial(study, trial, prepared, out, _within(progress, f"trial {trial.number} of {count}"))
            with here.alone():
                _settle(study, trial.number, out, root)
        with here.alone():
            best = study.best()
            if best is None:
                raise _all_failed(study)
            return write_end(study, out, root, best)


def _within(progress: Progress, name: str) -> Progress:
    """Progress of a part, told under the name of the whole."""

    def tell(task: str, done: int, total: int, note: str = "") -> None:
        progress(f"{name}, {task}", done, total, note)

    return tell


def _settle(study: Study, number: int, out: Path, root: Path) -> None:
    """Say what came of a trial, update the files, and keep the weights of the best one only."""
    best = study.best()
    trials = study.trials()
    log.info("%s", _sentence(study, trials[number], best))
    write_state(study, out, root)
    for trial in trials:
        if trial.state != "unfinished" and (best is None or trial.number != best.number):
            drop_weights(out, trial)


def _sentence(study: Study, trial: Trial, best: Trial | None) -> str:
    values = ", ".join(f"{key} {value_text(value)}" for key, value in trial.params.items())
    metric = study.config.train.monitor
    what = {
        "complete": f"{metric} {trial.value:.4g}" if trial.value is not None else "",
        "pruned": f"pruned after epoch {trial.epochs}" + (f", {metric} {trial.value:.4g}" if trial.value else ""),
        "failed": f"failed: {trial.reason}",
    }.get(trial.state, "unfinished")
    so_far = f"; best so far {best.value:.4g} (trial {best.number})" if best is not None else ""
    return f"trial {trial.number}: {what} ({values}){so_far}"


def value_text(value: object) -> str:
    """A drawn value, short."""
    if value is None or isinstance(value, bool):
        return str(value).lower().replace("none", "null")
    return f"{value:.4g}" if isinstance(value, float) else shown(value)


def _all_failed(study: Study) -> DataError:
    reasons = [trial.reason for trial in study.trials() if trial.reason]
    return DataError(
        f"none of {counted(len(study.trials()), 'trial')} came to a value; the last failed because "
        f"{reasons[-1] if reasons else 'it was pruned'};\nsearch elsewhere (search.space), in another --out"
    )


def _remove_trials(out: Path) -> None:
    """Remove the trials of an earlier search, files that evalcam did not write excepted."""
    with present(out / _WORKERS) as here:
        if here.others():
            raise MachineError(f"other processes still work on the search in {shown(out.absolute())}; wait or end them")
    for place in sorted((out / "trials").glob("trial-*")):
        discard_folder(place)
