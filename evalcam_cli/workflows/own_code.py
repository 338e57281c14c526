"""Models and targets out of a user's own Python files, which run because the command line names them, and only then.

`FILE.py:NAME` is a function, or a class, at the top level of a file. A model comes from a call without arguments that
returns a `torch.nn.Module`; a target is called with what the model returned for N images and returns (N,) or (N, T)
scalars. While code of the file runs, its folder is first on Python's search path, as with `python FILE.py`, so that it
can import what lies beside it; no `__pycache__` is left there. A file is run once, however many of its functions are
named.
"""

import hashlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from evalcam_cli.errors import EvalcamError, UsageError
from evalcam_cli.explain.targets import described
from evalcam_cli.explain.untouched import untouched
from evalcam_cli.text import counted, did_you_mean, listed, shown

_LINES = 3
"""Of a foreign error message; PyTorch's list of missing weights can fill a screen."""
_WIDTH = 300
"""Characters of each of these lines."""


@dataclass(frozen=True)
class OwnFunction:
    """A function of a user's file."""

    option: str
    """That named it: `--model` or `--target`."""
    file: Path
    """Absolute."""
    name: str
    sha256: str
    """Of the file."""
    function: Callable[..., Any]

    @property
    def place(self) -> str:
        """The function in a message."""
        return f"{self.option} {shown(self.file)}:{shown(self.name)}"

    @contextmanager
    def blamed(self, what: str = "") -> Iterator[None]:
        """Turn an exception into a UsageError that names the line of the user's file where it came from.

        evalcam's own errors pass, and so does running out of memory, which is not for the user's code to mend.

        Args:
            what: Said after the place: `the model failed`.
        """
        try:
            with _beside(self.file):
                yield
        except (EvalcamError, MemoryError, torch.OutOfMemoryError):
            raise
        except (Exception, SystemExit) as error:
            lines = [f"{self.place}{': ' + what if what else ''}", *_message(error), *_origin(error, self.file)]
            raise UsageError("\n".join(lines)) from error


@dataclass(frozen=True)
class OwnModel:
    """A network out of a user's file."""

    model: nn.Module
    source: OwnFunction
    sha256: str
    """Of the file, and of the names and values of all weights and buffers."""


def load_function(reference: str, option: str) -> OwnFunction:
    """The function behind `FILE.py:NAME`; the file is run.

    Args:
        reference: The path is relative to the working directory.
        option: For messages: `--model` or `--target`.

    Raises:
        UsageError: There is no such file or function, or the file cannot be run.
    """
    path, colon, name = reference.rpartition(":")
    if not colon or not path.endswith(".py") or not name:
        raise UsageError(f"{option} {shown(reference)}: expected FILE.py:NAME, a Python file and a function in it")
    file = Path(path).absolute()
    if not file.is_file():
        raise UsageError(f"{option}: {'not a file' if file.exists() else 'there is no file'} {shown(file)}")
    try:
        source = file.read_bytes()
    except OSError as error:
        raise UsageError(f"{option}: cannot read {shown(file)}: {error.strerror}") from error
    module = _run(file, source, OwnFunction(option, file, name, "", int))
    function = getattr(module, name, None)
    if not callable(function):
        known = [key for key, value in vars(module).items() if callable(value) and value.__module__ == module.__name__]
        problem = "has no function" if function is None else "defines something else than a function as"
        hint = did_you_mean(name, known) or (f"; it has {listed(known, 8)}" if known else "")
        raise UsageError(f"{option}: {shown(file)} {problem} {shown(name)!r}{hint}")
    return OwnFunction(option, file, name, hashlib.sha256(source).hexdigest(), function)


def load_model(reference: str, *, seed: int = 0) -> OwnModel:
    """The network that `FILE.py:FACTORY` makes when it is called without arguments.

    Weights that the factory draws at random are those of the seed; the caller's random state stays as it was.

    Raises:
        UsageError: It cannot be made.
    """
    source = load_function(reference, "--model")
    needed = _needed_arguments(source.function)
    if needed:
        raise UsageError(
            f"{source.place} needs {listed(needed, 8)}, but a factory is called without arguments;\n"
            "write a function without any that returns the model"
        )
    with torch.random.fork_rng(), source.blamed():
        torch.manual_seed(seed)
        model = source.function()
    if not isinstance(model, nn.Module):
        raise UsageError(f"{source.place} returned {described(model)} instead of a torch.nn.Module")
    return OwnModel(model, source, _digest(source, model))


def load_target(reference: str) -> Callable[[Any], Tensor]:
    """The target that `FILE.py:FUNCTION` is: from the model's output for N images to (N, T) scalars, checked.

    Raises:
        UsageError: There is none. Calling the target raises it when the function fails, or returns something else.
    """
    source = load_function(reference, "--target")

    def target(output: Any) -> Tensor:
        with source.blamed():
            scores = source.function(output)
        return _checked(scores, output, source)

    return target


def count_outputs(own: OwnModel, image_size: int, device: torch.device) -> int:
    """K of a model without a target, which must return (N, K) logits; found with two images of the mean colour.

    Raises:
        UsageError: The model fails, or returns something else.
    """
    output = _try_out(own, image_size, device)
    if not (isinstance(output, Tensor) and output.ndim == 2 and len(output) == 2 and output.is_floating_point()):
        raise UsageError(
            f"{own.source.place}: the model returned {described(output)} for 2 images instead of (2, K) logits;\n"
            "say with --target FILE.py:FUNCTION which scalar of its output to explain"
        )
    return output.shape[1]


