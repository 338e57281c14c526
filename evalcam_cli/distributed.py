"""Several processes as one run, on torch.distributed: gloo between CPUs, NCCL between GPUs.

Each function does nothing but its job when the process is alone. All processes must call them in the same order.
"""

import contextlib
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from evalcam_cli.world import World, world

Result = TypeVar("Result")
_TIMEOUT = timedelta(days=1)  # the first process may read a hundred thousand images while the others wait


@contextlib.contextmanager
def joined() -> Iterator[World]:
    """The processes that torchrun started as one group, for the time of the block."""
    here = world()
    if here.size == 1 or dist.is_initialized():
        yield here
        return
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, timeout=_TIMEOUT)
    try:
        yield here
    finally:
        dist.destroy_process_group()


def on_first(job: Callable[[], Result]) -> Result:
    """The result of a job that the first process alone does; what it raises is raised in all of them."""
    here = world()
    if here.size == 1:
        return job()
    box: list[Any] = [None]
    if here.first:
        try:
            box = [(job(), None)]
        except Exception as error:
            error.__traceback__ = None  # tracebacks do not travel
            box = [(None, error)]
    dist.broadcast_object_list(box, src=0)
    result, raised = box[0]
    if raised is not None:
        raise raised
    return result  # type: ignore[no-any-return]


def highest_of(value: int) -> int:
    """The highest of the processes' values."""
    if world().size == 1:
        return value
    box = torch.tensor([value], dtype=torch.int64)
    dist.all_reduce(box, dist.ReduceOp.MAX)
    return int(box.item())


def from_first(tensor: Tensor) -> None:
    """Overwrite a tensor with that of the first process."""
    if world().size > 1:
        dist.broadcast(tensor, src=0)


def sum_of(value: float) -> float:
    """The sum of the processes' values, the same bits in each."""
    if world().size == 1:
        return value
    box = torch.tensor([value], dtype=torch.float64)
    dist.all_reduce(box)
    return float(box.item())


def share(count: int) -> range:
    """Positions, of so many, that are this process's work: every one in exactly one process."""
    here = world()
    return range(here.rank, count, here.size)


def gather_rows(rows: NDArray[np.float32], total: int) -> NDArray[np.float32]:
    """All rows in order, in every process, from the rows that each has of its `share(total)`.

    Args:
        rows: (len(share(total)), K) float32; K is the same in all processes, unless there are no rows.
        total: Of rows in all processes.

    Returns:
        (total, K) float32.
    """
    size = world().size
    if size == 1:
        return rows
    width = torch.tensor([rows.shape[1] if len(rows) else 0], dtype=torch.int64)
    dist.all_reduce(width, dist.ReduceOp.MAX)
    padded = torch.zeros(-(-total // size), int(width.item()), dtype=torch.float32)
    if len(rows):
        padded[: len(rows)] = torch.from_numpy(np.ascontiguousarray(rows))
    parts = [torch.empty_like(padded) for _ in range(size)]
    dist.all_gather(parts, padded)
    return torch.stack(parts, dim=1).flatten(0, 1)[:total].numpy()  # row i of process r is row i * size + r of all
