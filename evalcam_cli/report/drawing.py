"""What all plots share: a style that no user setting changes, names drawn as they are, and the way to PNG bytes."""

import contextlib
import io
import string
import textwrap
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.text import Text

from evalcam_cli.report.fonts import display_names

# Okabe and Ito, "Color universal design", 2008: told apart with any kind of colour vision; yellow is too light here.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
STYLES = ("-", "--", ":")
GREY = "#767676"
_DPI = 120
_WIDEST = 26
"""Width of a drawn name in columns of half a Chinese character; longer names lose their middle."""

_ADDED = "…→# " + string.ascii_letters + string.digits + string.punctuation
"""What is drawn in one text with names."""


@contextlib.contextmanager
def own_style() -> Iterator[None]:
    """Draw with matplotlib's defaults, whatever the user's matplotlibrc says, and leave its settings as they were."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        yield


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, in inches, that makes room for its labels and knows no window system."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def png_bytes(figure: Figure) -> bytes:
    """The figure with everything around it that sticks out; the same bytes for the same figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI, bbox_inches="tight", pad_inches=0.12, metadata={"Software": None})
    return buffer.getvalue()


@dataclass(frozen=True)
class Names:
    """Class names as they are drawn."""

    labels: tuple[str, ...]
    font: str | None
    """A font file that has their characters, when the usual font has not."""
    legend: str
    """What numbered labels stand for; empty when the labels are the names."""

    def letter(self, texts: Iterable[Text]) -> None:
        """Draw texts that hold names in the right font, and `$` and `_` as they are."""
        for text in texts:
            text.set_parse_math(False)
            if self.font:
                text.set_fontproperties(FontProperties(fname=self.font, size=text.get_fontsize()))

    def explain(self, figure: Figure) -> None:
        """Put the legend of numbered labels below the figure."""
        if self.legend:
            lines = textwrap.wrap(self.legend, width=int(figure.get_figwidth() * 17), break_on_hyphens=False)
            text = figure.text(0.01, -0.01, "\n".join(lines), va="top", ha="left", fontsize=7, color=GREY)
            text.set_parse_math(False)
            text.set_in_layout(True)


def drawn_names(classes: Sequence[str], chosen: Sequence[int] | None = None, *, widest: int = _WIDEST) -> Names:
    """Names short enough to draw, still all different, with a font that has them.

    Args:
        classes: All names.
        chosen: Indices of those that are drawn, in this order; by default all. The legend explains no others.
        widest: Columns that a name may take.
    """
    numbers = list(range(len(classes))) if chosen is None else list(chosen)
    names = [classes[number] for number in numbers]
    labels, font, legend = display_names([*names, _ADDED], [*numbers, -1])  # one font for all that is in one text
    short = [shortened(label, widest) for label in labels[: len(names)]]
    seen = Counter(short)
    unique = [label if seen[label] == 1 else f"{number}: {label}" for number, label in zip(numbers, short, strict=True)]
    return Names(tuple(unique), font, legend)


def shortened(text: str, widest: int = _WIDEST) -> str:
    """The text, without its middle when it is wider than so many columns."""
    if columns(text) <= widest:
        return text
    head, tail = "", ""
    for character in text:
        if columns(head + character) > (widest - 1) * 2 // 3:
            break
        head += character
    for character in reversed(text):
        if columns(character + tail) > widest - 1 - columns(head):
            break
        tail = character + tail
    return f"{head.rstrip()}…{tail.lstrip()}"


def columns(text: str) -> int:
    """Width of a text in halves of a Chinese character, roughly 0.08 inches at 10 points."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


def entry(text: str) -> str:
    """The text as a label that appears in a legend: matplotlib leaves out those that begin with `_`."""
    return f" {text}" if text.startswith("_") else text


def sentence(axes: Axes, text: str) -> None:
    """Empty axes that say why there is nothing to see."""
    box = {"facecolor": "white", "edgecolor": "none"}
    axes.text(
        0.5, 0.5, text, ha="center", va="center", fontsize=11, transform=axes.transAxes, parse_math=False, bbox=box
    )


def line_styles() -> Iterator[tuple[str, str]]:
    """Colours and dashes, all different."""
    return ((colour, dashes) for dashes in STYLES for colour in COLOURS)
