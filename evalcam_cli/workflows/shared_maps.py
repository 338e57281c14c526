"""The images of a gradcam run shared among several processes: each makes its maps and pictures, the first keeps them.

What is made comes to the first process a few images at a time, so that no process holds more than these, and the others
need no disk in common with it except for the images.
"""

import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice

from evalcam_cli.distributed import count_processes, in_each, packed, share, to_first, together, unpacked
from evalcam_cli.errors import UsageError
from evalcam_cli.models.device import choose_device, use_full_precision
from evalcam_cli.text import shown
from evalcam_cli.workflows import own_code
from evalcam_cli.workflows.ahead import behind
from evalcam_cli.workflows.explained_images import Subject
from evalcam_cli.workflows.map_making import BATCH, FINISHERS, Made, Maker

_AT_ONCE = 4  # images that a process hands over at a time


@dataclass(frozen=True)
class OwnCode:
    """The user's files that a run needs; each process runs them."""

    model: str | None = None
    """`FILE.py:FACTORY`."""
    target: str | None = None
    """`FILE.py:FUNCTION`."""


@dataclass(frozen=True)
class Piece:
    """What a process has made since its last piece, and what it has found out so far."""

    made: tuple[Made, ...]
    unreadable: dict[str, str]
    notes: dict[str, str]
    gap: float | None


@dataclass(frozen=True)
class _Shared:
    """What the others need."""

    code: OwnCode
    maker: bytes
    batches: tuple[tuple[Subject, ...], ...]


@dataclass(frozen=True)
class _Own:
    """What the first process has."""

    maker: Maker
    keep: Callable[[Sequence[Piece]], None]


def make_together(
    maker: Maker, batches: Sequence[Sequence[Subject]], keep: Callable[[Sequence[Piece]], None], code: OwnCode
) -> None:
    """Make all images of the batches, in a job of `on_first`; a process takes every so manieth batch.

    Args:
        maker: What to make of them.
        batches: Of images, in order.
        keep: Told, in the first process, what all processes have made, a few images of each at a time.
        code: What of the user's the maker uses.

    Raises:
        UsageError: A model of the user's cannot be sent to the other processes.
    """
    sent = replace(maker, explainer=replace(maker.explainer, target=None))  # a target is loaded from its file
    try:
        data = packed(sent)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        if code.model is None:
            raise
        raise UsageError(
            f"--model {shown(code.model)} cannot be sent to the other processes ({shown(error)[:200]});\n"
            "start the command once, without torchrun"
        ) from error
    shared = _Shared(code, data, tuple(tuple(batch) for batch in batches))
    together(_make_share, shared, _Own(maker, keep))


def _make_share(shared: _Shared, own: _Own | None) -> None:
    maker = in_each(lambda: _restored(shared) if own is None else own.maker)
    batches = shared.batches
    mine = [batches[place] for place in share(len(batches))]
    made = behind(maker.make, maker.explained(mine), threads=FINISHERS, most=BATCH)
    most = sum(len(batch) for batch in batches[:: count_processes()])  # no process has more than the first
    with closing(made):
        for _ in range(-(-most // _AT_ONCE)):
            to_first(lambda: _next_piece(maker, made), _nothing if own is None else own.keep)


def _restored(shared: _Shared) -> Maker:
    """The maker of the first process, on the device of this one."""
    use_full_precision()
    if shared.code.model is not None:
        own_code.load_function(shared.code.model, "--model")  # pickle finds its classes in the module that this loads
    maker: Maker = unpacked(shared.maker)
    explainer = maker.explainer
    device = choose_device(explainer.classifier.device.type)
    target = None if shared.code.target is None else own_code.load_target(shared.code.target)
    explainer.classifier.model.to(device)
    classifier = replace(explainer.classifier, device=device)
    return replace(maker, explainer=replace(explainer, classifier=classifier, target=target))


def _next_piece(maker: Maker, made: Iterator[Made]) -> Piece:
    return Piece(tuple(islice(made, _AT_ONCE)), dict(maker.unreadable), dict(maker.notes), maker.gap)


def _nothing(pieces: Sequence[Piece]) -> None:
    """What a process that is not the first does with the pieces: it has none."""
