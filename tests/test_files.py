"""Folders that one run owns."""

import multiprocessing
import os
from pathlib import Path
from typing import IO

import pytest

from evalcam_cli.errors import MachineError, UsageError
from evalcam_cli.files import LOCK_NAME, OutputFolder, discard_folder, output_folder
from evalcam_cli.writing import temporary_of


def test_a_folder_with_other_things_is_refused_and_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")

    with pytest.raises(UsageError, match=r"not empty \(notes.txt\)"), output_folder(tmp_path):
        pass

    assert [entry.name for entry in tmp_path.iterdir()] == ["notes.txt"]


def test_overwriting_removes_only_what_evalcam_wrote(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with output_folder(out) as folder:
        folder.write("sub/a.txt", b"1")
        folder.write("b.txt", b"2")
    (out / "notes.txt").write_text("mine")

    with output_folder(out, overwrite=True) as folder:
        folder.write("b.txt", b"3")

    assert sorted(entry.name for entry in out.iterdir()) == [LOCK_NAME, "b.txt", "notes.txt"]
    assert (out / "b.txt").read_bytes() == b"3"


def test_a_stranger_s_file_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text("mine")

    with output_folder(tmp_path, overwrite=True) as folder, pytest.raises(UsageError, match="did not write it"):
        folder.write("metrics.json", b"{}")

    assert (tmp_path / "metrics.json").read_text() == "mine"


def test_a_run_that_wrote_nothing_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="before"), output_folder(tmp_path / "run"):
        raise RuntimeError("before anything was written")

    assert list(tmp_path.iterdir()) == []


def test_temporaries_of_a_killed_run_are_swept(tmp_path: Path) -> None:
    with output_folder(tmp_path / "run") as folder:
        folder.write("a.txt", b"1")
    left = temporary_of(tmp_path / "run" / "a.txt", "123")
    left.write_bytes(b"half")
    (tmp_path / "run" / ".mine.tmp").write_bytes(b"a stranger's")

    with output_folder(tmp_path / "run", resume=True):
        pass

    assert not left.exists()
    assert (tmp_path / "run" / ".mine.tmp").exists()


