"""Split, train, evaluate and explain in one go."""

from dataclasses import dataclass
from pathlib import Path

from evalcam_cli.config import RunConfig
from evalcam_cli.errors import UsageError
from evalcam_cli.files import output_folder
from evalcam_cli.progress import Progress, silent
from evalcam_cli.workflows.checkpoints import WeightsRequest
from evalcam_cli.workflows.evaluate import Demands, Evaluation, evaluate
from evalcam_cli.workflows.gradcam import GradCamRequest, GradCamResultFiles, explain
from evalcam_cli.workflows.predictions import EvaluateRequest
from evalcam_cli.workflows.train import TrainRequest, train
from evalcam_cli.workflows.training_run import TrainResult


@dataclass(frozen=True)
class RunResult:
    """What the steps left behind."""

    training: TrainResult
    evaluation: Evaluation
    explanations: GradCamResultFiles


def run_all(
    config: RunConfig, *, data: Path | None, out: Path, resume: bool = False, overwrite: bool = False,
    progress: Progress = silent,
) -> RunResult:  # fmt: skip
    """Train into `out/train`, evaluate into `out/evaluate`, explain into `out/gradcam`.

    A resumed run continues its training; the two short steps after it are done anew.

    Raises:
        EvalcamError: As the exit codes say; finished steps are kept.
    """
    if data is None:
        raise UsageError("nothing to run on: name DATA, or data.path in the config")
    if config.split.folds is not None:
        raise UsageError("`run` makes one hold-out run; for split.folds use `evalcam train --all-folds`")
    Demands.of(config)  # a misspelt gate is found out before the training
    inputs = [data if data.is_dir() else data.parent]
    with output_folder(out, overwrite=overwrite, resume=resume, inputs=inputs):
        training = train(
            config, TrainRequest(out / "train", data, resume=resume, overwrite=overwrite, report_beside=out), progress
        )
        again = resume or overwrite
        evaluation = evaluate(
            config,
            EvaluateRequest(
                out=out / "evaluate",
                ckpt=training.folder,
                split_file=training.folder / "split.csv",
                data=data,
                overwrite=again,
            ),
            progress,
        )
        gradcam = GradCamRequest(
            out / "gradcam",
            weights=WeightsRequest(training.folder),
            split_file=training.folder / "split.csv",
            data=data,
            subset=config.evaluate.subset,
            overwrite=again,
        )
        return RunResult(training, evaluation, explain(_of_labelled(config), gradcam, progress))


def _of_labelled(config: RunConfig) -> RunConfig:
    """In a run every image has a label: unless told otherwise, show the predicted and the true class."""
    if config.gradcam.classes != ("predicted",):
        return config
    return config.model_copy(update={"gradcam": config.gradcam.model_copy(update={"classes": ("predicted", "true")})})
