"""Do the maps depend on what the model learned? The sanity checks of each method of a run."""

import logging
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from evalcam_cli.explain.layers import find_layers
from evalcam_cli.explain.methods import METHODS
from evalcam_cli.explain.methods import explain as explain_by
from evalcam_cli.explain.randomising import find_stages
from evalcam_cli.explain.sanity import SEEDS, Verdict, check_sanity
from evalcam_cli.explain.targets import of_classes
from evalcam_cli.files import OutputFolder
from evalcam_cli.progress import Progress
from evalcam_cli.workflows.explained_images import Picture, Subject
from evalcam_cli.workflows.explaining import Explainer

log = logging.getLogger("evalcam")

SANITY_IMAGES = 8


def spread(chosen: Sequence[Subject], count: int = SANITY_IMAGES) -> list[Subject]:
    """So many images from all over the list, which is sorted by class where there are classes."""
    places = np.unique(np.linspace(0, len(chosen) - 1, min(count, len(chosen))).round().astype(int))
    return [chosen[place] for place in places]


def check_methods(
    explainer: Explainer, layer: str, pictures: Sequence[Picture], progress: Progress
) -> dict[str, Verdict]:
    """The verdict on each method, by the maps of the predicted classes of these pictures.

    Cheap methods are tried with all stages and three seeds; those that take many forward passes with the head and with
    all layers randomised, and one seed.
    """
    images = explainer.inputs(pictures)
    model = explainer.classifier.model
    with torch.inference_mode():
        predicted = explainer.ranked(model(images)).argmax(dim=1).cpu()
    try:
        stages = find_stages(model, images)
    except ValueError as error:
        log.warning("methods are not checked: %s", error)
        return {}
    verdicts = {}
    for done, method in enumerate(explainer.methods):
        dear = METHODS[method].dear
        few = (stages[0], stages[-1]) if dear else stages
        verdicts[method] = check_sanity(
            _by(explainer, method, layer), model, images, predicted, stages=few, seeds=SEEDS[:1] if dear else SEEDS
        )
        progress("checking methods", done + 1, len(explainer.methods))
    return verdicts


def _by(explainer: Explainer, method: str, layer: str) -> Callable[[nn.Module, Tensor, Tensor], Tensor]:
    """The method as a function of any copy of the model."""

    def maps(model: nn.Module, images: Tensor, class_indices: Tensor) -> Tensor:
        layers = find_layers(model, layer)[1] if METHODS[method].of_layer else ()
        found = explain_by(model, layers, images, of_classes(class_indices[:, None]), [method], explainer.settings)
        return _readable(method, found[method].maps[:, 0])

    return maps


def _readable(method: str, maps: Tensor) -> Tensor:
    """As drawn: magnitudes where the sign has no reading, else what speaks for the class."""
    return maps if METHODS[method].signed else maps.abs()


def write_verdicts(folder: OutputFolder, verdicts: dict[str, Verdict]) -> None:
    """Write `sanity.json`."""
    folder.write_json("sanity.json", {method: _document(verdict) for method, verdict in verdicts.items()})


def _document(verdict: Verdict) -> dict[str, object]:
    stages = [
        {
            "randomised": change.stage.name,
            "spearman": _mean(change.whole),
            "spearman_detail": _mean(change.detail),
        }
        for change in verdict.changes
    ]
    return {"outcome": verdict.outcome, "sentence": verdict.sentence, "stages": stages}


def _mean(values: "np.typing.NDArray[np.float64]") -> float | None:
    return None if np.isnan(values).all() else float(np.nanmean(values))
