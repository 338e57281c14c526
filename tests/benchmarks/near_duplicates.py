"""Measure the leak audit: recall of planted copies, false pairs among distinct images, speed and memory.

    python -m tests.benchmarks.near_duplicates PHOTOS [--mri FOLDER] [--digits FOLDER] [--many 10000] [--work FOLDER]

PHOTOS is a folder of photographs, `--mri` and `--digits` folders of class folders. `--work` keeps the generated images
for the next run. With 58 photographs and `--many 10000` it takes about eight minutes on two cores.
"""

import argparse
import io
import math
import resource
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from evalcam_cli.data.fingerprints import take_fingerprints
from evalcam_cli.data.images import is_candidate
from evalcam_cli.data.near_duplicates import NEAR, Findings, find_near_duplicates
from evalcam_cli.data.parallel import map_files
from evalcam_cli.data.samples import Sample
from evalcam_cli.progress import silent

MAX_PIXELS = 100_000_000
WIDTH, HEIGHT = 500, 375


def _jpeg(image: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _resized(image: Image.Image, across: float, down: float) -> Image.Image:
    size = max(1, round(image.width * across)), max(1, round(image.height * down))
    return image.resize(size, Image.Resampling.BICUBIC)


def _scaled(image: Image.Image, across: float, down: float) -> bytes:
    return _jpeg(_resized(image, across, down), 85)


def _cropped(image: Image.Image, left: float, top: float, right: float, bottom: float) -> Image.Image:
    width, height = image.size
    return image.crop(
        (round(left * width), round(top * height), width - round(right * width), height - round(bottom * height))
    )


def _moved(image: Image.Image) -> Image.Image:
    small = _resized(_cropped(ImageOps.mirror(image), 0.025, 0.025, 0.025, 0.025), 0.7, 0.7)
    return ImageEnhance.Brightness(small).enhance(0.9)


Change = Callable[[Image.Image], bytes]
CHANGES: dict[str, Change] = {
    "identical pixels (PNG)": _png,
    **{f"JPEG quality {quality}": partial(_jpeg, quality=quality) for quality in (50, 70, 95)},
    **{f"resized by {factor:g}": partial(_scaled, across=factor, down=factor) for factor in (0.5, 0.7, 1.4, 2.0)},
    "resized by 0.70 x 0.73": partial(_scaled, across=0.7, down=0.73),
    "flip": lambda image: _jpeg(ImageOps.mirror(image), 85),
    "flip vertical": lambda image: _jpeg(ImageOps.flip(image), 85),
    "turn 90": lambda image: _jpeg(image.transpose(Image.Transpose.ROTATE_270), 85),
    "turn 180": lambda image: _jpeg(image.transpose(Image.Transpose.ROTATE_180), 85),
    "turn 270": lambda image: _jpeg(image.transpose(Image.Transpose.ROTATE_90), 85),
    "brightness +10 %": lambda image: _jpeg(ImageEnhance.Brightness(image).enhance(1.1), 85),
    "brightness -10 %": lambda image: _jpeg(ImageEnhance.Brightness(image).enhance(0.9), 85),
    "grey": lambda image: _jpeg(image.convert("L"), 85),
    "crop 5 %, centred": lambda image: _jpeg(_cropped(image, 0.025, 0.025, 0.025, 0.025), 85),
    "crop 5 %, top left": lambda image: _jpeg(_cropped(image, 0.05, 0.05, 0, 0), 85),
    "crop 5 %, bottom right": lambda image: _jpeg(_cropped(image, 0, 0, 0.05, 0.05), 85),
    "flip, crop, 0.7, dark": lambda image: _jpeg(_moved(image), 70),
}


def plant(path: Path, changes: Sequence[str]) -> list[tuple[str, bytes]]:
    """The changed copies of one image, as files."""
    with Image.open(path) as opened:
        image = opened.convert("RGB")
    return [(change, CHANGES[change](image)) for change in changes]


def audit(root: Path, train: Sequence[str], test: Sequence[str]) -> tuple[Findings, float, float]:
    """Findings, and the seconds for fingerprints and for all the rest."""
    samples = [Sample(path, "a", "train") for path in train] + [Sample(path, "a", "test") for path in test]
    start = time.perf_counter()
    prints, unreadable = take_fingerprints(root, [sample.path for sample in samples], max_pixels=MAX_PIXELS)
    if unreadable:
        raise SystemExit(f"unreadable: {unreadable}")
    middle = time.perf_counter()
    findings = find_near_duplicates(root, samples, prints, max_pixels=MAX_PIXELS)
    return findings, middle - start, time.perf_counter() - middle


def report_recall(name: str, work: Path, originals: Sequence[Path], others: Sequence[Path]) -> None:
    """Plant every change of each original in a test set; the training set holds the originals and many others."""
    root = work / f"recall-{name}"
    train = []
    for place, source in enumerate([*originals, *others]):
        train.append(f"train/{place:05d}{source.suffix.lower()}")
        _write(root / train[-1], source.read_bytes())
    source_of: dict[str, str] = {}
    members: dict[str, list[str]] = defaultdict(list)
    for place, original in enumerate(originals):
        for number, (change, data) in enumerate(plant(original, list(CHANGES))):
            path = f"test/{place:05d}-{number:02d}{'.png' if data.startswith(b'PNG', 1) else '.jpg'}"
            _write(root / path, data)
            source_of[path] = train[place]
            members[change].append(path)
    prints, _ = take_fingerprints(root, [*train, *source_of], max_pixels=MAX_PIXELS)
    print(f"\n## Recall, {name}: {len(originals)} originals among {len(train):,} training images\n")
    print("| change | found | right partner | lowest similarity found | expected false pairs |")
    print("|---|---|---|---|---|")
    for change, paths in members.items():  # one audit each: twenty copies of one image at once are no data set
        samples = [Sample(path, "a", "train") for path in train] + [Sample(path, "a", "test") for path in paths]
        findings = find_near_duplicates(root, samples, prints, max_pixels=MAX_PIXELS)
        right = sum(pair.other == source_of[pair.path] for pair in findings.pairs)
        lowest = f"{min(pair.similarity for pair in findings.pairs):.4f}" if findings.pairs else ""
        share = f"{len(findings.pairs)} of {len(paths)} ({len(findings.pairs) / len(paths):.3f})"
        print(f"| {change} | {share} | {right} | {lowest} | {findings.expected_false_pairs:.3f} |", flush=True)


def report_false_pairs(name: str, root: Path, paths: Sequence[str]) -> None:
    """Distinct images: everything found is wrong."""
    train, test = [p for i, p in enumerate(paths) if i % 10 < 7], [p for i, p in enumerate(paths) if i % 10 >= 7]
    findings, reading, comparing = audit(root, train, test)
    wrong = [
        pair for pair in findings.pairs if pair.kind == NEAR
    ]  # equal pixels, as of cuts from white paper, are equal
    bound = 3 / len(test) if not wrong else math.nan
    print(
        f"| {name} | {len(paths):,} | {len(test):,} x {len(train):,} | {len(wrong)} | "
        f"{'' if math.isnan(bound) else f'{bound:.1e}'} | {findings.expected_false_pairs:.3f} | "
        f"{len(findings.close_calls)} | {reading:.1f} + {comparing:.1f} |"
    )
    for pair in wrong[:10]:
        print(f"  {pair.path} {pair.other} {pair.similarity} {pair.threshold} {pair.transformation}")


def mosaic(path: Path, photos: Sequence[str]) -> bool:
    """Write a picture of four random cuts from different photographs, meeting anywhere; its name is the seed."""
    rng = np.random.default_rng(int(path.stem))
    picture = Image.new("RGB", (WIDTH, HEIGHT))
    across, down = (int(size * rng.uniform(0.3, 0.7)) for size in (WIDTH, HEIGHT))
    sources = rng.choice(len(photos), 4, replace=False)
    boxes = [(0, 0, across, down), (across, 0, WIDTH, down), (0, down, across, HEIGHT), (across, down, WIDTH, HEIGHT)]
    for source, (left, top, right, bottom) in zip(sources, boxes, strict=True):
        with Image.open(photos[source]) as opened:
            photo = opened.convert("RGB")
        share = rng.uniform(0.3, 0.9)
        size = share * photo.width, share * photo.height
        x, y = (rng.uniform(0, 1 - share) * full for full in photo.size)
        cut = photo.resize((right - left, bottom - top), box=(x, y, x + size[0], y + size[1]))
        picture.paste(ImageOps.mirror(cut) if rng.random() < 0.5 else cut, (left, top))
    _write(path, _jpeg(picture, 85))
    return True


def texture(path: Path) -> bool:
    """Write a picture whose spectrum falls like a photograph's, with random phases; its name is the seed."""
    rng = np.random.default_rng(int(path.stem) + 10**6)
    frequency = np.hypot(np.fft.fftfreq(HEIGHT)[:, None] * HEIGHT, np.fft.rfftfreq(WIDTH) * WIDTH)
    falling = np.maximum(frequency, 1.0) ** -rng.uniform(1.0, 1.8)
    noise = np.fft.irfft2(falling * np.fft.rfft2(rng.normal(size=(HEIGHT, WIDTH))), s=(HEIGHT, WIDTH))
    grey = np.clip(128 + 50 * (noise - noise.mean()) / noise.std(), 0, 255).astype(np.uint8)
    _write(path, _jpeg(Image.fromarray(grey).convert("RGB"), 85))
    return True


def disjoint_cuts(photos: Sequence[Path], folder: Path, side: int) -> list[str]:
    """Write squares of a grid over each photograph: no two share a pixel. Their names."""
    names = []
    for number, photo in enumerate(photos):
        with Image.open(photo) as opened:
            image = opened.convert("RGB")
        for top in range(0, image.height - side + 1, side):
            for left in range(0, image.width - side + 1, side):
                names.append(f"{number:02d}-{top:04d}-{left:04d}.png")
                if not (folder / names[-1]).exists():
                    _write(folder / names[-1], _png(image.crop((left, top, left + side, top + side))))
    return names


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _generated(folder: Path, count: int, job: Callable[[Path], bool]) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{number:06d}.jpg" for number in range(count)]
    missing = [name for name in names if not (folder / name).exists()]
    map_files(job, folder, missing, task="making images", progress=silent)
    return names


def report_speed(root: Path, paths: Sequence[str], count: int) -> None:
    """As `evalcam audit` works, on two thirds and one third; the images are in the disk cache."""
    chosen = paths[:count]
    train, test = chosen[: len(chosen) * 7 // 10], chosen[len(chosen) * 7 // 10 :]
    before = _cpu_seconds()
    findings, reading, comparing = audit(root, train, test)
    cpu = _cpu_seconds() - before
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"| {len(chosen):,} | {reading:.1f} | {comparing:.1f} | {cpu:.1f} | {peak:.2f} | {len(findings.pairs)} |")


def _cpu_seconds() -> float:
    """Of this process and its ended workers, on all cores; unlike the time on the clock it bears a busy machine."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def _images(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file() and is_candidate(path.name))


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--mri", type=Path)
    parser.add_argument("--digits", type=Path)
    parser.add_argument("--many", type=int, default=10_000)
    parser.add_argument("--work", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = arguments.work or Path(temporary)
        photos = list(_images(arguments.photos))
        mosaics = _generated(work / "mosaics", arguments.many, partial(mosaic, photos=[str(photo) for photo in photos]))
        print("## Speed, 500x375 JPEG\n\n| images | reading, s | comparing, s | CPU, s | peak so far, GiB | pairs |")
        print("|---|---|---|---|---|---|")
        for count in (len(mosaics) // 4, len(mosaics) // 2, len(mosaics)):
            report_speed(work / "mosaics", mosaics, count)
        textures = _generated(work / "textures", arguments.many // 5, texture)
        print("\n## False pairs among distinct images\n")
        print(
            "| images | number | compared | false pairs | 95 % bound per image | expected | below threshold | seconds |"
        )
        print("|---|---|---|---|---|---|---|---|")
        report_false_pairs("photographs", arguments.photos, [photo.name for photo in photos])
        report_false_pairs("mosaics of photographs", work / "mosaics", mosaics)
        report_false_pairs("textures", work / "textures", textures)
        cuts = disjoint_cuts(photos, work / "cuts", 40)
        report_false_pairs("disjoint 40x40 cuts of photographs", work / "cuts", cuts)
        others = [work / "mosaics" / name for name in mosaics[:2000]]
        report_recall("photographs", work, photos, others)
        report_recall("mosaics", work, others[:300], others[300:])
        for name, folder in (("MRI slices", arguments.mri), ("digits", arguments.digits)):
            if folder is not None:
                images = list(_images(folder))
                order = np.random.default_rng(0).permutation(len(images))[:200]
                originals = [images[place] for place in sorted(order)]
                report_recall(name, work, originals, sorted(set(images) - set(originals)))


if __name__ == "__main__":
    main()
