"""A model per round of a cross-validation, one after the other or several at a time, and what all of them say."""

import logging
import queue
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from evalcam_cli.config import RunConfig, resolved
from evalcam_cli.data.machine import shared_machine, usable_cores
from evalcam_cli.data.split_file import fingerprint, read_split, split_bytes
from evalcam_cli.documents import yaml_text
from evalcam_cli.errors import DataError, EvalcamError, MachineError, UsageError
from evalcam_cli.files import OutputFolder, discard_folder, output_folder
from evalcam_cli.inputs import read_bytes
from evalcam_cli.models.device import choose_device
from evalcam_cli.progress import Progress, silent
from evalcam_cli.strict_yaml import MAX_CHARACTERS, parse_yaml
from evalcam_cli.text import counted, shown
from evalcam_cli.training.interruption import Interruption
from evalcam_cli.training.rounds import HEADER, RoundTable, summarise_round
from evalcam_cli.workflows.round_process import End, Gone, Message, Note, RoundJob, RoundProcess, Step
from evalcam_cli.workflows.split import PreparedSplit, chosen_round
from evalcam_cli.workflows.train import TrainRequest, prepare, require_same_config, train_round
from evalcam_cli.workflows.training_run import LAST, TrainResult, starting_weights
from evalcam_cli.world import world

log = logging.getLogger("evalcam")

MAX_JOBS = 100


@dataclass(frozen=True)
class CrossValidation:
    """What a training of all rounds left behind."""

    results: tuple[TrainResult, ...]
    """By round."""
    table: RoundTable


def train_all_folds(
    config: RunConfig, request: TrainRequest, progress: Progress = silent, *, jobs: int = 1
) -> CrossValidation:
    """Train one model per round into `request.out/fold-0`, `fold-1`, …

    The images are read and hashed once, in this process. With several jobs each round runs in a process of its own,
    which has the folder of its round; this one has the folder around them. A signal is passed on to them, and what they
    were doing is saved. A round that fails lets those under way be finished, and none be begun.

    Args:
        config: Of all rounds.
        request: Where to, and from which split.
        progress: Told of the steps, or with several jobs of the epochs of all rounds together.
        jobs: Rounds at a time.

    Raises:
        EvalcamError: As the exit codes say, naming the round; what was finished before is kept.
    """
    if not 1 <= jobs <= MAX_JOBS:
        raise UsageError(f"--jobs {jobs}: expected a number of processes from 1 to {MAX_JOBS}")
    if world().size > 1:
        raise UsageError("--all-folds does not run under torchrun; use --jobs N to train N rounds at a time")
    choose_device(config.device)
    with output_folder(
        request.out, overwrite=request.overwrite, resume=request.resume, inputs=request.inputs
    ) as folder:
        prepared = _division(config, request, folder, progress)
        if jobs == 1:
            results = _one_by_one(config, request, prepared, progress)
        else:
            results = _at_once(config, request, prepared, progress, jobs)
        table = _table(results, prepared)
        folder.write_csv("summary.csv", HEADER, table.rows())
        folder.write_json("summary.json", table.document())
    return CrossValidation(tuple(results), table)


def _division(config: RunConfig, request: TrainRequest, folder: OutputFolder, progress: Progress) -> PreparedSplit:
    """The split of all rounds, kept in the outer folder, which a resumed training takes up again."""
    kept = folder.path / "split.csv"
    if request.resume and kept.exists():
        _refuse_other(config, request, folder, progress)
        return prepare(config, replace(request, split_file=kept), progress)
    prepared = prepare(config, request, progress)
    if prepared.split.folds is None:
        raise UsageError("--all-folds needs a split with folds; make one with --folds K (config split.folds)")
    if request.overwrite:  # else rounds of before would stand beside new ones until their turn
        for place in sorted(folder.path.glob("fold-*")):
            discard_folder(place)
    table, facts = split_bytes(prepared.split)
    folder.write("config.yaml", yaml_text(resolved(config)).encode())
    folder.write("split.json", facts)
    folder.write("split.csv", table)  # last: a resume begins with it
    return prepared


def _refuse_other(config: RunConfig, request: TrainRequest, folder: OutputFolder, progress: Progress) -> None:
    """Refuse to continue with another config or split, before any round is begun with it."""
    place = shown(folder.path.absolute())
    try:
        text = read_bytes(folder.path / "config.yaml", MAX_CHARACTERS).decode()
        before = parse_yaml(text, f"{place}/config.yaml").value
    except (OSError, UnicodeDecodeError, UsageError) as error:
        raise DataError(f"cannot read {place}/config.yaml: {shown(error)[:200]}; a resume needs it") from error
    require_same_config(config, before, folder.path)
    kept, edited = read_split(folder.path / "split.csv", root=request.data)
    if edited:
        raise DataError(
            f"{place}/split.csv is not the split that these rounds began with;\n"
            "restore it, or start anew with another --out"
        )
    if request.split_file is not None:
        asked = prepare(config, request, progress)  # with its hashes, and without what is left out, as it was then
        if fingerprint(asked.split.samples) != fingerprint(kept.samples):
            raise DataError(
                f"--resume with another split than {place} was begun with;\n"
                "use the same, or another --out for a new run"
            )


def _place(request: TrainRequest, number: int) -> Path:
    return request.out / f"fold-{number}"


