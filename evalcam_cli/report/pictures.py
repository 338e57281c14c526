"""All plots of an evaluation, each with its numbers as CSV."""

from collections.abc import Callable
from pathlib import Path

from evalcam_cli.files import OutputFolder
from evalcam_cli.report import plots
from evalcam_cli.report.contents import Report


def write_pictures(folder: OutputFolder, report: Report) -> list[Path]:
    """Every plot as PNG."""
    predictions, metrics = report.predictions, report.metrics
    pictures: dict[str, Callable[[], bytes]] = {
        "confusion_matrix.png": lambda: plots.plot_confusion_matrix(metrics.confusion, metrics.classes),
        "roc.png": lambda: plots.plot_roc(predictions, metrics),
        "precision_recall.png": lambda: plots.plot_precision_recall(predictions, metrics),
        "calibration.png": lambda: plots.plot_calibration(predictions, metrics),
    }
    return [folder.write(name, draw()) for name, draw in pictures.items()]
