"""Work done in threads beside the network: decoding before it wants an image, drawing and writing after it."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Given = TypeVar("Given")
Made = TypeVar("Made")


def ahead(
    work: Callable[[Given], Made], items: Iterable[Given], *, threads: int, most: int
) -> Generator[Made, None, None]:
    """What the work makes of each item, in order; an exception of the work is raised in its turn.

    For items that come at once: as many as may be under way are begun before the first is given out.

    Args:
        work: Mostly outside Python (decoding, compressing), or threads gain nothing.
        items: Taken one by one.
        threads: How many work at a time.
        most: How many items are under way or waiting to be taken, which bounds the memory.
    """
    return _in_threads(work, items, threads=threads, most=most, prompt=False)


def behind(
    work: Callable[[Given], Made], items: Iterable[Given], *, threads: int, most: int
) -> Generator[Made, None, None]:
    """As `ahead`, for items that take their time: each result is given out as soon as those before it are.

    However the iteration ends, what has been begun is finished, and what has not is left alone: work that keeps its own
    result loses nothing.
    """
    return _in_threads(work, items, threads=threads, most=most, prompt=True)


def _in_threads(
    work: Callable[[Given], Made], items: Iterable[Given], *, threads: int, most: int, prompt: bool
) -> Generator[Made, None, None]:
    waiting: deque[Future[Made]] = deque()
    pool = ThreadPoolExecutor(threads)
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            while len(waiting) >= most or (prompt and waiting and waiting[0].done()):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
