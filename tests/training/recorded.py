"""The curves recorded by `tests.benchmarks.record_curves`, as the diagnosis takes them."""

import json
from pathlib import Path
from typing import Any

from evalcam_cli.training.diagnosis import Diagnosis, diagnose
from evalcam_cli.training.history import EpochRecord

CURVES = Path(__file__).with_name("curves")


def recorded(folder: Path) -> list[dict[str, Any]]:
    """The curves of a folder, by name."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]


def judged(curve: dict[str, Any]) -> Diagnosis:
    """What the diagnosis says of a recorded curve."""
    return diagnose(
        history=[EpochRecord(**record) for record in curve["history"]],
        **{name: curve[name] for name in ("best_epoch", "classes", "train_counts", "lr")},
        **{name: curve[name] for name in ("train_confusion", "val_confusion")},
    )
