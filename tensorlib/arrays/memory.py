"""Memory that stays with the process instead of going back to the system and being fetched again at every step."""

from __future__ import annotations

import ctypes
import os
from functools import cache

__all__ = ["keep_memory"]


@cache
def keep_memory() -> None:
    """Tell glibc to keep freed memory for the next arrays. For the whole process, and for good.

    A training step frees and allocates the same large arrays each time; fresh memory costs a page fault for every 4 kB,
    which took longer than the arithmetic (860 ms a step became 640). So making an optimizer for parameters on NumPy
    calls this; importing tensorlib does not. With TENSORLIB_KEEP_MEMORY=0 in the environment, and elsewhere than on
    glibc, nothing happens.
    """
    if os.environ.get("TENSORLIB_KEEP_MEMORY", "1") == "0":
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
        ctypes.CDLL(None).gnu_get_libc_version  # noqa: B018  # musl has a mallopt that means other things
    except (AttributeError, OSError, TypeError):
        return
    M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX, M_ARENA_MAX = -1, -2, -4, -8  # malloc.h
    mallopt(M_MMAP_MAX, 0)  # large arrays from the heap, not each from a mapping of its own
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)  # and the heap's end stays ours
    mallopt(M_TOP_PAD, 64 * 2**20)  # it grows in large pieces
    mallopt(M_ARENA_MAX, 1)  # one heap, so that what one thread frees serves another
