"""The parts of the failure report as HTML; every name from outside is escaped here."""

import base64
import html
import io
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from evalcam_cli.explain.attention import BORDER, GRID, REGIONS, ClassAttention, Region, describe
from evalcam_cli.report.failure_entries import FailureEntry, SpooledEntry
from evalcam_cli.report.failures_style import STYLE
from evalcam_cli.report.overlay import colorize, png_bytes
from evalcam_cli.text import counted, shown

MATRIX_CLASSES = 16
"""Most classes whose confusions are shown as a matrix, of more as a list; and whose average maps are not folded up."""
_SHOWN_CLASSES = 6
"""Most classes whose probabilities are shown of an image; the true and the predicted one always are."""
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_KINDS = ((b"\xff\xd8", "jpeg"), (b"\x89PNG", "png"), (b"RIFF", "webp"))

Groups = Mapping[tuple[str, str], Sequence[SpooledEntry]]


@dataclass(frozen=True)
class Legend:
    """A colour bar and what it means."""

    picture: bytes
    """The bar alone, PNG, without letters."""
    low: str
    """At its left end."""
    high: str
    text: str


@dataclass(frozen=True)
class FailureFacts:
    """What a failure report is about."""

    classes: tuple[str, ...]
    confusion: NDArray[np.int64]
    """(K, K) counts of all images of the set: row i, column j were of class i and predicted as class j."""
    model: str
    checkpoint: str
    """Short hash."""
    subset: str
    accuracy: str
    """With its interval: `0.912 (95 % CI 0.880 to 0.936)`."""
    method: str
    layer: str
    unit: str = "logit units"
    """Of the maps' values."""
    legends: tuple[Legend, ...] = ()
    verdict: str = ""
    """What the sanity checks say of the method."""
    verdict_failed: bool = False
    """Whether that is a warning."""
    notes: tuple[str, ...] = ()
    """What else must be known, a paragraph each."""
    further: tuple[tuple[str, str], ...] = ()
    """Further facts for the head of the page: (term, text)."""

    @property
    def images(self) -> int:
        return int(self.confusion.sum())

    @property
    def mistakes(self) -> int:
        return self.images - int(np.trace(self.confusion))


def text(value: object) -> str:
    """The value as HTML text or attribute that shows it literally."""
    return html.escape(shown(value), quote=True)


def name(value: object) -> str:
    """A name from outside, whose writing direction stays its own; it may break after `_` and `/`."""
    return "<bdi>" + re.sub(r"([_/]+)", r"\1<wbr>", text(value)) + "</bdi>"


