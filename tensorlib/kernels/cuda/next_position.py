"""The likeliest tokens of many rows: one block of threads for each row, which reads it twice and sorts nothing."""

from __future__ import annotations

from typing import Any

import cupy

from tensorlib.arrays.cuda import kernel
from tensorlib.kernels.cuda.launch import HERE, NOT_SERVED, WARP, contiguous, fits_by_rows, overrides
from tensorlib.ops.next_position import largest_and_total

_MOST = 128  # 8 are found in a pass, so that from here on sorting takes less
_THREADS = 512


@overrides(largest_and_total)
def _largest_and_total(logits_RV: Any, count: int) -> Any:
    rows, width = logits_RV.shape
    if not fits_by_rows(logits_RV) or not 0 < count <= min(width, _MOST) or width >= 2**31 - _THREADS:
        return NOT_SERVED
    dtype = logits_RV.dtype
    best_RC, columns_RC = (cupy.empty((rows, count), kind) for kind in (dtype, "int64"))
    total_R = cupy.empty(rows, dtype)
    largest = kernel(HERE / "next_position.cu", "largest_and_total", dtype.char)
    threads = min(_THREADS, -(-width // WARP) * WARP)
    largest((rows,), (threads,), (contiguous(logits_RV), width, count, best_RC, columns_RC, total_R))
    return best_RC, columns_RC, total_R
