"""How much resident memory an explanation takes at its peak, each tool in a process of its own."""

import ctypes
import gc
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from evalcam_cli.explain.maps import layer_maps
from tests.benchmarks.explanation_peers import CAPTUM, GRAD_CAM, TORCHCAM, build, noise, quiet
from tests.benchmarks.explanation_speed import every_class, predicted

Explain = Callable[[nn.Module, nn.Module, Tensor], object]


def _forward(model: nn.Module, layer: nn.Module, images: Tensor) -> Tensor:
    with torch.inference_mode():
        output: Tensor = model(images)
        return output


EXPLANATIONS: dict[str, Explain] = {
    "forward": _forward,
    "evalcam": lambda model, layer, images: layer_maps(model, [layer], images, predicted),
    "evalcam, 10 classes": lambda model, layer, images: layer_maps(model, [layer], images, every_class(len(images))),
    "torchcam": lambda model, layer, images: TORCHCAM.maps["gradcam"](model, layer, images, [0] * len(images)),
    "captum": lambda model, layer, images: CAPTUM.maps["gradcam"](model, layer, images, [0] * len(images)),
    "grad-cam": lambda model, layer, images: GRAD_CAM.maps["gradcam"](model, layer, images, [0] * len(images)),
}
LIMIT = 4
"""torchcam's extra memory over evalcam's, at least."""


def measure(name: str, *, images: int, side: int) -> float:
    """MB of resident memory at the peak, above what the loaded model, the images and the tool's own code take."""
    model, batch, explain = build("ResNet-50", side=64), noise(images, side), EXPLANATIONS[name]
    layer = model.get_submodule("layer4")
    with quiet():
        explain(model, layer, noise(1, 32))  # all code is loaded
        gc.collect()
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak is counted from here
        before = _status("VmRSS")
        explain(model, layer, batch)
    return (_status("VmHWM") - before) / 1000


def _status(entry: str) -> float:
    """KB of this process."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(f"{entry}:")) * 1.024


def print_memory(*, images: int, side: int) -> bool:
    """The table in Markdown; whether the limit was held. Linux only."""
    print(f"ResNet-50, {images} images of {side} px: resident memory at the peak above the loaded model\n")
    print("| | MB | × evalcam |\n|---|--:|--:|")
    found = {name: _in_a_process(name, images=images, side=side) for name in EXPLANATIONS}
    for name, megabytes in found.items():
        print(f"| {name} | {megabytes:.0f} | {megabytes / found['evalcam']:.2f} |")
    ratio = found["torchcam"] / found["evalcam"]
    print(f"\n- torchcam / evalcam: {ratio:.2f} (target ≥ {LIMIT}) {'held' if ratio >= LIMIT else '**missed**'}")
    return ratio >= LIMIT


def _in_a_process(name: str, *, images: int, side: int) -> float:
    asked = ["--only", name, "--images", str(images), "--side", str(side)]
    command = [sys.executable, "-m", "tests.benchmarks.explanations", "memory", *asked]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(json.loads(done.stdout.splitlines()[-1]))
