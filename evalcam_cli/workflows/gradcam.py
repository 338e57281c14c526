"""From a classifier and images to heatmaps on the original pixels."""

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evalcam_cli.config import RunConfig
from evalcam_cli.data.images import UnreadableImage
from evalcam_cli.errors import UsageError
from evalcam_cli.explain.layers import find_layers
from evalcam_cli.explain.methods import METHODS, Settings
from evalcam_cli.explain.requests import parse_class
from evalcam_cli.files import OutputFolder, output_folder, refuse_inside
from evalcam_cli.models.inference import Classifier
from evalcam_cli.progress import Progress, silent
from evalcam_cli.text import counted, shown
from evalcam_cli.workflows import explained_images as images
from evalcam_cli.workflows import subjects
from evalcam_cli.workflows.ahead import ahead
from evalcam_cli.workflows.checkpoints import LoadedClassifier, WeightsRequest, load_classifier
from evalcam_cli.workflows.explained_images import Picture, Subject
from evalcam_cli.workflows.explaining import Explained, Explainer
from evalcam_cli.workflows.explanations import HEADER, LEDGER, TABLE, Entry, Explanation, Ledger, cells, read_table
from evalcam_cli.workflows.intake import settle_unreadable
from evalcam_cli.workflows.map_files import Writing, loss_of

log = logging.getLogger("evalcam")

_BATCH = 16  # images per forward pass
_GAP = 1e-4
"""Largest miss of a sum of a map, relative to the largest logit, that counts as rounding."""


@dataclass(frozen=True)
class GradCamRequest:
    """What an explanation was asked for, besides the config."""

    out: Path
    images: tuple[Path, ...] = ()
    weights: WeightsRequest = field(default_factory=WeightsRequest)
    split_file: Path | None = None
    data: Path | None = None
    subset: str | None = None
    overwrite: bool = False
    resume: bool = False


@dataclass(frozen=True)
class GradCamResultFiles:
    """What an explanation run wrote."""

    folder: Path
    rows: tuple[Explanation, ...]


def explain(config: RunConfig, request: GradCamRequest, progress: Progress = silent) -> GradCamResultFiles:
    """Write an overlay and a raw map per image, class and method, and `explanations.csv`.

    Raises:
        EvalcamError: As the exit codes say; maps finished before are kept.
    """
    loaded = load_classifier(request.weights, config)
    explainer, layer = _explainer(config, loaded)
    chosen = _subjects(config, request, loaded)
    if any(one.rule == "true" for one in explainer.requests) and not all(subject.label for subject in chosen):
        raise UsageError("--class true needs labels: name a --split, or a folder with class folders inside")
    writing = Writing(
        loaded.classifier.classes, loaded.classifier.preprocessing, config.gradcam.method, layer, explainer.against,
        config.gradcam.maps,
    )  # fmt: skip
    inputs = [path for path in (*request.images, request.data) if path is not None and path.is_dir()]
    with output_folder(request.out, overwrite=request.overwrite, resume=request.resume, inputs=inputs) as folder:
        settings = _settings(config, loaded, layer, chosen)
        with Ledger(folder, settings, resume=request.resume) as ledger:
            if request.resume and (folder.path / TABLE).exists() and not (folder.path / LEDGER).exists():
                rows = read_table(folder.path / TABLE)
                log.info("%s is finished already: %s", shown(request.out), counted(len(rows), "map"))
                return GradCamResultFiles(request.out, tuple(rows))
            job = _Job(config, explainer, writing, folder, ledger)
            entries = job.run(chosen, progress)
        rows = [row for entry in entries for row in entry.rows]
        if rows:
            folder.write_csv(TABLE, HEADER, [cells(row) for row in rows])
        settle_unreadable(job.unreadable, len(chosen), config, request.out)
        (folder.path / LEDGER).unlink(missing_ok=True)  # kept above: once mended, an image is explained by --resume
        return GradCamResultFiles(request.out, tuple(rows))


def _explainer(config: RunConfig, loaded: LoadedClassifier) -> tuple[Explainer, str]:
    """How each batch is explained, and the name of the layer."""
    asked, classifier = config.gradcam, loaded.classifier
    requests = tuple(parse_class(text, classifier.classes) for text in asked.classes)
    against = None if asked.against is None else _one_class(asked.against, classifier)
    needs_layer = any(METHODS[name].of_layer for name in asked.method)
    layer, layers = find_layers(classifier.model, asked.layer) if needs_layer else ("", ())
    settings = Settings(seed=config.seed)
    explainer = Explainer(classifier, layers, asked.method, requests, against, flips=asked.flips, settings=settings)
    return explainer, layer


def _one_class(text: str, classifier: Classifier) -> int:
    request = parse_class(text, classifier.classes)
    if request.index is None:
        raise UsageError(f"--against {shown(text)}: name one class, by its name or its index")
    return request.index


