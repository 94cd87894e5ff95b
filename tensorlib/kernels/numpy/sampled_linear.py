"""Scores of sampled candidates, and their gradients, block by block: the selected rows stay in the cache.

Shape suffixes: N rows, K candidates of each, D width, V rows of the table, U different candidates; E positions of one
candidate, or one position of each of several; lower-case letters are sizes of one block.
"""

from __future__ import annotations

import numpy as np

from tensorlib.arrays.array import Array
from tensorlib.arrays.threads import BLAS
from tensorlib.kernels.numpy.blocks import for_blocks, same_float_dtype
from tensorlib.kernels.numpy.indexing import Occurrences
from tensorlib.ops.sampled_linear import sampled_linear_formula, sampled_linear_gradient


@sampled_linear_formula.register(np.ndarray)
def _sampled_linear_kernel(x: np.ndarray, weight: np.ndarray, ids: np.ndarray) -> Array:
    if not same_float_dtype(x, weight) or not ids.size or not x.size:
        return sampled_linear_formula.dispatch(object)(x, weight, ids)
    x_ND, ids_NK = x.reshape(-1, x.shape[-1]), ids.reshape(-1, ids.shape[-1])
    y_NK = np.empty(ids_NK.shape, x.dtype)

    def block(n: slice) -> None:
        np.vecdot(weight.take(ids_NK[n], axis=0), x_ND[n, None], out=y_NK[n])

    for_blocks(block, len(ids_NK), _row_bytes(ids_NK, weight))
    return y_NK.reshape(ids.shape)


@sampled_linear_gradient.register(np.ndarray)
def _sampled_linear_gradient_kernel(
    dy: np.ndarray, x: np.ndarray, weight: np.ndarray, *, ids: np.ndarray, needs: tuple[bool, ...]
) -> tuple[Array | None, ...]:
    if not same_float_dtype(dy, x, weight) or not ids.size or not x.size:
        return sampled_linear_gradient.dispatch(object)(dy, x, weight, ids=ids, needs=needs)
    dy_NK, x_ND, ids_NK = dy.reshape(-1, ids.shape[-1]), x.reshape(-1, x.shape[-1]), ids.reshape(-1, ids.shape[-1])
    with BLAS:
        dx_ND = _row_gradient(dy_NK, weight, ids_NK) if needs[0] else None
        dweight_VD = _table_gradient(dy_NK, x_ND, ids_NK, len(weight)) if needs[1] else None
    return None if dx_ND is None else dx_ND.reshape(x.shape), dweight_VD


def _row_gradient(dy_NK: np.ndarray, weight_VD: np.ndarray, ids_NK: np.ndarray) -> np.ndarray:
    dx_ND = np.empty((len(dy_NK), weight_VD.shape[1]), dy_NK.dtype)

    def block(n: slice) -> None:
        np.matmul(dy_NK[n, None], weight_VD.take(ids_NK[n], axis=0), out=dx_ND[n, None])

    for_blocks(block, len(dy_NK), _row_bytes(ids_NK, weight_VD))
    return dx_ND


def _table_gradient(dy_NK: np.ndarray, x_ND: np.ndarray, ids_NK: np.ndarray, rows: int) -> np.ndarray:
    """Return the sum of dy x for each row of the table. The products (N, K, D) never exist at once."""
    occurrences = Occurrences(ids_NK, rows)
    dy, candidates = dy_NK.reshape(-1), ids_NK.shape[1]
    sums_UD = np.empty((len(occurrences.found_U), x_ND.shape[1]), x_ND.dtype)
    for total_D, positions_E in zip(sums_UD, occurrences.of_frequent(), strict=False):
        np.matmul(dy[positions_E], x_ND.take(positions_E // candidates, axis=0), out=total_D)
    others_UD = sums_UD[occurrences.many :]
    for nth, positions_E in enumerate(occurrences.nth_of_others()):
        products_ED = x_ND.take(positions_E // candidates, axis=0)
        products_ED *= dy[positions_E, None]
        if nth:
            others_UD[: len(positions_E)] += products_ED
        else:
            others_UD[:] = products_ED
    dweight_VD = np.zeros((rows, x_ND.shape[1]), x_ND.dtype)
    dweight_VD[occurrences.found_U] = sums_UD
    return dweight_VD


def _row_bytes(ids_NK: np.ndarray, weight_VD: np.ndarray) -> int:
    """Return the size of the rows of the table that are selected for one row of ids."""
    return ids_NK.shape[1] * weight_VD.shape[1] * weight_VD.itemsize
