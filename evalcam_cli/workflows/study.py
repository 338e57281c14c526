"""The trials of a search: an Optuna study in an SQLite file that survives a kill and serves several processes.

A trial belongs to the process whose name it carries. When that process is gone, another takes the trial over, under
its number and with its values; so an interrupted search proposes what an uninterrupted one does. Each proposal is drawn
with a generator of its own, seeded by the search's seed and the trial's number, and stored in one piece.
"""

import contextlib
import hashlib
import math
import sqlite3
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from evalcam_cli.config import RunConfig
from evalcam_cli.errors import DataError, MachineError, UsageError
from evalcam_cli.search_space import Dimension
from evalcam_cli.text import shown

State = Literal["complete", "pruned", "failed", "unfinished"]
_NAME = "evalcam"
_TIMEOUT_SECONDS = 120
"""How long a process waits while another writes."""
_FEWEST_FOR_IMPORTANCES = 4


@dataclass(frozen=True)
class Trial:
    """One training run of a search."""

    number: int
    """From 0."""
    state: State
    params: dict[str, bool | int | float | str | None]
    value: float | None
    """Best so far of the monitored validation metric; None before the first epoch, or when it is undefined."""
    epochs: int
    """Epochs trained."""
    best_epoch: int | None
    seconds: float | None
    """Of training and validating."""
    reason: str
    """Why it failed."""
    worker: str
    """Name of the process that runs it."""


@dataclass(frozen=True)
class Wait:
    """All trials are given out and some still run: one of them may yet have to be taken over."""


class Study:
    """The search in one file, as one process sees it."""

    def __init__(self, path: Path, space: tuple[Dimension, ...], config: RunConfig) -> None:
        """Open or make the file.

        Raises:
            UsageError: Optuna is not installed.
            DataError: The file is no study.
        """
        optuna = _optuna()
        self.path, self.space, self.config = path, space, config
        self.maximise = config.train.monitor != "loss"
        with self._faults():
            self._storage = optuna.storages.RDBStorage(
                "sqlite:///study.db",
                engine_kwargs={"creator": self._connect},  # any path, also with characters that an URL reserves
            )
            self._study = optuna.create_study(
                study_name=_NAME, storage=self._storage, load_if_exists=True,
                direction="maximize" if self.maximise else "minimize",
            )  # fmt: skip
            self._id = self._storage.get_study_id_from_name(_NAME)
        warm_up = int(config.train.warmup_epochs)  # epochs at a rate that is still low say little
        self._pruner = (
            optuna.pruners.MedianPruner(n_startup_trials=config.search.startup_trials, n_warmup_steps=warm_up + 1)
            if config.search.pruner == "median"
            else optuna.pruners.NopPruner()
        )

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self.path, timeout=_TIMEOUT_SECONDS, check_same_thread=False)

    @contextlib.contextmanager
    def _faults(self) -> Iterator[None]:
        from sqlalchemy.exc import DatabaseError, OperationalError  # noqa: PLC0415 (comes with optuna)

        place = shown(self.path.absolute())
        try:
            yield
        except _optuna().exceptions.StorageInternalError as error:
            cause = shown(error.__cause__ or error).splitlines()[0][:200]
            raise MachineError(f"cannot use {place}: {cause};\nfinished trials are kept: `--resume` goes on") from error
        except OperationalError as error:  # the disk is full, fails, or may not be written to
            cause = shown(error.orig)[:200]
            raise MachineError(f"cannot use {place}: {cause};\nfinished trials are kept: `--resume` goes on") from error
        except DatabaseError as error:
            raise DataError(f"{place} is no study, or damaged ({shown(error.orig)[:200]})") from error

    @property
    def facts(self) -> dict[str, Any]:
        """What was stored about the whole search with `state`."""
        with self._faults():
            return dict(self._storage.get_study_user_attrs(self._id))

    def state(self, facts: Mapping[str, Any]) -> None:
        """Store what holds for the whole search, in this order."""
        with self._faults():
            for name, value in facts.items():
                self._storage.set_study_user_attr(self._id, name, value)

    def trials(self) -> list[Trial]:
        """All, by number."""
        with self._faults():
            return [_trial(frozen, self.maximise) for frozen in self._storage.get_all_trials(self._id)]

    def best(self) -> Trial | None:
        """The complete trial with the best value, the first of equal ones."""
        done = [trial for trial in self.trials() if trial.state == "complete" and trial.value is not None]
        sign = -1 if self.maximise else 1
        return min(done, key=lambda trial: (sign * (trial.value or 0.0), trial.number), default=None)

    def claim(self, worker: str, is_alive: Callable[[str], bool], count: int) -> Trial | Wait | None:
        """The next trial for a process: one whose process is gone, else a new one; None when all are finished.

        No two processes may call this at once (`Presence.alone`).

        Args:
            worker: Name of the process.
            is_alive: Whether the process of a name still works.
            count: Trials that the search has in all.
        """
        trials = self.trials()
        running = [trial for trial in trials if trial.state == "unfinished"]
        for trial in running:
            if trial.worker == worker or not is_alive(trial.worker):
                self._note(trial.number, "worker", worker)
                return trial
        if len(trials) >= count:
            return Wait() if running else None
        optuna = _optuna()
        with self._faults():
            proposal = self._proposal(len(trials))
            self._study.add_trial(
                optuna.trial.create_trial(
                    state=optuna.trial.TrialState.RUNNING, params=proposal,
                    distributions=_distributions(self.space), user_attrs={"worker": worker},
                )
            )  # fmt: skip
        return self.trials()[-1]

    def _proposal(self, number: int) -> dict[str, Any]:
        """The values of a new trial: first the config's own, if the search can draw them; then by TPE.

        TPE: Bergstra et al. 2011, "Algorithms for Hyper-Parameter Optimization", section 4; here over all keys at once.
        """
        optuna = _optuna()
        own = {one.key: _value_of(self.config, one.key) for one in self.space}
        if number == 0 and all(one.holds(own[one.key]) for one in self.space):
            return own
        seed = int.from_bytes(hashlib.sha256(f"{self.config.seed}/tune/{number}".encode()).digest()[:4])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # the two last arguments, before 5
            sampler = optuna.samplers.TPESampler(
                n_startup_trials=self.config.search.startup_trials, seed=seed, multivariate=True, constant_liar=True
            )
        mirror = optuna.create_study(sampler=sampler, direction=self._study.direction)
        mirror.add_trials(self._storage.get_all_trials(self._id))
        return dict(mirror.ask(_distributions(self.space)).params)

    def report(self, number: int, epoch: int, value: float | None) -> bool:
        """Store the best value up to an epoch; whether the trial is to be ended for it."""
        with self._faults():
            trial_id = self._trial_id(number)
            self._storage.set_trial_intermediate_value(trial_id, epoch, math.nan if value is None else value)
            return bool(self._pruner.prune(self._study, self._storage.get_trial(trial_id)))

    def finish(
        self, number: int, state: State, *, value: float | None = None, best_epoch: int | None = None,
        seconds: float | None = None, reason: str = "",
    ) -> None:  # fmt: skip
        """Close a trial; a complete one without a value has failed."""
        states = _optuna().trial.TrialState
        if state == "complete" and (value is None or not math.isfinite(value)):
            state, reason = "failed", reason or "the monitored metric is undefined"
        for name, fact in (("best_epoch", best_epoch), ("seconds", seconds), ("reason", reason)):
            self._note(number, name, fact)
        with self._faults():
            if state == "complete":
                self._study.tell(number, value)
            else:
                self._study.tell(number, state=states.PRUNED if state == "pruned" else states.FAIL)

    def _note(self, number: int, name: str, value: object) -> None:
        with self._faults():
            self._storage.set_trial_user_attr(self._trial_id(number), name, value)

    def _trial_id(self, number: int) -> int:
        return int(self._storage.get_trial_id_from_study_id_trial_number(self._id, number))

    def importances(self) -> tuple[dict[str, float] | None, str]:
        """The share of the values' variance that each key explains, largest first; or None and why there is none.

        fANOVA: Hutter et al. 2014, "An Efficient Approach for Assessing Hyperparameter Importance", over the complete
        trials; a forest of trees is fitted to them, so few trials give rough shares.
        """
        importance = _optuna().importance
        values = [trial.value for trial in self.trials() if trial.state == "complete"]
        if len(values) < _FEWEST_FOR_IMPORTANCES:
            return None, f"importances need {_FEWEST_FOR_IMPORTANCES} complete trials; there are {len(values)}"
        if len(set(values)) == 1:
            return None, "all trials have the same value"
        with self._faults():
            try:
                shares = importance.get_param_importances(
                    self._study, evaluator=importance.FanovaImportanceEvaluator(seed=0)
                )
            except RuntimeError as error:  # no tree of the forest found a difference
                return None, shown(error)
        return {key: float(share) for key, share in shares.items()}, ""


