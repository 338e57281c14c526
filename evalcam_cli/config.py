"""RunConfig: one frozen, fully checked value that says what a run does. It touches no disk.

Each field's documentation is the string below it; the README's table of keys is made from those strings.
"""

import json
from collections.abc import Iterable
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

Arch = Literal[
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "resnext50_32x4d",
    "resnext101_32x8d",
    "resnext101_64x4d",
    "wide_resnet50_2",
    "wide_resnet101_2",
]
Stage = Literal["stem", "layer1", "layer2", "layer3", "layer4"]
Resize = Literal["pad", "crop", "squash"]
Monitor = Literal["loss", "accuracy", "balanced_accuracy", "f1_macro", "mcc", "cohen_kappa"]

Rate = Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]
Text = Annotated[str, Field(min_length=1, max_length=4096)]


def _as_texts(value: object) -> object:
    """`class: 3` and `class: [true, 3]` mean the texts `3` and `true`."""
    values = value if isinstance(value, list) else [value]
    return tuple(_as_text(one) for one in values)


def _as_text(value: object) -> object:
    return json.dumps(value) if isinstance(value, bool | int) else value


Texts = Annotated[tuple[str, ...], BeforeValidator(_as_texts)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


Method = Literal[
    "cam", "gradcam", "gradcam++", "hirescam", "xgradcam", "layercam", "eigencam", "scorecam", "ablationcam",
    "counterfactual", "guided-backprop", "guided-gradcam", "occlusion",
    "gradient", "integrated-gradients", "smoothgrad",
]  # fmt: skip


def _as_methods(value: object) -> object:
    """`gradcam,occlusion` means both; each once."""
    values = value if isinstance(value, list | tuple) else [value]
    parts = [part.strip() if isinstance(part, str) else part for one in values for part in _split(one)]
    return tuple(dict.fromkeys(parts) if all(isinstance(part, str) for part in parts) else parts)


def _split(value: object) -> list[Any]:
    return list(value.split(",")) if isinstance(value, str) else [value]


class DataConfig(_Section):
    path: Text | None = None
    """Folder or CSV manifest with the images; the DATA argument replaces it."""
    image_size: int = Field(default=224, ge=16, le=2048)
    """Side of the square that the model sees, in pixels."""
    resize: Resize = "pad"
    """How an image becomes that square: `pad` keeps all of it, `crop` cuts the centre square, `squash` distorts."""
    workers: Literal["auto"] | Annotated[int, Field(ge=0, le=64)] = "auto"
    """Processes that read images; results do not depend on it. `auto`: one per spare CPU core, at most 4, beside a
    GPU at most 16."""
    cache: Literal["auto", "none", "ram", "file"] = "auto"
    """Keep images, once decoded and brought to `image_size`, for the next epochs: in memory, or in a file in the output
    folder that goes when the run ends; `auto`: in memory if a quarter of what is free is enough."""
    max_pixels: int = Field(default=100_000_000, ge=1, le=2_000_000_000)
    """Images with more pixels are refused before they are decoded."""
    allow_unreadable: int = Field(default=0, ge=0, le=1_000_000_000)
    """Go on without unreadable images as long as there are at most this many; all are listed in unreadable.csv."""


def _sum_to_one(ratios: tuple[float, float, float]) -> tuple[float, float, float]:
    if abs(sum(ratios) - 1) > 1e-6:
        raise ValueError(f"must sum to 1; {ratios[0]:g} + {ratios[1]:g} + {ratios[2]:g} = {sum(ratios):g}")
    if ratios[0] == 0:
        raise ValueError("the training set needs a share above 0")
    return ratios


class SplitConfig(_Section):
    ratios: Annotated[tuple[Fraction, Fraction, Fraction], AfterValidator(_sum_to_one)] = (0.7, 0.15, 0.15)
    """Shares of train, val and test."""
    folds: int | None = Field(default=None, ge=2, le=100)
    """Make this many cross-validation folds instead of a hold-out split."""
    repeats: int = Field(default=1, ge=1, le=100)
    """Divide into folds this many times, each time anew."""
    group_by: Text | None = None
    """Manifest column, or regular expression with one pair of parentheses on the path; a group never crosses sets."""
    ungrouped: Literal["refuse", "single"] = "refuse"
    """Images without a group: refuse, or make each its own group."""
    leaks: Literal["refuse", "drop", "resplit", "allow"] = "refuse"
    """What to do when a given division has training images in val or test."""


class ModelConfig(_Section):
    arch: Arch = "resnet18"
    """Architecture, by torchvision's name."""
    weights: Text = "default"
    """Start from `default` (torchvision's ImageNet weights), `none` (random), or a file of weights."""
    freeze: Stage | None = None
    """Keep everything up to and including this stage as it is (`stem`, `layer1` … `layer4`)."""
    thaw_every: int = Field(default=0, ge=0, le=100_000)
    """Free the last stage that is still frozen after every so many epochs, from the head down; 0 never does."""
    freeze_batch_norm: bool = False
    """Keep the statistics of batch norm as they are; its weights are trained. For small batches and given weights."""
    last_stride: int = Field(default=2, ge=1, le=2)
    """Stride of the last stage; 1 doubles the side of the maps that Grad-CAM sees, at more computation."""


class AugmentConfig(_Section):
    hflip: Fraction = 0.5
    """Probability of a mirror image."""
    vflip: Fraction = 0.0
    """Probability of an upside-down image."""
    rotate: Annotated[float, Field(ge=0, le=180, allow_inf_nan=False)] = 10.0
    """Largest rotation, in degrees to either side."""
    translate: Fraction = 0.05
    """Largest shift, as a fraction of the side."""
    scale: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)] = 0.1
    """Largest change of size: 0.1 draws factors from 0.9 to 1.1."""
    brightness: Fraction = 0.1
    """Largest relative change of brightness."""
    contrast: Fraction = 0.1
    """Largest relative change of contrast."""
    saturation: Fraction = 0.0
    """Largest relative change of colour saturation."""
    hue: Annotated[float, Field(ge=0, le=0.5, allow_inf_nan=False)] = 0.0
    """Largest turn of the colour circle, as a fraction of a full turn."""
    erase: Fraction = 0.0
    """Probability that a random square is erased."""
    randaugment: int = Field(default=0, ge=0, le=8)
    """RandAugment: this many operations, drawn for each image, after the changes above; 0 switches it off."""
    randaugment_magnitude: Annotated[float, Field(ge=0, le=10, allow_inf_nan=False)] = 5.0
    """Strength of these operations, from 0 to 10."""


