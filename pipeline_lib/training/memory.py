"""Memory that is freed and soon needed again."""

from __future__ import annotations

import ctypes
import sys

MMAP_MAX, TRIM_THRESHOLD = -4, -1
"""Names of options in glibc's malloc.h."""


def keep_freed_memory() -> None:
    """Let this process keep large blocks that it frees, where the C library is glibc.

    It would give them back to the system at once, and get them again empty page by page: a sixth to a fifth of a
    training step on a CPU (LFADS with 140 bins, 256 windows and 180 units; the NDT with 140, 64 and 182).
    """
    if not sys.platform.startswith("linux"):
        return
    library = ctypes.CDLL(None)
    if hasattr(library, "gnu_get_libc_version"):
        library.mallopt(MMAP_MAX, 0)
        library.mallopt(TRIM_THRESHOLD, 2**31 - 1)