def _settings(config: RunConfig, loaded: LoadedClassifier, layer: str, chosen: Sequence[Subject]) -> dict[str, Any]:
    """What must be the same for a run to be continued."""
    facts = [(one.path, one.label, one.stem) for one in chosen]
    point = loaded.classifier.checkpoint.operating_point
    return {
        **config.gradcam.model_dump(mode="json", by_alias=True), "layer": layer, "seed": config.seed,
        "checkpoint": loaded.place, "checkpoint_sha256": loaded.sha256,
        "temperature": loaded.classifier.checkpoint.temperature,
        "operating_point": None if point is None else point.to_dict(),
        "images": hashlib.sha256(json.dumps(facts).encode()).hexdigest(),
    }  # fmt: skip


def _subjects(config: RunConfig, request: GradCamRequest, loaded: LoadedClassifier) -> list[Subject]:
    limit = config.gradcam.max_images
    if request.images:
        if request.split_file or request.subset or request.data:
            raise UsageError("name IMAGEs, or --split, --data and --subset, not both")
        return images.named(request.images, loaded.classifier.classes, limit)
    if request.split_file is None and request.data is None and request.subset is None:
        raise UsageError("nothing to explain: name IMAGEs, --split FILE, --data DIR, or --subset test of the run")
    found = subjects.choose_subjects(
        loaded.run, loaded.place, split_file=request.split_file, data=request.data, subset=request.subset,
        default=config.evaluate.subset,
    )  # fmt: skip
    refuse_inside(request.out, [found.root])
    return images.of_set(found, images.SPLIT_IMAGES if limit is None else limit)


@dataclass
class _Job:
    """One run over all its images: read ahead, explained batch by batch, drawn behind; memory does not grow."""

    config: RunConfig
    explainer: Explainer
    writing: Writing
    folder: OutputFolder
    ledger: Ledger
    unreadable: dict[str, str] = field(default_factory=dict)
    """Reason by path."""

    def run(self, chosen: Sequence[Subject], progress: Progress) -> list[Entry]:
        """What is known of each image that can be read, in order, files written."""
        known = {entry.path: entry for entry in self.ledger.known}
        self._require_unchanged(chosen, known)
        entries: list[Entry] = []
        # whole batches, also where half of one is known: the last bits of a map depend on what else is in its batch
        batches = [chosen[start : start + _BATCH] for start in range(0, len(chosen), _BATCH)]
        pending = [batch for batch in batches if not all(one.path in known for one in batch)]
        done = len(chosen) - sum(map(len, pending))
        entries += [known[one.path] for batch in batches if batch not in pending for one in batch]
        for entry in ahead(self._finish, self._explained(pending, known), threads=2, most=2 * _BATCH):
            if entry.path not in known:
                self.ledger.add(entry)
            entries.append(entry)
            done += 1
            progress("explaining", done + len(self.unreadable), len(chosen))
        order = {one.path: place for place, one in enumerate(chosen)}
        return sorted(entries, key=lambda entry: order[entry.path])

    def _explained(
        self, batches: Sequence[Sequence[Subject]], known: dict[str, Entry]
    ) -> Iterator[tuple[Picture, Explained] | Entry]:
        """Each image of the batches with its maps, or what is known of it."""
        read = ahead(self._read, (one for batch in batches for one in batch), threads=2, most=2 * _BATCH)
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
            if gap is not None and gap > _GAP:
                log.warning("self-check: a map misses logit - bias by %.2g of the largest logit", gap)
            for picture, each in zip(pictures, found, strict=True):
                yield known.get(picture.subject.path) or (picture, each)

    def _read(self, subject: Subject) -> Picture | str:
        """The picture, or the reason why it cannot be read."""
        try:
            return images.read_picture(subject, self.explainer.classifier.preprocessing, self.config.data.max_pixels)
        except UnreadableImage as error:
            return error.reason

    def _finish(self, made: tuple[Picture, Explained] | Entry) -> Entry:
        """Write an image's files."""
        if isinstance(made, Entry):
            return made
        picture, found = made
        files = self.writing.files(picture, found, draw=True)
        for name, content in files.content.items():
            self.folder.write(name, content)
        probabilities = tuple(map(float, found.probabilities))
        return Entry(
            picture.subject.path, picture.sha256, picture.size, loss_of(picture.subject, self.writing.names, found),
            probabilities, files.rows, {},
        )  # fmt: skip

    def _require_unchanged(self, chosen: Sequence[Subject], known: dict[str, Entry]) -> None:
        for subject in chosen:
            if subject.path in known and images.sha256_of(subject) != known[subject.path].sha256:
                raise UsageError(
                    f"--resume: {shown(subject.path)} has changed since it was explained; "
                    "restore it, or use another --out"
                )
