"""Training speed and what it buys: evalcam beside timm, ultralytics and the limit of one batch in memory, on two cores.

    python -m tests.benchmarks.throughput DATA [--split split.csv] [--seeds 3] [--epochs 3] [--json FILE] [--quick]

DATA is what `evalcam split` takes; without --split it is divided anew (`--resplit`), so that no copies cross. The
images are copied into a temporary folder that all tools read. Each run is a process of its own; in every seed the tools
come in another order. A tool may be named with a number of workers (`timm:0`): the first seed tries all variants, the
others go on with the fastest of each tool. What FILE holds already is not run again. throughput_tools.py says how far
the recipes agree.

Measured (2 idle cores of an AMD EPYC with AVX2, torch 2.14.1, `--seeds 3 --epochs 3 --images 1200`, 23 min; 840
training images at 128 px, images/s over all epochs, median of the seeds):

    evalcam 28.4 (27.5-33.7)   timm with 2 workers 26.1 (24.5-32.6)   ultralytics with 2 workers 23.3 (22.0-26.4)
    one batch in memory 27.6 (27.5-32.9)

1.05 times timm (the median of three ratios from 1.03 to 1.16) and 1.25 times ultralytics. Twice ultralytics is out of
reach here: it runs at 84 % of what the model alone takes. Peak memory 1,895 MB against 1,411 and 1,503. Test balanced
accuracy after three epochs 0.676, 0.626 and 0.708: too few epochs and images to tell the recipes apart.
"""

import argparse
import json
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from tests.benchmarks.throughput_tools import Result, Task, run_tool
from tests.conftest import read_rows

TOOLS = ("evalcam", "timm", "ultralytics", "ultralytics-own", "limit")
BF16_TOOLS = ("evalcam-bf16", "limit-bf16")
VARIANTS = ("evalcam", "timm:0", "timm:2", "ultralytics:0", "ultralytics:2", "limit")


@dataclass(frozen=True)
class Target:
    """How many times as fast as another one tool must be."""

    fast: str
    slow: str
    ratio: float


TARGETS = (
    Target("evalcam", "ultralytics", 2),
    Target("evalcam", "timm", 1.05),
    Target("evalcam-bf16", "timm", 1.8),
)
LOWER = 0.015
"""How much lower evalcam's mean test balanced accuracy may be."""

Runs = dict[str, Result]
"""By `variant seed`."""


