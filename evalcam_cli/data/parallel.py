"""One job for each of many files, in worker processes that need little memory and leave nothing behind."""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from types import FrameType
from typing import TypeVar

from evalcam_cli.data.machine import usable_cores
from evalcam_cli.errors import MachineError
from evalcam_cli.handlers import handlers_of, replace_handlers
from evalcam_cli.progress import Progress

CHUNK = 32
"""Files per message to a worker."""
SERIAL_BELOW = 64
"""With fewer files, starting workers costs more than it saves."""
_MAX_DEATHS = 5

Result = TypeVar("Result")
_Chunk = Sequence[str]
_Report = Callable[[int], None]


def map_files(
    job: Callable[[Path], Result],
    root: Path,
    paths: Sequence[str],
    *,
    task: str,
    progress: Progress,
    jobs: int | None = None,
) -> list[Result | None]:
    """The job's result for each file, in order; None for a file on which the worker process died.

    Args:
        job: A function that a new process can import, and that raises nothing.
        root: The folder that the paths are relative to.
        paths: Of the files.
        task: What `progress` is told.
        progress: Called after every few files.
        jobs: Worker processes; by default one per CPU core that may be used.

    Raises:
        MachineError: Workers die again and again, as they do when memory runs out.
    """
    chunks = deque(paths[start : start + CHUNK] for start in range(0, len(paths), CHUNK))
    workers = min(jobs or usable_cores(), len(chunks))
    results: list[Result | None] = []
    progress(task, 0, len(paths))
    if workers < 2 or len(paths) < SERIAL_BELOW:
        for chunk in chunks:
            results += [job(root / path) for path in chunk]
            progress(task, len(results), len(paths))
        return results
    for _ in range(_MAX_DEATHS):
        if _in_processes(job, root, chunks, workers, results, lambda done: progress(task, done, len(paths))):
            return results
        for _ in range(min(len(chunks), 4 * workers)):  # the culprit is among those that were under way
            results += _carefully(job, root, chunks.popleft())
    raise MachineError(f"{task}: worker processes keep dying; is there enough memory?")


def read_each(
    job: Callable[[Path], Result | str], root: Path, paths: Sequence[str], *, progress: Progress, jobs: int | None
) -> tuple[dict[str, Result], dict[str, str]]:
    """What a job finds in each readable image, and its reason for each unreadable one, by path, in the order given."""
    results = map_files(job, root, paths, task="reading images", progress=progress, jobs=jobs)
    found: dict[str, Result] = {}
    unreadable: dict[str, str] = {}
    for path, result in zip(paths, results, strict=True):
        if result is None or isinstance(result, str):
            unreadable[path] = result or "the decoder crashed on it"
        else:
            found[path] = result
    return found, unreadable


def _in_processes(
    job: Callable[[Path], Result],
    root: Path,
    chunks: deque[_Chunk],
    workers: int,
    results: list[Result | None],
    report: _Report,
) -> bool:
    """Move the chunks' results to `results`; False when a worker died, with the unfinished chunks put back.

    Only a few chunks are under way at any time, which bounds the memory.
    """
    waiting: deque[tuple[_Chunk, Future[list[Result]]]] = deque()
    with _pool(workers) as pool:
        try:
            while chunks or waiting:
                while chunks and len(waiting) < 4 * workers:
                    waiting.append((chunks[0], _submit(pool, job, root, chunks[0])))
                    chunks.popleft()
                results += waiting[0][1].result()
                waiting.popleft()
                report(len(results))
        except BrokenProcessPool:
            chunks.extendleft(chunk for chunk, _ in reversed(waiting))
            return False
    return True


def _carefully(job: Callable[[Path], Result], root: Path, chunk: _Chunk) -> list[Result | None]:
    """The chunk's results, each file that kills a worker found by halving."""
    try:
        with _pool(1) as pool:
            return [*_submit(pool, job, root, chunk).result()]
    except BrokenProcessPool:
        if len(chunk) == 1:
            return [None]
        middle = len(chunk) // 2
        return _carefully(job, root, chunk[:middle]) + _carefully(job, root, chunk[middle:])


@contextlib.contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Fresh processes (not forked: the parent may have threads), all dead when the block ends for any reason.

    They only read, so nothing is lost by killing them; one that still starts would be waited for for seconds.
    """
    others = multiprocessing.active_children()
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_start_worker)
    try:
        yield pool
    finally:
        with _signals_held():
            for child in multiprocessing.active_children():
                if child not in others:
                    child.kill()
            pool.shutdown(wait=True, cancel_futures=True)


def _submit(
    pool: ProcessPoolExecutor, job: Callable[[Path], Result], root: Path, chunk: _Chunk
) -> Future[list[Result]]:
    with _signals_held():
        return pool.submit(_run, job, root, chunk)


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    """Let a worker be born, or end, in peace: a signal is answered when the block ends, and none sees Ctrl-C.

    A worker inherits the signal mask. The parent needs more than the mask, for a signal that reaches one of its other
    threads still runs the handler in the main one.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "pthread_sigmask"):
        yield
        return
    caught: list[tuple[int, FrameType | None]] = []
    handlers = handlers_of()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    replace_handlers(dict.fromkeys(handlers, lambda *signalled: caught.append(signalled)))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        replace_handlers(handlers)
        for signalled, frame in caught[:1]:
            handlers[signalled](signalled, frame)


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with_parent()


def die_with_parent() -> None:
    """End this worker process as soon as its parent is gone: one that was killed cannot end its workers."""
    threading.Thread(target=_wait_for_end_of_parent, daemon=True).start()


def _wait_for_end_of_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _run(job: Callable[[Path], Result], root: Path, paths: _Chunk) -> list[Result]:
    return [job(root / path) for path in paths]