class TrainConfig(_Section):
    epochs: int = Field(default=20, ge=1, le=100_000)
    """Passes over the training images."""
    batch_size: int = Field(default=32, ge=1, le=65_536)
    """Images per forward pass; times `accumulate`, images per optimiser step."""
    accumulate: int = Field(default=1, ge=1, le=65_536)
    """Batches whose gradients are added up before each optimiser step."""
    lr: Rate = 3e-4
    """Highest learning rate, reached after the warm-up."""
    stage_lr: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 1.0
    """Rate of each stage relative to the next towards the head: 0.5 trains layer4 at half the head's rate, layer3 at a
    quarter, and so on."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """`adamw`, or `sgd` with Nesterov momentum."""
    momentum: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)] = 0.9
    """Of SGD."""
    weight_decay: NotNegative = 0.01
    """Decay of weights; biases and batch-norm parameters are spared."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """Learning rate after the warm-up: down to 0 along a cosine, or constant."""
    warmup_epochs: NotNegative = 1.0
    """Epochs (fractions allowed) over which the learning rate rises linearly."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)] = 0.0
    """Share of the target spread over all classes."""
    loss: Literal["cross_entropy", "focal"] = "cross_entropy"
    """`focal` weighs down what is already classified well (Lin et al. 2017)."""
    focal_gamma: NotNegative = 2.0
    """Of the focal loss; 0 makes it cross entropy."""
    mixup: NotNegative = 0.0
    """Alpha of mixup: every batch is blended with itself in another order; 0 switches it off."""
    cutmix: NotNegative = 0.0
    """Alpha of CutMix: a rectangle of every image comes from another; with mixup, each batch draws one of both."""
    class_weights: Literal["none", "balanced"] = "none"
    """`balanced` weighs each image's loss by the inverse frequency of its class."""
    sampling: Literal["uniform", "balanced"] = "uniform"
    """`balanced` draws every class equally often, with replacement."""
    clip_grad_norm: NotNegative = 0.0
    """Largest norm of the gradient; 0 switches clipping off."""
    ema: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)] = 0.0
    """Decay of an exponential moving average of the weights, which is what is validated and kept; 0 switches it off."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Arithmetic in training: `auto` is fp16 autocast on CUDA and fp32 on the CPU."""
    channels_last: bool = True
    """Memory layout with the channels innermost, which convolutions are fastest with."""
    compile: bool = False
    """Compile the model with `torch.compile`: minutes to begin with, faster steps, weights that differ by rounding."""
    deterministic: bool = True
    """Use deterministic algorithms, so that the same seed gives the same weights; on CUDA this costs some speed."""
    monitor: Monitor = "balanced_accuracy"
    """Validation metric that chooses the best epoch; equal values are decided by the lower loss."""
    patience: int = Field(default=0, ge=0, le=100_000)
    """Stop after this many epochs without improvement; 0 never stops early."""
    temperature: bool = True
    """Fit a temperature to the best weights on the validation images, if there are at least 50."""
    logger: Literal["none", "tensorboard"] = "none"
    """`tensorboard` also writes the history as event files into the run folder (extra `tensorboard`)."""
    augment: AugmentConfig = AugmentConfig()
    """Random changes of the training images."""


