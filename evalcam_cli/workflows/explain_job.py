"""One run over all its images: read ahead, explained batch by batch, drawn behind; memory does not grow with them."""

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

from evalcam_cli.data.images import REMARKS
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
from evalcam_cli.workflows.map_files import Writing, read_map
from evalcam_cli.workflows.map_making import BATCH, FINISHERS, Made, Maker, worst
from evalcam_cli.workflows.shared_maps import OwnCode, Piece, make_together
from evalcam_cli.world import world

log = logging.getLogger("evalcam")

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
    code: OwnCode = field(default_factory=OwnCode)
    unreadable: dict[str, str] = field(default_factory=dict)
    """Reason by path."""
    noted: set[str] = field(default_factory=set)
    """Methods and remarks on images whose note was said."""
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
        size = self.explainer.batch_size(max(1, min(BATCH, -(-len(chosen) // world().size))))
        batches = [chosen[start : start + size] for start in range(0, len(chosen), size)]
        pending = [batch for batch in batches if not all(one.path in self.ledger for one in batch)]
        known = frozenset(one.path for batch in pending for one in batch if one.path in self.ledger)
        maker = self._maker(known)
        told = partial(self._tell, len(chosen), progress)
        if world().size > 1:
            with ThreadPoolExecutor(FINISHERS) as pool:
                make_together(maker, pending, lambda pieces: self._take(pieces, pool, told), self.code)
        else:
            for _ in behind(self._finish(maker), maker.explained(pending), threads=FINISHERS, most=BATCH):
                self._hear(maker.unreadable, maker.notes, maker.gap)
                told()
            self._hear(maker.unreadable, maker.notes, maker.gap)
        if self.gap is not None:
            log.info("self-check: sum of a map + bias = logit, to %.1g of the largest logit", max(self.gap, 1e-9))

    def readable(self, chosen: Sequence[Subject]) -> list[Picture]:
        """The pictures of those images that can be read."""
        return [picture for picture in map(self._maker().read, chosen) if isinstance(picture, Picture)]

    def draw(self, chosen: Sequence[Subject], progress: Progress) -> None:
        """Draw the pictures of all images from their maps, once the scale is known."""
        known = [subject for subject in chosen if subject.path in self.ledger]
        entries = ((subject, self.ledger.read(subject.path)) for subject in known)
        for done, _ in enumerate(ahead(self._redraw, entries, threads=FINISHERS, most=BATCH), start=1):
            progress("drawing", done, len(known))

    def _maker(self, known: frozenset[str] = frozenset()) -> Maker:
        return Maker(self.explainer, self.writing, self.judge, self.max_pixels, self.draws, self.later, known)

    def _finish(self, maker: Maker) -> Callable[[tuple[Picture, Explained]], None]:
        def finish(read: tuple[Picture, Explained]) -> None:
            self._keep(maker.make(read))

        return finish

    def _take(self, pieces: Sequence[Piece], pool: ThreadPoolExecutor, told: Callable[[], None]) -> None:
        """Keep what all processes have made since they were last asked."""
        for piece in pieces:
            self._hear(piece.unreadable, piece.notes, piece.gap)
        for _ in pool.map(self._keep, [made for piece in pieces for made in piece.made]):
            told()

    def _keep(self, made: Made) -> None:
        """Write an image's files, and then enter what is known of it."""
        self.folder.write_all(made.content)
        with self._keeping:
            self.ledger.add(made.entry)

    def _hear(self, unreadable: dict[str, str], notes: dict[str, str], gap: float | None) -> None:
        """Take note of what was found out on the way, and say what is new."""
        self.unreadable |= unreadable
        for what, note in notes.items():
            if what not in self.noted:
                self.noted.add(what)
                log.log(logging.WARNING if what in REMARKS else logging.INFO, "%s: %s", what, note)
        before, self.gap = self.gap, worst([self.gap, gap])
        if self.gap is not None and self.gap != before and self.gap > _GAP:
            log.warning(
                "self-check failed: the sum of a map misses logit - bias by %.2g of the largest logit", self.gap
            )

    def _tell(self, total: int, progress: Progress) -> None:
        progress("explaining", len(self.ledger) + len(self.unreadable), total)

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
