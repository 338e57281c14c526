"""One run over all its images: read ahead, explained batch by batch, drawn behind; memory does not grow with them."""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from evalcam_cli.data.images import UnreadableImage
from evalcam_cli.errors import UsageError
from evalcam_cli.files import OutputFolder
from evalcam_cli.progress import Progress
from evalcam_cli.text import shown
from evalcam_cli.workflows import explained_images as images
from evalcam_cli.workflows.ahead import ahead, behind
from evalcam_cli.workflows.explained_images import Picture, Subject
from evalcam_cli.workflows.explaining import Explained, Explainer
from evalcam_cli.workflows.explanations import Entry, Ledger
from evalcam_cli.workflows.judging import Judge
from evalcam_cli.workflows.manifest import map_facts
from evalcam_cli.workflows.map_files import Writing, loss_of, read_map

log = logging.getLogger("evalcam")

BATCH = 16  # images per forward pass
_READERS = 2
_FINISHERS = 3
"""They draw, then wait for the disk, for which syncs asked for together are little more than one. Each holds a picture
of any size and a share of the heap: at 12 megapixels about 200 MB."""
_GAP = 1e-4
"""Largest miss of the sum of a map, relative to the largest logit, that counts as rounding."""


@dataclass
class Job:
    """What a run shares between its images."""

    explainer: Explainer
    writing: Writing
    judge: Judge
    folder: OutputFolder
    ledger: Ledger
    max_pixels: int
    draws: Callable[[Subject, Explained], bool]
    """Whether an image gets pictures."""
    later: bool = False
    """Whether they are drawn once all maps are known."""
    unreadable: dict[str, str] = field(default_factory=dict)
    """Reason by path."""
    noted: set[str] = field(default_factory=set)
    """Methods whose note was said."""
    gap: float | None = None
    """Self-check: the largest miss of the sum of a map, relative to the largest logit."""
    _keeping: threading.Lock = field(default_factory=threading.Lock)

    def run(self, chosen: Sequence[Subject], progress: Progress) -> None:
        """Explain all images that the ledger does not know, and enter them there.

        Each is entered by the thread that wrote its files: however the run ends, what was finished is known.

        Raises:
            EvalcamError: As the exit codes say; what is in the ledger is kept.
        """
        self._require_unchanged(chosen)
        # whole batches, also where half of one is known: the last bits of a map depend on what else is in its batch
        size = self.explainer.batch_size(BATCH)
        batches = [chosen[start : start + size] for start in range(0, len(chosen), size)]
        pending = [batch for batch in batches if not all(one.path in self.ledger for one in batch)]
        done = len(chosen) - sum(len([one for one in batch if one.path not in self.ledger]) for batch in pending)
        for _ in behind(self._finish, self._explained(pending), threads=_FINISHERS, most=BATCH):
            done += 1
            progress("explaining", done + len(self.unreadable), len(chosen))
        if self.gap is not None:
            log.info("self-check: sum of a map + bias = logit, to %.1g of the largest logit", max(self.gap, 1e-9))

    def readable(self, chosen: Sequence[Subject]) -> list[Picture]:
        """The pictures of those images that can be read."""
        return [picture for picture in map(self._read, chosen) if isinstance(picture, Picture)]

    def draw(self, chosen: Sequence[Subject], progress: Progress) -> None:
        """Draw the pictures of all images from their maps, once the scale is known."""
        known = [subject for subject in chosen if subject.path in self.ledger]
        entries = ((subject, self.ledger.read(subject.path)) for subject in known)
        for done, _ in enumerate(ahead(self._redraw, entries, threads=_FINISHERS, most=BATCH), start=1):
            progress("drawing", done, len(known))

    def _explained(self, batches: Sequence[Sequence[Subject]]) -> Iterator[tuple[Picture, Explained]]:
        """Each image of the batches that is not known yet, with its maps."""
        read = ahead(self._read, (one for batch in batches for one in batch), threads=_READERS, most=BATCH)
        for batch in batches:
            pictures = []
            for subject in batch:
                picture = next(read)
                if isinstance(picture, Picture):
                    pictures.append(picture)
                else:
                    self.unreadable[subject.path] = picture
            if not pictures:
                continue
            found, gap = self.explainer.explain(pictures)
            self._check(gap)
            for method, note in found[0].notes.items():  # of the first batch; it is about all its images
                if method not in self.noted:
                    self.noted.add(method)
                    log.info("%s: %s", method, note)
            for picture, each in zip(pictures, found, strict=True):
                if picture.subject.path not in self.ledger:
                    yield picture, each

    def _check(self, gap: float | None) -> None:
        if gap is None:
            return
        if not gap <= _GAP:
            log.warning("self-check failed: the sum of a map misses logit - bias by %.2g of the largest logit", gap)
        self.gap = gap if self.gap is None else max(gap, self.gap)

    def _read(self, subject: Subject) -> Picture | str:
        """The picture, or the reason why it cannot be read."""
        try:
            return images.read_picture(subject, self.explainer.classifier.preprocessing, self.max_pixels)
        except UnreadableImage as error:
            return error.reason

    def _finish(self, made: tuple[Picture, Explained]) -> None:
        """Write an image's files, and then enter what is known of it."""
        picture, found = made
        subject = picture.subject
        draws = self.draws(subject, found)
        rows = self.writing.rows(picture, found, drawn=draws)
        content = self.writing.raw_maps(picture, found, rows)
        if draws and not self.later:
            maps = [found.maps[method][place] for method, place in found.order()]
            content |= self.writing.pictures(picture.original(), subject, rows, maps)
        self.folder.write_all(content)
        probabilities = tuple(map(float, found.probabilities))
        loss = loss_of(subject, self.writing.names, found)
        extra = self.judge.judge(picture, found, rows, self.writing) | found.extra
        extra["maps"] = [map_facts(found.maps[method][place]) for method, place in found.order()]
        entry = Entry(subject.path, picture.sha256, picture.size, loss, probabilities, rows, extra)
        with self._keeping:
            self.ledger.add(entry)

    def _redraw(self, known: tuple[Subject, Entry]) -> None:
        subject, entry = known
        if not all(row.overlay for row in entry.rows):
            return
        image = images.read_original(subject, entry.sha256, self.max_pixels)
        maps = [read_map(self.folder.path, row.map) for row in entry.rows]
        self.folder.write_all(self.writing.pictures(image, subject, entry.rows, maps))

    def _require_unchanged(self, chosen: Sequence[Subject]) -> None:
        for subject in chosen:
            if subject.path in self.ledger and images.sha256_of(subject) != self.ledger.read(subject.path).sha256:
                raise UsageError(
                    f"--resume: {shown(subject.path)} has changed since it was explained; "
                    "restore it, or use another --out"
                )
