"""Decoded images are kept whole, by whoever decodes them first, and leave nothing behind."""

import multiprocessing
import os
import shutil
import sys
import threading
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from evalcam_cli.data import cache as module
from evalcam_cli.data.cache import ImageCache, image_caches
from evalcam_cli.errors import MachineError, UsageError
from evalcam_cli.files import LOCK_NAME, OutputFolder, output_folder
from evalcam_cli.writing import temporary_of

SIDE = 8
linux = pytest.mark.skipif(sys.platform != "linux", reason="asks /proc, or for memory that has a descriptor")


def picture(index: int) -> NDArray[np.uint8]:
    return np.random.default_rng(index).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)


def put_all(cache: ImageCache, indices: range) -> None:
    for index in indices:
        cache.put(index, picture(index))


def has(cache: ImageCache, index: int) -> bool:
    """Whether an image is there; what is there must be that image."""
    found = cache.get(index)
    assert found is None or np.array_equal(found, picture(index))
    return found is not None


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.name != LOCK_NAME)


@pytest.mark.parametrize("setting", ["ram", "file"])
def test_what_was_put_is_what_comes_out_and_nothing_else_is_there(setting: str, tmp_path: Path) -> None:
    with (
        output_folder(tmp_path / "out") as folder,
        image_caches(setting, {"train": 5, "val": 3}, image_size=SIDE, folder=folder) as caches,
    ):
        train, val = caches["train"], caches["val"]
        assert train is not None
        assert val is not None
        assert [train.get(index) for index in range(5)] == [None] * 5
        put_all(train, range(1, 5))
        one = train.get(1)
        assert one is not None
        one[:] = 0  # a copy: the caller's to change

        assert [has(train, index) for index in range(5)] == [False, True, True, True, True]
        assert not train.full
        train.put(0, picture(0))
        assert train.full
        assert not val.full
        with pytest.raises(IndexError, match="image 5 of 5"):
            train.get(5)
        with pytest.raises(ValueError, match="shape"):
            train.put(0, np.zeros((SIDE, SIDE + 1, 3), np.uint8))


def test_nothing_is_kept_where_nothing_shall_be(tmp_path: Path) -> None:
    with output_folder(tmp_path / "out") as folder:
        with image_caches("none", {"train": 5}, image_size=SIDE, folder=folder) as without:
            assert without == {"train": None}
        with image_caches("ram", {"train": 5, "val": 0}, image_size=SIDE, folder=folder) as caches:
            assert caches["train"] is not None
            assert caches["val"] is None


def test_a_reader_sees_whole_images_or_none_while_others_write_them(tmp_path: Path) -> None:
    count = 200
    with (
        output_folder(tmp_path / "out") as folder,
        image_caches("file", {"train": count}, image_size=SIDE, folder=folder) as caches,
    ):
        cache = caches["train"]
        assert cache is not None
        orders = (range(count), range(count), range(count - 1, -1, -1))
        writers = [threading.Thread(target=put_all, args=(cache, order)) for order in orders]
        for writer in writers:
            writer.start()
        while not cache.full:
            for index in range(count):
                has(cache, index)
        for writer in writers:
            writer.join()


@linux
@pytest.mark.parametrize("setting", ["ram", "file"])
def test_a_process_that_was_not_forked_fills_the_same_cache(setting: str, tmp_path: Path) -> None:
    """As workers are started from Python 3.14 on, and on macOS for a cache in a file."""
    with (
        output_folder(tmp_path / "out") as folder,
        image_caches(setting, {"train": 4}, image_size=SIDE, folder=folder) as caches,
    ):
        cache = caches["train"]
        assert cache is not None
        cache.put(0, picture(0))
        process = multiprocessing.get_context("spawn").Process(target=put_all, args=(cache, range(1, 4)))
        process.start()
        process.join()

        assert process.exitcode == 0
        assert cache.full
        assert has(cache, 3)


@linux
def test_the_file_lies_in_the_output_folder_and_has_no_name_that_could_outlive_the_run(tmp_path: Path) -> None:
    def open_files() -> set[str]:
        return {str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()}

    with output_folder(tmp_path / "out") as folder:
        before = open_files()
        with image_caches("file", {"train": 4}, image_size=SIDE, folder=folder) as caches:
            assert caches["train"] is not None
            put_all(caches["train"], range(4))
            (name,) = open_files() - before
            assert name.startswith(f"{folder.path}/.")
            assert name.endswith(".tmp (deleted)")
            assert left_in(folder.path) == []
        assert open_files() == before


