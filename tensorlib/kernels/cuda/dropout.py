"""Dropout, and bias with ReLU and dropout: one pass over the result of the product."""

from __future__ import annotations

from typing import Any

import cupy

from tensorlib.arrays.cuda import THREADS, kernel, seeds
from tensorlib.kernels.cuda.launch import HERE, NOT_SERVED, contiguous, elementwise, fits, overrides
from tensorlib.ops.dropout import add_dropout_formula, dropout_formula, dropout_scale, dropped_levels
from tensorlib.ops.linalg import product
from tensorlib.ops.linear import linear_relu_formula, linear_relu_gradient


def _after_product(
    x: Any, p: float, key: int, draw: int, bias: Any = None, relu: bool = False, residual: Any = None
) -> Any:
    """Return residual + dropout(relu(x + bias)), in one pass; what is not given is left out."""
    x, y = contiguous(x), cupy.empty(x.shape, x.dtype)
    levels, scale = (dropped_levels(p), dropout_scale(p)) if p else (0, 1.0)
    width = x.shape[-1] if x.ndim else 1
    arguments = (
        x, x.size, 0 if bias is None else contiguous(bias), width, relu, cupy.uint32(levels), scale, *seeds(key, draw),
        0 if residual is None else contiguous(residual), y,
    )  # fmt: skip
    blocks = -(-x.size // (16 * THREADS))
    kernel(HERE / "dropout.cu", "dropout", x.dtype.char)((blocks,), (THREADS,), arguments)
    return y


@overrides(dropout_formula)
def _dropout(x: Any, p: float, key: int, draw: int) -> Any:
    return _after_product(x, p, key, draw) if fits(x) else NOT_SERVED


@overrides(add_dropout_formula)
def _add_dropout(x: Any, y: Any, p: float, key: int, draw: int) -> Any:
    return _after_product(y, p, key, draw, residual=x) if fits(y, x) else NOT_SERVED


@overrides(linear_relu_formula)
def _linear_relu(x: Any, weight: Any, bias: Any, p: float, key: int, draw: int) -> Any:
    if not fits(x, weight, *([] if bias is None else [bias])):
        return NOT_SERVED
    z = product(x, weight)
    return _after_product(z, p, key, draw, bias=bias, relu=True) if z.size else z


@overrides(linear_relu_gradient)
def _linear_relu_gradient(dy: Any, y: Any, scale: float) -> Any:
    if not fits(y, dy):
        return NOT_SERVED
    return elementwise("T dy, T y, T scale", "T dz", "dz = y <= 0 ? 0 : dy * scale")(dy, y, scale)
