"""How evalcam and the peers that the extra `bench` installs are asked for the same maps, and networks to ask about."""

import importlib
import importlib.metadata
import importlib.util
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torchvision import models

from evalcam_cli.data.preprocessing import Preprocessing
from evalcam_cli.explain.ablation import ablation_cam
from evalcam_cli.explain.eigen import eigen_cam
from evalcam_cli.explain.guided import guided_backprop_attributions
from evalcam_cli.explain.maps import Maps, layer_maps
from evalcam_cli.explain.occlusion import occlusion
from evalcam_cli.explain.score_cam import score_cam
from evalcam_cli.explain.targets import of_classes
from evalcam_cli.report.overlay import draw_overlay

Floats = NDArray[np.float32]
WINDOW, STRIDE = 24, 16
"""Of occlusion, in pixels; at 64 and 224 px the last window is cut at the border."""

MapFunction = Callable[[nn.Module, nn.Module, Tensor, Sequence[int]], Tensor]
"""From a model, a layer of it, (N, 3, H, W) images and a class for each to (N, h, w) maps, or (N, 3, H, W)."""
Score = Callable[[Tensor], Tensor]
"""From the output for one image, (K,), to a scalar."""
OverlayFunction = Callable[[Image.Image, Floats, Preprocessing], NDArray[np.uint8]]
"""From a photograph, the (h, w) map of what preprocessing made of it, and this, to (H, W, 3) or more rows below."""


@dataclass(frozen=True)
class Tool:
    """Something that explains, called as its own documentation says."""

    name: str
    package: str
    """To install it."""
    maps: Mapping[str, MapFunction]
    """By method, before any ReLU and normalisation."""
    pictures: MapFunction
    """(N, H, W): how hot each pixel of the picture of Grad-CAM is drawn, on any scale."""
    of_scores: Callable[[nn.Module, nn.Module, Tensor, Score], Tensor]
    """Grad-CAM of any scalar."""
    overlay: OverlayFunction | None = None
    """A map over a whole photograph, where that is offered."""

    @property
    def title(self) -> str:
        return f"{self.name} {importlib.metadata.version(self.package)}"

    @property
    def module(self) -> str:
        return {"grad-cam": "pytorch_grad_cam", "evalcam": "evalcam_cli"}.get(self.package, self.package)

    def installed(self) -> bool:
        return importlib.util.find_spec(self.module) is not None


def _evalcam(method: str) -> MapFunction:
    def maps(model: nn.Module, layer: nn.Module, images: Tensor, classes: Sequence[int]) -> Tensor:
        target = of_classes([[each] for each in classes])
        return layer_maps(model, [layer], images, target, [method])[method].maps[:, 0]

    return maps


def _evalcam_picture(model: nn.Module, layer: nn.Module, images: Tensor, classes: Sequence[int]) -> Tensor:
    """Brightness of the overlay of a grey image."""
    height, width = images.shape[2:]
    geometry = Preprocessing(width, "squash").geometry(width, height)
    plain = Image.new("RGB", (width, height), (90, 90, 90))
    drawn = [
        np.asarray(draw_overlay(plain, each.float().numpy(), geometry))[:height, :width].sum(axis=2, dtype=float)
        for each in _evalcam("gradcam")(model, layer, images, classes)
    ]
    return torch.from_numpy(np.stack(drawn))


def _evalcam_of_scores(model: nn.Module, layer: nn.Module, images: Tensor, score: Score) -> Tensor:
    def target(output: Tensor) -> Tensor:
        return torch.stack([score(row) for row in output])[:, None]

    return layer_maps(model, [layer], images, target)["gradcam"].maps[:, 0]


