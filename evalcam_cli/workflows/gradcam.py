"""From a classifier and images to heatmaps on the original pixels."""

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from evalcam_cli.config import RunConfig
from evalcam_cli.data.preprocessing import Preprocessing
from evalcam_cli.distributed import joined, on_first
from evalcam_cli.errors import UsageError
from evalcam_cli.explain.faithfulness_summary import Summary
from evalcam_cli.explain.layers import find_layers
from evalcam_cli.explain.localisation_numbers import Localisation
from evalcam_cli.explain.methods import METHODS, Settings
from evalcam_cli.explain.requests import parse_class
from evalcam_cli.explain.sanity import Verdict
from evalcam_cli.explain.targets import Target
from evalcam_cli.files import LOCK_NAME, output_folder, refuse_inside
from evalcam_cli.models.checkpoint import Checkpoint
from evalcam_cli.models.device import choose_device, use_full_precision
from evalcam_cli.models.folded import folded
from evalcam_cli.models.inference import Classifier, ready
from evalcam_cli.progress import Progress, silent
from evalcam_cli.report.colours import own_full
from evalcam_cli.text import shown
from evalcam_cli.workflows import explained_images as images
from evalcam_cli.workflows import own_code, subjects
from evalcam_cli.workflows.checkpoints import LoadedClassifier, WeightsRequest, load_classifier, read_classes
from evalcam_cli.workflows.explain_job import Job
from evalcam_cli.workflows.explained_images import Subject
from evalcam_cli.workflows.explaining import Explained, Explainer, Guard, reflections
from evalcam_cli.workflows.explanations import LEDGER, TABLE, Explanation, Ledger, read_table, write_table
from evalcam_cli.workflows.failure_report import FailureReport
from evalcam_cli.workflows.intake import settle_unreadable
from evalcam_cli.workflows.judging import (
    Judge,
    has_truth,
    read_truth,
    refuse_images_as_masks,
    refuse_strange_boxes,
    write_boxes,
    write_localisation,
)
from evalcam_cli.workflows.manifest import write_manifest
from evalcam_cli.workflows.map_files import Writing, read_map
from evalcam_cli.workflows.sanity_checks import check_methods, spread, write_verdicts
from evalcam_cli.workflows.scoring import write_scores
from evalcam_cli.workflows.shared_maps import OwnCode
from evalcam_cli.world import is_of_this_launch

log = logging.getLogger("evalcam")


@dataclass(frozen=True)
class GradCamRequest:
    """What an explanation was asked for, besides the config."""

    out: Path
    images: tuple[Path, ...] = ()
    weights: WeightsRequest = field(default_factory=WeightsRequest)
    model: str | None = None
    """`FILE.py:FACTORY` of an own network, in place of a checkpoint."""
    target: str | None = None
    """`FILE.py:FUNCTION` of an own score, in place of classes."""
    split_file: Path | None = None
    data: Path | None = None
    subset: str | None = None
    boxes: Path | None = None
    """Known objects: a `boxes.csv` or a folder of masks."""
    find_boxes: bool = False
    """Whether boxes are written."""
    score: bool = False
    """Whether maps are scored and methods checked."""
    report: str | None = None
    """`mistakes` or `all`: the failure report, with these images in it."""
    overwrite: bool = False
    resume: bool = False


@dataclass(frozen=True)
class GradCamResultFiles:
    """What an explanation run wrote."""

    folder: Path
    localisation: dict[str, Localisation] = field(default_factory=dict)
    """By method, when objects were known."""
    scores: dict[str, dict[str, Summary]] = field(default_factory=dict)
    """By method and metric, when maps were scored."""
    verdicts: dict[str, str] = field(default_factory=dict)
    """By method, what the sanity check found."""
    report: str = ""
    """What a failure report found, in a sentence."""

    def read_rows(self) -> Iterator[Explanation]:
        """The rows of `explanations.csv`, one by one."""
        return read_table(self.folder / TABLE)

    @property
    def rows(self) -> tuple[Explanation, ...]:
        return tuple(self.read_rows())

    def first(self, count: int) -> list[Explanation]:
        """The first rows with a picture."""
        return list(islice((row for row in self.read_rows() if row.overlay), count))


