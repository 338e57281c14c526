"""Work done ahead in threads: decoding before the network wants an image, drawing after it, both in order."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Given = TypeVar("Given")
Made = TypeVar("Made")


def ahead(work: Callable[[Given], Made], items: Iterable[Given], *, threads: int, most: int) -> Iterator[Made]:
    """What the work makes of each item, in order; an exception of the work is raised in its turn.

    Args:
        work: Mostly outside Python (decoding, compressing), or threads gain nothing.
        items: Taken one by one.
        threads: How many work at a time.
        most: How many items are under way or waiting to be taken, which bounds the memory.
    """
    waiting: deque[Future[Made]] = deque()
    pool = ThreadPoolExecutor(threads)
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) >= most:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