def _evalcam_overlay(photograph: Image.Image, class_map: Floats, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    return np.asarray(draw_overlay(photograph, class_map, preprocessing.geometry(*photograph.size)))


def _evalcam_layer(explain: Callable[..., Maps]) -> MapFunction:
    def maps(model: nn.Module, layer: nn.Module, images: Tensor, classes: Sequence[int]) -> Tensor:
        return explain(model, layer, images, of_classes([[each] for each in classes])).maps[:, 0]

    return maps


def _evalcam_occlusion(model: nn.Module, layer: nn.Module, images: Tensor, classes: Sequence[int]) -> Tensor:
    target = of_classes([[each] for each in classes])
    return occlusion(model, images, target, window=WINDOW, stride=STRIDE).maps[:, 0]


def _evalcam_guided(model: nn.Module, layer: nn.Module, images: Tensor, classes: Sequence[int]) -> Tensor:
    return guided_backprop_attributions(model, images, of_classes([[each] for each in classes])).values[:, 0]


def _grad_cam(method: str) -> MapFunction:
    """Its map before it is normalised twice: what `get_cam_image` returns."""

    def maps(model: nn.Module, layer: nn.Module, images: Tensor, classes: Sequence[int]) -> Tensor:
        base: Any = getattr(importlib.import_module("pytorch_grad_cam"), method)
        targets = importlib.import_module("pytorch_grad_cam.utils.model_targets")

        class Kept(base):  # type: ignore[misc]  # of a class only known when installed
            def get_cam_image(self, *arguments: Any, **options: Any) -> Any:
                self.kept = super().get_cam_image(*arguments, **options)
                return self.kept

        with Kept(model=model, target_layers=[layer]) as cam:
            cam(input_tensor=images, targets=[targets.ClassifierOutputTarget(each) for each in classes])
            return torch.as_tensor(cam.kept)

    return maps


def _grad_cam_picture(model: nn.Module, layer: nn.Module, images: Tensor, classes: Sequence[int]) -> Tensor:
    package = importlib.import_module("pytorch_grad_cam")
    targets = importlib.import_module("pytorch_grad_cam.utils.model_targets")
    with package.GradCAM(model=model, target_layers=[layer]) as cam:
        return torch.as_tensor(
            cam(input_tensor=images, targets=[targets.ClassifierOutputTarget(each) for each in classes])
        )


def _grad_cam_of_scores(model: nn.Module, layer: nn.Module, images: Tensor, score: Score) -> Tensor:
    with importlib.import_module("pytorch_grad_cam").GradCAM(model=model, target_layers=[layer]) as cam:
        return torch.as_tensor(cam(input_tensor=images, targets=[score] * len(images)))


def _grad_cam_guided(model: nn.Module, layer: nn.Module, images: Tensor, classes: Sequence[int]) -> Tensor:
    """It returns (H, W, 3) of one image, and takes one class."""
    guided = importlib.import_module("pytorch_grad_cam.guided_backprop").GuidedBackpropReLUModel(model, device="cpu")
    return torch.as_tensor(guided(images, target_category=classes[0])).permute(2, 0, 1)[None]


def _torchcam(method: str, *, normalized: bool = False) -> MapFunction:
    def maps(model: nn.Module, layer: nn.Module, images: Tensor, classes: Sequence[int]) -> Tensor:
        extractor_class = getattr(importlib.import_module("torchcam.methods"), method)
        with extractor_class(model, layer) as extractor:
            if not normalized:
                extractor._relu = False  # so that negative values are compared, too
            logits = model(images)
            (found,) = extractor(list(classes), logits, normalized=normalized)
        return torch.as_tensor(found).detach()

    return maps


def _torchcam_of_scores(model: nn.Module, layer: nn.Module, images: Tensor, score: Score) -> Tensor:
    with importlib.import_module("torchcam.methods").GradCAM(model, layer) as extractor:
        (found,) = extractor(scores=model(images), targets=score, normalized=False)
    return torch.as_tensor(found)


def _torchcam_overlay(photograph: Image.Image, class_map: Floats, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """The map of the resized and cropped photograph, over all of the photograph."""
    return np.asarray(importlib.import_module("torchcam.utils").overlay_mask(photograph, Image.fromarray(class_map)))


def _captum(method: str) -> MapFunction:
    def maps(model: nn.Module, layer: nn.Module, images: Tensor, classes: Sequence[int]) -> Tensor:
        attribution = getattr(importlib.import_module("captum.attr"), method)(model, layer)
        found: Tensor = attribution.attribute(images, target=torch.tensor(list(classes)))
        return found.detach().sum(dim=1)  # LayerGradCam has one channel

    return maps


def _captum_occlusion(model: nn.Module, layer: nn.Module, images: Tensor, classes: Sequence[int]) -> Tensor:
    """It gives each channel of a pixel the same value."""
    attribution = importlib.import_module("captum.attr").Occlusion(model)
    window, stride = (3, WINDOW, WINDOW), (3, STRIDE, STRIDE)
    found: Tensor = attribution.attribute(
        images, window, strides=stride, target=torch.tensor(list(classes)), perturbations_per_eval=16
    )
    return found[:, 0]


def _captum_guided(model: nn.Module, layer: nn.Module, images: Tensor, classes: Sequence[int]) -> Tensor:
    attribution = importlib.import_module("captum.attr").GuidedBackprop(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found: Tensor = attribution.attribute(images, target=torch.tensor(list(classes)))
    return found.detach()


def _captum_of_scores(model: nn.Module, layer: nn.Module, images: Tensor, score: Score) -> Tensor:
    def forward(batch: Tensor) -> Tensor:
        return torch.stack([score(row) for row in model(batch)])

    found: Tensor = importlib.import_module("captum.attr").LayerGradCam(forward, layer).attribute(images)
    return found.detach()[:, 0]


def _captum_picture(model: nn.Module, layer: nn.Module, images: Tensor, classes: Sequence[int]) -> Tensor:
    draw = importlib.import_module("captum.attr").visualization.visualize_image_attr
    found = []
    for each in _captum("LayerGradCam")(model, layer, images, classes):
        _, axes = draw(each[..., None].numpy(), None, method="heat_map", sign="positive", use_pyplot=False)
        found.append(torch.from_numpy(np.asarray(axes.images[0].get_array(), dtype=float)))
    return torch.stack(found)


OURS = Tool(
    "evalcam", "evalcam",
    {
        **{name: _evalcam(name) for name in ("cam", "gradcam", "gradcam++", "hirescam", "xgradcam", "layercam")},
        "all classes": _evalcam("gradcam"), "guided-backprop": _evalcam_guided, "occlusion": _evalcam_occlusion,
        "ablationcam": _evalcam_layer(ablation_cam), "eigencam": _evalcam_layer(eigen_cam),
        "scorecam": _evalcam_layer(score_cam),
    },
    _evalcam_picture, _evalcam_of_scores, _evalcam_overlay,
)  # fmt: skip
GRAD_CAM = Tool(
    "pytorch-grad-cam", "grad-cam",
    {
        "gradcam": _grad_cam("GradCAM"), "gradcam++": _grad_cam("GradCAMPlusPlus"), "hirescam": _grad_cam("HiResCAM"),
        "xgradcam": _grad_cam("XGradCAM"), "layercam": _grad_cam("LayerCAM"), "guided-backprop": _grad_cam_guided,
        "ablationcam": _grad_cam("AblationCAM"), "eigencam": _grad_cam("EigenCAM"), "scorecam": _grad_cam("ScoreCAM"),
    },
    _grad_cam_picture, _grad_cam_of_scores,
)  # fmt: skip
TORCHCAM = Tool(
    "torchcam", "torchcam",
    {
        "cam": _torchcam("CAM"), "gradcam": _torchcam("GradCAM"), "gradcam++": _torchcam("GradCAMpp"),
        "xgradcam": _torchcam("XGradCAM"), "layercam": _torchcam("LayerCAM"),
        "scorecam": _torchcam("ScoreCAM"),
    },
    _torchcam("GradCAM", normalized=True), _torchcam_of_scores, _torchcam_overlay,
)  # fmt: skip
CAPTUM = Tool(
    "captum", "captum",
    {
        "gradcam": _captum("LayerGradCam"), "hirescam": _captum("LayerGradientXActivation"),
        "guided-backprop": _captum_guided, "occlusion": _captum_occlusion,
    },
    _captum_picture, _captum_of_scores,
)  # fmt: skip
PEERS = (CAPTUM, TORCHCAM, GRAD_CAM)


@dataclass(frozen=True)
class Network:
    """One of torchvision's, with the layers that are compared."""

    build: Callable[..., nn.Module]
    head: str
    """The last linear layer."""
    last: str
    inner: tuple[str, ...]
    pooled: bool = True
    """Whether global average pooling and that linear layer are all that follows the last layer."""


NETWORKS = {
    "ResNet-18": Network(models.resnet18, "fc", "layer4", ("layer3", "layer2.1.conv1")),
    "ResNet-50": Network(models.resnet50, "fc", "layer4", ("layer3", "layer2.1.conv1")),
    "VGG-16": Network(models.vgg16, "classifier.6", "features.30", ("features.23",), pooled=False),
    "MobileNet-V2": Network(models.mobilenet_v2, "classifier.1", "features.18", ("features.6", "features.13")),
}


def build(name: str, *, side: int, classes: int = 10) -> nn.Module:
    """A network with random weights that behaves like a trained one: statistics of noise, logits that differ."""
    torch.manual_seed(0)
    network = NETWORKS[name]
    model = network.build(weights=None, num_classes=classes)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # statistics are the mean over the forward passes; else deep networks see nothing
    with torch.no_grad():
        for _ in range(5 if norms else 0):
            model(torch.randn(8, 3, side, side))
        nn.init.normal_(model.get_submodule(network.head).get_parameter("weight"), std=0.05)
    return model.eval()


def noise(count: int, side: int, *, seed: int = 1) -> Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


def activations_and_gradients(
    model: nn.Module, layer: nn.Module, images: Tensor, classes: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """(N, C, h, w) both, by the graph of the whole network and nothing else."""
    kept: list[Tensor] = []

    def keep(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
        kept.append(output)
        return output.clone()

    handle = layer.register_forward_hook(keep)
    try:
        logits = model(images.detach().clone().requires_grad_())
    finally:
        handle.remove()
    score = logits.gather(1, torch.tensor(list(classes))[:, None]).sum()
    (gradients,) = torch.autograd.grad(score, kept[-1])
    return kept[-1].detach(), gradients


def largest_difference(found: Tensor, wanted: Tensor) -> float:
    """Over the maps of a batch, relative to the largest magnitude of each wanted one; infinite where that is 0."""
    dims = tuple(range(1, wanted.ndim))
    differences = (found.double() - wanted.double()).abs().amax(dim=dims)
    sizes = wanted.double().abs().amax(dim=dims)
    relative = torch.where(differences == 0, 0, differences / sizes)
    return float(relative.max()) if bool(relative.isfinite().all()) else float("inf")


@contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings, logs and progress bars of other packages."""
    logger = logging.getLogger("torchcam")
    level = logger.level
    with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(level)