def explain(config: RunConfig, request: GradCamRequest, progress: Progress = silent) -> GradCamResultFiles:
    """Write an overlay and a raw map per image, class and method, `explanations.csv`, and what else was asked for.

    Several processes share the images; the first one does the rest, and writes. Once torchrun has started all of them
    anew, what was finished before is kept.

    Raises:
        EvalcamError: As the exit codes say; maps finished before are kept.
    """
    with joined() as here:
        if here.restarts and is_of_this_launch(request.out / LOCK_NAME):  # begun, by the attempt before this one
            request = replace(request, resume=True, overwrite=False)
        return on_first(lambda: _explain(config, request, progress))


def _explain(config: RunConfig, request: GradCamRequest, progress: Progress) -> GradCamResultFiles:
    network = _load(config, request)
    loaded, target = network.loaded, network.target
    chosen = _subjects(config, request, loaded)
    truth = read_truth(request.boxes)
    config = _decided(config, request, known=has_truth(truth, chosen))
    if request.report is not None and (target is not None or config.gradcam.against is not None):
        raise UsageError("a failure report is about classes; leave out --target and --against")
    if request.score and (target is not None or config.gradcam.against is not None):
        raise UsageError("--score is about the probability of a class; leave out --target and --against")
    explainer, layer = _explainer(config, loaded, target)
    explainer = replace(explainer, scores=request.score, guard=network.guard)
    if any(one.rule == "true" for one in explainer.requests) and not all(subject.label for subject in chosen):
        raise UsageError(
            "true classes need labels: name a --split, --subset test of a run, or a folder with class folders inside"
        )
    asked = config.gradcam
    full: dict[str, float] = {name: asked.full_colour for name in asked.method if asked.norm == "raw"}
    writing = Writing(
        explainer.classifier.classes, explainer.classifier.preprocessing, asked.method, layer, explainer.against,
        asked.maps, full, "score units" if target else None,
        {name: METHODS[name].caution for name in asked.method if METHODS[name].caution},
    )  # fmt: skip
    refuse_strange_boxes(truth, request.boxes, [subject.relative for subject in chosen], loaded.classifier.classes)
    refuse_images_as_masks(truth, request.boxes, {subject.root for subject in chosen})
    inputs = [path for path in (*request.images, request.data) if path is not None and path.is_dir()]
    with output_folder(request.out, overwrite=request.overwrite, resume=request.resume, inputs=inputs) as folder:
        settings = _settings(config, request, loaded, layer, chosen)
        with Ledger(folder, settings, resume=request.resume) as ledger:
            if request.resume and (folder.path / TABLE).exists() and not (folder.path / LEDGER).exists():
                log.info("%s is finished already", shown(request.out))
                return GradCamResultFiles(request.out)
            judge = Judge(asked.box_threshold, request.find_boxes or request.boxes is not None, truth)
            job = Job(
                explainer, writing, judge, folder, ledger, config.data.max_pixels,
                _Drawn(request.report == "mistakes", writing.names), later=asked.norm == "shared",
                code=OwnCode(request.model, request.target),
            )  # fmt: skip
            verdicts = _check(job, layer, chosen, progress) if request.score else {}
            job.run(chosen, progress)
            result = GradCamResultFiles(request.out)
            if len(ledger):
                result = _conclude(config, request, loaded, job, chosen, progress, verdicts)
            settle_unreadable(job.unreadable, len(chosen), config, request.out)
        folder.remove(LEDGER)  # kept above: once mended, an image is explained by --resume
        return result


def _conclude(
    config: RunConfig, request: GradCamRequest, loaded: LoadedClassifier, job: Job, chosen: Sequence[Subject],
    progress: Progress, verdicts: dict[str, Verdict],
) -> GradCamResultFiles:  # fmt: skip
    """Write what needs all images."""
    paths = [subject.path for subject in chosen]
    if job.later:
        job.writing = replace(job.writing, full=_largest(job))
        job.draw(chosen, progress)
    if job.judge.find:
        write_boxes(job.folder, lambda: job.ledger.entries(paths), job.writing.names, loaded.place)
    found, said = {}, ""
    if request.boxes is not None:
        found = write_localisation(job.folder, job.ledger.entries(paths), shown(request.boxes.absolute()))
    if request.report is not None:
        report = FailureReport(
            job.folder, job.ledger, job.writing, config.data.max_pixels, right_too=request.report == "all",
            place=loaded.place, sha256=loaded.sha256, subset=_set_name(config, request), notes=_notes(config),
            verdict=verdicts.get(job.writing.methods[0]),
        )  # fmt: skip
        said = report.write(chosen, progress)
    scores = write_scores(job.folder, lambda: job.ledger.entries(paths)) if request.score else {}
    if verdicts:
        write_verdicts(job.folder, verdicts)
    write_manifest(job.folder, job.ledger.settings, job.writing, job.ledger.entries(paths))
    write_table(job.folder, job.ledger.entries(paths))
    sentences = {method: verdict.sentence for method, verdict in verdicts.items()}
    return GradCamResultFiles(request.out, found, scores, sentences, said)


