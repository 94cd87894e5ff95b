"""Large products of two matrices, or of a batch of rows and a matrix, within ``precision("bf16")``."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tensorlib.arrays.array import Array
from tensorlib.engine.recording import recording
from tensorlib.kernels.numba.bf16 import factors
from tensorlib.kernels.numba.blas import for_blas
from tensorlib.kernels.numba.linear import product_tasks
from tensorlib.kernels.numba.rows import SHARED_PRODUCT
from tensorlib.kernels.numpy.linalg import FEW_ROWS, call_all
from tensorlib.ops.linalg import in_bf16

__all__ = ["product_in_bf16"]


def product_in_bf16(before: Callable[..., Array], x: np.ndarray, y: np.ndarray) -> Array:
    """Return x y, by the kernel `before` unless the product is large and the precision is bf16."""
    if not (in_bf16(x) and in_bf16(y)) or y.ndim != 2 or x.ndim < 2 or x.shape[-1] != len(y):
        return before(x, y)
    if x.size * y.shape[1] < SHARED_PRODUCT or x.size // x.shape[-1] <= FEW_ROWS:
        with recording(precision="float32"):
            return before(x, y)
    z = np.empty((*x.shape[:-1], y.shape[1]), x.dtype)
    x_factor, y_factor = factors(x.reshape(-1, x.shape[-1]), y, make=for_blas)
    call_all(product_tasks(x_factor, y_factor, z.reshape(-1, z.shape[-1])))
    return z
