"""Learning curves: losses, accuracies and the learning rate over the epochs."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from evalcam_cli.report.drawing import COLOURS, GREY, new_figure, own_style, png_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats = NDArray[np.float64]


def plot_curves(rows: Sequence[Mapping[str, object]], *, best_epoch: int | None = None) -> bytes:
    """Losses, and accuracies with the learning rate, over the epochs.

    Args:
        rows: Of `history.csv`: `epoch,train_loss,val_loss,val_accuracy,val_balanced_accuracy,lr`; numbers or their
            texts, None or empty where there is none.
        best_epoch: Marked in both panels; by default the first with the lowest validation loss.
    """
    with own_style():
        columns = {name: _column(rows, name) for name in _HISTORY}
        epochs = columns["epoch"]
        figure = new_figure(10, 4.2)
        left, right = figure.subplots(1, 2)
        _line(left, epochs, columns["train_loss"], "training", COLOURS[0])
        _line(left, epochs, columns["val_loss"], "validation", COLOURS[1])
        left.set_title("Loss", fontsize=11)
        _line(right, epochs, columns["val_accuracy"], "accuracy", COLOURS[0])
        _line(right, epochs, columns["val_balanced_accuracy"], "balanced accuracy", COLOURS[2])
        right.set(ylim=(0, 1.02))
        right.set_title("Validation", fontsize=11)
        rate = right.twinx()
        _line(rate, epochs, columns["lr"], "learning rate (right axis)", GREY)
        rate.set_ylabel("learning rate", color=GREY)
        rate.set_ylim(bottom=0)
        best = _best_epoch(epochs, columns["val_loss"]) if best_epoch is None else float(best_epoch)
        for axes in (left, right):
            if len(epochs):
                axes.set_xlim(epochs[0] - 0.5, epochs[-1] + 0.5)
            if best is not None:
                axes.axvline(best, color="black", linewidth=1, linestyle=(0, (4, 4)), label=f"best epoch ({best:g})")
            axes.set_xlabel("epoch")
            axes.locator_params(axis="x", integer=True, min_n_ticks=1)
        for axes, others in ((left, []), (right, [rate])):
            found = [one.get_legend_handles_labels() for one in (axes, *others)]
            lines, labels = ([entry for one in found for entry in one[side]] for side in (0, 1))
            if lines:
                axes.legend(
                    lines, labels, fontsize=9, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2, frameon=False
                )
        return png_bytes(figure)


_HISTORY = ("epoch", "train_loss", "val_loss", "val_accuracy", "val_balanced_accuracy", "lr")


def _column(rows: Sequence[Mapping[str, object]], name: str) -> Floats:
    cells = [row.get(name) for row in rows]
    return np.array([np.nan if cell is None or cell == "" else float(str(cell)) for cell in cells], dtype=np.float64)


def _line(axes: "Axes", epochs: Floats, values: Floats, label: str, colour: str) -> None:
    """A line with dots, so that a single epoch shows too; nothing where there are no values."""
    if np.isfinite(values).any():
        axes.plot(
            epochs,
            values,
            color=colour,
            label=label,
            marker="o",
            markersize=5 if len(epochs) < 5 else 3 if len(epochs) < 60 else 0,
        )


def _best_epoch(epochs: Floats, losses: Floats) -> float | None:
    return float(epochs[np.nanargmin(losses)]) if np.isfinite(losses).any() else None