class EvaluateConfig(_Section):
    subset: Literal["train", "val", "test"] = "test"
    """Which set of the split to evaluate."""
    fail_under: Texts = ()
    """Gates such as `accuracy=0.9` or `recall[NAME].ci_low>=0.8`: exit 4 when the value is lower."""
    fail_over: Texts = ()
    """Gates such as `ece=0.05`: exit 4 when the value is higher."""
    no_regression: Texts = ()
    """Earlier results such as `base/metrics.json:accuracy:0.01`: exit 4 when the metric is worse by more."""
    positive: Text | None = None
    """The positive class of two; by default that of the stored operating point, else the last in output order."""
    by: Texts = ()
    """Columns of the manifest (scanner, sex, site) whose values are evaluated one by one as well."""
    prevalence: Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)] | None = None
    """Share of the positive class where the model will be used: adds predictive values and net benefit for it."""
    conformal: Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)] | None = None
    """Error rate of prediction sets made from the validation images; by default none are made."""
    proportion_interval: Literal["wilson", "clopper_pearson"] = "wilson"
    """Interval of proportions when images are independent."""
    auc_interval: Literal["score", "delong"] = "score"
    """Interval of AUC: one that holds in small sets, or `delong` for what pROC prints."""
    bootstrap: int = Field(default=1000, ge=100, le=100_000)
    """Resamples (of images, or of groups) behind the intervals that have no formula."""
    batch_size: int = Field(default=64, ge=1, le=65_536)
    """Images per forward pass."""


class GradCamConfig(_Section):
    classes: Texts = Field(default=("predicted",), alias="class", min_length=1)
    """Classes to explain: names, indices, `predicted`, `true`, `top:K` or `all`."""
    method: Annotated[tuple[Method, ...], BeforeValidator(_as_methods)] = Field(default=("gradcam",), min_length=1)
    """How maps are computed: one or more of the methods in docs/explanations.md."""
    layer: Text | None = None
    """Module whose activations are weighed, as named by `model.named_modules()`, by default the last stage; `a+b` fuses
    the maps of two."""
    against: Annotated[str | None, BeforeValidator(_as_text)] = None
    """Class that the others are compared with: what speaks for them and not for it."""
    norm: Literal["image", "shared", "raw"] = "image"
    """What full colour means: a map's own maximum, the largest of the run, or `gradcam.full_colour` in every run."""
    full_colour: Annotated[float, Field(gt=0, le=1e30, allow_inf_nan=False)] = 1.0
    """Value at full colour with `norm: raw`, in the unit of the map."""
    window: int | None = Field(default=None, ge=1, le=2048)
    """Side of occlusion's square, in pixels of the input; by default a fifth of the input."""
    stride: int | None = Field(default=None, ge=1, le=2048)
    """Step of occlusion's square, in pixels of the input; by default half its side."""
    steps: int = Field(default=32, ge=2, le=1000)
    """Of integrated gradients."""
    copies: int = Field(default=25, ge=1, le=1000)
    """Noisy copies of each image for SmoothGrad."""
    flips: bool | None = None
    """Average the maps of the image and of the reflections that the network was trained with (`train.augment.hflip`,
    `vflip`): centred exactly along these, at two or four times the cost; by default in failure reports only, whose
    averages would show the network's own slant."""
    folded: bool = False
    """Fold batch norm into the convolutions: faster, and equal but for rounding, which is checked."""
    maps: Literal["npy", "npz"] = "npy"
    """One .npy per map, or one .npz per image with all of them."""
    box_threshold: Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)] = 0.15
    """Share of a map's maximum above which a place belongs to the object, for boxes and masks."""
    max_images: int | None = Field(default=None, ge=1, le=1_000_000_000)
    """Stop after this many images; by default all IMAGEs named, or 16 of a split, taken from each class in turn."""


