"""The confusion matrix as a picture: all of it up to 30 classes, beyond that the most frequent confusions."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from evalcam_cli.evaluation.curves import Confusion, top_confusions
from evalcam_cli.report.drawing import (
    COLOURS,
    GREY,
    Names,
    columns,
    drawn_names,
    new_figure,
    own_style,
    png_bytes,
    sentence,
)
from evalcam_cli.text import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Ints = NDArray[np.int64]

MATRIX_CLASSES = 30
"""Classes up to which a confusion matrix can be read."""
CONFUSIONS_HEADER = ("true", "predicted", "images", "support", "share")
_BARS = 20
_ROWS = 1000
_DARK = 0.71  # share from which white letters stand out more than black ones


def plot_confusion_matrix(confusion: Ints, classes: Sequence[str], *, unit: str = "image") -> bytes:
    """Counts and row percentages, rows truth, columns predictions; above 30 classes the most frequent confusions.

    Args:
        confusion: (K, K) counts.
        classes: K names.
        unit: What is counted: predictions, where images have several.
    """
    with own_style():
        draw = _matrix if len(classes) <= MATRIX_CLASSES else _top
        return png_bytes(draw(confusion, classes, unit))


def confusion_rows(confusion: Ints, classes: Sequence[str]) -> Iterator[tuple[object, ...]]:
    """Rows of `confusions.csv` under `CONFUSIONS_HEADER`: the thousand most frequent confusions.

    `share` is that of the images of the true class.
    """
    for one in top_confusions(confusion, _ROWS):
        yield classes[one.true], classes[one.predicted], one.count, one.support, one.count / one.support


def _matrix(confusion: Ints, classes: Sequence[str], unit: str) -> "Figure":
    k = len(confusion)
    names = drawn_names(classes)
    support = confusion.sum(axis=1, keepdims=True)
    shares = np.divide(confusion, support, out=np.full(confusion.shape, np.nan), where=support > 0)
    cell, size = (0.85, 11) if k <= 6 else (0.62, 9) if k <= 15 else (0.5, 7)
    cell = max(cell, 0.011 * size * len(str(confusion.max())))
    room = 0.08 * max(columns(label) for label in names.labels)
    figure = new_figure(cell * k + room + 2.6, cell * k + 0.7 * room + 1.3)
    axes = figure.add_subplot()
    axes.set_facecolor("#e8e8e8")  # rows without images
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(k, k):
        share = shares[row, column]
        axes.text(
            column,
            row,
            f"{confusion[row, column]}\n{_percent(share)}",
            ha="center",
            va="center",
            fontsize=size,
            color="white" if share > _DARK else GREY if confusion[row, column] == 0 else "black",
            in_layout=False,  # inside the axes anyway; measuring hundreds of them takes seconds
        )
    truths = [f"{label} (n={total})" for label, total in zip(names.labels, support[:, 0], strict=True)]
    if room > cell:
        axes.set_xticks(range(k), names.labels, rotation=45, ha="right", rotation_mode="anchor")
    else:
        axes.set_xticks(range(k), names.labels)
    axes.set_yticks(range(k), truths)
    names.letter([*axes.get_xticklabels(), *axes.get_yticklabels()])
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    axes.set_title(f"{confusion.trace():,} of {counted(int(confusion.sum()), unit)} right", fontsize=11)
    figure.colorbar(image, ax=axes, label="share of the true class", shrink=0.8, aspect=30)
    names.explain(figure)
    return figure


def _percent(share: float) -> str:
    """Whole percent, never 0 or 100 for what is not."""
    if np.isnan(share):
        return "–"
    if 0 < share < 0.005:
        return "<1%"
    if 0.995 <= share < 1:
        return ">99%"
    return f"{share:.0%}"


def _top(confusion: Ints, classes: Sequence[str], unit: str) -> "Figure":
    found = top_confusions(confusion, _BARS)
    wrong = int(confusion.sum() - confusion.trace())
    title = f"{counted(len(classes), 'class')}, {wrong:,} of {counted(int(confusion.sum()), unit)} wrong"
    chosen = sorted({index for one in found for index in (one.true, one.predicted)})
    names = drawn_names(classes, chosen)
    figure = new_figure(8, 1.6 + 0.3 * max(len(found), 3))
    axes = figure.add_subplot()
    if found:
        _bars(axes, found, dict(zip(chosen, names.labels, strict=True)), names)
        title += (
            f": the {len(found)} most frequent confusions\n" if len(found) > 1 else ": the only confusion\n"
        ) + "(true → predicted; the whole matrix is in confusion_matrix.csv)"
    else:
        axes.set_axis_off()
        sentence(axes, "no confusions: every image is right")
    figure.suptitle(title, fontsize=10)
    names.explain(figure)
    return figure


def _bars(axes: "Axes", found: Sequence[Confusion], labels: dict[int, str], names: Names) -> None:
    values = [one.count for one in found]
    bars = axes.barh(range(len(found)), values, color=COLOURS[0])
    axes.bar_label(bars, [f"{one.count:,} of {one.support:,}" for one in found], padding=3, fontsize=9)
    axes.set_yticks(range(len(found)), [f"{labels[one.true]} → {labels[one.predicted]}" for one in found], fontsize=9)
    names.letter(axes.get_yticklabels())
    axes.invert_yaxis()
    axes.set_xlim(0, 1.3 * max(values))
    axes.locator_params(axis="x", integer=True, nbins=6)
    axes.set_xlabel("count (of all of the true class)")
    axes.spines[["top", "right"]].set_visible(False)