def export(data: Path, split: Path, folder: Path, *, at_most: int | None) -> None:
    """Copy the images of a split into train, val and test with class folders; the peers may change what they read.

    With `at_most`, so many of them, spread evenly over each set and class.
    """
    rows = read_rows(split)
    parts: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        parts.setdefault((row["set"], row["label"]), []).append(row["path"])
    for (name, label), paths in parts.items():
        target = folder / name / label
        target.mkdir(parents=True)
        count = len(paths) if at_most is None else max(2, round(len(paths) * at_most / len(rows)))
        for number in range(min(count, len(paths))):
            path = data / paths[number * len(paths) // min(count, len(paths))]
            shutil.copyfile(path, target / f"{number:05}{path.suffix.lower()}")


def divide(data: Path, work: Path) -> Path:
    """A new split without leaks."""
    split = work / "split.csv"
    command = ["split", str(data), "--out", str(split), "--resplit", "--quiet"]
    subprocess.run([sys.executable, "-m", "evalcam_cli", *command], check=True, stdout=subprocess.DEVNULL)
    return split


def measure(asked: argparse.Namespace, variants: Sequence[str], data: Path, work: Path, runs: Runs) -> None:
    """Fill in the runs that are missing, and save after each."""
    for seed in range(asked.seeds):
        chosen = list(variants) if seed == 0 else list(fastest(variants, runs).values())
        for variant in random.Random(seed).sample(chosen, len(chosen)):
            key = f"{variant} {seed}"
            if key in runs:
                continue
            tool, _, workers = variant.partition(":")
            folder = work / key.replace(" ", "-").replace(":", "-")
            folder.mkdir()
            task = Task(
                data=data, work=folder, seed=seed, epochs=asked.epochs, batch=asked.batch, side=asked.side,
                threads=asked.threads, workers=int(workers) if workers else None,
            )  # fmt: skip
            runs[key] = found = run_tool(tool, task)
            print(f"{variant}, seed {seed}: {found.rate:.1f} img/s, {found.wall:.0f} s in all", file=sys.stderr)
            shutil.rmtree(folder)
            if asked.json:
                asked.json.write_text(json.dumps(document(asked, runs), indent=1), encoding="utf-8")


def fastest(variants: Sequence[str], runs: Runs) -> dict[str, str]:
    """The variant with the highest rate in the first seed, by tool."""
    best: dict[str, str] = {}
    for variant in variants:
        tool = variant.partition(":")[0]
        if tool not in best or runs[f"{variant} 0"].rate > runs[f"{best[tool]} 0"].rate:
            best[tool] = variant
    return best


def settings(asked: argparse.Namespace) -> dict[str, Any]:
    """What must be equal for runs to be comparable."""
    return {name: getattr(asked, name) for name in ("epochs", "batch", "side", "threads", "images")}


def document(asked: argparse.Namespace, runs: Runs) -> dict[str, Any]:
    return {"settings": settings(asked), "runs": {key: asdict(run) for key, run in runs.items()}}


def saved_runs(asked: argparse.Namespace) -> Runs:
    if asked.json is None or not asked.json.exists():
        return {}
    found = json.loads(asked.json.read_text(encoding="utf-8"))
    if found["settings"] != settings(asked):
        raise SystemExit(f"{asked.json} holds runs with {found['settings']}; name another file")
    return {key: Result(**run) for key, run in found["runs"].items()}


def print_report(asked: argparse.Namespace, variants: Sequence[str], runs: Runs) -> None:
    by_variant = {
        variant: [runs[f"{variant} {seed}"] for seed in range(asked.seeds) if f"{variant} {seed}" in runs]
        for variant in variants
    }
    print(
        f"ResNet-18 from scratch, {asked.side} px, batch {asked.batch}, {asked.epochs} epochs, "
        f"{asked.threads} threads, torch {torch.__version__}\n\n"
        "| | runs | img/s | range | last epoch | wall, s | CPU, s | peak MB | val acc | test bal. acc | by seed |\n"
        "|---|--:|--:|---|--:|--:|--:|--:|--:|--:|---|"
    )
    for variant, found in by_variant.items():
        print(_line(variant, found))
    print()
    best = fastest(variants, runs)
    for target in TARGETS:
        if target.fast in best and target.slow in best:
            _print_ratio(target, by_variant[best[target.fast]], by_variant[best[target.slow]])
    for tool in ("evalcam", "evalcam-bf16"):
        limit = tool.replace("evalcam", "limit")
        if tool in best and limit in best:
            rate, most = (statistics.median(run.rate for run in by_variant[best[name]]) for name in (tool, limit))
            print(f"- {tool}: {rate / most:.0%} of {limit}")
    if not has_bf16():
        print("- bf16: not measured, this CPU has no bf16 arithmetic")
    _print_accuracy(best, by_variant)


def _line(variant: str, runs: Sequence[Result]) -> str:
    rates = [run.rate for run in runs]
    last = statistics.median(run.images[-1] / run.seconds[-1] for run in runs)
    balanced = [run.test_balanced_accuracy for run in runs if run.test_balanced_accuracy is not None]
    plain = [run.val_accuracy for run in runs if run.val_accuracy is not None]
    accuracy = f"{statistics.mean(plain):.3f} | {statistics.mean(balanced):.3f}" if plain and balanced else "– | –"
    return (
        f"| {variant} | {len(runs)} | {statistics.median(rates):.1f} | {min(rates):.1f}–{max(rates):.1f} | {last:.1f} "
        f"| {statistics.median(run.wall for run in runs):.0f} | {statistics.median(run.cpu for run in runs):.0f} "
        f"| {max(run.megabytes for run in runs):.0f} | {accuracy} "
        f"| {' '.join(f'{value:.3f}' for value in balanced) or '–'} |"
    )


def _print_ratio(target: Target, fast: Sequence[Result], slow: Sequence[Result]) -> None:
    """Median of the ratios within each seed, whose runs were made one after the other."""
    found = statistics.median(one.rate / other.rate for one, other in zip(fast, slow, strict=False))
    held = "held" if found >= target.ratio else "**missed**"
    print(f"- {target.fast} / {target.slow}: {found:.2f} (target ≥ {target.ratio:g}) {held}")


def _print_accuracy(best: Mapping[str, str], by_variant: Mapping[str, Sequence[Result]]) -> None:
    means = {
        tool: statistics.mean(run.test_balanced_accuracy or 0.0 for run in by_variant[variant])
        for tool, variant in best.items()
        if not tool.startswith("limit")
    }
    peers = {tool: mean for tool, mean in means.items() if not tool.startswith("evalcam")}
    for tool in sorted(means.keys() - peers.keys()):
        for peer, mean in peers.items():
            lead = means[tool] - mean
            held = "held" if lead >= -LOWER else "**missed**"
            print(f"- test balanced accuracy, {tool} - {peer}: {100 * lead:+.1f} points (target ≥ -1.5) {held}")


def has_bf16() -> bool:
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def chosen_variants(names: Sequence[str] | None) -> list[str]:
    every = {*TOOLS, *BF16_TOOLS}
    chosen = list(names or VARIANTS) + ([] if names or not has_bf16() else list(BF16_TOOLS))
    for variant in chosen:
        tool, _, workers = variant.partition(":")
        if tool not in every or not (workers.isdecimal() or workers == ""):
            raise SystemExit(f"--tools: no {variant}; there are {', '.join(sorted(every))}, each also as TOOL:WORKERS")
    usable = [variant for variant in chosen if has_bf16() or variant.partition(":")[0] not in BF16_TOOLS]
    for variant in set(chosen) - set(usable):
        print(f"{variant}: not measured, this CPU has no bf16 arithmetic", file=sys.stderr)
    return usable


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--split", type=Path, help="of DATA; made anew by default")
    parser.add_argument("--tools", nargs="+", help=f"by default {' '.join(VARIANTS)}, and bf16 where the CPU has it")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--images", type=int, help="at most so many of the split's")
    parser.add_argument("--json", type=Path, help="where runs are kept")
    parser.add_argument("--quick", action="store_true", help="300 images, 1 epoch, 1 seed: does it still run?")
    asked = parser.parse_args()
    if asked.quick:
        asked.seeds, asked.epochs, asked.images = 1, 1, asked.images or 300
    variants = chosen_variants(asked.tools)
    runs = saved_runs(asked)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        export(asked.data, asked.split or divide(asked.data, work), work / "images", at_most=asked.images)
        measure(asked, variants, work / "images", work, runs)
    print_report(asked, variants, runs)


if __name__ == "__main__":
    main()
