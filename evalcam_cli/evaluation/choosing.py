"""What validation images decide: the temperature and the operating point. No evaluation of test images comes here."""

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from evalcam_cli.errors import DataError, UsageError
from evalcam_cli.evaluation.estimates import Caution, Estimate
from evalcam_cli.evaluation.intervals import wilson_interval
from evalcam_cli.evaluation.operating_point import OperatingPoint, Rule, choose_operating_point, point_cautions
from evalcam_cli.evaluation.predictions import Predictions
from evalcam_cli.evaluation.temperature import MIN_IMAGES, CalibrationQuality, calibration_quality, fit_temperature
from evalcam_cli.text import counted, did_you_mean, listed, shown


@dataclass(frozen=True)
class Calibration:
    """What was chosen on the validation images of one model, and what it changes there."""

    counts: dict[str, int]
    """Validation images of each class."""
    temperature: float | None
    """None: not asked for, or not to be had; then a warning says why."""
    before: CalibrationQuality
    """Of the raw probabilities."""
    after: CalibrationQuality
    """Of the probabilities after the temperature."""
    operating_point: OperatingPoint | None
    warnings: tuple[Caution, ...]

    @property
    def rates(self) -> dict[str, Estimate]:
        """Sensitivity and specificity at the operating point on the images it was chosen on: optimistic."""
        point = self.operating_point
        if point is None:
            return {}
        return {
            "sensitivity": _proportion(point.sensitivity, point.positives),
            "specificity": _proportion(point.specificity, point.negatives),
        }

    def document(self) -> dict[str, Any]:
        """As written to `calibration.json`."""
        return {
            "images": sum(self.counts.values()),
            "counts": self.counts,
            "temperature": self.temperature,
            "before": asdict(self.before),
            "after": asdict(self.after),
            "operating_point": None if self.operating_point is None else self.operating_point.to_dict(),
            "validation_rates": {name: rate.document() for name, rate in self.rates.items()},
            "warnings": [asdict(caution) for caution in self.warnings],
        }


def _proportion(share: float, n: int) -> Estimate:
    interval = wilson_interval(round(share * n), n)
    return Estimate(share, interval.low, interval.high, interval.method, n=n)


def calibrate_on(
    predictions: Predictions,
    *,
    temperature: bool = True,
    rule: Rule | None = None,
    positive: str | None = None,
    allow_few: bool = False,
) -> Calibration:
    """Choose a temperature and an operating point.

    Args:
        predictions: Of the validation images; a temperature and a point they may have play no part.
        temperature: Whether to fit one.
        rule: How to choose the operating point; None: no point.
        positive: The class that the point calls; may be left out with two classes, where it is the last one then.
        allow_few: Fit a temperature on fewer than 50 images.

    Raises:
        DataError: Too few images, a class without images, or a rule that no threshold meets.
        UsageError: `positive` is not a class, or is missing.
    """
    raw = replace(predictions, temperature=1.0, operating_point=None)
    positive = None if rule is None else _positive(positive, raw.classes)
    cautions: list[Caution] = []
    fitted = _temperature(raw, cautions, allow_few=allow_few) if temperature else None
    point = None
    if rule is not None and positive is not None:
        scaled = replace(raw, temperature=fitted or 1.0)
        index = raw.classes.index(positive)
        actual = scaled.targets == index
        point = choose_operating_point(scaled.probability_of(index), actual, positive=positive, rule=rule)
        if rule.kind == "cost" and fitted is None:
            cautions.append(
                Caution(
                    "uncalibrated",
                    f"{rule.text}: the threshold assumes calibrated probabilities, without a temperature",
                )
            )
        cautions += point_cautions(point, rule)
    return Calibration(
        counts=dict(zip(raw.classes, np.bincount(raw.targets, minlength=len(raw.classes)).tolist(), strict=True)),
        temperature=fitted,
        before=calibration_quality(raw, None),
        after=calibration_quality(raw, fitted),
        operating_point=point,
        warnings=tuple(cautions),
    )


def _positive(positive: str | None, classes: tuple[str, ...]) -> str:
    if positive is None and len(classes) == 2:
        return classes[-1]
    if positive is None:
        raise UsageError(
            f"an operating point of {len(classes)} classes calls one of them: name it with --positive "
            f"({listed(classes, 8)})"
        )
    if positive not in classes:
        raise UsageError(f"--positive: no class {shown(positive)!r}{did_you_mean(positive, classes)}")
    return positive


def _temperature(raw: Predictions, cautions: list[Caution], *, allow_few: bool) -> float | None:
    n = len(raw.targets)
    if n < MIN_IMAGES and not allow_few:
        raise DataError(
            f"{counted(n, 'validation image')}: a temperature needs {MIN_IMAGES};\n"
            "use --no-temperature to leave the probabilities as they are, or --allow-few to fit one all the same"
        )
    if n < MIN_IMAGES:
        cautions.append(Caution("few_validation_images", f"the temperature rests on {counted(n, 'validation image')}"))
    present = set(np.unique(raw.targets).tolist())
    absent = [name for index, name in enumerate(raw.classes) if index not in present]
    if len(present) < 2:
        raise DataError(f"the validation images are all of one class; there are none of {listed(absent)}")
    if absent:
        cautions.append(Caution("absent_class", f"no validation images of {listed(absent)}"))
    fit = fit_temperature(raw)
    if fit.reason is not None:
        cautions.append(Caution("no_temperature", f"{fit.reason}; the probabilities are left as they are"))
    return fit.temperature
