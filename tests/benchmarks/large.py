"""How long many images take and how much memory: 100,000 small JPEGs divided, a manifest of 1,000,000 rows checked.

    python -m tests.benchmarks.large [split manifest file slopes] [--quick] [--folder FOLDER]

- `split`: `evalcam split` of 100,000 JPEGs of about 1.3 KB with different pixels, every one decoded and hashed.
- `manifest`: a manifest of 1,000,000 rows (path, label, group; hard links, 10 classes in 100 folders each) is read and
  held against the disk, as `split`, `train` and `evaluate --data` do before they open an image. The command is
  `evalcam split list.csv --group-by nosuch`, which ends with exit 2 when that is done.
- `file`: a split.csv of the same 1,000,000 images is read, compared with its fingerprint and found on the disk, as
  `evaluate --split` does before it opens an image.
- `slopes`: bytes that each further image costs `split`, `audit`, `predict`, `evaluate`, `compare`, `train` and
  `gradcam`, from runs with few and with many images, the least of two each: what the peak grows by; with a network,
  whose start takes more than all that comes later, what the largest private memory in the second half of the run grows
  by. What a command is there to keep is taken off: the logits, and of `audit` the fingerprints (2 KB), all of which it
  compares. glibc is told to give large blocks back (`STEADY`) and one thread computes; else equal runs differ by some
  50 MB, which says nothing of images. `compare` reads two CSV files with scores.

Every command runs in a process of its own. Its memory is the largest resident set (VmHWM); `all` is the sum over it and
its workers, which counts pages that they share several times. Linux only.

Results: docs/reliability.md. `train` differs by some 5 MB from run to run even so; of Python objects (tracemalloc) it
keeps 920 bytes an image at the most, from 500 to 2,000 images.
"""

import argparse
import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from evalcam_cli.data.fingerprints import SIDE as FINGERPRINT_SIDE

SIDE = 26
"""Pixels of a side: a JPEG of noise has 1.3 KB then."""
CLASSES = 10
READ_SPLIT = (
    "import sys; from pathlib import Path; from evalcam_cli.workflows.subjects import from_split; "
    "print(len(from_split(Path(sys.argv[1]), data=None, subset='test').samples))"
)


@dataclass(frozen=True)
class Spent:
    """What a command took."""

    seconds: float
    processor: float
    """Seconds, workers included."""
    own: float
    """MB at the peak, of the command's own process."""
    everyone: float
    """MB at the peaks of it and its workers together."""
    out: str
    late: float = 0.0
    """MB that only the command's own process has, at the most, in the second half of its time."""

    def numbers(self, images: int) -> dict[str, Any]:
        found = asdict(self) | {"images": images}
        del found["out"], found["late"]
        return found

    def row(self, name: str) -> str:
        return f"| {name} | {self.seconds:.1f} | {self.processor:.1f} | {self.own:.0f} | {self.everyone:.0f} |"


