"""One training run by evalcam or a peer, in a process of its own: the same images, one recipe as far as tools allow.

The recipe: ResNet-18 from random weights, AdamW (rate 1e-3, decay 0.05), one epoch of warm-up if there are two or more,
a cosine to 0, mirror images, brightness and contrast within 15 %. What differs, because the tools do:

* evalcam pads to a square, turns by up to 10 degrees, shifts by up to 5 % and scales by up to 10 %; timm and
  ultralytics cut out a random rectangle of 80 to 100 % of the area, and validate on the centre square.
* timm leaves out the last, smaller batch of an epoch. Its train.py is not in its wheel: this is that loop, from timm's
  own parts (model, loader, optimiser, schedule), channels last.
* ultralytics has its head (a 1x1 convolution to 1280 channels, then linear), warms momentum up as well, keeps a moving
  average of the weights, and uses channels last on CUDA only. On a CPU it sets one thread less than there are cores:
  `ultralytics` is given all of `threads`, `ultralytics-own` is left that.
* evalcam keeps the epoch with the best balanced accuracy, the others that with the best accuracy.
"""

import csv
import importlib
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

LR, DECAY, JITTER, SMALLEST = 1e-3, 0.05, 0.15, 0.8


@dataclass(frozen=True)
class Task:
    """What to train on and how long."""

    data: Path
    """Holds train, val and test with class folders."""
    work: Path
    """An empty folder of the run's own."""
    seed: int
    epochs: int
    batch: int
    side: int
    threads: int
    workers: int | None
    """None leaves it to the tool."""

    @property
    def warmup(self) -> int:
        return 1 if self.epochs > 1 else 0

    def write(self) -> Path:
        path = self.work / "task.json"
        path.write_text(json.dumps(asdict(self), default=str), encoding="utf-8")
        return path


@dataclass(frozen=True)
class Result:
    """What a run took and gave."""

    images: list[int]
    """Trained on, of each epoch."""
    seconds: list[float]
    """Of each epoch, reading included, validation not."""
    wall: float
    """From the start of the process to the end of training, in seconds: imports, checks of the data, validation."""
    cpu: float
    """Seconds of computing, of all processes and cores (a peer's with its test): what a busy machine changes least."""
    megabytes: float
    """Peak resident memory of the largest process."""
    val_accuracy: float | None
    """Of the weights kept, as the tool says it."""
    test_balanced_accuracy: float | None

    @property
    def rate(self) -> float:
        """Images per second over all epochs."""
        return sum(self.images) / sum(self.seconds)


def run_tool(tool: str, task: Task) -> Result:
    """One run of `evalcam`, `evalcam-bf16`, `timm`, `ultralytics`, `ultralytics-own`, `limit` or `limit-bf16`."""
    if tool.startswith("evalcam"):
        return _run_evalcam(task, precision="bf16" if tool.endswith("bf16") else "fp32")
    result = task.work / "result.json"
    command = [sys.executable, "-m", "tests.benchmarks.throughput_tools", tool, str(task.write()), str(result)]
    began = time.time()
    cpu, megabytes = _finished(command, task)
    found = json.loads(result.read_text(encoding="utf-8"))
    return Result(wall=found.pop("trained") - began, cpu=cpu, megabytes=megabytes, **found)


