"""`evalcam` and `python -m evalcam_cli`."""

import signal
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line; Ctrl-C before it is there, and after it is done, ends the process without a traceback."""
    if signal.getsignal(signal.SIGINT) == signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from evalcam_cli.cli import app  # noqa: PLC0415 (takes a moment)

    app.main()


if __name__ == "__main__":
    main()
