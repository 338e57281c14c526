"""What can go wrong for a user, and the exit code that says so to a script.

EvalcamError ── UsageError       2  the command line or the config
             ├─ DataError        3  the images, the split or what was learned from them
             │   ├─ CheckpointError  3  the weights file
             │   └─ DivergedError    3  the numbers of a training
             ├─ GateError        4  a metric missed its gate
             └─ MachineError     5  the hardware or the environment
                 ├─ MemoryTooSmallError  5  for what was asked
                 └─ WorkerKilledError    5
"""


class EvalcamError(Exception):
    """Anything a user can cause or mend: shown as a message, never as a traceback."""

    exit_code = 2


class UsageError(EvalcamError):
    """The command line or the config asks for something that cannot be."""

    exit_code = 2


class DataError(EvalcamError):
    """The images, the split or what was computed from them cannot be used as they are."""

    exit_code = 3


class CheckpointError(DataError):
    """The weights file is damaged, foreign, hostile or does not fit."""


class DivergedError(DataError):
    """What was learned became infinite or no number: the settings do not suit the images."""


class GateError(EvalcamError):
    """A metric missed the value that the user demanded."""

    exit_code = 4


class MachineError(EvalcamError):
    """The hardware or the environment lacks what the run needs."""

    exit_code = 5


class WorkerKilledError(MachineError):
    """A process that reads images is gone."""

    def __init__(self) -> None:
        super().__init__(
            "a process that reads images was killed, most likely for want of memory;\n"
            "use --set data.workers=0, or a smaller --batch-size"
        )


class MemoryTooSmallError(MachineError):
    """The memory does not hold what the settings ask for."""
