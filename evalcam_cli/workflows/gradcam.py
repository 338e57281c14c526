"""From a classifier and images to heatmaps on the original pixels."""

import contextlib
import hashlib
import io
import json
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, astuple, dataclass, field, fields
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from evalcam_cli.config import RunConfig
from evalcam_cli.data.dataset import normalise
from evalcam_cli.data.identity import identify
from evalcam_cli.data.images import load_image
from evalcam_cli.errors import UsageError
from evalcam_cli.evaluation.predictions import Predictions
from evalcam_cli.explain.gradcam import GradCamResult, find_layer, grad_cam
from evalcam_cli.explain.requests import ClassRequest, choose_classes, parse_class, rectangular
from evalcam_cli.files import OutputFolder, output_folder, read_csv, read_json, refuse_inside
from evalcam_cli.models.inference import Classifier
from evalcam_cli.progress import Progress, silent
from evalcam_cli.report.overlay import draw_overlay, peak, png_bytes
from evalcam_cli.text import counted, file_stem, shown
from evalcam_cli.workflows import subjects as images
from evalcam_cli.workflows.checkpoints import LoadedClassifier, WeightsRequest, load_classifier
from evalcam_cli.workflows.intake import settle_unreadable

log = logging.getLogger("evalcam")

_BATCH = 16
_TABLE, _LEDGER, _SETTINGS = "explanations.csv", "explanations.partial.jsonl", "gradcam.json"
_SPLIT_IMAGES = 16  # of a split, unless gradcam.max_images says otherwise


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
class Explanation:
    """One row of `explanations.csv`: the map of one class on one image."""

    path: str
    label: str
    predicted: str
    class_name: str
    class_index: int
    probability: float
    logit: float
    method: str
    layer: str
    map_min: float
    """Of the signed map at feature resolution, in logit units."""
    map_max: float
    empty: bool
    """Whether nothing in the map speaks for the class."""
    peak_x: int | None
    """Of the strongest point, in pixels of the upright original; None in an empty map."""
    peak_y: int | None
    overlay: str
    map: str

    def to_dict(self) -> dict[str, Any]:
        return {"class" if key == "class_name" else key: value for key, value in asdict(self).items()}


HEADER = tuple("class" if entry.name == "class_name" else entry.name for entry in fields(Explanation))


@dataclass(frozen=True)
class _Subject:
    """One image to explain."""

    file: Path
    path: str
    """As reported."""
    label: str
    stem: str
    """Folder and stem of the output files, POSIX."""


@dataclass(frozen=True)
class GradCamResultFiles:
    """What an explanation run wrote."""

    folder: Path
    rows: tuple[Explanation, ...]


def explain(config: RunConfig, request: GradCamRequest, progress: Progress = silent) -> GradCamResultFiles:
    """Write an overlay and a raw map per image and class, and `explanations.csv`.

    Raises:
        EvalcamError: As the exit codes say; maps finished before are kept.
    """
    loaded = load_classifier(request.weights, config)
    requests = [parse_class(text, loaded.classifier.classes) for text in config.gradcam.classes]
    layer_name, layer = find_layer(loaded.classifier.model, config.gradcam.layer)
    chosen = _subjects(config, request, loaded)
    if any(one.rule == "true" for one in requests) and not all(subject.label for subject in chosen):
        raise UsageError("--class true needs labels: name a --split, or a folder with class folders inside")
    inputs = [path for path in (*request.images, request.data) if path is not None and path.is_dir()]
    with output_folder(request.out, overwrite=request.overwrite, resume=request.resume, inputs=inputs) as folder:
        chosen, fingerprint = _readable(chosen, config, request.out, progress)
        settings = {
            "classes": list(config.gradcam.classes), "method": config.gradcam.method, "layer": layer_name,
            "checkpoint": loaded.place, "checkpoint_sha256": loaded.sha256, "images": fingerprint,
        } | _calibration(loaded.classifier)  # fmt: skip
        rows = _known_rows(folder, settings) if request.resume else []
        if request.resume and (folder.path / _TABLE).exists():
            log.info("%s is finished already: %s", shown(request.out), counted(len(rows), "map"))
            return GradCamResultFiles(request.out, tuple(rows))
        done = {row.path for row in rows}
        job = _Job(config, loaded.classifier, requests, layer_name, layer, folder)
        rest = [one for one in chosen if one.path not in done]
        with contextlib.ExitStack() as stack:
            ledger = None
            for row in job.explain(rest, progress):
                if ledger is None:  # begun only now: a layer that cannot be explained leaves nothing behind
                    folder.write_json(_SETTINGS, settings)
                    kept = "".join(json.dumps(astuple(one)) + "\n" for one in rows)
                    ledger = stack.enter_context(folder.write(_LEDGER, kept.encode()).open("a", encoding="utf-8"))
                rows.append(row)
                ledger.write(json.dumps(astuple(row)) + "\n")
                ledger.flush()
        order = {one.path: position for position, one in enumerate(chosen)}
        rows.sort(key=lambda row: order[row.path])
        folder.write_csv(_TABLE, HEADER, [_cells(row) for row in rows])
        (folder.path / _LEDGER).unlink(missing_ok=True)
        return GradCamResultFiles(request.out, tuple(rows))


