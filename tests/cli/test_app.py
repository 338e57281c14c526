"""The command line as a whole."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.commands import run_command
from tests.conftest import REPOSITORY, TINY, draw_classes

EVALCAM = [sys.executable, "-m", "evalcam_cli"]


def test_the_command_line_starts_without_heavy_libraries() -> None:
    heavy = "{'torch', 'torchvision', 'sklearn', 'matplotlib', 'scipy', 'pydantic', 'numpy'}"
    code = f"import sys, evalcam_cli.cli.app; sys.exit(bool({heavy} & sys.modules.keys()))"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("module", ["evalcam_cli.workflows.split", "evalcam_cli.report.evaluation"])
def test_rooms_without_torch_stay_without_it(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_saved_predictions_are_evaluated_without_torch(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("target,p:cat,p:dog\n" + "cat,0.9,0.1\ndog,0.2,0.8\n" * 9)
    code = (
        "import sys\nfrom evalcam_cli.cli.app import main\n"
        f"try: main(['evaluate', '--predictions', r'{tmp_path / 'p.csv'}', '--out', r'{tmp_path / 'out'}'])\n"
        "except SystemExit as stop: sys.exit(stop.code or 99 * ('torch' in sys.modules))"
    )

    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert "accuracy" in done.stdout


@pytest.mark.parametrize(
    "command", ["split", "train", "evaluate", "gradcam", "predict", "run", "compare", "calibrate", "audit"]
)
def test_every_command_explains_every_option(command: str) -> None:
    result = run_command(command, "--help")

    assert result.code == 0
    assert "--set" in result.out
    assert "--seed" in result.out
    assert "--json" in result.out
    options = [line for line in result.out.splitlines() if line.strip().startswith("-")]
    assert all(len(line.split("  ")) > 1 or line for line in options)


def test_the_version_is_shown() -> None:
    assert run_command("--version").out == "evalcam 0.1.0\n"


def test_a_whole_run_prints_metrics_and_where_everything_is(tmp_path: Path) -> None:
    data = draw_classes(tmp_path / "data", {"cat": 14, "dog": 14})
    (tmp_path / "c.yaml").write_text("train: {epochs: 2}\n")

    result = run_command("run", str(tmp_path / "c.yaml"), str(data), "--out", str(tmp_path / "out"), *TINY)

    assert result.code == 0, result.err
    assert "balanced_accuracy" in result.out
    assert result.out.splitlines()[-1] == str(tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir() if path.is_dir()} == {"train", "evaluate", "gradcam"}
    assert not list((tmp_path / "data").rglob("*.csv"))


def test_json_is_one_document_on_stdout(tmp_path: Path) -> None:
    data = draw_classes(tmp_path / "data", {"cat": 14, "dog": 14})

    split = run_command("split", str(data), "--out", str(tmp_path / "s.csv"), "--json")
    trained = run_command(
        "train", "--split", str(tmp_path / "s.csv"), "--out", str(tmp_path / "t"), "--epochs", "1", "--json", *TINY
    )
    evaluated = run_command(
        "evaluate", "--ckpt", str(tmp_path / "t"), "--out", str(tmp_path / "e"), "--json", *TINY[-2:]
    )
    explained = run_command(
        "gradcam", str(data / "cat" / "000.png"), "--ckpt", str(tmp_path / "t"), "--out", str(tmp_path / "g"), "--json"
    )

    documents = [json.loads(one.out) for one in (split, trained, evaluated, explained)]
    assert documents[0]["counts"]["train"] == {"cat": 10, "dog": 10}
    assert documents[1]["runs"][0]["epochs"] == 1
    assert documents[2] == json.loads((tmp_path / "e" / "metrics.json").read_text()) | {"gates": []} | {
        key: documents[2][key] for key in documents[2].keys() - {"gates"}
    }
    assert documents[3][0]["method"] == "gradcam"


def test_gradcam_finds_the_newest_run_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = draw_classes(tmp_path / "data", {"cat": 14, "dog": 14})
    monkeypatch.chdir(tmp_path)
    run_command("train", "data", "--out", "runs/first", "--epochs", "1", *TINY)

    result = run_command("gradcam", str(data / "dog" / "001.png"), "--class", "1", "--out", "maps")

    assert result.code == 0, result.err
    assert "runs/first/checkpoints/best.safetensors" in result.err
    assert (tmp_path / "maps" / "001.gradcam.dog.png").exists()


def test_a_missed_gate_ends_with_4_after_the_numbers(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("target,p:cat,p:dog\n" + "cat,0.9,0.1\ndog,0.7,0.3\n" * 9)

    result = run_command(
        "evaluate",
        "--predictions",
        str(tmp_path / "p.csv"),
        "--out",
        str(tmp_path / "o"),
        "--fail-under",
        "accuracy>=0.9",
    )

    assert result.code == 4
    assert "accuracy" in result.out
    assert "accuracy >= 0.9" in result.err
    assert (tmp_path / "o" / "metrics.json").exists()


def test_an_empty_argument_is_not_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(draw_classes(tmp_path / "data", {"cat": 4, "dog": 4}))

    outcome = run_command("split", "", "--out", str(tmp_path / "s.csv"))

    assert outcome.code == 2
    assert "an argument is empty" in outcome.err
    assert not (tmp_path / "s.csv").exists()


def test_what_nothing_can_catch_of_a_killed_worker_is_not_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Torch raises in the destructor of its iterator too."""

    class Iterator:
        def __del__(self) -> None:
            raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed.")

    def work(*_: object, **__: object) -> None:
        Iterator()
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed.")

    monkeypatch.setattr("evalcam_cli.workflows.split.make_split", work)

    outcome = run_command("split", str(tmp_path), "--out", str(tmp_path / "s.csv"))

    assert outcome.code == 5
    assert "killed" in outcome.err
    assert "Exception ignored" not in outcome.err + capsys.readouterr().err


