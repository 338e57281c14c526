"""Training speed on a GPU from the cache, end to end, against the same network's on a batch that lies in its memory.

    python -m tests.benchmarks.cuda_throughput [--arch resnet50] [--side 224] [--batch 256] [--images 20480]

`evalcam train` itself reads JPEGs that are drawn here, keeps them in memory in the first epoch (`data.cache: ram`), and
trains with bf16, channels last, compiled. The rate is the median of the epochs from the third on: the first decodes
and compiles, the second compiles for the last, smaller batch where there is one. The limit is measured before and after
it, in this process, with evalcam's network, optimiser and settings; the higher one counts. The target is 90 % of it.

Without CUDA: exit 5. `--device cpu --dry-run` goes through everything in a small size, which measures nothing.
"""

import argparse
import csv
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from evalcam_cli.config import RunConfig, TrainConfig
from evalcam_cli.models.architectures import build_model
from evalcam_cli.models.device import make_repeatable, use_full_precision
from evalcam_cli.training.optimisation import make_optimizer

TARGET, CLASSES = 0.9, 4
NO_CUDA = 5


def draw_images(folder: Path, count: int, side: int) -> None:
    """Class folders of smooth JPEGs, no two alike, slightly larger than the network's input."""
    generator = np.random.default_rng(0)
    for index in range(count):
        target = folder / f"class-{index % CLASSES}"
        target.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(generator.integers(0, 256, (12, 12, 3), dtype=np.uint8))
        size = (side + side // 7, side + side // 7)
        coarse.resize(size, Image.Resampling.BICUBIC).save(target / f"{index:06}.jpg", quality=90)


def split_file(folder: Path, work: Path) -> Path:
    """One image in 20 for validation; nothing is searched for copies but what `train` itself does."""
    split = work / "split.csv"
    command = ["split", str(folder), "--out", str(split), "--ratios", "0.95,0.05,0", "--quiet"]
    _evalcam(command)
    return split


def end_to_end(asked: argparse.Namespace, split: Path, run: Path) -> list[float]:
    """Images per second of each epoch of `evalcam train`."""
    settings = {
        "data.cache": "ram",
        "data.workers": asked.workers,
        "train.precision": "bf16",
        "train.compile": str(asked.compile).lower(),
        "train.channels_last": "true",
        "train.deterministic": "false",
        "train.temperature": "false",
    }
    chosen = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    _evalcam(
        [
            "train", "--split", str(split), "--out", str(run), "--arch", asked.arch, "--weights", "none",
            "--epochs", str(asked.epochs), "--batch-size", str(asked.batch), "--image-size", str(asked.side),
            "--device", asked.device, *chosen,
        ]
    )  # fmt: skip
    with (run / "history.csv").open(encoding="utf-8", newline="") as stream:
        return [float(row["images_per_second"]) for row in csv.DictReader(stream)]


def _evalcam(command: list[str]) -> None:
    subprocess.run([sys.executable, "-m", "evalcam_cli", *command], check=True, stdout=subprocess.DEVNULL)


def on_one_batch(asked: argparse.Namespace) -> float:
    """Images per second of the same network, optimiser and settings on a batch in the device's memory."""
    device = torch.device(asked.device)
    make_repeatable(0, deterministic=False)
    use_full_precision()
    model = build_model(asked.arch, CLASSES, last_stride=RunConfig().model.last_stride)
    model = model.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimizer = make_optimizer(model, TrainConfig())
    network = torch.compile(model) if asked.compile else model
    images = torch.randn(asked.batch, 3, asked.side, asked.side, device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    targets = torch.randint(0, CLASSES, (asked.batch,), device=device)

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16):
            loss = torch.nn.functional.cross_entropy(network(images), targets)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    for _ in range(asked.warm_steps):
        step()
    _wait(device)
    began = time.perf_counter()
    for _ in range(asked.steps):
        step()
    _wait(device)
    return float(asked.batch * asked.steps / (time.perf_counter() - began))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", default="resnet50")
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--images", type=int, default=20_480)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--workers", default="auto")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--warm-steps", type=int, default=15)
    parser.add_argument("--no-compile", dest="compile", action="store_false")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--json", type=Path, help="where the numbers are kept")
    asked = parser.parse_args()
    if asked.device == "cpu" and not asked.dry_run:
        parser.error("--device cpu goes with --dry-run only")
    if asked.dry_run:
        asked.arch, asked.side, asked.batch, asked.images, asked.epochs = "resnet18", 32, 8, 60, 3
        asked.compile, asked.steps, asked.warm_steps = False, 3, 1
    return asked


def main() -> None:
    asked = parse()
    if asked.device == "cuda" and not torch.cuda.is_available():
        print("no CUDA device here: not measured", file=sys.stderr)
        sys.exit(NO_CUDA)
    name = torch.cuda.get_device_name() if asked.device == "cuda" else "CPU, dry run"
    with tempfile.TemporaryDirectory() as place:
        work = Path(place)
        draw_images(work / "images", asked.images, asked.side)
        split = split_file(work / "images", work)
        limits = [on_one_batch(asked)]
        if asked.device == "cuda":
            torch.cuda.empty_cache()  # the run is another process
        rates = end_to_end(asked, split, work / "run")
        limits.append(on_one_batch(asked))
    rate, limit = statistics.median(rates[2:]), max(limits)
    held = "a dry run" if asked.dry_run else "held" if rate >= TARGET * limit else "**missed**"
    print(
        f"{asked.arch}, {asked.side} px, batch {asked.batch}, bf16, channels last, "
        f"{'compiled' if asked.compile else 'not compiled'}, {name}, torch {torch.__version__}\n"
        f"- one batch in memory: {' and '.join(f'{one:.0f}' for one in limits)} img/s\n"
        f"- evalcam train, by epoch: {' '.join(f'{one:.0f}' for one in rates)} img/s\n"
        f"- from the cache: {rate:.0f} img/s, {rate / limit:.1%} of the limit (target ≥ {TARGET:.0%}) {held}"
    )
    if asked.json:
        asked.json.write_text(json.dumps({"device": name, "limits": limits, "epochs": rates}), encoding="utf-8")


if __name__ == "__main__":
    main()