def _calibration(classifier: Classifier) -> dict[str, Any]:
    """What was chosen on validation images: rows made under another choice must not be continued."""
    point = classifier.checkpoint.operating_point
    chosen = {
        "temperature": classifier.checkpoint.temperature,
        "operating_point": None if point is None else point.to_dict(),
    }
    return {name: value for name, value in chosen.items() if value is not None}


def _cells(row: Explanation) -> tuple[object, ...]:
    return tuple(str(value).lower() if isinstance(value, bool) else value for value in astuple(row))


def _readable(chosen: list[_Subject], config: RunConfig, out: Path, progress: Progress) -> tuple[list[_Subject], str]:
    """The images that can be read, and a SHA-256 over their names and bytes."""
    files = [str(one.file) for one in chosen]
    identities, unreadable = identify(Path(), files, max_pixels=config.data.max_pixels, progress=progress)
    names = {file: one.path for file, one in zip(files, chosen, strict=True)}
    settle_unreadable({names[file]: reason for file, reason in unreadable.items()}, len(chosen), config, out)
    kept = [one for one in chosen if str(one.file) in identities]
    facts = [(one.path, one.label, one.stem, identities[str(one.file)].sha256) for one in kept]
    return kept, hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _from_cells(row: Sequence[str]) -> Explanation:
    """The inverse of `_cells`, from texts."""
    readers: dict[Any, Callable[[str], Any]] = {
        int: int,
        float: float,
        bool: "true".__eq__,
        int | None: lambda cell: int(cell) if cell else None,
    }
    values = [readers.get(entry.type, str)(cell) for entry, cell in zip(fields(Explanation), row, strict=True)]
    return Explanation(*values)


def _known_rows(folder: OutputFolder, settings: dict[str, Any]) -> list[Explanation]:
    """The rows of images that an interrupted run finished."""
    file = folder.path / _SETTINGS
    if not file.exists():
        return []
    if read_json(file) != settings:
        raise UsageError(
            f"--resume: {shown(folder.path.absolute())} was begun with other images, classes, layer or checkpoint;\n"
            "use the same, or another --out"
        )
    if (folder.path / _TABLE).exists():
        return [_from_cells(row) for row in read_csv(folder.path / _TABLE)[1]]
    source = folder.path / _LEDGER
    lines = source.read_text(encoding="utf-8", errors="surrogateescape").splitlines() if source.exists() else []
    rows = []
    for line in lines:
        try:
            rows.append(Explanation(*json.loads(line)))
        except (ValueError, TypeError):
            break  # cut off by the interruption
    last = rows[-1].path if rows else None  # its other classes may be missing
    return [row for row in rows if row.path != last]


def _subjects(config: RunConfig, request: GradCamRequest, loaded: LoadedClassifier) -> list[_Subject]:
    limit = config.gradcam.max_images
    if request.images:
        if request.split_file or request.subset or request.data:
            raise UsageError("name IMAGEs, or --split, --data and --subset, not both")
        named = images.named_images(request.images)
        labels = set(loaded.classifier.classes)
        stems = _stems([image.relative for image in named])
        found = [
            _Subject(image.file, str(image.path), image.label if image.label in labels else "", stem)
            for image, stem in zip(named, stems, strict=True)
        ]
        return _said(found[:limit], len(found))
    if request.split_file is None and request.data is None and request.subset is None:
        raise UsageError("nothing to explain: name IMAGEs, --split FILE, --data DIR, or --subset test of the run")
    subjects = images.choose_subjects(
        loaded.run, loaded.place, split_file=request.split_file, data=request.data, subset=request.subset,
        default=config.evaluate.subset,
    )  # fmt: skip
    refuse_inside(request.out, [subjects.root])
    samples = images.in_turn(subjects.samples, _SPLIT_IMAGES if limit is None else limit)
    stems = _stems([sample.path for sample in samples])
    chosen = [
        _Subject(subjects.root / sample.path, sample.path, sample.label, stem)
        for sample, stem in zip(samples, stems, strict=True)
    ]
    return _said(chosen, len(subjects.samples))


def _said(chosen: list[_Subject], available: int) -> list[_Subject]:
    if len(chosen) < available:
        log.info("explaining %d of %s (gradcam.max_images)", len(chosen), counted(available, "image"))
    return chosen


def _stems(paths: Sequence[str]) -> list[str]:
    """Where each image's files go: its folder and stem; a stem taken twice keeps its suffix, then gets a number."""
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


