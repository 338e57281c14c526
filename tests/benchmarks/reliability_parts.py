"""What docs/reliability.md shows: the parts that are run for it, and its rows with their goals.

A part is one or more commands of which each leaves its numbers. A row says what they must be and how they are told.
"""

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Numbers = Mapping[str, Any]
"""What the command of a part left; of pytest how many tests `passed`, `failed` and were `skipped`."""


@dataclass(frozen=True)
class Part:
    """A command, as it is given to Python; pytest where it begins with `pytest`."""

    whole: tuple[str, ...]
    quick: tuple[str, ...] = ()
    """The short form; the same command where there is none."""

    def command(self, *, quick: bool) -> tuple[str, ...]:
        return self.quick if quick and self.quick else self.whole

    def shown(self) -> str:
        return f"python -m {shlex.join(self.whole)}"


@dataclass(frozen=True)
class Row:
    """A line of the page."""

    what: str
    goal: str
    part: str
    found: Callable[[Numbers], str]
    held: Callable[[Numbers], bool]
    count: Callable[[Numbers], int] = lambda numbers: 1
    least: int = 1
    """So many must have been looked at in the whole form."""


def _benchmark(name: str, *options: str, quick: Sequence[str] = ("--quick",)) -> Part:
    command = (f"tests.benchmarks.{name}", *options)
    return Part(command, (*command, *quick))


def _tests_of(*files: str) -> Part:
    return Part(("pytest", "-m", "", *files))  # the slow ones too


_CANARY_TEST = "tests/models/test_weights.py::test_the_canary_is_there_whenever_such_a_file_is_loaded_the_unsafe_way"
COMMANDS = {
    "train": "train", "resume": "train --resume", "split": "split --overwrite", "evaluate": "evaluate",
    "gradcam": "gradcam",
}  # fmt: skip
"""Commands whose writing is struck, by part."""
READERS = {"config": "configs", "split": "splits and manifests", "checkpoint": "weights files"}
"""What is read, by target."""

PARTS: Mapping[str, Part] = {
    "zoo": Part(("tests.zoo",), ("tests.zoo", "--quick")),
    "malicious": Part(("tests.zoo", "evil_")),
    "control": _tests_of(_CANARY_TEST),
    "checkpoints": _benchmark("damaged_checkpoints"),
    **{
        f"fuzz-{name}": _benchmark("fuzz_readers", "--target", name, "--seconds", "600", quick=("--seconds", "20"))
        for name in READERS
    },
    "sinks": _tests_of("tests/test_sinks.py"),
    "kills": _benchmark("kills", "--kills", "100", "--preloaded"),
    **{
        f"writes-{name}": _benchmark("write_faults", "--only", command, quick=("--sample", "4"))
        for name, command in COMMANDS.items()
    },
    "signals": _benchmark("signals", "--count", "40"),
    "writer": _tests_of("tests/workflows/test_one_writer.py"),
    "large-split": _benchmark("large", "split"),
    "large-manifest": _benchmark("large", "manifest"),
    "large-file": _benchmark("large", "file"),
    "slopes": _benchmark("large", "slopes"),
    "workers": _tests_of("tests/workflows/test_worker_independence.py", "tests/workflows/test_determinism.py"),
    "batches": _tests_of("tests/workflows/test_batch_sizes.py"),
    "mutants": _benchmark("mutants", "--count", "1000"),
}  # fmt: skip


def _cases(numbers: Numbers) -> int:
    return sum(sum(outcomes.values()) for outcomes in numbers["counts"].values())


def _zoo(numbers: Numbers) -> str:
    wrong = ", ".join(f"{count} {name}" for name, count in numbers["wrong"].items())
    return f"{_cases(numbers):,} cases: {wrong}"


def _malicious(numbers: Numbers) -> str:
    return f"{_cases(numbers) // 2:,} files, each with and without the variable: {numbers['wrong']['code run']} run"


def _tests(numbers: Numbers) -> str:
    skipped = f", {numbers['skipped']} skipped" if numbers["skipped"] else ""
    return f"{numbers['passed']} tests passed, {numbers['failed']} failed{skipped}"


