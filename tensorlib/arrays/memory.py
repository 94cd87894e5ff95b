"""Keeping freed memory in the process, instead of returning it to the system and fetching it again at every step."""

from __future__ import annotations

import ctypes
import os
from functools import cache

__all__ = ["keep_memory"]


@cache
def keep_memory() -> None:
    """Make glibc keep freed memory for later arrays, for the whole process and permanently.

    A training step frees and allocates the same large arrays each time, and fresh memory costs a page fault for every
    4 kB. These faults took longer than the arithmetic (a step went from 860 ms to 640). The constructor of an
    optimizer therefore calls this function if parameters are on NumPy; importing tensorlib does not. It does nothing
    without glibc, with TENSORLIB_KEEP_MEMORY=0 in the environment, and when called again.

    >>> tl.keep_memory()
    """
    if os.environ.get("TENSORLIB_KEEP_MEMORY", "1") == "0":
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
        ctypes.CDLL(None).gnu_get_libc_version  # noqa: B018  # musl's mallopt has other meanings
    except (AttributeError, OSError, TypeError):
        return
    M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX, M_ARENA_MAX = -1, -2, -4, -8  # malloc.h
    mallopt(M_MMAP_MAX, 0)  # take large arrays from the heap instead of mapping each separately
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)  # never return the end of the heap
    mallopt(M_TOP_PAD, 64 * 2**20)  # grow the heap in large pieces
    mallopt(M_ARENA_MAX, 1)  # one heap, so that memory freed by one thread serves another
