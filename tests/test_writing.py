"""Writing that is whole or absent, and what killed processes leave behind."""

import errno
import multiprocessing
import os
import shutil
from collections import namedtuple
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from evalcam_cli import writing
from evalcam_cli.errors import MachineError, UsageError
from evalcam_cli.writing import (
    amount,
    make_folder,
    put_back,
    require_space,
    sweep,
    temporary_of,
    whole_file,
    write_error,
    write_parts,
    write_whole,
)


def test_a_failed_write_leaves_the_old_file_and_notemporary_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "a.bin"
    write_whole(target, b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(MachineError, match="No space left"):
        write_whole(target, b"new")

    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_long_name_that_fits_is_written(tmp_path: Path) -> None:
    name = "정" * 84 + ".t"  # 254 bytes

    write_whole(tmp_path / name, b"x")

    assert (tmp_path / name).read_bytes() == b"x"


def test_the_previous_content_is_kept_under_another_name(tmp_path: Path) -> None:
    last, before = tmp_path / "last", tmp_path / "before"

    for content in (b"1", b"2", b"3"):
        write_parts(last, [content], previous=before)

    assert (last.read_bytes(), before.read_bytes()) == (b"3", b"2")
    assert sorted(tmp_path.iterdir()) == [before, last]


def test_there_is_no_moment_without_a_whole_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    last, before, seen = tmp_path / "last", tmp_path / "before", []
    write_parts(last, [b"1"], previous=before)
    write_parts(last, [b"2"], previous=before)
    replace = Path.replace

    def watched(source: Path, target: Path) -> Path:
        done = replace(source, target)
        seen.append((last.read_bytes(), before.read_bytes()))
        return done

    monkeypatch.setattr(Path, "replace", watched)
    write_parts(last, [b"3"], previous=before)

    assert seen == [(b"2", b"2"), (b"3", b"2")]


def test_a_process_killed_between_the_two_renames_is_continued(tmp_path: Path) -> None:
    last, before = tmp_path / "last", tmp_path / "before"
    write_whole(last, b"2")
    os.link(last, before)  # renaming one name of a file to another of its names would do nothing

    write_parts(last, [b"3"], previous=before)

    assert (last.read_bytes(), before.read_bytes()) == (b"3", b"2")
    assert sorted(tmp_path.iterdir()) == [before, last]


def test_without_hard_links_the_previous_content_is_kept_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(source: Path, target: Path) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    last, before = tmp_path / "last", tmp_path / "before"
    write_whole(last, b"1")
    monkeypatch.setattr(os, "link", refused)

    write_parts(last, [b"2"], previous=before)

    assert (last.read_bytes(), before.read_bytes()) == (b"2", b"1")
    assert sorted(tmp_path.iterdir()) == [before, last]


@pytest.mark.parametrize("broken", ["fsync", "link", "replace"])
def test_a_write_that_fails_leaves_both_generations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    def failing(*arguments: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    last, before = tmp_path / "last", tmp_path / "before"
    write_parts(last, [b"1"], previous=before)
    write_parts(last, [b"2"], previous=before)
    monkeypatch.setattr(Path if broken == "replace" else os, broken, failing)

    with pytest.raises(MachineError, match="Input/output error"):
        write_parts(last, [b"3"], previous=before)

    assert (last.read_bytes(), before.read_bytes()) == (b"2", b"1")
    assert sorted(tmp_path.iterdir()) == [before, last]


def test_a_damaged_file_is_replaced_by_the_previous_one(tmp_path: Path) -> None:
    last, before = tmp_path / "last", tmp_path / "before"
    last.write_bytes(b"damaged")
    before.write_bytes(b"whole")

    put_back(last, before)

    assert (last.read_bytes(), before.read_bytes()) == (b"whole", b"whole")
    assert not last.samefile(before)  # the next fault hits one of them


def test_a_full_disk_is_told_with_what_is_needed_and_what_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(os, "fsync", full)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(10, 10, 2_000_000))

    with pytest.raises(MachineError, match=r"needs 3\.0 MB, 2\.0 MB are free;\nfree some space.*before is kept"):
        write_parts(tmp_path / "a.bin", iter([b"x" * 1_000_000] * 3))

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("number", "kind"), [(28, 5), (122, 5), (5, 5), (13, 5), (30, 5), (36, 2), (20, 2)])
def test_a_fault_of_the_machine_and_a_path_that_cannot_be_are_told_apart(number: int, kind: int) -> None:
    error = write_error(Path("a"), OSError(number, os.strerror(number)), needed=5)

    assert error.exit_code == kind
    assert os.strerror(number) in str(error)


