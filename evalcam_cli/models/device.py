"""Where the model runs, and how strictly it repeats itself."""

import multiprocessing
import os

import torch

from evalcam_cli.data.machine import processes_here, usable_cores
from evalcam_cli.errors import MachineError
from evalcam_cli.text import counted
from evalcam_cli.world import world

_MOST_BESIDE_CPU, _MOST_BESIDE_GPU = 4, 16
_FEW, _FEW_FOR_NEW_PROCESSES = 64, 1000
"""With fewer images, starting workers costs more than it saves."""


def choose_device(name: str) -> torch.device:
    """The device for `auto`, `cpu` or `cuda`; of several processes on a machine each has a GPU of its own.

    Raises:
        MachineError: CUDA was asked for and there is none, or there are more processes than GPUs.
    """
    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "the CPU only"
    if name == "cuda" and not torch.cuda.is_available():
        raise MachineError(
            "--device cuda: no usable CUDA device was found "
            f"(torch {torch.__version__}, built for {build}); "
            "use --device cpu, or install a GPU driver and a CUDA build of torch"
        )
    use_cuda = name == "cuda" or (name == "auto" and torch.cuda.is_available())
    if not use_cuda:
        return torch.device("cpu")
    if world().size == 1:
        return torch.device("cuda")
    place, count = world().local_rank, torch.cuda.device_count()
    if place >= count:
        raise MachineError(
            f"there are {processes_here()} processes on this machine and {counted(count, 'GPU')}; start as many "
            "processes as GPUs (--nproc-per-node), or use --device cpu"
        )
    torch.cuda.set_device(place)  # also for what the processes send each other
    return torch.device("cuda", place)


def make_repeatable(seed: int, *, deterministic: bool) -> None:
    """Seed torch's global generator and, when asked, avoid algorithms whose result varies from run to run."""
    torch.manual_seed(seed)
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA starts
    torch.backends.cudnn.benchmark = not deterministic  # all inputs are of one size: the fastest kernel is found once
    torch.use_deterministic_algorithms(deterministic, warn_only=True)


def use_full_precision() -> None:
    """Keep TF32 out of convolutions: it moves logits by a thousandth, which evaluation should not."""
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


def worker_count(setting: str | int, *, device: torch.device | None = None, images: int | None = None) -> int:
    """Processes that read images, for `data.workers`; `auto` is one per core that has nothing else to do.

    On the CPU the model computes with all cores, so that more than 4 would only disturb it; beside a GPU, which asks
    for thousands of images a second, the cores are free. A worker that is not forked (macOS, Windows) first imports
    torch, which takes seconds, and for a few images is slower than to read them.

    Args:
        setting: A number, which is taken as it is, or `auto`.
        device: That the model computes on; by default the CPU.
        images: How many there are; by default many.
    """
    if isinstance(setting, int):
        return setting
    # not the other way to ask, which would also settle the method for good
    method = multiprocessing.get_start_method(allow_none=True) or multiprocessing.get_all_start_methods()[0]
    if images is not None and images < (_FEW if method == "fork" else _FEW_FOR_NEW_PROCESSES):
        return 0
    most = _MOST_BESIDE_GPU if device is not None and device.type == "cuda" else _MOST_BESIDE_CPU
    return max(0, min(most, usable_cores() // processes_here() - 1))