def _one_by_one(
    config: RunConfig, request: TrainRequest, prepared: PreparedSplit, progress: Progress
) -> list[TrainResult]:
    start = starting_weights(config)
    results = []
    for number in range(prepared.split.rounds):
        log.info("fold %d of %d", number, prepared.split.rounds)
        with output_folder(
            _place(request, number), overwrite=request.overwrite, resume=request.resume, inputs=request.inputs
        ) as folder:
            part = chosen_round(prepared, number, config.seed)
            results.append(train_round(config, part, folder, progress, start=start, resume=request.resume))
    return results


def _at_once(
    config: RunConfig, request: TrainRequest, prepared: PreparedSplit, progress: Progress, jobs: int
) -> list[TrainResult]:
    starting_weights(config)  # weights that are not there, or are still to be downloaded, matter to all rounds
    finished, begun = {}, []
    for number in range(prepared.split.rounds):
        if request.resume and _is_finished(_place(request, number)):
            with output_folder(_place(request, number), resume=True, inputs=request.inputs) as folder:
                part = chosen_round(prepared, number, config.seed)
                finished[number] = train_round(config, part, folder, progress, resume=True)
        else:
            begun.append(number)

    def job(number: int) -> RoundJob:
        return RoundJob(
            number,
            config,
            chosen_round(prepared, number, config.seed),
            _place(request, number),
            threads=max(1, usable_cores() // jobs),
            overwrite=request.overwrite,
            resume=request.resume,
            inputs=tuple(request.inputs),
        )

    with shared_machine(jobs):
        finished |= _trained(begun, job, _Rounds(progress, len(begun), config.train.epochs), jobs)
    return [finished[number] for number in sorted(finished)]


def _is_finished(place: Path) -> bool:
    """Whether the round needs no process: its diagnosis is written when everything else is."""
    return (place / "diagnosis.json").exists() and (place / LAST).exists()


class _Rounds:
    """What the rounds under way are doing, told as one."""

    def __init__(self, progress: Progress, rounds: int, epochs: int) -> None:
        self._progress, self._rounds, self._epochs = progress, rounds, epochs
        self._ended = 0
        self._begun: dict[int, int] = {}
        """The epoch, from 1, that each round under way has begun."""

    def told(self, number: int, message: Message) -> None:
        """Show what a round says."""
        if isinstance(message, Note):
            log.log(message.level, "fold %d: %s", number, message.text)
        elif isinstance(message, Step) and message.task.startswith("epoch "):
            self._begun[number] = int(message.task.removeprefix("epoch ").partition("/")[0])
            if message.done == message.total:
                log.info("fold %d: %s%s", number, message.task, f", {message.note}" if message.note else "")
            self._show()

    def ended(self, number: int, *, well: bool) -> None:
        """A round is under way no more."""
        self._ended += well
        self._begun.pop(number, None)
        self._show()

    def _show(self) -> None:
        parts = [f"fold {number} at {epoch}" for number, epoch in sorted(self._begun.items())]
        behind = self._ended * self._epochs + sum(epoch - 1 for epoch in self._begun.values())
        self._progress("epochs", behind, self._rounds * self._epochs, ", ".join(parts))


def _trained(
    numbers: Sequence[int], make: Callable[[int], RoundJob], watched: _Rounds, jobs: int
) -> dict[int, TrainResult]:
    """The results of the rounds, by number, with at most so many processes at a time."""
    waiting = deque(numbers)
    inbox: queue.Queue[tuple[int, Message]] = queue.Queue()
    running: dict[int, RoundProcess] = {}
    results: dict[int, TrainResult] = {}
    failures: list[Exception] = []
    with Interruption() as interruption:
        asked = False
        try:
            while running or (waiting and not failures and not interruption.signal):
                while waiting and len(running) < jobs and not failures and not interruption.signal:
                    number = waiting.popleft()
                    log.info("fold %d begins", number)
                    running[number] = RoundProcess(make(number), inbox)
                if interruption.signal and not asked:
                    asked = True
                    log.info("waiting for %s to finish a step and save", counted(len(running), "round"))
                    for process in running.values():
                        process.ask_to_stop()
                try:
                    number, message = inbox.get(timeout=0.2)  # a signal is seen in between
                except queue.Empty:
                    continue
                if not isinstance(message, End | Gone):
                    watched.told(number, message)
                    continue
                del running[number]
                done = isinstance(message, End) and message.result is not None
                watched.ended(number, well=done)
                if isinstance(message, End) and done:
                    results[number] = message.result
                elif not asked:
                    failures.append(_failure(number, message))
        finally:
            for process in running.values():  # after a second signal, or a bug
                process.kill()
        if failures and not interruption.signal:
            raise failures[0]
    return results


def _failure(number: int, message: Message) -> Exception:
    """What to raise for a round that did not end well."""
    if isinstance(message, Gone):
        how = (
            f"was killed by signal {-message.exit_code}" if message.exit_code < 0 else f"ended with {message.exit_code}"
        )
        return MachineError(
            f"fold {number}: its process {how}, perhaps for want of memory;\n"
            "use fewer --jobs, or a smaller train.batch_size; --resume continues"
        )
    error = message.error if isinstance(message, End) else None
    if isinstance(error, EvalcamError):
        return type(error)(f"fold {number}: {error}")
    return error or MachineError(f"fold {number}: its process was interrupted; --resume continues")


def _table(results: Sequence[TrainResult], prepared: PreparedSplit) -> RoundTable:
    rounds = [
        summarise_round(
            number, one.folder, epochs=one.epochs, best_epoch=one.best_epoch, weights_sha256=one.weights_sha256
        )
        for number, one in enumerate(results)
    ]
    return RoundTable(tuple(rounds), prepared.split.folds or len(rounds), prepared.split.repeats)
