"""Cores and memory within the limits of a container, from made-up systems."""

import os
from pathlib import Path

import pytest

from evalcam_cli.data.machine import available_memory, processes_here, usable_cores

GROUP = "sys/fs/cgroup"


def system(root: Path, files: dict[str, str]) -> Path:
    for name, text in {"proc/meminfo": "MemTotal: 9000 kB\nMemAvailable:    8000 kB\n", **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, 8),
        ({"proc/self/cgroup": "0::/a/b", f"{GROUP}/a/b/cpu.max": "max 100000"}, 8),
        ({"proc/self/cgroup": "0::/a/b", f"{GROUP}/a/b/cpu.max": "350000 100000"}, 3),
        ({"proc/self/cgroup": "0::/a/b", f"{GROUP}/a/cpu.max": "200000 100000"}, 2),  # of a group around it
        ({"proc/self/cgroup": "0::/", f"{GROUP}/cpu.max": "50000 100000"}, 1),  # half a core is one
        ({"proc/self/cgroup": "0::/../x", f"{GROUP}/cpu.max": "400000 100000"}, 4),  # a path of the host
        ({"proc/self/cgroup": "0::/far/away", f"{GROUP}/cpu.max": "1600000 100000"}, 8),
        (
            {
                "proc/self/cgroup": "4:cpu,cpuacct:/docker/1\n3:memory:/docker/1",
                f"{GROUP}/cpu,cpuacct/cpu.cfs_quota_us": "250000",
                f"{GROUP}/cpu,cpuacct/cpu.cfs_period_us": "100000",
            },
            2,
        ),
        (
            {
                "proc/self/cgroup": "4:cpu:/",
                f"{GROUP}/cpu/cpu.cfs_quota_us": "-1",
                f"{GROUP}/cpu/cpu.cfs_period_us": "100000",
            },
            8,
        ),
        ({"proc/self/cgroup": "nonsense\n::\n0::/", f"{GROUP}/cpu.max": "a b c"}, 8),
    ],
)
def test_cores_are_those_of_the_tightest_limit(files: dict[str, str], cores: int, tmp_path: Path) -> None:
    assert usable_cores(system(tmp_path, files)) == cores


@pytest.mark.parametrize(
    ("files", "kilobytes"),
    [
        ({}, 8000),
        ({"proc/self/cgroup": "0::/a", f"{GROUP}/a/memory.max": "max", f"{GROUP}/a/memory.current": "1"}, 8000),
        (
            {
                "proc/self/cgroup": "0::/a",
                f"{GROUP}/a/memory.max": str(3000 * 1024),
                f"{GROUP}/a/memory.current": str(2500 * 1024),
                f"{GROUP}/a/memory.stat": f"anon 7\ninactive_file {1000 * 1024}",  # can be had back
            },
            1500,
        ),
        (
            {
                "proc/self/cgroup": "9:memory:/docker/1",
                f"{GROUP}/memory/memory.limit_in_bytes": str(2000 * 1024),
                f"{GROUP}/memory/memory.usage_in_bytes": str(500 * 1024),
                f"{GROUP}/memory/memory.stat": f"inactive_file 1\ntotal_inactive_file {100 * 1024}",
            },
            1600,
        ),
        (
            {
                "proc/self/cgroup": "0::/",
                f"{GROUP}/memory.max": "4096",
                f"{GROUP}/memory.current": "8192",  # the limit was lowered
            },
            0,
        ),
    ],
)
def test_memory_is_that_of_the_tightest_limit(files: dict[str, str], kilobytes: int, tmp_path: Path) -> None:
    assert available_memory(system(tmp_path, files)) == kilobytes * 1024


def test_a_system_that_does_not_say_is_taken_for_one_with_some_memory(tmp_path: Path) -> None:
    assert available_memory(tmp_path) > 1 << 28


@pytest.mark.parametrize(("said", "count"), [("3", 3), ("", 1), ("many", 1)])
def test_processes_of_this_machine_are_those_that_torchrun_names(
    said: str, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert processes_here() == 1
    for name, value in {"RANK": "0", "WORLD_SIZE": "6", "LOCAL_WORLD_SIZE": said, "MASTER_ADDR": "x"}.items():
        monkeypatch.setenv(name, value)

    assert processes_here() == count
