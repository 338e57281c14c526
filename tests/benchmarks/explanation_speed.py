"""Process CPU time of explanations on one thread, by turns: a busy machine slows all alike."""

import importlib
import json
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from evalcam_cli.explain.ablation import ablation_cam
from evalcam_cli.explain.eigen import project
from evalcam_cli.explain.maps import layer_maps
from evalcam_cli.explain.occlusion import occlusion
from evalcam_cli.explain.targets import Combination, class_scores, of_classes
from evalcam_cli.models.folded import folded
from tests.benchmarks.explanation_peers import (
    CAPTUM,
    GRAD_CAM,
    NETWORKS,
    OURS,
    activations_and_gradients,
    build,
    noise,
    quiet,
)

CLASSES = 10
Action = Callable[[], object]


@dataclass(frozen=True)
class Limit:
    """What a ratio of two times must be."""

    fast: str
    slow: str
    ratio: float
    at_most: bool = False
    """Time of `fast` over that of `slow` at most this; else `slow` over `fast` at least this."""

    def line(self, seconds: Mapping[str, Sequence[float]]) -> str:
        """With the median of the ratios of each run, in which both were timed soon after each other."""
        pairs = zip(seconds[self.fast], seconds[self.slow], strict=True)
        found = statistics.median(fast / slow if self.at_most else slow / fast for fast, slow in pairs)
        held = found <= self.ratio if self.at_most else found >= self.ratio
        said = f"{self.fast} / {self.slow}" if self.at_most else f"{self.slow} / {self.fast}"
        sign = "≤" if self.at_most else "≥"
        return f"- {said}: {found:.2f} (target {sign} {self.ratio:g}) {'held' if held else '**missed**'}"


def by_turns(actions: Mapping[str, Action], runs: int) -> dict[str, list[float]]:
    """Seconds of process CPU time of each, in another order in every run; after one run to warm up."""
    names = list(actions)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    with quiet():
        for action in actions.values():
            action()
        for run in range(runs):
            for name in random.Random(run).sample(names, len(names)):
                began = time.process_time()
                actions[name]()
                seconds[name].append(time.process_time() - began)
    return seconds


def predicted(logits: Tensor) -> Combination:
    return class_scores(logits.argmax(dim=1, keepdim=True), logits)


def one_class(model: nn.Module, layer: nn.Module, images: Tensor, inference_form: nn.Module) -> dict[str, Action]:
    """Grad-CAM of the predicted class, by everybody."""
    layer_of = dict(inference_form.named_modules())["layer4"]
    with torch.inference_mode():
        known = [int(each) for each in model(images).argmax(dim=1)]

    def forward(which: nn.Module) -> Tensor:
        with torch.inference_mode():
            output: Tensor = which(images)
            return output

    return {
        "forward": lambda: forward(model),
        "evalcam": lambda: layer_maps(model, [layer], images, predicted),
        "evalcam, 10 classes": lambda: layer_maps(model, [layer], images, every_class(len(images))),
        "captum, class given": lambda: CAPTUM.maps["gradcam"](model, layer, images, known),
        "captum": lambda: CAPTUM.maps["gradcam"](model, layer, images, forward(model).argmax(dim=1).tolist()),
        "torchcam": lambda: _torchcam_predicted(model, layer, images),
        "grad-cam": lambda: _grad_cam_predicted(model, layer, images),
        "forward, inference form": lambda: forward(inference_form),
        "evalcam, inference form": lambda: layer_maps(inference_form, [layer_of], images, predicted),
    }


def every_class(images: int) -> Callable[[Tensor], Combination]:
    return of_classes([list(range(CLASSES))] * images)  # type: ignore[return-value]


def _torchcam_predicted(model: nn.Module, layer: nn.Module, images: Tensor) -> object:
    """As in its documentation: one forward pass, the class read off its logits."""
    with importlib.import_module("torchcam.methods").GradCAM(model, layer) as extractor:
        logits = model(images)
        return extractor(logits.argmax(dim=1).tolist(), logits, normalized=False)


