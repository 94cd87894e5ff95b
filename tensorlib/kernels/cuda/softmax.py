"""Softmax: one block of threads for each row."""

from __future__ import annotations

from typing import Any

import cupy

from tensorlib.kernels.cuda.launch import NOT_SERVED, by_rows, contiguous, fits_by_rows, on_current_device, overrides
from tensorlib.ops.softmax import softmax_formula, softmax_gradient


@overrides(softmax_formula)
def _softmax(x: Any, axis: int, visible: Any) -> Any:
    if (
        not fits_by_rows(x)
        or axis not in (-1, x.ndim - 1)
        or x.ndim > 4
        or not (visible is None or on_current_device(visible))
    ):
        return NOT_SERVED
    width = x.shape[-1]
    if visible is None:
        mask: tuple[Any, ...] = (0, 1, 1, 0, 0, 0, 0)
    else:  # the kernel expects three axes before the last; axes that x lacks have size 1
        visible = cupy.broadcast_to(visible, x.shape)
        missing = (0,) * (4 - x.ndim)
        sizes, strides = (*(1 for _ in missing), *x.shape), (*missing, *visible.strides)
        mask = (visible, sizes[1], sizes[2], *strides)
    x, y = contiguous(x), cupy.empty(x.shape, x.dtype)
    by_rows("softmax.cu", "softmax", x.dtype.char, x.size // width, width, (x, width, *mask, y))
    return y


@overrides(softmax_gradient)
def _softmax_gradient(dy: Any, y: Any, axis: int) -> Any:
    if not fits_by_rows(y, dy) or axis not in (-1, y.ndim - 1):
        return NOT_SERVED
    width, dx = y.shape[-1], cupy.empty(y.shape, y.dtype)
    arguments = (contiguous(dy), contiguous(y), width, dx)
    by_rows("softmax.cu", "softmax_gradient", y.dtype.char, y.size // width, width, arguments)
    return dx
