"""The failure report of a run: its page, its sheet for slides, and where each class looks on average."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np

from evalcam_cli.data.preprocessing import Geometry
from evalcam_cli.evaluation.intervals import wilson_interval
from evalcam_cli.explain.attention import AttentionAverages, describe
from evalcam_cli.explain.methods import METHODS
from evalcam_cli.explain.sanity import Verdict
from evalcam_cli.files import OutputFolder
from evalcam_cli.progress import Progress
from evalcam_cli.report.colours import Kind, Scale, colour_bar, own_full, paint
from evalcam_cli.report.failure_entries import (
    FailureEntry,
    FailureSpool,
    remove_spool,
    shrink,
    small_picture,
)
from evalcam_cli.report.failure_sheet import draw_failure_sheet
from evalcam_cli.report.failures import PAGE_NAME, write_failure_page
from evalcam_cli.report.failures_page import FailureFacts, Legend
from evalcam_cli.report.overlay import png_bytes
from evalcam_cli.text import counted
from evalcam_cli.workflows import explained_images as images
from evalcam_cli.workflows.ahead import ahead
from evalcam_cli.workflows.explained_images import Subject
from evalcam_cli.workflows.explanations import Entry, Explanation, Ledger
from evalcam_cli.workflows.map_files import Floats, Writing, read_map

log = logging.getLogger("evalcam")

SHEET_NAME = "failures.png"
_BAR = (240, 12)  # pixels of a colour bar on the page


@dataclass(frozen=True)
class FailureReport:
    """What a failure report is made from: the maps of a run, by its first method."""

    folder: OutputFolder
    ledger: Ledger
    writing: Writing
    max_pixels: int
    right_too: bool
    """Whether right predictions are shown as well."""
    place: str
    """Of the checkpoint."""
    sha256: str
    subset: str
    notes: tuple[str, ...] = ()
    """What a reader must know of the images and the maps."""
    verdict: Verdict | None = None
    """Of the sanity checks on the method."""

    def write(self, chosen: Sequence[Subject], progress: Progress) -> str:
        """Write `failures.html` and `failures.png`, warn of where classes look, and say how many mistakes there are.

        Args:
            chosen: All images of the run; those that could not be read are left out.
            progress: Told `collecting mistakes`.
        """
        known = [subject for subject in chosen if subject.path in self.ledger and subject.label]
        averages = AttentionAverages(len(self.writing.names))
        confusion = np.zeros((len(self.writing.names),) * 2, dtype=np.int64)
        with FailureSpool.open(self.folder) as spool:
            for done, entry in enumerate(
                ahead(self._entry, self._counted(known, confusion, averages), threads=2, most=8)
            ):
                if entry is not None:
                    spool.add(entry)
                progress("collecting mistakes", done + 1, len(known))
            attention = averages.summarise()
            facts = self._facts(confusion)
            write_failure_page(self.folder, spool, facts, attention)
            title = f"{counted(facts.mistakes, 'mistake')} in {counted(facts.images, 'image')}, {facts.method}"
            sheet = draw_failure_sheet(title, spool.worst(8), legends=facts.legends)
            self.folder.write(SHEET_NAME, png_bytes(sheet))
        remove_spool(self.folder)
        for one in attention:
            if (warning := describe(one, self.writing.names[one.class_index])) is not None:
                log.warning("%s", warning)
        return f"{counted(facts.mistakes, 'mistake')} in {counted(facts.images, 'image')}: {PAGE_NAME}, {SHEET_NAME}"

    @property
    def _method(self) -> str:
        return self.writing.methods[0]

    def _counted(
        self, known: Sequence[Subject], confusion: "np.typing.NDArray[np.int64]", averages: AttentionAverages
    ) -> Iterator[tuple[Subject, Entry]]:
        """The images one by one, each counted, and its map of the predicted class taken into the average."""
        names = self.writing.names
        for subject in known:
            entry = self.ledger.read(subject.path)
            row = _row(entry, self._method, entry.rows[0].predicted)
            confusion[names.index(subject.label), row.class_index] += 1
            signed = self.writing.readable(self._method, read_map(self.folder.path, row.map))
            averages.add(row.class_index, signed, self.writing.preprocessing.geometry(*entry.size))
            yield subject, entry

    def _entry(self, known: tuple[Subject, Entry]) -> FailureEntry | None:
        """What the page shows of an image; None for a right prediction where these are left out."""
        subject, entry = known
        true, predicted = (_row(entry, self._method, name) for name in (subject.label, entry.rows[0].predicted))
        wrong = true.class_index != predicted.class_index
        if not (wrong or self.right_too):
            return None
        image = shrink(images.read_original(subject, entry.sha256, self.max_pixels))
        geometry = self.writing.preprocessing.geometry(*image.size)
        maps = [self.writing.readable(self._method, read_map(self.folder.path, row.map)) for row in (true, predicted)]
        largest = max(own_full(each, geometry, "positive") for each in maps)
        both = Scale("positive", largest if largest > 0 else None)

        def painted(signed: Floats, scale: Scale, label: str) -> bytes:
            return small_picture(paint(image, signed, geometry, scale, label).image)

        difference = maps[0] - maps[1]
        return FailureEntry(
            path=subject.path,
            label=subject.label,
            predicted=predicted.class_name,
            loss=float("nan") if entry.loss is None else entry.loss,
            probabilities=tuple(zip(self.writing.names, entry.probabilities, strict=True)),
            original=small_picture(image),
            true_map=painted(maps[0], both, true.class_name),
            predicted_map=painted(maps[1], both, predicted.class_name) if wrong else None,
            difference=painted(difference, Scale("signed"), "difference") if wrong else None,
            true_max=true.map_max,
            predicted_max=predicted.map_max if wrong else None,
            difference_max=_own(difference, geometry, "signed") if wrong else None,
            files=tuple(row.overlay for row in ((true, predicted) if wrong else (true,)) if row.overlay),
        )

    def _facts(self, confusion: "np.typing.NDArray[np.int64]") -> FailureFacts:
        right, total = int(np.trace(confusion)), int(confusion.sum())
        interval, unit = wilson_interval(right, total), self.writing.scale(self._method).unit
        accuracy = f"{right / total:.3f}" if total else "undefined"
        if interval.low is not None and interval.high is not None:
            accuracy += f" (95 % CI {interval.low:.3f} to {interval.high:.3f})"
        legends = (
            Legend(_bar("positive"), "0", "largest of the two maps", "what speaks for the class"),
            Legend(_bar("signed"), "for the predicted class", "for the true class", "true minus predicted class"),
        )
        return FailureFacts(
            self.writing.names, confusion, PurePosixPath(self.place).name, self.sha256[:12], self.subset, accuracy,
            METHODS[self._method].title, self.writing.layer if METHODS[self._method].of_layer else "", unit, legends,
            "" if self.verdict is None else self.verdict.sentence,
            self.verdict is not None and self.verdict.outcome == "fails", self.notes,
        )  # fmt: skip


def _row(entry: Entry, method: str, name: str) -> Explanation:
    """The map of a class by a method."""
    return next(row for row in entry.rows if row.method == method and row.class_name == name)


def _own(signed: Floats, geometry: Geometry, kind: Kind) -> float:
    return float(own_full(signed, geometry, kind))


def _bar(kind: Kind) -> bytes:
    return png_bytes(colour_bar(*_BAR, kind))
