"""What a report is about."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from evalcam_cli.evaluation.analyses import Analyses
from evalcam_cli.evaluation.gates import GateResult
from evalcam_cli.evaluation.metrics import Metrics
from evalcam_cli.evaluation.predictions import Predictions


@dataclass(frozen=True)
class Report:
    """Everything that is said about one evaluation."""

    predictions: Predictions
    """What the metrics were computed from."""
    metrics: Metrics
    analyses: Analyses = field(default_factory=Analyses)
    subset: str = ""
    """The set evaluated, for the tables: `test`."""
    gates: Sequence[GateResult] = ()
    meta: Mapping[str, object] = field(default_factory=dict)
    """What else to say: checkpoint, split, versions. JSON values."""
    looks: str = ""
    """How often this test set was looked at, in a sentence."""
