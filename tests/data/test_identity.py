import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evalcam_cli.data.identity import Identity, hash_files, identify, pixel_hash
from evalcam_cli.data.parallel import map_files
from evalcam_cli.progress import silent


def make_images(root: Path, count: int) -> list[str]:
    rng = np.random.default_rng(0)
    for index in range(count):
        Image.fromarray(rng.integers(0, 256, (4, 5, 3), np.uint8)).save(root / f"{index}.png")
    return [f"{index}.png" for index in range(count)]


def test_equal_pixels_in_other_files_have_equal_identity(tmp_path: Path) -> None:
    image = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3))
    exif = Image.Exif()
    exif[0x0112] = 3
    image.save(tmp_path / "a.png")
    image.save(tmp_path / "b.bmp")
    image.transpose(Image.Transpose.ROTATE_180).save(tmp_path / "c.png", exif=exif)

    identities, unreadable = identify(tmp_path, ["a.png", "b.bmp", "c.png"], max_pixels=100)

    assert len({identity.pixels for identity in identities.values()}) == 1
    assert len({identity.sha256 for identity in identities.values()}) == 3
    assert not unreadable


def test_the_hashes_can_be_computed_by_hand(tmp_path: Path) -> None:
    image = Image.new("RGB", (3, 2), (1, 2, 3))
    image.save(tmp_path / "a.png")

    identity = identify(tmp_path, ["a.png"], max_pixels=100)[0]["a.png"]

    pixels = hashlib.sha256(b"3x2:" + bytes([1, 2, 3] * 6)).hexdigest()[:16]
    assert identity == Identity(hashlib.sha256((tmp_path / "a.png").read_bytes()).hexdigest(), pixels, 3, 2)


def test_the_shape_counts_and_not_only_the_bytes() -> None:
    assert pixel_hash(Image.new("RGB", (2, 3))) != pixel_hash(Image.new("RGB", (3, 2)))


def test_a_large_image_is_hashed_in_strips_with_the_same_result() -> None:
    image = Image.new("RGB", (1500, 1501), (7, 8, 9))

    assert pixel_hash(image) == hashlib.sha256(b"1500x1501:" + bytes([7, 8, 9]) * 1500 * 1501).hexdigest()[:16]


def test_many_files_in_processes_give_what_one_process_gives(tmp_path: Path) -> None:
    paths = make_images(tmp_path, 100)
    (tmp_path / "7.png").write_bytes(b"")
    (tmp_path / "50.png").unlink()
    calls: list[tuple[str, int, int]] = []

    parallel = identify(
        tmp_path,
        paths,
        max_pixels=100,
        jobs=2,
        progress=lambda task, done, total, note="": calls.append((task, done, total)),
    )

    assert parallel == identify(tmp_path, paths, max_pixels=100, jobs=1)
    assert list(parallel[0]) == [path for path in paths if path not in ("7.png", "50.png")]
    assert parallel[1] == {"7.png": "the file is empty", "50.png": "No such file or directory"}
    assert calls[0] == ("reading images", 0, 100)
    assert calls[-1] == ("reading images", 100, 100)


def test_names_that_are_not_utf_8_are_read_in_processes_too(tmp_path: Path) -> None:
    paths = make_images(tmp_path, 70)
    (tmp_path / paths[0]).rename(tmp_path / "bad\udcff\n고양이.png")
    paths[0] = "bad\udcff\n고양이.png"

    identities, _ = identify(tmp_path, paths, max_pixels=100, jobs=2)

    assert list(identities) == paths


def test_hashing_bytes_needs_no_image(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"no image")

    assert hash_files(tmp_path, ["a.jpg", "none.jpg"]) == {"a.jpg": hashlib.sha256(b"no image").hexdigest()}


def test_a_file_that_kills_its_worker_costs_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import os\ndef job(path):\n    if path.name == '70':\n        os._exit(9)\n    return path.name\n"
    (tmp_path / "deadly_job.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    from deadly_job import job  # type: ignore[import-not-found]

    names = [str(number) for number in range(100)]
    results = map_files(job, tmp_path, names, task="x", progress=silent, jobs=2)

    assert results == [None if name == "70" else name for name in names]


def test_an_exception_in_the_parent_ends_the_workers(tmp_path: Path) -> None:
    paths = make_images(tmp_path, 100)

    def interrupt(task: str, done: int, total: int, note: str = "") -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        identify(tmp_path, paths, max_pixels=100, jobs=2, progress=interrupt)

    assert identify(tmp_path, paths, max_pixels=100, jobs=2)[1] == {}


@pytest.mark.skipif(os.name == "nt", reason="POSIX only")
def test_ctrl_c_ends_all_processes_with_one_traceback(tmp_path: Path) -> None:
    make_images(tmp_path, 200)
    script = tmp_path / "script.py"
    script.write_text(
        "import signal, sys\n"
        "from pathlib import Path\n"
        "from evalcam_cli.data.identity import identify\n"
        "def tell(task, done, total, note=''):\n"
        "    if done: print('reading', flush=True)\n"
        "if __name__ == '__main__':\n"
        "    signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a background shell would have it ignored
        "    paths = [f'{number % 200}.png' for number in range(100_000)]\n"
        "    identify(Path(sys.argv[1]), paths, max_pixels=100, jobs=2, progress=tell)\n"
    )
    process = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process:
        assert process.stdout is not None
        process.stdout.readline()

        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=30)  # returns when the last process has closed the pipes

    assert process.returncode == -signal.SIGINT
    assert errors.count("Traceback") == 1
    assert errors.rstrip().endswith("KeyboardInterrupt")


def test_the_data_side_needs_no_torch() -> None:
    code = "import sys, evalcam_cli.workflows.split; sys.exit('torch' in sys.modules or 'typer' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
