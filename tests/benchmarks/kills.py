"""Kill training with `kill -9` at random moments, let it go on, and compare it with a run that nobody killed.

    python -m tests.benchmarks.kills [--kills 100] [--kills-per-run 4] [--seed 0] [--quick] [--preloaded] [--control]

Each run is a row of real processes on the CPU: all but the last are killed, and the next is started with `--resume`. Of
four kills, two fall at any time of what a process still has to live, from its first instruction on; one in the middle
of training and one while a file is written. After each kill every file under a final name must be whole. At the end of
a run its weights, best checkpoint, history (but for its times), calibration and diagnosis must be those of the
uninterrupted run, bit for bit; the folder must hold the same files; and no process may live on. Runs take the recipes
in turn. The last line is the verdict; exit 1 when anything differs. `--preloaded` forks the processes from one that has
imported everything, which leaves out their start. `--control` does the same to a training that saves as most programs
do, straight to the final path and without the optimiser's state; it must fail, and exit 0 says that it did.

Measured on 2 busy cores, torch 2.14. `--kills 100 --preloaded`: 100 kills in 33 runs, 100 of 100 to equal files, 0
corrupt files, no process left. `--kills 12 --seed 1`, whole processes: 12 kills in 4 runs, 12 of 12 to equal files, 0
corrupt files.
"""

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from tests.conftest import read_rows
from tests.workflows.training_process import (
    BEST,
    LAST,
    CarelessProcess,
    PreloadedProcess,
    TrainingProcess,
    differences,
    draw_confused,
    faults,
    files_of,
    temporaries,
    wait_until,
)

EPOCHS = 3
COMMON = (
    "data.image_size=32", "model.weights=none", "train.warmup_epochs=0", "train.lr=3e-3", "train.batch_size=2",
    "split.ratios=0.19,0.81,0",
)  # fmt: skip
RECIPES = {
    "adamw": ("data.workers=1",),
    "sgd, balanced sampling": ("train.optimizer=sgd", "train.sampling=balanced", "data.workers=0"),
    "ema, accumulate": ("train.ema=0.9", "train.accumulate=2", "train.optimizer=sgd", "data.workers=1"),
    "mixup, cutmix, cache ram": (
        "train.mixup=0.2", "train.cutmix=1", "data.cache=ram", "data.workers=2", "train.optimizer=sgd",
    ),
    "randaugment, erase, cache file": (
        "train.augment.randaugment=2", "train.augment.erase=0.5", "data.cache=file", "data.workers=1",
        "train.optimizer=sgd",
    ),
    "thaw, tensorboard": (
        "model.freeze=layer3", "model.thaw_every=1", "train.logger=tensorboard", "data.workers=0",
    ),
}  # fmt: skip
AIMS = ("any time", "any time", "training", "writing")

Start = Callable[[Path, Path, list[str]], TrainingProcess]


@dataclass(frozen=True)
class Reference:
    """An uninterrupted run, and how many seconds its process took."""

    folder: Path
    sha256: str
    start: float
    """Until it began to train."""
    train: float
    """For all epochs."""
    end: float
    """For calibration, diagnosis and the curves."""

    def left(self, epochs_done: int) -> float:
        """Seconds that a process has to live which goes on after some epochs."""
        return self.start + self.train * (1 - epochs_done / EPOCHS) + self.end


@dataclass(frozen=True)
class Kill:
    """The end of one process."""

    aim: str
    phase: str
    """What the process was doing."""
    seconds: float
    """Of its life."""
    faults: list[str]
    """Files that were not whole afterwards."""


@dataclass
class KilledRun:
    """One run, killed again and again."""

    recipe: str
    kills: list[Kill] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    left: int = 0
    """Half-written files that the end of the run left."""
    orphans: int = 0
    """Processes that lived on."""


def options(recipe: str, *, resume: bool = False) -> list[str]:
    settings = [part for one in (*COMMON, *RECIPES[recipe]) for part in ("--set", one)]
    return ["--epochs", str(EPOCHS), "--json", *settings, *(["--resume"] if resume else [])]


