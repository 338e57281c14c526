"""What a failure report holds of each image, kept in a file while the run goes on, so that memory does not grow."""

import contextlib
import io
import json
import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import IO, Any, Self

from PIL import Image

from evalcam_cli.files import OutputFolder
from evalcam_cli.writing import write_error

SIDE = 208
"""Longest side of a picture in pixels; on the page it is as wide as that or less."""
MOST_BYTES = 10_900
"""Of a picture: four of them, in Base64, make an entry of less than 60 kB."""
SPOOL_NAME = "failures.partial"
_HEAD = struct.Struct("<4sIQ")  # mark, bytes of the text part, bytes of the pictures
_MARK = b"evF1"


@dataclass(frozen=True)
class FailureEntry:
    """One image of a failure report. Pictures are JPEG, PNG or WebP, small and of equal size."""

    path: str
    """As reported; unique."""
    label: str
    """The true class."""
    predicted: str
    loss: float
    """Cross-entropy of the true class, in nats; may be infinite, NaN when unknown."""
    probabilities: tuple[tuple[str, float], ...]
    """(class, probability) of all classes or of the most probable ones, in any order."""
    original: bytes
    true_map: bytes
    """The image under the map of the true class."""
    predicted_map: bytes | None = None
    """The same of the predicted class; None where the prediction is right."""
    difference: bytes | None = None
    """The image under the map of the true class minus that of the predicted one."""
    boxes: bytes | None = None
    counterfactual: bytes | None = None
    """The image under the map of what speaks against the predicted class."""
    true_max: float | None = None
    """Largest value of the map, at the strongest colour of its picture; 0 or less where nothing speaks for it."""
    predicted_max: float | None = None
    difference_max: float | None = None
    """Largest absolute value."""
    note: str = ""
    """What else to say of this image."""
    files: tuple[str, ...] = ()
    """Paths, relative to the page and POSIX, of files to link to."""

    @property
    def is_mistake(self) -> bool:
        return self.label != self.predicted

    @property
    def rank_key(self) -> tuple[float, str]:
        """Sorts the largest loss first; equal ones by path, unknown ones last."""
        return _rank_key(self.loss, self.path)


def _rank_key(loss: float, path: str) -> tuple[float, str]:
    return (math.inf if math.isnan(loss) else -loss, path)


_PICTURES = tuple(entry.name for entry in fields(FailureEntry) if entry.type in (bytes, bytes | None))


def small_picture(image: Image.Image, *, side: int = SIDE, most: int = MOST_BYTES) -> bytes:
    """The image as JPEG, at most `side` pixels long and, at a lower quality if need be, `most` bytes; no metadata.

    The lowest quality is 30; noise of this size is then about 11 kB. Draw an overlay on what `shrink` returns, not the
    other way round: lines and letters stay sharp.
    """
    small = shrink(image, side=side)
    for quality in (82, 70, 55, 40, 30):
        buffer = io.BytesIO()
        small.save(buffer, "JPEG", quality=quality, optimize=True, icc_profile=None)
        if buffer.tell() <= most:
            break
    return buffer.getvalue()


def shrink(image: Image.Image, *, side: int = SIDE) -> Image.Image:
    """An RGB copy whose longest side is at most `side` pixels."""
    small = image.convert("RGB")
    small.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=3.0)
    return small


def entry_to_bytes(entry: FailureEntry) -> bytes:
    """One record of the spool: the lengths, the texts and numbers as JSON, the pictures."""
    values = asdict(entry)
    pictures: dict[str, bytes | None] = {name: values.pop(name) for name in _PICTURES}
    values["lengths"] = {name: len(data) for name, data in pictures.items() if data is not None}
    text = json.dumps(values).encode("ascii")  # escapes whatever a file name holds; NaN and Infinity are meant
    blobs = b"".join(data for data in pictures.values() if data is not None)
    return _HEAD.pack(_MARK, len(text), len(blobs)) + text + blobs


def _entry_from(values: dict[str, Any], blobs: bytes) -> FailureEntry:
    start = 0
    for name, length in values.pop("lengths").items():
        values[name] = blobs[start : start + length]
        start += length
    values["probabilities"] = tuple((name, float(value)) for name, value in values["probabilities"])
    values["files"] = tuple(values["files"])
    return FailureEntry(**values)


