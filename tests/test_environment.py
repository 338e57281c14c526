"""What only a real shell shows: streams, locales, limits and variables that are set before Python starts."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.conftest import REPOSITORY, draw_classes, read_rows
from tests.zoo.cases import Kit
from tests.zoo.driver import make_kit
from tests.zoo.formats import encoded, picture

pytestmark = [
    pytest.mark.skipif(os.name == "nt", reason="POSIX only"),
    pytest.mark.slow,
    pytest.mark.xdist_group("environment"),
]


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Kit:
    return make_kit(tmp_path_factory.mktemp("kit"))


def shell(
    *words: object, around: str = "{}", variables: dict[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    """The command in a shell, `around` it what else stands on the line; the exit code is the command's own."""
    command = shlex.join([sys.executable, "-m", "evalcam_cli", *map(str, words)])
    line = f"set -o pipefail; {around.format(command)}"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **(variables or {})}
    return subprocess.run(
        ["bash", "-c", line], cwd=REPOSITORY, env=environment, capture_output=True, timeout=240, check=False
    )


def predict(kit: Kit, out: Path) -> list[object]:
    return ["predict", kit.data / "cat", "--ckpt", kit.checkpoint, "--out", out / "p.csv"]


def test_a_full_disk_behind_stdout_is_one_line_and_exit_5(kit: Kit, tmp_path: Path) -> None:
    done = shell("split", kit.data, "--out", tmp_path / "s.csv", around="{} > /dev/full")

    assert done.returncode == 5
    assert done.stderr.decode().splitlines() == ["evalcam: error: cannot write the output: No space left on device"]
    assert (tmp_path / "s.csv").exists()


def test_a_closed_stdout_changes_nothing_about_the_files(kit: Kit, tmp_path: Path) -> None:
    done = shell("split", kit.data, "--out", tmp_path / "s.csv", around="{} >&-")

    assert done.returncode in (0, 5)
    assert b"Traceback" not in done.stderr
    assert (tmp_path / "s.csv").exists()


def test_a_reader_that_left_is_141_and_nothing_is_said(kit: Kit, tmp_path: Path) -> None:
    done = shell("split", kit.data, "--out", tmp_path / "s.csv", "--json", around="{} | (exec <&-; sleep 9)")

    assert done.returncode == 141
    assert done.stderr == b""


@pytest.mark.skipif(torch.version.cuda is not None, reason="a CUDA build of torch maps more when it is imported")
def test_two_gigabytes_of_address_space_are_enough_to_predict(kit: Kit, tmp_path: Path) -> None:
    done = shell(*predict(kit, tmp_path), around="ulimit -v 2000000; {}")

    assert done.returncode == 0, done.stderr.decode()
    assert len(read_rows(tmp_path / "p.csv")) == 10


def test_names_survive_a_locale_that_knows_only_ascii(tmp_path: Path) -> None:
    draw_classes(tmp_path / "data", {"cat": 3, "dog": 3})
    names = [os.fsencode("고양이.png"), b"bad\xff\xfe.png", os.fsencode("caf\u00e9 \u202egnp.png")]
    for number, name in enumerate(names):
        Path(os.fsdecode(os.fsencode(tmp_path / "data" / "cat") + b"/" + name)).write_bytes(encoded(picture(number)))
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}

    done = shell("split", tmp_path / "data", "--out", tmp_path / "s.csv", variables=ascii_only)

    assert done.returncode == 0, done.stderr.decode()
    written = (tmp_path / "s.csv").read_bytes()
    assert all(b"cat/" + name + b"," in written for name in names)


def test_a_dumb_terminal_gets_neither_escapes_nor_carriage_returns(kit: Kit, tmp_path: Path) -> None:
    done = shell(*predict(kit, tmp_path), variables={"TERM": "dumb", "NO_COLOR": "1"})

    assert done.returncode == 0, done.stderr.decode()
    assert b"\x1b" not in done.stdout + done.stderr
    assert b"\r" not in done.stdout + done.stderr


def test_plots_need_neither_a_home_nor_a_screen_nor_a_sensible_backend(kit: Kit, tmp_path: Path) -> None:
    nowhere = {"HOME": "/nonexistent", "XDG_CONFIG_HOME": "/nonexistent", "XDG_CACHE_HOME": "/nonexistent"}
    strange = {"MPLBACKEND": "banana", "MPLCONFIGDIR": "/nonexistent", "DISPLAY": ""}
    words = ["evaluate", "--split", kit.split, "--ckpt", kit.checkpoint, "--set", "evaluate.bootstrap=100"]

    done = shell(*words, "--out", tmp_path / "out", variables={**nowhere, **strange})

    assert done.returncode == 0, done.stderr.decode()
    assert (tmp_path / "out" / "confusion_matrix.png").exists()
    assert b"atplotlib" not in done.stderr
