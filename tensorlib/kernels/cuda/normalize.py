"""Layer normalization: by `add_norm.py`; wider rows, which do not fit in registers, by a block of threads each."""

from __future__ import annotations

import math
from typing import Any

import cupy

from tensorlib.kernels.cuda.add_norm import NO_DROPOUT, WIDEST, gradient_pass, norm_pass
from tensorlib.kernels.cuda.columns import sum_parts
from tensorlib.kernels.cuda.launch import NOT_SERVED, WARP, by_rows, contiguous, fits_by_rows, kernel, overrides
from tensorlib.ops.normalize import layer_norm_formula, layer_norm_gradient


@overrides(layer_norm_formula)
def _layer_norm(x: Any, weight: Any, bias: Any, eps: float) -> Any:
    if not fits_by_rows(x, weight, bias):
        return NOT_SERVED
    if x.shape[-1] <= WIDEST:
        return norm_pass(x, None, weight, bias, eps, NO_DROPOUT)
    width, y = x.shape[-1], cupy.empty(x.shape, x.dtype)
    mean, rstd = (cupy.empty((*x.shape[:-1], 1), x.dtype) for _ in range(2))
    arguments = (contiguous(x), contiguous(weight), contiguous(bias), width, float(eps), y, mean, rstd)
    by_rows("layer_norm.cu", "layer_norm", x.dtype.char, x.size // width, width, arguments)
    return y, (mean, rstd)


@overrides(layer_norm_gradient)
def _layer_norm_gradient(dy: Any, x: Any, weight: Any, mean: Any, rstd: Any, needs: tuple[bool, ...]) -> Any:
    if not fits_by_rows(x, dy, weight, mean, rstd):
        return NOT_SERVED
    if x.shape[-1] <= WIDEST and any(needs):
        dx, _, *of_row = gradient_pass(dy, x, None, weight, (mean, rstd), NO_DROPOUT, (needs[0], False, *needs[1:]))
        return dx, *of_row
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
        parts = cupy.empty((chunks, 2 * width), x.dtype)
        columns = kernel("layer_norm.cu", "layer_norm_columns", kind)
        columns((-(-width // WARP), chunks), (WARP, 8), (dy, x, mean, rstd, rows, width, chunk, parts))
        sums = sum_parts(parts).reshape(2, width)
    return dx, sums[0] if needs[1] else None, sums[1] if needs[2] else None
