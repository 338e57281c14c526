"""What a search leaves behind: its table, the best config to train from, plots, and one JSON document."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evalcam_cli.config import resolved
from evalcam_cli.documents import csv_bytes, json_text, yaml_text
from evalcam_cli.report.plots_tuning import TrialPoint, plot_history, plot_importances
from evalcam_cli.search_space import Dimension
from evalcam_cli.text import counted, shown
from evalcam_cli.workflows.study import Study, Trial
from evalcam_cli.workflows.training_run import BEST
from evalcam_cli.workflows.trials import trial_config, trial_folder
from evalcam_cli.writing import write_whole

FILES = ("trials.csv", "best.yaml", "history.png", "importance.png", "tune.json")
SCHEMA_VERSION = 1
_TRUSTED_IMPORTANCES = 20


@dataclass(frozen=True)
class TuneResult:
    """What a search found."""

    folder: Path
    best: Trial
    trials: tuple[Trial, ...]
    document: dict[str, Any]
    """As in `tune.json`."""


def write_state(study: Study, out: Path, root: Path) -> None:
    """`trials.csv` and, once there is a complete trial, `best.yaml`: kept up to date while the search goes on."""
    trials, keys = study.trials(), [one.key for one in study.space]
    header = (*_FACTS, *keys, "reason")
    rows = [(*_facts(one), *(_cell(one.params[key]) for key in keys), one.reason or None) for one in trials]
    write_whole(out / "trials.csv", csv_bytes(header, rows))
    best = study.best()
    if best is not None:
        write_whole(out / "best.yaml", _best_config(study, best, out, root).encode())


_FACTS = ("number", "state", "value", "epochs", "best_epoch", "seconds")


def _facts(trial: Trial) -> list[object]:
    return [getattr(trial, name) for name in _FACTS]


def write_end(study: Study, out: Path, root: Path, best: Trial) -> TuneResult:
    """The rest of the files, once all trials are finished."""
    write_state(study, out, root)
    trials = study.trials()
    shares, reason = study.importances()
    metric = study.config.train.monitor
    points = [TrialPoint(one.number, one.state, one.value) for one in trials]
    write_whole(
        out / "history.png",
        plot_history(points, metric=f"validation {metric.replace('_', ' ')}", maximise=study.maximise),
    )
    write_whole(
        out / "importance.png",
        plot_importances(shares, reason, metric=metric.replace("_", " "), trials=len(_complete(trials))),
    )
    document = _document(study, trials, best, out, shares, reason)
    write_whole(out / "tune.json", json_text(document).encode())
    return TuneResult(out, best, tuple(trials), document)


def _complete(trials: list[Trial]) -> list[Trial]:
    return [one for one in trials if one.state == "complete"]


def _cell(value: object) -> object:
    """Booleans and nothing as YAML writes them."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else value


def _best_config(study: Study, best: Trial, out: Path, root: Path) -> str:
    config = resolved(trial_config(study.config, best, root))
    del config["search"]
    metric, done = study.config.train.monitor, len(study.trials())
    folder = shown(out)
    lines = [
        f"The best of {counted(done, 'trial')} of `evalcam tune` by validation {metric}: "
        f"{best.value:.4g} at epoch {best.best_epoch}, in trial {best.number}",
        f"({', '.join(f'{key}: {shown(value)}' for key, value in best.params.items())}).",
        _caution(done).capitalize() + ".",
        f"  evalcam train -c {folder}/best.yaml --split {folder}/split.csv --out RUN",
    ]
    comment = "".join(f"# {line}\n" for line in lines)
    return comment + yaml_text(config)


def _caution(count: int) -> str:
    return (
        f"the best of {count} values on the same validation images is optimistic; "
        "no test image was opened: evaluate on these once, at the end"
    )


def _document(
    study: Study, trials: list[Trial], best: Trial, out: Path, shares: dict[str, float] | None, reason: str
) -> dict[str, Any]:
    metric, complete = study.config.train.monitor, len(_complete(trials))
    warnings = [{"code": "best_of_many", "message": _caution(len(trials))}]
    if shares is not None and complete < _TRUSTED_IMPORTANCES:
        message = f"importances from {complete} complete trials are rough; {_TRUSTED_IMPORTANCES} or more are better"
        warnings.append({"code": "few_trials", "message": message})
    edges = _at_the_edge(study, best)
    if edges:
        message = f"the best value of {' and '.join(edges)} is at the edge of its range: a wider one may hold a better"
        warnings.append({"code": "at_the_edge", "message": message})
    return {
        "schema_version": SCHEMA_VERSION,
        "metric": metric,
        "direction": "maximize" if study.maximise else "minimize",
        "seed": study.config.seed,
        "split_fingerprint": study.facts.get("split_fingerprint"),
        "trials": {state: sum(one.state == state for one in trials) for state in ("complete", "pruned", "failed")},
        "seconds": sum(one.seconds or 0.0 for one in trials),
        "best": {
            "number": best.number,
            "value": best.value,
            "epoch": best.best_epoch,
            "params": best.params,
            "config": str(out / "best.yaml"),
            "checkpoint": str(trial_folder(out, best.number) / BEST),
        },
        "importances": shares,
        "importances_undefined_reason": reason or None,
        "warnings": warnings,
    }


def _at_the_edge(study: Study, best: Trial) -> list[str]:
    """Keys whose best value lies within a twentieth of the range of one of its ends; a low of 0 is no such end."""
    return [one.key for one in study.space if one.kind != "choice" and _is_near_an_end(one, best.params[one.key])]


def _is_near_an_end(one: Dimension, value: object) -> bool:
    low, high, there = (math.log(x) if one.log else x for x in (one.low, one.high, float(str(value))))
    margin = 0.05 * (high - low)
    return high - there < margin or (one.low != 0 and there - low < margin)
