"""From the maps of one image to its files: overlays on the original, the raw maps, and the rows that describe them."""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from evalcam_cli.data.preprocessing import Preprocessing
from evalcam_cli.explain.methods import METHODS
from evalcam_cli.report.overlay import draw_overlay, peak, png_bytes
from evalcam_cli.text import file_stem
from evalcam_cli.workflows.explained_images import Picture, Subject, fitting
from evalcam_cli.workflows.explaining import Explained
from evalcam_cli.workflows.explanations import Explanation

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Files:
    """What is written for one image."""

    rows: tuple[Explanation, ...]
    content: dict[str, bytes]
    """By name in the output folder."""


@dataclass(frozen=True)
class Writing:
    """How the maps of a run are named and drawn."""

    names: tuple[str, ...]
    """Of the classes in output order, or of the scores of an own target."""
    preprocessing: Preprocessing
    methods: tuple[str, ...]
    layer: str
    against: int | None = None
    maps: str = "npy"
    """`npy` or `npz`."""
    full: float | None = None
    """Value at full colour; None is each map's own maximum."""
    unit: str | None = None
    """Of an own target's score, in place of the methods' logit units."""
    verdicts: dict[str, str] = field(default_factory=dict)
    """By method, a warning that belongs on its pictures."""

    def files(self, picture: Picture, found: Explained, *, draw: bool) -> Files:
        """Raw maps and rows of one image, and its overlays where they are to be drawn now."""
        content: dict[str, bytes] = {}
        rows, arrays = [], {}
        for method in self.methods:
            for place, class_index in enumerate(found.classes):
                signed = found.maps[method][place]
                row = self._row(picture, found, method, place)
                arrays[f"{method}.{self._part(class_index)}"] = signed
                if self.maps == "npy":
                    content[row.map] = _npy_bytes(signed)
                if draw:
                    content[row.overlay] = self.overlay(picture, signed, row)
                rows.append(row)
        if self.maps == "npz":
            content[rows[0].map.partition("#")[0]] = _npz_bytes(arrays)
        return Files(tuple(rows), content)

    def overlay(self, picture: Picture, signed: Floats, row: Explanation) -> bytes:
        """The PNG of one row."""
        title = METHODS[row.method].title
        said = row.class_name if row.probability is None else f"{row.class_name}  p = {row.probability:.3f}"
        caption = [said, f"{title}, {row.layer}" if row.layer else title]
        geometry = self.preprocessing.geometry(*picture.size)
        return png_bytes(
            draw_overlay(picture.original(), signed, geometry, caption_lines=caption, label=row.class_name)
        )

    def _row(self, picture: Picture, found: Explained, method: str, place: int) -> Explanation:
        class_index, signed = found.classes[place], found.maps[method][place]
        empty = not float(np.abs(signed).max() if not METHODS[method].signed else signed.max()) > 0
        geometry = self.preprocessing.geometry(*picture.size)
        x, y = (None, None) if empty else peak(signed if METHODS[method].signed else np.abs(signed), geometry)
        part, subject = self._part(class_index), picture.subject
        name = fitting(subject.stem, f".{method}.{part}")
        bundle = fitting(subject.stem, ".maps")
        probability = None if not len(found.probabilities) else float(found.probabilities[class_index])
        return Explanation(
            subject.path, subject.label, "" if found.predicted is None else self.names[found.predicted],
            self._name(class_index), class_index, probability, float(found.scores[place]), method,
            self.layer if METHODS[method].of_layer else "", float(signed.min()), float(signed.max()), empty, x, y,
            f"{name}.png", f"{name}.npy" if self.maps == "npy" else f"{bundle}.npz#{method}.{part}",
        )  # fmt: skip

    def _name(self, class_index: int) -> str:
        name = self.names[class_index]
        return name if self.against is None else f"{name} against {self.names[self.against]}"

    def _part(self, class_index: int) -> str:
        part = class_part(self.names, class_index)
        return part if self.against is None else f"{part}-against-{class_part(self.names, self.against)}"


def loss_of(subject: Subject, names: Sequence[str], found: Explained) -> float | None:
    """Cross-entropy of the true class in nats; None without label."""
    if subject.label not in names or not len(found.probabilities):
        return None
    probability = float(found.probabilities[list(names).index(subject.label)])
    return -math.log(max(probability, 1e-300))


def class_part(names: Sequence[str], class_index: int) -> str:
    """The class in a file name, with its index where two classes would look alike."""
    parts = [file_stem(name).casefold() for name in names]
    part = file_stem(names[class_index])
    return part if parts.count(part.casefold()) == 1 else f"{part}-{class_index}"


def _npy_bytes(array: Floats) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _npz_bytes(arrays: dict[str, Floats]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def read_map(content: bytes, name: str) -> Floats:
    """The map of one row, from the bytes of its file.

    Args:
        content: Of the file before the `#` of the row's `map`.
        name: The row's `map`.
    """
    loaded = np.load(io.BytesIO(content), allow_pickle=False)
    array = loaded if "#" not in name else loaded[name.partition("#")[2]]
    return np.asarray(array, dtype=np.float32)
