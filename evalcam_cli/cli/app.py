"""The command line: which commands there are, and the one place where an error becomes a message and an exit code."""

import errno
import logging
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

from evalcam_cli import __version__
from evalcam_cli.cli import (
    audit,
    calibrate,
    compare,
    evaluate,
    gradcam,
    lr_find,
    predict,
    run,
    signals,
    split,
    train,
    tune,
)
from evalcam_cli.cli.processes import (
    hush,
    leave_silently,
    refuse_unshared,
    several,
    speaker,
    speaks,
)
from evalcam_cli.cli.terminal import write_err
from evalcam_cli.errors import EvalcamError, MachineError, UsageError, WorkerKilledError
from evalcam_cli.text import shown

_MAX_LINES = 8


class _Border(TyperGroup):
    """Runs a command; what it raises ends here. The exit codes are listed in the README."""

    def make_context(self, *arguments: Any, **options: Any) -> Any:
        try:
            return super().make_context(*arguments, **options)
        except Exception as error:
            _make_harmless(error)
            raise

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except EvalcamError as error:
            _stop(error, str(error), error.exit_code)
        except (KeyboardInterrupt, signals.Signalled) as error:
            _stop_for(error)
        except BrokenPipeError:
            _reader_gone()
        except Exception as error:
            if signals.arrived():  # and something made another exception of it
                _stop_for(error)
            known = _known_fault(error)
            if known is not None:
                _stop(error, str(known), known.exit_code)
            if not speaks(error):
                leave_silently(getattr(error, "exit_code", 1))  # Typer's own have one
            _make_harmless(error)
            raise


_MACHINE_FAULTS = (
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM, errno.EMFILE,
    errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.EBUSY,
)  # fmt: skip
_USER_FAULTS = (errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ELOOP)


def _known_fault(error: Exception) -> EvalcamError | None:
    """What the machine, the installation or a path is to blame for, told apart from bugs."""
    text = str(error)
    if isinstance(error, MemoryError) or "out of memory" in text.lower() or "can't allocate memory" in text:
        return MachineError(
            "out of memory; use a smaller train.batch_size (evaluate.batch_size), data.image_size or data.workers"
        )
    if isinstance(error, OSError) and error.errno in _MACHINE_FAULTS:
        if not error.filename:  # a stream: files are named
            return MachineError(f"cannot write the output: {error.strerror}")
        return MachineError(f"{error.strerror}: {shown(error.filename)[:300]}; earlier files are kept")
    if isinstance(error, OSError) and error.errno in _USER_FAULTS:
        return UsageError(f"{error.strerror}: {shown(error.filename or '')[:300]}")
    if isinstance(error, FileNotFoundError) and error.filename is None:
        return UsageError("the working directory is not there any more; go to another")
    return _fault_of_torch(error, text)


_WORKER_KILLED = "DataLoader worker (pid"  # in torch's words


def _fault_of_torch(error: Exception, text: str) -> EvalcamError | None:
    if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
        return MachineError(
            f"torch.compile failed: {shown(text.strip().splitlines()[0])[:200]};\n"
            "it needs a C++ compiler (on a GPU: Triton); leave out train.compile"
        )
    if isinstance(error, ImportError | RuntimeError) and ("torchvision::" in text or "DLL load failed" in text):
        return MachineError(
            "torch and torchvision do not fit together; install a matching pair:\n"
            "pip install --upgrade --force-reinstall torch torchvision"
        )
    if isinstance(error, RuntimeError) and _WORKER_KILLED in text:
        return WorkerKilledError()
    return None


def _make_harmless(error: Exception) -> None:
    """Let Typer's own messages quote the command line as text: a shell's `*` may have put any file name there."""
    if hasattr(error, "show") and isinstance(getattr(error, "message", None), str):
        vars(error)["message"] = shown(vars(error)["message"])


def _stop(error: BaseException, message: str, code: int) -> NoReturn:
    if not speaks(error):
        leave_silently(code)
    if os.environ.get("EVALCAM_DEBUG") == "1":
        traceback.print_exc()
    kind = "" if code > 128 else "error: "  # a signal's is none
    notes = getattr(error, "__notes__", ()) if isinstance(error, EvalcamError) else ()
    lines = "\n".join([f"evalcam: {kind}{speaker()}{message}", *notes]).splitlines()[:_MAX_LINES]
    write_err("\n".join(line[:1000] for line in lines))
    raise SystemExit(code)


