"""The gradients of embeddings and of integer indices: rows summed by id in a fixed order, without a count on the host.

CuPy's own additions at indices are atomic, so their last bits differ from run to run.
"""

from __future__ import annotations

import math
from typing import Any

import cupy

from tensorlib.arrays.capturing import current_capture
from tensorlib.kernels.cuda.launch import NOT_SERVED, WARP, contiguous, fits, kernel, on_current_device, overrides
from tensorlib.ops.indexing import as_tuple, scatter_add_formula, sum_rows_formula

MOST_COMPARED = 12_288  # ids sorted by comparing all pairs; above, sorting proper is faster (an estimate)
MOST_RECORDED = 1 << 16  # in a recorded step, since CuPy does not promise that its own sort can be captured
RANKED = 16  # positions of a block of 4 warps; as in indexing.cu, like the next two
CHUNK = 16
COLUMNS = 128
MOST_TILES = 65_535  # the most blocks along the second axis of a grid


@overrides(sum_rows_formula)
def _sum_rows(x: Any, ids: Any, rows: int) -> Any:
    return sum_by_id(x, ids, rows) if _serves(x, ids, rows) else NOT_SERVED


@overrides(scatter_add_formula)
def _scatter_add(x: Any, index: Any, shape: tuple[int, ...]) -> Any:
    """Serve arrays of integers for the first axes, and one such array for any axis."""
    parts = as_tuple(index)
    first = next(i for i, part in enumerate(parts) if not isinstance(part, slice))
    if not all(isinstance(p, cupy.ndarray) and p.dtype.kind in "iu" for p in parts[first:]) or not x.size:
        return NOT_SERVED
    if any(part != slice(None) for part in parts[:first]) or (first and len(parts) > first + 1):
        return NOT_SERVED
    ids, *others = parts[first:]
    if others:  # positions in these axes folded into one
        ids = ids.astype(cupy.int64) % shape[0]
        for part, size in zip(others, shape[1:], strict=False):
            ids = ids * size + part.astype(cupy.int64) % size
    rows = math.prod(shape[first : len(parts)])
    x = cupy.moveaxis(x, tuple(range(first, first + ids.ndim)), tuple(range(ids.ndim)))
    if not _serves(x, ids, rows):
        return NOT_SERVED
    y = sum_by_id(x, ids, rows)
    return cupy.moveaxis(y, 0, first) if first else y.reshape(shape)


def _serves(x: Any, ids: Any, rows: int) -> bool:
    width = math.prod(x.shape[ids.ndim :])
    return fits(x) and on_current_device(ids) and rows > 0 and width <= WARP * MOST_TILES


def sum_by_id(x: Any, ids: Any, rows: int) -> Any:
    """Return y (rows, ...): y[v] = sum of the rows of x (*ids.shape, ...) whose id is v."""
    width = math.prod(x.shape[ids.ndim :])
    x, count, kind = contiguous(x), ids.size, x.dtype.char
    y = cupy.zeros((rows, *x.shape[ids.ndim :]), x.dtype)
    order, ordered = sort_ids(contiguous(ids, cupy.int64), rows)
    chunks = -(-count // CHUNK)
    parts = cupy.empty((chunks, 2, width), x.dtype)
    launch = kernel("indexing.cu", "sum_chunks", kind)
    launch((chunks, -(-width // COLUMNS)), (COLUMNS,), (x, order, ordered, count, width, y, parts))
    if chunks > 1:
        launch = kernel("indexing.cu", "join_chunks", kind)
        launch((chunks, -(-width // WARP)), (WARP, 8), (parts, ordered, count, width, y))
    return y


def sort_ids(ids: Any, rows: int) -> tuple[Any, Any]:
    """Return a stable argsort of ids, flattened, and the ids in this order."""
    count = ids.size
    if count > (MOST_COMPARED if current_capture() is None else MOST_RECORDED):
        flat = ids.reshape(-1) % rows
        order = cupy.argsort(flat, kind="stable")
        return order, flat[order]
    order, ordered = cupy.empty(count, cupy.int64), cupy.empty(count, cupy.int64)
    launch = kernel("indexing.cu", "sort_ids")
    launch((-(-count // RANKED),), (4 * WARP,), (ids, count, rows, order, ordered))
    return order, ordered