def _set_name(config: RunConfig, request: GradCamRequest) -> str:
    """What the images of a report are."""
    if request.images or (request.data is not None and request.split_file is None and request.subset is None):
        return "images named" if request.images else "data set taken whole"
    return request.subset or config.evaluate.subset


def _notes(config: RunConfig) -> tuple[str, ...]:
    """What a reader of a report must know."""
    notes = []
    if config.gradcam.max_images is not None:
        notes.append(
            f"At most {config.gradcam.max_images:,} images were asked for (gradcam.max_images): the accuracy is that "
            "of these images, not of the whole set."
        )
    if config.gradcam.flips:
        notes.append(
            "Maps are means over each image and its reflections, as far as the network was trained with them; "
            "--no-flips shows those of the image alone."
        )
    return tuple(notes)


def _check(job: Job, layer: str, chosen: Sequence[Subject], progress: Progress) -> dict[str, Verdict]:
    """Check each method on a few of the images; what is found stands on every picture."""
    pictures = job.readable(spread(chosen))
    if not pictures:
        return {}
    verdicts = check_methods(job.explainer, layer, pictures, progress)
    failed = {method: verdict.sentence for method, verdict in verdicts.items() if verdict.outcome == "fails"}
    others = {method: verdict.sentence for method, verdict in verdicts.items() if verdict.outcome != "fails"}
    known = {  # what is known against a method stands unless this model clears it
        method: caution
        for method, caution in job.writing.warnings.items()
        if method not in verdicts or verdicts[method].outcome != "passes"
    }
    job.writing = replace(job.writing, warnings=known | failed, remarks=others)
    return verdicts


def _largest(job: Job) -> dict[str, float]:
    """The strongest value of all maps, by method; a method whose maps are all empty is left out."""
    largest: dict[str, float] = {}
    for entry in job.ledger.entries(job.ledger.paths()):
        geometry = job.writing.preprocessing.geometry(*entry.size)
        for row in entry.rows:
            full = own_full(read_map(job.folder.path, row.map), geometry, job.writing.scale(row.method).kind)
            if full > 0:
                largest[row.method] = max(full, largest.get(row.method, 0))
    return largest


@dataclass(frozen=True)
class _Drawn:
    """Which images get pictures: all, or those that a report of mistakes is about."""

    mistakes_only: bool
    classes: tuple[str, ...]

    def __call__(self, subject: Subject, found: Explained) -> bool:
        return not self.mistakes_only or found.predicted is None or self.classes[found.predicted] != subject.label


@dataclass(frozen=True)
class _Network:
    """What is explained."""

    loaded: LoadedClassifier
    target: Target | None
    """Own scores of its output."""
    guard: Guard = nullcontext
    """Within it, what an own network raises is blamed on its file."""


def _load(config: RunConfig, request: GradCamRequest) -> _Network:
    """The network, and the own target if there is one."""
    target = None if request.target is None else own_code.load_target(request.target)
    if request.model is None:
        return _Network(load_classifier(request.weights, config), target)
    if request.weights.ckpt is not None or request.weights.arch is not None:
        raise UsageError("name --model, or --ckpt and --arch, not both")
    device = choose_device(config.device)
    use_full_precision()
    own = own_code.load_model(request.model, seed=config.seed)
    own = replace(own, model=ready(own.model, device))
    size = config.data.image_size
    if request.weights.classes_file is not None:
        names = read_classes(request.weights.classes_file)
    elif target is None:
        names = tuple(f"output {index}" for index in range(own_code.count_outputs(own, size, device)))
    else:
        count = own_code.count_scores(own, target, size, device)
        names = tuple("target" if count == 1 else f"target {index}" for index in range(count))
    checkpoint = Checkpoint(request.model, 2, names, Preprocessing(size, config.data.resize))
    loaded = LoadedClassifier(Classifier(own.model, checkpoint, device), own.source.place, None, own.sha256)
    return _Network(loaded, target, partial(own.source.blamed, "the model failed"))


