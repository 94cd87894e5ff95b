"""The gradient of an embedding: rows summed by id, without a loop over rows and in a fixed order."""

from __future__ import annotations

import numpy as np

from tensorlib.ops.indexing import sum_rows_formula

FEW = 8  # if an id occurs more often than this, its rows are summed by a separate call


@sum_rows_formula.register(np.ndarray)
def _sum_rows_kernel(x: np.ndarray, ids: np.ndarray, rows: int) -> np.ndarray:
    flat = ids.reshape(-1)
    y = np.zeros((rows, *x.shape[ids.ndim :]), x.dtype)
    if not flat.size:
        return y
    x = x.reshape(flat.size, *y.shape[1:])
    order = np.argsort(flat, kind="stable")
    ordered = flat[order]
    starts = np.flatnonzero(np.concatenate((np.ones(1, bool), ordered[1:] != ordered[:-1])))
    counts = np.diff(starts, append=flat.size)
    found = ordered[starts]
    few = counts <= FEW
    y[found[few]] = x[order[starts[few]]]
    for nth in range(1, FEW):  # add the nth occurrence of each id: within one addition no id occurs twice
        more = few & (counts > nth)
        if not more.any():
            break
        y[found[more]] += x[order[starts[more] + nth]]
    for i in np.flatnonzero(~few):
        y[found[i]] = x[order[starts[i] : starts[i] + counts[i]]].sum(axis=0)
    return y
