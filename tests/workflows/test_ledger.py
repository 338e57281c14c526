"""The test ledger: what counts as a look, who may be counted with whom, and that it never stops a run."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from evalcam_cli.workflows.ledger import LEDGER_NAME, Look, Looks, record_look

LOOK = Look("c0ffee", "f00d", "test", 100, {"accuracy": 0.9, "roc_auc": None})


@pytest.fixture
def split(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    path = folder / "split.csv"
    path.write_text("path,label,set\n", encoding="utf-8")
    return path


def lines(split: Path) -> list[dict[str, object]]:
    text = (split.parent / LEDGER_NAME).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def test_every_look_at_the_same_set_is_counted_with_its_checkpoints(split: Path) -> None:
    first = record_look(split, None, LOOK)
    again = record_look(split, None, LOOK)
    other_model = record_look(split, None, replace(LOOK, checkpoint="beef"))
    other_split = record_look(split, None, replace(LOOK, split="feed"))
    other_set = record_look(split, None, replace(LOOK, subset="all"))

    assert (first, again, other_model) == (Looks(1, 1), Looks(2, 1), Looks(3, 2))
    assert other_split == other_set == Looks(1, 1)
    assert len(lines(split)) == 5


def test_a_line_says_when_what_and_with_what_result(split: Path) -> None:
    now = datetime(2026, 3, 4, 5, 6, 7, 890, tzinfo=timezone(timedelta(hours=9)))

    record_look(split, None, LOOK, now=now)

    (line,) = lines(split)
    assert line.pop("evalcam")
    assert line == {
        "time": "2026-03-03T20:06:07+00:00",
        "checkpoint": "c0ffee",
        "split": "f00d",
        "subset": "test",
        "n": 100,
        "metrics": {"accuracy": 0.9, "roc_auc": None},
    }


def test_the_time_is_now_unless_given(split: Path) -> None:
    before = datetime.now(UTC).replace(microsecond=0)

    record_look(split, None, LOOK)

    assert before <= datetime.fromisoformat(str(lines(split)[0]["time"])) <= datetime.now(UTC)


@pytest.mark.parametrize("subset", ["train", "val"])
def test_the_sets_that_are_there_to_be_looked_at_are_not_recorded(split: Path, subset: str) -> None:
    assert record_look(split, None, replace(LOOK, subset=subset)) is None

    assert not (split.parent / LEDGER_NAME).exists()


def test_without_a_split_there_is_no_place(tmp_path: Path) -> None:
    assert record_look(None, tmp_path, LOOK) is None

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("data", [".", ".."])
def test_nothing_is_written_into_the_data_folder(split: Path, data: str, caplog: pytest.LogCaptureFixture) -> None:
    assert record_look(split, split.parent / data, LOOK) is None

    assert not (split.parent / LEDGER_NAME).exists()
    assert "lies in the data folder" in caplog.text


def test_a_split_linked_from_elsewhere_does_not_lead_into_the_data_folder(split: Path, tmp_path: Path) -> None:
    link = tmp_path / "linked.csv"
    link.symlink_to(split)

    assert record_look(link, split.parent, LOOK) is None
    assert not (split.parent / LEDGER_NAME).exists()


def test_damaged_lines_are_skipped_and_said(split: Path, caplog: pytest.LogCaptureFixture) -> None:
    record_look(split, None, LOOK)
    with (split.parent / LEDGER_NAME).open("ab") as stream:
        for line in (
            b"{",
            b"\xff\xfe",
            b"[1]",
            b'{"split": 1}',
            b'{"split": "f00d", "subset": "test", "checkpoint": 1}',
        ):
            stream.write(line + b"\n")
        stream.write(b"[" * 50_000 + b"\n\n" + b'"' + b"x" * 100_000 + b'"\n')
        stream.write(b'{"split": "f00d", "subset"')  # cut off by a crash

    looks = record_look(split, None, LOOK)

    assert looks == Looks(2, 1)
    assert "8 lines cannot be read and are not counted" in caplog.text
    last = (split.parent / LEDGER_NAME).read_bytes().splitlines()[-1]
    assert json.loads(last)["checkpoint"] == "c0ffee"


def test_a_link_a_pipe_or_a_folder_in_its_place_is_refused(
    split: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place, elsewhere = split.parent / LEDGER_NAME, tmp_path / "elsewhere"
    place.symlink_to(elsewhere)
    assert record_look(split, None, LOOK) is None
    place.unlink()
    os.mkfifo(place)
    assert record_look(split, None, LOOK) is None
    place.unlink()
    place.mkdir()
    assert record_look(split, None, LOOK) is None

    assert not elsewhere.exists()
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 3
    assert "a symbolic link, which is not followed" in caplog.text
    assert "no regular file" in caplog.text


def test_a_place_that_cannot_be_written_is_a_warning(
    split: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)

    assert record_look(split, None, LOOK) is None
    assert "no test ledger: cannot write" in caplog.text
    assert "Permission denied" in caplog.text


def test_a_full_disk_is_a_warning_and_the_next_line_begins_anew(
    split: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:10]))
    assert record_look(split, None, LOOK) is None
    monkeypatch.undo()

    assert record_look(split, None, LOOK) == Looks(1, 1)
    assert "the line was cut off" in caplog.text
    assert "cannot be read" not in caplog.text  # what was written of it was taken back


def test_runs_that_look_at_the_same_time_are_all_counted(split: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from evalcam_cli.workflows.ledger import Look, record_look\n"
        "look = Look(sys.argv[2], 'f00d', 'test', 1, {})\n"
        "for i in range(25): print(record_look(Path(sys.argv[1]), None, look).times)"
    )
    runs = [
        subprocess.Popen([sys.executable, "-c", code, str(split), f"model {number}"], stdout=subprocess.PIPE, text=True)
        for number in range(4)
    ]

    said = [int(times) for run in runs for times in run.communicate()[0].split()]

    assert sorted(said) == list(range(1, 101))
    assert record_look(split, None, LOOK) == Looks(101, 5)


def test_looks_are_said_in_a_sentence() -> None:
    assert Looks(1, 1).sentence == "This is the first recorded look at this test set."
    assert "looked at 3 times, with 2 checkpoints, this time included" in Looks(3, 2).sentence
