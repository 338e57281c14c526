"""Images as tensors, in an order that depends on the seed and the epoch alone."""

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
from collections import Counter, namedtuple
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from evalcam_cli.config import AugmentConfig
from evalcam_cli.data.augmentation import Augmentation, keyed_generator
from evalcam_cli.data.cache import ImageCache, image_caches
from evalcam_cli.data.dataset import ImageDataset, Paths, make_loader, normalise
from evalcam_cli.data.images import UnreadableImage
from evalcam_cli.data.order import TrainingOrder
from evalcam_cli.data.preprocessing import Preprocessing
from evalcam_cli.errors import WorkerKilledError
from evalcam_cli.files import output_folder
from tests.workflows.training_process import family, wait_until

PREPROCESSING = Preprocessing(32, "pad")
CPU = torch.device("cpu")
Batches = list[tuple[torch.Tensor, torch.Tensor]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    for index in range(11):
        pixels = generator.integers(0, 256, (20 + index, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")
    return tmp_path


def dataset(folder: Path, *, augmented: bool = True, cache: ImageCache | None = None) -> ImageDataset:
    paths = [f"{index}.png" for index in range(11)]
    augmentation = (
        Augmentation(AugmentConfig(erase=0.5, saturation=0.2, hue=0.1, vflip=0.5), (1, 2, 3)) if augmented else None
    )
    return ImageDataset(folder, paths, PREPROCESSING, max_pixels=10**6, augmentation=augmentation, seed=5, cache=cache)


def item(images: ImageDataset, index: int) -> tuple[torch.Tensor, int]:
    """What this process, no worker, gets."""
    found = images[index]
    assert isinstance(found, tuple)
    return found


def epoch_of(folder: Path, workers: int, epoch: int) -> Batches:
    return next(epochs_of(dataset(folder), workers, first=epoch))


def epochs_of(images: ImageDataset, workers: int, *, first: int = 0) -> Iterator[Batches]:
    """The batches of one epoch after another, from one loader."""
    order = TrainingOrder([0, 1] * 5 + [0], step_size=4, seed=3, balanced=False)
    loader = make_loader(images, order, workers=workers, device=CPU)
    for order.epoch in range(first, 3):
        yield [(batch, indices) for batch, indices in loader]


def assert_same(some: Batches, others: Batches) -> None:
    for (images, indices), (same_images, same_indices) in zip(some, others, strict=True):
        assert torch.equal(images, same_images)
        assert torch.equal(indices, same_indices)


@pytest.mark.parametrize("workers", [1, 2])
def test_the_number_of_workers_changes_nothing(folder: Path, workers: int) -> None:
    alone, together = epoch_of(folder, 0, 1), epoch_of(folder, workers, 1)

    assert_same(alone, together)


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("setting", ["ram", "file"])
def test_a_cache_changes_nothing_but_that_no_file_is_read_twice(
    setting: str, workers: int, folder: Path, tmp_path: Path
) -> None:
    plain = [epoch_of(folder, 0, epoch) for epoch in range(3)]

    with (
        output_folder(tmp_path / "out") as out,
        image_caches(setting, {"train": 11}, image_size=32, folder=out) as caches,
    ):
        kept = epochs_of(dataset(folder, cache=caches["train"]), workers)
        assert_same(plain[0], next(kept))
        assert caches["train"] is not None
        assert caches["train"].full
        for path in folder.glob("*.png"):
            path.unlink()
        assert_same(plain[1], next(kept))
        assert_same(plain[2], next(kept))


def test_a_cache_that_an_epoch_left_half_full_serves_the_next(folder: Path, tmp_path: Path) -> None:
    plain = dataset(folder)

    with (
        output_folder(tmp_path / "out") as out,
        image_caches("ram", {"train": 11}, image_size=32, folder=out) as caches,
    ):
        kept = dataset(folder, cache=caches["train"])
        _ = [kept[index] for index in range(0, 11, 2)]

        assert all(torch.equal(item(kept, index)[0], item(plain, index)[0]) for index in range(11))


def workers_of(images: ImageDataset, workers: int) -> int:
    return make_loader(images, 4, workers=workers, device=CPU).num_workers


def test_no_worker_is_started_that_has_nothing_to_do_or_sees_no_cache(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with output_folder(tmp_path / "out") as out:
        with image_caches("ram", {"val": 11}, image_size=32, folder=out) as caches:
            images = dataset(folder, augmented=False, cache=caches["val"])
            assert workers_of(images, 2) == 2
            _ = [images[index] for index in range(11)]
            assert workers_of(images, 2) == 0
            assert workers_of(dataset(folder, cache=caches["val"]), 2) == 2  # they augment
        monkeypatch.delattr(os, "memfd_create", raising=False)
        with image_caches("ram", {"val": 11}, image_size=32, folder=out) as caches:
            assert workers_of(dataset(folder, cache=caches["val"]), 2) == 0


@pytest.mark.parametrize(("megabytes", "workers"), [(64, 2), (30, 1), (1, 0)])
def test_workers_are_as_many_as_there_is_shared_memory_for_their_batches(
    megabytes: int, workers: int, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that writes more than a container's /dev/shm holds dies of a bus error."""
    status = namedtuple("status", ["f_bavail", "f_frsize"])
    monkeypatch.setattr(os, "statvfs", lambda path: status(megabytes * 256, 4096))
    images = ImageDataset(folder, ["0.png"] * 99, Preprocessing(224, "pad"), max_pixels=10**6)

    loader = make_loader(images, 32, workers=4, device=CPU)  # 4.8 MB a batch, three of them at a time

    assert loader.num_workers == workers


def test_many_paths_are_a_sequence_of_two_arrays() -> None:
    texts = ["a/b.png", "", "뇌/정상.png", "caf\udce9.png"]

    paths = Paths(texts)

    assert list(paths) == texts
    assert paths[-1] == texts[-1]
    assert paths[1:3] == texts[1:3]
    assert list(pickle.loads(pickle.dumps(paths))) == texts  # noqa: S301 (written here)
    assert list(Paths([])) == []
    with pytest.raises(IndexError):
        paths[4]


def test_every_epoch_changes_the_order_and_the_pixels(folder: Path) -> None:
    first, second = epoch_of(folder, 0, 0), epoch_of(folder, 0, 1)

    assert [index.tolist() for _, index in first] != [index.tolist() for _, index in second]
    assert sorted(int(i) for _, index in first for i in index) == list(range(11))
    by_index = [
        {int(i): image for images, indices in epoch for image, i in zip(images, indices, strict=True)}
        for epoch in (first, second)
    ]
    assert any(not torch.equal(by_index[0][index], by_index[1][index]) for index in range(11))


def test_augmentation_leaves_the_global_random_state_alone(folder: Path) -> None:
    before = torch.get_rng_state()

    dataset(folder)[3]

    assert torch.equal(before, torch.get_rng_state())


def test_no_augmentation_means_the_preprocessed_pixels(folder: Path) -> None:
    pixels, index = item(dataset(folder, augmented=False), 4)

    with Image.open(folder / "4.png") as image:
        expected = PREPROCESSING.apply(image.convert("RGB"))
    assert index == 4
    assert np.array_equal(pixels.permute(1, 2, 0).numpy(), expected)


def test_a_mirror_image_is_exact() -> None:
    quiet: dict[str, Any] = {"rotate": 0.0, "translate": 0.0, "scale": 0.0, "brightness": 0.0, "contrast": 0.0}
    image = torch.arange(3 * 16 * 16, dtype=torch.int64).reshape(3, 16, 16).to(torch.uint8)

    flipped = Augmentation(AugmentConfig(hflip=1.0, **quiet), (0, 0, 0))(image, keyed_generator(1))

    assert torch.equal(flipped, image.flip(-1))


def test_what_comes_from_outside_the_image_has_the_fill_colour() -> None:
    config = AugmentConfig(hflip=0, rotate=45, translate=0, scale=0, brightness=0, contrast=0)
    image = torch.full((3, 32, 32), 200, dtype=torch.uint8)
    corners = {
        tuple(Augmentation(config, (10, 20, 30))(image, keyed_generator(seed))[:, 0, 0].tolist()) for seed in range(9)
    }

    assert corners <= {(10, 20, 30), (200, 200, 200)} | {corner for corner in corners if min(corner) >= 10}
    assert (10, 20, 30) in corners


@pytest.mark.parametrize(
    ("count", "batch", "sizes"), [(9, 4, [4, 5]), (8, 4, [4, 4]), (10, 4, [4, 4, 2]), (1, 4, [1]), (5, 1, [1] * 5)]
)
def test_a_last_batch_of_one_joins_the_batch_before(count: int, batch: int, sizes: list[int]) -> None:
    order = TrainingOrder([0] * count, step_size=batch, seed=0, balanced=False)

    batches = list(order)

    assert [len(one) for one in batches] == sizes
    assert len(order) == len(sizes)
    assert sorted(draw.index for one in batches for draw in one) == list(range(count))


def test_balanced_sampling_draws_every_class_equally_often() -> None:
    targets = [0] * 900 + [1] * 100
    order = TrainingOrder(targets, step_size=50, seed=0, balanced=True)

    drawn = Counter(targets[draw.index] for batch in order for draw in batch)

    assert drawn[0] + drawn[1] == 1000
    assert abs(drawn[1] - 500) < 4 * 1000**0.5 / 2  # four standard deviations of a fair coin
    repeats = [(draw.index, draw.repeat) for batch in order for draw in batch]
    assert len(set(repeats)) == 1000  # each use of an image has its own augmentation


def test_normalisation_is_torchvision_s() -> None:
    from torchvision.transforms.v2 import functional

    images = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)

    expected = functional.normalize(images.float() / 255, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])

    torch.testing.assert_close(normalise(images, PREPROCESSING, CPU), expected)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_vanished_is_named_also_by_a_worker(folder: Path, workers: int) -> None:
    images = dataset(folder)
    victim = folder / images.paths[3]
    loader = make_loader(images, 4, workers=workers, device=torch.device("cpu"))
    victim.unlink()

    with pytest.raises(UnreadableImage, match=victim.name):
        list(loader)


@pytest.mark.parametrize("said", [EOFError(), ConnectionResetError(), BrokenPipeError()])
def test_a_killed_worker_is_said_whatever_torch_calls_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch, said: Exception
) -> None:
    loader = make_loader(dataset(folder), 4, workers=1, device=torch.device("cpu"))

    def fail(_: object) -> None:
        raise said

    monkeypatch.setattr(torch.utils.data.DataLoader, "__iter__", fail)

    with pytest.raises(WorkerKilledError, match="was killed"):
        list(loader)


def test_another_fault_of_a_loader_stays_what_it_is(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loader = make_loader(dataset(folder), 4, workers=1, device=torch.device("cpu"))

    def fail(_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(torch.utils.data.DataLoader, "__iter__", fail)

    with pytest.raises(RuntimeError, match="a bug"):
        list(loader)


def test_a_worker_that_hangs_is_ended_with_its_loader(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.utils.data._utils, "MP_STATUS_CHECK_INTERVAL", 0.5)
    os.mkfifo(folder / "pipe")

    class Hanging(ImageDataset):
        def __getitem__(self, draw: Any) -> Any:
            return super().__getitem__(draw) if draw == 0 else (folder / "pipe").read_bytes()  # that nobody writes to

    images = Hanging(folder, ["0.png", "1.png"], PREPROCESSING, max_pixels=10**6)
    loader = make_loader(images, 1, workers=1, device=CPU)
    others = multiprocessing.active_children()
    batches = iter(loader)
    next(batches)
    (worker,) = set(multiprocessing.active_children()) - set(others)

    del batches

    assert not worker.is_alive()


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes as Linux lists them")
def test_a_worker_dies_with_a_parent_that_was_killed_while_it_started(folder: Path, tmp_path: Path) -> None:
    """Torch's own watch over the parent takes the process that adopted the worker for it."""
    script = tmp_path / "dying.py"
    script.write_text(
        "import os, signal, sys, time\nfrom multiprocessing.process import BaseProcess\nfrom pathlib import Path\n"
        "import torch\nfrom evalcam_cli.data import dataset\nfrom tests.data import test_dataset\n"
        "start, begin_work = BaseProcess.start, dataset._begin_work\n"
        "def start_and_die(process):\n    start(process)\n    os.kill(os.getpid(), signal.SIGKILL)\n"
        "def begin_late(worker):\n    time.sleep(1)\n    begin_work(worker)\n"
        "BaseProcess.start, dataset._begin_work = start_and_die, begin_late\n"
        "images = test_dataset.dataset(Path(sys.argv[1]))\n"
        "next(iter(dataset.make_loader(images, 4, workers=1, device=torch.device('cpu'))))\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen([sys.executable, str(script), str(folder)], env=environment, start_new_session=True)

    assert process.wait() == -signal.SIGKILL

    assert wait_until(lambda: family(process.pid) == [], timeout=20)