def test_too_little_space_is_found_before_the_work(tmp_path: Path) -> None:
    require_space(tmp_path, 1, "a run")

    with pytest.raises(MachineError, match=r"for a run: 1000\.0 TB are needed and .* are free"):
        require_space(tmp_path, 10**15, "a run")


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (44_800_000, "44.8 MB"), (3e18, "3000000.0 TB")],
)
def test_amounts_are_short(size: int, text: str) -> None:
    assert amount(size) == text


def _write_slowly(path: Path, begun: Event, go_on: Event) -> None:
    with whole_file(path) as stream:
        stream.write(b"slow")
        stream.flush()
        begun.set()
        go_on.wait(20)


def test_what_another_process_is_writing_is_not_swept(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    begun, go_on = context.Event(), context.Event()
    process = context.Process(target=_write_slowly, args=(tmp_path / "leaks.csv", begun, go_on))
    left = temporary_of(tmp_path / "leaks.csv", "killed")
    left.write_bytes(b"half")
    process.start()
    try:
        assert begun.wait(20)

        write_whole(tmp_path / "leaks.csv", b"quick")
        (under_way,) = tmp_path.glob(".*.tmp")
    finally:
        go_on.set()
        process.join(20)

    assert under_way != left
    assert [entry.name for entry in tmp_path.iterdir()] == ["leaks.csv"]
    assert (tmp_path / "leaks.csv").read_bytes() == b"slow"


def test_only_files_of_the_names_are_swept(tmp_path: Path) -> None:
    mine, other = temporary_of(tmp_path / "a", "1"), temporary_of(tmp_path / "b", "1")
    strange = [tmp_path / ".mine.tmp", tmp_path / mine.name.replace(".1.tmp", "x.tmp"), other]
    for path in (mine, *strange):
        path.write_bytes(b"")

    sweep(tmp_path, ["a", "c"])
    sweep(tmp_path / "absent", ["a"])

    assert sorted(tmp_path.iterdir()) == sorted(strange)


@pytest.mark.parametrize(("fault", "call"), [(errno.EACCES, "open"), (errno.EINVAL, "fsync")])
def test_a_folder_that_cannot_be_flushed_is_written_to_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: int, call: str
) -> None:
    real = getattr(os, call)

    def refusing(what: Path | int, *rest: int) -> int:
        path = Path(f"/proc/self/fd/{what}").readlink() if isinstance(what, int) else what
        if path == tmp_path:
            raise OSError(fault, os.strerror(fault))
        return int(real(what, *rest) or 0)

    monkeypatch.setattr(os, call, refusing)
    write_whole(tmp_path / "a", b"1")

    assert (tmp_path / "a").read_bytes() == b"1"


def test_folders_are_made_and_a_file_in_the_way_is_told(tmp_path: Path) -> None:
    make_folder(tmp_path / "a" / "b")
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(UsageError, match="Not a directory"):
        make_folder(tmp_path / "file" / "b")

    assert (tmp_path / "a" / "b").is_dir()


def test_a_file_swept_the_moment_it_was_made_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    swept: list[Path] = []

    def lock(stream: object) -> bool:
        if not swept:
            swept.extend(tmp_path.glob(".*.tmp"))
            swept[0].unlink()
        return True

    monkeypatch.setattr(writing, "lock", lock)
    write_whole(tmp_path / "a", b"1")

    assert swept
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]
