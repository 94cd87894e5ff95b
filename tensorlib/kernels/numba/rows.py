"""What the kernels of this room share: which arrays they serve, arrays as rows, and work cut into pieces for threads.

Loops take slices and run from 0: an index that is computed could be negative, which in Python counts from the end, and
the compiler makes no vector instructions of a loop that must test for that. Rows are addressed as x[i, j], because a
slice per row counts references.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tensorlib.arrays.threads import share
from tensorlib.kernels.numpy.blocks import even_blocks, sum_in_order

__all__ = ["Partial", "contiguous", "flat", "for_pieces", "pieces", "product_pieces", "rows", "serves"]

SHARED_WORK = 1 << 17  # numbers, which take some 60 microseconds; handing a piece to a thread takes 20
SHARED_PRODUCT = 1 << 22  # multiplications, which take some 80 microseconds
MOST_PIECES = 8


def serves(x: np.ndarray, *others: np.ndarray) -> bool:
    """Return whether all are NumPy's arrays of the dtype of x, which is float32 or float64."""
    return x.dtype.char in "fd" and all(o.dtype == x.dtype and isinstance(o, np.ndarray) for o in others)


def rows(x: np.ndarray) -> np.ndarray:
    """Return x (..., D) as contiguous rows (N, D); a copy only where it must be one."""
    return contiguous(x).reshape(-1, x.shape[-1])


def flat(x: np.ndarray) -> np.ndarray:
    """Return the numbers of x in order; a copy only where it must be one."""
    return contiguous(x).reshape(-1)


def contiguous(x: np.ndarray) -> np.ndarray:
    """Return x with contiguous rows; a copy if it is not, or is read-only, for which Numba would compile again."""
    return x if x.flags.c_contiguous and x.flags.writeable else x.copy(order="C")


def pieces(count: int, work: int) -> list[slice]:
    """Return slices that cover `count` rows, the more the more `work` there is: 1, 2, 4 or 8."""
    number = 1
    while number < MOST_PIECES and work >= number * SHARED_WORK:
        number *= 2
    return even_blocks(count, number)


def product_pieces(count: int, multiplications: int) -> list[slice]:
    """Return slices that cover `count` rows or columns of a product: an even number, unless the product is small.

    Even, for two threads; few, because BLAS is slower on fewer than some 1,000 rows.
    """
    if multiplications < SHARED_PRODUCT:
        return [slice(0, count)]
    return even_blocks(count, 2 * min(max(count // 2048, 1), MOST_PIECES // 2))


def for_pieces(work: Callable[[slice], Any], count: int, width: int = 1) -> None:
    """Call ``work(rows)`` for pieces that cover `count` rows of `width` numbers, on several threads if they pay."""
    share(work, pieces(count, count * width))


class Partial:
    """An array that is a sum over pieces of work: each piece writes its own contribution, and `total` adds them up."""

    def __init__(self, shape: tuple[int, ...], dtype: Any, count: int) -> None:
        self._parts = [np.empty(shape, dtype) for _ in range(count)]

    def __getitem__(self, number: int) -> np.ndarray:
        return self._parts[number]

    def total(self) -> np.ndarray:
        """Return the sum of the contributions, added in their order."""
        return sum_in_order(self._parts)