def uninterrupted(start: Start, data: Path, out: Path, recipe: str) -> Reference:
    """Train without a kill."""
    process = start(data, out, options(recipe))
    begin = time.monotonic()
    wait_until(lambda: not process.running or (out / "split.csv").exists(), timeout=600)
    begun = time.monotonic() - begin
    wait_until(lambda: not process.running or epochs_saved(out) == EPOCHS, timeout=600)
    trained = time.monotonic() - begin
    if process.end() != 0:
        sys.exit(f"the uninterrupted run ({recipe}) failed:\n{process.stderr}")
    return Reference(out, process.weights_sha256(), begun, trained - begun, time.monotonic() - begin - trained)


def killed(
    start: Start, data: Path, out: Path, recipe: str, reference: Reference, kills: int, dice: random.Random
) -> KilledRun:
    """Kill a run a number of times, or less often if it ends before, let it end, and judge it."""
    run, processes = KilledRun(recipe), [start(data, out, options(recipe))]
    while len(run.kills) < kills:
        kill = kill_once(processes[-1], dice.choice(AIMS), reference, dice)
        if kill is None:
            break
        run.kills.append(kill)
        print(f"  {kill.seconds:5.1f} s  {kill.phase:26} {'; '.join(kill.faults) or 'all files whole'}", flush=True)
        if dice.random() < 0.5:  # else the next process starts while the workers of this one may still live
            wait_until(lambda: not processes[-1].family(), timeout=30)
        processes.append(start(data, out, options(recipe, resume=True)))
    run.wrong = judged(processes, reference)
    run.left, run.orphans = len(temporaries(out)), sum(len(process.family()) for process in processes)
    return run


def kill_once(process: TrainingProcess, aim: str, reference: Reference, dice: random.Random) -> Kill | None:
    """Kill the process at a moment of the kind, or find that it ended before: None."""
    begin = time.monotonic()
    left = reference.left(epochs_saved(process.out))
    low, high = {"any time": (0, left), "training": (reference.start, left - reference.end), "writing": (0, 0.1)}[aim]
    if aim == "writing":
        for _ in range(dice.randint(0, 3)):
            wait_until(lambda: half_written(process.out) or not process.running, timeout=600)
            wait_until(lambda: not half_written(process.out) or not process.running, timeout=600)
        wait_until(lambda: half_written(process.out) or not process.running, timeout=600, every=0.001)
        begin_writing = time.monotonic() - begin
        low, high = begin_writing + low, begin_writing + high
    moment = dice.uniform(low, high)
    wait_until(lambda: time.monotonic() - begin >= moment or not process.running, timeout=600, every=0.001)
    phase = phase_of(process)
    if not process.running:
        return None
    seconds = time.monotonic() - begin
    process.kill()
    return Kill(aim, phase, seconds, faults(process.out))


def half_written(out: Path) -> bool:
    """Whether a file of the run is being written right now."""
    return any(out.glob(".*.tmp")) or any(out.glob("checkpoints/.*.tmp"))


def epochs_saved(out: Path) -> int:
    """Epochs in the history, which is written a moment before the checkpoint."""
    return len(read_rows(out / "history.csv")) if (out / "history.csv").exists() else 0


def phase_of(process: TrainingProcess) -> str:
    """What the process is doing, as far as one sees it from outside."""
    out = process.out
    if not owns(process):
        return "starting"
    if half := temporaries(out):
        known = {
            sha256(Path(name).name.encode()).hexdigest()[:16]: Path(name).name for name in (*files_of(out), BEST, LAST)
        }
        return f"writing {known.get(Path(half[0]).name.split('.')[1], 'another file')}"
    split = out / "split.csv"
    began_here = split.exists() and split.stat().st_mtime >= process.begun
    if not began_here and "resuming" not in process.stderr:
        return "reading images"
    if (out / "diagnosis.json").exists():
        return "ending"
    done = epochs_saved(out)
    if done == EPOCHS:
        return "calibrating, diagnosing"
    return "training, first epoch" if done == 0 else "training, later epochs"


