"""From a split file to the images that stand on two of its sides: copies, and near-duplicates that no hash finds."""

import logging
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from evalcam_cli.config import RunConfig
from evalcam_cli.data.crowding import FALSE_PAIRS, LEAST_SIMILARITY, SAMPLE
from evalcam_cli.data.fingerprints import Fingerprint, take_fingerprints
from evalcam_cli.data.images import UnreadableImage, load_image
from evalcam_cli.data.leakage import BYTES, PIXELS, part_of
from evalcam_cli.data.near_duplicates import NEAR, PAIR_COLUMNS, Findings, Pair, find_near_duplicates
from evalcam_cli.data.samples import Sample, Split
from evalcam_cli.data.split_file import located, read_split
from evalcam_cli.errors import DataError, UsageError
from evalcam_cli.files import OutputFolder, output_folder
from evalcam_cli.progress import Progress, silent
from evalcam_cli.report.contact_sheet import PICTURE, SheetPair, Side, draw_contact_sheet
from evalcam_cli.report.overlay import png_bytes
from evalcam_cli.text import counted, listed, shown

SCHEMA_VERSION = 1
_IDENTICAL_SHOWN, _SIMILAR_SHOWN, _NARROW_SHOWN, _BELOW_SHOWN = 6, 12, 12, 9

_log = logging.getLogger("evalcam")


@dataclass(frozen=True)
class AuditRequest:
    """What is audited, and where the findings go."""

    split_file: Path
    out: Path
    data: Path | None = None
    """The data folder here; by default the one recorded beside the split."""
    overwrite: bool = False


@dataclass(frozen=True)
class Audit:
    """What was found."""

    pairs: tuple[Pair, ...]
    document: dict[str, Any]
    """As in audit.json."""
    out: Path

    def require_clean(self) -> None:
        """Refuse a split with findings.

        Raises:
            DataError: An image has a copy or a near-duplicate in another set.
        """
        if self.pairs:
            raise DataError(
                f"{counted(len(self.pairs), 'image')} {'has' if len(self.pairs) == 1 else 'have'} a copy in another "
                f"set; they are listed in {shown((self.out / 'near_duplicates.csv').absolute())}"
            )


def audit(config: RunConfig, request: AuditRequest, progress: Progress = silent) -> Audit:
    """Search a split for images that have a copy in another set or fold, and write what was found.

    Args:
        config: Its `seed` and `data.max_pixels` count.
        request: The split and the output folder.
        progress: Told what is being done.

    Raises:
        UsageError: The split, its data or the output folder cannot be used, or the split has one set only.
        DataError: The split makes no sense, or not one image of two sets can be read.
    """
    split, edited = read_split(request.split_file, root=request.data)
    _refuse_single(split.samples, request.split_file, UsageError)
    with output_folder(request.out, overwrite=request.overwrite, inputs=[split.root]) as folder:
        found, missing = located(split)
        paths = [sample.path for sample in found]
        prints, unreadable = take_fingerprints(split.root, paths, max_pixels=config.data.max_pixels, progress=progress)
        skipped = dict.fromkeys(missing, "not there") | unreadable
        samples = [sample for sample in found if sample.path in prints]
        _settle_skipped(skipped, len(split.samples), samples, request.split_file)
        _warn_of_changed(samples, prints)
        findings = find_near_duplicates(
            split.root, samples, prints, max_pixels=config.data.max_pixels, seed=config.seed, progress=progress
        )
        document = _document(request, split, edited, samples, skipped, findings, config.seed)
        folder.write_csv("near_duplicates.csv", PAIR_COLUMNS, [pair.row() for pair in findings.pairs])
        if skipped:
            folder.write_csv("unreadable.csv", ("path", "reason"), list(skipped.items()))
        _write_sheet(folder, split.root, findings, config.data.max_pixels, progress)
        folder.write_json("audit.json", document)
    return Audit(findings.pairs, document, request.out)


def _refuse_single(samples: Sequence[Sample], split_file: Path, error: type[UsageError] | type[DataError]) -> None:
    parts = {part_of(sample) for sample in samples}
    if len(parts) < 2:
        raise error(
            f"{shown(split_file.absolute())} has images in one set only ({listed(parts) or 'none'}); "
            "an audit compares sets: make a split with `evalcam split`"
        )


def _settle_skipped(skipped: Mapping[str, str], total: int, samples: Sequence[Sample], split_file: Path) -> None:
    if not skipped:
        return
    first = ", ".join(f"{shown(path)[:200]} ({reason})" for path, reason in list(skipped.items())[:3])
    message = f"{len(skipped):,} of {counted(total, 'image')} cannot be read: {first}"
    if len({part_of(sample) for sample in samples}) < 2:
        raise DataError(
            f"{message};\nno two sets of {shown(split_file.absolute())} are left to compare; "
            "is this the right data folder? name it with --data"
        )
    _log.warning("%s; they are not audited", message)


def _warn_of_changed(samples: Sequence[Sample], prints: Mapping[str, Fingerprint]) -> None:
    changed = [sample.path for sample in samples if sample.sha256 not in ("", prints[sample.path].digest.hex())]
    if changed:
        _log.warning("%s changed since the split was made: %s", counted(len(changed), "image"), listed(changed))


