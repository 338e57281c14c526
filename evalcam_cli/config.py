"""RunConfig: one frozen, fully checked value from defaults, YAML, `--set` and named options. It touches no image.

Each field's documentation is the string below it; the README's table of keys is made from those strings.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from evalcam_cli.errors import UsageError
from evalcam_cli.strict_yaml import Document, Value, parse_yaml
from evalcam_cli.text import counted, did_you_mean, shown

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


def _as_texts(value: object) -> object:
    """`class: 3` and `class: [true, 3]` mean the texts `3` and `true`."""
    values = value if isinstance(value, list) else [value]
    return tuple(_as_text(one) for one in values)


def _as_text(value: object) -> object:
    return json.dumps(value) if isinstance(value, bool | int) else value


Texts = Annotated[tuple[str, ...], BeforeValidator(_as_texts)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, populate_by_name=True)


Method = Literal[
    "cam", "gradcam", "gradcam++", "hirescam", "xgradcam", "layercam", "eigencam", "scorecam", "ablationcam",
    "counterfactual", "guided-backprop", "guided-gradcam", "occlusion",
    "gradient", "integrated-gradients", "smoothgrad",
]  # fmt: skip


def _as_methods(value: object) -> object:
    """`gradcam,occlusion` means both; each once."""
    values = value if isinstance(value, list | tuple) else [value]
    parts = [part.strip() if isinstance(part, str) else part for one in values for part in _split(one)]
    return tuple(dict.fromkeys(parts))


def _split(value: object) -> list[Any]:
    return list(value.split(",")) if isinstance(value, str) else [value]


class DataConfig(_Section):
    path: str | None = None
    """Folder or CSV manifest with the images; the DATA argument replaces it."""
    image_size: int = Field(default=224, ge=16, le=2048)
    """Side of the square that the model sees, in pixels."""
    resize: Resize = "pad"
    """How an image becomes that square: `pad` keeps all of it, `crop` cuts the centre square, `squash` distorts."""
    workers: Literal["auto"] | Annotated[int, Field(ge=0, le=64)] = "auto"
    """Processes that read images; results do not depend on it. `auto`: one per spare CPU core, at most 4."""
    max_pixels: int = Field(default=100_000_000, ge=1, le=2_000_000_000)
    """Images with more pixels are refused before they are decoded."""
    allow_unreadable: int = Field(default=0, ge=0)
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
    group_by: str | None = None
    """Manifest column, or regular expression with one pair of parentheses on the path; a group never crosses sets."""
    ungrouped: Literal["refuse", "single"] = "refuse"
    """Images without a group: refuse, or make each its own group."""
    leaks: Literal["refuse", "drop", "resplit", "allow"] = "refuse"
    """What to do when a given division has training images in val or test."""


class ModelConfig(_Section):
    arch: Arch = "resnet18"
    """Architecture, by torchvision's name."""
    weights: str = "default"
    """Start from `default` (torchvision's ImageNet weights), `none` (random), or a file of weights."""
    freeze: Stage | None = None
    """Keep everything up to and including this stage as it is (`stem`, `layer1` … `layer4`)."""
    last_stride: Literal[1, 2] = 2
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


