"""Where and with what a run was made, as written to `environment.json`."""

import os
import platform
import shlex
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from evalcam_cli import __version__

_PACKAGES = ("torch", "torchvision", "pillow", "numpy", "scipy", "scikit-learn", "safetensors")


def versions() -> dict[str, str]:
    """The versions that the results depend on."""
    found = {"evalcam": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def environment(device: torch.device) -> dict[str, Any]:
    """Versions, machine and command of this run."""
    return {
        "versions": versions(),
        "platform": platform.platform(),
        "cpu_cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "device": str(device),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "command": shlex.join(["evalcam", *sys.argv[1:]]),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }
