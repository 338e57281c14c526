"""From a batch of pictures to the maps of the classes that were asked for."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from evalcam_cli.data.dataset import normalise
from evalcam_cli.errors import DataError
from evalcam_cli.evaluation.predictions import Predictions
from evalcam_cli.explain.formulas import FORMULAS
from evalcam_cli.explain.maps import Maps
from evalcam_cli.explain.methods import METHODS, Settings
from evalcam_cli.explain.methods import explain as explain_by
from evalcam_cli.explain.requests import ClassRequest, choose_classes, rectangular
from evalcam_cli.explain.targets import Combination, Target, class_scores, require_logits
from evalcam_cli.models.inference import Classifier
from evalcam_cli.text import shown
from evalcam_cli.workflows.explained_images import Picture
from evalcam_cli.workflows.scoring import SCORES, score_batch

_MAP_BYTES = 2**28
"""Most memory that the maps of a batch may take while they are computed, by channel and in double precision."""
Flip = tuple[int, ...]
"""Dimensions of (N, 3, H, W) that a reflection turns round."""
_LEFT_RIGHT, _TOP_BOTTOM = 3, 2


Guard = Callable[[], AbstractContextManager[None]]


@dataclass(frozen=True)
class Explained:
    """Maps of one image."""

    predicted: int | None
    """Index of the predicted class; None when the output is not a classifier's."""
    probabilities: NDArray[np.float64]
    """(K,); empty when the output is not a classifier's."""
    classes: tuple[int, ...]
    """The T classes (or scores of an own target) that are explained."""
    scores: NDArray[np.float32]
    """(T,) logits of these classes (or scores)."""
    maps: dict[str, NDArray[np.float32]]
    """(T, h, w) by method: signed."""
    notes: dict[str, str]
    """By method, what a reader should know."""
    extra: dict[str, Any] = field(default_factory=dict)
    """What is to be kept besides, as plain data."""

    def order(self) -> list[tuple[str, int]]:
        """Method and place of each map, in the order in which they are reported."""
        return [(method, place) for method in self.maps for place in range(len(self.classes))]


