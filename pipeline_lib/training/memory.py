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
    library = _glibc()
    if library is not None:
        library.mallopt(MMAP_MAX, 0)
        library.mallopt(TRIM_THRESHOLD, 2**31 - 1)


def give_back_freed_memory() -> None:
    """Give back what was kept, for which the next step takes a third to half longer.

    Blocks of ever other sizes leave gaps, and a validation takes more than a step: Neuroformers whose steps take 0.6 GB
    held 1.0 GB, and slowly more, from the first evaluation on.
    """
    library = _glibc()
    if library is not None:
        library.malloc_trim(ctypes.c_size_t(0))


def _glibc() -> ctypes.CDLL | None:
    """The C library of this process, if it is glibc."""
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "gnu_get_libc_version") else None