def require_optuna() -> None:
    """Stop before any work when the extra is missing.

    Raises:
        UsageError: It is.
    """
    _optuna()


def _optuna() -> Any:
    """The module, quiet.

    Raises:
        UsageError: It is not installed.
    """
    try:
        import optuna  # noqa: PLC0415 (an extra)
    except ImportError as error:
        raise UsageError("`evalcam tune` needs Optuna: pip install 'evalcam[tune]'") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def _distributions(space: tuple[Dimension, ...]) -> dict[str, Any]:
    made = _optuna().distributions
    result = {}
    for one in space:
        if one.kind == "choice":
            result[one.key] = made.CategoricalDistribution(one.choices)
        elif one.kind == "integer":
            result[one.key] = made.IntDistribution(int(one.low), int(one.high), log=one.log, step=int(one.step or 1))
        else:
            result[one.key] = made.FloatDistribution(one.low, one.high, log=one.log, step=one.step)
    return result


def _value_of(config: RunConfig, key: str) -> Any:
    value: Any = config
    for part in key.split("."):
        value = getattr(value, part)
    return value


def _trial(frozen: Any, maximise: bool) -> Trial:
    name = frozen.state.name
    state: State = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}.get(name, "unfinished")  # type: ignore[assignment]
    known = [value for value in frozen.intermediate_values.values() if math.isfinite(value)]
    facts = frozen.user_attrs
    return Trial(
        number=frozen.number,
        state=state,
        params=dict(frozen.params),
        value=frozen.value if state == "complete" else (max if maximise else min)(known, default=None),
        epochs=max(frozen.intermediate_values, default=0),
        best_epoch=facts.get("best_epoch"),
        seconds=facts.get("seconds"),
        reason=facts.get("reason", ""),
        worker=facts.get("worker", ""),
    )