def head(facts: FailureFacts) -> str:
    """Everything before the first visible element."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width,initial-scale=1">\n'
        '<meta name="referrer" content="no-referrer">\n'
        f"<title>Failures of {text(facts.model)} on {text(facts.subset)}</title>\n"
        f"<style>{STYLE}</style>\n</head>\n<body>\n"
    )


def introduction(facts: FailureFacts, shown_mistakes: int) -> Iterator[str]:
    """What was evaluated, how often it failed, and how to read the maps."""
    yield f'<header id="top">\n<h1>Failures of {name(facts.model)} on {name(facts.subset)}</h1>\n<dl class="facts">\n'
    rows = [
        ("Images", f"{facts.images:,}"), ("Mistakes", f"{facts.mistakes:,}"), ("Accuracy", facts.accuracy),
        ("Model", facts.model), ("Checkpoint", facts.checkpoint), ("Set", facts.subset),
        ("Method", facts.method), ("Layer", facts.layer), *facts.further,
    ]  # fmt: skip
    for term, value in rows:
        yield f"<div><dt>{text(term)}</dt><dd>{name(value)}</dd></div>\n"
    yield "</dl>\n"
    if not facts.mistakes:
        yield f'<p class="box calm"><b>No mistakes:</b> {_all(facts.images)} predicted as labelled.</p>\n'
    elif shown_mistakes < facts.mistakes:
        yield f'<p class="box">{shown_mistakes:,} of {facts.mistakes:,} mistakes are on this page.</p>\n'
    if facts.verdict:
        kind = "box" if facts.verdict_failed else "box calm"
        yield f'<p class="{kind}"><b>Is the map to be believed?</b> {text(facts.verdict)}</p>\n'
    for note in facts.notes:
        yield f"<p>{text(note)}</p>\n"
    yield "</header>\n"


def _all(images: int) -> str:
    return "the only image was" if images == 1 else f"all {images:,} images were"


def reading(facts: FailureFacts) -> Iterator[str]:
    """What the pictures and numbers of an entry mean."""
    yield '<section id="reading">\n<h2>How to read the maps</h2>\n'
    if facts.legends:
        yield '<div class="legends">\n'
        for legend in facts.legends:
            yield f"<figure>{picture(legend.picture, 'colour bar')}"
            yield f'<div class="ends"><span>{text(legend.low)}</span><span>{text(legend.high)}</span></div>'
            yield f"<figcaption>{text(legend.text)}</figcaption></figure>\n"
        yield "</div>\n"
    yield (
        f"<p>A map shows where the image speaks for a class, in {text(facts.unit)}. The difference is the map of the "
        "true class minus the map of the predicted one: what speaks for the right answer, and what for the wrong one. "
        "Loss is the cross-entropy of the true class, in nats; the worst mistakes come first.</p>\n</section>\n"
    )


def navigation(facts: FailureFacts, attention: Sequence[ClassAttention], *, right: bool) -> str:
    links = ['<a href="#top">Top</a>', '<a href="#confusions">Confusions</a>']
    links += ['<a href="#attention">Attention</a>'] if attention else []
    links += ['<a href="#mistakes">All mistakes</a>'] if facts.mistakes else []
    links += ['<a href="#right">Right predictions</a>'] if right else []
    order = (
        "<fieldset><legend>Order</legend>"
        '<label><input type="radio" name="order" checked> by confusion</label>'
        '<label><input type="radio" name="order" id="by-loss"> by loss</label></fieldset>'
    )
    return f'<nav aria-label="Parts of the page">{"".join(links)}{order}</nav>\n'


def confusions(facts: FailureFacts, groups: Groups, ids: Mapping[tuple[str, str], str]) -> Iterator[str]:
    """The counts of all images, each linked to the group of its entries: a matrix, or a list for many classes."""
    yield '<section id="confusions">\n<h2>Confusions</h2>\n'
    if len(facts.classes) <= MATRIX_CLASSES:
        yield "<p>Rows are true classes, columns predicted ones. A number shows its images alone.</p>\n"
        yield '<div class="scroll" tabindex="0" role="region" aria-label="Confusion matrix">\n<table>\n<thead><tr>'
        yield '<th scope="col">true \\ predicted</th>'
        yield "".join(f'<th scope="col"><span class="name">{name(label)}</span></th>' for label in facts.classes)
        yield "</tr></thead>\n<tbody>\n"
        for row, label in enumerate(facts.classes):
            cells = [_cell(facts, (row, column), ids) for column in range(len(facts.classes))]
            yield f'<tr><th scope="row">{name(label)}</th>{"".join(cells)}</tr>\n'
        yield "</tbody>\n</table>\n</div>\n"
    elif groups:
        yield "<p>True class → predicted class, most frequent first. A pair shows its images alone.</p>\n"
        yield '<div class="pairs" tabindex="0" role="region" aria-label="Confusions"><ol>\n'
        for pair, entries in groups.items():
            yield f'<li><a href="#{ids[pair]}">{_arrow(*pair)}</a> <span class="soft">{len(entries):,}</span></li>\n'
        yield "</ol></div>\n"
    yield "</section>\n"


def _cell(facts: FailureFacts, place: tuple[int, int], ids: Mapping[tuple[str, str], str]) -> str:
    row, column = place
    count, of_class = int(facts.confusion[row, column]), int(facts.confusion[row].sum())
    labels = facts.classes[row], facts.classes[column]
    linked = f'<a href="#{ids[labels]}">{count:,}</a>' if labels in ids else f"{count:,}"
    if row == column:
        return f'<td class="right">{linked}</td>'
    return f'<td style="--s:{count / of_class:.3f}">{linked}</td>' if count else '<td class="soft">0</td>'


def _arrow(label: str, predicted: str) -> str:
    return f'<span class="true">{name(label)}</span> → <span class="pred">{name(predicted)}</span>'


def attention_section(classes: Sequence[str], attention: Sequence[ClassAttention]) -> Iterator[str]:
    """Average maps of the classes, those with a warning first, and the warnings as sentences."""
    yield '<section id="attention">\n<h2>Where each class looks on average</h2>\n'
    warnings = [warning for one in attention if (warning := describe(one, classes[one.class_index])) is not None]
    for warning in warnings:
        yield f'<p class="box"><b>Warning:</b> {text(warning)}.</p>\n'
    yield f"<p>{_judgement(attention, len(warnings))}</p>\n"
    yield (
        "<p>The positive parts of all maps of a class on the area of the images, averaged with equal weight. Spread "
        f"evenly, {BORDER.area:.0%} would lie at the border (an eighth on every side) and "
        f"{REGIONS[0].area:.0%} in each corner (a quarter by a quarter).</p>\n"
    )
    warned = [one for one in attention if one.finding]
    others = [one for one in attention if not one.finding]
    yield from _averages(classes, warned)
    if len(others) <= MATRIX_CLASSES:
        yield from _averages(classes, others)
    else:
        yield f"<details><summary>{counted(len(others), 'class')} without a warning</summary>\n"
        yield from _averages(classes, others)
        yield "</details>\n"
    yield "</section>\n"


def _judgement(attention: Sequence[ClassAttention], warnings: int) -> str:
    undecided = sum(one.undecided for one in attention)
    said = "" if warnings else "No class was found to look mainly at the border or into a corner. "
    if undecided:
        said += f"{counted(undecided, 'class')} of {len(attention):,}: too few images to rule it out. "
    return said + "A warning is given where accident is ruled out: a false one in less than 1 % of reports."


def _averages(classes: Sequence[str], attention: Sequence[ClassAttention]) -> Iterator[str]:
    if attention:
        yield '<div class="classes">\n'
        yield from (_average(one, classes[one.class_index]) for one in attention)
        yield "</div>\n"


def _average(one: ClassAttention, label: str) -> str:
    lines = [f"<b>{name(label)}</b>", counted(one.images, "image") + (f", {one.empty:,} empty" if one.empty else "")]
    drawing = ""
    if one.average is not None:
        heat = png_bytes(Image.fromarray(colorize(one.average / one.average.max())))
        region = one.finding and f'<span style="{_placed(one.finding.region)}"></span>'
        drawing = f'<div class="average">{picture(heat, f"average map of {label}")}{region or ""}</div>'
        corner = max(REGIONS[:4], key=lambda region: one.share(region) or 0.0)
        lines.append(f"border {one.share(BORDER):.0%}, {corner.name} {one.share(corner):.0%}")
        lines += [f"too few images ({one.needed:.0f} are needed)"] if one.undecided else []
    warned = ' class="warned"' if one.finding else ""
    return f"<figure{warned}>{drawing}<figcaption>{'<br>'.join(lines)}</figcaption></figure>\n"


def _placed(region: Region) -> str:
    """Where the frame of a region stands; the border is shown by the rectangle inside it."""
    top, bottom, _ = region.rows.indices(GRID)
    left, right, _ = region.columns.indices(GRID)
    sides = {"left": left, "top": top, "width": right - left, "height": bottom - top}
    return ";".join(f"{side}:{value / GRID:.2%}" for side, value in sides.items())


def group_start(pair: tuple[str, str], count: int, anchor: str, neighbours: Sequence[tuple[str, str]]) -> str:
    """The heading of a group of entries; `neighbours` are (word, anchor) of the groups before and after."""
    label, predicted = pair
    title = _arrow(label, predicted) if label != predicted else f'<span class="true">{name(label)}</span>'
    links = " · ".join(f'<a href="#{there}">{word}</a>' for word, there in neighbours)
    noun = "mistake" if label != predicted else "right prediction"
    turning = f' <span class="turn">{links}</span>' if links else ""
    said = f'<span class="soft">{counted(count, noun)}</span>'
    return f'<section class="pair" id="{anchor}">\n<h3>{title} {said}{turning}</h3>\n'


def card(entry: FailureEntry, rank: int) -> str:
    """One image: its pictures, the probabilities and the links to its files."""
    anchor = f"m{rank}" if entry.is_mistake else f"r{rank}"
    said = [f'<span class="true">true: <b>{name(entry.label)}</b></span>']
    if entry.is_mistake:
        said.append(f'<span class="pred">predicted: <b>{name(entry.predicted)}</b></span>')
    said.append(f'<span class="soft">loss {number(entry.loss)}</span>')
    said += [f"<span>{text(entry.note)}</span>"] if entry.note else []
    links = "".join(f'<a href="{_address(path)}">{name(path.rpartition("/")[2])}</a>' for path in entry.files)
    return (
        f'<article class="card" id="{anchor}" style="order:{rank}" aria-labelledby="t{anchor}">\n'
        f'<h4 id="t{anchor}"><a href="#{anchor}">#{rank}</a> {name(entry.path)}</h4>\n'
        f'<div class="said">{"".join(said)}</div>\n'
        f'<div class="body">\n{"".join(_figures(entry))}{_bars(entry)}</div>\n'
        + (f'<div class="files">{links}</div>\n' if links else "")
        + "</article>\n"
    )


def _figures(entry: FailureEntry) -> Iterator[str]:
    true, predicted = name(entry.label), name(entry.predicted)
    yield _figure(entry.original, "original image", "original")
    what = f'<span class="true">for {true}{" (true)" if entry.is_mistake else ""}</span>'
    yield _figure(entry.true_map, f"map of the true class, {entry.label}", what + _up_to(entry.true_max))
    if entry.predicted_map is not None:
        what = f'<span class="pred">for {predicted} (predicted)</span>' + _up_to(entry.predicted_max)
        yield _figure(entry.predicted_map, f"map of the predicted class, {entry.predicted}", what)
    if entry.difference is not None:
        what = "true − predicted" + ("" if entry.difference_max is None else f", ±{number(entry.difference_max)}")
        yield _figure(entry.difference, "map of the true class minus that of the predicted one", what)
    if entry.counterfactual is not None:
        what = f"against {predicted}"
        yield _figure(entry.counterfactual, f"what speaks against {entry.predicted}", what)
    if entry.boxes is not None:
        yield _figure(entry.boxes, "boxes", "boxes")


def _up_to(largest: float | None) -> str:
    if largest is None:
        return ""
    return f", up to {number(largest)}" if largest > 0 else ", empty: nothing speaks for it"


def _figure(data: bytes, alt: str, caption: str) -> str:
    return f"<figure>{picture(data, alt)}<figcaption>{caption}</figcaption></figure>\n"


def picture(data: bytes, alt: str) -> str:
    """An image element that holds the encoded picture and knows its size before it is decoded.

    Raises:
        ValueError: The bytes are no JPEG, PNG or WebP.
    """
    kind = next((kind for mark, kind in _KINDS if data.startswith(mark)), None)
    if kind is None:
        raise ValueError(f"a picture must be JPEG, PNG or WebP, not {data[:8]!r}")
    with Image.open(io.BytesIO(data)) as image:
        width, height = image.size
    return (
        f'<img loading="lazy" decoding="async" width="{width}" height="{height}" alt="{text(alt)}" '
        f'src="data:image/{kind};base64,{base64.b64encode(data).decode("ascii")}">'
    )


def _bars(entry: FailureEntry) -> str:
    """The most probable classes, and the true and the predicted one wherever they stand."""
    ranked = sorted(entry.probabilities, key=lambda pair: -pair[1])
    kept = {*(label for label, _ in ranked[:_SHOWN_CLASSES]), entry.label, entry.predicted}
    rows = "".join(_bar(entry, label, value) for label, value in ranked if label in kept)
    return f'<ol class="bars" aria-label="probabilities">\n{rows}</ol>\n'


def _bar(entry: FailureEntry, label: str, value: float) -> str:
    kind, said = "", ""
    if label == entry.label:
        kind, said = ' class="true"', " <small>true</small>"
    elif label == entry.predicted:
        kind, said = ' class="pred"', " <small>predicted</small>"
    width = min(max(100 * value, 0), 100) if math.isfinite(value) else 0
    return (
        f'<li{kind}><span><b>{name(label)}</b>{said}</span><span class="p">{number(value)}</span>'
        f'<i style="--p:{width:.1f}"></i></li>\n'
    )


def number(value: float) -> str:
    """Three decimals, or a word."""
    if math.isnan(value):
        return "n/a"
    return f"{value:.3f}" if math.isfinite(value) else "infinite"


def _address(path: str) -> str:
    """A relative address: no name of a file can be taken for a scheme, a query or markup."""
    return text("./" + quote(os.fsencode(path).lstrip(b"/"), safe="/"))
