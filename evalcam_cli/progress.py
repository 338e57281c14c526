"""How long work tells that it advances: a callback that the command line draws and tests ignore."""

from typing import Protocol


class Progress(Protocol):
    """Called as work advances."""

    def __call__(self, task: str, done: int, total: int, note: str = "") -> None:
        """Tell the state of a task.

        Args:
            task: What is being done, the same words at each call: `reading images`, `epoch 3/20`.
            done: Units finished.
            total: Units in all.
            note: A short state to show beside it: `loss 0.41`.
        """


def silent(task: str, done: int, total: int, note: str = "") -> None:
    """Progress that nobody watches."""
