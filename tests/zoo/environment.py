"""The machine at its worst: full disks, taken places, streams that nobody reads, settings that make no sense."""

import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path

from evalcam_cli.files import LOCK_NAME
from tests.conftest import TINY, draw_classes
from tests.zoo import settings
from tests.zoo.cases import CANARY, Case, Result, expected
from tests.zoo.formats import encoded, picture

_COMMANDS: dict[str, tuple[str, ...]] = {
    "split": ("split", "{data}", "--out", "{out}.csv"),
    "predict": ("predict", "{data}/cat", "--ckpt", "{ckpt}", "--out", "{out}.csv"),
    "gradcam": ("gradcam", "{data}/cat", "--ckpt", "{ckpt}", "--out", "{out}"),
    "evaluate": (
        "evaluate", "--data", "{data}", "--ckpt", "{ckpt}", "--out", "{out}", "--set", "evaluate.bootstrap=100",
    ),
    "train": ("train", "--split", "{split}", "--out", "{out}", "--epochs", "1", "--device", "cpu", *TINY),
}  # fmt: skip


def cases() -> list[Case]:
    return [*_disks(), *_places(), *_streams(), *_surroundings(), *_processes()]


def _case(
    name: str,
    command: tuple[str, ...],
    outcome: str,
    *words: str,
    setting: Callable[[Path, Path], None] | None = None,
    make: Callable[[Path], None] = lambda here: None,
    check: Callable[[Result], str] | None = None,
) -> Case:
    """A case whose outcome is written as `expected` reads it."""
    kind, code = expected(outcome)
    return Case(
        f"environment/{name}", lambda here, kit: make(here), command, kind, code, words, check, 60, 3000, setting
    )


# Disks


def _disks() -> Iterator[Case]:
    for name, command in _COMMANDS.items():
        yield _case(f"read_only_disk-{name}", command, "R5", "read-only", setting=settings.read_only_disk)
        yield _case(f"no_permission-{name}", command, "R5", "permission", setting=settings.no_permission)
        yield _case(f"small_files-{name}", command, "R5", "too large", setting=settings.small_files)
    for name in ("gradcam", "evaluate", "train"):
        yield _case(f"full_disk-{name}", _COMMANDS[name], "R5", "No space left", setting=settings.full_disk)
    yield _case("nearly_full_disk-train", _COMMANDS["train"], "R5", "No space left", setting=settings.nearly_full_disk)
    yield _case("no_inodes-evaluate", _COMMANDS["evaluate"], "R5", "No space left", setting=settings.few_files)


# Where results are to go


def _places() -> Iterator[Case]:
    for name in ("gradcam", "evaluate", "train"):
        words = _COMMANDS[name]
        place = words.index("{out}")

        def at(where: str, words: tuple[str, ...] = words, place: int = place) -> tuple[str, ...]:
            return (*words[:place], where, *words[place + 1 :])

        yield _case(f"out_is_file-{name}", at("{here}/file"), "R2", "is a file", make=_file)
        yield _case(f"out_below_file-{name}", at("{here}/file/x"), "R2", make=_file)
        yield _case(f"out_long-{name}", at("{out}" + "/x" * 2100), "R2", "too long")
        yield _case(f"out_long_name-{name}", at("{out}" + "x" * 300), "R2", "too long")
        yield _case(f"out_in_data-{name}", at("{data}/cat/results"), "R2", "data folder")
        yield _case(f"out_root-{name}", at("/"), "R2", "not a place")
        yield _case(f"out_not_empty-{name}", at("{here}"), "R2", "not empty", "metrics.json", make=_other_run)
        yield _case(
            f"out_locked-{name}", at("{here}"), "R5", "another evalcam run", setting=settings.locked, make=_lock_file
        )
        yield _case(f"out_dangling-{name}", at("{here}/lost"), "R2", make=_dangling)
        yield _case(f"out_in_proc-{name}", at("/proc/x/y"), "R5")
        yield _case(
            f"out_pipe-{name}", at("{here}/pipe"), "R2", "is a file", make=lambda here: os.mkfifo(here / "pipe")
        )
    for name in ("split", "predict"):
        words = _COMMANDS[name][:-1]
        yield _case(f"out_is_folder-{name}", (*words, "{here}"), "R2", "is a folder")
        yield _case(f"out_taken-{name}", (*words, "{here}/file"), "R2", "there already", make=_file)
        yield _case(
            f"out_of_a_stranger-{name}", (*words, "{here}/file", "--overwrite"), "R2", "did not write", make=_file
        )
        yield _case(f"out_below_file-{name}", (*words, "{here}/file/x.csv"), "R2", make=_file)
        yield _case(f"out_long_name-{name}", (*words, "{out}" + "x" * 300), "R2", "too long")
        yield _case(f"out_in_data-{name}", (*words, "{data}/cat/x.csv"), "R2", "data folder")
        yield _case(f"out_device-{name}", (*words, "/dev/full"), "R2")
        yield _case(f"out_dangling-{name}", (*words, "{here}/lost"), "R2", make=_dangling)
        yield _case(f"out_pipe-{name}", (*words, "{here}/pipe"), "R2", make=lambda here: os.mkfifo(here / "pipe"))
        yield _case(f"out_in_proc-{name}", (*words, "/proc/x/y.csv"), "R5")
        yield _case(f"out_odd_name-{name}", (*words, "{out}\x1b[2J [red]\n\udcff.csv"), "accept")
    report = ("split", "{here}/data", "--out", "{here}/results/split.csv")
    yield _case("report_is_a_stranger", report, "R2", "unreadable.csv", "did not write", make=_taken_report)