def _stop_for(error: BaseException) -> NoReturn:
    """End as the signal that has arrived asks."""
    number = signals.arrived() or signals.INTERRUPT
    _stop(error, signals.MESSAGES[number], 128 + number)


def _reader_gone() -> NoReturn:
    """The program that read our output ended (`evalcam … | head`): say nothing, and nothing more can be written."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise SystemExit(141)


app = typer.Typer(
    cls=_Border,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    help="Split images honestly, train a ResNet, evaluate it with intervals, and see what it looked at.",
)


def _show_version(value: bool) -> None:
    if value:
        sys.stdout.write(f"evalcam {__version__}\n")
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    version: bool = typer.Option(False, "--version", callback=_show_version, is_eager=True, help="Show the version."),
) -> None:
    refuse_unshared(context.invoked_subcommand)


app.command("split", short_help="Divide images honestly.")(split.split)
app.command("train", short_help="Train a ResNet.")(train.train)
app.command("evaluate", short_help="Measure a classifier, with intervals.")(evaluate.evaluate)
app.command("gradcam", short_help="Show what the classifier looked at.")(gradcam.gradcam)
app.command("predict", short_help="Classify unlabelled images.")(predict.predict)
app.command("run", short_help="All four in one go, from one config.")(run.run)
app.command("compare", short_help="Compare classifiers on the same images.")(compare.compare)
app.command("calibrate", short_help="Choose a threshold and a temperature on validation images.")(calibrate.calibrate)
app.command("audit", short_help="Find copies that stand in two sets.")(audit.audit)
app.command("tune", short_help="Search for the settings that validate best.")(tune.tune)
app.command("lr-find", short_help="Suggest a learning rate.")(lr_find.lr_find)


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line and exit with its code."""
    _occupy_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # an ASCII terminal still shows every name
    os.environ["MPLBACKEND"] = "agg"  # plots need no screen, and the environment may name what is not there
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it tells of a home that cannot be written to
    if several():
        hush()
    code = 1
    try:
        with signals.answered(), _quiet_destructors():
            code = _flushed(_ended(arguments))
            if code <= 128:
                signals.raise_swallowed()
    except (KeyboardInterrupt, signals.Signalled) as error:  # before a command began, or when it was over
        number = signals.arrived() or signals.INTERRUPT
        code = 128 + number
        if speaks(error):
            write_err(f"evalcam: {signals.MESSAGES[number]}")
    sys.exit(code)


@contextmanager
def _quiet_destructors() -> Iterator[None]:
    """Let destructors, where nothing can be caught, not tell of a killed worker or a signal: that is told elsewhere."""
    before = sys.unraisablehook

    def heed(unraisable: Any) -> None:
        error = unraisable.exc_value
        answered = isinstance(error, KeyboardInterrupt | signals.Signalled) and signals.arrived()
        if not answered and _WORKER_KILLED not in str(error):
            before(unraisable)

    sys.unraisablehook = heed
    try:
        yield
    finally:
        sys.unraisablehook = before


def _occupy_closed_streams() -> None:
    """Put nothing in the place of streams that the shell has closed (`>&-`): a file opened later would take it."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # it takes the lowest number that is free
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115, PTH123 (until the process ends)


def _ended(arguments: list[str] | None) -> int:
    """The exit code of a command."""
    if "" in (sys.argv[1:] if arguments is None else arguments):  # else it would stand for the working directory
        write_err("evalcam: error: an argument is empty, as from a variable of the shell that is not set")
        return UsageError.exit_code
    try:
        app(arguments)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 0
    except BrokenPipeError:  # here: while the command line was read, as by --version
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        known = _known_fault(error)
        if known is None:
            raise
        write_err(f"evalcam: error: {known}")
        return known.exit_code
    return 0


def _flushed(code: int) -> int:
    """The exit code once the output has gone where it should."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        fault = 141
    except OSError as error:
        write_err(f"evalcam: error: cannot write the output: {error.strerror}")
        fault = MachineError.exit_code
    else:
        return code
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code if code > 128 else fault  # a closed terminal has sent SIGHUP, too