@dataclass(frozen=True)
class SpooledEntry:
    """Where an entry stands in the spool and what its place in the report depends on."""

    path: str
    label: str
    predicted: str
    rank_key: tuple[float, str]
    offset: int

    @property
    def is_mistake(self) -> bool:
        return self.label != self.predicted

    @classmethod
    def of(cls, entry: FailureEntry, offset: int) -> Self:
        return cls(entry.path, entry.label, entry.predicted, entry.rank_key, offset)


class FailureSpool:
    """Entries in a file of the output folder; in memory only their names, losses and places.

    The file is only ever appended to, so that a killed run leaves all entries but perhaps the last, and the next one
    continues with them. An image added twice counts once, as it was added last.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._known: dict[str, SpooledEntry] = {}
        self._end = 0
        self._read_known()

    @classmethod
    @contextlib.contextmanager
    def open(cls, folder: OutputFolder, *, resume: bool = False) -> Iterator[Self]:
        """The spool of an output folder, with what a killed run left in it when `resume`; `remove_spool` deletes it."""
        path = folder.claim(SPOOL_NAME)
        try:
            with path.open("r+b" if resume and path.exists() else "w+b") as stream:
                yield cls(stream)
        except OSError as error:
            raise write_error(path, error) from error

    def __contains__(self, path: str) -> bool:
        return path in self._known

    def __len__(self) -> int:
        return len(self._known)

    def add(self, entry: FailureEntry) -> None:
        """Keep an entry; it is on its way to the disk when this returns."""
        self._stream.seek(self._end)
        self._stream.write(entry_to_bytes(entry))
        self._stream.flush()
        self._known[entry.path] = SpooledEntry.of(entry, self._end)
        self._end = self._stream.tell()

    def ranked(self, *, mistakes: bool | None = None) -> list[SpooledEntry]:
        """All entries, largest loss first; only mistakes or only right ones where that is said."""
        chosen = [one for one in self._known.values() if mistakes is None or one.is_mistake == mistakes]
        return sorted(chosen, key=lambda one: one.rank_key)

    def read(self, spooled: SpooledEntry) -> FailureEntry:
        """The whole entry."""
        self._stream.seek(spooled.offset)
        _, text, blobs = _HEAD.unpack(self._stream.read(_HEAD.size))
        values = json.loads(self._stream.read(text))
        return _entry_from(values, self._stream.read(blobs))

    def worst(self, count: int) -> list[FailureEntry]:
        """The mistakes with the largest losses."""
        return [self.read(one) for one in self.ranked(mistakes=True)[:count]]

    def _read_known(self) -> None:
        """Find the records that are whole, and cut off what an interruption left half written."""
        size = self._stream.seek(0, io.SEEK_END)
        while (spooled := self._record_at(self._end, size)) is not None:
            entry, self._end = spooled
            self._known[entry.path] = entry
        self._stream.truncate(self._end)

    def _record_at(self, offset: int, size: int) -> tuple[SpooledEntry, int] | None:
        self._stream.seek(offset)
        head = self._stream.read(_HEAD.size)
        if len(head) < _HEAD.size:
            return None
        mark, text, blobs = _HEAD.unpack(head)
        end = offset + _HEAD.size + text + blobs
        if mark != _MARK or end > size:
            return None
        try:
            values: Mapping[str, Any] = json.loads(self._stream.read(text))
        except ValueError:  # the machine stopped before the disk had it
            return None
        path, label, predicted, loss = (values[name] for name in ("path", "label", "predicted", "loss"))
        return SpooledEntry(path, label, predicted, _rank_key(loss, path), offset), end


def remove_spool(folder: OutputFolder) -> None:
    """Delete the spool of a finished report, once it is closed."""
    with contextlib.suppress(OSError):
        (folder.path / SPOOL_NAME).unlink()


def pairs_of(spooled: Sequence[SpooledEntry]) -> dict[tuple[str, str], list[SpooledEntry]]:
    """Entries by (true class, predicted class), the order of each kept; the largest group first, then the worst."""
    groups: dict[tuple[str, str], list[SpooledEntry]] = {}
    for one in spooled:
        groups.setdefault((one.label, one.predicted), []).append(one)
    return dict(sorted(groups.items(), key=lambda item: (-len(item[1]), item[1][0].rank_key)))