@dataclass(frozen=True)
class Explainer:
    """What all images of a run share."""

    classifier: Classifier
    layers: tuple[nn.Module, ...]
    methods: tuple[str, ...]
    requests: tuple[ClassRequest, ...] = ()
    against: int | None = None
    """Index of the class that the others are compared with."""
    target: Target | None = None
    """Own scores of the output, in place of classes."""
    flips: tuple[Flip, ...] = ()
    """Reflections whose maps are averaged with that of the image."""
    scores: bool = False
    """Whether each map of the first class is held against a random one."""
    settings: Settings = field(default_factory=Settings)
    guard: Guard = nullcontext
    """Entered while the model runs."""

    def explain(self, batch: Sequence[Picture]) -> tuple[list[Explained], float | None]:
        """Maps of each picture, computed together; and the self-check, by how much a sum of a map is off at most.

        Raises:
            DataError: The model answers NaN or infinity, or the output is not what was expected.
        """
        images = self.inputs(batch)
        choice = _Choice(self, [self._target_of(picture) for picture in batch])
        with self.guard():
            maps = explain_by(self.classifier.model, self.layers, images, choice, self.methods, self.settings)
            if self.flips:
                maps = self._with_flips(images, choice, maps)
        any_maps = next(iter(maps.values()))
        self._require_finite(any_maps, batch)
        said = None if choice.wanted is None else self.predictions(any_maps.output)
        found = [self._of_image(place, choice, maps, said) for place in range(len(batch))]
        if self.scores and choice.wanted is not None:
            first = [classes[0] for classes in choice.wanted]
            keys = [picture.sha256 for picture in batch]
            scored = score_batch(self.classifier.model, images, first, maps, keys, seed=self.settings.seed)
            found = [replace(each, extra={SCORES: one}) for each, one in zip(found, scored, strict=True)]
        return found, _largest_gap(maps)

    def batch_size(self, most: int) -> int:
        """Images per batch, fewer where the maps of many classes have the input's resolution and are held at a time."""
        if not any(METHODS[method].fine for method in self.methods):
            return most
        every = any(request.rule == "all" for request in self.requests)
        scores = len(self.classifier.classes) if every else sum(request.count for request in self.requests) or 1
        side = self.classifier.preprocessing.image_size
        return max(1, min(most, _MAP_BYTES // (scores * 3 * side * side * 8)))

    def inputs(self, batch: Sequence[Picture]) -> Tensor:
        """(N, 3, S, S) as the model takes them."""
        pixels = torch.from_numpy(np.stack([picture.pixels for picture in batch])).permute(0, 3, 1, 2)
        return normalise(pixels, self.classifier.preprocessing, self.classifier.device)

    def _target_of(self, picture: Picture) -> int | None:
        label, classes = picture.subject.label, self.classifier.classes
        return classes.index(label) if label in classes else None

    def predictions(self, logits: Tensor) -> Predictions:
        """What the classifier says of (N, K) logits, by its temperature and its operating point."""
        checkpoint, n = self.classifier.checkpoint, len(logits)
        return Predictions(
            checkpoint.classes, logits.detach().float().cpu().numpy(), np.zeros(n, dtype=np.int64), ("",) * n,
            temperature=checkpoint.temperature or 1.0, operating_point=checkpoint.operating_point,
        )  # fmt: skip

    def ranked(self, logits: Tensor) -> Tensor:
        """(N, K) scores that rank the classes: the logits, of two classes the predicted one first."""
        said = self.predictions(logits)
        turned = torch.from_numpy(said.predicted != said.argmax).to(logits.device)
        return torch.where(turned[:, None], logits.flip(1), logits)  # only an operating point of two classes turns one

    def _with_flips(self, images: Tensor, choice: "_Choice", upright: dict[str, Maps]) -> dict[str, Maps]:
        """The mean of the maps of the image and of its reflections, each turned back.

        A network whose strides begin at the first pixel looks further up and left than the place of a cell; in a
        reflection it looks as far down and right, so the mean stands where it belongs.
        """
        turned = [
            explain_by(self.classifier.model, self.layers, images.flip(flip), choice, self.methods, self.settings)
            for flip in self.flips
        ]
        return {
            name: replace(
                each,
                gap=_worst([each, *(maps[name] for maps in turned)]),
                maps=torch.stack([each.maps, *_turned_back(turned, name, self.flips)]).mean(dim=0),
            )
            for name, each in upright.items()
        }

    def _require_finite(self, maps: Maps, batch: Sequence[Picture]) -> None:
        finite = torch.isfinite(maps.scores).all(dim=1)
        if isinstance(maps.output, Tensor) and maps.output.ndim == 2:
            finite &= torch.isfinite(maps.output).all(dim=1)
        strange = [picture.subject.path for picture, fine in zip(batch, finite.tolist(), strict=True) if not fine]
        if strange:
            raise DataError(f"the model answers NaN or infinity for {shown(strange[0])}; its weights are not usable")

    def _of_image(self, place: int, choice: "_Choice", maps: dict[str, Maps], said: Predictions | None) -> Explained:
        any_maps = next(iter(maps.values()))
        count = any_maps.scores.shape[1] if choice.wanted is None else len(choice.wanted[place])
        classes = tuple(range(count)) if choice.wanted is None else tuple(choice.wanted[place])
        return Explained(
            None if said is None else int(said.predicted[place]),
            np.zeros(0) if said is None else said.rows(place, place + 1)[0],
            classes,
            any_maps.scores[place, :count].float().numpy(),
            {name: each.maps[place, :count].float().numpy() for name, each in maps.items()},
            {name: each.note for name, each in maps.items() if each.note},
        )


@dataclass
class _Choice:
    """The target: the classes asked for, chosen once the first output of the batch is known."""

    explainer: Explainer
    targets: Sequence[int | None]
    """(N,) of the true classes."""
    wanted: list[list[int]] | None = field(default=None)
    """The classes of each image."""

    def __call__(self, output: Any) -> Combination | Tensor:
        if self.explainer.target is not None:
            return self.explainer.target(output)
        require_logits(output)
        if self.wanted is None:
            scores = self.explainer.ranked(output)
            self.wanted = choose_classes(self.explainer.requests, scores, self.targets)
        found = class_scores(rectangular(self.wanted), output)
        against = self.explainer.against
        return found if against is None else found.against(_everywhere(against, found))


def _everywhere(index: int, scores: Combination) -> Combination:
    return Combination(((1.0, torch.full_like(scores.terms[0][1], index)),))


def _worst(passes: Sequence[Maps]) -> Tensor | None:
    """Of each score, the largest gap of several passes."""
    gaps = [each.gap.abs() for each in passes if each.gap is not None]
    return torch.stack(gaps).amax(dim=0) if gaps else None


def _turned_back(turned: Sequence[dict[str, Maps]], name: str, flips: Sequence[Flip]) -> list[Tensor]:
    return [maps[name].maps.flip(flip) for maps, flip in zip(turned, flips, strict=True)]


def reflections(classifier: Classifier) -> tuple[Flip, ...]:
    """Those that the network was trained with; all three where that is not known."""
    train = classifier.checkpoint.config.get("train")
    augment = train.get("augment") if isinstance(train, dict) else None
    chances = [augment.get(key, 0) if isinstance(augment, dict) else None for key in ("hflip", "vflip")]
    sideways, upside_down = (not isinstance(chance, int | float) or chance > 0 for chance in chances)
    if sideways and upside_down:
        return (_LEFT_RIGHT,), (_TOP_BOTTOM,), (_TOP_BOTTOM, _LEFT_RIGHT)
    return ((_LEFT_RIGHT,),) if sideways else ((_TOP_BOTTOM,),) if upside_down else ()


def _largest_gap(maps: dict[str, Maps]) -> float | None:
    """Relative to the largest score of the batch; None where no method of `FORMULAS` promises a sum."""
    checked = [each for name, each in maps.items() if name in FORMULAS and each.gap is not None]
    gaps = [(float(each.gap.abs().max()), float(each.scores.abs().max())) for each in checked if each.gap is not None]
    return max((gap / largest if largest > 0 else gap for gap, largest in gaps), default=None)