class TrainConfig(_Section):
    epochs: int = Field(default=20, ge=1, le=100_000)
    """Passes over the training images."""
    batch_size: int = Field(default=32, ge=1, le=65_536)
    """Images per optimiser step."""
    lr: Rate = 3e-4
    """Highest learning rate, reached after the warm-up."""
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
    class_weights: Literal["none", "balanced"] = "none"
    """`balanced` weighs each image's loss by the inverse frequency of its class."""
    sampling: Literal["uniform", "balanced"] = "uniform"
    """`balanced` draws every class equally often, with replacement."""
    clip_grad_norm: NotNegative = 0.0
    """Largest norm of the gradient; 0 switches clipping off."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Arithmetic in training: `auto` is fp16 autocast on CUDA and fp32 on the CPU."""
    deterministic: bool = True
    """Use deterministic algorithms, so that the same seed gives the same weights; on CUDA this costs some speed."""
    monitor: Monitor = "balanced_accuracy"
    """Validation metric that chooses the best epoch; equal values are decided by the lower loss."""
    patience: int = Field(default=0, ge=0)
    """Stop after this many epochs without improvement; 0 never stops early."""
    temperature: bool = True
    """Fit a temperature to the best weights on the validation images, if there are at least 50."""
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
    positive: str | None = None
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
    layer: str | None = None
    """Module whose activations are weighed, as named by `model.named_modules()`, by default the last stage; `a+b` fuses
    the maps of two."""
    against: Annotated[str | None, BeforeValidator(_as_text)] = None
    """Class that the others are compared with: what speaks for them and not for it."""
    norm: Literal["image", "shared", "raw"] = "image"
    """What full colour means: a map's own maximum, the largest of the run, or `gradcam.full_colour` in every run."""
    full_colour: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    """Value at full colour with `norm: raw`, in the unit of the map."""
    window: int | None = Field(default=None, ge=1)
    """Side of occlusion's square, in pixels of the input; by default a fifth of the input."""
    stride: int | None = Field(default=None, ge=1)
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
    box_threshold: Annotated[float, Field(gt=0, lt=1)] = 0.15
    """Share of a map's maximum above which a place belongs to the object, for boxes and masks."""
    max_images: int | None = Field(default=None, ge=1)
    """Stop after this many images; by default all IMAGEs named, or 16 of a split, taken from each class in turn."""


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
        return self


def load_config(
    path: Path | None = None, *, assignments: Iterable[str] = (), options: Mapping[str, object] | None = None
) -> RunConfig:
    """The config from its sources; later ones win: defaults, YAML file, `section.key=value`, named options.

    Args:
        path: YAML file.
        assignments: As given to `--set`.
        options: Dotted key to value; None means not given.

    Raises:
        UsageError: A key is unknown or a value impossible; the message names the key, the place and the remedy.
    """
    document = _read(path) if path else Document(None)
    source = shown(path.absolute()) if path else "config"
    values = _sections(document, source)
    for assignment in assignments:
        key, value = _assignment(assignment)
        _put(values, key, value, f"--set {shown(assignment)}")
    for key, option in (options or {}).items():
        if option is not None:
            _put(values, key, option, f"option for {key}")
    return _validated(values, document, source)


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


