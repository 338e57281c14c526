"""Where to set the learning rate: a range test on the training images, no validation or test image used."""

import logging
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from evalcam_cli.config import RunConfig
from evalcam_cli.data.samples import Split
from evalcam_cli.errors import DataError, UsageError
from evalcam_cli.files import output_folder
from evalcam_cli.models.device import choose_device, make_repeatable, use_full_precision
from evalcam_cli.progress import Progress, silent
from evalcam_cli.report.plots_tuning import plot_range_test
from evalcam_cli.text import listed
from evalcam_cli.training.range_test import RangePoint, Suggestion, geometric_rates, range_test, steps_of, suggest
from evalcam_cli.workflows.split import PreparedSplit, make_split
from evalcam_cli.workflows.training_part import load_training_part
from evalcam_cli.workflows.training_run import TrainingRun, starting_weights
from evalcam_cli.world import world

log = logging.getLogger("evalcam")

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class RangeTestRequest:
    """What a range test was asked for, besides the config."""

    out: Path
    data: Path | None = None
    split_file: Path | None = None
    low: float = 1e-7
    """First rate."""
    high: float = 10.0
    """Last rate."""
    steps: int = 100
    overwrite: bool = False


@dataclass(frozen=True)
class RangeTestResult:
    """What a range test found."""

    folder: Path
    points: tuple[RangePoint, ...]
    suggestion: Suggestion
    document: dict[str, Any]
    """As in `lr_find.json`."""


def lr_find(config: RunConfig, request: RangeTestRequest, progress: Progress = silent) -> RangeTestResult:
    """Train for a few steps at rising rates, from the weights that a run would start from, and keep no weights.

    Raises:
        EvalcamError: As the exit codes say.
    """
    if not 0 < request.low < request.high < math.inf:
        raise UsageError(f"--min ({request.low:g}) must be above 0 and below --max ({request.high:g})")
    if world().size > 1:
        raise UsageError("a range test does not run under torchrun; one process is enough for it")
    device = choose_device(config.device)
    data = request.data
    inputs = [] if data is None else [data if data.is_dir() else data.parent]
    with output_folder(request.out, overwrite=request.overwrite, inputs=inputs) as folder:
        prepared = _divided(config, request, progress)
        _require_classes(prepared.split)
        make_repeatable(config.seed, deterministic=config.train.deterministic)
        use_full_precision()
        run = TrainingRun(config, prepared, None, progress, device, {"train": None})
        trainer = run.trainer(starting_weights(config), None)
        rates = geometric_rates(request.low, request.high, request.steps)
        with steps_of(trainer) as take_step:
            points = range_test(take_step, rates, progress)
        suggestion = suggest(points)
        document = _document(config, points, suggestion)
        rows = [(one.step, one.rate, one.loss, one.smoothed) for one in points]
        folder.write_csv("lr_find.csv", ("step", "lr", "loss", "smoothed_loss"), rows)
        folder.write_json("lr_find.json", document)
        marks = {"steepest descent": suggestion.steepest, "a tenth of the minimum's": suggestion.tenth_of_minimum}
        folder.write(
            "lr_find.png",
            plot_range_test(
                [one.rate for one in points],
                [one.loss for one in points],
                [one.smoothed for one in points],
                {text: rate for text, rate in marks.items() if rate is not None},
            ),
        )
        return RangeTestResult(request.out, points, suggestion, document)


def _divided(config: RunConfig, request: RangeTestRequest, progress: Progress) -> PreparedSplit:
    if request.split_file is not None:
        return load_training_part(
            request.split_file, ("train",), data=request.data, config=config, report_beside=request.out,
            progress=progress,
        )  # fmt: skip
    if request.data is None:
        raise UsageError("nothing to train on: name DATA, --split FILE, or data.path in the config")
    if config.split.folds is not None:
        raise UsageError("a range test uses the training images of one split; leave out split.folds")
    return make_split(request.data, config, report_beside=request.out, progress=progress)


def _require_classes(split: Split) -> None:
    absent = sorted(set(split.classes) - {sample.label for sample in split.subset("train")})
    if absent or len(split.classes) < 2:
        raise DataError(f"no training images of {listed(absent)}" if absent else "a classifier needs two classes")


def _document(config: RunConfig, points: tuple[RangePoint, ...], suggestion: Suggestion) -> dict[str, Any]:
    said = asdict(suggestion)
    return {
        "schema_version": SCHEMA_VERSION,
        "train.lr": suggestion.recommended,
        **said,
        "steps": len(points),
        "images_per_step": config.train.batch_size * config.train.accumulate,
        "lowest_rate": points[0].rate,
        "highest_rate": points[-1].rate,
        "seed": config.seed,
    }
