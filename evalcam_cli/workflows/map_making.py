"""From images to the files and the entry of each, in any process: made here, and kept by whoever owns the folder."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from evalcam_cli.data.images import UnreadableImage
from evalcam_cli.workflows import explained_images as images
from evalcam_cli.workflows.ahead import ahead
from evalcam_cli.workflows.explained_images import Picture, Subject
from evalcam_cli.workflows.explaining import Explained, Explainer
from evalcam_cli.workflows.explanations import Entry
from evalcam_cli.workflows.judging import Judge
from evalcam_cli.workflows.manifest import map_facts
from evalcam_cli.workflows.map_files import Writing, loss_of

BATCH = 16  # images per forward pass
FINISHERS = 3
"""Threads that draw, then wait for the disk, for which syncs asked for together are little more than one. Each holds a
picture of any size and a share of the heap: at 12 megapixels about 200 MB."""
_READERS = 2


@dataclass(frozen=True)
class Made:
    """What is to be kept of one image."""

    entry: Entry
    content: dict[str, bytes]
    """Its files by name."""


@dataclass
class Maker:
    """Makes what a run is about, image by image, and knows what was to be said of them."""

    explainer: Explainer
    writing: Writing
    judge: Judge
    max_pixels: int
    draws: Callable[[Subject, Explained], bool]
    """Whether an image gets pictures."""
    later: bool = False
    """Whether they are drawn once all maps are known."""
    known: frozenset[str] = frozenset()
    """Paths of images that are finished, though others of their batch are not."""
    unreadable: dict[str, str] = field(default_factory=dict)
    """Reason by path."""
    notes: dict[str, str] = field(default_factory=dict)
    """By method, what a reader should know; and by remark on images, the first image."""
    gap: float | None = None
    """Self-check: the largest miss of the sum of a map, relative to the largest logit; infinite when it is NaN."""

    def explained(self, batches: Sequence[Sequence[Subject]]) -> Iterator[tuple[Picture, Explained]]:
        """Each image of the batches that is not known yet, with its maps."""
        read = ahead(self.read, (one for batch in batches for one in batch), threads=_READERS, most=BATCH)
        for batch in batches:
            pictures = []
            for subject in batch:
                picture = next(read)
                if isinstance(picture, Picture):
                    pictures.append(picture)
                    if picture.remark:
                        self.notes.setdefault(picture.remark, subject.path)
                else:
                    self.unreadable[subject.path] = picture
            if not pictures:
                continue
            found, gap = self.explainer.explain(pictures)
            self.gap = worst([self.gap, gap])
            self.notes = found[0].notes | self.notes  # of the first batch; it is about all its images
            for picture, each in zip(pictures, found, strict=True):
                if picture.subject.path not in self.known:
                    yield picture, each

    def read(self, subject: Subject) -> Picture | str:
        """The picture, or the reason why it cannot be read."""
        try:
            return images.read_picture(subject, self.explainer.classifier.preprocessing, self.max_pixels)
        except UnreadableImage as error:
            return error.reason

    def make(self, read: tuple[Picture, Explained]) -> Made:
        """An image's files, and what is known of it."""
        picture, found = read
        subject = picture.subject
        draws = self.draws(subject, found)
        rows = self.writing.rows(picture, found, drawn=draws)
        content = self.writing.raw_maps(picture, found, rows)
        if draws and not self.later:
            maps = [found.maps[method][place] for method, place in found.order()]
            content |= self.writing.pictures(picture.original(), subject, rows, maps)
        probabilities = tuple(map(float, found.probabilities))
        loss = loss_of(subject, self.writing.names, found)
        extra = self.judge.judge(picture, found, rows, self.writing) | found.extra
        extra["maps"] = [map_facts(found.maps[method][place]) for method, place in found.order()]
        return Made(Entry(subject.path, picture.sha256, picture.size, loss, probabilities, rows, extra), content)


def worst(gaps: Sequence[float | None]) -> float | None:
    """The largest gap, NaN taken for infinite; None when there is none."""
    known = [math.inf if math.isnan(gap) else gap for gap in gaps if gap is not None]
    return max(known, default=None)
