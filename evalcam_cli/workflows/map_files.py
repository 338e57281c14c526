"""From the maps of one image to its files: overlays on the original, the raw maps, and the rows that describe them."""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from evalcam_cli.data.preprocessing import Preprocessing
from evalcam_cli.explain.methods import METHODS
from evalcam_cli.report.colours import Kind, Scale
from evalcam_cli.report.overlay import draw_overlay, peak, png_bytes
from evalcam_cli.report.panel import Cell, Row, draw_panel
from evalcam_cli.text import file_stem
from evalcam_cli.workflows.explained_images import Picture, Subject, fitting
from evalcam_cli.workflows.explaining import Explained
from evalcam_cli.workflows.explanations import Explanation

Floats = NDArray[np.float32]
_UNDEFINED = "no map: the method is not defined here, as where it divides by a score of 0"
_SAME = 1e-5
"""Largest difference, relative to the maximum, of maps that are called identical."""


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
    full: dict[str, float] = field(default_factory=dict)
    """Value at full colour by method; a method without has each map's own maximum."""
    unit: str | None = None
    """Of an own target's score, in place of logit units."""
    warnings: dict[str, str] = field(default_factory=dict)
    """By method, what its pictures must warn of."""
    remarks: dict[str, str] = field(default_factory=dict)
    """By method, what else its pictures say."""

    def rows(self, picture: Picture, found: Explained, *, drawn: bool) -> tuple[Explanation, ...]:
        """What is said of each map of an image, method by method."""
        return tuple(self._row(picture, found, method, place, drawn=drawn) for method, place in found.order())

    def raw_maps(self, picture: Picture, found: Explained, rows: Sequence[Explanation]) -> dict[str, bytes]:
        """The files with the maps as they were computed, by name."""
        if self.maps == "npy":
            return {
                row.map: _npy_bytes(found.maps[method][place])
                for row, (method, place) in zip(rows, found.order(), strict=True)
            }
        arrays = {
            row.map.partition("#")[2]: found.maps[method][place]
            for row, (method, place) in zip(rows, found.order(), strict=True)
        }
        return {rows[0].map.partition("#")[0]: _npz_bytes(arrays)}

    def pictures(
        self, image: Image.Image, subject: Subject, rows: Sequence[Explanation], maps: Sequence[Floats]
    ) -> dict[str, bytes]:
        """The overlay of each map and, of several methods, the panel of all, by name."""
        geometry = self.preprocessing.geometry(*image.size)
        drawn: dict[str, bytes] = {}
        for row, signed in zip(rows, maps, strict=True):
            scale = self.scale(row.method)
            overlay = draw_overlay(
                image, _drawable(signed), geometry,
                caption_lines=[
                    _class_line(row), _method_line(row), *_undefined(signed), *self._remarks(row.method)
                ],
                label=row.class_name, unit=scale.unit, kind=scale.kind, full_scale=scale.full,
                warning=self.warnings.get(row.method),
            )  # fmt: skip
            drawn[row.overlay] = png_bytes(overlay)
        if len(self.methods) > 1:
            panel = draw_panel(image, self._panel_rows(rows, maps), geometry, title=subject.path)
            drawn[fitting(subject.stem, ".panel.png")] = png_bytes(panel)
        return drawn

    def scale(self, method: str) -> Scale:
        """How values of a method's maps become colours."""
        facts = METHODS[method]
        unit = facts.unit if self.unit is None else facts.unit.replace("logit units", self.unit)
        if facts.of_layer and "+" in self.layer:
            unit = "of each layer's largest"
        kind: Kind = "magnitude" if not facts.signed else "signed" if facts.both_signs else "positive"
        return Scale(kind, self.full.get(method), unit)

    def _panel_rows(self, rows: Sequence[Explanation], maps: Sequence[Floats]) -> list[Row]:
        by_class: dict[int, list[tuple[Explanation, Floats]]] = {}
        for row, signed in zip(rows, maps, strict=True):
            by_class.setdefault(row.class_index, []).append((row, signed))
        return [
            Row(
                _class_line(found[0][0]),
                found[0][0].class_name,
                [self._cell(row, each, found) for row, each in found],
            )
            for found in by_class.values()
        ]

    def _cell(self, row: Explanation, signed: Floats, beside: Sequence[tuple[Explanation, Floats]]) -> Cell:
        before = (one for one, other in beside[: [one for one, _ in beside].index(row)] if _same(other, signed))
        twin = next(before, None)
        same = () if twin is None else (f"identical to {METHODS[twin.method].title} here",)
        said = (*_undefined(signed), *same, *self._remarks(row.method))
        return Cell(
            _method_line(row), _drawable(signed), self.scale(row.method), said,
            self.warnings.get(row.method),
        )  # fmt: skip

    def _remarks(self, method: str) -> tuple[str, ...]:
        return (self.remarks[method],) if method in self.remarks else ()

    def _row(self, picture: Picture, found: Explained, method: str, place: int, *, drawn: bool) -> Explanation:
        class_index, signed = found.classes[place], found.maps[method][place]
        seen = self.readable(method, signed)
        empty = not float(seen.max()) > 0
        x, y = (None, None) if empty else peak(seen, self.preprocessing.geometry(*picture.size))
        part, subject = self._part(class_index), picture.subject
        name = fitting(subject.stem, f".{method}.{part}")
        bundle = fitting(subject.stem, ".maps")
        probability = None if not len(found.probabilities) else float(found.probabilities[class_index])
        return Explanation(
            subject.path, subject.label, "" if found.predicted is None else self.names[found.predicted],
            self._name(class_index), class_index, probability, float(found.scores[place]), method,
            self.layer if METHODS[method].of_layer else "", _value(signed.min()), _value(signed.max()), empty, x, y,
            f"{name}.png" if drawn else "",
            f"{name}.npy" if self.maps == "npy" else f"{bundle}.npz#{method}.{part}",
        )  # fmt: skip

    def readable(self, method: str, signed: Floats) -> Floats:
        """The map as it is read: its size where the method's sign says nothing."""
        return signed if METHODS[method].signed else np.abs(signed)

    def _name(self, class_index: int) -> str:
        name = self.names[class_index]
        return name if self.against is None else f"{name} against {self.names[self.against]}"

    def _part(self, class_index: int) -> str:
        part = class_part(self.names, class_index)
        return part if self.against is None else f"{part}-against-{class_part(self.names, self.against)}"


def _value(number: np.float32) -> float | None:
    return float(number) if np.isfinite(number) else None


def _drawable(signed: Floats) -> Floats:
    """Without colours where there is no map."""
    return signed if np.isfinite(signed).all() else np.zeros_like(signed)


def _undefined(signed: Floats) -> tuple[str, ...]:
    return () if np.isfinite(signed).all() else (_UNDEFINED,)


def _class_line(row: Explanation) -> str:
    return row.class_name if row.probability is None else f"{row.class_name}  p = {row.probability:.3f}"


def _method_line(row: Explanation) -> str:
    title = METHODS[row.method].title
    return f"{title}, {row.layer}" if row.layer else title


def _same(one: Floats, other: Floats) -> bool:
    return one.shape == other.shape and bool(np.abs(one - other).max() <= _SAME * np.abs(one).max())


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


def read_map(folder: Path, name: str) -> Floats:
    """A map as it was computed.

    Args:
        folder: The output folder.
        name: The `map` of a row of `explanations.csv`.
    """
    file, _, key = name.partition("#")
    loaded = np.load(folder / file, allow_pickle=False)
    if not key:
        return np.asarray(loaded, dtype=np.float32)
    with loaded:
        return np.asarray(loaded[key], dtype=np.float32)