Bound = Annotated[float, Field(ge=-1e15, le=1e15, allow_inf_nan=False)] | Annotated[int, Field(ge=-(10**15), le=10**15)]
_MAX_STEPS = 1_000_000_000


class Range(_Section):
    """Where a search looks for the value of one key: between two numbers, or among choices."""

    low: Bound | None = None
    high: Bound | None = None
    """Included."""
    log: bool = False
    """Draw on a logarithmic scale."""
    step: Bound | None = None
    """Distance of the values from `low` on."""
    choices: Annotated[tuple[Any, ...], Field(max_length=100)] | None = None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.choices is not None:
            if self.low is not None or self.high is not None or self.log or self.step is not None:
                raise ValueError("give choices, or low and high, not both")
            if len({json.dumps(choice) for choice in self.choices}) < max(2, len(self.choices)):
                raise ValueError("choices must be at least two, and all different")
            return self
        if self.low is None or self.high is None:
            raise ValueError("give low and high, or choices")
        if not self.low < self.high:
            raise ValueError(f"low ({self.low:g}) must be below high ({self.high:g})")
        if self.log and self.low <= 0:
            raise ValueError("a logarithmic scale needs low above 0")
        if self.log and self.step is not None:
            raise ValueError("a logarithmic scale takes no step")
        if self.step is not None and not 0 < self.step <= self.high - self.low:
            raise ValueError(f"step ({self.step:g}) must be above 0 and at most high - low")
        if self.step is not None and (self.high - self.low) / self.step > _MAX_STEPS:
            raise ValueError(f"step ({self.step:g}) makes more than {_MAX_STEPS:,} values; leave it away")
        return self


def _as_range(value: object) -> object:
    """A list means choices."""
    if isinstance(value, list):
        return {"choices": tuple(value)}
    if isinstance(value, dict) and isinstance(value.get("choices"), list):
        return value | {"choices": tuple(value["choices"])}  # the strict reading takes no list for a tuple
    return value


class SearchConfig(_Section):
    space: dict[str, Annotated[Range, BeforeValidator(_as_range)]] = {}
    """What `evalcam tune` varies, by dotted key: `{low: 1e-5, high: 1e-2, log: true}`, `{low: 1, high: 9, step: 2}`, or
    a list of choices."""
    pruner: Literal["median", "none"] = "median"
    """`median` ends a trial that is worse than half of the finished ones were at the same epoch."""
    startup_trials: int = Field(default=5, ge=0, le=1_000_000)
    """Trials drawn at random before the sampler (TPE) learns from earlier ones and the pruner ends any."""


class RunConfig(_Section):
    """Everything that decides what a run does."""

    seed: int = Field(default=0, ge=0, lt=2**63)
    """Of every random choice: split, initial weights, order, augmentation, bootstrap."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the model runs; `auto` is CUDA when there is one."""
    data: DataConfig = DataConfig()
    split: SplitConfig = SplitConfig()
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    gradcam: GradCamConfig = GradCamConfig()
    search: SearchConfig = SearchConfig()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.train.batch_size == 1 and self.data.image_size <= 32 and self.model.last_stride == 2:
            raise ValueError(
                "train.batch_size 1 with data.image_size up to 32 leaves batch norm a single value; raise one"
            )
        if self.train.warmup_epochs > self.train.epochs:
            raise ValueError(
                f"train.warmup_epochs ({self.train.warmup_epochs:g}) is longer than train.epochs ({self.train.epochs})"
            )
        if (self.train.mixup or self.train.cutmix) and self.train.loss == "focal":
            raise ValueError("train.loss focal and mixup or cutmix do not go together: their targets are mixtures")
        if self.model.thaw_every and self.model.freeze is None:
            raise ValueError("model.thaw_every needs model.freeze: nothing is frozen")
        return self


ARCHS: tuple[str, ...] = get_args(Arch)


def config_keys() -> dict[str, str]:
    """Every dotted key, in order, and what it means."""
    return dict(_keys(RunConfig, ""))


def default_of(key: str) -> object:
    """The default of a dotted key."""
    value: Any = RunConfig().model_dump(by_alias=True)
    for part in key.split("."):
        value = value[part]
    return value


def resolved(config: RunConfig) -> dict[str, Any]:
    """The config as plain data, every key written out, as YAML and JSON take it."""
    data: dict[str, Any] = json.loads(config.model_dump_json(by_alias=True))
    return data


def _keys(model: type[BaseModel], prefix: str) -> Iterable[tuple[str, str]]:
    for name, field in model.model_fields.items():
        key = prefix + (field.alias or name)
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _keys(kind, key + ".")
        else:
            yield key, field.description or ""
