"""Several processes at once, without torchrun: each does the same list of tasks and writes down what came of them.

A task is a command line, or `module:function` with its arguments, whose result is kept.
"""

import importlib
import json
import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.conftest import REPOSITORY

Task = list[str]


@dataclass(frozen=True)
class Answer:
    """What one process made of one task."""

    code: int = 0
    out: str = ""
    err: str = ""
    value: Any = None


def in_processes(tasks: list[Task], folder: Path, *, size: int = 2) -> list[list[Answer]]:
    """The answers to each task, by rank."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "tasks.json").write_text(json.dumps(tasks), encoding="utf-8")
    common = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.processes", str(folder), str(rank)],
            env={**os.environ, **common, "RANK": str(rank), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(size)},
            cwd=REPOSITORY,
        )
        for rank in range(size)
    ]
    try:
        codes = [process.wait(timeout=900) for process in started]
    finally:
        for process in started:
            process.kill()
            process.wait()
    assert codes == [0] * size
    answers = [json.loads((folder / f"{rank}.json").read_text(encoding="utf-8")) for rank in range(size)]
    return [[Answer(**one) for one in of_task] for of_task in zip(*answers, strict=True)]


def _main(folder: Path, rank: str) -> None:
    import torch

    from evalcam_cli.cli import processes
    from tests.cli.commands import run_command

    torch.set_num_threads(1)
    processes._PATIENCE = 0  # nobody ends them here
    answers = []
    for task in json.loads((folder / "tasks.json").read_text(encoding="utf-8")):
        module, colon, name = task[0].partition(":")
        if colon:
            answers.append({"value": getattr(importlib.import_module(module), name)(*task[1:])})
        else:
            answers.append(vars(run_command(*task)))
    (folder / f"{rank}.json").write_text(json.dumps(answers), encoding="utf-8")


if __name__ == "__main__":
    _main(Path(sys.argv[1]), sys.argv[2])
