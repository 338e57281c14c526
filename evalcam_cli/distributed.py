"""Several processes as one run, on torch.distributed: gloo between CPUs, NCCL between GPUs.

A process that is alone only does what it is asked, without torch. Else all processes must call these functions in the
same order, and whatever one of them raises here, all raise: the first one says it (`world.World.first`), the others
leave silently.
"""

import contextlib
import functools
import io
import pickle
import socket
import time
import traceback
import uuid
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from evalcam_cli.errors import EvalcamError, MachineError
from evalcam_cli.world import World, world

if TYPE_CHECKING:
    from torch import Tensor
    from torch.distributed.distributed_c10d import Store

Shared = TypeVar("Shared")
Own = TypeVar("Own")
Result = TypeVar("Result")

_TIMEOUT = timedelta(days=1)  # the first process may read a hundred thousand images while the others wait
_LOST = (
    "Connection closed by peer",
    "Connection reset by peer",
    "Broken pipe",
    "gloo/transport",
    "remote process exited",
)
"""In torch's words for another process that is no longer there."""
_alone: ContextVar[bool] = ContextVar("alone", default=False)
"""Whether the others wait until this process has done a job."""
_POLL = 0.02  # seconds


@contextlib.contextmanager
def joined() -> Iterator[World]:
    """The processes that torchrun started as one group, for the time of the block; blocks may be nested.

    An exception that leaves the outermost block is marked for `told_by_first`.

    Raises:
        MachineError: The processes cannot reach each other, or have lost each other.
    """
    here = world()
    if here.size == 1:
        yield here
        return
    import torch  # noqa: PLC0415 (only when there are several)
    import torch.distributed as dist  # noqa: PLC0415
    from torch.distributed.distributed_c10d import PrefixStore  # noqa: PLC0415

    if dist.is_initialized():
        yield here
        return
    try:
        store = PrefixStore(_agreed_name(_store(), here), _store())
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, store=store, rank=here.rank, world_size=here.size, timeout=_TIMEOUT)
    except (RuntimeError, ValueError, OSError) as error:
        raise _cannot_join(error, here) from error
    try:
        yield here
    except RuntimeError as error:
        if isinstance(error, dist.DistBackendError) and not any(words in str(error) for words in _LOST):
            raise _cannot_join(error, here) from error  # NCCL connects when it is first used
        if not any(words in str(error) for words in _LOST):
            _mark(error, everywhere=False)
            raise
        lost = MachineError(f"another of the {here.size} processes of this run has ended; its own message says why")
        _mark(lost, everywhere=True)
        raise lost from error
    except Exception as error:
        _mark(error, everywhere=False)
        raise
    finally:
        dist.destroy_process_group()


@functools.cache
def _store() -> "Store":
    """Where the processes find each other, as torchrun's environment says; held until the process ends."""
    from torch.distributed.rendezvous import rendezvous  # noqa: PLC0415

    store: Store = next(rendezvous("env://", timeout=_TIMEOUT))[0]
    return store


def _agreed_name(store: "Store", here: World) -> str:
    """A name for this meeting that none before had.

    The store may be that of an earlier meeting, also of processes that have died since and were started anew, whose
    sockets are closed: nothing that they left in it may be taken for this meeting's. So the first process offers a new
    name, each other one answers the offer that it finds, and goes when its own answer to the new one is confirmed.
    """
    own = uuid.uuid4().hex
    if here.first:
        store.set("evalcam/offer", own)
        waiting = set(range(1, here.size))
        while waiting:
            for rank in sorted(waiting):
                name, _, answer = _found(store, f"evalcam/answer/{rank}").partition(" ")
                if name == own:
                    store.set(f"evalcam/confirmed/{answer}", own)
                    waiting.remove(rank)
            time.sleep(_POLL)
        return own
    while not (name := _found(store, f"evalcam/confirmed/{own}")):
        if offer := _found(store, "evalcam/offer"):
            store.set(f"evalcam/answer/{here.rank}", f"{offer} {own}")
        time.sleep(_POLL)
    return name


def _found(store: "Store", key: str) -> str:
    """What stands in the store, or nothing; without waiting, which no signal could end."""
    return store.get(key).decode() if store.check([key]) else ""


def _cannot_join(error: Exception, here: World) -> MachineError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
    return MachineError(
        f"process {here.rank} of {here.size} on {socket.gethostname()} cannot join the others: {reason};\n"
        "check --master-addr or --rdzv-endpoint, and name the network that the machines share:\n"
        "GLOO_SOCKET_IFNAME=eth0 (GPUs: NCCL_SOCKET_IFNAME too); on one machine GLOO_SOCKET_IFNAME=lo"
    )


def told_by_first(error: BaseException) -> bool | None:
    """Whether all processes raise an exception, so that only the first one need say it; None before they had joined."""
    told = vars(error).get("_everywhere")
    return told if isinstance(told, bool) else None


def told_by_all(error: Exception) -> Exception:
    """An exception that all processes are about to raise, equally worded: the first one says it."""
    if world().size > 1:
        _mark(error, everywhere=True)
    return error


def _mark(error: BaseException, *, everywhere: bool) -> None:
    vars(error).setdefault("_everywhere", everywhere)


def on_first(job: Callable[[], Result]) -> Result:
    """The result of a job that the first process alone does; what it raises is raised in all of them.

    In the job the first process is as if alone: it shares its work only by `together`. The result is pickled for the
    others.
    """
    here = _here()
    if here.size == 1:
        return job()
    return _lead(job) if here.first else _follow()


