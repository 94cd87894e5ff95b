"""Dropout together with the steps before and after it, in one pass over the result of a product or a sum."""

from __future__ import annotations

from typing import Any

import cupy

from tensorlib.arrays.cuda import THREADS, kernel, seeds
from tensorlib.kernels.cuda.launch import HERE, NOT_SERVED, contiguous, fits, overrides
from tensorlib.ops.dropout import add_dropout_formula, dropout_formula, dropout_scale, dropped_levels


def dropout_pass(
    x: Any, p: float, key: int, draw: int, bias: Any = None, relu: bool = False, residual: Any = None
) -> Any:
    """Return residual + dropout(relu(x + bias)) in one pass; a step whose argument is not given is left out."""
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
    return dropout_pass(x, p, key, draw) if fits(x) else NOT_SERVED


@overrides(add_dropout_formula)
def _add_dropout(x: Any, y: Any, p: float, key: int, draw: int) -> Any:
    return dropout_pass(y, p, key, draw, residual=x) if fits(y, x) else NOT_SERVED