@pytest.mark.parametrize("place", ["/", "~", "file", "inside"])
def test_places_that_are_not_for_results_are_refused(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("x")
    paths = {"/": Path("/"), "~": Path.home(), "file": tmp_path / "file", "inside": tmp_path / "data" / "out"}
    (tmp_path / "data").mkdir()

    with pytest.raises(UsageError), output_folder(paths[place], inputs=[tmp_path / "data"]):
        pass


def _hold(path: Path, ready: "multiprocessing.synchronize.Event", done: "multiprocessing.synchronize.Event") -> None:
    with output_folder(path):
        ready.set()
        done.wait(20)


def test_a_folder_in_use_by_another_process_is_refused(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready, done = context.Event(), context.Event()
    process = context.Process(target=_hold, args=(tmp_path / "run", ready, done))
    process.start()
    try:
        assert ready.wait(20)
        with pytest.raises(MachineError, match="another evalcam run is using"), output_folder(tmp_path / "run"):
            pass
    finally:
        done.set()
        process.join(20)


def test_a_folder_without_permission_is_said_before_anything_else(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    tmp_path.chmod(0o500)

    with pytest.raises(MachineError, match="permission"), output_folder(tmp_path / "run"):
        pass


def test_a_refused_run_does_not_remove_what_it_would_have_overwritten(tmp_path: Path) -> None:
    with output_folder(tmp_path / "run") as folder:
        folder.write("weights.bin", b"precious")

    with pytest.raises(RuntimeError), output_folder(tmp_path / "run", overwrite=True):
        raise RuntimeError("refused before anything was written")

    assert (tmp_path / "run" / "weights.bin").read_bytes() == b"precious"


def test_names_with_backslashes_and_line_breaks_are_known_again(tmp_path: Path) -> None:
    names = ["back\\name.txt", "two\nlines.txt", "back\\\nboth.txt"]
    for _ in range(2):
        with output_folder(tmp_path / "run", overwrite=True) as folder:
            for name in names:
                folder.write(name, b"x")

    assert len(list((tmp_path / "run").glob("*.txt"))) == 3


def test_a_streamed_file_appears_whole_at_the_end_of_the_block(tmp_path: Path) -> None:
    with output_folder(tmp_path / "run") as folder:
        with folder.stream("sub/page.html") as stream:
            stream.write(b"first, ")
            assert not (tmp_path / "run" / "sub" / "page.html").exists()
            stream.write(b"second")
        with folder.stream("sub/page.html") as stream:  # a file of one's own may be replaced
            stream.write(b"third")

    assert (tmp_path / "run" / "sub" / "page.html").read_bytes() == b"third"
    assert [entry.name for entry in (tmp_path / "run" / "sub").iterdir()] == ["page.html"]


@pytest.mark.parametrize("fault", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_a_streamed_file_that_fails_halfway_leaves_the_old_one(tmp_path: Path, fault: BaseException) -> None:
    with output_folder(tmp_path / "run") as folder:
        folder.write("page.html", b"old")
        expected = MachineError if isinstance(fault, OSError) else KeyboardInterrupt
        with pytest.raises(expected):
            _stream_half(folder, fault)

    assert (tmp_path / "run" / "page.html").read_bytes() == b"old"
    assert sorted(entry.name for entry in (tmp_path / "run").iterdir()) == [LOCK_NAME, "page.html"]


def _stream_half(folder: OutputFolder, fault: BaseException) -> None:
    with folder.stream("page.html") as stream:
        stream.write(b"half")
        raise fault


def test_half_a_name_that_a_crash_left_costs_no_other_name(tmp_path: Path) -> None:
    with output_folder(tmp_path / "run") as folder:
        folder.write("a.txt", b"1")
    with (tmp_path / "run" / LOCK_NAME).open("ab") as lock:
        lock.write(b'"b.t')

    with output_folder(tmp_path / "run", resume=True) as folder:
        folder.write("c.txt", b"3")
    with output_folder(tmp_path / "run", resume=True) as folder:
        folder.write("c.txt", b"4")
        folder.write("a.txt", b"5")

    assert (tmp_path / "run" / LOCK_NAME).read_bytes() == b'"a.txt"\n"c.txt"\n'


def test_a_name_is_on_the_disk_before_its_file_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[bytes] = []
    fsync = os.fsync

    def watched(descriptor: int) -> None:
        name = Path(f"/proc/self/fd/{descriptor}").readlink().name.encode()
        flushed.append((tmp_path / LOCK_NAME).read_bytes() if name == LOCK_NAME.encode() else name)
        fsync(descriptor)

    with output_folder(tmp_path) as folder:
        monkeypatch.setattr(os, "fsync", watched)
        folder.write_all({"a.txt": b"1", "b.txt": b"2"})
        folder.write("b.txt", b"3")

    lock, where, first, second, *rest = flushed
    assert lock == b'"a.txt"\n"b.txt"\n'  # once for both
    assert where == tmp_path.name.encode()  # the lock file's own entry
    assert first.endswith(b".tmp")
    assert second.endswith(b".tmp")
    assert len(rest) == 3  # the folder; then the file and the folder: the name is there


def test_a_name_that_does_not_fit_on_the_disk_leaves_the_lock_file_as_it_was(tmp_path: Path) -> None:
    with output_folder(tmp_path / "run") as folder:
        folder.write("a.txt", b"1")
        lock = folder._lock
        folder._lock = _Full(lock)  # type: ignore[assignment]
        with pytest.raises(MachineError, match=r"cannot write .*\.lock: No space left"):
            folder.write("b.txt", b"2")
        folder._lock = lock

    assert (tmp_path / "run" / LOCK_NAME).read_bytes() == b'"a.txt"\n'
    assert not (tmp_path / "run" / "b.txt").exists()


class _Full:
    """A file that takes three bytes more."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self._room = stream, 3

    def write(self, data: bytes) -> int:
        if self._room == 0:
            raise OSError(28, "No space left on device")
        self._room = 0
        return self._stream.write(data[:3])

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


def test_a_removed_file_is_gone_and_may_be_written_again(tmp_path: Path) -> None:
    with output_folder(tmp_path) as folder:
        folder.write("sub/a.txt", b"1")
        folder.remove("sub/a.txt")
        folder.remove("sub/a.txt")
        there = (tmp_path / "sub" / "a.txt").exists()
        folder.write("sub/a.txt", b"2")

    assert not there
    assert (tmp_path / "sub" / "a.txt").read_bytes() == b"2"


def test_discarding_a_folder_takes_what_evalcam_wrote_and_leaves_a_stranger_s_file(tmp_path: Path) -> None:
    own, shared = tmp_path / "own", tmp_path / "shared"
    for path in (own, shared):
        with output_folder(path) as folder:
            folder.write("sub/a.txt", b"a")
    (shared / "note.txt").write_bytes(b"mine")

    discard_folder(own)
    discard_folder(shared)

    assert not own.exists()
    assert sorted(path.name for path in shared.rglob("*")) == ["note.txt"]


def test_a_place_that_cannot_be_made_leaves_no_folder_behind(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="too long"), output_folder(tmp_path / "a" / "b" / ("x" * 300)):
        pass

    assert list(tmp_path.iterdir()) == []
