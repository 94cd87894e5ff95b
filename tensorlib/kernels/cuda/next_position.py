"""Decoding: the likeliest tokens of many rows, without sorting, and rows of a cache in another order, in place."""

from __future__ import annotations

from typing import Any

import cupy

from tensorlib.arrays.cuda import THREADS
from tensorlib.kernels.cuda.launch import (
    NOT_SERVED,
    WARP,
    contiguous,
    fits,
    fits_by_rows,
    kernel,
    on_current_device,
    overrides,
)
from tensorlib.ops.next_position import largest_and_total, reorder_rows

_MOST = 128  # 8 are found in a pass, so that from here on sorting takes less
_THREADS = 512
_MOST_ROWS = 16  # of a source, which a thread of `reorder_rows` holds
_MOST_SOURCES = 65_535  # blocks along the second axis of a grid


@overrides(largest_and_total)
def _largest_and_total(logits_RV: Any, count: int) -> Any:
    rows, width = logits_RV.shape
    if not fits_by_rows(logits_RV) or not 0 < count <= min(width, _MOST) or width >= 2**31 - _THREADS:
        return NOT_SERVED
    dtype = logits_RV.dtype
    best_RC, columns_RC = (cupy.empty((rows, count), kind) for kind in (dtype, "int64"))
    total_R = cupy.empty(rows, dtype)
    largest = kernel("next_position.cu", "largest_and_total", dtype.char)
    threads = min(_THREADS, -(-width // WARP) * WARP)
    largest((rows,), (threads,), (contiguous(logits_RV), width, count, best_RC, columns_RC, total_R))
    return best_RC, columns_RC, total_R


@overrides(reorder_rows)
def _reorder_rows(kept_RHLK: Any, row_R: Any, position: Any, beam: int) -> Any:
    rows, heads, positions, width = kept_RHLK.shape
    sources, inner = rows // beam, heads * positions * width
    indices = row_R.dtype == position.dtype == "int64" and on_current_device(row_R, position)
    if not (
        fits(kept_RHLK) and indices and kept_RHLK.flags.c_contiguous and beam <= _MOST_ROWS and sources <= _MOST_SOURCES
    ):
        return NOT_SERVED
    reorder = kernel("next_position.cu", "reorder_rows", kept_RHLK.dtype.char)
    arguments = (kept_RHLK, contiguous(row_R), contiguous(position), beam, positions, width, inner)
    reorder((-(-inner // THREADS), sources), (THREADS,), arguments)
    return None
