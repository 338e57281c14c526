"""Which of many texts occur more than once, and equal texts as one: what a million rows need to stay small."""

from collections import Counter
from collections.abc import Callable, Iterable

import numpy as np

_SHARED = 65_536


def repeated(texts: Callable[[], Iterable[str]]) -> set[str]:
    """The texts that occur more than once, each once.

    Their hashes, 8 bytes each, tell which may; only those are looked at as texts.

    Args:
        texts: Gives the same texts whenever it is called.
    """
    hashes = np.fromiter(map(hash, texts()), np.int64)
    hashes.sort()
    again = set(hashes[1:][hashes[1:] == hashes[:-1]].tolist())
    if not again:
        return set()
    counts = Counter(text for text in texts() if hash(text) in again)
    return {text for text, count in counts.items() if count > 1}


class Shared:
    """Equal texts as one object each, as long as there are not too many different ones: labels, sets, groups."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}

    def __call__(self, text: str) -> str:
        """The first text that was equal to this one."""
        if len(self._known) < _SHARED:
            return self._known.setdefault(text, text)
        return self._known.get(text, text)
