"""What the images of a data set are called, where they belong, and how they are divided."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from evalcam_cli.data.disk import nfc

SETS = ("train", "val", "test")
SET_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
"""What folders and manifests call the sets, in lower case."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One image of a data set."""

    path: str
    """Relative to the data root, POSIX, spelled as on disk."""
    label: str
    """The class name; empty when unknown (prediction only)."""
    set: str = ""
    """`train`, `val` or `test`; empty when undecided (folds, or DATA that does not come divided)."""
    group: str = ""
    """Images of one group (a patient) never cross sets; empty means a group of its own."""
    fold: int | None = None
    """The fold in which the image is the test image."""
    sha256: str = ""
    """Of the file's bytes, hexadecimal."""
    extra: tuple[str, ...] = ()
    """The manifest's further columns, in the order of `Split.extra_columns`."""
    more_folds: tuple[int, ...] = ()
    """The same as `fold` in the second and each further division; empty when there is one, or no fold."""

    def fold_in(self, repeat: int) -> int | None:
        """The fold in one of the divisions, counted from 0."""
        return self.fold if repeat == 0 or self.fold is None else self.more_folds[repeat - 1]

    def at(self, path: str) -> "Sample":
        """The same image under the path as spelled on disk."""
        return self if path == self.path else replace(self, path=path)


@dataclass(frozen=True)
class Split:
    """A data set and its division, as kept in `split.csv` and `split.json`."""

    root: Path
    """The folder that the paths are relative to."""
    samples: tuple[Sample, ...]
    """Sorted by the NFC form of the path."""
    classes: tuple[str, ...]
    """In output order: sorted by code point."""
    seed: int = 0
    ratios: tuple[float, float, float] | None = None
    """Of train, val and test; None when DATA came divided or folds were asked for."""
    folds: int | None = None
    """Folds of each division."""
    repeats: int = 1
    """Divisions into folds, each made anew."""
    extra_columns: tuple[str, ...] = ()
    left_out: tuple[tuple[str, str], ...] = field(default=())
    """(path, reason) of images that are in DATA and not in the split: unreadable, leak, symbolic link."""
    source: str = "folder"
    """The form of DATA: `folder`, `divided` or the manifest's file name."""

    @property
    def rounds(self) -> int:
        """Rounds of the cross-validation: round repeat * folds + fold tests that fold of that division."""
        return self.repeats * (self.folds or 0)

    def subset(self, name: str) -> tuple[Sample, ...]:
        """The images of one set, in order."""
        return tuple(sample for sample in self.samples if sample.set == name)

    def counts(self) -> dict[str, dict[str, int]]:
        """Images per set (or `fold 0`, … by round) and class, sets in their natural order, every class named."""
        table = Counter((part, sample.label) for sample in self.samples for part in self._parts(sample))
        parts = [*SETS, *(f"fold {number}" for number in range(self.rounds))]
        present = [part for part in parts if any(table[part, label] for label in self.classes)]
        return {part: {label: table[part, label] for label in self.classes} for part in present}

    def _parts(self, sample: Sample) -> list[str]:
        if sample.fold is None or sample.set:
            return [sample.set]
        return [f"fold {number}" for number in self.test_rounds(sample)]

    def test_rounds(self, sample: Sample) -> list[int]:
        """The rounds in which the image is a test image, one of each division; none for a fixed test image."""
        if sample.fold is None or self.folds is None:
            return []
        return [self.folds * repeat + fold for repeat, fold in enumerate((sample.fold, *sample.more_folds))]


def sorted_classes(samples: Sequence[Sample]) -> tuple[str, ...]:
    """The class names in output order: by code point, as torchvision's ImageFolder orders them."""
    return tuple(sorted({sample.label for sample in samples}))


def in_order(samples: Iterable[Sample]) -> list[Sample]:
    """The samples by the NFC form of their paths, and by the paths where these forms are equal."""
    by_path = sorted(samples, key=lambda sample: sample.path)
    by_path.sort(key=lambda sample: nfc(sample.path))  # keeps the order of equal ones
    return by_path