def _finished(command: list[str], task: Task) -> tuple[float, float]:
    """Run it to its end; its seconds of computing, and the peak resident megabytes of its largest process."""
    threads = str(task.threads)
    settings = {
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "YOLO_CONFIG_DIR": str(task.work),
        "YOLO_OFFLINE": "true",
        "YOLO_AUTOINSTALL": "false",
    }
    output = task.work / "output.txt"
    with output.open("ab") as stream:
        process = subprocess.Popen(command, env=os.environ | settings, stdout=stream, stderr=stream)
        _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        said = output.read_text(encoding="utf-8", errors="replace")[-3000:]
        raise SystemExit(f"{' '.join(command)}\nended with {process.returncode}:\n{said}")
    return used.ru_utime + used.ru_stime, used.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def _run_evalcam(task: Task, *, precision: str) -> Result:
    run, evaluated = task.work / "run", task.work / "evaluated"
    evalcam = [sys.executable, "-m", "evalcam_cli"]
    settings = {
        "data.workers": "auto" if task.workers is None else task.workers,
        "train.weight_decay": DECAY,
        "train.warmup_epochs": task.warmup,
        "train.precision": precision,
        "train.augment.brightness": JITTER,
        "train.augment.contrast": JITTER,
    }
    chosen = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    began = time.time()
    cpu, megabytes = _finished(
        [
            *evalcam, "train", str(task.data), "--out", str(run), "--arch", "resnet18", "--weights", "none",
            "--epochs", str(task.epochs), "--batch-size", str(task.batch), "--lr", str(LR),
            "--image-size", str(task.side), "--seed", str(task.seed), "--device", "cpu", *chosen,
        ],
        task,
    )  # fmt: skip
    wall = time.time() - began
    quick = ["--set", "evaluate.bootstrap=100"]
    _finished([*evalcam, "evaluate", "--ckpt", str(run), "--out", str(evaluated), "--device", "cpu", *quick], task)
    with (run / "history.csv").open(encoding="utf-8", newline="") as stream:
        history = list(csv.DictReader(stream))
    best = max(history, key=lambda row: (float(row["val_balanced_accuracy"]), -float(row["val_loss"])))
    count = sum(1 for path in (task.data / "train").rglob("*") if path.is_file())
    metrics = json.loads((evaluated / "metrics.json").read_text(encoding="utf-8"))["metrics"]
    return Result(
        images=[count] * len(history),
        seconds=[count / float(row["images_per_second"]) for row in history],
        wall=wall,
        cpu=cpu,
        megabytes=megabytes,
        val_accuracy=float(best["val_accuracy"]),
        test_balanced_accuracy=metrics["balanced_accuracy"]["estimate"],
    )


def balanced(confusion: Any) -> float:
    """Mean recall, from a (K, K) table of counts whose rows are the truth."""
    return float(np.mean(np.diag(confusion) / np.sum(confusion, axis=1)))