def _read(path: Path) -> Document:
    place = shown(path.absolute())
    try:
        text = path.read_bytes()[:4_000_001].decode("utf-8-sig")
    except IsADirectoryError as error:
        raise UsageError(f"the config {place} is a folder; name a YAML file") from error
    except OSError as error:
        raise UsageError(f"cannot read the config {place}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"the config {place} is not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    return parse_yaml(text, place)


def _sections(document: Document, source: str) -> dict[str, Any]:
    if document.value is None:
        if document.lines:
            raise UsageError(f"{source}: expected a map of sections, found nothing")
        return {}
    if not isinstance(document.value, dict):
        found = "a list" if isinstance(document.value, list) else f"{document.value!r}"
        raise UsageError(f"{source}: expected a map of sections, found {found}")
    return document.value


def _assignment(assignment: str) -> tuple[str, Value]:
    key, equals, text = assignment.partition("=")
    if not equals or not key.strip():
        raise UsageError(f"--set takes section.key=value, got {shown(assignment)!r}")
    key = key.strip()
    value = parse_yaml(text, f"--set {shown(key)}").value
    if isinstance(value, str) and _is_tuple(key):
        value = parse_yaml(f"[{text}]", f"--set {shown(key)}").value
    return key, value


def _is_tuple(key: str) -> bool:
    return key in config_keys() and isinstance(default_of(key), tuple)


def _put(values: dict[str, Any], key: str, value: object, origin: str) -> None:
    known = config_keys()
    if key not in known:
        raise UsageError(f"{origin}: unknown config key {shown(key)!r}{_nearest_key(key)}")
    *sections, name = key.split(".")
    for section in sections:
        inner = values.setdefault(section, {})
        if inner is None:
            inner = values[section] = {}
        if not isinstance(inner, dict):
            raise UsageError(f"{origin}: {section} is not a section in the config file")
        values = inner
    values[name] = value


def _validated(values: dict[str, Any], document: Document, source: str) -> RunConfig:
    values = {key: {} if value is None and key in _section_names() else value for key, value in values.items()}
    try:
        # JSON mode: strict about types (no "3" for 3, no yes for 1), yet lists serve as tuples
        return RunConfig.model_validate_json(json.dumps(values, default=list), strict=True)
    except ValidationError as error:
        raise UsageError(_explained(error, document, source)) from error


def _section_names() -> list[str]:
    return [name for name, field in RunConfig.model_fields.items() if "." in "".join(_keys_of(name, field.annotation))]


def _keys_of(name: str, kind: object) -> list[str]:
    return (
        [f"{name}.{key}" for key in kind.model_fields] if isinstance(kind, type) and issubclass(kind, BaseModel) else []
    )


def _explained(error: ValidationError, document: Document, source: str) -> str:
    problems: dict[tuple[str | int, ...], list[str]] = {}
    for problem in error.errors(include_url=False):
        path = _known_path(problem["loc"])
        if path[:2] == ("gradcam", "method"):  # the place in a list that may have been a text means nothing
            path = path[:2]
            if path in problems:  # a list without its wrong values is also too short
                continue
        if problem["type"] == "missing":  # of a list that must have so many values
            path = path[:-1]
        problems.setdefault(path, []).append(_problem(".".join(map(str, path)), problem))
    messages = []
    for path, found in problems.items():
        line = document.lines.get(path)
        place = f"{source}, line {line}: " if line else ""
        # the branches of a union each complain: `must be 'auto', got x` or `must be a whole number, got x`
        first = (
            found[0]
            if len(set(found)) == 1
            else f"{found[0].rpartition(', got')[0]} or {found[1].partition(' must be ')[2]}"
        )
        messages.append(place + first)
    more = [f"and {len(messages) - 5} more"] if len(messages) > 5 else []
    return "\n".join(messages[:5] + more)


def _known_path(location: tuple[str | int, ...]) -> tuple[str | int, ...]:
    """The location without the branch names that pydantic adds for unions and validators."""
    return tuple(
        part
        for part in location
        if isinstance(part, int) or not re.match(r"literal\[|constrained-|function-|int$", part)
    )


_MESSAGES = {
    "int_type": "a whole number",
    "float_type": "a number",
    "string_type": "a text",
    "bool_type": "true or false",
    "finite_number": "a finite number",
    "model_type": "a section with keys",
    "tuple_type": "a list",
}


def _problem(key: str, problem: Any) -> str:  # noqa: PLR0911 (one return per kind of problem)
    value, kind, context = problem.get("input"), problem["type"], problem.get("ctx", {})
    if kind == "extra_forbidden":
        return f"unknown config key {shown(key)!r}{_nearest_key(key)}"
    if kind == "value_error":
        return f"{key + ': ' if key else ''}{context['error']}"
    if kind == "missing":
        return f"{key} must have {len(default_of(key))} values, got {shown(value)[:80]}"  # type: ignore[arg-type]
    if kind == "too_short":
        return f"{key} must have at least {counted(context['min_length'], 'value')}"
    if kind == "too_long":
        return f"{key} must have {counted(context['max_length'], 'value')}, got {context['actual_length']}"
    not_a_number = isinstance(value, float) and math.isnan(value)
    got = "NaN" if not_a_number else "nothing" if value is None else shown(repr(value))[:80]
    if kind == "literal_error":
        expected = context["expected"]
        choice = "one of " if "," in expected or " or " in expected else ""
        return f"{key} must be {choice}{expected}, got {got}{did_you_mean(str(value), _choices(expected))}"
    message = problem["msg"].removeprefix("Input should be ").removeprefix("Input ")
    return f"{key} must be {_MESSAGES.get(kind, shown(message))}, got {got}"


def _choices(expected: str) -> list[str]:
    return [word.strip(" '") for part in expected.split(" or ") for word in part.split(",")]


def _nearest_key(key: str) -> str:
    known = list(config_keys())
    if "." not in key and (hint := did_you_mean(key, RunConfig.model_fields)):
        return hint
    by_name = [other for other in known if other.rpartition(".")[2] == key.rpartition(".")[2]]
    if by_name:
        return f"; did you mean {by_name[0]!r}?"
    hint = did_you_mean(key, known)
    if hint:
        return hint
    names = {other.rpartition(".")[2]: other for other in known}
    near = did_you_mean(key.rpartition(".")[2], names)
    return f"; did you mean {names[near.split(chr(39))[1]]!r}?" if near else ""


ARCHS: tuple[str, ...] = get_args(Arch)
