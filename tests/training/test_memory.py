"""What the process frees stays with it."""

import subprocess
import sys

import pytest

_CODE = """
import resource
from evalcam_cli.training.memory import keep_freed_memory

def pages_per_round():
    for _ in range(3):  # the first rounds are given their memory
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for megabytes in (5, 40, 80):  # more than 32 is above what glibc ever keeps by itself
            bytearray(megabytes << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(pages_per_round(), keep_freed_memory(), pages_per_round())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's setting")
def test_memory_is_not_fetched_from_the_system_again() -> None:
    done = subprocess.run([sys.executable, "-c", _CODE], capture_output=True, text=True, check=True)

    before, taken, after = done.stdout.split()
    if taken == "False":
        pytest.skip("another C library")
    assert int(before) > 30  # of the 125 MB most, even in pages of 2 MB
    assert int(after) < int(before) / 20


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_elsewhere_nothing_is_set(platform: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from evalcam_cli.training import memory

    monkeypatch.setattr(sys, "platform", platform)

    assert memory.keep_freed_memory() is False