def _file(here: Path) -> None:
    (here / "file").write_text("somebody's")


def _other_run(here: Path) -> None:
    (here / "metrics.json").write_text('{"accuracy": 1}')


def _lock_file(here: Path) -> None:
    (here / LOCK_NAME).touch()


def _dangling(here: Path) -> None:
    (here / "lost").symlink_to("none/at/all")


def _taken_report(here: Path) -> None:
    draw_classes(here / "data", {"cat": 4, "dog": 4})
    (here / "data" / "cat" / "x.png").write_bytes(b"damaged")
    (here / "results").mkdir()
    (here / "results" / "unreadable.csv").write_text("my own list\n")


# Streams


def _streams() -> Iterator[Case]:
    for name in ("split", "predict", "evaluate", "gradcam"):
        words = _COMMANDS[name]
        yield _case(f"gone_reader-{name}", words, "R141", setting=settings.gone_reader, check=_silent)
        yield _case(f"full_stdout-{name}", words, "R5", "No space left", setting=settings.full_stdout)
        yield _case(f"closed_stdout-{name}", words, "accept", setting=settings.closed_stdout)
        yield _case(f"closed_stdin-{name}", words, "accept", setting=settings.closed_stdin)
        yield _case(f"full_stderr-{name}", words, "accept", setting=settings.full_stderr)
    yield _case("full_stdout-json", (*_COMMANDS["predict"], "--json"), "R5", setting=settings.full_stdout)
    yield _case(
        "gone_reader-json", (*_COMMANDS["predict"], "--json"), "R141", setting=settings.gone_reader, check=_silent
    )
    yield _case("gone_reader-help", ("train", "--help"), "R141", setting=settings.gone_reader, check=_silent)
    yield _case("full_stdout-version", ("--version",), "R5", setting=settings.full_stdout)


def _silent(result: Result) -> str:
    return f"something is said: {result.err!r}" if "error" in result.err else ""


# Surroundings


def _surroundings() -> Iterator[Case]:
    accepted = {
        "gone_folder": settings.gone_folder, "no_temporaries": settings.no_folder_for_temporaries,
        "no_home": settings.no_home, "private_files": settings.private_files, "odd_variables": settings.odd_variables,
        "few_open_files": settings.few_open_files, "unwritable_summary": settings.unwritable_summary,
    }  # fmt: skip
    for number, (name, setting) in enumerate(accepted.items()):
        for command in ("split", "evaluate") if number % 2 else ("predict", "gradcam"):
            yield _case(f"{name}-{command}", _COMMANDS[command], "accept", setting=setting)
    for command in ("train", "evaluate", "gradcam", "predict"):
        words = (*(word for word in _COMMANDS[command] if word not in ("--device", "cpu")), "--device", "cuda")
        yield _case(f"cuda_asked-{command}", words, "R5", "CUDA", setting=settings.no_graphics_card)
    yield _case("half_launched", _COMMANDS["predict"], "accept", setting=settings.half_launched)
    yield _case("oddly_launched", _COMMANDS["predict"], "R2", "torchrun", setting=settings.oddly_launched)
    unsafe = ("predict", "{data}/cat", "--ckpt", "{here}/x.pt", "--arch", "resnet18", "--out", "{out}.csv")
    yield _case("unsafe_loading", unsafe, "R3", setting=settings.unsafe_loading, make=_pickled)
    relative = ("split", "data", "--out", "{out}.csv")
    yield _case("gone_folder-relative", relative, "R2", setting=settings.gone_folder)
    yield _case("empty_argument", ("split", "", "--out", "{out}.csv"), "R2", "empty")


class _Touch:
    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f'touch "${CANARY}"',)


def _pickled(here: Path) -> None:
    (here / "x.pt").write_bytes(pickle.dumps(_Touch(), 2))


# Processes


def _processes() -> Iterator[Case]:
    workers = ("--set", "data.workers=1", "--set", "evaluate.batch_size=2", "--set", "train.batch_size=2")
    train = ("train", "{data}", "--out", "{out}", "--epochs", "2", "--device", "cpu", *TINY, *workers)
    yield _case("worker_killed-train", train, "R5", "killed", setting=settings.killed_worker)
    many = ("split", "{here}", "--out", "{out}.csv")
    yield _case("worker_killed-split", many, "accept", setting=settings.killed_worker, make=_many)
    yield _case("small_shared_memory", train, "accept", setting=settings.small_shared_memory)


def _many(here: Path) -> None:
    for number in range(160):
        label = "cat" if number % 2 else "dog"
        (here / label).mkdir(exist_ok=True)
        (here / label / f"{number}.png").write_bytes(encoded(picture(number, 24, 18)))