def draw_images(folder: Path, count: int, side: int = SIDE) -> Path:
    """So many JPEGs of noise, each with pixels of its own, in class folders."""
    generator = np.random.default_rng(0)
    for number in range(count):
        if number < CLASSES:
            (folder / f"class-{number}").mkdir(parents=True)
        pixels = generator.integers(0, 256, (side, side, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=80)
        (folder / f"class-{number % CLASSES}" / f"image-{number:06}.jpg").write_bytes(buffer.getvalue())
    return folder


def link_images(folder: Path, count: int) -> Path:
    """A manifest of so many files, which are a few under many names."""
    sources = []
    folder.mkdir(parents=True)
    with (folder / "list.csv").open("w") as manifest:
        manifest.write("path,label,group\n")
        for number in range(count):
            label, patient = f"class-{number % CLASSES}", f"patient-{number // CLASSES % 100:02}"
            path = f"{label}/{patient}/image-{number:07}.jpg"
            if number < CLASSES * 100:
                (folder / label / patient).mkdir(parents=True)
            if number % 50_000 == 0:  # a file may have so many names on any file system
                sources.append(folder / path)
                sources[-1].write_bytes(b"\xff\xd8\xff%d" % number)
            else:
                os.link(sources[-1], folder / path)
            manifest.write(f"{path},{label},{label}-{patient}\n")
    return folder / "list.csv"


def write_split(manifest: Path) -> Path:
    """The split file of these images, as evalcam writes it."""
    from evalcam_cli.data.samples import Sample, Split, sorted_classes
    from evalcam_cli.data.split_file import write_split

    rows = (line.split(",") for line in manifest.read_text().splitlines()[1:])
    samples = tuple(Sample(p, label, "test", g, sha256=f"{number:064x}") for number, (p, label, g) in enumerate(rows))
    split = Split(manifest.parent, samples, sorted_classes(samples), ratios=(0.0, 0.0, 1.0), source=manifest.name)
    write_split(split, manifest.with_name("split.csv"))
    return manifest.with_name("split.csv")


def status(process: int, name: str) -> int:
    """A line of /proc/PID/status in kB; 0 once the process has gone."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{process}/status").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith(name):
                return int(line.split()[1])
    return 0


def family(process: int) -> Iterator[int]:
    """The process and all that it started."""
    yield process
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{process}/task").iterdir():
            text = (task / "children").read_text(encoding="ascii")
            for child in map(int, text.split()):
                yield from family(child)


def run(command: Sequence[str | Path], *, expect: int = 0, variables: Mapping[str, str] | None = None) -> Spent:
    """The command's time and memory; `variables` are added to its environment."""
    peaks: dict[int, int] = {}
    private: list[tuple[float, int]] = []
    start = time.perf_counter()
    with tempfile.TemporaryFile() as out:
        environment = os.environ | (variables or {})
        child = subprocess.Popen([sys.executable, *map(str, command)], stdout=out, stderr=out, env=environment)
        while True:
            for process in list(family(child.pid)):
                peaks[process] = max(peaks.get(process, 0), status(process, "VmHWM:"))
            private.append((time.perf_counter() - start, status(child.pid, "RssAnon:")))
            done, code, usage = os.wait4(child.pid, os.WNOHANG)
            if done:
                break
            time.sleep(0.02)
        child.returncode = os.waitstatus_to_exitcode(code)
        seconds = time.perf_counter() - start
        out.seek(0)
        text = out.read().decode(errors="replace")
    if child.returncode != expect:
        raise SystemExit(f"{command} ended with {child.returncode}:\n{text[-2000:]}")
    own = peaks[child.pid] / 1024  # not ru_maxrss, which begins at what this process has
    late = max(size for moment, size in private if moment >= seconds / 2) / 1024
    return Spent(seconds, usage.ru_utime + usage.ru_stime, own, sum(peaks.values()) / 1024, text, late)


def evalcam(*arguments: str | Path) -> list[str | Path]:
    return ["-m", "evalcam_cli", *arguments]


def make_checkpoint(root: Path) -> Path:
    """A ResNet-18 with random weights that sees 32 pixels."""
    import torch

    from evalcam_cli.data.preprocessing import Preprocessing
    from evalcam_cli.models.architectures import build_model
    from evalcam_cli.models.checkpoint import Checkpoint, save_checkpoint

    torch.manual_seed(0)
    classes = tuple(f"class-{number}" for number in range(CLASSES))
    path = root / "resnet18.safetensors"
    if not path.exists():
        model = build_model("resnet18", CLASSES)
        save_checkpoint(path, Checkpoint("resnet18", 2, classes, Preprocessing(32, "pad")), model.state_dict())
    return path


def first(folder: Path, count: int, place: Path) -> Path:
    """So many of the images of a folder, as hard links."""
    for number, file in enumerate(sorted(folder.glob("*/*.jpg"), key=lambda path: path.name)[:count]):
        if number < CLASSES:
            (place / file.parent.name).mkdir(parents=True)
        os.link(file, place / file.parent.name / file.name)
    return place


def write_scores(path: Path, count: int, seed: int) -> Path:
    """Saved predictions of so many images, as another program would write them."""
    generator = np.random.default_rng(seed)
    with path.open("w") as stream:
        stream.write("path,target," + ",".join(f"logit:class-{label}" for label in range(CLASSES)) + "\n")
        for number in range(count):
            name = f"class-{number % CLASSES}"
            scores = ",".join(map(str, generator.normal(size=CLASSES).round(6)))
            stream.write(f"{name}/image-{number:06}.jpg,{name},{scores}\n")
    return path


def slope(root: Path, images: Path, name: str, few: int, many: int) -> tuple[float, Spent]:
    """Bytes that an image costs the command's own process; and what a run with many took."""
    kept = {
        "predict": 4 * CLASSES, "evaluate": 4 * CLASSES, "compare": 2 * 8 * CLASSES, "audit": 2 * FINGERPRINT_SIDE**2,
    }.get(name, 0)  # fmt: skip
    size: dict[int, float] = {}
    for count in (few, many):
        data, out = first(images, count, root / f"{name}-{count}"), root / f"{name}-out"
        command = _command(root, name, count, data, out)
        spent: list[Spent] = []
        for _ in range(_RUNS):
            spent.append(run(command, variables=STEADY))
            shutil.rmtree(out)
        size[count] = min(one.late if name in WITH_NETWORK else one.own for one in spent)
        shutil.rmtree(data)
    return (size[many] - size[few]) * 2**20 / (many - few) - kept, spent[-1]


def _command(root: Path, name: str, count: int, data: Path, out: Path) -> list[str | Path]:
    """What is run on so many images in `data`, and what it needs, made."""
    if name == "audit":
        run(evalcam("split", data, "-o", root / "split" / "split.csv", "--overwrite"))
    pair = [write_scores(root / f"scores-{seed}.csv", count, seed) for seed in (1, 2) if name == "compare"]
    weights: list[str | Path] = ["--ckpt", make_checkpoint(root), "--device", "cpu"]
    return {
        "split": evalcam("split", data, "-o", out / "split.csv"),
        "audit": evalcam("audit", root / "split" / "split.csv", "-o", out),
        "compare": evalcam("compare", *pair, "-o", out),
        "predict": evalcam("predict", data, "-o", out / "predictions.csv", *weights),
        "evaluate": evalcam("evaluate", "--data", data, "-o", out, *weights),
        "train": evalcam("train", data, "-o", out, "--device", "cpu", "--epochs", "1", *TRAINING),
        "gradcam": evalcam("gradcam", data, "-o", out, *weights),
    }[name]


def measure_split(root: Path, count: int) -> Spent:
    images = root / f"images-{count}"
    if not images.exists():
        draw_images(images, count)
    return run(evalcam("split", images, "-o", root / "split" / "split.csv", "--overwrite"))


def measure_manifest(root: Path, count: int) -> Spent:
    folder = root / f"links-{count}"
    manifest = folder / "list.csv" if folder.exists() else link_images(folder, count)
    return run(evalcam("split", manifest, "-o", root / "never.csv", "--group-by", "nosuch"), expect=2)


def measure_file(root: Path, count: int) -> Spent:
    folder = root / f"links-{count}"
    manifest = folder / "list.csv" if folder.exists() else link_images(folder, count)
    split = folder / "split.csv" if (folder / "split.csv").exists() else write_split(manifest)
    return run(["-c", READ_SPLIT, split])


_RUNS = 2
STEADY = {"OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}
LIMITS = {"split": (60, 400), "manifest": (20, 500), "file": (40, 500)}
"""Seconds and MB, workers included."""
SLOPES = {
    "split": (4_000, 20_000), "audit": (4_000, 20_000), "predict": (4_000, 20_000), "evaluate": (4_000, 20_000),
    "compare": (4_000, 20_000), "train": (1_000, 5_000), "gradcam": (4_000, 12_000),
}  # fmt: skip
"""Images of the runs that are compared."""
WITH_NETWORK = ("predict", "evaluate", "train", "gradcam")
TRAINING = [
    word
    for setting in ("data.image_size=32", "data.workers=0", "model.arch=resnet18", "model.weights=none",
                    "train.warmup_epochs=0")
    for word in ("--set", setting)
]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", nargs="*", default=["split", "manifest", "file", "slopes"])
    parser.add_argument("--quick", action="store_true", help="a tenth of the images")
    parser.add_argument("--folder", type=Path, help="where images are made, and kept for the next time")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    options = parser.parse_args()
    share = 10 if options.quick else 1
    with contextlib.ExitStack() as stack:
        root = options.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        root.mkdir(parents=True, exist_ok=True)
        found: dict[str, Any] = {}
        fine = [_large(root, what, share, found) for what in options.what if what in LIMITS]
        chosen = (
            SLOPES
            if "slopes" in options.what
            else {name: SLOPES[name] for name in options.what if name in SLOPES and name not in LIMITS}
        )
        fine += [_slopes(root, chosen, share, found)] if chosen else []
    if options.json:
        options.json.write_text(json.dumps(found))
    sys.exit(not all(fine))


def _large(root: Path, what: str, share: int, found: dict[str, Any]) -> bool:
    measured = {"split": measure_split, "manifest": measure_manifest, "file": measure_file}[what]
    count = {"split": 100_000, "manifest": 1_000_000, "file": 1_000_000}[what] // share
    spent = measured(root, count)
    found[what] = spent.numbers(count)
    seconds, memory = LIMITS[what]
    held = spent.seconds <= seconds and spent.everyone <= memory
    print("| | seconds | of the processor | MB | all |\n|---|--:|--:|--:|--:|")
    print(
        spent.row(f"{what}, {count:,}"), f"at most {seconds} s, {memory} MB:", "held" if held else "MISSED", flush=True
    )
    return held


def _slopes(root: Path, chosen: dict[str, tuple[int, int]], share: int, numbers: dict[str, Any]) -> bool:
    numbers["slopes"] = {}
    images = root / "small"
    if not images.exists():
        draw_images(images, 20_000 // share)
    worst = 0.0
    for name, (few, many) in chosen.items():
        found, spent = slope(root, images, name, few // share, many // share)
        print(f"{spent.row(name)} {found:,.0f} bytes an image", flush=True)
        numbers["slopes"][name] = found
        worst = max(worst, found)
    return worst <= 1024


if __name__ == "__main__":
    main()