def count_scores(own: OwnModel, target: Callable[[Any], Tensor], image_size: int, device: torch.device) -> int:
    """T of a target, found with two images of the mean colour.

    Raises:
        UsageError: The model or the target fails, or there is not one row of scores per image.
    """
    scores = target(_try_out(own, image_size, device))
    if len(scores) != 2:
        raise UsageError(f"--target returned scores for {counted(len(scores), 'image')} when it was given 2")
    return scores.shape[1]


def _try_out(own: OwnModel, image_size: int, device: torch.device) -> Any:
    images = torch.zeros(2, 3, image_size, image_size, device=device)
    with untouched(own.model), own.source.blamed(f"the model failed on 2 images of {image_size} x {image_size} pixels"):
        return own.model(images)


def _run(file: Path, source: bytes, wanted: OwnFunction) -> ModuleType:
    """The module of a file, under a name that cannot meet another's; the same for the same content."""
    name = f"_evalcam_own_code_{hashlib.sha256(bytes(file) + b'|' + source).hexdigest()[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None  # the suffix is .py
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses and pickle look it up
    try:
        with wanted.blamed():
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


@contextmanager
def _beside(file: Path) -> Iterator[None]:
    """The file's folder first on the search path, and no compiled files written."""
    folder, writes_none = str(file.parent), sys.dont_write_bytecode
    sys.path.insert(0, folder)
    sys.dont_write_bytecode = True
    try:
        yield
    finally:
        sys.dont_write_bytecode = writes_none
        if folder in sys.path:  # unless the code has taken it away
            sys.path.remove(folder)


def _message(error: BaseException) -> list[str]:
    """Kind and text of an exception, a few lines of it."""
    if isinstance(error, SystemExit):
        return [f"it ended the program (exit status {shown(error.code)}); evalcam only wants its function"]
    text = str(error.msg if isinstance(error, SyntaxError) else error).strip()
    lines = [f"{type(error).__name__}: {text}" if text else type(error).__name__]
    lines = [shown(line)[:_WIDTH] for line in lines[0].splitlines() if line.strip()]
    return lines if len(lines) <= _LINES else [*lines[:_LINES], f"… ({len(lines) - _LINES} more lines)"]


def _origin(error: BaseException, file: Path) -> list[str]:
    """File, line and text of the last line in the user's file, else in its folder, else anywhere, that was run."""
    if isinstance(error, SyntaxError) and error.filename and error.lineno:
        return _at(Path(error.filename), error.lineno, "", error.text or "")
    frames = traceback.extract_tb(error.__traceback__)
    for home in ([frame for frame in frames if Path(frame.filename) == file],
                 [frame for frame in frames if Path(frame.filename).parent == file.parent],
                 [frame for frame in frames if Path(frame.filename) != Path(__file__)]):  # fmt: skip
        if home:
            return _at(Path(home[-1].filename), home[-1].lineno or 0, home[-1].name, home[-1].line or "")
    return []


def _at(file: Path, number: int, function: str, line: str) -> list[str]:
    where = f", in {function}" if function and function != "<module>" else ""
    return [f"at {shown(file)}, line {number}{shown(where)}", f"    {shown(line.strip())[:_WIDTH]}"]


def _needed_arguments(function: Callable[..., Any]) -> list[str]:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # not every callable tells
        return []
    optional = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [one.name for one in parameters if one.default is one.empty and one.kind not in optional]


def _digest(source: OwnFunction, model: nn.Module) -> str:
    digest = hashlib.sha256(f"{source.sha256}:{source.name}".encode())
    for name, tensor in model.state_dict().items():
        digest.update(f"|{name}:{tensor.dtype}:{tuple(tensor.shape)}:".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _checked(scores: Any, output: Any, source: OwnFunction) -> Tensor:
    """As (N, T)."""
    if not (isinstance(scores, Tensor) and scores.is_floating_point() and scores.ndim in (1, 2) and scores.numel()):
        kind = f"{described(scores)}" + (f" and type {scores.dtype}" if isinstance(scores, Tensor) else "")
        raise UsageError(f"{source.place} returned {kind} instead of (N,) or (N, T) floating-point scores")
    if _has_graph(output) and not scores.requires_grad:
        raise UsageError(
            f"{source.place}: the scores do not depend on the model's output by steps that can be differentiated;\n"
            "leave out detach, numpy, argmax, item and torch.no_grad"
        )
    return scores[:, None] if scores.ndim == 1 else scores


def _has_graph(output: Any) -> bool:
    """Whether any tensor in the output can be differentiated; methods without gradients ask for scores alone."""
    if isinstance(output, Tensor):
        return output.requires_grad
    if isinstance(output, dict):
        return any(_has_graph(value) for value in output.values())
    if isinstance(output, tuple | list):
        return any(_has_graph(value) for value in output)
    if is_dataclass(output) and not isinstance(output, type):
        return any(_has_graph(getattr(output, entry.name)) for entry in fields(output))
    return False