def _tests_pass(numbers: Numbers) -> bool:
    return bool(numbers["failed"] == 0 and numbers["passed"] > 0)


def _outcome(numbers: Numbers, name: str) -> int:
    return sum(form["outcomes"].get(name, 0) for form in numbers.values())


def _files(numbers: Numbers) -> int:
    return sum(
        sum(form["errors"].values()) + sum(form["outcomes"].values()) - form["outcomes"].get("refused", 0)
        for form in numbers.values()
    )


def _strange(numbers: Numbers) -> int:
    """Errors that are not a CheckpointError of a few lines."""
    return sum(sum(form["errors"].values()) - form["errors"].get("CheckpointError", 0) for form in numbers.values())


def _other(numbers: Numbers) -> int:
    """Files that were read as other weights, though they have a checksum."""
    return _outcome({name: form for name, form in numbers.items() if name != "legacy"}, "other")


def _weights(numbers: Numbers) -> str:
    told = ", ".join(f"{_outcome(numbers, name):,} {text}" for name, text in (
        ("refused", "refused"), ("same", "the same weights"), ("unfit", "fit no model"),
    ))  # fmt: skip
    legacy = numbers.get("legacy", {}).get("outcomes", {}).get("other", 0)
    warned = f"; {legacy:,} others in the form before torch 1.6, which has no checksum (a warning)" if legacy else ""
    return (
        f"{_files(numbers):,} files: {told}, {_other(numbers)} other weights, {_strange(numbers)} other errors{warned}"
    )


def _fuzz(numbers: Numbers) -> str:
    return "; ".join(
        f"{one['engine']}, {one['executions']:,} inputs in {one['seconds']:.0f} s, {len(one['findings'])} findings"
        for one in numbers["targets"]
    )


def _kills(numbers: Numbers) -> str:
    return (
        f"{numbers['equal']} of {numbers['kills']} to the same bits, in {numbers['runs']} runs; {numbers['corrupt']} "
        f"damaged files, {numbers['left']} temporaries, {numbers['orphans']} orphans"
    )


def _kills_held(numbers: Numbers) -> bool:
    bad = (numbers["kills"] - numbers["equal"], numbers["corrupt"], numbers["left"], numbers["orphans"])
    return numbers["kills"] > 0 and not any(bad)


def _writes(numbers: Numbers) -> str:
    return (
        f"{numbers['deaths_right']} of {numbers['deaths']} deaths and {numbers['errors_right']} of "
        f"{numbers['errors']} errors right; {numbers['elsewhere']} struck elsewhere than meant"
    )


def _writes_held(numbers: Numbers) -> bool:
    both = numbers["deaths"] + numbers["errors"]
    return bool(both > 0 and numbers["deaths_right"] + numbers["errors_right"] == both)


def _signals(numbers: Numbers) -> str:
    return f"{numbers['right']} of {numbers['signals']} right; the slowest end took {numbers['slowest']:.1f} s"


def _large(what: str) -> Callable[[Numbers], str]:
    def found(numbers: Numbers) -> str:
        spent = numbers[what]
        return (
            f"{spent['images']:,}: {spent['seconds']:.1f} s ({spent['processor']:.1f} s of the processor), "
            f"{spent['own']:.0f} MB, with workers {spent['everyone']:.0f} MB"
        )

    return found


def _within(what: str, seconds: float, megabytes: float) -> Callable[[Numbers], bool]:
    return lambda numbers: numbers[what]["seconds"] <= seconds and numbers[what]["everyone"] <= megabytes


def _slopes(numbers: Numbers) -> str:
    return ", ".join(f"{name} {found:,.0f}" for name, found in numbers["slopes"].items()) + " bytes"


def _mutants(numbers: Numbers) -> str:
    return (
        f"{numbers['score']:.1%}: {numbers['killed']:,} of {numbers['counted']:,}, {numbers['equivalent']} more are "
        f"equivalent; {len(numbers['unexplained'])} survivors without a reason"
    )


