"""Files that a user names, opened so that none of them can hang the program or fill the memory."""

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path


@contextlib.contextmanager
def opened(path: Path) -> Iterator[BufferedReader]:
    """The bytes of a file, or of a pipe such as the shell's `<(…)`; a pipe that nobody writes to is empty.

    Raises:
        OSError: It cannot be opened, or is neither a file nor a pipe.
    """
    flags = os.O_RDONLY
    for name in ("O_NONBLOCK", "O_CLOEXEC", "O_BINARY"):  # which of them exist depends on the system
        flags |= getattr(os, name, 0)
    descriptor = os.open(path, flags)
    try:
        mode = os.fstat(descriptor).st_mode  # of what was opened, which may not be what was there before
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not (stat.S_ISREG(mode) or stat.S_ISFIFO(mode)):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        if stat.S_ISFIFO(mode):
            os.set_blocking(descriptor, True)
        stream = os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise
    with stream:
        yield stream


def read_bytes(path: Path, limit: int) -> bytes:
    """All bytes, or the first `limit + 1` of more.

    Raises:
        OSError: As `opened`.
    """
    with opened(path) as stream:
        return stream.read(limit + 1)
