"""Where the model runs, and how strictly it repeats itself."""

import os

import torch

from evalcam_cli.errors import MachineError


def choose_device(name: str) -> torch.device:
    """The device for `auto`, `cpu` or `cuda`.

    Raises:
        MachineError: CUDA was asked for and there is none.
    """
    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "the CPU only"
    if name == "cuda" and not torch.cuda.is_available():
        raise MachineError(
            "--device cuda: no usable CUDA device was found "
            f"(torch {torch.__version__}, built for {build}); "
            "use --device cpu, or install a GPU driver and a CUDA build of torch"
        )
    use_cuda = name == "cuda" or (name == "auto" and torch.cuda.is_available())
    return torch.device("cuda" if use_cuda else "cpu")


def make_repeatable(seed: int, *, deterministic: bool) -> None:
    """Seed torch's global generator and, when asked, avoid algorithms whose result varies from run to run."""
    torch.manual_seed(seed)
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA starts
        torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(deterministic, warn_only=True)


def use_full_precision() -> None:
    """Keep TF32 out of convolutions: it moves logits by a thousandth, which evaluation should not."""
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


def worker_count(setting: str | int) -> int:
    """Processes that read images, for `data.workers`."""
    return setting if isinstance(setting, int) else max(0, min(4, (os.cpu_count() or 1) - 1))
