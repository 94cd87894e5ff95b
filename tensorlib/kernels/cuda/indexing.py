"""The gradient of an embedding: rows summed by id in a fixed order, without a count on the host."""

from __future__ import annotations

import math
from typing import Any

import cupy

from tensorlib.arrays.cuda import kernel
from tensorlib.kernels.cuda.launch import HERE, NOT_SERVED, WARP, contiguous, fits, on_current_device, overrides
from tensorlib.ops.indexing import sum_rows_formula

MOST_COMPARED = 1 << 16  # ids sorted by comparing all pairs; above, sorting proper is faster
RANKED = 16  # positions of a block of 4 warps; as in indexing.cu, like the next two
CHUNK = 16
COLUMNS = 128
MOST_TILES = 65_535  # the most blocks along the second axis of a grid


@overrides(sum_rows_formula)
def _sum_rows(x: Any, ids: Any, rows: int) -> Any:
    width = math.prod(x.shape[ids.ndim :])
    if not fits(x) or not on_current_device(ids) or not rows or width > WARP * MOST_TILES:
        return NOT_SERVED
    x, count, kind = contiguous(x), ids.size, x.dtype.char
    y = cupy.zeros((rows, *x.shape[ids.ndim :]), x.dtype)
    order, ordered = sort_ids(contiguous(ids, cupy.int64), rows)
    chunks = -(-count // CHUNK)
    parts = cupy.empty((chunks, 2, width), x.dtype)
    launch = kernel(HERE / "indexing.cu", "sum_chunks", kind)
    launch((chunks, -(-width // COLUMNS)), (COLUMNS,), (x, order, ordered, count, width, y, parts))
    if chunks > 1:
        launch = kernel(HERE / "indexing.cu", "join_chunks", kind)
        launch((chunks, -(-width // WARP)), (WARP, 8), (parts, ordered, count, width, y))
    return y


def sort_ids(ids: Any, rows: int) -> tuple[Any, Any]:
    """Return a stable argsort of ids, flattened, and the ids in this order."""
    count = ids.size
    if count > MOST_COMPARED:
        flat = ids.reshape(-1) % rows
        order = cupy.argsort(flat, kind="stable")
        return order, flat[order]
    order, ordered = cupy.empty(count, cupy.int64), cupy.empty(count, cupy.int64)
    launch = kernel(HERE / "indexing.cu", "sort_ids")
    launch((-(-count // RANKED),), (4 * WARP,), (ids, count, rows, order, ordered))
    return order, ordered
