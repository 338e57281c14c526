"""Images that stand on both sides of a division, and images that stand under two labels."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from evalcam_cli.data.identity import Identity
from evalcam_cli.data.repeats import repeated
from evalcam_cli.data.samples import Sample
from evalcam_cli.text import counted

BYTES, PIXELS, GROUP, TWO_LABELS = "identical bytes", "identical pixels", "group", "two labels"
LEAK_COLUMNS = ("path", "set", "label", "kind", "other", "other_set", "other_label")

Key = tuple[str, str]
"""`bytes`, `pixels` or `group`, and which."""
_KINDS = {"bytes": BYTES, "pixels": PIXELS, "group": GROUP}


@dataclass(frozen=True)
class Leak:
    """An image that is not independent of another one."""

    path: str
    """The image that should leave its set."""
    set: str
    label: str
    kind: str
    """`identical bytes`, `identical pixels`, `group`, or `two labels` for a copy under another label."""
    other: str
    """One of the images that it gives away: of train, else of test."""
    other_set: str
    other_label: str

    def row(self) -> tuple[str, ...]:
        """As in leaks.csv, in the order of `LEAK_COLUMNS`."""
        return (self.path, self.set, self.label, self.kind, self.other, self.other_set, self.other_label)


def find_leaks(samples: Sequence[Sample], identities: Mapping[str, Identity]) -> tuple[Leak, ...]:
    """Images of val and test that are copies, or of the group, of a training image; and of val, of a test image.

    Each image is named once, with the nearest of its kin: equal bytes before equal pixels before a common group. The
    order is that of the samples.
    """
    holders: dict[str, dict[Key, Sample]] = {"train": {}, "test": {}}
    links = Links(samples, identities)
    for sample in samples:
        if sample.set in holders:
            for key in links.of(sample):
                holders[sample.set].setdefault(key, sample)
    return tuple(leak for sample in samples for leak in _leak_of(sample, links, holders))


def _leak_of(sample: Sample, links: "Links", holders: Mapping[str, Mapping[Key, Sample]]) -> Iterable[Leak]:
    against = {"test": ("train",), "val": ("train", "test")}.get(sample.set, ())
    for other_set in against:
        for key in links.of(sample):
            other = holders[other_set].get(key)
            if other is not None:
                yield _leak(sample, other, _KINDS[key[0]])
                return


def _leak(sample: Sample, other: Sample, kind: str) -> Leak:
    return Leak(sample.path, sample.set, sample.label, kind, other.path, other.set, other.label)


class Links:
    """What each sample shares with others. That most share nothing is found first, which keeps a million small."""

    def __init__(self, samples: Sequence[Sample], identities: Mapping[str, Identity]) -> None:
        self._identities = identities
        self._bytes = repeated(lambda: (_bytes(sample, identities) for sample in samples))
        self._pixels = repeated(lambda: (one.pixels for sample in samples if (one := identities.get(sample.path))))
        self._groups = repeated(lambda: (sample.group for sample in samples if sample.group))

    def of(self, sample: Sample) -> Iterable[Key]:
        """The nearest kinship first."""
        identity = self._identities.get(sample.path)
        digest = _bytes(sample, self._identities)
        if digest and digest in self._bytes:
            yield "bytes", digest
        if identity and identity.pixels in self._pixels:
            yield "pixels", identity.pixels
        if sample.group in self._groups:
            yield "group", sample.group


def _bytes(sample: Sample, identities: Mapping[str, Identity]) -> str:
    """The hash of the file; empty when it is not known."""
    identity = identities.get(sample.path)
    return identity.sha256 if identity else sample.sha256


def find_crossings(samples: Sequence[Sample], identities: Mapping[str, Identity]) -> tuple[Leak, ...]:
    """Images in another set, or another fold, than the first copy of them or the first image of their group.

    Unlike `find_leaks` it treats all sets and folds alike; an image may be named once as a copy and once by its group.
    """
    first: dict[Key, Sample] = {}
    links = Links(samples, identities)
    found: list[Leak] = []
    for sample in samples:
        kinds: dict[bool, Leak] = {}
        for key in links.of(sample):
            other = first.setdefault(key, sample)
            if part_of(other) != part_of(sample):
                leak = _leak(sample, other, _KINDS[key[0]])
                kinds.setdefault(key[0] == "group", replace(leak, set=part_of(sample), other_set=part_of(other)))
        found += kinds.values()
    return tuple(found)


def part_of(sample: Sample) -> str:
    """The set or, when it has none, the fold: `fold 3`."""
    return sample.set or ("" if sample.fold is None else f"fold {sample.fold}")


def drop_leaks(
    samples: Sequence[Sample], leaks: Sequence[Leak]
) -> tuple[tuple[Sample, ...], tuple[tuple[str, str], ...]]:
    """The samples without those that leak, and (path, reason) of each that left."""
    reasons = {leak.path: _reason(leak) for leak in leaks}
    kept = tuple(sample for sample in samples if sample.path not in reasons)
    return kept, tuple((sample.path, reasons[sample.path]) for sample in samples if sample.path in reasons)


def _reason(leak: Leak) -> str:
    if leak.kind == TWO_LABELS:
        return f"{TWO_LABELS}: {leak.label} here, {leak.other_label} in {leak.other}"
    return f"{leak.kind} as {leak.other}" + (f" in {leak.other_set}" if leak.other_set else "")


def find_conflicts(samples: Sequence[Sample], identities: Mapping[str, Identity]) -> tuple[Leak, ...]:
    """Every copy of every image that stands under more than one label, with a copy under another label beside it."""
    twice = repeated(lambda: (one.pixels for sample in samples if (one := identities.get(sample.path))))
    copies: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        if sample.path in identities and identities[sample.path].pixels in twice:
            copies[identities[sample.path].pixels].append(sample)
    others: dict[str, Sample] = {}
    for same in copies.values():
        if len({sample.label for sample in same}) > 1:
            for sample in same:
                others[sample.path] = next(other for other in same if other.label != sample.label)
    return tuple(_leak(sample, others[sample.path], TWO_LABELS) for sample in samples if sample.path in others)


def leak_sentences(samples: Sequence[Sample], leaks: Sequence[Leak]) -> list[str]:
    """What leaks, a sentence for each pair of sets: `251 of 394 test images are pixel copies of training images`."""
    sizes = Counter(sample.set for sample in samples)
    found = Counter((leak.set, leak.other_set, leak.kind == GROUP) for leak in leaks)
    sentences = []
    for (name, other, by_group), count in sorted(found.items(), key=lambda item: (item[0][2], item[0])):
        several = (
            ("share a group with", "shares a group with") if by_group else ("are pixel copies of", "is a pixel copy of")
        )
        kin = several[count == 1]
        others = {"train": "training images", "test": "test images"}.get(other, "other images")
        sentences.append(f"{count:,} of {counted(sizes[name], f'{name} image')} {kin} {others}")
    return sentences
