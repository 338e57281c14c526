"""Memory on the CPU, from one training step to the next."""

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # names of mallopt's settings in glibc's malloc.h
_LARGEST = 2**31 - 1
_LARGEST_OF_OLD_GLIBC = 2**25  # half of its HEAP_MAX_SIZE; more is refused


def keep_freed_memory() -> bool:
    """Let this process keep what it frees for its next use; whether the C library took the setting.

    A training step allocates and frees the same hundreds of megabytes as the step before. glibc gives large blocks back
    to the system at once, which then has to clear every page again before the next step may touch it: about a tenth of
    the CPU time of a step of ResNet-18 on one thread, measured on a busy machine. The peak is the same; what is given
    up is that memory falls between peaks. Elsewhere than on Linux with glibc nothing happens.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # other C libraries
        return False
    kept = any(mallopt(_MMAP_THRESHOLD, size) == 1 for size in (_LARGEST, _LARGEST_OF_OLD_GLIBC))
    return bool(mallopt(_TRIM_THRESHOLD, _LARGEST) == 1 and kept)