def together(function: Callable[[Shared, Own | None], Result], shared: Shared, own: Own) -> Result:
    """The result of a function that all processes run, in the first one; it is called there in a job of `on_first`.

    Args:
        function: Of a module, by its name; it finds its part of the work with `share`.
        shared: Its first argument, pickled for the others; tensors of a GPU arrive on the GPU of each process.
        own: Its second argument in the first process; None in the others.
    """
    if not _alone.get():
        return function(shared, own)
    _from_first(_Call(function, packed(shared)))
    token = _alone.set(False)
    try:
        return function(shared, own)
    finally:
        _alone.reset(token)


def on_each(job: Callable[[], Result]) -> list[Result]:
    """What each process's own job gives, by rank, in all of them; what one raises, all raise."""
    here = _here()
    if here.size == 1:
        return [job()]
    import torch.distributed as dist  # noqa: PLC0415

    found: list[Any] = [None] * here.size
    dist.all_gather_object(found, _try(job, here))
    return [outcome.value() for outcome in found]


def in_each(job: Callable[[], Result]) -> Result:
    """As `on_each`, when each needs its own result alone."""
    found: list[Result] = []
    on_each(lambda: found.append(job()))
    return found[0]


def to_first(job: Callable[[], Result], use: Callable[[list[Result]], None]) -> None:
    """Do a job in each process, and `use` what they give, by rank, in the first; what any of it raises, all raise."""
    here = _here()
    if here.size == 1:
        use([job()])
        return
    import torch.distributed as dist  # noqa: PLC0415

    found: list[Any] | None = [None] * here.size if here.first else None
    dist.gather_object(_try(job, here), found)
    on_first(lambda: use([outcome.value() for outcome in found or ()]))


def share(count: int) -> range:
    """Positions, of so many, that are this process's work: every one in exactly one process."""
    here = _here()
    return range(here.rank, count, here.size)


def highest_of(value: int) -> int:
    """The highest of the processes' values."""
    if _here().size == 1:
        return value
    import torch  # noqa: PLC0415
    import torch.distributed as dist  # noqa: PLC0415

    box = torch.tensor([value], dtype=torch.int64)
    dist.all_reduce(box, dist.ReduceOp.MAX)
    return int(box.item())


def sum_of(value: float) -> float:
    """The sum of the processes' values, the same bits in each."""
    if _here().size == 1:
        return value
    import torch  # noqa: PLC0415
    import torch.distributed as dist  # noqa: PLC0415

    box = torch.tensor([value], dtype=torch.float64)
    dist.all_reduce(box)
    return float(box.item())


def from_first(tensor: "Tensor") -> None:
    """Overwrite a tensor with that of the first process."""
    if _here().size > 1:
        import torch.distributed as dist  # noqa: PLC0415

        dist.broadcast(tensor, src=0)


def count_processes() -> int:
    """How many share the work here and now: one in a job of `on_first`."""
    return _here().size


@dataclass(frozen=True)
class _Outcome(Generic[Result]):
    """What came of a job: a result, or an exception."""

    result: Result | None = None
    error: Exception | None = None
    place: str = ""
    """Where it came from, unless from the first process."""

    def value(self) -> Result:
        if self.error is not None:
            _mark(self.error, everywhere=True)
            if self.place and self.place not in getattr(self.error, "__notes__", ()):
                self.error.add_note(self.place)
            raise self.error
        return self.result  # type: ignore[return-value]


@dataclass(frozen=True)
class _Call:
    """What the first process asks the others to do with it."""

    function: Callable[[Any, None], object]
    shared: bytes


def _here() -> World:
    return World() if _alone.get() else world()


def _lead(job: Callable[[], Result]) -> Result:
    token = _alone.set(True)
    try:
        outcome = _Outcome(job())
    except Exception as error:
        outcome = _Outcome(None, error)
        _from_first(_Outcome(None, _portable(error)))
    else:
        _from_first(outcome)
    finally:
        _alone.reset(token)
    return outcome.value()


def _follow() -> Any:
    """Do what the first process asks for, until its job is done; then its result."""
    while isinstance(message := _from_first(None), _Call):
        try:
            message.function(unpacked(message.shared), None)
        except Exception as error:
            if not told_by_first(error):  # else the first process raises it in its job, and tells what comes of it
                raise
    return message.value()


def _from_first(value: object) -> Any:
    import torch.distributed as dist  # noqa: PLC0415

    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def _try(job: Callable[[], Result], here: World) -> _Outcome[Result]:
    try:
        return _Outcome(job())
    except Exception as error:
        place = "" if here.first else f"(process {here.rank} of {here.size}, on {socket.gethostname()})"
        return _Outcome(None, _portable(error), place)


def _portable(error: Exception) -> Exception:
    """The exception as it can be sent; of a bug with its traceback in words."""
    if not isinstance(error, EvalcamError):
        error.add_note("".join(traceback.format_exception(error)))
    try:
        if type(pickle.loads(pickle.dumps(error))) is type(error):  # noqa: S301 (our own)
            return error
    except Exception:  # whatever goes wrong, it cannot be sent
        pass
    plain = RuntimeError(f"{type(error).__name__}: {error}")
    for note in getattr(error, "__notes__", ()):
        plain.add_note(note)
    return plain


def packed(value: object) -> bytes:
    """A value as `unpacked` takes it in another process: pickled, tensors of a GPU to be put on that process's own."""
    import torch  # noqa: PLC0415

    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def unpacked(data: bytes) -> Any:
    """As packed in the first process, with tensors of its GPU on this one's."""
    import torch  # noqa: PLC0415

    def placed(storage: Any, place: str) -> Any:
        return storage.cuda(world().local_rank) if place.startswith("cuda") else storage

    return torch.load(io.BytesIO(data), map_location=placed, weights_only=False)  # noqa: TID251 (from another process of this job)