ROWS: Mapping[str, tuple[Row, ...]] = {
    "Bad input": (
        Row("bad images, folders, configs, checkpoints, splits, machines: the real command over each",
            "at least 300 cases: 0 tracebacks, hangs, crashes, wrong outcomes, changed input bytes", "zoo",
            _zoo, lambda n: not any(n["wrong"].values()), _cases, 300),
        Row("files that try to run code, also with `TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1`",
            "0 of at least 20 run", "malicious",
            _malicious, lambda n: not any(n["wrong"].values()), lambda n: _cases(n) // 2, 20),
        Row("the same files, loaded as careless tools do: the control", "100 % run", "control", _tests, _tests_pass),
        Row("randomly damaged checkpoints", "3,000: 0 load as other weights, one class of exception", "checkpoints",
            lambda n: _weights(n["damaged"]), lambda n: not _other(n["damaged"]) and not _strange(n["damaged"]),
            lambda n: _files(n["damaged"]), 3000),
        Row("mutated checkpoints, their checksums put right",
            "10,000: 0 load as other weights, one class of exception", "checkpoints",
            lambda n: _weights(n["mutated"]), lambda n: not _other(n["mutated"]) and not _strange(n["mutated"]),
            lambda n: _files(n["mutated"]), 10_000),
        *(Row(f"fuzzing of the reader of {what}", "10 minutes without a finding", f"fuzz-{name}",
              _fuzz, lambda n: not any(one["findings"] for one in n["targets"]),
              lambda n: int(n["targets"][0]["seconds"]), 595)
          for name, what in READERS.items()),
        Row("names that are escapes, markup, formulas, scripts, on everything that is printed and written",
            "0 control characters, formulas, foreign elements", "sinks", _tests, _tests_pass),
    ),
    "Bad moments": (
        Row("`kill -9` at random moments of a training",
            "100 of 100 resume to the same bits; 0 damaged files, temporaries, orphans", "kills",
            _kills, _kills_held, lambda n: int(n["kills"]), 100),
        *(Row(f"each system call by which `{command}` writes (of over 16 `write`s into one file every eighth): death "
              "there; ENOSPC, EIO, EDQUOT, EACCES there",
              "old files whole, then to the same end; of an error exit code 5", f"writes-{name}",
              _writes, _writes_held)
          for name, command in COMMANDS.items()),
        Row("SIGINT, SIGTERM and SIGHUP at random moments of every command", "40 of 40 saved within 10 s, right code",
            "signals", _signals, lambda n: n["right"] == n["signals"] and n["slowest"] <= 10,
            lambda n: int(n["signals"]), 40),
        Row("8 processes into one folder", "one runs, seven end with 5, files whole", "writer", _tests, _tests_pass),
    ),
    "Size": (
        Row("`split` of 100,000 JPEGs", "60 s, 400 MB", "large-split", _large("split"), _within("split", 60, 400),
            lambda n: int(n["split"]["images"]), 100_000),
        Row("a manifest of 1,000,000 rows, checked", "20 s, 500 MB", "large-manifest",
            _large("manifest"), _within("manifest", 20, 500), lambda n: int(n["manifest"]["images"]), 1_000_000),
        Row("a split file of 1,000,000 rows, checked: twice the columns, all hashed", "40 s, 500 MB", "large-file",
            _large("file"), _within("file", 40, 500), lambda n: int(n["file"]["images"]), 1_000_000),
        Row("memory per image, besides logits, and fingerprints that `audit` compares", "1 KB in every command",
            "slopes", _slopes, lambda n: bool(n["slopes"]) and max(n["slopes"].values()) <= 1024,
            lambda n: len(n["slopes"]), 7),
    ),
    "The same numbers": (
        Row("weights and metrics with 0 or more workers and every cache, with 1 or 2 threads, and again", "equal bits",
            "workers", _tests, _tests_pass),
        Row("decisions and metrics with batches of 1, 7, 64", "equal decisions; metrics within 1e-6", "batches",
            _tests, _tests_pass),
    ),
    "The tests themselves": (
        Row("small faults in the pure modules that the tests see",
            "90 % of 1,000; each survivor with a reason in `tests/benchmarks/mutants.csv`", "mutants",
            _mutants, lambda n: n["score"] >= 0.9 and not n["unexplained"], lambda n: int(n["mutants"]), 1000),
    ),
}  # fmt: skip