def train_with_timm(task: Task) -> dict[str, Any]:
    import torch

    timm, data = importlib.import_module("timm"), importlib.import_module("timm.data")
    torch.manual_seed(task.seed)
    device, workers = torch.device("cpu"), 2 if task.workers is None else task.workers

    def loader(name: str, *, training: bool) -> Any:
        changes = {"scale": (SMALLEST, 1.0), "hflip": 0.5, "color_jitter": (JITTER, JITTER, 0.0)} if training else {}
        return data.create_loader(
            data.create_dataset("", root=str(task.data / name)), input_size=(3, task.side, task.side),
            batch_size=task.batch, is_training=training, num_workers=workers, device=device, crop_pct=1.0, **changes,
        )  # fmt: skip

    training, validation, test = (loader(name, training=name == "train") for name in ("train", "val", "test"))
    classes = len(training.dataset.reader.class_to_idx)
    model = timm.create_model("resnet18", num_classes=classes).to(memory_format=torch.channels_last)
    optimizer = importlib.import_module("timm.optim").create_optimizer_v2(model, opt="adamw", lr=LR, weight_decay=DECAY)
    scheduler, _ = importlib.import_module("timm.scheduler").create_scheduler_v2(
        optimizer, sched="cosine", num_epochs=task.epochs, warmup_epochs=task.warmup, warmup_lr=1e-5, min_lr=0.0,
        warmup_prefix=False, step_on_epochs=False, updates_per_epoch=len(training),
    )  # fmt: skip
    criterion = torch.nn.CrossEntropyLoss()

    def confusion(batches: Any) -> Any:
        counts = np.zeros((classes, classes))
        model.eval()
        with torch.inference_mode():
            for images, targets in batches:
                predicted = model(images.contiguous(memory_format=torch.channels_last)).argmax(dim=1)
                np.add.at(counts, (targets.numpy(), predicted.numpy()), 1)
        return counts

    counts: list[int] = []
    seconds: list[float] = []
    updates, kept, best = 0, {}, -1.0
    for _ in range(task.epochs):
        began, seen = time.perf_counter(), 0
        model.train()
        for images, targets in training:
            loss = criterion(model(images.contiguous(memory_format=torch.channels_last)), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            updates, seen = updates + 1, seen + len(images)
            scheduler.step_update(num_updates=updates)
        seconds.append(time.perf_counter() - began)
        counts.append(seen)
        table = confusion(validation)
        accuracy = float(np.trace(table) / table.sum())
        if accuracy > best:
            best, kept = accuracy, {name: value.clone() for name, value in model.state_dict().items()}
    trained = time.time()
    model.load_state_dict(kept)
    return {
        "images": counts, "seconds": seconds, "trained": trained, "val_accuracy": best,
        "test_balanced_accuracy": balanced(confusion(test)),
    }  # fmt: skip


_YOLO = """\
nc: {classes}
backbone:
  - [-1, 1, TorchVision, [512, resnet18, null, True, 2]]
head:
  - [-1, 1, Classify, [nc]]
"""


def train_with_ultralytics(task: Task, *, own_threads: bool) -> dict[str, Any]:
    import torch

    yolo = importlib.import_module("ultralytics").YOLO
    classes = sum(1 for path in (task.data / "train").iterdir() if path.is_dir())
    description = task.work / "resnet18-cls.yaml"
    description.write_text(_YOLO.format(classes=classes), encoding="utf-8")
    model = yolo(str(description), task="classify", verbose=False)
    begins: list[float] = []
    seconds: list[float] = []

    def start(_: object) -> None:
        if not own_threads:
            torch.set_num_threads(task.threads)

    model.add_callback("on_train_start", start)
    model.add_callback("on_train_epoch_start", lambda _: begins.append(time.perf_counter()))
    model.add_callback("on_train_epoch_end", lambda _: seconds.append(time.perf_counter() - begins[-1]))
    workers = {} if task.workers is None else {"workers": task.workers}
    model.train(
        data=str(task.data), epochs=task.epochs, batch=task.batch, imgsz=task.side, seed=task.seed, device="cpu",
        pretrained=False, amp=False, plots=False, project=str(task.work), name="run", nbs=task.batch,
        optimizer="AdamW", lr0=LR, lrf=0.0, weight_decay=DECAY, momentum=0.9, cos_lr=True, warmup_epochs=task.warmup,
        warmup_bias_lr=0.0, auto_augment=None, erasing=0.0, scale=1 - SMALLEST, fliplr=0.5, hsv_h=0.0, hsv_s=0.0,
        hsv_v=JITTER, patience=0, verbose=False, **workers,
    )  # fmt: skip
    trained = time.time()
    folder = Path(model.trainer.save_dir)
    with (folder / "results.csv").open(encoding="utf-8", newline="") as stream:
        rows = [{key.strip(): value for key, value in row.items()} for row in csv.DictReader(stream)]
    best = yolo(str(folder / "weights" / "best.pt"))
    tested = best.val(
        data=str(task.data), split="test", imgsz=task.side, batch=task.batch, device="cpu", plots=False, workers=0,
        project=str(task.work), name="test", verbose=False,
    )  # fmt: skip
    count = len(model.trainer.train_loader.dataset)
    return {
        "images": [count] * len(seconds), "seconds": seconds, "trained": trained,
        "val_accuracy": max(float(row["metrics/accuracy_top1"]) for row in rows),
        "test_balanced_accuracy": balanced(np.asarray(tested.confusion_matrix.matrix)[:classes, :classes].T),
    }  # fmt: skip


def train_on_one_batch(task: Task, *, bf16: bool) -> dict[str, Any]:
    """The same network and optimiser on a batch that lies in memory: as fast as training can be."""
    import torch
    from torchvision.models import resnet18

    torch.manual_seed(task.seed)
    model = resnet18(num_classes=4).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=DECAY)
    images = torch.randn(task.batch, 3, task.side, task.side).contiguous(memory_format=torch.channels_last)
    targets = torch.randint(0, 4, (task.batch,))
    seconds = []
    for _ in range(3 + 10 * task.epochs):
        began = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = torch.nn.functional.cross_entropy(model(images), targets)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        seconds.append(time.perf_counter() - began)
    kept = seconds[3:]  # the first steps choose kernels and get memory
    return {
        "images": [task.batch] * len(kept), "seconds": kept, "trained": time.time(), "val_accuracy": None,
        "test_balanced_accuracy": None,
    }  # fmt: skip


def main(tool: str, task_file: str, result_file: str) -> None:
    import torch

    read = json.loads(Path(task_file).read_text(encoding="utf-8"))
    task = Task(**read | {"data": Path(read["data"]), "work": Path(read["work"])})
    torch.set_num_threads(task.threads)
    if tool == "timm":
        found = train_with_timm(task)
    elif tool.startswith("ultralytics"):
        found = train_with_ultralytics(task, own_threads=tool.endswith("own"))
    else:
        found = train_on_one_batch(task, bf16=tool.endswith("bf16"))
    Path(result_file).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