def owns(process: TrainingProcess) -> bool:
    """Whether the process has locked its folder, by the system's own list."""
    return any(line.split()[4] == str(process.pid) for line in Path("/proc/locks").read_text().splitlines())


def judged(processes: list[TrainingProcess], reference: Reference) -> list[str]:
    """What is wrong with a run that went on to its end."""
    last = processes[-1]
    if (code := last.end(timeout=600)) != 0:
        return [f"the last process ended with {code}: {last.stderr.strip()[-300:]}"]
    wrong = [] if last.weights_sha256() == reference.sha256 else ["other weights"]
    wrong += differences(last.out, reference.folder)
    wrong += [f"{name} was left" for name in temporaries(last.out)]
    wait_until(lambda: not any(process.family() for process in processes), timeout=30)
    wrong += [f"process {pid} lives on" for process in processes for pid in process.family()]
    return wrong


def numbers(runs: list[KilledRun]) -> dict[str, Any]:
    """What came of the kills."""
    kills = [kill for run in runs for kill in run.kills]
    return {
        "kills": len(kills),
        "runs": len(runs),
        "equal": sum(len(run.kills) for run in runs if not run.wrong),
        "corrupt": sum(len(kill.faults) for kill in kills),
        "left": sum(run.left for run in runs),
        "orphans": sum(run.orphans for run in runs),
        "wrong": [f"{run.recipe}: {wrong}" for run in runs for wrong in run.wrong],
    }


def report(runs: list[KilledRun]) -> bool:
    """Print the tables and the verdict."""
    kills = [kill for run in runs for kill in run.kills]
    print(f"\n{'recipe':32} runs  kills  equal")
    for recipe in dict.fromkeys(run.recipe for run in runs):
        of = [run for run in runs if run.recipe == recipe]
        print(
            f"{recipe:32} {len(of):4}  {sum(len(r.kills) for r in of):5}  {sum(not r.wrong for r in of)} of {len(of)}"
        )
    print(f"\n{'killed while':32} kills")
    for phase, count in sorted(Counter(kill.phase for kill in kills).items()):
        print(f"{phase:32} {count:5}")
    found = numbers(runs)
    for wrong in found["wrong"]:
        print(f"WRONG: {wrong}")
    print(
        f"\n{len(kills)} kills in {len(runs)} runs: {found['equal']} of {len(kills)} to equal files, "
        f"{found['corrupt']} corrupt files, {found['left']} half-written files left, {found['orphans']} processes left"
    )
    return bool(found["equal"] == len(kills) and not found["corrupt"])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--kills-per-run", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="four kills of one run")
    parser.add_argument("--preloaded", action="store_true", help="fork processes that have imported everything")
    parser.add_argument("--control", action="store_true", help="kill a training that saves carelessly")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    asked = parser.parse_args()
    start: Start = PreloadedProcess if asked.preloaded else TrainingProcess
    struck: Start = CarelessProcess if asked.control else start
    kills, dice = (4 if asked.quick else asked.kills), random.Random(asked.seed)
    print(f"{kills} kills, seed {asked.seed}")
    runs: list[KilledRun] = []
    with tempfile.TemporaryDirectory() as place:
        data = draw_confused(Path(place) / "data", {"a": 24, "b": 20, "c": 18})
        references: dict[str, Reference] = {}
        while (done := sum(len(run.kills) for run in runs)) < kills:
            recipe = list(RECIPES)[len(runs) % len(RECIPES)]
            out = Path(place) / f"run-{len(runs)}"
            if recipe not in references:
                references[recipe] = uninterrupted(start, data, Path(place) / f"whole-{len(runs)}", recipe)
            whole = references[recipe]
            print(f"{recipe}: {whole.start:.1f} s to start, {whole.train:.1f} s to train, {whole.end:.1f} s to end")
            runs.append(killed(struck, data, out, recipe, whole, min(asked.kills_per_run, kills - done), dice))
            if not runs[-1].wrong:
                shutil.rmtree(out)
    if asked.json:
        asked.json.write_text(json.dumps(numbers(runs)))
    sys.exit(0 if report(runs) != asked.control else 1)


if __name__ == "__main__":
    main()
