"""A model per round of a cross-validation, and what all rounds together say."""

import logging
from functools import partial

from evalcam_cli.config import RunConfig
from evalcam_cli.errors import UsageError
from evalcam_cli.files import output_folder
from evalcam_cli.models.device import choose_device
from evalcam_cli.progress import Progress, silent
from evalcam_cli.workflows.split import chosen_round
from evalcam_cli.workflows.train import TrainRequest, prepare, train_round
from evalcam_cli.workflows.training_run import TrainResult, starting_weights

log = logging.getLogger("evalcam")


def train_all_folds(config: RunConfig, request: TrainRequest, progress: Progress = silent) -> list[TrainResult]:
    """Train one model per fold into `request.out/fold-0`, `fold-1`, …, one after the other."""
    choose_device(config.device)
    owned = partial(output_folder, overwrite=request.overwrite, resume=request.resume, inputs=request.inputs)
    with owned(request.out):
        prepared = prepare(config, request, progress)
        if prepared.split.folds is None:
            raise UsageError("--all-folds needs a split with folds; make one with --folds K (config split.folds)")
        start = starting_weights(config)
        results = []
        for fold in range(prepared.split.folds):
            log.info("fold %d of %d", fold, prepared.split.folds)
            with owned(request.out / f"fold-{fold}") as folder:
                part = chosen_round(prepared, fold, config.seed)
                results.append(train_round(config, part, folder, progress, start=start, resume=request.resume))
        return results