def _decided(config: RunConfig, request: GradCamRequest, *, known: bool) -> RunConfig:
    """With what depends on the request: the classes of known objects, or those of a report, and its reflections."""
    classes = list(config.gradcam.classes)
    if request.report is not None:
        classes = list(dict.fromkeys([*classes, "predicted", "true"]))
    elif request.boxes is not None and classes == ["predicted"]:
        classes = ["true"] if known else ["all"]
    flips = config.gradcam.flips
    update = {"classes": tuple(classes), "flips": request.report is not None if flips is None else flips}
    return config.model_copy(update={"gradcam": config.gradcam.model_copy(update=update)})


def _explainer(config: RunConfig, loaded: LoadedClassifier, target: Target | None) -> tuple[Explainer, str]:
    """How each batch is explained, and the name of the layer."""
    asked, classifier = config.gradcam, loaded.classifier
    requests = () if target else tuple(parse_class(text, classifier.classes) for text in asked.classes)
    against = None if asked.against is None else _one_class(asked.against, classifier)
    needs_layer = any(METHODS[name].of_layer for name in asked.method)
    layer = find_layers(classifier.model, asked.layer)[0] if needs_layer else ""
    if asked.folded:
        classifier = replace(classifier, model=_folded(classifier, layer))
    layers = find_layers(classifier.model, layer)[1] if needs_layer else ()
    settings = Settings(
        seed=config.seed, window=asked.window, stride=asked.stride, steps=asked.steps, copies=asked.copies
    )
    if any(request.index == against for request in requests if request.index is not None):
        raise UsageError(f"--against {shown(asked.against)} is also a --class: its map against itself is empty")
    flips = reflections(classifier) if asked.flips else ()
    if asked.flips and not flips:
        log.info("the network was trained without reflections, so maps are those of the images alone")
    explainer = Explainer(classifier, layers, asked.method, requests, against, target, flips=flips, settings=settings)
    return explainer, layer


def _folded(classifier: Classifier, layer: str) -> torch.nn.Module:
    """The inference form, tried out on noise."""
    size = classifier.preprocessing.image_size
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(2, 3, size, size, generator=generator).to(classifier.device)
    result = folded(classifier.model, noise, keep=tuple(layer.split("+")) if layer else ())
    log.info("%s", result.note or f"batch norm folded: logits differ by {result.largest_difference:.1g} of the largest")
    return result.model


def _one_class(text: str, classifier: Classifier) -> int:
    request = parse_class(text, classifier.classes, "--against")
    if request.index is None:
        raise UsageError(f"--against {shown(text)}: name one class, by its name or its index")
    return request.index


def _settings(
    config: RunConfig, request: GradCamRequest, loaded: LoadedClassifier, layer: str, chosen: Sequence[Subject]
) -> dict[str, Any]:
    """What must be the same for a run to be continued."""
    point, boxes = loaded.classifier.checkpoint.operating_point, request.boxes
    own = None if request.target is None else own_code.load_function(request.target, "--target")
    return {
        **config.gradcam.model_dump(mode="json", by_alias=True), "layer": layer, "seed": config.seed,
        "target": request.target, "target_sha256": None if own is None else own.sha256, "score": request.score,
        "report": request.report, "find_boxes": request.find_boxes, "boxes": None if boxes is None else str(boxes),
        "boxes_sha256": _sha256_of(boxes) if boxes is not None and boxes.is_file() else None,
        "classes": list(loaded.classifier.classes),
        "checkpoint": loaded.place, "checkpoint_sha256": loaded.sha256,
        "temperature": loaded.classifier.checkpoint.temperature,
        "operating_point": None if point is None else point.to_dict(),
        "preprocessing": loaded.classifier.preprocessing.to_dict(),
        "images": _digest_of(chosen),
    }  # fmt: skip


def _digest_of(chosen: Sequence[Subject]) -> str:
    """SHA-256 of the JSON list of what images are called, without ever having all of that text."""
    digest = hashlib.sha256(b"[")
    for number, one in enumerate(chosen):
        digest.update((", " * (number > 0) + json.dumps((one.path, one.label, one.stem))).encode())
    digest.update(b"]")
    return digest.hexdigest()


def _sha256_of(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


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
    whole = request.report is not None or request.boxes is not None
    return images.of_set(found, images.SPLIT_IMAGES if limit is None and not whole else limit)
