"""The images of a gradcam run: which they are, where their files go, and their pixels."""

import hashlib
import io
import logging
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from evalcam_cli.data.images import UnreadableImage, decode, examine, open_regular
from evalcam_cli.data.preprocessing import Preprocessing
from evalcam_cli.text import counted, file_path
from evalcam_cli.workflows import subjects as images

log = logging.getLogger("evalcam")

SPLIT_IMAGES = 16  # of a split, unless gradcam.max_images says otherwise
_KEPT_PIXELS = 2_000_000
"""A larger original is decoded again when it is drawn, rather than kept while its batch waits."""


@dataclass(frozen=True, slots=True)
class Subject:
    """One image to explain."""

    place: str
    """Of its file: a text, which takes a fraction of what a `Path` does."""
    path: str
    """As reported."""
    relative: str
    """To the data root, or to the folder named; POSIX."""
    label: str
    """Of the true class; empty when unknown."""
    stem: str
    """Folder and stem of the output files, POSIX."""

    @property
    def file(self) -> Path:
        return Path(self.place)

    @property
    def root(self) -> Path:
        """The folder that `relative` starts from."""
        return self.file.parents[self.relative.count("/")]


def named(arguments: Sequence[Path], classes: Sequence[str], limit: int | None) -> list[Subject]:
    """The images named on the command line, with the class folder that a folder of class folders gives."""
    found = images.named_images(arguments)
    stems = _stems([image.relative for image in found])
    labels = {name: name for name in classes}  # one text for all images of a class
    chosen = [
        Subject(str(image.file), str(image.path), image.relative, labels.get(image.label, ""), stem)
        for image, stem in zip(found, stems, strict=True)
    ]
    return _said(chosen[:limit], len(chosen))


def of_set(chosen: images.Subjects, limit: int | None) -> list[Subject]:
    """The images of a split or a data set, at most so many, from each class in turn."""
    samples = images.in_turn(chosen.samples, limit)
    stems = _stems([sample.path for sample in samples])
    found = [
        Subject(str(chosen.root / sample.path), sample.path, sample.path, sample.label, stem)
        for sample, stem in zip(samples, stems, strict=True)
    ]
    return _said(found, len(chosen.samples))


def _said(chosen: list[Subject], available: int) -> list[Subject]:
    if len(chosen) < available:
        log.info("explaining %d of %s (gradcam.max_images)", len(chosen), counted(available, "image"))
    return chosen


def _stems(paths: Sequence[str]) -> list[str]:
    """Where each image's files go: its folder and stem; a stem taken twice keeps its suffix, then gets a number."""
    paths = list(map(file_path, paths))
    stems = [PurePosixPath(path).with_suffix("").as_posix() for path in paths]
    taken = Counter(stem.casefold() for stem in stems)
    names = [path if taken[stem.casefold()] > 1 else stem for path, stem in zip(paths, stems, strict=True)]
    seen: Counter[str] = Counter()
    unique = []
    for name in names:
        seen[name.casefold()] += 1
        number = seen[name.casefold()]
        unique.append(name if number == 1 else f"{name}-{number}")
    return unique


def fitting(stem: str, ending: str) -> str:
    """Stem and ending as a path whose last part fits into the 255 bytes of a file name, suffix included."""
    folder, slash, name = stem.rpartition("/")
    room = 250 - len(os.fsencode(ending))
    if len(os.fsencode(name)) > room:
        cut = os.fsencode(name)[: room - 9].decode("utf-8", "ignore")
        name = f"{cut}-{hashlib.sha256(os.fsencode(name)).hexdigest()[:8]}"
    return f"{folder}{slash}{name}{ending}"


@dataclass(frozen=True)
class Picture:
    """One image as it was read."""

    subject: Subject
    sha256: str
    """Of the file's bytes."""
    size: tuple[int, int]
    """Width and height of the upright original, in pixels."""
    pixels: NDArray[np.uint8]
    """(S, S, 3): what the model sees, before normalisation."""
    remark: str
    """What of the file is not used; one of `REMARKS`, or empty."""
    _kept: Image.Image | None
    _max_pixels: int

    def original(self) -> Image.Image:
        """The upright RGB original.

        Raises:
            UnreadableImage: It had to be read again, and the file has changed since.
        """
        return self._kept or read_original(self.subject, self.sha256, self._max_pixels)


def read_picture(subject: Subject, preprocessing: Preprocessing, max_pixels: int) -> Picture:
    """The image, read and decoded once.

    Raises:
        UnreadableImage: It cannot be used.
    """
    content = _read(subject)
    image, remark = examine(io.BytesIO(content), subject.file, max_pixels)
    kept = image if image.width * image.height <= _KEPT_PIXELS else None
    pixels = preprocessing.apply(image)
    return Picture(subject, hashlib.sha256(content).hexdigest(), image.size, pixels, remark, kept, max_pixels)


def read_original(subject: Subject, sha256: str, max_pixels: int) -> Image.Image:
    """The upright RGB original of an image that was read before.

    Raises:
        UnreadableImage: It has changed since.
    """
    content = _read(subject)
    if hashlib.sha256(content).hexdigest() != sha256:
        raise UnreadableImage(subject.file, "it changed while it was being explained")
    return decode(io.BytesIO(content), subject.file, max_pixels)


def sha256_of(subject: Subject) -> str:
    """Of the file's bytes now; empty when it cannot be read."""
    try:
        return hashlib.sha256(_read(subject)).hexdigest()
    except UnreadableImage:
        return ""


def _read(subject: Subject) -> bytes:
    try:
        with open_regular(subject.file, root=subject.root) as stream:
            return stream.read()
    except OSError as error:  # the disk failed, not the decoder
        raise UnreadableImage(subject.file, error.strerror or "cannot be read") from error