@pytest.mark.parametrize("setting", ["ram", "file"])
def test_a_cache_is_gone_after_an_error_and_keeps_nothing_any_more(setting: str, tmp_path: Path) -> None:
    kept: list[ImageCache] = []

    def fail(folder: OutputFolder) -> None:
        with image_caches(setting, {"train": 4}, image_size=SIDE, folder=folder) as caches:
            assert caches["train"] is not None
            kept.append(caches["train"])
            put_all(kept[0], range(4))
            raise RuntimeError

    with output_folder(tmp_path / "out") as folder:
        with pytest.raises(RuntimeError):
            fail(folder)
        other = folder.path / "other"
        with other.open("w+b") as stream:  # takes over the number of the cache's descriptor
            kept[0].put(0, picture(0))
            assert kept[0].get(0) is None
            stream.seek(0)
            assert stream.read() == b""
        other.unlink()

        assert left_in(folder.path) == []


def test_what_a_killed_run_left_is_not_believed(tmp_path: Path) -> None:
    with output_folder(tmp_path / "out") as folder:
        temporary_of(folder.claim("train.cache"), "123").write_bytes(b"\1" * 10_000)

    with output_folder(tmp_path / "out", resume=True) as folder:
        with image_caches("file", {"train": 4}, image_size=SIDE, folder=folder) as caches:
            assert caches["train"] is not None
            assert caches["train"].get(0) is None
        assert left_in(folder.path) == []


def test_a_stranger_s_file_is_neither_read_nor_removed(tmp_path: Path) -> None:
    with output_folder(tmp_path / "out") as folder:
        folder.claim("history.csv")
        (folder.path / "train.cache").write_bytes(b"mine")
        with (
            pytest.raises(UsageError, match=r"train\.cache is there already"),
            image_caches("file", {"train": 4}, image_size=SIDE, folder=folder),
        ):
            pass

        assert (folder.path / "train.cache").read_bytes() == b"mine"


def test_auto_takes_a_quarter_of_the_free_memory_and_says_so_when_that_is_too_little(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    needed = 10 * (3 * SIDE * SIDE + 1)
    kept = []
    with output_folder(tmp_path / "out") as folder, caplog.at_level("INFO", "evalcam"):
        for free in (4 * needed, 4 * needed - 4):
            monkeypatch.setattr(module, "available_memory", lambda free=free: free)
            with image_caches("auto", {"train": 6, "val": 4}, image_size=SIDE, folder=folder) as caches:
                kept.append([cache is not None for cache in caches.values()])

    assert kept == [[True, True], [False, False]]
    assert len(caplog.messages) == 1
    assert "data.cache=file" in caplog.messages[0]


def test_each_process_of_torchrun_on_this_machine_takes_its_part_of_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "available_memory", lambda: 5 * 10 * (3 * SIDE * SIDE + 1))
    for name, value in {"RANK": "0", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "localhost"}.items():
        monkeypatch.setenv(name, value)

    with (
        output_folder(tmp_path / "out") as folder,
        image_caches("auto", {"train": 10}, image_size=SIDE, folder=folder) as caches,
    ):
        assert caches == {"train": None}


def test_a_process_without_a_folder_keeps_in_memory_what_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    with image_caches("file", {"train": 1}, image_size=SIDE, folder=None) as caches:
        assert caches["train"] is not None
    monkeypatch.setattr(module, "available_memory", lambda: 100)
    with image_caches("file", {"train": 1}, image_size=SIDE, folder=None) as caches:
        assert caches == {"train": None}


def test_a_part_of_a_cache_is_the_same_images_under_other_indices() -> None:
    with image_caches("ram", {"train": 10}, image_size=SIDE, folder=None) as caches:
        whole = caches["train"]
        assert whole is not None
        part = whole.part([9, 3, 5])
        whole.put(9, picture(9))
        part.put(1, picture(3))
        assert not part.full
        whole.put(5, picture(5))

        assert part.full
        assert not whole.full
        assert np.array_equal(part.get(0), picture(9))
        assert has(whole, 3)
        with pytest.raises(IndexError, match="image 3 of 3"):
            part.get(3)


@pytest.mark.parametrize("setting", ["ram", "file"])
def test_what_does_not_fit_is_refused_before_it_begins(
    setting: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "available_memory", lambda: 10_000)
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10_000))

    with (
        output_folder(tmp_path / "out") as folder,
        pytest.raises(MachineError, match=rf"data\.cache {setting}: .*0\.2 GB.*use data\.cache"),
        image_caches(setting, {"train": 1000}, image_size=256, folder=folder),
    ):
        pass


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no disk that is always full")
def test_a_disk_that_becomes_full_costs_time_only() -> None:
    cache = ImageCache(module._Descriptor(os.open("/dev/full", os.O_RDWR)), 4, SIDE)

    cache.put(0, picture(0))

    assert cache.get(0) is None
    cache.close()


def test_memory_of_one_process_serves_where_there_is_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create", raising=False)

    with (
        output_folder(tmp_path / "out") as folder,
        image_caches("ram", {"train": 4}, image_size=SIDE, folder=folder) as caches,
    ):
        cache = caches["train"]
        assert cache is not None
        put_all(cache, range(3))

        assert not cache.shared
        assert not has(cache, 3)
        assert has(cache, 2)
    assert not has(cache, 2)
