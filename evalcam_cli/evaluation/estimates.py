"""One number with what is needed to believe it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Estimate:
    """A metric's value with its interval, or the reason why there is none.

    Undefined is None with a reason, never 0 and never NaN.
    """

    estimate: float | None
    ci_low: float | None = None
    """Lower limit of the 95 % interval."""
    ci_high: float | None = None
    ci_method: str | None = None
    """How the interval was made: `wilson`, `bootstrap`, …; None without interval."""
    undefined_reason: str | None = None
    """Why `estimate` is None."""
    n: int | None = None
    """Images that the number rests on: the denominator of a proportion, else all images."""
    ci_note: str | None = None
    """Why a defined estimate has no interval, or what to know about the one it has; None when there is nothing."""
    classes_counted: int | None = None
    """Classes that a macro average is taken over; None for everything else."""

    def document(self) -> dict[str, object]:
        """As in every JSON file: `ci_note` and `classes_counted` only where there is something to say."""
        document: dict[str, object] = {
            "estimate": self.estimate,
            "ci_low": self.ci_low,
            "ci_high": self.ci_high,
            "ci_method": self.ci_method,
            "undefined_reason": self.undefined_reason,
            "n": self.n,
        }
        if self.ci_note is not None:
            document["ci_note"] = self.ci_note
        if self.classes_counted is not None:
            document["classes_counted"] = self.classes_counted
        return document


@dataclass(frozen=True)
class Interval:
    """A 95 % interval, or the reason why there is none."""

    low: float | None = None
    high: float | None = None
    method: str | None = None
    note: str | None = None


@dataclass(frozen=True)
class HypothesisTest:
    """A test of one hypothesis about the predictions."""

    p_value: float | None
    hypothesis: str
    """What is doubted when the p-value is small."""
    undefined_reason: str | None = None
    """Why `p_value` is None."""


@dataclass(frozen=True)
class Caution:
    """Something about the numbers that a reader must know, under a code that scripts can rely on."""

    code: str
    message: str
