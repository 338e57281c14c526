"""Files that a user names."""

import os
import threading
from pathlib import Path

import pytest

from evalcam_cli.inputs import read_bytes


def test_a_file_is_read_to_the_limit_and_one_byte_more(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"12345")

    assert read_bytes(tmp_path / "x", 5) == b"12345"
    assert read_bytes(tmp_path / "x", 3) == b"1234"


def test_a_pipe_that_nobody_writes_to_is_empty(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    assert read_bytes(tmp_path / "pipe", 10) == b""


def test_a_pipe_that_somebody_writes_to_is_read_to_its_end() -> None:
    """As the shell's `<(…)` makes one."""
    reading, writing = os.pipe()

    def write() -> None:
        os.write(writing, b"later")
        os.close(writing)

    later = threading.Timer(0.2, write)
    later.start()

    content = read_bytes(Path(f"/dev/fd/{reading}"), 10)
    later.join()
    os.close(reading)

    assert content == b"later"


def test_a_device_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="not a regular file"):
        read_bytes(Path("/dev/zero"), 10)
    with pytest.raises(IsADirectoryError):
        read_bytes(tmp_path, 10)