def _grad_cam_predicted(model: nn.Module, layer: nn.Module, images: Tensor) -> object:
    with importlib.import_module("pytorch_grad_cam").GradCAM(model=model, target_layers=[layer]) as cam:
        return cam(input_tensor=images, targets=None)  # of the predicted class


def _grad_cam_loop(model: nn.Module, layer: nn.Module, images: Tensor) -> None:
    for index in range(CLASSES):
        GRAD_CAM.maps["gradcam"](model, layer, images, [index] * len(images))


def one_class_limits(network: str) -> list[Limit]:
    """Of the issue that asked for explanations."""
    factor, inference = (2.3, 3.5) if network == "ResNet-18" else (2.9, 3.2)
    return [
        Limit("evalcam", "forward", 1.05, at_most=True),
        Limit("evalcam", "grad-cam", factor),
        Limit("evalcam, inference form", "grad-cam", inference),
        Limit("evalcam", "captum, class given", 1.05, at_most=True),
        Limit("evalcam", "torchcam", 1.0, at_most=True),
    ]


@dataclass(frozen=True)
class Contest:
    """Things timed by turns."""

    title: str
    begin: Callable[[], dict[str, Action]]
    """Called when its turn has come: builds the network."""
    limits: Sequence[Limit]
    runs: int
    batch: int
    """How many images each action explains."""
    fewer: Mapping[str, int] = field(default_factory=dict)
    """The same, of actions that explain fewer."""


