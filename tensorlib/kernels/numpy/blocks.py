"""Work cut into blocks of rows that are small enough for the cache; each thread takes one block at a time.

The boundaries of blocks depend on the shapes alone. So the sum of the blocks' contributions, added in their order, has
the same bits with any number of threads.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

from tensorlib.arrays.threads import share

BLOCK_BYTES = 1 << 20  # small enough for caches, but so large that threads seldom wait for the GIL
SHARED_BYTES = 1 << 20  # below this, sharing costs more than it saves: threads wait for the GIL at each call


def row_blocks(rows: int, row_bytes: int, block_bytes: int = BLOCK_BYTES) -> list[slice]:
    """Return slices that cover `rows` rows, each of at most `block_bytes` bytes, but of at least one row."""
    step = max(1, block_bytes // max(row_bytes, 1))
    return [slice(start, min(start + step, rows)) for start in range(0, rows, step)]


def even_blocks(size: int, count: int) -> list[slice]:
    """Return `count` slices of nearly equal length that cover an axis of this size; at most `size` of them."""
    ends = [size * i // count for i in range(count + 1)] if size >= count else range(size + 1)
    return [slice(a, b) for a, b in pairwise(ends)]


def for_blocks(work: Callable[[slice], Any], rows: int, row_bytes: int) -> None:
    """Call ``work(block)`` for each block of rows, on several threads if there is enough to do."""
    total = rows * row_bytes
    if total < SHARED_BYTES:
        work(slice(0, rows))
    else:
        share(work, row_blocks(rows, row_bytes, min(BLOCK_BYTES, total // 2 + row_bytes)))


def sum_in_order(parts: list[Any]) -> Any:
    """Return the sum of the contributions of the blocks, added in their order, in place, to the first one."""
    total = parts[0]
    for part in parts[1:]:
        total += part
    return total


def same_float_dtype(x: np.ndarray, *others: np.ndarray) -> bool:
    """Return whether all arrays have the dtype of x, float32 or wider, in which the kernels compute."""
    return x.dtype.kind == "f" and x.itemsize >= 4 and all(o.dtype == x.dtype for o in others)
