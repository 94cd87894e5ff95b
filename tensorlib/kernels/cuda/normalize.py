"""Layer normalization: one block of threads for each row; sums over rows are computed in chunks of rows."""

from __future__ import annotations

import math
from typing import Any

import cupy

from tensorlib.arrays.cuda import kernel
from tensorlib.kernels.cuda.launch import HERE, NOT_SERVED, WARP, by_rows, contiguous, fits_by_rows, overrides
from tensorlib.ops.normalize import layer_norm_formula, layer_norm_gradient


@overrides(layer_norm_formula)
def _layer_norm(x: Any, weight: Any, bias: Any, eps: float) -> Any:
    if not fits_by_rows(x, weight, bias):
        return NOT_SERVED
    width, y = x.shape[-1], cupy.empty(x.shape, x.dtype)
    mean, rstd = (cupy.empty((*x.shape[:-1], 1), x.dtype) for _ in range(2))
    arguments = (contiguous(x), contiguous(weight), contiguous(bias), width, float(eps), y, mean, rstd)
    by_rows("layer_norm.cu", "layer_norm", x.dtype.char, x.size // width, width, arguments)
    return y, (mean, rstd)


@overrides(layer_norm_gradient)
def _layer_norm_gradient(dy: Any, x: Any, weight: Any, mean: Any, rstd: Any, needs: tuple[bool, ...]) -> Any:
    if not fits_by_rows(x, dy, weight, mean, rstd):
        return NOT_SERVED
    dy, x, mean, rstd = (contiguous(a) for a in (dy, x, mean, rstd))
    kind, width, dx, sums = x.dtype.char, x.shape[-1], None, (None, None)
    rows = x.size // width
    if needs[0]:
        dx = cupy.empty(x.shape, x.dtype)
        arguments = (dy, x, contiguous(weight), mean, rstd, width, dx)
        by_rows("layer_norm.cu", "layer_norm_gradient", kind, rows, width, arguments)
    if needs[1] or needs[2]:
        chunk = max(32, math.isqrt(rows))
        chunks = -(-rows // chunk)
        parts = cupy.empty((chunks, 2, width), x.dtype)
        columns = kernel(HERE / "layer_norm.cu", "layer_norm_columns", kind)
        columns((-(-width // WARP), chunks), (WARP, 8), (dy, x, mean, rstd, rows, width, chunk, parts))
        sums = parts.sum(axis=0) if chunks > 1 else parts[0]
    return dx, sums[0] if needs[1] else None, sums[1] if needs[2] else None