def test_a_connection_that_fails_elsewhere_is_no_killed_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def work(*_: object, **__: object) -> None:
        raise ConnectionResetError("a bug")

    monkeypatch.setattr("evalcam_cli.workflows.split.make_split", work)

    with pytest.raises(ConnectionResetError, match="a bug"):
        run_command("split", str(tmp_path), "--out", str(tmp_path / "s.csv"))


def test_a_link_to_nowhere_is_no_free_place_for_predictions(tmp_path: Path) -> None:
    (tmp_path / "p.csv").symlink_to("none")

    outcome = run_command("predict", str(draw_classes(tmp_path / "data", {"cat": 1})), "--out", str(tmp_path / "p.csv"))

    assert outcome.code == 2
    assert "is there already" in outcome.err
    assert (tmp_path / "p.csv").is_symlink()


def test_a_reader_that_leaves_early_is_no_error(tmp_path: Path) -> None:
    command = f"{' '.join(EVALCAM)} evaluate --help | head -c 1; exit ${{PIPESTATUS[0]}}"

    done = subprocess.run(["bash", "-c", command], check=False, capture_output=True, text=True)

    assert done.stderr == ""
    assert done.returncode in (0, 141)


@pytest.mark.slow
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interruption_keeps_what_is_finished_and_says_how_to_go_on(
    tmp_path: Path, sent: signal.Signals, code: int
) -> None:
    data = draw_classes(tmp_path / "data", {"cat": 14, "dog": 14})
    options = [str(data), "--out", str(tmp_path / "run"), "--epochs", "500", *TINY, "--set", "data.workers=1"]
    # a shell that runs the tests in the background has SIGINT ignored, and its children inherit that
    listening = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    start = [sys.executable, "-c", listening + "from evalcam_cli.cli.app import main; main()", "train", *options]
    process = subprocess.Popen(start, stderr=subprocess.PIPE, text=True, start_new_session=True)
    last = tmp_path / "run" / "checkpoints" / "last.safetensors"
    deadline = time.monotonic() + 120
    while not last.exists() and time.monotonic() < deadline:
        time.sleep(0.05)

    os.killpg(process.pid, sent)  # as a terminal or a scheduler does: the workers get it too
    _, err = process.communicate(timeout=60)

    assert process.returncode == code
    assert "--resume" in err
    assert "Traceback" not in err
    assert last.exists()
    assert not list((tmp_path / "run").rglob("*.tmp"))


def test_names_from_outside_reach_the_terminal_as_text(tmp_path: Path) -> None:
    data = draw_classes(tmp_path / "data", {"[bold red]x": 12, "a\x1b[2Jb": 12, "=1+1": 12})

    result = run_command("split", str(data), "--out", str(tmp_path / "s.csv"))

    assert result.code == 0, result.err
    assert "[bold red]x" in result.out
    assert "\x1b" not in result.out + result.err
    assert "a\\x1b[2Jb" in result.out


@pytest.mark.parametrize("path", sorted((REPOSITORY / "configs").glob("*.yaml")), ids=lambda path: path.name)
def test_every_shipped_config_loads_and_says_its_command(path: Path) -> None:
    from evalcam_cli.config_sources import load_config

    load_config(path)

    said = path.read_text(encoding="utf-8")
    assert f"evalcam run configs/{path.name}" in said or f"evalcam tune configs/{path.name}" in said