@dataclass(frozen=True)
class _Job:
    """What all images of one run share."""

    config: RunConfig
    classifier: Classifier
    requests: list[ClassRequest]
    layer_name: str
    layer: nn.Module
    folder: OutputFolder

    def explain(self, chosen: Sequence[_Subject], progress: Progress) -> Iterator[Explanation]:
        """Rows of all images, written batch by batch, so that memory does not grow with their number."""
        for start in range(0, len(chosen), _BATCH):
            batch = chosen[start : start + _BATCH]
            yield from self._explain_batch([(one, load_image(one.file, self.config.data.max_pixels)) for one in batch])
            progress("explaining", min(start + _BATCH, len(chosen)), len(chosen))

    def _explain_batch(self, batch: Sequence[tuple[_Subject, Image.Image]]) -> Iterator[Explanation]:
        preprocessing = self.classifier.preprocessing
        pixels = np.stack([preprocessing.apply(image) for _, image in batch])
        tensor = normalise(torch.from_numpy(pixels).permute(0, 3, 1, 2), preprocessing, self.classifier.device)
        classes = self.classifier.classes
        targets = [classes.index(subject.label) if subject.label in classes else None for subject, _ in batch]
        wanted: list[list[int]] = []

        def choose(logits: torch.Tensor) -> list[list[int]]:
            wanted.extend(choose_classes(self.requests, self._ranked(logits), targets))
            return rectangular(wanted)

        result = grad_cam(self.classifier.model, self.layer, tensor, choose)
        said = self._predictions(result.logits)
        for position, (subject, image) in enumerate(batch):
            for column, class_index in enumerate(wanted[position]):
                yield self._write(subject, image, result, said, (position, column, class_index))

    def _predictions(self, logits: torch.Tensor) -> Predictions:
        """What the classifier says of (N, K) logits, by its temperature and its operating point."""
        checkpoint, n = self.classifier.checkpoint, len(logits)
        return Predictions(
            checkpoint.classes, logits.detach().float().cpu().numpy(), np.zeros(n, dtype=np.int64), ("",) * n,
            temperature=checkpoint.temperature or 1.0, operating_point=checkpoint.operating_point,
        )  # fmt: skip

    def _ranked(self, logits: torch.Tensor) -> torch.Tensor:
        """(N, K) scores that rank the classes: the logits, of two classes the predicted one first."""
        said = self._predictions(logits)
        turned = torch.from_numpy(said.predicted != said.argmax).to(logits.device)
        return torch.where(turned[:, None], logits.flip(1), logits)  # only an operating point of two classes turns one

    def _write(
        self, subject: _Subject, image: Image.Image, result: GradCamResult, said: Predictions,
        place: tuple[int, int, int],
    ) -> Explanation:  # fmt: skip
        position, column, class_index = place
        classes = self.classifier.classes
        logits = result.logits[position]
        signed: NDArray[np.float32] = result.maps[position, column].numpy().astype(np.float32)
        geometry = self.classifier.preprocessing.geometry(*image.size)
        empty = not float(signed.max()) > 0
        x, y = (None, None) if empty else peak(signed, geometry)
        probability = float(said.rows(position, position + 1)[0, class_index])
        name = _fitting(subject.stem, f".{self.config.gradcam.method}.{_class_part(classes, class_index)}")
        caption = [f"{classes[class_index]}  p = {probability:.3f}", f"Grad-CAM, {self.layer_name}"]
        overlay = draw_overlay(image, signed, geometry, caption_lines=caption, label=classes[class_index])
        self.folder.write(f"{name}.png", png_bytes(overlay))
        self.folder.write(f"{name}.npy", _npy_bytes(signed))
        return Explanation(
            subject.path, subject.label, classes[said.predicted[position]], classes[class_index], class_index,
            probability, float(logits[class_index]), self.config.gradcam.method, self.layer_name, float(signed.min()),
            float(signed.max()), empty, x, y, f"{name}.png", f"{name}.npy",
        )  # fmt: skip


def _fitting(stem: str, ending: str) -> str:
    """Stem and ending as a path whose last part fits into the 255 bytes of a file name, suffix included."""
    folder, slash, name = stem.rpartition("/")
    room = 250 - len(os.fsencode(ending))
    if len(os.fsencode(name)) > room:
        cut = os.fsencode(name)[: room - 9].decode("utf-8", "ignore")
        name = f"{cut}-{hashlib.sha256(os.fsencode(name)).hexdigest()[:8]}"
    return f"{folder}{slash}{name}{ending}"


def _class_part(classes: Sequence[str], class_index: int) -> str:
    """The class in a file name, with its index where two classes would look alike."""
    parts = [file_stem(name).casefold() for name in classes]
    part = file_stem(classes[class_index])
    return part if parts.count(part.casefold()) == 1 else f"{part}-{class_index}"


def _npy_bytes(array: NDArray[np.float32]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()
