"""What `evalcam tune` varies: the keys of `search.space` with their kinds of values, checked before anything runs."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from evalcam_cli.config import Range, RunConfig, config_keys, default_of
from evalcam_cli.config_sources import nearest_key, with_values
from evalcam_cli.errors import UsageError
from evalcam_cli.text import shown


@dataclass(frozen=True)
class Dimension:
    """The values that a search draws for one config key."""

    key: str
    kind: Literal["integer", "number", "choice"]
    low: float = 0
    high: float = 0
    """Included, and a whole number of steps above `low`."""
    log: bool = False
    step: float | None = None
    """None: any number in between; of integers: 1."""
    choices: tuple[bool | int | float | str | None, ...] = ()

    @property
    def extremes(self) -> tuple[object, ...]:
        """All choices, or both ends."""
        return self.choices if self.kind == "choice" else (self.low, self.high)

    def holds(self, value: object) -> bool:
        """Whether a search can draw the value."""
        if self.kind == "choice":
            return any(value == choice and type(value) is type(choice) for choice in self.choices)
        if not isinstance(value, int | float) or not self.low <= value <= self.high:
            return False
        steps = (value - self.low) / self.step if self.step else 0.0
        return abs(steps - round(steps)) < 1e-9


_MAX_CORNERS = 5_000
_EXAMPLE = "search:\n  space:\n    train.lr: {low: 1e-5, high: 1e-2, log: true}\n    train.batch_size: [16, 32, 64]"

_SAME_IMAGES = "all trials must see the same images, or their values cannot be compared"
_AFTERWARDS = "it counts after training; a search sees the validation images only"
_NO_EFFECT = "it changes no weights"
_NOT_SEARCHED = {
    "seed": "a lucky seed is no finding",
    "device": _NO_EFFECT,
    "data.path": _SAME_IMAGES,
    "data.max_pixels": _SAME_IMAGES,
    "data.allow_unreadable": _SAME_IMAGES,
    "data.workers": _NO_EFFECT,
    "data.cache": _NO_EFFECT,
    "split": _SAME_IMAGES,
    "evaluate": _AFTERWARDS,
    "gradcam": _AFTERWARDS,
    "search": "a search does not search itself",
    "train.monitor": "it is what the trials are compared by",
    "train.deterministic": _NO_EFFECT,
    "train.temperature": _NO_EFFECT,
    "train.logger": _NO_EFFECT,
}
"""Keys and sections, and why no search may vary them."""


def search_space(config: RunConfig) -> tuple[Dimension, ...]:
    """The dimensions of the config's search, in the order of their keys.

    The ends of all ranges and all choices are tried in the config, first alone and then two keys at a time, so that a
    search does not stop at its tenth trial over a value that no config takes; of very many pairs the first are tried.

    Raises:
        UsageError: There is none, a key is unknown or not to be searched, or a value is impossible.
    """
    if not config.search.space:
        raise UsageError(f"nothing to search: say in the config what to vary, such as\n{_EXAMPLE}")
    dimensions = tuple(_dimension(key, span) for key, span in sorted(config.search.space.items()))
    for values in itertools.islice(_corners(dimensions), _MAX_CORNERS):
        try:
            with_values(config, values)
        except UsageError as error:
            tried = ", ".join(f"{key}: {shown(value)[:80]}" for key, value in values.items())
            raise UsageError(f"search.space allows {tried}, and no config does: {error}") from error
    return dimensions


def _dimension(key: str, span: Range) -> Dimension:
    if key not in config_keys():
        raise UsageError(f"search.space: unknown config key {shown(key)[:80]!r}{nearest_key(key)}")
    for name, reason in _NOT_SEARCHED.items():
        if key == name or key.startswith(f"{name}."):
            raise UsageError(f"search.space: {key} cannot be searched: {reason}")
    default = default_of(key)
    if span.choices is not None:
        return Dimension(key, "choice", choices=_choices(key, span.choices, default))
    low, high = span.low or 0, span.high or 0
    if isinstance(default, bool) or not isinstance(default, int | float):
        raise UsageError(f"search.space: {key} has no low and high; give a list of choices")
    if isinstance(default, float):
        return Dimension(key, "number", float(low), _last(low, high, span.step), span.log, span.step)
    if any(isinstance(value, float) for value in (low, high, span.step)):
        raise UsageError(f"search.space: {key} takes whole numbers; low, high and step must be such")
    return Dimension(key, "integer", low, int(_last(low, high, span.step)), span.log, span.step)


def _choices(key: str, given: Sequence[Any], default: object) -> tuple[Any, ...]:
    """The choices as the config takes them: 0 is 0.0 where fractions are meant, or the default is not among them."""
    if isinstance(default, float):
        given = [float(value) if type(value) is int else value for value in given]
    fractions = [value for value in given if type(value) is float]
    if len(set(fractions)) < len(fractions):
        raise UsageError(f"search.space: two choices of {key} are the same number")
    return tuple(given)


def _last(low: float, high: float, step: float | None) -> float:
    """The highest value that is a whole number of steps above `low`."""
    return float(high) if step is None else low + step * int((high - low) / step + 1e-9)


def _corners(dimensions: tuple[Dimension, ...]) -> Iterator[dict[str, object]]:
    for one in dimensions:  # at most 100 choices each
        yield from ({one.key: value} for value in one.extremes)
    for one, other in itertools.combinations(dimensions, 2):
        for value, second in itertools.product(one.extremes, other.extremes):
            yield {one.key: value, other.key: second}