def _document(
    request: AuditRequest,
    split: Split,
    edited: bool,
    samples: Sequence[Sample],
    skipped: Mapping[str, str],
    findings: Findings,
    seed: int,
) -> dict[str, Any]:
    crowding, pairs = findings.crowding, findings.pairs
    kinds = Counter(pair.kind for pair in pairs)
    sides = Counter((pair.set, pair.other_set, pair.kind) for pair in pairs)
    expected = findings.expected_false_pairs
    return {
        "schema_version": SCHEMA_VERSION,
        "split": str(request.split_file),
        "edited": edited,
        "images": len(samples),
        "sets": dict(sorted(Counter(part_of(sample) for sample in samples).items())),
        "compared": findings.comparisons,
        "leaking": len(pairs),
        "kinds": {kind: kinds[kind] for kind in (BYTES, PIXELS, NEAR)},
        "between": [
            {"set": one, "other_set": other, "kind": kind, "images": count}
            for (one, other, kind), count in sorted(sides.items())
        ],
        "two_labels": [
            {"path": pair.path, "label": pair.label, "other": pair.other, "other_label": pair.other_label}
            for pair in pairs
            if pair.has_two_labels
        ],
        "threshold": {
            "least_similarity": LEAST_SIMILARITY,
            "allowed_false_pairs": FALSE_PAIRS,
            "expected_false_pairs": None if math.isnan(expected) else round(expected, 6),
            "undefined_reason": "too few images to measure how alike different ones are"
            if math.isnan(expected)
            else None,
            "dimension": round(crowding.dimension, 3) if crowding.neighbours else None,
            "neighbours": crowding.neighbours,
            "sample": min(SAMPLE, crowding.images) if crowding.neighbours else 0,
            "seed": seed,
            "how": "an image's pairs count from the similarity at which images that are merely alike, as crowded "
            "around it as its nearest neighbours say, would bring the allowed number of false pairs in the whole audit",
        },
        "close_calls": len(findings.close_calls),
        "plain": list(findings.plain),
        "skipped": [{"path": path, "reason": reason} for path, reason in skipped.items()],
        "root": str(split.root.absolute()),
    }


def _write_sheet(folder: OutputFolder, root: Path, findings: Findings, max_pixels: int, progress: Progress) -> None:
    sections = _chosen(findings)
    total, done = sum(len(pairs) for _, pairs in sections), 0
    drawn = []
    for heading, pairs in sections:
        cells = []
        for pair in pairs:
            cells.append(_sheet_pair(root, pair, max_pixels))
            done += 1
            progress("drawing", done, total)
        drawn.append((heading, cells))
    title = (
        f"Images with a copy in another set: {len(findings.pairs):,} of {findings.comparisons:,} compared. Left: the "
        "image that should leave its set; right: its copy. Similarity 1 is the same picture; red: one picture under "
        "two labels."
    )
    folder.write("contact_sheet.png", png_bytes(draw_contact_sheet(title, drawn)))


def _chosen(findings: Findings) -> list[tuple[str, list[Pair]]]:
    """What a person should see: a few of the certain ones, more of those that are nearest to the threshold."""
    identical = [pair for pair in findings.pairs if pair.kind != NEAR]
    near = sorted((pair for pair in findings.pairs if pair.kind == NEAR), key=_margin)
    narrow, rest = near[:_NARROW_SHOWN], near[_NARROW_SHOWN:]
    similar = sorted(rest, key=lambda pair: (-pair.similarity, pair.path))
    below = sorted(findings.close_calls, key=lambda pair: (-_margin(pair)[0], pair.path))
    groups = (
        ("Identical bytes or pixels", identical, _IDENTICAL_SHOWN),
        ("Near-duplicates nearest to their threshold, the narrowest first", narrow, _NARROW_SHOWN),
        ("Other near-duplicates, the most similar first", similar, _SIMILAR_SHOWN),
        ("Not counted: pairs below their threshold, the nearest to it first", below, _BELOW_SHOWN),
    )
    return [
        (f"{heading}: {min(len(pairs), most)} of {len(pairs):,}", pairs[:most])
        for heading, pairs, most in groups
        if pairs
    ]


def _margin(pair: Pair) -> tuple[float, str]:
    return pair.similarity - pair.threshold, pair.path


def _sheet_pair(root: Path, pair: Pair, max_pixels: int) -> SheetPair:
    caption = pair.kind
    if pair.kind == NEAR:
        caption = f"{pair.similarity:.4f} (threshold {pair.threshold:.4f}), {pair.transformation}"
    return SheetPair(
        Side(_small(root, pair.path, max_pixels), f"{pair.set}, {pair.label}", pair.path),
        Side(_small(root, pair.other, max_pixels), f"{pair.other_set}, {pair.other_label}", pair.other),
        caption,
        alarm=pair.has_two_labels,
    )


def _small(root: Path, path: str, max_pixels: int) -> Image.Image | None:
    try:
        image = load_image(root / path, max_pixels, root=root)
    except (UnreadableImage, OSError):
        return None
    image.thumbnail((PICTURE, PICTURE))
    return image