def contests(*, runs: int, batch: int, side: int) -> list[Contest]:
    found = []
    for network in ("ResNet-18", "ResNet-50"):
        found.append(_one_class_contest(network, runs=runs, batch=batch, side=side))
        found.append(_ten_class_contest(network, runs=max(1, runs // 3), batch=batch, side=side))
    others = [_eigen_contest(runs=runs, side=side), _occlusion_contest(side=side)]
    return [*found, *others, _ablation_contest(batch=batch, side=side)]


def _one_class_contest(network: str, *, runs: int, batch: int, side: int) -> Contest:
    def begin() -> dict[str, Action]:
        model, images = build(network, side=side, classes=CLASSES), noise(batch, side)
        inference_form = folded(model, images[:2]).model
        return one_class(model, model.get_submodule(NETWORKS[network].last), images, inference_form)

    title = f"{network}, Grad-CAM of the predicted class, batch of {batch}, {side} px"
    return Contest(title, begin, one_class_limits(network), runs, batch)


def _ten_class_contest(network: str, *, runs: int, batch: int, side: int) -> Contest:
    def begin() -> dict[str, Action]:
        model, images = build(network, side=side, classes=CLASSES), noise(batch, side)
        layer = model.get_submodule(NETWORKS[network].last)
        return {
            "evalcam": lambda: layer_maps(model, [layer], images, every_class(batch)),
            "grad-cam": lambda: _grad_cam_loop(model, layer, images),
        }

    title = f"{network}, Grad-CAM of all {CLASSES} classes, batch of {batch}, {side} px"
    return Contest(title, begin, [Limit("evalcam", "grad-cam", 20)], runs, batch)


def _ablation_contest(*, batch: int, side: int) -> Contest:
    """The peer runs the network once per channel; it is given one image, and ours the batch."""

    def begin() -> dict[str, Action]:
        model, images = build("ResNet-18", side=side, classes=CLASSES), noise(batch, side)
        layer, known = model.get_submodule("layer4"), [0] * batch
        return {
            "evalcam": lambda: OURS.maps["ablationcam"](model, layer, images, known),
            "evalcam, 10 classes": lambda: ablation_cam(model, layer, images, every_class(batch)),
            "grad-cam": lambda: GRAD_CAM.maps["ablationcam"](model, layer, images[:1], known[:1]),
        }

    title = f"ResNet-18, Ablation-CAM of one class, {side} px"
    return Contest(title, begin, [Limit("evalcam", "grad-cam", 300)], 1, batch, {"grad-cam": 1})


def _eigen_contest(*, runs: int, side: int) -> Contest:
    """What is added to the forward pass; then with it."""

    def begin() -> dict[str, Action]:
        model, images = build("ResNet-50", side=side, classes=CLASSES), noise(1, side)
        layer = model.get_submodule("layer4")
        activations, _ = activations_and_gradients(model, layer, images, [0])
        project_like = importlib.import_module("pytorch_grad_cam.utils.svd_on_activations").get_2d_projection
        return {
            "evalcam, projection": lambda: project(activations),
            "grad-cam, projection": lambda: project_like(activations.numpy()),
            "evalcam": lambda: OURS.maps["eigencam"](model, layer, images, [0]),
            "grad-cam": lambda: GRAD_CAM.maps["eigencam"](model, layer, images, [0]),
        }

    limits = [Limit("evalcam, projection", "grad-cam, projection", 50), Limit("evalcam", "grad-cam", 1)]
    return Contest(f"ResNet-50, Eigen-CAM of 2048 channels, {side} px", begin, limits, runs, 1)


def _occlusion_contest(*, side: int) -> Contest:
    """Windows of a quarter of the side, every eighth; the peer runs once per class, 16 windows at a time like ours."""

    def begin() -> dict[str, Action]:
        model, images = build("ResNet-18", side=side, classes=CLASSES), noise(1, side)
        window, stride = side // 4, side // 8
        sizes = {"sliding_window_shapes": (3, window, window), "strides": (3, stride, stride)}
        attribution = importlib.import_module("captum.attr").Occlusion(model)

        def captum(index: int) -> object:
            return attribution.attribute(images, target=index, perturbations_per_eval=16, **sizes)

        return {
            "evalcam, 10 classes": lambda: occlusion(model, images, every_class(1), window=window, stride=stride),
            "captum, 1 class": lambda: captum(0),
            "captum, 10 classes": lambda: [captum(index) for index in range(CLASSES)],
        }

    title = f"ResNet-18, occlusion of {CLASSES} classes, {side} px"
    return Contest(title, begin, [Limit("evalcam, 10 classes", "captum, 10 classes", 0.8 * CLASSES)], 1, 1)


def print_speed(every: Sequence[Contest], *, saved: Path | None) -> None:
    """A table for each contest; times that `saved` holds are printed and not measured again."""
    known: dict[str, dict[str, list[float]]] = {}
    if saved is not None and saved.exists():
        known = json.loads(saved.read_text(encoding="utf-8"))
    for contest in every:
        if contest.title not in known:
            known[contest.title] = by_turns(contest.begin(), contest.runs)
            if saved is not None:
                saved.write_text(json.dumps(known), encoding="utf-8")
        _print_contest(contest, known[contest.title])


def _print_contest(contest: Contest, times: Mapping[str, Sequence[float]]) -> None:
    per_image = {name: [run / contest.fewer.get(name, contest.batch) for run in each] for name, each in times.items()}
    seconds = {name: statistics.median(each) for name, each in per_image.items()}
    first = next(iter(seconds))
    print(f"\n{contest.title}\n\n| | runs | images | ms per image | × {first} | range |\n|---|--:|--:|--:|--:|---|")
    for name, each in per_image.items():
        count = contest.fewer.get(name, contest.batch)
        spread = f"{1000 * min(each):.1f}–{1000 * max(each):.1f}"
        ratio = seconds[name] / seconds[first]
        print(f"| {name} | {len(each)} | {count} | {1000 * seconds[name]:.1f} | {ratio:.2f} | {spread} |")
    print()
    for limit in contest.limits:
        print(limit.line(per_image), flush=True)
